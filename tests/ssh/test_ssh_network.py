"""Bad networks and dying hosts, at every moment there is: what is live is whole, and a next try ends it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ssh_project
from deploy_scene import assert_ledger_is_sound, assert_live_is_whole, bundle, put_live
from host_moments import Moments
from ssh_hosts import USER, Host, Wire, descendants, network, running
from ssh_scene import HASTE, Connected, Shelf, assert_tidy, assert_whole, deploy, noise, pointer

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.registry.errors import DeliveryError
from shipway.targets.deliveries.ssh_address import Address, Patience, SshOptions
from shipway.targets.steps import Release

pytestmark = pytest.mark.real
SIZE = 20_000_000
LOST = 3_000_000  # bytes under way that a cut may cost: what SSH and the sockets buffer
ONCE = replace(HASTE, attempts=1)
Counts = Callable[[str, int], None]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@pytest.fixture
def reach(shelf: Shelf, tmp_path: Path, client_key: Path) -> Callable[..., Connected]:
    """Connects to a host, through a wire where one is given."""

    def connect(host: Host, wire: Wire | None = None, patience: Patience = HASTE) -> Connected:
        known = tmp_path / "known_hosts"
        known.write_text(host.known() + (host.known(wire.port) if wire else ""))
        address = replace(Address.parse(host.url), port=wire.port if wire else host.port)
        return Connected(address, shelf.fetch, SshOptions(known, (client_key,)), patience)

    return connect


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def live(root: Path, *releases: Release) -> int:
    """Which of the releases ``current`` leads to, read from the host's disk; it must be whole."""
    home = (root / "current").resolve(strict=True)
    (found,) = [release for release in releases if release.id == home.name]
    assert_whole(root, found)
    return found.manifest.version


# the network


def test_an_upload_cut_anywhere_goes_on_and_sends_nothing_twice(
    host: Host, shelf: Shelf, reach: Callable[..., Connected], record_counts: Counts
) -> None:
    offsets = range(50_000, SIZE, SIZE // 16)
    for offset in offsets:
        release = shelf.bundle(1, {"weights.bin": noise(SIZE, offset)})
        with Wire(host.port, cuts=[offset]) as wire, reach(host, wire) as delivery:
            deploy(delivery, release, 1)
            assert wire.connections == 2
            assert wire.sent < SIZE + LOST
        assert live(host.root, release) == 1
        assert_tidy(host.root)
        shutil.rmtree(host.root)
    record_counts("uploads over SSH that were cut and went on", len(offsets))


def test_every_answer_of_a_deployment_may_get_lost(
    host: Host, shelf: Shelf, reach: Callable[..., Connected], record_counts: Counts
) -> None:
    """The host has done what it was asked, and the connection ends before it can say so."""
    first = shelf.bundle(1)
    second = shelf.bundle(2, {"weights.bin": noise(300_000)})
    lost = 0
    for number in range(1000):
        with reach(host) as delivery:
            deploy(delivery, first, 1)
        with Wire(host.port, loses=[number]) as wire, reach(host, wire) as delivery:
            try:
                deploy(delivery, second, 2)
            except DeliveryError:  # the first connection never stood: then nobody tries twice
                assert live(host.root, first, second) == 1
                deploy(delivery, second, 2)
            if wire.connections == 1:
                break
        lost += 1
        assert live(host.root, first, second) == 2
        assert_tidy(host.root)
        shutil.rmtree(host.root)
    record_counts("answers over SSH that were lost", lost)
    assert lost > 12


def test_a_slow_line_with_delay(host: Host, shelf: Shelf, reach: Callable[..., Connected]) -> None:
    release = shelf.bundle(1, {"weights.bin": noise(400_000)})
    with Wire(host.port, delay=0.15) as wire, reach(host, wire) as delivery:
        deploy(delivery, release, 1)
        assert wire.connections == 1
    assert live(host.root, release) == 1


def test_a_thin_line_that_is_unplugged_for_a_while(
    shelf: Shelf, tmp_path: Path, client_key: Path, reach: Callable[..., Connected]
) -> None:
    """4 Mbit/s by ``tc tbf``: longer than anybody is silent for; then the link is down for some seconds."""
    name = f"shipway-{os.getpid() % 10000}-t"
    release = shelf.bundle(1, {"weights.bin": noise(3_000_000)})
    patient = replace(HASTE, attempts=60, pause=0.1, longest_pause=0.2, silence=5.0)
    with (
        network([name], "10.214") as addresses,
        running(tmp_path / "sshd", client_key, listen=addresses[name], port=2222, namespace=name) as host,
    ):
        here = f"v{name[-8:]}h"
        shape = f"tc qdisc add dev {here} root tbf rate 4mbit burst 16kbit latency 500ms"
        subprocess.run(shape.split(), check=True)
        seen: list[int] = []

        def unplug() -> None:
            uploads = host.root / ".shipway/uploads"
            wait_for(lambda: any(path.stat().st_size > 500_000 for path in uploads.glob("*.part")))
            (part,) = uploads.glob("*.part")
            subprocess.run(["ip", "link", "set", here, "down"], check=True)
            seen.append(part.stat().st_size)
            wait_for(lambda: not delivery.session._link.is_open)  # given up
            subprocess.run(["ip", "link", "set", here, "up"], check=True)

        thread = threading.Thread(target=unplug)
        with reach(host, patience=patient) as delivery:
            thread.start()
            deploy(delivery, release, 1)
            assert delivery.session.traffic.connections == 2
            assert delivery.session.traffic.sent < 3_000_000 + LOST
        thread.join()
        assert 0 < seen[0] < 3_000_000
        assert live(host.root, release) == 1


# the host


@pytest.fixture
def moments(tmp_path: Path) -> Moments:
    return Moments(tmp_path / "moments")


@pytest.fixture
def fragile(tmp_path: Path, client_key: Path, moments: Moments) -> Iterator[Host]:
    """A host whose helper dies when told to."""
    with running(tmp_path / "fragile", client_key, more=moments.sshd_config) as host:
        yield host


@pytest.mark.parametrize("work", ["promote", "rollback"])
def test_the_helper_is_killed_before_each_change_on_the_host(
    work: str,
    fragile: Host,
    moments: Moments,
    shelf: Shelf,
    reach: Callable[..., Connected],
    record_counts: Counts,
) -> None:
    first, second = shelf.bundle(1), shelf.bundle(2, {"weights.bin": noise(100_000), "deep/er": b"deep"})
    old, new = (first, second) if work == "promote" else (second, first)
    with reach(fragile) as delivery:
        for serial, release in enumerate([new, old] if work == "rollback" else [old], 1):
            deploy(delivery, release, serial)
    prepared = fragile.root.with_name("prepared")
    fragile.root.rename(prepared)
    for killed in range(1000):
        shutil.copytree(prepared, fragile.root, symlinks=True)
        moments.kill_at(killed)
        with contextlib.suppress(DeliveryError), reach(fragile, patience=ONCE) as delivery:
            deploy(delivery, new, 9)
        if not moments.forget():
            break
        assert live(fragile.root, old, new) in (1, 2)
        with reach(fragile) as delivery:
            deploy(delivery, new, 9)
            assert delivery.pointer() == pointer(new, 9)
        assert live(fragile.root, old, new) == new.manifest.version
        assert_tidy(fragile.root)
        shutil.rmtree(fragile.root)
    record_counts(f"{work}: helper on the host killed before each change to its file system", killed)
    assert killed >= (20 if work == "promote" else 4)


@pytest.mark.parametrize("moment", ["upload", "swap", "gate"])
def test_the_host_dies_in_the_middle(
    moment: str, tmp_path: Path, client_key: Path, moments: Moments, record_counts: Counts
) -> None:
    """sshd and all of its children are gone; the command fails; with the host back the next one ends it."""
    root, folder = tmp_path / "project", tmp_path / "fragile"
    with running(folder, client_key, more=moments.sshd_config) as host:
        project = ssh_project.write_project(root, USER, [f"{host.name}:{host.port}"], keep=5)
        (root / "known_hosts").write_text(host.known())
        shutil.copy(client_key, root / "key")
        big = {"weights.bin": noise(2_000_000)}
        put_live(project, bundle(project, 1))
        if moment == "gate":
            moments.stop_in_check()
        else:
            moments.stop_at(*{"upload": ("open", ".part"), "swap": ("os.rename", "/current")}[moment])

        def die() -> None:
            wait_for(lambda: moments.struck)
            for pid in [host.process.pid, *descendants(host.process.pid)]:
                with contextlib.suppress(ProcessLookupError):  # it went with its parent
                    os.kill(pid, 9)

        thread = threading.Thread(target=die)
        thread.start()
        with pytest.raises(DeliveryError):
            put_live(project, bundle(project, 2, extra=big))
        thread.join()
    moments.forget()
    with running(folder, client_key, port=host.port, more=moments.sshd_config):
        assert version(project) == (2 if moment == "gate" else 1)  # what the disk says; nobody could undo it
        assert_live_is_whole(project)
        put_live(project, bundle(project, 2, extra=big))
        assert version(project) == 2
        assert_live_is_whole(project)
        assert_ledger_is_sound(project)
        for home in (root / "hosts").iterdir():
            assert_tidy(home)
    record_counts("hosts that died in the middle of an upload, the swap or a gate", 1)


def version(project: Project) -> int | None:
    site = Site(project, "prod")
    found = site.delivery(site.places[0]).pointer()
    ssh_project.close(site)
    return found.version if found else None
