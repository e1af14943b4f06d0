"""Gates that run on this machine: digests, the bundle's golden check and a command of the user's.

A gate passes or raises DeliveryError, saying what it found.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from shipway.registry import process
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import Json
from shipway.targets.deliveries.base import Delivery
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Gate, Release

Options = Mapping[str, Json]
TIMEOUT_S = 600  # seconds after which a gate counts as failed
_LINES = 20  # of a gate's output that a message repeats


def judge(delivery: Delivery, gate: Gate, folder: Callable[[], AbstractContextManager[Path]]) -> None:
    """Hold a live release against a gate. ``folder`` lends a local folder with the release's files."""
    if gate.name == "digests":
        check_digests(delivery, gate.release)
    elif gate.name == "check":
        with folder() as place:
            run_check(place, gate.release.manifest)
    elif gate.name == "command":
        with folder() as place:
            run_gate_command(place, gate.options)
    else:
        raise ValueError(f"{delivery.address} has no gate {gate.name!r}")


def check_digests(delivery: Delivery, release: Release) -> None:
    """Read the pointer and every file of the release back."""
    pointer = delivery.pointer()
    if pointer is None or pointer.release != release.id:
        found = pointer.release if pointer else "nothing"
        raise DeliveryError(f"The pointer at {delivery.address} names {found}, not {release.id}.")
    difference = delivery.audit(release.manifest)
    if not difference.whole:
        raise DeliveryError(
            f"Release {release.id} at {delivery.address} is not what was sent.",
            why=str(difference),
            remedy="Does something else write there? Then promote again.",
        )


def run_check(folder: Path, manifest: Manifest) -> Json:
    """Run the golden check in a placed release; return its verdict, one JSON object."""
    name = f"The golden check of {manifest.model}/{manifest.version} ({manifest.kind})"
    finished = _run(name, local_command(manifest.check), cwd=folder)
    lines = finished.stdout.strip().splitlines()
    try:
        verdict = json.loads(lines[-1]) if lines else {}
        passed = finished.code == 0 and verdict["passed"] is True
    except (ValueError, KeyError, TypeError):
        verdict, passed = None, False
    if not passed:
        raise DeliveryError(
            f"{name} did not pass in {folder}.",
            why=_tail(finished) if verdict is None else json.dumps(verdict),
            remedy="Run it there yourself: the release's README names the command.",
        )
    return verdict


def run_gate_command(folder: Path, options: Options) -> None:
    """Run the user's ``gate.command`` in a placed release, the deployment as JSON on stdin; exit 0 passes."""
    argv = tuple(options["argv"])
    document = json.dumps(options["deployment"]).encode()
    name = f"The gate {' '.join(argv)!r}"
    finished = _run(name, argv, cwd=folder, stdin=document)
    if finished.code != 0:
        raise DeliveryError(
            f"{name} did not pass.",
            why=_tail(finished),
            remedy="It is 'gate.command' in deploy.yaml; it gets the deployment as JSON on stdin.",
        )


def run_command(argv: Sequence[str], *, cwd: Path, why: str) -> None:
    """Run an activation command of a target kind in a placed release."""
    name = f"The command {' '.join(argv)!r} ({why})"
    finished = _run(name, local_command(argv), cwd=cwd)
    if finished.code != 0:
        raise DeliveryError(f"{name} failed in {cwd}.", why=_tail(finished))


def local_command(argv: Sequence[str]) -> tuple[str, ...]:
    """A bundle's command for this machine: its ``python3`` is the Python that runs shipway."""
    first, *rest = argv
    if first in ("python", "python3"):
        return (sys.executable, *rest)
    return (process.find(first) or first, *rest)


def _run(name: str, argv: Sequence[str], *, cwd: Path, stdin: bytes = b"") -> process.Finished:
    # A placed release must stay as it was sent: Python would leave __pycache__ in it.
    clean = {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        finished = process.run(argv, cwd=cwd, env=clean, timeout=TIMEOUT_S, stdin=stdin)
    except OSError as error:
        raise DeliveryError(
            f"{name} can't be started.",
            why=f"{error.strerror}: {error.filename}",
            remedy="'shipway doctor' says what is missing on this machine.",
        ) from error
    if finished.timed_out:
        raise DeliveryError(f"{name} gave no answer within {TIMEOUT_S} s.", why=_tail(finished))
    return finished


def _tail(finished: process.Finished) -> str:
    lines = (finished.stdout + finished.stderr).strip().splitlines()[-_LINES:]
    return "\n".join([*lines, process.describe_exit(finished.code)])
