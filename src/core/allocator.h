// Caching allocator, one per device: freed blocks are kept and reused by size class, never returned in the step loop
// (page faults cost a PyTorch-like step 45 %, spec/cpu.md 4). Thread-safe. Peak bytes are counted.
#pragma once

#include <cstddef>

#include "core/device.h"

namespace hadal {

struct MemoryStats {
  std::size_t live_bytes = 0;      ///< handed out now
  std::size_t peak_bytes = 0;      ///< largest live_bytes since start or reset_peak
  std::size_t reserved_bytes = 0;  ///< obtained from the system
};

/// What a block of so many bytes takes: sizes come in classes, at most 12.5 % apart above 4 KiB.
std::size_t block_bytes(std::size_t bytes);

/// A 64-byte aligned block of at least `bytes`; never null (zero bytes give a valid unique pointer). Contents undefined.
/// Throws Error (74) when the system has no memory, with the request and what is live.
void* allocate(Device device, std::size_t bytes);
/// Gives a block back; `bytes` as requested.
void deallocate(Device device, void* block, std::size_t bytes) noexcept;

/// Blocks that are taken or given back between the two calls belong to the graph that is recorded meanwhile (core/graph.h), which
/// writes to them at each launch: until release_graph_memory nobody else is given them, and they count as handed out. One graph per
/// device at a time.
void begin_graph_memory(Device device);
void end_graph_memory(Device device);
void release_graph_memory(Device device);

MemoryStats memory_stats(Device device);
void reset_peak(Device device);
/// The same of what the calling thread took less what it gave back (reserved_bytes aside): ranks that are threads of one process are
/// told apart by it.
MemoryStats thread_memory_stats();
void reset_thread_peak();
/// Returns every cached block to the system.
void trim(Device device);

}  // namespace hadal
