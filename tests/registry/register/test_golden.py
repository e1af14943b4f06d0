"""Golden inputs and the slice that travels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.registry.errors import UsageError
from shipway.registry.nouns import TensorSpec
from shipway.registry.verify import golden, slice

REC = [TensorSpec("x", "float32", ("N", 3, 48, "W"))]
DET = [TensorSpec("x", "float32", ("N", 3, "H", "W"))]
BERT = [
    TensorSpec("ids", "int64", ("N", "T")),
    TensorSpec("attention_mask", "int64", ("N", "T")),
    TensorSpec("flag", "bool", (1,)),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x:float32:1x3x48x320", TensorSpec("x", "float32", (1, 3, 48, 320))),
        ("x:float32:1,3,48,320", TensorSpec("x", "float32", (1, 3, 48, 320))),
        ("a:b:int64:?,batch", TensorSpec("a:b", "int64", ("?", "batch"))),
        ("m:bool:N", TensorSpec("m", "bool", ("N",))),
    ],
)
def test_parse_input(text: str, expected: TensorSpec) -> None:
    assert golden.parse_input(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x:float32",
        "x:float32:",
        "x:nosuch:1",
        ":float32:1",
        "x:float32:1x0",
        "x:str:1",
        "x:float32:1x-3",
        "x::1",
        "x:float32:1 x 3",
    ],
)
def test_parse_input_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="is not an input"):
        golden.parse_input(text)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("y:float32:1x3x48x320", "it has x"),
        ("x:int64:1x3x48x320", "x is float32"),
        ("x:float32:1x3x32x320", "Nx3x48xW"),
        ("x:float32:1x3x48", "Nx3x48xW"),
    ],
)
def test_inputs_that_do_not_fit(asked: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        golden.check_inputs([golden.parse_input(asked)], REC)
    assert says in caught.value.why


def test_sizes_start_small_and_tell_axes_apart() -> None:
    assert next(golden.axis_sizes(REC)) == {"N": 1, "W": 160}
    first = next(golden.axis_sizes(DET))
    assert first == {"N": 1, "H": 64, "W": 96}
    assert all(size % 32 == 0 for sizes in golden.axis_sizes(DET) for n, size in sizes.items() if n != "N")
    assert next(golden.axis_sizes(BERT)) == {"N": 1, "T": 16}
    assert list(golden.axis_sizes([TensorSpec("x", "float32", (1, 8))])) == [{}]
    assert {224} <= {sizes["H"] for sizes in golden.axis_sizes(DET)}


def test_cases_are_repeatable_and_fit() -> None:
    sizes = {"N": 2, "T": 16}
    case = golden.make_case(BERT, sizes, seed=1, limits={"ids": 100})
    again = golden.make_case(BERT, sizes, seed=1, limits={"ids": 100})
    other = golden.make_case(BERT, sizes, seed=2, limits={"ids": 100})
    assert all(np.array_equal(case[name], again[name]) for name in case)
    assert not np.array_equal(case["ids"], other["ids"])
    assert case["ids"].shape == (2, 16)
    assert case["ids"].dtype == np.int64
    assert 0 <= case["ids"].min() <= case["ids"].max() < 100
    assert case["ids"].max() > 50  # the whole range, not a corner of it
    assert set(np.unique(case["attention_mask"])) <= {0, 1}
    assert case["flag"].dtype == np.bool_


@given(seed=st.integers(0, 2**31), contrast=st.none() | st.integers(1, 120))
def test_made_floats_are_exact_in_a_byte(seed: int, contrast: int | None) -> None:
    values = golden.make_case(DET, {"N": 1, "H": 32, "W": 32}, seed=seed, contrast=contrast)["x"]
    q = values / np.float32(golden.GRID_STEP) + golden.GRID_ZERO
    assert np.array_equal(q, np.clip(np.rint(q), 0, 255))
    assert values.std() > 0


ROWS = [TensorSpec("x", "float32", ("N", 600))]


def test_made_floats_do_not_tie_and_are_no_round_thresholds(tmp_path: Path) -> None:
    case = golden.make_case(ROWS, {"N": 8}, seed=1)
    assert len(np.unique(case["x"])) > 0.99 * case["x"].size
    assert not np.isin(case["x"], np.arange(-128, 129) / np.float32(128)).any()
    assert np.abs(case["x"]).max() <= 1
    slice.write(tmp_path, case, ["y"], [np.zeros(1, np.float32)])
    assert np.array_equal(slice.read(tmp_path)[0].inputs[0].values, case["x"])
    large = golden.make_case(ROWS, {"N": 60}, seed=1)["x"]
    assert large.size > golden.OFF_GRID
    assert len(np.unique(large)) == 256


def test_whole_numbers_of_which_nothing_tells_the_range() -> None:
    inputs = [
        TensorSpec("ids", "int64", ("N", "T")),
        TensorSpec("at", "int64", ("N", 2)),
        TensorSpec("attention_mask", "int64", ("N", "T")),
        TensorSpec("size", "int32", ("N", 2)),
        TensorSpec("x", "float32", ("N", 4)),
    ]
    assert golden.counts(inputs, {"ids": 30}) == ["at"]
    case = golden.make_case(inputs, {"N": 40, "T": 9}, seed=1, limits={"ids": 30}, whole=(1, 10))
    assert set(np.unique(case["at"])) == set(range(1, 10))
    assert case["ids"].max() > 9
    assert set(np.unique(case["attention_mask"])) == {0, 1}
    assert set(np.unique(case["size"])) == {320}  # pixels
    assert golden.range_of(["at"], [case]) == (1, 10)
    assert golden.range_of([], [case]) == golden.RANGES[0]
    made = golden.to_round_for(inputs, {"N": 40, "T": 9}, {}, seed=1, whole=(1, 3))
    assert {value for one in made for value in np.unique(one["at"])} == {1, 2}


def test_first_states_may_have_their_batch_in_the_middle() -> None:
    states = [TensorSpec("x", "float32", ("N", "T", 12)), TensorSpec("h", "float32", (1, "B", 16))]
    assert {"N": 1, "T": 8, "B": 1} in list(golden.axis_sizes(states))
    assert next(golden.axis_sizes(states)) == {"N": 1, "T": 16, "B": 16}


def test_samples(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((1, 3, 48, 64))
    np.save(tmp_path / "b.npy", x)
    np.savez(tmp_path / "a.npz", x=x[:, :, :, :32].astype(np.float32), more=x)
    (tmp_path / "readme.txt").write_text("not a sample")
    cases = golden.read_samples(tmp_path, REC)
    assert [case["x"].shape[-1] for case in cases] == [32, 64]
    assert all(case["x"].dtype == np.float32 for case in cases)
    assert len(golden.read_samples(tmp_path / "b.npy", REC)) == 1
    with pytest.raises(UsageError, match=r"There is no .*/nope\."):
        golden.read_samples(tmp_path / "nope", REC)


def test_samples_past_the_64th_are_counted(tmp_path: Path) -> None:
    for number in range(golden.MAX_SAMPLES + 2):
        np.save(tmp_path / f"{number:03}.npy", np.zeros((1, 3, 48, 8), np.float32))
    (tmp_path / "notes.txt").write_text("no sample")
    assert len(golden.read_samples(tmp_path, REC)) == golden.MAX_SAMPLES
    assert golden.left_out(tmp_path) == 2
    assert golden.left_out(tmp_path / "000.npy") == 0


def test_damaged_samples(tmp_path: Path) -> None:
    """Cut short or altered anywhere, and arrays under a name that says something else."""
    x = np.random.default_rng(0).random((1, 3, 48, 8)).astype(np.float32)
    path = tmp_path / "x.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, x=x)
        raw = path.read_bytes()
        for damaged in (raw[:-50], raw[:60], b"", raw[:3000] + bytes([raw[3000] ^ 1]) + raw[3001:]):
            path.write_bytes(damaged)
            with pytest.raises(UsageError, match=r"x\.npz can't be read as samples"):
                golden.read_samples(path, REC)
    np.savez(path, x=x)
    path.rename(tmp_path / "x.npy")
    assert (golden.read_samples(tmp_path / "x.npy", REC)[0]["x"] == x).all()


def test_samples_that_do_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "name.npz", y=np.zeros((1, 3, 48, 64), np.float32))
    np.savez(tmp_path / "shape.npz", x=np.zeros((1, 3, 32, 64), np.float32))
    np.savez(tmp_path / "dtype.npz", x=np.zeros((1, 3, 48, 64), np.complex64))
    np.save(tmp_path / "pickle.npy", np.array([object()]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty").mkdir()
    for name in ("name.npz", "shape.npz", "dtype.npz", "pickle.npy", "text.npy", "empty", "none.npz"):
        with pytest.raises(UsageError):
            golden.read_samples(tmp_path / name, REC)


dtypes = st.sampled_from(["float32", "float16", "float64", "int64", "int32", "uint8", "bool"])


@given(dtype=dtypes, size=st.integers(0, 9000), seed=st.integers(0, 99))
def test_slice_reads_back(tmp_path_factory: pytest.TempPathFactory, dtype: str, size: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("slice")
    random = np.random.default_rng(seed)
    given_ = (random.standard_normal((1, size)) * 40).astype(dtype)
    files = slice.write(folder, {"x": given_}, ["y"], [given_])
    assert files[0].name == "golden.json"
    case = slice.read(folder)[0]
    back, out = case.inputs[0], case.outputs[0]
    assert np.array_equal(back.values, given_)
    assert back.values.dtype == given_.dtype
    assert out.shape == given_.shape
    assert out.values.size <= slice.MAX_ELEMENTS
    assert np.array_equal(out.values.ravel(), given_.ravel()[:: out.stride])
    expected = float(np.abs(given_.astype(np.float64)).max()) if size else 0.0
    assert out.max_abs == expected


def test_made_inputs_travel_as_bytes(tmp_path: Path) -> None:
    case = golden.make_case(REC, {"N": 1, "W": 160}, seed=3)
    slice.write(tmp_path, case, ["y"], [np.zeros((1, 20, 6625), np.float32)])
    document = json.loads((tmp_path / "golden.json").read_text())
    entry = document["cases"][0]["inputs"][0]
    assert entry["encoding"] == {"scale": 2.0**-7, "zero_point": 128}
    assert (tmp_path / entry["file"]).stat().st_size == 3 * 48 * 160
    assert np.array_equal(slice.read(tmp_path)[0].inputs[0].values, case["x"])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 150_000


def test_slice_of_another_schema(tmp_path: Path) -> None:
    (tmp_path / "golden.json").write_text('{"schema": 2, "cases": []}')
    with pytest.raises(ValueError, match="schema 2"):
        slice.read(tmp_path)
