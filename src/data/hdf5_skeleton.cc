#include "data/hdf5_skeleton.h"

#include <fmt/core.h>
#include <hdf5.h>

#include <utility>

#include "core/error.h"

namespace hadal::data {
namespace {

// All metadata of a token file fits one block of this size, reserved by the first allocation: so the datasets follow it.
constexpr hsize_t kMetadataBytes = 64 * 1024;

/// An HDF5 identifier, closed on destruction.
class Handle {
 public:
  Handle(hid_t id, herr_t (*closer)(hid_t), const std::filesystem::path& path, const char* call) : id_(id), close_(closer) {
    if (id < 0) throw IoError("{}: HDF5 {} failed (is the disk full or the folder not writable?)", path.string(), call);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }
  herr_t close() { return close_(std::exchange(id_, -1)); }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

void check(herr_t status, const std::filesystem::path& path, const char* call) {
  if (status < 0) throw IoError("{}: HDF5 {} failed (is the disk full or the folder not writable?)", path.string(), call);
}

hid_t unsigned_type(std::uint32_t bytes) {
  switch (bytes) {
    case 1:
      return H5T_STD_U8LE;
    case 2:
      return H5T_STD_U16LE;
    case 4:
      return H5T_STD_U32LE;
    default:
      HADAL_CHECK_EQ(bytes, 8u);
      return H5T_STD_U64LE;
  }
}

void write_attribute(hid_t object, const SkeletonAttribute& attribute, const std::filesystem::path& path) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose, path, "H5Screate");
  const auto put = [&](hid_t stored, hid_t given, const void* value) {
    const Handle id(H5Acreate2(object, attribute.name.c_str(), stored, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, path,
                    "H5Acreate2");
    check(H5Awrite(id, given, value), path, "H5Awrite");
  };
  std::visit(
      [&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::string>) {
          const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, path, "H5Tcopy");
          check(H5Tset_size(type, value.size() + 1), path, "H5Tset_size");
          check(H5Tset_cset(type, H5T_CSET_UTF8), path, "H5Tset_cset");
          put(type, type, value.c_str());
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          put(H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
        } else if constexpr (std::is_same_v<T, std::uint64_t>) {
          put(H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
        } else if constexpr (std::is_same_v<T, std::uint32_t>) {
          put(H5T_STD_U32LE, H5T_NATIVE_UINT32, &value);
        } else {
          put(H5T_STD_U8LE, H5T_NATIVE_UINT8, &value);
        }
      },
      attribute.value);
}

}  // namespace

void write_hdf5_skeleton(const std::filesystem::path& path, const std::vector<SkeletonAttribute>& attributes,
                         const std::vector<SkeletonDataset>& datasets) {
  // The library prints its own stack of errors otherwise; ours names the file and the call.
  check(H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr), path, "H5Eset_auto2");
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose, path, "H5Pcreate");
  check(H5Pset_userblock(creation, kUserBlockBytes), path, "H5Pset_userblock");
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, path, "H5Pcreate");
  check(H5Pset_meta_block_size(access, kMetadataBytes), path, "H5Pset_meta_block_size");
  check(H5Pset_small_data_block_size(access, 0), path, "H5Pset_small_data_block_size");
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), H5Fclose, path, "H5Fcreate");
  for (const SkeletonAttribute& attribute : attributes) write_attribute(file, attribute, path);

  for (const SkeletonDataset& dataset : datasets) {
    const hsize_t count = dataset.count;
    const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose, path, "H5Screate_simple");
    const Handle options(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, path, "H5Pcreate");
    check(H5Pset_layout(options, H5D_CONTIGUOUS), path, "H5Pset_layout");
    check(H5Pset_alloc_time(options, H5D_ALLOC_TIME_EARLY), path, "H5Pset_alloc_time");
    check(H5Pset_fill_time(options, H5D_FILL_TIME_NEVER), path, "H5Pset_fill_time");
    check(H5Pset_obj_track_times(options, false), path, "H5Pset_obj_track_times");
    Handle id(
        H5Dcreate2(file, dataset.name.c_str(), unsigned_type(dataset.element_bytes), space, H5P_DEFAULT, options, H5P_DEFAULT),
        H5Dclose, path, "H5Dcreate2");
    check(id.close(), path, "H5Dclose");
  }
  check(file.close(), path, "H5Fclose");
}

std::string hdf5_version() {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace hadal::data
