// What the HTML page knows about the runs, as JSON: curves thinned to what a screen can show, and loads per layer.
//
//   {"summary": [{"title": "tokens", "cells": ["4.20 M", ...]}, ...],
//    "runs": [{"name", "state", "config",
//              "plan":  {"title": "...", "rows": [["title", "predicted", "measured", "ratio"], ...]},   no rows without a forecast
//              "axis":  {"step": [...], "tokens": [...], "hours": [...]},          one entry a bucket of rows
//              "dense": {"loss": {"y": [...], "lo": [...], "hi": [...]}, ...},     mean, least and largest of a bucket
//              "sparse": {"val_loss": {"at": {"step", "tokens", "hours"}, "y": [...]}, ...},
//              "loads": [{"name": "moe.layer_1", "experts": 8, "at": {...}, "share": [[...], ...]}, ...]}, ...]}
//
// A figure that is missing or not finite is null.
#pragma once

#include <span>
#include <string>

#include "report/run_data.h"

namespace hadal::report {

struct PageLimits {
  std::size_t curve_points = 1200;  ///< buckets of a dense curve
  std::size_t load_columns = 240;   ///< columns of a heat map
};

std::string page_data(std::span<const Run> runs, const PageLimits& limits);

}  // namespace hadal::report
