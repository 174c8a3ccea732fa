#include "train/watchdog.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>

#include "comm/ledger_report.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace hadal::train {
namespace {

constexpr std::chrono::milliseconds kTick{200};
/// Longest time between two looks that counts: this process may have been stopped itself.
constexpr double kLongestTick_s = 1;
/// Waits shorter than this are not looked into.
constexpr double kGrace_s = 1;
/// A process whose watchdog has not run for so long is frozen, whatever /proc says.
constexpr double kFrozen_s = 4;
/// A death is looked at twice: a launcher that ends the job kills one rank after the other.
constexpr std::chrono::milliseconds kConfirm{50};
/// How long the launcher has to end the job after a death, before it is done here.
constexpr std::chrono::seconds kLauncher{5};

std::filesystem::path file_of(const std::filesystem::path& directory, int rank) {
  return directory / fmt::format("ledger-rank-{}", rank);
}

}  // namespace

Watchdog::Watchdog(comm::Communicator& world, const std::filesystem::path& directory, HangBounds bounds,
                   std::function<void(ExitCode)> at_end)
    : ledger_(*world.ledger()), rank_(world.rank()), clock_(bounds), at_end_(std::move(at_end)), report_(directory / "hang.txt") {
  std::filesystem::create_directories(directory);
  ledger_.move_to(file_of(directory, rank_));
  open_peers(world, directory);
  // Signals are for the rank's own thread.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { watch(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Watchdog::~Watchdog() {
  {
    const std::scoped_lock lock(mutex_);
    left_ = true;
    ledger_.set_ended(std::uncaught_exceptions() > 0);
  }
  leaving_.notify_all();
  thread_.join();
}

void Watchdog::open_peers(comm::Communicator& world, const std::filesystem::path& directory) {
  // Also the barrier after which every ledger is in its place.
  const std::string host = comm::this_process().host;
  const std::vector<std::string> hosts = world.all_gather(host);
  for (int rank = 0; rank < world.size(); ++rank) {
    if (rank == rank_ || hosts[static_cast<std::size_t>(rank)] != host) continue;
    Peer peer{.ledger = comm::LedgerFile::open(file_of(directory, rank)), .process = {}, .glance = {}};
    if (!peer.ledger) {
      log_warning("the ledger of rank {} is not in {}: a hang of that rank will not be noticed here", rank, directory.string());
      continue;
    }
    peer.process = peer.ledger->snapshot().process;
    peers_.push_back(std::move(peer));
  }
}

void Watchdog::watch() {
  auto last = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!leaving_.wait_for(lock, kTick, [this] { return left_; })) {
    const auto now = std::chrono::steady_clock::now();
    const double passed_s = std::min(kLongestTick_s, std::chrono::duration<double>(now - last).count());
    last = now;
    ledger_.beat();
    if (const std::string failure = comm::device_transport_failure(); !failure.empty()) end_job(failure);
    if (glance(passed_s)) {
      look(passed_s);
    } else {
      clock_.reset();
    }
  }
}

bool Watchdog::glance(double passed_s) {
  const comm::LedgerGlance mine = comm::glance_at(ledger_.memory());
  mine_s_ = mine.waiting && mine.progress == mine_.progress ? mine_s_ + passed_s : 0;
  mine_ = mine;
  bool trouble = mine_s_ >= kGrace_s;
  for (Peer& peer : peers_) {
    const comm::LedgerGlance now = peer.ledger->glance();
    peer.heartbeat_s = now.heartbeat == peer.glance.heartbeat ? peer.heartbeat_s + passed_s : 0;
    peer.glance = now;
    silent_ = silent_ || now.ends_job;
    if (now.ended) continue;
    peer.state = comm::state_of(peer.process);
    if (peer.state == comm::ProcessState::kRuns && peer.heartbeat_s >= kFrozen_s) peer.state = comm::ProcessState::kStopped;
    trouble = trouble || peer.state != comm::ProcessState::kRuns;
  }
  return trouble && !silent_;
}

std::vector<comm::RankView> Watchdog::views() const {
  std::vector<comm::RankView> views{{.ledger = comm::snapshot_of(ledger_.memory()), .state = comm::ProcessState::kRuns}};
  for (const Peer& peer : peers_) views.push_back({.ledger = peer.ledger->snapshot(), .state = peer.state});
  return views;
}

void Watchdog::look(double passed_s) {
  std::optional<comm::Diagnosis> diagnosis = clock_.look(views(), passed_s);
  if (!diagnosis) return;
  if (diagnosis->cause == comm::Diagnosis::Cause::kGone) {
    std::this_thread::sleep_for(kConfirm);
    if (!glance(0)) return;
    diagnosis = comm::diagnose(views());
  }
  if (diagnosis && speaker_of(views(), *diagnosis) == rank_) end_job(*diagnosis);
}

void Watchdog::end_job(const comm::Diagnosis& diagnosis) {
  const bool death = diagnosis.cause == comm::Diagnosis::Cause::kGone;
  log_error("{}; the job ends{}", diagnosis.sentence,
            death ? "" : fmt::format(" with code {}", static_cast<int>(ExitCode::kHang)));
  leave_word(ExitCode::kHang, diagnosis.sentence);
  // The launcher notices a death by itself and returns the code of that process; only it can end ranks of other hosts in good
  // order.
  if (death) std::this_thread::sleep_for(kLauncher);
  std::_Exit(static_cast<int>(ExitCode::kHang));
}

void Watchdog::end_job(const std::string& device_failure) {
  log_error("{}; the job ends with code {}", device_failure, static_cast<int>(ExitCode::kIo));
  leave_word(ExitCode::kIo, device_failure);
  std::_Exit(static_cast<int>(ExitCode::kIo));
}

void Watchdog::leave_word(ExitCode code, const std::string& sentence) {
  const std::string report = fmt::format("{}\n\n{}", sentence, comm::report_of(views()));
  ledger_.set_ended(true);
  try {
    at_end_(code);
    write_file_atomically(report_, report);
  } catch (const std::exception& error) {
    log_warning("the end of the job is not noted: {}", error.what());
  }
}

}  // namespace hadal::train
