// Progress of a command that reads or writes so many bytes: one line rewritten in place on a terminal; elsewhere a line every ten
// seconds. Nothing for what takes no time.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace hadal::cli {

class ByteProgress {
 public:
  /// "verify  43.1 % of 12.3 GB | 2.1 GB/s".
  ByteProgress(std::string what, std::uint64_t total, bool quiet);
  ~ByteProgress();
  ByteProgress(const ByteProgress&) = delete;
  ByteProgress& operator=(const ByteProgress&) = delete;

  /// From any thread.
  void add(std::uint64_t bytes);

 private:
  std::mutex mutex_;
  std::string what_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  bool quiet_;
  bool live_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point shown_ = begin_;
};

}  // namespace hadal::cli
