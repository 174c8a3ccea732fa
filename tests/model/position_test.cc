// Guards: a rank that does not come to a call is told by the layer where it and the others are, MTP modules included: forward, backward,
// and weight gradients that come later.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/local/local_group.h"
#include "comm/position.h"
#include "tests/support/small_model.h"

namespace hadal::model {
namespace {

constexpr int kMicroBatch = 4;

/// Every width can be halved.
ModelOptions halved_model() {
  ModelOptions options = test::small_model(AttentionKind::kMla, SparseKind::kNone);
  options.shape.moe.intermediate_size = 6;
  return options;
}

parallel::LayerGroups over_tp(comm::Communicator& tp) {
  parallel::LayerGroups groups;
  groups.tp = &tp;
  return groups;
}

/// A whole model over tp 2, as one rank has it.
struct Rank {
  explicit Rank(comm::Communicator& world)
      : tp(world.subgroup(std::vector<int>{0, 1}, "tp")), groups(over_tp(*tp)), tables(options, groups), stage(options, whole_model(options.shape), groups, tables) {
    outcome.losses = losses.row(0);
    for (nn::Parameter* parameter : stage.parameters()) parameter->initialize(9);
  }

  ModelOptions options = halved_model();
  std::unique_ptr<comm::Communicator> tp;
  parallel::LayerGroups groups;
  SharedTables tables;
  Stage stage;
  Stream stream;
  MicroBatch micro_batch = test::make_micro_batch(options, 2, 12);
  Stage::RecordPtr record;
  LossTable losses{1, options.shape.mtp.depth, kCpu};
  Stage::Outcome outcome;
};

/// On rank 1, in place of segment `index`: a call that rank 0 does not make. Tells the segment's layer.
int go_astray(SegmentList& list, std::size_t index, comm::Communicator& world) {
  if (world.rank() == 1) list.segments.at(index).run = [&world] { world.barrier(); };
  return list.segments.at(index).layer_idx;
}

/// Indices of the segments called `name`.
std::vector<std::size_t> indices_of(const SegmentList& list, std::string_view name) {
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < list.segments.size(); ++i) {
    if (list.segments[i].name == name) indices.push_back(i);
  }
  return indices;
}

struct Astray {
  const char* segment;
  std::size_t occurrence;
  int layer;
};

/// The sentence that ends the group when rank 1 leaves the way at `where`.
std::string sentence_at(const Astray& where, bool backward) {
  try {
    comm::run_local_group(2, [&](comm::Communicator& world) {
      Rank rank(world);
      const comm::Position position("step", kMicroBatch);
      const Stage::PassPtr forward = rank.stage.forward_pass(rank.stream, rank.micro_batch, {}, &rank.record, rank.outcome);
      const auto run_astray = [&](SegmentList& list) {
        const int layer = go_astray(list, indices_of(list, where.segment).at(where.occurrence), world);
        EXPECT_EQ(layer, where.layer);
        run_segments(list);
      };
      if (!backward) return run_astray(forward->list);
      run_segments(forward->list);
      const Stage::PassPtr back = rank.stage.backward_pass(rank.stream, *rank.record, {}, true);
      run_astray(back->list);
    });
  } catch (const ContractError& error) {
    return error.what();
  }
  return "";
}

int times(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Position, SentencesNameTheLayerOfMtpModulesToo) {
  // Two layers, then two MTP modules: layers 2 and 3. Attention is the first of a block's calls over tp, the embedding's sum that of the
  // module's input; the head's statistics are the last.
  for (const Astray& where : {Astray{"attention", 1, 1}, Astray{"mtp input", 0, 2}, Astray{"attention", 2, 2}, Astray{"mtp head", 0, 2},
                              Astray{"mtp input", 1, 3}, Astray{"attention", 3, 3}, Astray{"mtp head", 1, 3}}) {
    const std::string sentence = sentence_at(where, false);
    EXPECT_EQ(times(sentence, fmt::format("in forward of micro-batch {}, layer {}", kMicroBatch, where.layer)), 2)
        << where.segment << ": " << sentence;
  }
}

TEST(Position, BackwardToo) {
  for (const Astray& where : {Astray{"attention", 0, 3}, Astray{"mtp input", 0, 3}, Astray{"attention", 1, 2}, Astray{"mtp input", 1, 2},
                              Astray{"attention", 2, 1}}) {
    const std::string sentence = sentence_at(where, true);
    EXPECT_GE(times(sentence, fmt::format("in backward of micro-batch {}, layer {}", kMicroBatch, where.layer)), 1)
        << where.segment << ": " << sentence;
  }
}

/// Layers at which parameters are told to be complete.
std::vector<int> complete_layers(bool later) {
  std::vector<int> layers;
  comm::run_local_group(2, [&](comm::Communicator& world) {
    Rank rank(world);
    const comm::Position position("weight gradients", kMicroBatch);
    const Stage::Complete complete = [&](const nn::ParameterList&) {
      if (world.is_root()) layers.push_back(comm::Position::current().layer);
    };
    run_segments(rank.stage.forward_pass(rank.stream, rank.micro_batch, {}, &rank.record, rank.outcome)->list);
    rank.stage.backward_input(rank.stream, *rank.record, {}, !later, later ? nullptr : &complete);
    if (later) rank.stage.backward_weight(rank.stream, *rank.record, &complete);
  });
  return layers;
}

TEST(Position, SumsOfGradientsStartAtTheirLayer) {
  EXPECT_EQ(complete_layers(false), (std::vector<int>{3, 2, 1, 0}));
  EXPECT_EQ(complete_layers(true), (std::vector<int>{3, 2, 1, 0}));
}

}  // namespace
}  // namespace hadal::model
