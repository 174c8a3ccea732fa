// datatrove and llm.c token files, byte by byte, and files that contradict themselves.
#include "data/flat_tokens.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "core/error.h"
#include "data/open_source.h"
#include "tests/support/temp_dir.h"

namespace hadal::data {
namespace {

using test::TempDir;

void spill(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

template <class T>
std::string packed(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::vector<std::int32_t> read_all(const TokenSource& source) {
  std::vector<std::int32_t> tokens(source.num_tokens());
  source.read(0, tokens);
  return tokens;
}

std::string llmc(std::int32_t magic, std::int32_t version, std::int32_t count, const std::string& tokens) {
  std::vector<std::int32_t> header(256);
  header[0] = magic;
  header[1] = version;
  header[2] = count;
  return packed(header) + tokens;
}

TEST(FlatTokens, Datatrove) {
  const TempDir dir;
  const auto path = dir / "a.ds";
  spill(path, packed<std::uint16_t>({1, 2, 3, 4, 65535}));
  spill(dir / "a.ds.index", packed<std::uint64_t>({3, 5}));
  auto source = open_token_source(path);
  EXPECT_EQ(source->format(), "datatrove");
  EXPECT_EQ(source->dtype_name(), "u16");
  EXPECT_EQ(source->num_documents(), 2u);
  EXPECT_EQ(source->document_length(1), 2u);
  EXPECT_EQ(read_all(*source), (std::vector<std::int32_t>{1, 2, 3, 4, 65535}));
  const Hash128 before = source->fingerprint();

  spill(path, packed<std::uint32_t>({1, 2, 3, 4, 70000}));
  spill(dir / "a.ds.metadata", "org/tokenizer|4\n5\n5 tokens\n");
  spill(dir / "a.ds.loss", std::string("\1\0\1\1\0", 5));
  source = open_token_source(path);
  EXPECT_EQ(read_all(*source), (std::vector<std::int32_t>{1, 2, 3, 4, 70000}));
  std::vector<std::uint8_t> mask(5);
  source->read_loss_mask(0, mask);
  EXPECT_EQ(mask, (std::vector<std::uint8_t>{1, 0, 1, 1, 0}));
  EXPECT_NE(source->fingerprint(), before);
}

TEST(FlatTokens, DatatroveThatContradictsItselfIsRefused) {
  const TempDir dir;
  const auto path = dir / "a.ds";
  spill(path, packed<std::uint16_t>({1, 2, 3, 4, 5}));
  EXPECT_THROW(open_token_source(path), UserError);  // no index
  for (const auto& ends : {std::vector<std::uint64_t>{3, 6}, {3, 2, 5}, {1}, {}}) {
    spill(dir / "a.ds.index", packed(ends));
    EXPECT_THROW(open_token_source(path), DamagedDataError);
  }
  spill(dir / "a.ds.index", packed<std::uint64_t>({5}));
  EXPECT_NO_THROW(open_token_source(path));
  spill(dir / "a.ds.loss", "1234");
  EXPECT_THROW(open_token_source(path), DamagedDataError);
  std::filesystem::remove(dir / "a.ds.loss");
  for (const char* metadata : {"tokenizer|4\n5\n", "tokenizer\n", "tokenizer|x\n", ""}) {
    spill(dir / "a.ds.metadata", metadata);
    EXPECT_THROW(open_token_source(path), DamagedDataError) << metadata;
  }
}

TEST(FlatTokens, Llmc) {
  const TempDir dir;
  spill(dir / "a.bin", llmc(20240520, 1, 3, packed<std::uint16_t>({50256, 2, 3})));
  spill(dir / "b.bin", llmc(20240801, 7, 2, packed<std::uint32_t>({128000, 2})));
  EXPECT_EQ(read_all(*open_token_source(dir / "a.bin")), (std::vector<std::int32_t>{50256, 2, 3}));
  EXPECT_EQ(read_all(*open_token_source(dir / "b.bin")), (std::vector<std::int32_t>{128000, 2}));
  EXPECT_EQ(open_token_source(dir / "b.bin")->format(), "llm.c");
  const std::string tokens = packed<std::uint16_t>({1, 2, 3});
  for (const std::string& bad : {llmc(20240520, 2, 3, tokens), llmc(20240520, 1, 4, tokens), llmc(20240520, 1, -1, tokens),
                                 llmc(20240801, 7, 3, tokens)}) {
    spill(dir / "a.bin", bad);
    EXPECT_THROW(open_token_source(dir / "a.bin"), DamagedDataError);
  }
  spill(dir / "a.bin", llmc(7, 1, 3, tokens));
  EXPECT_THROW(open_token_source(dir / "a.bin"), UserError);
  spill(dir / "a.bin", llmc(20240801, 7, 1, packed<std::uint32_t>({0x80000000u})));
  EXPECT_THROW(read_all(*open_token_source(dir / "a.bin")), DamagedDataError);
}

}  // namespace
}  // namespace hadal::data
