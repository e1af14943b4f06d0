"""No conversion reaches the network, or leaves files outside its own folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from shipway.registry.convert import environment, toolchains

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

SHIPWAY = [sys.executable, "-W", "ignore", str(Path(sys.executable).with_name("shipway"))]
CORPUS = Path(__file__).resolve().parents[2] / "corpus" / "make.py"
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


@dataclass(frozen=True)
class Case:
    """What is registered with which options, and what the answer says of how."""

    given: Path
    options: list[str]
    says: Callable[[dict[str, Any]], bool]
    config: str = ""


Make = Callable[[Path, Path, ModuleType], Case]


def pair(ocr: Path, _folder: Path, _draw: ModuleType) -> Case:
    return Case(ocr, [], lambda said: said["tried"] == [] and "paddle2onnx-2" in said["toolchain"])


def alone(ocr: Path, _folder: Path, _draw: ModuleType) -> Case:
    name = toolchains.ALONE.name
    return Case(ocr, ["--toolchain", name], lambda said: said["toolchain"] == name and said["tried"] == [])


def repaired(_ocr: Path, folder: Path, _draw: ModuleType) -> Case:
    name = "while-grow"
    command = [sys.executable, str(CORPUS), "--out", str(folder), "--only", name]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    [params] = folder.rglob("*.pdiparams")
    return Case(params.parent, [], lambda said: bool(said["repairs"]))


def int8(ocr: Path, folder: Path, draw: ModuleType) -> Case:
    for index, text in enumerate(draw.lines(2)):
        np.savez(folder / f"{index}.npz", x=draw.image(text, index, 5))
    config = "targets: {web: {kind: browser-wasm, precision: int8}}"
    return Case(ocr, ["--samples", str(folder)], lambda said: said["links"][-1]["to"] == "int8", config)


@pytest.mark.parametrize(
    ("make", "way_out"),
    [(pair, ""), (pair, WAY_OUT), (alone, WAY_OUT), (repaired, WAY_OUT), (int8, WAY_OUT)],
    ids=["no route", "a route, watched", "paddle2onnx 1.2.4", "a repaired .json", "int8 with samples"],
)
def test_a_registration_keeps_to_itself(
    ppocr_models: dict[str, Path], rendered: ModuleType, tmp_path: Path, make: Make, way_out: str
) -> None:
    folders = {name: tmp_path / name for name in ("home", "tmp", "work", "project", "cache", "made")}
    for folder in folders.values():
        folder.mkdir()
    case = make(ppocr_models["rec"], folders["made"], rendered)
    before = inventory(case.given), inventory(folders["made"])
    (folders["project"] / "deploy.yaml").write_text(f"project: demo\n{case.config}\n")
    prepared = environment.prepare(toolchains.ALONE.name).parent.parent  # once, while there is a network
    (folders["cache"] / "toolchains").symlink_to(prepared.parent)
    toolchain = inventory(prepared)
    env = {
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "SHIPWAY_CACHE": str(folders["cache"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    project = ["--json", "--config", str(folders["project"] / "deploy.yaml")]
    command = [*SHIPWAY, *project, "register", str(case.given), "--name", "rec", *case.options]
    answer, packets = in_namespace(way_out, command, folders["work"], env)
    said = json.loads(answer)
    assert said["created"]
    assert all(link["passed"] for link in said["links"])
    assert case.says(said), said
    assert packets == 0
    assert (inventory(case.given), inventory(folders["made"])) == before
    assert inventory(prepared) == toolchain
    for name in ("home", "tmp", "work"):
        assert inventory(folders[name]) == [], name
    kept = [name for name in inventory(folders["cache"]) if name != "toolchains"]
    assert kept == [] or (kept[0] == "mlflow" and len(kept) == 2), kept  # its empty tables, of no conversion
    assert sorted(path.name for path in folders["project"].iterdir()) == [".shipway", "deploy.yaml"]
