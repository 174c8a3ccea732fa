// The eight steps that DualPipe and DualPipeV share. A rank feeds two phases; each step names how often its pattern repeats.
#pragma once

#include "schedule/rank_list.h"

namespace hadal::schedule::plans {

struct EightSteps {
  int slot[2] = {0, 1};  ///< by phase
  int inner = 0;         ///< ranks between this one and the turn: P - 1 - r of DualPipeV
  int outer = 0;         ///< ranks between the outside and this one: r of DualPipeV
  int pairs = 0;         ///< repeats of the overlapped step 4
};

void eight_steps(RankList& list, const EightSteps& steps);

}  // namespace hadal::schedule::plans
