#include "core/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/device_backend.h"
#include "core/error.h"

namespace hadal {
namespace {

/// Blocks of one device, kept by size.
class Pool {
 public:
  explicit Pool(Device device) : device_(device) {}

  void* take(std::size_t bytes) {
    const std::size_t size = block_bytes(bytes);
    const std::scoped_lock lock(mutex_);
    auto& blocks = free_[size];
    void* block = nullptr;
    if (!blocks.empty()) {
      block = blocks.back();
      blocks.pop_back();
    } else {
      block = obtain(size);
      // Kept blocks of other sizes may be what is missing.
      if (block == nullptr && stats_.reserved_bytes > stats_.live_bytes) {
        release_kept();
        block = obtain(size);
      }
      if (block == nullptr) {
        throw Error(ExitCode::kIo, fmt::format("{} is out of memory: {} bytes asked for, {} in use; use a smaller batch, sequence or model",
                                               name_of(device_), bytes, stats_.live_bytes));
      }
      stats_.reserved_bytes += size;
    }
    stats_.live_bytes += size;
    if (stats_.live_bytes > stats_.peak_bytes) stats_.peak_bytes = stats_.live_bytes;
    return block;
  }

  void give(void* block, std::size_t bytes) {
    const std::size_t size = block_bytes(bytes);
    const std::scoped_lock lock(mutex_);
    free_[size].push_back(block);
    stats_.live_bytes -= size;
  }

  MemoryStats stats() {
    const std::scoped_lock lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    const std::scoped_lock lock(mutex_);
    stats_.peak_bytes = stats_.live_bytes;
  }

  void trim() {
    const std::scoped_lock lock(mutex_);
    release_kept();
  }

 private:
  void* obtain(std::size_t size) {
    return device_.is_cpu() ? std::aligned_alloc(64, size) : backend_of(device_).allocate(device_.index, size);
  }

  void release_kept() {
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) {
        if (device_.is_cpu()) {
          std::free(block);
        } else {
          backend_of(device_).release(device_.index, block);
        }
      }
      stats_.reserved_bytes -= size * blocks.size();
      blocks.clear();
    }
  }

  const Device device_;
  std::mutex mutex_;
  std::unordered_map<std::size_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

/// Signed: a thread may give back what another one took.
struct ThreadCount {
  std::int64_t live = 0;
  std::int64_t peak = 0;
};
thread_local ThreadCount of_thread;

// Leaked on purpose: tensors with static lifetime may outlive any order of destruction.
Pool& pool(Device device) {
  static Pool* const cpu = new Pool(kCpu);
  if (device.is_cpu()) return *cpu;
  static auto* const mutex = new std::mutex;
  static auto* const others = new std::unordered_map<int, Pool>;
  const std::scoped_lock lock(*mutex);
  return others->try_emplace(device.index, device).first->second;
}

}  // namespace

// Size classes: powers of two up to 4 KiB, then eighths of a power of two (at most 12.5 % slack).
std::size_t block_bytes(std::size_t bytes) {
  if (bytes <= 64) return 64;
  if (bytes <= 4096) return std::bit_ceil(bytes);
  const std::size_t step = std::bit_ceil(bytes) / 16;
  return (bytes + step - 1) / step * step;
}

void* allocate(Device device, std::size_t bytes) {
  void* block = pool(device).take(bytes);
  of_thread.live += static_cast<std::int64_t>(block_bytes(bytes));
  of_thread.peak = std::max(of_thread.peak, of_thread.live);
  return block;
}

void deallocate(Device device, void* block, std::size_t bytes) noexcept {
  of_thread.live -= static_cast<std::int64_t>(block_bytes(bytes));
  pool(device).give(block, bytes);
}

MemoryStats memory_stats(Device device) { return pool(device).stats(); }

void reset_peak(Device device) { pool(device).reset_peak(); }

MemoryStats thread_memory_stats() {
  const auto bytes = [](std::int64_t count) { return static_cast<std::size_t>(std::max<std::int64_t>(count, 0)); };
  return {.live_bytes = bytes(of_thread.live), .peak_bytes = bytes(of_thread.peak)};
}

void reset_thread_peak() { of_thread.peak = of_thread.live; }

void trim(Device device) { pool(device).trim(); }

}  // namespace hadal
