"""The folder store: content by digest, conditional creation, records that lead somewhere."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import pytest
import records

from shipway.registry.errors import DeliveryError, IntegrityError, NotFoundError
from shipway.registry.nouns import Digest, File, ModelVersion
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(FolderObjects(tmp_path / "store"))


def a_version(number: int = 1, name: str = "ocr-rec") -> ModelVersion:
    return records.version(
        name=name,
        version=number,
        digest=Digest.of(f"graph {number}".encode()),
        source=Digest.of(f"source {number}".encode()),
    )


def test_the_same_content_is_kept_once(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"weights")
    digest = store.add_file(source)
    assert store.add_bytes(b"weights") == digest == Digest.of(b"weights")
    assert list(store.objects.list("blobs/")) == [f"blobs/sha256/{digest.hex[:2]}/{digest.hex}"]
    assert store.open(File("any", digest, 7)).read_bytes() == b"weights"


def test_a_file_that_changes_under_way_is_not_stored(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"new bytes")
    with pytest.raises(IntegrityError, match="changed while"):
        store.add_file(source, Digest.of(b"old bytes"))
    assert not store.has(Digest.of(b"old bytes"))
    assert list(store.objects.list("blobs/")) == []


def test_lost_content_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"model\.onnx"):
        store.open(File("model.onnx", Digest.of(b""), 0))


def test_a_bundle_is_named_by_its_bytes(store: Store) -> None:
    manifest = records.manifest()
    with pytest.raises(NotFoundError):
        store.bundle(manifest.digest)
    store.add_bundle(manifest)
    assert store.bundle(manifest.digest) == manifest
    key = f"bundles/{manifest.digest.hex}.json"
    store.objects.put(key, manifest.to_bytes().replace(b"17", b"18"))
    with pytest.raises(IntegrityError, match="altered"):
        store.bundle(manifest.digest)


def test_a_remembered_build_counts_only_while_its_files_are_there(store: Store) -> None:
    inputs = Digest.of(b"inputs")
    assert store.built(inputs) is None
    digest = store.add_bytes(b"file")
    manifest = records.manifest((File("model.onnx", digest, 4),))
    store.remember_build(inputs, manifest)
    assert store.built(inputs) == manifest
    store.objects.delete(f"blobs/sha256/{digest.hex[:2]}/{digest.hex}")
    assert store.built(inputs) is None


def test_versions_are_found_by_number_and_source(store: Store) -> None:
    first, second = a_version(1), a_version(10)
    for version in (second, first):
        store.put_version(version)
    assert store.version("ocr-rec", 10) == second
    assert store.version("ocr-rec", 3) is None
    assert store.versions("ocr-rec") == [first, second]
    assert store.find_by_source("ocr-rec", second.source) == second
    assert store.find_by_source("other", second.source) is None
    other = Digest.of(b"another export")
    store.remember_source("ocr-rec", other, 10)
    assert store.find_by_source("ocr-rec", other) == second
    store.put_version(dataclasses.replace(first, name="ocr-det"))
    assert store.names() == ["ocr-det", "ocr-rec"]


def test_of_two_creations_the_second_changes_nothing(store: Store) -> None:
    assert store.objects.create("ledger/prod/server/1", b"first")
    assert not store.objects.create("ledger/prod/server/1", b"second")
    assert store.objects.get("ledger/prod/server/1") == b"first"


def test_a_store_that_is_no_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(FolderObjects(tmp_path / "file" / "store"))
    with pytest.raises(DeliveryError) as caught:
        store.add_bytes(b"x")
    assert "deploy.yaml" in caught.value.remedy
    assert store.objects.get("ledger/x") is None


@pytest.mark.parametrize("ask", ["exists", "local", "list"])
def test_a_store_that_may_not_be_read_says_so(
    ask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = FolderObjects(tmp_path)
    objects.put("a/b", b"b")

    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DeliveryError) as caught:
        list(getattr(objects, ask)("a" if ask == "list" else "a/b"))
    monkeypatch.undo()
    assert "Permission denied" in caught.value.why
    assert str(tmp_path / "a") in caught.value.why


def test_a_listing_of_nothing_or_of_a_file_is_empty(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    objects.put("a/b", b"b")
    assert [*objects.list("none"), *objects.list("a/b")] == []
    assert not objects.exists("a/b/c")
    assert list(objects.list("a")) == ["a/b"]
