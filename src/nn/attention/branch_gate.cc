#include "nn/attention/branch_gate.h"

#include "kernels/branch_gate.h"

namespace hadal::nn {
namespace {

/// Rows of the heads in o.heads: one slice of each branch's rows, or the whole tensor.
std::vector<LogicalPart> gate_parts(const std::string& name, const Shape& shape, const AttentionOptions& o) {
  if (o.heads.whole()) return {whole_part(name, shape, 0)};
  const std::int64_t heads = o.heads.size(o.num_heads), row = shape.numel() / shape[0];
  std::vector<LogicalPart> parts;
  for (std::int64_t branch = 0; branch < 3; ++branch) {
    parts.push_back(sliced_part(name, shape, 0, branch * o.num_heads + o.heads.begin(o.num_heads), heads, branch * heads * row));
  }
  return parts;
}

}  // namespace

BranchGate::BranchGate(const AttentionOptions& o, const std::string& prefix)
    : heads_(o.heads.size(o.num_heads)),
      weight_(Parameter(prefix + ".nsa.gate.weight", {3 * heads_, o.hidden_size}, o.storage(),
                        {.init = Init::normal(o.init_std), .replication = Replication::kTensor},
                        gate_parts(prefix + ".nsa.gate.weight", {3 * o.num_heads, o.hidden_size}, o))),
      // Biases do not decay; zero leaves every branch half open.
      bias_(prefix + ".nsa.gate.bias", {3 * heads_}, o.storage().accumulation(),
            {.init = Init::zeros(), .decays = false, .replication = Replication::kTensor},
            gate_parts(prefix + ".nsa.gate.bias", {3 * o.num_heads}, o)) {}

void BranchGate::collect(ParameterList& parameters) {
  weight_.collect(parameters);
  parameters.push_back(&bias_);
}

Tensor BranchGate::forward(Stream& stream, ConstView x, const PerBranch<Tensor>& o, State& s) const {
  const Tensor logits = weight_.apply(stream, x);
  s.g = Tensor::empty(logits.shape(), accumulation_dtype(x.dtype), x.device);
  Tensor y = Tensor::empty(o[kWindow].shape(), x.dtype, x.device);
  run(stream, kernels::BranchGateForward{.heads = heads_,
                                         .logits = logits,
                                         .bias = bias_.value(),
                                         .o = {o[0].view(), o[1].view(), o[2].view()},
                                         .g = s.g,
                                         .y = y});
  return y;
}

PerBranch<Tensor> BranchGate::backward_input(Stream& stream, ConstView d_y, const PerBranch<Tensor>& o, View d_x, State& s) {
  s.d_logits = Tensor::empty(s.g.shape(), d_y.dtype, d_y.device);
  PerBranch<Tensor> d_o;
  for (Tensor& branch : d_o) branch = Tensor::empty(d_y.shape, d_y.dtype, d_y.device);
  run(stream, kernels::BranchGateBackward{.heads = heads_,
                                          .g = s.g,
                                          .o = {o[0].view(), o[1].view(), o[2].view()},
                                          .d_y = d_y,
                                          .d_o = {d_o[0].view(), d_o[1].view(), d_o[2].view()},
                                          .d_logits = s.d_logits,
                                          .d_bias = bias_.grad()});
  s.g.reset();
  weight_.apply_transposed(stream, s.d_logits, d_x);
  return d_o;
}

}  // namespace hadal::nn
