"""Operators that paddle2onnx 2.0.1 does not map, or maps wrongly, that standard ONNX operators can say.

The second half of the table of ``cuts.py``, where it is explained.
"""

from __future__ import annotations

from shipway.registry.convert.repairs import (
    emit_algebra,
    emit_fourier,
    emit_index,
    emit_math,
    emit_vision,
    pir,
)
from shipway.registry.convert.repairs.cut_line import UNMAPPED, Cut, Types
from shipway.registry.convert.repairs.pir import Op
from shipway.registry.convert.repairs.stitch import Emit

_PLAIN: dict[str, Emit] = {
    "acosh": emit_math.same("Acosh"),
    "addmm": emit_algebra.emit_addmm,
    "asinh": emit_math.same("Asinh"),
    "atanh": emit_math.same("Atanh"),
    "crop": emit_index.emit_crop,
    "cumprod": emit_math.emit_cumprod,
    "diagonal": emit_algebra.emit_diagonal,
    "fmax": emit_math.but_for_nan("Max"),
    "fmin": emit_math.but_for_nan("Min"),
    "frobenius_norm": emit_math.emit_frobenius_norm,
    "full_batch_size_like": emit_math.emit_full_like,
    "frame": emit_index.emit_frame,
    "heaviside": emit_math.emit_heaviside,
    "index_add": emit_index.emit_index_add,
    "kthvalue": emit_index.emit_kthvalue,
    "label_smooth": emit_math.emit_label_smooth,
    "logit": emit_math.emit_logit,
    "masked_fill": emit_index.emit_masked_fill,
    "maxout": emit_math.emit_maxout,
    "multi_dot": emit_algebra.emit_multi_dot,
    "rrelu": emit_math.emit_rrelu,
    "searchsorted": emit_index.emit_searchsorted,
    "sequence_mask": emit_index.emit_sequence_mask,
    "stanh": emit_math.emit_stanh,
    "trace": emit_algebra.emit_trace,
    "trunc": emit_math.emit_trunc,
    "unpool": emit_vision.emit_unpool,
}
"""Operators without a mapping, whatever their attributes."""

_REDUCTIONS = {
    "any": "ReduceMax",
    "logsumexp": "ReduceLogSumExp",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "prod": "ReduceProd",
    "sum": "ReduceSum",
}

_COMPLEX: dict[str, Emit] = {
    "abs": emit_fourier.emit_abs,
    "add": emit_fourier.elementwise("Add"),
    "angle": emit_fourier.emit_angle,
    "as_complex": emit_fourier.emit_as_is,
    "as_real": emit_fourier.emit_as_is,
    "complex": emit_fourier.emit_complex,
    "conj": emit_fourier.emit_conj,
    "fft_c2c": emit_fourier.emit_c2c,
    "fft_c2r": emit_fourier.emit_c2r,
    "fft_r2c": emit_fourier.emit_r2c,
    "imag": emit_fourier.emit_imag,
    "multiply": emit_fourier.emit_multiply,
    "real": emit_fourier.emit_real,
    "scale": emit_fourier.emit_scale,
    "subtract": emit_fourier.elementwise("Sub"),
    "transpose": emit_fourier.emit_transpose,
}


def _complex(op: Op, types: Types) -> bool:
    """Whether complex numbers go in or come out (an angle or a conjugate is there for real ones too)."""
    return any(pir.is_complex(types.get(number)) for number in (*pir.inputs(op), *pir.outputs(op)))


def _to_scalar(op: Op, types: Types) -> bool:
    """A reduction of several dimensions to none."""
    given, taken = types.get(pir.outputs(op)[0]), types.get(pir.inputs(op)[0])
    return given is not None and taken is not None and given.shape == () and taken.shape != ()


def _not_the_usual_bounds(op: Op, _types: Types) -> bool:
    attributes = pir.attributes(op)
    return (attributes["t_min"], attributes["t_max"]) != (-1.0, 1.0)


def _unusual_norm(op: Op, types: Types) -> bool:
    """All elements as one vector, or another order than 1 and 2."""
    attributes = pir.attributes(op)
    return bool(attributes["asvector"]) or attributes["porder"] not in (1.0, 2.0)


def _mask_or_indices(op: Op, types: Types) -> bool:
    """Masks and integers whose types are known; which forms are understood, ``emit_index_put`` says."""
    x, value = pir.inputs(op)[0], pir.inputs(op)[-1]
    return types.get(x) is not None and types.get(value) is not None


def _four_axes(op: Op, types: Types) -> bool:
    taken = types.get(pir.inputs(op)[0])
    return taken is not None and len(taken.shape) == 4 and pir.attributes(op).get("data_format") == "NCHW"


def _main_diagonal_last(op: Op, types: Types) -> bool:
    attributes = pir.attributes(op)
    given = types.get(pir.outputs(op)[0])
    rank = len(given.shape) if given is not None else 0
    places = [attributes["dim1"] % rank, attributes["dim2"] % rank] if rank else []
    return attributes["offset"] == 0 and places == [rank - 2, rank - 1]


def _dynamic_flip(op: Op, types: Types) -> bool:
    taken = types.get(pir.inputs(op)[0])
    return taken is not None and any(taken.shape[axis] < 0 for axis in pir.attributes(op)["axis"])


def _with_index(op: Op, types: Types) -> bool:
    """Windows that are neither the whole nor adaptive."""
    attributes = pir.attributes(op)
    return not (attributes["global_pooling"] or attributes["adaptive"])


_WRONG = (
    Cut(
        "1.hardtanh",
        "hardtanh-bounds",
        emit_math.emit_hardtanh,
        "paddle2onnx 2.0.1 writes -1 and 1 whatever the bounds: wrong numbers",
        _not_the_usual_bounds,
    ),
    Cut(
        "1.p_norm",
        "norm-order",
        emit_algebra.emit_p_norm,
        "paddle2onnx 2.0.1 takes other orders than 1 and 2 for 2, and the last axis for all: wrong numbers",
        _unusual_norm,
    ),
    Cut(
        "1.dist",
        "distance",
        emit_math.emit_dist,
        "paddle2onnx 2.0.1 gives a dimension of one where there is none",
        lambda op, _types: pir.attributes(op)["p"] == 2.0,
    ),
    Cut(
        "1.unique",
        "unique",
        emit_index.emit_unique,
        "paddle2onnx 2.0.1 writes types that do not fit: does not load",
        lambda op, _types: not pir.attributes(op)["axis"],
    ),
    Cut(
        "1.expand_as",
        "expand-as",
        emit_index.emit_expand_as,
        "paddle2onnx 2.0.1 expands to the shape at saving: does not run where a dimension is dynamic",
        lambda op, types: bool(pir.inputs(op)[1]) and types.get(pir.inputs(op)[1]) is not None,
    ),
    Cut(
        "1.flip",
        "flip-dynamic",
        emit_index.emit_flip,
        "paddle2onnx 2.0.1 aborts where the axis is dynamic",
        _dynamic_flip,
    ),
    Cut(
        "1.max_pool2d_with_index",
        "pool-index",
        emit_vision.emit_max_pool_with_index,
        "paddle2onnx 2.0.1 writes a MaxPool with a hole: does not load",
        _with_index,
    ),
    Cut(
        "1.dot",
        "dot",
        emit_algebra.emit_dot,
        "paddle2onnx 2.0.1 keeps the axis that is summed up: another shape",
    ),
    Cut(
        "1.matmul",
        "matmul-double",
        emit_algebra.emit_matmul,
        "paddle2onnx 2.0.1 makes a transposed float64 float32 and the other not: does not load",
        lambda op, types: (taken := types.get(pir.inputs(op)[0])) is not None and taken.dtype == "float64",
    ),
    Cut(
        "1.set_value_with_tensor",
        "set-all",
        emit_index.emit_set_all,
        "paddle2onnx 2.0.1 aborts where no axis is named",
        lambda op, _types: not pir.attributes(op)["axes"] and not pir.attributes(op)["none_axes"],
    ),
    Cut("1.bilinear", "bilinear-form", emit_algebra.emit_bilinear, "paddle2onnx 2.0.1 aborts on it"),
    Cut("1.cross", "cross", emit_algebra.emit_cross, "paddle2onnx 2.0.1 aborts on it"),
    Cut("1.index_put", "index-put", emit_index.emit_index_put, UNMAPPED, _mask_or_indices),
    Cut("1.channel_shuffle", "channel-shuffle", emit_index.emit_channel_shuffle, UNMAPPED, _four_axes),
    Cut("1.diag_embed", "diag-embed", emit_algebra.emit_diag_embed, UNMAPPED, _main_diagonal_last),
)

MORE = (
    *_WRONG,
    *(Cut(f"1.{kind}", kind.replace("_", "-"), emit, UNMAPPED) for kind, emit in _PLAIN.items()),
    *(
        Cut(
            f"1.{kind}",
            "scalar-reduction",
            emit_math.reduced(operator),
            "paddle2onnx 2.0.1 gives a dimension of one where there is none",
            _to_scalar,
        )
        for kind, operator in _REDUCTIONS.items()
    ),
    *(
        Cut(
            f"1.{kind}",
            "complex-numbers",
            emit,
            "paddle2onnx 2.0.1 has no complex numbers: wrong numbers, or it aborts",
            _complex,
        )
        for kind, emit in _COMPLEX.items()
    ),
)
