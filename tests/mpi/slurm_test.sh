#!/usr/bin/env bash
# Guards: launch/slurm.sbatch under a real Slurm (munged, slurmctld and one slurmd of its own, on this machine's loopback). A job that
# a job of a higher partition pre-empts, with the signal that the script asks for or with plain TERM, saves, goes back into the
# queue, resumes and has the same bits as an undisturbed run; so it is under mpirun; a cancelled job saves and stays out of the
# queue; one with a wrong config, or without progress, ends. A busy machine makes it slow, not wrong: jobs run until something happens to
# them and learn only then how many steps they are to make, waits end by their event, Slurm's own patience is long.
# Skipped aloud where Slurm is missing or does not start.
# usage: slurm_test.sh HADAL MPIEXEC
set -euo pipefail
hadal=$1 mpiexec=$2
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
. "$root/tests/mpi/small_run.sh"
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM  # in a job, that is launch/slurm.sbatch's to set
PATH=$PATH:/usr/sbin:/sbin
skip() { echo "SKIPPED: $1"; exit 0; }
for program in munged slurmctld slurmd sbatch; do
  command -v $program > /dev/null || skip "no $program here: apt-get install slurm-wlm munge"
done
[ "$(id -u)" -eq 0 ] || skip 'a slurmd that starts jobs must be root'
while read -r name; do unset "$name"; done < <(compgen -v | grep -E '^(SLURM|SBATCH|SRUN)_')

dir=$(mktemp -d)
mkdir -p "$dir/munge" "$dir/state" "$dir/spool" "$dir/log" "$dir/jobs" "$dir/pmix"
cd "$dir/jobs"
export SLURM_CONF=$dir/slurm.conf

# ---------------------------------------------------------------------------------------------------------- Slurm, and its end
# Every process of this Slurm and of its jobs has SLURM_CONF in the environment that it started with; this shell has not.
ours() { grep -lzxF "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ 2> /dev/null | tr -dc '0-9\n' || true; }
finish() {
  code=$?
  trap '' EXIT INT TERM
  if [ $code -ne 0 ]; then tail -n 40 "$dir"/log/* "$dir"/jobs/*.out 2> /dev/null || true; fi
  for signal in TERM KILL; do
    for pid in $(ours); do kill -CONT "$pid" 2> /dev/null || true; kill -$signal "$pid" 2> /dev/null || true; done
    for _ in $(seq 20); do [ -n "$(ours)" ] || break; sleep 0.1; done
  done
  rm -rf "$dir"
  exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    if ! (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then echo $port; return; fi
  done
}
cores=$(nproc)
affinity=task/affinity
[ "$cores" -ge 2 ] || affinity=task/none
cat > "$SLURM_CONF" <<CONF
ClusterName=hadal
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=20
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdLogFile=$dir/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=$affinity
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
MessageTimeout=100
TCPTimeout=60
BatchStartTimeout=300
KillWait=300
UnkillableStepTimeout=600
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=600
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
CONF
echo "PMIxCliTmpDirBase=$dir/pmix" > "$dir/mpi.conf"
chmod 700 "$dir/munge"
head -c 1024 /dev/urandom > "$dir/munge/key"
chmod 400 "$dir/munge/key"
munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" --log-file="$dir/log/munged" \
  --seed-file="$dir/munge/seed" > "$dir/log/start" 2>&1 || skip "munged does not start: $(tail -n 1 "$dir/log/start")"
slurmctld -c > "$dir/log/start" 2>&1 || skip "slurmctld does not start: $(tail -n 1 "$dir/log/start")"
slurmd > "$dir/log/start" 2>&1 || skip "slurmd does not start: $(tail -n 1 "$dir/log/start")"
for _ in $(seq 600); do
  if [ "$(sinfo --noheader --partition=low --format=%t 2> /dev/null)" = idle ]; then break; fi
  sleep 0.1
done
[ "$(sinfo --noheader --partition=low --format=%t 2> "$dir/log/start")" = idle ] || skip "the node does not come up: $(tail -n 1 "$dir/log/slurmd")"
srun --ntasks=2 --mpi=pmix true 2> "$dir/log/start" || skip "srun starts nothing: $(tail -n 1 "$dir/log/start")"

# -------------------------------------------------------------------------------------------------------------------- the run
small_tokens "$hadal"
cat > run.yaml <<'YAML'
model:
  vocab_size: 300
  hidden_size: 16
  num_layers: 2
  intermediate_size: 24
  max_positions: 64
  attention: {kind: mla, num_heads: 2, kv_lora_rank: 8, qk_nope_head_dim: 6, qk_rope_head_dim: 4, v_head_dim: 6}
  moe: {num_experts: 8, top_k: 2, intermediate_size: 8, first_dense_layers: 1}
  mtp: {depth: 1}
data: {sources: [{path: tokens.h5}], sequence_length: 32}
train: {steps: 1000000, global_batch: 16, micro_batch: 4}
optim: {lr: 3e-3, schedule: {decay_steps: 400}}
YAML
sed 's/hidden_size/hiden_size/' run.yaml > misspelt.yaml
for name in preempted by_term under_mpirun; do cp run.yaml $name.yaml; done
# What each of the first STEPS steps of a run did; the last row of a step counts.
steps_of() { awk -v steps="$2" -F'[:,]' '/"loss"/ { for (i = 1; i < NF; i++) { if ($i ~ /"step"/) s = $(i + 1); if ($i ~ /"(loss|mtp_loss|grad_norm)"/) v[s, $i] = $(i + 1) } }
  END { for (s = 1; s <= steps; s++) print s, v[s, "\"loss\""], v[s, "\"mtp_loss\""], v[s, "\"grad_norm\""] }' "$dir/jobs/$1/metrics.jsonl"; }
last_step() { sed -n 's/.*"step":\([0-9]*\),.*"loss".*/\1/p' "$1/metrics.jsonl" | tail -n 1; }

# -------------------------------------------------------------------------------------------------------------------- helpers
fail() { echo "FAILED: $1"; exit 1; }
# submit SCRIPT NAME FLAG... -- CONFIG...: the job's number; its run directory is NAME, its output NAME.out.
submit() {
  local script=$1 name=$2 flags=()
  shift 2
  while [ "$1" != -- ]; do flags+=("$1"); shift; done
  shift
  HADAL_ROOT=$root PATH=$(dirname "$hadal"):$PATH sbatch --parsable --ntasks-per-node=2 --time=5 --job-name="$name" --output="$name.out" \
    "${flags[@]}" "$script" "$@" run.dir="$dir/jobs/$name"
}
field() { scontrol --oneliner show job "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"; }
patience_s=300
until_true() {
  local end=$((SECONDS + patience_s))
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}
said() { grep -q -- "$2" "$1.out" 2> /dev/null; }
trains() { [ -s "$1/metrics.jsonl" ]; }
ended() { [[ $(field "$1" JobState) =~ ^(COMPLETED|FAILED|CANCELLED|TIMEOUT)$ ]]; }
# signal_ranks SIGNAL NAME: to the hadal processes of that run.
signal_ranks() {
  local file words
  for file in /proc/[0-9]*/cmdline; do
    { mapfile -d '' -t words < "$file"; } 2> /dev/null || continue
    if [[ ${words[0]-} == "$hadal" && " ${words[*]} " == *" run.dir=$dir/jobs/$2 "* ]]; then kill -"$1" "${file//[!0-9]/}"; fi
  done
}
# hold NAME: once the run has made a step its ranks stand still, and NAME.yaml, which the job reads when it starts again, has it end 150
# steps later.
declare -A steps
hold() {
  until_true trains "$1" || fail "$1 does not start: $(cat "$1.out")"
  signal_ranks STOP "$1"
  steps[$1]=$(($(last_step "$1") + 150))
  sed "s/steps: 1000000/steps: ${steps[$1]}/" run.yaml > "$1.yaml"
}
# expect JOB NAME STATE CODE RESTARTS
expect() {
  until_true ended "$1" || fail "$2 is $(field "$1" JobState) and does not end"
  local got
  got="$(field "$1" JobState) $(field "$1" ExitCode) $(field "$1" Restarts)"
  echo "$2: $got restarts"
  [ "$got" = "$3 $4 $5" ] || fail "$2: expected $3 $4 $5"
}
# same_steps NAME...: as many steps as they were told, with the numbers of one run that nothing happened to.
same_steps() {
  local name most=0
  for name in "$@"; do if [ "${steps[$name]}" -gt $most ]; then most=${steps[$name]}; fi; done
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
    "$mpiexec" --oversubscribe -n 2 "$hadal" train --quiet run.yaml run.dir=undisturbed train.steps="$most"
  for name in "$@"; do
    [ "$(last_step "$name")" -eq "${steps[$name]}" ] || fail "$name: $(last_step "$name") steps, not ${steps[$name]}"
    cmp <(steps_of undisturbed "${steps[$name]}") <(steps_of "$name" "${steps[$name]}") || fail "$name: other numbers than the undisturbed run"
  done
}

# ------------------------------------------------------------------------------------------------------------------------ pre-emption
preempted=$(submit "$root/launch/slurm.sbatch" preempted --partition=low -- preempted.yaml)
hold preempted
urgent=$(sbatch --parsable --partition=high --ntasks=2 --output=urgent.out --wrap='sleep 0.5')
until_true said preempted 'asked to stop' || fail 'no signal at pre-emption'
[[ $(field "$preempted" PreemptTime) == 2* ]] || fail "it was not Slurm's pre-emption that sent the signal"
[ "$(field "$urgent" JobState)" = PENDING ] || fail 'the urgent job runs beside the one that it pre-empts'
signal_ranks CONT preempted
until_true said preempted 'back into the queue' || fail 'not requeued'

# ------------------------------------------------------------------------------------ meanwhile: what else can happen to a job
# Pre-empted by the jobs below, by plain TERM: as where Slurm is not told to send the job's own signal.
sed '/^#SBATCH --signal/d' "$root/launch/slurm.sbatch" > no_signal.sbatch
by_term=$(submit no_signal.sbatch by_term --partition=low -- by_term.yaml)
hold by_term
sed 's/^launcher=auto/launcher=mpirun/' "$root/launch/slurm.sbatch" > mpirun.sbatch
sed 's/^max_idle_starts=3/max_idle_starts=1/' "$root/launch/slurm.sbatch" > impatient.sbatch
# A run that is stopped before it has done a step.
mkdir idle_hadal
cat > idle_hadal/hadal <<FAKE
#!/bin/sh
[ "\$1" = train ] || exec "$hadal" "\$@"
[ "\$SLURM_PROCID" = 0 ] && exit 75
exit 0
FAKE
chmod +x idle_hadal/hadal
under_mpirun=$(submit mpirun.sbatch under_mpirun --partition=high -- under_mpirun.yaml)
idle=$(hadal=$dir/jobs/idle_hadal/hadal submit impatient.sbatch idle --partition=high -- run.yaml)
wrong=$(submit "$root/launch/slurm.sbatch" wrong --partition=high -- misspelt.yaml)
cancelled=$(submit "$root/launch/slurm.sbatch" cancelled --partition=high -- run.yaml train.steps=1000000)

until_true said by_term 'back into the queue' || fail 'not requeued after TERM'
hold under_mpirun
scancel --batch --signal=USR1 "$under_mpirun"
until_true said under_mpirun 'asked to stop' || fail 'the signal did not reach the script'
signal_ranks CONT under_mpirun

until_true trains cancelled || fail 'the run to be cancelled does not start'
scancel "$cancelled"
until_true ended "$cancelled" || fail 'the cancelled run does not end'
[ "$(field "$cancelled" JobState) $(field "$cancelled" Restarts)" = 'CANCELLED 0' ] || fail 'the cancelled job went back into the queue'
[[ $(< cancelled/status.json) == *'"state":"stopped"'*'"exit_code":75'* ]] || fail "the cancelled run did not save: $(< cancelled/status.json)"
expect "$wrong" wrong FAILED 2:0 0
[ "$(grep -c 'unknown key' wrong.out)" -eq 1 ] || fail 'the mistake in the config is not reported once'
expect "$idle" idle FAILED 1:0 1
said idle 'no further than step 0' || fail 'a job without progress does not say why it ends'
expect "$under_mpirun" under_mpirun COMPLETED 0:0 1
expect "$preempted" preempted COMPLETED 0:0 1
expect "$by_term" by_term COMPLETED 0:0 1
same_steps under_mpirun preempted by_term
[ "$affinity" = task/none ] || grep -q '2 x 1 threads' preempted.out || fail 'the ranks share their cores'
echo 'pre-empted, requeued and finished with the same bits, under srun and under mpirun'
