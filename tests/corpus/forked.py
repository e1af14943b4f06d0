"""One piece of work at a time in a forked child, so that what crashes or hangs takes only itself down.

Nothing but the standard library: it runs under every Paddle that the corpus is saved or converted with.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TAIL = 4000  # characters of a log that are kept


def attempt(work: Callable[[], Any], folder: Path, seconds: int) -> dict[str, Any]:
    """What ``work`` returned, done in ``folder``: ``{"answer": ...}``, or ``{"error": ..., "log": ...}``.

    ``error`` begins with ``crashed`` or ``hung`` where the child ended without a word; ``seconds`` limits it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, told = folder / "log.txt", folder / ".told.json"
    told.unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _child(work, folder, log, told, seconds)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    result: dict[str, Any]
    if told.exists():
        result = json.loads(told.read_text())
        told.unlink()
    elif status == -signal.SIGALRM:
        result = {"error": f"hung: no answer within {seconds} s"}
    else:
        by = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        result = {"error": f"crashed: ended by {by}"}
    if "error" in result:
        result["log"] = log.read_text(errors="replace")[-_TAIL:]
    return result


def _child(work: Callable[[], Any], folder: Path, log: Path, told: Path, seconds: int) -> None:
    try:
        signal.alarm(seconds)
        os.chdir(folder)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        try:
            result = {"answer": work()}
        except BaseException as error:  # SystemExit is how paddle2onnx gives up
            result = {"error": f"{type(error).__name__}: {error}"[-1500:]}
        told.write_text(json.dumps(result))
    finally:
        os._exit(0)
