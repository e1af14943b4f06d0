"""The real PP-OCRv4 recogniser on all four runtimes: golden checks, and the same text from the same picture.

Promoted to a folder that the server serves, to an arm64 host over SSH, to a folder whose wrapper runs on the
JVM, and to one that Chromium loads from. Paddle Inference is the judge.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import tritonclient.http as triton
from arm64_hosts import arm64_host, over_ssh, told
from browser_scene import PATIENCE, launched, report_of, served
from jvm_scene import compiled
from PIL import Image, ImageDraw, ImageFont
from server_scene import serving
from ssh_hosts import Host, make_key

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.nouns import ModelRef
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.register import register

pytestmark = [pytest.mark.real, pytest.mark.paddle]

TEXT = "Shipway 2026-11-22 No. 4711"
CONFIG = """
project: text
targets:
  server: {{kind: server-tensorrt, allow_missing: true}}  # no GPU here
  jetson: {{kind: jetson-ort, jetpack: "6.1", allow_missing: true}}
  mobile: {{kind: mobile-ort}}
  browser: {{kind: browser-wasm}}
environments:
  prod:
    server: {{to: server, gate: {{check: true}}}}
    jetson: {{to: {url}, ssh: {{known_hosts: known_hosts, keys: [{key}]}}, gate: {{check: true}}}}
    mobile: {{to: mobile}}
    browser: {{to: browser, gate: {{check: true}}}}
"""

PADDLE = """
import sys
import numpy as np
from paddle import inference
config = inference.Config(sys.argv[1] + "/inference.pdmodel", sys.argv[1] + "/inference.pdiparams")
config.disable_gpu()
config.disable_glog_info()
predictor = inference.create_predictor(config)
given = np.load(sys.argv[2])
handle = predictor.get_input_handle(predictor.get_input_names()[0])
handle.reshape(given.shape)
handle.copy_from_cpu(given)
predictor.run()
np.save(sys.argv[3], predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu())
"""

ON_THE_BOARD = """
import io, sys
import numpy as np
from runner import Model
given = np.load(io.BytesIO(sys.stdin.buffer.read()))
(found,) = Model().run({"x": given}).values()
answer = io.BytesIO()
np.save(answer, found)
sys.stdout.buffer.write(answer.getvalue())
"""

IN_THE_PAGE = """async ([path, x, dims]) => {
  const { loadCurrent } = await import(`/${path}model.js`);
  const model = await loadCurrent("/current.json");
  const [found] = Object.values(await model.run({ x: { data: Float32Array.from(x), dims } }));
  return { dims: found.dims, data: [...found.data] };
}"""


def picture() -> np.ndarray[Any, Any]:
    """``TEXT`` as the recogniser wants it: float32 [1, 3, 48, W], from -1 to 1."""
    face = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(face), 30)
    page = Image.new("L", (int(font.getlength(TEXT)) + 12, 48), 235)
    ImageDraw.Draw(page).text((6, 24), TEXT, fill=20, font=font, anchor="lm")
    scaled = (np.asarray(page, np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(np.broadcast_to(scaled, (1, 3, *scaled.shape)), np.float32)


@dataclass
class Live:
    """The recogniser, live on four targets."""

    project: Project
    board: Host
    key: Path

    def folder(self, target: str) -> Path:
        """The live release of a target that is a folder."""
        root: Path = self.project.root / target
        path: str = json.loads((root / "current.json").read_text())["path"]
        return root / path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, ppocr_models: dict[str, Path]) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("text")
    key = make_key(root / "client")
    with pytest.MonkeyPatch.context() as patch, arm64_host(root / "board", key) as board:
        patch.setenv("SHIPWAY_MIRROR", "off")
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        (root / "known_hosts").write_text(board.known())
        project = load_text(CONFIG.format(url=board.url, key=key), root)
        register(project, ppocr_models["rec"], "ocr-rec", assets=[ppocr_models["dictionary"]])
        outcome = promote(project, ModelRef.parse("ocr-rec/1"), "prod")
        assert [done.outcome for done in outcome.deployments] == ["live"] * 4
        yield Live(project, board, key)


@pytest.fixture(scope="module")
def expected(
    live: Live, ppocr_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray[Any, Any]:
    """What Paddle Inference gives for the picture."""
    home = tmp_path_factory.mktemp("paddle")
    np.save(home / "x.npy", picture())
    argv = [sys.executable, "-c", PADDLE, ppocr_models["rec"], home / "x.npy", home / "y.npy"]
    subprocess.run(argv, check=True, capture_output=True)
    found: np.ndarray[Any, Any] = np.load(home / "y.npy")
    return found


def by_the_server(live: Live, x: np.ndarray[Any, Any], work: Path) -> Any:
    arguments = ("--root", live.project.root / "server")
    with (
        serving(live.folder("server"), *arguments) as server,
        triton.InferenceServerClient(server.host) as client,
    ):
        tensor = triton.InferInput("x", list(x.shape), "FP32")
        tensor.set_data_from_numpy(x)
        answer = client.infer("ocr-rec", [tensor])
        return answer.as_numpy(answer.get_response()["outputs"][0]["name"])


def by_the_board(live: Live, x: np.ndarray[Any, Any], work: Path) -> Any:
    given = io.BytesIO()
    np.save(given, x)
    command = f"cd {live.board.root}/current && python3 -B -c '{ON_THE_BOARD}'"
    return np.load(io.BytesIO(over_ssh(live.board, live.key, command, given.getvalue())))


def by_the_jvm(live: Live, x: np.ndarray[Any, Any], work: Path) -> Any:
    kotlin = compiled(live.folder("mobile"), work / "classes")
    report = kotlin("check", live.folder("mobile"))
    assert (report["passed"], report["provider"]) == (True, "CPU")
    assert report["max_abs"] <= 1e-5
    (work / "x").write_bytes(x.tobytes())
    told = kotlin("run", live.folder("mobile") / "model.onnx", work / "x", "x", work / "y", *x.shape)
    return np.frombuffer((work / "y").read_bytes(), np.float32).reshape(told["shape"])


def by_chromium(live: Live, x: np.ndarray[Any, Any], work: Path) -> Any:
    root = live.project.root / "browser"
    path = json.loads((root / "current.json").read_text())["path"]
    with served(root) as site, launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{site.url}/{path}index.html")
        report = report_of(page)
        assert (report["passed"], report["provider"]) == (True, "wasm")
        assert report["max_abs"] <= 1e-5
        found = page.evaluate(IN_THE_PAGE, [path, x.ravel().tolist(), list(x.shape)])
    return np.array(found["data"], np.float32).reshape(found["dims"])


def read(scores: np.ndarray[Any, Any], signs: list[str]) -> str:
    """The likeliest text by CTC's greedy rule: class 0 is the blank, the last one the space."""
    best = scores[0].argmax(-1)
    classes = ["", *signs, " "]
    assert scores.shape[-1] == len(classes)
    return "".join(classes[now] for before, now in zip([0, *best], best, strict=False) if now != before)


@pytest.mark.parametrize("way", [by_the_server, by_the_board, by_the_jvm, by_chromium])
def test_the_same_picture_gives_the_same_text(
    way: Callable[..., Any], live: Live, expected: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    signs = (live.folder("server") / "assets" / "ppocr_keys_v1.txt").read_text("utf-8").splitlines()
    found = way(live, picture(), tmp_path)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)  # steep where two signs are near
    assert read(found, signs) == read(expected, signs)
    assert read(found, signs).replace(" ", "") == TEXT.replace(" ", "")


def test_the_board_s_check_says_what_it_ran_on(live: Live) -> None:
    there = f"cd {live.board.root}/current && "
    verdict = told(live.board, live.key, there + "python3 -B check.py")
    assert (verdict["passed"], verdict["provider"]) == (True, "CPUExecutionProvider")
    assert verdict["max_abs"] <= 1e-5
    assert verdict["p50_ms"] > 0
    machine = told(live.board, live.key, there + "python3 -B preflight.py")["board"]["machine"]
    assert machine == "aarch64"
