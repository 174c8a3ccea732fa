#!/bin/sh
# collectives_test.sh BUILD: test_gpu_collectives on 2 and 4 ranks that share a GPU, through the host and by NCCL.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for transport in host nccl; do
  for ranks in 2 4; do
    code=0
    mpirun --oversubscribe --bind-to none -n "$ranks" "$here/on_one_gpu.sh" "$1/tests/test_gpu_collectives" "$transport" || code=$?
    [ "$code" -eq 0 ] || exit "$code"
  done
done
