#!/usr/bin/env bash
# Install OpenSSH's server and client from Debian's packages where they are missing. Run as root, or with sudo at
# hand. Nothing is started. Prints the server's path.
set -euo pipefail

export PATH="$PATH:/usr/sbin:/usr/local/sbin"
if ! command -v sshd >/dev/null || ! command -v scp >/dev/null; then
  here=$(dirname "$0")
  "$here/again.sh" "$here/install-packages.sh" openssh-client openssh-server
fi
command -v sshd
