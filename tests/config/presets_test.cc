// Every YAML file in configs/ loads, is consistent and sets no key that nothing reads.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "config/load.h"
#include "config/load_machine.h"
#include "config/write.h"

namespace hadal {
namespace {

TEST(Presets, EveryFileLoadsWithoutInertKeys) {
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(HADAL_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    SCOPED_TRACE(entry.path().string());
    ++files;
    if (entry.path().parent_path().filename() == "machine") {
      EXPECT_FALSE(load_machine(entry.path()).name.empty());
      continue;
    }
    const LoadedConfig loaded = load_config(entry.path());
    for (const std::string& sentence : loaded.inert) ADD_FAILURE() << sentence;
    EXPECT_EQ(to_yaml(load_config_text(to_yaml(loaded.config), "x.yaml").config), to_yaml(loaded.config));
  }
  EXPECT_GE(files, 13);
}

}  // namespace
}  // namespace hadal
