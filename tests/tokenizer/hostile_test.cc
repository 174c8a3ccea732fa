// tokenizer.json files that must be refused: with the file's name, the place and the reason, and without a crash.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "tests/support/temp_dir.h"
#include "tests/tokenizer/sample.h"

namespace hadal::tokenizer {
namespace {

using Json = nlohmann::ordered_json;

// The message of the refusal, "" when the document was taken.
std::string refusal_of(std::string_view json, std::string_view config = "") {
  try {
    Tokenizer::from_json(json, config, "some/tokenizer.json");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput) << error.what();
    return error.what();
  }
  return "";
}

/// With a template that puts bos in front of a text, as others have it.
Json sample_json() {
  Json json = Json::parse(test::sample_tokenizer(300).json());
  json["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [0], "tokens": ["<|bos|>"]}}})");
  return json;
}

void expect_refused(const std::string& reason, const std::function<void(Json&)>& change) {
  Json json = sample_json();
  change(json);
  const std::string message = refusal_of(json.dump());
  EXPECT_NE(message.find("some/tokenizer.json"), std::string::npos) << reason << ": " << message;
  EXPECT_NE(message.find(reason), std::string::npos) << message;
}

void expect_taken(const std::function<void(Json&)>& change) {
  Json json = sample_json();
  change(json);
  EXPECT_EQ(refusal_of(json.dump()), "");
}

TEST(HostileTokenizer, EveryTruncationIsRefused) {
  const std::string json = test::sample_tokenizer(264).json();
  const std::size_t end = json.find_last_of('}');
  for (std::size_t size = 0; size <= end; ++size) {
    ASSERT_NE(refusal_of(std::string_view(json).substr(0, size)), "") << "truncated to " << size;
  }
}

TEST(HostileTokenizer, FlippedBytesNeverCrash) {
  const std::string json = test::sample_tokenizer(270).json();
  const Random random(5, RandomPurpose::kSynthetic);
  for (std::uint64_t trial = 0; trial < 1500; ++trial) {
    std::string flipped = json;
    const std::uint64_t at = random.below(2 * trial, json.size());
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << random.below(2 * trial + 1, 8)));
    try {
      const Tokenizer tokenizer = Tokenizer::from_json(flipped, "", "flipped");
      EXPECT_FALSE(tokenizer.encode("the tide").empty());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput) << error.what();
    }
  }
}

TEST(HostileTokenizer, ComponentsThatAreNotImplementedAreNamed) {
  expect_refused("normalizer NFC", [](Json& j) { j["normalizer"] = {{"type", "NFC"}}; });
  expect_refused("pre_tokenizer Metaspace", [](Json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; });
  expect_refused("add_prefix_space", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][3]["add_prefix_space"] = true; });
  expect_refused("Split pattern \\w+", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; });
  expect_refused("behavior Removed", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; });
  expect_refused("invert", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["invert"] = true; });
  expect_refused("String", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"String", " "}}; });
  expect_refused("its regex after Split", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][3]["use_regex"] = true; });
  expect_refused("post_processor BertProcessing", [](Json& j) { j["post_processor"] = {{"type", "BertProcessing"}}; });
  expect_refused("after it", [](Json& j) {
    j["post_processor"]["single"].push_back({{"SpecialToken", {{"id", "<|eos|>"}, {"type_id", 0}}}});
  });
  expect_refused("decoder Metaspace", [](Json& j) { j["decoder"] = {{"type", "Metaspace"}}; });
  expect_refused("no decoder", [](Json& j) { j["decoder"] = nullptr; });
  expect_refused("model Unigram", [](Json& j) { j["model"]["type"] = "Unigram"; });
  for (const char* key : {"byte_fallback", "ignore_merges"}) {
    expect_refused(key, [key](Json& j) { j["model"][key] = true; });
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    expect_refused(key, [key](Json& j) { j["model"][key] = "##"; });
  }
  expect_refused("dropout", [](Json& j) { j["model"]["dropout"] = 0.1; });
  expect_refused("truncation", [](Json& j) { j["truncation"] = {{"max_length", 5}}; });
  expect_refused("padding", [](Json& j) { j["padding"] = Json::object(); });
  expect_refused("lstrip", [](Json& j) { j["added_tokens"][0]["lstrip"] = true; });
  expect_refused("version 2.0", [](Json& j) { j["version"] = "2.0"; });
}

TEST(HostileTokenizer, WrongTypesAndMissingParts) {
  EXPECT_NE(refusal_of("{\"a\":1,\"a\":2}").find("twice"), std::string::npos);
  EXPECT_NE(refusal_of("[]").find("expected an object, found array"), std::string::npos);
  expect_refused("expected an object, found null", [](Json& j) { j.erase("model"); });
  expect_refused("model.vocab: expected an object", [](Json& j) { j["model"]["vocab"] = 7; });
  expect_refused("model.merges: expected an array", [](Json& j) { j["model"].erase("merges"); });
  expect_refused("model.merges[0]: expected an array", [](Json& j) { j["model"]["merges"][0] = 3; });
  expect_refused("expected two tokens", [](Json& j) { j["model"]["merges"][0] = {"a", "b", "c"}; });
  expect_refused("expected two tokens", [](Json& j) { j["model"]["merges"][0] = "a b c"; });
  expect_refused("expected an integer", [](Json& j) { j["model"]["vocab"]["a"] = 1.5; });
  expect_refused("expected an integer", [](Json& j) { j["model"]["vocab"]["a"] = "7"; });
  expect_refused("outside 0 ..", [](Json& j) { j["model"]["vocab"]["a"] = -1; });
  expect_refused("outside 0 ..", [](Json& j) { j["model"]["vocab"]["a"] = 4000000000u; });
  expect_refused("unknown key 'provenance'", [](Json& j) { j["provenance"] = "here"; });
  expect_refused("added_tokens[1].normalized: expected true or false", [](Json& j) { j["added_tokens"][1].erase("normalized"); });
  expect_refused("without content", [](Json& j) { j["added_tokens"][1]["content"] = ""; });
}

TEST(HostileTokenizer, InconsistentParts) {
  expect_refused("model.merges[2]: 'nowhere' is not in the vocabulary", [](Json& j) { j["model"]["merges"][2][1] = "nowhere"; });
  expect_refused("'zzqq' is not in the vocabulary", [](Json& j) {
    j["model"]["vocab"]["zz"] = 300;
    j["model"]["vocab"]["qq"] = 301;
    j["model"]["merges"][0] = {"zz", "qq"};
  });
  expect_refused("belongs to both", [](Json& j) { j["model"]["vocab"]["extra"] = 10; });
  expect_refused("for byte 0x20", [](Json& j) {
    const int id = j["model"]["vocab"]["\u0120"];
    j["model"]["vocab"].erase("\u0120");
    j["model"]["vocab"]["replacement"] = id;
  });
  expect_refused("states id 9", [](Json& j) { j["added_tokens"][2]["id"] = 9; });
  expect_refused("states id 77", [](Json& j) {
    Json token = j["added_tokens"][0];
    token["id"] = 77;
    token["content"] = "<|new|>";
    j["added_tokens"].push_back(token);
  });
  expect_refused("is also what merges make", [](Json& j) {
    Json token = j["added_tokens"][0];
    token["id"] = j["model"]["vocab"]["\u0120t"];
    token["content"] = "\u0120t";
    j["added_tokens"].push_back(token);
  });
  expect_refused("given twice", [](Json& j) { j["added_tokens"].push_back(j["added_tokens"][0]); });
  expect_refused("'<|none|>' is not in the vocabulary",
                 [](Json& j) { j["post_processor"]["single"][0]["SpecialToken"]["id"] = "<|none|>"; });
}

TEST(HostileTokenizer, ConfigIsCheckedToo) {
  const std::string json = test::sample_tokenizer(300).json();
  EXPECT_NE(refusal_of(json, "{").find("tokenizer_config.json"), std::string::npos);
  EXPECT_NE(refusal_of(json, "{\"bos_token\":5}").find("bos_token"), std::string::npos);
  EXPECT_NE(refusal_of(json, "{\"eos_token\":\"<|none|>\"}").find("eos_token"), std::string::npos);
  EXPECT_EQ(refusal_of(json, "{\"eos_token\":{\"content\":\"<|eos|>\"},\"pad_token\":null}"), "");
}

TEST(HostileTokenizer, DeepAndHugeFilesAreRefusedBeforeTheyCost) {
  EXPECT_NE(refusal_of(std::string(1 << 20, '[')).find("nested deeper"), std::string::npos);
  const hadal::test::TempDir dir;
  const auto path = dir / "tokenizer.json";
  File::create(path).truncate(std::uint64_t{1} << 40);
  EXPECT_THROW(Tokenizer::load(path), Error);
}

TEST(HostileTokenizer, HarmlessVariantsAreTaken) {
  expect_taken([](Json&) {});
  expect_taken([](Json& j) { j["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}}; });
  expect_taken([](Json& j) { j["post_processor"] = nullptr; });
  expect_taken([](Json& j) {
    j["post_processor"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  });
  expect_taken([](Json& j) {
    for (auto& merge : j["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  });
  expect_taken([](Json& j) {
    std::string pattern = j["pre_tokenizer"]["pretokenizers"][2]["pattern"]["Regex"];
    for (std::size_t at; (at = pattern.find('\n')) != std::string::npos;) pattern.replace(at, 1, "\\n");
    for (std::size_t at; (at = pattern.find('\r')) != std::string::npos;) pattern.replace(at, 1, "\\r");
    j["pre_tokenizer"]["pretokenizers"][2]["pattern"]["Regex"] = pattern;
  });
  // A token appended behind the vocabulary; one that is searched after the others.
  expect_taken([](Json& j) {
    Json token = j["added_tokens"][0];
    token["id"] = 300;
    token["content"] = "<|new|>";
    token["normalized"] = true;
    j["added_tokens"].push_back(token);
  });
  // The older files of GPT-2: no type in the model, empty strings for null.
  expect_taken([](Json& j) {
    j["model"].erase("type");
    j["model"]["unk_token"] = j["model"]["continuing_subword_prefix"] = j["model"]["end_of_word_suffix"] = "";
  });
}

}  // namespace
}  // namespace hadal::tokenizer
