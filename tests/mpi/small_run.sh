# For the scripts beside this one: small_run HADAL makes text, a tokenizer, tokens and run.yaml (f64, 20 steps) in the working directory.
small_run() {
  awk 'BEGIN { srand(7); for (line = 0; line < 3000; line++) { text = ""; for (w = 0; w < 9; w++) { n = int(rand() * rand() * 200);
    text = text (w ? " " : "") sprintf("%c%c%s", 97 + n % 26, 97 + int(n / 26), n % 3 ? "ing" : "e") } print text "." } }' > text.txt
  "$1" tokenizer train --quiet --input text.txt --vocab-size 300 --out tokenizer
  "$1" data build --quiet --input text.txt --documents 1KiB --tokenizer tokenizer --out tokens.h5
  cat > run.yaml <<'YAML'
model:
  vocab_size: 300
  hidden_size: 16
  num_layers: 2
  intermediate_size: 24
  max_positions: 64
  init_std: 0.2
  attention: {kind: mla, sparse: nsa, num_heads: 2, kv_lora_rank: 8, qk_nope_head_dim: 6, qk_rope_head_dim: 4, v_head_dim: 6,
              nsa: {block_length: 4, block_stride: 2, select_block: 4, num_selected: 3, window: 5}}
  moe: {num_experts: 8, top_k: 2, intermediate_size: 8, first_dense_layers: 1}
  mtp: {depth: 1}
data: {sources: [{path: tokens.h5}], sequence_length: 32}
train: {steps: 20, global_batch: 8, micro_batch: 2}
optim: {lr: 3e-3}
precision: {compute: f64}
YAML
}
