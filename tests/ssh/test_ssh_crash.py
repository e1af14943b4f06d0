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
from deploy_scene import assert_ledger_is_sound, assert_live_is_whole
from ssh_hosts import USER, Host
from ssh_scene import assert_tidy

from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site

pytestmark = pytest.mark.real

CASES: dict[str, tuple[list[int], str, int | None, int]] = {
    # name: (versions promoted before, what is killed, live before, live after)
    "first promote": ([], "1", None, 1),
    "promote that prunes": ([1, 2, 3], "4", 3, 4),
    "rollback": ([1, 2], "rollback", 2, 1),
}


def killed(root: Path, work: str, step: int) -> int:
    """How the command ended that was to be killed before that step."""
    done = subprocess.run(
        [sys.executable, ssh_project.__file__, root, work, str(step)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SHIPWAY_MIRROR": "off"},
    )
    assert done.returncode in (0, 3, -9), done.stderr
    return done.returncode


def live(project: Project) -> set[int | None]:
    """Versions that the single hosts have live, as their own disks say."""
    site = Site(project, "prod")
    fleet = site.delivery(site.places[0])
    found = {pointer.version if (pointer := host.pointer()) else None for host in fleet.hosts}  # type: ignore[attr-defined]
    assert_live_is_whole(project)
    ssh_project.close(site)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_killed_command_leaves_old_or_new_whole_and_the_next_one_converges(
    name: str, sshd: Host, client_key: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    before, work, old, new = CASES[name]
    prepared = tmp_path / "prepared"
    tried = 0
    for step in itertools.count():
        root = tmp_path / "at"
        shutil.rmtree(root, ignore_errors=True)
        if not prepared.exists():
            project = ssh_project.write_project(
                root, USER, [f"127.0.0.1:{sshd.port}", f"localhost:{sshd.port}"]
            )
            (root / "known_hosts").write_text(sshd.known() + sshd.known().replace("127.0.0.1", "localhost"))
            shutil.copy(client_key, root / "key")
            for version in before:
                ssh_project.promote(project, version)
            shutil.copytree(root, prepared, symlinks=True)
        else:
            shutil.copytree(prepared, root, symlinks=True)
        project = ssh_project.project_at(root)
        end = killed(root, work, step)
        if end == 0:
            break  # it has fewer steps than that: all were tried
        tried += end == -9
        assert live(project) <= {old, new}
        site = Site(project, "prod")
        site.recover()
        ssh_project.close(site)
        settled = live(project)
        assert settled in ({old}, {new})
        assert_ledger_is_sound(project)
        if settled == {old}:
            assert killed(root, work, 1000) == 0
        assert live(project) == {new}
        assert_ledger_is_sound(project)
        for host in (root / "hosts").iterdir():
            assert_tidy(host)
    record_property("kill_points", tried)
    print(f"{name}: {tried} kill points")
    assert tried >= 4
