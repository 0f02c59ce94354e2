// What a CUDA device tells of itself: its name, and the statistics of the allocator that caches its memory. Compiles and
// links without CUDA: the allocator is reached through libtorch's device-independent interface, the driver by its name.
#include "bridge.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <dlfcn.h>

using fulgurite::Error;
using fulgurite::protect;

extern "C" {

// Writes the statistics of device `index`, in the order of Rust's `MEMORY_STATS`. Before the device is used there are none,
// and all are 0.
Error fulgurite_cuda_memory_stats(int index, int64_t *out, size_t count) noexcept {
  return protect([&] {
    auto *allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    c10::CachingDeviceAllocator::DeviceStats stats;
    if (allocator->initialized()) stats = allocator->getDeviceStats(static_cast<c10::DeviceIndex>(index));
    std::vector<int64_t> values;
    auto put = [&](const c10::CachingAllocator::Stat &stat) {
      values.insert(values.end(), {stat.current, stat.peak, stat.allocated, stat.freed});
    };
    for (const auto *pools :
         {&stats.allocation, &stats.segment, &stats.active, &stats.inactive_split, &stats.allocated_bytes,
          &stats.reserved_bytes, &stats.active_bytes, &stats.inactive_split_bytes, &stats.requested_bytes}) {
      for (const auto &stat : *pools) put(stat);
    }
    put(stats.oversize_allocations);
    put(stats.oversize_segments);
    values.insert(values.end(), {stats.num_alloc_retries, stats.num_ooms, stats.num_sync_all_streams,
                                 stats.num_device_alloc, stats.num_device_free, stats.max_split_size});
    TORCH_CHECK(values.size() == count, "libtorch has ", values.size(), " statistics, and ", count, " were asked for");
    std::copy(values.begin(), values.end(), out);
  });
}

// Writes the name of device `index`, as CUDA numbers the devices that are visible. `false`: there is no driver, or no such
// device.
bool fulgurite_cuda_device_name(int index, char *out, int capacity) noexcept {
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
  if (driver == nullptr) return false;
  auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  auto device_of = reinterpret_cast<int (*)(int *, int)>(dlsym(driver, "cuDeviceGet"));
  auto name_of = reinterpret_cast<int (*)(char *, int, int)>(dlsym(driver, "cuDeviceGetName"));
  int device = 0;
  // The driver stays loaded: libtorch uses it too.
  return init != nullptr && device_of != nullptr && name_of != nullptr && init(0) == 0 &&
         device_of(&device, index) == 0 && name_of(out, capacity, device) == 0;
}

// Whether matrix products of 32-bit floats may be computed in TensorFloat-32.
Error fulgurite_allows_tf32(bool *out) noexcept {
  return protect([&] { *out = at::globalContext().float32MatmulPrecision() != at::Float32MatmulPrecision::HIGHEST; });
}

}  // extern "C"
