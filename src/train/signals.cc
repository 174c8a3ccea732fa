#include "train/signals.h"

#include <atomic>
#include <csignal>
#include <mutex>
#include <vector>

#include "core/error.h"

namespace hadal::train {
namespace {

std::atomic<int> g_request{0};
std::atomic<int> g_stop_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "handlers may touch lock-free atomics only");

struct Former {
  int signal;
  struct sigaction action;
};

std::mutex g_mutex;
int g_holders = 0;
std::vector<Former> g_former;

void ask_to_save(int) {
  int none = static_cast<int>(Request::kNone);
  g_request.compare_exchange_strong(none, static_cast<int>(Request::kSave));
}

void ask_to_stop(int signal) {
  g_stop_signal.store(signal);
  g_request.store(static_cast<int>(Request::kSaveAndStop));
}

/// The first one asks, the second finds the default action and ends the process.
void ask_to_stop_once(int signal) {
  ask_to_stop(signal);
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGINT, &standard, nullptr);
  sigaction(SIGTERM, &standard, nullptr);
}

}  // namespace

SignalHandlers::SignalHandlers(bool term_asks) {
  const std::scoped_lock lock(g_mutex);
  if (g_holders++ > 0) return;
  g_request.store(static_cast<int>(Request::kNone));
  g_stop_signal.store(0);
  const auto install = [](int signal, void (*handler)(int)) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    Former former{signal, {}};
    HADAL_CHECK(sigaction(signal, &action, &former.action) == 0, "signal {}", signal);
    g_former.push_back(former);
  };
  install(SIGUSR1, ask_to_stop);
  install(SIGUSR2, ask_to_save);
  if (term_asks) {
    install(SIGINT, ask_to_stop_once);
    install(SIGTERM, ask_to_stop_once);
  }
}

SignalHandlers::~SignalHandlers() {
  const std::scoped_lock lock(g_mutex);
  if (--g_holders > 0) return;
  for (const Former& former : g_former) sigaction(former.signal, &former.action, nullptr);
  g_former.clear();
}

Request pending_request() { return static_cast<Request>(g_request.load()); }

void saved(Request request) {
  int expected = static_cast<int>(Request::kSave);
  if (request != Request::kNone) g_request.compare_exchange_strong(expected, static_cast<int>(Request::kNone));
}

const char* stop_signal_name() {
  switch (g_stop_signal.load()) {
    case SIGUSR1:
      return "SIGUSR1";
    case SIGINT:
      return "SIGINT";
    case SIGTERM:
      return "SIGTERM";
    default:
      return "";
  }
}

}  // namespace hadal::train
