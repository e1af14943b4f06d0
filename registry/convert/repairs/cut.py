"""Dividing a program at the operators that no converter maps.

Such an operator is cut out: what it takes becomes an output of the program, what it gives an input. The rest
is an ordinary program, which a converter takes. The blocks of a branch or a loop become programs of their
own. ``stitch.py`` puts the converted parts together again, with ONNX nodes of our own at the cuts.

Pure: a program in, programs out. Every part keeps all parameters, since a parameter file is read by the order
of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shipway.registry.convert.repairs import pir, pir_make
from shipway.registry.convert.repairs.pir import Op, Type
from shipway.registry.convert.repairs.rules import Program

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Joint:
    """An operator that was cut out. ``takes`` and ``gives`` are names in the ONNX graph, '' where none.

    ``blocks`` are the names of the parts that its branches or its body became, ``constants`` what is known of
    the values it takes, by position. A list of tensors is spread out; ``sizes`` says how many names each
    operand became.
    """

    kind: str
    attributes: Mapping[str, Any]
    takes: tuple[str, ...]
    taken: tuple[Type | None, ...]
    gives: tuple[str, ...]
    given: tuple[Type | None, ...]
    blocks: tuple[str, ...] = ()
    constants: Mapping[int, Any] = field(default_factory=dict[int, Any])
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A program to convert. ``arguments`` and ``results`` are the names that a loop's body is called by."""

    name: str
    program: Program
    joints: tuple[Joint, ...]
    arguments: tuple[str, ...] = ()
    argument_types: tuple[Type, ...] = ()
    results: tuple[str, ...] = ()
    captured: frozenset[str] = frozenset()  # inputs that are values of the part around it


Wanted = Callable[[Op, Mapping[int, Type | None]], bool]


def divide(program: Program, wanted: Wanted) -> tuple[Part, ...]:
    """Cut out every operator that ``wanted`` says, and whatever lies inside them. The main part comes first.

    Raises ``pir.UnknownFormError`` where a cut would run through a list of tensors.
    """
    return tuple(_Divider(program, wanted).parts())


def to_cut(program: Program, wanted: Wanted) -> list[Op]:
    """The operators that ``divide`` would cut out."""
    types = {number: pir.tensor_type(raw) for number, raw in pir.raw_types(program).items()}
    return [op for op in pir.walk(pir.main_block(program)["ops"]) if wanted(op, types)]


class _Divider:
    """What all parts share: types, parameters, constants and fresh numbers."""

    def __init__(self, program: Program, wanted: Wanted) -> None:
        self.program = program
        self.wanted = wanted
        self.raw = pir.raw_types(program)
        self.types = {number: pir.tensor_type(raw) for number, raw in self.raw.items()}
        ops = pir.main_block(program)["ops"]
        self.parameters = [op for op in ops if op["#"] == pir.PARAMETER]
        self.parameter_numbers = {number for op in self.parameters for number in pir.outputs(op)}
        self.constants = {
            number: op for op in pir.walk(ops) if _is_constant(op) for number in pir.outputs(op)
        }
        self.lists = {
            number: pir.inputs(op)
            for op in pir.walk(ops)
            if op["#"] == pir.COMBINE
            for number in pir.outputs(op)
        }
        self.splits = {pir.inputs(op)[0]: op for op in pir.walk(ops) if op["#"] == pir.SPLIT}
        self.used = pir.used(ops)
        self.fresh = pir.fresh_numbers(self.raw)

    def parts(self) -> Iterator[Part]:
        ops = pir.main_block(self.program)["ops"]
        plain = [op for op in ops if op["#"] != pir.PARAMETER]
        yield from _PartBuilder(self, MAIN, {}).build(plain, [], None)

    def copy_type(self, number: int) -> int:
        """A fresh number for a copy of a value."""
        new = next(self.fresh)
        self.raw[new], self.types[new] = self.raw[number], self.types[number]
        return new


def _is_constant(op: Op) -> bool:
    made_of_nothing = not pir.inputs(op) and "regions" not in op and len(pir.outputs(op)) == 1
    return made_of_nothing and op["#"] in ("1.full", "1.full_int_array", "1.assign_value", "1.assign_value_")


def constant_value(op: Op) -> Any:
    """The number or the list that a ``full`` or ``full_int_array`` holds."""
    return pir.attributes(op).get("value")


class _PartBuilder:
    """One part in the making. ``visible`` are the values of the parts around it that have a name already."""

    def __init__(self, shared: _Divider, name: str, visible: Mapping[int, str]) -> None:
        self.shared = shared
        self.name = name
        self.outer = dict(visible)
        self.named: dict[int, str] = {}  # values of this part that a joint takes
        self.ops: list[Op] = []
        self.tail: list[Op] = []
        self.own: set[int] = set(shared.parameter_numbers)
        self.inner: list[Part] = []
        self.captured: set[str] = set()
        self.apart: set[int] = set()  # lists that a joint gives taken apart already
        self.column = 0
        self.imported: dict[int, int] = {}

    def build(
        self, ops: list[Op], arguments: list[tuple[int, Op]], results: list[int] | None
    ) -> Iterator[Part]:
        """This part, then the parts inside it. ``results`` is None for the main one."""
        numbers = {number: self._new_argument(number, raw) for number, raw in arguments}
        ops = pir.renumber(ops, numbers)
        results = None if results is None else [numbers.get(number, number) for number in results]
        argument_names = tuple(f"{self.name}.in.{index}" for index in range(len(arguments)))
        for name, number in zip(argument_names, numbers.values(), strict=True):
            self.ops.append(pir_make.data_op(number, self.shared.raw[number], name))
        self.own |= {*numbers.values(), *(made for op in ops for made in pir.outputs(op))}
        self.column = sum(op["#"] == pir.FETCH for op in ops)
        joints = [joint for op in ops if (joint := self._place(op)) is not None]
        self._copy_fetched()
        result_names = tuple(f"{self.name}.out.{index}" for index in range(len(results or ())))
        self.ops += self.tail
        self._import(results or [])
        for name, number in zip(result_names, results or (), strict=True):
            self._fetch(self.imported.get(number, number), name, self.ops)
        program = pir.with_ops(self.shared.program, [*self.shared.parameters, *self.ops])
        yield Part(
            name=self.name,
            program=program,
            joints=tuple(joints),
            arguments=argument_names,
            argument_types=tuple(pir.known_type(raw) for _, raw in arguments),
            results=result_names,
            captured=frozenset(self.captured),
        )
        yield from self.inner

    def _new_argument(self, number: int, raw: Op) -> int:
        new = next(self.shared.fresh)
        self.shared.raw[new], self.shared.types[new] = raw, pir.tensor_type(raw)
        return new

    def _place(self, op: Op) -> Joint | None:
        """Keep an operator, or cut it out and tell of the joint."""
        if op["#"] == pir.SPLIT and pir.inputs(op)[0] in self.apart:
            return None
        if not self.shared.wanted(op, self.shared.types):
            self.ops.append(op)
            return None
        operands = [self.shared.lists.get(number, [number]) for number in pir.inputs(op)]
        numbers = [number for operand in operands for number in operand]
        takes = [self._name(number) if self._can_take(number) else "" for number in numbers]
        blocks = []
        for block in pir.blocks_of(op):
            for number in self._free(block):
                self._name(number)
            name = f"{self.name}.{len(self.inner)}"
            visible = {**self.outer, **self.named}
            builder = _PartBuilder(self.shared, name, visible)
            self.inner += builder.build(pir.body(block), pir.arguments(block), pir.results(block))
            blocks.append(name)
        gives, given = [], self._given(op)
        for number in given:
            # A name even where nobody uses the value: ONNX Runtime crashes on a Loop whose output has none.
            name = f"cut.{number}.{next(self.shared.fresh)}" if self.shared.types.get(number) else ""
            if pir.is_complex(self.shared.types.get(number)):
                self.named[number] = (
                    name  # what takes it is cut out as well: no converter has complex numbers
                )
            elif number in self.shared.used:
                self.ops.append(pir_make.data_op(number, self.shared.raw[number], name))
            gives.append(name)
        constants = {
            index: constant_value(self.shared.constants[number])
            for index, number in enumerate(numbers)
            if number in self.shared.constants
        }
        return Joint(
            kind=pir.kind(op),
            attributes=pir.attributes(op),
            takes=tuple(takes),
            taken=tuple(self.shared.types.get(number) for number in numbers),
            gives=tuple(gives),
            given=tuple(self.shared.types.get(number) for number in given),
            blocks=tuple(blocks),
            constants=constants,
            sizes=tuple(len(operand) for operand in operands),
        )

    def _given(self, op: Op) -> list[int]:
        """What an operator gives, lists of tensors spread out."""
        spread: list[int] = []
        for number in pir.outputs(op):
            split = self.shared.splits.get(number)
            self.apart |= {number} if split is not None else set()
            spread += pir.outputs(split) if split is not None else [number]
        return spread

    def _can_take(self, number: int) -> bool:
        """Whether there is a value, and one that a converter writes: uint8 (a dropout's state) it can't."""
        type = self.shared.types.get(number)
        return number != 0 and (type is None or type.dtype != "uint8")

    def _copy_fetched(self) -> None:
        """Put a copy between an input and its fetch, where a converter would write neither node nor name."""
        given = {number for op in self.ops if op["#"] == pir.DATA for number in pir.outputs(op)}
        ops: list[Op] = []
        for op in self.ops:
            if op["#"] == pir.FETCH and pir.inputs(op)[0] in given:
                number = pir.inputs(op)[0]
                copied = self.shared.copy_type(number)
                ops.append(pir_make.assign_op(number, copied, self.shared.raw[number]))
                op = {**op, "I": [{"%": copied}]}
            ops.append(op)
        self.ops = ops

    def _free(self, block: Op) -> list[int]:
        """Values that a block takes from around it; parameters and constants it has by itself."""
        inside = pir.defined(block["ops"]) | {number for number, _ in pir.arguments(block)}
        known = inside | self.shared.parameter_numbers | set(self.shared.constants)
        return sorted(pir.used(block["ops"]) - known)

    def _name(self, number: int) -> str:
        """The name under which the ONNX graph knows a value that a joint takes: fetched here, or outside."""
        if number in self.named:
            return self.named[number]
        if number not in self.own and number in self.outer:
            return self.outer[number]
        source = number
        if number not in self.own:
            if number not in self.shared.constants:
                raise pir.UnknownFormError(f"value {number} comes from nowhere")
            source = self._clone(number)
        name = f"take.{number}.{next(self.shared.fresh)}"
        self.named[number] = name
        self._fetch(source, name, self.tail)
        return name

    def _clone(self, number: int) -> int:
        """A constant of another part made again in this one, under a number of its own."""
        new = self.shared.copy_type(number)
        self.ops.insert(0, pir.renumber([self.shared.constants[number]], {number: new})[0])
        self.own.add(new)
        return new

    def _fetch(self, number: int, name: str, into: list[Op]) -> None:
        fresh = (self.shared.copy_type(number), self.shared.copy_type(number))
        into += pir_make.fetch_ops(number, self.shared.raw[number], name, self.column, fresh)
        self.column += 1

    def _import(self, results: list[int]) -> None:
        """Give this part what its operators take from around it: constants made again, the rest as inputs."""
        present = pir.defined(self.ops) | self.shared.parameter_numbers
        missing = sorted((pir.used(self.ops) | set(results)) - present)
        before: list[Op] = []
        for number in missing:
            if number in self.shared.constants:
                new = self.shared.copy_type(number)
                before += pir.renumber([self.shared.constants[number]], {number: new})
            elif number in self.outer:
                new = self.shared.copy_type(number)
                before.append(pir_make.data_op(new, self.shared.raw[number], self.outer[number]))
                self.captured.add(self.outer[number])
            else:
                raise pir.UnknownFormError(f"value {number} comes from nowhere")
            self.imported[number] = new
        self.ops = [*before, *pir.renumber(self.ops, self.imported)]
