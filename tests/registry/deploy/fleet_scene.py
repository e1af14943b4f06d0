"""A project with a fleet whose hosts are folders, each with faults to inject: as over ssh, but without it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import ClassVar

from deploy_scene import bundle, place

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy.execute import Deployment, Watch, unwatched
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import DeliveryError
from shipway.registry.ledger.events import Event
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import File
from shipway.registry.observe import Confirm
from shipway.registry.verbs.status import TargetStatus, look
from shipway.targets.deliveries.base import Delivery, Fetch, OutOfReachError
from shipway.targets.deliveries.fleet import Fleet
from shipway.targets.deliveries.folder import CURRENT, FolderDelivery
from shipway.targets.steps import Point, Pointer, Step

CONFIG = """
project: scene
store: store
targets:
  server: {{kind: jetson-ort}}
  boards: {{kind: jetson-ort}}
environments:
  prod:
    server: {{to: out/server, keep: 1}}
    boards:
      to: ssh://nobody@{{host}}/opt
      hosts: [{hosts}]
      keep: 1
      {more}
"""

TOLERANT = "waves: [1, 2, '100%']\n      failures: 2"
"""What stands in place of ``more`` where two hosts may fail."""


class FolderHost(FolderDelivery):
    """A host of a fleet in a folder. It keeps what was live before each deployment, as a real host does.

    ``fault`` is a file that says what is wrong with it: ``down``; ``fails at Gate``, ``fails at gate check``:
    the host itself fails at that; ``dies at Point``, ``dies after Point``: then it is down. Without the file
    nothing is. Where ``countdown`` gives 0, before a step on any host or before one is undone, this process
    is killed.
    """

    countdown: ClassVar[Iterator[int] | None] = None

    def __init__(self, root: Path, fetch: Fetch, fault: Path, journal: Path) -> None:
        super().__init__(root, fetch)
        self._fault = fault
        self._journal = journal

    def perform(self, step: Step) -> int:
        self._answer()
        self._tick()
        name, fault = type(step).__name__, self._said()
        with self._journal.open("a") as journal:
            journal.write(f"{self.root.name} {name}\n")
        if fault in (f"fails at {name}", f"fails at {step}"):
            raise DeliveryError(f"{name} failed on {self.root.name}.", why="That is its fault.")
        if fault == f"dies at {name}":
            self._fault.write_text("down")
            self._answer()
        if isinstance(step, Point):
            before = self.root / f"before-{step.pointer.serial}.json"
            found = FolderDelivery.pointer(self)
            if found != step.pointer:
                before.parent.mkdir(parents=True, exist_ok=True)
                before.write_text(json.dumps(found.to_json() if found else None))
        sent = super().perform(step)
        if fault == f"dies after {name}":
            self._fault.write_text("down")
        return sent

    def undo(self, mine: Pointer) -> None:
        self._answer()
        self._tick()
        if FolderDelivery.pointer(self) != mine:
            return
        before = json.loads((self.root / f"before-{mine.serial}.json").read_text())
        if before is None:
            self.withdraw()
        else:
            FolderDelivery.perform(self, Point(Pointer.from_json(before)))

    def pointer(self) -> Pointer | None:
        self._answer()
        return super().pointer()

    def releases(self) -> tuple[str, ...]:
        self._answer()
        return super().releases()

    def close(self) -> None:
        """There is no connection."""

    def _tick(self) -> None:
        if FolderHost.countdown is not None and next(FolderHost.countdown) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _said(self) -> str:
        return self._fault.read_text() if self._fault.exists() else ""

    def _answer(self) -> None:
        if self._said() == "down":
            raise OutOfReachError(f"{self.root.name} cannot be reached.", why="It is down.")


class FleetProject(Project):
    """Its hosts are folders below ``hosts``; ``journal`` lists the steps that they were told to do."""

    def delivery(self, environment: str, target: str, *, to: str | None = None) -> Delivery:
        placement = self._placement(environment, target, to)
        if not placement.hosts:
            return super().delivery(environment, target, to=to)
        hosts = {name: self.host(name) for name in placement.hosts}
        return Fleet(placement.to, hosts, at_once=3)

    def host(self, name: str) -> FolderHost:
        return FolderHost(self.root / "hosts" / name, self._fetch, self.fault(name), self.root / "journal")

    def fault(self, name: str, text: str | None = None) -> Path:
        path = self.root / "faults" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
        return path

    def mend(self, name: str) -> None:
        self.fault(name).unlink()

    def versions(self) -> list[int | None]:
        """What each host's own folder says is live."""
        found = []
        for name in self.config.environments["prod"].targets["boards"].hosts:
            path = self.root / "hosts" / name / CURRENT
            found.append(json.loads(path.read_text())["version"] if path.exists() else None)
        return found

    def journal(self) -> list[tuple[str, str]]:
        """(host, step) in order, since it was last asked."""
        path = self.root / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [(line.split()[0], line.split()[1]) for line in lines]

    def _fetch(self, file: File) -> Path:
        return self.store.open(file)


def fleet_at(root: Path, hosts: Sequence[str] = "abcde", more: str = "waves: [1, 2, '100%']") -> FleetProject:
    text = CONFIG.format(hosts=", ".join(hosts), more=more)
    loaded = load_text(text, root)
    return FleetProject(**{field.name: getattr(loaded, field.name) for field in fields(loaded)})


@contextmanager
def faults(project: FleetProject, **wrong: str) -> Iterator[None]:
    """With these hosts faulty until the end of the block."""
    for name, text in wrong.items():
        project.fault(name, text)
    yield
    for name in wrong:
        project.mend(name)


def promote(
    project: FleetProject,
    version: int,
    *,
    good: bool = True,
    targets: tuple[str, ...] = ("boards",),
    confirm: Confirm | None = None,
    watch: Watch = unwatched,
) -> Deployment:
    """What ``promote`` does once the bundle is built; the fleet's part."""
    site = Site(project, "prod", targets)
    site.recover()
    manifest = bundle(project, version, good=good)
    plan = site.plan("promote", {target: Goal(manifest) for target in site.targets})
    done = site.carry_out(plan, confirm=confirm, watch=watch)
    return next(one for one in done if one.target == "boards")


def newest(project: FleetProject) -> Event:
    return next(iter(Ledger(project.store.objects).events(place("boards"))))


def ends(done: Deployment) -> dict[str, str]:
    return {host.host: host.outcome for host in done.hosts}


def state(project: FleetProject) -> TargetStatus:
    return look(project, "prod", "boards")
