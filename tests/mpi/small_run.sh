# For the scripts beside this one. In the working directory:
#   small_tokens HADAL          makes text, a tokenizer and tokens.h5
#   small_run HADAL             ... and run.yaml (f64, 20 steps)
#   losses RUN STEPS            step and loss of every step; the last row of a step counts
#   equal_losses RUN OTHER      compares 20 losses to 1e-12 relative and says how far they are apart
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

small_tokens() {
  awk 'BEGIN { srand(7); for (line = 0; line < 3000; line++) { text = ""; for (w = 0; w < 9; w++) { n = int(rand() * rand() * 200);
    text = text (w ? " " : "") sprintf("%c%c%s", 97 + n % 26, 97 + int(n / 26), n % 3 ? "ing" : "e") } print text "." } }' > text.txt
  "$1" tokenizer train --quiet --input text.txt --vocab-size 300 --out tokenizer
  "$1" data build --quiet --input text.txt --documents 1KiB --tokenizer tokenizer --out tokens.h5
}

small_run() {
  small_tokens "$1"
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

losses() {
  awk -F'[:,]' -v steps="$2" '/"loss"/ { for (i = 1; i < NF; i++) { if ($i ~ /"step"/) s = $(i + 1); if ($i == "\"loss\"") l[s] = $(i + 1) } }
    END { for (s = 1; s <= steps; s++) print s, l[s] }' "$1/metrics.jsonl"
}

equal_losses() {
  paste -d' ' <(losses "$1" 20) <(losses "$2" 20) | awk -v name="$1 against $2" '
    { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d; if ($2 == "" || $4 == "") missing++ }
    END { printf "%s: %d steps, largest relative difference %.2e\n", name, NR, worst; exit !(NR == 20 && !missing && worst <= 1e-12) }'
}
