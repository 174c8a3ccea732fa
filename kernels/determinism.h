// Whether ops may take faster forms whose last bits differ from run to run (design.md 3, Determinism). Off unless the user asks for it
// (`run.deterministic: false`); one setting of the process. The CPU has no such forms.
#pragma once

namespace hadal::kernels {

void allow_nondeterministic(bool allowed);
bool nondeterministic_allowed();

}  // namespace hadal::kernels
