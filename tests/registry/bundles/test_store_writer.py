"""Writing a bundle into the store: every write is recorded; bad paths and double writes are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipway.registry.bundling import StoreWriter
from shipway.registry.nouns import Digest, File
from shipway.registry.store.folder import FolderObjects
from shipway.registry.store.store import Store
from shipway.targets.render import Renderer


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(FolderObjects(tmp_path / "store"))


@pytest.fixture
def writer(store: Store, tmp_path: Path) -> StoreWriter:
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "page.j2").write_text("{{ word | json }}")
    return StoreWriter(store, Renderer("kind", tmp_path / "kind"))


ESCAPES = ["../x", "/etc/x", "a/../../x", "a\\b", "", "a//b", "./a", "a\nb", "bundle.json"]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_escapes_is_refused_by_every_way_in(
    path: str, writer: StoreWriter, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"path|list"):
        writer.write(path, "x")
    with pytest.raises(ValueError, match=r"path|list"):
        writer.add(path, source)
    with pytest.raises(ValueError, match=r"path|list"):
        writer.take(path, File("model.onnx", Digest.of(b"x"), 1))
    with pytest.raises(ValueError, match=r"path|list"):
        writer.render(path, "page", word="x")


def test_a_path_is_written_once_whatever_its_case(writer: StoreWriter) -> None:
    writer.write("README.md", "one")
    for path in ("README.md", "readme.md"):
        with pytest.raises(ValueError, match="twice"):
            writer.write(path, "two")


def test_each_write_is_recorded_and_in_the_store(writer: StoreWriter, store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from disk")
    written = [writer.write("a.txt", "text é"), writer.write("b.bin", b"\0"), writer.add("c", source)]
    written.append(writer.render("d.json", "page", word="w"))
    written.append(writer.take("e", written[0]))
    contents = ["text é".encode(), b"\0", b"from disk", b'"w"', "text é".encode()]
    for file, content in zip(written, contents, strict=True):
        assert store.open(file).read_bytes() == content
        assert file.size == len(content)
