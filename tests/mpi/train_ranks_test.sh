#!/usr/bin/env bash
# Guards: `hadal train` under mpirun on 2 and 4 ranks gives the losses of one rank (f64, 20 steps, <= 1e-12 relative); a run stopped by
# USR1 to mpirun exits 75 and, taken up again, has the same bits as an undisturbed one.
# usage: train_ranks_test.sh HADAL MPIEXEC
set -euo pipefail
. "$(dirname -- "$0")/small_run.sh"
hadal=$1 mpiexec=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

small_run "$hadal"

"$hadal" train --quiet run.yaml run.dir=one
for ranks in 2 4; do
  "$mpiexec" --oversubscribe -n $ranks "$hadal" train --quiet run.yaml run.dir=ranks$ranks
  equal_losses ranks$ranks one
done

"$mpiexec" --oversubscribe -n 2 "$hadal" train --quiet run.yaml run.dir=stopped checkpoint.interval=2 &
launcher=$!
until [ -d stopped/checkpoints/step-2 ] || ! kill -0 $launcher 2>/dev/null; do sleep 0.01; done
kill -USR1 $launcher
code=0; wait $launcher || code=$?
# A run that was already done when the signal came ends with 0.
[ $code -eq 75 ] || [ -d stopped/checkpoints/step-20 ] || { echo "stopped run returned $code"; exit 1; }
"$mpiexec" --oversubscribe -n 2 "$hadal" train --quiet run.yaml run.dir=stopped checkpoint.interval=2
cmp <(losses ranks2 20) <(losses stopped 20)
echo "stopped with $code, resumed: the same bits"
