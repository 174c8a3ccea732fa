#include "cli/byte_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/log.h"

namespace hadal::cli {

ByteProgress::ByteProgress(std::string what, std::uint64_t total, bool quiet)
    : what_(std::move(what)),
      total_(std::max<std::uint64_t>(total, 1)),
      quiet_(quiet),
      live_(!quiet && ::isatty(STDERR_FILENO) == 1) {}

ByteProgress::~ByteProgress() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
}

void ByteProgress::add(std::uint64_t bytes) {
  const std::scoped_lock lock(mutex_);
  done_ += bytes;
  const auto now = std::chrono::steady_clock::now();
  if (quiet_ || now - shown_ < (live_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000))) return;
  shown_ = now;
  const std::chrono::duration<double> seconds = now - begin_;
  const double gigabytes = static_cast<double>(done_) * 1e-9;
  const std::string text = fmt::format("{} {:5.1f} % of {:.1f} GB | {:.2f} GB/s", what_,
                                       100.0 * static_cast<double>(done_) / static_cast<double>(total_),
                                       static_cast<double>(total_) * 1e-9, gigabytes / seconds.count());
  if (!live_) return log_info("{}", text);
  fmt::print(stderr, "\r\033[K{}", text);
  drawn_ = true;
}

}  // namespace hadal::cli
