"""What still works while MLflow is down, and where a destination can't be written."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from deploy_scene import CONFIG, assert_ledger_is_sound, files_of, fork, live_versions
from version_scene import register

from shipway.registry import catalog
from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.deploy import mirror
from shipway.registry.errors import DeliveryError
from shipway.registry.nouns import ModelRef
from shipway.registry.verbs.history import history
from shipway.registry.verbs.plan import plan
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.resolve import resolve
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verbs.status import status

TEXT = CONFIG.format(keep=5, gate="{}") + "registry: http://127.0.0.1:9\n"


def test_deployments_need_no_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = load_text(TEXT, tmp_path)
    register(project, 1)
    register(project, 2)
    for version in (1, 2):
        ref = ModelRef("ocr", version=version)
        assert plan(project, ref, "staging").plan.changes
        promote(project, ref, "staging")
        promote(project, ref, "prod")
    assert resolve(project, ModelRef("ocr", alias="prod-one")).version == 2
    # The mirror tells that it can't, keeps the lag and changes nothing else...
    monkeypatch.setenv(mirror.MODE, "wait")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    rollback(project, "prod")
    assert "The registry http://127.0.0.1:9 can't be used" in mirror.last_error(project)
    assert live_versions(project) == {"one": 1, "two": 1}
    assert len(history(project)) == 8
    found = status(project)
    assert {(one.version, one.healthy, one.mirrored) for one in found["prod"].values()} == {(1, True, False)}
    # ...and follows once MLflow is back.
    seen = {}
    monkeypatch.setattr(catalog, "set_aliases", lambda uri, wanted: seen.update(wanted))
    mirror.mirror_now(project)
    assert seen == {"staging-one": ("ocr", 2), "prod-one": ("ocr", 1), "prod-two": ("ocr", 1)}
    assert all(one.mirrored for targets in status(project).values() for one in targets.values())


def give_up_privileges() -> None:
    """Let permissions hold for root as they do for others (capabilities(7)): in this process, for good."""
    if os.geteuid() == 0:
        override, read, owner = 1, 2, 3  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
        sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 bits each
        assert libc.capget(header, sets) == 0
        for low in (0, 1):
            sets[low] &= ~(1 << override | 1 << read | 1 << owner)
        assert libc.capset(header, sets) == 0


def unprivileged(work: list[str], project: Project) -> int:
    """Run verbs in a child for which permissions hold; its exit code, 8 for DeliveryError."""
    third = ModelRef("ocr", version=3)
    verbs = {
        "promote": lambda: promote(project, third, "prod", accept="a trial"),
        "rollback": lambda: rollback(project, "prod"),
        "look": lambda: (status(project, deep=True), history(project), plan(project, third, "staging")),
    }
    pid = fork()
    if pid == 0:
        code = 1
        try:
            give_up_privileges()
            for name in work:
                verbs[name]()
            code = 0
        except DeliveryError as error:
            code = 8 if "can't be used" in error.what and "denied" in error.why else 2
        except BaseException as error:
            os.write(2, f"child: {error!r}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_destination_that_can_only_be_read(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    project = load_text(TEXT, tmp_path)
    for version in (1, 2, 3):
        register(project, version)
        promote(project, ModelRef("ocr", version=version), "staging")
    for version in (1, 2):
        promote(project, ModelRef("ocr", version=version), "prod", accept="a trial")
    out = tmp_path / "out" / "prod" / "two"
    for path in (out, *out.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = files_of(tmp_path / "out")
    request.addfinalizer(lambda: [path.chmod(0o755) for path in (out, *out.rglob("*"))])
    assert unprivileged(["look"], project) == 0
    assert unprivileged(["promote"], project) == 8
    assert unprivileged(["rollback"], project) == 8
    assert unprivileged(["look"], project) == 0
    assert files_of(tmp_path / "out") == before
    assert live_versions(project) == {"one": 2, "two": 2}
    assert_ledger_is_sound(project)
    assert [event.outcome for event in history(project, "prod", "two")] == [
        "failed",
        "failed",
        "live",
        "live",
    ]
