"""What pydantic finds wrong, in the words of ``deploy.yaml``."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from shipway.registry.config import check, document
from shipway.registry.config.document import Problem


def explain(error: ValidationError, model: type[BaseModel], prefix: document.Path) -> list[Problem]:
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
