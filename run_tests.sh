#!/usr/bin/env bash
# Every test of FLQ. Sets up what they need; what this machine lacks is named in the closing lines.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/environment.sh
. "$root/scripts/environment.sh"

usage() {
  cat <<END
usage: ./run_tests.sh [--lint | PYTEST ARGUMENT...]

Makes .venv (and .venv-py36 where there is a Python 3.6), then runs ruff, mypy, shellcheck, the
worker's tests under Python 3.6 and all tests under this machine's Python, at the same time as these
most of tests/system. Arguments go to pytest: ./run_tests.sh tests/compression -k zero.
--lint: only ruff, mypy and shellcheck.

PYTHON and PYTHON36 name the Pythons to use or to make the environments with. FLQ_AUDIT=yes also asks
pip-audit for known flaws of what the locks pin.
END
}

# These need Python 3.9; all else is for a stock Jetson Nano too (docs/architecture.md has the line).
below_the_line=(tests/test_{identity,sweep}_commands.py tests/master tests/simulation tests/sweep tests/cluster tests/reports tests/system tests/benchmarks tests/integrations)

trap 'exit 130' INT # pytest ends a Ctrl-C with a code of its own, after which bash would go on with the next part

failed=()  # names of what failed
not_run=() # what was not run, because of what

# --- Python 3.6 -------------------------------------------------------------------------------------------

find_python36() {
  local candidate
  while read -r candidate; do
    if is_python "$candidate" 3.6 3.6 && "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <(printf '%s\n' "${PYTHON36:-python3.6}" && pyenv_pythons 3.6)
  return 1
}

ensure_python36() {  # sets `python36`; fails where there is no Python 3.6
  local base files=("$root"/requirements-{tensorflow,worker,dev}.txt)
  base=$(find_python36) || return 1
  python36=$root/.venv-py36/bin/python
  if [ -n "${PYTHON36:-}" ] && "$base" -c 'import tensorflow, requests, pytest, hypothesis' 2>/dev/null; then
    python36=$base
  elif ! is_installed "$root/.venv-py36" "${files[@]}"; then
    make_venv "$root/.venv-py36" "$base" "${files[@]}"
  fi
}

test_python36() {
  local part argument ignored=() kept=() paths=0 code=0
  check "compileall under Python 3.6" "$python36" -m compileall -q -f -x 'flq/(master|simulation|sweep|cluster|reports|integrations)/' flq flq_worker.py \
    scripts test_environment.py
  for part in "${below_the_line[@]}"; do ignored+=("--ignore=$part"); done
  for argument in "$@"; do
    if [[ $argument =~ ^($(IFS='|' && printf '%s' "${below_the_line[*]}")) ]]; then continue; fi
    if [ -e "${argument%%::*}" ]; then paths=$((paths + 1)); fi
    kept+=("$argument")
  done
  if [ ${#kept[@]} -eq $# ] || [ "$paths" -gt 0 ]; then
    run_pytest "$python36" "${ignored[@]}" ${kept[@]+"${kept[@]}"} || code=$?
  else
    code=5
  fi
  if [ "$code" -eq 5 ] && [ $# -gt 0 ]; then # pytest's code for "no test was selected"
    not_run+=("anything under Python 3.6, because the arguments select no test of the worker's")
  elif [ "$code" -ne 0 ]; then
    failed+=("pytest under Python 3.6")
  fi
}

# --- this machine's Python --------------------------------------------------------------------------------

check() {  # check NAME COMMAND...
  say "$1"
  "${@:2}" || failed+=("$1")
}

run_pytest() {  # run_pytest PYTHON ARGUMENT...
  local log code=0
  log=$(mktemp)
  say "pytest with $("$1" --version 2>&1)"
  "$1" -m pytest -rs "${@:2}" | tee -i "$log" || code=$?
  note_skipped "$log"
  return "$code"
}

note_skipped() {  # note_skipped LOG: the reasons of skipped tests, among not_run; the log is done with
  local line
  while read -r line; do not_run+=("$line"); done < <(sed -n 's/^SKIPPED \[\([0-9]*\)\] \([^ ]*\): \(.*\)/\1 of \2, because \3/p' "$1")
  rm -f "$1"
}

# The tests of whole systems wait for processes, sockets and deadlines much of the time, so they run beside all others.
# Those of deploy_jetson.sh stay with the others: then both parts take about as long.
start_system_tests() {  # sets `beside`, their files
  local file
  for file in tests/system/test_*.py; do
    if [ "$file" != tests/system/test_deploy.py ]; then beside+=("$file"); fi
  done
  system_log=$(mktemp)
  say "tests/system runs in the background; its log is $system_log"
  set -m # in a process group of its own: else it ignores Ctrl-C, and so does every program that the tests start
  "$python" -m pytest -rs "${beside[@]}" >"$system_log" 2>&1 </dev/null &
  system_tests=$!
  set +m
  trap end_system_tests EXIT
}

end_system_tests() {  # where something ends this script first: its tests end their processes
  kill -INT "$system_tests" 2>/dev/null || true
  wait "$system_tests" || true
}

finish_system_tests() {
  local code=0
  say "waiting for tests/system"
  wait "$system_tests" || code=$?
  trap - EXIT
  cat "$system_log"
  note_skipped "$system_log"
  return "$code"
}

lint() {
  check ruff "$python" -m ruff check --output-format concise .
  if "$python" -c 'import mypy' 2>/dev/null; then
    check mypy "$python" -m mypy flq
  else
    not_run+=("mypy, because it needs Python 3.10 or newer and $python is $("$python" --version)")
  fi
  if command -v shellcheck >/dev/null; then
    check shellcheck shellcheck -x ./*.sh scripts/*.sh tests/compat/*.sh tests/integrations/*.sh .ci/run
  else
    not_run+=("shellcheck, because it is not installed (apt install shellcheck)")
  fi
}

audit() { # of what the locks pin, where the data of known flaws can be reached
  local code=0
  if ! "$python" -c 'import pip_audit' 2>/dev/null; then
    not_run+=("pip-audit, because $python does not have it")
    return
  fi
  "$python" -m scripts.locks audit || code=$?
  if [ "$code" -eq 75 ]; then
    not_run+=("pip-audit, because the data of known flaws cannot be reached from here")
  elif [ "$code" -ne 0 ]; then
    failed+=("pip-audit")
  fi
}

report() {
  local item
  for item in ${not_run[@]+"${not_run[@]}"}; do printf 'not run: %s\n' "$item"; done
  for item in ${failed[@]+"${failed[@]}"}; do printf 'failed: %s\n' "$item"; done
  if [ ${#failed[@]} -gt 0 ]; then exit 1; fi
  printf 'everything that was run passed\n'
}

case ${1:-} in -h | --help) usage && exit 0 ;; esac
cd "$root"
ensure_python dev requirements-{tensorflow,worker,master,completion,tensorboard,dev}.txt
if [ "${1:-}" = --lint ]; then
  lint
  report
  exit
fi
if ensure_python36; then
  export FLQ_PYTHON36=$python36 # for the run in which workers of both Pythons take part
else
  not_run+=("the worker's tests under Python 3.6, because there is no python3.6 on PATH or in pyenv")
fi
build_kernels "$python"
beside=()
if [ $# -eq 0 ]; then start_system_tests; fi
lint
if [ -n "${FLQ_AUDIT:-}" ]; then audit; fi
if [ -n "${python36:-}" ]; then test_python36 "$@"; fi
run_pytest "$python" ${beside[@]+"${beside[@]/#/--ignore=}"} "$@" || failed+=("pytest")
if [ ${#beside[@]} -gt 0 ]; then finish_system_tests || failed+=("pytest of tests/system"); fi
report
