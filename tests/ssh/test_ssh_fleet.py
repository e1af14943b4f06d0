"""Several hosts as one destination, on loopback and in network namespaces of their own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import ssh_project
from deploy_scene import assert_ledger_is_sound, assert_live_is_whole, bundle, put_live
from ports import free_port
from ssh_hosts import USER, Host, descendants, helpers, network, running
from ssh_scene import Shelf, assert_whole, connect, deploy, place, pointer

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy.execute import claim
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import ConfigError, DeliveryError
from shipway.registry.ledger import owner
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.verbs.status import look
from shipway.targets.deliveries.fleet import Fleet
from shipway.targets.steps import Hold, Point, Seal

real = pytest.mark.real


def fleet_of(site: Site) -> Fleet:
    found = site.delivery(site.places[0])
    assert isinstance(found, Fleet)
    return found


def versions(project: Project) -> list[int | None]:
    """What each host says is live, in the order of ``hosts``."""
    site = Site(project, "prod")
    found = [host.pointer() for host in fleet_of(site).hosts.values()]
    ssh_project.close(site)
    return [pointer.version if pointer else None for pointer in found]


@pytest.fixture
def project(sshd: Host, client_key: Path, tmp_path: Path) -> Project:
    """Three hosts that are folders behind one sshd."""
    root = tmp_path / "project"
    names = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    made = ssh_project.write_project(root, USER, [f"{name}:{sshd.port}" for name in names], keep=5)
    (root / "known_hosts").write_text("".join(sshd.known().replace("127.0.0.1", name) for name in names))
    shutil.copy(client_key, root / "key")
    return made


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory, client_key: Path) -> Iterator[Host]:
    with running(tmp_path_factory.mktemp("fleet") / "host", client_key, more="ListenAddress 0.0.0.0") as host:
        yield host


@real
def test_all_hosts_go_together_and_come_back_together(project: Project) -> None:
    first, second = bundle(project, 1), bundle(project, 2)
    (done,) = put_live(project, first)
    files = sum(file.size for file in first.files)
    assert 3 * files < done.bytes_sent < 3 * (files + 400)  # and a pointer each
    put_live(project, second)
    assert versions(project) == [2, 2, 2]
    bad = bundle(project, 3, good=False)
    with pytest.raises(DeliveryError, match=r"3 of 3 hosts failed") as caught:
        put_live(project, bad)
    assert "127.0.0.2" in caught.value.why
    assert versions(project) == [2, 2, 2]
    assert_live_is_whole(project)
    assert_ledger_is_sound(project)


@real
def test_one_host_that_fails_takes_all_back(project: Project) -> None:
    put_live(project, bundle(project, 1))
    third = project.root / "hosts" / f"127.0.0.3:{port_of(project)}"

    def spoil(moment: str, task: Task) -> None:
        if moment == "after" and isinstance(task.step, Point):
            release = third / "releases" / task.step.pointer.release
            (release / "verdict").write_bytes(b"evil")

    with pytest.raises(DeliveryError, match=r"1 of 3 hosts failed: 127.0.0.3:\d+\."):
        put_live(project, bundle(project, 2), watch=spoil)
    assert versions(project) == [1, 1, 1]
    assert_ledger_is_sound(project)


def trust(project: Project, name: str) -> None:
    known = project.root / "known_hosts"
    text = known.read_text()
    known.write_text(f"{text}{text.splitlines()[0].replace('127.0.0.1', name)}\n")


def port_of(project: Project) -> int:
    return int(project.config.environments["prod"].targets["jetson"].hosts[0].rpartition(":")[2])


@real
def test_a_new_host_is_brought_along_by_the_same_command(project: Project) -> None:
    put_live(project, bundle(project, 1))
    fourth = f"127.0.0.4:{port_of(project)}"
    text = (project.root / "deploy.yaml").read_text().replace("hosts: [", f"hosts: ['{fourth}', ")
    known = project.root / "known_hosts"
    known.write_text(
        known.read_text() + known.read_text().splitlines()[0].replace("127.0.0.1", "127.0.0.4") + "\n"
    )
    larger = load_text(text, project.root)
    assert versions(larger) == [None, 1, 1, 1]
    (done,) = put_live(larger, bundle(larger, 1))
    assert (done.outcome, done.serial) == ("live", 2)
    assert versions(larger) == [1, 1, 1, 1]
    (done,) = put_live(larger, bundle(larger, 1))
    assert done.outcome == "unchanged"
    # A host that is new and whose fleet fails goes back to what it had: nothing.
    fifth = load_text(text.replace("127.0.0.4", "127.0.0.5"), project.root)
    known.write_text(
        known.read_text() + known.read_text().splitlines()[0].replace("127.0.0.1", "127.0.0.5") + "\n"
    )
    with pytest.raises(DeliveryError):
        put_live(fifth, bundle(fifth, 3, good=False))
    assert versions(fifth) == [None, 1, 1, 1]
    assert_ledger_is_sound(larger)


@real
def test_a_fleet_that_was_pointed_in_part_when_its_client_died_is_undone(project: Project) -> None:
    put_live(project, bundle(project, 1))
    site = Site(project, "prod")
    plan = site.plan("promote", {"jetson": Goal(bundle(project, 2))})
    (started,) = claim(plan, site.ledger).values()
    fleet = fleet_of(site)
    for task in plan.tasks:
        if isinstance(task.step, Point):
            list(fleet.hosts.values())[1].perform(task.step)
            break
        assert not isinstance(task.step, Hold)
        fleet.perform(task.step)
    ssh_project.close(site)
    owner.abandon(started.command)
    assert versions(project) == [1, 2, 1]
    Site(project, "prod").recover()
    assert versions(project) == [1, 1, 1]
    assert_ledger_is_sound(project)


@real
def test_each_host_goes_back_to_what_it_had_itself(project: Project) -> None:
    put_live(project, bundle(project, 1))
    text = (project.root / "deploy.yaml").read_text()
    third = f", '127.0.0.3:{port_of(project)}'"
    put_live(load_text(text.replace(third, ""), project.root), bundle(project, 2))
    assert versions(project) == [2, 2, 1]
    with pytest.raises(DeliveryError):
        put_live(project, bundle(project, 3, good=False))
    assert versions(project) == [2, 2, 1]
    put_live(project, bundle(project, 2))
    assert versions(project) == [2, 2, 2]
    assert_ledger_is_sound(project)


@real
def test_a_deployment_is_undone_by_the_host_itself(
    host: Host, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    shelf = Shelf(tmp_path / "store")
    first, second = shelf.bundle(1), shelf.bundle(2)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, first, 1)
        place(delivery, second)
        for _ in range(2):  # as after a connection that was cut before the answer came
            delivery.perform(Point(pointer(second, 2)))
        delivery.undo(pointer(first, 1))  # that is not what is live
        assert delivery.pointer() == pointer(second, 2)
        for _ in range(2):
            delivery.undo(pointer(second, 2))
            assert delivery.pointer() == pointer(first, 1)
        assert_whole(host.root, first)
        delivery.undo(pointer(first, 1))
        assert delivery.pointer() is None
        assert not (host.root / "current").is_symlink()


@real
@pytest.mark.parametrize("serial", [1, 57])
def test_a_host_keeps_what_it_had_whatever_its_serial_was(
    serial: int, host: Host, known_hosts: Path, client_key: Path, tmp_path: Path
) -> None:
    """As where the store is new, or its ledger came from a backup: serials begin anew, or come again."""
    shelf = Shelf(tmp_path / "store")
    first, second, third = shelf.bundle(1), shelf.bundle(2), shelf.bundle(3)
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, first, serial)
        place(delivery, second)
        for before in (pointer(first, serial), pointer(third, serial + 1)):
            for _ in range(2):
                delivery.perform(Point(pointer(second, 1)))
            delivery.undo(pointer(second, 1))
            assert delivery.pointer() == before
            if before.version == 1:
                deploy(delivery, third, serial + 1)
        delivery.withdraw()
        delivery.perform(Point(pointer(second, 1)))  # and what it replaced an earlier time is not meant
        delivery.undo(pointer(second, 1))
        assert delivery.pointer() is None


@real
def test_a_host_that_dies_when_it_was_pointed_is_left_and_caught_up(
    project: Project, client_key: Path, tmp_path: Path
) -> None:
    """Its sshd is killed; the others go back, the outcome is recorded, and later the same command works."""
    port = free_port()
    folder = tmp_path / "mortal"
    text = (project.root / "deploy.yaml").read_text()
    text = text.replace(f"127.0.0.3:{port_of(project)}", f"127.0.0.3:{port}")
    (project.root / "deploy.yaml").write_text(text)
    fleet = ssh_project.project_at(project.root)

    def unplug(moment: str, task: Task) -> None:
        if moment == "after" and isinstance(task.step, Point):
            for pid in [mortal.process.pid, *descendants(mortal.process.pid)]:
                os.kill(pid, 9)

    with running(folder, client_key, listen="127.0.0.3", port=port) as mortal:
        with (project.root / "known_hosts").open("a") as known:
            known.write(mortal.known())
        put_live(fleet, bundle(fleet, 1))
        with pytest.raises(DeliveryError, match="1 of 3 hosts failed") as caught:
            put_live(fleet, bundle(fleet, 2), watch=unplug)
        assert f"could not be taken back: 127.0.0.3:{port}" in caught.value.why
    event = next(iter(Ledger(fleet.store.objects).events(Site(fleet, "prod").places[0])))
    assert event.ended is not None
    assert [(end.host, end.outcome) for end in event.ended.hosts] == [(f"127.0.0.3:{port}", "unreachable")]
    found = look(fleet, "prod", "jetson")
    assert [host.serial for host in found.hosts.values()] == [1, 1, None]
    assert not found.healthy
    with running(folder, client_key, listen="127.0.0.3", port=port):
        assert versions(fleet) == [1, 1, 2]
        (done,) = put_live(fleet, bundle(fleet, 2))
        assert versions(fleet) == [2, 2, 2]
        sent = {end.host: end.bytes_sent for end in done.hosts}
        assert all(
            0 < bytes_sent < 1000 for bytes_sent in sent.values()
        )  # all three have it: the pointer alone
        assert look(fleet, "prod", "jetson").healthy
        assert_ledger_is_sound(fleet)


@real
def test_status_waits_for_a_host_that_says_nothing_but_does_not_fail(project: Project) -> None:
    put_live(project, bundle(project, 1))
    with socket.create_server(("127.0.0.9", 0)) as silent:
        name = f"127.0.0.9:{silent.getsockname()[1]}"
        text = (project.root / "deploy.yaml").read_text().replace("hosts: [", f"hosts: ['{name}', ")
        found = look(load_text(text, project.root), "prod", "jetson")
    assert found.hosts[name].serial is None
    assert "cannot be reached" in found.hosts[name].problem
    assert found.problem == f"1 of 4 hosts do not serve it: {name}"
    assert [host.problem for host in found.hosts.values()].count("") == 3


@real
def test_hosts_on_networks_of_their_own(tmp_path: Path, client_key: Path) -> None:
    """Three network namespaces with an sshd each; one host drops off the network while it receives."""
    names = [f"shipway-{os.getpid() % 10000}-{letter}" for letter in "abc"]
    root = tmp_path / "project"
    with network(names, "10.213") as addresses, ExitStack() as stack:
        hosts = [
            stack.enter_context(
                running(tmp_path / name, client_key, listen=addresses[name], port=22, namespace=name)
            )
            for name in names
        ]
        project = ssh_project.write_project(root, USER, list(addresses.values()), keep=5)
        (root / "known_hosts").write_text("".join(f"{host.name} {host.host_key}\n" for host in hosts))
        shutil.copy(client_key, root / "key")
        put_live(project, bundle(project, 1))
        assert versions(project) == [1, 1, 1]

        def unplug(moment: str, task: Task) -> None:
            if moment == "before" and isinstance(task.step, Seal):
                for pid in helpers(hosts[2]):
                    os.kill(pid, 9)
                hosts[2].process.kill()

        with pytest.raises(DeliveryError) as caught:
            put_live(project, bundle(project, 2), watch=unplug)
        assert addresses[names[2]] in str(caught.value)
        assert versions_of(project, 2) == [1, 1]
        again = stack.enter_context(
            running(tmp_path / "again", client_key, listen=addresses[names[2]], port=22, namespace=names[2])
        )
        shown = (root / "known_hosts").read_text().splitlines()[:2]
        (root / "known_hosts").write_text("\n".join([*shown, f"{again.name} {again.host_key}", ""]))
        put_live(project, bundle(project, 2))
        assert versions(project) == [2, 2, 2]
        assert_ledger_is_sound(project)
        head = Ledger(project.store.objects).head(Site(project, "prod").places[0])
        assert head.serial == 3
    left = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert not any(name in left for name in names)


def versions_of(project: Project, count: int) -> list[int | None]:
    site = Site(project, "prod")
    found = [host.pointer() for host in list(fleet_of(site).hosts.values())[:count]]
    return [pointer.version if pointer else None for pointer in found]


# what needs no host


def test_no_host_is_no_fleet() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Fleet("ssh://{host}/x", {})


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ("{to: 'ssh://d@{host}/opt'}", "needs hosts"),
        ("{to: 'ssh://d@host/opt', hosts: [a]}", "need {host}"),
        ("{to: 'ssh://d@{host}/opt', hosts: [a, b, a]}", "names one twice"),
        ("{to: ./out, ssh: {keys: [k]}}", "ssh: for ssh:// destinations only"),
        ("{to: 'ssh://d@{host}/opt', hosts: ['a b']}", "name or the address"),
        ("{to: 'ssh://d@{host}/opt', hosts: ['$(x)']}", "name or the address"),
    ],
)
def test_placements_that_make_no_sense(placement: str, message: str, tmp_path: Path) -> None:
    text = f"project: p\ntargets: {{t: {{kind: jetson-ort}}}}\nenvironments: {{e: {{t: {placement}}}}}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, tmp_path)
    assert message in str(caught.value)


def test_a_destination_that_is_no_folder_on_a_host_names_the_line(tmp_path: Path) -> None:
    text = "project: p\ntargets: {t: {kind: jetson-ort}}\nenvironments:\n  e:\n    t: {to: 'ssh://h/opt/../etc'}\n"
    with pytest.raises(ConfigError, match=r"deploy.yaml:5: environments.e.t.to: .*no folder on a host"):
        load_text(text, tmp_path).delivery("e", "t")
