"""A leaner graph that computes the same: constants folded, leftovers of the converter removed (onnxslim)."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from typing import Any, TextIO

import onnx

from shipway.registry import interrupts, privacy
from shipway.registry.convert import graph
from shipway.registry.errors import ConversionError

_TOOL = "onnxslim"


def warm() -> None:
    """Import the tool now: it takes most of a second."""
    privacy.no_telemetry()
    with contextlib.suppress(ImportError):  # slim says so when it comes to it
        import onnxslim  # noqa: F401


def slim(model: onnx.ModelProto) -> onnx.ModelProto:
    """An optimised copy with the interface of ``model``. Raises ConversionError where the tool fails.

    That it says nothing of being wrong means nothing: measure what comes out.
    """
    privacy.no_telemetry()
    import onnxslim

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with _quiet():
        try:
            slimmed = onnxslim.slim(copy)
        except Exception as error:  # it raises whatever its many passes stumble over
            raise _refused(str(error) or type(error).__name__) from error
    if not isinstance(slimmed, onnx.ModelProto):
        raise _refused("it gave no model back")
    before, after = graph.info(model, 0), graph.info(slimmed, 0)
    same = [v.name for v in before.inputs] == [v.name for v in after.inputs] and (
        [v.name for v in before.outputs] == [v.name for v in after.outputs]
    )
    if not same or before.opset != after.opset:
        raise _refused("it changed the model's interface")
    _show_same(model, slimmed)
    return slimmed


def begin(model: onnx.ModelProto, timeout: float) -> Callable[[], onnx.ModelProto]:
    """Start ``slim`` in a thread, while others run the model; what comes back waits for its result.

    Axes of ``model`` may be given other names meanwhile. After ``timeout`` seconds nobody waits any more:
    ConversionError. The thread can't be ended; it works on a copy and ends with the process.
    """
    until = time.monotonic() + timeout
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    made: Future[onnx.ModelProto] = Future()

    def work() -> None:
        try:
            made.set_result(slim(copy))
        except BaseException as error:  # whoever asks for the result is to have it
            made.set_exception(error)

    threading.Thread(target=work, name="optimise", daemon=True).start()

    def finish() -> onnx.ModelProto:
        interrupts.check()  # one that was swallowed meanwhile does not wait for slim
        try:
            slimmed = made.result(max(0.0, until - time.monotonic()))
        except TooLate as error:
            why = f"It gave no answer within {timeout:g} s (convert.timeout_s in deploy.yaml)."
            raise _refused(why) from error
        _show_same(model, slimmed)
        return slimmed

    return finish


def _show_same(model: onnx.ModelProto, slimmed: onnx.ModelProto) -> None:
    """Give the inputs and outputs of ``slimmed`` the shapes that those of ``model`` have."""
    for kept, value in (
        *zip(model.graph.input, slimmed.graph.input, strict=False),
        *zip(model.graph.output, slimmed.graph.output, strict=False),
    ):
        value.CopyFrom(kept)


def _refused(why: str) -> ConversionError:
    return ConversionError(f"{_TOOL} can't optimise the model.", why=why.strip().splitlines()[0][:300])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxslim logs to the root of its own logger and draws tables on stdout."""
    logger = logging.getLogger(_TOOL)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with contextlib.redirect_stdout(_Muted(sys.stdout)):
        try:
            yield
        finally:
            logger.setLevel(level)


class _Muted:
    """A stream as it was for all threads but this one, whose words are dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
