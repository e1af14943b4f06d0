"""A fine-tune of a model of 45 MB on its way to hosts that hold the parent, and the way back."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import struct
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import ssh_project
from deploy_scene import assert_ledger_is_sound, assert_live_is_whole, bundle, put_live
from onnx import helper, numpy_helper
from ssh_hosts import USER, Host, Wire, running
from ssh_scene import assert_tidy, assert_whole

from shipway.registry.cli import release_views
from shipway.registry.config.project import Project
from shipway.registry.deploy.site import Goal, Outcome, Site
from shipway.targets import delta
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Patch, Release, Send

pytestmark = pytest.mark.real
GRAPH = "model/graph.onnx"
Weights = Mapping[str, np.ndarray]


@cache
def parent() -> Weights:
    """The weights of ResNet-18 by their shapes, batch norms folded into the convolutions, as exporters do."""
    shapes: dict[str, tuple[int, ...]] = {"conv": (64, 3, 7, 7)}
    for stage, (wide, narrow) in enumerate([(64, 64), (128, 64), (256, 128), (512, 256)]):
        for number in range(4):
            shapes[f"stage{stage}.conv{number}"] = (wide, narrow if number == 0 else wide, 3, 3)
        if wide != narrow:
            shapes[f"stage{stage}.shortcut"] = (wide, narrow, 1, 1)
    shapes |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    shapes["head"] = (512, 1000)
    random = np.random.default_rng(18)
    return {
        name: (random.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }


def tuned(names: tuple[str, ...], step: float) -> Weights:
    """The parent's weights, those that begin with ``names`` moved by so much of themselves."""
    random = np.random.default_rng(1)
    return {
        name: (old * (1 + step * random.normal(size=old.shape))).astype(np.float32)
        if name.startswith(names)
        else old
        for name, old in parent().items()
    }


def onnx_of(weights: Weights) -> bytes:
    nodes = [
        helper.make_node("Conv" if found.ndim == 4 else "Identity", ["x", name], [f"{name}/out"], name=name)
        for name, found in weights.items()
    ]
    tensors = [numpy_helper.from_array(found, name) for name, found in weights.items()]
    return bytes(helper.make_model(helper.make_graph(nodes, "resnet", [], [], tensors)).SerializeToString())


def version(project: Project, number: int, weights: Weights) -> Manifest:
    return bundle(project, number, extra={GRAPH: onnx_of(weights)})


def project_of(root: Path, known: str, key: Path, *names: str) -> Project:
    project = ssh_project.write_project(root, USER, names, keep=3)
    (root / "known_hosts").write_text(known)
    shutil.copy(key, root / "key")
    return project


@contextlib.contextmanager
def changes_in(folder: Path) -> Iterator[list[tuple[str, str]]]:
    """What happened to the names in a folder, as inotify(7) saw it: ``("moved to", "current")``."""
    kinds = {0x40: "moved from", 0x80: "moved to", 0x100: "created", 0x200: "deleted"}
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0
    assert libc.inotify_add_watch(descriptor, os.fsencode(folder), sum(kinds)) >= 0
    found: list[tuple[str, str]] = []
    try:
        yield found
        with contextlib.suppress(BlockingIOError):
            while data := os.read(descriptor, 1 << 16):
                while data:
                    _, mask, _, length = struct.unpack_from("iIII", data)
                    name = data[16 : 16 + length].rstrip(b"\0").decode()
                    found.append((kinds[mask & 0x3C0], name))
                    data = data[16 + length :]
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def reader_of(root: Path) -> Iterator[tuple[set[int], list[str]]]:
    """A client in a loop: the versions that it found live, and what went wrong with a release that was."""
    seen: set[int] = set()
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                assert (root / "current" / "verdict").read_bytes() == b"good"
                home = (root / "current").resolve(strict=True)
                manifest = Manifest.from_bytes((home / "bundle.json").read_bytes())
                assert home.name == manifest.release_id
                for file in manifest.files:
                    assert (home / file.path).stat().st_size == file.size
                seen.add(manifest.version)
        except Exception as error:
            wrong.append(repr(error))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen, wrong
    finally:
        done.set()
        thread.join()


def test_a_head_is_sent_alone_and_the_way_back_is_one_rename(
    sshd: Host, client_key: Path, tmp_path: Path
) -> None:
    with Wire(sshd.port) as wire:
        name = f"127.0.0.1:{wire.port}"
        project = project_of(tmp_path / "at", sshd.known(wire.port), client_key, name)
        root = project.root / "hosts" / name
        old, new = version(project, 1, parent()), version(project, 2, tuned(("head",), 0.01))
        size = next(file.size for file in new.files if file.path == GRAPH)
        assert size > 45_000_000
        (first,) = put_live(project, old)
        assert first.bytes_sent > size

        with reader_of(root) as (seen, wrong):
            before = wire.sent
            (done,) = put_live(project, new)
            over = wire.sent - before
            print(
                f"head: {done.bytes_sent} of {size} bytes, {done.bytes_sent / size:.2%}; {over} on the wire"
            )
            assert done.bytes_sent < over <= size * 0.05
            assert_whole(root, Release(new))

            with changes_in(root) as changes:
                before = wire.sent
                ssh_project.roll_back(project)
                print(f"rollback: {wire.sent - before} bytes on the wire")
                assert wire.sent - before < 65_536
        assert changes == [("moved to", "current")]
        assert wrong == []
        assert seen == {1, 2}
        assert_live_is_whole(project)

        (done,) = put_live(project, version(project, 3, tuned(("",), 0.01)))
        print(f"all of it: {done.bytes_sent / size:.0%}")
        assert done.bytes_sent < size * 0.9
        assert_live_is_whole(project)
        assert_ledger_is_sound(project)
        assert_tidy(root)


def test_each_host_of_a_fleet_gets_what_it_needs(
    sshd: Host, client_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{address}:{sshd.port}" for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")]
    known = "".join(sshd.known().replace("127.0.0.1", name.split(":")[0]) for name in names)
    old = tuned(("head",), 0.01)
    project = project_of(tmp_path / "at", known, client_key, *names[:3])
    put_live(project, version(project, 1, parent()))
    project = project_of(tmp_path / "at", known, client_key, *names)  # the fourth is new
    new = version(project, 2, old)
    third = project.root / "hosts" / names[2] / "current" / GRAPH
    with third.open("r+b") as stream:  # damage that names and sizes do not show
        stream.seek(20_000_000)
        stream.write(b"something else")

    site = Site(project, "prod")
    plan = site.plan("promote", {"jetson": Goal(new)})
    (patch,) = [task for task in plan.tasks if isinstance(task.step, Patch)]
    (send,) = [task for task in plan.tasks if isinstance(task.step, Send) and task.step.file.path == GRAPH]
    assert (patch.hosts, send.hosts) == (tuple(names[:3]), (names[3],))
    shown = [block for block in release_views.plan(Outcome(plan)) if isinstance(block, str)]
    assert any("at most" in line and "to send" in line for line in shown)

    made = []
    write = delta.write
    monkeypatch.setattr(delta, "write", lambda *given: made.append(1) or write(*given))
    (done,) = site.carry_out(plan)
    ssh_project.close(site)
    size = send.step.file.size if isinstance(send.step, Send) else 0
    sent = {end.host: end.bytes_sent / size for end in done.hosts}
    assert made == [1]
    assert sent[names[0]] < 0.05
    assert sent[names[1]] < 0.05
    assert 1 <= sent[names[2]] < 1.05  # its base is damaged: that shows before anything is sent
    assert 1 <= sent[names[3]] < 1.05
    for name in names:
        assert_whole(project.root / "hosts" / name, Release(new))
        assert_tidy(project.root / "hosts" / name)
    assert_ledger_is_sound(project)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory, client_key: Path) -> Iterator[Host]:
    """It listens on all of 127.0.0.0/8: each address is a host of its own."""
    with running(tmp_path_factory.mktemp("tuned") / "host", client_key, more="ListenAddress 0.0.0.0") as host:
        yield host
