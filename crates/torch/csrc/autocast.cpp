// Mixed precision: libtorch's autocast on this thread, and the kernels of a gradient scaler. The gradients themselves are
// unscaled in grad.cpp.
#include "bridge.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/_amp_update_scale.h>

using fulgurite::Error;
using fulgurite::protect;

// What autocast was for a type of device before a region, and is to be again after it. The same fields as in autocast.rs.
struct FulguriteAutocast {
  int32_t device, dtype;
  bool enabled, cache;
};

extern "C" {

// Begins a region as `wanted` says, and writes what was before into `before`. A dtype of -1 leaves the one there is.
Error fulgurite_autocast_enter(const FulguriteAutocast *wanted, FulguriteAutocast *before) noexcept {
  return protect([&] {
    const auto type = static_cast<at::DeviceType>(wanted->device);
    before->device = wanted->device;
    before->enabled = at::autocast::is_autocast_enabled(type);
    before->dtype = static_cast<int32_t>(at::autocast::get_autocast_dtype(type));
    before->cache = at::autocast::is_autocast_cache_enabled();
    at::autocast::set_autocast_enabled(type, wanted->enabled);
    if (wanted->dtype >= 0) at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(wanted->dtype));
    at::autocast::set_autocast_cache_enabled(wanted->cache);
    at::autocast::increment_nesting();
  });
}

// Casts of weights are forgotten when the outermost region ends.
Error fulgurite_autocast_leave(const FulguriteAutocast *before) noexcept {
  return protect([&] {
    const auto type = static_cast<at::DeviceType>(before->device);
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type, before->enabled);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(before->dtype));
    at::autocast::set_autocast_cache_enabled(before->cache);
  });
}

// The dtype of a region on this thread, or -1 outside one.
Error fulgurite_autocast_dtype(int device, int *out) noexcept {
  return protect([&] {
    const auto type = static_cast<at::DeviceType>(device);
    *out = at::autocast::is_autocast_enabled(type) ? static_cast<int>(at::autocast::get_autocast_dtype(type)) : -1;
  });
}

// One step of a gradient scaler: `scale` shrinks where `found_inf` is not zero, and grows after `interval` steps in a
// row without. Nothing is read by the host.
Error fulgurite_amp_update_scale(const at::Tensor *scale, const at::Tensor *growth_tracker,
                                 const at::Tensor *found_inf, double growth_factor, double backoff_factor,
                                 int64_t interval) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    at::Tensor to = *scale, tracker = *growth_tracker;
    at::_amp_update_scale_(to, tracker, found_inf->to(to.device(), /*non_blocking=*/true), growth_factor, backoff_factor,
                           interval);
  });
}

}  // extern "C"
