#!/bin/sh
# mpirun.sh: starts a Hadal program on several ranks of this machine, or of the hosts in a file.
#
#   launch/mpirun.sh -n 2 hadal train configs/run/quickstart.yaml
#   launch/mpirun.sh -n 2 --threads 4 hadal train my.yaml run.dir=runs/a
#   launch/mpirun.sh -n 16 --hosts hosts.txt hadal train my.yaml          hosts.txt: "node1 slots=8", one host a line
#
#   -n N          ranks; default: one per core
#   --threads T   cores, and so threads, of each rank; default: the machine's cores divided by N
#   --hosts FILE  Open MPI host file
#   --bind HOW    core (default), or none where binding is not allowed
#   --dry-run     prints the mpirun line and ends
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
logical=$(nproc)
cores=$(lscpu -p=CORE,SOCKET 2> /dev/null | grep -v '^#' | sort -u | wc -l)
{ [ "$cores" -ge 1 ] && [ "$cores" -le "$logical" ]; } || cores=$logical
[ -n "$ranks" ] || ranks=$cores
is_count "$ranks" || fail "-n takes a number of ranks, not $ranks"
if [ -z "$threads" ]; then
  threads=$((cores / ranks))
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

# Containers often run as root.
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# mpirun hands stderr on as a pipe: the ranks cannot see that there is a terminal behind it.
if [ -t 2 ] && [ -z "${HADAL_PROGRESS-}" ] && [ "${TERM-dumb}" != dumb ]; then
  COLUMNS=$(stty size < /dev/tty 2> /dev/null | cut -d' ' -f2)
  export HADAL_PROGRESS=live COLUMNS="${COLUMNS:-100}"
fi

flags="-n $ranks"
for name in HADAL_PROGRESS COLUMNS NO_COLOR HADAL_SHARED_WINDOW HADAL_ALLOW_SINGLETON; do
  if [ -n "$hosts" ] && env | grep -q "^$name="; then flags="$flags -x $name"; fi
done
[ -z "$hosts" ] || flags="$flags --hostfile $hosts"
if [ "$bind" = none ]; then
  flags="$flags --bind-to none --oversubscribe"
elif [ -n "$hosts" ] || [ $((ranks * threads)) -le "$cores" ]; then
  flags="$flags --map-by slot:PE=$threads --bind-to core"
else
  # More ranks than cores: they share them in turn, each on one core, so that none starts more threads than it can run.
  [ -n "${HADAL_QUIET-}" ] || echo "mpirun.sh: $ranks ranks x $threads threads on $cores cores: cores are shared" >&2
  flags="$flags --oversubscribe --map-by core --bind-to core:overload-allowed"
fi
if [ -n "$dry_run" ]; then
  echo mpirun "$flags" "$program" "$@"
  exit 0
fi

# A session of its own: the terminal's Ctrl-C reaches this script alone, which passes it on as USR1.
# shellcheck disable=SC2086 # flags are split on purpose
setsid mpirun $flags "$program" "$@" &
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
