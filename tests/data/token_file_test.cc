// The native token file: what is written is read, in bits that other HDF5 software understands, and any damage is refused.
#include "data/token_file.h"

#include <gtest/gtest.h>
#include <hdf5.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "core/rng.h"
#include "data/token_file_writer.h"
#include "tests/support/temp_dir.h"

namespace hadal::data {
namespace {

using test::TempDir;

TokenFileInfo small_info(std::uint64_t vocab_size = 1000) {
  TokenFileInfo info;
  info.tokenizer_hash = "00112233445566778899aabbccddeeff";
  info.tokenizer_name = "test";
  info.vocab_size = vocab_size;
  info.eos_token_id = 0;
  info.token_bytes = token_bytes_for(vocab_size);
  info.created_utc = "2026-01-31T12:00:00Z";
  info.source = R"({"inputs":["a.txt"]})";
  return info;
}

std::vector<std::int32_t> random_tokens(std::size_t count, std::uint64_t vocab_size, std::uint64_t stream = 0) {
  const Random random(7, RandomPurpose::kSynthetic, stream);
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = static_cast<std::int32_t>(random.below(i, vocab_size));
  return tokens;
}

std::vector<std::int32_t> read_all(const TokenSource& source) {
  std::vector<std::int32_t> tokens(source.num_tokens());
  source.read(0, tokens);
  return tokens;
}

void write_small(const std::filesystem::path& path, std::span<const std::int32_t> tokens, std::uint64_t vocab_size = 1000) {
  TokenFileWriter writer(path, small_info(vocab_size));
  const std::size_t half = tokens.size() / 2;
  writer.append(tokens.first(half));
  writer.end_document();
  writer.append(tokens.subspan(half));
  writer.end_document();
  writer.finish();
}

std::string slurp(const std::filesystem::path& path) { return read_file(path); }

void spill(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TEST(TokenFile, ReadsWhatWasWritten) {
  const TempDir dir;
  for (const std::uint64_t vocab : {1000u, 70000u}) {
    const auto path = dir / ("tokens" + std::to_string(vocab) + ".h5");
    const auto tokens = random_tokens(5000, vocab);
    write_small(path, tokens, vocab);
    const TokenFile file(path);
    EXPECT_EQ(file.num_tokens(), tokens.size());
    EXPECT_EQ(file.num_documents(), 2u);
    EXPECT_EQ(file.doc_ends()[0], 2500u);
    EXPECT_EQ(file.vocab_size(), vocab);
    EXPECT_EQ(file.eos_token_id(), 0);
    EXPECT_EQ(file.dtype_name(), vocab > 65536 ? "u32" : "u16");
    EXPECT_EQ(file.tokenizer_hash(), "00112233445566778899aabbccddeeff");
    EXPECT_EQ(file.info().source, R"({"inputs":["a.txt"]})");
    EXPECT_EQ(read_all(file), tokens);
    std::vector<std::int32_t> middle(7);
    file.read(2497, middle);
    EXPECT_TRUE(std::equal(middle.begin(), middle.end(), tokens.begin() + 2497));
    EXPECT_FALSE(std::filesystem::exists(path.string() + ".part"));
  }
}

TEST(TokenFile, TheHdf5LibraryReadsTheSame) {
  const TempDir dir;
  const auto path = dir / "a.h5";
  const auto tokens = random_tokens(5000, 1000);
  write_small(path, tokens);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const hid_t dataset = H5Dopen2(file, "/tokens", H5P_DEFAULT);
  std::vector<std::int32_t> got(tokens.size());
  EXPECT_GE(H5Dread(dataset, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, got.data()), 0);
  EXPECT_EQ(got, tokens);
  const hid_t ends = H5Dopen2(file, "/doc_ends", H5P_DEFAULT);
  std::array<std::uint64_t, 2> doc_ends{};
  EXPECT_GE(H5Dread(ends, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, doc_ends.data()), 0);
  EXPECT_EQ(doc_ends, (std::array<std::uint64_t, 2>{2500, 5000}));
  const hid_t attribute = H5Aopen(file, "vocab_size", H5P_DEFAULT);
  std::uint64_t vocab_size = 0;
  EXPECT_GE(H5Aread(attribute, H5T_NATIVE_UINT64, &vocab_size), 0);
  EXPECT_EQ(vocab_size, 1000u);
  H5Aclose(attribute);
  H5Dclose(ends);
  H5Dclose(dataset);
  H5Fclose(file);
}

TEST(TokenFile, SpansBlocksAndThreads) {
  const TempDir dir;
  const auto path = dir / "large.h5";
  const auto tokens = random_tokens(5'000'000, 60000);  // 10 MB: three blocks
  write_small(path, tokens, 60000);
  const TokenFile file(path);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::int32_t> out(3000);
      for (std::size_t begin = static_cast<std::size_t>(t) * 700; begin + out.size() < tokens.size(); begin += 90001) {
        file.read(begin, out);
        if (!std::equal(out.begin(), out.end(), tokens.begin() + static_cast<std::ptrdiff_t>(begin))) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(TokenFile, KeepsALossMask) {
  const TempDir dir;
  const auto path = dir / "mask.h5";
  const auto tokens = random_tokens(300, 1000);
  std::vector<std::uint8_t> mask(300);
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = i % 3 == 0;
  TokenFileWriter writer(path, small_info(), true);
  writer.append(tokens, mask);
  writer.append(std::span(tokens).first(5));
  writer.end_document();
  writer.finish();
  const TokenFile file(path);
  ASSERT_TRUE(file.has_loss_mask());
  std::vector<std::uint8_t> got(305);
  file.read_loss_mask(0, got);
  mask.insert(mask.end(), 5, 1);
  EXPECT_EQ(got, mask);
}

TEST(TokenFile, SameInputSameBytes) {
  const TempDir dir;
  const auto tokens = random_tokens(5000, 1000);
  write_small(dir / "a.h5", tokens);
  write_small(dir / "b.h5", tokens);
  EXPECT_EQ(slurp(dir / "a.h5"), slurp(dir / "b.h5"));
}

TEST(TokenFile, ContinuedAfterAKillHasTheSameBytes) {
  const TempDir dir;
  const auto tokens = random_tokens(3'000'000, 1000);
  const std::span<const std::int32_t> all(tokens);
  const auto write_from = [&](TokenFileWriter& writer, std::size_t begin, std::size_t end) {
    for (std::size_t at = begin; at < end; at += 1000) {
      writer.append(all.subspan(at, 1000));
      if (at % 5000 == 4000) writer.end_document();
    }
  };
  {
    TokenFileWriter writer(dir / "whole.h5", small_info());
    write_from(writer, 0, tokens.size());
    writer.finish();
  }
  WrittenSoFar kept;
  {
    TokenFileWriter writer(dir / "torn.h5", small_info());
    write_from(writer, 0, 2'203'000);
    writer.sync();
    kept = writer.written();
    write_from(writer, 2'203'000, 2'800'000);  // lost with the process
  }
  {
    TokenFileWriter writer(dir / "torn.h5", small_info(), false, kept);
    write_from(writer, 2'203'000, tokens.size());
    writer.finish();
  }
  EXPECT_EQ(slurp(dir / "whole.h5"), slurp(dir / "torn.h5"));
}

TEST(TokenFile, UnfinishedFileIsRefused) {
  const TempDir dir;
  TokenFileWriter writer(dir / "a.h5", small_info());
  writer.append(random_tokens(100, 1000));
  writer.end_document();
  writer.sync();
  EXPECT_THROW(TokenFile(dir / "a.h5"), UserError);
  EXPECT_THROW(TokenFile(dir / "a.h5.part"), Error);
}

/// Opens and reads everything; "" when all is well, else the message of the refusal.
std::string refusal(const std::filesystem::path& path) {
  try {
    const TokenFile file(path);
    read_all(file);
    file.verify_all();
    return "";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_TRUE(error.code() == ExitCode::kDamagedData || error.code() == ExitCode::kBadInput) << what;
    EXPECT_NE(what.find(path.string()), std::string::npos) << what;
    return what;
  }
}

TEST(TokenFile, EveryTruncationIsRefused) {
  const TempDir dir;
  write_small(dir / "good.h5", random_tokens(60, 1000));
  const std::string bytes = slurp(dir / "good.h5");
  const auto path = dir / "bad.h5";
  spill(path, bytes);
  ASSERT_EQ(refusal(path), "");
  for (std::size_t size = bytes.size(); size-- > 0;) {
    // Every length near the ends of the metadata and the file; a prime stride through the long zero gap between.
    if (size > 4096 && size + 2048 < bytes.size() && size % 31 != 0) continue;
    std::filesystem::resize_file(path, size);
    ASSERT_NE(refusal(path), "") << size;
  }
}

TEST(TokenFile, EveryFlippedBitIsRefused) {
  const TempDir dir;
  write_small(dir / "good.h5", random_tokens(60, 1000));
  std::string bytes = slurp(dir / "good.h5");
  const auto path = dir / "bad.h5";
  spill(path, bytes);
  File file = File::open_read_write(path);
  const Random random(3, RandomPurpose::kSynthetic);
  int tried = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] == 0 && i > 512 && i % 13 != 0) continue;
    const char flipped = static_cast<char>(bytes[i] ^ (1 << random.below(i, 8)));
    file.write_at(i, std::as_bytes(std::span(&flipped, 1)));
    ASSERT_NE(refusal(path), "") << "byte " << i;
    file.write_at(i, std::as_bytes(std::span(&bytes[i], 1)));
    ++tried;
  }
  EXPECT_GT(tried, 2000);
  EXPECT_EQ(refusal(path), "");
}

// Without the hash over the metadata in front, the parser itself must stand against any bytes.
TEST(TokenFile, DamagedStructureNeverCrashes) {
  const TempDir dir;
  write_small(dir / "good.h5", random_tokens(60, 1000));
  const std::string bytes = slurp(dir / "good.h5");
  const auto path = dir / "bad.h5";
  const Random random(4, RandomPurpose::kSynthetic);
  int refused = 0;
  spill(path, bytes);
  File file = File::open_read_write(path);
  const auto good = std::as_bytes(std::span(bytes)).subspan(512, 4096);
  for (std::uint64_t trial = 0; trial < 3000; ++trial) {
    file.write_at(512, good);
    const std::uint64_t count = 1 + random.below(100 * trial, 4);
    for (std::uint64_t i = 0; i < count; ++i) {
      // Where the structures lie.
      const auto value = static_cast<std::byte>(random.bits(100 * trial + 2 * i + 2));
      file.write_at(512 + random.below(100 * trial + 2 * i + 1, good.size()), std::span(&value, 1));
    }
    try {
      read_hdf5_structure(file, kUserBlockBytes);
    } catch (const DamagedDataError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 300);
}

// Another vocabulary under sound hashes: what wrong software would write.
TEST(TokenFile, IdsBeyondTheVocabularyAreRefusedWithTheirPosition) {
  const TempDir dir;
  const auto path = dir / "ids.h5";
  std::vector<std::int32_t> tokens(100, 5);
  tokens[42] = 999;
  write_small(path, tokens, 1000);
  {
    File file = File::open_read_write(path);
    const std::uint64_t vocab_size = 999;
    file.write_at(read_hdf5_structure(file, kUserBlockBytes).attributes.at("vocab_size").offset,
                  std::as_bytes(std::span(&vocab_size, 1)));
    const Hdf5Structure structure = read_hdf5_structure(file, kUserBlockBytes);
    Hasher hasher;
    hash_attributes(hasher, structure.attributes);
    for (const char* name : {"doc_ends", "block_hash"}) {
      const Hdf5Dataset& dataset = structure.datasets.at(name);
      std::vector<std::byte> bytes(dataset.bytes());
      file.read_at(dataset.offset, bytes);
      hasher.update(bytes);
    }
    const std::string head_hash = hasher.digest().hex();
    file.write_at(structure.attributes.at("head_hash").offset, std::as_bytes(std::span(head_hash)));
    const std::uint64_t metadata_end = structure.datasets.at("tokens").offset;
    std::vector<std::byte> metadata(metadata_end - kUserBlockBytes);
    file.read_at(kUserBlockBytes, metadata);
    file.write_at(0, make_user_block(metadata_end, file.size(), hash128(metadata)));
  }
  const std::string what = refusal(path);
  EXPECT_NE(what.find("token 42 is 999"), std::string::npos) << what;
}

TEST(TokenFile, RewrittenDuringARunIsRefused) {
  const TempDir dir;
  const auto path = dir / "a.h5";
  write_small(path, random_tokens(1000, 1000));
  const TokenFile file(path);
  std::vector<std::int32_t> out(10);
  file.read(500, out);
  const auto offset = read_hdf5_structure(File::open_read(path), kUserBlockBytes).datasets.at("tokens").offset;
  // Valid ids, other ones.
  const std::vector<std::byte> junk(100, std::byte{1});
  File::open_read_write(path).write_at(offset + 1000, junk);
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(1));
  EXPECT_THROW(file.read(500, out), DamagedDataError);
  std::filesystem::resize_file(path, offset + 10);
  EXPECT_THROW(file.read(500, out), DamagedDataError);

  write_small(dir / "b.h5", random_tokens(1000, 1000));
  const TokenFile touched(dir / "b.h5");
  touched.read(500, out);
  std::filesystem::last_write_time(dir / "b.h5", std::filesystem::last_write_time(dir / "b.h5") + std::chrono::seconds(1));
  EXPECT_NO_THROW(touched.read(500, out));
}

// Files of other software: superblock at byte 0, without a user block.
TEST(TokenFile, ReadsAFileWithoutAUserBlock) {
  const TempDir dir;
  const auto path = dir / "a.h5";
  const auto tokens = random_tokens(1000, 1000);
  write_small(path, tokens);
  std::string bytes = slurp(path).substr(kUserBlockBytes);
  const std::uint64_t base = 0;
  const std::uint64_t end = bytes.size();
  std::memcpy(bytes.data() + 24, &base, 8);
  std::memcpy(bytes.data() + 40, &end, 8);
  spill(path, bytes);
  const TokenFile file(path);
  EXPECT_EQ(read_all(file), tokens);
}

TEST(TokenFile, RefusesIdsOutsideTheVocabularyWhenWriting) {
  const TempDir dir;
  TokenFileWriter writer(dir / "a.h5", small_info(10));
  const std::vector<std::int32_t> tokens{1, 10};
  EXPECT_THROW(writer.append(tokens), ContractError);
}

}  // namespace
}  // namespace hadal::data
