#!/usr/bin/env bash
# Build the S3 server that the tests marked "real" talk to: versitygw, which keeps objects as files and honours
# If-None-Match and If-Match on writes (docs say so, tests/store/test_objects.py proves it).
# Needs Go and its module proxy; takes a minute the first time, nothing after that. Prints the program's path.
set -euo pipefail

module=github.com/versity/versitygw
version=v1.8.0
sum='h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc='  # of the module's source, as in a go.sum

again=$(dirname "$0")/again.sh
cache=${SHIPWAY_CACHE:-$HOME/.cache/shipway}
folder=$cache/versitygw-$version
program=$folder/versitygw

if [ ! -x "$program" ]; then
  command -v go >/dev/null || { echo "Go is needed to build $module: install it, then run this again." >&2; exit 1; }
  found=$("$again" go mod download -json "$module@$version" | sed -n 's/^[[:space:]]*"Sum": "\(.*\)",*$/\1/p')
  [ "$found" = "$sum" ] || { echo "$module $version has the checksum '$found', not $sum" >&2; exit 1; }
  mkdir -p "$folder"
  fresh=$(mktemp -d "$folder/build.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  CGO_ENABLED=0 GOBIN=$fresh GOFLAGS=-trimpath "$again" go install -ldflags='-s -w' "$module/cmd/versitygw@$version" >&2
  mv "$fresh/versitygw" "$program"  # the name appears together with the whole program
fi
echo "$program"
