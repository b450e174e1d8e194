#!/usr/bin/env bash
# Every pair of Python and TensorFlow that FLQ says it runs on, run: environments, tests and real runs, as a table.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=scripts/environment.sh
. "$root/scripts/environment.sh"

rows=(py36-tf2.6 py38-tf2.7 py38-tf2.13 py39-tf2.12 py310-tf2.16 py311-tf2.21 py312-tf2.21)
worker_tests=(tests/learning tests/worker tests/compression tests/algorithm tests/test_config.py tests/test_keys.py
              tests/test_idle_keys.py tests/test_environment_script.py)
master_tests=(tests/master tests/protocol)

usage() {
  cat <<END
usage: tests/compat/run.sh [ROW...]

Makes build/compat/ROW from constraints/ROW.txt, then for each row: the worker's tests, a run of three
rounds in which a worker of the row talks to a master on this machine's Python, and one in which it trains
together with a worker of the row before it. From Python 3.9 on also the master's tests, a run with a
master of the row, and a simulation. Prints one row of a table for each.
Rows: ${rows[*]}

TESTS names other tests than the worker's, MASTER_TESTS than the master's; PYTHON is the Python of the master.
END
}

python_of() { # python_of ROW: py310-tf2.16 -> a Python 3.10
  local version=${1%%-*} candidate
  version=3.${version#py3}
  while read -r candidate; do
    if is_python "$candidate" "$version" "$version" && "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <(printf '%s\n' "python$version" && pyenv_pythons "$version")
  return 1
}

has_master() { is_python "$1" 3.9 3.13; }

ensure_row() { # ensure_row ROW: sets `row_python`; fails without its Python
  local base files=("$root"/requirements-{tensorflow,worker}.txt)
  base=$(python_of "$1") || return 1
  row_python=$root/build/compat/$1/bin/python
  if has_master "$base"; then files+=("$root/requirements-master.txt"); fi
  files+=("$root/tests/compat/requirements.txt")
  if ! is_installed "$root/build/compat/$1" "${files[@]}" "$root/constraints/$1.txt"; then
    mkdir -p "$root/build/compat"
    # A constraint pins what is installed and installs nothing itself, so it can name every build of TensorFlow.
    PIP_CONSTRAINT=constraints/$1.txt make_venv "$root/build/compat/$1" "$base" "${files[@]}"
    fingerprints "$root/build/compat/$1" "$root/constraints/$1.txt" >>"$root/build/compat/$1/flq-installed"
  fi
}

versions() { # versions PYTHON
  "$1" -W ignore -c 'import platform, numpy, requests, tensorflow
print(" | ".join((platform.python_version(), tensorflow.__version__, numpy.__version__, requests.__version__)))' 2>/dev/null
}

try() { # try COMMAND...: its last line, or "failed" with its log on the terminal
  local log
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    tail -n 1 "$log"
  else
    failures=$((failures + 1))
    tail -n 40 "$log" >&2
    printf 'FAILED\n'
  fi
  rm -f "$log"
}

case ${1:-} in -h | --help) usage && exit 0 ;; esac
if [ $# -gt 0 ]; then rows=("$@"); fi
cd "$root"
export TF_CPP_MIN_LOG_LEVEL=2
read -r -a worker_tests <<<"${TESTS:-${worker_tests[*]}}"
read -r -a master_tests <<<"${MASTER_TESTS:-${master_tests[*]}}"
ensure_python master requirements-{tensorflow,worker,master}.txt
failures=0
previous=
log=$(mktemp)
for row in "${rows[@]}"; do
  [ -f "constraints/$row.txt" ] || fail 2 "no row $row: ${rows[*]}"
  if ! ensure_row "$row"; then
    say "not run: $row, because its Python is neither on PATH nor in pyenv"
    continue
  fi
  say "$row"
  # In this shell, not in $(...), so that `try` can count.
  row_tests=("${worker_tests[@]}")
  if has_master "$row_python"; then row_tests+=("${master_tests[@]}"); fi
  try "$row_python" -m pytest -q -p no:cacheprovider "${row_tests[@]}" >"$log" && tests=$(<"$log")
  try "$python" -m tests.compat.one_run "$row_python" >"$log" && run=$(<"$log")
  together=- master=- simulation=-
  if [ -n "$previous" ]; then try "$python" -m tests.compat.one_run "$previous" "$row_python" >"$log" && together=$(<"$log"); fi
  if has_master "$row_python"; then
    try "$row_python" -m tests.compat.one_run "$row_python" >"$log" && master=$(<"$log")
    try "$row_python" -m tests.compat.one_run simulate >"$log" && simulation=$(<"$log")
  fi
  printf '| %s | %s | %s | %s | %s | %s | %s | %s |\n' "$row" "$(versions "$row_python")" "${tests//=/}" "$run" "$together" "$master" \
    "$simulation" "$(date +%F)"
  previous=$row_python
done
rm -f "$log"
[ "$failures" -eq 0 ] || fail 1 "$failures of the checks failed"
