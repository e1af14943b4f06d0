"""Which changes of an ONNX model make it another one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx_scene import model_of, value

from shipway.registry.convert.identity import canonical_digest

Build = Callable[..., onnx.ModelProto]


def test_names_inside_do_not_count(mlp: Build) -> None:
    assert canonical_digest(mlp(prefix="p0_")) == canonical_digest(mlp(prefix="linear_17.w_"))


def test_counters_in_interface_names_do_not_count_but_names_do(mlp: Build) -> None:
    def with_output(name: str) -> onnx.ModelProto:
        model = mlp()
        model.graph.node[-1].output[0] = model.graph.output[0].name = name
        return model

    first = canonical_digest(with_output("softmax_11.tmp_0"))
    assert canonical_digest(with_output("softmax_2.tmp_0")) == first
    assert canonical_digest(with_output("scores")) != first


def test_order_of_nodes_and_form_of_weights_do_not_count(mlp: Build) -> None:
    model = mlp()
    expected = canonical_digest(model)
    for tensor in model.graph.initializer:
        if tensor.name == "b1":
            values = numpy_helper.to_array(tensor).copy()
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values.tolist())
    weights = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    constant = helper.make_node("Constant", [], ["w2"], value=next(w for w in weights if w.name == "w2"))
    kept = [weight for weight in weights if weight.name != "w2"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.node.insert(0, constant)
    model.producer_name, model.doc_string, model.ir_version = "other", "text", 9
    assert canonical_digest(model) == expected


def test_whatever_changes_the_numbers_counts(mlp: Build) -> None:
    digests = {canonical_digest(mlp())}
    changed = mlp()
    weight = changed.graph.initializer[1]
    values = numpy_helper.to_array(weight).copy()
    values[3] = np.nextafter(values[3], np.float32(9))
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    digests.add(canonical_digest(changed))
    axis = mlp()
    axis.graph.node[-1].attribute[0].i = 0
    digests.add(canonical_digest(axis))
    operator = mlp()
    operator.graph.node[1].op_type = "Tanh"
    digests.add(canonical_digest(operator))
    shape = mlp()
    shape.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    digests.add(canonical_digest(shape))
    opset = mlp()
    opset.opset_import[0].version = 18
    digests.add(canonical_digest(opset))
    assert len(digests) == 6


def test_swapped_inputs_are_another_model() -> None:
    def sub(*order: str) -> onnx.ModelProto:
        node = helper.make_node("Sub", list(order), ["y"])
        return model_of([node], [value("a", 2), value("b", 2)], [value("y", 2)])

    assert canonical_digest(sub("a", "b")) != canonical_digest(sub("b", "a"))
