// Storages: the memory below tensors, which files keep apart from them.
#include "bridge.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

using fulgurite::Error;
using fulgurite::protect;

extern "C" {

// All elements of the storage of `tensor`, in one dimension, sharing its memory.
Error fulgurite_whole_storage(const at::Tensor *tensor, at::Tensor **out) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    const c10::Storage &storage = tensor->storage();
    int64_t numel = static_cast<int64_t>(storage.nbytes() / tensor->element_size());
    at::Tensor whole = at::empty({0}, tensor->options());
    whole.set_(storage, 0, {numel}, {1});
    *out = new at::Tensor(std::move(whole));
  });
}

Error fulgurite_storage_offset(const at::Tensor *tensor, int64_t *out) noexcept {
  return protect([&] { *out = tensor->storage_offset(); });
}

// Makes `target` a view of the storage of `source`. The caller has checked that it stays inside.
Error fulgurite_set_storage(const at::Tensor *target, const at::Tensor *source, int64_t offset, const int64_t *size,
                            const int64_t *stride, size_t dims) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    target->set_(source->storage(), offset, at::IntArrayRef(size, dims), at::IntArrayRef(stride, dims));
  });
}

// A tensor of bytes over memory that belongs to `owner`, which `release` takes back after the last use.
Error fulgurite_bytes_of(void *memory, int64_t size, void *owner, void (*release)(void *), at::Tensor **out) noexcept {
  return protect([&] {
    *out = new at::Tensor(
        at::from_blob(memory, {size}, [owner, release](void *) { release(owner); }, at::TensorOptions(at::kByte)));
  });
}

}  // extern "C"
