// Reading tokenizer_config.json: only the names of the roles matter here, the rest is for other readers.
#include "tokenizer/json_reader.h"
#include "tokenizer/tokenizer_document.h"

namespace hadal::tokenizer {
namespace {

// A name, or an AddedToken object with its content.
std::string read_role(const JsonReader& reader) {
  if (reader.is_null()) return {};
  return reader.is_object() ? reader.member("content").string() : reader.string();
}

}  // namespace

TokenizerRoles parse_tokenizer_config(std::string_view json, const std::string& name) {
  const JsonReader reader = JsonReader::parse(json, name);
  reader.object();
  return {read_role(reader.member("bos_token")), read_role(reader.member("eos_token")), read_role(reader.member("pad_token"))};
}

}  // namespace hadal::tokenizer
