"""References, digests, tolerances and the JSON forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.registry.errors import UsageError
from shipway.registry.nouns import (
    Digest,
    File,
    Link,
    ModelRef,
    ModelVersion,
    OutputMeasure,
    TensorSpec,
    Tolerance,
    Variant,
    check_model_name,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ocr-rec/3", ModelRef("ocr-rec", version=3)),
        ("models:/ocr-rec/3", ModelRef("ocr-rec", version=3)),
        ("ocr.rec_v2@prod-server", ModelRef("ocr.rec_v2", alias="prod-server")),
        ("models:/a@b", ModelRef("a", alias="b")),
        ("ocr-rec", ModelRef("ocr-rec")),
    ],
)
def test_references_are_read_as_mlflow_writes_them(text: str, expected: ModelRef) -> None:
    assert ModelRef.parse(text) == expected
    assert ModelRef.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/1",
        "a/0",
        "a/-1",
        "a/1/2",
        "a/",
        "a@",
        "a b/1",
        "../x/1",
        "a@b c",
        "a/\u0661",
        "a/" + "9" * 5000,
        "a'/1",
        'a"',
        "a\n/1",
    ],
)
def test_a_malformed_reference_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        ModelRef.parse(text)


@pytest.mark.parametrize(
    "name", ["", ".x", "-x", "a/b", "../x", "a b", "a'b", 'a"b', "a\n", "a:b", "é", "a" * 129]
)
def test_names_that_could_hurt_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="can't be the name"):
        check_model_name(name)


def test_a_digest_reads_back_and_refuses_others() -> None:
    digest = Digest.of(b"abc")
    assert Digest.parse(str(digest)) == digest
    assert digest.short == digest.hex[:12]
    for text in (
        "",
        digest.hex,
        "md5:" + digest.hex,
        "sha256:" + digest.hex.upper(),
        "sha256:" + digest.hex + "0",
    ):
        with pytest.raises(ValueError, match="not a digest"):
            Digest.parse(text)


@given(scale=st.floats(0, 1e6), share=st.floats(0, 0.99))
def test_tolerance_grows_with_the_output_and_has_an_edge(scale: float, share: float) -> None:
    tolerance = Tolerance(1e-5, 1e-5)
    limit = tolerance.bound(scale)
    assert limit == 1e-5 + 1e-5 * scale
    assert tolerance.allows(limit * share, scale)
    assert not tolerance.allows(limit * 1.01, scale)
    assert not tolerance.allows(float("nan"), scale)


def test_a_version_survives_its_json_form() -> None:
    measure = OutputMeasure("y", 1e-7, 2e-7, 1.0, 0.5, top1=1.0, flat=False)
    link = Link("paddle", "onnx", True, (measure,), Tolerance(1e-5, 1e-5), ("tried twice",))
    model = File("model.onnx", Digest.of(b"m"), 1)
    version = ModelVersion(
        name="ocr-rec",
        version=2,
        digest=Digest.of(b"graph"),
        source=Digest.of(b"source"),
        toolchain="t",
        opset=17,
        ir=8,
        operators=("Conv", "com.microsoft::Gelu"),
        inputs=(TensorSpec("x", "float32", ("N", 3, 48, "W")),),
        outputs=(TensorSpec("y", "float32", ("N", 10)),),
        links=(link,),
        variants=(Variant("fp32", (model,)), Variant("int8", (model,), (link,))),
        golden=(File("golden/golden.json", Digest.of(b"g"), 1),),
        assets=(File("assets/keys.txt", Digest.of(b"k"), 1),),
        extra={"seconds": {"convert": 1.5}},
    )
    assert ModelVersion.from_json(version.to_json()) == version
    assert version.variant("int8") == version.variants[1]
    assert version.variant("fp16") is None
    assert version.passed
    assert version.chain == (link,)  # of fp32 and of int8 alike, once
