"""ONNX to the ``.ort`` format, by ONNX Runtime's own converter, run in a child process.

The format goes with the release of the runtime that wrote it
(https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html), so the converter must be
of the release that the bundle is made for. The converter lists kernels in an order that goes by where it lies
in memory. Linux draws addresses by chance; the child runs without that, and gives the same bytes each time on
one machine. Another machine or system may give others of equal content. The store remembers what was built:
one store gives one bundle anyway.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shipway.registry import files
from shipway.registry.errors import ConfigError, ConversionError, VerificationError
from shipway.registry.nouns import Tolerance

_TIMEOUT = 600.0  # seconds
# ADDR_NO_RANDOMIZE of personality(2). Where it is not allowed, the order is left to chance.
_STEADILY = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).personality(0x0040000)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
# One thread, as where the version's numbers were measured.
_MEASURE = """
import json, os, sys
sys.path.insert(0, os.getcwd())
import onnxruntime
import golden
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 4, 1
session = onnxruntime.InferenceSession("model.ort", options, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
run = lambda inputs: dict(zip(names, session.run(None, inputs)))
print(json.dumps(golden.compare(run, "golden", json.loads(sys.argv[1]))))
"""
_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


def converter(wanted: str) -> str:
    """The version of the converter installed here; ConfigError where it is not of release ``wanted``."""
    import importlib.metadata  # brings much with it

    for package in _PACKAGES:
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if found.split(".")[:2] == wanted.split(".")[:2]:
            return found
        raise ConfigError(
            f"format: ort needs ONNX Runtime {wanted} where the bundle is built, and {found} is installed.",
            why="The .ort format goes with the release of the runtime that wrote it.",
            remedy=f"Set runtime_version to {found}, install onnxruntime=={wanted}, or use format: onnx.",
        )
    raise ConfigError(
        "format: ort needs ONNX Runtime where the bundle is built, and it is not installed.",
        remedy=f"Run 'pip install onnxruntime=={wanted}', or use format: onnx.",
    )


def convert(graph: Mapping[str, Path]) -> tuple[bytes, str]:
    """The ``.ort`` file of ``graph`` (its files by name, the graph first), and the operators that it needs.

    Raises ConversionError with the converter's words.
    """
    from shipway.registry import process

    with tempfile.TemporaryDirectory(prefix="shipway-ort-") as folder:
        home = Path(folder)
        for name, source in graph.items():
            files.link_or_copy(source, home / name)
        first = next(iter(graph))
        # Without a platform the converter would lay weights out for the processor that it runs on.
        argv = [
            *(sys.executable, "-c", _STEADILY, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", first),
            *("--output_dir", "out", "--optimization_style", "Fixed", "--target_platform", "arm"),
        ]
        done = process.run(argv, cwd=home, env={"ORT_DISABLE_TELEMETRY": "1"}, timeout=_TIMEOUT)
        made = sorted((home / "out").glob("*.ort"))
        if done.code != 0 or len(made) != 1:
            raise ConversionError(
                "ONNX Runtime can't write this model in the .ort format.",
                why="It took too long." if done.timed_out else (done.stderr or done.stdout).strip()[-800:],
                remedy="Use format: onnx, which every release of the runtime reads.",
            )
        config = next((home / "out").glob("*.config")).read_text("utf-8")
        return made[0].read_bytes(), "".join(_lines(config))


def require_right(
    content: bytes, judge: Path, golden: Mapping[str, Path], tolerance: Tolerance, name: str
) -> None:
    """Run the ``.ort`` file of the version ``name`` on the golden slice, in a child.

    ``judge`` is a bundle's ``golden.py``, ``golden`` the slice's files by their paths. Raises
    VerificationError where the numbers are not within ``tolerance``.
    """
    from shipway.registry import process

    with tempfile.TemporaryDirectory(prefix="shipway-ort-") as folder:
        home = Path(folder)
        (home / "model.ort").write_bytes(content)
        for path, source in {"golden.py": judge, **golden}.items():
            (home / path).parent.mkdir(exist_ok=True)
            files.link_or_copy(source, home / path)
        argv = [sys.executable, "-c", _MEASURE, json.dumps(tolerance.to_json())]
        done = process.run(argv, cwd=home, env={"ORT_DISABLE_TELEMETRY": "1"}, timeout=_TIMEOUT)
    found = json.loads(done.stdout) if done.code == 0 else None
    if found is not None and found["passed"]:
        return
    last = (done.stderr.strip() or f"It ended with code {done.code}.").splitlines()[-1]
    why = "It took too long to run." if done.timed_out else last[:800]
    if found is not None:
        worst = [output for output in found["outputs"] if not output["passed"]]
        why = "\n".join(
            f"{output['name']}: max_abs {_told(output['max_abs'])}, of a scale of {output['scale']:.3g}"
            for output in worst
        )
    raise VerificationError(
        f"The .ort form of {name} does not give the right numbers.",
        why=why,
        remedy="ONNX Runtime optimises a model that it writes in its own format. Use format: onnx, which is "
        "what was measured when the version was registered.",
    )


def _told(error: float | None) -> str:
    return "not a number" if error is None else f"{error:.3g}"


def _lines(config: str) -> list[str]:
    """The listing without its comments, which name the folder that the converter ran in."""
    return [f"{line}\n" for line in config.splitlines() if line and not line.startswith("#")]
