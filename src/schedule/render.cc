#include "schedule/render.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace hadal::schedule {
namespace {

constexpr std::string_view kReset = "\x1b[0m";

std::string_view colour_of(Op op) {
  switch (op) {
    case Op::kForward:
      return "\x1b[36m";
    case Op::kBackward:
      return "\x1b[33m";
    case Op::kBackwardInput:
      return "\x1b[35m";
    case Op::kBackwardWeight:
      return "\x1b[32m";
    default:
      return "\x1b[34m";
  }
}

/// Numbers of micro-batches are shown modulo 100, or 10 where there is no room for two digits.
constexpr int kMostShown = 100;

std::string name_of_work(char letter, const Work& work, int modulus) {
  const char shown = work.slot == 0 ? letter : static_cast<char>(letter - 'A' + 'a');
  return fmt::format("{}{}", shown, work.micro_batch % modulus);
}

std::string name_of_action(const Action& action, int modulus) {
  switch (action.op) {
    case Op::kForward:
      return name_of_work('F', action.work, modulus);
    case Op::kBackward:
      return name_of_work('B', action.work, modulus);
    case Op::kBackwardInput:
      return name_of_work('I', action.work, modulus);
    case Op::kBackwardWeight:
      return name_of_work('W', action.work, modulus);
    default:
      return name_of_work('F', action.work, modulus) + '&' + name_of_work('B', action.backward, modulus);
  }
}

/// Columns per unit of time: nine of ten computations have room for their name.
double scale_of(const Plan& plan, const Simulation& simulation) {
  std::vector<double> needed;
  for (std::size_t rank = 0; rank < plan.ranks.size(); ++rank) {
    for (std::size_t i = 0; i < plan.ranks[rank].size(); ++i) {
      const Span& span = simulation.spans[rank][i];
      if (is_transfer(plan.ranks[rank][i].op) || span.end <= span.start) continue;
      needed.push_back(static_cast<double>(name_of_action(plan.ranks[rank][i], kMostShown).size()) / (span.end - span.start));
    }
  }
  if (needed.empty()) return 1;
  const auto at = needed.begin() + static_cast<std::ptrdiff_t>(needed.size() * 9 / 10);
  std::ranges::nth_element(needed, at);
  return *at;
}

/// One character and who painted it.
struct Cell {
  char character = ' ';
  int action = -1;
};

std::vector<Cell> row_of(const ActionList& list, const std::vector<Span>& spans, double scale, std::size_t columns) {
  std::vector<Cell> cells(columns);
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (is_transfer(list[i].op)) continue;
    const auto begin = static_cast<std::size_t>(std::lround(spans[i].start * scale));
    const auto end = std::min(static_cast<std::size_t>(std::lround(spans[i].end * scale)), columns);
    std::string name = name_of_action(list[i], kMostShown);
    if (name.size() > end - begin) name = name_of_action(list[i], 10);
    for (std::size_t column = begin; column < end; ++column) {
      const std::size_t k = column - begin;
      cells[column] = {k < name.size() ? name[k] : '-', static_cast<int>(i)};
    }
  }
  return cells;
}

std::string text_of(const std::vector<Cell>& cells, std::size_t begin, std::size_t end, const ActionList& list, bool colour) {
  std::string text;
  int painted = -1;
  for (std::size_t column = begin; column < end; ++column) {
    const Cell& cell = cells[column];
    if (colour && cell.action != painted) {
      if (painted >= 0) text += kReset;
      if (cell.action >= 0) text += colour_of(list[static_cast<std::size_t>(cell.action)].op);
      painted = cell.action;
    }
    text += cell.character;
  }
  if (painted >= 0) text += kReset;
  return text;
}

std::string legend(const Plan& plan, bool colour) {
  std::string text;
  const auto add = [&](Op op, std::string_view name) {
    const bool used = std::ranges::any_of(plan.ranks, [&](const ActionList& list) {
      return std::ranges::any_of(list, [&](const Action& action) { return action.op == op; });
    });
    if (!used) return;
    if (!text.empty()) text += ", ";
    text += colour ? fmt::format("{}{}{}", colour_of(op), name, kReset) : std::string(name);
  };
  add(Op::kForward, "F forward");
  add(Op::kBackward, "B backward");
  add(Op::kBackwardInput, "I input gradients");
  add(Op::kBackwardWeight, "W weight gradients");
  add(Op::kForwardBackward, "F&B overlapped");
  text += plan.placement.num_micro_batches() > 10 ? ", each with its micro-batch (last digits)" : ", each with its micro-batch";
  switch (plan.placement.arrangement()) {
    case Arrangement::kSequential:
      if (plan.placement.num_slots() > 1) text += "; small letters: later chunks";
      break;
    case Arrangement::kV:
      text += "; small letters: on the way up the V";
      break;
    case Arrangement::kBidirectional:
      text += "; small letters: the other direction";
  }
  return text + "; at the end of a row: idle share\n";
}

}  // namespace

std::string render(const Plan& plan, const Simulation& simulation, const RenderOptions& options) {
  const double scale = scale_of(plan, simulation);
  const auto columns = static_cast<std::size_t>(std::lround(simulation.makespan * scale));
  const std::size_t label = fmt::format("rank {}", plan.ranks.size() - 1).size();
  constexpr std::string_view kCut = " ~ ";
  const std::size_t around = label + std::string_view(" |").size() + std::string_view("| 100 %").size();
  const std::size_t room = static_cast<std::size_t>(std::max(options.width, 40)) - around;
  const bool cut = columns > room;
  const std::size_t head = cut ? (room - kCut.size() + 1) / 2 : columns;
  const std::size_t tail = cut ? columns - (room - kCut.size()) / 2 : columns;

  std::string text;
  for (std::size_t rank = 0; rank < plan.ranks.size(); ++rank) {
    const ActionList& list = plan.ranks[rank];
    const std::vector<Cell> cells = row_of(list, simulation.spans[rank], scale, columns);
    const double idle = simulation.makespan > 0 ? simulation.bubble(static_cast<int>(rank)) / simulation.makespan : 0;
    text += fmt::format("{:<{}} |{}{}{}|{:4.0f} %\n", fmt::format("rank {}", rank), label,
                        text_of(cells, 0, head, list, options.colour), cut ? kCut : std::string_view(),
                        text_of(cells, tail, columns, list, options.colour), 100 * idle);
  }
  return text + legend(plan, options.colour);
}

}  // namespace hadal::schedule
