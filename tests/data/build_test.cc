// Text to token files: documents as asked for, every compression, errors with their place, and the same bytes after a kill.
#include "data_tools/build.h"

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "core/file.h"
#include "core/parallel_for.h"
#include "core/rng.h"
#include "data/open_source.h"
#include "data/token_file.h"
#include "data_tools/json_text.h"
#include "tests/support/temp_dir.h"

namespace hadal::data_tools {
namespace {

using test::TempDir;

constexpr std::int32_t kEos = 256;

/// One id a byte: the ids are the text.
Encoder byte_encoder() {
  Encoder encoder;
  encoder.append = [](std::string_view text, std::vector<std::int32_t>& ids) {
    std::size_t bad = 0;
    for (std::size_t at = 0; (at += first_invalid_utf8(text.substr(at))) < text.size(); ++at) ++bad;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return bad;
  };
  encoder.vocab_size = 257;
  encoder.eos_token_id = kEos;
  encoder.hash = "0123456789abcdef0123456789abcdef";
  encoder.name = "bytes";
  return encoder;
}

void spill(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string gzip(const std::string& text) {
  std::string out(text.size() + 1024, '\0');
  z_stream state{};
  EXPECT_EQ(deflateInit2(&state, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(out.data());
  state.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&state, Z_FINISH), Z_STREAM_END);
  out.resize(state.total_out);
  deflateEnd(&state);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 1));
  return out;
}

/// Documents of a source as text, their end token left out.
std::vector<std::string> texts(const std::filesystem::path& path) {
  const auto source = data::open_token_source(path);
  std::vector<std::string> documents;
  for (std::uint64_t d = 0; d < source->num_documents(); ++d) {
    std::vector<std::int32_t> ids(source->document_length(d));
    source->read(source->document_begin(d), ids);
    EXPECT_EQ(ids.back(), kEos);
    std::string text;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) text += static_cast<char>(ids[i]);
    documents.push_back(text);
  }
  return documents;
}

BuildOptions options_of(const TempDir& dir, std::vector<std::string> names, const std::string& rule = "file") {
  BuildOptions options;
  for (const std::string& name : names) options.inputs.push_back((dir / name).string());
  options.out = dir / "out.h5";
  options.documents.rule = DocumentRule::parse(rule);
  return options;
}

std::vector<std::string> built(const TempDir& dir, std::vector<std::string> names, const std::string& rule = "file") {
  BuildOptions options = options_of(dir, std::move(names), rule);
  options.overwrite = true;
  EXPECT_TRUE(build(options, byte_encoder()).finished);
  return texts(options.out);
}

std::string message_of(const BuildOptions& options) {
  try {
    build(options, byte_encoder());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// Words and line breaks of about `bytes` bytes.
std::string prose(std::size_t bytes, std::uint64_t stream = 0) {
  const Random random(11, RandomPurpose::kSynthetic, stream);
  std::string text;
  for (std::uint64_t i = 0; text.size() < bytes; ++i) {
    for (std::uint64_t letter = 0; letter < 1 + random.below(2 * i, 9); ++letter)
      text += static_cast<char>('a' + (i + letter * 7) % 26);
    text += random.below(2 * i + 1, 12) == 0 ? ".\n" : " ";
  }
  return text;
}

TEST(Build, PlainFilesAreOneDocumentEach) {
  const TempDir dir;
  std::filesystem::create_directories(dir / "texts/sub");
  spill(dir / "texts/b.txt", "second\n");
  spill(dir / "texts/a.txt",
        "\xef\xbb\xbf"
        "first");
  spill(dir / "texts/sub/c.md", "third\n\nline");
  spill(dir / "texts/blank.txt", " \n\n");
  spill(dir / "texts/.hidden", "no");
  spill(dir / "texts/image.bin", std::string("\x89PNG\0\0", 6));
  EXPECT_EQ(built(dir, {"texts"}), (std::vector<std::string>{"first", "second\n", "third\n\nline"}));
}

TEST(Build, ParagraphsAndSizes) {
  const TempDir dir;
  spill(dir / "a.txt", "\n \none\ntwo\n\n  \n\nthree\n \r\nfour");
  EXPECT_EQ(built(dir, {"a.txt"}, "paragraphs"), (std::vector<std::string>{"one\ntwo\n", "three\n", "four"}));
  spill(dir / "b.txt", "12345\n78\n1234\n");
  EXPECT_EQ(built(dir, {"b.txt"}, "6"), (std::vector<std::string>{"12345\n", "78\n1234\n"}));
  EXPECT_EQ(built(dir, {"b.txt"}, "7"), (std::vector<std::string>{"12345\n78\n", "1234\n"}));
  EXPECT_EQ(built(dir, {"b.txt"}, "1KiB"), (std::vector<std::string>{"12345\n78\n1234\n"}));
  for (const char* bad : {"", "0", "12x", "page", "-5"}) EXPECT_THROW(DocumentRule::parse(bad), UserError) << bad;
}

TEST(Build, LongTextsKeepEveryByte) {
  const TempDir dir;
  const std::string text = prose(3'000'000);
  spill(dir / "a.txt", text);
  EXPECT_EQ(built(dir, {"a.txt"}), std::vector<std::string>{text});
  std::string joined;
  for (const std::string& document : built(dir, {"a.txt"}, "400KiB")) {
    EXPECT_TRUE(document.size() >= 400 * 1024 || joined.size() + document.size() == text.size());
    EXPECT_LT(document.size(), 401u * 1024);
    joined += document;
  }
  EXPECT_EQ(joined, text);
  const std::string no_break(700'000, 'x');
  spill(dir / "b.txt", no_break);
  EXPECT_EQ(built(dir, {"b.txt"}, "1KiB"), std::vector<std::string>{no_break});
}

TEST(Build, CutsLieBetweenWords) {
  const std::string text = "one two.\nthree four";
  EXPECT_EQ(safe_cut(text, 14), 9u);
  EXPECT_EQ(safe_cut(text, 8), 3u);
  EXPECT_EQ(safe_cut("a  \nb c", 6), 6u - 1u);  // the line break follows blanks, so the space
  EXPECT_EQ(safe_cut("\xc3\xa4\xc3\xb6\xc3\xbc", 3), 2u);
}

TEST(Build, JsonLines) {
  const TempDir dir;
  spill(dir / "a.jsonl",
        "{\"text\":\"one\\nline\",\"id\":1}\r\n\n{\"meta\":{\"text\":\"no\"},\"text\":\"\\u00e4 "
        "\\ud83d\\ude00\"}\n{\"text\":\"\"}\n{\"text\":\"last\"}");
  EXPECT_EQ(built(dir, {"a.jsonl"}), (std::vector<std::string>{"one\nline", "\xc3\xa4 \xf0\x9f\x98\x80", "last"}));
  const std::string large = prose(900'000);
  std::string escaped;
  for (const char c : large) escaped += c == '\n' ? std::string("\\n") : std::string(1, c);
  spill(dir / "b.jsonl", "{\"text\":\"" + escaped + "\"}\n{\"text\":\"x\"}\n");
  EXPECT_EQ(built(dir, {"b.jsonl"}), (std::vector<std::string>{large, "x"}));
}

TEST(Build, JsonErrorsNameTheLine) {
  const TempDir dir;
  const auto message = [&](const std::string& bad) {
    spill(dir / "a.jsonl", "{\"text\":\"good\"}\n\n" + bad + "\n");
    return message_of(options_of(dir, {"a.jsonl"}));
  };
  for (const char* bad : {"{\"text\":\"cut", "{\"text\":1}", "{\"body\":\"x\"}", "[\"text\"]", "\"text\"",
                          "{\"text\":\"\\ud800\"}", "{\"text\":\"\xff\"}", "{\"text\":\"a\",\"text\":\"b\"}", "{\"text\":null}",
                          "{\"text\":{\"a\":1}}", "{\"text\":\"a\"} x"}) {
    const std::string what = message(bad);
    EXPECT_NE(what.find("a.jsonl:3:"), std::string::npos) << bad << " gave: " << what;
    EXPECT_NE(what.find("(byte "), std::string::npos) << what;
  }
  EXPECT_NE(message("{\"x\":" + std::string(100000, '[') + "}").find("nested deeper"), std::string::npos);
}

TEST(Build, CompressedInputsConcatenated) {
  const TempDir dir;
  const std::string a = prose(700'000, 1);
  const std::string b = prose(300'000, 2);
  spill(dir / "a.txt.gz", gzip(a) + gzip(b));
  spill(dir / "a.txt.zst", zstd(a) + zstd(b));
  EXPECT_EQ(built(dir, {"a.txt.gz"}), std::vector<std::string>{a + b});
  EXPECT_EQ(built(dir, {"a.txt.zst"}), std::vector<std::string>{a + b});
  spill(dir / "b.jsonl.zst", zstd("{\"text\":\"one\"}\n"));
  EXPECT_EQ(built(dir, {"b.jsonl.zst"}), std::vector<std::string>{"one"});
}

TEST(Build, DamagedCompressionIsRefused) {
  const TempDir dir;
  const std::string text = prose(300'000);
  for (const auto& [name, bytes] : {std::pair{"a.gz", gzip(text)}, std::pair{"a.zst", zstd(text)}}) {
    for (const std::size_t size : {bytes.size() - 1, bytes.size() / 2, std::size_t{20}}) {
      spill(dir / name, bytes.substr(0, size));
      const std::string what = message_of(options_of(dir, {name}));
      EXPECT_NE(what.find((dir / name).string()), std::string::npos) << what;
      EXPECT_NE(what.find("cut off"), std::string::npos) << what;
    }
    std::string bad = bytes;
    for (std::size_t i = bad.size() / 2; i < bad.size() / 2 + 40; ++i) bad[i] = static_cast<char>(~bad[i]);
    spill(dir / name, bad);
    EXPECT_NE(message_of(options_of(dir, {name})), "");
  }
}

TEST(Build, InvalidUtf8NamesItsPlace) {
  const TempDir dir;
  spill(dir / "a.txt", "fine\nbad \xe9 byte\n");
  BuildOptions options = options_of(dir, {"a.txt"});
  const std::string what = message_of(options);
  EXPECT_NE(what.find("a.txt:2:"), std::string::npos) << what;
  EXPECT_NE(what.find("byte 9 "), std::string::npos) << what;
  options.replace_invalid = true;
  EXPECT_EQ(build(options, byte_encoder()).figures.replaced, 1u);
}

TEST(Build, RefusesWhatCannotBe) {
  const TempDir dir;
  spill(dir / "a.txt", "text");
  spill(dir / "blank.txt", "\n");
  EXPECT_NE(message_of(options_of(dir, {"missing.txt"})).find("missing.txt"), std::string::npos);
  EXPECT_NE(message_of(options_of(dir, {"blank.txt"})), "");
  BuildOptions options = options_of(dir, {"a.txt"});
  options.out = dir / "none/out.h5";
  EXPECT_NE(message_of(options).find("folder does not exist"), std::string::npos);
  built(dir, {"a.txt"});
  EXPECT_NE(message_of(options_of(dir, {"a.txt"})).find("exists already"), std::string::npos);
}

TEST(Build, SameBytesForAnyThreadsAndAfterAnyStop) {
  const TempDir dir;
  ::setenv("SOURCE_DATE_EPOCH", "1767225600", 1);
  std::string lines;
  for (std::uint64_t i = 0; i < 400; ++i) {
    std::string text = prose(1000 + 500 * (i % 7), i);
    std::erase(text, '\n');
    lines += "{\"text\":\"" + text + "\"}\n";
  }
  // Several batches of plain text, then JSON lines; documents longer than a batch.
  spill(dir / "a.txt.zst", zstd(prose(3 << 20, 1)));
  spill(dir / "b.jsonl.gz", gzip(lines));
  spill(dir / "c.txt", prose(100'000, 3));
  BuildOptions options = options_of(dir, {"a.txt.zst", "b.jsonl.gz", "c.txt"}, "1MiB");
  options.batch_bytes = 700'000;
  options.megatron = dir / "pair";
  const auto outputs = [&] {
    return std::array{read_file(dir / "out.h5"), read_file(dir / "pair.bin"), read_file(dir / "pair.idx")};
  };
  const int threads = num_threads();
  const BuildResult whole = build(options, byte_encoder());
  EXPECT_FALSE(whole.resumed);
  const auto expected = outputs();
  EXPECT_EQ(data::TokenFile(dir / "out.h5").info().created_utc, "2026-01-01T00:00:00Z");

  options.overwrite = true;
  set_num_threads(3);
  build(options, byte_encoder());
  EXPECT_TRUE(outputs() == expected);
  set_num_threads(threads);

  // Stopped after every batch, and once killed in between: the journal is older than the files.
  options.stop = [] { return true; };
  options.journal_seconds = 0;
  int runs = 1;
  while (!build(options, byte_encoder()).finished) {
    EXPECT_TRUE(std::filesystem::exists(dir / "out.h5.journal"));
    if (runs++ == 1) {
      const std::string journal = read_file(dir / "out.h5.journal");
      build(options, byte_encoder());
      spill(dir / "out.h5.journal", journal);
    }
    ASSERT_LT(runs, 20);
  }
  EXPECT_GT(runs, 2);
  EXPECT_TRUE(outputs() == expected);
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    EXPECT_EQ(entry.path().string().find(".part"), std::string::npos) << entry.path();
    EXPECT_NE(entry.path().extension(), ".journal") << entry.path();
  }
  ::unsetenv("SOURCE_DATE_EPOCH");
}

TEST(Build, AJournalOfOtherInputsDoesNotCount) {
  const TempDir dir;
  spill(dir / "a.txt", prose(1'000'000));
  BuildOptions options = options_of(dir, {"a.txt"});
  options.batch_bytes = 300'000;
  options.stop = [] { return true; };
  EXPECT_FALSE(build(options, byte_encoder()).finished);
  spill(dir / "a.txt", "another text");
  options.stop = nullptr;
  const BuildResult result = build(options, byte_encoder());
  EXPECT_FALSE(result.resumed);
  EXPECT_EQ(texts(options.out), std::vector<std::string>{"another text"});
}

}  // namespace
}  // namespace hadal::data_tools
