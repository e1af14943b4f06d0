#!/usr/bin/env bash
# Make a Debian 13 with its Swift compiler in it, which Debian 12 has not: the tests marked "real" compile and run the
# phones' Swift there. Run as root; needs debootstrap. It lies below SHIPWAY_CACHE and is made once: half a gigabyte
# to fetch, two to keep, a minute or so. Prints its folder.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=swiftlang,libc6-dev,libstdc++-14-dev,libssl-dev
headers=libonnxruntime-dev  # without what it depends on: the runtime comes from Maven, as for Kotlin
folder=${SHIPWAY_CACHE:-$HOME/.cache/shipway}/swift
root=$folder/root

if ! cmp --silent "tools/${0##*/}" "$folder/installed"; then
  # What a debootstrap that was killed left mounted can't be removed.
  awk -v root="$root/" 'index($2, root) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount
  rm -rf "$folder"
  mkdir -p "$folder"
  debootstrap --variant=minbase --include=$packages trixie "$root" >"$folder/log" 2>&1 ||
    { tail -n 20 "$folder/log" "$root/debootstrap/debootstrap.log" >&2; exit 1; }
  tools/again.sh chroot "$root" sh -c "cd /tmp && apt-get download --quiet=2 $headers && dpkg -x $headers*.deb / && rm $headers*" >&2
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/libexec/swift/lib/swift_static
  mkdir "$root/made" "$root/work"
  cp "tools/${0##*/}" "$folder/installed"
fi
echo "$root"
