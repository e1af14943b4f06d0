#!/usr/bin/env bash
# Have npm fetch what Netlify reads _headers files with (tests/targets/kinds/netlify), once, below SHIPWAY_CACHE.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=tests/targets/kinds/netlify
folder=${SHIPWAY_CACHE:-$HOME/.cache/shipway}/netlify
cmp --silent $lock/package-lock.json "$folder/installed" && exit 0

rm -rf "$folder"
mkdir -p "$folder"
cp $lock/package.json $lock/package-lock.json "$folder"
tools/again.sh npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --silent
cp $lock/package-lock.json "$folder/installed"
