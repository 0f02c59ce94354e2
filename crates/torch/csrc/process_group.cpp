// Process groups of c10d, and the collectives that they run.
#include "distributed.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupWrapper.hpp>
#include <torch/csrc/distributed/c10d/debug.h>

#include <algorithm>
#include <functional>
#include <mutex>
#include <thread>

using fulgurite::beginning;
using fulgurite::Error;
using fulgurite::protect;
using fulgurite::Text;

// Owned by Rust's `Work`.
struct FulguriteWork {
  // Null when there is nothing to wait for.
  c10::intrusive_ptr<c10d::Work> work;
  // What is left to do with the result; empty when it was done.
  std::function<void()> finish;
};

namespace {

// The same numbers as `Operation` and `Reduction` of Rust.
enum Operation : int32_t {
  kBroadcast,
  kAllReduce,
  kReduce,
  kAllGather,
  kReduceScatter,
  kGather,
  kScatter,
  kAllToAll,
  kSend,
  kRecv,
  kBarrier,
};
enum Reduction : int32_t { kSum, kMean, kMin, kMax, kProduct };

c10d::ReduceOp reduce_op(int32_t reduction) {
  switch (reduction) {
    case kMin:
      return c10d::ReduceOp::MIN;
    case kMax:
      return c10d::ReduceOp::MAX;
    case kProduct:
      return c10d::ReduceOp::PRODUCT;
    default:
      // A mean is a sum that is divided afterwards: Gloo has none of its own.
      return c10d::ReduceOp::SUM;
  }
}

// Gloo can only move what it can also reduce. Other kinds are moved as bytes.
bool is_known(at::ScalarType kind) {
  switch (kind) {
    case at::kFloat:
    case at::kDouble:
    case at::kHalf:
    case at::kBFloat16:
    case at::kChar:
    case at::kByte:
    case at::kInt:
    case at::kLong:
      return true;
    default:
      return false;
  }
}

// A tensor, and what the backend reads or writes in its place: contiguous, and without autograd's history.
struct Buffer {
  at::Tensor tensor;
  at::Tensor contiguous;
  at::Tensor wire;

  Buffer(const at::Tensor &given, bool moved_only) : tensor(given.detach()) {
    TORCH_CHECK(tensor.layout() == at::kStrided, "only dense tensors can be sent, and this one is ", tensor.layout());
    contiguous = tensor.contiguous();
    wire = moved_only && !is_known(tensor.scalar_type()) ? contiguous.view({-1}).view(at::kByte) : contiguous;
  }

  // Brings what was received to where it belongs.
  void settle() {
    if (!contiguous.is_alias_of(tensor)) tensor.copy_(contiguous);
  }
};

std::vector<Buffer> buffers(const at::Tensor *const *tensors, size_t count, bool moved_only) {
  std::vector<Buffer> made;
  made.reserve(count);
  for (size_t i = 0; i < count; ++i) made.emplace_back(*tensors[i], moved_only);
  return made;
}

std::vector<at::Tensor> wires(const std::vector<Buffer> &buffers) {
  std::vector<at::Tensor> made;
  made.reserve(buffers.size());
  for (const Buffer &buffer : buffers) made.push_back(buffer.wire);
  return made;
}

// All of them one after the other, in one dimension.
at::Tensor joined(const std::vector<Buffer> &buffers) {
  std::vector<at::Tensor> flat;
  for (const Buffer &buffer : buffers) flat.push_back(buffer.wire.view({-1}));
  return at::cat(flat);
}

std::vector<int64_t> lengths(const std::vector<Buffer> &buffers) {
  std::vector<int64_t> made;
  for (const Buffer &buffer : buffers) made.push_back(buffer.wire.numel());
  return made;
}

// GCC guesses which function will be called, and names it: Gloo's own `setTimeout`, which libtorch does not export.
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((noipa, optimize("no-devirtualize", "no-devirtualize-speculatively")))
#endif
void set_timeout(c10d::Backend &backend, std::chrono::milliseconds timeout) {
  backend.setTimeout(timeout);
}

// To see whether a backend's threads have work, which destroying it would wait for.
struct Threads : c10d::ProcessGroupGloo {
  static bool are_busy(c10d::ProcessGroupGloo &gloo) {
    std::lock_guard<std::mutex> lock(gloo.*&Threads::workMutex_);
    if (!(gloo.*&Threads::workQueue_).empty()) return true;
    for (const auto &work : gloo.*&Threads::workInProgress_) {
      if (work) return true;
    }
    return false;
  }
};

}  // namespace

std::mutex &fulgurite::beginning() {
  static std::mutex mutex;
  return mutex;
}

extern "C" {

struct FulguriteGroupOptions {
  int64_t timeout_ms;
  Text name;
  // Names of network interfaces; none for the one with `address`.
  const Text *interfaces;
  size_t interface_count;
  // Empty for the interface that the host's name leads to.
  Text address;
  // 0 where the store is no server.
  uint16_t store_port;
  // Whether ranks tell each other what they are about to do, before they do it.
  bool debug;
  // Whether tensors on GPUs go through NCCL.
  bool nccl;
};

// What to run. What there are of tensors, and what `peer` is, depends on the operation.
struct FulguriteCall {
  int32_t operation;
  int32_t reduction;
  int32_t peer;
  int32_t tag;
  const at::Tensor *const *inputs;
  size_t input_count;
  const at::Tensor *const *outputs;
  size_t output_count;
};

Error fulgurite_group_new(const FulguriteStore *store, int rank, int size, const FulguriteGroupOptions *options,
                          FulguriteGroup **out) noexcept {
  return protect([&] {
    // A separate connection: a store is locked while a thread waits for a key.
    c10::intrusive_ptr<c10d::Store> own = store->store->clone();
    fulgurite::end_silent_connections(options->store_port);
    const auto timeout = std::chrono::milliseconds(options->timeout_ms);
    // All ranks are there, and connect now. On a busy machine that may take longer than what a hurried user allows for
    // an operation.
    const auto patience = std::max<std::chrono::milliseconds>(timeout, std::chrono::seconds(30));
    own->setTimeout(patience);
    auto made = std::make_unique<FulguriteGroup>();

    auto gloo = [&](const char *prefix) {
      auto settings = c10d::ProcessGroupGloo::Options::create(patience);
      settings->group_name = options->name;
      const bool lazily = c10d::getDefaultGlooLazyInit();
      for (size_t i = 0; i < options->interface_count; ++i) {
        settings->devices.push_back(
            c10d::ProcessGroupGloo::createDeviceForInterface(options->interfaces[i], lazily));
      }
      if (settings->devices.empty()) {
        const std::string address = options->address;
        settings->devices.push_back(address.empty()
                                        ? c10d::ProcessGroupGloo::createDefaultDevice(lazily)
                                        : c10d::ProcessGroupGloo::createDeviceForHostname(address, lazily));
      }
      settings->threads = static_cast<int>(settings->devices.size() * 2);
      auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(
          c10::make_intrusive<c10d::PrefixStore>(prefix, own), rank, size, settings);
      backend->setSequenceNumberForGroup();
      c10::intrusive_ptr<c10d::Work> first;
      {
        std::lock_guard<std::mutex> lock(beginning());
        first = backend->barrier();
      }
      first->wait();
      set_timeout(*backend, timeout);
      made->gloo.push_back(backend);
      return backend;
    };

    using Type = c10d::ProcessGroup::BackendType;
    c10::intrusive_ptr<c10d::Backend> on_cpu = gloo("gloo");
    c10::intrusive_ptr<c10d::Backend> on_gpu = on_cpu;
#ifdef FULGURITE_CUDA
    if (options->nccl) on_gpu = made->nccl = fulgurite::make_nccl(own, rank, size, timeout, options->name);
#else
    TORCH_CHECK(!options->nccl, "this program was built without NCCL");
#endif
    if (options->debug) {
      const bool same = on_gpu == on_cpu;
      c10::intrusive_ptr<c10d::Backend> talk = gloo("debug");
      on_cpu = c10::make_intrusive<c10d::ProcessGroupWrapper>(on_cpu, talk);
      if (same) {
        on_gpu = on_cpu;
      } else {
        on_gpu = c10::make_intrusive<c10d::ProcessGroupWrapper>(on_gpu, talk);
      }
    }
    made->debug = options->debug;
    made->group = c10::make_intrusive<c10d::ProcessGroup>(own, rank, size);
    made->group->setBackend(at::kCPU, Type::GLOO, on_cpu);
    made->group->setBackend(at::kCUDA, options->nccl ? Type::NCCL : Type::GLOO, on_gpu);
    made->group->setDefaultBackend(options->nccl ? Type::NCCL : Type::GLOO);
    made->group->setGroupName(options->name);
    *out = made.release();
  });
}

// Never waits for another rank: a group whose threads are at work is destroyed by a thread of its own, when they end.
void fulgurite_group_free(FulguriteGroup *group) noexcept {
  std::free(protect([&] {
    if (group->nccl) group->nccl->shutdown();
    bool busy = false;
    for (const auto &backend : group->gloo) {
      busy = busy || Threads::are_busy(static_cast<c10d::ProcessGroupGloo &>(*backend));
    }
    if (busy) {
      std::thread([group] { std::free(protect([&] { delete group; })); }).detach();
    } else {
      delete group;
    }
  }));
}

bool fulgurite_has_nccl() noexcept {
#ifdef FULGURITE_CUDA
  return true;
#else
  return false;
#endif
}

bool fulgurite_debug_is_detail() noexcept { return c10d::debug_level() == c10d::DebugLevel::Detail; }

Error fulgurite_group_start(const FulguriteGroup *group, const FulguriteCall *call, FulguriteWork **out) noexcept {
  return protect([&] {
    at::NoGradGuard no_grad;
    const bool moved_only =
        call->operation != kAllReduce && call->operation != kReduce && call->operation != kReduceScatter;
    std::vector<Buffer> inputs = buffers(call->inputs, call->input_count, moved_only);
    std::vector<Buffer> outputs = buffers(call->outputs, call->output_count, moved_only);
    const at::Tensor *first = !inputs.empty() ? &inputs[0].wire : !outputs.empty() ? &outputs[0].wire : nullptr;
    const at::DeviceType device = first != nullptr ? first->device().type() : at::kCPU;
    const c10::intrusive_ptr<c10d::Backend> backend = group->group->getBackend(device);
    const double divisor = call->reduction == kMean ? static_cast<double>(backend->getSize()) : 1.0;
    const int rank = backend->getRank();
    auto made = std::make_unique<FulguriteWork>();
    // With a talk, the other ranks may be threads of this process that want to begin too.
    std::unique_lock<std::mutex> lock(beginning(), std::defer_lock);
    if (!group->debug) lock.lock();
    auto settle = [outputs]() mutable {
      for (Buffer &output : outputs) output.settle();
    };

    // Tensors of no elements are of no elements everywhere.
    const bool may_differ = call->operation == kAllToAll || call->operation == kSend || call->operation == kRecv;
    if (first != nullptr && first->numel() == 0 && !may_differ) {
      *out = made.release();
      return;
    }

    switch (call->operation) {
      case kBroadcast: {
        c10d::BroadcastOptions options;
        options.rootRank = call->peer;
        std::vector<at::Tensor> tensors = wires(outputs);
        made->work = backend->broadcast(tensors, options);
        made->finish = settle;
        break;
      }
      case kAllReduce: {
        c10d::AllreduceOptions options;
        options.reduceOp = reduce_op(call->reduction);
        std::vector<at::Tensor> tensors = wires(outputs);
        made->work = backend->allreduce(tensors, options);
        made->finish = [outputs, divisor]() mutable {
          for (Buffer &output : outputs) {
            if (divisor != 1.0) output.contiguous.div_(divisor);
            output.settle();
          }
        };
        break;
      }
      case kReduce: {
        c10d::ReduceOptions options;
        options.reduceOp = reduce_op(call->reduction);
        options.rootRank = call->peer;
        std::vector<at::Tensor> tensors = wires(outputs);
        // The others' tensors would be left with sums of some ranks.
        const bool receives = rank == call->peer;
        if (!receives) tensors[0] = tensors[0].clone();
        made->work = backend->reduce(tensors, options);
        made->finish = [outputs, divisor, receives]() mutable {
          if (!receives) return;
          if (divisor != 1.0) outputs[0].contiguous.div_(divisor);
          outputs[0].settle();
        };
        break;
      }
      case kAllGather: {
        std::vector<std::vector<at::Tensor>> results{wires(outputs)};
        std::vector<at::Tensor> tensors = wires(inputs);
        made->work = backend->allgather(results, tensors);
        made->finish = settle;
        break;
      }
      case kReduceScatter: {
        at::Tensor all = joined(inputs);
        if (device == at::kCUDA && backend->getBackendName() == "nccl") {
          c10d::ReduceScatterOptions options;
          options.reduceOp = reduce_op(call->reduction);
          at::Tensor mine = outputs[0].wire.view({-1});
          made->work = backend->_reduce_scatter_base(mine, all, options);
          made->finish = [outputs, divisor]() mutable {
            if (divisor != 1.0) outputs[0].contiguous.div_(divisor);
            outputs[0].settle();
          };
        } else {
          // What Gloo's own does, with a work that can be asked whether it is completed.
          c10d::AllreduceOptions options;
          options.reduceOp = reduce_op(call->reduction);
          std::vector<at::Tensor> tensors{all};
          made->work = backend->allreduce(tensors, options);
          made->finish = [outputs, all, divisor, rank]() mutable {
            const int64_t len = outputs[0].wire.numel();
            outputs[0].contiguous.view({-1}).copy_(all.narrow(0, rank * len, len));
            if (divisor != 1.0) outputs[0].contiguous.div_(divisor);
            outputs[0].settle();
          };
        }
        break;
      }
      case kGather: {
        c10d::GatherOptions options;
        options.rootRank = call->peer;
        std::vector<std::vector<at::Tensor>> results;
        if (rank == call->peer) results.push_back(wires(outputs));
        std::vector<at::Tensor> tensors = wires(inputs);
        made->work = backend->gather(results, tensors, options);
        made->finish = settle;
        break;
      }
      case kScatter: {
        c10d::ScatterOptions options;
        options.rootRank = call->peer;
        std::vector<at::Tensor> results = wires(outputs);
        std::vector<std::vector<at::Tensor>> tensors;
        if (rank == call->peer) tensors.push_back(wires(inputs));
        made->work = backend->scatter(results, tensors, options);
        made->finish = settle;
        break;
      }
      case kAllToAll: {
        at::Tensor sent = joined(inputs);
        std::vector<int64_t> sent_lengths = lengths(inputs);
        std::vector<int64_t> received_lengths = lengths(outputs);
        at::Tensor received = joined(outputs);
        // Gloo moves the lengths away.
        made->work = backend->alltoall_base(received, sent, received_lengths, sent_lengths);
        made->finish = [outputs, received]() mutable {
          std::vector<at::Tensor> parts = received.split_with_sizes(lengths(outputs));
          for (size_t i = 0; i < outputs.size(); ++i) {
            outputs[i].wire.view({-1}).copy_(parts[i]);
            outputs[i].settle();
          }
        };
        break;
      }
      case kSend: {
        std::vector<at::Tensor> tensors = wires(inputs);
        made->work = backend->send(tensors, call->peer, call->tag);
        break;
      }
      case kRecv: {
        std::vector<at::Tensor> tensors = wires(outputs);
        made->work = backend->recv(tensors, call->peer, call->tag);
        made->finish = settle;
        break;
      }
      case kBarrier: {
        made->work = backend->barrier();
        break;
      }
      default:
        TORCH_CHECK(false, "operation ", call->operation, " is not known");
    }
    *out = made.release();
  });
}

// Waits until the work is done, and finishes it; for `timeout_ms` above 0, at most so long. `done` says whether it is.
Error fulgurite_work_wait(FulguriteWork *work, int64_t timeout_ms, bool *done) noexcept {
  return protect([&] {
    *done = false;
    if (work->work) {
      try {
        const bool completed = timeout_ms > 0 ? work->work->wait(std::chrono::milliseconds(timeout_ms))
                                              : work->work->wait();
        TORCH_CHECK(completed, "it was aborted");
      } catch (...) {
        if (timeout_ms > 0 && !work->work->isCompleted()) return;
        throw;
      }
      work->work.reset();
    }
    if (work->finish) {
      at::NoGradGuard no_grad;
      std::function<void()> finish = std::move(work->finish);
      work->finish = nullptr;
      finish();
    }
    *done = true;
  });
}

bool fulgurite_work_is_completed(const FulguriteWork *work) noexcept {
  bool completed = true;
  std::free(protect([&] { completed = !work->work || work->work->isCompleted(); }));
  return completed;
}

void fulgurite_work_free(FulguriteWork *work) noexcept {
  std::free(protect([&] { delete work; }));
}

}  // extern "C"
