#!/bin/sh
# quickstart.sh: from a bare Debian machine to a trained, sampled and exported language model, in under 12 minutes on two cores.
#
#   launch/quickstart.sh                   trains on the King James Bible out of Debian's package bible-kjv
#   launch/quickstart.sh --text DIR        trains on the text files under DIR (give it 2 MB or more)
#
#   --out DIR      where everything goes; default: quickstart/ in this source tree
#   --ranks N      MPI ranks; default: 2, or 1 on a single core
#   --steps N      training steps instead of those of configs/run/quickstart.yaml
#   --no-install   leaves packages alone
#
# Every stage is skipped when its output is there. Ctrl-C is safe: training saves and stops; the same command goes on from there.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=launch/packages.sh
. "$here/launch/packages.sh"
fail() {
  echo "quickstart.sh: $1" >&2
  exit "${2:-2}"
}

text='' out=$here/quickstart ranks='' steps='' install=1
while [ $# -gt 0 ]; do
  case $1 in
    --text | --out | --ranks | --steps)
      [ $# -ge 2 ] || fail "$1 needs a value (see --help)"
      case $1 in
        --text) text=$2 ;;
        --out) out=$2 ;;
        --ranks) ranks=$2 ;;
        --steps) steps=$2 ;;
      esac
      shift 2
      ;;
    --no-install) install=''; shift ;;
    -h | --help) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) fail "there is no flag $1 (see --help)" ;;
  esac
done
if [ -n "$text" ]; then
  [ -d "$text" ] || fail "--text $text: no such directory"
  text=$(CDPATH='' cd -- "$text" && pwd)
fi
mkdir -p "$out/stages" || exit 74
out=$(CDPATH='' cd -- "$out" && pwd)
cd "$here" || exit 1
case $out in "$here"/*) shown=${out#"$here"/} ;; *) shown=$out ;; esac
if [ -z "$ranks" ]; then
  ranks=2
  [ "$(nproc)" -ge 2 ] || ranks=1
fi

bold='' dim='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR-}" ] && [ "${TERM-dumb}" != dumb ]; then
  bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m')
fi
begin=$(date +%s)
number=0
title() {
  number=$((number + 1))
  printf '\n%s[%s/9] %s%s' "$bold" "$number" "$1" "$plain"
}
clock() { printf '   %s%dm%02ds%s\n' "$dim" $((($(date +%s) - begin) / 60)) $((($(date +%s) - begin) % 60)) "$plain"; }
# stage NAME TITLE: true when the stage has to run
stage() {
  title "$2"
  if [ -e "$out/stages/$1" ]; then
    printf '   %sdone before, skipped%s\n' "$dim" "$plain"
    return 1
  fi
  clock
}
finished() { : > "$out/stages/$1"; }
# run COMMAND...: shows it, runs it; a failure ends the script
run() {
  printf '%s$' "$dim"
  for word in "$@"; do
    case $word in *' '*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
  done
  printf '%s\n' "$plain"
  "$@"
  code=$?
  [ "$code" -eq 0 ] || stopped "$code"
}
stopped() {
  case $1 in
    75) printf '\nTraining was stopped and is saved. The same command goes on from there:\n' >&2 ;;
    130) printf '\nInterrupted. What is finished is kept; the same command goes on from there:\n' >&2 ;;
    *) printf '\nquickstart.sh: this stage failed (exit code %s). What is finished is kept; the same command tries again:\n' "$1" >&2 ;;
  esac
  echo "  launch/quickstart.sh${text:+ --text $text} --out $shown" >&2
  exit "$1"
}
# A child that is interrupted ends first; then this script says how to go on.
trap ':' INT

source=${text:-"bible-kjv"}
if [ -e "$out/text/source" ] && [ "$(cat "$out/text/source")" != "$source" ]; then
  fail "$shown holds a run on other text ($(cat "$out/text/source")); choose another --out DIR, or remove it"
fi

title 'packages'; clock
if [ -n "$install" ]; then
  extra=''
  [ -n "$text" ] || extra=bible-kjv
  # shellcheck disable=SC2086 # a list
  install_packages $hadal_packages $extra || exit $?
fi
title 'build'; clock
build_hadal "$here" hadal || exit 1
hadal=build/release/hadal

if stage text "text: $source"; then
  mkdir -p "$out/text"
  echo "$source" > "$out/text/source"
  if [ -n "$text" ]; then
    # Every 50th piece of about 16 KiB is kept from training.
    find "$text" -type f -size +0 | LC_ALL=C sort | while IFS= read -r file; do
      if grep -Iq . "$file"; then cat "$file"; echo; fi
    done | iconv -c -f UTF-8 -t UTF-8 | LC_ALL=C awk -v train="$out/text/train.txt" -v held="$out/text/validation.txt" '
      BEGIN { printf "" > train; printf "" > held }
      { bytes += length($0) + 1; print > (piece % 50 == 49 ? held : train) }
      bytes > 16384 { bytes = 0; piece++ }'
  else
    command -v bible > /dev/null || fail 'the program bible of the package bible-kjv is not there'
    # One verse a line, a blank line between chapters; every 50th chapter is kept from training.
    bible -f 'gen1:1-rev22:21' | LC_ALL=C awk -v train="$out/text/train.txt" -v held="$out/text/validation.txt" '
      BEGIN { printf "" > train; printf "" > held }
      /^[0-9]?[A-Za-z]+[0-9]+:[0-9]+ / {
        chapter = $1
        sub(/:.*/, "", chapter)
        if (chapter != last) { number++; last = chapter; print "" > (number % 50 == 49 ? held : train) }
        sub(/^[^ ]* */, "")
        print > (number % 50 == 49 ? held : train)
      }'
  fi
  bytes=$(wc -c < "$out/text/train.txt")
  [ "$bytes" -ge 500000 ] || fail "only $bytes bytes of text: too little to learn from; 2 MB or more read well"
  echo "$bytes bytes to train on, $(wc -c < "$out/text/validation.txt") held out: $shown/text"
  finished text
fi
documents=paragraphs
[ -z "$text" ] || documents=16KiB

if stage tokenizer 'tokenizer: 2048 pieces of byte-level BPE'; then
  run "$hadal" tokenizer train --input "$shown/text/train.txt" --vocab-size 2048 --out "$shown/tokenizer"
  finished tokenizer
fi

if stage tokens 'token files'; then
  for part in train validation; do
    run "$hadal" data build --input "$shown/text/$part.txt" --documents $documents --tokenizer "$shown/tokenizer" --out "$shown/$part.h5" --overwrite
  done
  finished tokens
fi

if stage train "training: MoE + MLA + NSA + MTP on $ranks rank(s), about 5 minutes"; then
  set -- run.dir="$shown/run" data.sources.0.path="$shown/train.h5" data.validation_sources.0.path="$shown/validation.h5" \
    data.tokenizer="$shown/tokenizer"
  [ -z "$steps" ] || set -- "$@" train.steps="$steps"
  run launch/mpirun.sh -n "$ranks" "$hadal" train configs/run/quickstart.yaml "$@"
  finished train
fi

title 'report'; clock
run "$hadal" report "$shown/run" --out "$shown/report.html"

title 'what it learned: text it has not seen, and a sample'; clock
run "$hadal" eval "$shown/run" --data "$shown/validation.h5"
prompt='And it came to pass'
[ -z "$text" ] || prompt=$(grep -m 1 -E '.{40}' "$shown/text/validation.txt" | cut -c 1-40)
echo
run "$hadal" generate "$shown/run" --prompt "$prompt" --max-tokens 160 --temperature 0.8 --top-p 0.95 --seed 1

if stage export 'export: a directory for transformers'; then
  rm -rf "$shown/export"
  run "$hadal" export "$shown/run" --format hf --out "$shown/export"
  finished export
fi

seconds=$(($(date +%s) - begin))
cat << END

${bold}Done in $((seconds / 60))m$(printf '%02d' $((seconds % 60)))s.${plain}
  curves    $shown/report.html      (open it in a browser)
  model     $shown/run              (checkpoints, metrics.jsonl, TensorBoard events)
  export    $shown/export           (load it with transformers: trust_remote_code=True)

${bold}Try next${plain}
  build/release/hadal generate $shown/run --prompt "And God said" --temperature 0.7 --speculate
  build/release/hadal checkpoint inspect $shown/run
  build/release/hadal config explain model.moe.top_k
  launch/quickstart.sh --text ~/my-texts --out my-run
  launch/mpirun.sh -n $ranks hadal train configs/run/quickstart.yaml run.dir=runs/dense model.attention.sparse=none \\
    data.sources.0.path=$shown/train.h5 data.validation_sources.0.path=$shown/validation.h5 data.tokenizer=$shown/tokenizer
  build/release/hadal report $shown/run runs/dense --out compare.html
END
