#include "core/allocator.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
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
    if (recording_) of_graph_.insert(block);
    stats_.live_bytes += size;
    if (stats_.live_bytes > stats_.peak_bytes) stats_.peak_bytes = stats_.live_bytes;
    return block;
  }

  void give(void* block, std::size_t bytes) {
    const std::size_t size = block_bytes(bytes);
    const std::scoped_lock lock(mutex_);
    if (recording_) {
      of_graph_.insert(block);
    } else if (of_graph_.contains(block)) {
      kept_for_graph_.emplace_back(size, block);
      return;
    }
    free_[size].push_back(block);
    stats_.live_bytes -= size;
  }

  void begin_graph() {
    const std::scoped_lock lock(mutex_);
    HADAL_CHECK(!recording_ && of_graph_.empty(), "{} holds a graph already", name_of(device_));
    recording_ = true;
  }

  void end_graph() {
    const std::scoped_lock lock(mutex_);
    recording_ = false;
    for (auto& [size, blocks] : free_) {
      const auto kept = std::partition(blocks.begin(), blocks.end(), [&](void* block) { return !of_graph_.contains(block); });
      for (auto block = kept; block != blocks.end(); ++block) kept_for_graph_.emplace_back(size, *block);
      stats_.live_bytes += size * static_cast<std::size_t>(blocks.end() - kept);
      blocks.erase(kept, blocks.end());
    }
    stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.live_bytes);
  }

  void release_graph() {
    const std::scoped_lock lock(mutex_);
    for (const auto& [size, block] : kept_for_graph_) {
      free_[size].push_back(block);
      stats_.live_bytes -= size;
    }
    kept_for_graph_.clear();
    of_graph_.clear();
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

  /// All but those that a graph in the making has used.
  void release_kept() {
    for (auto& [size, blocks] : free_) {
      const auto released = std::partition(blocks.begin(), blocks.end(), [&](void* block) { return recording_ && of_graph_.contains(block); });
      for (auto block = released; block != blocks.end(); ++block) {
        if (device_.is_cpu()) {
          std::free(*block);
        } else {
          backend_of(device_).release(device_.index, *block);
        }
      }
      stats_.reserved_bytes -= size * static_cast<std::size_t>(blocks.end() - released);
      blocks.erase(released, blocks.end());
    }
  }

  const Device device_;
  std::mutex mutex_;
  std::unordered_map<std::size_t, std::vector<void*>> free_;
  bool recording_ = false;
  std::unordered_set<void*> of_graph_;                             ///< blocks that the graph's launches write to or read
  std::vector<std::pair<std::size_t, void*>> kept_for_graph_;      ///< those of them that no tensor holds
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

void begin_graph_memory(Device device) { pool(device).begin_graph(); }
void end_graph_memory(Device device) { pool(device).end_graph(); }
void release_graph_memory(Device device) { pool(device).release_graph(); }

MemoryStats memory_stats(Device device) { return pool(device).stats(); }

void reset_peak(Device device) { pool(device).reset_peak(); }

MemoryStats thread_memory_stats() {
  const auto bytes = [](std::int64_t count) { return static_cast<std::size_t>(std::max<std::int64_t>(count, 0)); };
  return {.live_bytes = bytes(of_thread.live), .peak_bytes = bytes(of_thread.peak)};
}

void reset_thread_peak() { of_thread.peak = of_thread.live; }

void trim(Device device) { pool(device).trim(); }

}  // namespace hadal
