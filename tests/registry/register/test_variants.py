"""Other precisions: what they do to size and numbers, and what stays as it is."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shipway.registry.convert import graph, optimise, variants
from shipway.registry.convert.quantiser import Quantiser
from shipway.registry.errors import ConversionError
from shipway.registry.nouns import Tolerance
from shipway.registry.registration import precisions
from shipway.registry.verify import chain, measure, reference

Build = Callable[..., onnx.ModelProto]


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    return measure.run(measure.session(path), [{"x": x}])[0][0]


@pytest.fixture
def canonical(tmp_path: Path, mlp: Build) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(mlp(features=256), path)
    return path


@pytest.fixture
def quantiser(tmp_path: Path) -> Iterator[Quantiser]:
    folder = tmp_path / "tools"
    folder.mkdir()
    yield Quantiser(folder, timeout=120.0, memory=8 << 30)
    assert not list(folder.iterdir())


def content(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (2, 256)).astype(np.float32)


def judged(path: Path, allowed: float) -> variants.Judge:
    x = content()
    reference = outputs(path, x)

    def judge(model: onnx.ModelProto, quick: bool) -> float:
        attempt = path.with_name("attempt.onnx")
        onnx.save(model, attempt)
        return float(np.abs(outputs(attempt, x) - reference).max()) / allowed

    return judge


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.6), ("int8", 0.35)])
def test_every_recipe_makes_a_smaller_model_with_the_same_interface(
    canonical: Path, precision: str, share: float, quantiser: Quantiser
) -> None:
    before = graph.info(graph.load(canonical), 0)
    samples = [{"x": content(seed)} for seed in range(4)]
    recipes = variants.recipes(precision, graph.load(canonical), quantiser, samples, real=True)
    assert len(recipes) == 3
    for recipe in recipes:
        model, note = recipe.make(canonical, judged(canonical, 0.1))
        path = canonical.with_name("variant.onnx")
        onnx.save(model, path)
        after = graph.info(model, 0)
        assert (after.inputs, after.outputs, after.opset) == (before.inputs, before.outputs, before.opset)
        assert path.stat().st_size < share * canonical.stat().st_size
        assert np.abs(outputs(path, content()) - outputs(canonical, content())).max() < 0.1
        assert not note
    assert {path.name for path in canonical.parent.iterdir()} <= {
        "model.onnx",
        "variant.onnx",
        "attempt.onnx",
        "tools",
    }


def test_weights_that_the_numbers_need_stay_as_they_are(tmp_path: Path, quantiser: Quantiser) -> None:
    """One weight matters ten thousand times as much as the other: int8 is taken where it does no harm."""
    random = np.random.default_rng(1)
    weights = {
        "loud": (random.standard_normal((256, 8)) * 1e4).astype(np.float32),
        "quiet": random.standard_normal((256, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "loud"], ["a"]),
        helper.make_node("MatMul", ["x", "quiet"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    recipe = variants.recipes("int8", graph.load(path), quantiser)[-1]
    judge = judged(path, 1.0)
    model, note = recipe.make(path, judge)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["loud"] == TensorProto.FLOAT
    assert kinds["quiet_int8"] == TensorProto.INT8
    assert note.startswith("1 of 2 weights stay float32")
    assert judge(model, False) <= 1


def test_int8_weights_are_widened_once_when_the_model_is_loaded(
    canonical: Path, tmp_path: Path, quantiser: Quantiser
) -> None:
    """So that int8 is no slower than float32: ONNX Runtime folds what widens them."""
    made, _ = variants.recipes("int8", graph.load(canonical), quantiser)[-1].make(
        canonical, judged(canonical, 0.1)
    )
    assert {"Cast", "Mul"} <= {node.op_type for node in made.graph.node}
    onnx.save(made, tmp_path / "int8.onnx")
    options = measure.onnxruntime.SessionOptions()
    options.graph_optimization_level = measure.onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    measure.onnxruntime.InferenceSession(
        str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"]
    )
    loaded = graph.load(tmp_path / "loaded.onnx")
    assert not {"Cast", "Mul"} & {node.op_type for node in loaded.graph.node}


def test_what_int8_spoils_is_float16_where_that_will_do(tmp_path: Path, quantiser: Quantiser) -> None:
    """A weight of a few inputs, and one that the numbers need more exactly than int8 is."""
    random = np.random.default_rng(1)
    weights = {
        "few": random.standard_normal((8, 256)).astype(np.float32),
        "loud": (random.standard_normal((256, 8)) * 100).astype(np.float32),
        "quiet": random.standard_normal((256, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "loud"], ["a"]),
        helper.make_node("MatMul", ["x", "quiet"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "few"], ["y"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 256])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    judge = judged(path, 15.0)
    model, note = variants.recipes("int8", graph.load(path), quantiser)[-1].make(path, judge)
    assert note == "1 of 3 weights are float16: with them the numbers fail"
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"few_fp16", "loud_fp16", "quiet_int8", "quiet_scale"} == names
    assert judge(model, False) <= 1


def test_fp16_leaves_weights_alone_that_would_overflow(
    tmp_path: Path, mlp: Build, quantiser: Quantiser
) -> None:
    model = mlp(features=256)
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    made, _ = variants.recipes("fp16", model, quantiser)[-1].make(path, lambda model, quick: 0.0)
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds["w1"] == TensorProto.FLOAT
    assert kinds["w2_fp16"] == TensorProto.FLOAT16


def test_nothing_to_narrow_is_said(tmp_path: Path, quantiser: Quantiser) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), ir_version=8)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(ConversionError, match="No weight"):
        variants.recipes("int8", model, quantiser)[-1].make(path, lambda model, quick: 0.0)


def test_unknown_precision(mlp: Build, quantiser: Quantiser) -> None:
    with pytest.raises(ConversionError, match="no precision 'fp8'"):
        variants.recipes("fp8", mlp(), quantiser)


def test_the_tools_write_nothing_beside_the_model(canonical: Path, quantiser: Quantiser) -> None:
    """What they leave there, when they fail half-way, would become part of the version."""
    before = canonical.parent.stat().st_mtime_ns
    for recipe in variants.recipes("int8", graph.load(canonical), quantiser, [{"x": content()}], real=True):
        recipe.make(canonical, lambda model, quick: 0.0)
    assert canonical.parent.stat().st_mtime_ns == before


def test_dynamic_int8_is_for_models_without_convolutions(mlp: Build, quantiser: Quantiser) -> None:
    names = [recipe.name for recipe in variants.recipes("int8", mlp(), quantiser)]
    assert "dynamic" in names[0]
    model = mlp()
    model.graph.node[0].op_type = "Conv"
    assert not any("dynamic" in recipe.name for recipe in variants.recipes("int8", model, quantiser))


def test_optimised_is_leaner_and_silent(
    canonical: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = graph.load(canonical)
    for index in range(3):
        node = helper.make_node("Identity", ["y" if index == 0 else f"i{index}"], [f"i{index + 1}"])
        model.graph.node.append(node)
    model.graph.output[0].name = "i3"
    leaner = optimise.slim(model)
    assert len(leaner.graph.node) < len(model.graph.node)
    assert graph.info(leaner, 0).outputs == graph.info(model, 0).outputs
    onnx.save(model, tmp_path / "a.onnx")
    onnx.save(leaner, tmp_path / "b.onnx")
    assert np.array_equal(outputs(tmp_path / "a.onnx", content()), outputs(tmp_path / "b.onnx", content()))
    assert capfd.readouterr() == ("", "")


def test_a_model_that_the_optimiser_can_not_take(mlp: Build) -> None:
    model = mlp()
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ConversionError):
        optimise.slim(model)


def test_optimised_in_a_thread_it_takes_the_names_that_axes_are_given_meanwhile(canonical: Path) -> None:
    model = graph.load(canonical)
    finish = optimise.begin(model, 60)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    leaner = finish()
    assert graph.info(leaner, 0).outputs == graph.info(model, 0).outputs
    assert "batch" in graph.info(leaner, 0).outputs[0].shape


def test_what_fails_in_the_thread_is_raised_where_the_result_is_asked_for(mlp: Build) -> None:
    model = mlp()
    model.graph.node[0].input[0] = "nowhere"
    finish = optimise.begin(model, 60)
    with pytest.raises(ConversionError):
        finish()


def test_nobody_waits_for_an_optimiser_that_hangs(mlp: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(optimise, "slim", lambda model: (end.wait(60), model)[1])
    finish = optimise.begin(mlp(), 0.1)
    with pytest.raises(ConversionError, match="can't optimise the model") as caught:
        finish()
    end.set()
    assert caught.value.why == "It gave no answer within 0.1 s (convert.timeout_s in deploy.yaml)."


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"memory": 150_000_000}, "more memory than the 150.0 MB it may use (convert.memory in deploy.yaml)"),
        ({"timeout": 0.01}, "no answer within 0.01 s (convert.timeout_s in deploy.yaml)"),
    ],
)
def test_quantising_is_held_to_the_limits_of_a_conversion(
    canonical: Path,
    quantiser: Quantiser,
    limits: dict[str, float],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # with more cores the limit may strike elsewhere
    held = dataclasses.replace(quantiser, **limits)
    samples = [{"x": content(seed)} for seed in range(4)]
    for recipe in variants.recipes("int8", graph.load(canonical), held, samples, real=True):
        with pytest.raises(ConversionError, match="can't be quantised") as caught:
            recipe.make(canonical, lambda model, quick: 0.0)
        assert says in caught.value.why


def test_samples_larger_than_the_memory_limit(
    canonical: Path, quantiser: Quantiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What eats the memory is not the tool's start but what it is given: more than there is, in one piece."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    many = [{"x": np.zeros((300_000, 256), np.float32)}]  # 307 MB
    [static, *_] = variants.recipes(
        "int8", graph.load(canonical), dataclasses.replace(quantiser, memory=300_000_000), many, real=True
    )
    with pytest.raises(ConversionError) as caught:
        static.make(canonical, lambda model, quick: 0.0)
    assert "more memory than the 300.0 MB it may use" in caught.value.why


def test_while_the_optimiser_is_mute_others_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    begun, end = threading.Event(), threading.Event()

    def talk() -> None:
        with optimise._quiet():
            print("of the optimiser")
            begun.set()
            end.wait(60)

    thread = threading.Thread(target=talk)
    thread.start()
    assert begun.wait(60)
    print("of shipway")
    end.set()
    thread.join()
    print("afterwards")
    assert capsys.readouterr().out == "of shipway\nafterwards\n"


def proof_of(path: Path) -> chain.GoldenSet:
    info = graph.info(graph.load(path), 0)
    given = reference.OnnxReference(path)
    fp32 = Tolerance(1e-5, 1e-5)
    return chain.golden_set(given, info.inputs, info.outputs, limits={}, tolerance=fp32)


def test_an_int8_is_as_far_out_on_other_inputs_as_on_those_that_judge(
    canonical: Path, quantiser: Quantiser
) -> None:
    """Weights rounded for the golden inputs would be several times nearer on these than on any others."""
    proof, model = proof_of(canonical), graph.load(canonical)
    cases = precisions.to_round_for(model, proof, samples=False)
    golden_ones = {case["x"].tobytes() for case in proof.cases}
    assert cases
    assert not golden_ones & {case["x"].tobytes() for case in cases}
    others = [{"x": content(seed)} for seed in range(50)]
    path = canonical.with_name("int8.onnx")

    def errors(recipe: variants.Recipe) -> tuple[float, float]:
        onnx.save(recipe.make(canonical, lambda model, quick: 0.0)[0], path)
        judging = proof.link(path, "int8", Tolerance(1e-2, 1e-1)).outputs[0].max_rel
        far = [np.abs(outputs(path, c["x"]) - outputs(canonical, c["x"])).max() for c in others]
        scale = max(np.abs(outputs(canonical, c["x"])).max() for c in others)
        return judging, float(max(far) / scale)

    judging, elsewhere = errors(variants.recipes("int8", model, quantiser, cases)[-1])
    assert elsewhere < 2.5 * judging
    judging, elsewhere = errors(variants.recipes("int8", model, quantiser, proof.cases)[-1])
    assert elsewhere > 2.5 * judging  # so it would be


def test_half_of_the_samples_judge_and_a_single_one_does_nothing_else(canonical: Path) -> None:
    seeded, model = proof_of(canonical), graph.load(canonical)
    proof = dataclasses.replace(seeded, given=2)  # and a third case that was stacked of both
    taken = precisions.to_round_for(model, proof, samples=True)
    assert list(taken) == [proof.cases[1]]
    single = dataclasses.replace(proof, given=1)
    assert not precisions.to_round_for(model, single, samples=True)
