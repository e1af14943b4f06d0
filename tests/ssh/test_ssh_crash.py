"""kill -9 before every step of a command that deploys to two hosts; then the next command."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ssh_project
from deploy_scene import assert_ledger_is_sound
from ssh_hosts import USER, Host
from ssh_scene import assert_tidy, assert_whole

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.targets.manifest import MANIFEST, Manifest
from shipway.targets.steps import Release

pytestmark = pytest.mark.real

CASES: dict[str, tuple[list[int], str, int | None, int]] = {
    # name: (versions promoted before, what is killed, live before, live after)
    "first promote": ([], "1", None, 1),
    "promote that prunes": ([1, 2, 3], "4", 3, 4),
    "promote in waves": ([1], "2", 1, 2),
    "rollback": ([1, 2], "rollback", 2, 1),
}


def killed(root: Path, work: str, step: int | str) -> tuple[int, str]:
    """How the command ended that was to be killed before that step, and the step's kind."""
    done = subprocess.run(
        [sys.executable, ssh_project.__file__, root, work, str(step)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SHIPWAY_MIRROR": "off"},
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode, done.stdout.strip()


def again(project: Project, work: str) -> None:
    """The same command once more, and nobody kills it."""
    if work == "rollback":
        ssh_project.roll_back(project)
    else:
        ssh_project.promote(project, int(work))


def live(root: Path) -> set[int | None]:
    """Versions that the hosts have live, as their own disks say; each must be whole."""
    found: set[int | None] = set()
    for host in ("127.0.0.1", "localhost"):
        (place,) = (root / "hosts").glob(f"{host}*") if (root / "hosts").exists() else (None,)
        if place is None or not (place / "current").is_symlink():
            found.add(None)
            continue
        manifest = Manifest.from_bytes((place / "current" / MANIFEST).read_bytes())
        assert_whole(place, Release(manifest))
        found.add(manifest.version)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_killed_command_leaves_old_or_new_whole_and_the_next_one_converges(
    name: str, sshd: Host, client_key: Path, tmp_path: Path, record_counts: Callable[[str, int], None]
) -> None:
    before, work, old, new = CASES[name]
    prepared = tmp_path / "prepared"
    tried, kinds = 0, set()
    for step in itertools.chain(["outcome"], itertools.count()):
        root = tmp_path / "at"
        shutil.rmtree(root, ignore_errors=True)
        if not prepared.exists():
            project = ssh_project.write_project(
                root,
                USER,
                [f"127.0.0.1:{sshd.port}", f"localhost:{sshd.port}"],
                more="waves: [1, 1]" if name == "promote in waves" else "",
            )
            (root / "known_hosts").write_text(sshd.known() + sshd.known().replace("127.0.0.1", "localhost"))
            shutil.copy(client_key, root / "key")
            for version in before:
                ssh_project.promote(project, version)
            shutil.copytree(root, prepared, symlinks=True)
        else:
            shutil.copytree(prepared, root, symlinks=True)
        project = ssh_project.project_at(root)
        end, kind = killed(root, work, step)
        if end == 0:
            break  # it has fewer steps than that: all were tried
        tried += end == -9
        kinds.add(kind)
        assert live(root) <= {old, new}
        site = Site(project, "prod")
        site.recover()
        ssh_project.close(site)
        settled = live(root)
        assert settled in ({old}, {new})
        assert_ledger_is_sound(project)
        if settled == {old}:
            again(project, work)
        assert live(root) == {new}
        assert_ledger_is_sound(project)
        for host in (root / "hosts").iterdir():
            assert_tidy(host)
    record_counts(f"{name}, on two hosts: killed before each step", tried)
    assert tried >= 4
    assert {"Seal", "Point"} <= kinds
    assert ("Patch" in kinds) == name.startswith("promote ")
