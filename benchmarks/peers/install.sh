#!/usr/bin/env bash
# An environment of its own for each peer, build/peers/NAME, from the pinned versions in benchmarks/peers/NAME.txt.
#     benchmarks/peers/install.sh [NAME ...]        PYTHON=python3.11 by default
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3.11}
failed=()
if [ $# -eq 0 ]; then
    set -- bitsandbytes fedlab flwr flwr_simulation nvflare openfl
fi
for name in "$@"; do
    environment="$root/build/peers/$name"
    [ -x "$environment/bin/python" ] || "$python" -m venv "$environment" || exit 1
    echo "== $name"
    "$environment/bin/python" -m pip install --quiet --requirement "$here/$name.txt" || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "not installed: ${failed[*]}" >&2
    exit 1
fi
