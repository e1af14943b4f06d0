"""Hold converted models of the corpus against what Paddle Inference gave.

    python tests/corpus/score.py ROOT LABEL NAME...

Reads ``ROOT/NAME/LABEL/model.onnx`` and the ``expected-<n>.npz`` of ``ROOT/NAME``, and writes
``ROOT/NAME/LABEL/score.json``: ``verdict``, ``why`` and, where it ran, each output's ``max_abs``, ``scale``
and whether it is ``flat``. Each in a child of its own: a graph may crash the runtime.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from forked import attempt

from shipway.registry.errors import ConversionError
from shipway.registry.nouns import Tolerance

_SECONDS = 120
RULE = Tolerance(atol=1e-5, rtol=1e-5)  # the default for fp32


def judge(folder: Path, label: str) -> dict[str, Any]:
    """The verdict on one model: ``ok``, ``flat`` (right, but a constant would be), ``does not load``,
    ``does not run`` or ``numbers wrong``."""
    from shipway.registry.verify import measure, parity

    try:
        session = measure.session(folder / label / "model.onnx")
    except ConversionError as error:
        return {"verdict": "does not load", "why": error.why or error.what}
    cases = [dict(np.load(path)) for path in sorted(folder.glob("inputs-*.npz"))]
    wanted = [list(dict(np.load(path)).values()) for path in sorted(folder.glob("expected-*.npz"))]
    names = [value.name for value in session.get_inputs()]
    try:
        got = measure.run(session, [{name: case[name] for name in names} for case in cases])
    except ConversionError as error:
        return {"verdict": "does not run", "why": error.why or error.what}
    if {len(outputs) for outputs in got} != {len(outputs) for outputs in wanted}:
        return {"verdict": "numbers wrong", "why": f"{len(got[0])} outputs instead of {len(wanted[0])}"}
    titles = [value.name for value in session.get_outputs()]
    link = parity.compare("paddle", label, titles, wanted, got, RULE)
    verdict = "numbers wrong" if not link.passed else "flat" if all(o.flat for o in link.outputs) else "ok"
    return {"verdict": verdict, "why": "; ".join(link.notes), "outputs": [o.to_json() for o in link.outputs]}


def score(folder: Path, label: str) -> dict[str, Any]:
    """The verdict on one model, where it did not even get so far too: ``refused``, ``crashed``, ``hung``."""
    out = folder / label
    model = out / "model.onnx"
    result = json.loads((out / "result.json").read_text())
    if "error" in result:
        kind = result["error"].partition(":")[0]
        why = f"{result['error']}\n{result.get('log', '')[-600:]}"
        return {"verdict": kind if kind in ("crashed", "hung") else "refused", "why": why}
    if not model.exists():
        return {"verdict": "refused", "why": "It said nothing and wrote no file."}
    if model.stat().st_size == 0:
        return {"verdict": "refused", "why": "It said nothing and wrote an empty file."}
    judged = attempt(lambda: judge(folder, label), out / "score", _SECONDS)
    return judged.get("answer") or {"verdict": "does not run", "why": f"the runtime {judged['error']}"}


def main() -> None:
    root, label, *names = sys.argv[1:]
    for name in names:
        folder = (Path(root) / name).resolve()
        (folder / label / "score.json").write_text(json.dumps(score(folder, label)))


if __name__ == "__main__":
    main()
