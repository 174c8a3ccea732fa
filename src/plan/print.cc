#include "plan/print.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "model/parameter_count.h"
#include "schedule/kinds.h"
#include "schedule/render.h"

namespace hadal::plan {
namespace {

std::string number_text(double value, std::string_view unit, double step) {
  static constexpr std::array kPrefixes{"", "k", "M", "G", "T", "P"};
  static constexpr std::array kBinary{"", "Ki", "Mi", "Gi", "Ti", "Pi"};
  std::size_t i = 0;
  while (value >= step && i + 1 < kPrefixes.size()) {
    value /= step;
    ++i;
  }
  const int digits = value >= 100 || i == 0 ? 0 : value >= 10 ? 1 : 2;
  return fmt::format("{:.{}f} {}{}", value, digits, step == 1024 ? kBinary[i] : kPrefixes[i], unit);
}

std::string count_text(std::int64_t count) {
  const std::string text = number_text(static_cast<double>(count), "", 1000);
  return text.ends_with(' ') ? text.substr(0, text.size() - 1) : text;
}

std::string axes_text(const parallel::ProcessGrid& grid) {
  return fmt::format("pp {} x dp {} x cp {} x tp {}; experts edp {} x ep {} x etp {}", grid.pp(), grid.dp(), grid.cp(), grid.tp(),
                     grid.edp(), grid.ep(), grid.etp());
}

std::string layout_text(const ParallelSection& p, std::string_view schedule) {
  std::string text;
  const auto add = [&](std::string_view axis, std::int64_t degree) {
    if (degree > 1) text += fmt::format("{}{} {}", text.empty() ? "" : " ", axis, degree);
  };
  add("pp", p.pp);
  add("tp", p.tp);
  add("cp", p.cp);
  add("ep", p.ep);
  add("etp", p.etp);
  if (p.pp > 1)
    text += fmt::format(" {}{}", schedule, p.schedule == ScheduleKind::kInterleaved ? fmt::format(" {}", p.chunks) : "");
  return text.empty() ? "dp alone" : text;
}

std::string parameter_table(const Forecast& f) {
  std::string text = "Parameters by pipeline rank\n  rank  total    ";
  std::array<bool, kNumParameterKinds> used{};
  for (const RankForecast& rank : f.ranks) {
    for (std::size_t kind = 0; kind < used.size(); ++kind) used[kind] = used[kind] || rank.parameters[kind] > 0;
  }
  used[static_cast<std::size_t>(ParameterKind::kBuffer)] = false;
  for (std::size_t kind = 0; kind < used.size(); ++kind) {
    if (used[kind]) text += fmt::format(" {:>14}", name_of(static_cast<ParameterKind>(kind)));
  }
  text += "  stage\n";
  for (const RankForecast& rank : f.ranks) {
    std::int64_t total = 0;
    for (std::size_t kind = 0; kind < used.size(); ++kind) total += used[kind] ? rank.parameters[kind] : 0;
    text += fmt::format("  {:>4}  {:<9}", rank.pp_rank, count_text(total));
    for (std::size_t kind = 0; kind < used.size(); ++kind) {
      if (used[kind]) text += fmt::format(" {:>14}", count_text(rank.parameters[kind]));
    }
    text += fmt::format("  {}\n", rank.content);
  }
  return text;
}

std::string memory_table(const Forecast& f, const ForecastOptions& options) {
  std::string text = "Memory by pipeline rank, at the peak of a step\n";
  text += fmt::format("  rank {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11}  in flight\n", "weights",
                      "gradients", "optimizer", "average", "inputs", "activations", "transfers", "workspace", "peak");
  for (const RankForecast& rank : f.ranks) {
    const RankMemory& m = rank.memory;
    text += fmt::format("  {:>4}", rank.pp_rank);
    for (const std::int64_t bytes :
         {m.weights, m.gradients, m.optimizer, m.average, m.inputs, m.activations, m.transfers, m.work, m.peak}) {
      text += fmt::format(" {:>11}", bytes_text(static_cast<double>(bytes)));
    }
    text += fmt::format("  {:>9}\n", m.micro_batches_in_flight);
  }
  const double usable = usable_bytes(options.machine), peak = static_cast<double>(peak_bytes(f.ranks));
  text += peak <= usable ? fmt::format("  fits: {} of {} that {} leaves to the program\n", bytes_text(peak), bytes_text(usable),
                                       options.machine.name)
                         : fmt::format(
                               "  DOES NOT FIT: {} of {} that {} leaves to the program; smaller micro-batches, tp, cp, more "
                               "stages or --search\n",
                               bytes_text(peak), bytes_text(usable), options.machine.name);
  return text;
}

std::string wire_table(const Forecast& f) {
  std::string text = "Sent by a rank in one step\n";
  text += fmt::format("  rank {:>11} {:>11} {:>11} {:>11} {:>11} {:>12} {:>12} {:>11}\n", "tp", "cp", "pp", "ep in node",
                      "ep beyond", "dp gradients", "dp weights", "all");
  for (const RankForecast& rank : f.ranks) {
    const WireBytes& w = rank.wire;
    text += fmt::format("  {:>4} {:>11} {:>11} {:>11} {:>11} {:>11} {:>12} {:>12} {:>11}\n", rank.pp_rank,
                        bytes_text(w.layers.tp), bytes_text(w.layers.cp), bytes_text(w.pp), bytes_text(w.layers.ep_intra),
                        bytes_text(w.layers.ep_inter), bytes_text(w.gradients), bytes_text(w.values), bytes_text(w.total()));
  }
  return text;
}

/// What the people who trained a model of this shape have told of it; nothing for other shapes and machines.
std::string published_text(const ModelSection& model, const MachineSection& machine) {
  struct Run {
    std::int64_t num_layers, hidden_size, num_experts;
    std::string_view machine, sentence;
  };
  // spec/parallelism.md 13.
  static constexpr Run kRuns[] = {{61, 7168, 256, "NVIDIA H800", "180K hours on 2048 GPUs for DeepSeek-V3, in FP8"},
                                  {60, 5120, 160, "NVIDIA H800", "172.8K hours for DeepSeek-V2"}};
  for (const Run& run : kRuns) {
    if (run.num_layers == model.num_layers && run.hidden_size == model.hidden_size && run.num_experts == model.moe.num_experts &&
        run.machine == machine.name) {
      return fmt::format("  published: {}\n", run.sentence);
    }
  }
  return "";
}

std::string time_text(const Config& config, const Forecast& f, const ForecastOptions& options) {
  const StepTime& t = f.time;
  const double flops = model::model_flops_per_token(config.model, config.data.sequence_length);
  std::string text = fmt::format("Step on {}: {:.1f} ms expected\n", options.machine.name, 1e3 * t.total());
  text += fmt::format("  pipeline {:.1f} ms, of which {:.1f} % bubble and {:.1f} % transfers that nothing hides\n",
                      1e3 * t.pipeline, 100 * t.bubble_share, 100 * t.exposed_share);
  text += fmt::format("  gradients {:.1f} ms behind the last backward pass, optimizer {:.1f} ms, weights gathered in {:.1f} ms\n",
                      1e3 * t.gradients, 1e3 * t.optimizer, 1e3 * t.values);
  text += fmt::format("  {:.0f} tokens/s a rank ({:.0f} to {:.0f}), {} tokens/s in all, {} model flops a token: {} a rank\n",
                      f.tokens_per_s_per_rank, f.slowest_tokens_per_s_per_rank, f.fastest_tokens_per_s_per_rank,
                      count_text(static_cast<std::int64_t>(f.tokens_per_step / t.total())), number_text(flops, "flop", 1000),
                      number_text(flops * f.tokens_per_s_per_rank, "flop/s", 1000));
  const auto hours = [](double rate) { return 1e12 / rate / 3600; };
  text += fmt::format("  {:.0f}K rank hours per trillion tokens ({:.0f}K to {:.0f}K)\n", f.rank_hours_per_trillion_tokens / 1e3,
                      hours(f.fastest_tokens_per_s_per_rank) / 1e3, hours(f.slowest_tokens_per_s_per_rank) / 1e3);
  return text + published_text(config.model, options.machine);
}

}  // namespace

std::string schedule_text(ScheduleKind kind) { return std::string(schedule::name_of(schedule_kind(kind))); }

std::string bytes_text(double bytes) { return number_text(bytes, "B", 1024); }

std::vector<std::string> assumptions(const Config& config, const ForecastOptions& options) {
  const MachineSection& m = options.machine;
  const Formats formats = formats_of(config, m);
  const MachineEfficiencySection& e = m.efficiency;
  std::vector<std::string> list;
  const auto say = [&](std::string_view sentence) { list.emplace_back(sentence); };
  say(fmt::format("weights and activations {}, gradients {} (also on the wire), moments {}{}", hadal::name_of(formats.compute),
                  hadal::name_of(formats.gradient), hadal::name_of(formats.moment),
                  formats.master ? ", master weights f32" : ""));
  if (m.precision == MachinePrecision::kBf16) {
    say("the machine file says bf16, whatever precision.compute says");
  }
  say("activations are kept as the layers keep them: nothing is recomputed, nothing is cached in FP8");
  say("ZeRO-1: moments and master weights are shared by all ranks that hold the same slice; gradients and weights are whole");
  if (config.model.moe.num_experts > 0 && config.parallel.ep * config.parallel.etp > 1) {
    say(
        fmt::format("the busiest rank's experts get {:.2f} times the mean rank's rows; tokens choose experts evenly within the "
                    "router's groups",
                    options.expert_imbalance));
  }
  say(
      fmt::format("products reach {:.0f} % of the peak (experts' {:.0f} %), attention {:.0f} % forward and {:.0f} % backward, "
                  "sparse attention {:.0f} %, "
                  "passes over memory {:.0f} % of its bandwidth",
                  100 * e.gemm, 100 * e.grouped_gemm, 100 * e.attention_forward, 100 * e.attention_backward,
                  100 * e.sparse_attention, 100 * e.memory));
  say(fmt::format("links reach {:.0f} % of {}/s in a node of {} and {:.0f} % of {}/s between nodes", 100 * e.intra,
                  number_text(m.link.intra, "B", 1000), m.ranks_per_node, 100 * e.inter, number_text(m.link.inter, "B", 1000)));
  say(fmt::format(
      "hidden: {:.0f} % of the all-to-all that fits under the shared experts, {:.0f} % of all transfers that fit under the "
      "computations of "
      "an F&B pair, {:.0f} % of the gradients' reduction that fits under the last backward pass; tp and cp transfers stand alone",
      100 * m.overlap.experts, 100 * m.overlap.pairs, 100 * m.overlap.gradients));
  say(fmt::format("the range is every efficiency times {:.2f} to {:.2f}", 1 - e.spread, 1 + e.spread));
  say("not counted: data loading, checkpoints, evaluation, failures, and the slowest of many ranks");
  return list;
}

std::string describe(const Config& config, const Forecast& f, const ForecastOptions& options, const PrintOptions& print) {
  const auto& grid = f.layout.grid;
  const model::ParameterCount count = model::count_parameters(config.model);
  std::string text = fmt::format("{} parameters ({} with MTP, {} active) on {} ranks: {}\n", count_text(count.total),
                                 count_text(count.total_with_mtp), count_text(count.active), grid.num_ranks(), axes_text(grid));
  text += fmt::format("{} sequences of {} tokens a step; a rank runs {} micro-batches of {}{}\n\n", config.train.global_batch,
                      config.data.sequence_length, f.micro_batches, config.train.micro_batch,
                      grid.pp() > 1 ? fmt::format(", schedule {}", schedule::name_of(f.layout.kind)) : "");
  text += parameter_table(f) + "\n" + memory_table(f, options) + "\n" + wire_table(f) + "\n";
  if (grid.pp() > 1) {
    text += schedule::render(f.plan, f.time.simulation, {.width = print.width, .colour = print.colour}) + "\n";
  }
  text += time_text(config, f, options) + "\nAssumptions\n";
  for (const std::string& sentence : assumptions(config, options)) text += fmt::format("  - {}\n", sentence);
  return text;
}

std::string describe(const std::vector<Candidate>& candidates, std::int64_t num_ranks, const ForecastOptions& options) {
  if (candidates.empty()) {
    return fmt::format("no layout on {} ranks fits {} of {}\n", num_ranks, bytes_text(usable_bytes(options.machine)),
                       options.machine.name);
  }
  std::string text = fmt::format("Best layouts on {} ranks of {} within {} a rank\n", num_ranks, options.machine.name,
                                 bytes_text(usable_bytes(options.machine)));
  text += fmt::format("  {:<44} {:>11} {:>10} {:>14} {:>11} {:>7}\n", "layout", "micro-batch", "step ms", "tokens/s/rank", "peak",
                      "bubble");
  for (const Candidate& c : candidates) {
    text += fmt::format("  {:<44} {:>11} {:>10.1f} {:>14.0f} {:>11} {:>6.1f}%\n",
                        layout_text(c.parallel, schedule_text(c.parallel.schedule)), c.micro_batch, 1e3 * c.step_s,
                        c.tokens_per_s_per_rank, bytes_text(static_cast<double>(c.peak_bytes)), 100 * c.bubble_share);
  }
  return text;
}

}  // namespace hadal::plan
