// The parameters of one rank of a layout, as sizes: what the constructors of model/stage.h and below would make there, in their
// order. Names and shapes: spec/interop.md 3.1, 3.4, 7.3; the tests add the ranks up to model/parameter_count.h.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "plan/layout.h"

namespace hadal::plan {

/// The parts of model::ParameterCount.
enum class ParameterKind {
  kEmbedding,
  kHead,
  kAttention,
  kNsa,
  kDenseFfn,
  kRoutedExperts,
  kSharedExperts,
  kRouter,
  kNorms,
  kMtp,
  kBuffer
};
inline constexpr int kNumParameterKinds = 11;
std::string_view name_of(ParameterKind kind);

struct ParameterSize {
  ParameterKind kind = ParameterKind::kEmbedding;
  nn::Replication replication = nn::Replication::kDense;
  std::int64_t numel = 0;
  std::vector<std::int64_t> holders;  ///< pipeline ranks that hold it

  bool trainable() const { return kind != ParameterKind::kBuffer; }
};

/// By stage, embedding and head once. `kBuffer`: balancing biases, F32.
std::vector<ParameterSize> rank_parameters(const Config& config, const Layout& layout, const parallel::Place& place);

/// Ranks that hold the same slice: over which gradients are summed and optimizer state is shared.
std::int64_t replicas(const ParameterSize& parameter, const parallel::ProcessGrid& grid);

}  // namespace hadal::plan
