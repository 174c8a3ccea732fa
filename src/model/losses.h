// The losses of micro-batches, summed where they are computed and read once: a step waits for no single one.
#pragma once

#include <vector>

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::model {

/// Weighted sums over the micro-batch; over all micro-batches, ranks and stages of a step they add up to the batch's means.
struct Losses {
  double main = 0;
  std::vector<double> mtp;  ///< per depth, before lambda / D
};

class LossTable {
 public:
  /// Zeros. `mtp_depth`: D.
  LossTable(std::int64_t micro_batches, std::int64_t mtp_depth, Device device);

  /// F64 [1 + D] of a micro-batch: the main loss, then each MTP depth's.
  View row(std::int64_t micro_batch);
  /// All rows; the host waits for them.
  std::vector<Losses> read(Stream& stream) const;

 private:
  Tensor sums_;  ///< F64 [micro-batches, 1 + D]
};

/// Added up in order.
Losses total(const std::vector<Losses>& losses, std::int64_t mtp_depth);

}  // namespace hadal::model
