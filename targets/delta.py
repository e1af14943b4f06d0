"""What differs between two files of models, tensor by tensor, and a recipe that makes one out of the other.

Tensors are matched by name, then by what is in them, then by their place. Equal ones are copied from the
base; others of the same length are XORed with it and the bytes of their numbers sorted by significance, as
signs and exponents hardly differ after a fine-tune. A file that is no ONNX model, but as long as its base, is
held against it block by block: external data and ORT files of one network lie in the same order.

A recipe is a zlib stream of operations, each a header and, but for copies, as many bytes as it makes: see
``on_host_delta``, which follows it. The strategy is Z_RLE: planes of numbers hold no repeated strings, and
looking for them costs time and gains nothing (docs/adr/0009-delta.md has the figures).
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shipway.registry.nouns import Digest
from shipway.targets import onnx_wire
from shipway.targets.deliveries.on_host_delta import BLOCK, HEADER, planes, xor
from shipway.targets.onnx_wire import Data

_LEAST = 64  # bytes: data of smaller tensors count as structure
_ALIKE = 1 << 16  # bytes of a block of files that are no ONNX models


@dataclass(frozen=True, slots=True)
class Copy:
    """Take ``length`` bytes of the base, from ``base`` on."""

    length: int
    base: int


@dataclass(frozen=True, slots=True)
class Xor:
    """The same, XORed with bytes of the recipe that lie in planes of elements of ``width`` bytes."""

    length: int
    base: int
    width: int


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes of the recipe alone, in planes as well."""

    length: int
    width: int


Op = Copy | Xor | Literal


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """A file's bytes, read as they are needed. Raises OSError."""
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            yield memoryview(b"")
            return
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as found, memoryview(found) as view:
            yield view


def compare(base: memoryview, new: memoryview) -> list[Op]:
    """What to do, in order, so that ``base`` becomes ``new``: one operation for each run of bytes."""
    ops: list[Op] = []
    at = here = 0  # how far we are in ``new``; what follows in ``base`` upon that
    for data, twin in _twins(base, new):
        ops += _structure(base, here, new, at, data.start)
        at = data.end
        if twin is None:
            ops.append(Literal(data.size, data.width))
            continue
        here = twin.end
        if twin.size != data.size:
            ops.append(Literal(data.size, data.width))
        elif _equal(base, twin.start, new, data.start, data.size):
            ops.append(Copy(data.size, twin.start))
        else:
            ops.append(Xor(data.size, twin.start, data.width))
    ops += _structure(base, here, new, at, len(new))
    return _joined(ops)


def write(base: memoryview, new: memoryview, out: BinaryIO, most: int) -> Digest | None:
    """Write the recipe to ``out``; return its digest, or None as soon as it has more than ``most`` bytes."""
    packer = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    digest, written = hashlib.sha256(), 0
    for piece in _pieces(base, new):
        packed = packer.compress(piece) if piece else packer.flush()
        digest.update(packed)
        written += out.write(packed)
        if written > most:
            return None
    return Digest(digest.hexdigest())


def _pieces(base: memoryview, new: memoryview) -> Iterator[bytes]:
    """The recipe before it is compressed; after it, nothing."""
    at = 0
    for op in compare(base, new):
        width = 0 if isinstance(op, Copy) else op.width
        yield HEADER.pack(width, op.length, op.base + 1 if not isinstance(op, Literal) else 0)
        for start in range(0, op.length if width else 0, BLOCK):
            length = min(BLOCK, op.length - start)
            block = bytes(new[at + start : at + start + length])
            if isinstance(op, Xor):
                block = xor(block, bytes(base[op.base + start : op.base + start + length]))
            yield planes(block, width)
        at += op.length
    yield b""


def _twins(base: memoryview, new: memoryview) -> Iterator[tuple[Data, Data | None]]:
    """Each run of data in ``new`` with what it is held against; only names may match at another length."""
    old, young = _runs(base), _runs(new)
    if old is None and young is None and len(base) == len(new):
        blocks = [Data("", 4, start, min(start + _ALIKE, len(new))) for start in range(0, len(new), _ALIKE)]
        yield from zip(blocks, blocks, strict=True)
        return
    yield from _matched(base, old or [], new, young or [])


def _runs(view: memoryview) -> list[Data] | None:
    """The tensors of a model; None for what is none."""
    try:
        found = onnx_wire.tensors(view)
    except ValueError:
        return None
    return [data for data in found if data.size >= _LEAST] if found else None


def _matched(
    base: memoryview, old: Sequence[Data], new: memoryview, young: Sequence[Data]
) -> Iterator[tuple[Data, Data | None]]:
    named = {data.name: data for data in old}
    found = {}
    for number, data in enumerate(young):
        twin = named.get(data.name)
        if twin and twin.size == data.size and _equal(base, twin.start, new, data.start, data.size):
            found[number] = twin
    lengths = {data.size for number, data in enumerate(young) if number not in found}
    contents = {_content(base, data): data for data in old if data.size in lengths}
    taken = set(found.values())
    for number, data in enumerate(young):
        if number not in found:
            twin = contents.get(_content(new, data)) or named.get(data.name)
            if twin and twin.size == data.size:
                found[number] = twin
                taken.add(twin)
    spare: dict[tuple[int, int], list[Data]] = {}
    for data in reversed(old):
        if data not in taken:
            spare.setdefault((data.size, data.width), []).append(data)
    for number, data in enumerate(young):
        alike = spare.get((data.size, data.width))
        yield data, found.get(number) or (alike.pop() if alike else named.get(data.name))


def _content(view: memoryview, data: Data) -> bytes:
    return hashlib.sha256(view[data.start : data.end]).digest()


def _equal(base: memoryview, here: int, new: memoryview, at: int, length: int) -> bool:
    if here + length > len(base):
        return False
    return all(
        bytes(base[here + start : here + min(start + BLOCK, length)])
        == bytes(new[at + start : at + min(start + BLOCK, length)])
        for start in range(0, length, BLOCK)
    )


def _structure(base: memoryview, here: int, new: memoryview, at: int, end: int) -> list[Op]:
    """The bytes between two tensors: copied where the base has the same after the first of them."""
    if at == end:
        return []
    if _equal(base, here, new, at, end - at):
        return [Copy(end - at, here)]
    return [Literal(end - at, 1)]


def _joined(ops: Sequence[Op]) -> list[Op]:
    """Neighbours that go on where the one before ended, as one."""
    found: list[Op] = []
    for op in ops:
        last = found[-1] if found else None
        if isinstance(op, Copy) and isinstance(last, Copy) and last.base + last.length == op.base:
            found[-1] = Copy(last.length + op.length, last.base)
        elif (
            isinstance(op, Xor)
            and isinstance(last, Xor)
            and (last.base + last.length, last.width) == (op.base, op.width)
            and last.length % op.width == 0
        ):
            found[-1] = Xor(last.length + op.length, last.base, last.width)
        else:
            found.append(op)
    return found
