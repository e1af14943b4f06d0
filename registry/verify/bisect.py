"""Which layer is the first to differ: two forms of one graph, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from shipway.registry.errors import ConversionError
from shipway.registry.nouns import Tolerance
from shipway.registry.verify import measure, parity
from shipway.registry.verify.golden import Case

_MOST = 2000  # tensors looked at: each is kept whole


def first_difference(good: Path, bad: Path, case: Case, tolerance: Tolerance, work: Path) -> str:
    """The first layer of ``bad`` whose output is not that of ``good``, within ``tolerance``, in words.

    Both run without the runtime's own optimisations on ``case``. Layers count as the same where their outputs
    have the same name. Empty where none differs, or where the graphs can't be run so.
    """
    models = {path: onnx.load(str(path)) for path in (good, bad)}
    made = {path: _made(model) for path, model in models.items()}
    shared = [name for name in made[bad] if name in made[good]][:_MOST]
    try:
        expected, found = (
            _run(models[path], shared, case, work / f"bisect-{index}.onnx")
            for index, path in enumerate((good, bad))
        )
    except ConversionError:
        return ""
    for name in shared:
        measured, why = parity.measure_output(name, [(expected[name], found[name])], tolerance)
        if why or not tolerance.allows(measured.max_abs, measured.scale):
            node = made[bad][name]
            size = why or f"max abs {measured.max_abs:.3g} on a scale of {measured.scale:.3g}"
            return f"first layer that differs: {node.op_type} {node.name or name!r}, {size}"
    return ""


def _made(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Every tensor that a node of the main graph makes, in the order of the graph."""
    return {name: node for node in model.graph.node for name in node.output if name}


def _run(model: onnx.ModelProto, names: list[str], case: Case, place: Path) -> dict[str, parity.Array]:
    already = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in already)
    onnx.save(model, str(place))
    try:
        session = measure.session(place, optimise=False)
        outputs = measure.run(session, [case])[0]
    finally:
        place.unlink()
    every = dict(zip([value.name for value in session.get_outputs()], outputs, strict=True))
    return {name: _plain(every[name]) for name in names}


def _plain(array: parity.Array) -> parity.Array:
    """Half floats as the floats that they stand for."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
