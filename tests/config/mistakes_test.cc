// Mistakes that people make: each is refused with its exact place, what is allowed and the nearest spelling, all at once.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/load.h"
#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

/// The message that loading `text` as x.yaml raises, or "accepted".
std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    load_config_text(text, "x.yaml", overrides);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

struct Mistake {
  const char* text;
  const char* message;  ///< how the refusal starts
};

void expect_refused(const std::vector<Mistake>& mistakes) {
  for (const Mistake& mistake : mistakes) {
    const std::string message = refusal(mistake.text);
    EXPECT_TRUE(message.starts_with(mistake.message))
        << mistake.text << "\nwanted: " << mistake.message << "\ngot:    " << message;
  }
}

TEST(Mistakes, UnknownKeys) {
  expect_refused({
      {"modle: {}\n", "x.yaml:1:1: modle: unknown key (did you mean model?)"},
      {"model:\n  attention:\n    q_lora_rnak: 4\n",
       "x.yaml:3:5: model.attention.q_lora_rnak: unknown key (did you mean q_lora_rank?)"},
      {"model: {num_expert: 4}\n", "x.yaml:1:9: model.num_expert: unknown key"},
      {"model: {num_experts: 4}\n", "x.yaml:1:9: model.num_experts: unknown key (did you mean model.moe.num_experts?)"},
      {"train: {learning_rate: 1}\n", "x.yaml:1:9: train.learning_rate: unknown key (allowed here: steps, global_batch,"},
      {"optim:\n  schedule: {warmup: 3}\n", "x.yaml:2:14: optim.schedule.warmup: unknown key"},
      {"data:\n  sources:\n    - paht: a.h5\n", "x.yaml:3:7: data.sources.0.paht: unknown key (did you mean path?)"},
      {"model: {include: [a.yaml]}\n", "x.yaml:1:9: model.include: unknown key (include stands at the top level of a file only)"},
      {"model:\n  <<: {}\n", "x.yaml:2:3: model.<<: unknown key (merge keys are not read; use include)"},
      {"Model: {}\n", "x.yaml:1:1: Model: unknown key (did you mean model?)"},
      {"steps: 10\n", "x.yaml:1:1: steps: unknown key (did you mean train.steps?)"},
  });
}

TEST(Mistakes, DuplicateKeys) {
  expect_refused({
      {"train:\n  steps: 1\n  steps: 2\n", "x.yaml:3:3: train.steps: duplicate key, already set at line 2"},
      {"train: {}\noptim: {}\ntrain: {}\n", "x.yaml:3:1: train: duplicate key, already set at line 1"},
      {"data: {sources: [{path: a, path: b}]}\n", "x.yaml:1:28: data.sources.0.path: duplicate key"},
  });
}

TEST(Mistakes, Types) {
  expect_refused({
      {"train: {steps: ten}\n", "x.yaml:1:16: train.steps: ten is not an integer; allowed: an integer, at least 1"},
      {"train: {steps: 1.5}\n", "x.yaml:1:16: train.steps: 1.5 is not an integer"},
      {"train: {steps: 10.0}\n", "x.yaml:1:16: train.steps: 10.0 is not an integer"},
      {"train: {steps: 1e-1}\n", "x.yaml:1:16: train.steps: 1e-1 is not an integer"},
      {"train: {steps: 010}\n", "x.yaml:1:16: train.steps: 010 starts with 0 (there are no octal numbers)"},
      {"train: {steps: 0x10}\n", "x.yaml:1:16: train.steps: 0x10 is not an integer"},
      {"train: {steps: \"10\"}\n", "x.yaml:1:16: train.steps: \"10\" is text: remove the quotes; allowed: an integer"},
      {"train: {steps: 1__0}\n", "x.yaml:1:16: train.steps: 1__0 has a misplaced _"},
      {"train: {steps: 1_}\n", "x.yaml:1:16: train.steps: 1_ has a misplaced _"},
      {"train: {steps: 1e19}\n", "x.yaml:1:16: train.steps: 1e19 does not fit 64 bits"},
      {"train: {steps: 9223372036854775808}\n", "x.yaml:1:16: train.steps: 9223372036854775808 does not fit 64 bits"},
      {"train: {steps: }\n", "x.yaml:1:9: train.steps: nothing where a number is wanted"},
      {"train: {steps: [1]}\n", "x.yaml:1:16: train.steps: a list where a number is wanted"},
      {"train: {steps: {a: 1}}\n", "x.yaml:1:16: train.steps: a map of keys where a number is wanted"},
      {"train: {steps: 12 steps}\n", "x.yaml:1:16: train.steps: 12 steps is not an integer"},
      {"optim: {lr: .nan}\n", "x.yaml:1:13: optim.lr: .nan is not a number"},
      {"optim: {lr: inf}\n", "x.yaml:1:13: optim.lr: inf is not a number"},
      {"optim: {lr: 1e999}\n", "x.yaml:1:13: optim.lr: 1e999 does not fit a double"},
      {"optim: {lr: 1e-}\n", "x.yaml:1:13: optim.lr: 1e- is not a number"},
      {"optim: {lr: 1,5}\n", "x.yaml:1:15: optim.5: unknown key"},
      {"model: {attention: {nsa: {tie_up: yes}}}\n",
       "x.yaml:1:35: model.attention.nsa.tie_up: yes is not true or false; allowed: true or false"},
      {"model: {moe: {normalize_topk: True}}\n", "x.yaml:1:31: model.moe.normalize_topk: True is not true or false"},
      {"model: {moe: {normalize_topk: \"true\"}}\n",
       "x.yaml:1:31: model.moe.normalize_topk: \"true\" is text: remove the quotes"},
      {"model: {attention: {kind: mqa}}\n",
       "x.yaml:1:27: model.attention.kind: mqa is not known (did you mean mla?); allowed: mla or gqa"},
      {"optim: {schedule: {kind: cosin}}\n",
       "x.yaml:1:26: optim.schedule.kind: cosin is not known (did you mean cosine?); allowed: constant, cosine, step or wsd"},
      {"run: {name: [a]}\n", "x.yaml:1:13: run.name: a list where a value is wanted"},
      {"run:\n  name:\n", "x.yaml:2:3: run.name: nothing where a value is wanted (\"\" is empty text)"},
      {"run: {name: \"a\\x07\"}\n", "x.yaml:1:13: run.name: control characters"},
      {"model: 3\n", "x.yaml:1:8: model: 3 where keys are wanted, e.g. vocab_size: ..."},
      {"model: [a]\n", "x.yaml:1:8: model: a list where keys are wanted"},
      {"data: {sources: a.h5}\n", "x.yaml:1:17: data.sources: a.h5 where a list is wanted"},
      {"data: {sources: [a.h5]}\n", "x.yaml:1:18: data.sources.0: a.h5 where keys are wanted, e.g. path: ..."},
      {"optim: {schedule: {milestones: 0.5}}\n", "x.yaml:1:32: optim.schedule.milestones: 0.5 where a list is wanted: [0.5]"},
      {"optim: {schedule: {milestones: [0.5, x]}}\n", "x.yaml:1:38: optim.schedule.milestones.1: x is not a number"},
      {"- a\n", "x.yaml:1:1: a list where keys are wanted"},
      {"hello\n", "x.yaml:1:1: hello where keys are wanted"},
  });
}

TEST(Mistakes, Ranges) {
  expect_refused({
      {"train: {steps: 0}\n", "x.yaml:1:16: train.steps: 0 is out of range; allowed: an integer, at least 1"},
      {"train: {steps: -5}\n", "x.yaml:1:16: train.steps: -5 is out of range"},
      {"optim:\n  lr: -1e-3\n", "x.yaml:2:7: optim.lr: -1e-3 is out of range; allowed: a number from 0 to 1000"},
      {"data: {fim_rate: 1.01}\n", "x.yaml:1:18: data.fim_rate: 1.01 is out of range; allowed: a number from 0 to 1"},
      {"model: {mtp: {depth: 9}}\n", "x.yaml:1:22: model.mtp.depth: 9 is out of range; allowed: an integer from 0 to 8"},
      {"model: {attention: {dense_layers: [0, -1]}}\n", "x.yaml:1:39: model.attention.dense_layers.1: -1 is out of range"},
  });
}

TEST(Mistakes, DtypesThatADeviceLacks) {
  expect_refused({
      {"precision: {compute: bf16}\n", "x.yaml:1:22: precision.compute bf16 needs run.device cuda: the CPU computes in f32 and f64"},
      {"run: {device: cuda}\nprecision: {compute: f64}\n", "x.yaml:2:22: precision.compute f64 needs run.device cpu: CUDA devices compute in bf16 and f32"},
      {"run: {device: gpu}\n", "x.yaml:1:15: run.device: gpu is not known (did you mean cpu?); allowed: cpu or cuda"},
  });
}

TEST(Mistakes, Syntax) {
  expect_refused({
      {"model: &a {hidden_size: 4}\n", "x.yaml:1:8: anchors (&) are not read"},
      {"model: {hidden_size: *a}\n", "x.yaml:1:22: not YAML: the referenced anchor is not defined"},
      {"train:\n  steps: &s 4\n  log_interval: *s\n",
       "the configuration has 3 errors\nx.yaml:2:10: anchors (&) are not read; use include\n    "},
      {"train: {steps: !!int 4}\n", "x.yaml:1:16: tags (!) are not read"},
      {"train:\n\tsteps: 4\n", "x.yaml:2:1: a tab in the indentation: use spaces"},
      {"train: {steps: 4\n", "x.yaml:2:1: not YAML: end of map flow not found"},
      {"train:\n  steps: 4\n   log_interval: 3\n", "x.yaml:3:16: not YAML: illegal map value"},
      {"train: {steps: 4}\n---\ntrain: {}\n", "x.yaml:2:1: a second document (---)"},
      {"? [a]\n: b\n", "x.yaml:1:3: a map or a list where a key is wanted"},
      {": 3\n", "x.yaml:1:1: an empty key"},
      {"a: [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]\n", "x.yaml:1:19: nested deeper than 16 levels"},
      {"run: {name: a\x01}\n", "x.yaml:1:14: control character 0x01"},
      {"run: {name: \xff\xfe}\n", "x.yaml: byte 12 is not UTF-8"},
      {"include: base.yaml\n", "x.yaml:1:10: include: a list is wanted: [base.yaml]"},
      {"include: [nowhere/base.yaml]\n", "x.yaml:1:11: include: nowhere/base.yaml: cannot be read: No such file or directory"},
  });
  EXPECT_TRUE(refusal(std::string((1 << 20) + 1, ' ')).starts_with("x.yaml: 1048577 bytes; a configuration has at most 1048576"));
}

TEST(Mistakes, ValuesThatDoNotFitEachOther) {
  expect_refused({
      {"model: {attention: {qk_rope_head_dim: 15}}\n", "x.yaml:1:39: model.attention.qk_rope_head_dim 15 must be even"},
      {"model:\n  attention: {kind: gqa, num_heads: 8, num_kv_heads: 3}\n",
       "x.yaml:2:54: model.attention.num_kv_heads 3 must divide model.attention.num_heads 8 (model.attention.num_kv_heads: "
       "x.yaml:2:54; "
       "model.attention.num_heads: x.yaml:2:37)"},
      {"model: {attention: {kind: gqa, head_dim: 7}}\n", "x.yaml:1:42: model.attention.head_dim 7 must be even"},
      {"model: {attention: {sparse: nsa, nsa: {block_stride: 12}}}\n",
       "the configuration has 2 errors\nx.yaml:1:54: model.attention.nsa.block_stride 12 must divide "
       "model.attention.nsa.block_length 32"},
      {"model: {attention: {sparse: nsa, nsa: {select_block: 16}}}\n",
       "x.yaml:1:54: model.attention.nsa.block_length 32 must be at most model.attention.nsa.select_block 16"},
      {"model: {attention: {sparse: nsa, nsa: {num_selected: 2}}}\n",
       "x.yaml:1:54: model.attention.nsa.num_selected 2 must be at least 3"},
      {"model: {attention: {sparse: nsa, nsa: {num_select_groups: 3}}}\n",
       "x.yaml:1:59: model.attention.nsa.num_select_groups 3 must divide model.attention.num_heads 4"},
      {"model: {attention: {sparse: nsa, dense_layers: [4]}}\n", "x.yaml:1:48: model.attention.dense_layers names layer 4"},
      {"model: {attention: {sparse: nsa, dense_layers: [2, 1]}}\n",
       "x.yaml:1:48: model.attention.dense_layers must ascend: 2 stands before 1"},
      {"model: {moe: {num_experts: 8, num_groups: 3, top_k: 1}}\n",
       "x.yaml:1:43: model.moe.num_groups 3 must divide model.moe.num_experts 8"},
      {"model: {moe: {num_experts: 8, num_groups: 4, topk_groups: 1, top_k: 3}}\n",
       "x.yaml:1:69: model.moe.top_k 3 does not fit into topk_groups 1 of num_groups 4 groups with 2 of num_experts 8 each"},
      {"model: {moe: {num_experts: 8, num_groups: 8, topk_groups: 8}}\n",
       "x.yaml:1:28: model.moe.topk_method noaux_tc scores a group by its two best experts: num_experts 8 in num_groups 8 leaves "
       "1"},
      {"model: {moe: {num_experts: 4, top_k: 5}}\n",
       "the configuration has 2 errors\nx.yaml:1:38: model.moe.top_k 5 must be at most model.moe.num_experts 4"},
      {"model: {moe: {num_experts: 8, first_dense_layers: 5}}\n",
       "x.yaml:1:51: model.moe.first_dense_layers 5 must be at most model.num_layers 4"},
      {"model: {rope: {theta: 1, yarn: {factor: 4}}}\n",
       "x.yaml:1:23: model.rope.theta 1 must be above 1 with model.rope.yarn.factor 4"},
      {"model: {rope: {yarn: {factor: 4, beta_fast: 1}}}\n",
       "x.yaml:1:45: model.rope.yarn.beta_fast 1 must be above beta_slow 1"},
      {"train: {global_batch: 8, micro_batch: 3}\n",
       "x.yaml:1:39: train.micro_batch 3 must divide train.global_batch 8 (train.micro_batch: x.yaml:1:39; train.global_batch: "
       "x.yaml:1:23)"},
      {"train: {micro_batch: 4, batch_ramp: {start: 6, tokens: 10}}\n",
       "x.yaml:1:22: train.micro_batch 4 must divide train.batch_ramp.start 6"},
      {"train: {batch_ramp: {start: 8}}\n", "x.yaml:1:29: train.batch_ramp.start 8 and tokens 0 belong together"},
      {"data: {sequence_length: 8192}\n", "x.yaml:1:25: data.sequence_length 8192 must be at most model.max_positions 4096"},
      {"data: {fim_rate: 0.1}\n", "x.yaml:1:18: data.fim_rate 0.1 needs data.tokenizer"},
      {"data: {sources: [{weight: 1}]}\n", "x.yaml:1:17: data.sources.0.path is missing"},
      {"data: {sources: [{path: a, weight: 0}]}\n", "x.yaml:1:17: data.sources: the weights add up to 0"},
      {"optim: {beta2: 1}\n", "x.yaml:1:16: optim.beta2 1 must be below 1"},
      {"optim: {moments: bf16, beta2: 0.999}\n", "x.yaml:1:31: optim.beta2 0.999 must be at most 0.996 with optim.moments bf16"},
      {"optim: {eps: 0}\n", "x.yaml:1:14: optim.eps 0 must be above 0"},
      {"train: {steps: 10}\noptim: {schedule: {kind: wsd, warmup_steps: 6, decay_steps: 5}}\n",
       "x.yaml:2:61: optim.schedule.warmup_steps 6 and decay_steps 5 do not fit into train.steps 10"},
      {"optim: {schedule: {kind: step, milestones: [0.9, 0.8]}}\n",
       "x.yaml:1:44: optim.schedule.milestones must ascend: 0.9 stands before 0.8"},
      {"balance: {mtp_schedule: [{tokens: 5}, {tokens: 5}]}\n",
       "x.yaml:1:25: balance.mtp_schedule must ascend in tokens: 5 stands before 5"},
      {"run: {dir: ''}\n", "x.yaml:1:12: run.dir must not be empty"},
  });
}

TEST(Mistakes, Overrides) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"optim.lr", "command line: optim.lr: an override is section.key=value"},
      {"=3", "command line: =3: an override is section.key=value"},
      {"optm.lr=3", "command line: optm.lr=3: optm: unknown key (did you mean optim?)"},
      {"optim.lrr=3", "command line: optim.lrr=3: optim.lrr: unknown key (did you mean lr?)"},
      {"optim.lr=", "command line: optim.lr=: optim.lr:  is not a number"},
      {"optim.lr=abc", "command line: optim.lr=abc: optim.lr: abc is not a number; allowed: a number from 0 to 1000"},
      {"optim.lr.x=1", "command line: optim.lr.x=1: optim.lr: has no key x: it is a number from 0 to 1000"},
      {"train.steps=0", "command line: train.steps=0: train.steps: 0 is out of range"},
      {"data.sources.0.weight=1", "command line: data.sources.0.weight=1: data.sources: 0 is not one of its elements; it has 0"},
      {"optim.schedule.milestones.2=0.5",
       "command line: optim.schedule.milestones.2=0.5: optim.schedule.milestones: 2 is not one of its elements; it has 2, 0 to "
       "1"},
      {"optim.schedule.milestones=[0.5", "command line: optim.schedule.milestones=[0.5: "},
      {"optim=3", "command line: optim=3: optim: 3 where keys are wanted"},
      {"include=[a.yaml]", "command line: include=[a.yaml]: include: unknown key"},
  };
  for (const auto& [text, message] : cases) {
    const std::string got = refusal("", {text});
    EXPECT_NE(got.find(message), std::string::npos) << "wanted: " << message << "\ngot:    " << got;
  }
}

TEST(Mistakes, AllAtOnceWithSourceLineAndCaret) {
  const std::string message = refusal("train:\n  stpes: 3\n  log_interval: 0\nmodel: {moe: {score: tanh}}\n", {"optim.lr=x"});
  EXPECT_EQ(message,
            "the configuration has 4 errors\n"
            "x.yaml:2:3: train.stpes: unknown key (did you mean steps?)\n"
            "      stpes: 3\n"
            "      ^\n"
            "x.yaml:3:17: train.log_interval: 0 is out of range; allowed: an integer, at least 1\n"
            "      log_interval: 0\n"
            "                    ^\n"
            "x.yaml:4:22: model.moe.score: tanh is not known; allowed: sigmoid or softmax\n"
            "    model: {moe: {score: tanh}}\n"
            "                         ^\n"
            "command line: optim.lr=x: optim.lr: x is not a number; allowed: a number from 0 to 1000");
}

TEST(Mistakes, IncludedFilesAreCheckedWhollyAndCyclesRefused) {
  const test::TempDir dir;
  write_file_atomically(dir / "base.yaml", "train:\n  steps: none\n");
  write_file_atomically(dir / "run.yaml", "include: [base.yaml]\ntrain: {steps: 5}\n");
  try {
    load_config(dir / "run.yaml");
    ADD_FAILURE() << "a wrong value in an included file passed because it is overridden";
  } catch (const UserError& error) {
    EXPECT_TRUE(
        std::string(error.what()).starts_with((dir / "base.yaml").string() + ":2:10: train.steps: none is not an integer"))
        << error.what();
  }
  write_file_atomically(dir / "a.yaml", "include: [b.yaml]\n");
  write_file_atomically(dir / "b.yaml", "include: [./a.yaml]\n");
  try {
    load_config(dir / "a.yaml");
    ADD_FAILURE() << "a cycle of includes passed";
  } catch (const UserError& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with((dir / "b.yaml").string() + ":1:11: include: ")) << error.what();
    EXPECT_NE(std::string(error.what()).find("includes itself"), std::string::npos);
  }
}

// Many errors do not flood: fifty in full, the rest counted.
TEST(Mistakes, LongListsAreCut) {
  std::string text = "train:\n";
  for (int i = 0; i < 200; ++i) text += "  key_" + std::to_string(i) + ": 1\n";
  const std::string message = refusal(text);
  EXPECT_TRUE(message.starts_with("the configuration has 200 errors"));
  EXPECT_TRUE(message.ends_with("... and 150 more"));
}

}  // namespace
}  // namespace hadal
