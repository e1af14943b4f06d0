"""Which branches and loops of a graph the golden inputs never go through: what is in these is not proved.

Each branch and each body gets a node of its own that does nothing, and ONNX Runtime's profile says which of
these ran (https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from shipway.registry import privacy
from shipway.registry.verify import measure
from shipway.registry.verify.golden import Case

privacy.no_telemetry()
import onnxruntime  # noqa: E402 - it reads its environment when it is imported

_SIDES = {
    "then_branch": "takes the 'then' branch of",
    "else_branch": "takes the 'else' branch of",
    "body": "enters",
}
_TOLD = 5  # operators of a branch that are named


@dataclass(frozen=True, slots=True)
class Passage:
    """A branch or a body: its mark's name, how one goes through it, its node in words, what is in it."""

    mark: str
    how: str
    node: str
    operators: tuple[str, ...]


def never_taken(model: onnx.ModelProto, cases: Sequence[Case], place: Path, work: Path) -> tuple[str, ...]:
    """A line for each branch and loop, at any depth, that no case goes through.

    ``place`` is the folder of the data that the model may have beside it, ``work`` one for a log. Empty where
    the graph has neither. Raises ConversionError where the model does not run.
    """
    if not any(_graphs(node) for node in model.graph.node):
        return ()
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    passages = list(_mark(marked.graph))
    path = place / "marked.onnx"
    try:
        path.write_bytes(marked.SerializeToString())
        ran = _names_that_ran(path, cases, work)
    finally:
        path.unlink(missing_ok=True)
    lines = []
    for passage in passages:
        if passage.mark not in ran:
            inside = ", ".join(passage.operators[:_TOLD]) or "nothing but values"
            lines.append(
                f"no golden input {passage.how} {passage.node}: what it holds ({inside}) is not proved; "
                "give inputs that do with --samples"
            )
    return tuple(lines)


def _graphs(node: onnx.NodeProto) -> list[tuple[str, onnx.GraphProto]]:
    return [(each.name, each.g) for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]


def _mark(graph: onnx.GraphProto, found: list[int] | None = None) -> Iterator[Passage]:
    """Put a node into each graph inside ``graph``, and tell of it."""
    numbers = found if found is not None else [0]
    for node in graph.node:
        if not (inner := _graphs(node)):
            continue
        numbers[0] += 1
        number = numbers[0]
        title = f"{node.op_type} {number}" + (f" ({node.output[0]})" if node.output else "")
        for side, block in inner:
            mark = f"shipway.passage.{number}.{side}"
            operators = tuple(sorted({each.op_type for each in block.node} - {"Constant", "Identity"}))
            yield Passage(mark, _SIDES.get(side, f"goes through {side} of"), title, operators)
            yield from _mark(block, numbers)
            # It takes nothing and is drawn anew each time: no optimisation folds it away.
            block.node.append(helper.make_node("RandomUniform", [], [mark], name=mark, shape=[1]))


def _names_that_ran(path: Path, cases: Sequence[Case], work: Path) -> set[str]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = measure.FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    options.profile_file_prefix = str(work / "profile")
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    measure.run(session, cases)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return {event["name"].removesuffix("_kernel_time") for event in events if event.get("cat") == "Node"}
