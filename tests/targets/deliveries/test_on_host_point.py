"""What is live on a host is replaced only where it is what the command saw there. No SSH is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shipway.targets.deliveries.on_host import Host
from shipway.targets.deliveries.on_host_place import Refused
from shipway.targets.deliveries.on_host_wire import Wire


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """With a release ``r``."""
    (tmp_path / "releases/r").mkdir(parents=True)
    (tmp_path / "releases/r/bundle.json").write_text(json.dumps({"files": [], "executables": []}))
    return Host(str(tmp_path), Wire(), "token")


def live(host: Host, serial: int, seen: dict[str, Any] | None) -> dict[str, Any]:
    """Point at ``r`` as a deployment of that serial; the pointer."""
    pointer = {"release": "r", "serial": serial}
    try:
        host.do_point(pointer, seen)
    finally:
        host.let_go()
    return pointer


def test_who_saw_something_else_changes_nothing(host: Host) -> None:
    first = live(host, 1, None)
    second = live(host, 2, first)
    for seen in (None, first):
        with pytest.raises(Refused) as caught:
            live(host, 3, seen)
        assert caught.value.answer == {"error": "changed"}
        assert host.pointer() == second
    assert host.link() is not None
    assert [path.name[:2] for path in sorted(Path(host.live).iterdir())] == ["1-", "2-"]


def test_asked_once_more_after_a_cut_it_is_done(host: Host) -> None:
    first = live(host, 1, None)
    second = live(host, 2, first)
    assert live(host, 2, first) == host.pointer() == second
    host.do_undo(second)
    host.let_go()
    assert host.pointer() == first


def test_a_pointer_that_nobody_can_read_is_replaced_as_if_there_were_none(host: Host) -> None:
    live(host, 1, None)
    (path,) = Path(host.live).glob("1-*/pointer.json")
    path.write_text("{")
    assert live(host, 2, None) == host.pointer()
