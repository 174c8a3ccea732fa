#include "nn/moe/local_exchange.h"

#include "kernels/router.h"
#include "kernels/rows.h"

namespace hadal::nn {
namespace {

class LocalRoute final : public ExpertRoute {
 public:
  LocalRoute(Stream& stream, std::int64_t num_experts, ConstView experts, ConstView weights)
      : num_rows_(experts.numel()),
        offsets_(Tensor::empty({num_experts + 1}, DType::kI64, experts.device)),
        pair_row_(Tensor::empty(experts.shape, DType::kI32, experts.device)),
        row_weight_(Tensor::empty({num_rows_}, weights.dtype, weights.device)) {
    Tensor row_token = Tensor::empty({num_rows_}, DType::kI32, experts.device), row_pair = Tensor::empty({num_rows_}, DType::kI32, experts.device);
    run(stream, kernels::DispatchPlan{.num_experts = num_experts,
                                      .experts = experts,
                                      .offsets = offsets_,
                                      .row_token = row_token,
                                      .row_pair = row_pair,
                                      .pair_row = pair_row_});
    run(stream, kernels::GatherRows{
                    .x = weights.reshape({num_rows_, 1}), .index = row_pair, .y = row_weight_.view().reshape({num_rows_, 1})});
  }

  ConstView offsets() const override { return offsets_; }
  ConstView row_weight() const override { return row_weight_; }

  void start_dispatch(Stream&, ConstView x) override { x_ = x; }

  Tensor finish_dispatch(Stream& stream) override {
    Tensor rows = Tensor::empty({num_rows_, x_.shape[1]}, x_.dtype, x_.device);
    run(stream, kernels::SpreadRows{.x = x_, .index = pair_row_, .y = rows});
    return rows;
  }

  void start_combine(Stream&, Tensor rows, Tensor row_scalars) override {
    rows_ = std::move(rows);
    row_scalars_ = std::move(row_scalars);
  }

  void finish_combine(Stream& stream, ConstView base, View y, View pair_scalars) override {
    run(stream, kernels::CombineRows{.x = rows_, .index = pair_row_, .base = base, .y = y});
    if (row_scalars_.defined()) {
      run(stream, kernels::GatherRows{.x = row_scalars_.view().reshape({num_rows_, 1}),
                                      .index = pair_row_.view().reshape({num_rows_}),
                                      .y = pair_scalars.reshape({num_rows_, 1})});
    }
    rows_.reset();
    row_scalars_.reset();
  }

 private:
  std::int64_t num_rows_;
  Tensor offsets_;
  Tensor pair_row_;  // I32 [T, K]
  Tensor row_weight_;
  ConstView x_;  // of the dispatch under way
  Tensor rows_;  // of the combine under way
  Tensor row_scalars_;
};

}  // namespace

std::unique_ptr<ExpertRoute> LocalExchange::route(Stream& stream, ConstView experts, ConstView weights) {
  return std::make_unique<LocalRoute>(stream, num_experts_, experts, weights);
}

}  // namespace hadal::nn
