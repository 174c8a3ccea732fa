#include "checkpoint/shard_image.h"

#include <hdf5.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

constexpr hsize_t kAlignment = 4096;

[[noreturn]] void failed(const char* call) { throw IoError("HDF5 {} failed while a checkpoint shard was built in memory", call); }

/// An HDF5 identifier and how it is closed.
class Handle {
 public:
  Handle(hid_t id, herr_t (*closer)(hid_t), const char* call) : id_(id), close_(closer) {
    if (id_ < 0) failed(call);
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }
  /// Closes now and reports failure, which a destructor cannot.
  void close(const char* call) {
    const hid_t id = std::exchange(id_, -1);
    if (close_(id) < 0) failed(call);
  }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

void check(herr_t result, const char* call) {
  if (result < 0) failed(call);
}

/// Turns the library's own printing off while it lives.
class Quiet {
 public:
  Quiet() {
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~Quiet() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

hid_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return H5T_IEEE_F64LE;
    case DType::kF32:
      return H5T_IEEE_F32LE;
    case DType::kBf16:
      return H5T_STD_U16LE;
    case DType::kI64:
      return H5T_STD_I64LE;
    case DType::kI32:
      return H5T_STD_I32LE;
    case DType::kF8E4M3:
    case DType::kU8:
      return H5T_STD_U8LE;
  }
  failed("type choice");
}

/// A file in memory: HDF5 writes its records there, and what it leaves out (the data) takes no room.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("checkpoint shard", MFD_CLOEXEC)) {
    if (descriptor_ < 0) fail("memfd_create");
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }
  std::uint64_t size() const {
    const off_t size = ::lseek(descriptor_, 0, SEEK_END);
    if (size < 0) fail("lseek");
    return static_cast<std::uint64_t>(size);
  }
  /// A file size limit must show here and not inside HDF5, which does not survive a failing write.
  void check_room(std::uint64_t bytes) {
    if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0 || ::ftruncate(descriptor_, 0) != 0) fail("truncate");
  }
  void read_at(std::uint64_t offset, std::span<std::byte> bytes) const {
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t got = ::pread(descriptor_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
      if (got <= 0) fail("read");
      done += static_cast<std::size_t>(got);
    }
  }

 private:
  [[noreturn]] static void fail(const char* call) {
    throw IoError("{} failed while a checkpoint shard was laid out in memory: {}", call, std::strerror(errno));
  }

  int descriptor_;
};

/// The driver over stdio: the default one resolves the path, which a file in memory does not survive.
hid_t access_list() {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  check(H5Pset_fapl_stdio(access), "H5Pset_fapl_stdio");
  check(H5Pset_libver_bounds(access, H5F_LIBVER_EARLIEST, H5F_LIBVER_V18), "H5Pset_libver_bounds");
  return access;
}

std::vector<hsize_t> extents_of(ConstView data) {
  const auto extents = data.shape.extents();
  return {extents.begin(), extents.end()};
}

/// All datasets without their data; returns their offsets.
std::vector<std::uint64_t> lay_out(const std::vector<ShardPiece>& pieces, const MemoryFile& memory) {
  const Handle access(access_list(), H5Pclose, "H5Pcreate");
  check(H5Pset_alignment(access, 1, kAlignment), "H5Pset_alignment");
  check(H5Pset_meta_block_size(access, 64 << 10), "H5Pset_meta_block_size");
  check(H5Pset_small_data_block_size(access, 0), "H5Pset_small_data_block_size");
  Handle file(H5Fcreate(memory.path().c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose, "H5Fcreate");
  const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose, "H5Pcreate");
  check(H5Pset_create_intermediate_group(links, 1), "H5Pset_create_intermediate_group");
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
  check(H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time");
  check(H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
  check(H5Pset_obj_track_times(layout, false), "H5Pset_obj_track_times");
  std::vector<std::uint64_t> offsets;
  for (const ShardPiece& piece : pieces) {
    const std::vector<hsize_t> extents = extents_of(piece.data);
    const Handle space(
        extents.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
        H5Sclose, "H5Screate_simple");
    Handle dataset(H5Dcreate2(file, piece.dataset.c_str(), type_of(piece.data.dtype), space, links, layout, H5P_DEFAULT),
                   H5Dclose, "H5Dcreate2");
    const haddr_t offset = H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF || offset % kAlignment != 0) failed("H5Dget_offset");
    offsets.push_back(offset);
    dataset.close("H5Dclose");
  }
  file.close("H5Fclose");
  return offsets;
}

/// Opens the file as a reader would and compares each dataset with its source.
void compare(const std::vector<ShardPiece>& pieces, const std::vector<std::uint64_t>& offsets, const MemoryFile& memory) {
  const Handle access(access_list(), H5Pclose, "H5Pcreate");
  const Handle file(H5Fopen(memory.path().c_str(), H5F_ACC_RDONLY, access), H5Fclose, "H5Fopen");
  const std::uint64_t size = memory.size();
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const ConstView data = pieces[i].data;
    const Handle dataset(H5Dopen2(file, pieces[i].dataset.c_str(), H5P_DEFAULT), H5Dclose, "H5Dopen2");
    const Handle type(H5Dget_type(dataset), H5Tclose, "H5Dget_type");
    const Handle space(H5Dget_space(dataset), H5Sclose, "H5Dget_space");
    std::vector<hsize_t> extents(static_cast<std::size_t>(std::max(0, H5Sget_simple_extent_ndims(space))));
    if (H5Sget_simple_extent_dims(space, extents.data(), nullptr) < 0) failed("H5Sget_simple_extent_dims");
    const bool inside = offsets[i] <= size && data.bytes() <= size - offsets[i];
    if (H5Dget_offset(dataset) != offsets[i] || !inside || H5Tequal(type, type_of(data.dtype)) <= 0 ||
        extents != extents_of(data)) {
      throw IoError("checkpoint shard in memory differs from what was laid out at tensor {}", pieces[i].dataset);
    }
  }
}

/// Data and records in the order of the file.
void interleave(const std::vector<ShardPiece>& pieces, const MemoryFile& memory, ShardImage& image) {
  std::vector<std::size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return image.offsets[i]; });
  std::uint64_t data_bytes = 0;
  for (const ShardPiece& piece : pieces) data_bytes += piece.data.bytes();
  image.bytes = memory.size();
  image.records.resize(image.bytes - data_bytes);
  std::uint64_t at = 0, in_records = 0;
  const auto add_records = [&](std::uint64_t end) {
    if (end < at || end - at > image.records.size() - in_records) throw IoError("checkpoint shard in memory: tensors overlap");
    const auto gap = std::span(image.records).subspan(in_records, end - at);
    if (gap.empty()) return;
    memory.read_at(at, gap);
    image.spans.push_back(gap);
    in_records += gap.size();
  };
  for (const std::size_t i : order) {
    add_records(image.offsets[i]);
    image.spans.emplace_back(static_cast<const std::byte*>(pieces[i].data.data), pieces[i].data.bytes());
    at = image.offsets[i] + pieces[i].data.bytes();
  }
  add_records(image.bytes);
}

}  // namespace

ShardImage build_shard_image(const std::vector<ShardPiece>& pieces) {
  // The serial library is not for several threads, and ranks may be threads of one process.
  static std::mutex library;
  const std::scoped_lock lock(library);
  const Quiet quiet;
  MemoryFile memory;
  std::uint64_t room = 0;
  for (const ShardPiece& piece : pieces) room += (piece.data.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  memory.check_room(room + (64 << 10));
  ShardImage image;
  image.offsets = lay_out(pieces, memory);
  compare(pieces, image.offsets, memory);
  interleave(pieces, memory, image);
  return image;
}

}  // namespace hadal::checkpoint
