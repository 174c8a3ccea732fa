// Guards: where the memory between the kernels of selected attention is too small for all heads at once, heads are done in turns; the
// results are those of each key head alone, which fits.
#include "core/copy.h"
#include "tests/cuda/nsa_problem.h"

namespace hadal::test {
namespace {

using kernels::Heads;
using std::int64_t;

constexpr int64_t kTokens = 20000, kBlock = 64, kChosen = 16;

/// Normal values that repeat after 2^16: quickly made.
Tensor noise(Stream& stream, int64_t rows, int64_t columns, std::uint64_t seed) {
  Twin drawn = Twin::normal({1 << 16}, DType::kF32, seed);
  const double* const values = drawn.host().as<double>();
  Tensor host = Tensor::empty({rows, columns}, DType::kBf16);
  Bf16* const to = host.as<Bf16>();
  for (int64_t i = 0; i < host.numel(); ++i) to[i] = to_bf16(static_cast<float>(values[i * 40503 % (1 << 16)]));
  return to_device(stream, host, kGpu);
}

/// Heads [first, first + count).
Heads part(Heads heads, int64_t first, int64_t count) {
  if (!heads.defined()) return heads;
  heads.data = static_cast<char*>(heads.data) + static_cast<std::size_t>(first * heads.head_stride) * size_of(heads.dtype);
  heads.heads = count;
  return heads;
}

Heads whole(Tensor& x, int64_t heads) {
  if (!x.defined()) return {};
  const int64_t width = x.shape()[1] / heads;
  return kernels::heads_of(x.view(), heads, width, 0, width);
}

struct Form {
  int64_t heads, key_heads, width, shared, value, groups;
};

struct Results {
  explicit Results(const Form& f)
      : o(Tensor::empty({kTokens, f.heads * f.value}, DType::kBf16, kGpu)),
        lse(Tensor::empty({kTokens, f.heads}, DType::kF32, kGpu)),
        d_q(Tensor::empty({kTokens, f.heads * (f.width + f.shared)}, DType::kBf16, kGpu)),
        d_k(Tensor::empty({kTokens, f.key_heads * f.width}, DType::kBf16, kGpu)),
        d_v(Tensor::empty({kTokens, f.key_heads * f.value}, DType::kBf16, kGpu)) {
    if (f.shared > 0) d_shared = Tensor::empty({kTokens, f.shared}, DType::kBf16, kGpu);
  }
  Tensor o, lse, d_q, d_k, d_v, d_shared;
};

/// `ours`, heads of a row, beside those of one key head alone; the sums may round otherwise.
void expect_same(Stream& stream, const Tensor& ours, int64_t first, const Tensor& alone, const char* what) {
  const Tensor a = to_host(stream, ours), b = to_host(stream, alone);
  const int64_t columns = a.shape()[1], count = b.shape()[1];
  const auto at = [](const Tensor& x, int64_t i) { return x.dtype() == DType::kF32 ? x.as<float>()[i] : to_float(x.as<Bf16>()[i]); };
  float largest = 0, worst = 0;
  for (int64_t row = 0; row < kTokens; ++row) {
    for (int64_t i = 0; i < count; ++i) {
      const float x = at(a, row * columns + first * count + i), y = at(b, row * count + i);
      largest = std::max(largest, std::abs(y));
      worst = std::max(worst, std::abs(x - y) - std::abs(y) / 64);
      if (!(std::abs(x) < 1e6F)) worst = 1e6F;
    }
  }
  EXPECT_GT(largest, 0.0F) << what;
  EXPECT_LE(worst, 1e-3F * largest) << what << " of key head " << first;
}

void compare(const Form& f) {
  Stream stream = stream_of(kGpu);
  Tensor q = noise(stream, kTokens, f.heads * (f.width + f.shared), 1), k = noise(stream, kTokens, f.key_heads * f.width, 2),
         v = noise(stream, kTokens, f.key_heads * f.value, 3), d_o = noise(stream, kTokens, f.heads * f.value, 4), k_shared;
  if (f.shared > 0) k_shared = noise(stream, kTokens, f.shared, 5);
  Twin lists = random_blocks({1, kTokens, f.heads, f.key_heads, f.width, f.shared, f.value, f.groups, kBlock, kChosen});
  const Tensor all_blocks = to_host(stream, lists.device());
  const int64_t per_key = f.heads / f.key_heads;
  const auto run_heads = [&](Results& r, ConstView blocks, int64_t first, int64_t count) {
    const auto queries = [&](Tensor& x) { return part(whole(x, f.heads), first * per_key, count * per_key); };
    const auto keys = [&](Tensor& x) { return part(whole(x, f.key_heads), first, count); };
    const int64_t heads = count * per_key;
    run(stream, kernels::NsaSelectedForward{.q = queries(q),
                                            .k = keys(k),
                                            .k_shared = whole(k_shared, 1),
                                            .v = keys(v),
                                            .blocks = blocks,
                                            .select_block = kBlock,
                                            .scale = 0.07,
                                            .o = whole(r.o, heads),
                                            .lse = r.lse});
    run(stream, kernels::NsaSelectedBackward{.q = queries(q),
                                             .k = keys(k),
                                             .k_shared = whole(k_shared, 1),
                                             .v = keys(v),
                                             .blocks = blocks,
                                             .select_block = kBlock,
                                             .scale = 0.07,
                                             .o = whole(r.o, heads),
                                             .lse = r.lse,
                                             .d_o = queries(d_o),
                                             .d_q = whole(r.d_q, heads),
                                             .d_k = whole(r.d_k, count),
                                             .d_k_shared = whole(r.d_shared, 1),
                                             .d_v = whole(r.d_v, count)});
  };
  Results together(f);
  run_heads(together, lists.device(), 0, f.key_heads);
  for (const int64_t key_head : {int64_t{0}, f.key_heads - 1}) {
    Tensor blocks = Tensor::empty({kTokens, 1, kChosen}, DType::kI32);
    const int64_t group = key_head * f.groups / f.key_heads;
    for (int64_t row = 0; row < kTokens; ++row) {
      std::copy_n(all_blocks.as<std::int32_t>() + (row * f.groups + group) * kChosen, kChosen, blocks.as<std::int32_t>() + row * kChosen);
    }
    Results alone({per_key, 1, f.width, f.shared, f.value, 1});
    const Tensor on_device = to_device(stream, blocks, kGpu);
    run_heads(alone, on_device, key_head, 1);
    expect_same(stream, together.o, key_head, alone.o, "o");
    expect_same(stream, together.lse, key_head, alone.lse, "lse");
    expect_same(stream, together.d_q, key_head, alone.d_q, "d_q");
    expect_same(stream, together.d_k, key_head, alone.d_k, "d_k");
    expect_same(stream, together.d_v, key_head, alone.d_v, "d_v");
  }
}

TEST(CudaNsaTurns, GroupedHeadsEqualEachKeyHeadAlone) { compare({32, 2, 128, 0, 128, 2}); }

TEST(CudaNsaTurns, HeadsWithOwnKeysEqualEachAlone) { compare({16, 16, 128, 64, 128, 1}); }

}  // namespace
}  // namespace hadal::test
