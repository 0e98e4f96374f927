#!/bin/sh
# Makes a certificate for the gateway that another device in the network trusts once it has the
# certificate authority of the same call:
#   deploy/device-certificate.sh FOLDER ADDRESS…      (IP addresses and host names of this computer)
# It writes FOLDER/server/cert.pem and key.pem for the gateway, and FOLDER/for-the-device/dimee-ca.crt.
# The authority's key is deleted at once: it could sign for any site, and the device would trust it.
# docs/how-to/open-the-app-on-a-phone.md has the steps before and after.
set -eu
umask 077
if [ "$#" -lt 2 ]; then
  echo "usage: deploy/device-certificate.sh FOLDER ADDRESS…" >&2
  exit 2
fi
if ! command -v openssl >/dev/null 2>&1; then
  echo "openssl is not installed; install it, then run this script again" >&2
  exit 1
fi
folder=$1
shift
names=
for address; do
  case $address in
    *:*) kind=IP ;;
    *[!0-9.]*) kind=DNS ;;
    *) kind=IP ;;
  esac
  names="$names${names:+,}$kind:$address"
done
mkdir -p "$folder/server" "$folder/for-the-device"
work=$(mktemp -d)
finish() {
  if [ "$1" -ne 0 ]; then
    echo "no certificate was made; openssl says:" >&2
    tail -n 3 "$work/openssl.log" >&2
  fi
  rm -f "$work/openssl.log"
}
trap 'finish $?; rm -f "$work/ca-key.pem" "$work/server.csr" "$work/ca.ext" "$work/serial"; rmdir "$work"' EXIT
curve="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
# word splitting of $curve is meant; openssl reports its progress on stderr too
openssl req -x509 $curve -sha256 -days 397 -subj "/CN=dimee on $(hostname)" \
  -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign" \
  -keyout "$work/ca-key.pem" -out "$folder/for-the-device/dimee-ca.crt" 2>>"$work/openssl.log"
openssl req $curve -subj "/CN=dimee" -keyout "$folder/server/key.pem" -out "$work/server.csr" 2>>"$work/openssl.log"
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n' "$names" \
  > "$work/ca.ext"
openssl x509 -req -in "$work/server.csr" -CA "$folder/for-the-device/dimee-ca.crt" \
  -CAkey "$work/ca-key.pem" -CAcreateserial -CAserial "$work/serial" -sha256 -days 396 \
  -extfile "$work/ca.ext" -out "$folder/server/cert.pem" 2>>"$work/openssl.log"
chmod 755 "$folder/for-the-device"
chmod 644 "$folder/for-the-device/dimee-ca.crt"
echo "certificate for $names, valid for 396 days: $folder/server"
echo "install on the device: $folder/for-the-device/dimee-ca.crt"
openssl x509 -in "$folder/for-the-device/dimee-ca.crt" -noout -fingerprint -sha256
