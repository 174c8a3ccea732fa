// Models in and out: import -> export -> import is the identity on models that HF transformers wrote, exported tensors are the
// fixture's bit for bit, MTP and NSA tensors keep their names, and what does not fit is listed whole.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>

#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/embedded_config.h"
#include "checkpoint/store.h"
#include "cli/model_exchange.h"
#include "config/load.h"
#include "config/write.h"
#include "core/error.h"
#include "core/file.h"
#include "core/rng.h"
#include "interop/hf_directory.h"
#include "interop/hf_import.h"
#include "interop/hf_names.h"
#include "model/engine_notes.h"
#include "model/parameter_count.h"
#include "nn/parameter.h"
#include "tests/interop/fixtures.h"
#include "tests/support/temp_dir.h"

namespace hadal::interop {
namespace {

namespace fs = std::filesystem;
using checkpoint::CheckpointReader;
using checkpoint::StoredTensor;

std::map<std::string, std::string> hashes_of(const fs::path& ckpt) {
  const CheckpointReader reader = CheckpointReader::open(checkpoint::find_checkpoint(ckpt));
  std::map<std::string, std::string> hashes;
  for (const StoredTensor& tensor : reader.tensors()) hashes[tensor.name] = tensor.shape.str() + tensor.hash.hex();
  return hashes;
}

std::string bytes_of(const HfDirectory::Entry& entry) {
  std::string bytes(entry.info->bytes, '\0');
  entry.file->read_bytes(*entry.info, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void copy_model(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  for (const auto& entry : fs::directory_iterator(from)) fs::copy_file(entry.path(), to / entry.path().filename());
}

void replace_text(const fs::path& path, const std::string& what, const std::string& with) {
  std::string text = read_file(path);
  const std::size_t at = text.find(what);
  ASSERT_NE(at, std::string::npos) << what;
  text.replace(at, what.size(), with);
  fs::remove(path);
  std::ofstream(path) << text;
}

/// A checkpoint of this shape with random weights.
fs::path write_random_checkpoint(const fs::path& run_dir, const Config& config, DType dtype = DType::kF32) {
  checkpoint::CheckpointWriter writer(run_dir / "checkpoints", 5);
  for (const ExpectedTensor& expected : expected_tensors(config.model)) {
    if (expected.is_copy()) continue;
    nn::ParameterOptions options;
    options.init = nn::Init::normal(0.5);
    nn::Parameter parameter(expected.logical, expected.shape, expected.keep_f32 ? DType::kF32 : dtype, options);
    parameter.initialize(7);
    Tensor values = Tensor::empty(expected.shape, parameter.dtype());
    std::memcpy(values.view().data, parameter.value().data, values.bytes());
    writer.add(expected.logical, std::move(values));
  }
  const Tensor moment = Tensor::zeros(Shape{3}, DType::kF32);
  writer.add("optim.m/model.norm.weight", moment);
  checkpoint::set_config(writer.state(), config);
  return writer.commit();
}

Config load_preset(const std::string& name, const std::vector<std::string>& overrides = {}) {
  return load_config(fs::path(HADAL_SOURCE_DIR) / "configs" / "model" / (name + ".yaml"), overrides).config;
}

class ExchangeOf : public testing::TestWithParam<std::string> {};

TEST_P(ExchangeOf, ImportExportImportIsTheIdentity) {
  const test::TempDir dir;
  const fs::path source = test::fixture(GetParam());
  cli::import_model(source, dir / "one");
  const CheckpointReader reader = CheckpointReader::open(checkpoint::find_checkpoint(dir / "one"));
  EXPECT_EQ(reader.state().integer("weights_only"), 1);
  // Small shards: the layout must not matter.
  const ExportSummary summary = cli::export_model(reader, {.out = dir / "hf", .dtype = DType::kF32, .shard_bytes = 30000});
  EXPECT_TRUE(summary.problems.empty());
  EXPECT_GT(summary.files.size(), 3u);
  cli::import_model(dir / "hf", dir / "two");
  EXPECT_EQ(hashes_of(dir / "one"), hashes_of(dir / "two"));
  const CheckpointReader again = CheckpointReader::open(checkpoint::find_checkpoint(dir / "two"));
  const Config one = checkpoint::config_of(reader), two = checkpoint::config_of(again);
  EXPECT_EQ(to_yaml(one), to_yaml(two));

  const HfDirectory fixture = HfDirectory::open(source), exported = HfDirectory::open(dir / "hf");
  int compared = 0;
  for (const auto& [name, entry] : fixture.entries()) {
    if (name.find("mlp.experts.gate_up_proj") != std::string::npos || name.ends_with("mlp.experts.down_proj")) continue;
    const HfDirectory::Entry* written = exported.find(name);
    ASSERT_NE(written, nullptr) << name;
    EXPECT_EQ(written->info->type, entry.info->type) << name;
    EXPECT_EQ(bytes_of(*written), bytes_of(entry)) << name;
    ++compared;
  }
  EXPECT_GT(compared, 20);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, ExchangeOf, testing::ValuesIn(test::kFixtures));

TEST(Exchange, FusedExpertsAreTakenApart) {
  const fs::path source = test::fixture("v3_direct_odd");
  const HfDirectory fixture = HfDirectory::open(source);
  const HfDirectory::Entry* fused = fixture.find("model.layers.1.mlp.experts.gate_up_proj");
  ASSERT_NE(fused, nullptr) << "this fixture was saved in the fused form";
  EXPECT_EQ(fused->info->shape, (Shape{6, 32, 36}));
  const HfImport import = HfImport::open(source);
  for (const ImportedTensor& tensor : import.tensors()) {
    if (tensor.name != "model.layers.1.mlp.experts.4.up_proj.weight") continue;
    const Tensor values = import.read(tensor);
    const std::string bytes = bytes_of(*fused);
    EXPECT_EQ(std::memcmp(values.span<float>().data(), bytes.data() + (4 * 32 + 16) * 36 * sizeof(float), values.bytes()), 0);
    return;
  }
  FAIL();
}

TEST(Exchange, AbsentMtpImportsWithDepthZeroAndSaysSo) {
  const HfImport import = HfImport::open(test::fixture("v3_groups"));
  EXPECT_EQ(import.config().model.mtp.depth, 0);
  ASSERT_EQ(import.notes().size(), 1u);
  EXPECT_NE(import.notes()[0].find("no MTP tensors"), std::string::npos);
}

TEST(Exchange, MtpGoesOutWithCopiesAndComesBack) {
  const test::TempDir dir;
  const Config config = load_preset("tiny", {"model.attention.sparse=none", "model.mtp.depth=2", "model.vocab_size=64"});
  const CheckpointReader reader = CheckpointReader::open(write_random_checkpoint(dir / "run", config));
  const ExportSummary with = cli::export_model(reader, {.out = dir / "with", .dtype = DType::kF32});
  EXPECT_TRUE(with.problems.empty());
  const HfDirectory directory = HfDirectory::open(dir / "with");
  ASSERT_NE(directory.find("model.layers.5.shared_head.head.weight"), nullptr);
  EXPECT_EQ(bytes_of(*directory.find("model.layers.4.embed_tokens.weight")),
            bytes_of(*directory.find("model.embed_tokens.weight")));
  EXPECT_NE(read_file(dir / "with" / "config.json").find("\"num_nextn_predict_layers\": 2"), std::string::npos);
  cli::import_model(dir / "with", dir / "back");
  std::map<std::string, std::string> expected = hashes_of(dir / "run");
  expected.erase("optim.m/model.norm.weight");
  EXPECT_EQ(hashes_of(dir / "back"), expected);

  const ExportSummary without = cli::export_model(reader, {.out = dir / "without", .dtype = DType::kF32, .keep_mtp = false});
  EXPECT_TRUE(without.problems.empty());
  EXPECT_LT(without.tensors, with.tensors);
  EXPECT_EQ(HfDirectory::open(dir / "without").find("model.layers.4.enorm.weight"), nullptr);
  EXPECT_EQ(read_file(dir / "without" / "config.json").find("num_nextn_predict_layers"), std::string::npos);
}

TEST(Exchange, Bf16RoundsToNearestAndKeepsTheBiasInF32) {
  const test::TempDir dir;
  const Config config = load_preset("tiny", {"model.attention.sparse=none", "model.vocab_size=64"});
  const CheckpointReader reader = CheckpointReader::open(write_random_checkpoint(dir / "run", config, DType::kF64));
  EXPECT_TRUE(cli::export_model(reader, {.out = dir / "hf"}).problems.empty());
  const SafetensorsReader file = SafetensorsReader::open(dir / "hf" / "model.safetensors");
  EXPECT_EQ(file.at("model.layers.2.mlp.gate.e_score_correction_bias").type, StoredType::kF32);
  const Tensor values = file.read("model.layers.1.mlp.gate.weight");
  const Tensor original = reader.read(reader.at("model.layers.1.mlp.gate.weight"));
  for (std::size_t i = 0; i < values.span<Bf16>().size(); ++i) {
    ASSERT_EQ(values.span<Bf16>()[i].bits, to_bf16(static_cast<float>(original.span<double>()[i])).bits);
  }
  cli::import_model(dir / "hf", dir / "back");
  const CheckpointReader back = CheckpointReader::open(checkpoint::find_checkpoint(dir / "back"));
  EXPECT_EQ(back.read(back.at("model.layers.1.mlp.gate.weight")).span<float>()[3], to_float(values.span<Bf16>()[3]));
}

TEST(Exchange, SparseModelsNeedTheirOwnTypeOrDropNsa) {
  const test::TempDir dir;
  const Config config = load_preset("tiny", {"model.vocab_size=64"});
  const CheckpointReader reader = CheckpointReader::open(write_random_checkpoint(dir / "run", config));
  EXPECT_TRUE(cli::export_model(reader, {.out = dir / "nsa", .dtype = DType::kF32}).problems.empty());
  EXPECT_TRUE(fs::exists(dir / "nsa" / "modeling_hadal_nsa.py"));
  EXPECT_NE(read_file(dir / "nsa" / "config.json").find("\"model_type\": \"hadal_nsa\""), std::string::npos);
  EXPECT_TRUE(cli::export_model(reader, {.out = dir / "dense", .dtype = DType::kF32, .drop_nsa = true}).problems.empty());
  EXPECT_NE(read_file(dir / "dense" / "config.json").find("\"model_type\": \"deepseek_v3\""), std::string::npos);
  const HfDirectory directory = HfDirectory::open(dir / "dense");
  for (const auto& [name, entry] : directory.entries()) EXPECT_EQ(name.find(".nsa."), std::string::npos) << name;
  EXPECT_NE(message_of([&] { cli::export_model(reader, {.out = dir / "nsa"}); }).find("exists"), std::string::npos);

  const Config gqa = load_preset("tiny", {"model.attention.kind=gqa", "model.attention.sparse=none"});
  const CheckpointReader dense = CheckpointReader::open(write_random_checkpoint(dir / "gqa", gqa));
  EXPECT_NE(message_of([&] { cli::export_model(dense, {.out = dir / "x"}); }).find("grouped-query"), std::string::npos);
}

TEST(Exchange, AuditSeesValuesThatAreNotFinite) {
  const test::TempDir dir;
  Config config = load_preset("tiny", {"model.vocab_size=64", "model.attention.sparse=none"});
  checkpoint::CheckpointWriter writer(dir / "checkpoints", 1);
  for (const ExpectedTensor& expected : expected_tensors(config.model)) {
    Tensor values = Tensor::zeros(expected.shape, DType::kF32);
    if (expected.logical == "model.norm.weight") values.as<float>()[1] = HUGE_VALF;
    if (!expected.is_copy()) writer.add(expected.logical, std::move(values));
  }
  checkpoint::set_config(writer.state(), config);
  const ExportSummary summary = cli::export_model(CheckpointReader::open(writer.commit()), {.out = dir / "hf"});
  ASSERT_EQ(summary.problems.size(), 1u);
  EXPECT_NE(summary.problems[0].find("model.norm.weight"), std::string::npos);
  EXPECT_FALSE(fs::exists(dir / "hf"));
  EXPECT_FALSE(fs::exists(dir / "hf.tmp"));
}

TEST(Exchange, MissingExtraAndMisshapenAreListedWhole) {
  const test::TempDir dir;
  copy_model(test::fixture("v3_groups"), dir / "hf");
  replace_text(dir / "hf" / "config.json", "\"n_routed_experts\": 8", "\"n_routed_experts\": 16");
  replace_text(dir / "hf" / "config.json", "\"kv_lora_rank\": 16", "\"kv_lora_rank\": 20");
  replace_text(dir / "hf" / "config.json", "\"first_k_dense_replace\": 1", "\"first_k_dense_replace\": 2");
  const std::string message = message_of([&] { HfImport::open(dir / "hf"); });
  EXPECT_NE(message.find("missing: model.layers.2.mlp.experts.8.gate_proj.weight [16, 32]"), std::string::npos) << message;
  EXPECT_NE(message.find("missing: model.layers.2.mlp.experts.15.down_proj.weight"), std::string::npos);
  EXPECT_NE(message.find("misshapen: model.layers.0.self_attn.kv_b_proj.weight is [64, 16], the config asks for [64, 20]"),
            std::string::npos);
  EXPECT_NE(message.find("extra: model.layers.1.mlp.experts.7.up_proj.weight"), std::string::npos);
  EXPECT_NE(message.find("missing: model.layers.1.mlp.gate_proj.weight"), std::string::npos);
}

TEST(Exchange, IndexAndShardsMustAgree) {
  const test::TempDir dir;
  copy_model(test::fixture("v3_yarn"), dir / "hf");
  const fs::path index = dir / "hf" / "model.safetensors.index.json";
  replace_text(index, "\"lm_head.weight\"", "\"lm_tail.weight\"");
  std::string message = message_of([&] { HfDirectory::open(dir / "hf"); });
  EXPECT_NE(message.find("lm_tail.weight is not in"), std::string::npos) << message;
  EXPECT_NE(message.find("lm_head.weight is in"), std::string::npos) << message;
  replace_text(index, "\"model-00001", "\"../model-00001");
  EXPECT_NE(message_of([&] { HfDirectory::open(dir / "hf"); }).find("no file of this directory"), std::string::npos);
  fs::remove(index);
  EXPECT_NE(message_of([&] { HfDirectory::open(dir / "hf"); }).find("neither"), std::string::npos);
}

TEST(Exchange, EightBitWeightsAreMultipliedByTheirBlockScales) {
  const test::TempDir dir;
  copy_model(test::fixture("v3_groups"), dir / "hf");
  const SafetensorsReader original = SafetensorsReader::open(test::fixture("v3_groups") / "model.safetensors");
  const std::string name = "model.layers.0.mlp.gate_proj.weight";  // [48, 32] in blocks of 20 x 30
  Tensor codes = Tensor::empty(Shape{48, 32}, DType::kF8E4M3);
  for (std::size_t i = 0; i < 48 * 32; ++i) static_cast<std::uint8_t*>(codes.view().data)[i] = static_cast<std::uint8_t>(i % 120);
  Tensor scales = Tensor::empty(Shape{3, 2}, DType::kF32);
  for (int i = 0; i < 6; ++i) scales.as<float>()[i] = 0.25f * static_cast<float>(i + 1);
  std::vector<std::pair<std::string, Tensor>> kept;
  for (const SafetensorsInfo& info : original.tensors()) {
    if (info.name != name) kept.emplace_back(info.name, original.read(info.name));
  }
  std::vector<std::pair<std::string, ConstView>> tensors{{name, codes}, {name + "_scale_inv", scales}};
  for (const auto& [other, tensor] : kept) tensors.emplace_back(other, tensor);
  write_safetensors(dir / "hf" / "model.safetensors", tensors);
  replace_text(dir / "hf" / "config.json", "\"model_type\"",
               "\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [20, 30]}, \"model_type\"");
  const HfImport import = HfImport::open(dir / "hf");
  for (const ImportedTensor& tensor : import.tensors()) {
    if (tensor.name != name) continue;
    const Tensor values = import.read(tensor);
    for (std::size_t row : {0u, 19u, 20u, 47u}) {
      for (std::size_t column : {0u, 29u, 30u, 31u}) {
        const float scale = scales.span<float>()[row / 20 * 2 + column / 30];
        EXPECT_EQ(values.span<float>()[row * 32 + column],
                  e4m3_to_float(static_cast<std::uint8_t>((row * 32 + column) % 120)) * scale);
      }
    }
    return;
  }
  FAIL();
}

TEST(HfConfig, WrittenConfigsReadBackAsTheSameShape) {
  for (const char* name : {"tiny", "small", "deepseek_v2_lite", "deepseek_v2", "deepseek_v3", "nsa_27b"}) {
    const ModelSection model = load_preset(name).model;
    const std::string type(model::export_model_type(model));
    const std::string text = write_hf_config(model, {type, DType::kBf16, {0, 1, 2}});
    const HfConfig read = parse_hf_config(text, "config.json");
    Config one, two;
    one.model = model;
    two.model = read.model;
    two.model.moe.num_groups =
        one.model.moe.topk_method == TopkMethod::kGreedy ? one.model.moe.num_groups : two.model.moe.num_groups;
    two.model.moe.topk_groups =
        one.model.moe.topk_method == TopkMethod::kGreedy ? one.model.moe.topk_groups : two.model.moe.topk_groups;
    // What a shape does not use is not written: YaRN's numbers when it is off, the other attention kind's sizes.
    if (model.rope.yarn.factor == 1.0) two.model.rope.yarn = one.model.rope.yarn;
    AttentionSection &a = one.model.attention, &b = two.model.attention;
    if (a.kind == AttentionKind::kMla) {
      b.num_kv_heads = a.num_kv_heads;
      b.head_dim = a.head_dim;
    } else {
      b.q_lora_rank = a.q_lora_rank;
      b.kv_lora_rank = a.kv_lora_rank;
      b.qk_nope_head_dim = a.qk_nope_head_dim;
      b.qk_rope_head_dim = a.qk_rope_head_dim;
    }
    if (a.sparse == SparseKind::kNone) b.nsa = a.nsa;
    if (model.moe.num_experts == 0) two.model.moe = one.model.moe;
    EXPECT_EQ(to_yaml(one), to_yaml(two)) << name;
    EXPECT_EQ(read.ids.eos, 1) << name;
  }
}

TEST(HfConfig, NamesHoldAllParameters) {
  for (const char* name : {"tiny", "small", "deepseek_v2_lite", "nsa_27b"}) {
    const ModelSection model = load_preset(name).model;
    std::int64_t count = 0;
    for (const ExpectedTensor& tensor : expected_tensors(model)) {
      if (!tensor.is_copy() && !tensor.keep_f32) count += tensor.shape.numel();
    }
    EXPECT_EQ(count, model::count_parameters(model).total_with_mtp) << name;
  }
}

TEST(HfConfig, WhatIsNotSupportedIsListedWhole) {
  const std::string good = read_file(test::fixture("v3_yarn_old_config") / "config.json");
  EXPECT_NO_THROW(parse_hf_config(good, "config.json"));
  const auto with = [&](const std::string& extra) {
    return message_of([&] { parse_hf_config("{" + extra + "," + good.substr(1), "config.json"); });
  };
  EXPECT_NE(with("\"model_type\": \"llama\"").find("appears twice"), std::string::npos);
  EXPECT_NE(with("\"mlp_bias\": true").find("mlp_bias"), std::string::npos);
  std::string bad = good;
  for (const auto& [what, put] :
       std::map<std::string, std::string>{{"\"rope_interleave\": true", "\"rope_interleave\": false"},
                                          {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true"},
                                          {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\""},
                                          {"\"vocab_size\": 96", "\"vocab_size\": 1e99"},
                                          {"\"hidden_size\": 32", "\"hidden_size\": -32"},
                                          {"\"type\": \"yarn\"", "\"type\": \"linear\""}}) {
    ASSERT_NE(bad.find(what), std::string::npos) << what;
    bad.replace(bad.find(what), what.size(), put);
  }
  const std::string message = message_of([&] { parse_hf_config(bad, "config.json"); });
  for (const char* key :
       {"rope_interleave", "tie_word_embeddings", "hidden_act", "vocab_size", "hidden_size", "rope_scaling.rope_type"}) {
    EXPECT_NE(message.find(key), std::string::npos) << key << "\n" << message;
  }
  for (std::size_t size = 0; size < good.size() - 2; size += 5) {
    EXPECT_THROW(parse_hf_config(good.substr(0, size), "config.json"), UserError) << size;
  }
}

TEST(HfConfig, ASmallFileCannotAskForBillionsOfExperts) {
  const test::TempDir dir;
  copy_model(test::fixture("v3_groups"), dir / "hf");
  replace_text(dir / "hf" / "config.json", "\"n_routed_experts\": 8", "\"n_routed_experts\": 65536");
  replace_text(dir / "hf" / "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4096");
  EXPECT_NE(message_of([&] { HfImport::open(dir / "hf"); }).find("more than the files have bytes"), std::string::npos);
}

}  // namespace
}  // namespace hadal::interop
