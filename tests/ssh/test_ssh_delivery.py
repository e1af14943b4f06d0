"""One host: a real sshd, the same steps as at any other destination."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ssh_hosts import Host, Wire, helpers
from ssh_scene import Shelf, assert_tidy, assert_whole, connect, deploy, noise, place, pointer

from shipway.registry.errors import ConfigError, ConflictError, DeliveryError, IntegrityError
from shipway.registry.nouns import File
from shipway.targets.deliveries.ssh_address import Address, for_host
from shipway.targets.deliveries.ssh_session import _Loop
from shipway.targets.manifest import MANIFEST, ManifestDiff
from shipway.targets.steps import Command, Gate, Point, Preflight, Prune, Release, Reuse, Seal, Send, Stage

ROOT = Path(__file__).resolve().parents[2]
real = pytest.mark.real


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@real
def test_a_release_arrives_whole_and_goes_live(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    release = shelf.bundle(1, {"big.bin": noise(3_000_000), "empty": b"", "a b/$(c)'\"ü": b"odd"})
    with connect(host, shelf, known_hosts, client_key) as delivery:
        assert delivery.pointer() is None
        assert delivery.releases() == ()
        assert not host.root.exists()  # looking leaves nothing
        assert place(delivery, release) == sum(file.size for file in release.manifest.files)
        assert delivery.has(release.manifest)
        assert delivery.pointer() is None
        delivery.perform(Point(pointer(release, 1)))
        delivery.perform(Gate(release, "digests", {}))
        delivery.perform(Gate(release, "check", {}))
        assert delivery.pointer() == pointer(release, 1)
        assert delivery.audit(release.manifest) == ManifestDiff()
        assert delivery.session.traffic.connections == 1
    assert (host.root / "current").resolve() == host.root / "releases" / release.id
    assert_whole(host.root, release)
    assert_tidy(host.root)


@real
def test_what_the_host_holds_is_not_sent_again(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    big = noise(2_000_000)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, shelf.bundle(1, {"weights.bin": big}), 1)
        second = shelf.bundle(2, {"moved/weights.bin": big})
        before = delivery.session.traffic.sent
        deploy(delivery, second, 2)
        assert delivery.session.traffic.sent - before < 20_000
    assert_whole(host.root, second)
    for name in delivery.releases():  # never two names of one file: editing one must not harm the other
        assert all(path.stat().st_nlink == 1 for path in (host.root / "releases" / name).rglob("*.bin"))


@real
def test_a_damaged_twin_is_sent_instead(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    big = noise(200_000)
    first, second = shelf.bundle(1, {"weights.bin": big}), shelf.bundle(2, {"weights.bin": big})
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, first, 1)
        (host.root / "releases" / first.id / "weights.bin").write_bytes(noise(200_000, seed=1))
        file = second.manifest.file("weights.bin")
        assert file is not None
        assert file.digest in delivery.holds([file.digest])  # by name and size it is there
        delivery.perform(Stage(second))
        assert delivery.perform(Reuse(second, file)) == file.size
        assert delivery.perform(Seal(second)) > 0  # what was never sent
    assert_whole(host.root, second)


@real
def test_the_pointer_carries_the_serial_and_moves_in_one_step(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    first, second = shelf.bundle(1), shelf.bundle(2)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, first, 1)
        deploy(delivery, second, 2)
        link = (host.root / "current").readlink()
        delivery.perform(Point(pointer(first, 3)))  # a rollback: an old release under a new serial
        assert delivery.pointer() == pointer(first, 3)
        assert (host.root / "current").readlink() != link
        delivery.perform(Point(pointer(second, 2)))  # its undo
        assert delivery.pointer() == pointer(second, 2)
        delivery.withdraw()
        assert delivery.pointer() is None
        assert not (host.root / "current").is_symlink()
    assert len(list((host.root / ".shipway/live").iterdir())) <= 2


@real
def test_what_another_made_live_meanwhile_stays(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    """One that slept longer than its claim held, say: the host itself refuses it."""
    first, second, third = shelf.bundle(1), shelf.bundle(2), shelf.bundle(3)
    with (
        connect(host, shelf, known_hosts, client_key) as sleeper,
        connect(host, shelf, known_hosts, client_key) as other,
    ):
        deploy(other, first, 1)
        assert sleeper.pointer() == pointer(first, 1)
        place(sleeper, second)
        deploy(other, third, 2)
        with pytest.raises(ConflictError, match="current was changed by somebody else meanwhile"):
            sleeper.perform(Point(pointer(second, 2)))
        assert sleeper.pointer() == pointer(third, 2)
        sleeper.perform(Point(pointer(first, 3)))  # having looked again
        sleeper.undo(pointer(first, 3))
        sleeper.perform(Point(pointer(first, 4)))


@real
def test_a_reader_never_fails_while_current_is_swapped(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    releases = [shelf.bundle(version, {"version": b"%d" % version}) for version in (1, 2)]
    stop, seen, failed = threading.Event(), set(), []

    def read() -> None:
        try:
            while not stop.is_set():
                seen.add((host.root / "current/version").read_bytes())
        except OSError as error:
            failed.append(error)

    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, releases[0], 1)
        place(delivery, releases[1])
        reader = threading.Thread(target=read)
        reader.start()
        for serial in range(2, 102):
            delivery.perform(Point(pointer(releases[serial % 2], serial)))
        stop.set()
        reader.join()
    assert not failed
    assert seen == {b"1", b"2"}


@real
def test_rollback_sends_less_than_64_kib(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    first = shelf.bundle(1, {f"file-{n}": noise(20_000, n) for n in range(40)})
    second = shelf.bundle(2)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, first, 1)
        deploy(delivery, second, 2)
    with Wire(host.port) as wire:
        known_hosts.write_text(host.known(wire.port))
        with connect(host, shelf, known_hosts, client_key, port=wire.port) as delivery:
            assert delivery.pointer() == pointer(second, 2)
            assert delivery.has(first.manifest)
            assert delivery.perform(Seal(first)) == 0
            delivery.perform(Point(pointer(first, 3)))
            delivery.perform(Gate(first, "digests", {}))
        print(f"rollback: {wire.sent} bytes over the wire, connection and helper included")
        assert wire.sent < 65_536


@real
def test_a_failed_gate_and_a_failed_command_say_what_the_host_said(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    release = shelf.bundle(1, good=False)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, release, 1)
        with pytest.raises(DeliveryError, match="golden check of ocr/1") as caught:
            delivery.perform(Gate(release, "check", {}))
        assert '"passed": false' in caught.value.why
        with pytest.raises(DeliveryError, match="build engines") as caught:
            delivery.perform(
                Command(release, ("python3", "-c", "raise SystemExit('no GPU')"), "build engines")
            )
        assert "no GPU" in caught.value.why
        with pytest.raises(DeliveryError, match="can't be started"):
            delivery.perform(Command(release, ("no-such-program",), "try it"))
        delivery.perform(Command(release, ("sh", "-c", "test -f verdict"), "see where it runs"))
        gate = {"argv": ["sh", "-c", "grep -q '\"serial\": 7'"], "deployment": {"serial": 7}}
        delivery.perform(Gate(release, "command", gate))
    assert not list(host.root.rglob("__pycache__"))


@real
def test_a_bundle_s_own_programs_run_on_the_python_that_it_names(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    """And without what lies below the home of the login's user; a user's gate runs what it says."""
    asked = tmp_path / "asked"
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\necho "$@" >>\'{asked}\'\nexec python3 "$@"\n')
    python.chmod(0o755)
    judge = b'print(\'{"passed": true, "problems": []}\')'
    made = shelf.bundle(1, {"preflight.py": judge, "engines.py": b""}).manifest
    release = Release(replace(made, runtime={"python": str(python)}))
    preflight = made.file("preflight.py")
    assert preflight is not None
    with connect(host, shelf, known_hosts, client_key) as delivery:
        delivery.perform(Preflight(release, preflight))
        deploy(delivery, release, 1)
        delivery.perform(Command(release, ("python3", "engines.py"), "build engines"))
        delivery.perform(Gate(release, "check", {}))
        delivery.perform(Gate(release, "command", {"argv": ["python3", "engines.py"], "deployment": {}}))
        assert asked.read_text().splitlines() == ["-s -", "-s engines.py", "-s check.py"]
        python.unlink()
        with pytest.raises(DeliveryError, match=r"preflight\.py can't be started") as caught:
            delivery.perform(Preflight(release, preflight))
        assert str(python) in caught.value.why


@real
def test_a_cut_connection_ends_what_runs_on_the_host(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    release, mark = shelf.bundle(1), tmp_path / "mark"
    script = f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    ended: list[DeliveryError] = []
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, release, 1)
    with Wire(host.port) as wire:
        known_hosts.write_text(host.known(wire.port))
        with connect(host, shelf, known_hosts, client_key, port=wire.port) as delivery:

            def perform() -> None:
                try:
                    delivery.perform(Command(release, ("python3", "-c", script), "wait"))
                except DeliveryError as error:
                    ended.append(error)

            thread = threading.Thread(target=perform)
            thread.start()
            wait_for(lambda: mark.exists() and mark.read_text() != "")
            wire.__exit__()  # and nobody listens there any more
            thread.join(30)
    assert "was lost" in ended[0].what
    wait_for(lambda: not Path(f"/proc/{mark.read_text()}").exists())


@real
def test_a_live_release_is_never_pruned_and_others_go_whole(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    first, second = shelf.bundle(1), shelf.bundle(2)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, first, 1)
        deploy(delivery, second, 2)
        with pytest.raises(ValueError, match="is live"):
            delivery.perform(Prune(second.id))
        delivery.perform(Prune(first.id))
        assert delivery.releases() == (second.id,)
        with pytest.raises(DeliveryError, match="no release"):
            delivery.perform(Point(pointer(first, 3)))
    assert_whole(host.root, second)
    assert_tidy(host.root)


@real
def test_damage_is_found_and_mended(host: Host, shelf: Shelf, known_hosts: Path, client_key: Path) -> None:
    release = shelf.bundle(1, {"weights.bin": noise(100_000), "deep/er/file": b"deep"})
    home = host.root / "releases" / release.id
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, release, 1)
        (home / "weights.bin").write_bytes(noise(100_000, seed=1))
        (home / "check.py").chmod(0o600)
        (home / "verdict").unlink()
        (home / "verdict").symlink_to("/etc/hostname")  # a planted link is damage, whatever it leads to
        (home / "deep/er/file").unlink()
        (home / "deep/er").rmdir()
        (home / "deep/er").symlink_to("/etc")
        (home / MANIFEST).write_text("{}")
        difference = delivery.audit(release.manifest)
        assert set(difference.missing) == {"verdict", "deep/er/file"}
        assert set(difference.changed) == {"weights.bin", MANIFEST}
        assert not delivery.has(release.manifest)
        assert delivery.perform(Seal(release)) == 100_000 + len(b"good") + len(b"deep")
        assert delivery.audit(release.manifest).whole
    assert_whole(host.root, release)
    assert Path("/etc/hostname").exists()


@real
def test_a_file_altered_in_the_store_is_not_taken(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    for size in (50, 300_000):  # sent with the request, and after it
        release = shelf.bundle(size, {"weights.bin": noise(size)})
        file = release.manifest.file("weights.bin")
        assert file is not None
        for spoilt in (noise(size, seed=1), noise(size)[:-7]):
            shelf.fetch(file).write_bytes(spoilt)
            with connect(host, shelf, known_hosts, client_key) as delivery:
                delivery.perform(Stage(release))
                with pytest.raises(IntegrityError, match="any more"):
                    delivery.perform(Send(release, file))
                assert delivery.releases() == ()


@real
def test_two_clients_at_once_do_not_mix(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    """While one is in the middle of a request that changes something, another one waits, then gives up."""
    release, enough = shelf.bundle(1), tmp_path / "enough"
    with (
        connect(host, shelf, known_hosts, client_key) as one,
        connect(host, shelf, known_hosts, client_key) as two,
    ):
        deploy(one, release, 1)
        script = 'until [ -e "$0" ]; do sleep 0.1; done'
        slow = Command(release, ("sh", "-c", script, str(enough)), "take long")
        thread = threading.Thread(target=one.perform, args=(slow,))
        thread.start()
        wait_for(lambda: (host.root / ".shipway/lock").read_bytes() != b"" and len(helpers(host)) > 0)
        assert two.pointer() == pointer(release, 1)  # looking is free
        with pytest.raises(DeliveryError, match="Somebody else"):
            two.perform(Stage(shelf.bundle(2)))
        enough.touch()
        thread.join()
        two.perform(Stage(shelf.bundle(2)))


@real
def test_names_that_lead_elsewhere_are_refused_on_the_host(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    release = shelf.bundle(1)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, release, 1)
        for name in ("../../precious", "..", ".hidden", "a/b", ""):
            with pytest.raises(ValueError, match="no name of a release"):
                delivery.perform(Prune(name))
        file = File("x", release.manifest.files[0].digest, release.manifest.files[0].size)
        object.__setattr__(file, "path", "../../../precious")  # no manifest would take it
        with pytest.raises(ValueError, match="no path inside a release"):
            delivery.perform(Send(release, file))
        assert delivery.pointer() == pointer(release, 1)
    assert precious.read_text() == "mine"


@real
def test_a_folder_in_the_way_of_current_is_not_removed(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    (host.root / "current").mkdir(parents=True)
    (host.root / "current/mine").write_text("mine")
    release = shelf.bundle(1)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        place(delivery, release)
        with pytest.raises(DeliveryError, match="is a folder, not a link"):
            delivery.perform(Point(pointer(release, 1)))
        assert delivery.pointer() is None
    assert (host.root / "current/mine").read_text() == "mine"


@real
def test_a_delivery_that_is_dropped_hangs_up_whoever_collects_it(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    """Also where the garbage collector runs in the thread that would have to do it."""
    with connect(host, shelf, known_hosts, client_key) as other:
        other.pointer()
        dropped = connect(host, shelf, known_hosts, client_key)
        dropped.pointer()
        held = [dropped]
        del dropped
        thread = next(thread for thread in threading.enumerate() if thread.name == "shipway-ssh")
        assert thread.is_alive()
        before = len(helpers(host))
        _Loop.soon(held.clear)
        wait_for(lambda: len(helpers(host)) < before)
        assert other.pointer() is None


# what needs no host


@pytest.mark.parametrize("module", sorted(Path(ROOT / "targets/deliveries").glob("on_host*.py")), ids=str)
def test_the_helper_is_python_3_6(module: Path) -> None:
    ast.parse(module.read_text(), feature_version=(3, 6))
    assert "from __future__" not in module.read_text()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://deploy@line-1/opt/acme", Address("deploy", "line-1", None, "/opt/acme")),
        ("ssh://line-1:2222/opt/acme/", Address(None, "line-1", 2222, "/opt/acme")),
        ("ssh://a@[fd00::1]:22/x", Address("a", "fd00::1", 22, "/x")),
        ("ssh://a@host/~/models", Address("a", "host", None, "~/models")),
        ("ssh://a@host/a b/$(c);'d'", Address("a", "host", None, "/a b/$(c);'d'")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "ssh://host",
        "ssh://host/",
        "ssh:///opt",
        "ssh://u:secret@host/opt",
        "ssh://-oProxyCommand=x/opt",
        "ssh://u@host:port/opt",
        "ssh://-u@host/opt",
        "ssh://host/opt/../etc",
        "ssh://host/opt?x=1",
        "s3://host/opt",
        "ssh://[::1/opt",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="no folder on a host"):
        Address.parse(text)


def test_hosts_stand_in_for_host() -> None:
    assert for_host("ssh://d@{host}/opt", "line-1") == Address("d", "line-1", None, "/opt")
    assert for_host("ssh://d@{host}/opt", "line-1:2222") == Address("d", "line-1", 2222, "/opt")
    assert for_host("ssh://d@{host}/opt", "fd00::7") == Address("d", "fd00::7", None, "/opt")
    assert for_host("ssh://d@{host}/opt/{host}", "a") == Address("d", "a", None, "/opt/a")


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
