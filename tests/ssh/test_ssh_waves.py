"""200 hosts in waves: four real sshd processes on 200 loopback addresses, and a folder for each host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import fleet_runner
import pytest
import ssh_project
from ports import free_port
from ssh_hosts import USER, Host, running, small_disk

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import Json
from shipway.targets.deliveries.base import AT_ONCE
from shipway.targets.manifest import MANIFEST, Manifest

pytestmark = pytest.mark.real

HOSTS, SSHDS = 200, 4
REFUSING = (30, 70, 110, 150)  # nothing listens there
BROKEN = (5, 9, 100)  # the gate fails; two of them are in the second wave
FULL, READ_ONLY = (60, 120), (180,)
MEMORY = 24 << 20  # bytes; the 180 hosts more are sent 180 MB


@pytest.fixture(scope="module")
def sshds(tmp_path_factory: pytest.TempPathFactory, client_key: Path) -> Iterator[list[Host]]:
    folder = tmp_path_factory.mktemp("sshds")
    with ExitStack() as stack:
        yield [
            stack.enter_context(running(folder / str(number), client_key, more="ListenAddress 0.0.0.0"))
            for number in range(SSHDS)
        ]


def names_of(sshds: Sequence[Host], hosts: int, refusing: Sequence[int] = ()) -> list[str]:
    """A loopback address and a port for each host."""
    closed = free_port()
    return [
        f"127.0.{10 + number // 100}.{number % 100 + 1}:"
        f"{closed if number in refusing else sshds[number % len(sshds)].port}"
        for number in range(hosts)
    ]


def fleet(root: Path, sshds: Sequence[Host], names: Sequence[str], key: Path) -> Project:
    """A project whose hosts all have version 1 live: one got it, the others are copies of that one."""
    project = ssh_project.write_project(root, USER, [names[0]])
    keys = {str(host.port): host.host_key for host in sshds}
    known = []
    for name in names:
        address, _, port = name.partition(":")
        known.append(f"[{address}]:{port} {keys.get(port, sshds[0].host_key)}\n")
    (root / "known_hosts").write_text("".join(known))
    shutil.copy(key, root / "key")
    assert run(root, 1)["error"] is None
    for name in names[1:]:
        shutil.copytree(root / "hosts" / names[0], root / "hosts" / name, symlinks=True, dirs_exist_ok=True)
    return project


def configure(root: Path, names: Sequence[str], failures: int | str) -> None:
    ssh_project.write_project(root, USER, names, more=f"waves: [1, 10%, 100%]\n      failures: {failures}")


def run(root: Path, version: int) -> Json:
    done = subprocess.run(
        [sys.executable, fleet_runner.__file__, root, str(version)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "SHIPWAY_MIRROR": "off"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def versions(root: Path, names: Sequence[str]) -> dict[str, int]:
    """What the hosts' own disks say is live."""
    links = {name: root / "hosts" / name / "current" / MANIFEST for name in names}
    return {name: Manifest.from_bytes(link.read_bytes()).version for name, link in links.items()}


def untouched(root: Path, names: Sequence[str]) -> dict[str, int]:
    """When anything in the hosts' folders last changed."""
    return {
        name: max(path.lstat().st_ctime_ns for path in [at, *at.rglob("*")])
        for name in names
        for at in [root / "hosts" / name]
    }


def test_200_hosts_in_waves_of_which_ten_fail(
    sshds: list[Host], client_key: Path, tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    root = tmp_path / "fleet"
    names = names_of(sshds, HOSTS, REFUSING)
    bad = {
        kind: [names[at] for at in which]
        for kind, which in {
            "refusing": REFUSING,
            "broken": BROKEN,
            "full": FULL,
            "read-only": READ_ONLY,
        }.items()
    }
    with ExitStack() as stack:
        for name in bad["full"] + bad["read-only"]:
            stack.enter_context(small_disk(root / "hosts" / name, "1m" if name in bad["full"] else "8m"))
        project = fleet(root, sshds, names, client_key)
        for name in bad["broken"]:
            (root / "hosts" / name / "broken").touch()
        for name in bad["read-only"]:
            subprocess.run(["mount", "-o", "remount,ro", root / "hosts" / name], check=True)

        # Five may fail. Four do not answer, and two fail in the second wave: that is one too many.
        configure(root, names, failures=5)
        later = names[21:]  # the waves are 1, 20 and 175 of the 196 that answer; all of the first 21 do
        before = untouched(root, later)
        stopped = run(root, 2)
        assert stopped["error"]["what"].startswith("6 of 200 hosts failed: ")
        assert set(stopped["error"]["what"].partition(": ")[2].rstrip(".").split(", ")) == {
            *bad["refusing"],
            *bad["broken"][:2],
        }
        assert versions(root, names) == dict.fromkeys(names, 1)
        assert untouched(root, later) == before
        (event, *_) = Ledger(project.store.objects).events(Site(project, "prod").places[0])
        assert (event.started.serial, event.outcome) == (2, "failed")

        # A tenth may fail: ten do, each in its way, and the others go on.
        configure(root, names, failures="10%")
        done = run(root, 2)
        assert done["error"] is None
        (deployment,) = done["deployments"]
        assert (deployment["outcome"], deployment["serial"]) == ("live", 3)
        outcomes = {host["host"]: host["outcome"] for host in deployment["hosts"]}
        wrong = [name for names in bad.values() for name in names]
        assert outcomes == {
            **dict.fromkeys(names, "live"),
            **dict.fromkeys(wrong, "failed"),
            **dict.fromkeys(bad["refusing"], "unreachable"),
        }
        why = {host["host"]: host["detail"] for host in deployment["hosts"]}
        for kind, text in (("broken", "golden check"), ("full", "no room"), ("read-only", "can't be used")):
            assert all(text in why[name] for name in bad[kind])
        assert versions(root, names) == {
            **dict.fromkeys(names, 2),
            **dict.fromkeys(wrong, 1),
        }
        assert "190 of 200 hosts serve it" in done["page"]
        listed = [line.split()[0] for line in done["page"].splitlines() if line.startswith("127.")]
        assert sorted(listed) == sorted(wrong)
        status = done["status"]
        assert status["healthy"]
        assert [name for name, host in status["hosts"].items() if host["problem"]] == [
            name for name in names if name in wrong
        ]
    record_counts("hosts of a fleet in waves", HOSTS)
    record_counts("hosts of a fleet that failed", len(wrong))

    # Ten times the hosts: more names, outcomes and steps, but not more connections, and no file in memory.
    small = tmp_path / "small"
    few = names_of(sshds, HOSTS // 10)
    fleet(small, sshds, few, client_key)
    configure(small, few, failures="10%")
    alone = run(small, 2)
    assert alone["deployments"][0]["outcome"] == "live"
    print(f"peak memory: {alone['peak'] >> 20} MiB with 20 hosts, {done['peak'] >> 20} MiB with 200")
    assert (alone["connections"], done["connections"]) == (20, AT_ONCE)
    assert deployment["bytes_sent"] > 165_000_000  # 169 hosts of the last wave; the others had it
    assert done["peak"] - alone["peak"] < MEMORY
