"""Tables of roll-outs in waves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.registry.deploy.waves import allowed_failures, batches, decide, waves


@pytest.mark.parametrize(
    ("hosts", "sizes", "expected"),
    [
        (8, [1, "25%", "100%"], [1, 2, 5]),
        (200, [1, "25%", "100%"], [1, 50, 149]),
        (3, [1, "25%", "100%"], [1, 1, 1]),
        (1, [1, "25%", "100%"], [1]),
        (10, [], [10]),
        (10, [3], [3, 3, 3, 1]),
        (10, [1, "50%"], [1, 5, 4]),
        (10, [50], [10]),
        (0, [1, "100%"], []),
        (3, ["34%"], [2, 1]),
        (300, ["7%", "100%"], [21, 279]),  # exactly 21: no rounding error makes it 22
    ],
)
def test_waves(hosts: int, sizes: list[int | str], expected: list[int]) -> None:
    assert [len(wave) for wave in waves(range(hosts), sizes)] == expected


@given(
    st.lists(st.integers(), unique=True, max_size=50),
    st.lists(st.one_of(st.integers(1, 60), st.integers(1, 100).map("{}%".format)), max_size=6),
)
def test_every_host_is_in_one_wave_in_order(hosts: list[int], sizes: list[int | str]) -> None:
    found = waves(hosts, sizes)
    assert [host for wave in found for host in wave] == hosts
    assert all(found)


@pytest.mark.parametrize(
    ("limit", "hosts", "tried", "failed", "decision"),
    [
        (0, 10, 10, 0, "go on"),
        (0, 10, 10, 1, "stop"),
        ("5%", 10, 10, 1, "stop"),
        ("5%", 200, 200, 10, "go on"),
        ("5%", 200, 200, 11, "stop"),
        (2, 200, 200, 2, "go on"),
        ("100%", 3, 3, 2, "go on"),
        ("100%", 3, 3, 3, "stop"),  # nobody is left
        ("5%", 200, 1, 1, "stop"),  # the first host of all
        ("5%", 200, 2, 1, "go on"),
    ],
)
def test_the_failure_limit(limit: int | str, hosts: int, tried: int, failed: int, decision: str) -> None:
    assert decide(failed, allowed_failures(limit, hosts), tried) == decision


@given(st.lists(st.integers(), max_size=50), st.integers(1, 40))
def test_batches_keep_every_host_and_their_order(hosts: list[int], most: int) -> None:
    found = list(batches(hosts, most))
    assert [host for batch in found for host in batch] == hosts
    assert all(0 < len(batch) <= most for batch in found)


@pytest.mark.parametrize("size", [0, -1, "0%"])
def test_a_wave_of_nobody_is_refused(size: int | str) -> None:
    with pytest.raises(ValueError, match="no end"):
        waves(range(3), [size])
