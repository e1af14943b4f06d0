"""Templates to files: dumb, strict, and with a filter for every language that a value lands in.

Whatever a template prints must pass through the filter of the language around it, which turns a value into a
whole literal of that language, quotes and all. A string that passed no filter is refused, so that a model
called ``"; rm -rf /`` is a name in a shell script and nothing else.

A kind's own folder holds its templates; ``common`` holds what kinds share. A project's ``templates:`` folder
is asked first, by the same names: ``my-templates/browser-wasm/README.md.j2`` stands in for the built-in one.
"""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shipway.templates
from shipway.registry.errors import ConfigError
from shipway.registry.nouns import Digest, Json

if TYPE_CHECKING:
    from jinja2 import Environment

COMMON = "common"
SUFFIX = ".j2"


class Literal(str):
    """Text that a filter has made safe for the language around it."""

    __slots__ = ()


def _json(value: Json) -> Literal:
    """A JSON value, keys sorted. It is a literal of YAML 1.2 flow style as well."""
    return Literal(json.dumps(value, sort_keys=True, ensure_ascii=False))


def _js(value: Json) -> Literal:
    """A JavaScript literal that may stand inside a ``<script>`` too."""
    text = json.dumps(value, sort_keys=True)  # ASCII only, so no U+2028 either
    return Literal(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _yaml(value: Json) -> Literal:
    """A YAML flow scalar or collection: JSON, with what YAML finds unprintable escaped (YAML 1.2, 5.1)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return Literal(
        re.sub(r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)
    )


def _shell(value: Json) -> Literal:
    """One word of a POSIX shell."""
    return Literal(shlex.quote(str(value)))


def _kotlin(value: Json) -> Literal:
    """A Kotlin string literal: ``$`` starts a template there (kotlinlang.org, String literals)."""
    quoted = json.dumps(str(value)).replace("$", "\\$").replace("\\f", "\\u000c").replace("\\/", "/")
    return Literal(quoted)


def _swift(value: Json) -> Literal:
    """A Swift string literal; Swift writes scalars as ``\\u{...}`` (its reference, Lexical Structure)."""
    plain = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    body = "".join(
        plain.get(c) or (c if c.isascii() and c.isprintable() else f"\\u{{{ord(c):x}}}") for c in str(value)
    )
    return Literal(f'"{body}"')


def _prototext(value: Json) -> Literal:
    """A string of protobuf's text format: UTF-8 bytes, octal where not plain (its spec, String Values)."""
    body = "".join(
        f"\\{byte:03o}" if byte < 0x20 or byte > 0x7E or chr(byte) in "\"'\\" else chr(byte)
        for byte in str(value).encode()
    )
    return Literal(f'"{body}"')


def _html(value: Json) -> Literal:
    """Text or a double-quoted attribute's content in HTML."""
    return Literal(html.escape(str(value)))


def _code(value: Json) -> Literal:
    """An inline code span in Markdown, on one line, with a fence longer than any run of backticks inside."""
    text = re.sub(r"\s", " ", str(value)).strip() or " "
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    gap = " " if text.startswith("`") or text.endswith("`") else ""
    return Literal(f"{fence}{gap}{text}{gap}{fence}")


def _cell(value: Json) -> Literal:
    """An inline code span in a cell of a Markdown table, where ``|`` would end the cell (GFM, Tables)."""
    return Literal(_code(value).replace("|", "\\|"))


def _csv(value: Json) -> Literal:
    """Plain words between commas. Anything else in them is a ValueError."""
    return Literal(",".join(_word(item) for item in value))


def _python(value: Json) -> Literal:
    """A Python literal in ASCII."""
    return Literal(ascii(value))


def _systemd(value: Json) -> Literal:
    """One word of a unit's command line: ``%`` starts a specifier, ``$`` a variable (systemd.service(5))."""
    text = json.dumps(str(value), ensure_ascii=False)  # the escapes of JSON are among systemd's
    return Literal(text.replace("%", "%%").replace("$", "$$"))


def _requirement(value: Json) -> Literal:
    """A line of a pip requirements file: name, extras and a pin. Anything else is a ValueError."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?([=<>~!]=?[0-9.]+)?", text):
        raise ValueError(f"{text!r} is not a requirement")
    return Literal(text)


def _word(value: Json) -> Literal:
    """A value known to be plain: letters, digits and ``._/:+-``. Anything else is a ValueError."""
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9._/:+-]+", text):
        raise ValueError(f"{text!r} is not a plain word")
    return Literal(text)


FILTERS: Mapping[str, Callable[[Any], Literal]] = {
    "cell": _cell,
    "code": _code,
    "csv": _csv,
    "html": _html,
    "js": _js,
    "json": _json,
    "kotlin": _kotlin,
    "prototext": _prototext,
    "python": _python,
    "requirement": _requirement,
    "shell": _shell,
    "swift": _swift,
    "systemd": _systemd,
    "word": _word,
    "yaml": _yaml,
}


def _finalize(value: object) -> object:
    if isinstance(value, Literal) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise TypeError(f"{value!r} needs the filter of the language around it: {', '.join(FILTERS)}")


def label(name: str) -> str:
    """``name`` as Kubernetes and Docker want names: lower case, digits and single dashes, 63 at most."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-") or "model"


class Renderer:
    """The templates of one kind. ``own`` is the kind's folder, ``overrides`` the project's folder if any."""

    def __init__(self, kind: str, own: Path | None = None, overrides: Path | None = None) -> None:
        built_in = Path(shipway.templates.__file__).parent
        mine = [overrides / kind, overrides / COMMON] if overrides else []
        self.kind = kind
        self.folders = (*mine, own or built_in / kind, built_in / COMMON)

    @cached_property
    def sources(self) -> dict[str, Path]:
        """Each template's file, the first folder that has it winning."""
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in sorted(folder.rglob(f"*{SUFFIX}")):
                found.setdefault(path.relative_to(folder).as_posix(), path)
        return found

    @cached_property
    def digest(self) -> Digest:
        """Names all templates by their content: a changed template makes another bundle."""
        listing = {name: Digest.of(path.read_bytes()).hex for name, path in self.sources.items()}
        return Digest.of(json.dumps(listing, sort_keys=True).encode())

    @cached_property
    def _environment(self) -> Environment:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(self.folders),
            undefined=StrictUndefined,
            finalize=_finalize,
            autoescape=False,  # noqa: S701 - each value passes the filter of its own language instead
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(FILTERS)
        return environment

    def render(self, template: str, values: Mapping[str, Json]) -> str:
        """Render ``template`` (its name without ``.j2``). Raises ConfigError naming the file and the line."""
        from jinja2 import TemplateError

        name = template + SUFFIX
        try:
            return self._environment.get_template(name).render(values)
        except (TemplateError, TypeError, ValueError) as error:
            where = self.sources.get(name, name)
            raise ConfigError(
                f"The template {where} of {self.kind} can't be rendered.",
                why=_line(error, name) + str(error),
                remedy="Mend the template, or remove it from the project's 'templates' folder.",
            ) from error


def _line(error: Exception, name: str) -> str:
    """``line 12: `` where the traceback or the syntax error names a line of the template."""
    number = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(name):
            number = trace.tb_lineno
        trace = trace.tb_next
    return f"line {number}: " if number else ""
