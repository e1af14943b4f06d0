"""Registration of real and of tiny Paddle models, with Paddle Inference as the judge."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from shipway.registry.cli import model_views
from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.convert import running
from shipway.registry.convert.running import Asks
from shipway.registry.convert.source import Source
from shipway.registry.convert.toolchains import Toolchain
from shipway.registry.errors import ConversionError, VerificationError
from shipway.registry.nouns import ModelVersion
from shipway.registry.verbs.register import register
from shipway.registry.verify import measure, slice

pytestmark = pytest.mark.paddle

TOOLCHAIN = "paddle-3.2.2+paddle2onnx-2.0.1"

SAVE = """
import sys
import paddle
from paddle.static import InputSpec

class Ids(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.table = paddle.nn.Embedding(30, 16)
        self.out = paddle.nn.Linear(16, 5)

    def forward(self, ids, mask):
        x = self.table(ids) * mask.astype("float32").unsqueeze(-1)
        return self.out(x), x.sum(axis=1)

class Odd(paddle.nn.Layer):
    def forward(self, x):
        return paddle.linalg.svd(x)[1]

paddle.seed(7)
kind, prefix = sys.argv[1:]

class Sampled(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.first = paddle.nn.Conv2D(3, 3, 1)

    def forward(self, x, grid):
        return paddle.nn.functional.grid_sample(self.first(x), grid)

if kind == "sampled":
    specs = [InputSpec([2, 3, 8, 8], "float32", "x"), InputSpec([2, 4, 4, 2], "float32", "grid")]
    paddle.jit.save(Sampled(), prefix, input_spec=specs)
    raise SystemExit
if kind == "ids":
    specs = [InputSpec([None, None], "int64", "ids"), InputSpec([None, None], "bool", "mask")]
    paddle.jit.save(Ids(), prefix, input_spec=specs)
else:
    net = paddle.nn.Sequential(paddle.nn.Linear(4, 4), Odd())
    paddle.jit.save(net, prefix, input_spec=[InputSpec([3, 4], "float32", "x")])
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return load_text("project: demo\n", tmp_path_factory.mktemp("project"))


def save(kind: str, folder: Path) -> Path:
    script = folder / "save.py"  # a file: paddle.jit reads the source of what it traces
    script.write_text(SAVE)
    command = [sys.executable, "-W", "ignore", str(script), kind, str(folder / "inference")]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder


@pytest.mark.parametrize("kind", ["rec", "det", "cls"])
def test_real_models(project: Project, ppocr_models: dict[str, Path], kind: str, tmp_path: Path) -> None:
    given = ppocr_models[kind]
    before = sorted(path.name for path in given.iterdir())
    done = register(project, given, f"ocr-{kind}")
    version = done.version
    assert (version.version, done.created, version.toolchain) == (1, True, TOOLCHAIN)
    assert [(link.source, link.target) for link in version.links] == [
        ("paddle", "onnx"),
        ("paddle", "optimised"),
    ]
    for link in version.links:
        assert link.passed
        for output in link.outputs:
            assert output.max_abs < 1e-5
            assert output.scale > 0.01  # the golden inputs make it say something
            assert not output.flat
    rows = ("N", 3, 48, "W") if kind == "rec" else ("N", 3, "H", "W")
    assert version.inputs[0].shape == rows
    golden = {file.path: project.store.open(file) for file in version.golden}
    assert sum(file.size for file in version.golden) < 150_000
    (tmp_path / "golden").mkdir()
    for name, path in golden.items():
        shutil.copy(path, tmp_path / name)
    case = slice.read(tmp_path / "golden")[0]
    fp32 = version.variant("fp32")
    assert fp32 is not None
    graph = project.store.open(fp32.files[0])
    outputs = measure.run(measure.session(graph), [{t.name: t.values for t in case.inputs}])[0]
    for expected, found in zip(case.outputs, outputs, strict=True):
        assert np.abs(found.ravel()[:: expected.stride] - expected.values.ravel()).max() < 1e-5
    again = register(project, given, f"ocr-{kind}")
    assert (again.version, again.created) == (version, False)
    assert set(again.seconds) == {"read", "total"}  # nothing was converted, nothing measured
    assert sorted(path.name for path in given.iterdir()) == before
    assert {path.name for path in project.root.iterdir()} == {".shipway"}


def test_a_fresh_net_saved_as_json(project: Project, tmp_path: Path) -> None:
    """Ids within their table, a bool mask, two outputs, dynamic batch and length."""
    folder = save("ids", tmp_path)
    assert (folder / "inference.json").is_file()
    version = register(project, folder, "ids").version
    assert [(spec.name, spec.dtype, spec.shape[0]) for spec in version.inputs] == [
        ("ids", "int64", "N"),
        ("mask", "bool", "N"),
    ]
    assert all(link.passed for link in version.links)
    assert [output.max_abs < 1e-5 for output in version.links[0].outputs] == [True, True]


def test_an_operator_that_nobody_maps(project: Project, tmp_path: Path) -> None:
    folder = save("odd", tmp_path)
    with pytest.raises(ConversionError) as caught:
        register(project, folder, "odd")
    assert "does not map svd (in /Odd/)" in caught.value.why
    assert caught.value.remedy
    assert project.store.versions("odd") == []


def test_an_opset_below_what_an_operator_needs(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    save("sampled", folder)
    low = load_text("project: demo\nconvert: {opset: 11}\n", tmp_path)
    with pytest.raises(ConversionError, match=r"needs opset 16, more than 11: grid_sample \(16\)"):
        register(low, folder, "sampled")
    assert low.store.names() == []


def test_a_program_that_paddle_can_not_read(
    project: Project, ppocr_models: dict[str, Path], tmp_path: Path
) -> None:
    """Whole as a file, yet nonsense: weights of another model."""
    for suffix, kind in ((".pdmodel", "cls"), (".pdiparams", "rec")):
        shutil.copy(next(ppocr_models[kind].glob(f"*{suffix}")), tmp_path / f"model{suffix}")
    with pytest.raises(ConversionError) as caught:
        register(project, tmp_path, "mixed")
    assert caught.value.why
    assert project.store.versions("mixed") == []


def both(project: Project, ppocr_models: dict[str, Path]) -> tuple[ModelVersion, dict[str, Any]]:
    """PP-OCRv4's recogniser in fp32 and int8: the version, and a session of each."""
    assets = [ppocr_models["dictionary"]]
    version = register(project, ppocr_models["rec"], "ocr-rec", assets=assets).version
    sessions = {v.precision: measure.session(project.store.open(v.files[0])) for v in version.variants}
    return version, sessions


def asking_for_int8(root: Path, **convert: object) -> Project:
    targets = {"web": {"kind": "browser-wasm", "precision": "int8"}}
    return load_text(json.dumps({"project": "demo", "targets": targets, "convert": convert}), root)


def readings(
    sessions: dict[str, Any],
    ppocr_models: dict[str, Path],
    rendered: ModuleType,
    draw: Callable[[str, int], np.ndarray],
) -> tuple[int, int]:
    """Of a hundred lines: how many int8 reads as fp32 does, spaces counted, and how many fp32 reads right."""
    signs = ppocr_models["dictionary"].read_text(encoding="utf-8").splitlines()
    same = right = 0
    for index, text in enumerate(rendered.lines()):
        picture = draw(text, index)
        expected, found = (rendered.read(sessions[name], signs, picture) for name in ("fp32", "int8"))
        same += found == expected
        right += expected.replace(" ", "") == text.replace(" ", "")
    return same, right


def test_int8_of_real_recognition_reads_the_same_text(
    project: Project, ppocr_models: dict[str, Path], tmp_path: Path, rendered: ModuleType
) -> None:
    """As PP-OCR's own detector cuts lines out, and with a margin of 5 columns."""
    version, sessions = both(asking_for_int8(tmp_path), ppocr_models)
    small, full = version.variant("int8"), version.variant("fp32")
    assert small is not None
    assert full is not None
    assert small.size < 0.3 * full.size
    [output] = small.links[0].outputs
    assert small.links[0].passed
    assert output.cosine > 0.999
    assert set(version.extra["latency_ms"]) == {"fp32", "int8"}
    assert all(milliseconds > 0 for milliseconds in version.extra["latency_ms"].values())
    said = [link.notes for link in small.links]
    assert said == [("weights in int8, arithmetic in float32",)]

    detecting = register(project, ppocr_models["det"], "ocr-det").version.variant("fp32")
    assert detecting is not None
    detector = measure.session(project.store.open(detecting.files[0]))
    for name, draw in {
        "cut out by the detector": lambda text, index: rendered.crop(text, index, detector),
        "a margin of 5": lambda text, index: rendered.image(text, index, 5),
    }.items():
        same, right = readings(sessions, ppocr_models, rendered, draw)
        print(f"{name}: {same} of 100 read as fp32 reads them, which reads {right} right")
        assert same >= 95, name
        assert right >= 85, name  # what both read is the text


@pytest.mark.real  # it looks for the weights that int8 spoils: half a minute
def test_int8_under_a_narrow_gate_reads_every_rendering_the_same(
    ppocr_models: dict[str, Path], tmp_path: Path, rendered: ModuleType
) -> None:
    """Also with a margin so wide that the recogniser wavers whether it is a space."""
    narrow = asking_for_int8(tmp_path, tolerance_int8={"atol": 0.01, "rtol": 0.02})
    version, sessions = both(narrow, ppocr_models)
    small, full = version.variant("int8"), version.variant("fp32")
    assert small is not None
    assert full is not None
    assert small.size < 0.45 * full.size
    [note] = [note for note in small.links[0].notes if "weights are float16" in note]
    for margin in (5, 12):
        same, _ = readings(
            sessions, ppocr_models, rendered, lambda t, i, margin=margin: rendered.image(t, i, margin)
        )
        print(f"a margin of {margin}: {same} of 100 ({small.size:,} bytes, {note})")
        assert same >= 95, margin


INTERPOLATE = """
import json, sys
import paddle
from paddle.static import InputSpec

paddle.seed(7)
net = paddle.nn.Sequential(
    paddle.nn.Conv2D(3, 8, 3, padding=1, stride=2),
    paddle.nn.ReLU(),
    paddle.nn.Upsample(scale_factor=2, mode="bilinear"),
    paddle.nn.Conv2D(8, 2, 3, padding=1),
)
paddle.jit.save(net, sys.argv[1], input_spec=[InputSpec([None, 3, None, None], "float32", "x")])
"""


def alter_the_middle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on converted graphs are off by 1e-3 behind their middle layer; the tensors, as they come."""
    convert, altered = running.convert, []

    def badly(toolchain: Toolchain, worker: Asks, source: Source, out: Path, **options: Any) -> None:
        convert(toolchain, worker, source, out, **options)
        model = onnx.load(out)
        layers = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul")]
        middle = layers[len(layers) // 2]
        tensor = middle.output[0]
        middle.output[0] = "right"
        place = list(model.graph.node).index(middle) + 1
        model.graph.node.insert(place, onnx.helper.make_node("Add", ["right", "off"], [tensor]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1e-3), "off"))
        onnx.save(model, out)
        altered.append(tensor)

    monkeypatch.setattr(running, "convert", badly)
    return altered


def bisected(project: Project, given: Path) -> list[str]:
    """The last line that ``register --bisect`` says: the layer."""
    with pytest.raises(VerificationError, match="numbers are not the trained model's") as caught:
        register(project, given, "bad", toolchain=TOOLCHAIN, bisect=True)
    assert project.store.versions("bad") == []
    assert "--samples" in caught.value.remedy
    head, columns, layer = caught.value.why.splitlines()[-3:]
    assert re.fullmatch(r"first layer that differs, of \d+ that both forms have:", head)
    assert columns.split() == ["operator", "layer", "tensor", "max_abs", "allowed", "scale"]
    return re.split("  +", layer)


def test_bisect_names_the_layer_of_a_pdmodel(
    project: Project, ppocr_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = alter_the_middle(monkeypatch)
    operator, _, tensor, max_abs, *_ = bisected(project, ppocr_models["cls"])
    assert [tensor] == altered
    assert operator == f"{tensor.split('.')[2]}, here Add"
    assert float(max_abs) == pytest.approx(1e-3, rel=0.1)


def test_bisect_names_the_layer_of_a_json(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = save("ids", tmp_path)
    altered = alter_the_middle(monkeypatch)
    operator, layer, tensor, *_ = bisected(project, given)
    assert (operator, layer, [tensor]) == ("matmul, here Add", "/Linear/", altered)


def test_interpolation_as_paddle_3_3_saves_it(project: Project, tmp_path: Path) -> None:
    """Its scales are float64, at which every converter stops; the repair is in the version's record."""
    script = tmp_path / "save.py"
    script.write_text(INTERPOLATE)
    given = tmp_path / "given"
    given.mkdir()
    command = [sys.executable, "-W", "ignore", str(script), str(given / "inference")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    model = given / "inference.json"
    text = model.read_text()
    found = re.findall(r'\{"#":"0\.a_f32","D":2\.0\}', text)
    assert len(found) == 2, text[:2000]
    model.write_text(text.replace(found[0], found[0].replace("a_f32", "a_f64")))
    version = register(project, given, "upsampled").version
    assert [(repair["rule"], repair["count"]) for repair in version.extra["repairs"]] == [
        ("interpolation-scales", 2)
    ]
    assert version.extra["tried"] == []
    assert [(link.source, link.passed) for link in version.links] == [("paddle", True)] * 2
    shown = "\n".join(str(block) for block in model_views.shown(version, ()))
    assert "repaired   interpolation-scales" in shown
