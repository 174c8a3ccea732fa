#include "kernels/determinism.h"

#include <atomic>

namespace hadal::kernels {
namespace {

std::atomic<bool> g_allowed = false;

}  // namespace

void allow_nondeterministic(bool allowed) { g_allowed = allowed; }
bool nondeterministic_allowed() { return g_allowed; }

}  // namespace hadal::kernels
