#include "core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace hadal {
namespace {

[[noreturn]] void io_failed(const char* call, const std::filesystem::path& path) {
  throw IoError("{}: {} failed: {}", path.string(), call, std::strerror(errno));
}

}  // namespace

File File::open_read(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw UserError("{}: cannot be read: {}", path.string(), std::strerror(errno));
  File file(descriptor, path);
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) io_failed("fstat", path);
  if (!S_ISREG(status.st_mode)) throw UserError("{}: not a regular file", path.string());
  return file;
}

File File::create(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) io_failed("create", path);
  return File(descriptor, path);
}

File File::open_read_write(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) io_failed("open", path);
  File file(descriptor, path);
  file.position_ = file.size();
  return file;
}

File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), position_(other.position_), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(position_, other.position_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::uint64_t File::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) io_failed("fstat", path_);
  return static_cast<std::uint64_t>(status.st_size);
}

std::int64_t File::modified_ns() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) io_failed("fstat", path_);
  return std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

void File::read_at(std::uint64_t offset, std::span<std::byte> bytes) const {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::pread(descriptor_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) io_failed("read", path_);
    if (got == 0) {
      throw DamagedDataError("{}: truncated: {} bytes wanted at offset {}, the file ends at {}", path_.string(), bytes.size(),
                             offset, offset + done);
    }
    done += static_cast<std::size_t>(got);
  }
}

void File::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::pwrite(descriptor_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) io_failed("write", path_);
    done += static_cast<std::size_t>(put);
  }
}

void File::append(std::span<const std::byte> bytes) {
  write_at(position_, bytes);
  position_ += bytes.size();
}

void File::truncate(std::uint64_t bytes) {
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0) io_failed("truncate", path_);
  position_ = bytes;
}

void File::allocate(std::uint64_t bytes) {
  if (bytes == 0) return;
  const int result = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
  if (result != 0 && result != EOPNOTSUPP && result != EINVAL) {
    errno = result;
    io_failed("allocate", path_);
  }
}

void File::drop_cache() const { ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED); }

void File::sync() {
  if (::fsync(descriptor_) != 0) io_failed("fsync", path_);
}

std::string read_file(const std::filesystem::path& path, std::uint64_t limit) {
  const File file = File::open_read(path);
  const std::uint64_t size = file.size();
  if (size > limit) throw UserError("{}: {} bytes; files of this kind have at most {}", path.string(), size, limit);
  std::string contents(size, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(contents)));
  return contents;
}

void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  const std::filesystem::path temporary = path.string() + ".tmp." + std::to_string(::getpid());
  {
    std::filesystem::remove(temporary);
    File file = File::create(temporary);
    file.append(std::as_bytes(std::span(contents)));
    file.sync();
  }
  std::error_code error;
  std::filesystem::rename(temporary, path, error);
  if (error) throw IoError("{}: rename to {} failed: {}", temporary.string(), path.string(), error.message());
  sync_directory(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

void sync_directory(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) io_failed("open directory", path);
  const int result = ::fsync(descriptor);
  ::close(descriptor);
  if (result != 0) io_failed("fsync directory", path);
}

}  // namespace hadal
