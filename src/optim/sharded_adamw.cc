#include "optim/sharded_adamw.h"

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "kernels/adamw.h"

namespace hadal::optim {
namespace {

constexpr int kTag = 0;

DType moment_dtype(const OptimSection& options, DType compute) {
  return options.moments == MomentType::kBf16 ? DType::kBf16 : compute;
}

View elements(Tensor& of, std::int64_t begin, std::int64_t numel) { return of.view().rows(begin, begin + numel); }

void copy(ConstView from, View to) {
  HADAL_CHECK(from.dtype == to.dtype && from.numel() == to.numel(), "{} x {} to {} x {}", from.numel(), name_of(from.dtype),
              to.numel(), name_of(to.dtype));
  std::memcpy(to.data, from.data, to.bytes());
}

}  // namespace

ShardedAdamW::ShardedAdamW(const OptimSection& options, std::vector<ReplicaGroup> groups, comm::Communicator& world,
                           std::int64_t bucket_bytes)
    : options_(options), world_(world) {
  for (ReplicaGroup& group : groups) {
    std::erase_if(group.parameters, [](const nn::Parameter* parameter) { return !parameter->options().trainable; });
    if (group.parameters.empty()) continue;
    for (std::size_t i = 0; i < group.parameters.size(); ++i) {
      HADAL_CHECK(where_.emplace(group.parameters[i], Where{members_.size(), i}).second, "{} is in two groups",
                  group.parameters[i]->name());
      parameters_.push_back(group.parameters[i]);
    }
    members_.push_back({FlatGroup(std::move(group), bucket_bytes), {}});
    State& state = members_.back().state;
    const FlatGroup& flat = members_.back().flat;
    const DType compute = flat.parameters().front()->dtype();
    for (std::size_t slab = 0; slab < flat.layout().slabs().size(); ++slab) {
      const Shape shape{flat.layout().owned_numel(slab)};
      state.m.push_back(Tensor::zeros(shape, moment_dtype(options, compute)));
      state.v.push_back(Tensor::zeros(shape, moment_dtype(options, compute)));
      if (has(StateKind::kAverage)) state.average.push_back(Tensor::zeros(shape, compute));
    }
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

double ShardedAdamW::grad_norm(Stream& stream) {
  HADAL_CHECK(reduced_, "the norm of gradients that are not reduced");
  Tensor sum = Tensor::zeros({1}, DType::kF64);
  for (Member& member : members_) {
    for (const FlatLayout::Piece& piece : member.flat.owned()) {
      run(stream, kernels::SumSquares{.x = member.flat.grad(piece), .result = sum});
    }
  }
  return std::sqrt(world_.all_reduce_sum(*sum.as<double>()));
}

void ShardedAdamW::step(Stream& stream, double lr, double grad_norm) {
  HADAL_CHECK(reduced_, "an update with gradients that are not reduced");
  ++num_steps_;
  const bool clip = options_.clip_norm > 0 && grad_norm > options_.clip_norm;
  const double grad_scale = clip ? options_.clip_norm / grad_norm : 1.0;
  for (Member& member : members_) {
    auto piece = member.flat.owned().begin();
    for (std::size_t bucket = 0; bucket < member.flat.layout().num_buckets(); ++bucket) {
      for (; piece != member.flat.owned().end() && piece->bucket == bucket; ++piece)
        update(stream, member, *piece, lr, grad_scale);
      member.flat.start_gather(bucket);
    }
  }
}

void ShardedAdamW::update(Stream& stream, Member& member, const FlatLayout::Piece& piece, double lr, double grad_scale) {
  const bool decays = member.flat.parameters()[piece.parameter]->options().decays;
  run(stream, kernels::AdamW{.grad = member.flat.grad(piece),
                             .value = member.flat.value(piece),
                             .m = state_of(member, StateKind::kFirstMoment, piece),
                             .v = state_of(member, StateKind::kSecondMoment, piece),
                             .ema = has(StateKind::kAverage) ? state_of(member, StateKind::kAverage, piece) : View{},
                             .grad_scale = grad_scale,
                             .lr = lr,
                             .beta1 = options_.beta1,
                             .beta2 = options_.beta2,
                             .eps = options_.eps,
                             .weight_decay = decays ? options_.weight_decay : 0.0,
                             .ema_decay = options_.ema_decay,
                             .step = num_steps_});
}

void ShardedAdamW::wait_values() {
  for (Member& member : members_) member.flat.wait_values();
}

void ShardedAdamW::reset_average() {
  if (!has(StateKind::kAverage)) return;
  for (Member& member : members_) {
    for (const FlatLayout::Piece& piece : member.flat.owned())
      copy(member.flat.value(piece), state_of(member, StateKind::kAverage, piece));
  }
}

View ShardedAdamW::state_of(Member& member, StateKind kind, const FlatLayout::Piece& piece) {
  if (kind == StateKind::kGradient) return member.flat.grad(piece);
  State& state = member.state;
  std::vector<Tensor>& slabs = kind == StateKind::kFirstMoment    ? state.m
                               : kind == StateKind::kSecondMoment ? state.v
                                                                  : state.average;
  return elements(slabs[piece.slab], piece.owned_begin, piece.numel);
}

DType ShardedAdamW::state_dtype(StateKind kind, const nn::Parameter& parameter) const {
  const bool moment = kind == StateKind::kFirstMoment || kind == StateKind::kSecondMoment;
  return moment ? moment_dtype(options_, parameter.dtype()) : parameter.dtype();
}

std::vector<OwnedState> ShardedAdamW::owned_state(StateKind kind) {
  std::vector<OwnedState> shares;
  if (!has(kind)) return shares;
  for (Member& member : members_) {
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
  // Elements go straight to their place: nothing is staged.
  for (const FlatLayout::Piece& piece : member.flat.layout().pieces(at.index)) {
    const View place =
        here ? full.reshape(Shape{full.numel()}).rows(piece.parameter_begin, piece.parameter_begin + piece.numel) : View{};
    if (piece.owner == comm.rank()) {
      const View owned = state_of(member, kind, piece);
      if (here) {
        copy(owned, place);
      } else {
        comm.send(owned, root, kTag);
      }
    } else if (here) {
      comm.receive(place, piece.owner, kTag);
    }
  }
}

}  // namespace hadal::optim
