// Batch normalization over the batches of all ranks: PyTorch's SyncBatchNorm, put under `aten::batch_norm`.
#include "distributed.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/batch_norm_native.h>
#include <ATen/ops/batch_norm_update_stats.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/instance_norm_native.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/library.h>

#include <memory>
#include <mutex>
#include <optional>

using fulgurite::Error;
using fulgurite::protect;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

using Maybe = std::optional<at::Tensor>;

// The ranks whose batches count as one.
struct Scope : torch::CustomClassHolder {
  Scope(const FulguriteGroup &group) : group_(group.group), debug_(group.debug) {}

  int size() const { return group_->getSize(); }

  // What every rank sends, one row for each.
  at::Tensor gather(at::Tensor sent) const {
    at::Tensor received = at::empty({size(), sent.numel()}, sent.options());
    std::vector<at::Tensor> inputs{sent};
    std::vector<std::vector<at::Tensor>> outputs{received.unbind(0)};
    exchange(sent, [&](c10d::Backend &backend) { return backend.allgather(outputs, inputs); });
    return received;
  }

  // The sum of what all ranks send, in place.
  void add_up(at::Tensor &sent) const {
    std::vector<at::Tensor> tensors{sent};
    exchange(sent, [&](c10d::Backend &backend) { return backend.allreduce(tensors); });
  }

 private:
  template <typename Start>
  void exchange(const at::Tensor &sent, Start &&start) const {
    try {
      const c10::intrusive_ptr<c10d::Backend> backend = group_->getBackend(sent.device().type());
      c10::intrusive_ptr<c10d::Work> work;
      {
        std::unique_lock<std::mutex> lock(fulgurite::beginning(), std::defer_lock);
        // With a talk, the other ranks may be threads of this process that want to begin too.
        if (!debug_) lock.lock();
        work = start(*backend);
      }
      TORCH_CHECK(work->wait(), "it was aborted");
    } catch (const c10::Error &error) {
      fail(error.what_without_backtrace());
    } catch (const std::exception &error) {
      fail(error.what());
    }
  }

  [[noreturn]] void fail(const char *reason) const {
    TORCH_CHECK(false, "rank ", group_->getRank(), ": a batch norm could not be synchronized with the other ",
                size() - 1, " ranks (", reason,
                "); every rank has to run the same batch norms in the same order in every training step");
  }

  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  bool debug_;
};

// Of the innermost guard of this thread, which keeps it alive.
thread_local Scope *active = nullptr;

struct Running {
  Maybe mean;
  Maybe var;
  double momentum;

  // The new value is computed in double precision, whatever the buffer has.
  void update(const at::Tensor &batch_mean, const at::Tensor &unbiased_var) const {
    for (const auto &[buffer, value] : {std::pair{mean, batch_mean}, std::pair{var, unbiased_var}}) {
      if (!buffer.has_value() || !buffer->defined()) continue;
      buffer->copy_(buffer->to(at::kDouble).mul_(1 - momentum).add_(value, momentum));
    }
  }
};

constexpr const char *kKeyScope = "scope";
constexpr const char *kKeyEps = "eps";
constexpr const char *kKeyBias = "bias";

// Float for 16 bits, as autocast's parameters are.
at::ScalarType kind_of_statistics(const at::Tensor &input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

Maybe in_kind(const Maybe &parameter, at::ScalarType kind) {
  if (!parameter.has_value() || !parameter->defined()) return std::nullopt;
  return parameter->to(kind);
}

// What the ranks tell each other is in double precision: a few numbers for each channel, and the means may be large.
struct Synchronized : torch::autograd::Function<Synchronized> {
  static at::Tensor forward(AutogradContext *ctx, const at::Tensor &input, const Maybe &weight, const Maybe &bias,
                            const Running &running, double eps, const c10::intrusive_ptr<Scope> &scope) {
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    const int64_t channels = input.size(1);
    const int64_t count = channels > 0 ? input.numel() / channels : 0;
    const at::ScalarType kind = kind_of_statistics(input);
    const at::TensorOptions options = input.options().dtype(kind).memory_format(std::nullopt);

    // Mean, sum of squared distances from it, and count.
    at::Tensor sent = at::zeros({2 * channels + 1}, options.dtype(at::kDouble));
    if (count > 0) {
      // Running statistics are there for their kind alone, which that of the result follows.
      auto [mean, var] =
          at::batch_norm_update_stats(input, at::zeros({channels}, options), at::ones({channels}, options), 0.0);
      sent.narrow(0, 0, channels).copy_(mean);
      sent.narrow(0, channels, channels).copy_(var).mul_(static_cast<double>(count));
      sent.narrow(0, 2 * channels, 1).fill_(static_cast<double>(count));
    }
    const at::Tensor all = scope->gather(sent);
    const at::Tensor means = all.narrow(1, 0, channels);
    const at::Tensor counts = all.narrow(1, 2 * channels, 1);
    const at::Tensor total = counts.sum();
    const at::Tensor mean = (means * counts).sum(0) / total;
    // Chan, Golub, LeVeque 1979.
    const at::Tensor squares =
        all.narrow(1, channels, channels).sum(0) + ((means - mean).square_() * counts).sum(0);
    running.update(mean, squares / (total - 1));

    const at::Tensor own_mean = mean.to(kind);
    const at::Tensor own_var = (squares / total).to(kind);
    ctx->save_for_backward({input, weight.value_or(at::Tensor()), own_mean, own_var, total});
    ctx->saved_data[kKeyScope] = c10::IValue::make_capsule(scope);
    ctx->saved_data[kKeyEps] = eps;
    ctx->saved_data[kKeyBias] = bias.has_value() && bias->defined();
    if (count == 0) return at::empty_like(input);
    return std::get<0>(at::native_batch_norm(input, in_kind(weight, kind), in_kind(bias, kind), own_mean, own_var,
                                             /*training=*/false, /*momentum=*/0.0, eps));
  }

  static variable_list backward(AutogradContext *ctx, const variable_list &gradients) {
    const bool create_graph = at::GradMode::is_enabled();
    variable_list made;
    {
      at::NoGradGuard no_grad;
      c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
      made = differentiate(ctx, gradients[0]);
    }
    return create_graph ? once(std::move(made), ctx->get_saved_variables()[0], gradients[0]) : made;
  }

 private:
  static variable_list differentiate(AutogradContext *ctx, const at::Tensor &gradient) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &mean = saved[2], &var = saved[3], &total = saved[4];
    const double eps = ctx->saved_data[kKeyEps].toDouble();
    const bool has_bias = ctx->saved_data[kKeyBias].toBool();
    const int64_t channels = input.size(1);
    const bool empty = input.numel() == 0;
    const at::Tensor dy = gradient.contiguous(input.suggest_memory_format());

    // This rank's own sums, for each channel: of dy, and of dy times the normalized input.
    at::Tensor sum_dy = at::zeros({channels}, mean.options());
    at::Tensor sum_dy_xhat = sum_dy;
    if (!empty) {
      // As in evaluation, where statistics are no function of the input.
      std::tie(std::ignore, sum_dy_xhat, sum_dy) = at::native_batch_norm_backward(
          dy, input, at::ones({channels}, mean.options()), mean, var, std::nullopt, std::nullopt, /*train=*/false, eps,
          {false, true, true});
    }

    variable_list made(6);
    if (weight.defined()) made[1] = sum_dy_xhat.to(weight.scalar_type());
    if (has_bias) made[2] = sum_dy.to(weight.defined() ? weight.scalar_type() : mean.scalar_type());
    if (!ctx->needs_input_grad(0)) return made;

    at::Tensor sums = at::empty({2, channels}, total.options());
    sums[0].copy_(sum_dy);
    sums[1].copy_(sum_dy_xhat);
    const auto scope = c10::static_intrusive_pointer_cast<Scope>(ctx->saved_data[kKeyScope].toCapsule());
    scope->add_up(sums);
    if (empty) {
      made[0] = at::empty_like(input);
      return made;
    }
    sums.div_(total);
    std::vector<int64_t> shape(input.dim(), 1);
    shape[1] = channels;
    auto per_channel = [&](const at::Tensor &value) { return value.to(mean.scalar_type()).view(shape); };
    const at::Tensor invstd = (var.to(at::kDouble) + eps).rsqrt_();
    const at::Tensor factor = weight.defined() ? invstd * weight : invstd;
    // (dy - mean(dy) - xhat * mean(dy * xhat)) * invstd * weight
    at::Tensor dx = at::sub(input, per_channel(mean));
    dx.mul_(per_channel(sums[1] * invstd)).neg_().add_(dy).sub_(per_channel(sums[0])).mul_(per_channel(factor));
    made[0] = dx.to(input.scalar_type());
    return made;
  }

  // The gradients as what has no gradient of its own, and says so when it is asked for.
  static variable_list once(variable_list made, const at::Tensor &input, const at::Tensor &gradient) {
    std::unique_ptr<torch::autograd::Node> made_once = std::make_unique<torch::autograd::Error>(
        "a synchronized batch norm can be differentiated once, and this is the second time; turn sync_batchnorm off",
        torch::autograd::collect_next_edges(input, gradient));
    // What holds a node is another class in libtorch 2.13 than in 2.11. Both take over a unique_ptr.
    const decltype(torch::autograd::Edge::function) error(std::move(made_once));
    for (at::Tensor &each : made) {
      if (!each.defined()) continue;
      each = each.detach();
      torch::autograd::create_gradient_edge(each, error);
    }
    return made;
  }
};

at::Tensor batch_norm(const at::Tensor &input, const Maybe &weight, const Maybe &bias, const Maybe &running_mean,
                      const Maybe &running_var, bool training, double momentum, double eps, bool cudnn_enabled) {
  if (active == nullptr || !training || active->size() == 1) {
    return at::native::batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps,
                                  cudnn_enabled);
  }
  TORCH_CHECK(input.dim() >= 2, "a batch norm takes at least 2 dimensions, of which the second are channels; this has ",
              input.dim());
  return Synchronized::apply(input, weight, bias, Running{running_mean, running_var, momentum}, eps,
                             c10::intrusive_ptr<Scope>::reclaim_copy(active));
}

// Is made of a batch norm whose channels are instances: those of other ranks are others.
at::Tensor instance_norm(const at::Tensor &input, const Maybe &weight, const Maybe &bias, const Maybe &running_mean,
                         const Maybe &running_var, bool use_input_stats, double momentum, double eps,
                         bool cudnn_enabled) {
  struct Pause {
    Scope *paused = std::exchange(active, nullptr);
    ~Pause() { active = paused; }
  } pause;
  return at::native::instance_norm(input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps,
                                   cudnn_enabled);
}

// Modules call `aten::batch_norm`, which has a kernel for all devices that is made of others. One that is registered for
// a device's autograd goes before it.
void register_kernels() {
  static torch::Library library(torch::Library::IMPL, "aten", std::nullopt, __FILE__, __LINE__);
  static std::once_flag once;
  std::call_once(once, [] {
    for (const c10::DispatchKey key : {c10::DispatchKey::AutogradCPU, c10::DispatchKey::AutogradCUDA}) {
      library.impl("batch_norm", torch::dispatch(key, TORCH_FN(batch_norm)));
      library.impl("instance_norm", torch::dispatch(key, TORCH_FN(instance_norm)));
    }
  });
}

}  // namespace

extern "C" {

Error fulgurite_sync_batch_norm_new(const FulguriteGroup *group, Scope **out) noexcept {
  return protect([&] {
    register_kernels();
    *out = c10::make_intrusive<Scope>(*group).release();
  });
}

void fulgurite_sync_batch_norm_free(Scope *scope) noexcept {
  std::free(protect([&] { c10::intrusive_ptr<Scope>::reclaim(scope); }));
}

// Returns what was active before, to be given to `leave`. Both own what they hold.
Scope *fulgurite_sync_batch_norm_enter(Scope *scope) noexcept {
  return std::exchange(active, c10::intrusive_ptr<Scope>::reclaim_copy(scope).release());
}

void fulgurite_sync_batch_norm_leave(Scope *before) noexcept {
  std::free(protect([&] { c10::intrusive_ptr<Scope>::reclaim(std::exchange(active, before)); }));
}

}  // extern "C"
