"""Templates: a filter for each language, no string without one, the project's templates first."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shipway.registry.errors import ConfigError
from shipway.targets.render import FILTERS, Renderer, label

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def render(templates: Path, source: str, **values: object) -> str:
    (templates / "page.txt.j2").write_text(source)
    return Renderer("kind", templates).render("page.txt", values)


@given(text)
def test_literals_mean_what_went_in(value: str) -> None:
    assert json.loads(FILTERS["json"](value)) == value
    assert json.loads(FILTERS["js"](value)) == value
    assert FILTERS["js"](value).isascii()
    assert ast.literal_eval(FILTERS["python"](value)) == value
    assert shlex.split(FILTERS["shell"](value)) == [value]
    prototext = FILTERS["prototext"](value)
    assert ast.literal_eval(f"b{prototext}").decode() == value  # octal escapes are those of Python's bytes


@given(text)
def test_yaml_reads_back_what_went_in(value: str) -> None:
    assert yaml.safe_load(f"key: {FILTERS['yaml'](value)}\n") == {"key": value}


@settings(max_examples=20, deadline=None)
@given(text)
def test_a_shell_sees_one_word(value: str) -> None:
    command = f"printf %s {FILTERS['shell'](value)}"
    assert subprocess.run(["sh", "-c", command], check=True, capture_output=True).stdout.decode() == value


@pytest.mark.parametrize(
    ("language", "value", "literal"),
    [
        ("js", "</script><!--", '"\\u003c/script\\u003e\\u003c!--"'),
        ("kotlin", 'a"$b\n', '"a\\"\\$b\\n"'),
        ("kotlin", "a\fb/c", '"a\\u000cb/c"'),
        ("swift", 'a"\\(b)\té', '"a\\"\\\\(b)\\t\\u{e9}"'),
        ("prototext", 'a"\né', '"a\\042\\012\\303\\251"'),
        ("systemd", 'a b%h$c"', '"a b%%h$$c\\""'),
        ("html", '<a href="x">', "&lt;a href=&quot;x&quot;&gt;"),
        ("code", "a`b\nc", "``a`b c``"),
        ("code", "`", "`` ` ``"),
        ("cell", "a|b", "`a\\|b`"),
        ("word", "CPU-1.0_x:y/z+", "CPU-1.0_x:y/z+"),
        ("csv", ["Add", "Conv"], "Add,Conv"),
        ("requirement", "onnxruntime-gpu[cuda,cudnn]==1.23.2", "onnxruntime-gpu[cuda,cudnn]==1.23.2"),
        ("yaml", {"b": 1, "a": "x: y"}, '{"a": "x: y", "b": 1}'),
    ],
)
def test_a_literal_of_each_language(language: str, value: object, literal: str) -> None:
    assert FILTERS[language](value) == literal


@pytest.mark.parametrize(
    ("language", "value"), [("word", "a b"), ("word", ""), ("requirement", "x --index y")]
)
def test_what_must_be_plain_is_refused_where_it_is_not(language: str, value: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        FILTERS[language](value)


def test_a_string_without_a_filter_is_refused_with_file_and_line(templates: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        render(templates, "one\ntwo\n{{ name }}\n", name="x")
    assert "page.txt.j2" in caught.value.what
    assert caught.value.why.startswith("line 3: ")
    assert "filter" in caught.value.why


def test_numbers_and_filtered_strings_pass(templates: Path) -> None:
    source = "{% for n in ns %}{{ n | json }}-{{ loop.index }}\n{% endfor %}"
    assert render(templates, source, ns=["a", "b"]) == '"a"-1\n"b"-2\n'


@pytest.mark.parametrize(
    "source", ["{{ missing | json }}", "{{ missing.deep | js }}", "{% if %}", "{{ x | nope }}"]
)
def test_a_broken_template_names_itself(templates: Path, source: str) -> None:
    with pytest.raises(ConfigError, match=r"page\.txt\.j2 of kind can't be rendered") as caught:
        render(templates, source)
    assert caught.value.remedy


def test_a_template_that_is_not_there_is_named(templates: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.j2"):
        Renderer("kind", templates).render("gone", {})


def test_the_projects_templates_come_first_and_change_the_digest(templates: Path, tmp_path: Path) -> None:
    (templates / "page.txt.j2").write_text("built in")
    (templates / "other.txt.j2").write_text("other")
    mine = tmp_path / "mine"
    (mine / "kind").mkdir(parents=True)
    plain = Renderer("kind", templates)
    assert Renderer("kind", templates, mine).digest == plain.digest
    (mine / "kind" / "page.txt.j2").write_text("{{ word | json }} of mine")
    own = Renderer("kind", templates, mine)
    assert own.render("page.txt", {"word": "page"}) == '"page" of mine'
    assert own.render("other.txt", {}) == "other"
    assert own.digest != plain.digest


@pytest.mark.parametrize(
    ("name", "expected"), [("OCR.rec_v4", "ocr-rec-v4"), ("...", "model"), ("a" * 80, "a" * 63)]
)
def test_a_label_is_what_kubernetes_takes(name: str, expected: str) -> None:
    assert label(name) == expected
