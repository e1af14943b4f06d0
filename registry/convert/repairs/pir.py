"""Reading and writing Paddle 3's ``model.json``, a program in Paddle's intermediate representation (PIR).

A program holds regions of blocks of operators. An operator is ``{"#": kind, "A": attributes, "I": inputs,
"O": outputs, "OA": ..., "regions": [...]}``. Kinds are shortened: ``1.`` is ``pd_op.``, ``0.`` ``builtin.``,
``2.`` ``cf.``, and ``p`` is a parameter. Values have numbers, 0 is none, a block's arguments are negative.
Read from Paddle's serialiser (paddle/fluid/pir/serialize_deserialize, ``ir_serialize.cc``) and from files
that Paddle 3.3.1 wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipway.registry.convert.repairs.rules import Program

Op = dict[str, Any]

PARAMETER = "p"
DATA = "1.data"
FETCH = "1.fetch"
COMBINE = "0.combine"
_YIELD = "2.yield"

_DTYPES = {
    "0.t_bool": "bool",
    "0.t_ui8": "uint8",
    "0.t_i8": "int8",
    "0.t_i16": "int16",
    "0.t_i32": "int32",
    "0.t_i64": "int64",
    "0.t_f16": "float16",
    "0.t_bf16": "bfloat16",
    "0.t_f32": "float32",
    "0.t_f64": "float64",
}


_RAW = {dtype: raw for raw, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Type:
    """A dense tensor's type; a dimension that is not known is -1."""

    dtype: str
    shape: tuple[int, ...]


class UnknownFormError(ValueError):
    """The program has a form that these repairs do not know: it is left to the converter as it is."""


def main_block(program: Program) -> Op:
    """The block that runs first. Raises UnknownFormError where the document is no such program."""
    try:
        block: Op = program["program"]["regions"][0]["blocks"][0]
        if not isinstance(block["ops"], list):
            raise TypeError
    except (KeyError, IndexError, TypeError):
        raise UnknownFormError("no Paddle 3 program") from None
    return block


def blocks_of(op: Op) -> Iterator[Op]:
    """The blocks inside an operator, of ``if`` two, of ``while`` one."""
    for region in op.get("regions", ()):
        yield from region["blocks"]


def walk(ops: Iterable[Op]) -> Iterator[Op]:
    """Every operator, those inside branches and loops too."""
    for op in ops:
        yield op
        for block in blocks_of(op):
            yield from walk(block["ops"])


def attributes(op: Op) -> dict[str, Any]:
    """The attributes as plain Python values: numbers, strings, lists."""
    if op["#"] == PARAMETER:
        return {}
    return {entry["N"]: _plain(entry["AT"]) for entry in op.get("A", ())}


def _plain(attribute: Mapping[str, Any]) -> Any:
    value = attribute.get("D")
    if attribute["#"] == "0.a_array":
        return [_plain(item) for item in value or ()]
    return value


def inputs(op: Op) -> list[int]:
    """Numbers of the values that an operator takes, 0 where an optional one is left away."""
    return [entry["%"] for entry in op.get("I", ())]


def outputs(op: Op) -> list[int]:
    """Numbers of the values that an operator gives."""
    return [entry["%"] for entry in _outputs(op)]


def _outputs(op: Op) -> list[Op]:
    made = op.get("O", [])
    return [made] if isinstance(made, dict) else made


def results(block: Op) -> list[int]:
    """What a block of a branch or a loop hands back."""
    last = block["ops"][-1] if block["ops"] else {"#": ""}
    if last["#"] != _YIELD:
        raise UnknownFormError("a block does not end in a yield")
    return inputs(last)


def body(block: Op) -> list[Op]:
    """A block's operators without the final yield."""
    ops: list[Op] = block["ops"]
    return ops[:-1] if ops and ops[-1]["#"] == _YIELD else ops


def arguments(block: Op) -> list[tuple[int, Op]]:
    """A block's arguments: their numbers and raw types."""
    return [(entry["#"], entry["TT"]) for entry in block["args"]]


def raw_types(program: Program) -> dict[int, Op]:
    """The raw type of every value of the program."""
    found: dict[int, Op] = {}
    for op in walk(main_block(program)["ops"]):
        found.update({entry["%"]: entry["TT"] for entry in _outputs(op)})
        for block in blocks_of(op):
            found.update(arguments(block))
    return found


def tensor_type(raw: Op) -> Type | None:
    """A raw type read, or None for lists of tensors and the like."""
    if raw.get("#") != "0.t_dtensor" or raw["D"][0]["#"] not in _DTYPES:
        return None
    return Type(_DTYPES[raw["D"][0]["#"]], tuple(raw["D"][1]))


def known_type(raw: Op) -> Type:
    """A raw type read; raises UnknownFormError for what is no dense tensor."""
    type = tensor_type(raw)
    if type is None:
        raise UnknownFormError("a list of tensors crosses a cut")
    return type


def used(ops: Sequence[Op]) -> set[int]:
    """Every value that the operators take, at any depth."""
    return {number for op in walk(ops) for number in inputs(op) if number}


def defined(ops: Sequence[Op]) -> set[int]:
    """Every value that the operators or the blocks inside them define."""
    made: set[int] = set()
    for op in walk(ops):
        made.update(outputs(op))
        made.update(number for block in blocks_of(op) for number, _ in arguments(block))
    return made


def data_op(number: int, raw: Op, name: str) -> Op:
    """An input of a program, as Paddle writes it."""
    type = known_type(raw)
    return {
        "#": DATA,
        "A": [
            {"AT": {"#": "0.a_str", "D": name}, "N": "name"},
            {"AT": {"#": "1.a_intarray", "D": list(type.shape)}, "N": "shape"},
            {"AT": {"#": "1.a_dtype", "D": type.dtype}, "N": "dtype"},
            {"AT": {"#": "1.a_place", "D": [0, 0, ""]}, "N": "place"},
        ],
        "I": [],
        "O": [{"%": number, "TT": raw}],
        "OA": [_flag("stop_gradient", True)],
    }


def assign_op(number: int, copied: int, raw: Op) -> Op:
    """A copy of a value."""
    return {
        "#": "1.assign",
        "A": [],
        "I": [{"%": number}],
        "O": [{"%": copied, "TT": raw}],
        "OA": [_flag("stop_gradient", True)],
    }


def int_array_op(number: int, values: Sequence[int]) -> Op:
    """A constant list of int64, as Paddle writes axes and shapes."""
    items = [{"#": "0.a_i64", "D": value} for value in values]
    raw = {"#": "0.t_dtensor", "D": [{"#": "0.t_i64"}, [len(values)], "NCHW", [], 0]}
    return {
        "#": "1.full_int_array",
        "A": [
            {"AT": {"#": "0.a_array", "D": items}, "N": "value"},
            {"AT": {"#": "1.a_dtype", "D": "int64"}, "N": "dtype"},
            {"AT": {"#": "1.a_place", "D": [1, 0, ""]}, "N": "place"},
        ],
        "I": [],
        "O": [{"%": number, "TT": raw}],
        "OA": [_flag("stop_gradient", True)],
    }


def full_op(number: int, value: float, dtype: str) -> Op:
    """A constant scalar."""
    raw = {"#": "0.t_dtensor", "D": [{"#": _RAW[dtype]}, [], "NCHW", [], 0]}
    return {
        "#": "1.full",
        "A": [
            {"AT": {"#": "1.a_intarray", "D": []}, "N": "shape"},
            {"AT": {"#": "0.a_f64", "D": value}, "N": "value"},
            {"AT": {"#": "1.a_dtype", "D": dtype}, "N": "dtype"},
            {"AT": {"#": "1.a_place", "D": [1, 0, ""]}, "N": "place"},
        ],
        "I": [],
        "O": [{"%": number, "TT": raw}],
        "OA": [_flag("stop_gradient", True)],
    }


def add_op(x: int, y: int, made: int, raw: Op) -> Op:
    """A sum of two values, of type ``raw``."""
    return {
        "#": "1.add",
        "A": [],
        "I": [{"%": x}, {"%": y}],
        "O": [{"%": made, "TT": raw}],
        "OA": [_flag("stop_gradient", False)],
    }


def fetch_ops(number: int, raw: Op, name: str, column: int, fresh: tuple[int, int]) -> list[Op]:
    """A copy of a value and its fetch: the copy keeps the converter from fetching a bare input."""
    copied, fetched = fresh
    fetch = {
        "#": FETCH,
        "A": [
            {"AT": {"#": "0.a_str", "D": name}, "N": "name"},
            {"AT": {"#": "0.a_i32", "D": column}, "N": "col"},
        ],
        "I": [{"%": copied}],
        "O": [{"%": fetched, "TT": raw}],
        "OA": [_flag("persistable", True), _flag("stop_gradient", True)],
    }
    return [assign_op(number, copied, raw), fetch]


def _flag(name: str, value: bool) -> Op:
    return {"AT": {"#": "0.a_array", "D": [{"#": "0.a_bool", "D": value}]}, "N": name}


def renumber(ops: Iterable[Op], numbers: Mapping[int, int]) -> list[Op]:
    """A copy in which the values named by ``numbers``, used or defined, have other numbers."""
    copied = []
    for op in ops:
        new = dict(op)
        if "I" in op:
            new["I"] = [{**entry, "%": numbers.get(entry["%"], entry["%"])} for entry in op["I"]]
        if "O" in op:
            made = [{**entry, "%": numbers.get(entry["%"], entry["%"])} for entry in _outputs(op)]
            new["O"] = made[0] if isinstance(op["O"], dict) else made
        if "regions" in op:
            new["regions"] = [
                {**region, "blocks": [_renumber_block(block, numbers) for block in region["blocks"]]}
                for region in op["regions"]
            ]
        copied.append(new)
    return copied


def _renumber_block(block: Op, numbers: Mapping[int, int]) -> Op:
    hidden = {number for number, _ in arguments(block)}  # an inner block's arguments hide outer ones
    inner = {old: new for old, new in numbers.items() if old not in hidden}
    return {**block, "ops": renumber(block["ops"], inner)}


def with_ops(program: Program, ops: list[Op]) -> Program:
    """A program like ``program`` with other operators in its main block."""
    region = program["program"]["regions"][0]
    block = {**region["blocks"][0], "ops": ops}
    regions = [{**region, "blocks": [block]}]
    return {**program, "program": {**program["program"], "regions": regions}}
