"""Why a child that works on a model failed: told in words, from how it ended and what it left in its log."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from shipway.registry.process import WorkerError
from shipway.registry.units import format_size


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed, in sentences, and what helps: nothing where that is for others to say."""

    why: str
    remedy: str = ""


_NO_MEMORY = re.compile(
    r"bad_alloc|MemoryError|[Cc]annot allocate memory(?! in static TLS)|(?:Unable|[Ff]ailed) to allocate"
    r"|[Oo]ut of memory|failed to map segment|[Mm]emory allocation (?:still )?failed|can't start new thread"
    r"|pthread_create failed|SystemError: .*without (?:setting an )?exception"
)
"""In the words of C++, Python, the kernel, NumPy, ONNX Runtime, glibc's loader of libraries and OpenBLAS; the
last are Python's where it had no room to make a MemoryError. Threads may also be too many for the system: but
then shipway itself, which imports the same without a limit, fails first."""
_UNMAPPED = re.compile(r"(/[^:\n]+): failed to map segment")
_MORE = "Set a higher limit in deploy.yaml, or convert on a larger machine."


def explain(error: WorkerError, memory: int | None = None) -> Failure:
    """Why a worker failed, from what it left in its log. ``memory``: its limit in bytes."""
    if error.kind == "TimedOut":
        return Failure(f"It gave {error.message} (convert.timeout_s in deploy.yaml) and was ended.", _MORE)
    if library := _not_to_be_run(error.log):
        return Failure(
            f"{library} can't be loaded: its file system is mounted noexec.",
            "Set SHIPWAY_CACHE to a folder on one from which programs may be run.",
        )
    if memory is not None and _NO_MEMORY.search(f"{error.kind} {error.message} {error.log[-2000:]}"):
        allowed = format_size(memory)
        why = f"It needed more memory than the {allowed} it may use (convert.memory in deploy.yaml)."
        return Failure(why, _MORE)
    if error.kind == "Died":
        return Failure(f"The converter crashed: {error.message}. {last_words(error.log)}")
    if error.kind == "SystemExit" or error.kind == "UnboundLocalError":
        # paddle2onnx swallows the cause, prints it and stumbles over the missing result
        return Failure(last_words(error.log) or f"It gave up without a word ({error.kind}).")
    return Failure(f"{error.kind}: {error.message.strip()[-800:]}")


def _not_to_be_run(log: str) -> str:
    """The library that may not be loaded from where it lies; the loader says of it what it says of one that
    finds no memory."""
    for library in _UNMAPPED.findall(log):
        with contextlib.suppress(OSError):
            if os.statvfs(library).f_flag & os.ST_NOEXEC:
                return str(library)
    return ""


_TELLING = re.compile(
    r"error|not support|unsupport|unimplement|can't|cannot|fail|invalid|unable|mismatch|too (?:low|high)"
    r"|require",
    re.IGNORECASE,
)
_NOISE = re.compile(
    r"^\s*(?:$|Traceback|File |\d+ +|warnings\.warn|---|C\+\+ Traceback)|warning|deprecated", re.IGNORECASE
)
_PREFIX = re.compile(
    r"^\s*(?:\d{4}-\d\d-\d\d[ T][\d:.,]+|\[(?:paddle2onnx|error|fatal|critical)\]"
    r"|(?:error|fatal|critical):|\s+)+",
    re.IGNORECASE,
)
"""When and how loudly a logger says something: of what it says, the user needs the rest."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def last_words(log: str, lines: int = 4) -> str:
    """The lines of a log that tell a cause, the last few of them."""
    told: dict[str, None] = {}
    for line in _COLOUR.sub("", log).splitlines():
        if _TELLING.search(line) and not _NOISE.search(line):
            told[_PREFIX.sub("", line.replace("\\t", " ")).strip()[:300]] = None
    return "\n".join(list(told)[-lines:])
