"""What comes in and goes out on the host, and the commands that run there. Part of ``on_host``."""

import contextlib
import fcntl
import json
import os
import select
import signal
import time
from typing import Any, BinaryIO, Dict, List

CHUNK = 1 << 18
IDLE_S = 120  # without a word from the other end: it is gone, or will start another one of us
PIPE = CHUNK  # bytes that may wait for us: the fewer turns between sshd and us, the better
SET_PIPE = 1031  # F_SETPIPE_SZ, which Python names from 3.10 on
TAIL = 65536  # bytes of a command's output that are kept


class Wire:
    """What comes in and goes out. The other end hanging up ends the process."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        with contextlib.suppress(OSError):  # no pipe, or no Linux: it is only faster
            fcntl.fcntl(0, SET_PIPE, PIPE)

    def more(self, most: int = CHUNK) -> bytes:
        if not select.select([0], [], [], IDLE_S)[0]:
            os._exit(0)
        data = os.read(0, most)
        if not data:
            os._exit(0)
        return data

    def line(self) -> bytes:
        while b"\n" not in self.buffer:
            self.buffer += self.more()
        end = self.buffer.index(b"\n") + 1
        line = bytes(self.buffer[:end])
        del self.buffer[:end]
        return line

    def bytes(self, most: int) -> bytes:
        if self.buffer:
            data = bytes(self.buffer[:most])
            del self.buffer[:most]
            return data
        return self.more(min(CHUNK, most))

    def pause(self, seconds: float) -> None:
        """Wait, and end with the other end: what it asked for shall not be done once it is gone."""
        if select.select([0], [], [], seconds)[0]:
            data = os.read(0, CHUNK)
            if not data:
                os._exit(0)
            self.buffer += data

    def say(self, answer: Dict[str, Any], lead: str = "") -> None:
        data = (lead + json.dumps(answer) + "\n").encode()
        while data:
            data = data[os.write(1, data) :]


def run(argv: List[str], folder: str, given: bytes, timeout: float, wire: Wire) -> Dict[str, Any]:
    """Run a command with ``given`` on stdin; it and all that it started are dead afterwards."""
    import subprocess  # these take as long as the rest of the helper's start, and few need them
    import tempfile

    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    with contextlib.ExitStack() as stack:
        source, out, err = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        source.write(given)
        source.seek(0)
        began = time.monotonic()
        child = subprocess.Popen(
            argv, cwd=folder, env=environment, stdin=source, stdout=out, stderr=err, start_new_session=True
        )
        late, hung_up = False, False
        try:
            while child.poll() is None and not late and not hung_up:
                late = time.monotonic() - began > timeout
                if select.select([0], [], [], 0.02)[0]:
                    data = os.read(0, CHUNK)
                    wire.buffer += data
                    hung_up = not data
        finally:
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if hung_up:
            os._exit(0)
        return {"code": child.returncode, "late": late, "stdout": tail(out), "stderr": tail(err)}


def tail(stream: BinaryIO) -> str:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - TAIL))
    return stream.read().decode("utf-8", "replace")
