#include "tests/support/small_run.h"

#include <map>

#include "comm/local/local_group.h"
#include "comm/single.h"
#include "config/load.h"
#include "core/file.h"
#include "core/rng.h"
#include "data/token_file_writer.h"
#include "train/trainer.h"

namespace hadal::test {
namespace {

constexpr const char* kConfig = R"(
model:
  vocab_size: 64
  hidden_size: 16
  num_layers: 2
  intermediate_size: 24
  max_positions: 64
  init_std: 0.2
  attention:
    kind: mla
    sparse: nsa
    num_heads: 2
    q_lora_rank: 8
    kv_lora_rank: 8
    qk_nope_head_dim: 6
    qk_rope_head_dim: 4
    v_head_dim: 6
    nsa: {block_length: 4, block_stride: 2, select_block: 4, num_selected: 3, window: 5}
  moe: {num_experts: 8, num_shared: 1, top_k: 2, intermediate_size: 8, first_dense_layers: 1, num_groups: 4, topk_groups: 2, routed_scaling: 1.5}
  mtp: {depth: 2}
data:
  sequence_length: 24
train: {steps: 20, global_batch: 8, micro_batch: 2, log_interval: 5}
optim:
  lr: 3e-3
  ema_decay: 0.9
  schedule: {kind: cosine, warmup_steps: 3}
balance: {bias_update_speed: 0.01, sequence_alpha: 0.01}
precision: {compute: f64}
)";

}  // namespace

void write_token_file(const std::filesystem::path& path, std::int64_t vocab, std::int64_t documents, std::int64_t tokens_per_document) {
  data::TokenFileInfo info;
  info.vocab_size = static_cast<std::uint64_t>(vocab);
  info.eos_token_id = 1;
  data::TokenFileWriter writer(path, info);
  const Random random(11, RandomPurpose::kSynthetic, 5);
  std::uint64_t draw = 0;
  std::vector<std::int32_t> tokens;
  for (std::int64_t d = 0; d < documents; ++d) {
    tokens.clear();
    // Documents of different lengths: half to one and a half times the mean.
    const auto length = tokens_per_document / 2 + static_cast<std::int64_t>(random.below(draw++, static_cast<std::uint64_t>(tokens_per_document)));
    std::int64_t token = static_cast<std::int64_t>(random.below(draw++, static_cast<std::uint64_t>(vocab - 2)));
    for (std::int64_t i = 0; i < length; ++i) {
      const bool jump = random.uniform(draw++) < 0.2;
      token = jump ? static_cast<std::int64_t>(random.below(draw++, static_cast<std::uint64_t>(vocab - 2))) : (token * 5 + 3) % (vocab - 2);
      tokens.push_back(static_cast<std::int32_t>(token + 2));
    }
    tokens.push_back(1);
    writer.append(tokens);
    writer.end_document();
  }
  writer.finish();
}

std::filesystem::path SmallRun::config_path() const {
  const std::filesystem::path path = dir / "config.yaml";
  if (!std::filesystem::exists(path)) {
    write_token_file(dir / "tokens.h5", 64, 60, 40);
    write_file_atomically(path, std::string(kConfig));
  }
  return path;
}

std::vector<report::MetricsRow> SmallRun::train(const std::string& name, int ranks, const std::vector<std::string>& more) const {
  const std::filesystem::path run_dir = dir / name;
  std::vector<std::string> all{"run.dir=" + run_dir.string(), "data.sources=[{path: " + (dir / "tokens.h5").string() + "}]"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  all.insert(all.end(), more.begin(), more.end());
  const LoadedConfig loaded = load_config(config_path(), all);
  if (ranks == 1) {
    comm::SingleCommunicator world;
    train::Trainer(loaded, world, true).run();
  } else {
    comm::run_local_group(ranks, [&](comm::Communicator& world) { train::Trainer(loaded, world, true).run(); });
  }
  return read_metrics(run_dir);
}

std::vector<report::MetricsRow> read_metrics(const std::filesystem::path& run_dir) {
  std::map<std::int64_t, report::MetricsRow> last;
  const std::string text = read_file(run_dir / "metrics.jsonl");
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    const auto row = report::MetricsRow::parse(std::string_view(text).substr(begin, end - begin));
    if (row && row->find("loss") != nullptr) last.insert_or_assign(row->step(), *row);
    begin = end + 1;
  }
  std::vector<report::MetricsRow> rows;
  for (auto& [step, row] : last) rows.push_back(std::move(row));
  return rows;
}

std::vector<double> column(const std::vector<report::MetricsRow>& rows, const std::string& key) {
  std::vector<double> values;
  for (const report::MetricsRow& row : rows) values.push_back(row.number(key).value_or(0.0));
  return values;
}

}  // namespace hadal::test
