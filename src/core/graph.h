// Work that a device does again and again, recorded once and then launched as a whole: the host is done with a step in one call
// (a CUDA graph). On the CPU there is nothing to record.
#pragma once

#include <functional>

#include "core/stream.h"

namespace hadal {

class Graph {
 public:
  /// Calls `body`, which enqueues work on the stream's device; nothing of it is done yet. Memory that the body takes stays the graph's,
  /// and is reused by every launch: tensors that outlive the body hold the results of the last one. What the body reads of the host is
  /// fixed, so values that change lie in device memory. The body copies nothing from or to the host and waits for nothing (Error);
  /// when it throws, nothing is left behind. One graph per device at a time. `stream` is not the CPU's.
  Graph(const Stream& stream, const std::function<void()>& body);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  /// Enqueues everything once.
  void launch();

 private:
  Stream stream_;
  void* native_ = nullptr;
};

}  // namespace hadal
