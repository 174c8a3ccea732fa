#!/bin/sh
# layouts_test.sh BUILD: layouts of a whole small model on 2 and 4 ranks that share a GPU equal one rank in f32, by NCCL and through the
# host.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for run in "2 nccl" "4 nccl" "2 host"; do
  code=0
  # shellcheck disable=SC2086 # two words
  set -- "$1" $run
  mpirun --oversubscribe --bind-to none -n "$2" "$here/on_one_gpu.sh" "$1/tests/test_mpi_layouts" "$3" || code=$?
  [ "$code" -eq 0 ] || exit "$code"
done
