"""A host that holds a like model is sent what differs; it makes the file itself, or is sent all of it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from ssh_hosts import Host, Wire
from ssh_scene import Connected, Shelf, assert_tidy, assert_whole, connect, deploy, noise, pointer
from test_ssh_faults import small_disk

from shipway.registry.errors import IntegrityError
from shipway.registry.nouns import Digest, File
from shipway.targets.deliveries import deltas
from shipway.targets.deliveries.deltas import Deltas, Recipe
from shipway.targets.steps import Patch, Point, Release, Seal, Stage

real = pytest.mark.real
GRAPH = "model/graph.onnx"


def network(seed: int, *, head: int = 0, size: int = 200_000, step: float = 1.0) -> bytes:
    """A model of nine layers that ``seed`` gives, times ``step``, and of a head that ``head`` gives."""

    def weights(*of: int) -> np.ndarray[Any, Any]:
        return (np.random.default_rng(of).normal(size=size) * step).astype(np.float32)

    layers = {f"layer{number}": weights(seed, number) for number in range(9)}
    tensors = [
        numpy_helper.from_array(found, name) for name, found in {**layers, "head": weights(head)}.items()
    ]
    nodes = [helper.make_node("Identity", [tensor.name], [f"{tensor.name}/out"]) for tensor in tensors]
    return bytes(helper.make_model(helper.make_graph(nodes, "network", [], [], tensors)).SerializeToString())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


def graph_of(release: Release) -> File:
    file = release.manifest.file(GRAPH)
    assert file is not None
    return file


def patch(delivery: Connected, release: Release, base: Release) -> int:
    delivery.perform(Stage(release))
    return delivery.perform(Patch(release, graph_of(release), graph_of(base)))


@pytest.fixture
def parent(shelf: Shelf) -> Release:
    return shelf.bundle(1, {GRAPH: network(1)})


@pytest.fixture
def child(shelf: Shelf) -> Release:
    return shelf.bundle(2, {GRAPH: network(1, head=2)})


@real
def test_what_differs_is_sent_and_the_host_makes_the_rest(
    host: Host, shelf: Shelf, parent: Release, child: Release, known_hosts: Path, client_key: Path
) -> None:
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, parent, 1)
        before = delivery.session.traffic.sent
        sent = patch(delivery, child, parent)
        print(f"{sent} of {graph_of(child).size} bytes were sent")
        assert sent <= delivery.session.traffic.sent - before < sent + 2000
        assert sent < graph_of(child).size // 10
        assert patch(delivery, child, parent) == sent  # once more from the start, as after a crash
        delivery.perform(Seal(child))
        delivery.perform(Point(pointer(child, 2)))
        assert delivery.audit(child.manifest).whole
    assert_whole(host.root, child)
    assert_whole(host.root, parent)
    assert_tidy(host.root)


@real
def test_a_host_without_the_base_or_with_a_damaged_one_is_sent_the_file(
    host: Host, shelf: Shelf, parent: Release, child: Release, known_hosts: Path, client_key: Path
) -> None:
    with connect(host, shelf, known_hosts, client_key) as delivery:
        assert patch(delivery, child, parent) == graph_of(child).size  # the host has nothing at all
        delivery.clear(child.id)
        deploy(delivery, parent, 1)
        file = host.root / "releases" / parent.id / GRAPH
        spoilt = bytearray(file.read_bytes())
        spoilt[len(spoilt) // 2] ^= 1
        file.write_bytes(spoilt)
        assert patch(delivery, child, parent) == graph_of(child).size
        delivery.perform(Seal(child))
        delivery.perform(Point(pointer(child, 2)))
    assert_whole(host.root, child)
    assert_tidy(host.root)


class Wrong(Deltas):
    """Gives out recipes that are none of what they should be."""

    def __init__(self, shelf: Shelf, spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
        super().__init__(shelf.fetch)
        self._spoil = spoil
        self._path = tmp_path / "recipe"

    def recipe(self, base: File, new: File) -> Recipe | None:
        right = super().recipe(base, new)
        assert right is not None
        with right.open() as stream:
            data = b"".join(iter(lambda: stream.read(1 << 20), b""))
        self._path.write_bytes(self._spoil(data))
        with self._path.open("rb") as stream:
            return Recipe(
                Digest.of(self._path.read_bytes()), self._path.stat().st_size, os.dup(stream.fileno())
            )


@real
@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:],
        lambda data: random.Random(1).randbytes(5000),
        lambda data: b"",
    ],
    ids=["half of it", "a bit of it changed", "noise", "nothing"],
)
def test_a_recipe_that_gives_something_else_changes_nothing(
    spoil: Callable[[bytes], bytes],
    host: Host,
    shelf: Shelf,
    parent: Release,
    child: Release,
    known_hosts: Path,
    client_key: Path,
    tmp_path: Path,
) -> None:
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, parent, 1)
        delivery._deltas = Wrong(shelf, spoil, tmp_path)
        assert patch(delivery, child, parent) >= graph_of(child).size
        assert not list(host.root.rglob("*.part"))
        delivery.perform(Seal(child))
        delivery.perform(Point(pointer(child, 2)))
        assert delivery.session.traffic.connections == 1
    assert_whole(host.root, child)
    assert_tidy(host.root)


@real
def test_a_patch_goes_on_where_it_was_cut(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    base = shelf.bundle(1, {GRAPH: network(1, size=500_000)})
    release = shelf.bundle(2, {GRAPH: network(1, size=500_000, step=1.001)})
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, base, 1)
        recipe = delivery._deltas.recipe(graph_of(base), graph_of(release))
        assert recipe is not None
        print(f"recipe: {recipe.size} bytes")
    third = recipe.size // 3
    with Wire(host.port, cuts=[third, third]) as wire:
        known_hosts.write_text(host.known(wire.port))
        with connect(host, shelf, known_hosts, client_key, port=wire.port) as delivery:
            assert patch(delivery, release, base) == recipe.size
            delivery.perform(Seal(release))
            delivery.perform(Point(pointer(release, 2)))
        assert wire.connections == 3
    assert_whole(host.root, release)
    assert_tidy(host.root)


@real
def test_a_disk_without_room_for_the_recipe_gets_the_file(
    host: Host, shelf: Shelf, known_hosts: Path, client_key: Path
) -> None:
    base = shelf.bundle(1, {GRAPH: network(1)})
    child = shelf.bundle(2, {GRAPH: network(1, head=2), "other": noise(3_000_000)})
    size = graph_of(child).size
    with small_disk(host.root, f"{(2 * size + 5_200_000) // 1024}k"):
        with connect(host, shelf, known_hosts, client_key) as delivery:
            deploy(delivery, base, 1)
            delivery.perform(Stage(child))
            (host.root / "ballast").write_bytes(bytes(4_000_000))
            before = delivery.session.traffic.sent
            sent = delivery.perform(Patch(child, graph_of(child), graph_of(base)))
            assert sent == size
            assert delivery.session.traffic.sent - before < size + 5000  # no recipe went before it
            (host.root / "ballast").unlink()
            delivery.perform(Seal(child))
        assert_whole(host.root, child)


@real
def test_names_and_digests_that_are_none_are_refused(
    host: Host, shelf: Shelf, parent: Release, child: Release, known_hosts: Path, client_key: Path
) -> None:
    good = {"do": "patch", "sha": graph_of(child).digest.hex, "size": 10, "base": graph_of(parent).digest.hex}
    good |= {"recipe": "0" * 64, "length": 10, "release": child.id, "path": GRAPH}
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, parent, 1)
        for bad in (
            {"recipe": "../../../etc/passwd"},
            {"base": "../" + "0" * 61},
            {"sha": "x"},
        ):
            with pytest.raises(ValueError, match="is no digest"):
                delivery._ask({**good, **bad})
        assert not list(host.root.rglob("*.part"))


# recipes that are made


def test_a_recipe_is_made_once_and_only_where_it_pays(
    shelf: Shelf, parent: Release, child: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    write = deltas.delta.write
    monkeypatch.setattr(deltas.delta, "write", lambda *given: made.append(1) or write(*given))
    found = Deltas(shelf.fetch)
    one = found.recipe(graph_of(parent), graph_of(child))
    assert one is not None
    assert found.recipe(graph_of(parent), graph_of(child)) is one
    assert made == [1]
    with one.open() as first, one.open() as second:  # as hosts of a fleet read it
        half = first.read(1000)
        second.seek(500)
        assert second.read(500) == half[500:]
    other = shelf.bundle(3, {GRAPH: noise(100_000)})
    assert found.recipe(graph_of(parent), graph_of(other)) is None


def test_without_its_base_in_the_store_there_is_no_recipe(
    shelf: Shelf, parent: Release, child: Release
) -> None:
    shelf.fetch(graph_of(parent)).write_bytes(b"altered")
    assert Deltas(shelf.fetch).recipe(graph_of(parent), graph_of(child)) is None
    shelf.fetch(graph_of(parent)).unlink()
    assert Deltas(shelf.fetch).recipe(graph_of(parent), graph_of(child)) is None


@real
def test_a_file_altered_in_the_store_is_not_patched_in(
    host: Host, shelf: Shelf, parent: Release, child: Release, known_hosts: Path, client_key: Path
) -> None:
    with connect(host, shelf, known_hosts, client_key) as delivery:
        deploy(delivery, parent, 1)
        shelf.fetch(graph_of(child)).write_bytes(noise(graph_of(child).size))
        with pytest.raises(IntegrityError, match="any more"):
            patch(delivery, child, parent)
