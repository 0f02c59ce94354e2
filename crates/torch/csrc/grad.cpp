// Gradients of many parameters at once, and the modes that surround a step.
#include "bridge.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_foreach_clamp_max.h>
#include <ATen/ops/_foreach_clamp_min.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/add.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/anomaly_mode.h>

using fulgurite::Error;
using fulgurite::protect;
using torch::autograd::AnomalyMode;

namespace {

// The gradients there are, in groups of one device and one kind: what a foreach kernel takes at once.
std::vector<std::vector<at::Tensor>> gradients(const at::Tensor *const *parameters, size_t count) {
  std::vector<std::vector<at::Tensor>> groups;
  for (size_t i = 0; i < count; ++i) {
    const at::Tensor &grad = parameters[i]->grad();
    if (!grad.defined()) continue;
    auto group = groups.begin();
    while (group != groups.end() &&
           (group->front().device() != grad.device() || group->front().scalar_type() != grad.scalar_type())) {
      ++group;
    }
    if (group == groups.end()) {
      groups.emplace_back();
      groups.back().reserve(count - i);
      group = groups.end() - 1;
    }
    group->push_back(grad);
  }
  return groups;
}

// PyTorch clips no sparse gradients either, and says so at length.
void refuse_sparse(const std::vector<std::vector<at::Tensor>> &groups) {
  for (const auto &group : groups)
    for (const at::Tensor &grad : group)
      TORCH_CHECK(!grad.is_sparse(), "sparse gradients have no norm that is known, and cannot be clipped; build the embedding "
                  "with sparse: false, or clip without its weight");
}

// A sparse gradient is what its values are, once each index stands there once.
void scale_sparse_as_values(std::vector<std::vector<at::Tensor>> &groups) {
  for (auto &group : groups)
    for (at::Tensor &grad : group)
      if (grad.is_sparse()) grad = grad._values();
}

// The norm of all gradients together; nothing of it is read by the host.
at::Tensor total_norm(const std::vector<std::vector<at::Tensor>> &groups, double norm_type) {
  if (groups.empty()) return at::zeros({});
  refuse_sparse(groups);
  const at::Device device = groups.front().front().device();
  std::vector<at::Tensor> norms;
  for (const auto &group : groups) {
    for (at::Tensor &norm : at::_foreach_norm(group, norm_type)) norms.push_back(norm.to(device));
  }
  return at::linalg_vector_norm(at::stack(norms), norm_type);
}

}  // namespace

extern "C" {

Error fulgurite_backward(const at::Tensor *loss) noexcept {
  return protect([&] { loss->backward(); });
}

Error fulgurite_clip_grad_norm(const at::Tensor *const *parameters, size_t count, double max_norm, double norm_type,
                               at::Tensor **out) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    auto groups = gradients(parameters, count);
    at::Tensor norm = total_norm(groups, norm_type);
    // Python computes `max_norm / x` as `x.reciprocal() * max_norm`, which rounds differently than a division.
    at::Tensor factor = at::clamp(at::mul(at::reciprocal(at::add(norm, 1e-6)), max_norm), c10::nullopt, 1.0);
    for (const auto &group : groups) at::_foreach_mul_(group, factor.to(group.front().device()));
    *out = new at::Tensor(std::move(norm));
  });
}

Error fulgurite_grad_norm(const at::Tensor *const *parameters, size_t count, double norm_type,
                          at::Tensor **out) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    *out = new at::Tensor(total_norm(gradients(parameters, count), norm_type));
  });
}

Error fulgurite_clip_grad_value(const at::Tensor *const *parameters, size_t count, double clip_value) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    const auto groups = gradients(parameters, count);
    refuse_sparse(groups);
    for (const auto &group : groups) {
      at::_foreach_clamp_min_(group, -clip_value);
      at::_foreach_clamp_max_(group, clip_value);
    }
  });
}

Error fulgurite_scale_grads(const at::Tensor *const *parameters, size_t count, double factor) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    auto groups = gradients(parameters, count);
    scale_sparse_as_values(groups);
    for (const auto &group : groups) at::_foreach_mul_(group, factor);
  });
}

// Divides all gradients by `scale`, a float of no dimensions. `out` is a float like it, and is not 0 if a gradient was
// infinite or NaN; nothing of it is read by the host. `count` is how many gradients there were.
Error fulgurite_unscale_grads(const at::Tensor *const *parameters, size_t count, const at::Tensor *scale,
                              at::Tensor **out, size_t *checked) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    auto groups = gradients(parameters, count);
    for (const auto &group : groups)
      TORCH_CHECK(group.front().scalar_type() != at::kHalf,
                  "gradients of 16 bits cannot be unscaled without loss; keep the parameters in 32 bits");
    scale_sparse_as_values(groups);
    // As PyTorch computes it: a reciprocal in 32 bits is not exact on every device.
    at::Tensor inverse = scale->is_mps() ? scale->reciprocal() : scale->to(at::kDouble).reciprocal().to(at::kFloat);
    at::Tensor found = at::zeros({}, scale->options());
    *checked = 0;
    for (const auto &group : groups) {
      const at::Device device = group.front().device();
      at::Tensor here = found.to(device, /*non_blocking=*/true, /*copy=*/device != found.device());
      at::_amp_foreach_non_finite_check_and_unscale_(group, here, inverse.to(device, /*non_blocking=*/true));
      if (device != found.device()) found.add_(here.to(found.device(), /*non_blocking=*/true));
      *checked += group.size();
    }
    *out = new at::Tensor(std::move(found));
  });
}

Error fulgurite_zero_grad(const at::Tensor *const *parameters, size_t count) noexcept {
  return protect([&] {
    for (size_t i = 0; i < count; ++i) {
      if (parameters[i]->grad().defined()) parameters[i]->mutable_grad().reset();
    }
  });
}

// An undefined `grad` drops the gradient.
Error fulgurite_set_grad(const at::Tensor *parameter, const at::Tensor *grad) noexcept {
  return protect([&] {
    TORCH_CHECK(!grad->defined() || grad->sizes() == parameter->sizes(), "the gradient has the shape ", grad->sizes(),
                ", its parameter ", parameter->sizes());
    parameter->mutable_grad() = grad->defined() ? grad->to(parameter->options()) : at::Tensor();
  });
}

c10::InferenceMode *fulgurite_inference_mode_enter() noexcept { return new (std::nothrow) c10::InferenceMode(true); }

void fulgurite_inference_mode_leave(c10::InferenceMode *guard) noexcept { delete guard; }

bool fulgurite_inference_mode_is_enabled() noexcept { return c10::InferenceMode::is_enabled(); }

bool fulgurite_grad_mode_is_enabled() noexcept { return c10::GradMode::is_enabled(); }

void fulgurite_grad_mode_set(bool enabled) noexcept { c10::GradMode::set_enabled(enabled); }

// Bit 0: enabled, bit 1: gradients are checked for NaN. Returns what was set before.
int fulgurite_anomaly_mode_set(int mode) noexcept {
  int before = (AnomalyMode::is_enabled() ? 1 : 0) | (AnomalyMode::should_check_nan() ? 2 : 0);
  AnomalyMode::set_enabled((mode & 1) != 0, (mode & 2) != 0);
  return before;
}

Error fulgurite_set_deterministic_algorithms(bool enabled, bool warn_only) noexcept {
  return protect([&] { at::globalContext().setDeterministicAlgorithms(enabled, warn_only); });
}

bool fulgurite_deterministic_algorithms() noexcept { return at::globalContext().deterministicAlgorithms(); }

bool fulgurite_deterministic_algorithms_warn_only() noexcept {
  return at::globalContext().deterministicAlgorithmsWarnOnly();
}

void fulgurite_set_cudnn_benchmark(bool enabled) noexcept { at::globalContext().setBenchmarkCuDNN(enabled); }

bool fulgurite_cudnn_benchmark() noexcept { return at::globalContext().benchmarkCuDNN(); }

}  // extern "C"
