#include "comm/ledger.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>

#include "comm/host_process.h"
#include "comm/ledger_memory.h"
#include "core/error.h"

namespace hadal::comm {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

thread_local Ledger* t_ledger = nullptr;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void set(SharedPosition& shared, const char* phase, int micro_batch, int layer) {
  shared.phase.set(phase);
  shared.micro_batch.store(micro_batch, kRelaxed);
  shared.layer.store(layer, kRelaxed);
}

/// One writer: no read-modify-write is needed.
void increment(std::atomic<std::uint64_t>& counter) { counter.store(counter.load(kRelaxed) + 1, kRelaxed); }

SharedRecord& record_of(LedgerMemory& memory, std::uint64_t number) { return memory.records[number % LedgerMemory::kRecords]; }

}  // namespace

Ledger::Ledger(int rank, int size) : own_(std::make_unique<LedgerMemory>()) {
  memory_ = own_.get();
  memory_->rank.store(rank, kRelaxed);
  memory_->size.store(size, kRelaxed);
  const HostProcess self = this_process();
  memory_->pid.store(self.pid, kRelaxed);
  memory_->process_start.store(self.start, kRelaxed);
  memory_->host.set(self.host);
  set(memory_->position, "", -1, -1);
  memory_->magic.store(LedgerMemory::kMagic, std::memory_order_release);
  t_ledger = this;
}

Ledger::~Ledger() {
  if (t_ledger == this) t_ledger = nullptr;
  if (!own_) munmap(memory_, sizeof(LedgerMemory));
}

Ledger* Ledger::of_this_thread() { return t_ledger; }

void Ledger::move_to(const std::filesystem::path& file) {
  const std::filesystem::path fresh = file.string() + ".new";
  const auto refused = [&](const char* call) { return IoError("{} {}: {}", call, fresh.string(), std::strerror(errno)); };
  std::error_code ignored;
  std::filesystem::remove(fresh, ignored);
  const int descriptor = open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) throw refused("cannot create");
  // Its blocks are allocated now: a disk that fills up later must not end the rank by SIGBUS.
  errno = posix_fallocate(descriptor, 0, sizeof(LedgerMemory));
  void* mapped = errno == 0 ? mmap(nullptr, sizeof(LedgerMemory), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0) : MAP_FAILED;
  const int failure = errno;
  close(descriptor);
  errno = failure;
  if (mapped == MAP_FAILED) throw refused("cannot map");
  std::memcpy(mapped, static_cast<const void*>(memory_), sizeof(LedgerMemory));
  if (!own_) munmap(memory_, sizeof(LedgerMemory));
  memory_ = std::launder(static_cast<LedgerMemory*>(mapped));
  own_.reset();
  if (rename(fresh.c_str(), file.c_str()) != 0) throw refused("cannot rename");
}

int Ledger::add_group(const Group& group) {
  const auto free = std::ranges::find_if(memory_->groups, [](const SharedGroup& entry) { return entry.id.load(kRelaxed) == 0; });
  if (free == memory_->groups.end()) return -1;
  const std::size_t shown = std::min(group.world_ranks.size(), free->members.size());
  free->name.set(group.name);
  free->size.store(static_cast<std::int32_t>(group.world_ranks.size()), kRelaxed);
  for (std::size_t i = 0; i < shown; ++i) free->members[i].store(group.world_ranks[i], kRelaxed);
  free->entered.store(0, kRelaxed);
  free->id.store(group.id, std::memory_order_release);
  return static_cast<int>(free - memory_->groups.begin());
}

void Ledger::remove_group(int slot) {
  if (slot >= 0) memory_->groups[static_cast<std::size_t>(slot)].id.store(0, std::memory_order_release);
}

std::uint64_t Ledger::begin(const Group& group, int slot, Op op, std::int64_t bytes, int peer, int tag, std::uint64_t sequence) {
  LedgerMemory& memory = *memory_;
  const std::uint64_t number = memory.next_record.load(kRelaxed);
  SharedRecord& record = record_of(memory, number);
  if (slot >= 0 && !is_message(op)) {
    std::atomic<std::uint64_t>& entered = memory.groups[static_cast<std::size_t>(slot)].entered;
    sequence = entered.load(kRelaxed) + 1;
    entered.store(sequence, kRelaxed);
  }
  record.position.copy(memory.position);
  record.group.store(group.id, kRelaxed);
  record.sequence.store(sequence, kRelaxed);
  record.bytes.store(bytes, kRelaxed);
  record.op.store(static_cast<std::int32_t>(op), kRelaxed);
  record.peer.store(peer, kRelaxed);
  record.tag.store(tag, kRelaxed);
  record.done_ns.store(0, kRelaxed);
  record.started_ns.store(now_ns(), kRelaxed);
  memory.next_record.store(number + 1, kRelaxed);
  increment(memory.progress);
  return number;
}

void Ledger::wait(std::uint64_t number) {
  waiting_since_ns_ = now_ns();
  memory_->waiting.store(number + 1, std::memory_order_release);
}

void Ledger::end(std::uint64_t number) {
  LedgerMemory& memory = *memory_;
  const std::int64_t now = now_ns();
  if (memory.waiting.load(kRelaxed) == number + 1) {
    memory.waiting.store(0, std::memory_order_release);
    waited_ns_ += now - waiting_since_ns_;
  }
  // More than 64 calls later its record has been given to another.
  if (memory.next_record.load(kRelaxed) - number <= LedgerMemory::kRecords)
    record_of(memory, number).done_ns.store(now, kRelaxed);
  increment(memory.progress);
}

void Ledger::set_position(const char* phase, int micro_batch, int layer) {
  set(memory_->position, phase, micro_batch, layer);
  increment(memory_->progress);
}

void Ledger::set_step(std::int64_t step) { memory_->step.store(step, kRelaxed); }
void Ledger::beat() { increment(memory_->heartbeat); }
void Ledger::set_ended(bool ends_job) { memory_->ended.store(ends_job ? 2 : 1, std::memory_order_release); }

LedgerCall& LedgerCall::operator=(LedgerCall&& other) noexcept {
  if (this != &other) {
    end();
    ledger_ = std::exchange(other.ledger_, nullptr);
    number_ = other.number_;
  }
  return *this;
}

void LedgerCall::end() {
  if (Ledger* ledger = std::exchange(ledger_, nullptr)) ledger->end(number_);
}

}  // namespace hadal::comm
