#include "checkpoint/shard_image.h"

#include <hdf5.h>

#include <cstring>
#include <mutex>
#include <utility>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

constexpr hsize_t kAlignment = 4096;
/// Room for the library's own records.
constexpr std::size_t kMetadataBytes = 256 << 10;

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

/// Core driver without a backing file. The low format bound must be EARLIEST: images with V18 or LATEST could not be reopened.
/// The image grows by `growth` bytes at a time, which the library fills with zeros.
void set_core_driver(hid_t access, std::size_t growth) {
  check(H5Pset_fapl_core(access, growth, 0), "H5Pset_fapl_core");
  check(H5Pset_libver_bounds(access, H5F_LIBVER_EARLIEST, H5F_LIBVER_V18), "H5Pset_libver_bounds");
}

std::vector<std::byte> write_image(const std::vector<ShardPiece>& pieces, std::vector<std::uint64_t>& offsets) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate");
  std::size_t growth = kMetadataBytes;
  for (const ShardPiece& piece : pieces) growth += (piece.data.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  set_core_driver(access, growth);
  check(H5Pset_alignment(access, 1, kAlignment), "H5Pset_alignment");
  check(H5Pset_meta_block_size(access, 64 << 10), "H5Pset_meta_block_size");
  check(H5Pset_small_data_block_size(access, 0), "H5Pset_small_data_block_size");
  Handle file(H5Fcreate("shard", H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose, "H5Fcreate");
  const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose, "H5Pcreate");
  check(H5Pset_create_intermediate_group(links, 1), "H5Pset_create_intermediate_group");
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "H5Pcreate");
  check(H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY), "H5Pset_alloc_time");
  check(H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER), "H5Pset_fill_time");
  check(H5Pset_obj_track_times(layout, false), "H5Pset_obj_track_times");
  for (const ShardPiece& piece : pieces) {
    std::vector<hsize_t> extents;
    for (const std::int64_t extent : piece.data.shape.extents()) extents.push_back(static_cast<hsize_t>(extent));
    const Handle space(
        extents.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
        H5Sclose, "H5Screate_simple");
    const hid_t type = type_of(piece.data.dtype);
    Handle dataset(H5Dcreate2(file, piece.dataset.c_str(), type, space, links, layout, H5P_DEFAULT), H5Dclose, "H5Dcreate2");
    check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, piece.data.data), "H5Dwrite");
    const haddr_t offset = H5Dget_offset(dataset);
    if (offset == HADDR_UNDEF || offset % kAlignment != 0) failed("H5Dget_offset");
    offsets.push_back(offset);
    dataset.close("H5Dclose");
  }
  check(H5Fflush(file, H5F_SCOPE_GLOBAL), "H5Fflush");
  const ssize_t size = H5Fget_file_image(file, nullptr, 0);
  if (size <= 0) failed("H5Fget_file_image");
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  if (H5Fget_file_image(file, bytes.data(), bytes.size()) != size) failed("H5Fget_file_image");
  file.close("H5Fclose");
  return bytes;
}

/// Opens the image as a reader would and compares each dataset with its source, by HDF5 and by offset.
void compare_image(const std::vector<ShardPiece>& pieces, const ShardImage& image) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "H5Pcreate");
  set_core_driver(access, kMetadataBytes);
  // The library copies the image and does not write to it.
  check(H5Pset_file_image(access, const_cast<std::byte*>(image.bytes.data()), image.bytes.size()), "H5Pset_file_image");
  const Handle file(H5Fopen("shard", H5F_ACC_RDONLY, access), H5Fclose, "H5Fopen of the image");
  std::vector<std::byte> read;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const ConstView data = pieces[i].data;
    const Handle dataset(H5Dopen2(file, pieces[i].dataset.c_str(), H5P_DEFAULT), H5Dclose, "H5Dopen2");
    read.resize(data.bytes());
    check(H5Dread(dataset, type_of(data.dtype), H5S_ALL, H5S_ALL, H5P_DEFAULT, read.data()), "H5Dread");
    const bool inside = image.offsets[i] <= image.bytes.size() && data.bytes() <= image.bytes.size() - image.offsets[i];
    if (H5Dget_offset(dataset) != image.offsets[i] || !inside || std::memcmp(read.data(), data.data, data.bytes()) != 0 ||
        std::memcmp(image.bytes.data() + image.offsets[i], data.data, data.bytes()) != 0) {
      throw IoError("checkpoint shard image differs from memory at tensor {}", pieces[i].dataset);
    }
  }
}

}  // namespace

ShardImage build_shard_image(const std::vector<ShardPiece>& pieces) {
  // The serial library is not for several threads, and ranks may be threads of one process.
  static std::mutex library;
  const std::scoped_lock lock(library);
  const Quiet quiet;
  ShardImage image;
  image.bytes = write_image(pieces, image.offsets);
  compare_image(pieces, image);
  return image;
}

}  // namespace hadal::checkpoint
