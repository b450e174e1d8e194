# What every script needs: how it speaks, the environment variables of a master or a worker, and the
# Python that starts it. A variable that is already set stays as it is.
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

# NumPy's OpenBLAS misreads the Jetson Nano's processor and dies with "Illegal instruction".
if [ "$(uname -m)" = aarch64 ]; then export OPENBLAS_CORETYPE="${OPENBLAS_CORETYPE:-ARMV8}"; fi

export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"  # warnings of TensorFlow's C++ off, errors on

# Kernels that TensorFlow compiles for a Jetson's GPU take minutes; CUDA's default of 256 MB throws them away again.
export CUDA_CACHE_DISABLE="${CUDA_CACHE_DISABLE:-0}"
export CUDA_CACHE_MAXSIZE="${CUDA_CACHE_MAXSIZE:-2147483648}"
export CUDA_CACHE_PATH="${CUDA_CACHE_PATH:-$HOME/.flq/cuda}" # beside the worker's state: what outlives a restart

# Several processes on one machine must not each start a thread for every core; model.num_threads is TensorFlow's own number.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

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
