// Device work that is the same in step after step: done as usual while it is new, then recorded and launched as one graph.
#pragma once

#include <functional>
#include <optional>

#include "core/graph.h"

namespace hadal::train {

/// `Key` says what the host puts into the work (shapes, constants); work under another key is other work.
template <class Key>
class RecordedWork {
 public:
  /// Does `work`, which enqueues on `stream`. Once under a key as it comes (that fills the device's pool and makes what is made once),
  /// then recorded and launched, from then on launched alone: then `work` is not called, and all that it did is the device's.
  void run(Stream& stream, const Key& key, const std::function<void()>& work) {
    if (key_ != key) {
      graph_.reset();
      work();
      key_ = key;
      return;
    }
    if (!graph_) graph_.emplace(stream, work);
    graph_->launch();
  }

 private:
  std::optional<Key> key_;  ///< of the last work
  std::optional<Graph> graph_;
};

}  // namespace hadal::train
