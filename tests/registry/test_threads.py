"""Threads that have nothing to do take no processor time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from shipway.registry import threads

IDLE = """
import time
from shipway.registry import threads
threads.no_spinning()
import numpy
others = 0.0
for _ in range(20):
    numpy.ones(1 << 20) @ numpy.ones(1 << 20)
    whole, own = time.process_time(), time.thread_time()
    time.sleep(0.02)
    others += time.process_time() - whole - (time.thread_time() - own)
print(others)
"""


def test_threads_of_numpy_sleep_as_soon_as_they_have_nothing_to_do() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_THREAD_TIMEOUT"}
    said = subprocess.check_output([sys.executable, "-c", IDLE], env=environment, text=True)
    assert float(said) < 0.1  # processor seconds of the others while this one slept for 0.4: all of them else


def test_a_users_own_setting_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "20")
    threads.no_spinning()
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == "20"
