#include "kernels/local_rows.h"

#include <limits>

namespace hadal::kernels {

void run(Stream& stream, const LocalRows& args) {
  HADAL_CHECK(args.ids.numel() == args.rows.numel() && args.begin >= 0 && args.begin <= args.end &&
                  args.end <= std::numeric_limits<std::int32_t>::max(),
              "{} ids, {} rows of [{}, {})", args.ids.numel(), args.rows.numel(), args.begin, args.end);
  launch(stream, args);
}

}  // namespace hadal::kernels
