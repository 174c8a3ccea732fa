#include "tokenizer/train.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/file.h"
#include "core/parallel_for.h"
#include "core/rng.h"
#include "tests/support/temp_dir.h"
#include "tests/tokenizer/sample.h"
#include "tokenizer/byte_map.h"
#include "tokenizer/merge_learner.h"

namespace hadal::tokenizer {
namespace {

// Text with a spread of word frequencies, long enough that merges run on several threads.
std::string invented_text(std::size_t bytes) {
  const Random random(11, RandomPurpose::kSynthetic);
  std::string text;
  for (std::uint64_t i = 0; text.size() < bytes; ++i) {
    std::uint64_t word = 1 + random.below(2 * i, 20000) * random.below(2 * i + 1, 20000) / 20000;
    for (; word > 0; word /= 11) text += static_cast<char>('a' + word % 11);
    text += i % 13 == 0 ? (i % 5 == 0 ? ".\r\n\r\n" : "\n") : i % 7 == 0 ? ", " : " ";
  }
  return text;
}

TextSource one_text(std::string text) {
  return [text = std::optional<std::string>(std::move(text))]() mutable { return std::exchange(text, std::nullopt); };
}

TrainOptions options_of(std::int64_t vocab_size) {
  TrainOptions options;
  options.vocab_size = vocab_size;
  return options;
}

TEST(Train, DoesNotDependOnThreads) {
  const std::string text = invented_text(3 << 20);
  const int threads = num_threads();
  std::vector<std::string> hashes;
  for (const int count : {1, 2, 5}) {
    set_num_threads(count);
    hashes.push_back(train(options_of(900), one_text(text)).hash());
  }
  set_num_threads(threads);
  EXPECT_EQ(hashes[0], hashes[1]);
  EXPECT_EQ(hashes[0], hashes[2]);
}

// A file read in parts gives what the whole text gives, for both ways of cutting.
TEST(Train, FilesInPartsEqualOneText) {
  const hadal::test::TempDir dir;
  const std::string text = invented_text(9 << 20);
  write_file_atomically(dir / "a.txt", text);
  std::filesystem::create_directory(dir / "folder");
  write_file_atomically(dir / "folder" / "b.txt", text);
  for (const PreTokenizerKind kind : {PreTokenizerKind::kDeepSeekV3, PreTokenizerKind::kGpt2}) {
    TrainOptions options = options_of(400);
    options.pre_tokenizer = kind;
    TrainStatistics from_file;
    TrainStatistics from_text;
    const std::string expected = train(options, one_text(text), &from_text).hash();
    EXPECT_EQ(train(options, read_text_files({dir / "a.txt"}, kind), &from_file).hash(), expected);
    EXPECT_EQ(from_file.bytes, text.size());
    EXPECT_EQ(from_file.pieces, from_text.pieces);
    train(options, read_text_files({dir / "a.txt", dir / "folder"}, kind), &from_file);
    EXPECT_EQ(from_file.pieces, 2 * from_text.pieces);
    EXPECT_EQ(from_file.unique_pieces, from_text.unique_pieces);
  }
  EXPECT_THROW(read_text_files({dir / "nothing"}, PreTokenizerKind::kGpt2), UserError);
  EXPECT_THROW(read_text_files({}, PreTokenizerKind::kGpt2), UserError);
}

TEST(Train, LittleTextGivesASmallerVocabulary) {
  TrainStatistics statistics;
  const Tokenizer tokenizer = train(options_of(1000), one_text("ab ab"), &statistics);
  // "ab", then " ab" of the second word: (a, b) twice, (space, ab) once.
  EXPECT_EQ(tokenizer.vocab_size(), 6 + 256 + 2);
  EXPECT_EQ(statistics.merges, 2u);
  EXPECT_EQ(statistics.pieces, 2u);
  EXPECT_EQ(train(options_of(1000), one_text("")).vocab_size(), 262);
}

TEST(Train, FrequencyAndLengthLimits) {
  TrainOptions options = options_of(1000);
  options.min_frequency = 2;
  EXPECT_EQ(train(options, one_text("ab ab")).num_merges(), 1u);
  options.min_frequency = 0;
  options.max_token_length = 3;  // joined lengths stay below it, as in HF
  const Tokenizer tokenizer = train(options, one_text("abcd abcd"));
  for (std::int32_t id = 262; id < tokenizer.vocab_size(); ++id) EXPECT_LT(tokenizer.token_bytes(id).size(), 3u);
}

// Ties go to the smaller (left id, right id): "ba" and "dc" come up equally often, b < d.
TEST(Train, TiesGoToTheSmallerPair) {
  const Tokenizer tokenizer = train(options_of(262 + 2), one_text("dc ba\ndc\nba"));
  EXPECT_EQ(tokenizer.token_text(262), "ba");
  EXPECT_EQ(tokenizer.token_text(263), "dc");
}

// Counts beyond 32 bits (tokenizers#2058).
TEST(Train, CountsBeyondThirtyTwoBits) {
  PieceCounter pieces;
  pieces.add("ab", 3'000'000'000);
  pieces.add("cd", 2'999'999'999);
  pieces.add("cde", 2);
  std::vector<std::string> tokens;
  for (const std::uint8_t byte : bytes_in_alphabet_order()) tokens.push_back(map_bytes(std::string(1, static_cast<char>(byte))));
  const LearnedMerges learned = learn_merges(pieces, tokens, {.vocab_size = 258}, {});
  ASSERT_EQ(learned.tokens.size(), 258u);
  EXPECT_EQ(learned.tokens[256], "cd");
  EXPECT_EQ(learned.tokens[257], "ab");
}

// A merge whose string is a special token's takes that id, and the vocabulary does not grow (HF does the same).
TEST(Train, StringsThatHaveAnIdKeepIt) {
  TrainOptions options = options_of(300);
  options.special_tokens = {"ab", "<|eos|>"};
  options.bos_token = options.pad_token = "";
  const Tokenizer tokenizer = train(options, one_text("abc abc"));
  EXPECT_EQ(tokenizer.num_merges(), 3u);
  EXPECT_EQ(tokenizer.vocab_size(), 2 + 256 + 2);
}

TEST(Train, RefusesImpossibleOptions) {
  const auto refused = [](TrainOptions options) { EXPECT_THROW(train(options, one_text("abc")), UserError); };
  refused(options_of(261));
  refused(options_of(std::int64_t{1} << 40));
  TrainOptions options = options_of(300);
  options.special_tokens = {"<|bos|>", "<|eos|>", "<|pad|>", "<|bos|>"};
  refused(options);
  options.special_tokens = {"<|bos|>", "<|eos|>"};
  refused(options);  // <|pad|> has a role
  options.special_tokens = {"<|bos|>", "<|eos|>", "<|pad|>", ""};
  refused(options);
  options.special_tokens.back() = "a";
  refused(options);
  options.special_tokens.back() = "\xff";
  refused(options);
}

TEST(Train, ReportsProgress) {
  TrainOptions options = options_of(300);
  std::uint64_t read = 0;
  std::uint64_t merged = 0;
  options.progress = [&](const TrainProgress& progress) { (progress.stage == "read" ? read : merged) = progress.current; };
  const std::string text(test::sample_text());
  train(options, one_text(text));
  EXPECT_EQ(read, text.size());
  EXPECT_EQ(merged, 38u);
}

}  // namespace
}  // namespace hadal::tokenizer
