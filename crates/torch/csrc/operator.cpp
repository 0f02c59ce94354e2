// Any operator of libtorch, called by its name.
#include "bridge.h"

#include <ATen/core/dispatch/Dispatcher.h>

using fulgurite::Error;
using fulgurite::protect;

namespace {

// Layout and numbers as in `operator.rs`.
struct Argument {
  int64_t kind;
  const at::Tensor *tensor;
  int64_t integer;
  double number;
  const void *list;
  size_t len;
};

enum Kind : int64_t { kNone, kTensor, kInt, kDouble, kBool, kInts, kText, kTensors };

c10::IValue value(const Argument &argument) {
  switch (argument.kind) {
    case kTensor: return *argument.tensor;
    case kInt: return argument.integer;
    case kDouble: return argument.number;
    case kBool: return argument.integer != 0;
    case kInts: {
      auto begin = static_cast<const int64_t *>(argument.list);
      return c10::IValue(std::vector<int64_t>(begin, begin + argument.len));
    }
    case kText: return std::string(static_cast<const char *>(argument.list), argument.len);
    case kTensors: {
      auto begin = static_cast<const at::Tensor *const *>(argument.list);
      std::vector<at::Tensor> tensors;
      tensors.reserve(argument.len);
      for (size_t i = 0; i < argument.len; ++i) tensors.push_back(*begin[i]);
      return c10::IValue(tensors);
    }
    default: return {};
  }
}

}  // namespace

extern "C" {

Error fulgurite_operator_find(const char *name, const char *overload, const c10::OperatorHandle **out) noexcept {
  return protect([&] {
    auto found = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
    *out = new c10::OperatorHandle(found);
  });
}

void fulgurite_operator_free(const c10::OperatorHandle *handle) noexcept { delete handle; }

Error fulgurite_operator_call(const c10::OperatorHandle *handle, const Argument *arguments, size_t count, at::Tensor **out,
                              size_t capacity, size_t *results) noexcept {
  return protect([&] {
    torch::jit::Stack stack;
    stack.reserve(count);
    for (size_t i = 0; i < count; ++i) stack.push_back(value(arguments[i]));
    // Missing arguments have their defaults, as in Python.
    const auto &schema = handle->schema().arguments();
    for (size_t i = count; i < schema.size(); ++i) {
      TORCH_CHECK(schema[i].default_value().has_value(), handle->operator_name().name, " needs the argument `",
                  schema[i].name(), "`");
      stack.push_back(*schema[i].default_value());
    }
    TORCH_CHECK(stack.size() == schema.size(), handle->operator_name().name, " takes ", schema.size(), " arguments, not ",
                count);
    for (size_t i = 0; i < count; ++i) {
      // A number stands for the type that the schema names.
      auto type = schema[i].type();
      if (auto optional = type->cast<c10::OptionalType>()) type = optional->getElementType();
      if (stack[i].isInt() && type->kind() == c10::TypeKind::FloatType) stack[i] = static_cast<double>(stack[i].toInt());
      TORCH_CHECK(stack[i].type()->isSubtypeOf(*schema[i].type()) || schema[i].type()->kind() == c10::TypeKind::NumberType ||
                      stack[i].isIntList() || stack[i].isTensorList(),
                  handle->operator_name().name, " takes ", schema[i].type()->str(), " as `", schema[i].name(), "`, not ",
                  stack[i].type()->str());
    }
    handle->callBoxed(stack);
    TORCH_CHECK(stack.size() <= capacity, handle->operator_name().name, " returns ", stack.size(), " values, not ", capacity);
    for (const auto &result : stack) {
      TORCH_CHECK(result.isTensor(), handle->operator_name().name, " returns ", result.type()->str(), ", not a tensor");
    }
    for (size_t i = 0; i < stack.size(); ++i) out[i] = new at::Tensor(stack[i].toTensor());
    *results = stack.size();
  });
}
}
