#!/usr/bin/env bash
# Federated learning on this machine, to look at: a master and workers as separate processes over HTTP.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/environment.sh
. "$root/scripts/environment.sh"

max_processes=8 # more workers than that share processes: each process holds a TensorFlow

usage() {
  cat <<END
usage: ./quick_test.sh [--workers N] [--rounds R] [--mode M] [--dataset D] [--config FILE] [--port P] [--verbose | --quiet]

Starts a master and N workers as separate processes that talk over loopback HTTP, shows the training
live, and ends with a table, an Excel file and plots. The first start makes its own Python environment
(.venv), unless the active conda environment fed or python3 (or the Python in PYTHON) has the packages.

  --workers N     number of workers (2, or what FILE says)
  --rounds R      number of rounds (what the configuration says)
  --mode M        how updates are quantised, such as laq or rd (docs/guide/choosing.md compares them); all: one after the other, and a comparison
  --dataset D     digits (comes with FLQ), mnist or fmnist, or what else dataset.name takes
  --config FILE   configuration (flq_config.json)
  --port P        port of the master (5000); a free one is taken when it is busy
  --verbose       where there is no terminal: a line for each round
  --quiet         no progress: only what went wrong, and the table at the end
END
}

workers=
rounds=
mode=
dataset=
config=
port=5000
verbose=()
quiet=

while [ $# -gt 0 ]; do
  case $1 in
    --workers) need_value "$@" && workers=$2 && shift 2 ;;
    --rounds) need_value "$@" && rounds=$2 && shift 2 ;;
    --mode) need_value "$@" && mode=$2 && shift 2 ;;
    --dataset) need_value "$@" && dataset=$2 && shift 2 ;;
    --config) need_value "$@" && config=$2 && shift 2 ;;
    --port) need_value "$@" && port=$2 && shift 2 ;;
    --verbose) verbose=(--verbose) && shift ;;
    --quiet) quiet=yes && shift ;;
    -h | --help) usage && exit 0 ;;
    *) fail 2 "unknown argument $1; --help shows the options" ;;
  esac
done
need_number --port "$port" 0 65535
if [ -z "$config" ]; then
  config=$root/flq_config.json
  workers=${workers:-2}
fi

names=() # of the processes that run; the master is the first
pids=()
watcher=
logs=

tell() { # tell TEXT: what goes on, for whoever wants to know
  if [ -z "$quiet" ]; then say "$1"; fi
}

# --- processes --------------------------------------------------------------------------------------------

launch() {  # launch NAME COMMAND...: with a log and a process group of its own, so that nothing is left behind
  set -m
  "${@:2}" </dev/null >"$logs/$1.out" 2>&1 &
  set +m
  names+=("$1")
  pids+=($!)
}

is_alive() { kill -0 "$1" 2>/dev/null; }

any_group_lives() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    if kill -0 -- "-$pid" 2>/dev/null; then return 0; fi
  done
  return 1
}

kill_groups() {  # kill_groups SIGNAL
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill "-$1" -- "-$pid" 2>/dev/null || true; done
}

stop_processes() {
  stop_watcher
  kill_groups TERM
  for ((tenths = 0; tenths < 60; tenths++)); do # a master saves for up to 5 s
    any_group_lives || break
    sleep 0.1
  done
  kill_groups KILL
  wait 2>/dev/null || true
  names=()
  pids=()
}

stop_watcher() { # and leave its bar
  if [ -z "$watcher" ]; then return 0; fi # a bare return in the trap would give the script's own exit code
  if kill "$watcher" 2>/dev/null && [ -t 1 ]; then printf '\n'; fi
  wait "$watcher" 2>/dev/null || true
  watcher=
}

on_exit() {
  local code=$?
  trap '' INT TERM HUP
  stop_processes
  if [ "$code" -ne 0 ] && [ -n "$logs" ]; then say "stopped; the logs are in $logs"; fi
}
trap on_exit EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

died() {  # died NAME CODE: a process ended that should not have
  stop_watcher
  say "$1 ended with exit code $2; the last lines of $logs/$1.out:"
  tail -n 15 "$logs/$1.out" >&2
  exit "$(($2 == 0 ? 1 : $2))"
}

reap() {  # reap PID: sets `code`, the exit code of a process that ended
  code=0
  wait "$1" 2>/dev/null || code=$?
}

# --- one run ----------------------------------------------------------------------------------------------

set_options() {  # set_options MODE: `options`, what the command line sets over the file
  local key
  # `report` writes the results. No authority signs for a master on loopback, whatever the file says of other machines.
  options=(--set system.quorum=all --set logging.save_results=false --set security.cafile=null)
  if [ -n "$workers" ]; then options+=(--set "system.total_workers=$workers"); fi
  if [ -n "$rounds" ]; then options+=(--set "system.max_rounds=$rounds"); fi
  if [ -n "$dataset" ]; then options+=(--set "dataset.name=$dataset"); fi
  if [ -n "$1" ]; then options+=(--set "flq_algorithm.mode=$1"); fi
  # In a comparison each mode has its own defaults.
  if [ "$mode" = all ]; then
    for key in b_up memory radius entropy_coding; do options+=(--set "flq_algorithm.$key=null"); done
  fi
}

read_configuration() {  # prints the number of workers and the mode; says what is wrong before anything starts
  "$python" - "$config" "${options[@]}" <<'END'
import sys
sys.path = [folder for folder in sys.path if folder] # the programs do not look for modules where the user stands
from flq import config, errors
from flq.learning.learner import check
try:
    loaded = config.load(sys.argv[1], [argument for argument in sys.argv[2:] if argument != "--set"])
    check(loaded.config)
except errors.FlqError as error:
    print("quick_test.sh: {}".format(error), file=sys.stderr)
    sys.exit(error.exit_code)
print(loaded.config.system.total_workers, loaded.config.flq_algorithm.mode)
END
}

choose_port() {  # prints `port`, or 0 (the master takes a free one) when it is busy
  if "$python" -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1])))' "$port" 2>/dev/null; then
    printf '%s\n' "$port"
  else
    say "port $port is busy: taking a free one"
    printf '0\n'
  fi
}

start_master() {  # start_master RUN_DIR: sets `url`
  launch master "$python" "$root/flq_master.py" --config "$config" --host 127.0.0.1 --port "$(choose_port)" --port_file "$logs/port" \
    --run_dir "$1" "${options[@]}" --set "logging.log_dir=$logs"
  until [ -s "$logs/port" ]; do
    if ! is_alive "${pids[0]}"; then
      reap "${pids[0]}"
      died master "$code"
    fi
    sleep 0.1
  done
  url=http://127.0.0.1:$(cat "$logs/port")
  tell "the master listens: curl $url/status"
}

start_workers() {  # start_workers N
  local number=$1 processes i first last
  processes=$((number < max_processes ? number : max_processes))
  for ((i = 0; i < processes; i++)); do
    first=$((i * number / processes))
    last=$(((i + 1) * number / processes - 1))
    if [ "$first" -ne "$last" ]; then first=$first-$last; fi
    launch "worker-$first" "$python" "$root/flq_worker.py" --config "$config" --worker_id "$first" --master_url "$url" --retry_for 60 --state_dir "$run_dir/state" \
      "${options[@]}" --set "logging.log_dir=$logs"
  done
  tell "workers: $number, in $processes processes; logs: $logs"
}

any_worker_runs() {
  local i
  for i in "${!pids[@]}"; do
    if [ "$i" -gt 0 ]; then return 0; fi
  done
  return 1
}

check_processes() { # forgets those that ended well; one that failed ends the run
  local i
  for i in "${!pids[@]}"; do
    if ! is_alive "${pids[i]}"; then
      reap "${pids[i]}"
      [ "$code" -eq 0 ] || died "${names[i]}" "$code"
      unset "pids[i]" "names[i]"
    fi
  done
}

follow() {  # follow RUN_DIR: until every worker has ended and the master has written its results
  if [ -z "$quiet" ]; then
    "$python" -m flq status --watch ${verbose[@]+"${verbose[@]}"} --master_url "$url" &
    watcher=$!
  fi
  while any_worker_runs; do
    check_processes
    sleep 0.2
  done
  until [ -s "$1/summary.json" ] || [ ${#pids[@]} -eq 0 ]; do
    check_processes
    sleep 0.1
  done
  # Only now: the master writes its results after the last test, which the last line of the bar shows.
  for ((tenths = 0; tenths < 30; tenths++)); do
    if [ -z "$watcher" ] || ! is_alive "$watcher"; then break; fi
    sleep 0.1
  done
}

end_master() {
  kill -TERM "${pids[0]}" 2>/dev/null || true
  reap "${pids[0]}"
  [ "$code" -eq 0 ] || died master "$code"
}

run() {  # run MODE STAMP: sets `run_dir`
  local answer number run_mode started=$SECONDS
  set_options "$1"
  answer=$(read_configuration)
  read -r number run_mode <<<"$answer"
  run_dir=results/quick_$2_$run_mode
  logs=logs/quick_$2_$run_mode
  mkdir -p "$logs"
  tell "mode $run_mode"
  start_master "$run_dir"
  start_workers "$number"
  follow "$run_dir"
  if [ ${#pids[@]} -gt 0 ]; then end_master; fi
  stop_processes
  "$python" -m flq report "$run_dir"
  tell "done in $((SECONDS - started)) s"
}

all_modes() { # prints the modes of FLQ
  "$python" - <<'END'
import sys
sys.path = [folder for folder in sys.path if folder]
from flq.modes import MODES
print(*MODES)
END
}

run_all() {  # run_all STAMP
  local each modes runs=()
  modes=$(all_modes)
  for each in $modes; do
    set_options "$each"
    read_configuration >/dev/null
  done
  for each in $modes; do
    run "$each" "$1"
    runs+=("$run_dir")
  done
  "$python" -m flq compare "${runs[@]}" --out "results/quick_$1_all"
}

ensure_python both "$root"/requirements-{tensorflow,worker,master}.txt
build_kernels "$python"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" # for python -m flq; results and logs lie where the user stands
stamp=$(date +%Y%m%d-%H%M%S)-$$
if [ "$mode" = all ]; then
  run_all "$stamp"
else
  run "$mode" "$stamp"
fi
