#include "checkpoint/contribution.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

/// Numbers as they lie in memory (all ranks run the same program on the same kind of machine), text and lists after their length.
class Packer {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  template <class T>
  void list(std::span<const T> values) {
    put(static_cast<std::uint64_t>(values.size()));
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : rest_(bytes) {}

  template <class T>
  T get() {
    T value;
    std::memcpy(&value, next(sizeof(T)), sizeof(T));
    return value;
  }
  template <class Container>
  Container list() {
    Container values;
    values.resize(get<std::uint64_t>());
    const std::size_t bytes = values.size() * sizeof(*values.data());
    if (bytes > 0) std::memcpy(values.data(), next(bytes), bytes);
    return values;
  }
  bool done() const { return rest_.empty(); }

 private:
  const char* next(std::size_t bytes) {
    HADAL_CHECK(bytes <= rest_.size(), "{} bytes wanted, {} left", bytes, rest_.size());
    const char* at = rest_.data();
    rest_.remove_prefix(bytes);
    return at;
  }

  std::string_view rest_;
};

void add_tensor(const WrittenTensor& written, std::int64_t first_file, std::vector<WrittenTensor>& tensors) {
  const auto place = std::ranges::lower_bound(tensors, written.name, {}, &WrittenTensor::name);
  HADAL_CHECK(place != tensors.end() && place->name == written.name, "{} is not listed", written.name);
  HADAL_CHECK(place->dtype == written.dtype && place->shape == written.shape, "{}: {} {} on one rank, {} {} on another",
              written.name, name_of(place->dtype), place->shape.str(), name_of(written.dtype), written.shape.str());
  if (written.hash) place->hash = written.hash;
  for (Piece piece : written.pieces) {
    piece.file += first_file;
    place->pieces.push_back(std::move(piece));
  }
}

/// One entry for each name, without pieces.
std::vector<WrittenTensor> list_tensors(const std::vector<Contribution>& contributions) {
  std::vector<WrittenTensor> tensors;
  for (const Contribution& contribution : contributions) {
    for (const WrittenTensor& written : contribution.tensors)
      tensors.push_back({written.name, written.dtype, written.shape, std::nullopt, {}});
  }
  std::ranges::stable_sort(tensors, {}, &WrittenTensor::name);
  const auto same = [](const WrittenTensor& a, const WrittenTensor& b) { return a.name == b.name; };
  tensors.erase(std::unique(tensors.begin(), tensors.end(), same), tensors.end());
  return tensors;
}

}  // namespace

std::string to_bytes(const Contribution& contribution) {
  Packer packer;
  packer.put(static_cast<std::uint64_t>(contribution.files.size()));
  for (const StoredFile& file : contribution.files) {
    packer.list(std::span<const char>(file.name));
    packer.put(file.bytes);
    packer.put(file.hash);
    packer.list(std::span<const Hash128>(file.blocks));
  }
  packer.put(static_cast<std::uint64_t>(contribution.tensors.size()));
  for (const WrittenTensor& tensor : contribution.tensors) {
    packer.list(std::span<const char>(tensor.name));
    packer.put(tensor.dtype);
    packer.list(tensor.shape.extents());
    packer.put(tensor.hash.has_value());
    packer.put(tensor.hash.value_or(Hash128{}));
    packer.put(static_cast<std::uint64_t>(tensor.pieces.size()));
    for (const Piece& piece : tensor.pieces) {
      packer.put(piece.file);
      packer.put(piece.offset);
      packer.list(std::span<const std::int64_t>(piece.slice.begin));
      packer.list(std::span<const std::int64_t>(piece.slice.extent));
    }
  }
  return packer.take();
}

Contribution contribution_of(std::string_view bytes) {
  using Counts = std::vector<std::int64_t>;
  Unpacker from(bytes);
  Contribution contribution;
  contribution.files.resize(from.get<std::uint64_t>());
  for (StoredFile& file : contribution.files) {
    file.name = from.list<std::string>();
    file.bytes = from.get<std::uint64_t>();
    file.hash = from.get<Hash128>();
    file.blocks = from.list<std::vector<Hash128>>();
  }
  contribution.tensors.resize(from.get<std::uint64_t>());
  for (WrittenTensor& tensor : contribution.tensors) {
    tensor.name = from.list<std::string>();
    tensor.dtype = from.get<DType>();
    const auto extents = from.list<Counts>();
    tensor.shape = Shape(std::span<const std::int64_t>(extents));
    const bool hashed = from.get<bool>();
    const auto hash = from.get<Hash128>();
    if (hashed) tensor.hash = hash;
    tensor.pieces.resize(from.get<std::uint64_t>());
    for (Piece& piece : tensor.pieces) {
      piece.file = from.get<std::int64_t>();
      piece.offset = from.get<std::uint64_t>();
      piece.slice.begin = from.list<Counts>();
      piece.slice.extent = from.list<Counts>();
    }
  }
  HADAL_CHECK(from.done(), "a rank's description of its files has bytes left");
  return contribution;
}

Merged merge(const std::vector<Contribution>& contributions) {
  Merged merged;
  std::vector<WrittenTensor> tensors = list_tensors(contributions);
  for (const Contribution& contribution : contributions) {
    const auto first_file = static_cast<std::int64_t>(merged.manifest.files.size());
    for (const WrittenTensor& written : contribution.tensors) add_tensor(written, first_file, tensors);
    merged.manifest.files.insert(merged.manifest.files.end(), contribution.files.begin(), contribution.files.end());
  }
  for (WrittenTensor& tensor : tensors) {
    HADAL_CHECK(tensor.pieces.size() <= kMaxPieces, "{} lies in {} pieces; at most {} are possible", tensor.name,
                tensor.pieces.size(), kMaxPieces);
    if (!tensor.hash) merged.unhashed.push_back(merged.manifest.tensors.size());
    merged.manifest.tensors.push_back(
        {std::move(tensor.name), tensor.dtype, tensor.shape, tensor.hash.value_or(Hash128{}), std::move(tensor.pieces)});
    const std::string problem = tiling_problem(merged.manifest.tensors.back());
    HADAL_CHECK(problem.empty(), "{} {}: {}", merged.manifest.tensors.back().name, merged.manifest.tensors.back().shape.str(),
                problem);
  }
  return merged;
}

}  // namespace hadal::checkpoint
