#include "nn/parameter.h"

#include <algorithm>
#include <span>
#include <utility>

#include "core/convert.h"
#include "core/copy.h"
#include "core/parallel_for.h"
#include "core/rng.h"
#include "kernels/dispatch.h"
#include "kernels/normal_values.h"

namespace hadal::nn {
namespace {

constexpr std::int64_t kInitGrain = 1 << 14;
/// Elements that are made at once on their way to a device.
constexpr std::int64_t kInitChunk = 1 << 22;

/// Index in the logical tensor of element `i` of its packed slice.
std::int64_t logical_index(const LogicalPart& part, std::int64_t i) {
  std::int64_t index = 0;
  std::int64_t stride = 1;
  for (int dim = part.shape.rank() - 1; dim >= 0; --dim) {
    const auto d = static_cast<std::size_t>(dim);
    index += (part.begin[d] + i % part.extent[d]) * stride;
    i /= part.extent[d];
    stride *= part.shape[dim];
  }
  return index;
}

std::int64_t part_numel(const LogicalPart& part) {
  std::int64_t numel = 1;
  for (const std::int64_t extent : part.extent) numel *= extent;
  return numel;
}

/// Consecutive elements of a packed slice that are consecutive in the logical tensor too: the slice is made of such runs.
std::int64_t run_length(const LogicalPart& part) {
  std::int64_t length = 1;
  for (int dim = part.shape.rank() - 1; dim >= 0; --dim) {
    const auto d = static_cast<std::size_t>(dim);
    length *= part.extent[d];
    if (part.extent[d] != part.shape[dim]) break;
  }
  return length;
}

/// Packed elements [first, last) of a part.
template <class T>
void fill(const LogicalPart& part, const Init& init, std::uint64_t seed, std::int64_t first, std::int64_t last, T* values) {
  if (init.kind != Init::Kind::kNormal) return std::fill(values, values + (last - first), init.kind == Init::Kind::kOnes ? T{1} : T{0});
  const Random random(seed, RandomPurpose::kInit, stream_of(part.name));
  const std::int64_t run = run_length(part);
  parallel_ranges(last - first, kInitGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end;) {
      const std::int64_t count = std::min(run - (first + i) % run, end - i);
      kernels::normal_values(random, static_cast<std::uint64_t>(logical_index(part, first + i)), init.std,
                             std::span(values + i, static_cast<std::size_t>(count)));
      i += count;
    }
  });
}

}  // namespace

LogicalPart whole_part(std::string name, Shape shape, std::int64_t offset) {
  const auto extents = shape.extents();
  return {std::move(name), shape, std::vector<std::int64_t>(extents.size(), 0), {extents.begin(), extents.end()}, offset};
}

LogicalPart sliced_part(std::string name, Shape shape, int dim, std::int64_t begin, std::int64_t extent, std::int64_t offset) {
  LogicalPart part = whole_part(std::move(name), shape, offset);
  const auto d = static_cast<std::size_t>(dim);
  HADAL_CHECK(begin >= 0 && extent >= 0 && begin + extent <= shape[dim], "{}: [{}, {}) of dim {} of {}", part.name, begin,
              begin + extent, dim, shape.str());
  part.begin[d] = begin;
  part.extent[d] = extent;
  return part;
}

Parameter::Parameter(std::string name, Shape shape, Storage storage, ParameterOptions options)
    : Parameter(name, shape, storage, options, {whole_part(name, shape, 0)}) {}

Parameter::Parameter(std::string name, Shape shape, Storage storage, ParameterOptions options, std::vector<LogicalPart> parts)
    : name_(std::move(name)), options_(options), parts_(std::move(parts)), storage_(Tensor::zeros(shape, storage)) {
  view_ = storage_;
  std::int64_t next = 0;
  for (const LogicalPart& part : parts_) {
    HADAL_CHECK(part.offset == next, "{}: part {} starts at {}, the one before ends at {}", name_, part.name, part.offset, next);
    next += part_numel(part);
  }
  HADAL_CHECK(next == shape.numel(), "{}: parts hold {} elements of {}", name_, next, shape.numel());
}

View Parameter::grad() {
  const GradientTarget target = grad_target();
  if (!target.add) {
    Stream stream = hadal::stream_of(device());
    fill_zero(stream, target.sum);
  }
  return target.sum;
}

GradientTarget Parameter::grad_target() {
  HADAL_CHECK(options_.trainable, "{} is a buffer", name_);
  if (!has_grad()) {
    grad_storage_ = Tensor::empty(shape(), accumulation());
    grad_ = grad_storage_;
  }
  return {grad_, !std::exchange(grad_is_stale_, false)};
}

void Parameter::bind(View value, View grad) {
  HADAL_CHECK(value.shape == shape() && grad.shape == shape() && Storage(value.dtype, value.device) == storage() &&
                  Storage(grad.dtype, grad.device) == accumulation(),
              "{}: {} {} on {} bound to {} {} and {} {}", name_, name_of(dtype()), shape().str(), name_of(device()), name_of(value.dtype),
              value.shape.str(), name_of(grad.dtype), grad.shape.str());
  Stream stream = hadal::stream_of(device());
  copy(stream, view_, value);
  view_ = value;
  grad_ = grad;
  zero_grad();
  storage_.reset();
  grad_storage_.reset();
}

void Parameter::initialize(std::uint64_t seed) {
  if (storage() == Storage(accumulation_dtype(dtype()))) return initial_values(seed, 0, view_);
  Stream stream = hadal::stream_of(device());
  const View flat = view_.reshape({numel()});
  for (std::int64_t begin = 0; begin < numel(); begin += kInitChunk) {
    const std::int64_t end = std::min(begin + kInitChunk, numel());
    Tensor values = Tensor::empty({end - begin}, accumulation_dtype(dtype())), rounded = Tensor::empty({end - begin}, dtype());
    initial_values(seed, begin, values);
    convert_floats(values, rounded);
    copy(stream, rounded, flat.rows(begin, end));
  }
}

void Parameter::initial_values(std::uint64_t seed, std::int64_t begin, View values) const {
  const std::int64_t end = begin + values.numel();
  HADAL_CHECK(begin >= 0 && end <= numel() && Storage(values.dtype, values.device) == Storage(accumulation_dtype(dtype())),
              "{}: initial values [{}, {}) of {} in {}", name_, begin, end, numel(), name_of(values.dtype));
  kernels::visit_float(values.dtype, [&]<class T>() {
    for (const LogicalPart& part : parts_) {
      const std::int64_t first = std::max(begin, part.offset), last = std::min(end, part.offset + part_numel(part));
      if (first < last) fill(part, options_.init, seed, first - part.offset, last - part.offset, values.as<T>() + (first - begin));
    }
  });
}

}  // namespace hadal::nn
