"""How often ``register`` goes over the bytes of what it registers."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import onnx
import pytest

from shipway.registry import catalog
from shipway.registry.config.load import load_text
from shipway.registry.nouns import Digest
from shipway.registry.store.folder import FolderObjects
from shipway.registry.verbs.register import register

pytestmark = pytest.mark.usefixtures("scratch")


class Hash:
    """hashlib's sha256, and in ``finished`` how often each digest came out."""

    real = staticmethod(hashlib.sha256)
    finished: ClassVar[Counter[str]] = Counter()

    def __init__(self, *data: Any, **options: Any) -> None:
        self.inner = self.real(*data, **options)

    def update(self, data: Any) -> None:
        self.inner.update(data)

    def digest(self) -> bytes:
        return self.inner.digest()

    def hexdigest(self) -> str:
        self.finished[self.inner.hexdigest()] += 1
        return self.inner.hexdigest()


def test_a_file_is_hashed_to_name_it_and_on_its_one_way_into_the_store(
    fresh: Path, tmp_path: Path, mlp: Callable[..., onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second hash checks the bytes that the copy reads anyway. The same model again is not copied."""
    shutil.copytree(fresh, tmp_path / "project")
    given = tmp_path / "net.onnx"
    onnx.save(mlp(), given)
    project = load_text("project: demo\n", tmp_path / "project")
    written: Counter[str] = Counter()
    put_file = FolderObjects.put_file

    def counted(self: FolderObjects, key: str, source: Path, digest: Digest) -> None:
        written[digest.hex] += 1
        put_file(self, key, source, digest)

    monkeypatch.setattr(FolderObjects, "put_file", counted)
    monkeypatch.setattr(hashlib, "sha256", Hash)
    monkeypatch.setattr(Hash, "finished", Counter())
    version = register(project, given, "net").version
    files = {file.digest.hex for file in catalog.locations(version).values()}
    assert written == dict.fromkeys(files, 1)
    assert {name: Hash.finished[name] for name in files} == dict.fromkeys(files, 2)

    Hash.finished.clear()
    written.clear()
    assert not register(project, given, "net").created
    assert not written
    assert {name: Hash.finished[name] for name in files} == dict.fromkeys(
        files, 1
    )  # that the store has it still
