"""A fifth kind, from another package: a class, a folder of templates and an entry point."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from shipway.registry.nouns import Digest
from shipway.registry.verbs.verify import verify_bundle
from shipway.targets import loader
from shipway.targets.base import (
    BundlePlan,
    BundleWriter,
    OnnxInfo,
    RuntimeLimits,
    TargetOptions,
    VerifiedModel,
)
from shipway.targets.steps import Release, Step


class ShelfOptions(TargetOptions):
    greeting: str = "hello"


class Shelf:
    """Puts the model beside a note; its check prints a verdict that is always the same."""

    kind: ClassVar[str] = "shelf"
    options: ClassVar[type[TargetOptions]] = ShelfOptions
    templates: ClassVar[Path]

    def __init__(self, options: TargetOptions) -> None:
        assert isinstance(options, ShelfOptions)
        self.chosen = options

    def limits(self) -> RuntimeLimits:
        return RuntimeLimits(opset=21, ir=10, why="A shelf")

    def check(self, model: OnnxInfo) -> None:
        pass

    def fingerprint(self) -> Sequence[Digest]:
        return ()

    def build(self, model: VerifiedModel, out: BundleWriter) -> BundlePlan:
        graph = out.take("model.onnx", model.variant.files[0]).path
        out.render("note.json", "note.json", greeting=self.chosen.greeting)
        out.render("golden.py", "golden.py")  # a template that all kinds share
        verdict = json.dumps({"passed": True})
        out.write("check.sh", f"echo '{verdict}'\n", executable=True)
        return BundlePlan(graph, ("sh", "check.sh"))

    def activation(self, release: Release) -> Sequence[Step]:
        return ()


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``shelf`` as if another package had brought it."""
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "note.json.j2").write_text('{"greeting": {{ greeting | json }}}\n')
    monkeypatch.setattr(Shelf, "templates", folder, raising=False)
    module = ModuleType("another_package")
    module.Shelf = Shelf  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "another_package", module)
    entry = EntryPoint("shelf", "another_package:Shelf", loader.GROUP)
    monkeypatch.setattr(loader, "_found", lambda: {"shelf": entry})


def test_it_is_built_and_verified_like_any_other(tiny: Any, tmp_path: Path) -> None:
    manifest = tiny.export("shelf", tmp_path / "out", greeting='hi "there"')
    assert manifest.kind == "shelf"
    assert manifest.options == {"precision": "fp32", "greeting": 'hi "there"'}
    assert json.loads((tmp_path / "out" / "note.json").read_text()) == {"greeting": 'hi "there"'}
    assert (tmp_path / "out" / "check.sh").stat().st_mode & 0o777 == 0o755
    assert verify_bundle(tmp_path / "out").check == {"passed": True}


def test_its_templates_and_options_shape_the_digest(tiny: Any, tmp_path: Path) -> None:
    plain = tiny.build("shelf")
    assert tiny.build("shelf", greeting="other").digest != plain.digest
    (Shelf.templates / "note.json.j2").write_text('{"changed": {{ greeting | json }}}\n')
    assert tiny.build("shelf").digest != plain.digest
