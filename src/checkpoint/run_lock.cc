#include "checkpoint/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

std::string holder_text() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("process {} on {}\n", ::getpid(), host.data());
}

std::string read_holder(int descriptor) {
  std::array<char, 320> text{};
  const ssize_t got = ::pread(descriptor, text.data(), text.size() - 1, 0);
  std::string holder(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  while (!holder.empty() && holder.back() == '\n') holder.pop_back();
  return holder.empty() ? "another process" : holder;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& run_dir) {
  std::filesystem::create_directories(run_dir);
  const std::filesystem::path path = run_dir / "run.lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor_ < 0) throw IoError("{}: open failed: {}", path.string(), std::strerror(errno));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    const std::string holder = read_holder(descriptor_);
    ::close(descriptor_);
    if (reason != EWOULDBLOCK) throw IoError("{}: flock failed: {}", path.string(), std::strerror(reason));
    throw Error(ExitCode::kLocked,
                fmt::format("{}: is in use by {}; stop it, or choose another run.dir", run_dir.string(), holder));
  }
  const std::string holder = holder_text();
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, holder.data(), holder.size(), 0) < 0) {
    const int reason = errno;
    ::close(descriptor_);
    throw IoError("{}: write failed: {}", path.string(), std::strerror(reason));
  }
}

RunLock::~RunLock() { ::close(descriptor_); }

}  // namespace hadal::checkpoint
