#include <algorithm>

#include "core/parallel_for.h"
#include "kernels/cpu/simd/gated_pooling.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector_ops.h"
#include "kernels/dispatch.h"
#include "kernels/nsa.h"
#include "kernels/op.h"

HADAL_SIMD_PICK(GatedPooling, gated_pooling)

namespace hadal::kernels {
namespace {

using std::int64_t;

constexpr int64_t kChannels = 64;  // channels of a task; they are independent of each other

template <class T, class Matrix>
auto at(const Matrix& x, int64_t token, int64_t head, int64_t channel) {
  return x.template as<T>() + token * x.token_stride + head * x.head_stride + channel;
}

void forward(Stream&, const NsaCompressForward& args) {
  visit_float(args.x.dtype, [&]<class T>() {
    const auto& pooling = simd::gated_pooling<T>();
    const int64_t tokens = args.x.tokens / args.batch, width = args.x.width, groups = args.x.heads;
    const int64_t blocks = num_compressed(tokens, args.block_length, args.block_stride);
    const int64_t chunks = (width + kChannels - 1) / kChannels;
    const T* const position = args.position.as<T>();
    parallel_for(args.batch * groups * chunks, [&](int64_t task) {
      const int64_t b = task / chunks / groups, g = task / chunks % groups, c = task % chunks * kChannels;
      for (int64_t i = 0; i < blocks; ++i) {
        const int64_t token = b * tokens + i * args.block_stride;
        pooling.forward({args.block_length, std::min(kChannels, width - c), at<T>(args.x, token, g, c), args.x.token_stride,
                         at<T>(args.logits, token, g, c), args.logits.token_stride, position + c, width},
                        at<T>(args.y, b * blocks + i, g, c));
      }
    });
  });
}

void backward(Stream&, const NsaCompressBackward& args) {
  visit_float(args.x.dtype, [&]<class T>() {
    const auto& pooling = simd::gated_pooling<T>();
    const auto& vector = simd::vector_ops<T>();
    const int64_t tokens = args.x.tokens / args.batch, width = args.x.width, groups = args.x.heads, length = args.block_length;
    const int64_t blocks = num_compressed(tokens, length, args.block_stride);
    const int64_t chunks = (width + kChannels - 1) / kChannels, size = length * width;
    const T* const position = args.position.as<T>();
    Tensor partial = Tensor::zeros({args.batch * groups, size}, kDTypeOf<T>);  // d_position of each (sequence, group)
    parallel_for(args.batch * groups * chunks, [&](int64_t task) {
      const int64_t b = task / chunks / groups, g = task / chunks % groups, c = task % chunks * kChannels;
      const int64_t channels = std::min(kChannels, width - c);
      for (int64_t token = b * tokens; token < (b + 1) * tokens; ++token) {
        if (!args.add_to_x) std::fill_n(at<T>(args.d_x, token, g, c), channels, T{0});
        std::fill_n(at<T>(args.d_logits, token, g, c), channels, T{0});
      }
      for (int64_t i = 0; i < blocks; ++i) {
        const int64_t token = b * tokens + i * args.block_stride;
        pooling.backward({length, channels, at<T>(args.x, token, g, c), args.x.token_stride, at<T>(args.logits, token, g, c),
                          args.logits.token_stride, position + c, width},
                         at<T>(args.d_y, b * blocks + i, g, c),
                         {at<T>(args.d_x, token, g, c), args.d_x.token_stride, at<T>(args.d_logits, token, g, c),
                          args.d_logits.token_stride, partial.template as<T>() + (b * groups + g) * size + c});
      }
    });
    for (int64_t i = 0; i < args.batch * groups; ++i) {
      vector.add(size, partial.template as<T>() + i * size, args.d_position.as<T>());
    }
  });
}

const RegisterCpu<NsaCompressForward> registered_forward{forward};
const RegisterCpu<NsaCompressBackward> registered_backward{backward};

}  // namespace
}  // namespace hadal::kernels
