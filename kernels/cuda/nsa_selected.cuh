// The tensor-core paths of attention over selected blocks; kernels/cuda/nsa_selected.cu holds the plain one and chooses.
#pragma once

#include "kernels/cuda/nsa_index.cuh"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {

/// True if they did the work: bf16 heads of a size and alignment that they know.
bool union_forward(Stream& stream, const NsaSelectedForward& args);
bool mma_forward(Stream& stream, const NsaSelectedForward& args);
bool mma_backward(Stream& stream, const NsaSelectedBackward& args);

/// delta[t, h] = <d_o, o>, [B*S, H].
template <class T>
void row_products(Stream& stream, const SelectedSizes& sizes, HeadRows<const T> o, HeadRows<const T> d_o, float* delta);

/// d_k_shared (+)= the sum over key heads of partial [B*Sk, Hk, ws].
template <class T>
void sum_shared(Stream& stream, const SelectedSizes& sizes, const float* partial, HeadRows<T> d_k_shared, bool add);

}  // namespace hadal::kernels::cuda
