// libtorch's foreach and fused kernels, and the gradients of a list of parameters.
#include "bridge.h"

#include <ATen/Functions.h>

#ifndef _WIN32
#include <dlfcn.h>
#endif

using fulgurite::Error;
using fulgurite::protect;

extern "C" {

// The same numbers as in foreach.rs.
enum FulguriteForeach : int32_t {
  NEG = 0,
  ABS = 1,
  SIGN = 2,
  SQRT = 3,
  RECIPROCAL = 4,
  ADD_SCALAR = 5,
  MUL_SCALAR = 6,
  DIV_SCALAR = 7,
  MINIMUM_SCALAR = 8,
  MAXIMUM_SCALAR = 9,
  ADD = 10,
  SUB = 11,
  MUL = 12,
  DIV = 13,
  MAXIMUM = 14,
  COPY = 15,
  LERP = 16,
  ADDCMUL = 17,
  ADDCDIV = 18,
};

// One foreach operation: in place on `self`, or into `out` where it is not null. Unused operands are null.
Error fulgurite_foreach(int32_t operation, FulguriteTensorList *out, FulguriteTensorList *self,
                        const FulguriteTensorList *a, const FulguriteTensorList *b, double scalar) noexcept {
  return protect([&] {
    auto &x = self->tensors;
    // For no parameters there is nothing to do, but the kernels call that an error.
    if (x.empty()) {
      if (out != nullptr) out->tensors.clear();
      return;
    }
#define FULGURITE_CASE(operation, name, ...)           \
  case operation:                                      \
    if (out != nullptr)                                \
      out->tensors = at::_foreach_##name(__VA_ARGS__); \
    else                                               \
      at::_foreach_##name##_(__VA_ARGS__);             \
    break;
    switch (operation) {
      FULGURITE_CASE(NEG, neg, x)
      FULGURITE_CASE(ABS, abs, x)
      FULGURITE_CASE(SIGN, sign, x)
      FULGURITE_CASE(SQRT, sqrt, x)
      FULGURITE_CASE(RECIPROCAL, reciprocal, x)
      FULGURITE_CASE(ADD_SCALAR, add, x, scalar)
      FULGURITE_CASE(MUL_SCALAR, mul, x, scalar)
      FULGURITE_CASE(DIV_SCALAR, div, x, scalar)
      FULGURITE_CASE(MINIMUM_SCALAR, minimum, x, scalar)
      FULGURITE_CASE(MAXIMUM_SCALAR, maximum, x, scalar)
      FULGURITE_CASE(ADD, add, x, a->tensors, scalar)
      FULGURITE_CASE(SUB, sub, x, a->tensors, scalar)
      FULGURITE_CASE(MUL, mul, x, a->tensors)
      FULGURITE_CASE(DIV, div, x, a->tensors)
      FULGURITE_CASE(MAXIMUM, maximum, x, a->tensors)
      FULGURITE_CASE(COPY, copy, x, a->tensors)
      FULGURITE_CASE(LERP, lerp, x, a->tensors, scalar)
      FULGURITE_CASE(ADDCMUL, addcmul, x, a->tensors, b->tensors, scalar)
      FULGURITE_CASE(ADDCDIV, addcdiv, x, a->tensors, b->tensors, scalar)
      default:
        TORCH_CHECK(false, "no foreach operation ", operation);
    }
#undef FULGURITE_CASE
  });
}

// `out` becomes the tensors of `from` at `indices`.
Error fulgurite_list_select(FulguriteTensorList *out, const FulguriteTensorList *from, const size_t *indices,
                            size_t count) noexcept {
  return protect([&] {
    out->tensors.clear();
    for (size_t i = 0; i < count; ++i) out->tensors.push_back(from->tensors.at(indices[i]));
  });
}

// Fills `grads` with the gradients of `params`, undefined tensors where there is none, and counts those. A gradient
// laid out in memory unlike its parameter is copied, since the fused kernels walk both as flat memory. `moved` says
// that a parameter has not, or no longer, the kind and device of `anchor`; then `grads` is of no use. Sparse gradients are
// left as they are, and counted.
Error fulgurite_grads(const FulguriteTensorList *params, const at::Tensor *anchor, FulguriteTensorList *grads,
                      size_t *missing, size_t *sparse, bool *moved) noexcept {
  return protect([&] {
    *missing = 0;
    *sparse = 0;
    *moved = false;
    auto &out = grads->tensors;
    out.clear();
    for (const auto &param : params->tensors) {
      if (param.scalar_type() != anchor->scalar_type() || param.device() != anchor->device()) {
        *moved = true;
        out.clear();
        return;
      }
      const auto &grad = param.unsafeGetTensorImpl()->grad();
      if (!grad.defined()) {
        ++*missing;
        out.emplace_back();
        continue;
      }
      if (grad.layout() == at::kSparse) {
        ++*sparse;
        out.push_back(grad);
        continue;
      }
      TORCH_CHECK(grad.layout() == at::kStrided, "a gradient is neither dense nor a sparse tensor of coordinates");
      if (grad.strides() == param.strides() || grad.numel() <= 1)
        out.push_back(grad);
      else
        out.push_back(at::empty_like(param).copy_(grad));
    }
  });
}

// Sets the gradients of all parameters to none.
Error fulgurite_drop_grads(FulguriteTensorList *params) noexcept {
  return protect([&] {
    for (auto &param : params->tensors)
      if (param.unsafeGetTensorImpl()->grad().defined()) param.mutable_grad().reset();
  });
}

// One dimension; tch gives all of them, in a vector.
Error fulgurite_size(const at::Tensor *tensor, int64_t dim, int64_t *out) noexcept {
  return protect([&] { *out = tensor->size(dim); });
}

Error fulgurite_numel(const at::Tensor *tensor, int64_t *out) noexcept {
  return protect([&] { *out = tensor->numel(); });
}

// `tensor += alpha * other`; tch has no `alpha`.
Error fulgurite_add(at::Tensor *tensor, const at::Tensor *other, double alpha) noexcept {
  return protect([&] { tensor->add_(*other, alpha); });
}

// `beta * input + alpha * a @ b`; tch has neither factor.
Error fulgurite_addmm(const at::Tensor *input, const at::Tensor *a, const at::Tensor *b, double beta, double alpha,
                      at::Tensor **out) noexcept {
  return protect([&] { *out = new at::Tensor(at::addmm(*input, *a, *b, beta, alpha)); });
}

}  // extern "C"

namespace {

// libtorch's own OpenMP, which it brings under a name of its own; nullptr where it uses another kind of threads.
using OmpThreads = int (*)();
using SetOmpThreads = void (*)(int);
#ifdef _WIN32
const OmpThreads omp_threads = nullptr;
const SetOmpThreads set_omp_threads = nullptr;
#else
const auto omp_threads = reinterpret_cast<OmpThreads>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
const auto set_omp_threads = reinterpret_cast<SetOmpThreads>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
#endif

// Keeps this thread's calls to itself.
class OneThread {
 public:
  OneThread() : threads_(omp_threads != nullptr && set_omp_threads != nullptr ? omp_threads() : 1) {
    if (threads_ > 1) set_omp_threads(1);
  }
  ~OneThread() {
    if (threads_ > 1) set_omp_threads(threads_);
  }

 private:
  int threads_;
};

// The number of elements from which libtorch finds threads worth their while.
constexpr int64_t kParallel = 32768;

// Calls `kernel(part)` on all tensors, where `part(list)` are the tensors of a list to take. On the CPU the fused kernels
// wake all threads for each tensor, however small; so the small tensors that come first are done by this thread alone.
template <typename Kernel>
void run_fused(const FulguriteTensorList *params, Kernel &&kernel) {
  const auto &tensors = params->tensors;
  size_t small = 0;
  if (!tensors.empty() && tensors[0].is_cpu())
    while (small < tensors.size() && tensors[small].numel() < kParallel) ++small;
  auto run = [&](size_t begin, size_t end) {
    if (begin == end) return;
    kernel([=](const FulguriteTensorList *list) {
      at::TensorList all = list->tensors;
      return all.empty() ? all : all.slice(begin, end - begin);
    });
  };
  {
    OneThread one;
    run(0, small);
  }
  run(small, tensors.size());
}

}  // namespace

extern "C" {

struct FulguriteAdam {
  double lr, beta1, beta2, weight_decay, eps;
  bool amsgrad, maximize, decoupled_weight_decay;
};

Error fulgurite_fused_adam(FulguriteTensorList *params, FulguriteTensorList *grads, FulguriteTensorList *exp_avgs,
                           FulguriteTensorList *exp_avg_sqs, FulguriteTensorList *max_exp_avg_sqs,
                           const FulguriteTensorList *steps, const FulguriteAdam *options) noexcept {
  return protect([&] {
    const auto &o = *options;
    run_fused(params, [&](auto part) {
      auto update = [&](auto fused) {
        fused(part(params), part(grads), part(exp_avgs), part(exp_avg_sqs), part(max_exp_avg_sqs), part(steps), o.lr,
              o.beta1, o.beta2, o.weight_decay, o.eps, o.amsgrad, o.maximize);
      };
      if (o.decoupled_weight_decay)
        update([](auto &&...arguments) { at::_fused_adamw_(arguments...); });
      else
        update([](auto &&...arguments) { at::_fused_adam_(arguments...); });
    });
  });
}

struct FulguriteSgd {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize, is_first_step;
};

}  // extern "C"

namespace {

// What `torch.optim.SGD` does without a fused kernel, operation by operation.
void foreach_sgd(at::TensorList params, at::TensorList grads, at::TensorList buffers, const FulguriteSgd &o) {
  std::vector<at::Tensor> steps(grads.begin(), grads.end());
  if (o.maximize) steps = at::_foreach_neg(steps);
  if (o.weight_decay != 0) steps = at::_foreach_add(steps, params, o.weight_decay);
  if (o.momentum != 0) {
    if (o.is_first_step) {
      at::_foreach_copy_(buffers, steps);
    } else {
      at::_foreach_mul_(buffers, o.momentum);
      at::_foreach_add_(buffers, steps, 1 - o.dampening);
    }
    steps = o.nesterov ? at::_foreach_add(steps, buffers, o.momentum) : buffers.vec();
  }
  at::_foreach_add_(params, steps, -o.lr);
}

}  // namespace

extern "C" {

Error fulgurite_fused_sgd(FulguriteTensorList *params, FulguriteTensorList *grads,
                          FulguriteTensorList *momentum_buffers, const FulguriteSgd *options) noexcept {
  return protect([&] {
    const auto &o = *options;
    const auto &all = params->tensors;
    // In 16 bits on a CPU, libtorch 2.11's fused kernel computes the update and does not store most of it.
    if (!all.empty() && all[0].is_cpu() && at::isReducedFloatingType(all[0].scalar_type())) {
      return foreach_sgd(all, grads->tensors, momentum_buffers->tensors, o);
    }
    run_fused(params, [&](auto part) {
      at::_fused_sgd_(part(params), part(grads), part(momentum_buffers), o.weight_decay, o.momentum, o.lr, o.dampening,
                      o.nesterov, o.maximize, o.is_first_step);
    });
  });
}

struct FulguriteAdagrad {
  double lr, lr_decay, weight_decay, eps;
  bool maximize;
};

Error fulgurite_fused_adagrad(FulguriteTensorList *params, FulguriteTensorList *grads, FulguriteTensorList *sums,
                              FulguriteTensorList *steps, const FulguriteAdagrad *options) noexcept {
  return protect([&] {
    const auto &o = *options;
    run_fused(params, [&](auto part) {
      at::_fused_adagrad_(part(params), part(grads), part(sums), part(steps), o.lr, o.lr_decay, o.weight_decay, o.eps,
                          o.maximize);
    });
  });
}

}  // extern "C"
