// HF parity without Python: the program's logits on imported fixtures equal those of HF transformers (and, for the nsa_*
// fixtures, of the reference code beside the export) to 1e-4 absolute in f32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "cli/commands.h"
#include "cli/model_exchange.h"
#include "interop/safetensors.h"
#include "tests/interop/fixtures.h"
#include "tests/support/temp_dir.h"

namespace hadal::interop {
namespace {

class LogitsOf : public testing::TestWithParam<std::string> {};

TEST_P(LogitsOf, EqualTheReference) {
  const cli::Command* logits_verb = cli::find_command("logits");
  ASSERT_NE(logits_verb, nullptr);
  const test::TempDir dir;
  const std::filesystem::path reference = test::fixture(GetParam()) / "reference.safetensors";
  cli::import_model(test::fixture(GetParam()), dir / "model");
  for (const char* dtype : {"f32", "f64"}) {
    const std::string out = (dir / (std::string(dtype) + ".safetensors")).string();
    ASSERT_EQ(logits_verb->run({(dir / "model").string(), "--tokens", reference.string(), "--out", out, "--dtype", dtype}), 0);
    const SafetensorsReader expected_file = SafetensorsReader::open(reference), file = SafetensorsReader::open(out);
    const Tensor expected = expected_file.read("logits");
    Tensor logits = Tensor::empty(expected.shape(), DType::kF32);
    file.read_as_float(file.at("logits"), logits);
    float largest = 0.0f;
    for (std::size_t i = 0; i < logits.span<float>().size(); ++i) {
      largest = std::max(largest, std::abs(logits.span<float>()[i] - expected.span<float>()[i]));
    }
    EXPECT_LE(largest, 1e-4f) << dtype;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, LogitsOf, testing::ValuesIn(test::kFixtures));

}  // namespace
}  // namespace hadal::interop
