// Tokenizer::encode_all: many texts, or one long one, on all threads. Where text is cut depends on the text alone.
#include <algorithm>
#include <atomic>

#include "core/parallel_for.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_model.h"

namespace hadal::tokenizer {
namespace {

constexpr std::size_t kTaskBytes = std::size_t{64} << 10;

struct Task {
  std::size_t text = 0;
  std::string_view part;
  std::vector<std::int32_t> ids;
};

}  // namespace

std::vector<std::vector<std::int32_t>> Tokenizer::encode_all(std::span<const std::string_view> texts,
                                                             std::size_t* replaced) const {
  // Cuts fall beside line ends: an added token that holds one might be cut in two.
  const auto& added = model_->document.added_tokens;
  const bool may_cut = std::none_of(added.begin(), added.end(), [](const AddedToken& token) {
    return token.content.find_first_of("\r\n") != std::string::npos;
  });
  std::vector<Task> tasks;
  std::size_t total = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::string_view text = texts[i];
    total += text.size();
    for (std::size_t begin = 0; begin < text.size();) {
      const bool cut = may_cut && begin + kTaskBytes < text.size();
      const std::size_t end = cut ? find_safe_cut(pre_tokenizer_kind(), text, begin + kTaskBytes) : text.size();
      tasks.push_back({.text = i, .part = text.substr(begin, end - begin), .ids = {}});
      begin = end;
    }
  }
  // Short texts go to a thread by the handful.
  const auto handful = static_cast<std::int64_t>(tasks.size() * kTaskBytes / std::max<std::size_t>(total, 1));
  const std::int64_t most = std::max<std::int64_t>(1, std::ssize(tasks) / (8 * num_threads()));
  std::atomic<std::size_t> num_replaced{0};
  parallel_ranges(std::ssize(tasks), std::clamp<std::int64_t>(handful, 1, most), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      Task& task = tasks[static_cast<std::size_t>(i)];
      num_replaced += encode_append(task.part, task.ids);
    }
  });
  if (replaced != nullptr) *replaced += num_replaced;

  std::vector<std::vector<std::int32_t>> ids(texts.size());
  for (Task& task : tasks) {
    std::vector<std::int32_t>& into = ids[task.text];
    if (into.empty()) {
      into = std::move(task.ids);
    } else {
      into.insert(into.end(), task.ids.begin(), task.ids.end());
    }
  }
  return ids;
}

}  // namespace hadal::tokenizer
