// Guards: where the memory between the kernels of selected attention is too small for all heads at once, heads are done in turns, and where
// it is too small for one head, tokens too; the results are those of heads that fit.
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

struct Range {
  int64_t first, count;
};

struct Inputs {
  Inputs(Stream& stream, const Form& form)
      : f(form),
        q(noise(stream, kTokens, f.heads * (f.width + f.shared), 1)),
        k(noise(stream, kTokens, f.key_heads * f.width, 2)),
        v(noise(stream, kTokens, f.key_heads * f.value, 3)),
        d_o(noise(stream, kTokens, f.heads * f.value, 4)) {
    if (f.shared > 0) k_shared = noise(stream, kTokens, f.shared, 5);
  }

  /// Forward and backward of some heads, whose results alone are in `r`.
  void run_heads(Stream& stream, Results& r, ConstView blocks, Range query_heads, Range key_heads) {
    const auto queries = [&](Tensor& x) { return part(whole(x, f.heads), query_heads.first, query_heads.count); };
    const auto keys = [&](Tensor& x) { return part(whole(x, f.key_heads), key_heads.first, key_heads.count); };
    run(stream, kernels::NsaSelectedForward{.q = queries(q),
                                            .k = keys(k),
                                            .k_shared = whole(k_shared, 1),
                                            .v = keys(v),
                                            .blocks = blocks,
                                            .select_block = kBlock,
                                            .scale = 0.07,
                                            .o = whole(r.o, query_heads.count),
                                            .lse = r.lse});
    run(stream, kernels::NsaSelectedBackward{.q = queries(q),
                                             .k = keys(k),
                                             .k_shared = whole(k_shared, 1),
                                             .v = keys(v),
                                             .blocks = blocks,
                                             .select_block = kBlock,
                                             .scale = 0.07,
                                             .o = whole(r.o, query_heads.count),
                                             .lse = r.lse,
                                             .d_o = queries(d_o),
                                             .d_q = whole(r.d_q, query_heads.count),
                                             .d_k = whole(r.d_k, key_heads.count),
                                             .d_k_shared = whole(r.d_shared, 1),
                                             .d_v = whole(r.d_v, key_heads.count)});
  }

  Form f;
  Tensor q, k, v, d_o, k_shared;
};

Twin lists_of(const Form& f) { return random_blocks({1, kTokens, f.heads, f.key_heads, f.width, f.shared, f.value, f.groups, kBlock, kChosen}); }

float value_at(const Tensor& x, int64_t i) { return x.dtype() == DType::kF32 ? x.as<float>()[i] : to_float(x.as<Bf16>()[i]); }

/// `ours`, rows of several heads, beside rows of some of them, or of sums over heads, that come from elsewhere; they may round otherwise.
void expect_same(Stream& stream, const Tensor& ours, int64_t first, const std::vector<const Tensor*>& others, const char* what,
                 float allowed = 1e-3F) {
  const Tensor a = to_host(stream, ours);
  std::vector<Tensor> parts;
  for (const Tensor* other : others) parts.push_back(to_host(stream, *other));
  const int64_t columns = a.shape()[1], count = parts[0].shape()[1];
  float largest = 0, worst = 0;
  for (int64_t row = 0; row < kTokens; ++row) {
    for (int64_t i = 0; i < count; ++i) {
      const float x = value_at(a, row * columns + first * count + i);
      float y = 0;
      for (const Tensor& part : parts) y += value_at(part, row * count + i);
      largest = std::max(largest, std::abs(y));
      worst = std::max(worst, std::abs(x - y) - std::abs(y) / 64);
      if (!(std::abs(x) < 1e6F)) worst = 1e6F;
    }
  }
  EXPECT_GT(largest, 0.0F) << what;
  EXPECT_LE(worst, allowed * largest) << what << " from head " << first;
}

void compare(const Form& f) {
  Stream stream = stream_of(kGpu);
  Inputs in(stream, f);
  Twin lists = lists_of(f);
  const Tensor all_blocks = to_host(stream, lists.device());
  const int64_t per_key = f.heads / f.key_heads;
  Results together(f);
  in.run_heads(stream, together, lists.device(), {0, f.heads}, {0, f.key_heads});
  for (const int64_t key_head : {int64_t{0}, f.key_heads - 1}) {
    Tensor blocks = Tensor::empty({kTokens, 1, kChosen}, DType::kI32);
    const int64_t group = key_head * f.groups / f.key_heads;
    for (int64_t row = 0; row < kTokens; ++row) {
      std::copy_n(all_blocks.as<std::int32_t>() + (row * f.groups + group) * kChosen, kChosen, blocks.as<std::int32_t>() + row * kChosen);
    }
    Results alone({per_key, 1, f.width, f.shared, f.value, 1});
    const Tensor on_device = to_device(stream, blocks, kGpu);
    in.run_heads(stream, alone, on_device, {key_head * per_key, per_key}, {key_head, 1});
    expect_same(stream, together.o, key_head, {&alone.o}, "o");
    expect_same(stream, together.lse, key_head, {&alone.lse}, "lse");
    expect_same(stream, together.d_q, key_head, {&alone.d_q}, "d_q");
    expect_same(stream, together.d_k, key_head, {&alone.d_k}, "d_k");
    expect_same(stream, together.d_v, key_head, {&alone.d_v}, "d_v");
  }
}

TEST(CudaNsaTurns, GroupedHeadsEqualEachKeyHeadAlone) { compare({32, 2, 128, 0, 128, 2}); }

// The heads of one key head are too many for all tokens at once: tokens in turns, beside the heads in two halves, which fit.
TEST(CudaNsaTurns, TokensInTurnsEqualHalfOfTheHeads) {
  const Form f{32, 1, 128, 0, 128, 1}, half_form{16, 1, 128, 0, 128, 1};
  Stream stream = stream_of(kGpu);
  Inputs in(stream, f);
  Twin lists = lists_of(f);
  Results together(f), halves[2]{Results(half_form), Results(half_form)};
  in.run_heads(stream, together, lists.device(), {0, 32}, {0, 1});
  for (int64_t half = 0; half < 2; ++half) {
    in.run_heads(stream, halves[half], lists.device(), {half * 16, 16}, {0, 1});
    expect_same(stream, together.d_q, half, {&halves[half].d_q}, "d_q");
  }
  expect_same(stream, together.d_k, 0, {&halves[0].d_k, &halves[1].d_k}, "d_k", 4e-3F);  // each half was rounded
  expect_same(stream, together.d_v, 0, {&halves[0].d_v, &halves[1].d_v}, "d_v", 4e-3F);
}

TEST(CudaNsaTurns, HeadsWithOwnKeysEqualEachAlone) { compare({16, 16, 128, 64, 128, 1}); }

}  // namespace
}  // namespace hadal::test
