// How tokens reach their experts and come back, as a MoE layer sees it: the experts may all be here (local_exchange.h) or on the
// ranks of an expert-parallel group (parallel/expert_dispatch.h). Transfers are started, so that other work runs beside them.
//
// Shape legend: T tokens here, K experts per token, d hidden size, E' experts here, R rows at these experts, sorted by expert.
//
//   forward   route, start_dispatch(x), finish_dispatch, [experts], start_combine(y rows), finish_combine
//   backward  start_dispatch(d_y), finish_dispatch, [experts], start_combine(d_x rows, d_weight), finish_combine
//
// Backward of a dispatch is a combine and the reverse, both along the same route (spec/parallelism.md 3.1).
#pragma once

#include <memory>

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::nn {

/// The way of one micro-batch. Every rank of the group makes the same calls in the same order.
class ExpertRoute {
 public:
  virtual ~ExpertRoute() = default;

  /// Known once the first dispatch has finished.
  /// I64 [E' + 1]: the rows of expert e are [offsets[e], offsets[e + 1]).
  virtual ConstView offsets() const = 0;
  /// [R]: the router's weight of each row.
  virtual ConstView row_weight() const = 0;

  /// x [T, d] stays unchanged until the dispatch has finished.
  virtual void start_dispatch(Stream& stream, ConstView x) = 0;
  /// [R, d]: for each row its token's x.
  virtual Tensor finish_dispatch(Stream& stream) = 0;

  /// rows [R, d]; row_scalars [R] or undefined.
  virtual void start_combine(Stream& stream, Tensor rows, Tensor row_scalars) = 0;
  /// y [T, d] = base + sum over the token's rows, base [T, d] or empty, y may be base. pair_scalars [T, K], written where
  /// row_scalars were given: those of each (token, slot).
  virtual void finish_combine(Stream& stream, ConstView base, View y, View pair_scalars) = 0;
};

class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;
  /// experts I32 [T, K], of all experts of the layer, each token's distinct; weights [T, K]. Both may go away afterwards.
  virtual std::unique_ptr<ExpertRoute> route(Stream& stream, ConstView experts, ConstView weights) = 0;
};

}  // namespace hadal::nn
