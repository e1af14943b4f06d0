"""The golden slice: the small part of the golden set that travels with a version into every bundle.

``golden.json``: ``{"schema": 1, "cases": [{"inputs": [T], "outputs": [T]}]}`` where T is ``{"name", "dtype",
"shape", "file"}`` and, where they apply,

- ``"encoding": {"scale", "zero_point"}``: the file holds bytes q, the value is (q - zero_point) * scale in
  float32; scale is a power of two, so that the product is exact in every language;
- ``"stride": k``: the file holds elements 0, k, 2k, ... of the flattened tensor (outputs);
- ``"max_abs"``: the largest magnitude of the whole tensor (outputs).

Files lie beside it: little endian, C order, bool as one byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shipway.registry.nouns import Json
from shipway.registry.verify.parity import Array

MAX_ELEMENTS = 4096  # of an output that travels
_ENCODINGS = ((2.0**-7, 128), (1.0, 0))  # the made grid, and 8-bit images as they are


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the slice: ``values`` whole, or every ``stride``-th element, flattened, of ``shape``."""

    name: str
    values: Array
    shape: tuple[int, ...]
    stride: int = 1
    max_abs: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def write(
    folder: Path, inputs: Mapping[str, Array], names: Sequence[str], outputs: Sequence[Array]
) -> list[Path]:
    """Write one case into ``folder``; return the files, ``golden.json`` first. ``names`` are the outputs'."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def put(name: str, array: Array, extra: dict[str, Json], stored: Array) -> Json:
        path = folder / f"0-{len(written)}.bin"
        little = stored.dtype.newbyteorder("<")
        path.write_bytes(np.ascontiguousarray(stored, dtype=little).tobytes())
        written.append(path)
        return {
            "name": name,
            "dtype": str(array.dtype),
            "shape": list(array.shape),
            "file": path.name,
            **extra,
        }

    case = {
        "inputs": [put(name, array, *_encode(array)) for name, array in inputs.items()],
        "outputs": [put(name, array, *_thin(array)) for name, array in zip(names, outputs, strict=True)],
    }
    index = folder / "golden.json"
    document = {"schema": 1, "cases": [case]}
    index.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return [index, *written]


def read(folder: Path) -> list[Case]:
    """The cases of a slice. Raises ValueError where it is not one."""
    document = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    if document.get("schema") != 1:
        raise ValueError(f"golden.json of schema {document.get('schema')}")
    return [
        Case(
            tuple(_read(folder, entry) for entry in case["inputs"]),
            tuple(_read(folder, entry) for entry in case["outputs"]),
        )
        for case in document["cases"]
    ]


def _read(folder: Path, entry: Json) -> Tensor:
    raw = (folder / entry["file"]).read_bytes()
    dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
    encoding, stride = entry.get("encoding"), entry.get("stride", 1)
    stored = np.frombuffer(raw, np.uint8 if encoding else dtype.newbyteorder("<"))
    values: Array = stored.astype(dtype)
    if encoding:
        scale = np.float32(encoding["scale"])
        values = ((stored.astype(np.float32) - np.float32(encoding["zero_point"])) * scale).astype(dtype)
    if stride == 1:
        values = values.reshape(shape)
    return Tensor(entry["name"], values, shape, stride, entry.get("max_abs", 0.0))


def _encode(array: Array) -> tuple[dict[str, Json], Array]:
    if array.dtype == np.float32:
        for scale, zero in _ENCODINGS:
            q = array / np.float32(scale) + zero
            if array.size and np.array_equal(q, np.clip(np.rint(q), 0, 255)):
                return {"encoding": {"scale": scale, "zero_point": zero}}, q.astype(np.uint8)
    return {}, array


def _thin(array: Array) -> tuple[dict[str, Json], Array]:
    largest = float(np.abs(array.astype(np.float64)).max()) if array.size else 0.0
    stride = -(-array.size // MAX_ELEMENTS)
    if stride <= 1:
        return {"max_abs": largest}, array
    return {"max_abs": largest, "stride": stride}, array.ravel()[::stride]
