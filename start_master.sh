#!/usr/bin/env bash
# Start the master. The shell becomes the Python process: signals and exit codes are its own.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/runtime.sh
. "$root/scripts/runtime.sh"

usage() {
  cat <<END
usage: ./start_master.sh [--host H] [--port P] [--config C] [--fresh] [-- ARGUMENT...]

Starts flq_master.py with the environment that it needs. What is not given comes from the
environment variables HOST, PORT and CONFIG. The newest unfinished run of the same configuration
goes on; without one, or with --fresh, a new run begins.

  --host H     address to listen on (HOST, else 0.0.0.0: every machine of the network can join)
  --port P     port to listen on (PORT, else 5000)
  --config C   configuration file (CONFIG, else flq_config.json beside this script)
  --fresh      begin a new run
  --           everything after it goes to flq_master.py (its own --help lists it), such as
               -- --run_dir results/today --set system.max_rounds=50

PYTHON names the Python to use; else the conda environment fed, the active virtual environment,
.venv or python3.
END
}

host=${HOST:-0.0.0.0}
port=${PORT:-5000}
config=${CONFIG:-$root/flq_config.json}
resume=(--resume)

while [ $# -gt 0 ]; do
  case $1 in
    --host) need_value "$@" && host=$2 && shift 2 ;;
    --port) need_value "$@" && port=$2 && shift 2 ;;
    --config) need_value "$@" && config=$2 && shift 2 ;;
    --fresh) resume=() && shift ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) fail 2 "unknown argument $1; arguments of flq_master.py go after --" ;;
  esac
done

python=$(choose_python "$root")
exec "$python" "$root/flq_master.py" --config "$config" --host "$host" --port "$port" ${resume[@]+"${resume[@]}"} "$@"
