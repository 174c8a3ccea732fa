#!/bin/sh
# ranks_test.sh BUILD PROGRAM RANKS TRANSPORT: PROGRAM on ranks that share a GPU, whose device memory travels by `nccl` or through the `host`.
#   collectives   every collective against sums made on one rank
#   layouts       layouts of a whole small model equal one rank in f32
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case $2 in
  collectives) program=$1/tests/test_gpu_collectives ;;
  layouts) program=$1/tests/test_mpi_layouts ;;
  *) sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
exec mpirun --oversubscribe --bind-to none -n "$3" "$here/on_one_gpu.sh" "$program" "$4"
