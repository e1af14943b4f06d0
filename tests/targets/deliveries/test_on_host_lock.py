"""The helper's lock on a destination, and where the helper may work at all. No SSH is needed for that."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shipway.targets.deliveries import on_host_place
from shipway.targets.deliveries.on_host_place import Place, Refused


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Processes that were to be killed; none is."""
    found: list[int] = []
    monkeypatch.setattr(on_host_place, "LOCK_S", 0.1)
    monkeypatch.setattr(os, "kill", lambda pid, _: found.append(pid))
    return found


def locked_by_a_stranger(place: Place) -> int:
    """The lock, held by a program that writes nothing into it (flock(1), a backup)."""
    Path(place.hidden).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{place.hidden}/lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_stranger_with_the_lock_is_not_taken_for_us(tmp_path: Path, killed: list[int]) -> None:
    place = Place(str(tmp_path), "token")
    place.hold()
    place.let_go()
    stranger = locked_by_a_stranger(place)
    with pytest.raises(Refused) as caught:
        place.hold()
    os.close(stranger)
    assert caught.value.answer["error"] == "busy"
    assert killed == []
    place.hold()
    place.let_go()


def test_a_helper_of_ours_that_is_cut_off_is_ended(tmp_path: Path, killed: list[int]) -> None:
    cut_off, place = Place(str(tmp_path), "token"), Place(str(tmp_path), "token")
    cut_off.hold()
    with pytest.raises(Refused):  # as it does not end here; one that can't be ended holds up nobody for ever
        place.hold()
    assert set(killed) == {os.getpid()}
    cut_off.let_go()


def test_one_that_ended_by_itself_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_host_place, "LOCK_S", 0.1)
    place = Place(str(tmp_path), "token")
    stranger = locked_by_a_stranger(place)
    gone = subprocess.Popen(["true"])
    gone.wait()
    os.write(stranger, f"{gone.pid} token\n".encode())
    with pytest.raises(Refused) as caught:
        place.hold()
    os.close(stranger)
    assert caught.value.answer["error"] == "busy"


def test_a_home_that_nobody_has_is_refused(tmp_path: Path) -> None:
    """And not looked for upwards for ever, nor made in the folder where the login happens to begin."""
    start = "from shipway.targets.deliveries import on_host; on_host.main('~nobody-has-this-name/x', 't')"
    asked = [
        {"do": "preflight", "argv": ["python3", "-"], "program": "print(1)", "timeout": 5},
        {"do": "stage", "release": "r", "files": []},
    ]
    finished = subprocess.run(
        [sys.executable, "-c", start],
        input="".join(json.dumps(request) + "\n" for request in asked),
        capture_output=True,
        cwd=tmp_path,
        text=True,
        timeout=60,
        check=True,
    )
    answers = [json.loads(line) for line in finished.stdout.splitlines()[1:]]
    assert [(answer["error"], answer["path"]) for answer in answers] == [
        ("os", "~nobody-has-this-name/x")
    ] * 2
    assert list(tmp_path.iterdir()) == []
