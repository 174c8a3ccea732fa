#!/bin/sh
# on_one_gpu.sh PROGRAM ARGUMENT...: becomes one of several ranks that share a GPU. NCCL takes them for ranks of different hosts, which
# talk through the loopback interface.
export NCCL_HOSTID="rank${OMPI_COMM_WORLD_RANK:-0}" NCCL_SOCKET_IFNAME=lo NCCL_RAS_ENABLE=0
exec "$@"
