"""Paddle's files read byte by byte, without Paddle: is a program or a file of weights whole?"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path


def fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number and value, bytes for whatever has a length.

    Raises ValueError or IndexError where ``raw`` is no whole message
    (https://protobuf.dev/programming-guides/encoding/).
    """
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (0, 1, 2, 5):
            raise ValueError(f"no field at byte {at}")
        if kind == 0:
            value, at = _varint(raw, at)
            yield number, value
            continue
        length = 8 if kind == 1 else 4
        if kind == 2:
            length, at = _varint(raw, at)
        if at + length > len(raw):
            raise ValueError(f"the field at byte {at} ends behind the end")
        yield number, raw[at : at + length]
        at += length


def is_protobuf(raw: bytes) -> bool:
    """Whether ``raw`` is one whole message that is not empty."""
    try:
        return sum(1 for _ in fields(raw)) > 0
    except (ValueError, IndexError):
        return False


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


_SIZES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16}
"""Bytes of an element by Paddle's VarType.Type (paddle/phi/core/framework/framework.proto)."""


def first_broken_tensor(params: Path, size: int) -> str:
    """Why a ``.pdiparams`` file is not a sequence of whole tensors; empty where it is one.

    Each tensor is: u32 version, u64 levels, then for each level a u64 length and its bytes, u32 version,
    i32 length of a TensorDesc, the TensorDesc, the data
    (``SerializeToStream`` in paddle/phi/core/framework/dense_tensor_serialize.cc).
    """
    with params.open("rb") as stream:
        index = 0
        while stream.tell() < size:
            start = stream.tell()
            try:
                _, levels = struct.unpack("<IQ", stream.read(12))
                for _ in range(levels):
                    stream.seek(struct.unpack("<Q", stream.read(8))[0], 1)
                _, length = struct.unpack("<Ii", stream.read(8))
                data = _tensor_bytes(stream.read(length), length)
            except (struct.error, ValueError, IndexError, OverflowError, OSError):
                return f"What follows byte {start} is no tensor: truncated, or another kind of file."
            if stream.tell() + data > size:
                return (
                    f"It is truncated: tensor {index} needs {data} bytes from byte {stream.tell()} on, "
                    f"but the file ends at {size}."
                )
            stream.seek(data, 1)
            index += 1
    return ""


def _tensor_bytes(description: bytes, length: int) -> int:
    """Bytes of data that a TensorDesc (field 1: type, field 2: dims) announces."""
    if len(description) != length or length <= 0:
        raise ValueError("short")
    at, kind, elements = 0, -1, 1
    while at < length:
        key, at = _varint(description, at)
        if key == 0x08:
            kind, at = _varint(description, at)
        elif key == 0x10:
            dimension, at = _varint(description, at)
            elements *= dimension
        elif key == 0x12:
            end, at = _varint(description, at)
            end += at
            while at < end:
                dimension, at = _varint(description, at)
                elements *= dimension
        else:
            raise ValueError("unknown field")
    if kind not in _SIZES:
        raise ValueError("unknown type")
    return elements * _SIZES[kind]
