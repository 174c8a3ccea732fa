// Event files byte by byte against the vectors of spec/interop.md 9.1.
#include "report/tensorboard.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal::report {
namespace {

std::string hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

TEST(Tensorboard, crc32c_check_value) { EXPECT_EQ(crc32c("123456789"), 0xE3069283u); }

TEST(Tensorboard, first_record) {
  EXPECT_EQ(hex(tensorboard_record(version_event(1700000000.0))),
            "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d");
}

TEST(Tensorboard, scalar_record) {
  const std::vector<std::pair<std::string, float>> scalars{{"train/loss", 2.5f}};
  EXPECT_EQ(hex(tensorboard_record(scalars_event(1700000000.5, 100, scalars))),
            "200000000000000029eda9500900002040fc54d94110642a130a110a0a747261696e2f6c6f737315000020409c94672d");
}

TEST(Tensorboard, session_start_and_text) {
  EXPECT_EQ(hex(session_start_event(1700000000.0, 300)), "0900000040fc54d94110ac023a020801");
  // summary 2a: value 0a: tag "c", metadata {plugin_data {plugin_name "text"}}, tensor {string, shape [1], "hi"}
  EXPECT_EQ(hex(text_event(1700000000.0, 0, "c", "hi")),
            "0900000040fc54d941"
            "2a1d"
            "0a1b"
            "0a0163"
            "4a080a060a0474657874"
            "420c0807120412020801"
            "42026869");
}

TEST(Tensorboard, a_resumed_run_writes_a_later_file_that_starts_its_session) {
  const test::TempDir dir;
  std::string first;
  {
    TensorboardWriter writer(dir.path(), 1700000000.0, std::nullopt);
    first = writer.path().filename().string();
  }
  TensorboardWriter writer(dir.path(), 1700000000.0, 7);
  EXPECT_GT(writer.path().filename().string(), first);
  EXPECT_EQ(read_file(writer.path()),
            tensorboard_record(version_event(1700000000.0)) + tensorboard_record(session_start_event(1700000000.0, 7)));
}

}  // namespace
}  // namespace hadal::report
