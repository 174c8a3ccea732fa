#include "interop/safetensors.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "core/error.h"

namespace hadal::interop {
namespace {

constexpr std::size_t kConvertBytes = 8 << 20;

std::filesystem::path temporary_name(const std::filesystem::path& path) {
  return path.string() + ".tmp." + std::to_string(::getpid());
}

/// A leftover of a process that died and had our id is replaced.
File create_fresh(const std::filesystem::path& path) {
  std::filesystem::remove(path);
  return File::create(path);
}

}  // namespace

SafetensorsReader::SafetensorsReader(File file, SafetensorsHeader header) : file_(std::move(file)), header_(std::move(header)) {
  for (std::size_t i = 0; i < header_.tensors.size(); ++i) index_.emplace(header_.tensors[i].name, i);
}

SafetensorsReader SafetensorsReader::open(const std::filesystem::path& path) {
  File file = File::open_read(path);
  const std::uint64_t file_bytes = file.size();
  if (file_bytes < 8) throw DamagedDataError("{}: not a valid safetensors file: {} bytes", path.string(), file_bytes);
  std::array<std::byte, 8> prefix{};
  file.read_at(0, prefix);
  std::uint64_t header_bytes = 0;
  for (std::size_t i = 8; i-- > 0;) header_bytes = (header_bytes << 8) | std::to_integer<std::uint64_t>(prefix[i]);
  if (header_bytes > kMaxSafetensorsHeader || header_bytes > file_bytes - 8) {
    throw DamagedDataError("{}: not a valid safetensors file: header of {} bytes in a file of {} (allowed: {})", path.string(),
                           header_bytes, file_bytes, kMaxSafetensorsHeader);
  }
  std::string json(header_bytes, '\0');
  file.read_at(8, std::as_writable_bytes(std::span(json)));
  SafetensorsHeader header = parse_safetensors_header(path, json, file_bytes);
  return {std::move(file), std::move(header)};
}

const SafetensorsInfo* SafetensorsReader::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

const SafetensorsInfo& SafetensorsReader::at(std::string_view name) const {
  const SafetensorsInfo* info = find(name);
  if (info == nullptr) throw UserError("{}: has no tensor \"{}\"", path().string(), name);
  return *info;
}

Tensor SafetensorsReader::read(std::string_view name) const {
  const SafetensorsInfo& info = at(name);
  const std::optional<DType> dtype = dtype_of(info.type);
  if (!dtype)
    throw UserError("{}: tensor {} has dtype {}, which Hadal does not compute with", path().string(), name, name_of(info.type));
  Tensor tensor = Tensor::empty(info.shape, *dtype);
  read_into(info, tensor);
  return tensor;
}

void SafetensorsReader::read_into(const SafetensorsInfo& info, View into) const {
  if (dtype_of(info.type) != into.dtype || !(info.shape == into.shape)) {
    throw UserError("{}: tensor {} is {} {}, {} {} is wanted", path().string(), info.name, name_of(info.type), info.shape.str(),
                    name_of(stored_type_of(into.dtype)), into.shape.str());
  }
  file_.read_at(info.begin, {static_cast<std::byte*>(into.data), into.bytes()});
}

void SafetensorsReader::read_as_float(const SafetensorsInfo& info, View into, std::int64_t first) const {
  HADAL_CHECK(first >= 0 && first <= info.shape.numel() && into.numel() <= info.shape.numel() - first,
              "{}: elements {} to {} of {}", info.name, first, first + into.numel(), info.shape.numel());
  const std::size_t element = size_of(info.type);
  const auto count = static_cast<std::size_t>(into.numel());
  const std::size_t step = kConvertBytes / element;
  std::vector<std::byte> bytes(std::min(count, step) * element);
  bool known = convert_to_float(info.type, {}, {into.data, into.dtype, Shape{0}, into.device});
  for (std::size_t begin = 0; begin < count && known; begin += step) {
    const std::size_t size = std::min(step, count - begin);
    file_.read_at(info.begin + (static_cast<std::size_t>(first) + begin) * element, std::span(bytes).first(size * element));
    const View part{static_cast<std::byte*>(into.data) + begin * size_of(into.dtype), into.dtype,
                    Shape{static_cast<std::int64_t>(size)}, into.device};
    known = convert_to_float(info.type, std::span(bytes).first(size * element), part);
  }
  if (!known) {
    throw UserError("{}: tensor {} has dtype {}, which is not converted to {}", path().string(), info.name, name_of(info.type),
                    hadal::name_of(into.dtype));
  }
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, const std::vector<Spec>& specs,
                                     std::map<std::string, std::string> metadata)
    : path_(std::move(path)), temporary_(temporary_name(path_)), file_(create_fresh(temporary_)) {
  std::vector<SafetensorsInfo> infos;
  for (const Spec& spec : specs) infos.push_back({spec.name, stored_type_of(spec.dtype), spec.shape, 0, 0});
  const std::string head = make_safetensors_header(infos, std::move(metadata));
  file_.write_at(0, std::as_bytes(std::span(head)));
  for (SafetensorsInfo& info : infos) {
    missing_.insert(info.name);
    infos_.emplace(info.name, std::move(info));
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (finished_) return;
  std::error_code ignored;
  std::filesystem::remove(temporary_, ignored);
}

void SafetensorsWriter::write(std::string_view name, ConstView tensor) {
  const auto found = infos_.find(name);
  HADAL_CHECK(found != infos_.end(), "tensor {} was not announced", name);
  const SafetensorsInfo& info = found->second;
  HADAL_CHECK(dtype_of(info.type) == tensor.dtype && info.shape == tensor.shape, "tensor {} is {} {}, announced {} {}", name,
              hadal::name_of(tensor.dtype), tensor.shape.str(), name_of(info.type), info.shape.str());
  file_.write_at(info.begin, {static_cast<const std::byte*>(tensor.data), tensor.bytes()});
  missing_.erase(info.name);
}

void SafetensorsWriter::finish() {
  HADAL_CHECK(missing_.empty(), "{} tensors were not written, {} among them", missing_.size(), *missing_.begin());
  file_.sync();
  std::error_code error;
  std::filesystem::rename(temporary_, path_, error);
  if (error) throw IoError("{}: rename to {} failed: {}", temporary_.string(), path_.string(), error.message());
  finished_ = true;
  sync_directory(path_.has_parent_path() ? path_.parent_path() : std::filesystem::path("."));
}

void write_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, ConstView>>& tensors,
                       std::map<std::string, std::string> metadata) {
  std::vector<SafetensorsWriter::Spec> specs;
  for (const auto& [name, view] : tensors) specs.push_back({name, view.dtype, view.shape});
  SafetensorsWriter writer(path, specs, std::move(metadata));
  for (const auto& [name, view] : tensors) writer.write(name, view);
  writer.finish();
}

}  // namespace hadal::interop
