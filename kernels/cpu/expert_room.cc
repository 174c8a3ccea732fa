#include "kernels/expert_room.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/dispatch.h"

namespace hadal::kernels {
namespace {

template <class T>
class Sends {
 public:
  explicit Sends(const ExpertSends& args)
      : args_(args),
        slots_(args.experts.shape[1]),
        slots_there_(args.sent_experts.shape[1]),
        per_place_(args.num_experts / args.num_places),
        room_(args.sent_row.numel() / (args.num_places * args.copies)),
        taken_(static_cast<std::size_t>(args.num_places), 0) {}

  void run() {
    for (View view : {args_.sent_row, args_.sent_experts, args_.row_sends, args_.pair_sends}) std::ranges::fill(view.span<std::int32_t>(), -1);
    std::ranges::fill(args_.sent_weights.span<T>(), T{0});
    for (std::int64_t row = 0; row < args_.experts.shape[0]; ++row) send(row);
    for (const std::int64_t taken : taken_) *args_.overflow.as<std::int64_t>() += std::max<std::int64_t>(taken - room_, 0) * args_.copies;
  }

 private:
  /// Its pairs by rising experts, place by place.
  void send(std::int64_t row) {
    const std::int32_t* chosen = args_.experts.as<std::int32_t>();
    std::vector<std::int64_t> pairs(static_cast<std::size_t>(slots_));
    std::iota(pairs.begin(), pairs.end(), row * slots_);
    std::erase_if(pairs, [chosen](std::int64_t pair) { return chosen[pair] < 0; });
    std::ranges::sort(pairs, {}, [chosen](std::int64_t pair) { return chosen[pair]; });
    const std::int64_t width = args_.row_sends.shape[1];
    std::int32_t* sends = args_.row_sends.as<std::int32_t>() + row * width;
    for (std::size_t begin = 0, end; begin < pairs.size(); begin = end, sends += args_.copies) {
      const std::int64_t place = chosen[pairs[begin]] / per_place_, at = taken_[static_cast<std::size_t>(place)]++;
      for (end = begin; end < pairs.size() && chosen[pairs[end]] / per_place_ == place;) ++end;
      if (at >= room_) continue;
      for (std::int64_t copy = 0; copy < args_.copies; ++copy) {
        const std::int64_t sent = (place * args_.copies + copy) * room_ + at;
        args_.sent_row.as<std::int32_t>()[sent] = static_cast<std::int32_t>(row);
        sends[copy] = static_cast<std::int32_t>(sent);
        for (std::size_t i = begin; i < end; ++i) {
          const std::int64_t to = sent * slots_there_ + static_cast<std::int64_t>(i - begin);
          args_.sent_experts.as<std::int32_t>()[to] = static_cast<std::int32_t>(chosen[pairs[i]] - place * per_place_);
          args_.sent_weights.as<T>()[to] = args_.weights.as<T>()[pairs[i]];
          args_.pair_sends.as<std::int32_t>()[pairs[i] * args_.copies + copy] = static_cast<std::int32_t>(to);
        }
      }
    }
  }

  const ExpertSends& args_;
  std::int64_t slots_, slots_there_, per_place_, room_;
  std::vector<std::int64_t> taken_;  // rows of each place so far
};

void expert_sends(Stream&, const ExpertSends& args) {
  visit_float(args.weights.dtype, [&]<class T>() { Sends<T>(args).run(); });
}

void expert_rows(Stream&, const ExpertRows& args) {
  const auto experts = args.experts.span<std::int32_t>();
  const auto offsets = args.offsets.span<std::int64_t>();
  std::int32_t* pair_row = args.pair_row.as<std::int32_t>();
  std::ranges::fill(offsets, 0);
  for (const std::int32_t expert : experts) {
    if (expert >= 0) ++offsets[static_cast<std::size_t>(expert) + 1];
  }
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  std::vector<std::int64_t> next(offsets.begin(), offsets.end());
  for (std::size_t pair = 0; pair < experts.size(); ++pair) {
    const std::int64_t row = experts[pair] < 0 ? args.room : next[static_cast<std::size_t>(experts[pair])]++;
    pair_row[pair] = row < args.room ? static_cast<std::int32_t>(row) : -1;
  }
  *args.overflow.as<std::int64_t>() += std::max<std::int64_t>(offsets.back() - args.room, 0);
  for (std::int64_t& offset : offsets) offset = std::min(offset, args.room);
}

void refuse_overflow(Stream&, const RefuseOverflow& args) {
  *args.y.as<double>() = *args.overflow.as<std::int64_t>() > 0 ? std::numeric_limits<double>::quiet_NaN() : *args.x.as<double>();
}

const RegisterCpu<ExpertSends> registered_sends{expert_sends};
const RegisterCpu<ExpertRows> registered_rows{expert_rows};
const RegisterCpu<RefuseOverflow> registered_refusal{refuse_overflow};

}  // namespace
}  // namespace hadal::kernels
