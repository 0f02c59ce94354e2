// libtorch's profiler: what Python's `torch.profiler` stands on.
#include "bridge.h"

#include <ATen/record_function.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <memory>
#include <optional>
#include <string>

using fulgurite::Error;
using fulgurite::protect;
using torch::autograd::profiler::ProfilerResult;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

struct FulguriteProfilerConfig {
  bool record_shapes, profile_memory, with_flops, cuda;
};

// One event, as far as key averages need it. The strings live until the next call for the same trace.
struct FulguriteProfilerEvent {
  const char *name;
  const char *shapes;
  uint64_t start_ns, end_ns, start_thread, end_thread, correlation_id, linked_correlation_id, flops;
  int64_t bytes;
  int32_t device, device_index;
  uint8_t scope;
  bool is_async, is_hidden;
};

struct FulguriteTrace {
  std::unique_ptr<ProfilerResult> result;
  std::string name, shapes;
};

namespace {

std::set<ActivityType> activities(const FulguriteProfilerConfig &config) {
  std::set<ActivityType> all{ActivityType::CPU};
  if (config.cuda) all.insert(ActivityType::CUDA);
  return all;
}

ProfilerConfig kineto(const FulguriteProfilerConfig &config) {
  return ProfilerConfig(ProfilerState::KINETO, config.record_shapes, config.profile_memory, false, config.with_flops);
}

// The labelled ranges of this thread that are open, the innermost last.
thread_local std::vector<std::unique_ptr<at::RecordFunction>> ranges;

void append_shapes(std::string &out, c10::ArrayRef<std::vector<int64_t>> shapes) {
  out = "[";
  for (size_t i = 0; i < shapes.size(); ++i) {
    out += i == 0 ? "[" : ", [";
    for (size_t d = 0; d < shapes[i].size(); ++d) out += (d == 0 ? "" : ", ") + std::to_string(shapes[i][d]);
    out += "]";
  }
  out += "]";
}

}  // namespace

extern "C" {

// Loads what recording needs, so that the first recorded event is not late.
Error fulgurite_profiler_prepare(const FulguriteProfilerConfig *config) noexcept {
  return protect([&] { torch::autograd::profiler::prepareProfiler(kineto(*config), activities(*config)); });
}

Error fulgurite_profiler_enable(const FulguriteProfilerConfig *config) noexcept {
  return protect([&] { torch::autograd::profiler::enableProfiler(kineto(*config), activities(*config)); });
}

Error fulgurite_profiler_disable(FulguriteTrace **out) noexcept {
  return protect([&] {
    auto trace = std::make_unique<FulguriteTrace>();
    trace->result = torch::autograd::profiler::disableProfiler();
    *out = trace.release();
  });
}

void fulgurite_trace_free(FulguriteTrace *trace) noexcept { delete trace; }

Error fulgurite_trace_save(FulguriteTrace *trace, const char *path) noexcept {
  return protect([&] { trace->result->save(path); });
}

size_t fulgurite_trace_len(const FulguriteTrace *trace) noexcept { return trace->result->events().size(); }

Error fulgurite_trace_event(FulguriteTrace *trace, size_t index, FulguriteProfilerEvent *out) noexcept {
  return protect([&] {
    const auto &event = trace->result->events().at(index);
    trace->name = event.name();
    trace->shapes = "[]";
    if (event.hasShapes()) append_shapes(trace->shapes, event.shapes());
    *out = {trace->name.c_str(),
            trace->shapes.c_str(),
            event.startNs(),
            event.endNs(),
            event.startThreadId(),
            event.endThreadId(),
            event.correlationId(),
            event.linkedCorrelationId(),
            event.flops(),
            event.nBytes(),
            static_cast<int32_t>(event.deviceType()),
            event.deviceIndex(),
            event.scope(),
            event.isAsync(),
            event.isHiddenEvent()};
  });
}

// Opens a labelled range on this thread. It costs next to nothing while there is no recording.
Error fulgurite_range_push(const char *name, size_t length) noexcept {
  return protect([&] {
    auto range = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
    if (range->isActive()) range->before(std::string_view(name, length));
    ranges.push_back(std::move(range));
  });
}

// Closes the innermost range of this thread; false when there is none.
bool fulgurite_range_pop() noexcept {
  if (ranges.empty()) return false;
  ranges.pop_back();
  return true;
}

}  // extern "C"
