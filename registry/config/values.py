"""What single values of ``deploy.yaml`` may be: each type says in words what it accepts."""

from __future__ import annotations

import contextlib
import re
from typing import Annotated, Literal, TypeGuard
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, Strict, WithJsonSchema

from shipway.registry.units import parse_duration
from shipway.targets.limits import Size


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _opset(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if _is_whole(value) and 7 <= value <= 30:
        return value
    raise ValueError("must be 'auto' or an ONNX opset from 7 to 30")


def _wave(value: object) -> int | str:
    if isinstance(value, str) and re.fullmatch(r"([1-9]\d?|100)%", value):
        return value
    if _is_whole(value) and value > 0:
        return value
    raise ValueError("must be a number of hosts (1) or a share of them (25%)")


def _limit(value: object) -> int | str:
    if isinstance(value, str) and re.fullmatch(r"(\d{1,2}|100)%", value):
        return value
    if _is_whole(value) and value >= 0:
        return value
    raise ValueError("must be a number of hosts (0) or a share of them (5%)")


def _host(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]*", value):
        return value
    raise ValueError("must be the name or the address of a host")


def _destination(value: object) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable():
        if "://" not in value:
            return value
        parts = urlsplit(value)
        reached = parts.scheme == "s3" or (parts.scheme == "ssh" and len(parts.path) > 1)
        if reached and parts.netloc:
            return value
    raise ValueError("must be a folder, s3://bucket/prefix or ssh://user@host/folder")


def _url(value: object) -> str:
    with contextlib.suppress(ValueError):  # a port that is none, or half an IPv6 address
        if isinstance(value, str) and value.isprintable() and " " not in value:
            parts = urlsplit(value.replace("{host}", "host"))
            plain = not (parts.query or parts.fragment or parts.username or parts.password)
            if parts.scheme in ("http", "https") and parts.hostname and plain and parts.port != 0:
                return value
    raise ValueError("must be http://server:port, or https:// (without a password in it)")


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _memory(size: int) -> int:
    if size < 100_000_000:  # Python and NumPy need that much address space; with less they die without a word
        raise ValueError("must be 100MB at least")
    return size


Opset = Annotated[
    int | Literal["auto"],
    PlainValidator(_opset),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 7, "maximum": 30}]}),
]
Wave = Annotated[int | str, PlainValidator(_wave), WithJsonSchema({"type": ["integer", "string"]})]
"""How many hosts at a time: a number from 1, or a share such as ``25%``."""
Limit = Annotated[int | str, PlainValidator(_limit), WithJsonSchema({"type": ["integer", "string"]})]
"""How many hosts at the most: a number from 0, or a share such as ``5%``."""
Duration = Annotated[
    float, PlainValidator(parse_duration), WithJsonSchema({"type": ["number", "string"], "minimum": 0})
]
"""Seconds, from a number or from ``30s``, ``10m``, ``1h``, ``1d``."""
Host = Annotated[str, PlainValidator(_host), WithJsonSchema({"type": "string"})]
Destination = Annotated[str, PlainValidator(_destination), WithJsonSchema({"type": "string"})]
"""A folder, ``s3://bucket/prefix`` or ``ssh://user@host/folder``."""
Url = Annotated[str, PlainValidator(_url), WithJsonSchema({"type": "string"})]
Memory = Annotated[Size, AfterValidator(_memory)]
"""Bytes that a converter may use."""
Int = Annotated[int, Strict()]
Bool = Annotated[bool, Strict()]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
"""A number, whole or not; YAML's ``true`` is none."""
