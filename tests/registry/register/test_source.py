"""What is given: found, checked for being whole, named by content."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from shipway.registry.convert.source import read_source
from shipway.registry.errors import ConversionError, ShipwayError, UsageError


def tensor(shape: tuple[int, ...]) -> bytes:
    """One float32 tensor as Paddle writes it."""
    description = b"\x08\x05" + b"".join(b"\x10" + bytes([size]) for size in shape)
    data = np.zeros(shape, np.float32).tobytes()
    return struct.pack("<IQIi", 0, 0, 0, len(description)) + description + data


PIR = json.dumps({"base_code": {"magic": "pir", "version": 1}, "program": {"regions": []}}).encode()
PROGRAM = b"\x0a\x04" + b"\x08\x00\x10\x01" + b"\x22\x02\x08\x00"  # two whole fields of a ProgramDesc
PARAMS = tensor((3, 4)) + tensor((5,))


@pytest.fixture
def pir(tmp_path: Path) -> Path:
    folder = tmp_path / "pir"
    folder.mkdir()
    (folder / "inference.json").write_bytes(PIR)
    (folder / "inference.pdiparams").write_bytes(PARAMS)
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "inference.pdmodel").write_bytes(PROGRAM)
    (folder / "inference.pdiparams").write_bytes(PARAMS)
    return folder


def test_folder_file_params_and_prefix_mean_the_same_model(pir: Path) -> None:
    expected = read_source(pir)
    assert expected.format == "pir"
    assert expected.model == pir / "inference.json"
    assert expected.params == pir / "inference.pdiparams"
    for path in (pir / "inference.json", pir / "inference.pdiparams", pir / "inference"):
        assert read_source(path) == expected


def test_old_format(old: Path) -> None:
    assert read_source(old).format == "pdmodel"


def test_other_json_beside_a_model_is_no_model(old: Path) -> None:
    (old / "config.json").write_text("{}")
    assert read_source(old).model.name == "inference.pdmodel"


def test_both_forms_of_one_program_are_one_model(old: Path) -> None:
    (old / "inference.json").write_bytes(PIR)
    assert read_source(old).model.name == "inference.json"


@pytest.mark.parametrize(
    ("spoil", "family", "says"),
    [
        (lambda f: (f / "inference.pdiparams").unlink(), ConversionError, "lacks its weights"),
        (lambda f: (f / "inference.pdiparams").write_bytes(b""), ConversionError, "empty"),
        (lambda f: (f / "inference.pdiparams").write_bytes(PARAMS[:-1]), ConversionError, "truncated"),
        (lambda f: (f / "inference.pdiparams").write_bytes(PARAMS[:40]), ConversionError, "truncated"),
        (lambda f: (f / "inference.pdiparams").write_bytes(PARAMS[:10]), ConversionError, "truncated"),
        (lambda f: (f / "inference.pdiparams").write_text("no weights\n" * 9), ConversionError, "no tensor"),
        (lambda f: (f / "inference.json").write_bytes(b""), ConversionError, "empty"),
        (lambda f: (f / "inference.json").write_bytes(PIR[:-5]), ConversionError, "not whole JSON"),
        (lambda f: (f / "inference.json").write_text("[1]"), ConversionError, "no program"),
        (lambda f: (f / "inference.json").write_text('{"base_code": 3}'), ConversionError, "no program"),
        (lambda f: (f / "other.onnx").write_bytes(b"x"), UsageError, "more than one model"),
        (lambda f: (f / "inference.json").unlink(), ConversionError, "lacks its program"),
    ],
)
def test_spoilt_pir(
    pir: Path, spoil: Callable[[Path], object], family: type[ShipwayError], says: str
) -> None:
    spoil(pir)
    with pytest.raises(family, match=says) as caught:
        read_source(pir)
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"", PROGRAM[:-1], b"this is a text\n" * 20, b"\x00" * 64])
def test_spoilt_pdmodel(old: Path, content: bytes) -> None:
    (old / "inference.pdmodel").write_bytes(content)
    with pytest.raises(ConversionError, match=r"inference\.pdmodel can't be read"):
        read_source(old)


def test_what_is_not_there_or_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path / "nowhere", tmp_path / "notes.txt", tmp_path):
        with pytest.raises(UsageError) as caught:
            read_source(path)
        assert caught.value.remedy


def test_assets_found_and_given(pir: Path, tmp_path: Path) -> None:
    (pir / "inference.yml").write_text("found")
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    assert [asset.name for asset in read_source(pir, [labels]).assets] == ["inference.yml", "labels.txt"]
    own = tmp_path / "inference.yml"
    own.write_text("mine")
    assert read_source(pir, [own]).assets == (own,)  # what is given wins over what is found


def test_assets_that_can_not_travel(pir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for folder in (tmp_path, other):
        (folder / "labels.txt").write_text("a")
    (tmp_path / "new\nline").write_text("a")
    for given in ([tmp_path / "none"], [tmp_path], [tmp_path / "labels.txt", other / "labels.txt"],
                  [tmp_path / "new\nline"]):  # fmt: skip
        with pytest.raises(UsageError):
            read_source(pir, given)


def test_identity_is_of_content_and_options_not_of_paths(pir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for name in ("inference.json", "inference.pdiparams"):
        (copy / name).write_bytes((pir / name).read_bytes())
    identity = read_source(pir).identity({"opset": 17})
    assert read_source(copy).identity({"opset": 17}) == identity
    assert read_source(copy).identity({"opset": 18}) != identity
    (copy / "inference.yml").write_text("labels")
    assert read_source(copy).identity({"opset": 17}) != identity
    (copy / "inference.yml").unlink()
    (copy / "inference.pdiparams").write_bytes(tensor((3, 4)) + tensor((6,)))
    assert read_source(copy).identity({"opset": 17}) != identity


def test_copy_has_the_same_identity(pir: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    source = read_source(pir)
    assert source.copy_into(work).identity({}) == source.identity({})


@pytest.fixture
def with_external(tmp_path: Path, mlp: Callable[[], onnx.ModelProto]) -> Path:
    path = tmp_path / "external" / "net.onnx"
    path.parent.mkdir()
    onnx.save(mlp(), path, save_as_external_data=True, location="net.data", size_threshold=0)
    return path


def rename_external(path: Path, location: str) -> None:
    model = onnx.load(str(path), load_external_data=False)
    for held in model.graph.initializer:
        for entry in held.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


def test_external_data_belongs_to_the_model(with_external: Path, tmp_path: Path) -> None:
    source = read_source(with_external)
    assert [path.name for path in source.external] == ["net.data"]
    identity = source.identity({})
    data = bytearray((with_external.parent / "net.data").read_bytes())
    data[0] ^= 1
    (with_external.parent / "net.data").write_bytes(data)
    assert read_source(with_external).identity({}) != identity
    work = tmp_path / "copy"
    work.mkdir()
    copy = source.copy_into(work)
    loaded = onnx.load(str(copy.model))
    assert numpy_helper.to_array(loaded.graph.initializer[0]).shape == (8, 64)


@pytest.mark.parametrize("location", ["../net.data", "/etc/passwd", "sub/../../net.data"])
def test_external_data_outside_its_folder_is_refused(with_external: Path, location: str) -> None:
    rename_external(with_external, location)
    with pytest.raises(ConversionError, match="outside its own folder"):
        read_source(with_external)


def test_external_data_through_a_link_is_refused(with_external: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 4096)
    (with_external.parent / "net.data").unlink()
    (with_external.parent / "net.data").symlink_to(secret)
    with pytest.raises(ConversionError, match="outside its own folder"):
        read_source(with_external)


def test_external_data_that_lacks(with_external: Path) -> None:
    (with_external.parent / "net.data").unlink()
    with pytest.raises(ConversionError, match=r"no net\.data"):
        read_source(with_external)
