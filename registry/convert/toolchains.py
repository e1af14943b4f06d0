"""Converters as named, pinned sets of packages, and how one is run.

Newer is not better here: most pairs of paddlepaddle and paddle2onnx convert little, and several say that they
saved a model which then does not load (docs/explanation/toolchains.md). So a toolchain is data: which
packages in which versions, which formats it reads, which opsets it writes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from shipway.registry.convert import operators
from shipway.registry.convert.source import Source
from shipway.registry.errors import ConversionError, UsageError
from shipway.registry.process import Worker, WorkerError
from shipway.targets.base import RuntimeLimits


@dataclass(frozen=True, slots=True)
class Toolchain:
    """``packages`` must be there in exactly these versions; ``python`` is the first one without wheels."""

    name: str
    worker: str
    formats: frozenset[str]
    packages: Mapping[str, str]
    opsets: range
    python: tuple[int, int]


TOOLCHAINS = (
    Toolchain(
        name="paddle-3.2.2+paddle2onnx-2.0.1",
        worker="shipway.registry.convert.paddle_worker",
        formats=frozenset({"pdmodel", "pir"}),
        packages={"paddlepaddle": "3.2.2", "paddle2onnx": "2.0.1"},
        opsets=range(7, 22),
        python=(3, 13),
    ),
)

ONNX_AS_IS = "onnx"  # what a version says that was ONNX when it came
DEFAULT_OPSET = (
    17  # where no target is configured: LayerNormalization is in, and every runtime since 2022 has it
)


def choose(format: str, forced: str | None = None) -> tuple[Toolchain, ...]:
    """The toolchains that read ``format``, in the order to try. Raises UsageError on a wrong ``forced``."""
    if forced is not None:
        named = [toolchain for toolchain in TOOLCHAINS if toolchain.name == forced]
        if not named:
            raise UsageError(
                f"There is no toolchain {forced!r}.",
                why=f"There is: {', '.join(toolchain.name for toolchain in TOOLCHAINS)}.",
                remedy="Name one of them, or leave --toolchain away.",
            )
        if format not in named[0].formats:
            raise UsageError(
                f"Toolchain {forced} does not read this format ({format}).",
                remedy="Leave --toolchain away: shipway picks one by the model's format.",
            )
        return tuple(named)
    return tuple(toolchain for toolchain in TOOLCHAINS if format in toolchain.formats)


def installed(toolchain: Toolchain, python: tuple[int, int] = sys.version_info[:2]) -> None:
    """Return if the toolchain is ready to run here; else raise ConversionError with what to install."""
    wrong = []
    for package, wanted in toolchain.packages.items():
        found = _installed_version(package)
        if found is None:
            wrong.append(f"{package} {wanted} is not installed")
        elif found != wanted:
            wrong.append(f"{package} is {found}, not {wanted}")
    if not wrong:
        return
    if python >= toolchain.python:
        newest = f"{toolchain.python[0]}.{toolchain.python[1] - 1}"
        raise ConversionError(
            f"Paddle models can't be converted on Python {python[0]}.{python[1]}.",
            why=f"paddlepaddle {toolchain.packages['paddlepaddle']} has no wheels for it; all else works.",
            remedy=f"Register with Python {newest} or older and promote from here, or give an .onnx file.",
        )
    raise ConversionError(
        f"The toolchain {toolchain.name} is not ready here.",
        why="; ".join(wrong) + ".",
        remedy="Install the pinned pair: pip install 'shipway[paddle]'. 'shipway doctor' checks it.",
    )


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def choose_opset(asked: int | str, limits: Mapping[str, RuntimeLimits], offered: range | None = None) -> int:
    """The opset to convert to: as asked, or for ``auto`` the highest that all targets and the toolchain take.

    ``limits`` by target name. Raises ConversionError where an explicit opset is above a target's ceiling or
    nothing fits.
    """
    ceiling = min((limit.opset for limit in limits.values()), default=None)
    if asked == "auto":
        best = DEFAULT_OPSET if ceiling is None else ceiling
        return min(best, offered[-1]) if offered else best
    opset = int(asked)
    for name, limit in limits.items():
        if opset > limit.opset:
            raise ConversionError(
                f"Opset {opset} is more than target {name!r} runs ({limit.opset}).",
                why=limit.why,
                remedy="Lower convert.opset in deploy.yaml, or set it to auto.",
            )
    if offered and opset not in offered:
        raise ConversionError(
            f"No toolchain writes opset {opset}.",
            why=f"They write {offered[0]} to {offered[-1]}.",
            remedy="Set convert.opset in deploy.yaml to one of these, or to auto.",
        )
    return opset


def convert(
    toolchain: Toolchain, worker: Worker, source: Source, out: Path, *, opset: int, timeout: float
) -> None:
    """Convert ``source`` to ``out``. Raises ConversionError naming the cause, with no file left at ``out``.

    A file that appears is only known to be no empty one: load it before believing in it.
    """
    request = {
        "do": "convert",
        "model": str(source.model),
        "params": str(source.params),
        "opset": opset,
        "upgrade": False,  # an opset that rises by itself is one that a target may not run
        "out": str(out),
    }
    why = ""
    try:
        worker.ask(request, timeout=timeout)
    except WorkerError as error:
        why = explain(error)
    if not why and not out.is_file():
        why = f"The converter wrote no file. {_last_words(worker.log())}"
    if not why and out.stat().st_size == 0:
        why = f"The converter wrote an empty file. {_last_words(worker.log())}"
    if why:
        out.unlink(missing_ok=True)
        if missing := operators.unmapped(source):
            why = f"It does not map {', '.join(missing)}.\n{why}"
        raise ConversionError(
            f"{toolchain.name} can't convert {source.model.name} to opset {opset}.",
            why=why.strip(),
            remedy="If it names an operator: use a standard one (Swish as x * sigmoid(x)), split it, or set "
            "another convert.opset in deploy.yaml. If the file is damaged: save or fetch it again.",
        )


def explain(error: WorkerError) -> str:
    """Why a worker failed, in a sentence, from what it left in its log."""
    if error.kind == "TimedOut":
        return f"It gave {error.message} (convert.timeout_s in deploy.yaml) and was ended."
    if error.kind == "Died":
        return f"The converter crashed: {error.message}. {_last_words(error.log)}"
    if error.kind == "SystemExit" or error.kind == "UnboundLocalError":
        # paddle2onnx swallows the cause, prints it and stumbles over the missing result
        return _last_words(error.log) or f"It gave up without a word ({error.kind})."
    return f"{error.kind}: {error.message.strip()[-800:]}"


_TELLING = re.compile(
    r"error|not support|unsupport|unimplement|can't|cannot|fail|invalid|unable|mismatch|too (?:low|high)"
    r"|require",
    re.IGNORECASE,
)
_NOISE = re.compile(
    r"^\s*(?:$|Traceback|File |\d+ +|warnings\.warn|---|C\+\+ Traceback)|warning|deprecated", re.IGNORECASE
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _last_words(log: str, lines: int = 4) -> str:
    """The lines of a log that tell a cause, the last few of them."""
    told: dict[str, None] = {}
    for line in _COLOUR.sub("", log).splitlines():
        if _TELLING.search(line) and not _NOISE.search(line):
            told[line.strip()[:300]] = None
    return "\n".join(list(told)[-lines:])


def names(toolchains: Sequence[Toolchain] = TOOLCHAINS) -> list[str]:
    """The toolchains' names, for messages and for completion."""
    return [toolchain.name for toolchain in toolchains]
