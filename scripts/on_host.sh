#!/usr/bin/env bash
# What deploy_jetson.sh runs on a host, over the standard input of `bash -s -- COMMAND NAME=VALUE...`: nothing has to be there
# before. Behind the last line comes what a command reads (install: the token, then each PEM file of `files` behind a line "file NAME"; revoke: a list of what was revoked). Lines that begin with "flq:" are
# answers, all else is log. deploy_jetson.sh refuses an answer that its form_of does not know. bash 4, Linux, and what every Ubuntu has.
set -euo pipefail
umask 077

dir=flq role=worker worker=0 master_url='' port=5000 data='' python='' need_kb=0 swap='' lines=20
systemd='' memory_max=80% files='' dry_run=''
worker_arguments=()
system=${FLQ_SYSTEM_ROOT:-} # where the system's own files are looked for; empty outside tests

tell() { printf 'flq:%s=%s\n' "$1" "$(printf '%s' "$2" | tr -d '\0' | tr '\n\t' '  ')"; }

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# --- what is there ----------------------------------------------------------------------------------------

l4t_release() { sed -n 's/^# R\([0-9]*\) (release), REVISION: \([0-9.]*\),.*/\1.\2/p' "$system/etc/nv_tegra_release" 2>/dev/null || true; }

jetpack_of() { # jetpack_of L4T: the series, "old" for what has no TensorFlow that a worker can use, nothing for no Jetson
  case $1 in
    '') ;;
    32.6* | 32.7*) printf '4.6\n' ;;
    35.[2-9]*) printf '5.1\n' ;;
    36.*) printf '6\n' ;;
    *) printf 'old\n' ;;
  esac
}

model_of_machine() {
  if [ -r "$system/proc/device-tree/model" ]; then
    tr -d '\0' <"$system/proc/device-tree/model"
  else
    cat "$system/sys/class/dmi/id/product_name" 2>/dev/null || uname -m
  fi
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

row_of_python() { # of a machine that is no Jetson
  case $1 in
    3.6) printf 'py36-tf2.6\n' ;;
    3.8) printf 'py38-tf2.13\n' ;;
    3.9) printf 'py39-tf2.12\n' ;;
    3.10) printf 'py310-tf2.16\n' ;;
    3.11) printf 'py311-tf2.21\n' ;;
    3.12) printf 'py312-tf2.21\n' ;;
  esac
}

# NVIDIA's TensorFlow is the only one that uses a Jetson's GPU: it stands in an index of its own for each JetPack. A test compares
# this table with flq/host/jetson.py, which is not on a host that nothing was copied to.
nvidia=https://developer.download.nvidia.com/compute/redist/jp

plan_environment() { # sets base, version, row (of constraints/), index, tensorflow (of NVIDIA); problem where it cannot be made
  local candidates candidate found installed wanted=''
  base='' version='' row='' index='' tensorflow='' problem=''
  case $jetpack in
    4.6) wanted=3.6 row=py36-tf2.6 tensorflow=2.7.0+nv22.1 index=$nvidia/v461 ;;
    5.1) wanted=3.8 row=py38-tf2.13 tensorflow=2.12.0+nv23.06 index=$nvidia/v512 ;;
    6) wanted=3.10 row=py310-tf2.16 tensorflow=2.16.1+nv24.08 index=$nvidia/v61 ;;
    old) problem="L4T $l4t is not JetPack 4.6, 5.1 or 6: flash one of these, or give a Python that has TensorFlow with --python" && return ;;
  esac
  candidates="python3 python3.12 python3.11 python3.10 python3.9"
  if [ "$role" = worker ]; then candidates+=" python3.8 python3.6"; fi
  for candidate in ${wanted:+"python$wanted" python3} ${wanted:-$candidates}; do
    found=$(version_of "$candidate") || continue
    if [ -n "$wanted" ] && [ "$found" != "$wanted" ]; then continue; fi
    if [ -z "$wanted" ] && ! [[ " $candidates python3.13" == *" python$found"* ]]; then continue; fi
    base=$(command -v "$candidate") version=$found
    break
  done
  if [ -z "$base" ]; then
    problem="no Python ${wanted:-3.9 to 3.13} here: sudo apt-get install -y python3 python3-venv, or give one that has the packages with --python"
  elif [ "$role" = master ] && [[ $version = 3.[678] ]]; then
    problem="a master needs Python 3.9 and JetPack $jetpack brings $version: give a Python of conda's with --python"
  elif ! "$base" -c 'import ensurepip, venv' 2>/dev/null; then
    problem="$base cannot make virtual environments: sudo apt-get install -y python3-venv"
  elif [ -n "$wanted" ]; then
    installed=$(installed_tensorflow "$base")
    if [[ $installed == *+nv* ]]; then # it stays, whatever its version
      tensorflow=$installed
    elif [ "$jetpack" = 4.6 ] && [ ! -d "$system/usr/include/hdf5" ]; then
      problem="NVIDIA's TensorFlow needs: sudo apt-get install -y libhdf5-dev libhdf5-serial-dev hdf5-tools build-essential python3-dev"
    fi
  else
    row=$(row_of_python "$version")
  fi
}

installed_tensorflow() { # the version, from what is installed and without an import, which takes seconds
  "$1" -W ignore -c 'try:
    from importlib.metadata import version
except ImportError:
    import pkg_resources
    version = lambda name: pkg_resources.get_distribution(name).version
print(version("tensorflow"))' 2>/dev/null || true
}

fingerprint() { # of what an environment was made from; the requirements are those of the copy
  local file
  for file in $(requirement_files) ${row:+"constraints/$row.txt"}; do cksum <"$dir/app/$file"; done 2>/dev/null | cksum
  printf '%s %s %s\n' "$version" "$base" "$tensorflow"
}

requirement_files() { printf 'requirements-tensorflow.txt\nrequirements-%s.txt\n' "$role"; }

is_environment_made() { [ -f "$dir/venv/flq-installed" ] && [ "$(<"$dir/venv/flq-installed")" = "$(fingerprint)" ]; }

# Without what comes to be on the host: compiled Python and compiled kernels.
content_sum() { (cd "$1" 2>/dev/null && find . -type f ! -path '*/__pycache__/*' ! -path './flq/kernels/*.so' -exec cksum {} + | LC_ALL=C sort | cksum) || true; }

free_kb() {
  local existing=$dir
  while [ ! -d "$existing" ]; do existing=$(dirname "$existing"); done
  df -Pk "$existing" | awk 'NR == 2 { print $4 }'
}

check() {
  local free trouble needed=$need_kb
  tell path "$dir"
  tell model "$(model_of_machine)"
  tell l4t "$l4t"
  tell jetpack "$jetpack"
  tell clock "$(date +%s)"
  tell rsync "$(command -v rsync >/dev/null && printf yes || printf no)"
  tell sum "$(content_sum "$dir/app")"
  if [ -n "$python" ]; then
    tell python "$(version_of "$python" || printf none)"
    if ! version_of "$python" >/dev/null; then tell fatal "$python does not run there: check --python"; fi
  else
    plan_environment
    tell python "${version:-none}"
    if [ -n "$problem" ]; then tell fatal "$problem"; fi
    if ! is_environment_made; then needed=$((needed + 3 * 1024 * 1024)); fi # TensorFlow, its packages, and pip's own copies
  fi
  free=$(free_kb)
  tell free_kb "$free"
  if [ "$free" -lt "$needed" ]; then tell fatal "disk: $((free / 1024)) MiB free at $dir, $((needed / 1024)) MiB needed"; fi
  if [ -n "$data" ] && [ ! -d "$data" ]; then tell fatal "no folder $data for the data"; fi
  if [ -n "$systemd" ]; then trouble=$(choose_manager 2>&1) || tell fatal "$trouble"; fi
  tell state "$(state)"
  if [ -n "$dry_run" ] && [ -z "$python" ] && [ -z "$problem" ]; then make_environment | while read -r line; do tell plan "$line"; done; fi
}

# --- the environment --------------------------------------------------------------------------------------

step() { # step COMMAND...: runs it, or prints it in a dry run
  if [ -n "$dry_run" ]; then printf '%s\n' "$*"; else "$@" >&2; fi
}

make_environment() {
  local venv=$dir/venv file options=()
  if is_environment_made; then
    if [ -n "$dry_run" ]; then printf '%s is there already\n' "$venv"; fi
    return
  fi
  if [ -z "$dry_run" ]; then
    changed+=(environment)
    constraints >"$dir/constraints.txt"
  else
    printf 'constraints: %s%s\n' "${row:-none}" "${tensorflow:+, tensorflow == $tensorflow}"
  fi
  # What a broken installation left starts over. A Jetson's own TensorFlow is seen from inside, and never replaced.
  if [ -n "$dry_run" ] || [ ! -f "$venv/flq-installed" ]; then step "$base" -m venv --clear ${index:+--system-site-packages} "$venv"; fi
  rm_unless_dry "$venv/flq-installed"
  # pip 18 of Python 3.6 and pip 9 of a Nano do not see today's wheels.
  if [ "$version" = 3.6 ]; then step "$venv/bin/python" -m pip install --disable-pip-version-check --upgrade "pip==21.3.1"; fi
  for file in $(requirement_files); do options+=(-r "$dir/app/$file"); done
  step "$venv/bin/python" -m pip install --disable-pip-version-check --quiet ${index:+--extra-index-url "$index"} -c "$dir/constraints.txt" "${options[@]}" ||
    die "pip could not install the packages; the next deployment tries again"
  if [ -z "$dry_run" ]; then fingerprint >"$venv/flq-installed"; fi
}

constraints() { # those of the row, with NVIDIA's TensorFlow in place of the row's
  if [ -n "$tensorflow" ]; then
    sed '/^tensorflow/d' "$dir/app/constraints/$row.txt"
    printf 'tensorflow == %s\n' "$tensorflow"
  elif [ -n "$row" ]; then
    cat "$dir/app/constraints/$row.txt"
  fi
}

rm_unless_dry() { if [ -z "$dry_run" ]; then rm -f "$@"; fi; }

check_packages() {
  local text
  text=$("$python" "$dir/app/test_environment.py" --role "$role" --packages_only 2>&1) && return
  die "$python lacks packages: $(printf '%s\n' "$text" | grep -m 1 '^unusable' || printf '%s\n' "$text" | tail -n 1)"
}

# The compiler of this host makes the kernels of this host; no network is needed, and a JetPack has a compiler. Without one NumPy computes: the same bits in more time.
build_kernels() {
  local said
  if said=$(cd "$dir/app" && "$python" -m flq.host.build_kernels --quiet 2>&1); then
    if [[ $said == *'compiled kernels: '* ]]; then changed+=(kernels); fi
    tell kernels compiled
  else
    said=${said##*$'\n'}
    tell kernels NumPy
    tell no_kernels "${said#no compiled kernels, NumPy computes: }"
  fi
}

# --- installing -------------------------------------------------------------------------------------------

store() { # store FILE TEXT: whole or not at all, mode 600, and only where it is new
  if [ -f "$dir/$1" ] && [ "$(<"$dir/$1")" = "$2" ]; then return; fi
  printf '%s\n' "$2" >"$dir/$1.new" || die "cannot write $dir/$1"
  mv "$dir/$1.new" "$dir/$1"
  changed+=("$1")
}

has() { [[ " $files " == *" $1 "* ]]; } # has NAME: among the PEM files that come

store_files() { # from the standard input, each of `files` once
  local line name='' text=''
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      'file '*)
        if [ -n "$name" ]; then store "$name" "$text"; fi
        name=${line#file } text=''
        has "$name" || die "a file that was not announced: $name"
        ;;
      *) text+=${text:+$'\n'}$line ;;
    esac
  done
  if [ -n "$name" ]; then store "$name" "$text"; fi
}

run_script() {
  local arguments=()
  if [ "$role" = master ]; then
    arguments=("$dir/app/start_master.sh" --host 0.0.0.0 --port "$port" -- --token_file "$dir/token")
    if has server.pem; then arguments+=(--certfile "$dir/server.pem" --keyfile "$dir/server.pem"); fi
    if has client_ca.pem; then arguments+=(--client_ca "$dir/client_ca.pem"); fi
  else
    arguments=("$dir/app/start_worker.sh" --worker_id "$worker" -- --master_url "$master_url" --token_file "$dir/token" --state_dir "$dir/state")
    if has ca.pem; then arguments+=(--cafile "$dir/ca.pem"); fi
    if has client.pem; then arguments+=(--cert "$dir/client.pem"); fi # its key stands in it
    if [ -n "$data" ]; then arguments+=(--set "dataset.data_dir=$data"); fi
    arguments+=(${worker_arguments[@]+"${worker_arguments[@]}"})
  fi
  printf '#!/usr/bin/env bash\n# Written by deploy_jetson.sh. Starts the %s; logs and results come to lie here.\n' "$role"
  printf 'cd %q || exit 2\nexport PYTHON=%q\nexec' "$dir" "$python"
  printf ' %q' "${arguments[@]}"
}

install() {
  local token came
  # Before anything else reads the standard input.
  IFS= read -r token || die "no token came"
  came=$(cat)
  mkdir -p "$dir" || die "cannot make $dir"
  if [ -n "$swap" ]; then
    rm -rf "$dir/app.old"
    # a library whose source has not changed stays: the name says so
    cp -p "$dir/app/flq/kernels/"*.so "$dir/app.new/flq/kernels/" 2>/dev/null || true
    if [ -d "$dir/app" ]; then mv "$dir/app" "$dir/app.old"; fi
    mv "$dir/app.new" "$dir/app"
    rm -rf "$dir/app.old"
  fi
  if [ -z "$python" ]; then
    plan_environment
    if [ -n "$problem" ]; then die "$problem"; fi
    make_environment
    python=$dir/venv/bin/python
  fi
  check_packages
  build_kernels
  store token "$token"
  store_files <<<"$came"
  store run.sh "$(run_script)"
  chmod 700 "$dir/run.sh"
  if [ -n "$systemd" ]; then install_unit; fi
  tell changed "${changed[*]-}"
  tell state "$(state)"
}

# --- what was revoked -------------------------------------------------------------------------------------

show_revoked() { # the list beside a deployed master's token
  if [ -e "$dir/token.revoked" ]; then cat "$dir/token.revoked"; else printf '{"tokens": {}, "certificates": {}}\n'; fi
}

merge_revoked() { # the list on the standard input: FLQ brings it in under its lock, so a revocation here at the same time is not lost
  local before said
  [ -f "$dir/token" ] || return 0 # no master yet: its deployment brings the list
  before=$(revoked_sum)
  said=$(cd "$dir/app" && "${python:-$dir/venv/bin/python}" -m flq token --merge - --token_file "$dir/token" 2>&1 >/dev/null) ||
    case $said in
      *'unrecognized arguments'*) die "the FLQ in $dir cannot merge lists of what was revoked: deploy the master too" ;;
      *) die "$(printf '%s\n' "$said" | tail -n 1)" ;;
    esac
  if [ "$(revoked_sum)" != "$before" ]; then changed+=(token.revoked); fi
}

revoked_sum() { cksum <"$dir/token.revoked" 2>/dev/null || true; }

# --- systemd ----------------------------------------------------------------------------------------------

unit_name() { if [ "$role" = master ]; then printf 'flq-master.service\n'; else printf 'flq-worker-%s.service\n' "$worker"; fi; }

# With root's rights, or sudo without a password, a unit of the system: it starts on boot and its MemoryMax always holds. Else one of
# the user's own manager, which lingering starts on boot; there MemoryMax holds with cgroup v2 (JetPack 6), not with v1.
choose_manager() { # sets manager and as_root
  [ -d "$system/run/systemd/system" ] || die "systemd does not run there: leave --systemd out"
  manager=system as_root=()
  if [ "$systemd" = user ] || { [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; }; then
    manager=user
    systemctl --user show-environment >/dev/null 2>&1 ||
      die "no systemd of the user $(id -un) there (XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR): log in through PAM, or allow sudo without a password"
  elif [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
  fi
}

control() { # control SYSTEMCTL-ARGUMENT...
  if [ "$manager" = user ]; then systemctl --user "$@"; else ${as_root[@]+"${as_root[@]}"} systemctl "$@"; fi
}

unit_text() {
  printf '# Written by deploy_jetson.sh.\n[Unit]\nDescription=FLQ %s\nStartLimitIntervalSec=0\n' "$role${worker_label}"
  if [ "$manager" = system ]; then printf 'Wants=network-online.target\nAfter=network-online.target\n'; fi
  printf '\n[Service]\nExecStart=%s\nWorkingDirectory=%s\n' "$dir/run.sh" "$dir"
  if [ "$manager" = system ]; then printf 'User=%s\n' "$(id -un)"; fi
  # 2, 3 and 4 are mistakes that starting again does not mend (docs/guide/reference.md).
  printf 'Restart=on-failure\nRestartSec=10\nRestartPreventExitStatus=2 3 4\nTimeoutStopSec=20\nMemoryMax=%s\n' "$memory_max"
  printf 'StandardOutput=journal\nStandardError=journal\n\n[Install]\nWantedBy=%s\n' \
    "$(if [ "$manager" = system ]; then printf 'multi-user.target'; else printf 'default.target'; fi)"
}

install_unit() {
  local name folder text worker_label=" $worker" # the unit starts run.sh, so it stays as it is when only that changes
  if [ "$role" = master ]; then worker_label=; fi
  choose_manager
  name=$(unit_name) text=$(unit_text)
  folder=$system/etc/systemd/system
  if [ "$manager" = user ]; then folder=$HOME/.config/systemd/user; fi
  if [ ! -f "$folder/$name" ] || [ "$(<"$folder/$name")" != "$text" ]; then
    if [ "$manager" = user ]; then
      mkdir -p "$folder"
      printf '%s\n' "$text" >"$folder/$name"
    else
      printf '%s\n' "$text" | ${as_root[@]+"${as_root[@]}"} tee "$folder/$name" >/dev/null
      ${as_root[@]+"${as_root[@]}"} chmod 644 "$folder/$name"
    fi
    control daemon-reload
    changed+=(unit)
  fi
  control enable "$name" >&2
  if [ "$manager" = user ] && ! loginctl enable-linger "$(id -un)" >&2; then
    tell warning "it starts on boot only after: sudo loginctl enable-linger $(id -un)"
  fi
  store unit "$manager $name"
}

read_unit() { # sets manager, as_root and unit where a unit was installed; fails where not
  [ -f "$dir/unit" ] || return 1
  read -r manager unit <"$dir/unit"
  as_root=()
  if [ "$manager" = system ] && [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
}

# --- running ----------------------------------------------------------------------------------------------

is_running() { # sets pid; a number that went to another process since does not count
  pid=$(cat "$dir/pid" 2>/dev/null) && [ -n "$pid" ] && grep -qaF -- "$dir/" "/proc/$pid/cmdline" 2>/dev/null
}

state() {
  local seen
  if [ ! -f "$dir/run.sh" ]; then
    printf 'not deployed\n'
  elif read_unit; then
    seen=$(control is-active "$unit" 2>/dev/null || true)
    printf '%s, unit %s\n' "${seen:-unknown}" "$unit"
  elif is_running; then
    printf 'running, pid %s\n' "$pid"
  else
    printf 'stopped\n'
  fi
}

start() {
  local output=$dir/logs/output.log tenths own_log=''
  [ -f "$dir/run.sh" ] || die "nothing is deployed in $dir: run deploy first"
  if read_unit; then
    control start "$unit"
  elif ! is_running; then
    mkdir -p "$dir/logs"
    setsid nohup "$dir/run.sh" >>"$output" 2>&1 </dev/null &
    printf '%s\n' $! >"$dir/pid"
    # It writes a log of its own when its arguments and its configuration are right: seconds, on a Nano.
    for ((tenths = 0; tenths < 200 && ${#own_log} == 0; tenths++)); do
      sleep 0.1
      kill -0 $! 2>/dev/null || die "ended at once: $(tail -n 1 "$output")"
      own_log=$(find "$dir/logs" -name '*.log' ! -name output.log -newer "$dir/pid")
    done
  fi
}

stop() {
  local tenths
  if read_unit; then
    control stop "$unit"
  elif is_running; then
    kill -TERM "$pid"
    for ((tenths = 0; tenths < 150; tenths++)); do
      is_running || break
      sleep 0.1
    done
    if is_running; then kill -KILL "$pid"; fi
    rm -f "$dir/pid"
  fi
}

newest_log() { { find "$dir/logs" -name '*.log' -printf '%T@ %p\n' 2>/dev/null || true; } | sort -rn | sed -n '1s/^[^ ]* //p'; }

show_logs() {
  local log
  log=$(newest_log)
  [ -n "$log" ] || die "no logs in $dir/logs"
  tail -n "$lines" "$log"
}

pack() { # logs and results, as tar
  cd "$dir" || exit 1
  find . -maxdepth 1 \( -name logs -o -name results \) -print0 | tar --null -T - --format=gnu -cf -
}

# ----------------------------------------------------------------------------------------------------------

main() {
  local command=$1 argument
  shift
  for argument in "$@"; do
    case ${argument%%=*} in
      worker_argument) worker_arguments+=("${argument#*=}") ;;
      dir | role | worker | master_url | port | data | python | need_kb | swap | lines | systemd | memory_max | files | dry_run)
        printf -v "${argument%%=*}" %s "${argument#*=}" ;;
      *) die "unknown setting $argument" ;;
    esac
  done
  case $dir in /*) ;; *) dir=$HOME/$dir ;; esac
  export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}" # a session over ssh may have none
  changed=()
  l4t=$(l4t_release)
  jetpack=$(jetpack_of "$l4t")
  case $command in
    check) check ;;
    install) install ;;
    revoked) show_revoked ;;
    revoke) merge_revoked && tell changed "${changed[*]-}" ;;
    start) start && tell state "$(state)" ;;
    stop) stop && tell state "$(state)" ;;
    restart) stop && start && tell state "$(state)" ;;
    status) tell state "$(state)" && tell last "$(tail -n 1 "$(newest_log)" 2>/dev/null || true)" ;;
    logs) show_logs ;;
    pack) pack ;;
    sum) content_sum "$dir" ;;
    *) die "unknown command $command" ;;
  esac
}

main "$@"; exit $?
