// Which operand of a matrix product is stored transposed.
#pragma once

namespace hadal::kernels::cpu {

enum class Transpose : bool { kNo = false, kYes = true };

}  // namespace hadal::kernels::cpu
