"""The commented deploy.yaml, the starter of ``shipway init`` and the JSON Schema: whole, and in step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from shipway.registry.config import model
from shipway.registry.config.load import load, load_text
from shipway.registry.config.schema import schema
from shipway.registry.errors import UsageError
from shipway.registry.verbs.init import init
from shipway.targets.loader import kinds, load_kind

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "deploy.yaml"
STARTER = ROOT / "registry" / "config" / "starter.yaml"


def sections() -> Iterator[type[BaseModel]]:
    """Every class that ``deploy.yaml`` is parsed by, those of the built-in kinds included."""
    yield from model.Section.__subclasses__()
    for kind in kinds():
        yield load_kind(kind).options


def test_the_example_loads_and_says_what_the_design_says() -> None:
    config = load(EXAMPLE).config
    assert config.project == "acme-ocr"
    assert {target.kind for target in config.targets.values()} == set(kinds())
    assert config.targets["mobile"].precision == "int8"
    assert config.environments["prod"].after == "staging"
    assert config.environments["prod"].targets["server"].gate.p95_ms == 40
    assert config.environments["prod"].targets["jetson"].waves == [1, "25%", "100%"]


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.__name__)
def test_every_key_is_in_the_example(section: type[BaseModel]) -> None:
    text = EXAMPLE.read_text()
    for name in section.model_fields:
        if (section, name) != (model.EnvironmentConfig, "targets"):  # in the file they stand beside it
            assert re.search(rf"\b{name}\b", text), f"{section.__name__}.{name} is not in deploy.yaml"


def test_every_default_that_the_example_states_is_the_default() -> None:
    text = EXAMPLE.read_text()
    config = model.ConvertConfig()
    for name in ("tolerance", "tolerance_fp16", "tolerance_int8"):
        stated = yaml.safe_load(re.search(rf"^  ({name}: .*)$", text, re.MULTILINE)[1])[name]  # type: ignore[index]
        assert getattr(config, name) == model.ToleranceConfig(**stated)
    assert f"timeout_s: {config.timeout_s:g}" in text
    assert f"keep: {model.PlacementConfig(to='x').keep}" in text


def commented(text: str) -> dict[str, list[str]]:
    """Key to the comment lines right above it, at its first place."""
    found: dict[str, list[str]] = {}
    above: list[str] = []
    for line in text.splitlines():
        key = re.match(r"^\s*([a-z_0-9]+):", line)
        if line.lstrip().startswith("#"):
            above.append(line.strip())
        else:
            if key:
                found.setdefault(key[1], above)
            above = []
    return found


def test_the_starter_says_the_same_of_each_key_as_the_example() -> None:
    example = EXAMPLE.read_text()
    for key, lines in commented(STARTER.read_text()).items():
        shared = lines[:1] if key == "store" else lines  # the example goes on with the keys of a bucket
        for line in shared:
            assert line in example, f"what the starter says of {key!r} is not in deploy.yaml: {line}"


def test_init_writes_a_project_that_works_on_one_machine(tmp_path: Path) -> None:
    path = init(tmp_path / "my shop (OCR)")
    project = load(path)
    assert project.config.project == "my-shop-OCR"
    for environment, body in project.config.environments.items():
        assert set(body.targets) == set(project.config.targets)
        for target in body.targets:
            assert str(path.parent) in project.delivery(environment, target).address
    assert str(path.parent) in project.store.objects.address
    assert sorted(path.parent.iterdir()) == [path]  # reading and asking made nothing


def test_init_refuses_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        init(tmp_path)
    assert (tmp_path / "deploy.yaml").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def test_the_schema_is_whole() -> None:
    document = schema()
    for node in walk(document):
        if "$ref" in node:
            assert node["$ref"].removeprefix("#/$defs/") in document["$defs"]
    variants = document["$defs"]["TargetConfig"]["oneOf"]
    assert sorted(variant["properties"]["kind"]["const"] for variant in variants) == sorted(kinds())
    for variant in variants:
        options = load_kind(variant["properties"]["kind"]["const"]).options
        assert set(variant["properties"]) == {"kind", *options.model_fields}
        assert variant["additionalProperties"] is False


def test_every_key_is_described_in_the_schema() -> None:
    for section in sections():
        for name, field in section.model_fields.items():
            if name != "precision":
                assert field.description, f"{section.__name__}.{name}"


def test_the_starter_is_a_project_of_every_kind() -> None:
    project = load_text(STARTER.read_text(), Path("/nowhere"))
    assert {target.kind for target in project.config.targets.values()} == set(kinds())
