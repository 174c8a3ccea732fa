#!/bin/sh
# on_one_gpu.sh PROGRAM ARGUMENT...: becomes one of several ranks that share a GPU. NCCL takes them for ranks of different hosts, which
# talk through the loopback interface, where one channel with small buffers does as well as many and is made sooner.
export NCCL_HOSTID="rank${OMPI_COMM_WORLD_RANK:-0}" NCCL_SOCKET_IFNAME=lo NCCL_RAS_ENABLE=0
export NCCL_MAX_NCHANNELS=1 NCCL_MAX_CTAS=1 NCCL_BUFFSIZE=524288 NCCL_SOCKET_NTHREADS=1 NCCL_NSOCKS_PERTHREAD=1
exec "$@"
