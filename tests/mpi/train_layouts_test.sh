#!/usr/bin/env bash
# Guards: `hadal train` under mpirun over tensor, expert, pipeline and context parallel layouts gives the losses of one rank (f64, 20 steps,
# <= 1e-12 relative), and a run goes on over another layout from a checkpoint in the middle.
# usage: train_layouts_test.sh HADAL MPIEXEC
set -euo pipefail
. "$(dirname -- "$0")/small_run.sh"
hadal=$1 mpiexec=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
small_run "$hadal"

# name, ranks, overrides
train() {
  local name=$1 ranks=$2
  shift 2
  "$mpiexec" --oversubscribe -n "$ranks" "$hadal" train --quiet run.yaml run.dir="$name" checkpoint.interval=10 "$@" 2> "$name.err" || { cat "$name.err"; exit 1; }
  equal_losses "$name" one
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
equal_losses moved one

# What cannot be is refused before anything is made, by every value.
code=0
"$mpiexec" --oversubscribe -n 2 "$hadal" train --quiet run.yaml run.dir=refused parallel.tp=2 model.attention.num_heads=3 2> refused.err || code=$?
[ $code -eq 2 ] && grep -q 'parallel.tp 2 must divide model.attention.num_heads 3' refused.err && [ ! -d refused/checkpoints ] || { cat refused.err; exit 1; }
echo 'an impossible layout is refused'
