// Files: whole reads, verified positional reads, and writes that are either complete or absent.
// Every system call of the checkpoint and data paths goes through here, so that faults can be injected in one place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace hadal {

/// An open file descriptor, closed on destruction.
class File {
 public:
  /// Read-only; UserError naming the path when it is missing or not a regular file.
  static File open_read(const std::filesystem::path& path);
  /// Created exclusively (O_EXCL), mode 0600.
  static File create(const std::filesystem::path& path);
  /// Created or opened for reading and writing, contents kept.
  static File open_read_write(const std::filesystem::path& path);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  std::uint64_t size() const;
  /// Time of the last change of the contents, nanoseconds since 1970.
  std::int64_t modified_ns() const;
  /// Reads exactly bytes.size() bytes at `offset`; DamagedDataError when the file ends before.
  void read_at(std::uint64_t offset, std::span<std::byte> bytes) const;
  /// Writes all of `bytes` at `offset`; IoError with errno text.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  /// Appends at the end of what this handle wrote so far.
  void append(std::span<const std::byte> bytes);
  void truncate(std::uint64_t bytes);
  /// Reserves room for `bytes` in all, so that a full disk shows before the first byte is written.
  void allocate(std::uint64_t bytes);
  /// Asks the system to forget cached pages of this (synced) file, so that a read-back comes from the disk.
  void drop_cache() const;
  /// fsync; a failure means the file is dead (spec/reliability.md, mechanism 1).
  void sync();
  const std::filesystem::path& path() const { return path_; }

 private:
  File(int descriptor, std::filesystem::path path) : descriptor_(descriptor), path_(std::move(path)) {}

  int descriptor_ = -1;
  std::uint64_t position_ = 0;
  std::filesystem::path path_;
};

/// Whole file as bytes; refuses files above `limit` bytes before allocating.
std::string read_file(const std::filesystem::path& path, std::uint64_t limit = std::uint64_t{1} << 30);
/// Temp file in the same directory, fsync, rename, fsync of the directory.
void write_file_atomically(const std::filesystem::path& path, std::string_view contents);
void sync_directory(const std::filesystem::path& path);

}  // namespace hadal
