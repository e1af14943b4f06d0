"""The phones' Swift on Linux: the real compiler, ONNX Runtime's C API, ``swift/Main.swift`` to drive it.

The compiler is Debian 13's, in a root of its own (tools/install-swift-root.sh). ``swift/`` stands in for what
only Apple's systems have, CryptoKit and ONNX Runtime's module for Swift, declared as their documentation does
(https://onnxruntime.ai/docs/api/objectivec/). The runtime is the Java package's, of the same release.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jvm_scene import RUNTIME, jars

HERE = Path(__file__).parent / "swift"
SOURCES = "ios/Sources/ShipwayModel"
_LIBRARY = "ai/onnxruntime/native/linux-x64/libonnxruntime.so"

_ENTER = """
set -e
mount -t proc proc "$0/proc"
mount --bind "$1" "$0/made"
mount --bind "$2" "$0/work"
root=$0; shift 2
exec chroot "$root" env -C /work "$@"
"""

_BUILD = """
set -e
flags="-swift-version 5 -warnings-as-errors -I . -L . -Xlinker -rpath -Xlinker /made"
for name in CryptoKit OnnxRuntimeBindings; do
  swiftc $flags -parse-as-library -emit-library -emit-module -module-name $name $name.swift -o lib$name.so
done
swiftc $flags -lCryptoKit -lOnnxRuntimeBindings Model.swift Updater.swift Main.swift -o driver
"""


def _inside(made: Path, work: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it in the root, ``made`` as its folder /made, ``work`` as /work, where it starts."""
    root = Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway") / "swift" / "root"
    assert root.is_dir(), "tools/install-real-parts.sh makes the root with the Swift compiler"
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", _ENTER, root, made, work]
    return subprocess.run([*argv, *command], capture_output=True, text=True, check=False, timeout=300)


@dataclass
class Swift:
    """A compiled wrapper. Paths that it is told are relative to the folder that it works in."""

    made: Path

    def __call__(self, work: Path, *arguments: object) -> Any:
        done = _inside(self.made, work, "/made/driver", *map(str, arguments))
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(done.stdout.splitlines()) == 1, done.stdout
        return json.loads(done.stdout)


def manifest_of(bundle: Path) -> Any:
    """What SwiftPM reads in the package of the bundle in a folder."""
    done = _inside(
        bundle, bundle, "env", "HOME=/tmp", "swift", "package", "--package-path", "ios", "dump-package"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def compiled(bundle: Path, made: Path) -> Swift:
    """The wrapper of the bundle in a folder, all of its Swift; warnings are errors."""
    made.mkdir(parents=True)
    for source in (*HERE.iterdir(), *(bundle / SOURCES).iterdir()):
        shutil.copy(source, made)
    (jar,) = (path for path in jars() if path.name.startswith(RUNTIME))
    with zipfile.ZipFile(jar) as archive:
        (made / "libonnxruntime.so.1").write_bytes(archive.read(_LIBRARY))
    (made / "libonnxruntime.so").symlink_to("libonnxruntime.so.1")
    done = _inside(made, made, "sh", "-c", _BUILD)
    assert done.returncode == 0, done.stdout + done.stderr
    return Swift(made)
