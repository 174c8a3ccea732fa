#!/bin/sh
# launch/mpirun.sh turns TERM into USR1 for every rank, waits for them and hands on the 75 of rank 0; it gives each rank its cores, its
# GPU and its threads, and reads the slots of a host file. The ranks are shells.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat > "$work/rank" <<'RANK'
#!/bin/sh
rank=$OMPI_COMM_WORLD_RANK
trap 'touch "$1.asked.$rank"; [ "$rank" = 0 ] && exit 75; exit 0' USR1
touch "$1.up.$rank"
for _ in $(seq 300); do sleep 0.1; done
exit 3
RANK
chmod +x "$work/rank"

"$here/launch/mpirun.sh" -n 2 "$work/rank" "$work/file" > "$work/out" 2>&1 &
job=$!
for _ in $(seq 100); do
  if [ -e "$work/file.up.0" ] && [ -e "$work/file.up.1" ]; then break; fi
  sleep 0.1
done
kill -TERM "$job"
code=0
wait "$job" || code=$?
cat "$work/out"
[ "$code" -eq 75 ] || { echo "expected 75, got $code"; exit 1; }
[ -e "$work/file.asked.0" ] && [ -e "$work/file.asked.1" ] || { echo 'a rank got no USR1'; exit 1; }
[ "$("$here/launch/mpirun.sh" -n 1 --dry-run true | grep -c 'map-by slot:PE=')" -eq 1 ] || { echo 'no binding'; exit 1; }

# Rank i sees the i-th GPU of those that are given, in turn; a rank that shares a core has one thread. As many ranks as cores + 1.
ranks=$(($(env -u OMP_NUM_THREADS nproc) + 1))
env -u OMP_NUM_THREADS HADAL_QUIET=1 CUDA_VISIBLE_DEVICES=5,GPU-ab,7 "$here/launch/mpirun.sh" -n "$ranks" \
  sh -c 'echo "$OMPI_COMM_WORLD_RANK sees $CUDA_VISIBLE_DEVICES, $OMP_NUM_THREADS thread, $(env -u OMP_NUM_THREADS nproc) core, RAS $NCCL_RAS_ENABLE"' |
  tr -d '\r' | sort -n > "$work/seen"
for rank in $(seq 0 $((ranks - 1))); do
  echo "$rank sees $(echo 5 GPU-ab 7 | cut -d' ' -f$((rank % 3 + 1))), 1 thread, 1 core, RAS 0"
done | diff - "$work/seen" || { echo 'a rank got other GPUs, threads or cores'; exit 1; }

# flags_of ARGUMENT...: the mpirun line.
flags_of() { "$here/launch/mpirun.sh" "$@" --dry-run true 2> "$work/notes"; }
wants() { case $1 in *"$2"*) ;; *) echo "wanted $2 in: $1"; exit 1 ;; esac; }
printf 'alpha slots=2\n# beta slots=9\ngamma slots = 4 # fat\n' > "$work/hosts"
wants "$(flags_of --hosts "$work/hosts" --threads 3)" "-n 6 --hostfile $work/hosts --map-by slot:PE=3 --bind-to core -x"
wants "$(flags_of --hosts "$work/hosts" -n 7)" '--bind-to core:overload-allowed'
wants "$(HADAL_ISA=avx2 flags_of --hosts "$work/hosts")" '-x HADAL_ISA'
wants "$(SLURM_JOB_ID=1 SLURM_JOB_NUM_NODES=2 SLURM_NTASKS=8 SLURM_TASKS_PER_NODE='4(x2)' flags_of --threads 2)" '-n 8 --map-by slot:PE=2'
wants "$(flags_of -n 1 --bind none)" '--bind-to none --oversubscribe'
echo 'localhost slots=1' > "$work/hosts"
seen=$(OMP_NUM_THREADS=1 "$here/launch/mpirun.sh" --hosts "$work/hosts" --threads 1 sh -c 'echo "$OMPI_COMM_WORLD_SIZE rank, $OMP_NUM_THREADS thread"')
wants "$seen" '1 rank, 1 thread'
echo '# nobody' > "$work/hosts"
if flags_of --hosts "$work/hosts"; then echo 'a host file without hosts passed'; exit 1; fi

echo 'mpirun.sh: USR1 reached both ranks, 75 came back; cores, GPUs and hosts as they should be'
