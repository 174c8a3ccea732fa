#!/usr/bin/env bash
# Guards: an error that all ranks find is printed once, and the launcher returns its code without an alarm of its own; one that a
# single rank finds, or another one on each rank, is always printed and ends all ranks.
# usage: errors_once_test.sh HADAL MPIEXEC
set -euo pipefail
hadal=$1 mpiexec=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

awk 'BEGIN { for (i = 0; i < 2000; i++) print "words of line", i * 7919 % 997 }' > text.txt
"$hadal" tokenizer train --quiet --input text.txt --vocab-size 300 --out tokenizer
"$hadal" data build --quiet --input text.txt --documents 1KiB --tokenizer tokenizer --out tokens.h5
cat > good.yaml <<'YAML'
model:
  vocab_size: 300
  hidden_size: 16
  num_layers: 1
  intermediate_size: 24
  attention: {kind: mla, num_heads: 2, kv_lora_rank: 8, qk_nope_head_dim: 6, qk_rope_head_dim: 4, v_head_dim: 6}
data: {sources: [{path: tokens.h5}], sequence_length: 32}
train: {steps: 100000, global_batch: 8, micro_batch: 2}
YAML
sed 's/hidden_size/hiden_size/' good.yaml > misspelt.yaml

# expect NAME CODE TEXT COUNT ARGUMENT...: mpiexec ends with CODE, and TEXT stands COUNT times in what it prints.
expect() {
  local name=$1 code=$2 text=$3 count=$4 got=0 seen
  local begin=$SECONDS
  shift 4
  timeout 60 "$mpiexec" --oversubscribe "$@" > output 2>&1 || got=$?
  seen=$(grep -c -- "$text" output || true)
  echo "$name: exit code $got, printed $seen times, $((SECONDS - begin)) s"
  if [ "$got" -ne "$code" ] || [ "$seen" -ne "$count" ]; then
    echo "expected exit code $code and $count times: $text"
    cat output
    exit 1
  fi
}

expect 'misspelt key, 4 ranks' 2 'hiden_size: unknown key' 1 -n 4 "$hadal" train misspelt.yaml
if grep -q MPI_ABORT output; then cat output; echo 'bad input is no reason for MPI_Abort'; exit 1; fi
expect 'unknown flag, 4 ranks' 2 'no-such-flag' 1 -n 4 "$hadal" bench --no-such-flag good.yaml
expect 'unknown verb, 4 ranks' 2 'no such verb' 1 -n 4 "$hadal" trian good.yaml
# Found when the ranks have joined already.
expect 'no data file, 4 ranks' 2 'absent.h5' 1 -n 4 "$hadal" train good.yaml data.sources.0.path=absent.h5 run.dir=absent
# On one rank alone, the first or the last: the other one trains, or waits for it.
expect 'on rank 0 alone' 2 'hiden_size: unknown key' 1 -n 1 "$hadal" train misspelt.yaml : -n 1 "$hadal" train good.yaml run.dir=a
expect 'on rank 1 alone' 2 'hiden_size: unknown key' 1 -n 1 "$hadal" train good.yaml run.dir=b : -n 1 "$hadal" train misspelt.yaml
expect 'two reasons, first' 2 'hiden_size: unknown key' 1 -n 2 "$hadal" train misspelt.yaml : -n 2 "$hadal" train absent.yaml
grep -q 'absent.yaml' output || { cat output; echo 'the other reason is missing'; exit 1; }
