// Safetensors: the specification's byte vector, round trips, conversions, and refusal of every torn or altered header.
#include "interop/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal::interop {
namespace {

std::string hand_made(const std::string& json, std::size_t data_bytes) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>((json.size() >> (8 * i)) & 0xff);
  return file + json + std::string(data_bytes, '\1');
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// The two tensors of the vector in spec/interop.md 1.
void write_vector(const std::filesystem::path& path) {
  const float a[2] = {1.0f, -2.0f};
  const Bf16 b[2] = {to_bf16(0.5f), to_bf16(3.0f)};
  write_safetensors(path, {{"b", ConstView{b, DType::kBf16, Shape{1, 2}}}, {"a", ConstView{a, DType::kF32, Shape{2}}}});
}

TEST(Safetensors, FileOfTheSpecification) {
  const test::TempDir dir;
  write_vector(dir / "v.safetensors");
  const std::string bytes = read_file(dir / "v.safetensors");
  ASSERT_EQ(bytes.size(), 8u + 144 + 12);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x90\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(bytes.substr(8, 144), R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                  R"("b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}}  )");
}

TEST(Safetensors, ReadsWhatWasWritten) {
  const test::TempDir dir;
  const double x[3] = {1.0, -0.0, 1e300};
  const std::int64_t ids[4] = {1, -2, 3, 1LL << 40};
  const std::uint8_t mask[5] = {0, 1, 1, 0, 1};
  write_safetensors(dir / "f.safetensors",
                    {{"mask", ConstView{mask, DType::kU8, Shape{5}}},
                     {"x", ConstView{x, DType::kF64, Shape{3, 1}}},
                     {"none", ConstView{x, DType::kF32, Shape{0, 7}}},
                     {"ids", ConstView{ids, DType::kI64, Shape{2, 2}}},
                     {"scalar", ConstView{x, DType::kF64, Shape{}}}},
                    {{"note", "hello"}});
  const SafetensorsReader file = SafetensorsReader::open(dir / "f.safetensors");
  EXPECT_EQ(file.metadata().at("note"), "hello");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.tensors()[0].name, "ids");
  EXPECT_EQ(file.tensors()[4].name, "mask");
  EXPECT_EQ(file.read("ids").span<std::int64_t>()[3], 1LL << 40);
  EXPECT_EQ(file.read("x").span<double>()[2], 1e300);
  EXPECT_TRUE(std::signbit(file.read("x").span<double>()[1]));
  EXPECT_EQ(file.read("scalar").numel(), 1);
  EXPECT_EQ(file.read("none").numel(), 0);
  EXPECT_THROW(file.read("absent"), UserError);
  Tensor wrong = Tensor::empty(Shape{3, 1}, DType::kF32);
  EXPECT_THROW(file.read_into(file.at("x"), wrong), UserError) << "no silent cast";
  EXPECT_THROW(file.read_as_float(file.at("ids"), Tensor::empty(Shape{2, 2}, DType::kF32)), UserError);
  file.read_as_float(file.at("x"), wrong);
  EXPECT_EQ(wrong.span<float>()[0], 1.0f);
}

TEST(Safetensors, SmallFloatsConvertExactly) {
  EXPECT_EQ(half_to_float(0x3c00), 1.0f);
  EXPECT_EQ(half_to_float(0xc000), -2.0f);
  EXPECT_EQ(half_to_float(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(half_to_float(0x7bff), 65504.0f);
  EXPECT_TRUE(std::isinf(half_to_float(0xfc00)));
  EXPECT_TRUE(std::isnan(half_to_float(0x7c01)));
  EXPECT_EQ(e4m3_to_float(0x7e), 448.0f);
  EXPECT_EQ(e4m3_to_float(0x01), std::ldexp(1.0f, -9));
  EXPECT_EQ(e4m3_to_float(0xb8), -1.0f);
  EXPECT_TRUE(std::isnan(e4m3_to_float(0xff)));
  EXPECT_EQ(e5m2_to_float(0x3c), 1.0f);
  EXPECT_EQ(e5m2_to_float(0x7b), 57344.0f);
  EXPECT_TRUE(std::isinf(e5m2_to_float(0x7c)));
}

TEST(Safetensors, NothingAppearsBeforeFinish) {
  const test::TempDir dir;
  {
    SafetensorsWriter writer(dir / "w.safetensors", {{"a", DType::kF32, Shape{1}}});
    EXPECT_THROW(writer.finish(), ContractError);
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const test::TempDir dir;
  write_vector(dir / "v.safetensors");
  const std::string bytes = read_file(dir / "v.safetensors");
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    write(dir / "cut.safetensors", bytes.substr(0, size));
    try {
      SafetensorsReader::open(dir / "cut.safetensors");
      ADD_FAILURE() << "accepted at " << size << " bytes";
    } catch (const DamagedDataError& error) {
      EXPECT_NE(std::string(error.what()).find("cut.safetensors"), std::string::npos);
    }
  }
  write(dir / "long.safetensors", bytes + "x");
  EXPECT_THROW(SafetensorsReader::open(dir / "long.safetensors"), DamagedDataError);
}

// A flipped bit of the header is refused, or changes only a name, the metadata or a type of equal size: never a position.
TEST(Safetensors, FlippedHeaderBitsNeverMoveData) {
  const test::TempDir dir;
  write_vector(dir / "v.safetensors");
  const std::string bytes = read_file(dir / "v.safetensors");
  int refused = 0;
  for (std::size_t bit = 0; bit < (8 + 144) * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    write(dir / "bad.safetensors", damaged);
    try {
      const SafetensorsReader file = SafetensorsReader::open(dir / "bad.safetensors");
      ASSERT_EQ(file.tensors().size(), 2u);
      EXPECT_EQ(file.tensors()[0].begin, 152u);
      EXPECT_EQ(file.tensors()[0].bytes, 8u);
      EXPECT_EQ(file.tensors()[1].bytes, 4u);
    } catch (const DamagedDataError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 900);
}

TEST(Safetensors, MalformedHeadersAreRefusedWithTheReason) {
  const test::TempDir dir;
  struct Case {
    const char* json;
    std::size_t data;
    const char* reason;
  };
  const Case cases[] = {
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
       "twice"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "twice"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4,
       "starts at"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "starts at"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "need 8"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "overflows"},
      {R"({"a":{"dtype":"F32","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0, "overflows"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "negative"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "fraction"},
      {R"({"a":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}})", 4, "dtype"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4, "unknown key"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "lacks"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "lacks"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}})", 4, "longer"},
      {R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "an array"},
      {R"({"../a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "name"},
      {R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "name"},
      {R"({"__metadata__":{"x":1}})", 0, "a number"},
      {R"({"__metadata__":{"x":{}}})", 0, "an object"},
      {R"({"a":3})", 0, "a number"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "the file holds 5"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 4, "JSON"},
      {R"({} {})", 0, "JSON"},
      {R"([])", 0, "'{'"},
      {R"( {})", 0, "'{'"},
  };
  for (const Case& bad : cases) {
    write(dir / "bad.safetensors", hand_made(bad.json, bad.data));
    try {
      SafetensorsReader::open(dir / "bad.safetensors");
      ADD_FAILURE() << "accepted: " << bad.json;
    } catch (const DamagedDataError& error) {
      EXPECT_NE(std::string(error.what()).find(bad.reason), std::string::npos) << bad.json << "\n" << error.what();
    }
  }
  std::string deep = "{\"a\":" + std::string(100000, '[');
  write(dir / "bad.safetensors", hand_made(deep, 0));
  EXPECT_THROW(SafetensorsReader::open(dir / "bad.safetensors"), DamagedDataError);
  write(dir / "bad.safetensors", std::string(7, '\xff') + "\x7f{}");
  EXPECT_THROW(SafetensorsReader::open(dir / "bad.safetensors"), DamagedDataError);
  EXPECT_THROW(SafetensorsReader::open(dir / "absent.safetensors"), UserError);
}

}  // namespace
}  // namespace hadal::interop
