"""Hosts from an inventory, and a server on each of them that is asked: over a real sshd."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import ssh_project
from deploy_scene import bundle, put_live
from ssh_hosts import USER, Host

sys.path.insert(0, str(Path(__file__).parents[1] / "targets" / "kinds"))

from v2_scene import Scene, serving_v2

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Site
from shipway.registry.errors import DeliveryError
from shipway.registry.verbs.status import status
from shipway.targets.manifest import Manifest

pytestmark = pytest.mark.real

CONFIG = """
project: scene
store: store
targets:
  jetson: {{kind: jetson-ort}}
environments:
  prod:
    jetson:
      to: ssh://nobody@{{host}}:1{root}/hosts
      hosts: {{file: hosts.yaml, groups: [line-a, line-b]}}
      ssh: {{known_hosts: known_hosts, keys: [key]}}
      gate: {{url: 'http://{{host}}:{port}', timeout_s: 0.3}}
"""
X = np.ones((2, 4), np.float32)
WEIGHTS = np.eye(4, 3, dtype=np.float32)


def project_at(root: Path, host: Host, client_key: Path, url: str) -> Project:
    """One host, in two groups, by a name that only the inventory knows."""
    (root / "known_hosts").write_text(host.known())
    shutil.copy(client_key, root / "key")
    options = f"{{address: {host.name}, port: {host.port}, user: {USER}}}"
    (root / "hosts.yaml").write_text(f"hosts:\n  box: {options}\ngroups:\n  line-a: [box]\n  line-b: [box]\n")
    return load_text(CONFIG.format(root=root, port=url.rpartition(":")[2]), root)


def release(project: Project, version: int) -> Manifest:
    """A bundle with a golden slice of ``relu(x @ WEIGHTS)``."""
    tensor = {"dtype": "float32", "file": "0-0.bin", "name": "x", "shape": [2, 4]}
    output = {"dtype": "float32", "file": "0-1.bin", "name": "y", "shape": [2, 3], "max_abs": 1.0}
    index = {"schema": 1, "cases": [{"inputs": [tensor], "outputs": [output]}]}
    golden = {
        "golden/golden.json": json.dumps(index).encode(),
        "golden/0-0.bin": X.tobytes(),
        "golden/0-1.bin": (X @ WEIGHTS).astype(np.float32).tobytes(),
    }
    return bundle(project, version, model="tiny", extra=golden)


def test_each_host_s_server_is_asked(host: Host, client_key: Path, tmp_path: Path) -> None:
    with serving_v2(Scene({1: WEIGHTS})) as scene:
        project = project_at(tmp_path, host, client_key, scene.address)
        (done,) = put_live(project, release(project, 1))
        assert done.outcome == "live"
        assert [one["inputs"][0]["shape"] for one in scene.asked] == [[2, 4]]
        with pytest.raises(DeliveryError, match=r"http://127.0.0.1:\d+ does not serve tiny/2") as caught:
            put_live(project, release(project, 2))
        assert caught.value.why == "It serves version 1 of tiny."
    site = Site(project, "prod")
    found = status(project, "prod", deep=True)["prod"]["jetson"]
    assert (found.version, found.healthy, list(found.hosts)) == (1, True, ["box"])
    assert (tmp_path / "hosts" / "current").is_symlink()
    ssh_project.close(site)
