#include "kernels/local_rows.h"

#include <algorithm>

namespace hadal::kernels {
namespace {

void local_rows(Stream&, const LocalRows& args) {
  std::ranges::transform(args.ids.span<std::int32_t>(), args.rows.as<std::int32_t>(), [&](std::int32_t id) {
    return id >= args.begin && id < args.end ? static_cast<std::int32_t>(id - args.begin) : std::int32_t{-1};
  });
}

const RegisterCpu<LocalRows> registered{local_rows};

}  // namespace
}  // namespace hadal::kernels
