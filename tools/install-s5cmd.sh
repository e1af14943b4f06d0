#!/usr/bin/env bash
# Build s5cmd, which the benchmarks hold uploads to S3 against (benchmarks/remote.py).
# Needs Go and its module proxy; takes a minute the first time, nothing after that. Prints the program's path.
set -euo pipefail

module=github.com/peak/s5cmd/v2
version=v2.3.0
sum='h1:g8KSD2o4pcyzUsAaWsn7TGb+j4w+/mI1B5NmfDR0Bbs='  # of the module's source, as in a go.sum

again=$(realpath "$(dirname "$0")/again.sh")
cache=${SHIPWAY_CACHE:-$HOME/.cache/shipway}
folder=$cache/s5cmd-$version
program=$folder/s5cmd

if [ ! -x "$program" ]; then
  command -v go >/dev/null || { echo "Go is needed to build $module: install it, then run this again." >&2; exit 1; }
  found=$("$again" go mod download -json "$module@$version")
  value() { sed -n "s/^[[:space:]]*\"$1\": \"\(.*\)\",*\$/\1/p" <<<"$found"; }
  [ "$(value Sum)" = "$sum" ] || { echo "$module $version has the checksum '$(value Sum)', not $sum" >&2; exit 1; }
  mkdir -p "$folder"
  fresh=$(mktemp -d "$folder/build.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  # Of its source, with its own go.sum: the versions that its makers tested with.
  (cd "$(value Dir)" && CGO_ENABLED=0 "$again" go build -mod=mod -trimpath -ldflags='-s -w' -o "$fresh/s5cmd" .) >&2
  mv "$fresh/s5cmd" "$program"  # the name appears together with the whole program
fi
echo "$program"
