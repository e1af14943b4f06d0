"""What every kind of ``Objects`` does alike: a folder, moto's S3 and a real S3 server."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from shipway.registry.errors import IntegrityError
from shipway.registry.nouns import Digest, File
from shipway.registry.s3.bucket import Patience, Service
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.objects import Objects
from shipway.registry.store.s3 import S3Objects
from shipway.registry.store.store import Store

QUICK = Patience(pause=0.01, longest_pause=0.05)
PLACES = [
    "folder",
    "moto",
    "moto-checksums",
    pytest.param("real", marks=pytest.mark.real),
    pytest.param("real-checksums", marks=pytest.mark.real),
    pytest.param("real-bare", marks=pytest.mark.real),
]


@pytest.fixture(params=PLACES)
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    kind, _, how = request.param.partition("-")
    if kind == "folder":
        return FolderObjects(tmp_path / "store")
    server: Any = request.getfixturevalue(f"{kind}_s3")
    service = Service(endpoint=server.endpoint, checksums=True if how == "checksums" else None)
    address = f"s3://{server.bucket}" + ("" if how == "bare" else "/models/acme")
    return S3Objects(address, tmp_path / "cache", service, QUICK)


@pytest.fixture
def objects_again(objects: Objects, tmp_path: Path) -> Objects:
    """The same store as another machine sees it: nothing remembered, nothing cached."""
    if isinstance(objects, FolderObjects):
        return FolderObjects(objects.root)
    assert isinstance(objects, S3Objects)
    return S3Objects(objects.address, tmp_path / "other-cache", objects.bucket.service, QUICK)


def blob(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex[:2]}/{digest.hex}"


def a_file(path: Path, size: int, seed: int = 0) -> Digest:
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return Digest.of(data)


def test_documents_are_written_replaced_and_deleted(objects: Objects, objects_again: Objects) -> None:
    assert objects.get("versions/a/1.json") is None
    assert not objects.exists("versions/a/1.json")
    objects.put("versions/a/1.json", b"first")
    objects.put("versions/a/1.json", b"")
    assert objects_again.get("versions/a/1.json") == b""
    objects.put("versions/a/1.json", b"second")
    assert objects_again.get("versions/a/1.json") == b"second"
    assert objects_again.exists("versions/a/1.json")
    objects.delete("versions/a/1.json")
    objects.delete("versions/a/1.json")
    assert objects_again.get("versions/a/1.json") is None


def test_of_two_creators_the_second_changes_nothing(objects: Objects, objects_again: Objects) -> None:
    assert objects.create("ledger/prod/server/1.json", b"first")
    assert not objects.create("ledger/prod/server/1.json", b"second")
    assert not objects_again.create("ledger/prod/server/1.json", b"first")
    assert objects.get("ledger/prod/server/1.json") == b"first"
    objects.delete("ledger/prod/server/1.json")
    assert objects_again.create("ledger/prod/server/1.json", b"third")


def test_keys_are_listed_in_order_below_their_prefix_only(objects: Objects) -> None:
    keys = [f"ledger/prod/server/{serial:08d}.started.json" for serial in range(12)]
    for key in random.Random(1).sample(keys, len(keys)):
        objects.put(key, b"{}")
    objects.put("ledger/prod/server2/00000001.started.json", b"{}")
    objects.put("ledger/staging/server/00000001.started.json", b"{}")
    assert list(objects.list("ledger/prod/server/")) == keys
    assert list(objects.list("ledger/nowhere/")) == []


def test_folders_are_the_next_part_of_longer_keys(objects: Objects) -> None:
    if isinstance(objects, S3Objects):
        objects.bucket.page = 3
    targets = [f"target-{number}" for number in range(8)]
    for target in targets:
        for serial in range(2):
            objects.put(f"ledger/prod/{target}/{serial:08d}.started.json", b"{}")
    objects.put("ledger/prod/stray.json", b"{}")
    objects.put("ledger/staging/server/00000001.started.json", b"{}")
    assert list(objects.folders("ledger/")) == ["prod", "staging"]
    assert list(objects.folders("ledger/prod/")) == targets
    assert list(objects.folders("ledger/nowhere/")) == []


def test_a_listing_of_several_pages_is_whole(objects: Objects) -> None:
    if isinstance(objects, S3Objects):
        objects.bucket.page = 7
    keys = [f"ledger/prod/t/{serial:08d}.json" for serial in range(23)]
    for key in keys:
        objects.put(key, b"")
    assert list(objects.list("ledger/prod/t/")) == keys


@pytest.mark.parametrize("size", [0, 1, 8 << 20, (8 << 20) + 1, (20 << 20) + 7])
def test_a_file_comes_back_as_it_went(
    objects: Objects, objects_again: Objects, tmp_path: Path, size: int
) -> None:
    source = tmp_path / "model.onnx"
    digest = a_file(source, size)
    key = blob(digest)
    assert objects.local(key) is None
    objects.put_file(key, source, digest)
    assert objects.exists(key)
    for place in (objects, objects_again, objects_again):
        found = place.local(key)
        assert found is not None
        assert found != source
        assert found.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("size", [100, 20 << 20])
def test_a_file_that_is_not_what_it_is_called_is_not_stored(
    objects: Objects, tmp_path: Path, size: int
) -> None:
    source = tmp_path / "model.onnx"
    a_file(source, size)
    wrong = Digest.of(b"something else")
    with pytest.raises(IntegrityError, match="changed while"):
        objects.put_file(blob(wrong), source, wrong)
    assert not objects.exists(blob(wrong))
    assert list(objects.list("blobs/")) == []


def test_keys_may_hold_what_file_names_may(objects: Objects, objects_again: Objects) -> None:
    key = "versions/a b+c%20'$(x)&=?#é/1.json"
    objects.put(key, b"strange")
    assert objects_again.get(key) == b"strange"
    assert list(objects_again.list("versions/")) == [key]


def test_the_store_works_over_it(objects: Objects, objects_again: Objects, tmp_path: Path) -> None:
    store, other = Store(objects), Store(objects_again)
    source = tmp_path / "assets.txt"
    source.write_text("characters")
    digest = store.add_file(source)
    assert store.add_bytes(b"characters") == digest
    assert other.has(digest)
    path = other.open(File("assets.txt", digest, 10))
    assert path.read_text() == "characters"
