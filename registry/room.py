"""Telling that a disk is full from everything else that goes wrong while something is written.

Programs that write for us say it in many ways, or say nothing and leave half a file; so where one failed,
what it said is searched and its folder is tried.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
from pathlib import Path

from shipway.registry.errors import DeliveryError

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORDS = re.compile(
    "|".join([*(re.escape(os.strerror(code)) for code in _CODES), "disk is full", "quota exceeded"])
    + "|" + "|".join(rf"\[Errno {code}\]" for code in _CODES),
    re.IGNORECASE,
)  # fmt: skip
PROBE = 1 << 20  # bytes


def is_full(error: BaseException) -> bool:
    """Whether ``error``, or one that led to it, says that there is no room for what was written."""
    cause: BaseException | None = error
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in _CODES) or _WORDS.search(str(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def require(folder: Path, said: str = "") -> None:
    """Raise DeliveryError if ``folder`` is full, or ``said``, by what failed to write there, says so."""
    found = _WORDS.search(said)
    why = said if found else _tried(folder)
    if why:
        raise full(folder, why)


def full(folder: Path, why: str) -> DeliveryError:
    """``folder`` is not named where it is one of ours below TMPDIR, soon gone: TMPDIR is."""
    temporary = Path(tempfile.gettempdir())
    place = temporary if folder.is_relative_to(temporary) else folder
    return DeliveryError(
        f"There is no room left in {place}.",
        why=why.strip()[-800:],
        remedy="Free space there, or set TMPDIR to a folder that has some. Nothing was registered.",
    )


def _tried(folder: Path) -> str:
    probe = folder / f".{secrets.token_hex(6)}.tmp"
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(PROBE))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return f"{error.strerror}: {folder}" if error.errno in _CODES else ""
    finally:
        probe.unlink(missing_ok=True)
    return ""
