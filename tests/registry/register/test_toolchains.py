"""Toolchains as data, and a converter that misbehaves in every known way."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shipway.registry.convert import environment, running, toolchains
from shipway.registry.convert.source import Source
from shipway.registry.errors import ConversionError, UsageError
from shipway.registry.process import Worker
from shipway.registry.registration import attempts
from shipway.targets.base import RuntimeLimits

CONVERTER = """
import os, sys, time
from pathlib import Path
from shipway.registry import process

def answer(request):
    out = Path(request["out"])
    how = Path(request["model"]).read_text()
    if how == "exit":
        print("[ERROR] Operator fancy_conv is not supported", file=sys.stderr, flush=True)
        raise SystemExit(-1)
    if how == "large":
        said = "[libprotobuf ERROR] onnx.ModelProto exceeded maximum protobuf size of 2GB: 2304002608"
        print(said, file=sys.stderr, flush=True)
        out.write_bytes(b"")
    if how == "empty":
        out.write_bytes(b"")
    if how == "crash":
        os.abort()
    if how == "hang":
        out.write_bytes(b"half")
        time.sleep(600)
    if how == "raise":
        raise RuntimeError("the 0th elementwise MUST be ir::FloatAttribute")
    if how == "good":
        out.write_bytes(b"model")

if __name__ == "__main__":
    process.serve(lambda: answer)
"""


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("large", "exceeded maximum protobuf size"),
        ("exit", "fancy_conv is not supported"),
        ("nothing", "wrote no file"),
        ("empty", "wrote an empty file"),
        ("crash", "ended by SIGABRT"),
        ("hang", "timeout_s"),
        ("raise", "MUST be ir::FloatAttribute"),
    ],
)
def test_a_failed_conversion_names_its_cause(tmp_path: Path, how: str, says: str) -> None:
    (tmp_path / "fake_converter.py").write_text(CONVERTER)
    model = tmp_path / "model.pdmodel"
    model.write_text(how)
    out = tmp_path / "out.onnx"
    with (
        Worker("fake_converter", cwd=tmp_path) as worker,
        pytest.raises(ConversionError, match=r"can't convert model\.pdmodel to opset 17") as caught,
    ):
        running.convert(
            toolchains.TOOLCHAINS[0],
            worker,
            Source("pdmodel", model, model),
            out,
            opset=17,
            timeout=1 if how == "hang" else 120,
        )
    assert says in caught.value.why
    assert ("less than 2 GB" if how == "large" else "deploy.yaml") in caught.value.remedy
    assert not out.exists()


def test_weights_beyond_one_file_of_onnx_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unasked:
        def ask(self, request: object, *, timeout: float | None = None) -> None:
            raise AssertionError("the converter was asked")

        def tell(self, request: object) -> None: ...

        def log(self) -> str:
            return ""

    model, params = tmp_path / "model.json", tmp_path / "model.pdiparams"
    model.write_text("{}")
    params.write_bytes(b"\0" * 3000)
    monkeypatch.setattr(running, "LARGEST", 2999)
    with pytest.raises(ConversionError, match=r"model\.json is too large to be converted") as caught:
        running.convert(
            toolchains.TOOLCHAINS[0],
            Unasked(),
            Source("pir", model, params),
            tmp_path / "out.onnx",
            opset=17,
            timeout=1,
        )
    assert "Its weights take 3.0 kB" in caught.value.why
    assert "external data" in caught.value.remedy
    assert "operator" not in caught.value.remedy


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, "to 18 or more: auto takes 17 where no target is configured."),
        ({"t": RuntimeLimits(19, 9)}, "to 18 or more: auto takes 17."),
    ],
)
def test_an_opset_too_low_that_auto_chose_is_not_to_be_set_to_auto(
    limits: dict[str, RuntimeLimits], said: str
) -> None:
    def remedy(opset: object) -> str:
        low = running.OpsetTooLowError("m", 17, {"fancy": 18})
        wish: Any = SimpleNamespace(config=SimpleNamespace(opset=opset), limits=limits)
        return attempts._nothing_worked(wish, [attempts.Tried("t", (), low)]).remedy

    assert remedy("auto").endswith(said)
    assert remedy(17).endswith("to 18 or more, or to auto.")


def test_a_good_conversion(tmp_path: Path) -> None:
    (tmp_path / "fake_converter.py").write_text(CONVERTER)
    model = tmp_path / "model.pdmodel"
    model.write_text("good")
    with Worker("fake_converter", cwd=tmp_path) as worker:
        running.convert(
            toolchains.TOOLCHAINS[0],
            worker,
            Source("pdmodel", model, model),
            tmp_path / "o",
            opset=17,
            timeout=120,
        )
    assert (tmp_path / "o").read_bytes() == b"model"


LIMITS = {
    "server": RuntimeLimits(opset=21, ir=10),
    "phone": RuntimeLimits(opset=18, ir=9, why="ONNX Runtime 1.14"),
}


@pytest.mark.parametrize(
    ("asked", "limits", "offered", "expected"),
    [
        ("auto", LIMITS, range(7, 22), 18),
        ("auto", LIMITS, range(7, 16), 15),
        ("auto", {}, range(7, 22), toolchains.DEFAULT_OPSET),
        (13, LIMITS, range(7, 22), 13),
        (18, LIMITS, None, 18),
    ],
)
def test_opset(
    asked: int | str, limits: dict[str, RuntimeLimits], offered: range | None, expected: int
) -> None:
    assert toolchains.choose_opset(asked, limits, offered) == expected


def test_opset_above_a_target_names_it() -> None:
    with pytest.raises(ConversionError, match="'phone' runs") as caught:
        toolchains.choose_opset(19, LIMITS, range(7, 22))
    assert "1.14" in caught.value.why


def test_opset_that_no_toolchain_writes() -> None:
    with pytest.raises(ConversionError, match="opset 22"):
        toolchains.choose_opset(22, {}, range(7, 22))


def test_choose() -> None:
    name = toolchains.PAIR.name
    assert [chain.name for chain in toolchains.choose("pdmodel")] == [name, "paddle2onnx-1.2.4"]
    assert [chain.name for chain in toolchains.choose("pir")] == [name]
    assert [chain.name for chain in toolchains.choose("pdmodel", "paddle2onnx-1.2.4")] == [
        "paddle2onnx-1.2.4"
    ]
    assert [chain.name for chain in toolchains.choose("pir", name)] == [name]
    with pytest.raises(UsageError, match="There is no toolchain"):
        toolchains.choose("pir", "nosuch")
    with pytest.raises(UsageError, match="does not read"):
        toolchains.choose("onnx", name)
    with pytest.raises(UsageError, match="does not read"):
        toolchains.choose("pir", "paddle2onnx-1.2.4")


def test_missing_packages_are_named_with_the_remedy() -> None:
    chain = toolchains.Toolchain(
        "t", "w", frozenset(), {"paddlepaddle": "0.0.1", "no-such-package": "1"}, range(1), python=(3, 13)
    )
    with pytest.raises(ConversionError, match="not ready") as caught:
        toolchains.installed(chain, python=(3, 11))
    assert "no-such-package 1 is not installed" in caught.value.why
    assert "shipway[paddle]" in caught.value.remedy
    with pytest.raises(ConversionError, match=r"on Python 3\.13") as caught:
        toolchains.installed(chain, python=(3, 13))
    assert "Python 3.12 or older" in caught.value.remedy


def test_an_environment_whose_python_is_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPWAY_CACHE", str(tmp_path))
    lock, system = tmp_path / "lock.txt", tmp_path / "python3"
    lock.write_text("")
    system.touch()
    python = environment._folder("net") / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(system)
    assert environment.python_of("net", [lock]) is None
    (python.parent.parent / environment._READY).write_text(environment._digests([lock]))
    assert environment.python_of("net", [lock]) == python
    system.unlink()  # it was updated to another one
    assert environment.python_of("net", [lock]) is None


@pytest.mark.paddle
def test_the_pinned_pair_is_ready_where_it_can_be() -> None:
    assert sys.version_info < (3, 13)
    toolchains.installed(toolchains.TOOLCHAINS[0])
