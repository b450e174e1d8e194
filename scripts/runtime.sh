# What every script needs: how it speaks, and the Python that starts a master or a worker.
# shellcheck shell=bash

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fail() {  # fail CODE MESSAGE...
  local code=$1
  shift
  say "$@"
  exit "$code"
}

need_value() {  # need_value "$@": the option in front must be followed by its value
  if [ $# -lt 2 ] || [ -z "$2" ]; then fail 2 "$1 needs a value; --help shows the options"; fi
}

need_number() {  # need_number WHAT TEXT LOW HIGH: a whole number of this range
  if [[ ! $2 =~ ^[0-9]{1,9}$ ]] || ((10#$2 < $3 || 10#$2 > $4)); then fail 2 "$1: expected a whole number from $3 to $4; got $2"; fi
}

# The Python to start with: PYTHON, the active conda environment fed or virtual environment, .venv beside
# the scripts, a conda environment fed that is not active (a service has none), python3.
choose_python() {  # choose_python ROOT
  local candidate active_fed=
  if [ "${CONDA_DEFAULT_ENV:-}" = fed ]; then active_fed=$CONDA_PREFIX; fi
  for candidate in "$active_fed" "${VIRTUAL_ENV:-}" "$1/.venv" "$HOME"/{miniforge3,miniconda3,anaconda3,archiconda3}/envs/fed /opt/conda/envs/fed; do
    if [ -z "${PYTHON:-}" ] && [ -n "$candidate" ] && [ -x "$candidate/bin/python" ]; then PYTHON=$candidate/bin/python; fi
  done
  if [ -z "$(type -P "${PYTHON:-python3}")" ]; then
    if [ -n "${PYTHON:-}" ]; then fail 2 "PYTHON=$PYTHON is no program: expected the path of a Python; without PYTHON one is looked for"; fi
    fail 2 "there is no python3 on PATH: sudo apt install python3, or name one: PYTHON=/path/to/python $0"
  fi
  printf '%s\n' "${PYTHON:-python3}"
}
