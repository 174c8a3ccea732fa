// Megatron's pair of files: the bytes of spec/interop.md 8.1, both ways, and damage refused.
#include "data/megatron.h"

#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "core/rng.h"
#include "data/open_source.h"
#include "tests/support/temp_dir.h"

namespace hadal::data {
namespace {

using test::TempDir;

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return bytes;
}

const std::string kIndex = from_hex(
    "4d4d4944494458000001000000000000000802000000000000000300000000000000030000000200000000000000000000000600000000000000"
    "000000000000000001000000000000000200000000000000");
const std::string kTokens = from_hex("01000200030004000500");

void spill(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void write_two(const std::filesystem::path& prefix, std::uint64_t vocab_size) {
  MegatronWriter writer(prefix, vocab_size);
  writer.append(std::vector<std::int32_t>{1, 2, 3});
  writer.end_document();
  writer.append(std::vector<std::int32_t>{4, 5});
  writer.end_document();
  writer.finish();
}

TEST(Megatron, WritesThePublishedBytes) {
  ASSERT_EQ(kIndex.size(), 82u);
  const TempDir dir;
  write_two(dir / "a", 1000);
  EXPECT_EQ(read_file(dir / "a.idx"), kIndex);
  EXPECT_EQ(read_file(dir / "a.bin"), kTokens);
  EXPECT_FALSE(std::filesystem::exists(dir / "a.bin.part"));
}

TEST(Megatron, ReadsThePublishedBytes) {
  const TempDir dir;
  spill(dir / "a.idx", kIndex);
  spill(dir / "a.bin", kTokens);
  for (const char* name : {"a", "a.idx", "a.bin"}) {
    const auto source = open_token_source(dir / name);
    EXPECT_EQ(source->format(), "megatron");
    ASSERT_EQ(source->num_documents(), 2u);
    EXPECT_EQ(source->doc_ends()[0], 3u);
    std::vector<std::int32_t> tokens(5);
    source->read(0, tokens);
    EXPECT_EQ(tokens, (std::vector<std::int32_t>{1, 2, 3, 4, 5}));
  }
}

TEST(Megatron, LargeVocabulariesTakeFourBytes) {
  const TempDir dir;
  write_two(dir / "a", 65500);
  const MegatronSource source(dir / "a");
  EXPECT_EQ(source.dtype_name(), "i32");
  std::vector<std::int32_t> tokens(2);
  source.read(3, tokens);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{4, 5}));
}

TEST(Megatron, ContinuedAfterAKillHasTheSameBytes) {
  const TempDir dir;
  write_two(dir / "a", 1000);
  WrittenSoFar kept;
  {
    MegatronWriter writer(dir / "b", 1000);
    writer.append(std::vector<std::int32_t>{1, 2, 3});
    writer.end_document();
    writer.append(std::vector<std::int32_t>{4});
    writer.sync();
    kept = writer.written();
    writer.append(std::vector<std::int32_t>{9, 9, 9});
    writer.end_document();
    writer.sync();
  }
  MegatronWriter writer(dir / "b", 1000, kept);
  writer.append(std::vector<std::int32_t>{5});
  writer.end_document();
  writer.finish();
  EXPECT_EQ(read_file(dir / "a.idx"), read_file(dir / "b.idx"));
  EXPECT_EQ(read_file(dir / "a.bin"), read_file(dir / "b.bin"));
}

TEST(Megatron, TruncatedOrAlteredIndexIsRefusedOrHarmless) {
  const TempDir dir;
  spill(dir / "a.bin", kTokens);
  for (std::size_t size = 0; size < kIndex.size(); ++size) {
    spill(dir / "a.idx", kIndex.substr(0, size));
    EXPECT_THROW(MegatronSource(dir / "a"), Error) << size;
  }
  spill(dir / "a.idx", kIndex);
  File index = File::open_read_write(dir / "a.idx");
  for (std::size_t bit = 0; bit < kIndex.size() * 8; ++bit) {
    std::string bad = kIndex;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    index.write_at(0, std::as_bytes(std::span(bad)));
    try {
      const MegatronSource source(dir / "a");
      // Without hashes a few changes give another consistent index: another type of the same size, other documents.
      std::vector<std::int32_t> tokens(source.num_tokens());
      source.read(0, tokens);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(dir.path().string()), std::string::npos);
    }
  }
  index.write_at(0, std::as_bytes(std::span(kIndex)));
  spill(dir / "a.bin", kTokens.substr(0, 9));
  EXPECT_THROW(MegatronSource(dir / "a"), DamagedDataError);
}

}  // namespace
}  // namespace hadal::data
