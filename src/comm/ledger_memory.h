// Layout of a rank's ledger, in plain memory or in a file that other processes of the host map. One thread writes; any may read
// at any time, hence relaxed atomics (a plain store on the machines we run on). A reader may see a record half replaced: it is a
// report about ranks that have not moved for seconds, whose records do not change.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace hadal::comm {

/// Text of up to 8 * Words - 1 bytes in words that are read and written whole.
template <int Words>
struct SharedText {
  std::array<std::atomic<std::uint64_t>, Words> words;

  void set(std::string_view text) {
    std::array<char, Words * 8> bytes{};
    std::memcpy(bytes.data(), text.data(), text.size() < bytes.size() ? text.size() : bytes.size() - 1);
    std::array<std::uint64_t, Words> values;
    std::memcpy(values.data(), bytes.data(), bytes.size());
    for (int i = 0; i < Words; ++i) words[i].store(values[i], std::memory_order_relaxed);
  }
  void copy(const SharedText& other) {
    for (int i = 0; i < Words; ++i) words[i].store(other.words[i].load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  std::string get() const {
    std::array<std::uint64_t, Words> values;
    for (int i = 0; i < Words; ++i) values[i] = words[i].load(std::memory_order_relaxed);
    std::array<char, Words * 8 + 1> bytes{};
    std::memcpy(bytes.data(), values.data(), sizeof values);
    return bytes.data();
  }
};

struct SharedPosition {
  SharedText<3> phase;
  std::atomic<std::int32_t> micro_batch;
  std::atomic<std::int32_t> layer;

  void copy(const SharedPosition& other) {
    phase.copy(other.phase);
    micro_batch.store(other.micro_batch.load(std::memory_order_relaxed), std::memory_order_relaxed);
    layer.store(other.layer.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
};

struct SharedRecord {
  std::atomic<std::uint64_t> group;  ///< id
  std::atomic<std::uint64_t>
      sequence;  ///< from 1: the how manieth collective of the group, message to or from the peer with the tag
  std::atomic<std::int64_t> bytes;
  std::atomic<std::int64_t> started_ns;
  std::atomic<std::int64_t> done_ns;  ///< 0: under way
  std::atomic<std::int32_t> op;
  std::atomic<std::int32_t> peer;  ///< rank of the group; of messages
  std::atomic<std::int32_t> tag;
  SharedPosition position;
};

struct SharedGroup {
  static constexpr int kMembers = 64;
  std::atomic<std::uint64_t> id;       ///< 0: free
  std::atomic<std::uint64_t> entered;  ///< collectives that this rank has begun
  SharedText<3> name;
  std::atomic<std::int32_t> size;
  std::array<std::atomic<std::int32_t>, kMembers> members;  ///< world ranks of the first ones
};

struct LedgerMemory {
  static constexpr std::uint64_t kMagic = 0x3172656764656c68;  ///< "hledger1"
  static constexpr std::uint64_t kRecords = 64;
  static constexpr int kGroups = 128;

  std::atomic<std::uint64_t> magic;
  std::atomic<std::int32_t> rank;
  std::atomic<std::int32_t> size;
  std::atomic<std::int64_t> pid;
  std::atomic<std::uint64_t> process_start;  ///< of that pid, from /proc: pids are used again
  SharedText<16> host;                       ///< and pid namespace
  std::atomic<std::int32_t> ended;           ///< 1: this rank has left; 2: it ends the job and has said why
  std::atomic<std::uint64_t> heartbeat;
  std::atomic<std::uint64_t> progress;  ///< changes whenever the rank's own thread comes past here
  std::atomic<std::int64_t> step;
  SharedPosition position;
  std::atomic<std::uint64_t> waiting;  ///< 1 + number of the record that is waited for; 0: none
  std::atomic<std::uint64_t> next_record;
  std::array<SharedRecord, kRecords> records;
  std::array<SharedGroup, kGroups> groups;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::int32_t>::is_always_lock_free);

}  // namespace hadal::comm
