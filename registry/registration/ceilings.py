"""What a model may need, given the runtimes of the targets: opset, IR version, operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shipway.registry.errors import UnsupportedModelError
from shipway.targets import limits

if TYPE_CHECKING:
    import onnx

    from shipway.registry.registration.draft import Wish


def as_targets_run_it(wish: Wish, model: onnx.ModelProto) -> onnx.ModelProto:
    """``model``, said to be of an opset and an IR version that every target runs where it is the same model.

    Raises UnsupportedModelError, naming target and operators, where it needs more than that.
    """
    from shipway.registry.convert import graph, opsets

    for target, limit in wish.limits.items():
        if bad := limits.foreign_operators(graph.info(model, 0).operators, limit):
            raise too_new(wish, target, f"It has no {', '.join(bad)}.")
        if graph.info(model, 0).opset > limit.opset:
            if newer := opsets.newer_than(model, limit.opset):
                listed = ", ".join(f"{operator} ({since})" for operator, since in sorted(newer.items()))
                raise too_new(wish, target, f"It needs opset {max(newer.values())}: {listed}.")
            opsets.set_opset(model, limit.opset)
        if model.ir_version > limit.ir:
            least, cause = opsets.least_ir(model)
            if least > limit.ir:
                raise too_new(wish, target, f"It needs IR version {least} ({cause}); that loads {limit.ir}.")
            model.ir_version = limit.ir
    return model


def too_new(wish: Wish, target: str, why: str) -> UnsupportedModelError:
    limit = wish.limits[target]
    return UnsupportedModelError(
        f"{wish.name} needs more than target {target!r} runs, which is opset {limit.opset} ({limit.why}).",
        why=why,
        remedy=f"Use other operators, or a kind or a runtime for {target!r} that is newer, in deploy.yaml.",
    )
