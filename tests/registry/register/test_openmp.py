"""Paddle runs on a system that lacks GNU OpenMP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shipway.registry.convert import openmp


def test_a_system_that_has_the_library_is_left_alone(tmp_path: Path) -> None:
    assert openmp.environment(tmp_path, loads=lambda name: name == "libgomp.so.1") == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.paddle
def test_paddles_own_openmp_stands_in(tmp_path: Path) -> None:
    added = openmp.environment(tmp_path, loads=lambda name: False)
    assert added["LD_LIBRARY_PATH"].split(":")[0] == str(tmp_path)
    program = (
        "import paddle.inference\n"
        "maps = open('/proc/self/maps').read()\n"
        "total = float((paddle.ones([9, 9]) @ paddle.ones([9, 9])).sum())\n"
        "print('libgomp' in maps, 'libiomp5' in maps, total)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, **added},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-3:] == ["False", "True", "729.0"]
