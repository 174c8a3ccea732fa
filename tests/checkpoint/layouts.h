// A small model with everything that is sharded in its own way, laid out over ranks: rows, columns, three slices of one tensor in
// a parameter, fused and stacked parts, experts, pipeline stages, copies. Values depend on names and elements alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/parameters.h"
#include "comm/communicator.h"
#include "nn/parameter.h"

namespace hadal::checkpoint::test_layouts {

struct Layout {
  int pp = 1, dp = 1, tp = 1;  ///< world = ((pp * DP) + dp) * TP + tp
  int ep = 1, etp = 1;         ///< within a stage: i = (edp * EP + ep) * ETP + etp

  int ranks() const { return pp * dp * tp; }
  std::string str() const;
};

/// Twelve layouts of 1 to 8 ranks, three of them not powers of two.
const std::vector<Layout>& twelve_layouts();

/// What one rank holds.
class RankModel {
 public:
  RankModel(const Layout& layout, int world_rank);

  /// Values of `seed` everywhere: another seed for weights and for each moment.
  void fill(std::uint64_t seed);
  /// NaN everywhere.
  void spoil();
  /// Whole values that this rank writes: of each parameter one replica does.
  std::vector<ParameterValue> chosen();
  /// This rank's flat share of each trainable value, as ZeRO leaves it.
  std::vector<ParameterValue> shares();
  std::vector<ParameterValue> all();
  /// Name of the first parameter with other bits, over `values` of both models alone; empty when all are equal.
  static std::string first_difference(const std::vector<ParameterValue>& a, const std::vector<ParameterValue>& b);

 private:
  struct Held {
    std::unique_ptr<nn::Parameter> parameter;
    int replica = 0;  ///< this rank's place among those that hold the same slice
    int replicas = 1;
  };

  void add(std::string name, Shape shape, DType dtype, nn::ParameterOptions options, std::vector<nn::LogicalPart> parts);
  void add_layer(const std::string& prefix);
  void add_experts(const std::string& prefix);
  Shape local(Shape shape, int dim, int count) const;

  Layout layout_;
  int stage_, dp_, tp_, ep_, etp_, edp_;
  std::vector<Held> held_;
};

/// Saves step `step`: weights by one chosen replica each, both moments by flat shares. Collective.
void save_model(const Layout& layout, comm::Communicator& world, const std::filesystem::path& dir, std::int64_t step);
/// Loads and compares with what save_model saved; what did not come back as it was, empty when all did. Collective.
std::string load_model(const Layout& layout, comm::Communicator& world, const std::filesystem::path& step_dir);

}  // namespace hadal::checkpoint::test_layouts
