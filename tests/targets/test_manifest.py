"""The manifest: what it refuses, what it keeps, how it is held against what is there."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.registry.errors import IntegrityError
from shipway.registry.nouns import Digest, File, TensorSpec, Tolerance
from shipway.targets.manifest import Manifest, compare


def manifest(*names: str) -> Manifest:
    return Manifest(
        kind="server-tensorrt",
        model="ocr-rec",
        version=2,
        model_digest=Digest.of(b"model"),
        precision="fp32",
        files=tuple(File(name, Digest.of(name.encode()), len(name)) for name in names),
        inputs=(TensorSpec("x", "float32", ("N", 3)),),
        outputs=(TensorSpec("y", "float32", ("N",)),),
        opset=17,
        ir=8,
        tolerance=Tolerance(1e-5, 1e-5),
        check=("python3", "check.py"),
        graph="model.onnx",
        runtime={"name": "onnxruntime", "version": "1.20"},
        executables=("check.py",),
    )


def test_the_bytes_read_back_to_the_same_manifest_and_digest() -> None:
    first = manifest("assets/字典.txt", "check.py", "model.onnx")
    assert Manifest.from_bytes(first.to_bytes()) == first
    assert first.digest == Digest.of(first.to_bytes())
    assert first.release_id == f"ocr-rec-2-{first.digest.hex[:12]}"


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\b", "a\nb", "a\0b", "bundle.json", "a/"],
)
def test_paths_that_are_not_plain_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="bundle"):
        manifest(path)


def test_files_are_sorted_and_listed_once() -> None:
    for names in (("b", "a"), ("a", "a")):
        with pytest.raises(ValueError, match="sorted"):
            manifest(*names)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"not json", b'{"schema": 99}'])
def test_what_shipway_did_not_write_is_an_integrity_error(raw: bytes) -> None:
    with pytest.raises(IntegrityError):
        Manifest.from_bytes(raw)


def test_a_manifest_that_names_an_escaping_path_is_refused_on_reading() -> None:
    data = json.loads(manifest("a").to_bytes())
    data["files"][0]["path"] = "../a"
    with pytest.raises(IntegrityError, match="no path inside"):
        Manifest.from_bytes(json.dumps(data).encode())


def test_every_field_enters_the_digest() -> None:
    first = manifest("a")
    changed = {
        "kind": "mobile-ort",
        "model": "other",
        "version": 3,
        "model_digest": Digest.of(b"x"),
        "precision": "int8",
        "files": (),
        "inputs": (),
        "outputs": (),
        "opset": 16,
        "ir": 9,
        "tolerance": Tolerance(1, 1),
        "check": ("true",),
        "graph": "other.onnx",
        "runtime": {},
        "options": {"a": 1},
        "executables": (),
    }
    assert set(changed) == {field.name for field in dataclasses.fields(Manifest)}
    digests = {dataclasses.replace(first, **{name: value}).digest for name, value in changed.items()}
    assert len(digests | {first.digest}) == len(changed) + 1


@given(
    wanted=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([b"1", b"2"])),
    found=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([b"1", b"2"])),
)
def test_a_comparison_says_what_differs(wanted: dict[str, bytes], found: dict[str, bytes]) -> None:
    files = tuple(File(name, Digest.of(data), 1) for name, data in sorted(wanted.items()))
    diff = compare(
        dataclasses.replace(manifest(), files=files), {name: Digest.of(data) for name, data in found.items()}
    )
    assert diff.whole == (wanted.items() <= found.items())
    assert set(diff.extra) == found.keys() - wanted.keys()
    assert set(diff.missing) == wanted.keys() - found.keys()
    assert set(diff.changed) == {n for n in wanted.keys() & found.keys() if wanted[n] != found[n]}
