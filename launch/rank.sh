#!/bin/sh
# rank.sh PROGRAM ARGUMENT...: becomes the program of one rank, with the GPU and the environment of that rank. mpirun.sh and
# slurm.sbatch start their ranks through it.
#
# GPU: rank i of a host sees the i-th GPU alone, of those that CUDA_VISIBLE_DEVICES lists or else of all; more ranks than GPUs
# share them in turn; without a GPU nothing is set. This is done by the variable and not by a launcher's device control group,
# which would hide the neighbours' GPUs from the driver and with them the direct paths between two of them.
set -u
local_rank=${OMPI_COMM_WORLD_LOCAL_RANK:-${SLURM_LOCALID:-${MPI_LOCALRANKID:-0}}}

devices=${CUDA_VISIBLE_DEVICES-}
if [ -z "${CUDA_VISIBLE_DEVICES+set}" ]; then
  count=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' 2> /dev/null | wc -l)
  [ "$count" -eq 0 ] || devices=$(seq -s, 0 $((count - 1)))
fi
if [ -n "$devices" ]; then
  count=$(echo "$devices" | tr ',' '\n' | wc -l)
  CUDA_VISIBLE_DEVICES=$(echo "$devices" | cut -d, -f$((local_rank % count + 1)))
  export CUDA_VISIBLE_DEVICES
fi

# NCCL's RAS service would listen on a port of the host.
export NCCL_RAS_ENABLE="${NCCL_RAS_ENABLE:-0}"
exec "$@"
