"""Targets side by side: while one target's files are hashed, another's are put on disk or sent.

Only what comes before any pointer moves is done so: by then nobody sees anything of it, and the order among
targets means nothing. Of commands (an engine that is built, say) one runs at a time: each may want the whole
of a machine.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from shipway.registry.deploy.plan import Task
from shipway.targets.steps import Command, Gate, Hold, Point, Prune

_SEEN = (Point, Gate, Hold, Prune)


def split(tasks: Sequence[Task]) -> tuple[dict[str, list[Task]], Sequence[Task]]:
    """What can be done side by side, by target, each in its order; and the rest, to be done in its order."""
    first = list(itertools.takewhile(lambda task: not isinstance(task.step, _SEEN), tasks))
    lanes: dict[str, list[Task]] = {}
    for task in first:
        lanes.setdefault(task.target, []).append(task)
    return lanes, tasks[len(first) :]


def run(lanes: Mapping[str, Sequence[Task]], perform: Callable[[Task], None]) -> None:
    """Perform every lane's tasks in their order, the lanes side by side.

    Returns or raises only when all of them have come to a stop. Where one fails the others end with the step
    that they are at; what is raised is the failure of the lane that comes first.
    """
    stop, alone = threading.Event(), threading.Lock()

    def walk(tasks: Sequence[Task]) -> None:
        for task in tasks:
            if stop.is_set():
                return
            if isinstance(task.step, Command):
                with alone:
                    perform(task)
            else:
                perform(task)

    if len(lanes) <= 1:  # nothing to gain, and in this thread Ctrl-C reaches the step itself
        for tasks in lanes.values():
            walk(tasks)
        return
    pool = ThreadPoolExecutor(len(lanes), "shipway-target")
    try:
        futures = [pool.submit(walk, tasks) for tasks in lanes.values()]
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        stop.set()  # all that was asked for is done, or the rest is not wanted any more
        pool.shutdown(wait=True)
    for future in futures:
        future.result()
