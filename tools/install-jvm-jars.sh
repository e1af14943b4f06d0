#!/usr/bin/env bash
# Have Maven fetch what the phones' Kotlin is compiled with and run on (tests/targets/kinds/jvm/pom.xml), once.
# It lies below SHIPWAY_CACHE; the network is not asked again until the list changes.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${SHIPWAY_CACHE:-$HOME/.cache/shipway}"
list=tests/targets/kinds/jvm/pom.xml
cmp --silent "$list" "$cache/jvm/pom.xml" && exit 0

rm -rf "$cache/jvm"
tools/again.sh mvn --batch-mode --quiet --update-snapshots --file "$list" -Dmaven.repo.local="$cache/maven" \
  org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DoutputDirectory="$cache/jvm"
cp "$list" "$cache/jvm/pom.xml"
