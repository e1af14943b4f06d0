"""What every storage destination does alike: a folder, moto's S3 and a real S3 server, from either store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import records
from records import pointer_to

from shipway.registry.errors import ConflictError, DeliveryError, IntegrityError
from shipway.registry.nouns import Digest, File
from shipway.registry.s3.bucket import Bucket, Patience, Service
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.s3 import S3Objects, origin
from shipway.registry.store.store import Store
from shipway.targets.deliveries.base import Delivery
from shipway.targets.deliveries.folder import FolderDelivery
from shipway.targets.deliveries.s3 import S3Delivery
from shipway.targets.steps import Command, Gate, Point, Prune, Release, Reuse, Seal, Send, Stage

QUICK = Patience(pause=0.01, longest_pause=0.05)
CONTENTS = {
    "labels.txt": b"a\nb\n",
    "model/graph.onnx": b"graph" * 1000,
    "run.sh": b"#!/bin/sh\necho hello\n",
    "web/ort.wasm.br": b"compressed",
}
NEWER = {**CONTENTS, "labels.txt": b"c\n"}
CHECK = ("python3", "-c", "open('labels.txt'); print('{\"passed\": true}')")


@dataclass
class Scene:
    """A destination, the store it is filled from, and ways to look at and to spoil what lies there."""

    delivery: Delivery
    store: Store
    again: Callable[[], Delivery]  # as another command sees the destination
    list: Callable[[], dict[str, bytes]]
    write: Callable[[str, bytes | None], None]
    spoil_store: Callable[[File], None]

    @property
    def s3(self) -> S3Delivery:
        assert isinstance(self.delivery, S3Delivery)
        return self.delivery


def folder_scene(tmp_path: Path) -> Scene:
    store, root = Store(FolderObjects(tmp_path / "store")), tmp_path / "out"

    def everything() -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    def write(name: str, data: bytes | None) -> None:
        if data is None:
            (root / name).unlink()
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)

    return Scene(
        FolderDelivery(root, store.open),
        store,
        lambda: FolderDelivery(root, store.open),
        everything,
        write,
        lambda file: store.open(file).write_bytes(b"spoilt"),  # type: ignore[arg-type,return-value]
    )


def s3_scene(server: Any, tmp_path: Path, *, same_service: bool, checksums: bool | None) -> Scene:
    service = Service(endpoint=server.endpoint, checksums=checksums)
    address = f"s3://{server.bucket}/prod/server"
    store = Store(FolderObjects(tmp_path / "store"))
    if same_service:
        store = Store(S3Objects(f"s3://{server.bucket}/store", tmp_path / "cache", service, QUICK))
    bucket = Bucket(server.bucket, service, QUICK)

    def make() -> S3Delivery:
        return S3Delivery(address, store.open, service, origin=origin(store), patience=QUICK)

    def everything() -> dict[str, bytes]:
        found = {}
        for key, _ in bucket.list("prod/server/"):
            got = bucket.get(key)
            assert got is not None
            if not key.startswith("prod/server/.probe/"):
                found[key.removeprefix("prod/server/")] = got[0]
        return found

    def write(name: str, data: bytes | None) -> None:
        if data is None:
            bucket.delete(f"prod/server/{name}")
        else:  # as other tools write: no digest, no headers
            bucket.call("put_object", Key=f"prod/server/{name}", Body=data)

    def spoil_store(file: File) -> None:
        if same_service:
            assert isinstance(store.objects, S3Objects)
            key = store.objects.key(store.key(file.digest))
            bucket.call("put_object", Key=key, Body=b"spoilt", Metadata={"sha256": file.digest.hex})
        else:
            store.open(file).write_bytes(b"spoilt")

    return Scene(make(), store, make, everything, write, spoil_store)


REAL = pytest.mark.real
PLACES = [
    "folder",
    "moto-sent",
    "moto-copied",
    pytest.param("real-sent", marks=REAL),
    pytest.param("real-copied", marks=REAL),
    pytest.param("real-checksums", marks=REAL),
]


@pytest.fixture(params=PLACES)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    kind, _, how = request.param.partition("-")
    if kind == "folder":
        return folder_scene(tmp_path)
    server = request.getfixturevalue(f"{kind}_s3")
    return s3_scene(server, tmp_path, same_service=how != "sent", checksums=how == "checksums" or None)


@pytest.fixture(params=PLACES[1:])
def s3(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    kind, _, how = request.param.partition("-")
    server = request.getfixturevalue(f"{kind}_s3")
    return s3_scene(server, tmp_path, same_service=how != "sent", checksums=how == "checksums" or None)


def release_of(store: Store, contents: dict[str, bytes], version: int = 1) -> Release:
    return records.release_of(store, contents, version, check=CHECK)


def place(delivery: Delivery, release: Release) -> int:
    sends = [Send(release, file) for file in release.manifest.files]
    return sum(delivery.perform(step) for step in [Stage(release), *sends, Seal(release)])


def test_a_release_is_placed_whole(scene: Scene) -> None:
    release = release_of(scene.store, CONTENTS)
    sent = place(scene.delivery, release)
    copied = isinstance(scene.delivery, S3Delivery) and isinstance(scene.store.objects, S3Objects)
    assert sent == (0 if copied else sum(map(len, CONTENTS.values())))
    wanted = {**CONTENTS, "bundle.json": release.manifest.to_bytes()}
    assert scene.list() == {f"releases/{release.id}/{path}": data for path, data in wanted.items()}
    for delivery in (scene.delivery, scene.again()):
        assert delivery.releases() == (release.id,)
        assert delivery.has(release.manifest)
        assert delivery.audit(release.manifest).whole
        assert delivery.pointer() is None


def test_nothing_counts_before_it_is_sealed(scene: Scene) -> None:
    release = release_of(scene.store, CONTENTS)
    scene.delivery.perform(Stage(release))
    for file in release.manifest.files:
        scene.delivery.perform(Send(release, file))
        assert scene.delivery.releases() == ()
        assert not scene.delivery.has(release.manifest)
        assert scene.delivery.holds([file.digest]) == frozenset()
    with pytest.raises(DeliveryError, match="no release"):
        scene.delivery.perform(Point(pointer_to(release)))
    assert scene.delivery.pointer() is None
    scene.delivery.clear(release.id)
    assert scene.list() == {}


def test_the_pointer_is_replaced_and_taken_away(scene: Scene) -> None:
    old, new = release_of(scene.store, CONTENTS), release_of(scene.store, NEWER, version=2)
    for serial, release in enumerate((old, new, old), start=1):
        place(scene.delivery, release)
        scene.delivery.perform(Point(pointer_to(release, serial)))
        assert scene.delivery.pointer() == scene.again().pointer() == pointer_to(release, serial)
    content = json.loads(scene.list()["current.json"])
    assert content["path"] == f"releases/{old.id}/"
    assert f"{content['path']}bundle.json" in scene.list()
    scene.delivery.withdraw()
    scene.delivery.withdraw()
    assert scene.again().pointer() is None
    scene.delivery.perform(Point(pointer_to(new, 4)))
    assert scene.again().pointer() == pointer_to(new, 4)


POINTER = {"environment": "e", "target": "t", "serial": 1, "model": "m", "version": 1,
           "bundle": "sha256:" + "0" * 64, "release": "r"}  # fmt: skip
WRONG = [{"serial": "9"}, {"serial": True}, {"serial": None}, {"version": {}}, {"bundle": 5},
         {"bundle": "sha256:z"}, {"release": ["x"]}, {"target": 1}]  # fmt: skip
UNREADABLE = [b"", b"{}", b"[]", b"nonsense", b'{"bundle": "x"}', b"\xff", b"[" * 100_000]


@pytest.mark.parametrize(
    "content",
    [*UNREADABLE, *(json.dumps({**POINTER, **wrong}).encode() for wrong in WRONG)],
    ids=range(len(UNREADABLE) + len(WRONG)),
)
def test_a_pointer_that_nobody_can_read_makes_nothing_live(scene: Scene, content: bytes) -> None:
    scene.write("current.json", content)
    assert scene.delivery.pointer() is None
    release = release_of(scene.store, CONTENTS)
    place(scene.delivery, release)
    scene.delivery.perform(Point(pointer_to(release)))
    assert scene.again().pointer() == pointer_to(release)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("name", ["model/graph.onnx", "labels.txt", "bundle.json"])
def test_a_damaged_release_is_noticed_and_repaired(scene: Scene, damage: str, name: str) -> None:
    release = release_of(scene.store, CONTENTS)
    place(scene.delivery, release)
    assert scene.delivery.audit(release.manifest).whole
    wanted = scene.list()
    path = f"releases/{release.id}/{name}"
    data = wanted[path]
    ways = {"flip": bytes([data[0] ^ 1]) + data[1:], "truncate": data[:-1], "remove": None}
    scene.write(path, ways[damage])
    for delivery in (scene.delivery, scene.again()):
        difference = delivery.audit(release.manifest)
        assert difference.missing == ((name,) if damage == "remove" else ())
        assert difference.changed == (() if damage == "remove" else (name,))
    scene.again().perform(Seal(release))
    assert scene.list() == wanted
    assert scene.again().audit(release.manifest).whole


def test_a_file_spoilt_in_the_store_is_never_sealed(scene: Scene) -> None:
    release = release_of(scene.store, CONTENTS)
    file = release.manifest.file("model/graph.onnx")
    assert file is not None
    scene.spoil_store(file)
    with pytest.raises((IntegrityError, DeliveryError)):
        place(scene.delivery, release)
    assert scene.delivery.releases() == ()
    scene.delivery.clear(release.id)
    assert scene.list() == {}


def test_what_an_older_release_holds_is_reused(scene: Scene) -> None:
    old, new = release_of(scene.store, CONTENTS), release_of(scene.store, NEWER, version=2)
    place(scene.delivery, old)
    delivery = scene.again()
    held = delivery.holds(file.digest for file in new.manifest.files)
    assert held == {file.digest for file in new.manifest.files if file.path != "labels.txt"}
    delivery.perform(Stage(new))
    for file in new.manifest.files:
        if file.digest in held:
            assert delivery.perform(Reuse(new, file)) == 0
    delivery.perform(Seal(new))
    assert delivery.audit(new.manifest).whole
    assert delivery.releases() == tuple(sorted([old.id, new.id]))


def test_a_damaged_file_is_not_reused(scene: Scene) -> None:
    old, new = release_of(scene.store, CONTENTS), release_of(scene.store, NEWER, version=2)
    place(scene.delivery, old)
    scene.write(f"releases/{old.id}/model/graph.onnx", b"graPh" * 1000)
    scene.delivery.perform(Stage(new))
    for file in new.manifest.files:
        scene.delivery.perform(Reuse(new, file))
    scene.delivery.perform(Seal(new))
    assert scene.delivery.audit(new.manifest).whole


def test_pruning_spares_the_live_release(scene: Scene) -> None:
    old, new = release_of(scene.store, CONTENTS), release_of(scene.store, NEWER, version=2)
    for release in (old, new):
        place(scene.delivery, release)
    scene.delivery.perform(Point(pointer_to(new)))
    scene.delivery.perform(Prune(old.id))
    scene.delivery.perform(Prune(old.id))
    assert scene.delivery.releases() == (new.id,)
    assert not any(old.id in path for path in scene.list())
    with pytest.raises(ValueError, match="is live"):
        scene.delivery.perform(Prune(new.id))
    assert scene.delivery.audit(new.manifest).whole


@pytest.mark.parametrize("name", ["..", "../other", "a/b", "", ".staging", "a\\b", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(scene: Scene, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a release"):
        scene.delivery.perform(Prune(name))
    with pytest.raises(ValueError, match="no name of a release"):
        scene.delivery.clear(name)


def test_steps_can_be_repeated_by_another_command(scene: Scene) -> None:
    release = release_of(scene.store, CONTENTS)
    for step in [Stage(release), *(Send(release, f) for f in release.manifest.files), Seal(release)]:
        scene.delivery.perform(step)
        scene.again().perform(step) if isinstance(step, Send) else None
    for step in (Seal(release), Point(pointer_to(release)), Gate(release, "digests", {})):
        scene.delivery.perform(step)
        scene.again().perform(step)
    assert scene.again().audit(release.manifest).whole


def test_gates_pass_and_fail(scene: Scene) -> None:
    release = release_of(scene.store, CONTENTS)
    place(scene.delivery, release)
    with pytest.raises(DeliveryError, match="names nothing"):
        scene.delivery.perform(Gate(release, "digests", {}))
    scene.delivery.perform(Point(pointer_to(release)))
    deployment = pointer_to(release).to_json()
    for name, options in [
        ("digests", {}),
        ("check", {}),
        ("command", {"argv": ["sh", "run.sh"], "deployment": deployment}),
        ("command", {"argv": ["./run.sh"], "deployment": deployment}),
    ]:
        scene.delivery.perform(Gate(release, name, options))
    with pytest.raises(DeliveryError, match="did not pass"):
        scene.delivery.perform(Gate(release, "command", {"argv": ["false"], "deployment": deployment}))
    scene.write(f"releases/{release.id}/labels.txt", b"x\ny\n")
    with pytest.raises(DeliveryError, match="not what was sent"):
        scene.delivery.perform(Gate(release, "digests", {}))
    with pytest.raises(ValueError, match="no gate"):
        scene.delivery.perform(Gate(release, "tea", {}))


def test_a_release_with_hostile_paths_stays_in_its_place(scene: Scene) -> None:
    contents = {"a b/$(touch x)'\";&.txt": b"1", "é/%2e%2e/+.json": b"2", "graph.onnx": b"3"}
    release = release_of(scene.store, contents)
    release = Release(replace(release.manifest, executables=()))
    place(scene.delivery, release)
    assert scene.delivery.audit(release.manifest).whole
    wanted = {**contents, "bundle.json": release.manifest.to_bytes()}
    assert scene.list() == {f"releases/{release.id}/{path}": data for path, data in wanted.items()}


# what only storage has


def test_files_are_served_with_type_encoding_and_age(s3: Scene) -> None:
    release = release_of(s3.store, CONTENTS)
    place(s3.delivery, release)
    s3.delivery.perform(Point(pointer_to(release)))
    for path, kind, encoding in [
        ("web/ort.wasm.br", "application/wasm", "br"),
        ("model/graph.onnx", "application/octet-stream", None),
        ("labels.txt", "text/plain; charset=utf-8", None),
        ("bundle.json", "application/json", None),
    ]:
        head = s3.s3.bucket.head(f"prod/server/releases/{release.id}/{path}")
        assert head is not None
        assert head.headers["ContentType"] == kind
        assert head.headers.get("ContentEncoding") == encoding
        assert head.headers["CacheControl"] == "public, max-age=31536000, immutable"
    head = s3.s3.bucket.head("prod/server/current.json")
    assert head is not None
    assert head.headers == {
        "ContentType": "application/json",
        "CacheControl": "public, max-age=5, must-revalidate",
    }


def test_who_slept_does_not_move_the_pointer(scene: Scene) -> None:
    old, new = release_of(scene.store, CONTENTS), release_of(scene.store, NEWER, version=2)
    for release in (old, new):
        place(scene.delivery, release)
    sleeper, other = scene.again(), scene.again()
    assert sleeper.pointer() is None
    assert other.pointer() is None
    other.perform(Point(pointer_to(new, 2)))
    with pytest.raises(ConflictError, match="by somebody else"):
        sleeper.perform(Point(pointer_to(old, 1)))
    assert scene.again().pointer() == pointer_to(new, 2)
    slept_longer = scene.again()
    assert slept_longer.pointer() == pointer_to(new, 2)
    other.perform(Point(pointer_to(old, 3)))
    with pytest.raises(ConflictError, match="by somebody else"):
        slept_longer.perform(Point(pointer_to(new, 2)))
    assert scene.again().pointer() == pointer_to(old, 3)


def test_storage_runs_nothing(s3: Scene) -> None:
    release = release_of(s3.store, CONTENTS)
    place(s3.delivery, release)
    with pytest.raises(DeliveryError, match="is storage"):
        s3.delivery.perform(Command(release, ("trtexec",), "build engines"))


def test_a_foreign_object_among_the_releases_is_no_release(s3: Scene) -> None:
    s3.write("releases/../bundle.json", b"{}")
    s3.write("releases/bundle.json", b"{}")
    s3.write("releases/a/b/bundle.json", b"{}")
    s3.write("releases/strange/bundle.json", b"not a manifest")
    assert s3.delivery.releases() == ("strange",)
    assert s3.delivery.holds([Digest.of(b"x")]) == frozenset()


@pytest.mark.real
@pytest.mark.parametrize("checksums", [None, True])
def test_a_large_file_is_copied_within_the_service(
    real_proxied: tuple[Any, Any], tmp_path: Path, checksums: bool | None
) -> None:
    proxy, server = real_proxied
    scene = s3_scene(server, tmp_path, same_service=True, checksums=checksums)
    size = 50 << 20
    release = release_of(scene.store, {**CONTENTS, "model/graph.onnx": b"0123456789abcdef" * (size // 16)})
    proxy.forget()
    place(scene.delivery, release)
    scene.delivery.perform(Point(pointer_to(release)))
    scene.delivery.perform(Gate(release, "digests", {}))
    assert sum(request.sent for request in proxy.requests) < 20_000
    # Read back once, before the seal; not even that where the service vouches for what it holds.
    read = sum(request.received for request in proxy.requests)
    assert read < 100_000 if checksums else size < read < size + 100_000
