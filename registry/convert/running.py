"""Running a converter: in a child, held to its limits, its every way of failing told in words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from shipway.registry import process, room
from shipway.registry.convert import environment, failing, operators
from shipway.registry.convert.source import Source
from shipway.registry.convert.toolchains import Toolchain
from shipway.registry.errors import ConversionError
from shipway.registry.nouns import Json
from shipway.registry.process import Worker, WorkerError
from shipway.registry.units import format_size


class OpsetTooLowError(ConversionError):
    """Operators of the model need a higher opset than ``opset``, which was asked for."""

    def __init__(self, name: str, opset: int, needs: Mapping[str, int]) -> None:
        listed = ", ".join(f"{operator} ({least})" for operator, least in sorted(needs.items()))
        least = max(needs.values())
        super().__init__(
            f"{name} needs opset {least}, more than {opset}: {listed}.",
            remedy=f"Set convert.opset in deploy.yaml to {least} or more, or to auto.",
        )
        self.opset, self.least = opset, least


class Asks(Protocol):
    """Answers requests and keeps a log: a ``Worker``, or a ``Bench`` of them."""

    def ask(self, request: Json, *, timeout: float | None = None) -> Json:
        """The answer to ``request``. Raises WorkerError."""

    def tell(self, request: Json) -> None:
        """Have it work ahead of a request that will be asked."""

    def log(self) -> str:
        """The tail of what it wrote to stderr."""


class Bench:
    """A worker that is started anew where the last one died or was ended for taking too long.

    Converters abort their process over models that they do not like; the next attempt needs a live one.
    """

    def __init__(self, start: Callable[[], Worker]) -> None:
        self._start = start
        self._worker: Worker | None = start()

    def ask(self, request: Json, *, timeout: float | None = None) -> Json:
        if self._worker is None:
            self._worker = self._start()
        try:
            return self._worker.ask(request, timeout=timeout)
        except WorkerError as error:
            if error.kind in ("Died", "TimedOut"):
                self.close()
            raise

    def tell(self, request: Json) -> None:
        if self._worker is not None:
            self._worker.tell(request)

    def log(self) -> str:
        return self._worker.log() if self._worker is not None else ""

    def dismiss(self) -> None:
        """End the worker, for good, without waiting until it is gone."""
        if self._worker is not None:
            self._worker.kill()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def heap() -> dict[str, str]:
    """What a child's environment says of its memory: what is freed is kept for what comes next.

    Otherwise the kernel gives a converter, which takes and frees hundreds of megabytes, each page anew and
    empty. Other C libraries than GNU's do not read it, and a user's own settings win.
    """
    if "GLIBC_TUNABLES" in os.environ:
        return {}
    kept = {"mmap_threshold": 32 << 20, "trim_threshold": 256 << 20}  # bytes
    return {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in kept.items())}


def memory_limit(asked: int | None) -> int:
    """Bytes that a conversion may use: as asked, else three quarters of the machine's, but 8 GB at least."""
    if asked is not None:
        return asked
    return max(8 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4)


def convert(
    toolchain: Toolchain,
    worker: Asks,
    source: Source,
    out: Path,
    *,
    opset: int,
    timeout: float,
    memory: int | None = None,
    name: str = "",
) -> None:
    """Convert ``source`` to ``out``. Raises ConversionError naming the cause, with no file left at ``out``.

    ``name`` is what the model is called in messages, ``timeout`` in seconds, ``memory`` in bytes (``worker``
    has its limit already). A file that appears is only known to be no empty one: load it first.
    """
    if toolchain.worker and source.params and (size := source.params.stat().st_size) > LARGEST:
        raise ConversionError(
            f"{name or source.model.name} is too large to be converted.",
            why=f"Its weights take {format_size(size)}. {toolchain.name} writes one file, and a file of ONNX "
            f"holds {format_size(LARGEST)} at most; it can't put weights beside it.",
            remedy=_SMALLER,
        )
    run = _in_worker if toolchain.worker else _alone
    failure, log = run(toolchain, worker, source, out, opset, timeout, memory)
    if failure is None and not out.is_file():
        failure = failing.Failure(f"The converter wrote no file. {failing.last_words(log)}")
    if failure is None and out.stat().st_size == 0:
        failure = failing.Failure(f"The converter wrote an empty file. {failing.last_words(log)}")
    if failure is None:
        return
    room.require(out.parent, f"{failure.why}\n{log}")  # while what was written still fills it
    out.unlink(missing_ok=True)
    if _TOO_LOW.search(f"{failure.why} {log}"):
        # Only when it tells all does it name the operators.
        _, log = run(toolchain, worker, source, out, opset, timeout, memory, verbose=True)
        out.unlink(missing_ok=True)
        if needs := _needs(log):
            raise OpsetTooLowError(name or source.model.name, opset, needs)
    missing = operators.unmapped(source) if toolchain.worker else []
    unmapped = f"It does not map {', '.join(missing)}.\n" if missing else ""
    raise ConversionError(
        f"{toolchain.name} can't convert {name or source.model.name} to opset {opset}.",
        why=f"{unmapped}{failure.why}".strip(),
        remedy=failure.remedy or (_SMALLER if _TOO_LARGE.search(f"{failure.why} {log}") else _OPERATOR),
    )


LARGEST = (1 << 31) - 1
"""Bytes of a protobuf file. paddle2onnx 2.0.1 takes an ``external_file`` and does nothing with it: of 2.3 GB
it writes an empty file all the same ("exceeded maximum protobuf size of 2GB"), with 9.3 GB of memory."""
_TOO_LARGE = re.compile(r"exceeded maximum protobuf size")
_SMALLER = (
    "Save it with weights in float16, or divide it into models of less than 2 GB each. An ONNX model is "
    "taken at any size, its weights in files beside it (external data)."
)
_OPERATOR = (
    "If it names an operator: use a standard one (Swish as x * sigmoid(x)), split it, or set "
    "another convert.opset in deploy.yaml. If the file is damaged: save or fetch it again."
)

_TOO_LOW = re.compile(r"Due to opset version|set the opset_version to \d+")
_NEEDS = re.compile(r"\[(?:OP: pd_op\.)?(\w+)[^\]]*\] Requires the minimal opset version of (\d+)")


def _needs(log: str) -> dict[str, int]:
    """Operator to the lowest opset that has it, as a converter's log tells."""
    found: dict[str, int] = {}
    for operator, least in _NEEDS.findall(log):
        found[operator] = max(found.get(operator, 0), int(least))
    return found


def _in_worker(
    _toolchain: Toolchain,
    worker: Asks,
    source: Source,
    out: Path,
    opset: int,
    timeout: float,
    memory: int | None,
    *,
    verbose: bool = False,
) -> tuple[failing.Failure | None, str]:
    """Why it failed, if it is known to have, and its log."""
    request = {
        "do": "convert",
        "model": str(source.model),
        "params": str(source.params),
        "opset": opset,
        "verbose": verbose,
        "upgrade": False,  # an opset that rises by itself is one that a target may not run
        "out": str(out),
    }
    try:
        worker.ask(request, timeout=timeout)
    except WorkerError as error:
        return failing.explain(error, memory), error.log
    return None, worker.log()


def _alone(
    toolchain: Toolchain,
    _worker: Asks,
    source: Source,
    out: Path,
    opset: int,
    timeout: float,
    memory: int | None,
    *,
    verbose: bool = False,
) -> tuple[failing.Failure | None, str]:
    python = environment.prepare(toolchain.name)
    script = Path(__file__).with_name("alone.py")
    command = [python, "-I", script, source.model, source.params or "", opset, out, int(verbose)]
    folder = out.parent
    done = process.run(
        [str(part) for part in command],
        cwd=folder,
        env={"TMPDIR": str(folder), "HOME": str(folder)},
        timeout=timeout,
        memory=memory,
        offline=True,
    )
    log = done.stdout + done.stderr
    if done.timed_out:
        return failing.explain(WorkerError("TimedOut", f"no answer within {timeout:g} s"), memory), log
    if done.code != 0:
        return failing.explain(WorkerError("Died", process.describe_exit(done.code), log), memory), log
    return None, log
