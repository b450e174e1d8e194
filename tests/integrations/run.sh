#!/usr/bin/env bash
# The tests of flq/integrations, each system in an environment of its own: build/integrations/NAME.
#     tests/integrations/run.sh [torch] [flower] [flower-apps] [nvflare] [ray]      all by default; PYTHON=python3.11
# What cannot be installed here is named as not run. flower takes half a GB of disk, the others 1 to 6 GB, less with a
# build of torch for processors alone, which PIP_CONSTRAINT can name. TESTS="FILE ..." runs others than test_NAME.py.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=scripts/environment.sh
. "$root/scripts/environment.sh"
cd "$root" || exit 1

packages_of() { # packages_of NAME: what its tests need beside the worker's and the master's
  case $1 in
    torch) printf '%s\n' -r requirements-torch.txt scikit-learn jax ;;
    flower) printf '%s\n' -r requirements-flower.txt ;;
    ray) printf '%s\n' -r requirements-ray.txt -r requirements-tensorflow.txt ;;
    flower-apps) printf '%s\n' -r requirements-flower.txt "flwr[simulation]" -r requirements-torch.txt -r requirements-tensorflow.txt ;;
    # bitsandbytes: NVFlare's own quantiser imports it
    nvflare) printf '%s\n' -r requirements-nvflare.txt -r requirements-torch.txt "bitsandbytes >= 0.45, < 1" ;;
    *) return 1 ;;
  esac
}

find_base() { # a Python that Flower, PyTorch and TensorFlow have wheels for
  local candidate
  while read -r candidate; do
    if is_python "$candidate" 3.10 3.13 && is_python_with_venv "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <(candidate_pythons)
  return 1
}

failed=() not_run=()
[ $# -gt 0 ] || set -- torch flower flower-apps nvflare ray
for name in "$@"; do
  mapfile -t packages < <(packages_of "$name")
  if [ ${#packages[@]} -eq 0 ]; then
    echo "$name is none of torch, flower, flower-apps, nvflare and ray" >&2
    exit 2
  fi
  python=$root/build/integrations/$name/bin/python
  if ! base=$(find_base); then
    not_run+=("$name, because there is no Python 3.10 to 3.13 with venv on PATH or in pyenv: name one with PYTHON")
    continue
  fi
  say "an environment for $name"
  if ! { [ -x "$python" ] || "$base" -m venv "${python%/bin/python}"; } ||
    ! "$python" -m pip install --disable-pip-version-check --quiet -r requirements-worker.txt -r requirements-master.txt \
      "${packages[@]}" "pytest >= 7.0, < 10" "hypothesis >= 6.31, < 7"; then
    not_run+=("$name, because pip could not install it")
    continue
  fi
  say "the tests of $name"
  read -ra tests <<<"${TESTS:-tests/integrations/test_${name//-/_}.py}"
  "$python" -m pytest -q -rs "${tests[@]}" || failed+=("$name")
done
for item in ${not_run[@]+"${not_run[@]}"}; do printf 'not run: %s\n' "$item"; done
for item in ${failed[@]+"${failed[@]}"}; do printf 'failed: %s\n' "$item"; done
[ ${#failed[@]} -eq 0 ]
