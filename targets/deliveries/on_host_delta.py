"""Following a recipe that makes a new file out of one that is held. Part of ``on_host``; both ends have it.

A recipe is a zlib stream of operations: a header (width, length, where in the base plus one) and, but for
copies (width 0), ``length`` bytes in blocks, each in planes: the first bytes of all elements, the second ones
and so on, then what is left over. They are XORed with the base, or stand for themselves where the header
names no place in it. Whatever they are, no more is written than was announced, and only some blocks are in
memory at a time.
"""

import hashlib
import io
import struct
import zlib
from typing import BinaryIO

BLOCK = 1 << 20  # bytes of an operation that are in planes together; a multiple of every width
HEADER = struct.Struct(">BQQ")
CHUNK = 1 << 18


class Recipe:
    """What a compressed recipe holds, in order. Raises ValueError where it ends too early or is damaged."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.inflater = zlib.decompressobj()

    def take(self, count: int) -> bytes:
        found = []
        while count:
            given = self.inflater.unconsumed_tail or self.stream.read(CHUNK)
            try:
                data = self.inflater.decompress(given, count)
            except zlib.error as error:
                raise ValueError("the recipe is damaged: %s" % error)
            if not data and (not given or self.inflater.eof):
                raise ValueError("the recipe ends too early")
            found.append(data)
            count -= len(data)
        return b"".join(found)


def follow(recipe: BinaryIO, base: BinaryIO, out: BinaryIO, size: int) -> str:
    """Write ``size`` bytes to ``out``; return their sha256. Raises ValueError for a recipe that is none."""
    source, digest, written = Recipe(recipe), hashlib.sha256(), 0
    end = base.seek(0, io.SEEK_END)
    while written < size:
        width, length, start = HEADER.unpack(source.take(HEADER.size))
        if width not in (0, 1, 2, 4, 8) or not 0 < length <= size - written or (start == 0 and width == 0):
            raise ValueError("the recipe has an operation that is none")
        if start:
            if start - 1 + length > end:
                raise ValueError("the recipe goes beyond its base")
            base.seek(start - 1)
        for block in range(0, length, BLOCK):
            count = min(BLOCK, length - block)
            data = unplaned(source.take(count), width) if width else b""
            if start:
                below = base.read(count)
                if len(below) != count:
                    raise ValueError("the base was cut while the recipe was followed")
                data = xor(data, below) if width else below
            digest.update(data)
            out.write(data)
        written += length
    return digest.hexdigest()


def xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "little") ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")


def planes(data: bytes, width: int) -> bytes:
    whole = len(data) - len(data) % width
    return b"".join([data[plane:whole:width] for plane in range(width)] + [data[whole:]])


def unplaned(data: bytes, width: int) -> bytes:
    """The opposite of ``planes``."""
    if width == 1:
        return data
    count = len(data) // width
    found = bytearray(data)
    for plane in range(width):
        found[plane : count * width : width] = data[plane * count : (plane + 1) * count]
    return bytes(found)
