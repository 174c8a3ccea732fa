#include "parallel/expert_arrival.h"

#include <algorithm>

#include "core/copy.h"
#include "kernels/dispatch.h"
#include "kernels/rows.h"

namespace hadal::parallel {

ExpertArrival::ExpertArrival(Stream& stream, const std::vector<RowItem>& items, std::int64_t num_rows, std::int64_t num_experts,
                             int num_origins, DType weight) {
  // Counting sort by (expert, origin): stable, so rows of one origin keep their order.
  std::vector<std::int64_t> next(static_cast<std::size_t>(num_experts * num_origins + 1), 0);
  std::vector<std::int64_t> items_of_row(static_cast<std::size_t>(num_rows), 0);
  const auto key = [num_origins](const RowItem& item) {
    return static_cast<std::size_t>(item.expert) * num_origins + item.origin;
  };
  for (const RowItem& item : items) {
    HADAL_CHECK(item.expert >= 0 && item.expert < num_experts && item.origin >= 0 && item.origin < num_origins,
                "a row for expert {} of {} from member {} of {}", item.expert, num_experts, item.origin, num_origins);
    ++next[key(item) + 1];
    ++items_of_row[static_cast<std::size_t>(item.row)];
  }
  for (std::size_t k = 1; k < next.size(); ++k) next[k] += next[k - 1];
  offsets_ = Tensor::empty({num_experts + 1}, DType::kI64);
  for (std::int64_t e = 0; e <= num_experts; ++e)
    offsets_.as<std::int64_t>()[e] = next[static_cast<std::size_t>(e * num_origins)];

  const std::int64_t count = std::ssize(items);
  const std::int64_t most = num_rows == 0 ? 1 : *std::max_element(items_of_row.begin(), items_of_row.end());
  source_ = Tensor::empty({count}, DType::kI32);
  item_row_ = Tensor::empty({count}, DType::kI32);
  row_items_ = Tensor::empty({num_rows, most}, DType::kI32);
  row_weight_ = Tensor::empty({count}, weight);
  std::ranges::fill(row_items_.span<std::int32_t>(), -1);
  std::ranges::fill(items_of_row, 0);
  kernels::visit_float(weight, [&]<class T>() {
    for (std::size_t i = 0; i < items.size(); ++i) {
      const RowItem& item = items[i];
      const auto row = static_cast<std::int32_t>(next[key(item)]++);
      source_.as<std::int32_t>()[row] = item.row;
      item_row_.as<std::int32_t>()[i] = row;
      row_items_.as<std::int32_t>()[item.row * most + items_of_row[static_cast<std::size_t>(item.row)]++] = row;
      row_weight_.as<T>()[row] = static_cast<T>(item.weight);
    }
  });
  for (Tensor* made : {&offsets_, &source_, &item_row_, &row_items_, &row_weight_}) *made = moved_to(stream, std::move(*made), stream.device());
}

Tensor ExpertArrival::spread(Stream& stream, ConstView rows) const {
  Tensor sorted = Tensor::empty({source_.numel(), rows.shape[1]}, rows.dtype, rows.device);
  run(stream, kernels::GatherRows{.x = rows, .index = source_, .y = sorted});
  return sorted;
}

Tensor ExpertArrival::sum(Stream& stream, ConstView expert_rows) const {
  Tensor rows = Tensor::empty({row_items_.shape()[0], expert_rows.shape[1]}, expert_rows.dtype, expert_rows.device);
  run(stream, kernels::CombineRows{.x = expert_rows, .index = row_items_, .base = {}, .y = rows});
  return rows;
}

Tensor ExpertArrival::to_items(Stream& stream, ConstView row_scalars) const {
  const std::int64_t count = item_row_.numel();
  Tensor scalars = Tensor::empty({count}, row_scalars.dtype, row_scalars.device);
  run(stream,
      kernels::GatherRows{.x = row_scalars.reshape({count, 1}), .index = item_row_, .y = scalars.view().reshape({count, 1})});
  return scalars;
}

}  // namespace hadal::parallel
