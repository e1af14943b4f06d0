"""Models too large for one protobuf file: the graph stays light, its tensors' data stay in a file beside it.

Such a model is never held in memory as a whole by shipway itself: ranges of files are copied and hashed
(https://onnx.ai/onnx/repo-docs/ExternalData.html).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import onnx

from shipway.registry.convert import graph

LARGE = 1_500_000_000  # bytes: below it a model is kept in one file, with room under protobuf's 2 GB
_SMALL_TENSOR = 1024  # bytes: what is smaller stays in the graph
_ALIGN = 4096  # so that a runtime may map the data as it lies
_CHUNK = 16 << 20


def is_large(path: Path) -> bool:
    """Whether a model and its external data together are too much for one file."""
    size = path.stat().st_size
    if size < LARGE:
        size += sum(
            (path.parent / name).stat().st_size for name in graph.external_names(graph.load(path, data=False))
        )
    return size >= LARGE


def gather(model: onnx.ModelProto, base: Path, data: Path) -> None:
    """Copy the data of all tensors, which lie in files in ``base`` or in the model, into the file ``data``.

    ``model`` then refers to it by its name.
    """
    with Writer(data, base) as writer:
        for tensor in graph.tensors(model.graph):
            writer.put(tensor)


class Writer:
    """A file of tensor data that is being written. Use it as a context manager.

    ``base`` is the folder in which tensors that are put lie so far, where they are not in the model.
    """

    def __init__(self, data: Path, base: Path) -> None:
        self._name = data.name
        self._base = base
        self._out = data.open("xb")

    def put(self, tensor: onnx.TensorProto) -> None:
        """Append the data of ``tensor``, which refers to them from now on; small ones stay where they are."""
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if not external and len(tensor.raw_data) < _SMALL_TENSOR:
            return
        self._out.seek(-self._out.tell() % _ALIGN, 1)
        offset = self._out.tell()
        length = _copy(tensor, self._base, self._out.write)
        tensor.ClearField("raw_data")
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", self._name), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()


def whole(tensor: onnx.TensorProto, base: Path) -> onnx.TensorProto:
    """The tensor with its data in memory."""
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        copy.ClearField("external_data")
        copy.ClearField("data_location")
        copy.raw_data = b"".join(_chunks(tensor, base))
    return copy


def digest(tensor: onnx.TensorProto, base: Path) -> str:
    """The same name that ``graph`` gives to a tensor that holds its data itself."""
    found = hashlib.sha256(f"tensor {tensor.data_type} {list(tensor.dims)} ".encode())
    _copy(tensor, base, found.update)
    return found.hexdigest()


def _copy(tensor: onnx.TensorProto, base: Path, take: Callable[[bytes], object]) -> int:
    length = 0
    for chunk in _chunks(tensor, base):
        take(chunk)
        length += len(chunk)
    return length


def _chunks(tensor: onnx.TensorProto, base: Path) -> Iterator[bytes]:
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        yield tensor.raw_data
        return
    entry = {item.key: item.value for item in tensor.external_data}
    with (base / entry["location"]).open("rb") as stream:
        stream.seek(int(entry.get("offset", 0)))
        left = int(entry["length"]) if "length" in entry else _rest(stream)
        while left and (chunk := stream.read(min(left, _CHUNK))):
            left -= len(chunk)
            yield chunk


def _rest(stream: BinaryIO) -> int:
    at = stream.tell()
    return stream.seek(0, 2) - stream.seek(at)
