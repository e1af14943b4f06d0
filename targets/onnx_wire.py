"""What an ONNX file is made of, read from its bytes: deploying a bundle must not need the onnx package.

Operators by domain, and where the data of tensors lie. Only what counts is followed; weights are stepped
over. Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, the encoding is
protobuf's
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_OPSETS, _GRAPH, _FUNCTIONS = 8, 7, 25  # ModelProto
_FUNCTION_NODES = 7
_NODES, _INITIALIZERS, _SPARSE_INITIALIZERS = 1, 5, 15  # GraphProto
_OUTPUTS, _OP_TYPE, _ATTRIBUTES, _DOMAIN = 2, 4, 5, 7  # NodeProto
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS, _SPARSE, _SPARSES = 5, 6, 10, 11, 22, 23  # AttributeProto
_SPARSE_PARTS = (1, 2)  # SparseTensorProto: values, indices
_DATA_TYPE, _NAME, _RAW_DATA = 2, 8, 9  # TensorProto
_WIDTHS = {4: 4, 5: 1, 7: 1, 10: 8, 11: 1}  # bytes an element of float_data ... uint64_data; varints: 1
# Of raw_data, by TensorProto.DataType; those that are not here have one byte, or less.
_RAW_WIDTHS = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 14: 4, 15: 8, 16: 2}

DEFAULT_DOMAIN = "ai.onnx"


@dataclass(frozen=True, slots=True)
class Data:
    """The bytes of one tensor in a file: from ``start`` to ``end``, in elements of ``width`` bytes."""

    name: str
    width: int
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def tensors(view: memoryview) -> list[Data]:
    """Where the data of all tensors lie, in the file's order; those in subgraphs included.

    A constant without a name is called after its node's output. Raises ValueError where it is no ONNX model.
    """
    try:
        found: list[Data] = []
        for number, start, end in _fields(view, 0, len(view)):
            if number == _GRAPH:
                found += _data_of_graph(view, start, end)
        return sorted(found, key=lambda data: data.start)
    except (IndexError, RecursionError) as error:
        raise ValueError(f"no ONNX model: {error}") from error


def _data_of_graph(view: memoryview, start: int, end: int) -> Iterator[Data]:
    for number, first, last in _fields(view, start, end):
        if number == _INITIALIZERS:
            yield from _data(view, first, last, "")
        elif number == _SPARSE_INITIALIZERS:
            yield from _sparse(view, first, last, "")
        elif number == _NODES:
            yield from _data_of_node(view, first, last)


def _data_of_node(view: memoryview, start: int, end: int) -> Iterator[Data]:
    output = ""
    for number, first, last in _fields(view, start, end):
        if number == _OUTPUTS:
            output = str(view[first:last], "utf-8")
        elif number == _ATTRIBUTES:
            for inner, begin, stop in _fields(view, first, last):
                if inner in (_TENSOR, _TENSORS):
                    yield from _data(view, begin, stop, output)
                elif inner in (_SPARSE, _SPARSES):
                    yield from _sparse(view, begin, stop, output)
                elif inner in (_SUBGRAPH, _SUBGRAPHS):
                    yield from _data_of_graph(view, begin, stop)


def _sparse(view: memoryview, start: int, end: int, name: str) -> Iterator[Data]:
    for number, first, last in _fields(view, start, end):
        if number in _SPARSE_PARTS:
            yield from _data(view, first, last, name)


def _data(view: memoryview, start: int, end: int, name: str) -> Iterator[Data]:
    kind, places = 0, []
    for number, first, last in _fields(view, start, end):
        if number == _DATA_TYPE:
            kind, _ = _varint(view, first)
        elif number == _NAME:
            name = str(view[first:last], "utf-8") or name
        elif number == _RAW_DATA or number in _WIDTHS:
            places.append((number, first, last))
    for number, first, last in places:
        width = _RAW_WIDTHS.get(kind, 1) if number == _RAW_DATA else _WIDTHS[number]
        yield Data(name, width, first, last)


def operators(graph: Path) -> dict[tuple[str, int], list[str]]:
    """Sorted names of operators by (domain, opset), subgraphs and functions included.

    Raises ValueError where the file is no ONNX model.
    """
    with graph.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            return _model(view)
        except IndexError as error:
            raise ValueError(f"{graph.name} is no ONNX model: it ends too early") from error
        finally:
            view.release()


def _model(view: memoryview) -> dict[tuple[str, int], list[str]]:
    opsets: dict[str, int] = {}
    used: set[tuple[str, str]] = set()
    for number, start, end in _fields(view, 0, len(view)):
        if number == _OPSETS:
            domain, version = _opset(view, start, end)
            opsets[domain] = version
        elif number == _GRAPH:
            used.update(_graph(view, start, end, _NODES))
        elif number == _FUNCTIONS:
            used.update(_graph(view, start, end, _FUNCTION_NODES))
    found: dict[tuple[str, int], list[str]] = {}
    for domain, name in sorted(used):
        if domain not in opsets:
            raise ValueError(f"the model uses {domain}::{name} and imports no such domain")
        found.setdefault((domain, opsets[domain]), []).append(name)
    return found


def _opset(view: memoryview, start: int, end: int) -> tuple[str, int]:
    domain, version = "", 0
    for number, first, last in _fields(view, start, end):
        if number == 1:
            domain = str(view[first:last], "utf-8")
        elif number == 2:
            version, _ = _varint(view, first)
    return domain or DEFAULT_DOMAIN, version


def _graph(view: memoryview, start: int, end: int, nodes: int) -> Iterator[tuple[str, str]]:
    for number, first, last in _fields(view, start, end):
        if number == nodes:
            yield from _node(view, first, last)


def _node(view: memoryview, start: int, end: int) -> Iterator[tuple[str, str]]:
    name, domain = "", ""
    for number, first, last in _fields(view, start, end):
        if number == _OP_TYPE:
            name = str(view[first:last], "utf-8")
        elif number == _DOMAIN:
            domain = str(view[first:last], "utf-8")
        elif number == _ATTRIBUTES:
            for inner, begin, stop in _fields(view, first, last):
                if inner in (_SUBGRAPH, _SUBGRAPHS):
                    yield from _graph(view, begin, stop, _NODES)
    yield domain or DEFAULT_DOMAIN, name


def _fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each field's number and where its content lies (of a varint: where it starts)."""
    at = start
    while at < end:
        key, at = _varint(view, at)
        kind = key & 7
        if kind == _BYTES:
            size, at = _varint(view, at)
            first, at = at, at + size
        elif kind == _VARINT:
            first = at
            _, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            first, at = at, at + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"no ONNX model: wire type {kind}")
        if at > end:
            raise ValueError("no ONNX model: a field is longer than what holds it")
        yield key >> 3, first, at


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
