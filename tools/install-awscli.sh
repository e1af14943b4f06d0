#!/usr/bin/env bash
# Install the AWS CLI, which the benchmarks hold uploads to S3 against (benchmarks/remote.py), in an environment
# of its own below SHIPWAY_CACHE: nothing of shipway's needs it. Prints the program's path.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${SHIPWAY_CACHE:-$HOME/.cache/shipway}
lock=locks/awscli.txt
folder=$cache/awscli
if ! cmp --silent "$lock" "$folder/installed"; then
  rm -rf "$folder"
  "${PYTHON:-python3}" -m venv "$folder"
  tools/again.sh "$folder/bin/pip" --quiet --disable-pip-version-check \
    install --require-hashes --only-binary :all: -r "$lock" >&2
  cp "$lock" "$folder/installed"
fi
echo "$folder/bin/aws"
