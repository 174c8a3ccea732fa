#include "model/mtp_module.h"

#include "kernels/gemm.h"

namespace hadal::model {
namespace {

std::string module_name(std::int64_t layer_idx, const char* part) { return fmt::format("model.layers.{}.{}", layer_idx, part); }

/// Columns [half*d, half*d + d) of a [d, 2d] matrix; its rows stay 2d apart.
template <class V>
V half_of(V matrix, std::int64_t half) {
  const std::int64_t width = matrix.shape[1] / 2;
  V slice = matrix;
  using Byte = std::conditional_t<std::is_same_v<V, View>, char, const char>;
  slice.data = static_cast<Byte*>(matrix.data) + static_cast<std::size_t>(half * width) * size_of(matrix.dtype);
  slice.shape = Shape{matrix.shape[0], width};
  return slice;
}

}  // namespace

MtpModule::MtpModule(const ModelOptions& model, std::int64_t layer_idx, const std::shared_ptr<const nn::RopeTable>& rope,
                     const parallel::LayerGroups& groups)
    : hidden_size_(model.shape.hidden_size),
      embedding_norm_(module_name(layer_idx, "enorm"), hidden_size_, model.shape.rms_norm_eps, model.storage()),
      hidden_norm_(module_name(layer_idx, "hnorm"), hidden_size_, model.shape.rms_norm_eps, model.storage()),
      projection_(module_name(layer_idx, "eh_proj.weight"), {hidden_size_, 2 * hidden_size_}, model.storage(),
                  {.init = nn::Init::normal(model.shape.init_std)}),
      block_(model, layer_idx, rope, groups),
      out_norm_(module_name(layer_idx, "shared_head.norm"), hidden_size_, model.shape.rms_norm_eps, model.storage()) {}

Tensor MtpModule::multiply(nn::Context& ctx, ConstView embedding, ConstView hidden) {
  Tensor projected = Tensor::empty(hidden.shape, hidden.dtype, hidden.device);
  const ConstView w = static_cast<const nn::Parameter&>(projection_).value();
  run(ctx.stream, kernels::Gemm{.a = embedding, .b = half_of(w, 0), .c = projected, .transpose_b = true, .ldb = 2 * hidden_size_});
  run(ctx.stream, kernels::Gemm{.a = hidden, .b = half_of(w, 1), .c = projected, .transpose_b = true, .beta = 1, .ldb = 2 * hidden_size_});
  return projected;
}

Tensor MtpModule::project(nn::Context& ctx, ConstView embedding, ConstView hidden, Record* record) {
  Record local;
  Record& r = record == nullptr ? local : *record;
  const bool keep = record != nullptr;
  r.embedding = embedding_norm_.forward(ctx, embedding, keep ? &r.embedding_norm : nullptr);
  r.hidden = hidden_norm_.forward(ctx, hidden, keep ? &r.hidden_norm : nullptr);
  return multiply(ctx, r.embedding, r.hidden);
}

Tensor MtpModule::finish(nn::Context& ctx, Tensor block_out, Record* record) {
  if (record == nullptr) return out_norm_.forward(ctx, block_out, nullptr);
  record->block_out = std::move(block_out);
  return out_norm_.forward(ctx, record->block_out, &record->out_norm);
}

Tensor MtpModule::forward(nn::Context& ctx, ConstView embedding, ConstView hidden) {
  return finish(ctx, block_.forward(ctx, project(ctx, embedding, hidden, nullptr)), nullptr);
}

Tensor MtpModule::backward_finish(nn::Context& ctx, ConstView d_out, Record& r) { return out_norm_.backward(ctx, d_out, {}, r.out_norm); }

MtpModule::InputGradients MtpModule::backward_project(nn::Context& ctx, Tensor d_projected, Record& r) {
  r.d_projected = std::move(d_projected);
  const ConstView w = static_cast<const nn::Parameter&>(projection_).value();
  Tensor d_normed = Tensor::empty(r.d_projected.shape(), r.d_projected.dtype(), r.d_projected.device());
  InputGradients gradients;
  run(ctx.stream, kernels::Gemm{.a = r.d_projected, .b = half_of(w, 0), .c = d_normed, .ldb = 2 * hidden_size_});
  gradients.d_embedding = embedding_norm_.backward(ctx, d_normed, {}, r.embedding_norm);
  run(ctx.stream, kernels::Gemm{.a = r.d_projected, .b = half_of(w, 1), .c = d_normed, .ldb = 2 * hidden_size_});
  gradients.d_hidden = hidden_norm_.backward(ctx, d_normed, {}, r.hidden_norm);
  return gradients;
}

void MtpModule::backward_weight(nn::Context& ctx, Record& r) {
  if (r.block) block_.backward_weight(ctx, *r.block);
  const View d_w = projection_.grad();
  run(ctx.stream,
      kernels::Gemm{.a = r.d_projected, .b = r.embedding, .c = half_of(d_w, 0), .transpose_a = true, .beta = 1, .ldc = 2 * hidden_size_});
  run(ctx.stream,
      kernels::Gemm{.a = r.d_projected, .b = r.hidden, .c = half_of(d_w, 1), .transpose_a = true, .beta = 1, .ldc = 2 * hidden_size_});
}

void MtpModule::collect(nn::ParameterList& parameters) {
  embedding_norm_.collect(parameters);
  hidden_norm_.collect(parameters);
  parameters.push_back(&projection_);
  block_.collect(parameters);
  out_norm_.collect(parameters);
}

Tensor MtpModule::decode(nn::Context& ctx, ConstView embedding, ConstView hidden, nn::AttentionCache& cache) {
  const Tensor e = embedding_norm_.forward(ctx, embedding, nullptr);
  const Tensor h = hidden_norm_.forward(ctx, hidden, nullptr);
  const Tensor projected = multiply(ctx, e, h);
  const Tensor out = block_.decode(ctx, projected, cache);
  return out_norm_.forward(ctx, out, nullptr);
}

}  // namespace hadal::model
