"""Converters that fail in every known way, and precisions that go wrong: named, and nothing stays."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shipway.registry import files, room
from shipway.registry.cli import failures
from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.convert import environment, toolchains
from shipway.registry.errors import ConversionError, DeliveryError, ShipwayError, VerificationError
from shipway.registry.verbs import doctor
from shipway.registry.verbs.register import register

Build = Callable[..., onnx.ModelProto]
HERE = Path(__file__).parent


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlp: Build, scratch: Path) -> None:
    """Paddle's child is replaced by ``faulty_paddle.py``, which needs no package of Paddle's."""
    onnx.save(mlp(), tmp_path / "truth.onnx")
    monkeypatch.setenv("TRUTH", str(tmp_path / "truth.onnx"))
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    tables = files.cache_folder("mlflow")  # MLflow's, which take seconds to make: they are shared
    tables.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mlflow").symlink_to(tables)
    monkeypatch.setenv("SHIPWAY_CACHE", str(tmp_path / "cache"))
    pair = dataclasses.replace(toolchains.PAIR, worker="faulty_paddle", packages={})
    monkeypatch.setattr(toolchains, "PAIR", pair)
    monkeypatch.setattr(toolchains, "TOOLCHAINS", (pair, toolchains.ALONE))


def project(root: Path, **convert: object) -> Project:
    return load_text(f"project: demo\nconvert: {json.dumps(convert)}\n", root / "project")


def given(folder: Path, how: str, suffix: str = ".json") -> Path:
    """A model's two files, whole enough for register to hand them to a converter."""
    folder.mkdir()
    if suffix == ".json":
        (folder / "net.json").write_text(json.dumps({"base_code": {"magic": "pir"}, "how": how}))
    else:
        (folder / "net.pdmodel").write_bytes(bytes([0x0A, len(how)]) + how.encode())
    described = bytes([0x08, 5, 0x10, 2])  # float32, two elements
    head = struct.pack("<IQIi", 0, 0, 0, len(described))
    (folder / "net.pdiparams").write_bytes(head + described + bytes(8))
    return folder


def refused(into: Project, path: Path, scratch: Path, *, bisect: bool = False) -> ShipwayError:
    """Register, expect an error, and that nothing came of it."""
    with pytest.raises((ConversionError, VerificationError)) as caught:
        register(into, path, "net", bisect=bisect)
    assert into.store.names() == []
    kept = [file for file in into.root.rglob("*") if file.is_file() and not file.name.startswith("mlflow.db")]
    assert kept == []
    assert not list(scratch.iterdir())
    assert caught.value.remedy
    assert failures.family(caught.value).exit in (4, 5)
    return caught.value


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("how", "family", "says"),
    [
        ("exit", ConversionError, "fancy_conv is not supported"),
        ("nothing", ConversionError, "wrote no file"),
        ("empty", ConversionError, "wrote an empty file"),
        ("crash", ConversionError, "ended by SIGABRT"),
        ("text", ConversionError, "ONNX Runtime can't load"),
        ("half", ConversionError, "ONNX Runtime can't load"),
        ("dangling", ConversionError, "nobody"),
        ("hang", ConversionError, "timeout_s in deploy.yaml"),
        ("memory", ConversionError, "more memory than the 2.0 GB it may use (convert.memory"),
        ("risen", ConversionError, "wrote opset 18 instead of 17"),
        ("wrong", VerificationError, "paddle -> onnx"),
    ],
)
def test_a_converter_that_fails(
    tmp_path: Path, scratch: Path, how: str, family: type[ShipwayError], says: str
) -> None:
    into = project(tmp_path, timeout_s=1 if how == "hang" else 120, memory="2GB")
    error = refused(into, given(tmp_path / "given", how), scratch)
    assert isinstance(error, family)
    assert says in f"{error.what} {error.why}"


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("silent", [False, True])
def test_a_full_disk_is_no_fault_of_a_toolchain(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """A converter says so, or leaves half a file without a word: no other way is tried."""
    stand_in(tmp_path)  # it would succeed
    if silent:
        fsync = os.fsync

        def refuse(descriptor: int) -> None:
            fsync(descriptor)
            if os.fstat(descriptor).st_size == room.PROBE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", refuse)
    into = project(tmp_path)
    with pytest.raises(DeliveryError, match=f"no room left in {scratch}") as caught:
        register(into, given(tmp_path / "given", "half" if silent else "full", ".pdmodel"), "net")
    assert "No space left on device" in caught.value.why
    assert failures.family(caught.value).exit == 8
    assert into.store.names() == []
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("faulty")
def test_a_converters_words_come_without_its_loggers(tmp_path: Path, scratch: Path) -> None:
    error = refused(project(tmp_path), given(tmp_path / "given", "logged"), scratch)
    assert error.why == "Unsupported: fancy_conv"


@pytest.mark.usefixtures("faulty")
def test_a_converter_is_cut_off_the_network_where_the_kernel_allows_it(tmp_path: Path, scratch: Path) -> None:
    error = refused(project(tmp_path), given(tmp_path / "given", "where"), scratch)
    assert "RuntimeError: net:[" in error.why
    here = str(Path("/proc/self/ns/net").readlink())
    assert (here not in error.why) == (doctor.isolation().state == "ok")


STAND_IN = """#!{python}
import shutil, sys
script, model, params, opset, out, verbose = sys.argv[2:]
assert script.endswith("alone.py") and int(opset) == 17
open(out, "w").close() if {empty} else shutil.copy({truth!r}, out)
"""


def stand_in(tmp_path: Path, *, empty: bool = False) -> None:
    """The second toolchain's environment as if it had been prepared; its Python copies the trained model."""
    name = toolchains.ALONE.name
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    place = environment.cache_folder() / f"{name}-py{version}"
    python = place / "bin" / "python"
    python.parent.mkdir(parents=True)
    text = STAND_IN.format(python=sys.executable, truth=os.environ["TRUTH"], empty=empty)
    python.write_text(text)
    python.chmod(0o755)
    lock = Path(environment.__file__).with_name(f"{name}.txt")
    (place / "locked").write_text(str(files.digest_of(lock)))
    assert environment.python_of(name) == python


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize(
    ("how", "why"), [("crash", "ended by SIGABRT"), ("wrong", "WRONG"), ("text", "can't load")]
)
def test_the_next_toolchain_is_tried_and_what_failed_is_recorded(
    tmp_path: Path, scratch: Path, how: str, why: str
) -> None:
    stand_in(tmp_path)
    into = project(tmp_path)
    version = register(into, given(tmp_path / "given", how, ".pdmodel"), "net").version
    assert version.toolchain == "paddle2onnx-1.2.4"
    assert version.passed
    tried = version.extra["tried"]
    assert [attempt["toolchain"] for attempt in tried] == [toolchains.PAIR.name] * 2
    assert "Paddle 3's form" in tried[0]["why"]  # with repairs, for which the program must be translated
    assert why in tried[1]["why"]
    assert not list(scratch.iterdir())


@pytest.mark.usefixtures("faulty")
def test_all_that_was_tried_is_told(tmp_path: Path, scratch: Path) -> None:
    stand_in(tmp_path, empty=True)
    error = refused(project(tmp_path), given(tmp_path / "given", "exit", ".pdmodel"), scratch)
    assert error.what == "No toolchain converts net.pdmodel."
    assert f"{toolchains.PAIR.name} can't convert net.pdmodel to opset 17.\n" in error.why
    assert "fancy_conv" in error.why
    assert "paddle2onnx-1.2.4 can't convert net.pdmodel to opset 17.\nThe converter wrote an" in error.why


@pytest.mark.usefixtures("faulty")
def test_without_a_network_the_others_go_on(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    error = refused(project(tmp_path), given(tmp_path / "given", "exit", ".pdmodel"), scratch)
    assert "fancy_conv" in error.why
    assert "The toolchain paddle2onnx-1.2.4 can't be prepared here.\n" in error.why
    assert "No matching distribution" in error.why
    assert list(environment.cache_folder().iterdir()) == []  # not even half an environment


def one_product(path: Path, weights: np.ndarray, back: float, *, twice: bool = False) -> None:
    """``x`` [N, 16] (or twice itself, side by side) times ``weights``, times ``back``."""
    nodes = [helper.make_node("Concat", ["x", "x"], ["xx"], axis=1)] if twice else []
    nodes += [
        helper.make_node("MatMul", ["xx" if twice else "x", "w"], ["h"]),
        helper.make_node("Mul", ["h", "back"], ["y"]),
    ]
    parts = {"w": weights.astype(np.float32), "back": np.float32(back)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parts.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def asking(root: Path, precision: str) -> Project:
    text = f"project: demo\ntargets: {{web: {{kind: browser-wasm, precision: {precision}}}}}\n"
    return load_text(text, root / "project")


def test_an_fp16_that_overflows(tmp_path: Path, scratch: Path) -> None:
    weights = np.random.default_rng(0).uniform(1e5, 2e5, (16, 32))  # 65504 is float16's largest
    one_product(tmp_path / "net.onnx", weights, 1e-5)
    error = refused(asking(tmp_path, "fp16"), tmp_path / "net.onnx", scratch, bisect=True)
    assert isinstance(error, VerificationError)
    assert "The fp16 form of net, which target 'web' asks for" in error.what
    assert "given -> fp16" in error.why
    assert re.search(r"^first layer that differs, of \d+ that both forms have:\n.+\nMatMul ", error.why, re.M)
    assert "WRONG" in error.why


def test_an_int8_that_collapses(tmp_path: Path, scratch: Path) -> None:
    """Large weights that cancel each other leave small sums, of which rounding leaves nothing."""
    random = np.random.default_rng(0)
    large = 100 * random.standard_normal((16, 32))
    weights = np.concatenate([large, random.standard_normal((16, 32)) / 8 - large])
    one_product(tmp_path / "net.onnx", weights, 1.0, twice=True)
    error = refused(asking(tmp_path, "int8"), tmp_path / "net.onnx", scratch, bisect=True)
    assert isinstance(error, VerificationError)
    assert "The int8 form of net, which target 'web' asks for" in error.what
    assert "given -> int8" in error.why
    assert re.search(r"^first layer that differs, of \d+ that both forms have:\n.+\nMatMul ", error.why, re.M)
