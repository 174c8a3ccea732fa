// Strided copies on the device, in 16-byte units where both matrices allow it; dims that lie packed in both are merged first.
#include "kernels/copy_heads.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/row_parts.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// How both matrices lie, in elements or in units.
struct Layout {
  std::int64_t tokens, heads, width;
  std::int64_t x_token, x_head, y_token, y_head;

  /// The same in units of `elements`.
  Layout in_units(std::int64_t elements) const {
    return {tokens, heads, width / elements, x_token / elements, x_head / elements, y_token / elements, y_head / elements};
  }
  std::int64_t count() const { return tokens * heads * width; }
};

Layout layout_of(const ConstHeads& x, const ConstHeads& y) {
  Layout l{x.tokens, x.heads, x.width, x.token_stride, x.head_stride, y.token_stride, y.head_stride};
  if (l.heads == 1) l.x_head = l.y_head = l.width;
  if (l.tokens == 1) l.x_token = l.y_token = l.heads * l.width;
  if (l.x_head == l.width && l.y_head == l.width) {
    l.width *= l.heads;
    l.heads = 1;
    l.x_head = l.y_head = l.width;
    if (l.x_token == l.width && l.y_token == l.width) {
      l.width *= l.tokens;
      l.tokens = 1;
      l.x_head = l.y_head = l.x_token = l.y_token = l.width;
    }
  }
  return l;
}

/// Whether everything is a multiple of `bytes`: addresses, strides, widths.
bool in_units_of(std::int64_t bytes, const CopyHeads& args, const Layout& l) {
  const auto size = static_cast<std::int64_t>(size_of(args.x.dtype));
  const std::int64_t elements = l.width | l.x_token | l.x_head | l.y_token | l.y_head;
  const auto addresses = reinterpret_cast<std::uintptr_t>(args.x.data) | reinterpret_cast<std::uintptr_t>(args.y.data);
  return elements * size % bytes == 0 && addresses % static_cast<std::uintptr_t>(bytes) == 0;
}

struct Offsets {
  std::int64_t x, y;
};

/// Of unit i, in row-major order.
__device__ Offsets offsets_of(const Layout& l, std::int64_t i) {
  const std::int64_t row = i / l.width, column = i - row * l.width, token = row / l.heads, head = row - token * l.heads;
  return {token * l.x_token + head * l.x_head + column, token * l.y_token + head * l.y_head + column};
}

template <class Unit>
__global__ void __launch_bounds__(kThreads) copy_kernel(const Unit* x, Unit* y, Layout l, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const Offsets at = offsets_of(l, i);
  y[at.y] = x[at.x];
}

template <class T, int Width>
__global__ void __launch_bounds__(kThreads) add_kernel(const T* x, T* y, Layout l, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const Offsets at = offsets_of(l, i);
  const auto from = load_part<T, Width>(x + at.x * Width);
  auto to = load_part<T, Width>(y + at.y * Width);
#pragma unroll
  for (int j = 0; j < Width; ++j) to.at[j] = from_float<T>(to_float(to.at[j]) + to_float(from.at[j]));
  store_part(y + at.y * Width, to);
}

unsigned blocks_for(std::int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

template <class Unit>
void launch_copy(Stream& stream, const CopyHeads& args, const Layout& l) {
  copy_kernel<<<blocks_for(l.count()), kThreads, 0, native(stream)>>>(static_cast<const Unit*>(args.x.data), static_cast<Unit*>(args.y.data), l,
                                                                      l.count());
}

template <class T, int Width>
void launch_add(Stream& stream, const CopyHeads& args, const Layout& l) {
  add_kernel<T, Width>
      <<<blocks_for(l.count()), kThreads, 0, native(stream)>>>(static_cast<const T*>(args.x.data), static_cast<T*>(args.y.data), l, l.count());
}

void copy_heads(Stream& stream, const CopyHeads& args) {
  const Layout l = layout_of(args.x, args.y);
  const auto size = static_cast<std::int64_t>(size_of(args.x.dtype));
  if (args.accumulate) {
    visit(args.y.dtype, [&]<class T>() {
      constexpr int kWidth = Vec16<T>::kCount;
      if (in_units_of(16, args, l)) {
        launch_add<T, kWidth>(stream, args, l.in_units(kWidth));
      } else {
        launch_add<T, 1>(stream, args, l);
      }
    });
  } else if (in_units_of(16, args, l)) {
    launch_copy<uint4>(stream, args, l.in_units(16 / size));
  } else if (size == 4) {
    launch_copy<std::uint32_t>(stream, args, l);
  } else if (size == 2) {
    launch_copy<std::uint16_t>(stream, args, l);
  } else {
    throw ContractError(fmt::format("heads of {} copied on CUDA", name_of(args.x.dtype)));
  }
  check_launch(CopyHeads::kName);
}

const RegisterCuda<CopyHeads> registered{copy_heads};

}  // namespace
}  // namespace hadal::kernels::cuda
