// A thread in every rank that ends a job which would otherwise hang in silence (spec/reliability.md 2, mechanism 6).
//
// The ranks of a host map each other's ledgers (comm/ledger.h). Five times a second each looks whether the others' processes are
// there and run, and, while its own rank waits, who keeps it waiting. One rank of the host then says so in one sentence, writes
// the code for job scripts and ends the job with code 86: within seconds when a rank is gone (the launcher, which kills the
// others a second after a death, is forestalled), after HangBounds otherwise. Ranks of other hosts are seen only through the
// calls that they do not enter. An error on the way between devices, which no call returns, ends the job likewise (code 74).
#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "comm/ledger_snapshot.h"
#include "core/error.h"
#include "train/hang_clock.h"

namespace hadal::train {

class Watchdog {
 public:
  /// For ranks that are processes. Ledgers go to `directory`/ledger-rank-R, which is made; a table of all ranks and their last
  /// calls to `directory`/hang.txt, should it come to that. `at_end` is called on the thread of the rank that ends the job, with its
  /// exit code, after the sentence and before the end; it must not wait for other ranks. Collective. IoError.
  Watchdog(comm::Communicator& world, const std::filesystem::path& directory, HangBounds bounds, std::function<void(ExitCode)> at_end);
  /// The rank leaves in good order, or by an exception that it reports itself.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  struct Peer {
    std::unique_ptr<comm::LedgerFile> ledger;
    comm::HostProcess process;
    comm::ProcessState state = comm::ProcessState::kRuns;
    comm::LedgerGlance glance;
    double heartbeat_s = 0;  ///< since the last one
  };

  void open_peers(comm::Communicator& world, const std::filesystem::path& directory);
  void watch();
  /// A look at everybody. True when there may be something to say.
  bool glance(double passed_s);
  std::vector<comm::RankView> views() const;
  void look(double passed_s);
  [[noreturn]] void end_job(const comm::Diagnosis& diagnosis);
  [[noreturn]] void end_job(const std::string& device_failure);
  void leave_word(ExitCode code, const std::string& sentence);

  comm::Ledger& ledger_;
  int rank_;
  HangClock clock_;
  std::function<void(ExitCode)> at_end_;
  std::filesystem::path report_;
  std::vector<Peer> peers_;  ///< the other ranks of this host
  comm::LedgerGlance mine_;
  double mine_s_ = 0;    ///< since the own rank moved
  bool silent_ = false;  ///< another rank ends the job
  std::mutex mutex_;
  std::condition_variable leaving_;
  bool left_ = false;
  std::thread thread_;
};

}  // namespace hadal::train
