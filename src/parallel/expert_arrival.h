// Where a dispatch ends: received rows are spread into rows sorted by expert, one for each expert a row came for; results are
// summed per received row, experts ascending.
//
// Shape legend: N rows and R items received, E' experts here, d hidden size.
#pragma once

#include <vector>

#include "core/stream.h"
#include "core/tensor.h"
#include "parallel/row_hop.h"

namespace hadal::parallel {

class ExpertArrival {
 public:
  ExpertArrival() = default;
  /// `items` sorted by row, in a row by expert. Rows of an expert are in order of their origin, then as they were sent: the same
  /// whatever way they came.
  /// `weight`: of the rows' weights.
  ExpertArrival(Stream& stream, const std::vector<RowItem>& items, std::int64_t num_rows, std::int64_t num_experts, int num_origins,
                DType weight);

  ConstView offsets() const { return offsets_; }        ///< I64 [E' + 1]
  ConstView row_weight() const { return row_weight_; }  ///< [R]
  bool defined() const { return offsets_.defined(); }

  /// [N, d] -> [R, d].
  Tensor spread(Stream& stream, ConstView rows) const;
  /// [R, d] -> [N, d].
  Tensor sum(Stream& stream, ConstView expert_rows) const;
  /// Scalars [R] of the sorted rows -> [R] of the items.
  Tensor to_items(Stream& stream, ConstView row_scalars) const;

 private:
  Tensor offsets_;
  Tensor source_;     // I32 [R]: received row of each sorted row
  Tensor item_row_;   // I32 [R]: sorted row of each item
  Tensor row_items_;  // I32 [N, most experts of a row]: sorted rows, -1 where there are no more
  Tensor row_weight_;
};

}  // namespace hadal::parallel
