#include "comm/ledger_snapshot.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#include "comm/ledger_memory.h"

namespace hadal::comm {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

PositionText text_of(const SharedPosition& position) {
  return {position.phase.get(), position.micro_batch.load(kRelaxed), position.layer.load(kRelaxed)};
}

CallSnapshot call_of(const SharedRecord& record) {
  return {.op = static_cast<Op>(record.op.load(kRelaxed)),
          .group = record.group.load(kRelaxed),
          .sequence = record.sequence.load(kRelaxed),
          .bytes = record.bytes.load(kRelaxed),
          .peer = record.peer.load(kRelaxed),
          .tag = record.tag.load(kRelaxed),
          .position = text_of(record.position),
          .started_ns = record.started_ns.load(kRelaxed),
          .done_ns = record.done_ns.load(kRelaxed)};
}

GroupSnapshot group_of(const SharedGroup& shared) {
  GroupSnapshot group{.id = shared.id.load(std::memory_order_acquire),
                      .name = shared.name.get(),
                      .size = shared.size.load(kRelaxed),
                      .members = {},
                      .entered = shared.entered.load(kRelaxed)};
  const int shown = std::clamp(group.size, 0, SharedGroup::kMembers);
  for (int i = 0; i < shown; ++i) group.members.push_back(shared.members[static_cast<std::size_t>(i)].load(kRelaxed));
  return group;
}

}  // namespace

std::string PositionText::str() const {
  std::string text = phase;
  if (micro_batch >= 0) text += fmt::format("{}micro-batch {}", text.empty() ? "" : " of ", micro_batch);
  if (layer >= 0) text += fmt::format("{}layer {}", text.empty() ? "" : ", ", layer);
  return text;
}

const GroupSnapshot* RankSnapshot::group(std::uint64_t id) const {
  const auto found = std::ranges::find(groups, id, &GroupSnapshot::id);
  return found == groups.end() ? nullptr : &*found;
}

std::string RankSnapshot::name_of(const CallSnapshot& call) const {
  const GroupSnapshot* in = group(call.group);
  std::string text = fmt::format("{} #{}", comm::name_of(call.op), call.sequence);
  if (is_message(call.op)) {
    text += fmt::format(" (tag {}) {} rank ", call.tag, call.op == Op::kSend ? "to" : "from");
    const bool known = in != nullptr && call.peer >= 0 && call.peer < static_cast<int>(in->members.size());
    text += known ? std::to_string(in->members[static_cast<std::size_t>(call.peer)]) : fmt::format("{} of the group", call.peer);
  }
  if (in == nullptr) return text;
  const bool cut = static_cast<int>(in->members.size()) < in->size;
  return text + fmt::format(" of {} {{{}{}}}", in->name, fmt::join(in->members, " "), cut ? " ..." : "");
}

LedgerGlance glance_at(const LedgerMemory& memory) {
  const std::int32_t ended = memory.ended.load(std::memory_order_acquire);
  return {.ended = ended != 0,
          .ends_job = ended == 2,
          .waiting = memory.waiting.load(kRelaxed) != 0,
          .heartbeat = memory.heartbeat.load(kRelaxed),
          .progress = memory.progress.load(kRelaxed)};
}

RankSnapshot snapshot_of(const LedgerMemory& memory) {
  const LedgerGlance glance = glance_at(memory);
  RankSnapshot snapshot{.rank = memory.rank.load(kRelaxed),
                        .size = memory.size.load(kRelaxed),
                        .process = {memory.host.get(), memory.pid.load(kRelaxed), memory.process_start.load(kRelaxed)},
                        .ended = glance.ended,
                        .ends_job = glance.ends_job,
                        .progress = memory.progress.load(kRelaxed),
                        .step = memory.step.load(kRelaxed),
                        .position = text_of(memory.position),
                        .waiting = {},
                        .groups = {},
                        .calls = {}};
  if (const std::uint64_t waiting = memory.waiting.load(std::memory_order_acquire); waiting != 0) {
    snapshot.waiting = call_of(memory.records[(waiting - 1) % LedgerMemory::kRecords]);
  }
  for (const SharedGroup& group : memory.groups) {
    if (group.id.load(kRelaxed) != 0) snapshot.groups.push_back(group_of(group));
  }
  const std::uint64_t end = memory.next_record.load(kRelaxed);
  for (std::uint64_t number = end - std::min(end, LedgerMemory::kRecords); number < end; ++number) {
    snapshot.calls.push_back(call_of(memory.records[number % LedgerMemory::kRecords]));
  }
  return snapshot;
}

std::unique_ptr<LedgerFile> LedgerFile::open(const std::filesystem::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return nullptr;
  struct stat status = {};
  const bool whole = fstat(descriptor, &status) == 0 && status.st_size == static_cast<off_t>(sizeof(LedgerMemory));
  void* mapped = whole ? mmap(nullptr, sizeof(LedgerMemory), PROT_READ, MAP_SHARED, descriptor, 0) : MAP_FAILED;
  close(descriptor);
  if (mapped == MAP_FAILED) return nullptr;
  const auto* memory = std::launder(static_cast<const LedgerMemory*>(mapped));
  std::unique_ptr<LedgerFile> ledger(new LedgerFile(memory));
  return memory->magic.load(std::memory_order_acquire) == LedgerMemory::kMagic ? std::move(ledger) : nullptr;
}

LedgerFile::~LedgerFile() { munmap(const_cast<void*>(static_cast<const void*>(memory_)), sizeof(LedgerMemory)); }

}  // namespace hadal::comm
