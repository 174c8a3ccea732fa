#!/bin/sh
# mpirun.sh: starts a Hadal program on several ranks of this machine, or of the hosts in a file.
#
#   launch/mpirun.sh -n 2 hadal train configs/run/quickstart.yaml
#   launch/mpirun.sh -n 2 --threads 4 hadal train my.yaml run.dir=runs/a
#   launch/mpirun.sh -n 16 --hosts hosts.txt hadal train my.yaml          hosts.txt: "node1 slots=8", one host a line
#
#   -n N          ranks; default: one per core, or the slots of the host file
#   --threads T   cores, and so threads, of each rank; default: the cores of a host divided by its ranks
#   --hosts FILE  Open MPI host file; the hosts are alike, and see this source tree and the run at the same paths
#   --bind HOW    core (default), or none where binding is not allowed
#   --dry-run     prints the mpirun line and ends
#
# Rank i of a host gets its own cores and, where there are GPUs, the i-th GPU (launch/rank.sh). More ranks than cores, or than
# GPUs, share them. Inside a Slurm allocation of several nodes the ranks are Slurm's tasks (launch/slurm.sbatch does all of it).
#
# Ctrl-C and TERM become USR1 for the ranks: they finish the step, save and stop with 75; a second Ctrl-C ends them at once.
# `hadal` is the one of build/release unless it is found on PATH. Exit code: that of rank 0.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
usage() { sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" | sed '$d'; }
fail() {
  echo "mpirun.sh: $1" >&2
  exit 2
}
is_count() { case $1 in '' | *[!0-9]* | 0) return 1 ;; esac; }

ranks='' threads='' hosts='' bind=core dry_run=''
while [ $# -gt 0 ]; do
  case $1 in
    -n | -np | --threads | --hosts | --bind)
      [ $# -ge 2 ] || fail "$1 needs a value (see --help)"
      case $1 in
        -n | -np) ranks=$2 ;;
        --threads) threads=$2 ;;
        --hosts) hosts=$2 ;;
        --bind) bind=$2 ;;
      esac
      shift 2
      ;;
    --dry-run) dry_run=1; shift ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    -*) fail "there is no flag $1 (see --help)" ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || { usage >&2; exit 2; }
[ "$bind" = core ] || [ "$bind" = none ] || fail "--bind is core or none, not $bind"
[ -z "$hosts" ] || [ -r "$hosts" ] || fail "$hosts cannot be read"

# Physical cores that this process may use; hardware threads where lscpu does not tell.
logical=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
cores=$(lscpu -p=CORE,SOCKET 2> /dev/null | grep -v '^#' | sort -u | wc -l)
{ [ "$cores" -ge 1 ] && [ "$cores" -le "$logical" ]; } || cores=$logical
# Hosts: their slots in all, and those of the largest one.
slots=$cores host_slots=$cores several=''
if [ -n "$hosts" ]; then
  several=1
  counts=$(awk -v cores="$cores" '
    { sub(/#.*/, ""); gsub(/[ \t]*=[ \t]*/, "=") }
    NF { n = cores; for (i = 2; i <= NF; i++) if ($i ~ /^slots=/) n = substr($i, 7); of[$1] += n; total += n }
    END { for (host in of) if (of[host] > most) most = of[host]; print total + 0, most + 0 }' "$hosts")
  slots=${counts% *} host_slots=${counts#* }
  [ "$slots" -gt 0 ] || fail "$hosts names no host"
elif [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
  several=1 slots=${SLURM_NTASKS:-$SLURM_JOB_NUM_NODES} host_slots=${SLURM_TASKS_PER_NODE:-1}
  host_slots=${host_slots%%[!0-9]*}
fi
[ -n "$ranks" ] || ranks=$slots
is_count "$ranks" || fail "-n takes a number of ranks, not $ranks"
host_ranks=$ranks
[ -z "$several" ] || [ "$host_slots" -ge "$ranks" ] || host_ranks=$host_slots
if [ -z "$threads" ]; then
  threads=$((cores / host_ranks))
  [ "$threads" -ge 1 ] || threads=1
fi
is_count "$threads" || fail "--threads takes a number, not $threads"

program=$1
shift
if ! command -v "$program" > /dev/null; then
  if [ "$program" != hadal ] || [ ! -x "$here/build/release/hadal" ]; then
    fail "$program: not found (build first: cmake --preset release && cmake --build --preset release)"
  fi
  program=$here/build/release/hadal
fi
command -v mpirun > /dev/null || fail "mpirun: not found; apt-get install openmpi-bin"

# mpirun asks hwloc for devices that it has no use for. Where OpenCL is installed, that loads PoCL and with it LLVM, whose handler of USR1
# takes the place of mpirun's: the ranks would never hear of it.
export HWLOC_COMPONENTS="${HWLOC_COMPONENTS:--opencl}"
# Containers often run as root.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# mpirun hands stderr on as a pipe: the ranks cannot see that there is a terminal behind it.
if [ -t 2 ] && [ -z "${HADAL_PROGRESS-}" ] && [ "${TERM-dumb}" != dumb ]; then
  COLUMNS=$(stty size < /dev/tty 2> /dev/null | cut -d' ' -f2)
  export HADAL_PROGRESS=live COLUMNS="${COLUMNS:-100}"
fi

# Cores of their own for all ranks? A host file knows its hosts better than this one does.
fits() {
  if [ -n "$several" ]; then [ "$ranks" -le "$slots" ]; else [ $((ranks * threads)) -le "$cores" ]; fi
}
flags="-n $ranks"
[ -z "$hosts" ] || flags="$flags --hostfile $hosts"
if [ "$bind" = none ]; then
  flags="$flags --bind-to none --oversubscribe"
elif fits; then
  flags="$flags --map-by slot:PE=$threads --bind-to core"
else
  # More ranks than cores: they share them in turn, each on one core, so that none starts more threads than it can run.
  [ -n "${HADAL_QUIET-}" ] || echo "mpirun.sh: $ranks ranks x $threads threads on $slots cores: cores are shared" >&2
  flags="$flags --oversubscribe --map-by core --bind-to core:overload-allowed"
  threads=1
fi
# Libraries with threads of their own keep to the rank's cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$threads}" OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-$threads}"
for name in HADAL_PROGRESS COLUMNS NO_COLOR HADAL_SHARED_WINDOW HADAL_ALLOW_SINGLETON HADAL_ISA OMP_NUM_THREADS \
  OPENBLAS_NUM_THREADS HWLOC_COMPONENTS NCCL_RAS_ENABLE CUDA_VISIBLE_DEVICES; do
  if [ -n "$several" ] && env | grep -q "^$name="; then flags="$flags -x $name"; fi
done
if [ -n "$dry_run" ]; then
  echo mpirun "$flags" "$here/launch/rank.sh" "$program" "$@"
  exit 0
fi

# A session of its own: the terminal's Ctrl-C reaches this script alone, which passes it on as USR1.
# shellcheck disable=SC2086 # flags are split on purpose
setsid mpirun $flags "$here/launch/rank.sh" "$program" "$@" &
job=$!
asked=0
stop() {
  asked=$((asked + 1))
  if [ "$asked" -eq 1 ]; then
    printf '\nmpirun.sh: finishing the step and saving; again to stop at once\n' >&2
    kill -USR1 "$job" 2> /dev/null
  else
    kill -TERM "$job" 2> /dev/null
  fi
}
trap stop INT TERM
trap 'kill -USR1 "$job" 2> /dev/null' USR1
trap 'kill -USR2 "$job" 2> /dev/null' USR2
# A trapped signal ends `wait` early; the loop waits until the job is gone.
while :; do
  wait "$job"
  code=$?
  kill -0 "$job" 2> /dev/null || break
done
[ "$code" -le 128 ] || { wait "$job" 2> /dev/null; again=$?; [ "$again" -eq 127 ] || code=$again; }
if [ "$code" -eq 75 ]; then
  echo 'mpirun.sh: stopped after a save; the same command continues (75 is what mpirun remarks on above)' >&2
fi
exit "$code"
