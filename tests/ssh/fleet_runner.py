"""Promotes a bundle to a fleet in a process of its own and says, as JSON, how that ended and what it took.

FOLDER VERSION: the folder with ``deploy.yaml``. ``page`` is what a person would have seen, ``peak`` the most
memory that the process ever had, in bytes, ``connections`` how many it had open at once, at most.
"""

from __future__ import annotations

import io
import json
import resource
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parents[1] / "registry" / "deploy"))
sys.path.insert(0, str(Path(__file__).parent))

import ssh_project
from deploy_scene import bundle, put_live

from shipway.registry.cli import output, release_views
from shipway.registry.deploy.planning import plan_promotion
from shipway.registry.deploy.site import Outcome
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import Json
from shipway.registry.verbs.status import look
from shipway.targets.deliveries import ssh, ssh_session
from shipway.targets.deliveries.ssh_address import Patience
from shipway.targets.deliveries.ssh_link import Link

CHECK = b"""import json, pathlib
passed = not pathlib.Path("../../broken").exists()
print(json.dumps({"passed": passed, "outputs": []}))
raise SystemExit(0 if passed else 5)
"""


class Counted(Link):
    """A connection that is counted while it lasts."""

    open_now: ClassVar[set[int]] = set()
    most: ClassVar[int] = 0

    async def open(self) -> None:
        await super().open()
        self.open_now.add(id(self))
        Counted.most = max(Counted.most, len(self.open_now))

    def hang_up(self) -> None:
        super().hang_up()
        self.open_now.discard(id(self))


def promote(folder: Path, version: int) -> Json:
    # All these hosts are this one machine: what takes one of them long keeps all of them.
    ssh.Patience = partial(Patience, connect=120.0, login=120.0, silence=120.0)  # type: ignore[misc, assignment]
    ssh_session.Link = Counted  # type: ignore[misc]
    project = ssh_project.project_at(folder)
    contents = {"check.py": CHECK, "weights.bin": bytes([version]) * (version - 1) * 1_000_000}
    manifest = bundle(project, version, extra=contents)
    found: Json = {"error": None, "deployments": [], "page": ""}
    try:
        done = put_live(project, manifest)
        found["deployments"] = [one.to_json() for one in done]
        with redirect_stdout(io.StringIO()) as page:
            output.print_blocks(
                release_views.outcome(Outcome(plan_promotion("promote", "prod", [], {}), done))
            )
        found["page"] = page.getvalue()
    except DeliveryError as error:
        found["error"] = {"what": error.what, "why": error.why}
    found["connections"] = Counted.most  # of this command: the next line is another one
    if not found["error"]:
        found["status"] = look(project, "prod", "jetson").to_json()
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


if __name__ == "__main__":
    print(json.dumps(promote(Path(sys.argv[1]), int(sys.argv[2]))))
