"""The rows that need no other machine: what is run against what, and how the result is checked afterwards."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import Contest, Subject, peak, run
from scene import (
    BIN,
    HERE,
    SHIPWAY,
    TARGETS,
    Group,
    answer,
    big_model,
    live,
    numbers,
    project,
    released,
    require,
    settle,
    shipway,
)

from shipway.targets import browser_wasm, npm

sys.path.insert(0, str(HERE.parent / "demo"))
import models
import serve

FLOOR = [sys.executable, HERE / "typer_app.py", "hello"]
QUICK = 15  # rounds: what takes a tenth of a second is over so soon that more of them cost nothing


def quick_commands(work: Path) -> Iterator[Contest]:
    """Start-up: what a person waits for before anything happens."""
    source = models.fetch()
    recognition = source / models.NAMES["rec"]
    models.tuned(recognition, work / "rec-tuned")
    home = project(work / "home")
    shipway(home, "register", recognition, "--name", "rec")
    shipway(home, "register", work / "rec-tuned", "--name", "rec")
    for version in "12":
        shipway(home, "promote", f"rec/{version}", "--to", "prod")
        settle(home)

    def floor() -> float:
        return run(FLOOR, home).wall

    def rollback() -> float:
        shipway(home, "promote", "rec/2", "--to", "prod")
        live(home, "prod", "rec/2")
        took = shipway(home, "rollback", "--env", "prod")
        live(home, "prod", "rec/1")
        return took

    def told() -> None:
        live(home, "prod", "rec/1")
        found = answer(home, "status")["environments"]["prod"]
        require(len(found) == 4, f"status shows {len(found)} targets")
        events = answer(home, "history")["events"]
        require(events[0]["kind"] == "rollback", f"the newest event is {events[0]}")
        numbers(home)

    quick = [
        Subject(f"shipway {word}", 1.5, lambda w=word: shipway(home, w))
        for word in ("--help", "status", "history")
    ]  # type: ignore[misc]
    yield Contest(
        "typer app",
        floor,
        (*quick, Subject("rollback, four folders", 2.5, rollback)),
        told,
        rounds=QUICK,
    )
    yield Contest(
        "mlflow --version",
        lambda: run([BIN / "mlflow", "--version"], home).wall,
        (Subject("shipway status, MLflow", 0.08, lambda: shipway(home, "status")),),
        told,
    )


def registration(work: Path) -> Iterator[Contest]:
    recognition = models.fetch() / models.NAMES["rec"]
    home, other = work / "home", work / "documented"

    def documented() -> float:
        shutil.rmtree(other, ignore_errors=True)
        other.mkdir()
        script = [sys.executable, HERE / "documented_way.py", recognition, "rec"]
        return run(script, other, {"MLFLOW_TRACKING_URI": f"sqlite:///{other}/mlflow.db"}).wall

    def first() -> float:
        project(home)
        return shipway(home, "register", recognition, "--name", "rec")

    def again() -> float:
        return shipway(home, "register", recognition, "--name", "rec")

    def registered() -> None:
        shown = answer(home, "register", recognition, "--name", "rec")
        require((shown["version"], shown["created"]) == (1, False), "it is not version 1, or was made again")
        require(bool(shown["links"]) and all(link["passed"] for link in shown["links"]), "a link failed")
        answer(home, "verify", "rec/1")
        # MLflow alone loads what was registered, and it answers.
        script = (
            "import mlflow, sys; mlflow.set_tracking_uri('sqlite:///.shipway/mlflow.db');"
            "model = mlflow.pyfunc.load_model('models:/rec/1'); model.predict(model.input_example)"
        )
        run([sys.executable, "-c", script], home)

    yield Contest(
        "documented script",
        documented,
        (Subject("register PP-OCRv4 rec", 0.35, first), Subject("register it again", 0.05, again)),
        registered,
    )


def promotion(work: Path) -> Iterator[Contest]:
    home = project(work / "home")
    shipway(home, "register", big_model(work / "100.onnx", 100), "--name", "big")
    fresh, copy, cache = work / "fresh", work / "copy", work / "cache"
    seen: set[tuple[str, ...]] = set()  # the same bundles must come out of every round

    def promoted() -> float:
        took = run([SHIPWAY, "promote", "big/1", "--to", "prod"], fresh, {"SHIPWAY_CACHE": str(cache)}).wall
        live(fresh, "prod", "big/1")
        for target in TARGETS:
            answer(fresh, "verify", released(fresh, target), "--digests-only")
        found = answer(fresh, "status")["environments"]["prod"]
        seen.add(tuple(found[target]["bundle"] for target in TARGETS))
        return took

    def first() -> float:
        """Of what a machine keeps there is only npm's package: to download it is not shipway's work."""
        for old in (fresh, cache):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(home, fresh, symlinks=True)
        package = browser_wasm.BrowserOptions()
        fetched = npm.tarball(browser_wasm.PACKAGE, package.runtime_version, package.runtime_integrity)
        (cache / "npm").mkdir(parents=True)
        shutil.copy(fetched, cache / "npm")
        return promoted()

    def again() -> float:
        """The store has the bundles; nothing was ever deployed."""
        for old in ("deployed", ".shipway/store/ledger", ".shipway/store/mirror"):
            shutil.rmtree(fresh / old)
        shutil.copy(home / ".shipway/mlflow.db", fresh / ".shipway/mlflow.db")  # it knows no alias
        return promoted()

    def copied() -> float:
        shutil.rmtree(copy, ignore_errors=True)
        script = 'cp -r "$1" "$2" && find "$2" -type f -exec sha256sum {} + >/dev/null'
        return run(["sh", "-c", script, "sh", fresh / "deployed", copy], work).wall

    def whole() -> None:
        require(len(seen) == 1, f"the rounds made other bundles: {seen}")
        numbers(fresh)

    yield Contest(
        "cp -r and sha256sum",
        copied,
        (
            Subject("promote 100 MB, nothing cached", 2.0, first),
            Subject("promote 100 MB, in the store", 0.3, again),
        ),
        whole,
    )


def scaling(work: Path) -> Iterator[Contest]:
    """What must not grow: reading the ledger with its length, memory with the model's size."""
    homes = {length: project(work / f"ledger-{length}") for length in (10, 10_000)}
    for length, home in homes.items():
        fill_ledger(home, length)

    def status(length: int) -> Callable[[], float]:
        # MLflow knows nothing of these ledgers, which were written by hand: no alias can follow.
        return lambda: run([SHIPWAY, "status"], homes[length], {"SHIPWAY_MIRROR": "off"}).wall

    def counted() -> None:
        for length, home in homes.items():
            found = answer(home, "status")["environments"]["prod"]["server"]
            require(found["serial"] == length, f"{found['serial']} is told where {length} were made")

    subject = Subject("status, 10,000 entries", 1.2, status(10_000))
    yield Contest("10 entries", status(10), (subject,), counted, rounds=QUICK)

    home = project(work / "memory")
    for size in (100, 1000):
        shipway(home, "register", big_model(work / f"{size}.onnx", size), "--name", f"m{size}")
        (work / f"{size}.onnx").unlink()

    def promoted(size: int) -> Callable[[], float]:
        def measured() -> float:
            shutil.rmtree(home / "deployed", ignore_errors=True)
            for kept in ("ledger", "builds"):
                shutil.rmtree(home / ".shipway/store" / kept, ignore_errors=True)
            largest = peak([SHIPWAY, "promote", f"m{size}/1", "--to", "prod"], home)
            live(home, "prod", f"m{size}/1")
            return largest / 1e6

        return measured

    subject = Subject("peak memory, promote 1 GB", 1.3, promoted(1000))
    yield Contest("100 MB", promoted(100), (subject,), lambda: numbers(home), unit="MB", warm=False)


def serving(work: Path) -> Iterator[Contest]:
    """The bundle's server on one thread, two clients at work, against the runtime itself."""
    folder = serve.bundle(work, threads=1)
    model = serve.runner(folder)
    runs, right = serve.loop(model), model.run({"x": serve.X})[serve.OUTPUT]
    with serve.served(folder) as port:
        answers = serve.clients(port, right)
        name = "an answer of PP-OCRv4 rec's server"
        yield Contest(
            "ONNX Runtime in a loop",
            lambda: 1e3 / runs(),
            (Subject(name, 1.25, lambda: 1e3 / answers()),),
            lambda: (
                None
            ),  # every answer's status was looked at, and one in some held against the loop's outputs
            unit="ms",
        )


def fill_ledger(home: Path, length: int) -> None:
    """A ledger as ``length`` promotions would have left it, written through shipway's own code."""
    from shipway.registry.ledger.events import Place
    from shipway.registry.ledger.ledger import Ledger
    from shipway.registry.store.folder import FolderObjects

    ledger = Ledger(FolderObjects(home / ".shipway/store"))
    place = Place("prod", "server")
    sync, os.fsync = os.fsync, lambda descriptor: None  # it need not survive a power cut
    try:
        fill(ledger, place, length)
    finally:
        os.fsync = sync


def fill(ledger: Any, place: Any, length: int) -> None:
    from shipway.registry.ledger import owner
    from shipway.registry.ledger.events import LIVE, Started
    from shipway.registry.nouns import Digest

    for serial in range(1, length + 1):
        started = Started(
            place=place,
            serial=serial,
            kind="promote",
            model="rec",
            version=serial,
            bundle=Digest.of(str(serial).encode()),
            release=f"rec-{serial}",
            actor="bench",
            at=owner.now(),
            reason="",
            accept=None,
            restores=None,
            before=None,
            command=str(serial),
            peers=(("server", serial),),
            owner=owner.this_process(),
        )
        ledger.claim(started)
        ledger.end(started, LIVE)


LOCAL = (
    Group(
        quick_commands,
        (
            "shipway --help",
            "shipway status",
            "shipway history",
            "rollback, four folders",
            "shipway status, MLflow",
        ),
    ),
    Group(registration, ("register PP-OCRv4 rec", "register it again")),
    Group(promotion, ("promote 100 MB, nothing cached", "promote 100 MB, in the store")),
    Group(scaling, ("status, 10,000 entries", "peak memory, promote 1 GB")),
    Group(serving, ("an answer of PP-OCRv4 rec's server",)),
)
