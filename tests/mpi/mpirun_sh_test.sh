#!/bin/sh
# launch/mpirun.sh turns TERM into USR1 for every rank, waits for them and hands on the 75 of rank 0. The ranks are shells.
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
echo 'mpirun.sh: USR1 reached both ranks, 75 came back'
