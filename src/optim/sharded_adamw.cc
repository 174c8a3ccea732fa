#include "optim/sharded_adamw.h"

#include <algorithm>
#include <numeric>

#include "core/copy.h"
#include "core/error.h"
#include "kernels/adamw.h"
#include "kernels/cast.h"

namespace hadal::optim {
namespace {

constexpr int kTag = 0;
/// Initial values that are made at once.
constexpr std::int64_t kInitChunk = 1 << 22;

DType moment_dtype(const OptimSection& options, DType compute) {
  return options.moments == MomentType::kBf16 ? DType::kBf16 : compute;
}

View elements(Tensor& of, std::int64_t begin, std::int64_t numel) { return of.view().rows(begin, begin + numel); }

/// Parameters of each dtype, in their order; dtypes in the order in which they come first.
std::vector<nn::ParameterList> by_dtype(const nn::ParameterList& parameters) {
  std::vector<nn::ParameterList> lists;
  for (nn::Parameter* parameter : parameters) {
    const auto found = std::ranges::find(lists, parameter->dtype(), [](const nn::ParameterList& list) { return list.front()->dtype(); });
    if (found == lists.end()) {
      lists.push_back({parameter});
    } else {
      found->push_back(parameter);
    }
  }
  return lists;
}

std::unique_ptr<comm::Communicator> twin_of(comm::Communicator& comm) {
  std::vector<int> ranks(static_cast<std::size_t>(comm.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return comm.subgroup(ranks, comm.name());
}

}  // namespace

ShardedAdamW::ShardedAdamW(const OptimSection& options, std::vector<ReplicaGroup> groups, comm::Communicator& world,
                           std::int64_t bucket_bytes)
    : options_(options), world_(world) {
  for (ReplicaGroup& group : groups) {
    std::erase_if(group.parameters, [](const nn::Parameter* parameter) { return !parameter->options().trainable; });
    for (const nn::Parameter* parameter : group.parameters) {
      HADAL_CHECK(parameter->accumulation() == group.parameters.front()->accumulation(), "{} and {} are summed in one dtype on one device",
                  parameter->name(), group.parameters.front()->name());
    }
    // Reductions of two dtypes would meet in one communicator in an order that differs between ranks.
    comm::Communicator* comm = group.comm;
    for (nn::ParameterList& parameters : by_dtype(group.parameters)) {
      std::unique_ptr<comm::Communicator> twin = comm == nullptr ? twin_of(*group.comm) : nullptr;
      ReplicaGroup part{twin ? twin.get() : comm, std::move(parameters)};
      add(std::move(part), std::move(twin), bucket_bytes);
      comm = nullptr;
    }
  }
  const Device device = parameters_.empty() ? kCpu : parameters_.front()->device();
  norm_squared_ = Tensor::zeros({1}, DType::kF64, device);
  rates_ = Tensor::zeros({3}, DType::kF64, device);
}

void ShardedAdamW::add(ReplicaGroup group, std::unique_ptr<comm::Communicator> comm, std::int64_t bucket_bytes) {
  for (std::size_t i = 0; i < group.parameters.size(); ++i) {
    HADAL_CHECK(where_.emplace(group.parameters[i], Where{members_.size(), i}).second, "{} is in two groups", group.parameters[i]->name());
    parameters_.push_back(group.parameters[i]);
  }
  const nn::Parameter& first = *group.parameters.front();
  const Storage value = first.accumulation(), moment(moment_dtype(options_, value.dtype), value.device);
  members_.push_back({std::move(comm), FlatGroup(std::move(group), bucket_bytes), {}});
  State& state = members_.back().state;
  const FlatGroup& flat = members_.back().flat;
  for (std::size_t slab = 0; slab < flat.layout().slabs().size(); ++slab) {
    const Shape shape{flat.layout().owned_numel(slab)};
    state.m.push_back(Tensor::zeros(shape, moment));
    state.v.push_back(Tensor::zeros(shape, moment));
    if (has(StateKind::kAverage)) state.average.push_back(Tensor::zeros(shape, value));
    if (has_master(first)) state.master.push_back(Tensor::zeros(shape, value));
  }
}

const ShardedAdamW::Where& ShardedAdamW::where(const nn::Parameter& parameter) const {
  const auto found = where_.find(&parameter);
  HADAL_CHECK(found != where_.end(), "{} is not the optimizer's", parameter.name());
  return found->second;
}

void ShardedAdamW::zero_grad() {
  for (Member& member : members_) member.flat.zero_grad();
  reduced_ = false;
}

void ShardedAdamW::ready(const nn::Parameter& parameter) {
  HADAL_CHECK(!reduced_, "{} is ready after the reduction has ended", parameter.name());
  const Where& at = where(parameter);
  members_[at.member].flat.ready(at.index);
}

void ShardedAdamW::finish() {
  HADAL_CHECK(!reduced_, "gradients are reduced twice");
  for (Member& member : members_) member.flat.finish();
  reduced_ = true;
}

ConstView ShardedAdamW::grad_norm_squared(Stream& stream) {
  HADAL_CHECK(reduced_, "the norm of gradients that are not reduced");
  norm_squared_.fill_zero();
  for (Member& member : members_) {
    for (const FlatLayout::Piece& piece : member.flat.owned()) {
      run(stream, kernels::SumSquares{.x = member.flat.grad(piece), .result = norm_squared_});
    }
  }
  if (world_.size() > 1) world_.all_reduce_sum(norm_squared_.view());
  return norm_squared_;
}

void ShardedAdamW::begin_step(Stream& stream, double lr) {
  ++num_steps_;
  copy(stream, kernels::adamw_rates(lr, options_.beta1, options_.beta2, num_steps_), rates_);
}

void ShardedAdamW::step(Stream& stream, ConstView grad_norm_squared) {
  HADAL_CHECK(reduced_, "an update with gradients that are not reduced");
  for (Member& member : members_) {
    auto piece = member.flat.owned().begin();
    for (std::size_t bucket = 0; bucket < member.flat.layout().num_buckets(); ++bucket) {
      for (; piece != member.flat.owned().end() && piece->bucket == bucket; ++piece)
        update(stream, member, *piece, grad_norm_squared);
      member.flat.start_gather(bucket);
    }
  }
}

void ShardedAdamW::update(Stream& stream, Member& member, const FlatLayout::Piece& piece, ConstView grad_norm_squared) {
  const nn::Parameter& parameter = *member.flat.parameters()[piece.parameter];
  run(stream, kernels::AdamW{.grad = member.flat.grad(piece),
                             .value = value_of(member, piece),
                             .m = state_of(member, StateKind::kFirstMoment, piece),
                             .v = state_of(member, StateKind::kSecondMoment, piece),
                             .ema = has(StateKind::kAverage) ? state_of(member, StateKind::kAverage, piece) : View{},
                             .working = has_master(parameter) ? member.flat.value(piece) : View{},
                             .grad_norm_squared = grad_norm_squared,
                             .clip_norm = options_.clip_norm,
                             .rates = rates_,
                             .beta1 = options_.beta1,
                             .beta2 = options_.beta2,
                             .eps = options_.eps,
                             .weight_decay = parameter.options().decays ? options_.weight_decay : 0.0,
                             .ema_decay = options_.ema_decay});
}

void ShardedAdamW::wait_values() {
  for (Member& member : members_) member.flat.wait_values();
}

void ShardedAdamW::initialize(Stream& stream, std::uint64_t seed) {
  for (Member& member : members_) {
    if (has_master(*member.flat.parameters().front())) {
      initialize_masters(stream, member, seed);
    } else {
      for (nn::Parameter* parameter : member.flat.parameters()) parameter->initialize(seed);
    }
  }
  wait_values();
}

/// Each element is made once, by its owner, through a bounded piece of host memory.
void ShardedAdamW::initialize_masters(Stream& stream, Member& member, std::uint64_t seed) {
  for (const FlatLayout::Piece& piece : member.flat.owned()) {
    const nn::Parameter& parameter = *member.flat.parameters()[piece.parameter];
    const View master = value_of(member, piece);
    for (std::int64_t begin = 0; begin < piece.numel; begin += kInitChunk) {
      const std::int64_t end = std::min(begin + kInitChunk, piece.numel);
      Tensor values = Tensor::empty({end - begin}, master.dtype);
      parameter.initial_values(seed, piece.parameter_begin + begin, values);
      copy(stream, values, master.rows(begin, end));
    }
    run(stream, kernels::Cast{.x = master, .y = member.flat.value(piece)});
  }
  for (std::size_t bucket = 0; bucket < member.flat.layout().num_buckets(); ++bucket) member.flat.start_gather(bucket);
}

void ShardedAdamW::reset_average(Stream& stream) {
  if (!has(StateKind::kAverage)) return;
  for (Member& member : members_) {
    for (const FlatLayout::Piece& piece : member.flat.owned())
      copy(stream, value_of(member, piece), state_of(member, StateKind::kAverage, piece));
  }
}

View ShardedAdamW::value_of(Member& member, const FlatLayout::Piece& piece) {
  const bool master = has_master(*member.flat.parameters()[piece.parameter]);
  return master ? state_of(member, StateKind::kMaster, piece) : member.flat.value(piece);
}

View ShardedAdamW::state_of(Member& member, StateKind kind, const FlatLayout::Piece& piece) {
  if (kind == StateKind::kGradient) return member.flat.grad(piece);
  State& state = member.state;
  std::vector<Tensor>& slabs = kind == StateKind::kFirstMoment    ? state.m
                               : kind == StateKind::kSecondMoment ? state.v
                               : kind == StateKind::kMaster       ? state.master
                                                                  : state.average;
  return elements(slabs[piece.slab], piece.owned_begin, piece.numel);
}

DType ShardedAdamW::state_dtype(StateKind kind, const nn::Parameter& parameter) const {
  const DType value = parameter.accumulation().dtype;
  const bool moment = kind == StateKind::kFirstMoment || kind == StateKind::kSecondMoment;
  return moment ? moment_dtype(options_, value) : value;
}

std::vector<OwnedState> ShardedAdamW::owned_state(StateKind kind) {
  std::vector<OwnedState> shares;
  if (!has(kind)) return shares;
  for (Member& member : members_) {
    if (kind == StateKind::kMaster && !has_master(*member.flat.parameters().front())) continue;
    for (const FlatLayout::Piece& piece : member.flat.owned()) {
      shares.push_back({member.flat.parameters()[piece.parameter], piece.parameter_begin, state_of(member, kind, piece)});
    }
  }
  return shares;
}

void ShardedAdamW::gather_state(StateKind kind, const nn::Parameter& parameter, int root, View full) {
  HADAL_CHECK(has(kind) && (kind != StateKind::kGradient || reduced_), "{}: state {} is not there", parameter.name(),
              static_cast<int>(kind));
  const Where& at = where(parameter);
  Member& member = members_[at.member];
  comm::Communicator& comm = member.flat.comm();
  const bool here = comm.rank() == root;
  HADAL_CHECK(!here || full.numel() == parameter.numel(), "{}: {} elements for {}", parameter.name(), full.numel(),
              parameter.numel());
  for (const FlatLayout::Piece& piece : member.flat.layout().pieces(at.index)) {
    const View place =
        here ? full.reshape(Shape{full.numel()}).rows(piece.parameter_begin, piece.parameter_begin + piece.numel) : View{};
    if (piece.owner == comm.rank()) {
      const View owned = state_of(member, kind, piece);
      if (here) {
        Stream stream = stream_of(owned.device);
        copy(stream, owned, place);
      } else {
        Stream stream = stream_of(owned.device);
        comm.send(to_host(stream, owned), root, kTag);
      }
    } else if (here) {
      comm.receive(place, piece.owner, kTag);
    }
  }
}

}  // namespace hadal::optim
