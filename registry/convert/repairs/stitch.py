"""Putting converted parts together again: the inverse of ``cut.py``, on ONNX graphs.

An input that stands for what a joint gives is replaced by the joint's nodes, an output that only a joint
takes is no output any more, and a branch's or a body's graph refers to values around it by their names, as
ONNX allows (https://onnx.ai/onnx/repo-docs/IR.html, "Nested subgraphs": names are visible inside, and a name
is given once).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from shipway.registry.convert.repairs.cut import MAIN, Part
from shipway.registry.convert.repairs.emit import DTYPES, Emitter

Emit = Callable[[Emitter], None]


def stitch(
    parts: Sequence[Part], models: Mapping[str, onnx.ModelProto], emits: Mapping[str, Emit]
) -> onnx.ModelProto:
    """One model of all parts. ``models`` by part name, ``emits`` by the kind of operator that was cut out.

    Raises ValueError where the parts do not fit: another number of outputs than the program has, or opsets
    that differ.
    """
    opsets = {entry.version for model in models.values() for entry in model.opset_import if not entry.domain}
    if len(opsets) != 1:
        raise ValueError(f"the parts have the opsets {sorted(opsets)}")
    stitched = onnx.ModelProto()
    stitched.CopyFrom(models[MAIN])
    graph = _assemble({part.name: part for part in parts}, models, emits, MAIN, opsets.pop())
    stitched.graph.CopyFrom(graph)
    return stitched


def _assemble(
    parts: Mapping[str, Part],
    models: Mapping[str, onnx.ModelProto],
    emits: Mapping[str, Emit],
    name: str,
    opset: int,
) -> onnx.GraphProto:
    part = parts[name]
    graph = onnx.GraphProto()
    graph.CopyFrom(models[name].graph)
    del graph.value_info[:]
    graph.name = name
    if name != MAIN:
        _make_names_unique(graph, f"{name}/")
    made = {give for joint in part.joints for give in joint.gives}
    _keep(graph.input, lambda value: value.name not in made | part.captured)
    if name == MAIN:
        _keep(graph.output, lambda value: not value.name.startswith("take."))
    else:
        _order(graph, part)
    for number, joint in enumerate(part.joints):
        inner = {block: _assemble(parts, models, emits, block, opset) for block in joint.blocks}
        emitter = Emitter(joint, opset, f"{name}/joint.{number}/", inner)
        emits[joint.kind](emitter)
        graph.node.extend(emitter.nodes)
    _remove_dead(graph)
    _sort(graph)
    return graph


def _keep(values: Any, wanted: Callable[[onnx.ValueInfoProto], bool]) -> None:
    kept = [value for value in values if wanted(value)]
    del values[:]
    values.extend(kept)


def _order(graph: onnx.GraphProto, part: Part) -> None:
    """Inputs and outputs of a branch or a body in the order in which they are called.

    Converters leave inputs away that nothing uses; a body takes them all the same. Shapes may change from one
    turn to the next, so only the types are kept.
    """
    del graph.input[:]
    for name, type in zip(part.arguments, part.argument_types, strict=True):
        graph.input.append(helper.make_tensor_value_info(name, DTYPES[type.dtype], None))
    results = {value.name: value for value in graph.output}
    del graph.output[:]
    graph.output.extend(results[name] for name in part.results)
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")


def _make_names_unique(graph: onnx.GraphProto, prefix: str) -> None:
    """Prefix all names but those that other parts know."""
    known = {value.name for value in (*graph.input, *graph.output)}

    def rename(name: str) -> str:
        return name if not name or name in known else prefix + name

    def rename_in(inner: onnx.GraphProto, top: bool) -> None:
        for tensor in inner.initializer:
            tensor.name = rename(tensor.name)
        for node in inner.node:
            node.name = prefix + node.name if node.name else ""
            for names in (node.input, node.output):
                renamed = [rename(name) for name in names]
                del names[:]
                names.extend(renamed)
            for subgraph in subgraphs(node):
                rename_in(subgraph, top=False)
        if not top:
            for value in (*inner.input, *inner.output):
                value.name = rename(value.name)
        del inner.value_info[:]

    rename_in(graph, top=True)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs inside a node. Others than graphs are not touched: reading ``g`` would make one appear."""
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.append(attribute.g)
        found.extend(attribute.graphs)
    return found


def uses(node: onnx.NodeProto) -> set[str]:
    """Every name that a node takes, in the graphs inside it too."""
    names = {name for name in node.input if name}
    for subgraph in subgraphs(node):
        names.update(value.name for value in subgraph.output)
        for inner in subgraph.node:
            names |= uses(inner)
    return names


def _remove_dead(graph: onnx.GraphProto) -> None:
    """Drop nodes and weights that nothing uses: every part was converted with the weights of all."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    pending = list(graph.node)
    while True:
        alive = [node for node in pending if needed & set(node.output)]
        if not alive:
            break
        kept += alive
        pending = [node for node in pending if not needed & set(node.output)]
        for node in alive:
            needed |= uses(node)
    del graph.node[:]
    graph.node.extend(kept)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _sort(graph: onnx.GraphProto) -> None:
    """Nodes in an order in which each comes after what it takes; values from around the graph are there."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    nodes = list(graph.node)
    waiting = {
        index: {makers[name] for name in uses(node) if name in makers} for index, node in enumerate(nodes)
    }
    takers: dict[int, list[int]] = {index: [] for index in waiting}
    for index, makes in waiting.items():
        makes.discard(index)
        for maker in makes:
            takers[maker].append(index)
    ready = [index for index, makes in waiting.items() if not makes]
    ordered: list[int] = []
    while ready:
        index = ready.pop()
        ordered.append(index)
        for taker in takers[index]:
            waiting[taker].discard(index)
            if not waiting[taker]:
                ready.append(taker)
    if len(ordered) != len(nodes):
        raise ValueError("the parts form a cycle")
    del graph.node[:]
    graph.node.extend(nodes[index] for index in ordered)
