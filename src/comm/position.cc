#include "comm/position.h"

#include "comm/ledger.h"

namespace hadal::comm {
namespace {

thread_local Position::Values t_values;

void show() {
  if (Ledger* ledger = Ledger::of_this_thread()) ledger->set_position(t_values.phase, t_values.micro_batch, t_values.layer);
}

}  // namespace

Position::Position(const char* phase, int micro_batch, int layer)
    : enclosing_(t_values), range_(phase != nullptr ? phase : t_values.phase) {
  if (phase != nullptr) t_values.phase = phase;
  if (micro_batch != kInherit) t_values.micro_batch = micro_batch;
  if (layer != kInherit) t_values.layer = layer;
  show();
}

Position::~Position() {
  t_values = enclosing_;
  show();
}

const Position::Values& Position::current() { return t_values; }

}  // namespace hadal::comm
