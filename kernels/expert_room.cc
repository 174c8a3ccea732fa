#include "kernels/expert_room.h"

#include <algorithm>
#include <limits>

namespace hadal::kernels {

void run(Stream& stream, const ExpertSends& args) {
  HADAL_CHECK(args.experts.shape.rank() == 2 && args.num_places >= 1 && args.copies >= 1 && args.num_experts % args.num_places == 0,
              "experts {} of {} at {} places", args.experts.shape.str(), args.num_experts, args.num_places);
  const std::int64_t rows = args.experts.shape[0], slots = args.experts.shape[1], sent = args.sent_row.numel();
  const std::int64_t slots_there = std::min(slots, args.num_experts / args.num_places);
  HADAL_CHECK((sent > 0 || rows == 0) && sent % (args.num_places * args.copies) == 0 && args.sent_experts.shape == Shape({sent, slots_there}) &&
                  args.sent_weights.shape == args.sent_experts.shape,
              "{} rows to {} x {} destinations, their experts {}, weights {}", sent, args.num_places, args.copies, args.sent_experts.shape.str(),
              args.sent_weights.shape.str());
  HADAL_CHECK(args.weights.shape == args.experts.shape && args.weights.dtype == args.sent_weights.dtype &&
                  args.row_sends.shape == Shape({rows, std::min(args.num_places, slots) * args.copies}) &&
                  args.pair_sends.numel() == rows * slots * args.copies && args.overflow.numel() == 1,
              "experts {}, weights {}, row_sends {}, pair_sends {}", args.experts.shape.str(), args.weights.shape.str(), args.row_sends.shape.str(),
              args.pair_sends.shape.str());
  HADAL_CHECK(std::max(sent * slots_there, rows * slots * args.copies) <= std::numeric_limits<std::int32_t>::max(),
              "{} rows of {} experts to {} of room", rows, slots, sent);
  launch(stream, args);
}

void run(Stream& stream, const ExpertRows& args) {
  HADAL_CHECK(args.experts.shape.rank() == 2 && args.offsets.numel() == args.num_experts + 1 && args.pair_row.shape == args.experts.shape &&
                  args.overflow.numel() == 1,
              "experts {} of {}, offsets {}, pair_row {}", args.experts.shape.str(), args.num_experts, args.offsets.shape.str(),
              args.pair_row.shape.str());
  HADAL_CHECK(std::max(args.room, args.experts.numel()) <= std::numeric_limits<std::int32_t>::max(), "{} slots to {} rows", args.experts.numel(),
              args.room);
  launch(stream, args);
}

void run(Stream& stream, const RefuseOverflow& args) {
  HADAL_CHECK(args.overflow.numel() == 1 && args.x.numel() == 1 && args.y.numel() == 1 && args.x.dtype == DType::kF64 && args.y.dtype == DType::kF64,
              "overflow {}, x {}, y {}", args.overflow.shape.str(), args.x.shape.str(), args.y.shape.str());
  launch(stream, args);
}

}  // namespace hadal::kernels
