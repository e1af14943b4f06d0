"""Folders for the work of one command, each with a note of who works there.

A process that is killed outright leaves its folder, which may hold copies of a large model. The next one that
makes a folder looks at the notes and removes what belongs to nobody who still lives.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

from shipway.registry.ledger import owner
from shipway.registry.ledger.events import Owner

_PREFIX = "shipway-register-"
_NOTE = "owner.json"


def make() -> Path:
    """A new folder below TMPDIR, its owner noted; what dead owners left there is removed. Raises OSError."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        (folder / _NOTE).write_text(json.dumps(owner.this_process().to_json()))
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def sweep() -> None:
    """Remove folders whose owner ran on this machine and is gone. Others' and unreadable ones are left."""
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            if not _may_be_in_use(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _may_be_in_use(folder: Path) -> bool:
    try:
        noted = Owner.from_json(json.loads((folder / _NOTE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return True  # made this very moment, by an older shipway or by another user
    # As if it had just been renewed: of an owner on another machine nothing can be known.
    return owner.is_alive(noted, owner.now())
