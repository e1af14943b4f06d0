"""Gates: digests, the bundle's golden check, a command of the user's, a server that is asked (``gates_url``).

Programs run on this machine, or wherever the ``Run`` of a delivery runs them (``judge_there``). A gate passes
or raises DeliveryError, saying what it found: UnprovenError where that may be accepted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from shipway.registry import process
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import Json
from shipway.targets.deliveries.base import Delivery, Fetch, UnprovenError
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Gate, Release

Options = Mapping[str, Json]
Run = Callable[[str, Sequence[str], bytes], process.Finished]
"""Runs a command in the release's folder: what messages call it, the command as in the bundle, its stdin.

Raises UnprovenError where it can't be started or gives no answer in time.
"""
TIMEOUT_S = 600  # seconds after which a gate counts as failed


def judge(
    delivery: Delivery, gate: Gate, folder: Callable[[], AbstractContextManager[Path]], fetch: Fetch
) -> Json | None:
    """Hold a live release against a gate; return what the golden check printed, where the gate is that.

    ``folder`` lends a local folder with the release's files.
    ``fetch`` reads the store, for a gate that asks a server.
    """
    if _judged_from_here(delivery, gate, fetch, ""):
        return None
    with folder() as place:
        # Only the bundle's own command is translated: a command of the user's means what it says.
        here = partial(_run_bundled if gate.name == "check" else _run_here, place)
        return _judge_by_program(gate, str(place), here)


def judge_there(delivery: Delivery, gate: Gate, where: str, run: Run, fetch: Fetch, host: str) -> Json | None:
    """The same on ``host``, where ``run`` runs the gate's programs in the release's folder, ``where``."""
    if _judged_from_here(delivery, gate, fetch, host):
        return None
    return _judge_by_program(gate, where, bundled_there(gate.release, run) if gate.name == "check" else run)


def _judged_from_here(delivery: Delivery, gate: Gate, fetch: Fetch, host: str) -> bool:
    """Judge a gate that runs no program; False for one that does. Raises ValueError for an unknown one."""
    if gate.name not in ("digests", "check", "command", "url"):
        raise ValueError(f"{delivery.address} has no gate {gate.name!r}")
    if gate.name == "digests":
        check_digests(delivery, gate.release)
    elif gate.name == "url":
        from shipway.targets.deliveries import gates_url  # brings an HTTP client, which few commands need

        gates_url.judge(gate, fetch, host)
    return gate.name in ("digests", "url")


def _judge_by_program(gate: Gate, where: str, run: Run) -> Json | None:
    if gate.name == "check":
        return run_check(where, gate.release.manifest, run)
    run_gate_command(gate.options, run)
    return None


def check_digests(delivery: Delivery, release: Release) -> None:
    """Read the pointer and every file of the release back."""
    pointer = delivery.pointer()
    if pointer is None or pointer.release != release.id:
        found = pointer.release if pointer else "nothing"
        raise DeliveryError(
            f"The pointer at {delivery.address} names {found}, not {release.id}.",
            remedy="Does something else write there? Then promote again.",
        )
    difference = delivery.audit(release.manifest)
    if not difference.whole:
        raise DeliveryError(
            f"Release {release.id} at {delivery.address} is not what was sent.",
            why=str(difference),
            remedy="Does something else write there? Then promote again.",
        )


def run_check(where: str, manifest: Manifest, run: Run) -> Json:
    """Run the golden check in a placed release; return its verdict, one JSON object."""
    name = f"The golden check of {manifest.model}/{manifest.version} ({manifest.kind})"
    finished = run(name, manifest.check, b"")
    try:
        verdict = finished.last_document()
        passed = finished.code == 0 and verdict["passed"] is True
    except (ValueError, KeyError, TypeError):
        verdict, passed = None, False
    if not passed:
        raise UnprovenError(
            f"{name} did not pass in {where}.",
            why=_tail(finished) if verdict is None else json.dumps(verdict),
            remedy="Run it there yourself: the release's README names the command.",
        )
    return verdict


def judge_preflight(host: str, manifest: Manifest, finished: process.Finished) -> None:
    """Read a preflight's line of JSON. Raises DeliveryError where the bundle does not fit ``host``."""
    try:
        found = finished.last_document()
        passed, problems = found["passed"] is True, "; ".join(found["problems"])
    except (ValueError, KeyError, TypeError):
        passed, problems = False, _tail(finished)
    if not passed:
        raise UnprovenError(
            f"{manifest.model}/{manifest.version} ({manifest.kind}) does not fit {host}.",
            why=problems,
            remedy="Nothing was sent there. Mend the host, or the target's options in deploy.yaml.",
        )


def run_gate_command(options: Options, run: Run) -> None:
    """Run the user's ``gate.command`` in a placed release, the deployment as JSON on stdin; exit 0 passes."""
    argv = tuple(options["argv"])
    document = json.dumps(options["deployment"]).encode()
    name = f"The gate {' '.join(argv)!r}"
    finished = run(name, argv, document)
    if finished.code != 0:
        raise UnprovenError(
            f"{name} did not pass.",
            why=_tail(finished),
            remedy="It is 'gate.command' in deploy.yaml; it gets the deployment as JSON on stdin.",
        )


def run_command(argv: Sequence[str], *, cwd: Path, why: str) -> None:
    """Run an activation command of a target kind in a placed release."""
    run_command_there(argv, str(cwd), why, partial(_run_bundled, cwd))


def run_command_there(argv: Sequence[str], where: str, why: str, run: Run) -> None:
    """The same by way of ``run``."""
    name = f"The command {' '.join(argv)!r} ({why})"
    finished = run(name, argv, b"")
    if finished.code != 0:
        raise UnprovenError(
            f"{name} failed in {where}.",
            why=_tail(finished),
            remedy="Mend there what it complains of, then run the command again.",
        )


def local_command(argv: Sequence[str]) -> tuple[str, ...]:
    """A bundle's command for this machine: its ``python3`` is the Python that runs shipway."""
    first, *rest = argv
    if first in ("python", "python3"):
        return (sys.executable, *rest)
    return (process.find(first) or first, *rest)


def command_there(manifest: Manifest, argv: Sequence[str]) -> tuple[str, ...]:
    """A bundle's command for a host: its ``python3`` is the one that the bundle's ``runtime`` names, if any.

    That one sees no packages below a home: a service on that host, run by another user, has none either.
    """
    first, *rest = argv
    python = manifest.runtime.get("python")
    return (python, "-s", *rest) if python and first == "python3" else (first, *rest)


def bundled_there(release: Release, run: Run) -> Run:
    """``run`` for the bundle's own commands: a command of the user's means what it says."""
    return lambda name, argv, stdin: run(name, command_there(release.manifest, argv), stdin)


def _run_bundled(cwd: Path, name: str, argv: Sequence[str], stdin: bytes) -> process.Finished:
    return _run_here(cwd, name, local_command(argv), stdin)


def _run_here(cwd: Path, name: str, argv: Sequence[str], stdin: bytes) -> process.Finished:
    # A placed release must stay as it was sent: Python would leave __pycache__ in it.
    clean = {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        finished = process.run(argv, cwd=cwd, env=clean, timeout=TIMEOUT_S, stdin=stdin)
    except OSError as error:
        raise UnprovenError(
            f"{name} can't be started.",
            why=f"{error.strerror}: {error.filename}",
            remedy="'shipway doctor' says what is missing on this machine.",
        ) from error
    if finished.timed_out:
        raise UnprovenError(
            f"{name} gave no answer within {TIMEOUT_S} s.",
            why=_tail(finished),
            remedy="Is this machine too busy, or does it wait for something? Then run the command again.",
        )
    return finished


def _tail(finished: process.Finished) -> str:
    return "\n".join([*finished.last_lines(), process.describe_exit(finished.code)])
