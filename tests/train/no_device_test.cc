// Guards: a run that asks for a device which is not there is refused before anything else, with what to do.
#include <gtest/gtest.h>

#include "core/device_backend.h"
#include "core/error.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

TEST(NoDevice, IsRefusedWithTheFix) {
  if (num_cuda_devices() > 0) GTEST_SKIP() << "there is one here";
  const test::TempDir dir;
  const test::SmallRun run{dir.path(), {"run.device=cuda", "precision.compute=bf16"}};
  try {
    run.train("a");
    ADD_FAILURE() << "trained";
  } catch (const UserError& error) {
    const std::string text = error.what();
    EXPECT_TRUE(text.starts_with("run.device is cuda, but ")) << text;
    EXPECT_NE(text.find("run.device=cpu"), std::string::npos) << text;
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "a"));
}

}  // namespace
}  // namespace hadal
