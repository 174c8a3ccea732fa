#!/usr/bin/env bash
# Guards: in `hadal train` on 4 ranks a rank that is stopped in the middle ends the job with 86 within its bound, one that is killed is
# named although the launcher kills the others a second later; status.json says 86; a short stop changes no bit of the losses.
# usage: train_hang_test.sh HADAL MPIEXEC
set -euo pipefail
. "$(dirname -- "$0")/small_run.sh"
hadal=$1 mpiexec=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
small_run "$hadal"

# The process of rank 3 of the job that mpiexec ($1) runs.
rank_3() { for pid in $(cat "/proc/$1/task/"*/children); do
  if tr '\0' '\n' < "/proc/$pid/environ" | grep -qx 'OMPI_COMM_WORLD_RANK=3'; then echo "$pid"; fi; done; }

start() { # run directory, steps
  "$mpiexec" --oversubscribe -n 4 "$hadal" train --quiet run.yaml run.dir="$1" train.steps="$2" checkpoint.interval=2 run.hang_timeout_s=3 2> "$1.err" &
  job=$!
  until [ -d "$1/checkpoints/step-4" ] || ! kill -0 $job; do sleep 0.05; done
  rank=$(rank_3 $job)
}

# run directory, signal, expected code, longest seconds, what is said of rank 3
hang() {
  start "$1" 1000000
  local code=0 begin
  begin=$(date +%s%N)
  kill -"$2" "$rank"
  wait $job || code=$?
  local took=$(( ($(date +%s%N) - begin) / 1000000 ))
  grep 'error:' "$1.err" || { cat "$1.err"; echo "$1: nothing is said"; exit 1; }
  echo "$1: code $code after $took ms; $(cat "$1/status.json")"
  [ "$code" -eq "$3" ] || { echo "expected $3"; exit 1; }
  [ "$took" -le $(($4 * 1000)) ] || { echo "expected at most $4 s"; exit 1; }
  [ "$(grep -c 'error:' "$1.err")" -eq 1 ]
  # In a call of any group of all ranks; not all need wait in the same one: a rank that was stopped inside it may have let others past.
  local waits='(ranks?( [012])+ waits? (for it in [a-z_ ]+ #[0-9]+ of [a-z]+ \{0 1 2 3\}|behind them)|no rank [^;]*)'
  grep -qE "error: rank 3 $5 in .*\(step [0-9]+\)[^;]*(; $waits)+; the job ends" "$1.err"
  grep -qE '"state":"failed","step":[0-9]+,"checkpoint":"checkpoints/step-[0-9]+","exit_code":86' "$1/status.json"
}
hang stopped STOP 86 15 'is stopped'
hang killed KILL 137 10 'is gone \(killed or crashed\)'

start paused 60
kill -STOP "$rank"; sleep 1; kill -CONT "$rank"
wait $job
"$mpiexec" --oversubscribe -n 4 "$hadal" train --quiet run.yaml run.dir=smooth train.steps=60 checkpoint.interval=2
cmp <(losses paused 60) <(losses smooth 60)
[ ! -s paused.err ] || { cat paused.err; exit 1; }
echo 'a stop of one second: the same bits'
