// Safetensors files (spec/interop.md 1): a strict reader and a canonical writer.
//
//   const auto file = SafetensorsReader::open("batches.safetensors");
//   Tensor tokens = file.read("tokens");
//   write_safetensors("logits.safetensors", {{"logits", logits}});
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/file.h"
#include "core/tensor.h"
#include "interop/safetensors_header.h"

namespace hadal::interop {

/// Read-only; the header is checked at opening, tensors are read by position when asked for.
class SafetensorsReader {
 public:
  /// UserError when the file is missing or no safetensors file, DamagedDataError when it breaks a rule of the format.
  static SafetensorsReader open(const std::filesystem::path& path);

  /// In file order.
  const std::vector<SafetensorsInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::filesystem::path& path() const { return file_.path(); }
  /// nullptr when there is none.
  const SafetensorsInfo* find(std::string_view name) const;
  /// UserError naming the file when there is none.
  const SafetensorsInfo& at(std::string_view name) const;

  /// The tensor in its stored type; UserError when Hadal has no such type.
  Tensor read(std::string_view name) const;
  /// Into memory of the stored type and shape; anything else is a UserError.
  void read_into(const SafetensorsInfo& info, View into) const;
  /// Explicit conversion of a float type to f32 or f64 (exact but for F64 to f32, which rounds), of the elements from `first` on
  /// (row-major) that `into` has room for.
  void read_as_float(const SafetensorsInfo& info, View into, std::int64_t first = 0) const;
  /// The stored bytes; `bytes` must have the tensor's size.
  void read_bytes(const SafetensorsInfo& info, std::span<std::byte> bytes) const { file_.read_at(info.begin, bytes); }

 private:
  SafetensorsReader(File file, SafetensorsHeader header);

  File file_;
  SafetensorsHeader header_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

/// Writes one file whose tensors are known beforehand and arrive in any order. The file appears under its name when it is
/// complete (temporary file, fsync, rename); without finish() nothing stays.
class SafetensorsWriter {
 public:
  struct Spec {
    std::string name;
    DType dtype;
    Shape shape;
  };

  SafetensorsWriter(std::filesystem::path path, const std::vector<Spec>& specs, std::map<std::string, std::string> metadata = {});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// Dtype and shape must be those announced.
  void write(std::string_view name, ConstView tensor);
  /// Every tensor must have been written.
  void finish();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::map<std::string, SafetensorsInfo, std::less<>> infos_;
  std::set<std::string, std::less<>> missing_;
  File file_;
  bool finished_ = false;
};

/// A whole small file at once.
void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, ConstView>>& tensors,
                       std::map<std::string, std::string> metadata = {});

}  // namespace hadal::interop
