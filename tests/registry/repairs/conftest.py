"""Programs as Paddle 3 writes them, a few operators long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

RAW = {"float32": "0.t_f32", "int64": "0.t_i64", "bool": "0.t_bool"}


def attribute(name: str, value: Any, kind: str) -> dict[str, Any]:
    """An attribute; a list of values becomes an array of ``kind``."""
    if isinstance(value, list) and kind != "1.a_intarray":
        return {"N": name, "AT": {"#": "0.a_array", "D": [{"#": kind, "D": item} for item in value]}}
    return {"N": name, "AT": {"#": kind, "D": value}}


class ProgramBuilder:
    """Operators are appended to ``ops``; values are numbers from 1."""

    def __init__(self, first: int = 1) -> None:
        self.ops: list[dict[str, Any]] = []
        self._next = first

    def type(self, shape: Sequence[int], dtype: str = "float32") -> dict[str, Any]:
        return {"#": "0.t_dtensor", "D": [{"#": RAW[dtype]}, list(shape), "NCHW", [], 0]}

    def op(
        self,
        kind: str,
        *inputs: int,
        shape: Sequence[int] = (-1, 4),
        dtype: str = "float32",
        attributes: Sequence[dict[str, Any]] = (),
        blocks: Sequence[dict[str, Any]] = (),
    ) -> int:
        """Append an operator with one output and return the output's number."""
        number, self._next = self._next, self._next + 1
        made: dict[str, Any] = {
            "#": kind,
            "A": list(attributes),
            "I": [{"%": item} for item in inputs],
            "O": [{"%": number, "TT": self.type(shape, dtype)}],
            "OA": [],
        }
        if blocks:
            made["regions"] = [{"#": f"region_{n}", "blocks": [block]} for n, block in enumerate(blocks)]
        self.ops.append(made)
        return number

    def data(self, name: str, shape: Sequence[int] = (-1, 4), dtype: str = "float32") -> int:
        return self.op("1.data", shape=shape, dtype=dtype, attributes=[attribute("name", name, "0.a_str")])

    def full(self, value: float, shape: Sequence[int] = ()) -> int:
        return self.op("1.full", shape=shape, attributes=[attribute("value", value, "0.a_f64")])

    def axes(self, *values: int) -> int:
        listed = attribute("value", list(values), "0.a_i64")
        return self.op("1.full_int_array", shape=(len(values),), dtype="int64", attributes=[listed])

    def parameter(self, name: str, shape: Sequence[int]) -> int:
        number, self._next = self._next, self._next + 1
        made = {"%": number, "TT": self.type(shape)}
        self.ops.append({"#": "p", "A": [0, 1, 1, name], "DA": [], "O": made, "OA": [1, 0, 1], "QA": []})
        return number

    def fetch(self, value: int, name: str) -> None:
        self.op("1.fetch", value, attributes=[attribute("name", name, "0.a_str")])

    def give(self, *values: int) -> None:
        """The end of a block."""
        self.ops.append({"#": "2.yield", "A": [], "I": [{"%": item} for item in values], "O": [], "OA": []})

    def inside(self, arguments: Sequence[tuple[int, dict[str, Any]]] = ()) -> ProgramBuilder:
        """A builder of a block whose values go on counting; give it back to ``block``."""
        inner = ProgramBuilder(self._next + 100)
        inner.arguments = [{"#": number, "TT": raw} for number, raw in arguments]
        return inner

    arguments: Sequence[dict[str, Any]] = ()

    def block(self) -> dict[str, Any]:
        return {"#": "block", "args": list(self.arguments), "ops": self.ops}

    def program(self) -> dict[str, Any]:
        header = {"magic": "pir", "trainable": True, "version": 4}
        region = {"#": "region_0", "blocks": [self.block()]}
        return {"base_code": header, "program": {"regions": [region]}}


@pytest.fixture
def builder() -> ProgramBuilder:
    return ProgramBuilder()


@pytest.fixture
def described() -> Any:
    """The function that writes an attribute."""
    return attribute
