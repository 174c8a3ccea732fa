// From a request to a plan that can be run: the front door of this folder.
#pragma once

#include <string>

#include "schedule/plan.h"

namespace hadal::schedule {

/// Why there is no such plan and what to change, in one sentence; empty when there is one.
std::string why_impossible(const Request& request);

/// One training step, with transfers, proved by validate. Throws UserError with why_impossible's sentence.
Plan make_plan(const Request& request);

/// Evaluation over the same placement: F alone; any number of micro-batches.
Plan make_forward_plan(const Request& request);

/// Where the stages of a request live; the same for training and evaluation.
Placement placement_of(const Request& request);

}  // namespace hadal::schedule
