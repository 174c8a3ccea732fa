#include "model/losses.h"

#include "core/copy.h"

namespace hadal::model {

LossTable::LossTable(std::int64_t micro_batches, std::int64_t mtp_depth, Device device)
    : sums_(Tensor::zeros({micro_batches, mtp_depth + 1}, DType::kF64, device)) {}

View LossTable::row(std::int64_t micro_batch) {
  return sums_.view().rows(micro_batch, micro_batch + 1).reshape({sums_.shape()[1]});
}

std::vector<Losses> LossTable::read(Stream& stream) const {
  const Tensor host = to_host(stream, sums_);
  const std::int64_t width = host.shape()[1];
  std::vector<Losses> losses;
  for (std::int64_t i = 0; i < host.shape()[0]; ++i) {
    const auto row = host.span<double>().subspan(static_cast<std::size_t>(i * width), static_cast<std::size_t>(width));
    losses.push_back({.main = row[0], .mtp = {row.begin() + 1, row.end()}});
  }
  return losses;
}

Losses total(const std::vector<Losses>& losses, std::int64_t mtp_depth) {
  Losses sum;
  sum.mtp.assign(static_cast<std::size_t>(mtp_depth), 0.0);
  for (const Losses& one : losses) {
    sum.main += one.main;
    for (std::size_t k = 0; k < one.mtp.size(); ++k) sum.mtp[k] += one.mtp[k];
  }
  return sum;
}

}  // namespace hadal::model
