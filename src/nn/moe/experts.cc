#include "nn/moe/experts.h"

#include "kernels/grouped_gemm.h"
#include "kernels/grouped_swiglu.h"
#include "kernels/swiglu.h"

namespace hadal::nn {
namespace {

std::vector<LogicalPart> gate_up_parts(const std::string& name, const ExpertsOptions& o) {
  std::vector<LogicalPart> parts;
  const std::int64_t width = o.width_share.size(o.width), begin = o.width_share.begin(o.width);
  const std::int64_t first = o.experts.begin(o.num_experts);
  for (std::int64_t e = 0; e < o.experts.size(o.num_experts); ++e) {
    const std::string expert = fmt::format("{}.{}", name, first + e);
    const std::int64_t size = width * o.hidden_size;
    parts.push_back(sliced_part(expert + ".gate_proj.weight", {o.width, o.hidden_size}, 0, begin, width, 2 * e * size));
    parts.push_back(sliced_part(expert + ".up_proj.weight", {o.width, o.hidden_size}, 0, begin, width, (2 * e + 1) * size));
  }
  return parts;
}

std::vector<LogicalPart> down_parts(const std::string& name, const ExpertsOptions& o) {
  std::vector<LogicalPart> parts;
  const std::int64_t width = o.width_share.size(o.width), begin = o.width_share.begin(o.width);
  const std::int64_t first = o.experts.begin(o.num_experts);
  for (std::int64_t e = 0; e < o.experts.size(o.num_experts); ++e) {
    parts.push_back(sliced_part(fmt::format("{}.{}.down_proj.weight", name, first + e), {o.hidden_size, o.width}, 1, begin, width,
                                e * width * o.hidden_size));
  }
  return parts;
}

ParameterOptions parameter_options(const ExpertsOptions& o) {
  return {.init = Init::normal(o.init_std), .replication = Replication::kExpert};
}

}  // namespace

Experts::Experts(const std::string& name, const ExpertsOptions& o)
    : gate_up_(name + ".gate_up", {o.experts.size(o.num_experts), 2 * o.width_share.size(o.width), o.hidden_size}, o.storage,
               parameter_options(o), gate_up_parts(name, o)),
      down_(name + ".down", {o.experts.size(o.num_experts), o.hidden_size, o.width_share.size(o.width)}, o.storage,
            parameter_options(o), down_parts(name, o)) {}

Tensor Experts::forward(Stream& stream, Tensor rows, ConstView offsets, ConstView row_weight, ExpertsSaved& saved) {
  const std::int64_t num_rows = rows.shape()[0], hidden_size = down_.shape()[1], width = down_.shape()[2];
  saved.rows = std::move(rows);
  saved.gate_up = Tensor::empty({num_rows, 2 * width}, saved.rows.dtype(), saved.rows.device());
  saved.h = Tensor::empty({num_rows, width}, saved.rows.dtype(), saved.rows.device());
  Tensor y = Tensor::empty({num_rows, hidden_size}, saved.rows.dtype(), saved.rows.device());
  run(stream, kernels::GroupedSwigluForward{.x = saved.rows,
                                            .offsets = offsets,
                                            .w = gate_up_.value(),
                                            .row_weight = row_weight,
                                            .gate_up = saved.gate_up,
                                            .h = saved.h});
  run(stream, kernels::GroupedGemmForward{.x = saved.h, .offsets = offsets, .w = down_.value(), .y = y});
  return y;
}

Experts::InputGradients Experts::backward_input(Stream& stream, Tensor d_y, ConstView offsets, ConstView row_weight,
                                                ExpertsSaved& saved) {
  const std::int64_t num_rows = d_y.shape()[0];
  saved.d_y = std::move(d_y);
  const DType dtype = saved.d_y.dtype();
  const Device device = saved.d_y.device();
  InputGradients result{Tensor{}, Tensor::empty({num_rows}, accumulation_dtype(dtype), device)};
  Tensor d_h = Tensor::empty(saved.h.shape(), dtype, device);
  run(stream, kernels::GroupedGemmBackwardInput{.d_y = saved.d_y, .offsets = offsets, .w = down_.value(), .d_x = d_h});
  run(stream, kernels::SwigluBackward{.gate_up = saved.gate_up,
                                      .row_weight = row_weight,
                                      .d_h = d_h,
                                      .d_gate_up = saved.gate_up,
                                      .d_row_weight = result.d_row_weight});
  d_h.reset();
  result.d_rows = Tensor::empty(saved.d_y.shape(), dtype, device);
  run(stream,
      kernels::GroupedGemmBackwardInput{.d_y = saved.gate_up, .offsets = offsets, .w = gate_up_.value(), .d_x = result.d_rows});
  return result;
}

void Experts::backward_weight(Stream& stream, ConstView offsets, ExpertsSaved& saved) {
  const auto accumulate = [&](ConstView d_y, ConstView x, Parameter& weight) {
    const GradientTarget d_w = weight.grad_target();
    run(stream, kernels::GroupedGemmBackwardWeight{.d_y = d_y, .x = x, .offsets = offsets, .d_w = d_w.sum, .add = d_w.add});
  };
  accumulate(saved.d_y, saved.h, down_);
  accumulate(saved.gate_up, saved.rows, gate_up_);
}

void Experts::collect(ParameterList& parameters) {
  parameters.push_back(&gate_up_);
  parameters.push_back(&down_);
}

}  // namespace hadal::nn
