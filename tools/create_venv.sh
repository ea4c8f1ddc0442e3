#!/usr/bin/env bash
# Makes or updates the virtual environment in $1 with exactly the versions in constraints.txt.
# PYTHON names the interpreter; else the newest suitable one of the system is taken, else of the PATH: distributions build theirs with
# profile-guided optimization, which version managers leave out. A broker takes 0.7 of the CPU time then (Python 3.11, 2026-11).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1

# A command may exist and yet not run (a version manager's shim), or lack the modules that make an environment.
suitable() {
  "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

choose_python() {
  local candidate
  local versions="python3.13 python3.12 python3.11 python3.14 python3"
  for candidate in ${PYTHON:-${versions//python/\/usr\/bin\/python} $versions}; do
    if suitable "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "Reprise needs Python 3.11 or newer with its venv module; ${PYTHON:-none on the PATH} will not do." >&2
  echo "Install one (on Debian: apt install python3 python3-venv), or name it: make venv PYTHON=/path/to/python3" >&2
  return 1
}

if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
  python=$(choose_python)
  echo "making $venv with $("$python" --version): a minute or so"
  "$python" -m venv --clear "$venv"
fi
install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt)
# The build backend is pinned like all else, so it comes first and the build is not isolated.
"${install[@]}" hatchling
"${install[@]}" --no-build-isolation --editable '.[dev]'
