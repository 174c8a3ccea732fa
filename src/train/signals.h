// Signals of a training run (spec/interop.md 10, spec/reliability.md 2): handlers set a flag, nothing else. The trainer reads it
// at the end of a step, and all ranks agree by a maximum over ranks before anybody acts:
//
//   SignalHandlers handlers(comm::detect_launcher().term_asks());      // first of all: without a handler a signal kills
//   ...
//   const auto request = static_cast<Request>(world->all_reduce_max(static_cast<std::int64_t>(pending_request())));
//   if (request != Request::kNone) { save(); saved(request); }
//   if (request == Request::kSaveAndStop) return 75;
#pragma once

namespace hadal::train {

/// Ordered: the stronger request wins the maximum over ranks.
enum class Request : int {
  kNone = 0,
  kSave = 1,         ///< SIGUSR2: save and continue
  kSaveAndStop = 2,  ///< SIGUSR1 (and INT, TERM where they can only mean that): finish the step, save, exit 75
};

/// Installs the handlers; the former ones come back on destruction. With `term_asks` INT and TERM ask for a stop too, and a second
/// INT or TERM ends the process at once. Without, they keep their default: mpirun sends TERM when a peer died, and
/// launch/mpirun.sh turns INT and TERM into USR1 first. While one object lives, others (a Trainer inside a command that already
/// listens) change nothing: what was asked before the Trainer came is kept.
class SignalHandlers {
 public:
  explicit SignalHandlers(bool term_asks);
  ~SignalHandlers();
  SignalHandlers(const SignalHandlers&) = delete;
  SignalHandlers& operator=(const SignalHandlers&) = delete;
};

/// What signals asked of this rank since the last saved().
Request pending_request();
/// A save that answers `request` is complete: forgets a request for a save, unless a stop was asked for meanwhile.
void saved(Request request);
/// The signal behind the stop ("SIGUSR1"), or "" when none came to this rank.
const char* stop_signal_name();

}  // namespace hadal::train
