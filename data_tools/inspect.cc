#include "data_tools/inspect.h"

#include <algorithm>
#include <vector>

namespace hadal::data_tools {

SourceFigures inspect(const data::TokenSource& source, std::int64_t eos) {
  constexpr std::uint64_t kChunk = 1 << 20;
  SourceFigures figures;
  figures.dtype = source.dtype_name();
  figures.shortest = source.num_documents() > 0 ? source.document_length(0) : 0;
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> mask;
  std::uint64_t document = 0;
  for (std::uint64_t begin = 0; begin < source.num_tokens(); begin += ids.size()) {
    ids.resize(std::min(kChunk, source.num_tokens() - begin));
    source.read(begin, ids);
    if (source.has_loss_mask()) {
      mask.resize(ids.size());
      source.read_loss_mask(begin, mask);
    }
    figures.max_id = std::max<std::int64_t>(figures.max_id, *std::ranges::max_element(ids));
    const std::uint64_t end = begin + ids.size();
    for (; document < source.num_documents() && source.doc_ends()[document] <= end; ++document) {
      const std::uint64_t length = source.document_length(document);
      figures.shortest = std::min(figures.shortest, length);
      figures.longest = std::max(figures.longest, length);
      if (length > 0 && eos >= 0 && ids[source.doc_ends()[document] - 1 - begin] == eos) ++figures.ending_in_eos;
    }
  }
  return figures;
}

}  // namespace hadal::data_tools
