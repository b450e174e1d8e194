#!/usr/bin/env bash
# The tests of flq/integrations, each system in an environment of its own: build/integrations/NAME.
#     tests/integrations/run.sh [torch] [flower] [ray]      all by default; PYTHON=python3.11
# What cannot be installed here is named as not run. Each takes 1 to 6 GB of disk, less with a build of torch for
# processors alone, which PIP_CONSTRAINT can name. TESTS=FILE runs others than test_NAME.py.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=scripts/environment.sh
. "$root/scripts/environment.sh"
cd "$root" || exit 1

packages_of() { # packages_of NAME: what its tests need beside its own requirements
  case $1 in
    torch) printf '%s\n' -r requirements-master.txt scikit-learn jax ;;
    flower) printf '%s\n' -r requirements-master.txt "flwr[simulation]" -r requirements-torch.txt ;;
    ray) printf '%s\n' -r requirements-master.txt -r requirements-tensorflow.txt ;;
    *) return 1 ;;
  esac
}

failed=() not_run=()
[ $# -gt 0 ] || set -- torch flower ray
for name in "$@"; do
  mapfile -t packages < <(packages_of "$name")
  if [ ${#packages[@]} -eq 0 ]; then
    echo "$name is none of torch, flower and ray" >&2
    exit 2
  fi
  python=$root/build/integrations/$name/bin/python
  base=${PYTHON:-python3}
  if ! is_python "$base" 3.10 3.13; then
    not_run+=("$name, because $base is no Python 3.10 to 3.13: name one with PYTHON")
    continue
  fi
  say "an environment for $name"
  if ! { [ -x "$python" ] || "$base" -m venv "${python%/bin/python}"; } ||
    ! "$python" -m pip install --disable-pip-version-check --quiet -r "requirements-$name.txt" -r requirements-worker.txt \
      "${packages[@]}" "pytest >= 7.0, < 10" "hypothesis >= 6.31, < 7"; then
    not_run+=("$name, because pip could not install it")
    continue
  fi
  say "the tests of $name"
  "$python" -m pytest -q -rs "${TESTS:-tests/integrations/test_$name.py}" || failed+=("$name")
done
for item in ${not_run[@]+"${not_run[@]}"}; do printf 'not run: %s\n' "$item"; done
for item in ${failed[@]+"${failed[@]}"}; do printf 'failed: %s\n' "$item"; done
[ ${#failed[@]} -eq 0 ]
