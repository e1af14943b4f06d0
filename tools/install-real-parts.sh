#!/usr/bin/env bash
# Install what the tests marked "real" talk to, from Debian's packages and by their clients' registries.
# Run as root, or with sudo at hand.
set -euo pipefail
cd "$(dirname "$0")"

packages=(chromium curl jq iproute2 openssh-client openssh-server docker-compose maven nginx openjdk-17-jdk-headless postgresql
  debootstrap qemu-user-static systemd)

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || ./again.sh ./install-packages.sh "${missing[@]}"

./install-s3-server.sh >/dev/null
./install-jvm-jars.sh
./install-netlify-parser.sh
PATH=$PWD/../.venv/bin:$PATH python install_jetpacks.py
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
as_root env HOME="$HOME" PATH="$PATH" SHIPWAY_CACHE="${SHIPWAY_CACHE:-$HOME/.cache/shipway}" ./install-arm64-root.sh >/dev/null
as_root env HOME="$HOME" PATH="$PATH" SHIPWAY_CACHE="${SHIPWAY_CACHE:-$HOME/.cache/shipway}" ./install-swift-root.sh >/dev/null
