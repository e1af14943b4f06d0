"""Threads that have nothing to do take no processor time."""

from __future__ import annotations

import os

import pytest

from shipway.registry import threads


def test_children_and_numpy_are_told_to_sleep_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "26")
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT")
    threads.no_spinning()
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == "4"


def test_a_users_own_setting_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "20")
    threads.no_spinning()
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == "20"
