#!/usr/bin/env bash
# Proves the image and the compose file: builds, brings everything up, runs the retry example through it, kills the worker that ran the
# first attempt, sees the other one go on, takes all down.
#
#   ENGINE         docker or podman (default: the first that works)
#   COMPOSE        "docker compose" or podman-compose (default: that of the engine)
#   BUILD_FLAGS    further flags for the build, for instance where packages come through a proxy
#   PYTHON_IMAGE, POSTGRES_IMAGE   other base images
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "containers: $*" >&2
  exit 1
}

choose_engine() {
  local candidate
  for candidate in docker podman; do
    if "$candidate" info >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
}

ENGINE=${ENGINE:-$(choose_engine)}
[ -n "$ENGINE" ] || fail "neither Docker nor Podman runs here"
if [ -z "${COMPOSE:-}" ]; then
  COMPOSE="docker compose"
  [ "$ENGINE" = podman ] && COMPOSE=podman-compose
fi

free_port() {
  python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Names, image and volume of this run alone: an installation on the same machine is not touched.
project=reprise-check-$$
export REPRISE_IMAGE=localhost/$project:latest
REPRISE_PORT=$(free_port)
export REPRISE_PORT
export REPRISE_BROKER=127.0.0.1:$REPRISE_PORT
unset REPRISE_DATABASE_URL
work=$(mktemp -d)

compose() {
  $COMPOSE -p "$project" "$@"
}

take_down() {
  local code=$?
  if [ "$code" != 0 ]; then
    compose logs 2>&1 | tail -n 60 >&2 || true
  fi
  compose down -v >"$work/down.log" 2>&1 || cat "$work/down.log" >&2
  "$ENGINE" rmi -f "$REPRISE_IMAGE" >/dev/null 2>&1 || true
  rm -rf "$work"
  return "$code"
}
trap take_down EXIT

wait_for() { # wait_for SECONDS WHAT COMMAND…
  local seconds=$1 what=$2
  shift 2
  for _ in $(seq "$((seconds * 4))"); do
    if "$@" >/dev/null 2>&1; then
      return
    fi
    sleep 0.25
  done
  fail "$what did not happen within $seconds s"
}

echo "== build with $ENGINE"
arguments=()
[ -z "${PYTHON_IMAGE:-}" ] || arguments+=(--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE")
# shellcheck disable=SC2086 # several flags in one variable are meant
"$ENGINE" build ${BUILD_FLAGS:-} "${arguments[@]}" -t "$REPRISE_IMAGE" .
"$ENGINE" image inspect --format 'image: {{.Size}} bytes, user {{.Config.User}}' "$REPRISE_IMAGE"

echo "== up with $COMPOSE"
compose up -d --no-build
wait_for 120 "a healthy broker" reprise health
compose exec -T worker-1 reprise health
compose exec -T worker-2 reprise health

echo "== run"
reprise register examples/retry.yaml
execution=$(reprise run tests/retry/verify)
first_attempt() { reprise events "$execution" --json | grep -oE '"worker_id": "worker-[12]' >"$work/first"; }
wait_for 30 "a first attempt" first_attempt
killed=$(grep -oE 'worker-[12]' "$work/first" | head -n 1)
echo "== kill $killed, which ran the first attempt"
compose kill "$killed" >/dev/null
ended() { reprise executions "$execution" | grep -q "failed at step fail_task"; }
wait_for 60 "the end of the execution" ended

reprise events "$execution"
reprise queue --execution "$execution" | tee "$work/queue"
grep -qE 'dead +3 +3|dead +3/3' "$work/queue" || fail "the job is not dead at 3/3"
workers=$(reprise events "$execution" --json | grep -oE 'worker-[12]' | sort -u | wc -l)
[ "$workers" = 2 ] || fail "the other worker did not take over"
echo "== both workers served the job, which ended dead at 3/3"
