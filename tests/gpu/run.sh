#!/bin/sh
# run.sh: builds, tests and benches the CUDA backend in one go on a machine with a GPU (Ubuntu 24.04 or Debian 12 with the packages of
# launch/packages.sh, the CUDA Toolkit, NCCL; 16 cores: under 9 minutes), and ends with one table.
#
#   tests/gpu/run.sh                   everything
#   tests/gpu/run.sh test              configure, build, tests
#   tests/gpu/run.sh bench             configure, build, benches and peers
#
#   BUILD            build folder; default: build/gpu
#   OUT              full logs and figures; default: build/gpu-logs
#   HADAL_PKG        a folder with unpacked Debian packages (dpkg -x), where headers or libraries are not installed
#   HADAL_PEERS      a folder with torch_step.py, the peer of the whole step, and native_sparse_attention, that of sparse attention
#   HADAL_CMAKE      further words for cmake, as -DCUDNN_FRONTEND_INCLUDE_DIR=...
#   HADAL_PYTHON     Python with PyTorch; default: python3
#
# Each suite of test_cuda is a process of its own under a time limit. Exit code: 0 when everything was built and all tests passed.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$here" || exit 2
what=${1:-all}
case $what in all | test | bench) ;; *) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" | sed '$d' >&2; exit 2 ;; esac
build=${BUILD:-build/gpu} out=${OUT:-build/gpu-logs} python=${HADAL_PYTHON:-python3}
mkdir -p "$build" "$out"
build=$(cd "$build" && pwd) out=$(cd "$out" && pwd)
begin=$(date +%s)
[ -z "${HADAL_PEERS-}" ] || export PYTHONPATH="$HADAL_PEERS${PYTHONPATH:+:$PYTHONPATH}"
export HWLOC_COMPONENTS="${HWLOC_COMPONENTS:--opencl}"  # launch/mpirun.sh says why
say() { printf '[%3d s] %s\n' $(($(date +%s) - begin)) "$*"; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || { echo 'run.sh: no GPU here'; exit 77; }
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# ------------------------------------------------------------------------------------------------------------------ configure
hints=''
if [ -n "${HADAL_PKG-}" ]; then
  # The .pc files of unpacked packages still say /usr.
  mkdir -p "$build/pkgconfig"
  for file in "$HADAL_PKG"/usr/lib/*/pkgconfig/*.pc "$HADAL_PKG"/usr/lib/pkgconfig/*.pc "$HADAL_PKG"/usr/share/pkgconfig/*.pc; do
    [ ! -e "$file" ] || sed "s|=/usr|=$HADAL_PKG/usr|" "$file" > "$build/pkgconfig/$(basename "$file")"
  done
  export PKG_CONFIG_PATH="$build/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
  export CMAKE_PREFIX_PATH="$HADAL_PKG/usr${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
  for folder in "$HADAL_PKG"/usr/lib/*-linux-gnu; do export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; done
fi
# NVIDIA's Python packages hold NCCL and cuDNN too, as files with a version in their name.
wheel_of() { "$python" -c "import nvidia.$1 as m; print(list(m.__path__)[0])" 2> /dev/null; }
if ! ls /usr/include/nccl.h /usr/local/cuda/include/nccl.h /usr/local/include/nccl.h > /dev/null 2>&1 && wheel=$(wheel_of nccl); then
  hints="$hints -DNCCL_INCLUDE_DIR=$wheel/include -DNCCL_LIBRARY=$wheel/lib/libnccl.so.2"
fi
if ! ls /usr/include/cudnn.h /usr/include/*-linux-gnu/cudnn.h /usr/local/cuda/include/cudnn.h /usr/local/include/cudnn.h > /dev/null 2>&1 &&
  wheel=$(wheel_of cudnn); then
  hints="$hints -DCUDNN_INCLUDE_DIR=$wheel/include -DCUDNN_LIBRARY=$wheel/lib/libcudnn.so.9"
fi
command -v ninja > /dev/null && hints="$hints -G Ninja"
say configure
# shellcheck disable=SC2086 # lists
if ! cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DHADAL_CUDA=ON $hints ${HADAL_CMAKE-} > "$out/configure.log" 2>&1; then
  tail -n 25 "$out/configure.log"
  exit 1
fi
grep 'CUDA backend' "$out/configure.log"

# ---------------------------------------------------------------------------------------------------------------------- build
# PyTorch's peers compile their kernels while we compile ours, so that later they only run.
peers_warm=''
if [ "$what" != test ] && "$python" -c 'import torch' 2> /dev/null; then
  nice -n 5 "$python" tests/gpu/peers.py > "$out/peers_warm.log" 2>&1 &
  peers_warm=$!
fi
say build
if ! cmake --build "$build" -j "$(nproc)" --target hadal test_cuda test_gpu_collectives test_mpi_layouts bench_cuda > "$out/build.log" 2>&1; then
  grep -E 'error|FAILED' "$out/build.log" | head -n 40
  say 'the build failed'
  exit 1
fi
[ -z "$peers_warm" ] || wait "$peers_warm"

# ---------------------------------------------------------------------------------------------------------------------- tests
failed=''
# run_one NAME SECONDS COMMAND...: a line of the summary; 77 means that this machine lacks something.
run_one() {
  name=$1 limit=$2
  shift 2
  started=$(date +%s)
  timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
  code=$?
  case $code in
    0) word=passed ;;
    77) word=skipped ;;
    124 | 137) word="FAILED: over $limit s" ;;
    *) word="FAILED: exit code $code" ;;
  esac
  printf '%-44s %4d s  %s\n' "$name" $(($(date +%s) - started)) "$word" > "$out/$name.word"
}
if [ "$what" != bench ]; then
  say tests
  rm -f "$out"/*.word
  # Ranks that share the GPU talk more than they compute: beside the suites, three groups at a time, for each process takes memory of the
  # GPU. Of the layouts of four ranks a fourth (all of them: 4 minutes).
  for chain in "collectives 2 nccl,layouts 2 nccl" "collectives 4 nccl,layouts 4 nccl 0/4" "collectives 2 host,collectives 4 host,layouts 2 host"; do
    echo "$chain" | tr ',' '\n' | while read -r ranks; do
      # shellcheck disable=SC2086 # a list
      run_one "gpu_$(echo "$ranks" | tr ' /' __)" 240 tests/gpu/ranks_test.sh "$build" $ranks < /dev/null
    done &
  done
  running=0 suites=''
  for suite in $("$build/tests/test_cuda" --gtest_list_tests | sed -n 's/^\([A-Za-z0-9_/]*\)\..*/\1/p'); do
    run_one "cuda_$(echo "$suite" | tr / _)" 150 "$build/tests/test_cuda" "--gtest_filter=$suite.*" &
    suites="$suites $!"
    running=$((running + 1))
    # shellcheck disable=SC2086 # a list
    [ $((running % 5)) -ne 0 ] || { wait $suites; suites=''; }
  done
  wait
  run_one mpi_mpirun_sh 120 tests/mpi/mpirun_sh_test.sh
  sort "$out"/*.word
  failed=$(grep -l FAILED "$out"/*.word)
  for word in $failed; do
    log=${word%.word}.log
    printf -- '---- %s\n' "$log"
    grep -E '^\[  FAILED|Failure|error|differs|expected' "$log" | head -n 12
    tail -n 6 "$log"
  done
fi

# -------------------------------------------------------------------------------------------------------------------- benches
if [ "$what" != test ]; then
  say benches
  timeout -k 5 150 "$build/tests/bench/bench_cuda" '' "$out/bench.json" > "$out/bench.log" 2>&1 || say "bench_cuda: exit code $?, see bench.log"
  words="--ours $out/bench.json --markdown $out/table.md"
  slice=configs/bench/v2_lite_slice.yaml
  if [ -e "$slice" ]; then
    if timeout -k 5 90 "$build/hadal" bench "$slice" --json "$out/step.json" > "$out/step.log" 2>&1; then
      words="$words --step $out/step.json"
    else
      say 'hadal bench of the slice failed, see step.log'
    fi
  fi
  say 'a step as a graph'
  for graph in false true; do
    timeout -k 5 60 "$build/hadal" bench configs/run/h100_small.yaml model.num_layers=4 train.global_batch=1 train.micro_batch=1 run.cuda_graph=$graph \
      --json "$out/graph_$graph.json" > "$out/graph_$graph.log" 2>&1 || say "hadal bench with run.cuda_graph=$graph failed, see graph_$graph.log"
  done
  [ ! -e "$out/graph_true.json" ] || [ ! -e "$out/graph_false.json" ] || words="$words --graph $out/graph_false.json $out/graph_true.json"
  if [ -n "$peers_warm" ]; then
    say peers
    timeout -k 5 120 "$python" tests/gpu/peers.py --out "$out/peers.json" > "$out/peers.log" 2>&1 || say "peers.py: exit code $?, see peers.log"
    [ ! -e "$out/peers.json" ] || words="$words --peers $out/peers.json"
    if [ -e "${HADAL_PEERS:-.}/torch_step.py" ]; then
      if timeout -k 5 120 "$python" "$HADAL_PEERS/torch_step.py" v2_lite_slice --device cuda --dtype bf16 --batch 4 --seq 4096 --mode compile \
        > "$out/torch_step.log" 2>&1; then
        words="$words --step-peer $out/torch_step.log"
      else
        say 'torch_step.py failed, see torch_step.log'
      fi
    fi
  fi
  # shellcheck disable=SC2086 # a list
  [ ! -e "$out/bench.json" ] || "$python" tests/gpu/compare.py $words
fi
say "full logs: $out"
[ -z "$failed" ]
