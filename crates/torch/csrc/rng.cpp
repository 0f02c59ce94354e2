// Seeds and states of libtorch's random number generators.
#include "bridge.h"

#include <ATen/Context.h>
#include <ATen/core/Generator.h>

#include <mutex>

using fulgurite::Error;
using fulgurite::protect;

namespace {

// The default generator of CUDA device `index`, or of the CPU if it is negative.
const at::Generator &generator(int index) {
  return at::globalContext().defaultGenerator(index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, index));
}

}  // namespace

extern "C" {

// Seeds the CPU and every accelerator there is.
Error fulgurite_manual_seed(uint64_t seed) noexcept {
  return protect([&] { at::manual_seed(seed); });
}

Error fulgurite_rng_get_state(int index, at::Tensor **out) noexcept {
  return protect([&] {
    at::Generator source = generator(index);
    std::lock_guard<std::mutex> lock(source.mutex());
    *out = new at::Tensor(source.get_state());
  });
}

Error fulgurite_rng_set_state(int index, const at::Tensor *state) noexcept {
  return protect([&] {
    at::Generator target = generator(index);
    std::lock_guard<std::mutex> lock(target.mutex());
    target.set_state(*state);
  });
}

}  // extern "C"
