#include "tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "core/error.h"
#include "core/parallel_for.h"
#include "core/rng.h"
#include "tests/support/temp_dir.h"
#include "tests/tokenizer/sample.h"
#include "tokenizer/train.h"

namespace hadal::tokenizer {
namespace {

std::string random_bytes(std::uint64_t seed, std::size_t size) {
  const Random random(seed, RandomPurpose::kSynthetic);
  std::string bytes;
  for (std::uint64_t i = 0; bytes.size() < size; ++i) bytes += static_cast<char>(random.bits(i));
  return bytes;
}

TEST(Tokenizer, DefaultSpecialTokens) {
  const Tokenizer tokenizer = test::sample_tokenizer();
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 1);
  EXPECT_EQ(tokenizer.pad_id(), 2);
  EXPECT_EQ(tokenizer.fim_begin_id(), 3);
  EXPECT_EQ(tokenizer.fim_hole_id(), 4);
  EXPECT_EQ(tokenizer.fim_end_id(), 5);
  EXPECT_TRUE(tokenizer.is_special(5));
  EXPECT_FALSE(tokenizer.is_special(6));
  EXPECT_EQ(tokenizer.token_text(6), "!") << "the alphabet follows, by code point";
  EXPECT_EQ(tokenizer.id_of("\u0120the"), tokenizer.encode(" the").at(0));
  EXPECT_EQ(tokenizer.id_of("no such token"), -1);
  EXPECT_EQ(tokenizer.hash().size(), 32u);
}

TEST(Tokenizer, AddedTokensAreRecognisedAndDecoded) {
  const Tokenizer tokenizer = test::sample_tokenizer();
  std::vector<std::int32_t> expected = {0};
  for (const std::int32_t id : tokenizer.encode("the")) expected.push_back(id);
  expected.push_back(1);
  EXPECT_EQ(tokenizer.encode("<|bos|>the<|eos|>"), expected);
  EXPECT_EQ(tokenizer.encode("the<|eos|>", true), expected);
  EXPECT_EQ(tokenizer.decode(expected), "<|bos|>the<|eos|>");
  EXPECT_EQ(tokenizer.decode(expected, true), "the");
  for (const std::int32_t id : tokenizer.encode("<|bos|<|eos |>")) EXPECT_FALSE(tokenizer.is_special(id));
}

TEST(Tokenizer, BytesOfIdsAddUpToTheText) {
  const Tokenizer tokenizer = test::sample_tokenizer();
  const std::string text = std::string(test::sample_text()) + "\u6d77\U0001f30a\r\n\t\x01";
  const std::vector<std::int32_t> ids = tokenizer.encode(text);
  std::size_t bytes = 0;
  for (const std::int32_t id : ids) bytes += tokenizer.token_bytes(id).size();
  EXPECT_EQ(bytes, text.size());
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_THROW(tokenizer.token_bytes(-1), UserError);
  EXPECT_THROW(tokenizer.token_bytes(tokenizer.vocab_size()), UserError);
}

TEST(Tokenizer, InvalidUtf8IsReplacedAndCounted) {
  const Tokenizer tokenizer = test::sample_tokenizer();
  std::vector<std::int32_t> ids;
  EXPECT_EQ(tokenizer.encode_append("a\xff\xe6\xb5z", ids), 2u);
  EXPECT_EQ(tokenizer.decode(ids), "a\ufffd\ufffdz");
  EXPECT_EQ(tokenizer.encode_append("plain", ids), 0u);
}

TEST(Tokenizer, SavedFilesLoadAsTheSameTokenizer) {
  const hadal::test::TempDir dir;
  const Tokenizer tokenizer = test::sample_tokenizer();
  tokenizer.save(dir / "saved");
  const Tokenizer from_directory = Tokenizer::load(dir / "saved");
  const Tokenizer from_file = Tokenizer::load(dir / "saved" / "tokenizer.json");
  EXPECT_EQ(from_directory.hash(), tokenizer.hash());
  EXPECT_EQ(from_file.config_json(), tokenizer.config_json());
  EXPECT_EQ(from_file.eos_id(), 1);
  EXPECT_EQ(from_file.encode(test::sample_text()), tokenizer.encode(test::sample_text()));
  EXPECT_THROW(Tokenizer::load(dir / "nothing"), UserError);
}

// Pieces answered by the cache and pieces that collide in it give the same ids as a fresh thread computes.
TEST(Tokenizer, ManyThreadsAgree) {
  const Tokenizer tokenizer = test::sample_tokenizer();
  const Tokenizer other = test::sample_tokenizer(300);
  std::vector<std::string> texts;
  for (std::uint64_t seed = 0; seed < 40; ++seed) texts.push_back(random_bytes(seed, 3000) + std::string(test::sample_text()));
  std::vector<std::vector<std::int32_t>> expected;
  for (const std::string& text : texts) expected.push_back(tokenizer.encode(text));
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < texts.size(); ++i) {
        if (i % 7 == t) other.encode(texts[i]);  // takes the thread's cache over
        wrong[t] += tokenizer.encode(texts[i]) != expected[i];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

TEST(Tokenizer, EncodeAllEqualsEncode) {
  const Tokenizer tokenizer = test::sample_tokenizer();
  std::string longest;
  for (std::uint64_t seed = 0; longest.size() < 400000; ++seed) {
    longest += test::sample_text();
    longest += random_bytes(seed, 200);
  }
  const std::vector<std::string_view> texts = {"", "the tide", longest, "\n", "\xff", test::sample_text()};
  const int threads = num_threads();
  for (const int count : {1, 3}) {
    set_num_threads(count);
    std::size_t replaced = 0;
    const auto ids = tokenizer.encode_all(texts, &replaced);
    ASSERT_EQ(ids.size(), texts.size());
    std::size_t expected_replaced = 0;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      std::vector<std::int32_t> expected;
      expected_replaced += tokenizer.encode_append(texts[i], expected);
      EXPECT_EQ(ids[i], expected) << "text " << i << " with " << count << " threads";
    }
    EXPECT_EQ(replaced, expected_replaced);
  }
  set_num_threads(threads);
}

TEST(IncrementalDecoder, GivesWholeCharacters) {
  const Tokenizer tokenizer = test::sample_tokenizer(262);  // bytes only
  const std::string text = "a\u00e9\u6d77\U0001f30az<|eos|>";
  IncrementalDecoder decoder(tokenizer);
  std::vector<std::string> out;
  for (const std::int32_t id : tokenizer.encode(text)) {
    if (std::string part = decoder.push(id); !part.empty()) out.push_back(std::move(part));
  }
  EXPECT_EQ(out, (std::vector<std::string>{"a", "\u00e9", "\u6d77", "\U0001f30a", "z", "<|eos|>"}));
  EXPECT_EQ(decoder.finish(), "");
  // An unfinished character comes out at the end, an impossible byte at once.
  const std::int32_t lead = tokenizer.encode("\u6d77").at(0);
  EXPECT_EQ(decoder.push(lead), "");
  EXPECT_EQ(decoder.finish(), "\xe6");
  EXPECT_EQ(decoder.push(lead), "");
  EXPECT_EQ(decoder.push(tokenizer.encode("a").at(0)),
            "\xe6"
            "a");
  IncrementalDecoder skipping(tokenizer, true);
  EXPECT_EQ(skipping.push(1), "");
}

}  // namespace
}  // namespace hadal::tokenizer
