# shellcheck shell=sh disable=SC2034 # sourced; the list is read by those who source it
# Sourced by quickstart.sh and test.sh: what Hadal builds from, on Debian 12 and Ubuntu 24.04.

hadal_packages="g++ cmake ninja-build pkg-config openmpi-bin libopenmpi-dev libhdf5-dev libyaml-cpp-dev libfmt-dev libspdlog-dev
libcli11-dev nlohmann-json3-dev libpcre2-dev libzstd-dev zlib1g-dev libxxhash-dev libgtest-dev libbenchmark-dev libopenblas-dev"

# For tests/mpi/slurm_test.sh, which is skipped aloud without them.
hadal_slurm_packages="slurm-wlm munge"

# apt_get_update LOG: waits up to two minutes for another apt-get (unattended upgrades) that holds the lock of the lists. `update`
# itself does not wait; `install` does when it is told to.
apt_get_update() {
  for _ in $(seq 24); do
    apt-get update > "$1" 2>&1 && return 0
    grep -q 'Could not get lock' "$1" || return 1
    sleep 5
  done
  return 1
}

# install_packages PACKAGE...: installs those that are missing. As root through apt-get; else prints the line to run and fails.
install_packages() {
  if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
    echo "This system has no apt-get. Please make sure that the equivalents of these packages are there: $*" >&2
    return 0
  fi
  missing=
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "Packages are missing. Please run this line, then start again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
    return 2
  fi
  echo "installing:$missing"
  install_log=$(mktemp)
  # shellcheck disable=SC2086 # the list is split on purpose
  if apt_get_update "$install_log" &&
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends $missing \
      >> "$install_log" 2>&1; then
    rm -f "$install_log"
  else
    tail -n 20 "$install_log" >&2
    echo "apt-get failed; its whole output is in $install_log" >&2
    return 1
  fi
}

# build_hadal DIR TARGET...: configures with the preset `release` where that was not done, and builds.
build_hadal() {
  root=$1
  shift
  (
    cd "$root" || exit 1
    [ -f build/release/build.ninja ] || cmake --preset release || exit 1
    cmake --build --preset release --target "$@"
  )
}
