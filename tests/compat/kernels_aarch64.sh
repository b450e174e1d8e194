#!/usr/bin/env bash
# Whether the compiled kernels give the bits of NumPy on aarch64, under emulation. Not part of CI: it downloads some 60 MB.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=scripts/runtime.sh
. "$root/scripts/runtime.sh"

usage() {
  cat <<END
usage: tests/compat/kernels_aarch64.sh [DIR]

Compiles flq/kernels/*.c with Debian's gcc for aarch64 and runs flq.kernels.check under QEMU as a Cortex-A57, the processor of the
2019 Jetson Nano, with Debian's Python and PyPI's NumPy for that processor; then once more with fused products, which the check has to refuse.

Needs Debian 12 on x86-64 with qemu-user-static, and no root. What it downloads is kept in DIR (build/compat/kernels_aarch64).
CC names another compiler for aarch64, such as CC='zig cc -target aarch64-linux-gnu'. PYTHON names the Python that runs pip.
END
}

case ${1:-} in -h | --help) usage && exit 0 ;; esac
dir=$(realpath -m "${1:-$root/build/compat/kernels_aarch64}")
of_aarch64=(libc6 libgcc-s1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libexpat1 zlib1g libffi8 libssl3 libbz2-1.0 liblzma5
  libuuid1 libcrypt1)
of_this_machine=(gcc-12-aarch64-linux-gnu cpp-12-aarch64-linux-gnu binutils-aarch64-linux-gnu libc6-dev-arm64-cross libc6-arm64-cross
  libgcc-12-dev-arm64-cross libgcc-s1-arm64-cross linux-libc-dev-arm64-cross libmpc3 libmpfr6 libgmp10 libisl23 libbinutils libctf0)

command -v qemu-aarch64-static >/dev/null || fail 2 "no qemu-aarch64-static: apt install qemu-user-static"
python=$(choose_python "$root")

unpack() {  # unpack FOLDER ARCHITECTURE PACKAGE...: Debian's packages, unpacked and not installed
  local folder=$1 apt=$dir/apt-$2 package options
  if [ -e "$folder/unpacked" ]; then return; fi
  mkdir -p "$folder" "$apt"/{lists,cache/archives}/partial "$apt/packages"
  options=(-q -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Dir::State::status=/dev/null" -o "APT::Architecture=$2"
    -o "APT::Architectures=$2" -o "APT::Sandbox::User=")
  apt-get "${options[@]}" update >&2
  (cd "$apt/packages" && apt-get "${options[@]}" download "${@:3}" >&2)
  for package in "$apt"/packages/*.deb; do dpkg -x "$package" "$folder"; done
  touch "$folder/unpacked"
}

compile() {  # compile FILE OPTION...
  local cross=$dir/cross/usr compiler=() options=()
  if [ -n "${CC:-}" ]; then
    read -r -a compiler <<<"$CC"
  else
    compiler=(env "LD_LIBRARY_PATH=$cross/lib/x86_64-linux-gnu" "$cross/bin/aarch64-linux-gnu-gcc-12" "-B$cross/bin/aarch64-linux-gnu-"
      "-B$cross/aarch64-linux-gnu/lib" "-I$cross/aarch64-linux-gnu/include" "-L$cross/aarch64-linux-gnu/lib" -nodefaultlibs)
  fi
  mapfile -t options < <(cd "$root" && "$python" -c 'from flq.kernels import library; print(*library.OPTIONS, *library.SOURCES, sep="\n")')
  "${compiler[@]}" "${options[@]}" "${@:2}" -o "$1"
  (cd "$root" && "$python" -c 'import sys; from flq.kernels import library; library.seal(sys.argv[1])' "$1")
}

gives_the_bits() {  # gives_the_bits FILE
  (cd "$root" && OPENBLAS_CORETYPE=ARMV8 FLQ_KERNELS=numpy PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$dir/site \
    qemu-aarch64-static -cpu cortex-a57 -L "$dir/aarch64" "$dir/aarch64/usr/bin/python3.11" -m flq.kernels.check "$1")
}

unpack "$dir/aarch64" arm64 "${of_aarch64[@]}"
if [ -z "${CC:-}" ]; then unpack "$dir/cross" amd64 "${of_this_machine[@]}"; fi
if [ ! -e "$dir/site/numpy" ]; then
  "$python" -m pip install --quiet --no-compile --no-deps --target "$dir/site" --platform manylinux2014_aarch64 --python-version 3.11 \
    --only-binary=:all: numpy==1.23.5
fi
compile "$dir/kernels.so"
gives_the_bits "$dir/kernels.so" || fail 1 "the kernels that were compiled for aarch64 do not give the bits of NumPy"
say "the kernels give the bits of NumPy 1.23.5"
compile "$dir/fused.so" -ffp-contract=fast
if gives_the_bits "$dir/fused.so"; then fail 1 "the check took kernels with fused products for right"; fi
say "kernels with fused products are refused"
