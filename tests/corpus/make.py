"""Make the corpus: save its models with the Paddle that runs this script.

    python tests/corpus/make.py --out DIR [--only NAME]... [--list]

Each model gets a folder of its name with ``inference.pdmodel`` (Paddle 2) or ``inference.json`` (Paddle 3),
``inference.pdiparams``, ``case.json`` (what it is and which inputs it takes) and ``inputs-<n>.npz``, three
seeded sets of inputs. A model that this Paddle can't save is reported and counted; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

import control
import dense
import detection
import indexing
import networks
import numpy as np
import paddle
import sequence
import signals
import tensors
import vision
from case import CASES, Case
from paddle.static import InputSpec
from real import REAL, save_real

MODULES = (vision, dense, sequence, networks, detection, signals, tensors, indexing, control)
SETS = 3


def _no_layer() -> paddle.nn.Layer:
    raise RuntimeError("a real model is copied, not built")


ALL = {**{name: Case(name, "real", _no_layer, (spec,)) for name, spec in REAL.items()}, **CASES}


def save(case: Case, folder: Path) -> None:
    """Save one model and its inputs in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    if case.name in REAL:
        save_real(case.name, folder)
    else:
        specs = [InputSpec(list(spec.shape), spec.dtype, spec.name) for spec in case.inputs]
        static = paddle.jit.to_static(case.layer(), input_spec=specs, full_graph=True)
        paddle.jit.save(static, str(folder / "inference"))
    for number in range(SETS):
        np.savez(
            folder / f"inputs-{number}.npz", **{spec.name: spec.draw(number + 2) for spec in case.inputs}
        )
    (folder / "case.json").write_text(json.dumps(case.describe(), indent=1) + "\n", encoding="utf-8")


def attempt(case: Case, folder: Path) -> bool:
    """Save one model, or print why not, so that one failure does not end the run."""
    try:
        save(case, folder)
    except Exception:
        print(f"{case.name}: FAILED\n{traceback.format_exc()}", file=sys.stderr)
        return False
    print(f"{case.name}: saved")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Save the corpus with the Paddle that runs this script.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", action="append", choices=sorted(ALL), metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the names and kinds, save nothing")
    wanted = parser.parse_args()
    if wanted.list:
        for case in ALL.values():
            print(f"{case.name:24} {case.kind}")
        return 0
    if wanted.out is None:
        parser.error("--out is needed")
    failed = 0
    for name in wanted.only or ALL:
        failed += not attempt(ALL[name], wanted.out / name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
