#include "kernels/cuda/cudnn/plans.h"

#include <cudnn_frontend.h>

#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "core/tensor.h"

namespace hadal::kernels::cuda::cudnn {
namespace {

namespace fe = cudnn_frontend;
using TensorRef = std::shared_ptr<fe::graph::Tensor_attributes>;

enum Id : std::int64_t { kQ = 1, kK, kV, kO, kStatistics, kDO, kDQ, kDK, kDV };

struct Plan {
  std::shared_ptr<fe::graph::Graph> graph;  ///< null: this cuDNN does not take the shape
  std::int64_t workspace_bytes = 0;
};

/// Of a device. Leaked, as the device's streams are.
struct State {
  cudnnHandle_t handle = nullptr;
  std::map<Shape, Plan> plans;
};

std::mutex g_mutex;

void check(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Error(ExitCode::kIo, fmt::format("cuDNN: {}: {}, rank {}", call, cudnnGetErrorString(status), log_rank()));
}

State& state_of(const Stream& stream) {
  static auto* const states = new std::map<int, State>;
  State& state = (*states)[stream.device().index];
  if (state.handle == nullptr) check(cudnnCreate(&state.handle), "cudnnCreate");
  check(cudnnSetStream(state.handle, static_cast<cudaStream_t>(stream.native())), "cudnnSetStream");
  return state;
}

struct Dims {
  std::int64_t heads, width;
};

class Builder {
 public:
  explicit Builder(const Shape& shape) : shape_(shape), graph_(std::make_shared<fe::graph::Graph>()) {
    graph_->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
  }

  std::shared_ptr<fe::graph::Graph> forward() {
    fe::graph::SDPA_attributes options;
    options.set_name("attention").set_generate_stats(true).set_attn_scale(shape_.scale);
    options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
    auto [o, statistics] = graph_->sdpa(input(kQ, query(), shape_.q), input(kK, key(), shape_.k), input(kV, value(), shape_.v), options);
    output(o, kO, {shape_.heads, shape_.value_width}, shape_.o);
    output(statistics, kStatistics, {shape_.heads, 1}, statistics_strides()).set_data_type(fe::DataType_t::FLOAT);
    return graph_;
  }

  std::shared_ptr<fe::graph::Graph> backward() {
    fe::graph::SDPA_backward_attributes options;
    options.set_name("attention backward").set_attn_scale(shape_.scale);
    options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
    const Dims out{shape_.heads, shape_.value_width};
    const TensorRef statistics = input(kStatistics, {shape_.heads, 1}, statistics_strides());
    statistics->set_data_type(fe::DataType_t::FLOAT);
    auto [d_q, d_k, d_v] = graph_->sdpa_backward(input(kQ, query(), shape_.q), input(kK, key(), shape_.k), input(kV, value(), shape_.v),
                                                 input(kO, out, shape_.o), input(kDO, out, shape_.d_o), statistics, options);
    output(d_q, kDQ, query(), shape_.d_q);
    output(d_k, kDK, key(), shape_.d_k);
    output(d_v, kDV, value(), shape_.d_v);
    return graph_;
  }

 private:
  Dims query() const { return {shape_.heads, shape_.key_width}; }
  Dims key() const { return {shape_.kv_heads, shape_.key_width}; }
  Dims value() const { return {shape_.kv_heads, shape_.value_width}; }
  Strides statistics_strides() const { return {shape_.heads * shape_.rows, shape_.rows, 1}; }
  std::vector<std::int64_t> dims(const Dims& of) const { return {shape_.batch, of.heads, shape_.rows, of.width}; }
  static std::vector<std::int64_t> list(const Strides& strides) { return {strides.batch, strides.head, strides.row, 1}; }

  TensorRef input(Id id, const Dims& of, const Strides& strides) {
    return graph_->tensor(fe::graph::Tensor_attributes().set_uid(id).set_dim(dims(of)).set_stride(list(strides)));
  }
  fe::graph::Tensor_attributes& output(const TensorRef& tensor, Id id, const Dims& of, const Strides& strides) const {
    return tensor->set_output(true).set_uid(id).set_dim(dims(of)).set_stride(list(strides));
  }

  const Shape& shape_;
  std::shared_ptr<fe::graph::Graph> graph_;
};

Plan build(cudnnHandle_t handle, const Shape& shape) {
  Builder builder(shape);
  Plan plan{shape.backward ? builder.backward() : builder.forward()};
  if (plan.graph->build(handle, {fe::HeurMode_t::A}).is_bad() || plan.graph->get_workspace_size(plan.workspace_bytes).is_bad()) return {};
  return plan;
}

const Plan& plan_of(State& state, const Shape& shape) {
  const auto found = state.plans.find(shape);
  if (found != state.plans.end()) return found->second;
  return state.plans.emplace(shape, build(state.handle, shape)).first->second;
}

}  // namespace

bool has_plan(const Stream& stream, const Shape& shape) {
  const std::scoped_lock lock(g_mutex);
  return plan_of(state_of(stream), shape).graph != nullptr;
}

void execute(Stream& stream, const Shape& shape, const Buffers& buffers) {
  const std::scoped_lock lock(g_mutex);
  State& state = state_of(stream);
  const Plan& plan = plan_of(state, shape);
  HADAL_CHECK(plan.graph != nullptr, "a plan was announced by has_plan");
  const auto writable = [](const void* data) { return const_cast<void*>(data); };
  std::unordered_map<std::int64_t, void*> memory{
      {kQ, writable(buffers.q)}, {kK, writable(buffers.k)}, {kV, writable(buffers.v)}, {kO, buffers.o}, {kStatistics, buffers.statistics}};
  if (shape.backward) memory.insert({{kDO, writable(buffers.d_o)}, {kDQ, buffers.d_q}, {kDK, buffers.d_k}, {kDV, buffers.d_v}});
  Tensor workspace = Tensor::empty({plan.workspace_bytes}, DType::kU8, stream.device());
  auto status = plan.graph->execute(state.handle, memory, workspace.view().data);
  if (status.is_bad()) {
    throw Error(ExitCode::kIo, fmt::format("cuDNN: attention {}: {}, rank {}", shape.backward ? "backward" : "forward", status.get_message(), log_rank()));
  }
}

}  // namespace hadal::kernels::cuda::cudnn
