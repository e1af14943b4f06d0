"""Whom shipway talks to over SSH, and as whom."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from ports import free_port
from ssh_hosts import Host, make_key, running
from ssh_scene import HASTE, Shelf, connect, noise, pointer

from shipway.registry.errors import ConfigError, DeliveryError
from shipway.targets.deliveries.base import OutOfReachError
from shipway.targets.deliveries.ssh import SshDelivery
from shipway.targets.deliveries.ssh_address import Address, SshOptions
from shipway.targets.deliveries.ssh_link import Link
from shipway.targets.steps import Gate, Point, Reuse, Seal, Send, Stage

pytestmark = pytest.mark.real


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


def fingerprint(key: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


def test_an_unknown_host_is_not_talked_to_and_the_way_out_works(
    host: Host, shelf: Shelf, tmp_path: Path, client_key: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("")
    with connect(host, shelf, known, client_key) as delivery:
        with pytest.raises(DeliveryError, match="is not known") as caught:
            delivery.perform(Stage(shelf.bundle(1)))
        assert fingerprint(host.folder / "host_key.pub") in caught.value.why
        assert not host.root.exists()
        command = caught.value.remedy.split("'")[1]
        assert command.startswith(f"ssh-keyscan -p {host.port} 127.0.0.1 >> ")
        subprocess.run(command, shell=True, check=True, capture_output=True)
        delivery.perform(Stage(shelf.bundle(1)))


def test_a_host_with_another_key_than_before_is_not_talked_to(
    host: Host, shelf: Shelf, tmp_path: Path, client_key: Path
) -> None:
    other = make_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    key = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    known.write_text(f"[{host.name}]:{host.port} {key}\n")
    with (
        connect(host, shelf, known, client_key) as delivery,
        pytest.raises(DeliveryError, match="another key") as caught,
    ):
        delivery.pointer()
    assert fingerprint(other) in caught.value.why
    assert fingerprint(host.folder / "host_key.pub") in caught.value.why
    assert f"ssh-keygen -R [{host.name}]:{host.port}" in caught.value.remedy


def test_no_configuration_turns_the_check_off(host: Host, shelf: Shelf, client_key: Path) -> None:
    folder = Path("~/.ssh").expanduser()
    folder.mkdir()
    (folder / "config").write_text(
        "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n  GlobalKnownHostsFile none\n"
    )
    delivery = SshDelivery(Address.parse(host.url), shelf.fetch, SshOptions(keys=(client_key,)), HASTE)
    with pytest.raises(DeliveryError, match="is not known"):
        delivery.pointer()


def test_a_key_that_the_host_does_not_take(
    host: Host, shelf: Shelf, known_hosts: Path, tmp_path: Path
) -> None:
    stranger = make_key(tmp_path / "stranger")
    with (
        connect(host, shelf, known_hosts, stranger) as delivery,
        pytest.raises(DeliveryError, match="let nobody in") as caught,
    ):
        delivery.pointer()
    assert str(stranger) in caught.value.why
    assert "ssh-copy-id" in caught.value.remedy


@pytest.mark.parametrize("missing", ["key", "known_hosts"])
def test_a_file_that_is_not_there_is_a_wrong_configuration(
    missing: str, host: Host, shelf: Shelf, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    options = {
        "key": SshOptions(known_hosts, (tmp_path / "nowhere",)),
        "known_hosts": SshOptions(tmp_path / "nowhere", (client_key,)),
    }
    with pytest.raises(ConfigError, match="can't be used") as caught:
        SshDelivery(Address.parse(host.url), shelf.fetch, options[missing], HASTE).pointer()
    assert "nowhere" in caught.value.why


def test_a_key_with_a_passphrase_belongs_in_the_agent(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.write_bytes(client_key.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-P", "", "-f", locked], check=True)
    with connect(host, shelf, known_hosts, locked) as delivery, pytest.raises(ConfigError) as caught:
        delivery.pointer()
    assert "ssh-add" in caught.value.remedy


def test_the_agents_keys_are_used(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = Path("~/agent").expanduser()
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as agent:
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            end = time.monotonic() + 60
            while not socket.exists():
                assert time.monotonic() < end
                time.sleep(0.01)
            subprocess.run(["ssh-add", "-q", client_key], check=True, stderr=subprocess.DEVNULL)
            delivery = SshDelivery(Address.parse(host.url), shelf.fetch, SshOptions(known_hosts), HASTE)
            assert delivery.pointer() is None
            delivery.close()
        finally:
            agent.terminate()


def test_without_options_it_is_what_ssh_uses(host: Host, shelf: Shelf, client_key: Path) -> None:
    folder = Path("~/.ssh").expanduser()
    folder.mkdir(mode=0o700)
    (folder / "id_ed25519").write_bytes(client_key.read_bytes())
    (folder / "id_ed25519").chmod(0o600)
    (folder / "known_hosts").write_text(host.known())
    (folder / "config").write_text(
        f"Host line-1\n  HostName {host.name}\n  Port {host.port}\n  HostKeyAlias line-1\n"
    )
    address = Address.parse(f"ssh://{Address.parse(host.url).user}@line-1{host.root}")
    delivery = SshDelivery(address, shelf.fetch, patience=HASTE)
    assert delivery.pointer() is None
    delivery.close()


def test_a_host_that_is_off_is_told_at_once(
    shelf: Shelf, client_key: Path, known_hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, tries, open_link = Address("nobody", "127.0.0.1", free_port(), "/opt/acme"), [], Link.open

    async def counted(link: Link) -> None:
        tries.append(link)
        await open_link(link)

    monkeypatch.setattr(Link, "open", counted)
    with pytest.raises(DeliveryError, match="cannot be reached"):
        SshDelivery(address, shelf.fetch, SshOptions(known_hosts, (client_key,)), HASTE).pointer()
    assert len(tries) == 1 < HASTE.attempts  # no patience with one that was never there


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("SetEnv PATH=/nowhere", "has no python3"),
        ("ForceCommand echo rubbish", "did not start the helper"),
        ("ForceCommand exit 1", "did not start the helper"),
        ("ForceCommand head -c 1000000 /dev/urandom", "did not start the helper"),
        ("ForceCommand yes garbage", "did not start the helper"),
        ("ForceCommand echo 'shipway-host-1 {}'; echo '[not an answer]'; cat", "makes no sense"),
    ],
)
def test_hosts_that_answer_with_garbage(
    more: str, message: str, tmp_path: Path, shelf: Shelf, client_key: Path
) -> None:
    with running(tmp_path / "sshd", client_key, more=more) as host:
        known = tmp_path / "known_hosts"
        known.write_text(host.known())
        with (
            connect(host, shelf, known, client_key) as delivery,
            pytest.raises(DeliveryError, match=message) as caught,
        ):
            delivery.pointer()
        assert all(letter.isprintable() or letter == "\n" for letter in str(caught.value))


LIES = [
    {},
    {"pointer": 7, "has": 1, "sha256": 5, "releases": 5, "found": {"verdict": "zz"}, "manifest": 3,
     "copied": "x", "size": "s", "offset": -5, "wrong": ["no file of it"], "code": "0"},
    {"sha256": [[1]], "releases": [1], "found": 3, "offset": 10**11, "wrong": 1},
    {"error": {}},
    {"error": "os"},
    {"error": "space", "need": "much", "free": []},
]  # fmt: skip


@pytest.mark.parametrize("lie", [*map(json.dumps, LIES), "[" * 100_000], ids=range(len(LIES) + 1))
def test_a_host_that_answers_nonsense_fails_alone(
    lie: str, tmp_path: Path, shelf: Shelf, client_key: Path
) -> None:
    """By an error that a fleet counts as that host's: no lie ends the command with a bug."""
    (tmp_path / "lie").write_text(lie + "\n")
    said = f"echo 'shipway-host-1 x'; while cat {tmp_path}/lie 2>/dev/null; do sleep 0.02; done"
    release = shelf.bundle(1, {"weights.bin": noise(200_000)})
    manifest = release.manifest
    large, small = manifest.file("weights.bin"), manifest.file("verdict")
    assert large is not None
    assert small is not None
    steps = (Reuse(release, small), Point(pointer(release, 1)), Gate(release, "check", {}))
    with running(tmp_path / "sshd", client_key, more=f'ForceCommand sh -c "{said}"') as host:
        known = tmp_path / "known_hosts"
        known.write_text(host.known())
        with connect(host, shelf, known, client_key) as delivery:
            asked: list[Callable[[], object]] = [
                delivery.pointer,
                partial(delivery.has, manifest),
                partial(delivery.holds, [small.digest]),
                delivery.releases,
                partial(delivery.audit, manifest),
                *(partial(delivery.perform, step) for step in steps),
            ]
            if "offset" in lie:
                asked += [
                    partial(delivery.perform, Send(release, large)),
                    partial(delivery.perform, Seal(release)),
                ]
            for ask in asked if lie.startswith("{") else asked[:2]:  # what can't be read ends the connection
                with pytest.raises(DeliveryError, match="makes no sense"):
                    ask()


def test_a_pointer_of_wrong_types_makes_nothing_live(tmp_path: Path, shelf: Shelf, client_key: Path) -> None:
    wrong = {"environment": "e", "target": "t", "serial": "9", "model": "m", "version": {}, "bundle": 5}
    (tmp_path / "lie").write_text(json.dumps({"pointer": {**wrong, "release": ["x"]}}) + "\n")
    said = f"echo 'shipway-host-1 x'; while cat {tmp_path}/lie 2>/dev/null; do sleep 0.02; done"
    with running(tmp_path / "sshd", client_key, more=f'ForceCommand sh -c "{said}"') as host:
        known = tmp_path / "known_hosts"
        known.write_text(host.known())
        with connect(host, shelf, known, client_key) as delivery:
            assert delivery.pointer() is None


def test_a_login_that_says_nothing_is_not_waited_for_for_ever(
    tmp_path: Path, shelf: Shelf, client_key: Path
) -> None:
    with running(tmp_path / "sshd", client_key, more="ForceCommand sleep 30") as host:
        known = tmp_path / "known_hosts"
        known.write_text(host.known())
        patience = replace(HASTE, attempts=1, login=3.0)  # a login itself may take a second
        delivery = SshDelivery(
            Address.parse(host.url), shelf.fetch, SshOptions(known, (client_key,)), patience
        )
        with pytest.raises(OutOfReachError, match="no helper within 3 s"):
            delivery.pointer()
        delivery.close()


def test_a_helper_that_stands_still_is_not_waited_for_for_ever(
    tmp_path: Path, shelf: Shelf, client_key: Path
) -> None:
    more = "ForceCommand echo 'shipway-host-1 x'; sleep 30"
    with running(tmp_path / "sshd", client_key, more=more) as host:
        known = tmp_path / "known_hosts"
        known.write_text(host.known())
        delivery = SshDelivery(
            Address.parse(host.url), shelf.fetch, SshOptions(known, (client_key,)), replace(HASTE, answer=0.5)
        )
        with pytest.raises(OutOfReachError, match=r"no answer within 0\.5 s"):
            delivery.pointer()
        delivery.close()


def test_a_talkative_login_does_no_harm(tmp_path: Path, shelf: Shelf, client_key: Path) -> None:
    more = 'ForceCommand echo "Welcome to line 1!"; echo; eval "$SSH_ORIGINAL_COMMAND"'
    with running(tmp_path / "sshd", client_key, more=more) as host:
        known = tmp_path / "known_hosts"
        known.write_text(host.known())
        with connect(host, shelf, known, client_key) as delivery:
            assert delivery.pointer() is None
