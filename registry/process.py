"""The one way in which shipway runs other programs.

``run`` runs a command to its end; ``Worker`` keeps a Python child that imports something heavy while its
parent does other work, then answers requests. Both keep a child in a process group of its own, and the whole
group is killed on a timeout, on an error and on Ctrl-C, so that nothing is left behind. A parent that is
killed outright can do nothing: then the kernel ends its workers (Linux), and what it ran goes on to its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from shipway.registry import errors
from shipway.registry.nouns import Json

_TAIL = 4000  # characters of a worker's stderr that are kept for messages
_LINES = 20  # of a command's output that a message repeats
_UNANSWERED = "unanswered"  # marks a request whose answer nobody waits for
OFFLINE = Path(__file__).with_name("offline.py")
_PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended: ``code`` is negative where a signal ended it, as in ``subprocess``."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool = False

    def last_lines(self) -> list[str]:
        """The end of all that it printed, for messages."""
        return (self.stdout + self.stderr).strip().splitlines()[-_LINES:]

    def last_document(self) -> Json:
        """The JSON on the last line of stdout, ``{}`` where that is empty; ValueError where it is none."""
        lines = self.stdout.strip().splitlines()
        return json.loads(lines[-1]) if lines else {}


class WorkerError(Exception):
    """A worker that gave no answer: it died, hung or said that it failed. ``log`` is its stderr's tail.

    ``kind`` is the class name of the exception that ended the request in the child, ``Died`` where the child
    ended without a word and ``TimedOut`` where it was killed for taking too long.
    """

    def __init__(self, kind: str, message: str, log: str = "") -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.log = log


def search_path() -> str:
    """``PATH`` with the folder of this Python first: a virtual environment may bring Node.js, say."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def find(program: str) -> str | None:
    """Where ``program`` is, by ``search_path``; None where it is not installed."""
    return shutil.which(program, path=search_path())


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    stdin: bytes = b"",
    offline: bool = False,
) -> Finished:
    """Run a command on ``stdin`` with captured output; never raises for what the command does.

    ``timeout`` in seconds; ``memory`` in bytes limits the address space (Linux). ``env`` adds to the
    environment. Raises OSError where the program can't be started.

    ``offline`` cuts it off the network where the kernel allows that; then ``argv`` starts with a path, and a
    program that can't be started is one that failed, with the reason on stderr.
    """
    began = time.monotonic()
    source = subprocess.PIPE if stdin else subprocess.DEVNULL
    argv = _cut_off(argv) if offline else argv
    child = _start(argv, cwd=cwd, env=env, memory=memory, stdin=source, stderr=subprocess.PIPE)
    timed_out = False
    try:
        stdout, stderr = child.communicate(stdin or None, timeout=timeout)
    except subprocess.TimeoutExpired:
        timed_out = True
        _kill_group(child)
        stdout, stderr = child.communicate()
    finally:
        _kill_group(child)
    seconds = time.monotonic() - began
    return Finished(child.returncode, _text(stdout), _text(stderr), seconds=seconds, timed_out=timed_out)


class Worker:
    """A child ``python -m MODULE`` whose module calls ``serve``. Use it as a context manager.

    The child starts importing at once; ``ask`` sends one request and waits for its answer. ``grace`` is how
    many seconds the child gets, after SIGTERM, to undo what it was doing when its parent fails. ``offline``
    is that of ``run``.
    """

    def __init__(
        self,
        module: str,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        memory: int | None = None,
        grace: float = 0.0,
        offline: bool = False,
    ) -> None:
        self._grace = grace
        # A file, not a pipe: a talkative library can't block on a parent that is not reading.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        argv = [sys.executable, "-m", module]
        argv = _cut_off(argv) if offline else argv
        try:
            self._child = _start(
                argv, cwd=cwd, env=env, memory=memory, stdin=subprocess.PIPE, stderr=self._log
            )
        except BaseException:
            self._log.close()
            raise

    def send(self, request: Json) -> None:
        """Hand over ``request`` without waiting; its answer comes from ``receive``, in order."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead child is reported by receive
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            self._child.stdin.flush()

    def tell(self, request: Json) -> None:
        """Hand over a request that gets no answer: work ahead of one that will, which says what is wrong."""
        self.send({**request, _UNANSWERED: True})

    def receive(self, *, timeout: float | None = None) -> Json:
        """The answer to the oldest request that has none yet, waiting up to ``timeout`` seconds for it.

        Raises the ShipwayError that the child raised, or WorkerError where the request failed otherwise.
        After a timeout the child is gone.
        """
        assert self._child.stdout is not None
        alarm = _Alarm(timeout, lambda: _kill_group(self._child))
        with alarm:
            line = self._child.stdout.readline()
        if alarm.rang and not line.endswith(b"\n"):
            raise WorkerError("TimedOut", f"no answer within {timeout:g} s", self.log())
        if not line.endswith(b"\n"):
            raise WorkerError("Died", describe_exit(self._finish()), self.log())
        document = json.loads(line)
        if "error" in document:
            raise _revive(document["error"], self.log())
        return document["answer"]

    def ask(self, request: Json, *, timeout: float | None = None) -> Json:
        """``send`` and ``receive`` in one."""
        self.send(request)
        return self.receive(timeout=timeout)

    def log(self) -> str:
        """The tail of what the child wrote to stderr (its stdout goes there too)."""
        if self._log.closed:
            return ""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 4 * _TAIL))
        return _text(self._log.read())[-_TAIL:]

    def kill(self) -> None:
        """Have the child and all that it started ended; ``close`` waits for that."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def close(self, *, grace: float = 0.0) -> None:
        """End the child, at once or within ``grace`` seconds of SIGTERM."""
        child = self._child
        if grace and child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace)
        _kill_group(child)  # it has answered all that was asked: there is nothing to wait for
        self._finish()
        self._log.close()

    def _finish(self) -> int:
        child = self._child
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)  # a child that closed its answer pipe is about to end: learn its exit status
        _kill_group(child)
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return child.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(grace=self._grace if error is not None else 0.0)


def serve(prepare: Callable[[], Callable[[Json], Json]]) -> None:
    """The child's side of ``Worker``: import (``prepare``), then answer one JSON line with another.

    Answers go to what was stdout; everything else that prints to stdout is sent to stderr, because paddle
    and MLflow write there from C and from Python. Any exception of a request, SystemExit included (that is
    how paddle2onnx gives up), becomes an error answer; the child lives on.
    """
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its children
    signal.signal(signal.SIGTERM, _exit_at_once)
    gc.set_threshold(1_000_000, 20, 20)  # what it imports stays: to look there for garbage is waste
    # Left for the kernel to close: the parent takes the end of the answers for the child's, last words said.
    with os.fdopen(os.dup(1), "wb", closefd=False) as answers:
        os.dup2(2, 1)
        handle = prepare()
        for line in sys.stdin.buffer:
            signal.signal(signal.SIGTERM, _raise_exit)
            request = json.loads(line)
            answered = not request.pop(_UNANSWERED, False)
            try:
                document = {"answer": handle(request)}
            except _Terminated:
                raise
            except BaseException as error:
                document = {"error": _preserve(error)}
            signal.signal(signal.SIGTERM, _exit_at_once)
            if answered:
                answers.write(json.dumps(document).encode() + b"\n")
                answers.flush()


def _preserve(error: BaseException) -> Json:
    kept = {"kind": type(error).__name__, "message": str(error)}
    if isinstance(error, errors.ShipwayError):
        kept.update(what=error.what, why=error.why, remedy=error.remedy)
    return kept


def _revive(kept: Json, log: str) -> Exception:
    family = getattr(errors, kept["kind"], None) if "what" in kept else None
    if isinstance(family, type) and issubclass(family, errors.ShipwayError):
        return family(kept["what"], why=kept["why"], remedy=kept["remedy"])
    return WorkerError(kept["kind"], kept["message"], log)


def describe_exit(code: int) -> str:
    """An exit status in words: ``ended by SIGKILL``, ``ended with exit status 3``."""
    if code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"ended by signal {-code}"
    return f"ended with exit status {code}"


class _Terminated(SystemExit):
    """SIGTERM: unwinds the request that is running, so that its ``finally`` clauses clean up."""


def _exit_at_once(number: int, frame: object) -> None:
    """Nothing is being done that is to be undone; an import would turn an exception into one of its own."""
    os._exit(128 + number)


def _raise_exit(number: int, frame: object) -> None:
    raise _Terminated(128 + number)


class _Alarm:
    """Calls ``action`` from a timer thread unless its block ends within ``seconds``."""

    def __init__(self, seconds: float | None, action: Callable[[], None]) -> None:
        self.rang = False
        self._action = action
        self._timer = threading.Timer(seconds, self._ring) if seconds is not None else None

    def _ring(self) -> None:
        self.rang = True
        self._action()

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _cut_off(argv: Sequence[str]) -> list[str]:
    """The command without a network, where there can be one without."""
    return [sys.executable, "-I", "-S", str(OFFLINE), *argv]


def _start(
    argv: Sequence[str],
    *,
    cwd: Path | None,
    env: Mapping[str, str] | None,
    memory: int | None,
    stdin: int,
    stderr: int | IO[bytes],
) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        list(argv),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )
    if memory is not None and sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):  # it ended already
            resource.prlimit(child.pid, resource.RLIMIT_AS, (memory, memory))
    return child


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and all that it started; nothing happens where all of them are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.returncode is None:
        child.wait()


def _die_with_parent() -> None:
    """One that is gone already has closed this process's stdin, which ends it as well."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
