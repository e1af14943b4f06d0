#!/usr/bin/env bash
# Make an arm64 Debian, with Python and ONNX Runtime in it, that the tests marked "real" deploy Jetson bundles to.
# Run as root; needs debootstrap and qemu-user-static. It lies below SHIPWAY_CACHE and is made once: four minutes
# or so, most of them Debian's own set-up under qemu. Prints its folder.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=locks/arm64.txt
packages=python3,openssh-server
folder=${SHIPWAY_CACHE:-$HOME/.cache/shipway}/arm64
root=$folder/root

# What the kernel runs aarch64 programs with. It forgets that with each start of the machine.
formats=/proc/sys/fs/binfmt_misc
if [ "$(uname -m)" != aarch64 ]; then
  [ -e $formats/register ] || mount -t binfmt_misc binfmt_misc $formats
  [ -e $formats/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf >$formats/register
fi

if ! cat "tools/${0##*/}" $lock | cmp --silent - "$folder/installed"; then
  # What a debootstrap that was killed left mounted can't be removed.
  awk -v root="$root/" 'index($2, root) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount
  rm -rf "$folder"
  mkdir -p "$folder"
  debootstrap --arch=arm64 --variant=minbase --include=$packages bookworm "$root" >"$folder/log" 2>&1 ||
    { tail -n 20 "$folder/log" "$root/debootstrap/debootstrap.log" >&2; exit 1; }
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/etc/ssh/ssh_host_*
  modules=usr/lib/python3/dist-packages
  platforms=()
  for name in manylinux2014 manylinux_2_17 manylinux_2_27 manylinux_2_28; do
    platforms+=(--platform "${name}_aarch64")
  done
  tools/again.sh "${PYTHON:-python3}" -m pip --quiet --disable-pip-version-check \
    install --require-hashes --only-binary :all: "${platforms[@]}" --python-version 311 --implementation cp --abi cp311 --abi abi3 --abi none \
    --no-compile --root-user-action ignore --target "$root/$modules" -r $lock >&2
  chroot "$root" python3 -m compileall -qq -o 0 /$modules/{numpy,onnxruntime,uvicorn,h11,click} >&2 || true
  cat "tools/${0##*/}" $lock >"$folder/installed"
fi
echo "$root"
