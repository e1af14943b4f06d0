"""Which layer is the first to differ: two forms of one model, side by side."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx

from shipway.registry.errors import ConversionError
from shipway.registry.nouns import OutputMeasure, Tolerance
from shipway.registry.verify import measure, parity
from shipway.registry.verify.golden import Case
from shipway.registry.verify.parity import Array
from shipway.registry.verify.reference import PaddleReference

if TYPE_CHECKING:
    from shipway.registry.convert.running import Asks
    from shipway.registry.convert.watched import Value

_AT_ONCE = 200  # tensors that are kept whole at a time


class Form(Protocol):
    """A form of the model whose inner tensors can be looked at, each under the name that all forms share."""

    def tensors(self) -> list[str]:
        """Their names, in the order in which they are computed."""

    def values(self, names: Sequence[str], case: Case) -> dict[str, Array]:
        """What they are on ``case``. Raises ConversionError where the model can't be run so."""

    def operator(self, name: str) -> str:
        """What makes the tensor."""

    def layer(self, name: str) -> str:
        """The layer that it belongs to, as far as the form knows; else empty."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first layer that differs, and how many tensors both forms have. ``why``: beyond its tolerance."""

    looked_at: int
    operator: str
    layer: str
    tensor: str
    measured: OutputMeasure
    tolerance: Tolerance
    why: str

    def table(self) -> str:
        """For a message, aligned."""
        allowed = self.tolerance.bound(self.measured.scale)
        head = ("operator", "layer", "tensor", "max_abs", "allowed", "scale")
        row = (
            *(self.operator, self.layer or "not known", self.tensor),
            *(self.why or f"{self.measured.max_abs:.3g}", f"{allowed:.3g}", f"{self.measured.scale:.3g}"),
        )
        widths = [max(len(a), len(b)) for a, b in zip(head, row, strict=True)]
        lines = (
            "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip()
            for cells in (head, row)
        )
        return "\n".join((f"first layer that differs, of {self.looked_at} that both forms have:", *lines))


def explain(good: Form, bad: Form, case: Case, tolerance: Tolerance) -> str:
    """The first layer of ``bad`` whose output is not that of ``good``, as a table, or why there is none."""
    try:
        names = _shared(good, bad)
        found = first_difference(good, bad, case, tolerance)
    except ConversionError as error:
        return f"the layers can't be compared: {error.what} {error.why}".strip()
    if found:
        return found.table()
    if not names:
        return "the layers can't be compared: the two forms share no tensor by name"
    return (
        f"no layer differs: all {len(names)} tensors that both forms have agree. Either what follows "
        "differs, or it is the runtime's own optimisation, which was off for this."
    )


def first_difference(good: Form, bad: Form, case: Case, tolerance: Tolerance) -> Difference | None:
    """The first tensor of ``bad`` that is not within ``tolerance`` of the one of ``good``; None without one.

    Each tensor is judged by its own scale. Raises ConversionError where a form can't be run so.
    """
    names = _shared(good, bad)
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        expected, found = good.values(some, case), bad.values(some, case)
        for name in some:
            pair = _alike(expected[name], found[name])
            measured, why = parity.measure_output(name, [pair], tolerance)
            if why or not tolerance.allows(measured.max_abs, measured.scale):
                was, now = good.operator(name), bad.operator(name)
                operator = was if was == now else f"{was}, here {now}"
                return Difference(len(names), operator, good.layer(name), name, measured, tolerance, why)
    return None


def _shared(good: Form, bad: Form) -> list[str]:
    known = set(good.tensors())
    return [name for name in bad.tensors() if name in known]


def _alike(expected: Array, found: Array) -> tuple[Array, Array]:
    """Half floats as the floats that they stand for; a scalar is the same as a list of one."""
    expected, found = (
        array.astype(np.float32) if array.dtype == np.float16 else array for array in (expected, found)
    )
    if expected.size == found.size == 1:
        return expected.reshape(-1), found.reshape(-1)
    return expected, found


class OnnxForm:
    """The main graph of a model, run without the runtime's own optimisations.

    ``layers`` says of tensors which layer they belong to, where another form knows it.
    """

    def __init__(self, path: Path, work: Path, layers: Mapping[str, str] | None = None) -> None:
        self._path = path
        self._place = work / f"bisect-{path.name}"
        self._model = onnx.load(str(path), load_external_data=False)
        self._made = {name: node for node in self._model.graph.node for name in node.output if name}
        self._layers = layers or {}

    def tensors(self) -> list[str]:
        return list(self._made)

    def operator(self, name: str) -> str:
        node = self._made[name]
        while node.op_type == "Identity" and node.input[0] in self._made:
            node = self._made[node.input[0]]
        return str(node.op_type)

    def layer(self, name: str) -> str:
        return self._layers.get(name) or str(self._made[name].name)

    def values(self, names: Sequence[str], case: Case) -> dict[str, Array]:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        already = {value.name for value in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in already)
        place = self._path.with_name(self._place.name) if _is_outside(model) else self._place
        onnx.save(model, str(place))
        try:
            session = measure.session(place, optimise=False)
            outputs = measure.run(session, [case])[0]
        finally:
            place.unlink()
        every = dict(zip([value.name for value in session.get_outputs()], outputs, strict=True))
        return {name: every[name] for name in names}


def _is_outside(model: onnx.ModelProto) -> bool:
    """Whether tensors lie in files beside the model: then it must stay where they are."""
    return any(tensor.external_data for tensor in model.graph.initializer)


class PaddleForm:
    """A Paddle 3 program with its weights, run by Paddle Inference in ``worker``.

    ``shared`` says which of its values a converted model has, by the names there.
    """

    def __init__(
        self,
        worker: Asks,
        program: Path,
        params: Path,
        shared: Mapping[str, Value],
        work: Path,
        timeout: float,
    ) -> None:
        self._worker = worker
        self._program = json.loads(program.read_bytes())
        self._params = params
        self._shared = shared
        self._work = work
        self._timeout = timeout
        self._runs = itertools.count()

    def tensors(self) -> list[str]:
        return list(self._shared)

    def operator(self, name: str) -> str:
        return self._shared[name].operator

    def layer(self, name: str) -> str:
        return self._shared[name].layer

    def values(self, names: Sequence[str], case: Case) -> dict[str, Array]:
        from shipway.registry.convert import watched

        folder = self._work / f"bisect-{next(self._runs)}"
        folder.mkdir()
        program, order = watched.fetching(self._program, {n: self._shared[n].number for n in names})
        path = folder / "watched.json"
        path.write_text(json.dumps(program), encoding="utf-8")
        runner = PaddleReference(self._worker, path, self._params, folder, self._timeout, watched=True)
        return dict(zip(order, runner.run([case])[0], strict=True))
