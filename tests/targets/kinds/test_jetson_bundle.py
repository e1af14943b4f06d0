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

from shipway.targets.jetpack import JETPACKS
from shipway.targets.jetson_ort import JetsonOptions

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
        ({"l4t": "35.4"}, "Jetson Linux is 35.4; JetPack 6.1 has 36.4"),
        ({"python": "3.8"}, "Python is 3.8; the runtime's wheel is for 3.10"),
        ({"memory": 1_000_000}, "1 MB of memory are free; 268 MB are wanted"),
        ({"disk": 0}, "0 MB of disk space are free"),
        ({"runtime": None}, "Python has no ONNX Runtime"),
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


def test_the_jetpack_decides_runtime_and_limits(tiny: Any, tmp_path: Path) -> None:
    for jetpack, board in JETPACKS.items():
        manifest = tiny.build("jetson-ort", jetpack=jetpack)
        assert manifest.runtime["version"] == board.onnxruntime
        assert manifest.runtime["jetpack"] == jetpack
        assert manifest.runtime["opset"] >= 21
    with pytest.raises(ValidationError, match=r"one of 5\.1"):
        JetsonOptions.model_validate({"jetpack": "4.6"})


def test_the_unit_serves_the_live_release_as_one_word_each(tiny: Any, tmp_path: Path) -> None:
    tiny.export("jetson-ort", tmp_path / "out", root='/opt/a b%$"c', port=8123)
    unit = (tmp_path / "out" / "shipway.service").read_text()
    root = '"/opt/a b%%$$\\"c'
    assert (
        f'ExecStart=/usr/bin/python3 {root}/current/serve.py" --root {root}" --host 127.0.0.1 --port 8123'
        " --follow 5\n"
    ) in unit
    assert re.search(r"^MemoryMax=2147483648$", unit, re.MULTILINE)
