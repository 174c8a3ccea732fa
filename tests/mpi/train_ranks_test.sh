#!/usr/bin/env bash
# Guards: `hadal train` under mpirun on 2 and 4 ranks gives the losses of one rank (f64, 20 steps, <= 1e-12 relative); a run stopped by
# USR1 to mpirun exits 75 and, taken up again, has the same bits as an undisturbed one.
# usage: train_ranks_test.sh HADAL MPIEXEC
set -euo pipefail
. "$(dirname -- "$0")/small_run.sh"
hadal=$1 mpiexec=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

small_run "$hadal"

# step and loss of every step; the last row of a step counts.
losses() { awk -F'[:,]' '/"loss"/ { for (i = 1; i < NF; i++) { if ($i ~ /"step"/) s = $(i + 1); if ($i == "\"loss\"") l[s] = $(i + 1) } }
  END { for (s = 1; s <= 20; s++) print s, l[s] }' "$1/metrics.jsonl"; }

"$hadal" train --quiet run.yaml run.dir=one
for ranks in 2 4; do
  "$mpiexec" --oversubscribe -n $ranks "$hadal" train --quiet run.yaml run.dir=ranks$ranks
  paste -d' ' <(losses one) <(losses ranks$ranks) | awk -v ranks=$ranks '
    { d = ($2 - $4) / $2; if (d < 0) d = -d; if (d > worst) worst = d; if ($2 == "" || $4 == "") missing++ }
    END { printf "%d ranks against one: %d steps, largest relative difference %.2e\n", ranks, NR, worst; exit !(NR == 20 && !missing && worst <= 1e-12) }'
done

"$mpiexec" --oversubscribe -n 2 "$hadal" train --quiet run.yaml run.dir=stopped checkpoint.interval=2 &
launcher=$!
until [ -d stopped/checkpoints/step-2 ] || ! kill -0 $launcher 2>/dev/null; do sleep 0.01; done
kill -USR1 $launcher
code=0; wait $launcher || code=$?
# A run that was already done when the signal came ends with 0.
[ $code -eq 75 ] || [ -d stopped/checkpoints/step-20 ] || { echo "stopped run returned $code"; exit 1; }
"$mpiexec" --oversubscribe -n 2 "$hadal" train --quiet run.yaml run.dir=stopped checkpoint.interval=2
cmp <(losses ranks2) <(losses stopped)
echo "stopped with $code, resumed: the same bits"
