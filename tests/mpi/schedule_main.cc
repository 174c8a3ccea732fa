// Started under mpirun by ctest: every schedule on real ranks, values checked, then with tensors too large to be buffered, so
// that a send is complete only when its receive is posted.
#include <fmt/core.h>

#include <cstdio>

#include "comm/world.h"
#include "core/error.h"
#include "schedule/kinds.h"
#include "schedule/make_plan.h"
#include "tests/schedule/fake_stage.h"

namespace {

using namespace hadal;

int run() {
  auto world = comm::init_from_environment();
  std::string wrong;
  for (const schedule::KindRow& row : schedule::kinds()) {
    const schedule::Request request{row.kind, world->size(), 3 * world->size(), row.kind == schedule::Kind::kInterleaved ? 2 : 1};
    const std::string reason = schedule::why_impossible(request);
    if (!reason.empty()) {
      if (world->is_root()) fmt::print("{}\n", reason);
      continue;
    }
    for (const schedule::Plan& plan : {schedule::make_plan(request), schedule::make_forward_plan(request)}) {
      const std::string text = schedule::test::run_and_compare(plan, *world);
      if (!text.empty()) wrong += fmt::format("{}: {}", row.name, text);
      schedule::test::EmptyStages large(plan.placement, world->rank());
      schedule::execute(plan, *world, large);
    }
    if (world->is_root()) fmt::print("{} on {} ranks ({})\n", row.name, world->size(), world->description());
  }
  if (!wrong.empty()) fmt::print(stderr, "rank {}: {}\n", world->rank(), wrong);
  return comm::finish(std::move(world), wrong.empty() ? 0 : 1);
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const hadal::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    hadal::comm::abort_all(static_cast<int>(error.code()));
  }
}
