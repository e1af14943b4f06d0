"""Reading and writing Paddle 3's ``model.json``, a program in Paddle's intermediate representation (PIR).

A program holds regions of blocks of operators. An operator is ``{"#": kind, "A": attributes, "I": inputs,
"O": outputs, "OA": ..., "regions": [...]}``. Kinds are shortened: ``1.`` is ``pd_op.``, ``0.`` ``builtin.``,
``2.`` ``cf.``, and ``p`` is a parameter. Values have numbers, 0 is none, a block's arguments are negative.
Read from Paddle's serialiser (paddle/fluid/pir/serialize_deserialize, ``ir_serialize.cc``) and from files
that Paddle 3.3.1 wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from shipway.registry.convert.repairs.rules import Program

Op = dict[str, Any]

PARAMETER = "p"
DATA = "1.data"
FETCH = "1.fetch"
COMBINE = "0.combine"
SPLIT = "0.split"
_YIELD = "2.yield"
ALIKE = ("1.assign", "1.scale", FETCH)  # what they give has the type of what they take

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
    "0.t_c64": "complex64",
}


RAW_DTYPES = {dtype: raw for raw, dtype in _DTYPES.items()}


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


def kind(op: Op) -> str:
    """What an operator is; one that works in place (``clip_``) is the same to a graph of values."""
    name: str = op["#"]
    return name.rstrip("_")


def is_complex(type: Type | None) -> bool:
    """Whether a value holds complex numbers, which no converter has."""
    return type is not None and type.dtype == "complex64"


def lists_of(block: Op) -> Iterator[list[Op]]:
    """The list of operators of a block and of every block inside it, the inner ones first."""
    for op in block["ops"]:
        for inner in blocks_of(op):
            yield from lists_of(inner)
    yield block["ops"]


def replace_ops(program: Program, replaced: Callable[[Op], Iterable[Op]]) -> None:
    """Put what ``replaced`` gives of an operator in its place, inside branches and loops too."""
    for ops in lists_of(main_block(program)):
        ops[:] = [new for op in ops for new in replaced(op)]


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
    return [entry["%"] for entry in made(op)]


def made(op: Op) -> list[Op]:
    """What an operator gives, as it is written: numbers and raw types."""
    found = op.get("O", [])
    return [found] if isinstance(found, dict) else found


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
        found.update({entry["%"]: entry["TT"] for entry in made(op)})
        for block in blocks_of(op):
            found.update(arguments(block))
    return found


def fresh_numbers(types: Iterable[int]) -> Iterator[int]:
    """Numbers for new values of a program, given those that it has."""
    return count(max(map(abs, types), default=0) + 1)


def tensor_type(raw: Op) -> Type | None:
    """A raw type read, or None for lists of tensors and the like."""
    if raw.get("#") != "0.t_dtensor" or raw["D"][0]["#"] not in _DTYPES:
        return None
    return Type(_DTYPES[raw["D"][0]["#"]], tuple(raw["D"][1]))


def known_type(raw: Op) -> Type:
    """A raw type read; raises UnknownFormError for what is no dense tensor."""
    type = tensor_type(raw)
    if type is None or is_complex(type):
        raise UnknownFormError("a list of tensors or a complex number crosses a cut")
    return type


def used(ops: Sequence[Op]) -> set[int]:
    """Every value that the operators take, at any depth."""
    return {number for op in walk(ops) for number in inputs(op) if number}


def defined(ops: Sequence[Op]) -> set[int]:
    """Every value that the operators or the blocks inside them define."""
    found: set[int] = set()
    for op in walk(ops):
        found.update(outputs(op))
        found.update(number for block in blocks_of(op) for number, _ in arguments(block))
    return found


def renumber(ops: Iterable[Op], numbers: Mapping[int, int]) -> list[Op]:
    """A copy in which the values named by ``numbers``, used or defined, have other numbers."""
    copied = []
    for op in ops:
        new = dict(op)
        if "I" in op:
            new["I"] = [{**entry, "%": numbers.get(entry["%"], entry["%"])} for entry in op["I"]]
        if "O" in op:
            renamed = [{**entry, "%": numbers.get(entry["%"], entry["%"])} for entry in made(op)]
            new["O"] = renamed[0] if isinstance(op["O"], dict) else renamed
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
