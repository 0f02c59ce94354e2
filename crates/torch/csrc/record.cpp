// The operations that run, as libtorch's dispatcher tells of them; and which of them made the first NaN.
#include "bridge.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/all.h>
#include <ATen/ops/any.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isnan.h>
#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/csrc/autograd/anomaly_mode.h>

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

using fulgurite::Error;
using fulgurite::protect;
using torch::autograd::AnomalyMode;

namespace {

// How an argument is written into a row of numbers; Rust reads it back.
enum Tag : int64_t { NONE, TENSOR, LIST, BOOL, BOOLS, INT, INTS, FLOAT, OTHER };

struct Op {
  std::string name;
  int64_t parent;
  int64_t sequence;
  bool composite;
  std::vector<int64_t> inputs;
  std::vector<int64_t> outputs;
};

enum State : char { FINITE, INF, NOT_A_NUMBER };

// Where values that are not finite came from: out of an operation, or into it with an input that nothing made.
struct Finding {
  int64_t op;
  int64_t input;  // -1: the operation made it
  int64_t cause;  // the finding that an infinity which became a NaN here came from, or -1
  bool nan;
};

// Travels with libtorch's thread-local state, so threads of autograd find it too.
struct Recording : c10::DebugInfoBase, std::enable_shared_from_this<Recording> {
  explicit Recording(bool watch) : watches(watch) {}

  const bool watches;
  std::mutex mutex;
  std::vector<Op> ops;
  std::vector<Finding> findings;
  std::unordered_map<const void *, int64_t> origins;  // of storages that hold something not finite
  std::string last_node;
  int64_t last_node_sequence = -1;
};

// Nothing in libtorch but its own tests uses this slot. (No constant expression in 2.13.)
const auto SLOT = c10::DebugInfoKind::TEST_INFO;

thread_local int64_t enclosing = -1;
thread_local bool in_kernel = false;
thread_local int in_backward = 0;

struct Context : at::ObserverContext {
  std::shared_ptr<Recording> recording;
  int64_t index = -1;
  int64_t outer = -1;
  bool composite = false;
  bool evaluates_node = false;
  bool mutates = false;
  std::vector<at::Tensor> inputs;
  std::vector<State> before;
};

// The engine looks for NaN only while a node is evaluated. Were the mode on in the forward pass too, every operation
// would keep a stack trace, and an error would print one.
std::mutex anomaly_mutex;
int anomaly_depth = 0;
bool anomaly_before = false;
bool check_nan_before = false;

void enter_node() {
  std::lock_guard<std::mutex> lock(anomaly_mutex);
  ++in_backward;
  if (anomaly_depth++ == 0) {
    anomaly_before = AnomalyMode::is_enabled();
    check_nan_before = AnomalyMode::should_check_nan();
    AnomalyMode::set_enabled(true, true);
  }
}

void leave_node() {
  std::lock_guard<std::mutex> lock(anomaly_mutex);
  --in_backward;
  if (--anomaly_depth == 0) AnomalyMode::set_enabled(anomaly_before, check_nan_before);
}

const void *storage_of(const at::Tensor &tensor) {
  return tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

void encode(const at::Tensor &tensor, std::vector<int64_t> &row) {
  if (!tensor.defined() || tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides() || tensor.is_nested()) {
    row.push_back(NONE);
    return;
  }
  row.insert(row.end(), {TENSOR, reinterpret_cast<int64_t>(tensor.unsafeGetTensorImpl()),
                         reinterpret_cast<int64_t>(storage_of(tensor)), static_cast<int64_t>(tensor.scalar_type()),
                         tensor.dim()});
  row.insert(row.end(), tensor.sizes().begin(), tensor.sizes().end());
}

void encode(const c10::IValue &value, std::vector<int64_t> &row) {
  if (value.isTensor()) {
    encode(value.toTensor(), row);
  } else if (value.isNone()) {
    row.push_back(NONE);
  } else if (value.isBool()) {
    row.insert(row.end(), {BOOL, value.toBool()});
  } else if (value.isInt()) {
    row.insert(row.end(), {INT, value.toInt()});
  } else if (value.isDouble()) {
    double number = value.toDouble();
    int64_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    row.insert(row.end(), {FLOAT, bits});
  } else if (value.isIntList()) {
    auto numbers = value.toIntVector();
    row.insert(row.end(), {INTS, static_cast<int64_t>(numbers.size())});
    row.insert(row.end(), numbers.begin(), numbers.end());
  } else if (value.isBoolList()) {
    auto flags = value.toBoolList();
    row.insert(row.end(), {BOOLS, static_cast<int64_t>(flags.size())});
    for (bool flag : flags) row.push_back(flag);
  } else if (value.isList()) {
    auto items = value.toListRef();
    row.insert(row.end(), {LIST, static_cast<int64_t>(items.size())});
    for (const auto &item : items) encode(item, row);
  } else {
    row.push_back(OTHER);
  }
}

// In the order in which Rust meets the tensors of a row.
void collect(const c10::IValue &value, std::vector<at::Tensor> &tensors) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) tensors.push_back(value.toTensor());
  } else if (value.isList() && !value.isIntList() && !value.isBoolList()) {
    for (const auto &item : value.toListRef()) collect(item, tensors);
  }
}

// Not to be called under a lock: it runs operations. Those are not recorded.
State examine(const at::Tensor &tensor) {
  if (!tensor.is_floating_point() && !tensor.is_complex()) return FINITE;
  if (tensor.layout() != c10::kStrided || tensor.is_meta() || tensor.is_nested() || tensor.numel() == 0) return FINITE;
  try {
    at::DisableRecordFunctionGuard unrecorded;
    at::NoGradGuard no_grad;
    if (at::all(at::isfinite(tensor)).item<bool>()) return FINITE;
    return at::any(at::isnan(tensor)).item<bool>() ? NOT_A_NUMBER : INF;
  } catch (const std::exception &) {
    return FINITE;  // of a kind without such kernels
  }
}

// What they return was not written yet.
bool leaves_memory_as_found(const std::string &name) {
  for (const char *prefix : {"aten::empty", "aten::new_empty", "aten::_empty", "aten::resize", "aten::set_"}) {
    if (name.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

int64_t find(const Recording &recording, const at::Tensor &tensor) {
  auto found = recording.origins.find(storage_of(tensor));
  return found == recording.origins.end() ? -1 : found->second;
}

int64_t add_finding(Recording &recording, Finding finding) {
  recording.findings.push_back(finding);
  return static_cast<int64_t>(recording.findings.size()) - 1;
}

// Follows what is not finite from inputs to outputs, and notes where it begins.
void watch(const Context &context, const std::vector<at::Tensor> &outputs) {
  Recording &recording = *context.recording;
  std::vector<State> inputs = context.before;
  for (const at::Tensor &output : outputs) {
    const State state = examine(output);
    const void *storage = storage_of(output);
    if (state == FINITE) {
      bool fresh = true;
      for (const at::Tensor &input : context.inputs) fresh = fresh && storage_of(input) != storage;
      std::lock_guard<std::mutex> lock(recording.mutex);
      if (fresh) recording.origins.erase(storage);
      continue;
    }
    if (inputs.empty()) {
      for (const at::Tensor &input : context.inputs) inputs.push_back(examine(input));
    }
    int64_t nan = -1;
    int64_t inf = -1;
    for (size_t i = inputs.size(); i-- > 0;) {
      if (inputs[i] == NOT_A_NUMBER) nan = static_cast<int64_t>(i);
      if (inputs[i] == INF) inf = static_cast<int64_t>(i);
    }
    std::lock_guard<std::mutex> lock(recording.mutex);
    auto origin = [&](int64_t input, bool is_nan) {
      int64_t found = find(recording, context.inputs[input]);
      if (found < 0) {
        found = add_finding(recording, {context.index, input, -1, is_nan});
        recording.origins[storage_of(context.inputs[input])] = found;
      }
      return found;
    };
    int64_t finding;
    if (state == NOT_A_NUMBER) {
      finding = nan >= 0 ? origin(nan, true)
                         : add_finding(recording, {context.index, -1, inf >= 0 ? origin(inf, false) : -1, true});
    } else {
      finding = inf >= 0   ? origin(inf, false)
                : nan >= 0 ? origin(nan, true)
                           : add_finding(recording, {context.index, -1, -1, false});
    }
    recording.origins[storage] = finding;
  }
}

std::unique_ptr<at::ObserverContext> start(const at::RecordFunction &function) {
  auto *recording = static_cast<Recording *>(c10::ThreadLocalDebugInfo::get(SLOT));
  if (recording == nullptr) return nullptr;
  if (function.scope() == at::RecordScope::BACKWARD_FUNCTION) {
    std::lock_guard<std::mutex> lock(recording->mutex);
    recording->last_node = function.name();
    recording->last_node_sequence = function.seqNr();
    return nullptr;
  }
  auto name = function.operator_name();
  if (!name) {
    if (!recording->watches || std::strncmp(function.name(), "autograd::engine::evaluate_function", 35) != 0) {
      return nullptr;
    }
    auto context = std::make_unique<Context>();
    context->recording = recording->shared_from_this();
    context->evaluates_node = true;
    enter_node();
    return context;
  }
  if (in_kernel || (recording->watches && in_backward > 0)) return nullptr;
  auto handle = c10::Dispatcher::singleton().findOp(*name);
  auto context = std::make_unique<Context>();
  context->recording = recording->shared_from_this();
  context->composite = handle && handle->hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd);
  context->outer = enclosing;
  Op op{name->name, enclosing, function.seqNr(), context->composite, {}, {}};
  for (const c10::IValue &input : function.inputs()) encode(input, op.inputs);
  if (recording->watches && !context->composite) {
    for (const c10::IValue &input : function.inputs()) collect(input, context->inputs);
    if (handle && handle->schema().is_mutable()) {
      for (const at::Tensor &input : context->inputs) context->before.push_back(examine(input));
    }
  }
  {
    std::lock_guard<std::mutex> lock(recording->mutex);
    context->index = static_cast<int64_t>(recording->ops.size());
    recording->ops.push_back(std::move(op));
  }
  enclosing = context->index;
  in_kernel = !context->composite;
  return context;
}

void end(const at::RecordFunction &function, at::ObserverContext *observer) {
  auto *context = static_cast<Context *>(observer);
  if (context == nullptr) return;
  if (context->evaluates_node) return leave_node();
  enclosing = context->outer;
  in_kernel = false;
  std::vector<int64_t> row;
  std::vector<at::Tensor> outputs;
  for (const c10::IValue &output : function.outputs()) {
    encode(output, row);
    collect(output, outputs);
  }
  Recording &recording = *context->recording;
  std::string name;
  {
    std::lock_guard<std::mutex> lock(recording.mutex);
    // It may have been cleared meanwhile, by whoever holds it.
    if (context->index >= static_cast<int64_t>(recording.ops.size())) return;
    Op &op = recording.ops[context->index];
    op.outputs = std::move(row);
    name = op.name;
  }
  if (recording.watches && !context->composite && !leaves_memory_as_found(name)) watch(*context, outputs);
}

}  // namespace

// Owned by Rust: a recording, and what makes this thread write to it.
struct FulguriteRecorder {
  std::shared_ptr<Recording> recording;
  Recording *outer = nullptr;
  std::unique_ptr<c10::DebugInfoGuard> guard;
  at::CallbackHandle callback = 0;
};

struct FulguriteOp {
  const char *name;
  size_t name_len;
  int64_t parent;
  int64_t sequence;
  bool composite;
  const int64_t *inputs;
  size_t inputs_len;
  const int64_t *outputs;
  size_t outputs_len;
};

extern "C" {

Error fulgurite_recorder_start(bool watch, FulguriteRecorder **out) noexcept {
  return protect([&] {
    auto recorder = std::make_unique<FulguriteRecorder>();
    recorder->recording = std::make_shared<Recording>(watch);
    recorder->outer = static_cast<Recording *>(c10::ThreadLocalDebugInfo::get(SLOT));
    recorder->guard = std::make_unique<c10::DebugInfoGuard>(SLOT, recorder->recording);
    if (recorder->outer == nullptr) {
      recorder->callback = at::addThreadLocalCallback(
          at::RecordFunctionCallback(start, end)
              .needsInputs(true)
              .needsOutputs(true)
              .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
    }
    *out = recorder.release();
  });
}

// Ends the recording; what was recorded stays. An outer recording gets it too.
void fulgurite_recorder_stop(FulguriteRecorder *recorder) noexcept {
  if (!recorder->guard) return;
  if (recorder->outer == nullptr) at::removeCallback(recorder->callback);
  recorder->guard.reset();
  if (recorder->outer == nullptr) return;
  std::scoped_lock lock(recorder->outer->mutex, recorder->recording->mutex);
  auto &ops = recorder->outer->ops;
  const auto offset = static_cast<int64_t>(ops.size());
  for (Op op : recorder->recording->ops) {
    if (op.parent >= 0) op.parent += offset;
    ops.push_back(std::move(op));
  }
}

void fulgurite_recorder_free(FulguriteRecorder *recorder) noexcept { delete recorder; }

size_t fulgurite_recorder_len(const FulguriteRecorder *recorder) noexcept {
  std::lock_guard<std::mutex> lock(recorder->recording->mutex);
  return recorder->recording->ops.size();
}

// The pointers are valid until the recorder records more, or is freed.
void fulgurite_recorder_op(const FulguriteRecorder *recorder, size_t index, FulguriteOp *out) noexcept {
  std::lock_guard<std::mutex> lock(recorder->recording->mutex);
  const Op &op = recorder->recording->ops[index];
  *out = {op.name.data(),     op.name.size(),   op.parent,         op.sequence,      op.composite,
          op.inputs.data(), op.inputs.size(), op.outputs.data(), op.outputs.size()};
}

// The finding that a tensor's values come from, or -1.
int64_t fulgurite_recorder_origin(const FulguriteRecorder *recorder, const at::Tensor *tensor) noexcept {
  std::lock_guard<std::mutex> lock(recorder->recording->mutex);
  return tensor->defined() ? find(*recorder->recording, *tensor) : -1;
}

bool fulgurite_recorder_finding(const FulguriteRecorder *recorder, int64_t index, Finding *out) noexcept {
  std::lock_guard<std::mutex> lock(recorder->recording->mutex);
  const auto &findings = recorder->recording->findings;
  if (index < 0 || index >= static_cast<int64_t>(findings.size())) return false;
  *out = findings[index];
  return true;
}

// The sequence number of the node that the backward pass evaluated last, which is that of the operation that made it.
int64_t fulgurite_recorder_last_node(const FulguriteRecorder *recorder) noexcept {
  std::lock_guard<std::mutex> lock(recorder->recording->mutex);
  return recorder->recording->last_node_sequence;
}

}  // extern "C"
