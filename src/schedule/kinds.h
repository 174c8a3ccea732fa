// The table of schedules: one row each, with the name that a YAML file uses.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "schedule/plan.h"
#include "schedule/rank_list.h"

namespace hadal::schedule {

struct KindRow {
  Kind kind;
  std::string_view name;     ///< in YAML: "1f1b"
  std::string_view summary;  ///< one line for help and tables
  Arrangement arrangement;
  void (*write)(RankList& list);
  std::string (*refuse)(const Request& request);  ///< nullptr: any number of ranks and micro-batches will do
};

std::span<const KindRow> kinds();
const KindRow& row_of(Kind kind);
inline std::string_view name_of(Kind kind) { return row_of(kind).name; }
std::optional<Kind> find_kind(std::string_view name);

}  // namespace hadal::schedule
