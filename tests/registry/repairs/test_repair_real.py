"""Repairs on models that Paddle saved, through the real converter, measured against Paddle Inference."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from shipway.registry.convert import repairs
from shipway.registry.convert.repairs import pir
from shipway.registry.process import Worker, WorkerError

pytestmark = pytest.mark.paddle

CORPUS = Path(__file__).resolve().parents[2] / "corpus" / "make.py"
MADE = (
    "if-mean",
    "if-operators",
    "while-grow",
    "while-decode",
    "deform-conv-strided",
    "simple-rnn",
    "llama-block",
    "while-nested",
    "index-lists",
    "channels-last",
    "gru-lengths",
    "fourier-layer",
)
MADE_DOUBLE = ("unet-bilinear", "conv-transpose", "norms")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, saved by the Paddle that is installed."""
    folder: Path = tmp_path_factory.mktemp("corpus")
    only = [argument for name in (*MADE, *MADE_DOUBLE) for argument in ("--only", name)]
    subprocess.run([sys.executable, str(CORPUS), "--out", str(folder), *only], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("work")
    with Worker("shipway.registry.convert.paddle_worker", cwd=folder) as started:
        yield started


def convert(worker: Worker, piece: repairs.Piece) -> None:
    request = {"do": "convert", "model": str(piece.model), "params": str(piece.params), "out": str(piece.out)}
    worker.ask({**request, "opset": 17, "upgrade": False}, timeout=120)


def measure(worker: Worker, reference: Path, params: Path, cases: list[Path], out: Path) -> list[float]:
    """How far ONNX Runtime is from Paddle Inference in units of 1e-5 + 1e-5 * scale, one number an output."""
    folder = out.parent / "expected"
    folder.mkdir()
    request = {"do": "run", "model": str(reference), "params": str(params), "out": str(folder)}
    worker.ask({**request, "cases": [str(case) for case in cases]}, timeout=120)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found = []
    for number, case in enumerate(cases):
        inputs, expected = np.load(case), np.load(folder / f"{number}.npz")
        got = session.run(None, {name: inputs[name] for name in names})
        assert len(got) == len(expected.files)
        for value, key in zip(got, sorted(expected.files), strict=True):
            want = expected[key].astype(np.float64)
            assert value.shape == want.shape
            assert np.abs(want).max() > 1e-3, "so flat that the check proves nothing"
            found.append(float(np.abs(value - want).max() / (1e-5 + 1e-5 * np.abs(want).max())))
    return found


def repaired(worker: Worker, model: Path, params: Path, cases: list[Path], work: Path) -> set[str]:
    """Mend, convert and measure; the names of the repairs."""
    mended = repairs.mend(model, params, work)
    for piece in mended.pieces:
        convert(worker, piece)
    applied = repairs.finish(mended, work / "model.onnx")
    differences = measure(worker, mended.reference, params, cases, work / "model.onnx")
    assert max(differences) <= 1.0
    return {each.rule for each in applied}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("if-mean", {"mean-of-all"}),
        ("if-operators", {"if", "while", "celu", "amax"}),
        ("while-grow", {"while"}),
        ("while-decode", {"while"}),
        ("deform-conv-strided", {"deformable-conv"}),
        ("simple-rnn", {"rnn"}),
        ("llama-block", {"small-bias"}),
        ("while-nested", {"while", "if"}),
        ("index-lists", {"broadcast-same", "index-put", "index-add"}),
        ("channels-last", {"channels-last"}),
        ("gru-lengths", {"rnn"}),
        ("fourier-layer", {"complex-numbers"}),
    ],
)
def test_a_model_that_the_converter_fails_on(
    name: str, expected: set[str], corpus: Path, worker: Worker, tmp_path: Path
) -> None:
    model, params = corpus / name / "inference.json", corpus / name / "inference.pdiparams"
    before = model.read_bytes()
    cases = sorted((corpus / name).glob("inputs-*.npz"))
    assert expected <= repaired(worker, model, params, cases, tmp_path)
    assert model.read_bytes() == before


def as_paddle_3_3(model: Path, out: Path) -> None:
    """The same program with the attributes as Paddle 3.3 writes them."""
    program = json.loads(model.read_text())
    double = {"scale", "negative_slope", "epsilon"}
    for op in pir.walk(pir.main_block(program)["ops"]):
        if op["#"].endswith(("_interp", ".leaky_relu", ".group_norm")):
            for entry in op["A"]:
                if entry["N"] in double:
                    attribute: dict[str, Any] = entry["AT"]
                    for item in attribute["D"] if attribute["#"] == "0.a_array" else [attribute]:
                        item["#"] = "0.a_f64"
    out.write_text(json.dumps(program))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("unet-bilinear", "interpolation-scales"),
        ("conv-transpose", "leaky-slope"),
        ("norms", "norm-epsilon"),
    ],
)
def test_a_model_as_paddle_3_3_saves_it(
    name: str, rule: str, corpus: Path, worker: Worker, tmp_path: Path
) -> None:
    model, params = tmp_path / "given.json", corpus / name / "inference.pdiparams"
    as_paddle_3_3(corpus / name / "inference.json", model)
    cases = sorted((corpus / name).glob("inputs-*.npz"))
    assert rule in repaired(worker, model, params, cases, tmp_path)


def test_without_the_repair_the_converter_stops(corpus: Path, tmp_path: Path) -> None:
    model = tmp_path / "given.json"
    as_paddle_3_3(corpus / "unet-bilinear" / "inference.json", model)
    piece = repairs.Piece(model, corpus / "unet-bilinear" / "inference.pdiparams", tmp_path / "model.onnx")
    with Worker("shipway.registry.convert.paddle_worker", cwd=tmp_path) as worker, pytest.raises(WorkerError):
        convert(worker, piece)


_TRANSLATE = """
import sys, paddle
from pathlib import Path
from shipway.registry.convert.translate import translate
for folder in map(Path, sys.argv[1:]):
    translate(paddle, folder / "inference.pdmodel", folder / "translated.json")
"""


def test_the_real_classifier_of_paddle_2_is_translated_to_the_same_numbers(
    ppocr_models: dict[str, Path], worker: Worker, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    shutil.copytree(ppocr_models["cls"], given)
    subprocess.run([sys.executable, "-c", _TRANSLATE, str(given)], check=True, timeout=300)
    x = np.random.default_rng(3).standard_normal((2, 3, 48, 192)).astype(np.float32)
    np.savez(tmp_path / "inputs-0.npz", x=x)
    params = given / "inference.pdiparams"
    piece = repairs.Piece(given / "translated.json", params, tmp_path / "model.onnx")
    convert(worker, piece)
    differences = measure(worker, given / "inference.pdmodel", params, [tmp_path / "inputs-0.npz"], piece.out)
    assert max(differences) <= 1.0
