"""Recipes between two files: right for any two, small for fine-tunes, harmless whatever they say."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from shipway.targets import delta, onnx_wire
from shipway.targets.deliveries.on_host_delta import BLOCK, HEADER, follow, planes, unplaned
from shipway.targets.delta import Copy, Literal, Xor

Weights = dict[str, np.ndarray]
FLOATS = (np.float32, np.float16, np.float64, np.int8, np.int64)


def model(weights: Weights, *, doc: str = "", typed: bool = False, constants: bool = False) -> bytes:
    """A model of nothing but weights: as initializers, in typed fields, or as constants in a subgraph."""
    if typed:
        tensors = [
            helper.make_tensor(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.flatten()
            )
            for name, array in weights.items()
        ]
    else:
        tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}/out"]) for name in weights]
    if constants:
        inner = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors]
        branch = helper.make_graph(inner, "inner", [], [])
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
        tensors = []
    graph = helper.make_graph(nodes, "graph", [], [], tensors, doc_string=doc)
    return bytes(helper.make_model(graph).SerializeToString())


def made(base: bytes, new: bytes, most: int | None = None) -> bytes | None:
    out = io.BytesIO()
    digest = delta.write(memoryview(base), memoryview(new), out, len(new) * 2 + 100 if most is None else most)
    if digest is None:
        return None
    assert digest.hex == hashlib.sha256(out.getvalue()).hexdigest()
    return out.getvalue()


def followed(recipe: bytes, base: bytes, size: int) -> bytes:
    out = io.BytesIO()
    digest = follow(io.BytesIO(recipe), io.BytesIO(base), out, size)
    assert digest == hashlib.sha256(out.getvalue()).hexdigest()
    return out.getvalue()


def noise(seed: int, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * 20).astype(dtype)


# any two files

ARRAYS = st.builds(
    noise,
    st.integers(0, 3),
    st.sampled_from([(), (3,), (40,), (41, 7), (300, 100)]),
    st.sampled_from(FLOATS),
)
MODELS = st.builds(
    model,
    st.dictionaries(st.sampled_from("abcdefgh"), ARRAYS, max_size=6),
    doc=st.sampled_from(["", "of today"]),
    typed=st.booleans(),
    constants=st.booleans(),
)
FILES = st.one_of(MODELS, st.binary(max_size=300), st.just(bytes(200_000)))


@settings(max_examples=150, deadline=None)
@given(FILES, FILES)
def test_what_is_made_of_a_base_and_its_recipe_is_the_file(base: bytes, new: bytes) -> None:
    recipe = made(base, new)
    assert recipe is not None
    assert followed(recipe, base, len(new)) == new
    assert made(base, new) == recipe


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([1, 2, 4, 8]))
def test_planes_go_back(data: bytes, width: int) -> None:
    assert unplaned(planes(data, width), width) == data


# what is in it

LAYERS: Weights = {f"layer{number}": noise(number, (256, 300)) for number in range(4)}


def test_equal_tensors_are_copied_others_are_held_against_their_like() -> None:
    base = model({**LAYERS, "head": noise(9, (300, 10))})
    close = LAYERS["layer1"] * np.float32(1.001)
    moved = {"layer3": LAYERS["layer3"], "layer0": LAYERS["layer0"], "new": noise(7, (50, 50))}
    new = model({**moved, "layer1": close, "head": noise(8, (300, 11))})
    ops = [op for op in delta.compare(memoryview(base), memoryview(new)) if op.length > 1000]
    place = {data.name: data.start for data in onnx_wire.tensors(memoryview(base))}
    assert ops == [
        Copy(307_200, place["layer3"]),
        Copy(307_200, place["layer0"]),
        Literal(10_000, 4),
        Xor(307_200, place["layer1"], 4),
        Literal(13_200, 4),
    ]


def test_a_tensor_keeps_its_partner_under_another_name() -> None:
    """Exporters count parameters up: the second export of one network may rename all of them."""
    base = model({"conv_0.w": LAYERS["layer0"], "conv_1.w": LAYERS["layer1"]})
    new = model({"conv_2.w": LAYERS["layer0"], "conv_3.w": LAYERS["layer1"] * np.float32(1.001)})
    kinds = [type(op) for op in delta.compare(memoryview(base), memoryview(new)) if op.length > 1000]
    assert kinds == [Copy, Xor]


def test_a_file_against_itself_is_one_copy() -> None:
    base = memoryview(model(LAYERS))
    assert delta.compare(base, base) == [Copy(len(base), 0)]
    raw = memoryview(noise(1, (100_000,)).tobytes())
    assert delta.compare(raw, raw) == [Copy(len(raw), 0)]


def test_external_data_is_held_against_the_same_place() -> None:
    arrays = [noise(number, (100_000,)) for number in range(5)]
    base = b"".join(array.tobytes() for array in arrays)
    arrays[4] *= np.float32(1.001)
    new = b"".join(array.tobytes() for array in arrays)
    recipe = made(base, new)
    assert recipe is not None
    assert len(recipe) < len(new) // 6
    assert followed(recipe, base, len(new)) == new


def test_sizes_of_fine_tunes() -> None:
    """The shares that docs/adr/0009-delta.md tells of, on the shapes of a small network."""
    head = noise(9, (300, 100))
    base = model({**LAYERS, "head": head})

    def share(weights: Weights) -> float:
        new = model(weights)
        recipe = made(base, new)
        assert recipe is not None
        return len(recipe) / len(new)

    step = np.float32(1.001)
    assert share({**LAYERS, "head": head * step}) < 0.08  # a tenth of the weights
    assert share({name: array * step for name, array in {**LAYERS, "head": head}.items()}) < 0.7
    half = {name: array.astype(np.float16) for name, array in LAYERS.items()}
    assert made(base, model(half), most=len(model(half)) * 8 // 10) is None  # nothing in common


def test_tensors_are_found_where_they_are() -> None:
    for typed in (False, True):
        for constants in (False, True):
            weights = {"a": noise(1, (30, 30)), "b": noise(2, (200,), np.float64)}
            raw = model(weights, typed=typed, constants=constants)
            found = {data.name: data for data in onnx_wire.tensors(memoryview(raw))}
            assert set(found) == {"a", "b"}
            for name, array in weights.items():
                data = found[name]
                assert raw[data.start : data.end] == array.tobytes()
                assert data.width == array.dtype.itemsize
    with pytest.raises(ValueError, match="no ONNX model"):
        onnx_wire.tensors(memoryview(raw[: len(raw) // 2]))


def test_sparse_weights_are_found() -> None:
    values = numpy_helper.from_array(noise(1, (100,)), "sparse")
    where = numpy_helper.from_array(np.arange(100, dtype=np.int64), "where")
    graph = helper.make_graph([], "graph", [], [])
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [1000]))
    found = onnx_wire.tensors(memoryview(helper.make_model(graph).SerializeToString()))
    assert [(data.name, data.width, data.size) for data in found] == [("sparse", 4, 400), ("where", 8, 800)]


def test_real_paths_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    onnx.save(helper.make_model(helper.make_graph([], "g", [], [])), tmp_path / "none.onnx")
    for name in ("empty", "none.onnx"):
        with delta.mapped(tmp_path / name) as view:
            assert bytes(view) == (tmp_path / name).read_bytes()
            assert followed(made(b"", bytes(view)) or b"", b"", len(view)) == bytes(view)


# recipes that are none


def packed(*parts: bytes) -> bytes:
    return zlib.compress(b"".join(parts))


HOSTILE = {
    "nothing": b"",
    "no recipe": b"not compressed at all",
    "no operation": packed(),
    "an unknown width": packed(HEADER.pack(3, 10, 0), bytes(10)),
    "a copy from nowhere": packed(HEADER.pack(0, 10, 0)),
    "a copy of nothing": packed(HEADER.pack(0, 0, 1)) * 2,
    "more than there was to be": packed(HEADER.pack(1, 1 << 60, 0), bytes(1000)),
    "a place far outside": packed(HEADER.pack(0, 10, 1 << 62)),
    "a place beyond any file": packed(HEADER.pack(0, 10, (1 << 64) - 1)),
    "a copy over the end": packed(HEADER.pack(0, 100, 50)),
    "an XOR over the end": packed(HEADER.pack(4, 100, 50), bytes(100)),
    "too few bytes": packed(HEADER.pack(1, 100, 0), bytes(99)),
    "cut short": packed(HEADER.pack(1, 100, 0), noise(1, (25,)).tobytes())[:-30],
    "something after the end": packed(HEADER.pack(1, 10, 0), bytes(10)) + b"more" * 100,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_recipe_that_is_none_is_refused(name: str) -> None:
    out = io.BytesIO()
    with pytest.raises(ValueError, match="the recipe"):
        follow(io.BytesIO(HOSTILE[name]), io.BytesIO(bytes(100)), out, 100)
    assert len(out.getvalue()) <= 100


def test_a_small_recipe_that_unpacks_to_a_huge_one_stays_small_in_memory() -> None:
    bomb = packed(HEADER.pack(1, 64 << 20, 0), bytes(64 << 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="an operation that is none"):
            follow(io.BytesIO(bomb), io.BytesIO(b""), io.BytesIO(), 1000)

        class Sink(io.BytesIO):
            def write(self, data: object) -> int:
                return 0

        follow(io.BytesIO(bomb), io.BytesIO(b""), Sink(), 64 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 * BLOCK
    finally:
        tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_recipe_or_base_is_told_or_gives_another_digest(data: st.DataObject) -> None:
    base, new = model(LAYERS), model({**LAYERS, "layer2": LAYERS["layer2"] * np.float32(1.01)})
    recipe = made(base, new)
    assert recipe is not None
    which = data.draw(st.sampled_from(["recipe", "base", "cut"]))
    at = data.draw(st.integers(0, len(recipe) - 1))
    if which == "base":
        at = at * 7 % len(base)
        base = base[:at] + bytes([base[at] ^ 1]) + base[at + 1 :]
    elif which == "recipe":
        recipe = recipe[:at] + bytes([recipe[at] ^ 1]) + recipe[at + 1 :]
    else:
        recipe = recipe[:at]
    out = io.BytesIO()
    try:
        digest = follow(io.BytesIO(recipe), io.BytesIO(base), out, len(new))
    except ValueError:
        return
    assert (digest == hashlib.sha256(new).hexdigest()) == (out.getvalue() == new)


def test_types_of_tensors_have_the_widths_of_onnx() -> None:
    for number, width in onnx_wire._RAW_WIDTHS.items():
        kind = helper.tensor_dtype_to_np_dtype(number)
        assert width == (
            4 if number == TensorProto.COMPLEX64 else 8 if kind.itemsize == 16 else kind.itemsize
        )
