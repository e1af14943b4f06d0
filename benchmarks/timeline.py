"""Where the time of a first ``register`` goes: a line for each request to a child, and for each phase.

    python benchmarks/timeline.py [MODEL]

Seconds since the start, processor seconds of shipway itself, and what happened; a child's answer shows the
processor seconds that the child has used by then.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scene import project

BEGAN = time.perf_counter()


def say(what: str) -> None:
    sys.stderr.write(f"{time.perf_counter() - BEGAN:7.3f} {time.process_time():7.3f}  {what}\n")


def used(pid: int) -> float:
    """Processor seconds of a process (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch() -> None:
    """Have workers and phases told as they come and go."""
    from shipway.registry.process import Worker
    from shipway.registry.registration.draft import Clock

    start, send, receive, phase = Worker.__init__, Worker.send, Worker.receive, Clock.phase
    names: dict[int, str] = {}

    def started(self: Worker, module: str, **options: Any) -> None:
        names[id(self)] = module.rpartition(".")[2]
        say(f"{names[id(self)]} starts")
        start(self, module, **options)

    def sent(self: Worker, request: Any) -> None:
        say(f"{names[id(self)]} is asked to {request['do']}")
        send(self, request)

    def received(self: Worker, **options: Any) -> Any:
        answer = receive(self, **options)
        say(f"{names[id(self)]} answers, {used(self._child.pid):.2f} s used")
        return answer

    @contextlib.contextmanager
    def told(self: Clock, name: str) -> Iterator[None]:
        say(f"> {name}")
        with phase(self, name):
            yield
        say(f"< {name}")

    Worker.__init__, Worker.send, Worker.receive = started, sent, received  # type: ignore[method-assign]
    Clock.phase = told  # type: ignore[method-assign, assignment]


def main() -> int:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
    import models

    model = Path(sys.argv[1]) if len(sys.argv) > 1 else models.fetch() / models.NAMES["rec"]
    os.environ["SHIPWAY_MIRROR"] = "off"
    watch()
    from shipway.registry.cli.app import main as shipway

    with tempfile.TemporaryDirectory(prefix="shipway-timeline-") as name:
        os.chdir(project(Path(name) / "home"))
        code = shipway(["register", str(model.resolve()), "--name", "rec"])
        os.chdir("/")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    say(f"over; the children used {children.ru_utime + children.ru_stime:.2f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
