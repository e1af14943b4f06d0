"""``jetson-ort``: the board's table, the preflight and the systemd unit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from shipway.targets.deliveries.gates import command_there, local_command
from shipway.targets.jetpack import JETPACKS
from shipway.targets.jetson_ort import JetsonOptions
from shipway.targets.loader import load_kind
from shipway.targets.steps import Command, Release

ORIN = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
)


def load_preflight(folder: Path, tmp_path: Path, release: str, memory_kb: int) -> Any:
    """The preflight as a module that reads files of ours instead of the machine's."""
    (tmp_path / "nv_tegra_release").write_text(release)
    (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {memory_kb} kB\n")
    source = (folder / "preflight.py").read_text()
    source = source.replace("/etc/nv_tegra_release", str(tmp_path / "nv_tegra_release"))
    source = source.replace("/proc/meminfo", str(tmp_path / "meminfo"))
    module: dict[str, Any] = {"__file__": str(folder / "preflight.py"), "__name__": "preflight"}
    exec(compile(source, "preflight.py", "exec"), module)
    return module


def test_this_machine_is_no_jetson_and_the_preflight_says_so(tiny: Any, tmp_path: Path) -> None:
    for wanted in (True, False):
        out = tmp_path / str(wanted)
        tiny.export("jetson-ort", out, board=wanted)
        argv = [sys.executable, "-B", "preflight.py"]
        done = subprocess.run(argv, cwd=out, capture_output=True, text=True, check=False)
        assert done.returncode == (5 if wanted else 0)
        said = json.loads(done.stdout)
        assert said["passed"] is not wanted
        assert any("no Jetson" in problem for problem in said["problems"]) is wanted
        assert said["board"]["l4t"] is None
        assert said["board"]["disk"] > 0
        assert said["board"]["runtime"].startswith("onnxruntime ")


def test_a_board_that_fits_has_no_problems(tiny: Any, tmp_path: Path) -> None:
    tiny.export("jetson-ort", tmp_path / "out", jetpack="6.1")
    module = load_preflight(tmp_path / "out", tmp_path, ORIN, 4_000_000)
    board = {**module["board"](), "python": "3.10"}
    assert board["l4t"] == "36.4"
    assert board["memory"] == 4_096_000_000
    assert list(module["problems"](board)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"l4t": "35.4"},
            "Jetson Linux is 35.4; JetPack 6.1 has 36.4 or 36.5: set the target's 'jetpack' to the board's",
        ),
        ({"l4t": "36.3"}, "Jetson Linux is 36.3; JetPack 6.1 has 36.4 or 36.5"),  # CUDA 12.2, TensorRT 8.6
        ({"python": "3.8"}, "Python is 3.8; the runtime's wheel is for 3.10"),
        ({"memory": 1_000_000}, "1 MB of memory are free; 268 MB are wanted"),
        ({"disk": 0}, "0 MB of disk space are free"),
        (
            {"runtime": None},
            "Python has no ONNX Runtime; the bundle needs 1.20.0 or newer: take it from https",
        ),
        (
            {"runtime": "onnxruntime-gpu 1.12.0"},
            "ONNX Runtime is 1.12.0; the bundle needs 1.20.0 or newer: take it from https://pypi.jetson-ai-lab",
        ),
        (
            {"runtime": "onnxruntime-gpu 1.9.0+nv23.03"},
            "ONNX Runtime is 1.9.0+nv23.03; the bundle needs 1.20",
        ),
        ({"power": "15W"}, "the power mode is 15W; MAXN is wanted"),
        ({"power": None}, "the power mode is None; MAXN is wanted"),
    ],
)
def test_what_does_not_fit_is_said(tiny: Any, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    tiny.export("jetson-ort", tmp_path / "out", jetpack="6.1", power_mode="MAXN")
    module = load_preflight(tmp_path / "out", tmp_path, ORIN, 4_000_000)
    board = {**module["board"](), "python": "3.10", "power": "MAXN", **change}
    assert len(list(module["problems"](board))) == 1
    assert [problem for problem in module["problems"](board) if said in problem]


@pytest.mark.parametrize(
    ("jetpack", "release", "revision", "l4t"),
    [
        ("5.1", "35", "2.1", "35.2"),  # JetPack 5.1
        ("5.1", "35", "6.1", "35.6"),  # 5.1.5
        ("6.0", "36", "3.0", "36.3"),
        ("6.1", "36", "4.0", "36.4"),
        ("6.1", "36", "4.4", "36.4"),  # 6.2.1
        ("6.2", "36", "5.0", "36.5"),  # 6.2.2
        ("7.0", "38", "2.1", "38.2"),
        ("7.0", "38", "4.0", "38.4"),  # 7.1
    ],
)
def test_point_releases_with_the_same_cuda_and_tensorrt_fit(
    tiny: Any, tmp_path: Path, jetpack: str, release: str, revision: str, l4t: str
) -> None:
    tiny.export("jetson-ort", tmp_path / "out", jetpack=jetpack)
    told = f"# R{release} (release), REVISION: {revision}, GCID: 1, BOARD: generic, EABI: aarch64\n"
    module = load_preflight(tmp_path / "out", tmp_path, told, 4_000_000)
    board = {**module["board"](), "python": JETPACKS[jetpack].python}
    assert board["l4t"] == l4t
    for runtime in (JETPACKS[jetpack].onnxruntime, "1.99.0"):  # what an older one ran, a newer one runs
        assert list(module["problems"]({**board, "runtime": f"onnxruntime-gpu {runtime}"})) == []


def test_no_two_jetpacks_with_other_libraries_share_a_jetson_linux() -> None:
    for name, board in JETPACKS.items():
        for other in JETPACKS.values():
            if set(board.l4t) & set(other.l4t):
                assert (board.cuda, board.tensorrt) == (other.cuda, other.tensorrt), name


def test_the_jetpack_decides_runtime_and_limits(tiny: Any, tmp_path: Path) -> None:
    for jetpack, board in JETPACKS.items():
        manifest = tiny.build("jetson-ort", jetpack=jetpack)
        assert manifest.runtime["version"] == board.onnxruntime
        assert manifest.runtime["jetpack"] == jetpack
        assert manifest.runtime["opset"] >= 21
    with pytest.raises(ValidationError, match=r"one of 5\.1"):
        JetsonOptions.model_validate({"jetpack": "4.6"})


def test_requirements_and_readme_name_the_numpy_that_the_runtime_goes_with(tiny: Any, tmp_path: Path) -> None:
    for jetpack, numpy, runtime in (("6.0", "numpy<2", "1.18.0"), ("6.1", "numpy", "1.20.0")):
        tiny.export("jetson-ort", tmp_path / jetpack, jetpack=jetpack)
        required = (tmp_path / jetpack / "requirements.txt").read_text().split()
        assert required == [numpy, f"onnxruntime-gpu=={runtime}", "uvicorn", "httptools"]
        readme = (tmp_path / jetpack / "README.md").read_text()
        assert f"`pip install '{numpy}' 'onnxruntime=={runtime}'`" in readme


def test_the_unit_serves_the_live_release_as_one_word_each(tiny: Any, tmp_path: Path) -> None:
    tiny.export("jetson-ort", tmp_path / "out", root='/opt/a b%$"c', port=8123)
    unit = (tmp_path / "out" / "shipway.service").read_text()
    root = '"/opt/a b%%$$\\"c'
    assert (
        f'ExecStart=/usr/bin/python3 -s {root}/current/serve.py" --root {root}" --host 127.0.0.1 --port 8123'
        " --follow 5\n"
    ) in unit
    assert re.search(r"^MemoryMax=2147483648$", unit, re.MULTILINE)


def test_all_that_runs_on_the_board_runs_on_one_python(tiny: Any, tmp_path: Path) -> None:
    python = "/opt/shipway/python/bin/python3"
    manifest = tiny.export("jetson-ort", tmp_path / "out", python=python)
    assert f"\nExecStart={python} -s " in (tmp_path / "out" / "shipway.service").read_text()
    assert f"`{python} -s`" in (tmp_path / "out" / "README.md").read_text()
    assert command_there(manifest, manifest.check) == (python, "-s", "check.py")
    assert local_command(manifest.check) == (sys.executable, "check.py")  # elsewhere there is no such path
    (step,) = load_kind("jetson-ort")(JetsonOptions()).activation(Release(manifest))
    assert isinstance(step, Command)
    assert command_there(manifest, step.argv) == (python, "-s", "engines.py")
    for bad in ("python3", "/opt/a b/python3", "/opt/$HOME/python3", ""):
        with pytest.raises(ValidationError):
            JetsonOptions.model_validate({"python": bad})


def test_shapes_go_to_tensorrt(tiny: Any) -> None:
    shapes = {"x": {"min": [1, 4], "opt": [2, 4], "max": [8, 4]}}
    tensorrt, *others = tiny.build("jetson-ort", shapes=shapes).runtime["providers"]
    assert {key: value for key, value in tensorrt["options"].items() if "profile" in key} == {
        "trt_profile_min_shapes": "x:1x4",
        "trt_profile_opt_shapes": "x:2x4",
        "trt_profile_max_shapes": "x:8x4",
    }
    assert [other["options"] for other in others] == [{}, {}]
    plain = tiny.build("jetson-ort").runtime["providers"][0]["options"]
    assert not any("profile" in key for key in plain)
    for wrong in (
        {"x": {"min": [2], "opt": [1], "max": [2]}},
        {"x": {"min": [1], "opt": [1, 1], "max": [1]}},
    ):
        with pytest.raises(ValidationError):
            JetsonOptions.model_validate({"shapes": wrong})


@pytest.mark.real
def test_systemd_knows_every_line_of_the_unit(tiny: Any, tmp_path: Path) -> None:
    """Debian's systemd 252, which needs not run; a board with JetPack 5 has 245, one with 6 has 249."""
    tiny.export("jetson-ort", tmp_path / "out", root='/opt/a b%$"c', memory="1GiB", host="::1")
    unit = tmp_path / "out" / "shipway.service"

    def verified() -> subprocess.CompletedProcess[str]:
        argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    assert (verified().returncode, verified().stderr) == (0, "")
    unit.write_text(unit.read_text().replace("MemoryMax=", "MemoryMost="))
    assert verified().returncode != 0
    assert "MemoryMost" in verified().stderr
