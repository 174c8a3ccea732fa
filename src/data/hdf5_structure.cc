#include "data/hdf5_structure.h"

#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"

namespace hadal::data {
namespace {

// Generous for a handful of attributes and datasets; keep a hostile file from costing time or memory.
constexpr std::uint64_t kMaxBlockBytes = 1 << 20;
constexpr std::size_t kMaxBlocks = 256;
constexpr std::uint64_t kUndefined = ~std::uint64_t{0};

enum class Message : std::uint16_t {
  kNil = 0x0,
  kDataspace = 0x1,
  kDatatype = 0x3,
  kFillOld = 0x4,
  kFill = 0x5,
  kExternal = 0x7,
  kLayout = 0x8,
  kFilters = 0xB,
  kAttribute = 0xC,
  kComment = 0xD,
  kTimeOld = 0xE,
  kContinuation = 0x10,
  kSymbolTable = 0x11,
  kTime = 0x12,
};

/// A run of bytes out of the file, read front to back; never past its end.
class Block {
 public:
  Block(const File& file, std::uint64_t offset, std::uint64_t bytes, const char* what)
      : file_(&file), what_(what), offset_(offset) {
    const std::uint64_t size = file.size();
    if (offset > size || bytes > size - offset) fail("lies beyond the end of the file");
    if (bytes > kMaxBlockBytes) fail("is larger than any that a token file has");
    bytes_.resize(bytes);
    file.read_at(offset, std::as_writable_bytes(std::span(bytes_)));
  }

  [[noreturn]] void fail(std::string_view reason) const {
    throw DamagedDataError("{}: damaged or not a token file: {} at byte {} {}", file_->path().string(), what_, offset_, reason);
  }

  std::uint64_t left() const { return bytes_.size() - position_; }
  std::uint64_t position() const { return position_; }
  std::uint64_t file_offset() const { return offset_ + position_; }
  void skip(std::uint64_t count) { take(count); }
  void align8() { take((8 - position_ % 8) % 8); }

  template <class T>
  T get() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  std::string text(std::uint64_t count) { return std::string(reinterpret_cast<const char*>(take(count)), count); }
  std::string text_to_zero() {
    const auto* begin = reinterpret_cast<const char*>(bytes_.data() + position_);
    const void* end = left() == 0 ? nullptr : std::memchr(begin, 0, left());
    if (end == nullptr) fail("holds a name without an end");
    return text(static_cast<std::uint64_t>(static_cast<const char*>(end) - begin));
  }
  /// The next `count` bytes as a block of their own.
  Block part(std::uint64_t count, const char* what) {
    const unsigned char* begin = take(count);
    return Block(*file_, what, offset_ + position_ - count, {begin, begin + count});
  }
  void expect_magic(std::string_view magic) {
    if (text(magic.size()) != magic) fail("lacks its signature");
  }

 private:
  Block(const File& file, const char* what, std::uint64_t offset, std::vector<unsigned char> bytes)
      : file_(&file), what_(what), offset_(offset), bytes_(std::move(bytes)) {}

  const unsigned char* take(std::uint64_t count) {
    if (count > left()) fail("ends too early");
    const unsigned char* at = bytes_.data() + position_;
    position_ += count;
    return at;
  }

  const File* file_;
  const char* what_;
  std::uint64_t offset_;
  std::uint64_t position_ = 0;
  std::vector<unsigned char> bytes_;
};

struct Datatype {
  bool is_string = false;
  bool is_signed = false;
  std::uint32_t bytes = 0;
};

Datatype read_datatype(Block& block) {
  const auto class_and_version = block.get<std::uint8_t>();
  const auto flags = block.get<std::uint8_t>();
  block.skip(2);
  Datatype type;
  type.bytes = block.get<std::uint32_t>();
  switch (class_and_version & 0xf) {
    case 0: {  // fixed-point
      const auto bit_offset = block.get<std::uint16_t>();
      const auto precision = block.get<std::uint16_t>();
      const bool whole = type.bytes == 1 || type.bytes == 2 || type.bytes == 4 || type.bytes == 8;
      if (!whole || bit_offset != 0 || precision != type.bytes * 8) block.fail("is not a plain integer type");
      if ((flags & 1) != 0) block.fail("is big-endian");
      type.is_signed = (flags & 8) != 0;
      return type;
    }
    case 3:  // fixed-size string
      type.is_string = true;
      return type;
    default:
      block.fail("is neither an integer nor a fixed-size string");
  }
}

/// Number of dims, at most 1, and the count of elements.
std::pair<int, std::uint64_t> read_dataspace(Block& block) {
  const auto version = block.get<std::uint8_t>();
  const auto rank = block.get<std::uint8_t>();
  const auto flags = block.get<std::uint8_t>();
  if (version != 1 && version != 2) block.fail("has an unknown version");
  if (rank > 1) block.fail("has more than one dim");
  const auto kind = block.get<std::uint8_t>();  // version 2: 0 scalar, 1 simple, 2 null; version 1: reserved
  if (version == 2 && kind != rank) block.fail("has an unknown kind");
  if (version == 1) block.skip(4);
  const std::uint64_t count = rank == 0 ? 1 : block.get<std::uint64_t>();
  if (rank == 1 && (flags & 1) != 0 && block.get<std::uint64_t>() != count) block.fail("is extensible");
  return {rank, count};
}

class Parser {
 public:
  Parser(const File& file, std::uint64_t superblock_offset) : file_(file), superblock_offset_(superblock_offset) {}

  Hdf5Structure parse() {
    Block super = at(superblock_offset_, 96, "superblock");
    super.expect_magic(kHdf5Signature);
    const auto version = super.get<std::uint8_t>();
    if (version > 1) super.fail("has a version above 1 (write the file with HDF5's default, earliest format)");
    super.skip(4);
    if (super.get<std::uint16_t>() != 0x0808) super.fail("has offsets or lengths that are not 8 bytes");
    super.skip(9);
    if (version == 1) super.skip(4);
    base_ = super.get<std::uint64_t>();
    if (base_ != superblock_offset_) super.fail("has a base address that is not its place");
    super.skip(8);
    const auto end = super.get<std::uint64_t>();
    if (end != file_.size()) super.fail(fmt::format("says that the file has {} bytes, but it has {}", end, file_.size()));
    super.skip(16);
    const std::uint64_t root = super.get<std::uint64_t>();

    read_object(root, "root group", [&](Message type, Block& block) {
      if (type == Message::kAttribute) {
        read_attribute(block);
      } else if (type == Message::kSymbolTable) {
        const auto tree = block.get<std::uint64_t>();
        const auto heap = block.get<std::uint64_t>();
        read_group(tree, heap);
      } else {
        block.fail("is of a kind that no token file has in its root group");
      }
    });
    return std::move(structure_);
  }

 private:
  Block at(std::uint64_t offset, std::uint64_t bytes, const char* what) {
    if (++num_blocks_ > kMaxBlocks)
      throw DamagedDataError("{}: damaged or not a token file: too many parts", file_.path().string());
    return Block(file_, offset, bytes, what);
  }

  /// Absolute place of an address; an absurd one stays beyond the end of the file.
  std::uint64_t place(std::uint64_t address) const { return address > kUndefined - base_ ? kUndefined : address + base_; }

  /// Calls visit(type, body) for every message of the object header at `address`, fill values, times and comments aside.
  template <class Visit>
  void read_object(std::uint64_t address, const char* what, Visit&& visit) {
    Block prefix = at(place(address), 16, what);
    if (prefix.get<std::uint8_t>() != 1) prefix.fail("has an object header of an unknown version");
    prefix.skip(1);
    std::uint64_t messages_left = prefix.get<std::uint16_t>();
    prefix.skip(4);
    const auto bytes = prefix.get<std::uint32_t>();

    std::vector<std::pair<std::uint64_t, std::uint64_t>> runs{{place(address) + 16, bytes}};
    for (std::size_t run = 0; run < runs.size(); ++run) {
      Block block = at(runs[run].first, runs[run].second, what);
      while (block.left() >= 8 && messages_left > 0) {
        --messages_left;
        const auto type = static_cast<Message>(block.get<std::uint16_t>());
        const auto size = block.get<std::uint16_t>();
        const auto flags = block.get<std::uint8_t>();
        block.skip(3);
        Block body = block.part(size, "header message");
        switch (type) {
          case Message::kNil:
          case Message::kFillOld:
          case Message::kFill:
          case Message::kComment:
          case Message::kTimeOld:
          case Message::kTime:
            break;
          case Message::kContinuation: {
            const auto next = body.get<std::uint64_t>();
            const auto length = body.get<std::uint64_t>();
            runs.emplace_back(place(next), length);
            break;
          }
          default:
            if ((flags & 2) != 0) body.fail("is shared");
            visit(type, body);
        }
      }
    }
    if (messages_left > 0) prefix.fail("has fewer messages than it says");
  }

  void read_attribute(Block& block) {
    const auto version = block.get<std::uint8_t>();
    const auto flags = block.get<std::uint8_t>();
    if (version < 1 || version > 3) block.fail("is an attribute of an unknown version");
    if (version > 1 && flags != 0) block.fail("has a shared type");
    const auto name_bytes = block.get<std::uint16_t>();
    const auto type_bytes = block.get<std::uint16_t>();
    const auto space_bytes = block.get<std::uint16_t>();
    if (version == 3) block.skip(1);
    const auto padded = [&] {
      if (version == 1) block.align8();
    };
    std::string name = block.text(name_bytes);
    name.resize(name.find('\0') == std::string::npos ? name.size() : name.find('\0'));
    padded();
    Block type_block = block.part(type_bytes, "attribute type");
    padded();
    Block space_block = block.part(space_bytes, "attribute space");
    padded();
    const Datatype type = read_datatype(type_block);
    const auto [rank, count] = read_dataspace(space_block);
    if (rank != 0) block.fail("is an attribute that is not a scalar");

    Hdf5Attribute attribute;
    attribute.offset = block.file_offset();
    attribute.bytes = type.bytes;
    if (type.is_string) {
      std::string value = block.text(type.bytes);
      value.resize(value.find('\0') == std::string::npos ? value.size() : value.find('\0'));
      attribute.value = std::move(value);
    } else {
      Block number = block.part(type.bytes, "attribute value");
      std::uint64_t value = 0;
      for (std::uint32_t i = 0; i < type.bytes; ++i) value |= std::uint64_t{number.get<std::uint8_t>()} << (8 * i);
      if (type.is_signed) {
        const unsigned shift = 64 - 8 * type.bytes;
        attribute.value = static_cast<std::int64_t>(value << shift) >> shift;
      } else {
        attribute.value = value;
      }
    }
    if (!structure_.attributes.emplace(std::move(name), std::move(attribute)).second) block.fail("repeats an attribute");
  }

  void read_group(std::uint64_t tree_address, std::uint64_t heap_address) {
    Block heap = at(place(heap_address), 32, "name heap");
    heap.expect_magic("HEAP");
    heap.skip(4);
    const auto names_bytes = heap.get<std::uint64_t>();
    heap.skip(8);
    const std::uint64_t names_place = place(heap.get<std::uint64_t>());

    Block tree = at(place(tree_address), 24, "group index");
    tree.expect_magic("TREE");
    if (tree.get<std::uint16_t>() != 0) tree.fail("is not one leaf (the file has too many objects for a token file)");
    const auto num_nodes = tree.get<std::uint16_t>();
    Block entries = at(place(tree_address) + 24, std::uint64_t{16} * num_nodes, "group index");
    for (int node = 0; node < num_nodes; ++node) {
      entries.skip(8);
      const std::uint64_t node_place = place(entries.get<std::uint64_t>());
      Block head = at(node_place, 8, "group node");
      head.expect_magic("SNOD");
      head.skip(2);
      const auto num_symbols = head.get<std::uint16_t>();
      Block symbols = at(node_place + 8, std::uint64_t{40} * num_symbols, "group node");
      for (int symbol = 0; symbol < num_symbols; ++symbol) {
        const auto name_offset = symbols.get<std::uint64_t>();
        const auto object = symbols.get<std::uint64_t>();
        if (symbols.get<std::uint32_t>() > 1) symbols.fail("holds a link that is not a plain one");
        symbols.skip(20);
        Block names = at(names_place, names_bytes, "name heap");
        names.skip(name_offset);
        read_dataset(names.text_to_zero(), object);
      }
    }
  }

  void read_dataset(const std::string& name, std::uint64_t address) {
    Hdf5Dataset dataset;
    bool has_space = false;
    bool has_type = false;
    std::uint64_t storage_address = kUndefined;
    std::uint64_t storage_bytes = kUndefined;
    read_object(address, "dataset", [&](Message type, Block& block) {
      switch (type) {
        case Message::kDataspace:
          if (has_space) block.fail("repeats the dataspace");
          has_space = true;
          if (const auto [rank, count] = read_dataspace(block); rank == 1) {
            dataset.count = count;
          } else {
            block.fail("is not 1-D");
          }
          break;
        case Message::kDatatype: {
          if (has_type) block.fail("repeats the type");
          has_type = true;
          const Datatype element = read_datatype(block);
          if (element.is_string || element.is_signed) block.fail("is not an unsigned integer type");
          dataset.element_bytes = element.bytes;
          break;
        }
        case Message::kLayout: {
          const auto version = block.get<std::uint8_t>();
          const auto layout = block.get<std::uint8_t>();
          if (version != 3 && version != 4) block.fail("is a layout of an unknown version");
          if (layout != 1) block.fail("is not a contiguous layout (write without chunks and filters)");
          storage_address = block.get<std::uint64_t>();
          storage_bytes = block.get<std::uint64_t>();
          break;
        }
        case Message::kAttribute:
          break;
        case Message::kFilters:
          block.fail("applies filters");
        case Message::kExternal:
          block.fail("points to another file");
        default:
          block.fail("is of a kind that no token file has");
      }
    });
    const auto refuse = [&](std::string_view reason) {
      throw DamagedDataError("{}: damaged or not a token file: dataset /{} {}", file_.path().string(), name, reason);
    };
    if (!has_space || !has_type || storage_bytes == kUndefined) refuse("lacks its space, type or layout");
    const std::uint64_t size = file_.size();
    if (dataset.count > size / dataset.element_bytes) refuse("has more elements than the file has room for");
    if (dataset.count > 0) {
      dataset.offset = place(storage_address);
      if (storage_bytes < dataset.bytes()) refuse("has less storage than elements");
      if (dataset.offset > size || dataset.bytes() > size - dataset.offset) refuse("lies beyond the end of the file (truncated)");
    }
    if (!structure_.datasets.emplace(name, dataset).second) refuse("appears twice");
  }

  const File& file_;
  std::uint64_t superblock_offset_;
  std::uint64_t base_ = 0;
  std::size_t num_blocks_ = 0;
  Hdf5Structure structure_;
};

}  // namespace

Hdf5Structure read_hdf5_structure(const File& file, std::uint64_t superblock_offset) {
  return Parser(file, superblock_offset).parse();
}

}  // namespace hadal::data
