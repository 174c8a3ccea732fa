#!/usr/bin/env bash
# Guards: a rank that is stopped, killed, absent or in a deadlock ends the job in one sentence that names it, its place and the call that
# the others wait in, within its bound; what only looks like one (a long computation, a stop that is taken back, an error that the rank
# reports itself, a clean end) is never taken for a hang.
# usage: watchdog_test.sh TEST_MPI_HANG MPIEXEC
set -uo pipefail
program=$1 mpiexec=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failures=0

# name, trouble, proven seconds, silent seconds, expected code, longest seconds, the sentence (a regular expression; "" for none)
check() {
  local name=$1 trouble=$2 begin end code=0 said
  rm -rf "$dir/run"; mkdir "$dir/run"
  begin=$(date +%s%N)
  "$mpiexec" --oversubscribe -n 4 "$program" "$trouble" "$dir/run" "$3" "$4" > "$dir/out" 2>&1 || code=$?
  end=$(( ($(date +%s%N) - begin) / 1000000 ))
  said=$(grep 'error: ' "$dir/out")
  if [ "$code" -ne "$5" ]; then echo "$name: code $code, expected $5"; failures=1; fi
  if [ "$end" -gt $(($6 * 1000)) ]; then echo "$name: took $end ms, at most $6 s were expected"; failures=1; fi
  if [ -n "$7" ] && [ "$(grep -cE "error: $7; the job ends" <<< "$said")" -ne 1 ]; then echo "$name: not said: $7"; failures=1; fi
  if [ "$(grep -c . <<< "$said")" -ne "$(grep -c . <<< "$7")" ]; then echo "$name: more or less than one sentence"; failures=1; fi
  if [ -n "$7" ] && [ ! -e "$dir/run/ended" ]; then echo "$name: the end is not noted"; failures=1; fi
  if [ -n "$7" ] && [ "$(grep -c '^last calls of rank [0-3]' "$dir/run/log/hang.txt")" -ne 4 ]; then echo "$name: no report"; failures=1; fi
  echo "$name: code $code after $end ms: $said"
}

place='in backward of micro-batch 2, layer 5 \(step 7\)'
waits='rank 2 waits for it in all_reduce #8 of dp \{2 3\}; ranks 0 1 wait for it in barrier #8 of world \{0 1 2 3\}'
check 'stopped' stop 3 60 86 12 "rank 3 is stopped $place; $waits"
check 'killed' kill 60 60 137 12 "rank 3 is gone \(killed or crashed\) $place; (rank|ranks|no rank) .*"
check 'killed root' kill_root 60 60 137 12 "rank 0 is gone \(killed or crashed\) $place; (rank|ranks|no rank) .*"
check 'never comes' absent 60 3 86 12 "rank 3 is busy outside any call $place; $waits"
check 'deadlock' deadlock 3 60 86 12 "ranks 2 3 wait for each other: rank 2 in all_reduce #8 of dp \{2 3\} $place, rank 3 in receive #1 \(tag 8\) from rank 2 of world \{0 1 2 3\} $place"
check 'long computation' slow 2 20 0 20 ''
check 'own error' throw 60 60 87 12 ''
check 'clean' none 2 2 0 12 ''

# Stopped for two seconds where four are borne.
(until [ -s "$dir/run/pid" ]; do sleep 0.1; done; sleep 2; kill -CONT "$(cat "$dir/run/pid")") &
check 'stopped and continued' stop 4 60 0 20 ''
exit $failures
