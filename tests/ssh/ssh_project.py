"""A project whose destination is two hosts, and a command that is killed at one of its steps.

Run as a program it is that command: FOLDER WORK STEP, where STEP is the number of the step before which the
process is killed, having printed the step's kind, or "outcome": when all steps are done and nothing is
recorded yet. It ends with 0 where there are not so many steps.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "registry" / "deploy"))

import deploy_scene
from deploy_scene import bundle, put_live

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy.execute import Watch, unwatched
from shipway.registry.deploy.plan import Task
from shipway.registry.deploy.site import Goal, Site

CONFIG = """
project: scene
store: store
targets:
  jetson: {{kind: jetson-ort}}
environments:
  prod:
    jetson:
      to: ssh://{user}@{{host}}{root}/{{host}}
      hosts: [{hosts}]
      ssh: {{known_hosts: known_hosts, keys: [key]}}
      gate: {{check: true}}
      keep: {keep}
      {more}
"""


def write_project(root: Path, user: str, hosts: Sequence[str], keep: int = 1, more: str = "") -> Project:
    """``more``: keys of the placement, ``waves`` say."""
    root.mkdir(parents=True, exist_ok=True)
    listed = ", ".join(f"'{host}'" for host in hosts)
    text = CONFIG.format(user=user, root=root / "hosts", hosts=listed, keep=keep, more=more)
    (root / "deploy.yaml").write_text(text)
    return load_text(text, root)


def project_at(root: Path) -> Project:
    return load_text((root / "deploy.yaml").read_text(), root)


def close(site: Site) -> None:
    """Hang up, so that the next command finds a new connection, as a new process would."""
    for place in site.places:
        site.delivery(place).close()  # type: ignore[attr-defined]


def promote(project: Project, version: int, watch: Watch = unwatched) -> None:
    """Each version has a file of its own, one that all have, and one that is made of the version's before."""
    graph = bytes([version]) * 1000 + random.Random(0).randbytes(150_000)
    contents = {
        "weights.bin": bytes([version]) * 200_000,
        "same-as-ever": b"x" * 100_000,
        "model/graph.onnx": graph,
    }
    put_live(project, bundle(project, version, extra=contents), watch=watch)


def roll_back(project: Project, watch: Watch = unwatched) -> None:
    """What ``rollback`` does, with a watch on its steps."""
    site = Site(project, "prod")
    site.recover()
    place = site.places[0]
    candidate = next(iter(site.ledger.chain(place, site.ledger.head(place).standing)))
    goal = Goal(project.store.bundle(candidate.bundle), candidate.serial)
    site.carry_out(site.plan("rollback", {place.target: goal}), watch=watch)
    close(site)


def main(folder: str, work: str, step: str) -> None:
    if step == "outcome":
        deploy_scene.arm(deploy_scene.naming("outcome.json"))
    left = int(step) if step != "outcome" else 10**6

    def watch(moment: str, task: Task) -> None:
        nonlocal left
        if moment == "before":
            if left == 0:
                print(type(task.step).__name__, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    project = project_at(Path(folder))
    if work == "rollback":
        roll_back(project, watch)
    else:
        promote(project, int(work), watch)


if __name__ == "__main__":
    main(*sys.argv[1:])
