# The Python that runs FLQ on this machine: found, or made. Sourced by quick_test.sh and run_tests.sh.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
oldest_python=3.9   # of the master and the simulation; a worker runs on 3.6 as well
newest_python=3.13  # that TensorFlow has wheels for

# shellcheck source=scripts/runtime.sh
. "$root/scripts/runtime.sh"

# A pyenv shim of a version that is not selected exists and fails, so every candidate is run.
is_python() {  # is_python COMMAND LOW HIGH: whether the command is a Python of these versions
  "$1" -c 'import sys
low, high = [tuple(int(part) for part in text.split(".")) for text in sys.argv[1:]]
sys.exit(not low <= sys.version_info[:2] <= high)' "$2" "$3" >/dev/null 2>&1
}

is_python_with_venv() { is_python "$1" "$oldest_python" "$newest_python" && "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

has_packages() {  # has_packages PYTHON ROLE: whether it has them already, in supported versions
  is_python "$1" "$oldest_python" "$newest_python" && "$1" "$root/test_environment.py" --role "$2" --packages_only >/dev/null 2>&1
}

pyenv_pythons() {  # pyenv_pythons 3.6: those that pyenv has built, selected or not
  local path
  for path in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python3; do
    if [ -x "$path" ]; then printf '%s\n' "$path"; fi
  done
}

candidate_pythons() {  # one a line, the best first
  local minor
  if [ -n "${PYTHON:-}" ]; then printf '%s\n' "$PYTHON"; fi
  printf 'python3\n'
  for ((minor = ${newest_python#3.}; minor >= ${oldest_python#3.}; minor--)); do
    printf 'python3.%s\n' "$minor"
    pyenv_pythons "3.$minor"
  done
}

find_python() {  # prints a Python that can make the environment, or says what to install
  local candidate without_venv=
  while read -r candidate; do
    if is_python_with_venv "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
    if [ -z "$without_venv" ] && is_python "$candidate" "$oldest_python" "$newest_python"; then without_venv=$candidate; fi
  done < <(candidate_pythons)
  if [ -n "$without_venv" ]; then
    fail 2 "$without_venv cannot make virtual environments: sudo apt install python3-venv, then run this again"
  fi
  fail 2 "no Python $oldest_python to $newest_python, which TensorFlow has wheels for, on PATH or in pyenv:" \
    "sudo apt install python3 python3-venv, or name one: PYTHON=/path/to/python $0"
}

find_ready_python() {  # find_ready_python ROLE: prints a Python of the user's that has the packages; fails without one
  local candidate
  for candidate in "${PYTHON:-}" "$(active_fed)" python3; do
    if [ -n "$candidate" ] && has_packages "$candidate" "$1"; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

active_fed() { if [ "${CONDA_DEFAULT_ENV:-}" = fed ]; then printf '%s\n' "$CONDA_PREFIX/bin/python"; fi; }

# ensure_python ROLE FILE...: sets `python`, to one that has what the requirement files ask for.
ensure_python() {
  local role=$1 base
  shift
  if [ -n "${PYTHON:-}" ] && ! is_python "$PYTHON" "$oldest_python" "$newest_python"; then
    fail 2 "PYTHON=$PYTHON is no Python $oldest_python to $newest_python: expected the path of one; without PYTHON one is looked for"
  fi
  if python=$(find_ready_python "$role"); then
    say "using $python, which has the packages"
    return
  fi
  if [ -n "$(active_fed)" ]; then
    say "the active conda environment fed lacks packages (conda env update -f environment.yml adds them): using .venv"
  fi
  python=$root/.venv/bin/python
  if ! is_installed "$root/.venv" "$@"; then
    base=$(find_python) || exit $?
    make_venv "$root/.venv" "$base" "$@"
  fi
}

# Installing builds the compiled kernels, starting a master or a worker does not. Without them NumPy computes, so nothing fails here.
build_kernels() {  # build_kernels PYTHON: says one line where they were built, or why not; nothing where they are there already
  local said
  said=$(cd "$root" && "$1" -m flq.host.build_kernels --quiet 2>&1) || true
  if [ -n "$said" ]; then say "${said##*$'\n'}"; fi
}

# A finished installation leaves one line for each file in DIR/flq-installed.
fingerprints() {  # fingerprints DIR FILE...
  local version file
  version=$("$1/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=broken
  for file in "${@:2}"; do printf 'python %s %s %s\n' "$version" "$(cksum <"$file")" "${file##*/}"; done
}

is_installed() {  # is_installed DIR FILE...
  local line
  [ -f "$1/flq-installed" ] || return 1
  while read -r line; do
    grep -qxF "$line" "$1/flq-installed" || return 1
  done < <(fingerprints "$@")
}

# What pip leaves when it is killed looks installed and is not: an environment made here (flq-made) that was not
# finished starts over. One that somebody else made is only added to.
make_venv() {  # make_venv DIR PYTHON FILE...
  local dir=$1 base=$2 file options=()
  shift 2
  if ! "$dir/bin/python" -m pip --version >/dev/null 2>&1 || [[ -f $dir/flq-made && ! -f $dir/flq-installed ]]; then
    say "making ${dir#"$root"/} with $("$base" --version 2>&1) ($base)"
    "$base" -m venv --clear "$dir" || fail 2 "$base could not make $dir"
    touch "$dir/flq-made"
  fi
  rm -f "$dir/flq-installed"
  for file in "$@"; do options+=(-r "$file"); done
  if [ ! -t 2 ]; then options+=(--quiet); fi
  say "installing into ${dir#"$root"/} what ${*##*/} ask for (once; TensorFlow makes it about 1.5 GB)"
  install_pip_for_old_python "$dir/bin/python"
  "$dir/bin/python" -m pip install --disable-pip-version-check "${options[@]}" >&2 ||
    fail 2 "pip could not install the packages (its message stands above); the next start tries again"
  fingerprints "$dir" "$@" >"$dir/flq-installed"
}

install_pip_for_old_python() {  # the pip 18.1 in Python 3.6 does not see today's wheels
  if is_python "$1" 3.6 3.6; then "$1" -m pip install --disable-pip-version-check --quiet --upgrade "pip==21.3.1" >&2; fi
}
