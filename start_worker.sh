#!/usr/bin/env bash
# Start a worker. The shell becomes the Python process: signals and exit codes are its own.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/runtime.sh
. "$root/scripts/runtime.sh"

usage() {
  cat <<END
usage: ./start_worker.sh --worker_id N [--master_ip IP] [--port P] [--cafile F] [--cert F] [--key F] [--config C] [--allow NAME...] [-- ARGUMENT...]

Starts flq_worker.py with the environment that it needs.

  --worker_id N   this worker's number, from 0; a range such as 0-3 runs that many in one process
  --master_ip IP  address or name of the master's machine (127.0.0.1 when only --port is given)
  --port P        port of the master (5000 when only --master_ip is given); without both, the
                  configuration's system.master_url counts: this machine, port 5000
  --cafile F      the master serves TLS, with a certificate that the authority in this PEM file signed
  --cert F        this worker's certificate, for a master that asks for one
  --key F         the key of --cert, where it does not stand in the same file
  --config C      file with this machine's own settings; the master hands out all others
  --allow NAME    code or data that the master may name and this worker then uses: package.module or
                  KIND:PATH such as npz:FILE; may be repeated
  --              everything after it goes to flq_worker.py (its own --help lists it), such as
                  -- --retry_for 60 --set jetson_optimization.gpu_memory_limit_mb=1024

PYTHON names the Python to use; else the conda environment fed, the active virtual environment,
.venv or python3.
END
}

worker_id=
master_ip=
port=
cafile=
cert=
key=
config=
allowed=()

while [ $# -gt 0 ]; do
  case $1 in
    --worker_id) need_value "$@" && worker_id=$2 && shift 2 ;;
    --master_ip) need_value "$@" && master_ip=$2 && shift 2 ;;
    --port) need_value "$@" && port=$2 && shift 2 ;;
    --cafile) need_value "$@" && cafile=$2 && shift 2 ;;
    --cert) need_value "$@" && cert=$2 && shift 2 ;;
    --key) need_value "$@" && key=$2 && shift 2 ;;
    --config) need_value "$@" && config=$2 && shift 2 ;;
    --allow) need_value "$@" && allowed+=(--allow "$2") && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    *) fail 2 "unknown argument $1; arguments of flq_worker.py go after --" ;;
  esac
done
if [ -n "$port" ]; then need_number --port "$port" 1 65535; fi
[ -n "$worker_id" ] || fail 2 "which worker is this? --worker_id 0 to total_workers - 1"

master_url=
if [ -n "$master_ip$port" ]; then
  case $master_ip in *:*) master_ip="[$master_ip]" ;; esac # IPv6
  master_url=http${cafile:+s}://${master_ip:-127.0.0.1}:${port:-5000}
fi

python=$(choose_python "$root")
exec "$python" "$root/flq_worker.py" --worker_id "$worker_id" \
  ${master_url:+--master_url "$master_url"} ${cafile:+--cafile "$cafile"} ${cert:+--cert "$cert"} ${key:+--key "$key"} \
  ${config:+--config "$config"} ${allowed[@]+"${allowed[@]}"} "$@"
