"""Brotli copies of a bundle's files (RFC 7932), for web servers that hand them out as they are.

The same bytes and the same ``recipe`` give the same copy. The runtime's copies go into every bundle, so they
are kept below ``$SHIPWAY_CACHE``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from shipway.registry import files
from shipway.registry.nouns import Digest

CODE = 7  # of 11. ONNX Runtime's 14.2 MB: 2.73 MB in 0.5 s; 9 makes it 2.69 MB in 1.1 s, 11 2.30 MB in 26 s
WEIGHTS = 5  # PP-OCRv4 rec's 10.8 MB: 9.95 MB in 0.2 s; 9 gains 0.1 % more in 6 s
_WORTH = 0.97  # of the original's size: a copy that saves less is not worth its room
_CHUNK = 1 << 22  # bytes
_PIECE = 1 << 12  # bytes of a kept copy, unpacked at a time: larger ones would be held as what they unpack to
_WINDOW = 22  # bits: 4 MB to pack and to unpack; 24 takes four times that, for 0.01 to 0.3 % less


def recipe(quality: int) -> str:
    """What else shapes a copy: another release of the library may write other bytes."""
    import brotli

    return f"{quality}-{_WINDOW}-{brotli.__version__}"


def copy(content: bytes, quality: int, *, keep: bool = False) -> bytes | None:
    """``content`` compressed, or None where that saves too little. ``keep`` keeps it for other bundles."""
    import brotli

    kept = files.cache_folder("brotli") / f"{Digest.of(content).hex}-{recipe(quality)}.br"
    if keep:
        with contextlib.suppress(OSError, brotli.error):
            squeezed = kept.read_bytes()
            if _holds(squeezed, content):
                return squeezed
    squeezed = brotli.compress(content, quality=quality, lgwin=_WINDOW)
    if len(squeezed) > _WORTH * len(content):
        return None
    if keep:
        with contextlib.suppress(OSError):  # a help, never a need
            files.write_atomic(kept, squeezed)
    return bytes(squeezed)


def copy_file(source: Path, target: Path, quality: int) -> bool:
    """Compress ``source`` into ``target``, in bounded memory; the same bytes that ``copy`` gives.

    Returns whether it is worth its room. Raises OSError.
    """
    import brotli

    compressor = brotli.Compressor(quality=quality, lgwin=_WINDOW)
    with source.open("rb", buffering=0) as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            writer.write(compressor.process(chunk))
        writer.write(compressor.finish())
    return target.stat().st_size <= _WORTH * source.stat().st_size


def _holds(squeezed: bytes, content: bytes) -> bool:
    """Whether ``squeezed`` is ``content``, compared in pieces. Raises brotli.error where it is no Brotli."""
    import brotli

    decoder, expected, at = brotli.Decompressor(), memoryview(content), 0
    for start in range(0, len(squeezed), _PIECE):
        piece = decoder.process(squeezed[start : start + _PIECE])
        if expected[at : at + len(piece)] != piece:
            return False
        at += len(piece)
    return bool(decoder.is_finished()) and at == len(content)
