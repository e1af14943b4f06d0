"""A toolchain's own environment: made once in the cache folder, locked with hashes, offline from then on.

It is for packages that the environment of shipway itself can't hold, in which another version is pinned.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from shipway.registry import files, process
from shipway.registry.errors import ConversionError

_READY = "locked"  # holds the digests of the locks that the environment was made from; written last
_PATIENCE = 300.0  # seconds for a download of a few MB
_LOCKS = Path(__file__).parent


def cache_folder() -> Path:
    """``$SHIPWAY_CACHE/toolchains``, else ``~/.cache/shipway/toolchains``."""
    return files.cache_folder("toolchains")


def python_of(name: str, locks: Sequence[Path] = ()) -> Path | None:
    """The interpreter of the environment ``name``; None where it is not there, of other locks, or where the
    Python that it was made with is gone."""
    folder = _folder(name)
    marker = folder / _READY
    try:
        ready = marker.read_text(encoding="ascii") == _digests(locks or _locks(name))
    except OSError:
        return None
    python = folder / "bin" / "python"
    return python if ready and python.exists() else None


def prepare(name: str, locks: Sequence[Path] = (), patience: float = _PATIENCE) -> Path:
    """The interpreter of the environment ``name``, made now where it is not there yet.

    ``locks`` are files of pinned requirements with hashes, else the one that goes by the environment's name;
    ``patience`` is how many seconds a step may take.
    Raises ConversionError where that fails: without a network the first time, say.
    """
    locks = locks or _locks(name)
    if (found := python_of(name, locks)) is not None:
        return found
    folder = _folder(name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    except OSError as error:
        raise _unprepared(name, f"{error.strerror or error}: {error.filename}") from error
    try:
        _fill(made, name, locks, patience)
        (made / _READY).write_text(_digests(locks), encoding="ascii")
        shutil.rmtree(folder, ignore_errors=True)  # of an older lock
        with contextlib.suppress(OSError):  # another process was first: then its environment is as good
            made.rename(folder)
    except OSError as error:
        raise _unprepared(name, f"{error.strerror or error}: {error.filename}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    if (found := python_of(name, locks)) is None:
        raise _unprepared(name, "The environment did not come out whole.")
    return found


def _fill(folder: Path, name: str, locks: Sequence[Path], patience: float) -> None:
    # One try, soon given up: a machine without a network must learn of it in seconds. Whoever has
    # the patience for hundreds of MB has it for a network that stumbles.
    retries = 1 if patience <= _PATIENCE else 10
    options = f"--quiet --disable-pip-version-check --no-deps --retries {retries} --timeout 20"
    pinned = (part for lock in locks for part in ("-r", str(lock)))
    install = [*options.split(), "--only-binary", ":all:", "--require-hashes", *pinned]
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", *install],
    )
    for command in steps:
        done = process.run(command, cwd=folder, timeout=patience)
        if done.code != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            telling = [line for line in said if "error" in line.lower()] or said
            why = "It took too long." if done.timed_out else " ".join(telling[-2:])[:500]
            raise _unprepared(name, why or process.describe_exit(done.code))


def _folder(name: str) -> Path:
    return cache_folder() / f"{name}-py{sys.version_info[0]}.{sys.version_info[1]}"


def _locks(name: str) -> tuple[Path, ...]:
    return (_LOCKS / f"{name}.txt",)


def _digests(locks: Sequence[Path]) -> str:
    return " ".join(str(files.digest_of(lock)) for lock in locks)


def _unprepared(name: str, why: str) -> ConversionError:
    return ConversionError(
        f"The toolchain {name} can't be prepared here.",
        why=why,
        remedy="It is fetched once from PyPI: 'shipway doctor --prepare' with a network, or copy "
        f"{cache_folder()} from a machine that has it.",
    )
