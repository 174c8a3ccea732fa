#include "optim/flat_group.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace hadal::optim {
namespace {

constexpr std::size_t kUnderWay = 3;

View elements(View of, std::int64_t begin, std::int64_t numel) { return of.rows(begin, begin + numel); }

FlatLayout make_layout(const ReplicaGroup& group, std::int64_t bucket_bytes) {
  HADAL_CHECK(group.comm != nullptr && !group.parameters.empty(), "a replica group of {} parameters", group.parameters.size());
  const Storage storage = group.parameters.front()->storage();
  std::vector<std::int64_t> numels;
  for (const nn::Parameter* parameter : group.parameters) {
    HADAL_CHECK(parameter->options().trainable && parameter->storage() == storage, "{}: {}, in a group of {} on {}", parameter->name(),
                parameter->options().trainable ? name_of(parameter->dtype()) : "a buffer", name_of(storage.dtype), name_of(storage.device));
    numels.push_back(parameter->numel());
  }
  return {numels, group.comm->size(), std::max<std::int64_t>(1, bucket_bytes / static_cast<std::int64_t>(size_of(storage.accumulation().dtype)))};
}

}  // namespace

FlatGroup::FlatGroup(ReplicaGroup group, std::int64_t bucket_bytes)
    : comm_(group.comm), parameters_(std::move(group.parameters)), layout_(make_layout({comm_, parameters_}, bucket_bytes)) {
  const Storage values = storage(), gradients = values.accumulation();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const FlatLayout::Place& place = layout_.places()[i];
    // Slab by slab: the old memory of one slab's parameters is given back before the next is asked for.
    if (place.slab == values_.size()) {
      const Shape shape{layout_.slabs()[place.slab].numel()};
      values_.push_back(Tensor::zeros(shape, values));
      grads_.push_back(Tensor::zeros(shape, gradients));
    }
    nn::Parameter& parameter = *parameters_[i];
    parameter.bind(elements(values_.back(), place.begin, place.numel).reshape(parameter.shape()),
                   elements(grads_.back(), place.begin, place.numel).reshape(parameter.shape()));
    buckets_of_.emplace_back();
    for (const FlatLayout::Piece& piece : layout_.pieces(i)) {
      if (piece.owner == comm_->rank()) owned_.push_back(piece);
      std::vector<std::size_t>& buckets = buckets_of_.back();
      if (buckets.empty() || buckets.back() != piece.bucket) buckets.push_back(piece.bucket);
    }
  }
  std::ranges::stable_sort(owned_, {}, &FlatLayout::Piece::bucket);
  zero_grad();
}

View FlatGroup::view_of(std::vector<Tensor>& slabs, const FlatLayout::Piece& piece) {
  return elements(slabs[piece.slab], piece.slab_begin, piece.numel);
}

View FlatGroup::bucket_of(std::vector<Tensor>& slabs, std::size_t bucket) {
  const std::size_t index = layout_.slab_of(bucket);
  const FlatLayout::Slab& slab = layout_.slabs()[index];
  return elements(slabs[index], static_cast<std::int64_t>(bucket - slab.first_bucket) * slab.bucket_numel, slab.bucket_numel);
}

View FlatGroup::segment_of(View bucket) const {
  const std::int64_t numel = bucket.numel() / layout_.ranks();
  return elements(bucket, comm_->rank() * numel, numel);
}

void FlatGroup::zero_grad() {
  for (nn::Parameter* parameter : parameters_) parameter->zero_grad();
  is_ready_.assign(parameters_.size(), 0);
  missing_.assign(layout_.num_buckets(), 0);
  for (const std::vector<std::size_t>& buckets : buckets_of_) {
    for (const std::size_t bucket : buckets) ++missing_[bucket];
  }
  to_start_ = layout_.num_buckets();
}

void FlatGroup::ready(std::size_t index) {
  HADAL_CHECK(is_ready_[index] == 0, "{} is ready twice in a step", parameters_[index]->name());
  is_ready_[index] = 1;
  parameters_[index]->grad();  // zeros where no micro-batch had a share
  for (const std::size_t bucket : buckets_of_[index]) --missing_[bucket];
  while (to_start_ > 0 && missing_[to_start_ - 1] == 0) start_reduction();
}

void FlatGroup::finish() {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (is_ready_[i] == 0) parameters_[i]->grad();
  }
  // A sum that is under way holds what other ranks sent: few at a time.
  for (std::size_t waited = 0; to_start_ > 0 || waited < reductions_.size();) {
    if (to_start_ > 0 && reductions_.size() < waited + kUnderWay) {
      start_reduction();
    } else {
      reductions_[waited++].wait();
    }
  }
  reductions_.clear();
}

void FlatGroup::start_reduction() {
  --to_start_;
  if (alone()) return;
  const View bucket = bucket_of(grads_, to_start_);
  reductions_.push_back(comm_->start_reduce_scatter_sum(bucket, segment_of(bucket)));
}

void FlatGroup::start_gather(std::size_t bucket) {
  if (alone()) return;
  const View values = bucket_of(values_, bucket);
  gathers_.push_back(comm_->start_all_gather(segment_of(values), values));
}

void FlatGroup::wait_values() {
  for (comm::Handle& gather : gathers_) gather.wait();
  gathers_.clear();
}

}  // namespace hadal::optim
