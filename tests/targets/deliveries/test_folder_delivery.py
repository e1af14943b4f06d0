"""A folder as a destination, on real files: what is refused, repaired, reused and left alone."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import records
from records import pointer_to

from shipway.registry import files
from shipway.registry.errors import DeliveryError, IntegrityError
from shipway.registry.nouns import File
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store
from shipway.targets.deliveries import copying
from shipway.targets.deliveries.folder import FolderDelivery
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Command, Gate, Point, Prune, Release, Reuse, Seal, Send, Stage

CONTENTS = {
    "model/graph.onnx": b"graph" * 1000,
    "run.sh": b"#!/bin/sh\necho hello\n",
    "labels.txt": b"a\nb\n",
}
CHECK = ("python3", "-c", "print('{\"passed\": true}')")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(FolderObjects(tmp_path / "store"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def delivery(root: Path, store: Store) -> FolderDelivery:
    return FolderDelivery(root, store.open)


def release_of(store: Store, contents: dict[str, bytes] = CONTENTS, version: int = 1) -> Release:
    return records.release_of(store, contents, version, check=CHECK)


def place(delivery: FolderDelivery, release: Release) -> int:
    sends = [Send(release, file) for file in release.manifest.files]
    return sum(delivery.perform(step) for step in [Stage(release), *sends, Seal(release)])


def everything(root: Path) -> dict[str, bytes]:
    found = sorted(root.rglob("*"), key=str)
    return {str(path.relative_to(root)): path.read_bytes() for path in found if path.is_file()}


def test_a_release_is_placed_whole_and_named_at_the_end(
    delivery: FolderDelivery, store: Store, root: Path
) -> None:
    release = release_of(store)
    sent = place(delivery, release)
    assert sent == sum(map(len, CONTENTS.values()))
    home = root / "releases" / release.id
    assert everything(home) == {**CONTENTS, "bundle.json": release.manifest.to_bytes()}
    assert (home / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (home / "labels.txt").stat().st_mode & 0o777 == 0o644
    assert delivery.releases() == (release.id,)
    assert delivery.has(release.manifest)
    assert delivery.audit(release.manifest).whole
    assert sorted(path.name for path in root.iterdir()) == ["releases"]


def test_nothing_has_a_releases_name_before_it_is_sealed(delivery: FolderDelivery, store: Store) -> None:
    release = release_of(store)
    delivery.perform(Stage(release))
    for file in release.manifest.files:
        delivery.perform(Send(release, file))
        assert delivery.releases() == ()
        assert not delivery.has(release.manifest)
    with pytest.raises(DeliveryError, match="no release"):
        delivery.perform(Point(pointer_to(release)))
    assert delivery.pointer() is None


def test_the_pointer_is_replaced_and_read_back(delivery: FolderDelivery, store: Store, root: Path) -> None:
    old, new = release_of(store), release_of(store, {**CONTENTS, "labels.txt": b"c"}, version=2)
    for serial, release in enumerate((old, new), start=1):
        place(delivery, release)
        delivery.perform(Point(pointer_to(release, serial)))
        assert delivery.pointer() == pointer_to(release, serial)
    content = json.loads((root / "current.json").read_bytes())
    assert content["path"] == f"releases/{new.id}/"
    assert (root / content["path"] / "bundle.json").is_file()
    delivery.withdraw()
    assert delivery.pointer() is None
    delivery.withdraw()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"nonsense", b'{"bundle": "x"}', b"\xff"])
def test_a_pointer_that_nobody_can_read_makes_nothing_live(
    delivery: FolderDelivery, root: Path, content: bytes
) -> None:
    root.mkdir()
    (root / "current.json").write_bytes(content)
    assert delivery.pointer() is None


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _remove(path: Path) -> None:
    path.unlink()


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


@pytest.mark.parametrize("damage", [_flip, _truncate, _remove, _link, _folder])
@pytest.mark.parametrize("name", ["model/graph.onnx", "run.sh", "bundle.json"])
def test_a_damaged_release_is_noticed_and_repaired(
    delivery: FolderDelivery, store: Store, root: Path, damage: object, name: str
) -> None:
    release = release_of(store)
    place(delivery, release)
    home = root / "releases" / release.id
    untouched = {path.name: path.stat().st_ino for path in home.rglob("*") if path.is_file()}
    damage(home / name)  # type: ignore[operator]
    difference = delivery.audit(release.manifest)
    assert not difference.whole
    assert name in (*difference.missing, *difference.changed)
    sent = FolderDelivery(root, store.open).perform(Seal(release))
    assert sent == len(CONTENTS.get(name, b""))
    assert everything(home) == {**CONTENTS, "bundle.json": release.manifest.to_bytes()}
    assert not any(path.is_symlink() for path in home.rglob("*"))
    assert delivery.audit(release.manifest).whole
    assert (home / "labels.txt").stat().st_ino == untouched[
        "labels.txt"
    ]  # only what was damaged was replaced
    assert not (root / ".staging").exists()


def test_a_folder_swapped_for_a_link_is_not_followed(
    delivery: FolderDelivery, store: Store, root: Path, tmp_path: Path
) -> None:
    release = release_of(store)
    place(delivery, release)
    home, outside = root / "releases" / release.id, tmp_path / "outside"
    shutil.copytree(home / "model", outside)
    shutil.rmtree(home / "model")
    (home / "model").symlink_to(outside)
    assert delivery.audit(release.manifest).missing == ("model/graph.onnx",)
    (outside / "graph.onnx").write_bytes(b"not ours")
    delivery.perform(Seal(release))
    assert delivery.audit(release.manifest).whole
    assert (outside / "graph.onnx").read_bytes() == b"not ours"


def test_a_link_in_place_of_the_release_is_replaced(
    delivery: FolderDelivery, store: Store, root: Path, tmp_path: Path
) -> None:
    release = release_of(store)
    (root / "releases").mkdir(parents=True)
    (tmp_path / "trap").mkdir()
    (root / "releases" / release.id).symlink_to(tmp_path / "trap")
    place(delivery, release)
    assert delivery.audit(release.manifest).whole
    assert not (root / "releases" / release.id).is_symlink()
    assert everything(tmp_path / "trap") == {}


def test_what_changed_between_sending_and_sealing_is_sent_again(
    delivery: FolderDelivery, store: Store, root: Path
) -> None:
    release = release_of(store)
    delivery.perform(Stage(release))
    for file in release.manifest.files:
        delivery.perform(Send(release, file))
    _flip(root / ".staging" / release.id / "model/graph.onnx")
    assert delivery.perform(Seal(release)) == len(CONTENTS["model/graph.onnx"])
    assert delivery.audit(release.manifest).whole


def test_a_file_spoilt_in_the_store_is_never_placed(
    delivery: FolderDelivery, store: Store, root: Path
) -> None:
    release = release_of(store)
    file = release.manifest.file("model/graph.onnx")
    assert file is not None
    _flip(store.open(file))
    delivery.perform(Stage(release))
    with pytest.raises(IntegrityError, match=r"is not model/graph.onnx"):
        delivery.perform(Send(release, file))
    delivery.clear(release.id)
    assert everything(root) == {}


def test_a_disk_that_changes_bytes_is_blamed_itself(
    delivery: FolderDelivery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = release_of(store)
    delivery.perform(Stage(release))

    def spoil(source: Path, target: Path, *, mode: int) -> None:
        target.write_bytes(b"x" * source.stat().st_size)

    monkeypatch.setattr(copying, "copy", spoil)
    with pytest.raises(DeliveryError, match="came out wrong"):
        delivery.perform(Send(release, release.manifest.files[0]))


def test_what_an_older_release_holds_is_reused_without_the_store(
    delivery: FolderDelivery, store: Store, root: Path
) -> None:
    old, new = release_of(store), release_of(store, {**CONTENTS, "labels.txt": b"c"}, version=2)
    place(delivery, old)
    held = delivery.holds(file.digest for file in new.manifest.files)
    assert held == {file.digest for file in new.manifest.files if file.path != "labels.txt"}

    def refuse(file: File) -> Path:
        raise AssertionError(f"{file.path} was fetched")

    offline = FolderDelivery(root, refuse)
    offline.perform(Stage(new))
    assert [offline.perform(Reuse(new, file)) for file in new.manifest.files if file.digest in held] == [0, 0]
    delivery.perform(Seal(new))
    assert delivery.audit(new.manifest).whole
    ones, others = (root / "releases" / r.id / "model/graph.onnx" for r in (old, new))
    assert ones.stat().st_ino != others.stat().st_ino  # editing the one in place must not harm the other


def test_a_damaged_file_is_not_reused(delivery: FolderDelivery, store: Store, root: Path) -> None:
    old, new = release_of(store), release_of(store, {**CONTENTS, "labels.txt": b"c"}, version=2)
    place(delivery, old)
    _flip(root / "releases" / old.id / "model/graph.onnx")
    delivery.perform(Stage(new))
    file = new.manifest.file("model/graph.onnx")
    assert file is not None
    assert delivery.perform(Reuse(new, file)) == file.size
    delivery.perform(Seal(new))
    assert delivery.audit(new.manifest).whole


def test_served_files_are_no_second_name_of_the_stores(
    delivery: FolderDelivery, store: Store, root: Path
) -> None:
    release = release_of(store)
    place(delivery, release)
    for file in release.manifest.files:
        _flip(root / "releases" / release.id / file.path)
        assert files.digest_of(store.open(file)) == file.digest


def test_pruning_never_leaves_half_a_release_and_spares_the_live_one(
    delivery: FolderDelivery, store: Store, root: Path
) -> None:
    old, new = release_of(store), release_of(store, {**CONTENTS, "labels.txt": b"c"}, version=2)
    for release in (old, new):
        place(delivery, release)
    delivery.perform(Point(pointer_to(new)))
    delivery.perform(Prune(old.id))
    assert delivery.releases() == (new.id,)
    assert not (root / ".staging").exists()
    delivery.perform(Prune(old.id))  # again, as after a crash
    with pytest.raises(ValueError, match="is live"):
        delivery.perform(Prune(new.id))
    assert delivery.audit(new.manifest).whole


@pytest.mark.parametrize("name", ["..", "../other", "a/b", "", ".staging", "a\\b", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(delivery: FolderDelivery, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a release"):
        delivery.perform(Prune(name))
    with pytest.raises(ValueError, match="no name of a release"):
        delivery.clear(name)


def test_steps_can_be_repeated(delivery: FolderDelivery, store: Store) -> None:
    release = release_of(store)
    steps = [Stage(release), *(Send(release, f) for f in release.manifest.files), Seal(release)]
    for step in steps:
        delivery.perform(step)
        if not isinstance(step, Seal):
            delivery.perform(step)
    for step in (Seal(release), Point(pointer_to(release)), Gate(release, "digests", {})):
        delivery.perform(step)
        delivery.perform(step)
    assert delivery.audit(release.manifest).whole


# gates


def test_the_digest_gate_reads_everything_back(delivery: FolderDelivery, store: Store, root: Path) -> None:
    release = release_of(store)
    place(delivery, release)
    with pytest.raises(DeliveryError, match="names nothing"):
        delivery.perform(Gate(release, "digests", {}))
    delivery.perform(Point(pointer_to(release)))
    delivery.perform(Gate(release, "digests", {}))
    _flip(root / "releases" / release.id / "model/graph.onnx")
    with pytest.raises(DeliveryError, match="is not what was sent") as caught:
        delivery.perform(Gate(release, "digests", {}))
    assert "model/graph.onnx" in caught.value.why


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        ("print('{\"passed\": true}')", True),
        ("print('{\"passed\": false}')", False),
        ("print('{\"passed\": true}'); raise SystemExit(5)", False),
        ("print('{\"passed\": 1}')", False),
        ("print('garbage')", False),
        ("print('[]')", False),
        ("pass", False),
        ("raise RuntimeError('no runtime')", False),
    ],
)
def test_the_golden_check_runs_in_the_release(
    delivery: FolderDelivery, store: Store, root: Path, code: str, passes: bool
) -> None:
    check = f"import pathlib; assert pathlib.Path('bundle.json').is_file()\n{code}\n".encode()
    release = release_of(store, {**CONTENTS, "check.py": check})
    manifest = release.manifest
    release = Release(_with_check(manifest, ("python3", "check.py")))
    place(delivery, release)
    if passes:
        delivery.perform(Gate(release, "check", {}))
        assert delivery.audit(release.manifest).extra == ()
    else:
        with pytest.raises(DeliveryError, match="golden check of ocr/1") as caught:
            delivery.perform(Gate(release, "check", {}))
        assert caught.value.why


def _with_check(manifest: Manifest, check: tuple[str, ...]) -> Manifest:
    return replace(manifest, check=check)


def test_a_check_that_can_not_be_started_says_so(delivery: FolderDelivery, store: Store) -> None:
    release = Release(_with_check(release_of(store).manifest, ("no-such-program-anywhere",)))
    place(delivery, release)
    with pytest.raises(DeliveryError, match="can't be started") as caught:
        delivery.perform(Gate(release, "check", {}))
    assert "no-such-program-anywhere" in caught.value.why


def test_a_gate_command_gets_the_deployment_on_stdin(
    delivery: FolderDelivery, store: Store, tmp_path: Path
) -> None:
    release = release_of(store)
    place(delivery, release)
    program = "import json,sys,pathlib; d=json.load(sys.stdin); pathlib.Path(sys.argv[1]).write_text(str(d))"
    seen = tmp_path / "seen"
    argv = [sys.executable, "-c", program, str(seen)]
    deployment = pointer_to(release).to_json()
    delivery.perform(Gate(release, "command", {"argv": argv, "deployment": deployment}))
    assert seen.read_text() == str(deployment)
    options = {"argv": [sys.executable, "-c", "raise SystemExit('too slow')"], "deployment": {}}
    with pytest.raises(DeliveryError, match="did not pass") as caught:
        delivery.perform(Gate(release, "command", options))
    assert "too slow" in caught.value.why


def test_an_activation_command_runs_in_the_release(
    delivery: FolderDelivery, store: Store, root: Path
) -> None:
    release = release_of(store)
    place(delivery, release)
    delivery.perform(Command(release, ("python3", "-c", "open('engine', 'w').close()"), "build the engine"))
    assert (root / "releases" / release.id / "engine").is_file()
    assert delivery.audit(release.manifest).whole  # files of the destination's own do no harm
    with pytest.raises(DeliveryError, match="build the engine"):
        delivery.perform(Command(release, ("python3", "-c", "raise SystemExit(3)"), "build the engine"))


# a destination that can't be used


def test_a_file_in_place_of_the_folder(delivery: FolderDelivery, store: Store, root: Path) -> None:
    root.write_text("I am a file")
    with pytest.raises(DeliveryError, match="can't be used") as caught:
        delivery.perform(Stage(release_of(store)))
    assert "Free space or mend the permissions" in caught.value.remedy
    assert delivery.pointer() is None
    assert delivery.releases() == ()


def test_a_disk_that_fills_up_leaves_nothing_behind(
    delivery: FolderDelivery, store: Store, root: Path
) -> None:
    """The file size limit of a child makes every write past 1000 bytes fail, as a full disk does."""
    release = release_of(store)
    file = release.manifest.file("model/graph.onnx")
    assert file is not None
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            delivery.perform(Stage(release))
            try:
                delivery.perform(Send(release, file))
            except DeliveryError as error:
                code = 8 if os.strerror(errno.EFBIG) in error.why else 2
            delivery.clear(release.id)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 8
    assert not root.exists()  # that folder was of its making too


def test_a_folder_that_can_not_be_written(store: Store, root: Path) -> None:
    """As another user, because root may write anywhere."""
    root.mkdir(mode=0o755)
    if os.geteuid() != 0:
        root.chmod(0o555)
    release = release_of(store)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            FolderDelivery(root, store.open).perform(Stage(release))
        except DeliveryError as error:
            code = 8 if os.strerror(errno.EACCES) in error.why else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 8
    assert list(root.iterdir()) == []
