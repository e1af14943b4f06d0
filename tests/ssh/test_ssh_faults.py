"""Connections that break and hosts that lack something, while a release is on its way."""

from __future__ import annotations

import io
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ssh_hosts import Host, Wire, helpers, small_disk
from ssh_scene import (
    HASTE,
    Connected,
    Shelf,
    assert_tidy,
    assert_whole,
    connect,
    deploy,
    noise,
    place,
    pointer,
)

from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import File
from shipway.targets.deliveries.base import OutOfReachError
from shipway.targets.deliveries.ssh_address import Address, Patience, SshOptions
from shipway.targets.steps import Point, Release, Seal, Send, Stage

pytestmark = pytest.mark.real
SIZE = 20_000_000
LOST = 3_000_000  # bytes under way that a cut may cost: what SSH and the sockets buffer


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@pytest.fixture
def release(shelf: Shelf) -> Release:
    return shelf.bundle(2, {"weights.bin": noise(SIZE)})


def weights(release: Release) -> File:
    file = release.manifest.file("weights.bin")
    assert file is not None
    return file


def test_an_upload_that_is_cut_goes_on_where_it_was(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    # Less in all than the file, so that each cut strikes even where no byte under way was lost.
    with Wire(host.port, cuts=[7_000_000, 6_000_000, 5_000_000]) as wire:
        known_hosts.write_text(host.known(wire.port))
        with connect(host, shelf, known_hosts, client_key, port=wire.port) as delivery:
            deploy(delivery, release, 1)
        assert wire.connections == 4
        print(f"three cuts: {wire.sent} bytes on the wire for {SIZE}")
        assert wire.sent < SIZE + 3 * LOST
    assert_whole(host.root, release)
    assert_tidy(host.root)


def test_a_connection_that_falls_silent_is_given_up_and_made_again(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    """The host doesn't know that the first connection is dead: its helper still waits for bytes."""
    with Wire(host.port, stalls=[3_000_000]) as wire:
        known_hosts.write_text(host.known(wire.port))
        address = replace(Address.parse(host.url), port=wire.port)
        options = SshOptions(known_hosts, (client_key,))
        with Connected(address, shelf.fetch, options, replace(HASTE, silence=3.0)) as delivery:
            deploy(delivery, release, 1)
        assert wire.connections > 1  # one that is not given up never says anything again
    assert_whole(host.root, release)


def test_a_line_that_lets_nothing_through_is_given_up(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    """What was written to the connection is no progress; only the host knows what has arrived."""
    impatient = replace(HASTE, attempts=3, silence=0.6)
    with Wire(host.port, stalls=[22_000] * 20) as wire:
        known_hosts.write_text(host.known(wire.port))
        address = replace(Address.parse(host.url), port=wire.port)
        options = SshOptions(known_hosts, (client_key,))
        with (
            Connected(address, shelf.fetch, options, impatient) as delivery,
            pytest.raises(OutOfReachError),
        ):
            deploy(delivery, release, 1)
        assert wire.connections <= 6  # a try that is new each time the host got further, and it hardly did


def test_a_helper_that_dies_is_started_again(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    killed: list[int] = []

    class Reader(io.FileIO):
        """A file in the middle of which all helpers on the host are killed, once."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > SIZE // 2 and not killed:
                for pid in helpers(host):
                    os.kill(pid, 9)
                    killed.append(pid)
            return super().read(size) or b""

    class Source(type(Path())):  # type: ignore[misc]
        def open(self, *_: object) -> Reader:
            return Reader(self)

    def fetch(file: File) -> Path:
        return Source(shelf.fetch(file)) if file == weights(release) else shelf.fetch(file)

    address, options = Address.parse(host.url), SshOptions(known_hosts, (client_key,))
    with Connected(address, fetch, options, HASTE) as delivery:
        deploy(delivery, release, 1)
        assert killed  # one that another test has just hung up on may be among them
        assert delivery.session.traffic.connections == 2
    assert_whole(host.root, release)


def test_a_client_that_comes_back_later_sends_only_the_rest(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    with Wire(host.port, cuts=[12_000_000]) as wire:
        address = Address.parse(host.url)
        through = Address(address.user, address.host, wire.port, address.folder)
        known_hosts.write_text(host.known(wire.port) + host.known())
        once = Patience(attempts=1, connect=5.0)
        with Connected(through, shelf.fetch, SshOptions(known_hosts, (client_key,)), once) as delivery:
            with pytest.raises(DeliveryError, match="was lost"):
                place(delivery, release)
            delivery.clear(release.id)  # as the next command's recovery does, or this one's undoing
    assert not (host.root / "releases" / release.id).exists()
    with connect(host, shelf, known_hosts, client_key) as delivery:
        sent = place(delivery, release)
        print(f"second try: {sent} of {SIZE} bytes")
        assert sent < SIZE - 12_000_000 + LOST
    assert_whole(host.root, release)


def test_a_part_that_was_spoilt_on_the_host_is_sent_anew(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    with connect(host, shelf, known_hosts, client_key) as delivery:
        delivery.perform(Stage(release))
        part = host.root / ".shipway/uploads" / f"{weights(release).digest.hex}.part"
        part.write_bytes(noise(SIZE // 2, seed=9))
        delivery.perform(Send(release, weights(release)))
        part.with_suffix("").write_bytes(noise(100))  # as whole as this one looks
        delivery.perform(Send(release, weights(release)))
        delivery.perform(Seal(release))
    assert_whole(host.root, release)


def test_what_does_not_fit_is_refused_before_anything_is_sent(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    with small_disk(host.root, "6m"), connect(host, shelf, known_hosts, client_key) as delivery:
        first = shelf.bundle(1)
        deploy(delivery, first, 1)
        before = delivery.session.traffic.sent
        with pytest.raises(DeliveryError, match=r"no room at .*: 21\.\d MB needed, [56]\.\d MB free"):
            delivery.perform(Stage(release))
        assert delivery.session.traffic.sent - before < 1000
        assert delivery.pointer() == pointer(first, 1)
        assert_whole(host.root, first)
        assert_tidy(host.root)


def test_a_disk_that_fills_up_meanwhile_leaves_the_old_release_live(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    with small_disk(host.root, "26m"), connect(host, shelf, known_hosts, client_key) as delivery:
        first = shelf.bundle(1)
        deploy(delivery, first, 1)
        delivery.perform(Stage(release))
        (host.root / "somebody's").write_bytes(noise(12_000_000))
        with pytest.raises(DeliveryError, match="can't be used") as caught:
            delivery.perform(Send(release, weights(release)))
        assert "No space left" in caught.value.why
        delivery.clear(release.id)
        assert delivery.pointer() == pointer(first, 1)
        assert_whole(host.root, first)
        (host.root / "somebody's").unlink()
        assert_tidy(host.root)  # what had arrived made room again
        deploy(delivery, release, 2)
        assert_whole(host.root, release)


def test_a_read_only_destination(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    with small_disk(host.root, "20m"), connect(host, shelf, known_hosts, client_key) as delivery:
        first = shelf.bundle(1)
        deploy(delivery, first, 1)
        subprocess.run(["mount", "-o", "remount,ro", host.root], check=True)
        for step in (Stage(release), Seal(first), Point(pointer(first, 2))):
            with pytest.raises(DeliveryError, match="can't be used") as caught:
                delivery.perform(step)
            assert "Read-only" in caught.value.why
        assert delivery.pointer() == pointer(first, 1)  # looking needs no writing


def test_a_clock_that_is_wrong_by_a_year_changes_nothing(
    host: Host, shelf: Shelf, release: Release, known_hosts: Path, client_key: Path
) -> None:
    with connect(host, shelf, known_hosts, client_key) as delivery:
        place(delivery, release)
        home = host.root / "releases" / release.id
        for path in home.rglob("*"):
            os.utime(path, (4e9, 4e9))
        (home / "weights.bin").write_bytes(noise(SIZE, seed=3))
        os.utime(home / "weights.bin", (4e9, 4e9))
        assert delivery.perform(Seal(release)) == SIZE  # read, not believed
        delivery.perform(Point(pointer(release, 1)))
    assert_whole(host.root, release)
    assert HASTE.attempts > 1
