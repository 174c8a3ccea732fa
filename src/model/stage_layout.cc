#include "model/stage_layout.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "model/parameter_count.h"

namespace hadal::model {
namespace {

std::int64_t num_pieces(const ModelSection& model) { return 1 + model.num_layers + 1 + model.mtp.depth; }

/// Multiply-adds per token of each piece of the chain: matrices alone, since attention's scores are alike in all layers.
std::vector<double> piece_costs(const ModelSection& model) {
  const auto multiplied = [&](std::int64_t layers, std::int64_t depth) {
    ModelSection part = model;
    part.num_layers = layers;
    part.mtp.depth = depth;
    return static_cast<double>(multiplied_per_token(part));
  };
  std::vector<double> costs{0.0};
  for (std::int64_t i = 0; i < model.num_layers; ++i) costs.push_back(multiplied(i + 1, 0) - multiplied(i, 0));
  costs.push_back(static_cast<double>(model.vocab_size) * static_cast<double>(model.hidden_size));
  for (std::int64_t k = 0; k < model.mtp.depth; ++k) costs.push_back(multiplied(model.num_layers, k + 1) - multiplied(model.num_layers, k));
  return costs;
}

/// Pieces [begin, end) of the chain.
StageContent content_of(const ModelSection& model, std::int64_t begin, std::int64_t end) {
  const std::int64_t head = 1 + model.num_layers;
  const auto clamp = [](std::int64_t value, std::int64_t low, std::int64_t high) { return std::clamp(value, low, high); };
  StageContent stage;
  stage.embedding = begin == 0;
  stage.first_layer = clamp(begin - 1, 0, model.num_layers);
  stage.num_layers = clamp(end - 1, 0, model.num_layers) - stage.first_layer;
  stage.head = begin <= head && head < end;
  stage.first_mtp = clamp(begin - head - 1, 0, model.mtp.depth);
  stage.num_mtp = clamp(end - head - 1, 0, model.mtp.depth) - stage.first_mtp;
  return stage;
}

/// Where the chain is cut so that the costliest of `count` stages costs least; the embedding never stands alone while a layer could
/// join it. best[s][i]: that cost when the first i pieces make s stages.
std::vector<StageContent> balanced(const ModelSection& model, std::int64_t count) {
  const std::vector<double> costs = piece_costs(model);
  const auto pieces = static_cast<std::int64_t>(costs.size());
  const double never = std::numeric_limits<double>::infinity();
  const auto table = [&](auto value) { return std::vector(static_cast<std::size_t>(count) + 1, std::vector(static_cast<std::size_t>(pieces) + 1, value)); };
  auto best = table(never);
  auto cut = table(std::int64_t{0});
  best[0][0] = 0;
  for (std::size_t s = 1; s <= static_cast<std::size_t>(count); ++s) {
    for (std::size_t end = s; end <= static_cast<std::size_t>(pieces); ++end) {
      double cost = 0;
      for (std::size_t begin = end; begin-- > s - 1;) {
        cost += costs[begin];
        const double worst = std::max(best[s - 1][begin], cost);
        if (worst < best[s][end]) {
          best[s][end] = worst;
          cut[s][end] = static_cast<std::int64_t>(begin);
        }
      }
    }
  }
  std::vector<StageContent> stages(static_cast<std::size_t>(count));
  std::int64_t end = pieces;
  for (std::size_t s = static_cast<std::size_t>(count); s > 0; --s) {
    const std::int64_t begin = cut[s][static_cast<std::size_t>(end)];
    stages[s - 1] = content_of(model, begin, end);
    end = begin;
  }
  return stages;
}

std::vector<StageContent> written(const ModelSection& model, const std::vector<StageSection>& sections, std::int64_t count) {
  const auto given = static_cast<std::int64_t>(sections.size());
  if (given != count) {
    throw UserError("parallel.stages describes {} stages; parallel.pp and parallel.schedule make {}", given, count);
  }
  std::vector<StageContent> stages;
  std::int64_t layers = 0, modules = 0;
  bool head = false;
  for (std::size_t s = 0; s < sections.size(); ++s) {
    const StageSection& section = sections[s];
    if (section.layers > 0 && head) throw UserError("parallel.stages.{}: {} layers after the stage with the head", s, section.layers);
    if (section.head && head) throw UserError("parallel.stages.{}: a second head; exactly one stage has it", s);
    head = head || section.head;
    if (section.mtp > 0 && !head) throw UserError("parallel.stages.{}: {} MTP modules before the head; they read its input", s, section.mtp);
    stages.push_back({.embedding = s == 0, .first_layer = layers, .num_layers = section.layers, .head = section.head, .first_mtp = modules, .num_mtp = section.mtp});
    if (s > 0 && section.layers == 0 && !section.head && section.mtp == 0) throw UserError("parallel.stages.{} is empty", s);
    layers += section.layers;
    modules += section.mtp;
  }
  if (layers != model.num_layers) throw UserError("parallel.stages hold {} layers in all, model.num_layers is {}", layers, model.num_layers);
  if (!head) throw UserError("parallel.stages: no stage has the head; set head: true on one, the last with layers or a later one");
  if (modules != model.mtp.depth) throw UserError("parallel.stages hold {} MTP modules in all, model.mtp.depth is {}", modules, model.mtp.depth);
  return stages;
}

}  // namespace

std::string StageContent::describe() const {
  std::string text = embedding ? "embedding" : "";
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (num_layers == 1) add(fmt::format("layer {}", first_layer));
  if (num_layers > 1) add(fmt::format("layers {}-{}", first_layer, first_layer + num_layers - 1));
  if (head) add("head");
  if (num_mtp == 1) add(fmt::format("mtp {}", first_mtp + 1));
  if (num_mtp > 1) add(fmt::format("mtp {}-{}", first_mtp + 1, first_mtp + num_mtp));
  return text;
}

StageContent whole_model(const ModelSection& model) { return content_of(model, 0, num_pieces(model)); }

std::int64_t stages_per_rank(const ParallelSection& parallel) {
  switch (parallel.schedule) {
    case ScheduleKind::kInterleaved: return parallel.chunks;
    case ScheduleKind::kDualPipeV: return 2;
    default: return 1;
  }
}

std::vector<StageContent> stage_layout(const ModelSection& model, const ParallelSection& parallel, std::int64_t num_stages) {
  if (!parallel.stages.empty()) return written(model, parallel.stages, num_stages);
  if (num_stages > num_pieces(model)) {
    throw UserError("{} pipeline stages for a model of {} pieces (embedding, {} layers, head, {} MTP modules); lower parallel.pp or chunks",
                    num_stages, num_pieces(model), model.num_layers, model.mtp.depth);
  }
  return balanced(model, num_stages);
}

}  // namespace hadal::model
