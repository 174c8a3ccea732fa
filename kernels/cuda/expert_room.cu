// Dispatch into bounded room: both sorts are the counting sort of counting_sort.cuh with one key more, for slots that go nowhere; a small
// kernel then turns places among all into places in the room.
#include "kernels/expert_room.h"

#include "kernels/cuda/counting_sort.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256, kRowsPerBlock = kThreads / kWarp;

/// A slot stands for its row at the place of its expert where it is the row's first slot there.
struct PlaceOfSlot {
  const int* experts;
  int slots, per_place, num_places;
  __device__ int operator()(int slot) const {
    const int expert = experts[slot];
    if (expert < 0) return num_places;
    const int place = expert / per_place;
    for (int other = slot - slot % slots; other < slot; ++other) {
      const int earlier = experts[other];
      if (earlier >= 0 && earlier / per_place == place) return num_places;
    }
    return place;
  }
};

struct WriteOrder {
  int* order;
  __device__ void operator()(int slot, int at) const { order[slot] = at; }
};

struct Sends {
  int rows, slots, slots_there, width;  ///< N, K, S, and of row_sends
  int per_place, num_places, copies, room;
  const int* experts;
  const float* weights;
  const int* order;             ///< [N, K]: rank among all slots, by place; of slots that stand for their row
  const std::int64_t* offsets;  ///< [D + 2]: of the places in that order
  int *sent_row, *sent_experts;
  float* sent_weights;
  int *row_sends, *pair_sends;
  std::int64_t* overflow;
};

/// A warp per row, a lane per slot.
__device__ void send_row(const Sends& p, int row) {
  constexpr unsigned kAll = 0xffffffffu;
  constexpr int kNone = 0x7fffffff;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, slot = row * p.slots + lane;
  const int expert = lane < p.slots ? p.experts[slot] : -1;
  const int place = expert < 0 ? kNone : expert / p.per_place;
  const unsigned here = __match_any_sync(kAll, place);
  const int first = __ffs(static_cast<int>(here)) - 1;
  const bool leads = expert >= 0 && lane == first;
  int lower_here = 0, places_before = 0;
  for (int other = 0; other < p.slots; ++other) {
    const int its_expert = __shfl_sync(kAll, expert, other), its_place = __shfl_sync(kAll, place, other);
    const bool it_leads = __shfl_sync(kAll, static_cast<int>(leads), other) != 0;
    lower_here += its_place == place && its_expert < expert;
    places_before += it_leads && its_place < place;
  }
  const int num_places = __popc(__ballot_sync(kAll, leads));
  for (int i = num_places * p.copies + lane; i < p.width; i += kWarp) p.row_sends[row * p.width + i] = -1;
  if (lane >= p.slots) return;
  const int at = expert < 0 ? p.room : p.order[row * p.slots + first] - static_cast<int>(p.offsets[place]);
  const bool fits = at < p.room;
  for (int copy = 0; copy < p.copies; ++copy) {
    const int sent = fits ? (place * p.copies + copy) * p.room + at : -1, to = sent * p.slots_there + lower_here;
    p.pair_sends[slot * p.copies + copy] = fits ? to : -1;
    if (leads) p.row_sends[row * p.width + places_before * p.copies + copy] = sent;
    if (!fits) continue;
    p.sent_experts[to] = expert - place * p.per_place;
    p.sent_weights[to] = p.weights[slot];
    if (!leads) continue;
    p.sent_row[sent] = row;
    for (int i = __popc(here); i < p.slots_there; ++i) {
      p.sent_experts[sent * p.slots_there + i] = -1;
      p.sent_weights[sent * p.slots_there + i] = 0;
    }
  }
}

/// Room that no row has, by one thread each; what a place has no room for is counted by the thread of its first row.
__device__ void leave_empty(const Sends& p, int sent) {
  const int at = sent % p.room, destination = sent / p.room, place = destination / p.copies;
  const std::int64_t rows = p.offsets[place + 1] - p.offsets[place];
  if (at == 0 && destination % p.copies == 0 && rows > p.room) {
    atomicAdd(reinterpret_cast<unsigned long long*>(p.overflow), static_cast<unsigned long long>((rows - p.room) * p.copies));
  }
  if (at < rows) return;
  p.sent_row[sent] = -1;
  for (int i = 0; i < p.slots_there; ++i) {
    p.sent_experts[sent * p.slots_there + i] = -1;
    p.sent_weights[sent * p.slots_there + i] = 0;
  }
}

__global__ void __launch_bounds__(kThreads) send_kernel(Sends p, int row_blocks, int num_sent) {
  const int block = static_cast<int>(blockIdx.x);
  if (block < row_blocks) {
    const int row = block * kRowsPerBlock + static_cast<int>(threadIdx.x) / kWarp;
    if (row < p.rows) send_row(p, row);
  } else {
    const int sent = (block - row_blocks) * kThreads + static_cast<int>(threadIdx.x);
    if (sent < num_sent) leave_empty(p, sent);
  }
}

void expert_sends(Stream& stream, const ExpertSends& args) {
  const std::int64_t rows = args.experts.shape[0], slots = args.experts.shape[1], num_sent = args.sent_row.numel();
  HADAL_CHECK(slots <= kWarp && args.num_places <= 1024, "{} experts a row at {} places on CUDA", slots, args.num_places);
  if (num_sent == 0 && rows == 0) return;
  Tensor order = Tensor::empty({rows * slots}, DType::kI32, stream.device());
  Tensor offsets = Tensor::empty({args.num_places + 2}, DType::kI64, stream.device());
  const Sends p{.rows = static_cast<int>(rows),
                .slots = static_cast<int>(slots),
                .slots_there = static_cast<int>(args.sent_experts.shape[1]),
                .width = static_cast<int>(args.row_sends.shape[1]),
                .per_place = static_cast<int>(args.num_experts / args.num_places),
                .num_places = static_cast<int>(args.num_places),
                .copies = static_cast<int>(args.copies),
                .room = static_cast<int>(num_sent / (args.num_places * args.copies)),
                .experts = args.experts.as<std::int32_t>(),
                .weights = args.weights.as<float>(),
                .order = order.as<std::int32_t>(),
                .offsets = offsets.as<std::int64_t>(),
                .sent_row = args.sent_row.as<std::int32_t>(),
                .sent_experts = args.sent_experts.as<std::int32_t>(),
                .sent_weights = args.sent_weights.as<float>(),
                .row_sends = args.row_sends.as<std::int32_t>(),
                .pair_sends = args.pair_sends.as<std::int32_t>(),
                .overflow = args.overflow.as<std::int64_t>()};
  stable_counting_sort(stream, ExpertSends::kName, rows * slots, args.num_places + 1, PlaceOfSlot{p.experts, p.slots, p.per_place, p.num_places},
                       WriteOrder{order.as<std::int32_t>()}, offsets.as<std::int64_t>());
  const std::int64_t row_blocks = (rows + kRowsPerBlock - 1) / kRowsPerBlock, blocks = row_blocks + (num_sent + kThreads - 1) / kThreads;
  send_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, native(stream)>>>(p, static_cast<int>(row_blocks), static_cast<int>(num_sent));
  check_launch(ExpertSends::kName);
}

struct ExpertOfSlot {
  const int* experts;
  int num_experts;
  __device__ int operator()(int slot) const {
    const int expert = experts[slot];
    return expert < 0 ? num_experts : expert;
  }
};

struct WriteRow {
  const int* experts;
  int room;
  int* pair_row;
  __device__ void operator()(int slot, int row) const { pair_row[slot] = experts[slot] >= 0 && row < room ? row : -1; }
};

__global__ void __launch_bounds__(kThreads)
    bound_kernel(const std::int64_t* sorted, int num_experts, std::int64_t room, std::int64_t* offsets, std::int64_t* overflow) {
  for (int e = static_cast<int>(threadIdx.x); e <= num_experts; e += kThreads) offsets[e] = sorted[e] < room ? sorted[e] : room;
  if (threadIdx.x == 0 && sorted[num_experts] > room) *overflow += sorted[num_experts] - room;
}

void expert_rows(Stream& stream, const ExpertRows& args) {
  const std::int32_t* const experts = args.experts.as<std::int32_t>();
  Tensor sorted = Tensor::empty({args.num_experts + 2}, DType::kI64, stream.device());
  stable_counting_sort(stream, ExpertRows::kName, args.experts.numel(), args.num_experts + 1,
                       ExpertOfSlot{experts, static_cast<int>(args.num_experts)},
                       WriteRow{experts, static_cast<int>(args.room), args.pair_row.as<std::int32_t>()}, sorted.as<std::int64_t>());
  bound_kernel<<<1, kThreads, 0, native(stream)>>>(sorted.as<std::int64_t>(), static_cast<int>(args.num_experts), args.room,
                                                   args.offsets.as<std::int64_t>(), args.overflow.as<std::int64_t>());
  check_launch(ExpertRows::kName);
}

__global__ void refuse_kernel(const std::int64_t* overflow, const double* x, double* y) {
  *y = *overflow > 0 ? __longlong_as_double(0x7ff8000000000000ll) : *x;
}

void refuse_overflow(Stream& stream, const RefuseOverflow& args) {
  refuse_kernel<<<1, 1, 0, native(stream)>>>(args.overflow.as<std::int64_t>(), args.x.as<double>(), args.y.as<double>());
  check_launch(RefuseOverflow::kName);
}

const RegisterCuda<ExpertSends> registered_sends{expert_sends};
const RegisterCuda<ExpertRows> registered_rows{expert_rows};
const RegisterCuda<RefuseOverflow> registered_refusal{refuse_overflow};

}  // namespace
}  // namespace hadal::kernels::cuda
