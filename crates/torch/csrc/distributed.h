// What the files of the bridge to c10d share: the objects that Rust holds, and texts and bytes that cross over.
#pragma once

#include "bridge.h"

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

// Owned by Rust's `Store`.
struct FulguriteStore {
  c10::intrusive_ptr<c10d::Store> store;
};

// Owned by Rust's `ProcessGroup`.
struct FulguriteGroup {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  // The backends whose threads the group waits for when it is destroyed.
  std::vector<c10::intrusive_ptr<c10d::Backend>> gloo;
  // Null without NCCL.
  c10::intrusive_ptr<c10d::Backend> nccl;
  // Whether an operation begins with a talk between the ranks.
  bool debug = false;
};

namespace fulgurite {

// A string of Rust: UTF-8 without an end mark. It lives for the call.
struct Text {
  const char *data;
  size_t len;

  operator std::string() const { return std::string(data, len); }
};

// c10d notes every operation in one table of the process (the flight recorder), and adds a line for a group at its
// first operation without a lock. So operations begin one after the other, and the first of a group when it is made.
std::mutex &beginning();

// Lets this process's connections to a server at `port` fail when nothing is heard from its machine for 30 seconds.
// Without it, c10d's store waits for a quarter of an hour for a machine that is cut off.
void end_silent_connections(uint16_t port) noexcept;

#ifdef FULGURITE_CUDA
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store> &store, int rank, int size,
                                            std::chrono::milliseconds timeout, const std::string &name);
#endif

}  // namespace fulgurite
