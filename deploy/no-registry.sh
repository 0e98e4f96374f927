#!/usr/bin/env bash
# Prepares a Debian machine without a container engine or an image registry for `docker compose up`.
#
#   deploy/no-registry.sh          provide engine, compose and base image, each only if it is missing
#   deploy/no-registry.sh stop     stop the engine that this script started
#
# It uses this machine's apt mirror and CA bundle, and nothing else.
#
#   DIMEE_COMPOSE_BASE  tag of the base image           (default: the Dockerfile's)
#   DIMEE_MIRROR        Debian mirror for the base      (default: the first of this machine's apt sources)
#   DIMEE_SUITE         Debian suite of the base        (default: bookworm)
#   DIMEE_CA_BUNDLE     CA bundle copied into the base  (default: $SSL_CERT_FILE, else the system's)
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/dimee
engine_pid=/run/dimee-dockerd.pid
engine_log=/var/log/dimee-dockerd.log
suite=${DIMEE_SUITE:-bookworm}
ca_bundle=${DIMEE_CA_BUNDLE:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
base=${DIMEE_COMPOSE_BASE:-$(sed -n 's/^ARG DIMEE_BASE=//p' "$root/deploy/Dockerfile")}
label=dimee.made-from

say() { printf 'no-registry: %s\n' "$*"; }
die() { printf 'no-registry: %s\n' "$*" >&2; exit 1; }

need_root() {
  [[ $(id -u) -eq 0 ]] || die "$1 needs root: run 'sudo $0', or use an engine that you may access."
}

install_packages() {
  need_root "Installing $*"
  command -v apt-get >/dev/null || die "This is not a Debian machine: install $* with its package manager, then run this script again."
  say "Installing $*."
  if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
  fi
}

# With the engine's default of 1500 bytes, downloads in a container stall behind a link with a smaller MTU.
link_mtu() {
  local interface
  interface=$(awk '$2 == "00000000" { print $1; exit }' /proc/net/route 2>/dev/null || true)
  cat "/sys/class/net/${interface:-none}/mtu" 2>/dev/null || echo 1500
}

ensure_engine() {
  docker info >/dev/null 2>&1 && return
  if [[ -n ${DOCKER_HOST:-} ]]; then
    die "The engine at DOCKER_HOST does not answer: start it, or unset DOCKER_HOST."
  fi
  need_root "Starting an engine"
  if ! command -v dockerd >/dev/null || ! command -v iptables >/dev/null; then
    install_packages docker.io iptables
  fi
  # With an init system, the installation has already started the engine.
  if ! docker info >/dev/null 2>&1; then
    say "Starting dockerd; its log is $engine_log."
    setsid dockerd --mtu "$(link_mtu)" >"$engine_log" 2>&1 </dev/null &
    echo $! >"$engine_pid"
    for _ in $(seq 60); do
      docker info >/dev/null 2>&1 && break
      kill -0 "$(cat "$engine_pid")" 2>/dev/null || break
      sleep 1
    done
  fi
  if ! docker info >/dev/null 2>&1; then
    tail -n 20 "$engine_log" >&2 || true
    stop_engine
    die "dockerd did not start; the end of its log is above."
  fi
}

stop_engine() {
  [[ -f $engine_pid ]] || return 0
  local pid
  pid=$(cat "$engine_pid")
  # After a reboot the process id may belong to another program.
  if [[ $(cat "/proc/$pid/comm" 2>/dev/null || true) == dockerd ]]; then
    say "Stopping the dockerd that this script started."
    kill "$pid"
    for _ in $(seq 30); do
      [[ -d /proc/$pid ]] || break
      sleep 1
    done
  fi
  rm -f "$engine_pid"
}

ensure_compose() {
  docker compose version >/dev/null 2>&1 && return
  command -v docker-compose >/dev/null || install_packages docker-compose
}

# Print a hash of the recipe, the CA bundle and the suite; a change of one builds a new base.
base_hash() {
  { declare -f make_rootfs slim; cat "$ca_bundle"; echo "$suite"; } | sha256sum | cut -c1-16
}

apt_mirror() {
  # apt expands the fields, not the shell.
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "main" && $3 !~ /-/ { print $4; exit }'
}

make_rootfs() {
  local tarball=$1 mirror rootfs
  need_root "Building the base"
  command -v debootstrap >/dev/null || install_packages debootstrap
  mirror=${DIMEE_MIRROR:-$(apt_mirror)}
  if [[ -z $mirror ]]; then
    apt-get update -qq
    mirror=$(apt_mirror)
  fi
  [[ -n $mirror ]] || die "This machine's apt sources name no Debian mirror: set DIMEE_MIRROR to one."
  rootfs=$(mktemp -d)
  # Expanded now, because the variable is local to this function.
  # shellcheck disable=SC2064
  trap "rm -rf '$rootfs'" EXIT
  say "Building the base from this machine's Debian mirror (once, about a minute)."
  if ! debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$suite" "$rootfs" "$mirror" >"$cache/debootstrap.log" 2>&1; then
    tail -n 20 "$cache/debootstrap.log" >&2
    die "debootstrap failed; the end of $cache/debootstrap.log is above."
  fi
  cp -L "$ca_bundle" "$rootfs/etc/ssl/certs/ca-certificates.crt"
  slim "$rootfs"
  tar -C "$rootfs" --numeric-owner --sort=name -czf "$tarball.part" .
  rm -f "$cache"/base-*.tar.gz
  mv "$tarball.part" "$tarball"
  rm -rf "$rootfs"
  trap - EXIT
}

# Remove package archives, manuals and translations, and keep apt from installing them. Licences stay.
slim() {
  local rootfs=$1
  find "$rootfs/usr/share/doc" -mindepth 1 ! -type d ! -name copyright -delete
  find "$rootfs/usr/share/doc" -mindepth 1 -type d -empty -delete
  find "$rootfs" -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
  rm -rf "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/log/* \
    "$rootfs"/usr/share/{man,info,locale,lintian,bash-completion}/* "$rootfs"/debootstrap
  # The engine provides the resolver and the host name.
  rm -f "$rootfs/etc/resolv.conf" "$rootfs/etc/hostname"
  printf 'path-exclude /usr/share/%s/*\n' man info locale >"$rootfs/etc/dpkg/dpkg.cfg.d/slim"
}

ensure_base() {
  local present current tarball
  [[ -n $base ]] || die "deploy/Dockerfile has no line 'ARG DIMEE_BASE=': set DIMEE_COMPOSE_BASE."
  [[ -r $ca_bundle ]] || die "The CA bundle $ca_bundle is not readable: set DIMEE_CA_BUNDLE."
  current=$(base_hash)
  if present=$(docker image inspect --format "{{ index .Config.Labels \"$label\" }}" "$base" 2>/dev/null); then
    # A base from a registry has no such label and is not rebuilt.
    [[ -n $present && $present != "$current" ]] || return 0
  elif timeout 120 docker pull --quiet "$base" >/dev/null 2>&1; then
    return
  else
    say "$base is neither on this machine nor in a reachable registry."
  fi
  mkdir -p "$cache"
  tarball=$cache/base-$current.tar.gz
  [[ -f $tarball ]] || make_rootfs "$tarball"
  docker import \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
    --change 'CMD ["python3"]' \
    --change "LABEL $label=$current" \
    "$tarball" "$base" >/dev/null
  say "Built $base: $(($(docker image inspect --format '{{.Size}}' "$base") / 1000000)) MB."
}

case ${1:-} in
  "")
    ensure_engine
    ensure_compose
    ensure_base
    ;;
  stop) stop_engine ;;
  *) die "Usage: $0 [stop]" ;;
esac
