// Signals become requests; the handlers go when the run ends; a second INT ends the process at once.
#include "train/signals.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

namespace hadal::train {
namespace {

TEST(Signals, usr1_asks_for_a_stop_and_usr2_for_a_save) {
  const SignalHandlers handlers(false);
  EXPECT_EQ(pending_request(), Request::kNone);
  raise(SIGUSR2);
  EXPECT_EQ(pending_request(), Request::kSave);
  saved(Request::kSave);
  EXPECT_EQ(pending_request(), Request::kNone);
  raise(SIGUSR1);
  raise(SIGUSR2);
  EXPECT_EQ(pending_request(), Request::kSaveAndStop);
  EXPECT_EQ(std::string(stop_signal_name()), "SIGUSR1");
  saved(Request::kSave);
  EXPECT_EQ(pending_request(), Request::kSaveAndStop) << "a stop that came during a save is kept";
}

TEST(Signals, a_new_run_starts_without_requests) {
  {
    const SignalHandlers handlers(false);
    raise(SIGUSR1);
  }
  const SignalHandlers handlers(false);
  EXPECT_EQ(pending_request(), Request::kNone);
}

TEST(Signals, a_trainer_inside_a_command_that_listens_keeps_what_was_asked) {
  const SignalHandlers command(false);
  raise(SIGUSR1);
  {
    const SignalHandlers trainer(false);
    EXPECT_EQ(pending_request(), Request::kSaveAndStop);
  }
  raise(SIGUSR1);
  EXPECT_EQ(pending_request(), Request::kSaveAndStop) << "still handled";
}

TEST(Signals, second_interrupt_ends_a_lone_process) {
  const pid_t child = fork();
  if (child == 0) {
    const SignalHandlers handlers(true);
    raise(SIGINT);
    if (pending_request() != Request::kSaveAndStop) _exit(1);
    raise(SIGINT);
    _exit(2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "exit code " << WEXITSTATUS(status);
  EXPECT_EQ(WTERMSIG(status), SIGINT);
}

TEST(Signals, under_a_launcher_term_keeps_its_default) {
  const pid_t child = fork();
  if (child == 0) {
    const SignalHandlers handlers(false);
    raise(SIGTERM);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
}

}  // namespace
}  // namespace hadal::train
