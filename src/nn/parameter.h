// A parameter: the one record that sharding, gradient reduction, norm counting, checkpoint slicing and export read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace hadal::nn {

/// Where initial values come from. Normal values depend on (seed, logical name, element of the logical tensor) alone.
struct Init {
  enum class Kind { kNormal, kOnes, kZeros } kind = Kind::kNormal;
  double std = 0.02;

  static Init normal(double std) { return {Kind::kNormal, std}; }
  static Init ones() { return {Kind::kOnes, 0.0}; }
  static Init zeros() { return {Kind::kZeros, 0.0}; }
};

/// A logical tensor (one HF-named matrix) or a slice of it, as it lies in a parameter: the slice [begin, begin + extent) of each
/// dim of `shape`, packed row-major from element `offset` of the parameter on.
struct LogicalPart {
  std::string name;
  Shape shape;
  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> extent;
  std::int64_t offset = 0;
};

/// Over which axes of a pipeline stage a parameter is replicated. Its gradient is the sum over the ranks that hold it: those of one
/// rank are partial (spec/parallelism.md 6 and 7).
enum class Replication {
  kDense,   ///< whole on every rank of the stage: dp, cp and tp
  kTensor,  ///< sliced over tp, replicated over dp and cp
  kExpert,  ///< sliced over ep and etp, replicated over edp
};

struct ParameterOptions {
  Init init;
  bool decays = true;     ///< weight decay applies
  Replication replication = Replication::kDense;
  bool trainable = true;  ///< false: a buffer (the balancing bias), no gradient, no moments
};

/// Where a share of a gradient goes, and whether it is added to what is there or is the first one, which overwrites all of it.
struct GradientTarget {
  View sum;
  bool add = true;

  double beta() const { return add ? 1 : 0; }
};

class Parameter {
 public:
  Parameter() = default;
  /// One whole logical tensor.
  Parameter(std::string name, Shape shape, Storage storage, ParameterOptions options);
  /// Several logical tensors, packed one after the other; their sizes must add up to `shape`.
  Parameter(std::string name, Shape shape, Storage storage, ParameterOptions options, std::vector<LogicalPart> parts);

  const std::string& name() const { return name_; }
  const ParameterOptions& options() const { return options_; }
  const std::vector<LogicalPart>& parts() const { return parts_; }
  const Shape& shape() const { return view_.shape; }
  std::int64_t numel() const { return view_.numel(); }
  DType dtype() const { return view_.dtype; }
  Device device() const { return view_.device; }
  Storage storage() const { return {dtype(), device()}; }
  /// Where the gradient is held, and what an optimizer keeps beside the value.
  Storage accumulation() const { return storage().accumulation(); }

  View value() { return view_; }
  ConstView value() const { return view_; }
  /// Gradient accumulator of the same shape, in accumulation(): zeros at first use, and at the first one after zero_grad.
  View grad();
  /// The same for an operation that can overwrite as well as add, so that zeros are neither written nor read; the caller enqueues it now.
  GradientTarget grad_target();
  bool has_grad() const { return grad_.data != nullptr; }
  /// The gradient begins anew; its memory is touched when it is next asked for.
  void zero_grad() { grad_is_stale_ = true; }
  /// Moves value and gradient into memory of their dtype and shape, on the same device, that somebody else owns and keeps (flat
  /// buffers of an optimizer); the value is copied there, the gradient starts as zeros.
  void bind(View value, View grad);

  /// Fills the value by the init rule: on the host in the accumulation dtype, then rounded to the value's.
  void initialize(std::uint64_t seed);
  /// Elements [begin, begin + values.numel()) of what `initialize` starts from; `values` in the accumulation dtype, on the host.
  void initial_values(std::uint64_t seed, std::int64_t begin, View values) const;

 private:
  std::string name_;
  ParameterOptions options_;
  std::vector<LogicalPart> parts_;
  View view_;  ///< of storage_, or of the memory it was bound to
  View grad_;
  Tensor storage_;
  Tensor grad_storage_;
  bool grad_is_stale_ = true;  ///< grad_ is to be zeros, and may hold anything
};

/// A part that is a whole logical tensor at `offset`.
LogicalPart whole_part(std::string name, Shape shape, std::int64_t offset);
/// Elements [begin, begin + extent) along `dim` of a logical tensor, whole in the others, at `offset`.
LogicalPart sliced_part(std::string name, Shape shape, int dim, std::int64_t begin, std::int64_t extent, std::int64_t offset);

using ParameterList = std::vector<Parameter*>;

}  // namespace hadal::nn
