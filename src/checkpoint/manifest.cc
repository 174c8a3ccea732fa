#include "checkpoint/manifest.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>
#include <utility>

#include "core/error.h"
#include "core/strict_json.h"

namespace hadal::checkpoint {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kFormat = "hadal-checkpoint";
constexpr std::int64_t kVersion = 1;
constexpr DType kDTypes[] = {DType::kF64, DType::kF32, DType::kBf16, DType::kF8E4M3, DType::kI64, DType::kI32, DType::kU8};

bool is_word(std::string_view word) {
  return !word.empty() && word.size() <= 255 && std::ranges::all_of(word, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

/// Reads one JSON object key by key; what is missing, of another type or left over is an error that names the place.
class Fields {
 public:
  Fields(const Json& object, std::string place) : object_(object), place_(std::move(place)) {
    if (!object.is_object()) fail("is no object");
  }
  ~Fields() = default;

  [[noreturn]] void fail(const std::string& reason) const { throw DamagedDataError("{}: {}", place_, reason); }

  const Json& at(const char* key, Json::value_t type) {
    const auto found = object_.find(key);
    if (found == object_.end()) fail(fmt::format("\"{}\" is missing", key));
    if (found->type() != type) fail(fmt::format("\"{}\" is of another type", key));
    ++used_;
    return *found;
  }
  const std::string& text(const char* key) { return at(key, Json::value_t::string).get_ref<const std::string&>(); }
  const Json& array(const char* key) { return at(key, Json::value_t::array); }
  std::int64_t count(const char* key) { return to_count(at(key, Json::value_t::number_unsigned), key); }
  std::vector<std::int64_t> counts(const char* key) {
    std::vector<std::int64_t> values;
    for (const Json& value : array(key)) {
      if (!value.is_number_unsigned() || values.size() >= static_cast<std::size_t>(Shape::kMaxRank))
        fail(fmt::format("\"{}\" is no shape", key));
      values.push_back(to_count(value, key));
    }
    return values;
  }
  Hash128 hash(const char* key) { return to_hash(text(key), key); }
  Hash128 to_hash(const std::string& hex, const char* key) const {
    Hash128 hash;
    if (hex.size() != 32 || !parse_hex(std::string_view(hex).substr(0, 16), hash.high) ||
        !parse_hex(std::string_view(hex).substr(16), hash.low) || hash.hex() != hex) {
      fail(fmt::format("\"{}\" holds no hash", key));
    }
    return hash;
  }
  /// Call last.
  void no_more() const {
    if (used_ != object_.size()) fail("has unknown keys");
  }

 private:
  static bool parse_hex(std::string_view hex, std::uint64_t& value) {
    const auto result = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
    return result.ec == std::errc() && result.ptr == hex.data() + hex.size();
  }
  std::int64_t to_count(const Json& value, const char* key) const {
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      fail(fmt::format("\"{}\" is too large", key));
    return static_cast<std::int64_t>(number);
  }

  const Json& object_;
  std::string place_;
  std::size_t used_ = 0;
};

StoredFile parse_file(const Json& json, const std::string& place) {
  Fields fields(json, place);
  StoredFile file;
  file.name = fields.text("name");
  if (!is_word(file.name) || file.name[0] == '.') fields.fail("file name is not allowed");
  file.bytes = static_cast<std::uint64_t>(fields.count("bytes"));
  file.hash = fields.hash("hash");
  const Json& blocks = fields.array("blocks");
  if (blocks.size() != file.bytes / kBlockBytes + (file.bytes % kBlockBytes != 0))
    fields.fail("number of block hashes does not fit the size");
  for (const Json& block : blocks) {
    if (!block.is_string()) fields.fail("block hash is no text");
    file.blocks.push_back(fields.to_hash(block.get_ref<const std::string&>(), "blocks"));
  }
  fields.no_more();
  return file;
}

Piece parse_piece(const Json& json, const Manifest& manifest, const StoredTensor& tensor, const std::string& place) {
  Fields fields(json, place);
  Piece piece;
  piece.file = fields.count("file");
  piece.offset = static_cast<std::uint64_t>(fields.count("offset"));
  piece.slice.begin = fields.counts("begin");
  piece.slice.extent = fields.counts("extent");
  fields.no_more();
  const auto rank = static_cast<std::size_t>(tensor.shape.rank());
  if (piece.slice.begin.size() != rank || piece.slice.extent.size() != rank)
    fields.fail("slice has another rank than its tensor");
  for (std::size_t dim = 0; dim < rank; ++dim) {
    const std::int64_t extent = tensor.shape[static_cast<int>(dim)];
    const std::int64_t begin = piece.slice.begin[dim], count = piece.slice.extent[dim];
    if (count < 1 || begin > extent || count > extent - begin) fields.fail("slice leaves its tensor");
  }
  if (piece.file >= static_cast<std::int64_t>(manifest.files.size())) fields.fail("no such file");
  const std::uint64_t bytes = static_cast<std::uint64_t>(piece.slice.numel()) * size_of(tensor.dtype);
  const std::uint64_t file_bytes = manifest.files[static_cast<std::size_t>(piece.file)].bytes;
  if (piece.offset > file_bytes || bytes > file_bytes - piece.offset) fields.fail("slice leaves its file");
  // So that no element lies in two blocks.
  if (piece.offset % size_of(tensor.dtype) != 0) fields.fail("slice is not aligned");
  return piece;
}

StoredTensor parse_tensor(const Json& json, const Manifest& manifest, const std::string& where) {
  Fields fields(json, where);
  StoredTensor tensor;
  tensor.name = fields.text("name");
  if (!is_stored_name(tensor.name)) fields.fail("tensor name is not allowed");
  const std::string place = fmt::format("{} {}", where, tensor.name);
  const std::string& dtype = fields.text("dtype");
  const auto* known = std::ranges::find(kDTypes, std::string_view(dtype), [](DType type) { return name_of(type); });
  if (known == std::end(kDTypes)) fields.fail("dtype is not known");
  tensor.dtype = *known;
  const std::vector<std::int64_t> extents = fields.counts("shape");
  std::int64_t bytes = static_cast<std::int64_t>(size_of(tensor.dtype));
  for (const std::int64_t extent : extents) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) fields.fail("shape overflows");
  }
  tensor.shape = Shape(std::span<const std::int64_t>(extents));
  tensor.hash = fields.hash("hash");
  const Json& pieces = fields.array("pieces");
  if (pieces.size() > kMaxPieces) fields.fail("too many pieces");
  fields.no_more();
  for (const Json& entry : pieces) tensor.pieces.push_back(parse_piece(entry, manifest, tensor, place));
  const std::string problem = tiling_problem(tensor);
  if (!problem.empty()) fields.fail(problem);
  return tensor;
}

State parse_state(const Json& json, const std::string& where) {
  State state;
  for (const auto& [key, value] : json.items()) {
    if (value.is_number_unsigned()) {
      state.set(key, value.get<std::uint64_t>());
    } else if (value.is_number_integer()) {
      state.set(key, value.get<std::int64_t>());
    } else if (value.is_number_float()) {
      state.set(key, value.get<double>());
    } else if (value.is_string()) {
      state.set(key, value.get<std::string>());
    } else {
      throw DamagedDataError("{}: state \"{}\" is neither number nor text", where, key);
    }
  }
  return state;
}

}  // namespace

std::string tiling_problem(const StoredTensor& tensor) {
  std::vector<const Slice*> slices;
  for (const Piece& piece : tensor.pieces) slices.push_back(&piece.slice);
  return tiling_problem(tensor.shape, slices);
}

bool is_stored_name(std::string_view name) {
  const std::size_t slash = name.find('/');
  if (slash == std::string_view::npos) return is_word(name);
  return is_word(name.substr(0, slash)) && is_word(name.substr(slash + 1));
}

std::string to_json(const Manifest& manifest) {
  nlohmann::ordered_json json;
  json["format"] = kFormat;
  json["version"] = kVersion;
  json["step"] = static_cast<std::uint64_t>(manifest.step);
  json["block_bytes"] = kBlockBytes;
  auto& files = json["files"] = nlohmann::ordered_json::array();
  for (const StoredFile& file : manifest.files) {
    std::vector<std::string> blocks;
    for (const Hash128& block : file.blocks) blocks.push_back(block.hex());
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"hash", file.hash.hex()}, {"blocks", blocks}});
  }
  auto& tensors = json["tensors"] = nlohmann::ordered_json::array();
  for (const StoredTensor& tensor : manifest.tensors) {
    auto pieces = nlohmann::ordered_json::array();
    for (const Piece& piece : tensor.pieces) {
      pieces.push_back(
          {{"file", piece.file}, {"offset", piece.offset}, {"begin", piece.slice.begin}, {"extent", piece.slice.extent}});
    }
    const auto extents = tensor.shape.extents();
    tensors.push_back({{"name", tensor.name},
                       {"dtype", name_of(tensor.dtype)},
                       {"shape", std::vector<std::int64_t>(extents.begin(), extents.end())},
                       {"hash", tensor.hash.hex()},
                       {"pieces", std::move(pieces)}});
  }
  auto& state = json["state"] = nlohmann::ordered_json::object();
  for (const auto& entry : manifest.state.values()) {
    std::visit([&](const auto& known) { state[entry.first] = known; }, entry.second);
  }
  return json.dump(1) + "\n";
}

Manifest parse_manifest(std::string_view text, const std::filesystem::path& path) {
  const std::string where = path.string();
  const Json json = parse_strict_json(text, where, ExitCode::kDamagedData);
  Fields fields(json, where);
  if (fields.text("format") != kFormat) fields.fail("is no Hadal checkpoint");
  if (fields.count("version") != kVersion)
    fields.fail(fmt::format("is of a version that this program does not know (it knows {})", kVersion));
  Manifest manifest;
  manifest.step = fields.count("step");
  if (static_cast<std::uint64_t>(fields.count("block_bytes")) != kBlockBytes) fields.fail("has another block size");
  std::set<std::string, std::less<>> names;
  for (const Json& entry : fields.array("files")) {
    manifest.files.push_back(parse_file(entry, fmt::format("{}: file {}", where, manifest.files.size())));
    if (!names.insert(manifest.files.back().name).second) fields.fail("names a file twice");
  }
  for (const Json& entry : fields.array("tensors")) {
    manifest.tensors.push_back(parse_tensor(entry, manifest, fmt::format("{}: tensor {}", where, manifest.tensors.size())));
    const std::size_t count = manifest.tensors.size();
    if (count > 1 && manifest.tensors[count - 2].name >= manifest.tensors[count - 1].name)
      fields.fail("tensors are not sorted by name");
  }
  manifest.state = parse_state(fields.at("state", Json::value_t::object), where);
  fields.no_more();
  return manifest;
}

std::string commit_text(std::string_view manifest) {
  const Hash128 hash = hash128(std::as_bytes(std::span(manifest)));
  return fmt::format("{} {}\n{} {} {}\n", kFormat, kVersion, kManifestName, manifest.size(), hash.hex());
}

StoredFile hash_file(std::string name, std::span<const std::span<const std::byte>> spans) {
  StoredFile file{std::move(name), 0, {}, {}};
  Hasher whole;
  Hasher block;
  for (std::span<const std::byte> rest : spans) {
    while (!rest.empty()) {
      const std::uint64_t in_block = file.bytes % kBlockBytes;
      const auto part = rest.first(std::min<std::size_t>(rest.size(), kBlockBytes - in_block));
      whole.update(part);
      block.update(part);
      file.bytes += part.size();
      rest = rest.subspan(part.size());
      if (file.bytes % kBlockBytes == 0) file.blocks.push_back(std::exchange(block, Hasher()).digest());
    }
  }
  if (file.bytes % kBlockBytes != 0) file.blocks.push_back(block.digest());
  file.hash = whole.digest();
  return file;
}

}  // namespace hadal::checkpoint
