"""``register`` where something gives out on the way: a full disk, a damaged store, a killed process."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from observers import Notes

from shipway.registry import catalog, catalog_worker, files
from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import ConversionError, DeliveryError, IntegrityError
from shipway.registry.ledger.owner import this_process
from shipway.registry.nouns import ModelRef
from shipway.registry.store.folder import FolderObjects
from shipway.registry.verbs.bundle import build_bundle, export
from shipway.registry.verbs.register import register
from shipway.registry.verbs.resolve import resolve

TARGETS = "project: demo\ntargets: {phone: {kind: mobile-ort}}\n"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return load_text(TARGETS, tmp_path / "project")


def test_a_store_that_is_full_for_the_record_still_has_a_version(
    project: Project, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow has the version: it is registered, and whoever wants it gets it from there."""
    put = FolderObjects.put

    def refuse(self: FolderObjects, key: str, data: bytes) -> None:
        if key.startswith("versions/"):
            raise DeliveryError("The store can't be used.", why="No space left on device")
        put(self, key, data)

    notes = Notes()
    with monkeypatch.context() as patch:
        patch.setattr(FolderObjects, "put", refuse)
        done = register(project, model_file, "net", observer=notes)
    assert (done.created, done.version.version) == (True, 1)
    [note] = notes.notes
    assert "No space left on device" in note
    assert "net/1 is registered" in note
    assert project.store.version("net", 1) is None
    assert all(project.store.has(file.digest) for file in catalog.locations(done.version).values())
    assert resolve(project, ModelRef("net", version=1)) == done.version
    again = register(project, model_file, "net")
    assert (again.created, again.version) == (False, done.version)


def test_a_failed_registration_takes_no_file_from_another(project: Project, model_file: Path) -> None:
    """Files are shared by content: another registration may rely on what this one wrote first."""
    project.artifacts.parent.mkdir(parents=True, exist_ok=True)
    project.artifacts.write_text("in the way")
    with pytest.raises(DeliveryError):
        register(project, model_file, "net")
    assert project.store.names() == []
    blobs = list(project.store.objects.list("blobs/"))
    assert len(blobs) > 3
    for key in blobs:
        local = project.store.objects.local(key)
        assert local is not None
        assert files.digest_of(local).hex == key.rpartition("/")[2]


def damage(path: Path) -> None:
    path.chmod(0o644)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_registering_again_mends_a_damaged_store(project: Project, model_file: Path, tmp_path: Path) -> None:
    """What the message of ``bundle`` says to do works."""
    done = register(project, model_file, "net")
    manifest = build_bundle(project, done.version, "phone")
    graph = next(file for file in done.version.variants[0].files)
    damage(project.store.open(graph))
    with pytest.raises(IntegrityError, match="altered") as caught:
        export(project.store, build_bundle(project, done.version, "phone"), tmp_path / "out")
    assert "Register the model again" in caught.value.remedy
    again = register(project, model_file, "net")
    assert (again.created, again.version) == (False, done.version)
    export(project.store, build_bundle(project, again.version, "phone"), tmp_path / "out")
    assert files.digest_of(tmp_path / "out" / manifest.graph) == graph.digest


def test_a_damaged_file_that_a_bundle_was_given_is_made_anew(
    project: Project, model_file: Path, tmp_path: Path
) -> None:
    done = register(project, model_file, "net")
    manifest = build_bundle(project, done.version, "phone")
    own = manifest.file("README.md")
    assert own is not None
    damage(project.store.open(own))
    with pytest.raises(IntegrityError, match=r"README\.md was altered") as caught:
        export(project.store, manifest, tmp_path / "out")
    assert "Run the command again" in caught.value.remedy
    export(project.store, build_bundle(project, done.version, "phone"), tmp_path / "out")
    assert files.digest_of(tmp_path / "out/README.md") == own.digest


def are_working_in(folder: Path) -> bool:
    """Whether a process has its working directory there, as children of a killed one have for a moment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            found.append((process / "cwd").readlink())
    return any(place.is_relative_to(folder) for place in found)


def test_what_a_killed_register_left_is_swept_away(project: Project, model_file: Path, scratch: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from shipway.registry.config.load import load_text\n"
        "from shipway.registry.convert import optimise\n"
        "from shipway.registry.verbs.register import register\n"
        "optimise.slim = lambda model: (print('at work', flush=True), time.sleep(600))\n"
        "register(load_text('project: demo', Path(sys.argv[1])), Path(sys.argv[2]), 'net')"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(project.root), str(model_file)]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"at work\n"
        child.kill()
    deadline = time.monotonic() + 60  # the kernel ends its children: what they write must not race the sweep
    while are_working_in(scratch):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    [left] = scratch.iterdir()
    mine = scratch / "shipway-register-mine"  # of somebody else, who may be at work
    mine.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        born = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19]
        owner = dataclasses.replace(this_process(), pid=other.pid, born=born)
        (mine / "owner.json").write_text(json.dumps(owner.to_json()))
        register(project, model_file, "net")
        assert not left.exists()
        assert mine.exists()
        other.communicate(b"\n")
    (model_file.parent / "inference.yml").write_text("labels: [a]\n")
    register(project, model_file, "net")
    assert not mine.exists()


def test_no_room_for_artifacts_speaks_of_space(tmp_path: Path) -> None:
    """MLflow copies whole folders: what was wrong with each file is in the text of one error."""
    for error in (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "given/net.onnx", None, "artifacts/net.onnx"),
        shutil.Error([("given/net.onnx", "artifacts/net.onnx", "[Errno 28] No space left on device: 'x'")]),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    ):
        with (
            pytest.raises(DeliveryError, match="no room left") as caught,
            catalog.explained("sqlite:///m.db"),
        ):
            raise error
        assert "Free space there" in caught.value.remedy
    with pytest.raises(DeliveryError) as caught, catalog.explained("sqlite:///m.db"):
        raise OSError(errno.EACCES, "Permission denied", "m.db")
    assert "Free space" not in caught.value.remedy


def test_two_first_registers_without_hard_links_share_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that comes second must not replace what the first one's client may have written to."""
    path = tmp_path / "mlflow.db"

    def refuse(source: Path, target: Path) -> None:
        path.write_bytes(b"of another process, just made")
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(catalog_worker, "_make_tables", lambda made: made.write_bytes(b"ours"))
    monkeypatch.setattr(os, "link", refuse)
    catalog_worker._make_database(path)
    assert path.read_bytes() == b"of another process, just made"
    path.unlink()
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    catalog_worker._make_database(path)
    assert path.read_bytes() == b"ours"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("mlflow")] == ["mlflow.db"]


def test_a_full_disk_under_the_copy_of_the_model_names_the_disk(
    project: Project, model_file: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    monkeypatch.setattr(files, "copy_atomic", refuse)
    with pytest.raises(DeliveryError, match=f"no room left in {scratch}") as caught:
        register(project, model_file, "net")
    assert str(model_file) not in str(caught.value)


def test_a_file_that_is_no_model_is_named_as_it_was_given(project: Project, model_file: Path) -> None:
    model_file.write_bytes(b"just a text\n" * 9)
    with pytest.raises(ConversionError) as caught:
        register(project, model_file, "net")
    assert str(model_file) in caught.value.what
    assert "shipway-register-" not in str(caught.value)


def test_weights_without_their_program(project: Project, tmp_path: Path) -> None:
    weights = tmp_path / "lonely" / "net.pdiparams"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    for path in (weights, weights.parent):
        with pytest.raises(ConversionError, match=r"net\.pdiparams lacks its program") as caught:
            register(project, path, "net")
        assert "neither net.json nor net.pdmodel" in caught.value.why
