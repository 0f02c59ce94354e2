// The backend between GPUs. Only with the feature `cuda`: its header needs those of CUDA and NCCL.
#include "distributed.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

c10::intrusive_ptr<c10d::Backend> fulgurite::make_nccl(const c10::intrusive_ptr<c10d::Store> &store, int rank,
                                                       int size, std::chrono::milliseconds timeout,
                                                       const std::string &name) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  options->group_name = name;
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::PrefixStore>("nccl", store),
                                                             rank, size, options);
  backend->setSequenceNumberForGroup();
  return backend;
}
