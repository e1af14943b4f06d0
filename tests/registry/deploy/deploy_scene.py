"""A project on real folders, bundles made by hand, and a way to die at any change of the file system."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "shared"))  # scripts use this module too

import records

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy.execute import Deployment, Watch, unwatched
from shipway.registry.deploy.site import Goal, Site
from shipway.registry.errors import ConflictError, DeliveryError
from shipway.registry.ledger import stack
from shipway.registry.ledger.events import Place
from shipway.registry.ledger.ledger import Ledger
from shipway.registry.nouns import Digest
from shipway.targets.manifest import Manifest

CONFIG = """
project: scene
store: store
targets:
  one: {{kind: jetson-ort}}
  two: {{kind: jetson-ort}}
environments:
  staging:
    one: {{to: out/staging/one, keep: {keep}, gate: {gate}}}
  prod:
    after: staging
    one: {{to: out/prod/one, keep: {keep}, gate: {gate}}}
    two: {{to: out/prod/two, keep: {keep}, gate: {gate}}}
"""

CHECK = b"""import json, pathlib
passed = pathlib.Path("verdict").read_text() == "good"
print("some log line")
print(json.dumps({"passed": passed, "outputs": []}))
raise SystemExit(0 if passed else 5)
"""

TELLING = b"""import json
told = {"passed": True, "provider": "CPUExecutionProvider", "missing": ["CUDAExecutionProvider"]}
print(json.dumps(told))
"""
"""Stands in for ``check.py``: it says what it ran on, as those of the built-in kinds do."""


def project_at(root: Path, *, keep: int = 5, gate: str = "{check: true}", text: str = CONFIG) -> Project:
    return load_text(text.format(keep=keep, gate=gate), root)


def bundle(
    project: Project,
    version: int,
    *,
    good: bool = True,
    model: str = "ocr",
    extra: Mapping[str, bytes] | None = None,
) -> Manifest:
    """A bundle of three small files, one of them shared by all versions; its check obeys ``good``."""
    contents = {
        "check.py": CHECK,
        "model/graph.onnx": f"graph of {model} {version}".encode() * 50,
        "verdict": b"good" if good else b"bad",
        **(extra or {}),
    }
    manifest = records.manifest(
        records.kept(project.store, contents),
        model=model,
        version=version,
        model_digest=Digest.of(f"{model} {version}".encode()),
        executables=("check.py",),
    )
    project.store.add_bundle(manifest)
    return manifest


def put_live(
    project: Project,
    manifest: Manifest,
    environment: str = "prod",
    targets: Sequence[str] = (),
    *,
    accept: str | None = None,
    watch: Watch = unwatched,
) -> tuple[Deployment, ...]:
    """The second half of ``promote``: what follows once the bundles are built."""
    site = Site(project, environment, targets)
    site.recover()
    plan = site.plan("promote", {target: Goal(manifest) for target in site.targets}, accept=accept)
    return site.carry_out(plan, watch=watch)


def pointers(project: Project, environment: str = "prod") -> dict[str, tuple[int, int] | None]:
    """(serial, version) of what each destination says is live."""
    site = Site(project, environment)
    found = {place.target: site.delivery(place).pointer() for place in site.places}
    return {target: (p.serial, p.version) if p else None for target, p in found.items()}


def live_versions(project: Project, environment: str = "prod") -> dict[str, int | None]:
    return {target: found[1] if found else None for target, found in pointers(project, environment).items()}


def assert_live_is_whole(project: Project, environment: str = "prod") -> None:
    """Rule 1: whatever a destination points at is there, every byte of it."""
    site = Site(project, environment)
    for place in site.places:
        pointer = site.delivery(place).pointer()
        if pointer is not None:
            difference = site.delivery(place).audit(project.store.bundle(pointer.bundle))
            assert difference.whole, f"{place} points at {pointer.release}: {difference}"


def assert_ledger_is_sound(project: Project, environment: str = "prod") -> None:
    """Serials 1, 2, ...; one outcome each; notes agree with the fold, pointers with the ledger."""
    ledger = Ledger(project.store.objects)
    site = Site(project, environment)
    for place in site.places:
        events = list(ledger.events(place))[::-1]
        assert [event.started.serial for event in events] == list(range(1, len(events) + 1))
        assert all(event.ended for event in events), f"{place} has a serial without outcome"
        head = ledger.head(place)
        assert head.standing == stack.fold(events)
        pointer = site.delivery(place).pointer()
        live = ledger.started(place, head.standing.live) if head.standing.live else None
        assert pointer == (live.pointer if live else None)


def assert_nothing_left(project: Project, environment: str = "prod") -> None:
    """No staging folder, no temporary file: not at the destinations, not in the ledger."""
    site = Site(project, environment)
    for place in site.places:
        root = Path(site.delivery(place).address)
        assert not (root / ".staging").exists()
        left = [path for path in root.rglob("*") if path.name.endswith((".tmp", ".part", ".old"))]
        assert not left


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


# dying on purpose

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "os.truncate"}


def changes_something(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether an audit event (docs.python.org/3/library/audit_events.html) changes a file system."""
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in _CHANGES


Moment = Callable[[str, tuple[object, ...]], bool]
"""Told of each change to the file system right before it happens; says whether to die there."""


def change(number: int) -> Moment:
    """The change of that number, from 0."""
    left = itertools.count(number, -1)
    return lambda event, arguments: next(left) == 0


def naming(end: str, *, nth: int = 1) -> Moment:
    """The ``nth`` time that a file gets a name that ends with ``end``."""
    left = itertools.count(nth - 1, -1)
    return lambda event, arguments: (
        event in ("os.rename", "os.link") and str(arguments[1]).endswith(end) and next(left) == 0
    )


def fork() -> int:
    """``os.fork`` without Python 3.12's warning of threads: the child does its work and ends by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def forked(work: Callable[[], object], *, die: Moment | None = None) -> int:
    """Run ``work`` in a forked child and return its end: 0, 7 (lost the race), 8, 1 (error) or -9 (killed).

    ``die`` names the change to the file system right before which the child is killed with SIGKILL. Nothing
    of the child's cleans up after that.
    """
    pid = fork()
    if pid == 0:
        code = 1
        try:
            if die is not None:
                arm(die)
            work()
            code = 0
        except ConflictError:
            code = 7
        except DeliveryError:
            code = 8
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def arm(die: Moment) -> None:
    """Have this process killed at that moment."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if changes_something(event, arguments) and die(event, arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def place(target: str, environment: str = "prod") -> Place:
    return Place(environment, target)


def outcomes(project: Project, target: str = "one") -> list[str]:
    return [event.outcome for event in Ledger(project.store.objects).events(place(target))][::-1]
