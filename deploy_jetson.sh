#!/usr/bin/env bash
# Deploy FLQ to Jetsons and other Linux machines over ssh, and start, stop and look at what runs there. Needs bash 4.3.
# shellcheck disable=SC2317 # for_all calls functions by their names
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/runtime.sh
. "$root/scripts/runtime.sh"

usage() {
  cat <<END
usage: ./deploy_jetson.sh COMMAND [OPTION...] [-- ARGUMENT...]

commands
  check           look at every host and say what it is and what is in the way; changes nothing
  deploy          check, copy what is new, make the environment, hand out token and CA; starts nothing.
                  What was revoked here or on the master's host is then revoked on both
  start, stop, restart, status
  logs            the last lines of each host's log
  collect         copy logs and results of each host to a folder here

hosts
  --hosts FILE    one host a line (deploy.conf; deploy.conf.example says how)
  --host LINE     a line of such a file, such as --host 'jetson 192.168.1.21 22 0 -'; may be repeated
  --only NAMES    of all these, only those named, such as worker-0,worker-3,master
  --key FILE      the private key to log in with; else what ssh and its agent have
  --ssh_config F  ssh's configuration file, instead of ~/.ssh/config
  --jobs N        hosts at the same time (8)

what is deployed
  --master_url U  where the workers find the master; else the host of the line "master", port 5000
  --master_port P the port of a master that is deployed (5000)
  --config FILE   configuration of a master that is deployed (flq_config.json)
  --token_file F  the operator's token on this machine (FLQ_TOKEN, else ~/.flq/token); each worker gets its own
  --cafile FILE   the CA of a master with an https:// address
  --certfile FILE, --keyfile FILE   certificate and key of a master that is deployed: it serves TLS only
  --client_certs DIR  where the master asks for certificates: worker-N.pem and worker-N.key of each worker
  --client_ca FILE    a master that is deployed lets nobody in without a certificate of this authority
  --python PATH   a Python on the hosts that has the packages: no environment is made
  --add PATH      a file or folder with a model, data set or quantiser of your own, which the workers then
                  run when the master names it; may be repeated
  --systemd       install and enable a systemd unit: the system's with root or sudo without a password, else the user's
  --systemd_user  the user's in any case
  --memory_max V  MemoryMax of the unit (80%)
  --dry_run       say what would be done and change nothing; --dry-run is the same
  -- ARGUMENT...  more arguments of every worker's flq_worker.py, such as --set jetson_optimization.gpu_memory_limit_mb=1024

  --lines N       of logs (20)
  --out DIR       of collect (collected)
  --max_gb N      of collect: a host that sends more is refused (10)
  --quiet         no progress: only the tables and what went wrong
  --json          the last table as JSON, and nothing else on standard output (not for logs)

Exit code: 0 all hosts did it, 1 some failed (the table says why; the others are done), 2 usage.
END
}

hosts_file=deploy.conf
host_lines=()
only=
key=
ssh_config=
jobs=8
master_url=
master_port=5000
config=
token_file=
cafile=
certfile=
keyfile=
client_certs=
client_ca=
python_there=
added=()
systemd=
memory_max=80%
dry_run=
lines=20
out=collected
max_gb=10
quiet=
json=
worker_arguments=()

case ${1:-} in
  check | deploy | start | stop | restart | status | logs | collect) command=$1 && shift ;;
  -h | --help) usage && exit 0 ;;
  *) fail 2 "expected check, deploy, start, stop, restart, status, logs or collect; got ${1:-nothing}; --help shows the options" ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --hosts) need_value "$@" && hosts_file=$2 && shift 2 ;;
    --host) need_value "$@" && host_lines+=("$2") && shift 2 ;;
    --only) need_value "$@" && only=$2 && shift 2 ;;
    --key) need_value "$@" && key=$2 && shift 2 ;;
    --ssh_config) need_value "$@" && ssh_config=$2 && shift 2 ;;
    --jobs) need_value "$@" && jobs=$2 && shift 2 ;;
    --master_url) need_value "$@" && master_url=$2 && shift 2 ;;
    --master_port) need_value "$@" && master_port=$2 && shift 2 ;;
    --config) need_value "$@" && config=$2 && shift 2 ;;
    --token_file) need_value "$@" && token_file=$2 && shift 2 ;;
    --cafile) need_value "$@" && cafile=$2 && shift 2 ;;
    --certfile) need_value "$@" && certfile=$2 && shift 2 ;;
    --keyfile) need_value "$@" && keyfile=$2 && shift 2 ;;
    --client_certs) need_value "$@" && client_certs=$2 && shift 2 ;;
    --client_ca) need_value "$@" && client_ca=$2 && shift 2 ;;
    --python) need_value "$@" && python_there=$2 && shift 2 ;;
    --add) need_value "$@" && added+=("$2") && shift 2 ;;
    --systemd) systemd=auto && shift ;;
    --systemd_user) systemd=user && shift ;;
    --memory_max) need_value "$@" && memory_max=$2 && shift 2 ;;
    --dry_run | --dry-run) dry_run=yes && shift ;;
    --lines) need_value "$@" && lines=$2 && shift 2 ;;
    --out) need_value "$@" && out=$2 && shift 2 ;;
    --max_gb) need_value "$@" && max_gb=$2 && shift 2 ;;
    --quiet) quiet=yes && shift ;;
    --json) json=yes && shift ;;
    -h | --help) usage && exit 0 ;;
    --) shift && worker_arguments=("$@") && break ;;
    *) fail 2 "unknown argument $1; arguments of flq_worker.py go after --" ;;
  esac
done

# --- the hosts --------------------------------------------------------------------------------------------

names=() # worker-0, worker-1, ..., master
users=()
addresses=()
ports=()
datas=()
pythons=()
dirs=()

read_hosts() {
  local line number=0
  if [ ${#host_lines[@]} -gt 0 ]; then
    for line in "${host_lines[@]}"; do read_host "$line" "--host '$line'"; done
  else
    [ -r "$hosts_file" ] || fail 2 "cannot read the hosts file $hosts_file: copy deploy.conf.example to it, or give --host"
    while IFS= read -r line || [ -n "$line" ]; do
      number=$((number + 1))
      line=${line%%#*}
      if [ -n "${line//[[:space:]]/}" ]; then read_host "$line" "$hosts_file line $number"; fi
    done <"$hosts_file"
  fi
  [ ${#names[@]} -gt 0 ] || fail 2 "no hosts${only:+ named $only}: ${hosts_file} has one a line"
}

read_host() { # read_host LINE WHERE
  local words=() word name python=$python_there dir=flq
  read -r -a words <<<"$1"
  [ ${#words[@]} -ge 4 ] || fail 2 "$2: expected user, host, port, worker id or master, data; got ${#words[@]} columns"
  case ${words[3]} in
    master) name=master ;;
    *[!0-9]*) fail 2 "$2: the fourth column is a worker id or master; got ${words[3]} (several workers on one machine: a line and a dir= each)" ;;
    *) need_number "$2: the fourth column" "${words[3]}" 0 65535 && name=worker-$((10#${words[3]})) ;;
  esac
  if [ "${words[2]}" != - ]; then need_number "$2: the third column, a port or -" "${words[2]}" 1 65535; fi
  case ${words[0]}${words[1]} in *[!A-Za-z0-9._:%@-]*) fail 2 "$2: no user or host looks like this" ;; esac
  # ssh and rsync would take these for options.
  case ${words[0]} in -?*) fail 2 "$2: the first column is a user or -; got ${words[0]}" ;; esac
  if [ "${words[1]:0:1}" = - ]; then fail 2 "$2: the second column is a host; got ${words[1]}"; fi
  for word in "${words[@]:5}"; do
    case $word in
      python=*) python=${word#*=} ;;
      dir=*) dir=${word#*=} ;;
      *) fail 2 "$2: expected python=PATH or dir=FOLDER; got $word" ;;
    esac
  done
  case $dir in '' | . | .. | / | *[!A-Za-z0-9._/-]*) fail 2 "$2: dir= is a folder of letters, digits and . _ - /; got '$dir'" ;; esac
  add_host "$2" "$name" "${words[0]}" "${words[1]}" "${words[2]}" "${words[4]:--}" "$python" "$dir"
}

add_host() { # add_host WHERE NAME USER ADDRESS PORT DATA PYTHON DIR
  local i
  for ((i = 0; i < ${#names[@]}; i++)); do
    if [ "${names[i]}" = "$2" ]; then fail 2 "$1: there are two lines for $2"; fi
    if [ "${users[i]} ${addresses[i]} ${ports[i]} ${dirs[i]}" = "$3 $4 $5 $8" ]; then
      fail 2 "$1: ${names[i]} lies in the same folder of the same host: give each a dir= of its own"
    fi
  done
  names+=("$2") users+=("$3") addresses+=("$4") ports+=("$5") datas+=("$6") pythons+=("$7") dirs+=("$8")
}

keep_only() { # after master_url was looked for among all of them
  local i wanted all_wanted found=,
  [ -n "$only" ] || return 0
  for i in "${!names[@]}"; do
    if [[ ,$only, == *,"${names[i]}",* ]]; then found+=${names[i]},; else unset "names[i]"; fi
  done
  IFS=, read -r -a all_wanted <<<"$only"
  for wanted in "${all_wanted[@]}"; do
    [[ $found == *,"$wanted",* ]] || fail 2 "--only names $wanted, which is not among the hosts"
  done
}

where() { # where I: the host as a person writes it
  local text=${addresses[$1]}
  if [ "${users[$1]}" != - ]; then text=${users[$1]}@$text; fi
  if [ "${ports[$1]}" != - ] && [ "${ports[$1]}" != 22 ]; then text=$text:${ports[$1]}; fi
  printf '%s\n' "$text"
}

# --- ssh --------------------------------------------------------------------------------------------------

# Never a password: BatchMode lets ssh fail where it would ask. A host that nobody knows yet is remembered, and from then on one
# that answers with another key is refused. One connection for each host serves all calls. What a host says goes to files here, and
# ssh ends at their limit: a host that was taken over must not fill the operator's disk.
longest_file=65536 # KiB
write_ssh() { # writes $work/ssh, which rsync starts as well
  local options=(-o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=10 -o ServerAliveInterval=15
    -o ServerAliveCountMax=4 -o ControlMaster=auto -o ControlPath="$work/%C" -o ControlPersist=60 -o LogLevel=ERROR)
  if [ -n "$ssh_config" ]; then options+=(-F "$ssh_config"); fi
  if [ -n "$key" ]; then options+=(-i "$key" -o IdentitiesOnly=yes); fi
  {
    printf '#!/usr/bin/env bash\nulimit -c 0 -f %s\nexec ssh' "$longest_file"
    printf ' %q' "${options[@]}"
    printf ' "$@"\n'
  } >"$work/ssh"
}

destination() { # destination I: sets `target`, the arguments of ssh that name the host
  target=()
  if [ "${ports[$1]}" != - ]; then target+=(-p "${ports[$1]}"); fi
  if [ "${users[$1]}" != - ]; then target+=(-l "${users[$1]}"); fi
}

quoted() { # for the shell there, whichever it is
  local word
  for word in "$@"; do printf " '%s'" "${word//\'/\'\\\'\'}"; done
}

on_host() { # on_host I COMMAND NAME=VALUE... <PAYLOAD: runs scripts/on_host.sh there; its answers go to standard output
  local i=$1 target
  destination "$i"
  # A shell reads its commands from a pipe byte by byte, so what stands behind the last line is left for the command.
  cat "$root/scripts/on_host.sh" - |
    bash "$work/ssh" "${target[@]}" "${addresses[i]}" "bash -s --$(quoted "$2" "dir=${dirs[i]}" "role=${names[i]%%-*}" "worker=${names[i]#*-}" "${@:3}")"
}

# --- what a host answers ----------------------------------------------------------------------------------

# A host that was taken over answers what it likes, and bash evaluates a text where it expects a number. So nothing uses an answer
# before read_facts has compared it with this table, and no control character of a host goes to the terminal or into a kept log.

form_of() { # form_of FACT: sets `form`, an extended regular expression or `text`, its `meaning`, and `many` where it may come more than once
  local number='0|[1-9][0-9]{0,14}' # bash would read 010 as 8, and what has more digits as another number
  many=
  case $1 in
    path) form='/[A-Za-z0-9._/-]*' meaning='an absolute path of letters, digits and . _ - / (name another folder with dir=)' ;;
    l4t) form='([0-9]+(\.[0-9]+)*)?' meaning='a version or nothing' ;;
    jetpack) form='(4\.6|5\.1|6|old)?' meaning='4.6, 5.1, 6, old or nothing' ;;
    clock | free_kb) form=$number meaning='a whole number' ;;
    rsync) form='yes|no' meaning='yes or no' ;;
    sum) form='([0-9]+ [0-9]+)?' meaning='a sum and a size, or nothing' ;;
    python) form='[0-9]+\.[0-9]+|none' meaning='a version such as 3.6, or none' ;;
    state)
      form='not deployed|stopped|running, pid [0-9]+|[a-z-]+, unit flq-(master|worker-[0-9]+)\.service'
      meaning='"not deployed", "stopped", "running, pid N" or "STATE, unit NAME"'
      ;;
    changed)
      form='((environment|kernels|token|server\.pem|client_ca\.pem|ca\.pem|client\.pem|run\.sh|unit|token\.revoked)( |$))*'
      meaning='a list of what deploy writes'
      ;;
    kernels) form='compiled|NumPy' meaning='compiled or NumPy' ;;
    model | warning | last | no_kernels) form=text ;;
    fatal | plan) form=text many=yes ;;
    *) return 1 ;;
  esac
}

plain() { LC_ALL=C tr -cd '[:print:]\t\n'; } # without what a terminal would obey

longest_answers=1000000 # bytes

ask() { # ask I COMMAND "FACT..." NAME=VALUE... <PAYLOAD: runs it there, and its answers, these FACTs among them, are the host's facts from then on
  local answers=$work/${names[$1]}.answers
  on_host "$1" "$2" "${@:4}" | head -c $((longest_answers + 1)) >"$answers" || [ "$(wc -c <"$answers")" -gt "$longest_answers" ] || return
  if [ "$(wc -c <"$answers")" -gt "$longest_answers" ]; then
    refuse "$1" "its answers are longer than $longest_answers bytes"
  else
    read_facts "$1" "$3"
  fi
}

read_facts() { # read_facts I "FACT...": from what the host answered; all of it or nothing
  local LC_ALL=C i=$1 line name value form meaning many wanted seen=' ' facts=''
  rm -f "$work/${names[i]}.facts"
  while IFS= read -r line; do
    line=${line#flq:}
    name=${line%%=*} value=${line#*=}
    form_of "$name" || refuse "$i" "its answer $(shortened "$name") is not one that scripts/on_host.sh gives: got $(shortened "$value")" || return
    if [[ $seen == *" $name "* ]] && [ -z "$many" ]; then refuse "$i" "its answer $name came twice" || return; fi
    seen+="$name "
    if [ "$form" = text ]; then
      value=$(printf '%s' "$value" | plain)
      value=${value:0:1000}
    elif ! [[ $value =~ ^($form)$ ]]; then
      refuse "$i" "its answer $name is not $meaning: got $(shortened "$value")" || return
    fi
    facts+=$name=$value$'\n'
  done < <(tr -d '\0' <"$work/${names[i]}.answers" | grep -a '^flq:')
  for wanted in $2; do
    if [[ $seen != *" $wanted "* ]]; then refuse "$i" "its answer $wanted is missing" || return; fi
  done
  printf '%s' "$facts" >"$work/${names[i]}.facts"
}

refuse() { # refuse I WORDS: fails, and the last table says why
  finish "$1" failed "$2: look at that machine before you trust it"
  return 1
}

shortened() { # shortened TEXT: its first letters, quoted
  local text=${1:0:60}
  if [ "$text" = "$1" ]; then printf '%q\n' "$text"; else printf '%q...\n' "$text"; fi
}

fact() { # fact I NAME
  sed -n "s/^$2=//p" "$work/${names[$1]}.facts"
}

reason() { # reason I: one line of its log that says why
  local line files=("$work/${names[$1]}".{log,text})
  if [ -n "$(find "${files[@]}" -size "+$((longest_file - 1))k" 2>/dev/null)" ]; then
    printf 'it sent more than %s MiB of log\n' $((longest_file / 1024))
    return
  fi
  line=$(grep -a -m 1 -iE 'no space left|permission denied|host key verification|identification has changed' "${files[0]}" || tail -n 1 "${files[0]}")
  line=$(printf '%s' "$line" | plain)
  line=${line:-no answer}
  printf '%s\n' "${line:0:500}"
}

# --- many at once -----------------------------------------------------------------------------------------

finish() { # finish I ok|failed WORDS
  printf '%s\t%s\n' "$2" "$(printf '%s' "$3" | tr '\t\n' '  ' | plain)" >"$work/${names[$1]}.result"
}

for_all() { # for_all FUNCTION [I...]: with every host or these, at most `jobs` at a time; each leaves a result
  local i running=0 asked=()
  rm -f "$work"/*.done
  if [ $# -eq 1 ]; then set -- "$1" "${!names[@]}"; fi
  for i in "${@:2}"; do if ! is_failed "$i"; then asked+=("$i"); fi; done
  show_progress "${asked[@]+"${asked[@]}"}"
  for i in ${asked[@]+"${asked[@]}"}; do
    if [ "$running" -ge "$jobs" ]; then
      wait -n || true
      running=$((running - 1))
      show_progress "${asked[@]}"
    fi
    set -m # a process group for each, so that an end of this script ends its ssh too
    run_one "$1" "$i" </dev/null &
    set +m
    running=$((running + 1))
  done
  while [ "$running" -gt 0 ]; do
    wait -n || true
    running=$((running - 1))
    show_progress "${asked[@]}"
  done
  if is_drawn_over; then printf '\r%*s\r' "$((width - 1))" '' >&2; fi
}

run_one() { # run_one FUNCTION I
  "$1" "$2" >>"$work/${names[$2]}.log" 2>&1 || is_failed "$2" || finish "$2" failed "$(reason "$2")"
  : >"$work/${names[$2]}.done"
}

is_drawn_over() { [ -z "$quiet" ] && [ -t 2 ] && [ "${TERM:-dumb}" != dumb ]; } # one line, again and again

show_progress() { # show_progress I...: of these hosts, on standard error: a bar on a terminal, elsewhere a line for each that is done
  local i number=0 part left='' line
  if [ -n "$quiet" ] || [ $# -eq 0 ]; then return 0; fi
  for i in "$@"; do
    if [ ! -e "$work/${names[i]}.done" ]; then
      left+=${left:+, }${names[i]}
    else
      number=$((number + 1))
    fi
  done
  if is_drawn_over; then
    width=$(tput cols 2>/dev/null || printf '80\n')
    part=$((20 * number / $#))
    line="$command: $number/$# [$(printf '%*s' "$part" '' | tr ' ' '#')$(printf '%*s' $((20 - part)) '' | tr ' ' -)] ${left:+waiting for $left}"
    printf '\r%-*.*s' "$((width - 1))" "$((width - 1))" "$line" >&2
    return 0
  fi
  for i in "$@"; do
    if [ -e "$work/${names[i]}.done" ] && [ ! -s "$work/${names[i]}.done" ]; then
      printf 'told\n' >"$work/${names[i]}.done"
      say "$command: ${names[i]} is done, $number of $#"
    fi
  done
}

is_failed() { grep -qs '^failed' "$work/${names[$1]}.result"; }

on_exit() {
  local code=$? pid i target
  trap '' INT TERM HUP
  for pid in $(jobs -p); do kill -- "-$pid" 2>/dev/null || true; done
  for i in "${!names[@]}"; do
    destination "$i"
    bash "$work/ssh" "${target[@]}" -O exit "${addresses[i]}" 2>/dev/null || true
  done
  rm -rf "$work"
  exit "$code"
}

report() { # the last table; ends the script
  local i code=0 name host state words log
  : >"$work/table"
  for i in "${!names[@]}"; do
    IFS=$'\t' read -r state words <"$work/${names[i]}.result" || state=failed words="no result"
    if [ "$state" != ok ]; then code=1; fi
    printf '%s\t%s\t%s\t%s\n' "${names[i]}" "$(where "$i")" "$state" "$words" >>"$work/table"
  done
  if [ -n "$json" ]; then
    "$python" -c 'import json, sys
names = ("name", "host", "result", "what")
print(json.dumps([dict(zip(names, line.rstrip("\n").split("\t", 3))) for line in open(sys.argv[1], encoding="utf-8")], indent=2))' "$work/table"
  else
    if [ "$command" = check ] || [ "$command" = deploy ]; then printf '\n'; fi
    printf '%-11s %-27s %-7s %s\n' name host result what
    while IFS=$'\t' read -r name host state words; do
      printf '%-11s %-27s %-7s %s\n' "$name" "$host" "$state" "$words"
    done <"$work/table"
  fi
  if [ "$code" -ne 0 ]; then
    kept=$(mktemp -d "${TMPDIR:-/tmp}/flq-deploy-log.XXXXXX")
    for log in "$work"/*.log; do plain <"$log" >"$kept/${log##*/}"; done
    say "some hosts failed; what each of them said is in $kept"
  fi
  exit "$code"
}

# --- what goes to a host ----------------------------------------------------------------------------------

worker_tree=(flq_worker.py start_worker.sh flq)
not_for_workers=(flq/{master,reports,simulation,sweep,cluster,api,integrations,__main__.py,report_commands.py,run_commands.py,sweep_commands.py,identity_commands.py,__init__.pyi,py.typed}) # docs/architecture.md has the line
master_tree=(flq_master.py start_master.sh flq_config.json flq)
both_trees=(test_environment.py requirements-tensorflow.txt constraints scripts/{runtime.sh,requirements.py} LICENSE)

make_tree() { # make_tree ROLE: $work/ROLE, exactly what such a host has in app/
  local tree=$work/$1 path paths=("${both_trees[@]}" "requirements-$1.txt")
  if [ "$1" = master ]; then paths+=("${master_tree[@]}"); else paths+=("${worker_tree[@]}"); fi
  mkdir -p "$tree"
  copy_files "$root" "$tree" "${paths[@]}"
  if [ "$1" = master ] && [ -n "$config" ]; then cp "$config" "$tree/flq_config.json"; fi
  if [ "$1" = worker ]; then
    for path in "${not_for_workers[@]}"; do rm -rf "${tree:?}/$path"; done
  fi
  for path in ${added[@]+"${added[@]}"}; do copy_files "$(dirname "$path")" "$tree" "./$(basename "$path")"; done
  chmod -R u+rwX,go-rwx "$tree"
  bash "$root/scripts/on_host.sh" sum "dir=$tree" >"$work/$1.sum"
  du -sk "$tree" | awk '{ print $1 }' >"$work/$1.kb"
}

# Programs that start meanwhile make __pycache__: cp would miss a file there, and tar ends with 1 where a folder that it
# was told to pack has changed. So tar is told each file.
copy_files() { # copy_files FROM TO PATH...: without what each machine makes for itself, __pycache__ and the compiled kernels
  (cd "$1" && find "${@:3}" \( -name __pycache__ -o -path 'flq/kernels/.*' -o -path 'flq/kernels/*.so' \) -prune -o ! -type d -print0) | tar -C "$1" --null -T - -cf - | tar -C "$2" -xpf -
}

role() { printf '%s\n' "${names[$1]%%-*}"; }

check_host() { # check_host I
  local i=$1 before after fatal needed
  before=$(date +%s)
  needed=$(<"$work/$(role "$i").kb")
  ask "$i" check "path model l4t jetpack clock rsync sum python free_kb state" "need_kb=$((needed + 256))" "python=${pythons[i]}" \
    "data=${datas[i]#-}" "systemd=$systemd" "dry_run=$dry_run" </dev/null || return
  after=$(date +%s)
  printf '%+d\n' $(($(fact "$i" clock) - (before + after) / 2)) >"$work/${names[i]}.offset"
  fatal=$(fact "$i" fatal)
  if [ -n "$fatal" ]; then finish "$i" failed "${fatal//$'\n'/; }"; else finish "$i" ok "$(fact "$i" state)"; fi
}

is_copied() { [ "$(fact "$1" sum)" = "$(<"$work/$(role "$1").sum")" ]; }

show_checks() { # the first table
  local i system offset
  printf '%-11s %-27s %-24s %-24s %-7s %-10s %-6s %s\n' name host model system Python 'disk free' clock rsync
  for i in "${!names[@]}"; do
    printf '%-11s %-27s ' "${names[i]}" "$(where "$i")"
    if [ -f "$work/${names[i]}.facts" ]; then
      offset=$(<"$work/${names[i]}.offset")
      system=$(fact "$i" l4t)
      if [ -n "$system" ]; then system="JetPack $(fact "$i" jetpack), L4T $system"; fi
      printf '%-24.24s %-24.24s %-7s %-10s %-6s %s\n' "$(fact "$i" model)" "${system:--}" "$(fact "$i" python)" \
        "$(($(fact "$i" free_kb) / 1024)) MiB" "$offset s" "$(fact "$i" rsync)"
      if [ "${offset#[-+]}" -gt 60 ]; then printf '  ! its clock is %s s off: certificates and logs go by it (sudo timedatectl set-ntp true)\n' "$offset"; fi
      if [ "$(fact "$i" rsync)" = no ]; then printf '  ! no rsync there: all of it is copied each time that something is new, by tar\n'; fi
    else
      printf '%s\n' "-"
    fi
    if is_failed "$i"; then printf '  ! %s\n' "$(cut -f 2 "$work/${names[i]}.result")"; fi
  done
}

copy_tree() { # copy_tree I: to app.new beside app, so that what is there stays whole until all has come
  local i=$1 tree path target address
  tree=$work/$(role "$i")
  path=$(fact "$i" path)
  destination "$i"
  address=${addresses[i]}
  if [ "$(fact "$i" rsync)" = yes ] && command -v rsync >/dev/null; then
    case $address in *:*) address="[$address]" ;; esac # IPv6
    bash "$work/ssh" "${target[@]}" "${addresses[i]}" "umask 077 && mkdir -p$(quoted "$path/app.new")" </dev/null &&
      rsync -rlpt --delete --link-dest="$path/app" -e "bash $work/ssh ${target[*]}" "$tree/" "$address:$path/app.new/"
  else
    tar -C "$tree" -cf - . |
      bash "$work/ssh" "${target[@]}" "${addresses[i]}" "umask 077 && rm -rf$(quoted "$path/app.new") && mkdir -p$(quoted "$path/app.new") && tar -C$(quoted "$path/app.new") --no-same-owner -xf -"
  fi
}

token_of() { # token_of I: a worker's own; the master gets the operator's
  local arguments=()
  if [ "$(role "$1")" = worker ]; then arguments=(--worker "${names[$1]#*-}"); fi
  (cd "$root" && "$python" -m flq token --token_file "$token_file" ${arguments[@]+"${arguments[@]}"})
}

pem_files() { # pem_files I: lines of "NAME FILE": what a worker trusts and shows, or what the master proves itself with and asks for
  local client=$client_certs/worker-${names[$1]#*-}
  if [ "$(role "$1")" = worker ]; then
    if [ -n "$cafile" ]; then printf 'ca.pem %s\n' "$cafile"; fi
    if [ -n "$client_certs" ]; then printf 'client.pem %s\n' "$client.pem" "$client.key"; fi
  else
    if [ -n "$certfile" ]; then printf 'server.pem %s\n' "$certfile" "$keyfile"; fi
    if [ -n "$client_ca" ]; then printf 'client_ca.pem %s\n' "$client_ca"; fi
  fi
}

send_files() { # send_files I: what scripts/on_host.sh stores; a certificate and its key are one file there
  local name file last=''
  while read -r name file; do
    if [ "$name" != "$last" ]; then printf 'file %s\n' "$name"; fi
    last=$name
    cat "$file" || return
  done < <(pem_files "$1")
}

install_settings() { # install_settings I: sets `settings`, of on_host install
  local argument path module
  settings=("python=${pythons[$1]}" "data=${datas[$1]#-}" "master_url=$master_url" "port=$master_port" "systemd=$systemd"
    "memory_max=$memory_max" "files=$(pem_files "$1" | cut -d ' ' -f 1 | uniq | tr '\n' ' ')")
  for path in ${added[@]+"${added[@]}"}; do # who puts code there lets it run
    module=$(basename "$path" .py)
    if [[ $module =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]]; then settings+=("worker_argument=--allow" "worker_argument=$module"); fi
  done
  for argument in ${worker_arguments[@]+"${worker_arguments[@]}"}; do settings+=("worker_argument=$argument"); done
}

# What was revoked stands in a list beside the operator's token here, and in one beside the token of a master that was deployed. Both
# become the same before a token is made from them. FLQ merges them, on each machine its own: nothing in a list is ever taken back.

merge_lists() { # also where --only leaves the master out: a worker's new token is worth nothing to a master that has another list
  local i
  [ -n "$master_at" ] || return 0
  if [ -z "${names[master_at]-}" ]; then only_its_list=yes names[master_at]=master; fi
  quiet=yes for_all fetch_revoked "$master_at"
  is_failed "$master_at" || return 0
  for i in "${!names[@]}"; do
    if is_failed "$i"; then continue; fi
    finish "$i" failed "it got no token: what was revoked on the master's host is not known (see there; or leave the master's line out and give --master_url)"
  done
}

fetch_revoked() { # fetch_revoked I: what the master's host says was revoked is revoked here too
  on_host "$1" revoked </dev/null >"$work/${names[$1]}.text" || return
  (cd "$root" && "$python" -m flq token --merge - --token_file "$token_file") <"$work/${names[$1]}.text" >/dev/null
}

send_revoked() { # send_revoked I: the other way round; sets `listed`, what changed there. A master that runs reads its list again
  listed=
  [ -e "$token_file.revoked" ] || return 0
  ask "$1" revoke changed "python=${pythons[$1]}" <"$token_file.revoked" || return
  listed=$(fact "$1" changed)
}

deploy_host() { # deploy_host I
  local i=$1 settings words='' token changed state warning kernels why listed=''
  if [ "$i" = "$master_at" ] && [ -n "$only_its_list" ]; then
    send_revoked "$i" || return
    finish "$i" ok "left out by --only but for what was revoked: ${listed:+new: }${listed:-nothing was new}"
    return
  fi
  install_settings "$i"
  token=$(token_of "$i") || return
  if ! is_copied "$i"; then
    copy_tree "$i" || return
    settings+=(swap=yes)
    words="copied $(find "$work/$(role "$i")" -type f | wc -l | tr -d ' ') files, "
  fi
  {
    printf '%s\n' "$token"
    send_files "$i"
  } | ask "$i" install "kernels changed state" "${settings[@]}" || return
  changed=$(fact "$i" changed)
  state=$(fact "$i" state) warning=$(fact "$i" warning)
  state+=${warning:+ but $warning}
  if [ -n "$words$changed" ] && [[ $state == running* || $state == active* ]]; then state+=", with what was there before: restart it"; fi
  kernels=$(fact "$i" kernels) why=$(fact "$i" no_kernels)
  if [ "$kernels" = compiled ]; then state+=", compiled kernels"; else state+=", NumPy computes${why:+: $why}"; fi
  if [ "$i" = "$master_at" ]; then send_revoked "$i" || return; fi
  changed+=${listed:+${changed:+ }$listed}
  words+=${changed:+"new: ${changed// /, }; "}
  finish "$i" ok "${words:-nothing was new; }$state"
}

plan_host() { # plan_host I: what deploy_host would do, from the facts
  local i=$1 path
  path=$(fact "$i" path)
  printf '\n%s, %s, %s:\n' "${names[i]}" "$(where "$i")" "$path"
  if is_copied "$i"; then
    printf '  copy: nothing is new\n'
  else
    printf '  copy: %s files, %s KiB, by %s\n' "$(find "$work/$(role "$i")" -type f | wc -l | tr -d ' ')" "$(<"$work/$(role "$i").kb")" \
      "$(if [ "$(fact "$i" rsync)" = yes ]; then printf rsync; else printf tar; fi)"
  fi
  if [ -n "${pythons[i]}" ]; then printf '  environment: none is made, %s is used\n' "${pythons[i]}"; fi
  fact "$i" plan | sed 's/^/  environment: /'
  printf '  kernels: built there, where there is a C compiler and what it makes gives the bits of NumPy\n'
  printf '  token: from %s, mode 600\n' "$token_file"
  if [ "$i" = "$master_at" ]; then printf '  what was revoked: %s.revoked and the list there become the same\n' "$token_file"; fi
  pem_files "$i" | sed 's/^[^ ]* /  certificate, key or CA: from /'
  if [ "$(role "$i")" = worker ]; then printf '  worker: master at %s\n' "$master_url"; fi
  if [ -n "$systemd" ]; then printf '  systemd: a unit, MemoryMax=%s, enabled\n' "$memory_max"; fi
  finish "$i" ok "nothing was changed (dry run)"
}

order_host() { # order_host I: start, stop, restart or status
  local i=$1 last
  ask "$i" "$command" state </dev/null || return
  last=$(fact "$i" last)
  finish "$i" ok "$(fact "$i" state)${last:+ | $last}"
}

logs_of_host() {
  on_host "$1" logs "lines=$lines" </dev/null >"$work/${names[$1]}.text" || return
  finish "$1" ok "$(wc -l <"$work/${names[$1]}.text" | tr -d ' ') lines"
}

collect_host() {
  local i=$1 folder=$out/${names[$1]}
  on_host "$i" pack </dev/null | "$python" "$root/scripts/unpack.py" "$folder" "$max_gb" || return
  finish "$i" ok "$(find "$folder" -type f | wc -l | tr -d ' ') files in $folder"
}

# ----------------------------------------------------------------------------------------------------------

need_number --jobs "$jobs" 1 65535
if [ -n "$json" ] && { [ "$command" = logs ] || [ -n "$dry_run" ]; }; then fail 2 "--json has no form for logs and --dry_run"; fi
need_number --lines "$lines" 0 1000000
need_number --master_port "$master_port" 1 65535
need_number --max_gb "$max_gb" 0 1000000
for file in "$key" "$ssh_config" "$config" "$cafile" "$certfile" "$keyfile" "$client_ca" ${added[@]+"${added[@]}"}; do
  if [ -n "$file" ] && [ ! -r "$file" ]; then fail 2 "cannot read $file"; fi
done
if [ -n "$certfile$keyfile" ] && { [ -z "$certfile" ] || [ -z "$keyfile" ]; }; then fail 2 "--certfile and --keyfile belong together"; fi
read_hosts
for i in "${!names[@]}"; do
  if [ "${names[i]}" = master ] && [ -z "$master_url" ]; then
    case ${addresses[i]} in *:*) master_url="[${addresses[i]}]:$master_port" ;; *) master_url=${addresses[i]}:$master_port ;; esac # IPv6
    master_url=http${certfile:+s}://$master_url
  fi
done
master_at= # its index, also where --only leaves it out
for i in "${!names[@]}"; do if [ "${names[i]}" = master ]; then master_at=$i; fi; done
only_its_list=
keep_only
if [ "$command" = deploy ]; then
  if [ -z "$master_url" ]; then fail 2 "where is the master? --master_url http://HOST:5000, or a line with master among the hosts"; fi
  if [ -n "$cafile" ] && [[ $master_url != https://* ]]; then
    fail 2 "--cafile cannot protect $master_url: write https:// in --master_url, or give --certfile and --keyfile for the master here"
  fi
  if [ -n "$client_ca" ] && [ -z "$certfile" ]; then fail 2 "--client_ca asks for certificates under TLS: give --certfile and --keyfile too"; fi
  if [ -n "$client_certs" ]; then
    if [[ $master_url != https://* ]]; then fail 2 "--client_certs are shown under TLS only: write https:// in --master_url"; fi
    for i in "${!names[@]}"; do
      if [ "${names[i]}" = master ]; then continue; fi
      for file in "$client_certs/${names[i]}".{pem,key}; do
        if [ ! -r "$file" ]; then
          fail 2 "cannot read $file: python -m flq certs --worker ${names[i]#*-} --out $client_certs makes it"
        fi
      done
    done
  fi
  token_file=${token_file:-${FLQ_TOKEN:-$HOME/.flq/token}}
  case $token_file in /*) ;; *) token_file=$PWD/$token_file ;; esac
  # Only together with its master may a secret be made here: workers of one that runs already need that one's.
  if [ ! -r "$token_file" ] && [ -z "$master_at" ]; then
    fail 2 "the operator's token is not at $token_file: copy ~/.flq/token of the master's machine there, or name it with --token_file"
  fi
fi
work=$(mktemp -d /tmp/flq.XXXXXX) # short: a socket of ssh lies in it
trap on_exit EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
write_ssh
python=$(choose_python "$root")

case $command in
  check | deploy)
    for role in worker master; do
      if [[ " ${names[*]%%-*} " == *" $role "* ]]; then make_tree "$role"; fi
    done
    for_all check_host
    if [ -z "$json" ]; then show_checks; fi
    if [ "$command" = deploy ]; then
      if [ -n "$dry_run" ]; then
        for i in "${!names[@]}"; do if ! is_failed "$i"; then plan_host "$i"; fi; done
      else
        if [ -z "$quiet" ]; then say "deploying"; fi
        (cd "$root" && "$python" -m flq token --token_file "$token_file") >/dev/null || exit 2 # made once, before many read it
        merge_lists
        for_all deploy_host
      fi
    fi
    ;;
  start | stop | restart | status) for_all order_host ;;
  logs)
    for_all logs_of_host
    for i in "${!names[@]}"; do
      if [ -s "$work/${names[i]}.text" ]; then printf -- '--- %s\n' "${names[i]}" && plain <"$work/${names[i]}.text"; fi
    done
    ;;
  collect) for_all collect_host ;;
esac
report
