// Identity of tensors, and lists of them.
#include "bridge.h"

using fulgurite::Error;
using fulgurite::protect;

extern "C" {

void fulgurite_error_free(Error error) noexcept { std::free(error); }

size_t fulgurite_tensor_id(const at::Tensor *tensor) noexcept {
  return reinterpret_cast<size_t>(tensor->unsafeGetTensorImpl());
}

// The address of the storage that the tensor is a view of: equal for tensors that share memory.
Error fulgurite_storage_id(const at::Tensor *tensor, size_t *out) noexcept {
  return protect([&] { *out = reinterpret_cast<size_t>(tensor->storage().unsafeGetStorageImpl()); });
}

// Whether this handle is the only one of its tensor, and its tensor the only one of its memory.
bool fulgurite_is_exclusive(const at::Tensor *tensor) noexcept {
  return tensor->use_count() == 1 && tensor->has_storage() && tensor->storage().use_count() == 1;
}

FulguriteTensorList *fulgurite_list_new() noexcept { return new (std::nothrow) FulguriteTensorList(); }

void fulgurite_list_free(FulguriteTensorList *list) noexcept { delete list; }

void fulgurite_list_clear(FulguriteTensorList *list) noexcept { list->tensors.clear(); }

size_t fulgurite_list_len(const FulguriteTensorList *list) noexcept { return list->tensors.size(); }

Error fulgurite_list_push(FulguriteTensorList *list, const at::Tensor *tensor) noexcept {
  return protect([&] { list->tensors.push_back(*tensor); });
}

Error fulgurite_list_get(const FulguriteTensorList *list, size_t index, at::Tensor **out) noexcept {
  return protect([&] { *out = new at::Tensor(list->tensors.at(index)); });
}

}  // extern "C"
