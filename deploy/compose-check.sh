#!/usr/bin/env bash
# Tests docker-compose.yml, alone, then with a mounted bundle and deploy/compose.links.yml: builds the
# images, starts the containers, runs tests/compose against them and removes them. It uses its own project
# name and ports, and does not disturb a testbed or a deployment on the same machine.
#
#   PYTHON                     the interpreter with the test extra   (default: .venv/bin/python)
#   DIMEE_CHECK_MOBILE_PORT    published port of the mobile's gateway (default: 28701)
#   DIMEE_CHECK_LEDGER_PORT    published port of the ledger          (default: 28700)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
python=${PYTHON:-$root/.venv/bin/python}
mobile_port=${DIMEE_CHECK_MOBILE_PORT:-28701}
ledger_port=${DIMEE_CHECK_LEDGER_PORT:-28700}
project=dimee-check
log=$(mktemp)
bundle=$(mktemp -d)
engine_was_up=no
services=(ledger cloud edge mobile)
links=(link-mobile-edge link-mobile-cloud link-mobile-ledger)
files=(--file docker-compose.yml)

say() { printf 'compose-check: %s\n' "$*"; }
die() { printf 'compose-check: %s\n' "$*" >&2; exit 1; }

compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose --project-name "$project" "${files[@]}" "$@"
  else
    docker-compose --project-name "$project" "${files[@]}" "$@"
  fi
}

clean_up() {
  local status=$?
  trap - EXIT
  if docker info >/dev/null 2>&1; then
    if ((status != 0)); then
      compose ps || true
      compose logs --no-color --tail 40 || true
    fi
    say "Removing the containers."
    compose down --volumes --remove-orphans --timeout 10 >"$log" 2>&1 || { cat "$log" >&2; status=1; }
  fi
  if [[ $engine_was_up == no ]]; then deploy/no-registry.sh stop; fi
  rm -rf "$log" "$bundle"
  exit "$status"
}

# The check tests the defaults of the compose file, not the settings of a deployment. Variables that the
# commands on this machine read must not reach the containers: with these values nothing would work.
choose_settings() {
  local name
  for name in $(compgen -v DIMEE_); do
    case $name in
      DIMEE_COMPOSE_BASE | DIMEE_MIRROR | DIMEE_SUITE | DIMEE_CA_BUNDLE) ;;
      *) unset "$name" ;;
    esac
  done
  export DIMEE_COMPOSE_MOBILE_PORT=$mobile_port DIMEE_COMPOSE_LEDGER_PORT=$ledger_port
  export DIMEE_COMPOSE_TAG=check DIMEE_CHECK_PROJECT=$project
  export DIMEE_LEDGER_URL=http://127.0.0.1:1 DIMEE_EDGE_URL=http://127.0.0.1:1
  export DIMEE_CLOUD_URL=http://127.0.0.1:1 DIMEE_BUNDLE=/nonexistent DIMEE_POLICY=none
}

# A build cannot read this machine's pip.conf, so its index is passed on.
pass_on_index() {
  export PIP_INDEX_URL=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
}

healthy() {
  local id
  id=$(compose ps -q "$1")
  [[ -n $id && $(docker inspect --format '{{.State.Health.Status}}' "$id") == healthy ]]
}

wait_healthy() {
  local service
  for service in "$@"; do
    for _ in $(seq 120); do
      healthy "$service" && continue 2
      sleep 1
    done
    die "The $service did not become healthy within two minutes; see its log."
  done
}

"$python" -c 'import docker, pytest' 2>/dev/null ||
  die "$python lacks the test extra: run 'make test' once, or set PYTHON to an interpreter with the test extra."
if docker info >/dev/null 2>&1; then engine_was_up=yes; fi
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

deploy/no-registry.sh
choose_settings
pass_on_index
compose down --volumes --remove-orphans >/dev/null 2>&1

SECONDS=0
say "Building the four images."
compose build >"$log" 2>&1 || { tail -n 60 "$log" >&2; die "The build failed; the end of its log is above."; }
say "Built in $SECONDS s."

SECONDS=0
compose up --detach --no-build >"$log" 2>&1 || { tail -n 30 "$log" >&2; die "The containers did not start."; }
wait_healthy "${services[@]}"
say "All four healthy after $SECONDS s."
for service in "${services[@]}"; do
  size=$(docker image inspect --format '{{.Size}}' "dimee-$service:$DIMEE_COMPOSE_TAG")
  say "Image dimee-$service: $((size / 1000000)) MB."
done

"$python" -m pytest tests/compose -m compose --ignore tests/compose/test_container_links.py \
  --ignore tests/compose/test_container_bundle.py

SECONDS=0
files+=(--file deploy/compose.links.yml)
# Another bundle: with one more line break its manifest has another checksum, and the bundle another id.
cp -r bundles/sst2-minilm/. "$bundle"
echo >>"$bundle/manifest.json"
chmod -R u=rwX,go=rX "$bundle"
export DIMEE_COMPOSE_BUNDLE=$bundle
compose up --detach --build >"$log" 2>&1 || { tail -n 30 "$log" >&2; die "The links or the bundle did not start."; }
wait_healthy "${links[@]}" "${services[@]}"
say "A mounted bundle, and emulated links on all hops of the mobile, after $SECONDS s."
"$python" -m pytest tests/compose/test_container_bundle.py tests/compose/test_container_links.py -m compose
