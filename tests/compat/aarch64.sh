#!/usr/bin/env bash
# A worker on an emulated aarch64 machine, two rounds of the digits with a master on this one. Not part of CI: slow, and it needs root.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=scripts/environment.sh
. "$root/scripts/environment.sh"

usage() {
  cat <<END
usage: tests/compat/aarch64.sh [DIR]

Makes a Debian 12 for aarch64 in DIR (build/compat/aarch64) with PyPI's TensorFlow 2.12.0 for that processor, once,
and runs a worker in it under QEMU as a Cortex-A57, the processor of the 2019 Jetson Nano: two rounds of the
digits over HTTP with a master of this machine. It says whether FLQ works there; no speed of a Jetson follows.

Needs root and, from Debian: qemu-user-static binfmt-support debootstrap. About 2 GB and half an hour the first time.
PYTHON names the Python of the master.
END
}

case ${1:-} in -h | --help) usage && exit 0 ;; esac
dir=${1:-$root/build/compat/aarch64}
rounds=2
debian=bookworm # its Python is 3.11
export QEMU_CPU=cortex-a57

inside() { chroot "$dir" /usr/bin/env -i HOME=/root PATH=/usr/local/bin:/usr/bin:/bin "${variables[@]}" "$@"; }

make_root() {
  if [ -f "$dir/flq-debian" ]; then return; fi
  say "making $dir: Debian $debian for aarch64"
  rm -rf "$dir"
  mkdir -p "$dir"
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,python3-distutils,ca-certificates "$debian" "$dir"
  chroot "$dir" /debootstrap/debootstrap --second-stage
  cp /etc/hosts "$dir/etc/hosts"
  touch "$dir/flq-debian"
}

install_packages() { # unpacked by this machine's pip: the emulated one would take hours
  local tags=() tag
  if [ -f "$dir/flq-packages" ]; then return; fi
  for tag in manylinux2014_aarch64 manylinux_2_17_aarch64 manylinux_2_27_aarch64; do tags+=(--platform "$tag"); done
  rm -rf "$dir/packages"
  # Named as tensorflow-cpu-aws, because PyPI's aarch64 wheel of tensorflow 2.12.0 is only a reference to it.
  "$python" -m pip install --no-compile --target "$dir/packages" "${tags[@]}" --python-version 3.11 --implementation cp \
    --only-binary=:all: -c "$root/constraints/py39-tf2.12.txt" tensorflow-cpu-aws==2.12.0 -r "$root/requirements-worker.txt"
  touch "$dir/flq-packages"
}

[ "$(id -u)" -eq 0 ] || fail 2 "chroot needs root"
for command in debootstrap update-binfmts qemu-aarch64-static; do
  command -v "$command" >/dev/null || fail 2 "no $command: apt install qemu-user-static binfmt-support debootstrap"
done
if [ ! -e /proc/sys/fs/binfmt_misc/status ]; then mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; fi
update-binfmts --enable qemu-aarch64
cd "$root"
ensure_python master requirements-{tensorflow,worker,master}.txt
make_root
install_packages

site=$(mktemp -d)
master=
mounted=
finish() {
  if [ -n "$master" ]; then kill "$master" 2>/dev/null || true; fi
  if [ -n "$mounted" ]; then umount "$dir/proc" || true; fi
  rm -rf "$site"
}
trap finish EXIT
if ! mountpoint -q "$dir/proc"; then mount -t proc proc "$dir/proc" && mounted=yes; fi
rm -rf "$dir/flq" "$dir/root/.flq"
mkdir -p "$dir/flq" "$dir/root/.flq"
cp -r flq flq_worker.py scripts test_environment.py requirements-*.txt "$dir/flq"

settings=(system.total_workers=1 system.max_rounds="$rounds" system.quorum=all model.name=cnn_small logging.save_results=false)
options=()
for setting in "${settings[@]}"; do options+=(--set "$setting"); done
(umask 077 && FLQ_TOKEN=$site/token "$python" -m flq token --worker 0 >"$dir/root/.flq/token")
FLQ_TOKEN=$site/token "$python" flq_master.py --port 0 --port_file "$site/port" --run_dir "$site/run" --exit_when_done "${options[@]}" \
  >"$site/master.log" 2>&1 &
master=$!
until [ -s "$site/port" ]; do
  kill -0 "$master" 2>/dev/null || { cat "$site/master.log" >&2 && fail 1 "the master did not start"; }
  sleep 0.2
done

variables=(PYTHONPATH=/packages TF_CPP_MIN_LOG_LEVEL=2 OPENBLAS_CORETYPE=ARMV8 QEMU_CPU="$QEMU_CPU")
inside python3 -c 'import platform, numpy, requests, tensorflow
print("worker:", platform.machine(), "Python", platform.python_version(), "TensorFlow", tensorflow.__version__,
      "NumPy", numpy.__version__, "requests", requests.__version__)'
say "the worker trains"
started=$SECONDS
inside python3 /flq/flq_worker.py --worker_id 0 --master_url "http://127.0.0.1:$(<"$site/port")"
wait "$master" || { cat "$site/master.log" >&2 && fail 1 "the master failed"; }
master=
"$python" - "$site/run" "$((SECONDS - started))" "$rounds" <<'END'
import json
import sys

directory, seconds, wanted = sys.argv[1:]
history = json.load(open(directory + "/history.json"))
summary = json.load(open(directory + "/summary.json"))
rounds, uploads = history["rounds"], [row for row in history["workers"] if row["state"] == "accepted"]
assert len(rounds) == len(uploads) == int(wanted), history
print("device:", json.dumps(summary["devices"]["0"]))
print("{} rounds, {} uploads, accuracy {:.3f}, {} s from the worker's start to its end".format(
    len(rounds), len(uploads), rounds[-1]["accuracy"], seconds))
END
