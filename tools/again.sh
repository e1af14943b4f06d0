#!/usr/bin/env bash
# Run a command that fetches something, and where it fails twice more: networks have their moments.
# The command must do no harm where it begins anew.
for pause in 5 20; do
  "$@" && exit
  echo "that failed; once more in $pause s: $*" >&2
  sleep "$pause"
done
exec "$@"
