"""MLflow's aliases ``ENV-TARGET``, kept in step with the ledger by a process of its own.

Deployments must not wait for MLflow: importing it takes seconds, and it may be down. So a command that made
something live starts this module as a detached process and ends. In the store:

===========================  =================================================================================
``mirror/state.json``        which serial of each place the aliases show
``mirror/running/<t>.json``  who is at work; one left by a dead process means that the aliases may be wrong
``mirror/starting.json``     when a mirror was started that has not come round to looking yet
``mirror/error.json``        why the last try failed, and when
===========================  =================================================================================

Rule: a mirror takes its document away and only then reads the ledger once more, starting over where
something changed. So whoever recorded a deployment and then sees the document of a mirror that lives, or of
one that is only starting, may rely on it; and of several mirrors at once, whichever is last, the aliases end
up as the ledger's newest state.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shipway.registry.config.model import DeployConfig, StoreConfig
from shipway.registry.config.project import Project
from shipway.registry.errors import ShipwayError
from shipway.registry.ledger import owner
from shipway.registry.ledger.events import Owner, Place
from shipway.registry.ledger.ledger import UNREADABLE, Ledger
from shipway.registry.nouns import Json
from shipway.registry.store.objects import Objects

MODE = "SHIPWAY_MIRROR"  # environment variable: 'background' (the default), 'wait' or 'off'
_STATE, _ERROR, _RUNNING = "mirror/state.json", "mirror/error.json", "mirror/running/"
_STARTING = "mirror/starting.json"
_START_S = 20.0  # after which a mirror that was started and never looked counts as lost
_PAUSE_S = 60.0  # after a failure, before a command that merely looks tries again


@dataclass(frozen=True, slots=True)
class Shown:
    """What an alias shows: the version that is live at a place since ``serial``."""

    serial: int
    model: str
    version: int

    def to_json(self) -> Json:
        return {"serial": self.serial, "model": self.model, "version": self.version}


def places_of(project: Project) -> tuple[Place, ...]:
    """Every target of every environment."""
    environments = project.config.environments
    return tuple(Place(name, target) for name, body in environments.items() for target in body.targets)


def behind(project: Project, live: Mapping[Place, int | None]) -> frozenset[Place]:
    """Which of the places, whose live serials are given, MLflow may show wrongly. Does not ask MLflow."""
    objects = project.store.objects
    if any(not alive for _, alive in _running(objects)):
        return frozenset(live)
    state = _document(objects, _STATE)
    return frozenset(place for place, serial in live.items() if _shown(state.get(str(place))) != serial)


def _shown(entry: Json) -> int | None:
    return entry.get("serial") if isinstance(entry, dict) else None


def last_error(project: Project) -> str:
    """Why the last try failed, or nothing where it did not."""
    return str(_document(project.store.objects, _ERROR).get("what", ""))


def start(project: Project, *, patient: bool = False) -> None:
    """Have the aliases follow as ``SHIPWAY_MIRROR`` says: by a detached process, waiting for it, or not.

    ``patient`` callers, who changed nothing, leave a registry alone that failed less than a minute ago.
    Raises for nothing that MLflow or the store do: the ledger is the truth, whoever comes here has deployed
    already, and ``status`` tells of a mirror that lags.
    """
    with contextlib.suppress(ShipwayError, OSError):  # who may only read the store can't mirror it
        _start(project, patient)


def _start(project: Project, patient: bool) -> None:
    mode = os.environ.get(MODE, "background")
    objects = project.store.objects
    if mode == "off" or (patient and _recent(objects, _ERROR, _PAUSE_S)):
        return
    if mode == "wait":
        _try(project, places_of(project))
    elif not _recent(objects, _STARTING, _START_S) and not any(alive for _, alive in _running(objects)):
        objects.put(_STARTING, json.dumps({"at": owner.now()}).encode())
        _detach(project)


def mirror_now(project: Project) -> dict[str, tuple[str, int] | None]:
    """Bring the aliases in step and return them: (model, version) by alias. Raises DeliveryError."""
    return _converge(project, places_of(project))


def _converge(project: Project, places: Sequence[Place]) -> dict[str, tuple[str, int] | None]:
    from shipway.registry import catalog

    objects = project.store.objects
    token = f"{_RUNNING}{time.time_ns():020d}-{os.getpid()}.json"
    mine = json.dumps({"owner": owner.this_process().to_json(), "at": owner.now()}).encode()
    try:
        while True:
            objects.put(token, mine)
            remains = [key for key, alive in _running(objects) if not alive]
            shown = _live(objects, places)
            aliases = {place.alias: (s.model, s.version) if s else None for place, s in shown.items()}
            catalog.set_aliases(project.registry_uri, aliases)
            state = {str(place): s.to_json() for place, s in shown.items() if s}
            objects.put(_STATE, json.dumps(state, sort_keys=True).encode())
            for key in (*remains, token, _ERROR):
                objects.delete(key)
            if _live(objects, places) == shown:
                return aliases
    except BaseException:
        objects.put(_STATE, b"{}")  # nobody knows how far it came
        objects.delete(token)
        raise


def _live(objects: Objects, places: Sequence[Place]) -> dict[Place, Shown | None]:
    """What the ledger says is live, for each place that anything was ever deployed to."""
    ledger = Ledger(objects)
    found: dict[Place, Shown | None] = {}
    for place in places:
        head = ledger.head(place)
        if head.serial:
            serial = head.standing.live
            started = ledger.started(place, serial) if serial is not None else None
            found[place] = Shown(started.serial, started.model, started.version) if started else None
    return found


def _try(project: Project, places: Sequence[Place]) -> None:
    try:
        _converge(project, places)
    except Exception as error:  # a bug too: the process that runs this has no other way to tell
        what = error.what if isinstance(error, ShipwayError) else repr(error)
        document = json.dumps({"at": owner.now(), "what": what}).encode()
        project.store.objects.put(_ERROR, document)


def _running(objects: Objects) -> Iterator[tuple[str, bool]]:
    """The documents of mirrors at work, oldest first, each with whether its process lives."""
    for key in objects.list(_RUNNING):
        data = _document(objects, key)
        if data:
            yield key, _lives(data)


def _lives(data: Mapping[str, Json]) -> bool:
    try:
        return owner.is_alive(Owner.from_json(data["owner"]), data["at"])
    except UNREADABLE:
        return False


def _recent(objects: Objects, key: str, seconds: float) -> bool:
    """Whether a document says that it was written less than so long ago."""
    try:
        return abs(owner.seconds_since(_document(objects, key)["at"])) < seconds
    except UNREADABLE:
        return False


def _document(objects: Objects, key: str) -> dict[str, Json]:
    raw = objects.get(key)
    try:
        data = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        data = {}
    return data if isinstance(data, dict) else {}


def _detach(project: Project) -> None:
    """Start this module as a process that outlives us, with no stream of ours and no terminal.

    What it shall do comes by a pipe: the registry's address may hold a password, and everybody on a machine
    can read everybody's command lines.
    """
    config = project.config
    order = {
        "project": config.project,
        "registry": project.registry_uri,
        "store": config.store.model_dump(),
        "root": str(project.root),
        "places": [[place.environment, place.target] for place in places_of(project)],
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "shipway.registry.deploy.mirror"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.write(json.dumps(order).encode())
    child.returncode = 0  # nobody waits for it: keeps subprocess from warning of a child that still runs


def _main(order: dict[str, Json]) -> None:
    """The detached process. One that finds another at work leaves it to that one, by the module's rule."""
    store = StoreConfig.model_validate(order["store"])
    config = DeployConfig(project=order["project"], registry=order["registry"], store=store)
    project = Project(config, Path(order["root"]))
    project.store.objects.delete(_STARTING)  # before looking: see the module's rule
    if not any(alive for _, alive in _running(project.store.objects)):
        _try(project, [Place(environment, target) for environment, target in order["places"]])


if __name__ == "__main__":
    _main(json.load(sys.stdin))
