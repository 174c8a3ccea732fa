#include "tokenizer/tokenizer.h"

#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"
#include "tokenizer/byte_map.h"
#include "tokenizer/tokenizer_document.h"
#include "tokenizer/tokenizer_model.h"
#include "tokenizer/utf8.h"

namespace hadal::tokenizer {
namespace {

constexpr const char* kJsonName = "tokenizer.json";
constexpr const char* kConfigName = "tokenizer_config.json";

// -1 for an empty name; a name that is no token of the vocabulary is an error of the file.
std::int32_t role_id(const TokenizerModel& model, const std::string& role, const std::string& file, const char* key) {
  if (role.empty()) return -1;
  const auto found = model.ids.find(role);
  if (found == model.ids.end()) throw UserError("{}: {}: '{}' is not in the vocabulary", file, key, role);
  return found->second;
}

std::int32_t id_or_none(const TokenizerModel& model, std::string_view token) {
  const auto found = model.ids.find(token);
  return found == model.ids.end() ? -1 : found->second;
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const TokenizerModel> model) : model_(std::move(model)) {}

Tokenizer Tokenizer::from_json(std::string_view json, std::string_view config, const std::string& name) {
  auto model = std::make_shared<TokenizerModel>(parse_tokenizer_json(json, name));
  model->json = json;
  model->config = config;
  model->hash = hash128(std::as_bytes(std::span(json))).hex();
  if (config.empty()) {
    // Nothing names the roles: the post-processor's token, and the names that Hadal itself writes.
    model->bos_id = model->document.template_bos >= 0 ? model->document.template_bos : id_or_none(*model, "<|bos|>");
    model->eos_id = id_or_none(*model, "<|eos|>");
    model->pad_id = id_or_none(*model, "<|pad|>");
  } else {
    const std::string config_name = (std::filesystem::path(name).parent_path() / kConfigName).string();
    const TokenizerRoles roles = parse_tokenizer_config(config, config_name);
    model->bos_id = role_id(*model, roles.bos, config_name, "bos_token");
    model->eos_id = role_id(*model, roles.eos, config_name, "eos_token");
    model->pad_id = role_id(*model, roles.pad, config_name, "pad_token");
  }
  return Tokenizer(std::move(model));
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  const auto json_path = std::filesystem::is_directory(path) ? path / kJsonName : path;
  const auto config_path = json_path.parent_path() / kConfigName;
  const std::string json = read_file(json_path, kMaxTokenizerBytes);
  const std::string config = std::filesystem::exists(config_path) ? read_file(config_path, kMaxTokenizerBytes) : std::string();
  return from_json(json, config, json_path.string());
}

void Tokenizer::save(const std::filesystem::path& directory) const {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw IoError("{}: cannot be created: {}", directory.string(), error.message());
  write_file_atomically(directory / kJsonName, model_->json);
  if (!model_->config.empty()) write_file_atomically(directory / kConfigName, model_->config);
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_bos) const {
  std::vector<std::int32_t> ids;
  if (add_bos) {
    if (bos_id() < 0) throw UserError("this tokenizer has no beginning-of-sequence token");
    ids.push_back(bos_id());
  }
  encode_append(text, ids);
  return ids;
}

std::size_t Tokenizer::encode_append(std::string_view text, std::vector<std::int32_t>& ids) const {
  if (valid_prefix(text) == text.size()) {
    model_->encode(text, ids);
    return 0;
  }
  std::size_t replaced = 0;
  model_->encode(replace_invalid(text, replaced), ids);
  return replaced;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string text;
  for (const std::int32_t id : ids) {
    const std::string_view bytes = token_bytes(id);
    if (!skip_special || !is_special(id)) text.append(bytes);
  }
  return text;
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  if (id < 0 || id >= vocab_size()) throw UserError("token id {} is outside the vocabulary of {}", id, vocab_size());
  return model_->bytes[static_cast<std::size_t>(id)];
}

std::int32_t Tokenizer::vocab_size() const { return static_cast<std::int32_t>(model_->bytes.size()); }
std::size_t Tokenizer::num_merges() const { return model_->document.merges.size(); }
std::int32_t Tokenizer::id_of(std::string_view token) const { return id_or_none(*model_, token); }

std::string Tokenizer::token_text(std::int32_t id) const {
  const std::string_view bytes = token_bytes(id);
  for (const AddedToken& token : model_->document.added_tokens) {
    if (token.id == id) return token.content;
  }
  return map_bytes(bytes);
}

bool Tokenizer::is_special(std::int32_t id) const {
  return id >= 0 && id < vocab_size() && model_->special[static_cast<std::size_t>(id)];
}

std::int32_t Tokenizer::bos_id() const { return model_->bos_id; }
std::int32_t Tokenizer::eos_id() const { return model_->eos_id; }
std::int32_t Tokenizer::pad_id() const { return model_->pad_id; }
std::int32_t Tokenizer::fim_begin_id() const { return id_of("<|fim_begin|>"); }
std::int32_t Tokenizer::fim_hole_id() const { return id_of("<|fim_hole|>"); }
std::int32_t Tokenizer::fim_end_id() const { return id_of("<|fim_end|>"); }

std::vector<std::int32_t> Tokenizer::added_token_ids() const {
  std::vector<std::int32_t> ids;
  for (const AddedToken& token : model_->document.added_tokens) ids.push_back(token.id);
  return ids;
}

PreTokenizerKind Tokenizer::pre_tokenizer_kind() const { return model_->document.pre_tokenizer; }
const std::string& Tokenizer::hash() const { return model_->hash; }
const std::string& Tokenizer::json() const { return model_->json; }
const std::string& Tokenizer::config_json() const { return model_->config; }

}  // namespace hadal::tokenizer
