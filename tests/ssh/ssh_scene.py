"""Bundles and deliveries for the tests over SSH, and what must hold on a host afterwards."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from ssh_hosts import Host

from shipway.registry.nouns import Digest, File, Tolerance
from shipway.targets.deliveries.ssh import SshDelivery
from shipway.targets.deliveries.ssh_address import Address, Patience, SshOptions
from shipway.targets.manifest import MANIFEST, Manifest
from shipway.targets.steps import Gate, Point, Pointer, Release, Reuse, Seal, Send, Stage

HASTE = Patience(attempts=4, pause=0.02, longest_pause=0.1, connect=60.0, login=60.0, silence=30.0)
"""New tries at once, and waiting that only a host that is gone, not a busy one, comes to the end of."""
CHECK = b"""import json, pathlib
passed = pathlib.Path("verdict").read_text() == "good"
print(json.dumps({"passed": passed, "outputs": []}))
raise SystemExit(0 if passed else 5)
"""


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


class Shelf:
    """Bundles by hand, and the local files that a delivery sends: what the store is to it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, file: File) -> Path:
        return self._folder / file.digest.hex

    def bundle(
        self, version: int, contents: Mapping[str, bytes] | None = None, *, good: bool = True
    ) -> Release:
        whole = {
            "check.py": CHECK,
            "verdict": b"good" if good else b"bad",
            "model/graph.onnx": b"graph %d" % version * 100,
            **(contents or {}),
        }
        files = []
        for path, content in sorted(whole.items()):
            file = File(path, Digest.of(content), len(content))
            self.fetch(file).write_bytes(content)
            files.append(file)
        manifest = Manifest(
            kind="jetson-ort",
            model="ocr",
            version=version,
            model_digest=Digest.of(b"%d" % version),
            precision="fp32",
            files=tuple(files),
            inputs=(),
            outputs=(),
            opset=17,
            ir=8,
            tolerance=Tolerance(1e-5, 1e-5),
            check=("python3", "check.py"),
            graph="model/graph.onnx",
            executables=("check.py",),
        )
        return Release(manifest)


class Connected(SshDelivery):
    """A delivery that hangs up at the end of a ``with`` block."""

    def __enter__(self) -> Connected:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(host: Host, shelf: Shelf, known: Path, key: Path, *, port: int | None = None) -> Connected:
    address = Address.parse(host.url)
    if port is not None:
        address = Address(address.user, address.host, port, address.folder)
    return Connected(address, shelf.fetch, SshOptions(known, (key,)), HASTE)


def pointer(release: Release, serial: int, target: str = "jetson") -> Pointer:
    manifest = release.manifest
    return Pointer("prod", target, serial, manifest.model, manifest.version, manifest.digest, release.id)


def place(delivery: SshDelivery, release: Release) -> int:
    """Everything up to the seal, as a plan would have it; the bytes that were sent."""
    held = delivery.holds(file.digest for file in release.manifest.files)
    delivery.perform(Stage(release))
    sent = 0
    for file in release.manifest.files:
        sent += delivery.perform(Reuse(release, file) if file.digest in held else Send(release, file))
    return sent + delivery.perform(Seal(release))


def deploy(delivery: SshDelivery, release: Release, serial: int) -> None:
    place(delivery, release)
    delivery.perform(Point(pointer(release, serial)))
    delivery.perform(Gate(release, "digests", {}))


def assert_whole(root: Path, release: Release) -> None:
    """What is on the host's disk, read without asking the delivery."""
    home = root / "releases" / release.id
    assert (home / MANIFEST).read_bytes() == release.manifest.to_bytes()
    for file in release.manifest.files:
        assert Digest.of((home / file.path).read_bytes()) == file.digest
        assert (home / file.path).stat().st_mode & 0o777 == (
            0o755 if file.path in release.manifest.executables else 0o644
        )


def assert_tidy(root: Path) -> None:
    """Nothing half done: no staging, no uploads, no parts; the helper itself was never stored."""
    hidden = root / ".shipway"
    assert {path.name for path in hidden.iterdir()} <= {"live", "lock"}
    assert {path.name for path in root.iterdir()} <= {"current", "releases", ".shipway"}


def wipe(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
