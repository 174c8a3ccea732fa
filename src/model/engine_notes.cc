#include "model/engine_notes.h"

#include <fmt/core.h>

#include <cstdint>
#include <utility>

namespace hadal::model {
namespace {

class Note {
 public:
  explicit Note(std::string_view engine) { note_.engine = engine; }

  template <class... Args>
  void refuse_if(bool bad, fmt::format_string<Args...> format, Args&&... args) {
    if (!bad) return;
    note_.ok = false;
    say(fmt::format(format, std::forward<Args>(args)...));
  }
  template <class... Args>
  void remark_if(bool odd, fmt::format_string<Args...> format, Args&&... args) {
    if (odd) say(fmt::format(format, std::forward<Args>(args)...));
  }
  EngineNote take() { return std::move(note_); }

 private:
  void say(const std::string& text) { note_.reason += fmt::format("{}{}", note_.reason.empty() ? "" : "; ", text); }

  EngineNote note_;
};

/// What every engine's DeepSeek class assumes.
void common_rules(const ModelSection& model, Note& note) {
  const MoeSection& moe = model.moe;
  note.refuse_if(model.rms_norm_eps != 1e-6, "model.rms_norm_eps {} (the latent norms are built with 1e-6)", model.rms_norm_eps);
  note.refuse_if(moe.num_experts > 0 && moe.num_shared == 0, "model.moe.num_shared 0 (the shared expert is always built)");
  note.remark_if(model.mtp.depth > 0 && export_model_type(model) == "deepseek_v2",
                 "deepseek_v2 has no MTP: export with --no-mtp");
}

EngineNote vllm_note(const ModelSection& model) {
  Note note("vllm");
  common_rules(model, note);
  const std::int64_t head_size = model.attention.kv_lora_rank + model.attention.qk_rope_head_dim;
  const bool ready = head_size == 576 || head_size == 320;
  note.remark_if(!ready, "MLA head size kv_lora_rank + qk_rope_head_dim is {}, not 576 or 320: only with VLLM_MLA_DISABLE=1",
                 head_size);
  return note.take();
}

EngineNote sglang_note(const ModelSection& model) {
  Note note("sglang");
  common_rules(model, note);
  const std::int64_t head_size = model.attention.kv_lora_rank + model.attention.qk_rope_head_dim;
  note.remark_if(head_size != 576, "MLA head size is {}, not 576: only with --attention-backend triton", head_size);
  note.remark_if(model.mtp.depth > 1, "model.mtp.depth {}: export with --no-mtp, one module at most is read", model.mtp.depth);
  return note.take();
}

EngineNote llama_cpp_note(const ModelSection& model) {
  Note note("llama.cpp");
  common_rules(model, note);
  const AttentionSection& a = model.attention;
  const std::int64_t layers = model.num_layers;
  const bool lite = layers == 26 || layers == 27 || (layers == 48 && model.vocab_size == 128256);
  note.refuse_if(lite && a.q_lora_rank > 0, "model.num_layers {} is read as a model without q_lora_rank", layers);
  note.refuse_if(!lite && a.q_lora_rank == 0, "model.attention.q_lora_rank 0 is read only with 26 or 27 layers");
  note.refuse_if(model.moe.num_experts > 256, "model.moe.num_experts {}: at most 256", model.moe.num_experts);
  const auto multiple = [&](std::int64_t of) {
    const bool experts = model.moe.num_experts == 0 || model.moe.intermediate_size % of == 0;
    return model.hidden_size % of == 0 && a.kv_lora_rank % of == 0 && experts;
  };
  note.refuse_if(!multiple(32),
                 "hidden_size, kv_lora_rank and the expert width must be multiples of 32 for any quantised format");
  note.remark_if(multiple(32) && !multiple(256), "Q8_0 and Q4_0 only: K-quants need sizes that are multiples of 256");
  return note.take();
}

}  // namespace

std::string_view export_model_type(const ModelSection& model) {
  const MoeSection& moe = model.moe;
  const bool v3_router = moe.topk_method == TopkMethod::kNoauxTc && moe.score == RouterScore::kSigmoid;
  const bool v2_router = moe.topk_method != TopkMethod::kNoauxTc && moe.score == RouterScore::kSoftmax && !moe.normalize_topk;
  if (model.attention.sparse == SparseKind::kNsa) return moe.num_experts == 0 || v3_router ? "hadal_nsa" : "";
  if (model.attention.kind != AttentionKind::kMla) return "";
  if (moe.num_experts == 0 || v3_router) return "deepseek_v3";
  return v2_router ? "deepseek_v2" : "";
}

std::vector<EngineNote> engine_notes(const ModelSection& model) {
  const std::string_view type = export_model_type(model);
  constexpr std::string_view kEngines[] = {"transformers", "vllm", "sglang", "llama.cpp"};
  std::vector<EngineNote> notes;
  if (type == "hadal_nsa") {
    for (const std::string_view engine : kEngines)
      notes.push_back({engine, false, "no engine format has NSA with learned compression"});
    notes[0] = {kEngines[0], true, "as model type hadal_nsa with trust_remote_code"};
    return notes;
  }
  if (type.empty()) {
    const bool gqa = model.attention.kind == AttentionKind::kGqa;
    const char* reason = gqa ? "grouped-query attention without NSA is in no DeepSeek format"
                             : "the router mixes V3 and V2 (score, topk_method, normalize_topk): no DeepSeek format has this";
    for (const std::string_view engine : kEngines) notes.push_back({engine, false, reason});
    return notes;
  }
  Note transformers(kEngines[0]);
  common_rules(model, transformers);
  notes.push_back(transformers.take());
  notes.push_back(vllm_note(model));
  notes.push_back(sglang_note(model));
  notes.push_back(llama_cpp_note(model));
  return notes;
}

}  // namespace hadal::model
