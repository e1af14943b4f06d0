"""Parts of a file are read into memory that is used again, and never while somebody still sends them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from shipway.registry.s3 import transfer

SIZE = 1000  # bytes of a piece


@pytest.mark.parametrize("length", [0, 1, SIZE, 3 * SIZE - 1, 40 * SIZE, 40 * SIZE + 1])
def test_pieces_are_the_file_however_long_each_is_under_way(tmp_path: Path, length: int) -> None:
    chance = random.Random(length)
    content = chance.randbytes(length)
    (tmp_path / "file").write_bytes(content)
    given: set[int] = set()

    def late(piece: bytearray, pause: float) -> bytes:
        time.sleep(pause)
        return bytes(piece)

    def jobs() -> Iterator[Callable[[], bytes]]:
        with (tmp_path / "file").open("rb") as stream:
            for piece in transfer._pieces(stream, SIZE):
                if len(piece) == SIZE:
                    given.add(id(piece))
                yield partial(late, piece, chance.uniform(0, 0.004))

    assert b"".join(transfer.in_order(jobs())) == content
    assert len(given) == min(length // SIZE, transfer.WORKERS + 2)  # that much memory, and no more
