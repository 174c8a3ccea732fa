#include "parallel/context_parallel.h"

#include <algorithm>

#include "core/copy.h"
#include "kernels/copy_heads.h"
#include "parallel/rounded_sum.h"

namespace hadal::parallel {
namespace {

using kernels::ConstHeads;
using kernels::Heads;
using nn::RowSpacing;
using nn::Segment;
using std::int64_t;

std::vector<Segment> zigzag(int rank, int ranks, int64_t seq) {
  const int64_t chunk = seq / (2 * ranks), first = rank * chunk, second = (2 * ranks - 1 - rank) * chunk;
  if (first + chunk == second) return {{first, 2 * chunk}};
  return {{first, chunk}, {second, chunk}};
}

/// `count` rows of `from`, from row `from_row` on, to those of `to` from `to_row` on.
void copy_rows(Stream& stream, const ConstHeads& from, int64_t from_row, const Heads& to, int64_t to_row, int64_t count) {
  run(stream, kernels::CopyHeads{.x = token_rows(from, from_row, count), .y = token_rows(to, to_row, count)});
}

/// How the rows of an exchange lie in a message: matrix after matrix, each [B * most rows of any rank, heads * w].
class Message {
 public:
  template <class Matrices>
  Message(const std::vector<std::vector<Segment>>& tokens, RowSpacing spacing, int64_t batch, const Matrices& matrices)
      : batch_(batch), count_(spacing.count), dtype_(matrices[0].dtype) {
    for (const std::vector<Segment>& of_rank : tokens) {
      segments_.push_back(nn::rows_in(of_rank, spacing));
      rows_.push_back(0);
      for (const Segment& segment : segments_.back()) rows_.back() += segment.length;
    }
    most_rows_ = *std::max_element(rows_.begin(), rows_.end());
    for (const auto& matrix : matrices) {
      HADAL_CHECK(matrix.dtype == dtype_, "matrices of {} and {} in one exchange", name_of(dtype_), name_of(matrix.dtype));
      offsets_.push_back(numel_);
      numel_ += batch * most_rows_ * matrix.heads * matrix.width;
    }
  }

  int64_t numel() const { return numel_; }
  DType dtype() const { return dtype_; }
  int64_t rows(int rank) const { return rows_[static_cast<std::size_t>(rank)]; }
  bool padded() const {
    return std::any_of(rows_.begin(), rows_.end(), [&](int64_t rows) { return rows != most_rows_; });
  }
  /// Rows of matrix m inside the message at `data`, shaped like `like`.
  Heads inside(void* data, std::size_t m, const ConstHeads& like) const {
    Heads heads;
    heads.data = static_cast<char*>(data) + static_cast<std::size_t>(offsets_[m]) * size_of(dtype_);
    heads.dtype = dtype_;
    heads.tokens = batch_ * most_rows_;
    heads.heads = like.heads;
    heads.width = like.width;
    heads.token_stride = like.heads * like.width;
    heads.head_stride = like.width;
    return heads;
  }
  /// body(rank, matrix, row of its message, row of whole sequences, rows).
  template <class Body>
  void for_each_run(std::size_t matrices, const Body& body) const {
    for (std::size_t rank = 0; rank < rows_.size(); ++rank) {
      for (std::size_t m = 0; m < matrices; ++m) {
        for (int64_t b = 0; b < batch_; ++b) {
          int64_t row = b * rows_[rank];
          for (const Segment& segment : segments_[rank]) {
            body(static_cast<int64_t>(rank), m, row, b * count_ + segment.position, segment.length);
            row += segment.length;
          }
        }
      }
    }
  }

 private:
  int64_t batch_, count_;
  DType dtype_;
  std::vector<std::vector<Segment>> segments_;  ///< of each rank, in rows of the spacing
  std::vector<int64_t> rows_;                   ///< of a sequence, of each rank
  int64_t most_rows_ = 0;
  std::vector<int64_t> offsets_;  ///< of each matrix
  int64_t numel_ = 0;
};

template <class Local, class Whole>
void check_matrices(const Local& local, const Whole& whole, const Message& message, int rank, int64_t batch, RowSpacing spacing) {
  HADAL_CHECK(local.size() == whole.size(), "{} local matrices, {} whole ones", local.size(), whole.size());
  for (std::size_t m = 0; m < local.size(); ++m) {
    const ConstHeads a = local[m], b = whole[m];
    HADAL_CHECK(a.tokens == batch * message.rows(rank) && b.tokens == batch * spacing.count && a.heads == b.heads &&
                    a.width == b.width && a.dtype == b.dtype,
                "matrix {}: local [{}, {}, {}], wanted {} rows; whole [{}, {}, {}], wanted {} rows", m, a.tokens, a.heads,
                a.width, batch * message.rows(rank), b.tokens, b.heads, b.width, batch * spacing.count);
  }
}

}  // namespace

ContextParallel::ContextParallel(comm::Communicator& cp, std::int64_t seq) : cp_(cp), seq_(seq) {
  if (seq % (2 * cp.size()) != 0) {
    throw UserError("sequences of {} tokens over context parallelism {}: the length must be a multiple of {}", seq, cp.size(),
                    2 * cp.size());
  }
  for (int rank = 0; rank < cp.size(); ++rank) segments_.push_back(zigzag(rank, cp.size(), seq));
}

void ContextParallel::gather(Stream& stream, std::int64_t batch, RowSpacing spacing, std::span<const ConstHeads> local,
                             std::span<const Heads> whole) const {
  const Message message(segments_, spacing, batch, local);
  check_matrices(local, whole, message, cp_.rank(), batch, spacing);
  if (message.numel() == 0) return;
  Tensor all = Tensor::empty({cp_.size(), message.numel()}, message.dtype(), stream.device());
  const View mine = all.view().rows(cp_.rank(), cp_.rank() + 1);
  if (message.padded()) fill_zero(stream, mine);
  for (std::size_t m = 0; m < local.size(); ++m) {
    copy_rows(stream, local[m], 0, message.inside(mine.data, m, local[m]), 0, local[m].tokens);
  }
  cp_.all_gather(mine, all);
  message.for_each_run(whole.size(), [&](int64_t rank, std::size_t m, int64_t row, int64_t whole_row, int64_t rows) {
    copy_rows(stream, message.inside(all.view().rows(rank, rank + 1).data, m, whole[m]), row, whole[m], whole_row, rows);
  });
}

void ContextParallel::reduce_scatter(Stream& stream, std::int64_t batch, RowSpacing spacing, std::span<const ConstHeads> whole,
                                     std::span<const Heads> local) const {
  const Message message(segments_, spacing, batch, whole);
  check_matrices(local, whole, message, cp_.rank(), batch, spacing);
  if (message.numel() == 0) return;
  Tensor all = Tensor::empty({cp_.size(), message.numel()}, message.dtype(), stream.device());
  if (message.padded()) all.fill_zero();
  message.for_each_run(whole.size(), [&](int64_t rank, std::size_t m, int64_t row, int64_t whole_row, int64_t rows) {
    copy_rows(stream, whole[m], whole_row, message.inside(all.view().rows(rank, rank + 1).data, m, whole[m]), row, rows);
  });
  const View mine = all.view().rows(cp_.rank(), cp_.rank() + 1);
  reduce_scatter_sum(stream, cp_, all, mine);
  for (std::size_t m = 0; m < local.size(); ++m) {
    copy_rows(stream, message.inside(mine.data, m, local[m]), 0, local[m], 0, local[m].tokens);
  }
}

}  // namespace hadal::parallel
