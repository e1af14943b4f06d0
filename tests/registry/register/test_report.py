"""The page of a version, and the histograms on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
import records

from shipway.registry.errors import UsageError
from shipway.registry.nouns import Digest, File, Link, ModelVersion, OutputMeasure, Tolerance, Variant
from shipway.registry.registration import precisions
from shipway.registry.verbs.report import page, write_report
from shipway.registry.verify import measure, parity
from shipway.registry.verify.chain import GoldenSet

Build = Callable[..., onnx.ModelProto]

TOLERANCE = Tolerance(1e-3, 0)  # so that the allowed error is 1e-3 whatever the scale


def measured(errors: list[float]) -> Link:
    reference = np.linspace(-1, 1, len(errors)).astype(np.float64)
    candidate = reference + np.array(errors)
    return parity.compare("paddle", "onnx", ["y<script>"], [[reference]], [[candidate]], TOLERANCE)


def version(link: Link, **extra: object) -> ModelVersion:
    digest = Digest.of(b"")
    files = (File("model.onnx", digest, 1234567),)
    return records.version(
        name="net", version=3, digest=digest, links=(link,), variants=(Variant("fp32", files),), extra=extra
    )


def test_a_histogram_counts_every_element_once() -> None:
    link = measured([0, 0, 5e-8, 5e-7, 5e-6, 5e-5, 5e-4, 5e-3, 0.5])
    assert link.outputs[0].histogram == (2, 1, 1, 1, 1, 1, 1, 1)
    assert OutputMeasure.from_json(json.loads(json.dumps(link.outputs[0].to_json()))) == link.outputs[0]


def test_a_measure_of_an_older_version_has_none() -> None:
    old = dataclasses.asdict(measured([0.0, 0.0]).outputs[0])
    del old["histogram"]
    assert OutputMeasure.from_json(old).histogram == ()


class Page(HTMLParser):
    """Which elements there are, what they say, and whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_the_page_tells_the_whole_story() -> None:
    repair = {"rule": "celu", "count": 2, "reference": "nobody maps it"}
    tried = {"toolchain": "other", "repairs": [], "why": "it <crashed>"}
    link = measured([0, 1e-4, 2.0])
    made = page(version(link, repairs=[repair], tried=[tried], latency_ms={"fp32": 6.25, "int8": 3.5}))
    parsed = Page(made)
    assert parsed.open == []
    said = "\n".join(parsed.said)
    for words in (
        "net/3", "paddle \u2192 onnx", "y<script>", "failed", "celu (2)", "it <crashed>", "6.25 ms", "1.2 MB",
    ):  # fmt: skip
        assert words in said, words
    assert "script" not in parsed.seen
    assert parsed.seen.count("rect") == 8 + 2  # a column for each bin, a bar for each precision
    assert made == page(
        version(link, repairs=[repair], tried=[tried], latency_ms={"fp32": 6.25, "int8": 3.5})
    )


def test_latency_is_told_by_provider_and_what_was_absent() -> None:
    by_provider = {"CPUExecutionProvider": {"fp32": 6.25}, "CUDAExecutionProvider": {"fp32": 1.5}}
    made = page(version(measured([0.0, 0.0]), latency_ms={"fp32": 6.25}, latency_by_provider=by_provider))
    said = "\n".join(Page(made).said)
    assert "1.50 ms" in said
    assert "CUDAExecutionProvider, by precision" in said
    assert "Not measured, absent there: TensorrtExecutionProvider." in said


def test_a_precision_that_gains_nothing_is_noted() -> None:
    sizes = {"fp32": 1000, "fp16": 500, "int8": 950}
    variants = [Variant(name, (File("model.onnx", Digest.of(b""), size),)) for name, size in sizes.items()]
    assert precisions.no_gain(variants[:2], {"fp32": 10.0, "fp16": 10.9}) == []
    assert precisions.no_gain(variants, {"fp32": 10.0, "fp16": 15.0, "int8": 10.0}) == [
        "fp16 has 50% of fp32's size and takes 150% of its time, on one CPU thread of this machine",
        "int8 has 95% of fp32's size and takes 100% of its time, on one CPU thread of this machine",
    ]


def test_a_provider_that_falls_back_is_not_measured(tmp_path: Path, mlp: Build) -> None:
    """ONNX Runtime would run the model on the CPU and say nothing."""
    onnx.save(mlp(), tmp_path / "net.onnx")
    case = {"x": np.zeros((1, 8), np.float32)}
    proof = GoldenSet("given", ("y",), (case,), ([np.zeros((1, 4), np.float32)],), ({},))
    assert set(proof.medians_ms({"fp32": tmp_path / "net.onnx"})) == {"fp32"}
    assert proof.medians_ms({"fp32": tmp_path / "net.onnx"}, "CUDAExecutionProvider") == {}
    assert measure.providers()[0] == "CPUExecutionProvider"


def test_a_page_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="can't be written"):
        write_report(version(measured([0.0, 0.0])), tmp_path / "file" / "report.html")
    write_report(version(measured([0.0, 0.0])), tmp_path / "report.html")
    assert "net/3" in (tmp_path / "report.html").read_text()
