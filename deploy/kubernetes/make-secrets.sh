#!/usr/bin/env bash
# Writes what deploy/kubernetes needs and the repository must not hold, into base/secrets: tokens,
# certificates, the database's password. Files that exist are kept, so that it can run again, for example
# after an expired certificate was deleted. Needs openssl and the dimee command.
#
#   DIMEE    the dimee command (default: .venv/bin/dimee of this repository, else dimee)
set -euo pipefail
umask 077

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dimee=${DIMEE:-$root/.venv/bin/dimee}
[[ -x $dimee ]] || dimee=dimee
mkdir -p "$root/deploy/kubernetes/base/secrets"
cd "$root/deploy/kubernetes/base/secrets"
ca_days=3650 certificate_days=397

die() { printf 'make-secrets: %s\n' "$*" >&2; exit 1; }
for tool in openssl "$dimee"; do
  command -v "$tool" >/dev/null || die "there is no $tool; install it, or name dimee in DIMEE."
done

# token NAME SCOPE…: writes NAME.token, and its hash into tokens.jsonl
token() {
  local name=$1 scope scopes=()
  shift
  [[ ! -s $name.token ]] || return 0
  for scope in "$@"; do scopes+=(--scope "$scope"); done
  "$dimee" token new "$name" "${scopes[@]}" --tokens tokens.jsonl >"$name.token.new"
  mv "$name.token.new" "$name.token"
}

# certificate NAME SERVICE…: writes NAME.crt and NAME.key, valid for these Services, for port-forward and,
# as dimee-pod, for Prometheus, which connects to addresses of pods
certificate() {
  local name=$1 service names=DNS:dimee-pod,DNS:localhost,IP:127.0.0.1
  shift
  [[ ! -s $name.crt || ! -s $name.key ]] || return 0
  for service in "$@"; do
    names+=,DNS:$service,DNS:$service.dimee,DNS:$service.dimee.svc,DNS:$service.dimee.svc.cluster.local
  done
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj "/CN=$name" \
    -keyout "$name.key" -out request.pem 2>/dev/null
  printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n%s\n' \
    "$names" "keyUsage=critical,digitalSignature" >extensions
  openssl x509 -req -in request.pem -CA ca.crt -CAkey ca.key -days "$certificate_days" \
    -set_serial "0x$(openssl rand -hex 16)" -extfile extensions -out "$name.crt" 2>/dev/null
  rm request.pem extensions
}

if [[ ! -s ca.crt || ! -s ca.key ]]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -subj "/CN=dimee" \
    -days "$ca_days" -addext "keyUsage=critical,keyCertSign" -keyout ca.key -out ca.crt 2>/dev/null
  rm -f mobile.crt edge.crt cloud.crt ledger.crt  # another authority signed them
fi
certificate mobile mobile mobile-page
certificate edge edge edge-balanced
certificate cloud cloud cloud-balanced
certificate ledger ledger

token mobile infer ledger:write
token edge ledger:write
token cloud ledger:write
token app classify
token operator classify status ledger:read
token prometheus metrics

if [[ ! -s database-password || ! -s database-url ]]; then
  password=$(openssl rand -hex 24)
  printf %s "$password" >database-password
  printf 'postgresql+psycopg://dimee:%s@postgres:5432/dimee' "$password" >database-url
fi
echo "deploy/kubernetes/base/secrets is complete; keep it out of the repository, ca.key above all."
