#!/usr/bin/env bash
# Guards: `hadal train` under mpirun over tensor, expert, pipeline and context parallel layouts gives the losses of one rank (f64, 20 steps,
# <= 1e-12 relative), and a run goes on over another layout from a checkpoint in the middle.
# usage: train_layouts_test.sh HADAL MPIEXEC
set -euo pipefail
. "$(dirname -- "$0")/small_run.sh"
hadal=$1 mpiexec=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
small_run "$hadal"

losses() { awk -F'[:,]' '/"loss"/ { for (i = 1; i < NF; i++) { if ($i ~ /"step"/) s = $(i + 1); if ($i == "\"loss\"") l[s] = $(i + 1) } }
  END { for (s = 1; s <= 20; s++) print s, l[s] }' "$1/metrics.jsonl"; }
equals_one() {
  paste -d' ' <(losses one) <(losses "$1") | awk -v name="$1" '
    { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d; if ($2 == "" || $4 == "") missing++ }
    END { printf "%s against one rank: %d steps, largest relative difference %.2e\n", name, NR, worst; exit !(NR == 20 && !missing && worst <= 1e-12) }'
}
# name, ranks, overrides
train() {
  local name=$1 ranks=$2
  shift 2
  "$mpiexec" --oversubscribe -n "$ranks" "$hadal" train --quiet run.yaml run.dir="$name" checkpoint.interval=10 "$@" 2> "$name.err" || { cat "$name.err"; exit 1; }
  equals_one "$name"
}

"$hadal" train --quiet run.yaml run.dir=one
train tensor 2 parallel.tp=2
train two-hop 4 parallel.ep=4 parallel.ranks_per_node=2
train dualpipe_v 2 parallel.pp=2 parallel.schedule=dualpipe_v
train context 2 parallel.cp=2
train all 8 parallel.pp=2 parallel.cp=2 parallel.tp=2 parallel.ep=2 parallel.etp=2
train dualpipe 4 parallel.pp=2 parallel.schedule=dualpipe parallel.tp=2 parallel.ep=2

# From step 10 of one layout on in another.
cp -r dualpipe moved
rm -r moved/checkpoints/step-20
train moved 4 parallel.tp=2 parallel.ep=4
rm -r moved/checkpoints/step-20
"$hadal" train --quiet run.yaml run.dir=moved
equals_one moved

# What cannot be is refused before anything is made, by every value.
code=0
"$mpiexec" --oversubscribe -n 2 "$hadal" train --quiet run.yaml run.dir=refused parallel.tp=2 model.attention.num_heads=3 2> refused.err || code=$?
[ $code -eq 2 ] && grep -q 'parallel.tp 2 must divide model.attention.num_heads 3' refused.err && [ ! -d refused/checkpoints ] || { cat refused.err; exit 1; }
echo 'an impossible layout is refused'
