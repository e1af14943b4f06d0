"""No conversion reaches the network, or leaves files outside its own folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.paddle, pytest.mark.real]

# A namespace whose only way out is a device that counts what is sent into it and drops it. IPv6 is off: its
# own announcements would be counted.
NAMESPACE = """
set -e
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up
{way_out}
"$@"
ip -json -stats link show > "$COUNTED"
"""
WAY_OUT = """
ip link add out type veth peer name far
ip link set far up
ip address add 10.77.0.1/24 dev out
ip link set out up
ip route add default via 10.77.0.254 dev out
ip neighbour add 10.77.0.254 lladdr 02:00:00:00:00:01 dev out
"""

REGISTER = """
import json, sys
from pathlib import Path
from shipway.registry.config.load import load_text
from shipway.registry.verbs.register import register
done = register(load_text("project: demo", Path(sys.argv[1])), Path(sys.argv[2]), "rec")
print(json.dumps([done.version.passed, done.version.extra["tried"]]))
"""
TALK = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"


def in_namespace(way_out: str, command: list[str], cwd: Path, env: dict[str, str]) -> tuple[str, int]:
    """Run a command in a network namespace of its own; what it printed, and the packets that it sent."""
    counted = cwd.parent / "counted.json"
    script = NAMESPACE.format(way_out=way_out)
    run = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", *command],
        cwd=cwd,
        env={**os.environ, **env, "COUNTED": str(counted)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    devices = {device["ifname"]: device["stats64"]["tx"] for device in json.loads(counted.read_text())}
    return run.stdout, sum(sent["packets"] for sent in devices.values())


def inventory(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_counter_counts(tmp_path: Path) -> None:
    """What the next test calls silence would be heard."""
    _, packets = in_namespace(WAY_OUT, [sys.executable, "-c", TALK], tmp_path, {})
    assert packets == 1


@pytest.mark.parametrize("way_out", ["", WAY_OUT], ids=["no route", "a route, watched"])
def test_a_registration_keeps_to_itself(ppocr_models: dict[str, Path], tmp_path: Path, way_out: str) -> None:
    folders = {name: tmp_path / name for name in ("home", "tmp", "work", "project", "cache")}
    for folder in folders.values():
        folder.mkdir()
    given = ppocr_models["rec"]
    before = inventory(given)
    env = {
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "SHIPWAY_CACHE": str(folders["cache"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-W", "ignore", "-c", REGISTER, str(folders["project"]), str(given)]
    said, packets = in_namespace(way_out, command, folders["work"], env)
    assert json.loads(said.splitlines()[-1]) == [True, []]
    assert packets == 0
    assert inventory(given) == before
    for name in ("home", "tmp", "work"):
        assert inventory(folders[name]) == [], name
    kept = inventory(folders["cache"])  # MLflow's empty tables, which no conversion made
    assert kept == [] or (kept[0] == "mlflow" and len(kept) == 2), kept
    assert [path.name for path in folders["project"].iterdir()] == [".shipway"]
