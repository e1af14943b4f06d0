"""Operators of a program, written as Paddle 3.3 writes them."""

from __future__ import annotations

from collections.abc import Sequence

from shipway.registry.convert.repairs.pir import DATA, FETCH, RAW_DTYPES, Op, known_type


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


def with_int_array(op: Op, position: int, values: Sequence[int], number: int) -> list[Op]:
    """An operator that takes a constant list, called ``number``, at ``position``; the list comes first."""
    op["I"][position]["%"] = number
    return [int_array_op(number, values), op]


def full_op(number: int, value: float, dtype: str) -> Op:
    """A constant scalar."""
    raw = {"#": "0.t_dtensor", "D": [{"#": RAW_DTYPES[dtype]}, [], "NCHW", [], 0]}
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


def permuted(raw: Op, perm: Sequence[int]) -> Op:
    """A raw type with its dimensions in another order."""
    kind, shape, *rest = raw["D"]
    return {**raw, "D": [kind, [shape[axis] for axis in perm], *rest]}


def transpose_op(x: int, made: int, perm: Sequence[int], raw: Op) -> Op:
    """A transposition of a value of type ``raw``."""
    return {
        "#": "1.transpose",
        "A": [
            {"AT": {"#": "0.a_array", "D": [{"#": "0.a_i32", "D": axis} for axis in perm]}, "N": "perm"},
        ],
        "I": [{"%": x}],
        "O": [{"%": made, "TT": permuted(raw, perm)}],
        "OA": [_flag("stop_gradient", False)],
    }


def split_op(whole: int, numbers: Sequence[int], raws: Sequence[Op]) -> Op:
    """A list of tensors taken apart."""
    flags = [{"#": "0.a_bool", "D": False} for _ in numbers]
    return {
        "#": "0.split",
        "A": [],
        "I": [{"%": whole}],
        "O": [{"%": number, "TT": raw} for number, raw in zip(numbers, raws, strict=True)],
        "OA": [{"AT": {"#": "0.a_array", "D": flags}, "N": "stop_gradient"}],
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
