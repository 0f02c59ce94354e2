// c10d's Reducer: it averages gradients over the ranks, in buckets, while the backward pass is still running.
#include "distributed.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>

using fulgurite::Error;
using fulgurite::protect;
using fulgurite::Text;

namespace {

// The same numbers as in Rust.
enum Compression : int32_t { kUncompressed, kFp16, kBf16 };

// Sends the gradients of a bucket as bfloat16. For half precision c10d has such a hook, for bfloat16 only in Python.
class Bf16CompressHook : public c10d::CommHookInterface {
 public:
  explicit Bf16CompressHook(c10::intrusive_ptr<c10d::ProcessGroup> group) : group_(std::move(group)) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket &bucket) override {
    at::Tensor full = bucket.getBuffer();
    std::vector<at::Tensor> sent{full.to(at::kBFloat16).div_(group_->getSize())};
    auto reduced = group_->allreduce(sent)->getFuture();
    return reduced->then(
        [full](c10::ivalue::Future &future) {
          full.copy_(future.value().toTensorVector()[0]);
          return c10::IValue(full);
        },
        c10::TensorType::get());
  }

  at::Tensor parseHookResult(const c10::IValue &result) override { return result.toTensor(); }

 private:
  c10::intrusive_ptr<c10d::ProcessGroup> group_;
};

}  // namespace

// Owned by Rust's `Reducer`.
struct FulguriteReducer {
  // Makes `reducer`. A static graph learns in its first passes how often each parameter gets a gradient, and must not
  // learn it from passes that are not averaged, so its reducer is made when the first comes that is.
  std::function<std::shared_ptr<c10d::Reducer>()> make;
  std::shared_ptr<c10d::Reducer> reducer;
  bool finds_unused;
  bool static_graph;
  // Whether the first backward pass of a static graph was told to reduce at its end.
  std::shared_ptr<std::atomic<bool>> delayed = std::make_shared<std::atomic<bool>>(false);
};

extern "C" {

struct FulguriteReducerOptions {
  int64_t bucket_bytes;
  int64_t first_bucket_bytes;
  bool find_unused_parameters;
  bool static_graph;
  bool gradient_as_bucket_view;
  int32_t compression;
};

Error fulgurite_reducer_new(const at::Tensor *const *parameters, const Text *names, size_t count,
                            const FulguriteGroup *group, const FulguriteReducerOptions *options,
                            FulguriteReducer **out) noexcept {
  return protect([&] {
    std::vector<at::Tensor> all;
    std::unordered_map<size_t, std::string> all_names;
    for (size_t i = 0; i < count; ++i) {
      all.push_back(*parameters[i]);
      all_names.emplace(i, names[i]);
    }
    const std::vector<bool> sparse(count, false);
    // Buckets that are made anew after the first pass, in the order in which gradients come, need no good first guess.
    const bool rebuilds = options->static_graph || !options->find_unused_parameters;
    const std::vector<size_t> limits =
        rebuilds ? std::vector<size_t>{static_cast<size_t>(std::numeric_limits<int64_t>::max())}
                 : std::vector<size_t>{static_cast<size_t>(options->first_bucket_bytes),
                                       static_cast<size_t>(options->bucket_bytes)};
    auto [buckets, bucket_limits] = c10d::compute_bucket_assignment_by_size(all, limits, sparse);
    // The gradients of what is used last come first.
    std::reverse(buckets.begin(), buckets.end());
    auto made = std::make_unique<FulguriteReducer>();
    made->finds_unused = options->find_unused_parameters;
    made->static_graph = options->static_graph;
    made->make = [all, buckets = buckets, all_names, sparse, group = group->group, options = *options] {
      auto reducer = std::make_shared<c10d::Reducer>(
          all, buckets, group, sparse, options.bucket_bytes, options.find_unused_parameters,
          options.gradient_as_bucket_view, all_names, options.first_bucket_bytes,
          /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
          /*bucket_bytes_cap_list=*/std::vector<int64_t>{});
      if (options.static_graph) reducer->set_static_graph();
      if (options.compression == kFp16) {
        reducer->register_builtin_comm_hook(c10d::BuiltinCommHookType::FP16_COMPRESS);
      } else if (options.compression == kBf16) {
        reducer->register_comm_hook(std::make_unique<Bf16CompressHook>(group));
      }
      return reducer;
    };
    if (!options->static_graph) made->reducer = made->make();
    *out = made.release();
  });
}

void fulgurite_reducer_free(FulguriteReducer *reducer) noexcept {
  std::free(protect([&] { delete reducer; }));
}

Error fulgurite_reducer_prepare_for_forward(FulguriteReducer *reducer, bool sync) noexcept {
  return protect([&] {
    if (!at::GradMode::is_enabled()) return;
    if (!reducer->reducer && !sync) return;
    if (!reducer->reducer) reducer->reducer = reducer->make();
    // It counts the passes, and a static graph stops learning at the second.
    if (sync || (reducer->static_graph && reducer->delayed->load())) reducer->reducer->prepare_for_forward();
    reducer->reducer->rebuild_buckets();
  });
}

Error fulgurite_reducer_prepare_for_backward(const FulguriteReducer *reducer, const at::Tensor *const *outputs,
                                             size_t count) noexcept {
  return protect([&] {
    if (!at::GradMode::is_enabled()) return;
    TORCH_CHECK(reducer->reducer, "call `prepare_for_forward` before the forward pass");
    std::vector<at::Tensor> roots;
    if (reducer->static_graph) {
      // In the first pass of a static graph all is reduced at the end of the backward pass, which only a callback that
      // is queued within that pass can know.
      for (size_t i = 0; i < count && !reducer->delayed->load(); ++i) {
        if (!outputs[i]->requires_grad()) continue;
        outputs[i]->register_hook([weak = std::weak_ptr<c10d::Reducer>(reducer->reducer),
                                   delayed = reducer->delayed](const at::Tensor &) {
          auto living = weak.lock();
          if (!living || delayed->exchange(true)) return;
          torch::autograd::Engine::get_default_engine().queue_callback([living] { living->delay_all_reduce(); });
        });
      }
    } else if (reducer->finds_unused) {
      for (size_t i = 0; i < count; ++i) roots.push_back(*outputs[i]);
    }
    reducer->reducer->prepare_for_backward(roots);
  });
}

}  // extern "C"
