"""Ctrl-C and SIGTERM end a command in one way: KeyboardInterrupt, and what was begun is undone.

An interrupt may be lost: libraries catch everything (onnxslim), and a compiled module that is being imported
turns it into an ImportError (ONNX Runtime). So it is remembered: ``check`` raises it again.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_caught = 0


def install() -> None:
    """From now on both signals interrupt this process, unless its parent had them ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _raise)


def _raise(number: int, _frame: FrameType | None) -> None:
    global _caught
    _caught = number
    raise KeyboardInterrupt


def caught() -> int:
    """The number of the signal that came, 0 where none did."""
    return _caught


def check() -> None:
    """Raise KeyboardInterrupt where a signal came and somebody swallowed it."""
    if _caught:
        raise KeyboardInterrupt
