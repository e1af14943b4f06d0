#!/usr/bin/env bash
# Install OpenSSH's server and client from Debian's packages where they are missing. Run as root, or with sudo at
# hand. Nothing is started. Prints the server's path.
set -euo pipefail

export PATH="$PATH:/usr/sbin:/usr/local/sbin"
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
if ! command -v sshd >/dev/null || ! command -v scp >/dev/null; then
  as_root apt-get update --quiet=2 >&2
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install --quiet=2 --yes --no-install-recommends openssh-client openssh-server >&2
fi
command -v sshd
