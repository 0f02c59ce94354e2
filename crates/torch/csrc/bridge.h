// What every file of the bridge shares: how a C++ exception becomes an error that Rust can return, and the list of
// tensors that both sides hold.
//
// The rules of the bridge: functions are `extern "C"` and `noexcept`, are named `fulgurite_*`, and return nullptr, or
// a message made with malloc that Rust frees. Results go out through pointers. A `const at::Tensor *` is what
// `tch::Tensor::as_ptr()` gives and is never owned here; an `at::Tensor *` handed out is made with `new`, as tch does,
// and tch deletes it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

// Owned by Rust's `TensorList`.
struct FulguriteTensorList {
  std::vector<at::Tensor> tensors;
};

namespace fulgurite {

using Error = char *;

// The message of an exception, with the functions that it came through where PyTorch would show them.
inline const char *message_of(const c10::Error &error) {
  const char *shows = std::getenv("TORCH_SHOW_CPP_STACKTRACES");
  return shows != nullptr && std::strcmp(shows, "1") == 0 ? error.what() : error.what_without_backtrace();
}

// Runs `body`; the message of what it throws, or nullptr.
template <typename Body>
Error protect(Body &&body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(message_of(error));
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception that is not a std::exception");
  }
}

}  // namespace fulgurite
