#!/usr/bin/env bash
# Fails when the checked-in stubs are not what the generator makes of the contract now.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
python tools/generate_stubs.py "$fresh"
if ! diff -r --exclude='*.proto' --exclude='__*' "$fresh/reprise/v1" proto/reprise/v1; then
  echo "the stubs are stale: run make stubs" >&2
  exit 1
fi
