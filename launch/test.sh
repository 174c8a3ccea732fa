#!/bin/sh
# test.sh: installs packages, builds, runs every test that this machine can run.
#
#   launch/test.sh                  everything
#   launch/test.sh -L unit          further words go to ctest: -L LABEL, -R REGEX, --repeat until-fail:3 ...
#   launch/test.sh --sanitizers     also the unit tests under AddressSanitizer + UBSan and under ThreadSanitizer (two more builds)
#   launch/test.sh --no-install     leaves packages alone
#
# HADAL_PYTHON names the Python of tests/parity (torch, transformers, tokenizers); default: python3.
# What this machine lacks is said before the tests start, and ctest lists the tests that did not run. Exit code: 0 when all passed.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# shellcheck source=launch/packages.sh
. "$here/launch/packages.sh"

sanitizers='' install=1
while [ $# -gt 0 ]; do
  case $1 in
    --sanitizers) sanitizers=1; shift ;;
    --no-install) install=; shift ;;
    -h | --help) sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" | sed '$d'; exit 0 ;;
    *) break ;;
  esac
done
cd "$here" || exit 1

if [ -n "$install" ]; then
  # shellcheck disable=SC2086 # a list
  install_packages $hadal_packages || exit $?
  # Tests alone need these: without root, or if they cannot be had, the rest goes on.
  # shellcheck disable=SC2086
  [ "$(id -u)" -ne 0 ] || install_packages $hadal_slurm_packages || true
fi
python=${HADAL_PYTHON:-python3}
[ -f build/release/build.ninja ] || cmake --preset release -DHADAL_PYTHON="$(command -v "$python")" || exit 1
build_hadal "$here" all || exit 1
if [ "$(id -u)" -eq 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

skips=0
skip() {
  skips=$((skips + 1))
  printf 'SKIP: %s\n' "$1"
}
echo
has_module() { "$python" -c "import $1" > /dev/null 2>&1; }
if ! command -v "$python" > /dev/null; then
  skip "tests/parity (label parity): no $python here"
else
  has_module tokenizers || skip "parity of tokenizers: $python has no module tokenizers"
  { has_module torch && has_module transformers; } || skip "parity of models and training: $python has no modules torch and transformers"
fi
if [ "$(id -u)" -ne 0 ]; then
  skip 'a job under Slurm (mpi/slurm): only root can start a slurmd'
elif ! PATH=$PATH:/usr/sbin command -v slurmd munged > /dev/null; then
  skip 'a job under Slurm (mpi/slurm): no slurm-wlm and munge here'
fi
nvidia-smi > /dev/null 2>&1 || skip "tests/gpu: no CUDA device here"
if [ "$(nproc)" -lt 2 ]; then echo 'NOTE: one core only: tests with several ranks share it'; fi
[ "$skips" -gt 0 ] || echo 'nothing is skipped for want of a tool'
echo

failed=0
if [ -n "$sanitizers" ]; then
  for preset in asan tsan; do
    echo "== unit tests under $preset"
    { [ -f "build/$preset/build.ninja" ] || cmake --preset "$preset"; } && cmake --build --preset "$preset" &&
      ctest --test-dir "build/$preset" -L unit --output-on-failure -j "$(nproc)" || failed=1
  done
fi
ctest --test-dir build/release --output-on-failure -j "$(nproc)" "$@" || failed=1
exit $failed
