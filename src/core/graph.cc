#include "core/graph.h"

#include "core/allocator.h"
#include "core/device_backend.h"
#include "core/error.h"

namespace hadal {

Graph::Graph(const Stream& stream, const std::function<void()>& body) : stream_(stream) {
  const Device device = stream.device();
  const DeviceBackend& backend = backend_of(device);
  begin_graph_memory(device);
  backend.begin_graph(device.index, stream_.native());
  std::exception_ptr failure;
  try {
    body();
  } catch (...) {
    failure = std::current_exception();
  }
  native_ = backend.end_graph(device.index, stream_.native());
  end_graph_memory(device);
  if (failure == nullptr && native_ != nullptr) return;
  if (native_ != nullptr) backend.destroy_graph(native_);
  release_graph_memory(device);
  if (failure != nullptr) std::rethrow_exception(failure);
  throw Error(ExitCode::kBug, fmt::format("the step could not be recorded as a graph on {}; run.cuda_graph=false runs it without", name_of(device)));
}

Graph::~Graph() {
  // What was launched may still run; its memory is given out again in the order of the same stream.
  backend_of(stream_.device()).destroy_graph(native_);
  release_graph_memory(stream_.device());
}

void Graph::launch() { backend_of(stream_.device()).launch_graph(stream_.device().index, stream_.native(), native_); }

}  // namespace hadal
