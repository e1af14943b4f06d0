#!/usr/bin/env bash
# Install Debian's packages of these names, also where an installation was cut off or another one is under way.
# Run as root, or with sudo at hand. Nothing is started (an sshd on port 22, say): that is what RUNLEVEL is for.
set -euo pipefail

sudo=()
[ "$(id -u)" -eq 0 ] || sudo=(sudo)
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  apt-get --quiet=2 --option DPkg::Lock::Timeout=300 --option Acquire::Retries=3)

"${sudo[@]}" dpkg --configure -a >&2
"${apt[@]}" update >&2
"${apt[@]}" install --yes --no-install-recommends "$@" >/dev/null
