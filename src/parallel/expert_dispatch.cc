#include "parallel/expert_dispatch.h"

#include <algorithm>
#include <numeric>

#include "core/copy.h"
#include "kernels/dispatch.h"
#include "kernels/rows.h"
#include "parallel/expert_arrival.h"
#include "parallel/row_hop.h"
#include "parallel/strided_group.h"

namespace hadal::parallel {

/// One micro-batch's way: the hops, then the arrival. The first hop out and the last one back overlap with the caller's work.
class DispatchRoute final : public nn::ExpertRoute {
 public:
  DispatchRoute(Stream& stream, ExpertDispatch& dispatch, ConstView experts, ConstView weights)
      : dispatch_(dispatch), num_pairs_(experts.numel()), weight_dtype_(weights.dtype) {
    open_hop(stream, experts.shape[0], make_items(stream, experts, weights));
  }

  ConstView offsets() const override { return arrival_.offsets(); }
  ConstView row_weight() const override { return arrival_.row_weight(); }

  void start_dispatch(Stream& stream, ConstView x) override { hops_.front()->start_rows(stream, x); }

  Tensor finish_dispatch(Stream& stream) override {
    if (!arrival_.defined()) arrive(stream);
    Tensor rows = hops_.front()->finish_rows();
    for (std::size_t h = 1; h < hops_.size(); ++h) {
      hops_[h]->start_rows(stream, rows);
      rows = hops_[h]->finish_rows();
    }
    return arrival_.spread(stream, rows);
  }

  void start_combine(Stream& stream, Tensor rows, Tensor row_scalars) override {
    const std::int64_t hidden_size = rows.shape()[1];
    const Storage storage(rows.dtype(), rows.device());
    Tensor scalars = row_scalars.defined() ? arrival_.to_items(stream, row_scalars) : Tensor{};
    Tensor sums = arrival_.sum(stream, rows);
    rows.reset();
    for (std::size_t h = hops_.size() - 1; h > 0; --h) {
      hops_[h]->start_return(stream, std::move(sums), std::move(scalars));
      sums = Tensor::empty({hops_[h - 1]->num_received(), hidden_size}, storage);
      scalars = hops_[h]->finish_return(stream, {}, sums);
    }
    hops_.front()->start_return(stream, std::move(sums), std::move(scalars));
  }

  void finish_combine(Stream& stream, ConstView base, View y, View pair_scalars) override {
    const Tensor scalars = hops_.front()->finish_return(stream, base, y);
    if (!scalars.defined()) return;
    fill_zero(stream, pair_scalars);
    run(stream, kernels::ScatterAddRows{.d_y = scalars.view().reshape({scalars.numel(), 1}),
                                        .index = item_pair_,
                                        .d_x = pair_scalars.reshape({num_pairs_, 1})});
  }

 private:
  /// Items sorted by token, member, expert; item_pair_ says which (token, slot) each is of.
  std::vector<RowItem> make_items(Stream& stream, ConstView experts_here, ConstView weights_here) {
    const Tensor experts = to_host(stream, experts_here), weights = to_host(stream, weights_here);
    const std::int64_t tokens = experts.shape()[0], top_k = experts.shape()[1];
    const std::int64_t per_member = dispatch_.experts_per_member_;
    const std::int32_t* chosen = experts.as<std::int32_t>();
    std::vector<RowItem> items;
    items.reserve(static_cast<std::size_t>(num_pairs_ * dispatch_.etp_));
    item_pair_ = Tensor::empty({num_pairs_ * dispatch_.etp_}, DType::kI32);
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(top_k));
    kernels::visit_float(weight_dtype_, [&]<class T>() {
      for (std::int64_t t = 0; t < tokens; ++t) {
        std::iota(pairs.begin(), pairs.end(), t * top_k);
        std::ranges::sort(pairs, {}, [chosen](std::int64_t pair) { return chosen[pair]; });
        for (std::size_t begin = 0, end; begin < pairs.size(); begin = end) {
          const std::int64_t ep_rank = chosen[pairs[begin]] / per_member;
          for (end = begin; end < pairs.size() && chosen[pairs[end]] / per_member == ep_rank; ++end) {
          }
          for (int etp_rank = 0; etp_rank < dispatch_.etp_; ++etp_rank) {
            for (std::size_t i = begin; i < end; ++i) {
              item_pair_.as<std::int32_t>()[items.size()] = static_cast<std::int32_t>(pairs[i]);
              items.push_back({.row = static_cast<std::int32_t>(t),
                               .member = static_cast<std::int32_t>(ep_rank * dispatch_.etp_ + etp_rank),
                               .expert = static_cast<std::int32_t>(chosen[pairs[i]] % per_member),
                               .origin = dispatch_.group_.rank(),
                               .weight = static_cast<double>(weights.as<T>()[pairs[i]])});
            }
          }
        }
      }
    });
    item_pair_ = moved_to(stream, std::move(item_pair_), stream.device());
    return items;
  }

  void open_hop(Stream& stream, std::int64_t num_rows, const std::vector<RowItem>& items) {
    const ExpertDispatch::Hop& hop = dispatch_.hops_[hops_.size()];
    hops_.push_back(std::make_unique<RowHop>(stream, *hop.group, num_rows, items, hop.destination));
    dispatch_.rows_sent_[hops_.size() - 1] += hops_.back()->num_sent_away();
  }

  /// Opens the later hops as the items come in; the first hop's rows travel meanwhile.
  void arrive(Stream& stream) {
    while (hops_.size() < dispatch_.hops_.size()) open_hop(stream, hops_.back()->num_received(), hops_.back()->wait_items());
    arrival_ = ExpertArrival(stream, hops_.back()->wait_items(), hops_.back()->num_received(), dispatch_.experts_per_member_,
                             dispatch_.group_.size(), weight_dtype_);
  }

  ExpertDispatch& dispatch_;
  std::int64_t num_pairs_;  // T * K
  DType weight_dtype_;
  Tensor item_pair_;  // I32 [T * K * etp]
  std::vector<std::unique_ptr<RowHop>> hops_;
  ExpertArrival arrival_;
};

ExpertDispatch::ExpertDispatch(comm::Communicator& group, const ExpertDispatchOptions& options)
    : group_(group), etp_(options.etp) {
  const int size = group.size(), per_node = options.ranks_per_node;
  HADAL_CHECK(etp_ >= 1 && size % etp_ == 0 && options.num_experts % (size / etp_) == 0,
              "{} experts on {} members, {} of them share a width", options.num_experts, size, etp_);
  experts_per_member_ = options.num_experts / (size / etp_);
  if (per_node == 0) {
    hops_.push_back({&group_, [](std::int32_t member) { return member; }});
  } else {
    HADAL_CHECK(per_node >= 1 && size % per_node == 0, "{} members in nodes of {}", size, per_node);
    const int node = group.rank() / per_node, place = group.rank() % per_node;
    node_ = strided_group(group, node * per_node, 1, per_node, "expert node");
    rail_ = strided_group(group, place, per_node, size / per_node, "expert rail");
    hops_.push_back({rail_.get(), [per_node](std::int32_t member) { return member / per_node; }});
    hops_.push_back({node_.get(), [per_node](std::int32_t member) { return member % per_node; }});
  }
  rows_sent_.assign(hops_.size(), 0);
}

std::unique_ptr<nn::ExpertRoute> ExpertDispatch::route(Stream& stream, ConstView experts, ConstView weights) {
  return std::make_unique<DispatchRoute>(stream, *this, experts, weights);
}

}  // namespace hadal::parallel
