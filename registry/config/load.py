"""Read ``deploy.yaml`` into a Project, or say everything that is wrong with it, with keys and lines."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from shipway.registry.config import check, document
from shipway.registry.config.document import Document, Problem
from shipway.registry.config.model import DeployConfig, TargetConfig
from shipway.registry.config.project import Project
from shipway.registry.errors import ConfigError, ShipwayError
from shipway.targets.base import TargetOptions
from shipway.targets.loader import load_kind

_REMEDY = "The commented deploy.yaml of 'shipway init' shows each key; 'shipway schema' lists them all."


def load(path: Path, *, lazy: bool = False) -> Project:
    """Read the file at ``path``; raises ConfigError with key paths and lines.

    ``lazy`` leaves each target's options unread until they are needed; without it all are checked now.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file.",
            remedy="Go to the folder that holds it, name it with --config, or write one with 'shipway init'.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: can't be read.", why=str(error), remedy="It must be a UTF-8 text file."
        ) from error
    return load_text(text, path.parent, source=str(path), lazy=lazy)


def load_text(text: str, root: Path, *, source: str = "deploy.yaml", lazy: bool = False) -> Project:
    """The same for text; relative paths in it start at ``root``, errors call it ``source``."""
    found = document.read(text)
    problems = list(found.problems)
    data, root = found.data, root.resolve()
    config = None
    if not isinstance(data, dict):
        if not problems:
            problems.append(Problem((), "must be a mapping: 'project: ...' and so on"))
    else:
        problems += check.problems(data)
        targets, more = _targets(found, root, source)
        problems += more
        for name in () if lazy else targets:
            problems += _options(name, data["targets"][name], root)[1]
        try:
            config = DeployConfig.model_validate({**data, "targets": targets} if targets else data)
        except ValidationError as error:
            known = {problem.path for problem in problems}
            problems += [more for more in _explain(error, DeployConfig, ()) if more.path not in known]
    if problems or config is None:
        raise _error(problems, found, source)
    return Project(config, root, source, found.lines)


def _targets(found: Document, root: Path, source: str) -> tuple[dict[str, TargetConfig], list[Problem]]:
    """Each target with what parses its options."""
    raw = found.data.get("targets")
    targets: dict[str, TargetConfig] = {}
    problems: list[Problem] = []
    for name, body in (raw if isinstance(raw, dict) else {}).items():
        if isinstance(body, dict) and isinstance(body.get("kind"), str):
            targets[name] = TargetConfig(body["kind"], partial(_parse, found, name, body, root, source))
        else:
            message = "must be a mapping with a 'kind', as in {kind: browser-wasm}"
            problems.append(Problem(("targets", name), message))
    return targets, problems


def _options(name: str, body: dict[str, Any], root: Path) -> tuple[TargetOptions | None, list[Problem]]:
    """A target's options by its kind's own class, which is told ``root``; or what is wrong with them."""
    path = ("targets", name)
    try:
        kind = load_kind(body["kind"])
    except ShipwayError as error:
        return None, [Problem((*path, "kind"), " ".join(filter(None, (error.what, error.why))))]
    given = {key: value for key, value in body.items() if key != "kind"}
    try:
        return kind.options.model_validate(given, context={"root": root}), []
    except ValidationError as error:
        return None, _explain(error, kind.options, path)


def _parse(found: Document, name: str, body: dict[str, Any], root: Path, source: str) -> TargetOptions:
    options, problems = _options(name, body, root)
    if options is None:
        raise _error(problems, found, source)
    return options


def _error(problems: Iterable[Problem], found: Document, source: str) -> ConfigError:
    """One ConfigError for all problems, each once, in the order of the file."""
    placed = {(problem.line or found.line(problem.path) or 0, str(problem)) for problem in problems}
    texts = [f"{source}:{line}: {text}" if line else f"{source}: {text}" for line, text in sorted(placed)]
    if len(texts) == 1:
        return ConfigError(texts[0], remedy=_REMEDY)
    return ConfigError(f"{source} has {len(texts)} errors.", why="\n".join(texts), remedy=_REMEDY)


def _explain(error: ValidationError, model: type[BaseModel], prefix: document.Path) -> list[Problem]:
    """Pydantic's findings in the words of ``deploy.yaml``."""
    problems = []
    for item in error.errors(include_url=False):
        loc = tuple(item["loc"])
        message = _message(item["type"], item, loc, model)
        if loc[:1] == ("environments",) and loc[2:3] == ("targets",):
            loc = loc[:2] + loc[3:]  # in the file they stand beside 'after'
        problems.append(Problem(prefix + loc, message))
    return problems


_WANTED = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "missing": "is missing",
}


def _message(sort: str, item: Any, loc: document.Path, model: type[BaseModel]) -> str:
    if sort == "extra_forbidden":
        return f"unknown key; {check.suggestion(str(loc[-1]), _keys(model, loc[:-1]))}"
    if sort == "value_error":
        return str(item["ctx"]["error"])
    value = item["input"]
    if sort == "string_type" and isinstance(value, (int, float)):
        return f'must be text; write it in quotes: "{value}"'
    given = "" if sort == "missing" or isinstance(value, (dict, list)) else f", not {value!r}"
    if value is None:
        given = ", but nothing is there"
    if sort in _WANTED:
        return _WANTED[sort] + given
    text = str(item["msg"])
    return text[:1].lower() + text[1:] + given


def _keys(model: type[BaseModel], path: document.Path) -> list[str]:
    """The keys that the section at ``path`` may have."""
    here: Any = model
    for part in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
        else:  # dict[str, Section] or list[Section]: any key leads to the last argument
            here = (get_args(here) or (None,))[-1]
        options = [option for option in get_args(here) if _is_section(option)]
        if options and not _is_container(here):
            here = options[0]  # Section | None
    return sorted(here.model_fields) if _is_section(here) else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_container(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) in (dict, list)
