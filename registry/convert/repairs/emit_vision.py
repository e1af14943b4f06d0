"""Operators on images and boxes that converters do not map, or map wrongly, in standard ONNX operators."""

from __future__ import annotations

import numpy as np

from shipway.registry.convert.repairs.emit import Emitter


def _known(emit: Emitter, position: int) -> tuple[int, ...]:
    """The shape of a joint's input, -1 where a dimension is dynamic."""
    taken = emit.joint.taken[position]
    if taken is None:
        raise ValueError(f"{emit.joint.kind} without its input {position}")
    return taken.shape


def emit_deformable_conv(emit: Emitter) -> None:
    """Deformable convolution (v1, and v2 with a mask; https://arxiv.org/abs/1811.11168).

    ONNX's DeformConv needs opset 19 and a runtime that has it; this takes GridSample (opset 16): each of the
    kernel's taps is sampled on its own, the taps laid out as an image of kernel-sized tiles, and an ordinary
    convolution whose stride is the kernel's size sums them up.

    Offsets are (batch, groups * taps * 2, rows, columns), vertical before horizontal; the mask has one
    value a tap.
    """
    x, offset, weight, mask = emit.joint.takes
    attributes = emit.joint.attributes
    groups = int(attributes["deformable_groups"])
    high, wide = _known(emit, 2)[2:]
    channels = _known(emit, 0)[1]
    step, pad, dilation = (attributes[key] for key in ("strides", "paddings", "dilations"))
    rows, columns = emit.shape(offset, 2), emit.shape(offset, 3)
    places = []
    for axis, taps, size in ((0, high, rows), (1, wide, columns)):
        moved = emit.reshape(offset, -1, high * wide, 2, rows, columns)
        moved = emit.node("Gather", moved, emit.constant(axis), axis=2)
        moved = emit.reshape(moved, -1, high, wide, rows, columns)
        outputs = emit.node("Range", emit.constant(0), emit.squeeze(size), emit.constant(1))
        outputs = emit.cast(emit.node("Mul", outputs, emit.constant(step[axis])), "float32")
        shape = [1, 1, 1, -1, 1] if axis == 0 else [1, 1, 1, 1, -1]
        base = emit.node("Reshape", outputs, emit.constant(shape))
        start = np.arange(taps) * dilation[axis] - pad[axis]
        start = start.reshape((1, taps, 1, 1, 1) if axis == 0 else (1, 1, taps, 1, 1))
        place = emit.node("Add", moved, emit.node("Add", base, emit.constant(start, np.float32)))
        # GridSample's coordinates run from -1 to 1 over the outer edges of the pixels (align_corners=0)
        length = emit.cast(emit.shape(x, 2 + axis), "float32")
        place = emit.node("Add", emit.node("Mul", place, emit.constant(2.0, np.float32)), _one(emit))
        places.append(emit.node("Sub", emit.node("Div", place, length), _one(emit)))
    axes = emit.constant([-1])
    grid = emit.node("Concat", *(emit.node("Unsqueeze", place, axes) for place in reversed(places)), axis=-1)
    grid = emit.node("Transpose", grid, perm=[0, 3, 1, 4, 2, 5])
    tall = emit.node("Mul", rows, emit.constant([high]))
    broad = emit.node("Mul", columns, emit.constant([wide]))
    grid = emit.reshape(grid, -1, tall, broad, 2)
    image = emit.reshape(x, -1, channels // groups, emit.shape(x, 2), emit.shape(x, 3))
    sampled = emit.node(
        "GridSample", image, grid, mode="linear" if emit.opset >= 20 else "bilinear", align_corners=0
    )
    if mask:
        weights = emit.reshape(mask, -1, high, wide, rows, columns)
        weights = emit.node("Transpose", weights, perm=[0, 3, 1, 4, 2])
        sampled = emit.node("Mul", sampled, emit.reshape(weights, -1, 1, tall, broad))
    tiles = emit.reshape(sampled, -1, channels, tall, broad)
    kernel = {"kernel_shape": [high, wide], "strides": [high, wide]}
    emit.result("Conv", tiles, weight, group=int(attributes["groups"]), **kernel)


def _one(emit: Emitter) -> str:
    return emit.constant(1.0, np.float32)


def emit_affine_grid(emit: Emitter) -> None:
    """``affine_grid``: theta (batch, 2, 3) and a size (batch, channels, rows, columns) to a sampling grid."""
    theta, size = emit.joint.takes
    aligned = bool(emit.joint.attributes["align_corners"])
    lines = []
    for axis in (3, 2):
        length = emit.node("Gather", emit.cast(size, "int64"), emit.constant(axis), axis=0)
        steps = emit.cast(emit.node("Range", emit.constant(0), length, emit.constant(1)), "float32")
        length = emit.cast(length, "float32")
        two = emit.constant(2.0, np.float32)
        if aligned:
            scaled = emit.node("Div", emit.node("Mul", steps, two), emit.node("Sub", length, _one(emit)))
        else:
            middle = emit.node("Add", emit.node("Mul", steps, two), _one(emit))
            scaled = emit.node("Div", middle, length)
        lines.append(emit.node("Sub", scaled, _one(emit)))
    across = emit.node("Reshape", lines[0], emit.constant([1, -1, 1]))
    down = emit.node("Reshape", lines[1], emit.constant([-1, 1, 1]))
    zero = emit.node("Mul", emit.node("Add", across, down), emit.constant(0.0, np.float32))
    points = [emit.node("Add", value, zero) for value in (across, down)]
    grid = emit.node("Concat", *points, emit.node("Add", zero, _one(emit)), axis=2)
    rows, columns = emit.shape(grid, 0), emit.shape(grid, 1)
    flat = emit.node("Reshape", grid, emit.constant([1, -1, 3]))
    moved = emit.node("MatMul", flat, emit.node("Transpose", theta, perm=[0, 2, 1]))
    emit.give(emit.reshape(moved, -1, rows, columns, 2))


def emit_pixel_unshuffle(emit: Emitter) -> None:
    """Space to depth with the channel outermost, which is not the order of ONNX's SpaceToDepth."""
    (x,) = emit.joint.takes
    factor = int(emit.joint.attributes["downscale_factor"])
    channels = _known(emit, 0)[1]
    rows, columns = (emit.node("Div", emit.shape(x, axis), emit.constant([factor])) for axis in (2, 3))
    split = emit.reshape(x, -1, channels, rows, factor, columns, factor)
    split = emit.node("Transpose", split, perm=[0, 1, 3, 5, 2, 4])
    emit.give(emit.reshape(split, -1, channels * factor * factor, rows, columns))


def emit_roi_align(emit: Emitter) -> None:
    """RoiAlign. How many boxes each image has becomes the image's number of each box.

    ``aligned`` moves the boxes by half a pixel, which ONNX calls half_pixel (opset 16).
    """
    x, boxes, counts = emit.joint.takes
    attributes = emit.joint.attributes
    total = emit.squeeze(emit.shape(boxes, 0))
    places = emit.node("Range", emit.constant(0), total, emit.constant(1))
    ends = emit.node("CumSum", emit.cast(counts, "int64"), emit.constant(0))
    columns = emit.node("Reshape", places, emit.constant([-1, 1]))
    past = emit.cast(emit.node("GreaterOrEqual", columns, ends), "int64")
    images = emit.reduce("ReduceSum", past, [1], keep=False)
    emit.result(
        "RoiAlign",
        x,
        boxes,
        images,
        coordinate_transformation_mode="half_pixel" if attributes["aligned"] else "output_half_pixel",
        output_height=int(attributes["pooled_height"]),
        output_width=int(attributes["pooled_width"]),
        sampling_ratio=max(int(attributes["sampling_ratio"]), 0),
        spatial_scale=float(attributes["spatial_scale"]),
    )


def emit_circular_pad(emit: Emitter) -> None:
    """Padding with what lies at the other end, axis by axis; ONNX has it from opset 19 only (mode wrap).

    Paddings come from the last axis to the first, before and after.
    """
    value = emit.joint.takes[0]
    paddings = emit.joint.constants.get(1)
    if paddings is None:
        raise ValueError("circular padding by numbers that are not known beforehand")
    for index in range(0, len(paddings), 2):
        axis = 4 - index // 2
        before, after = paddings[index], paddings[index + 1]
        axes, most = emit.constant([axis]), emit.constant([np.iinfo(np.int64).max])
        pieces = [value]
        if before:
            pieces.insert(0, emit.node("Slice", value, emit.constant([-before]), most, axes))
        if after:
            pieces.append(emit.node("Slice", value, emit.constant([0]), emit.constant([after]), axes))
        value = emit.node("Concat", *pieces, axis=axis) if len(pieces) > 1 else value
    emit.give(value)


def emit_adaptive_average(emit: Emitter) -> None:
    """Adaptive average pooling to a size that does not divide the input's, as two products with matrices.

    Window i of n over a length m is [floor(i m / n), ceil((i + 1) m / n)); converters use equal strides,
    which gives other numbers. The matrices are constants where the input's size is known, else made as it is.
    """
    x = emit.joint.takes[0]
    given = emit.joint.given[0]
    sizes = given.shape[2:] if given is not None else ()
    matrices = []
    for axis, (count, length) in enumerate(zip(sizes, _known(emit, 0)[2:], strict=True), 2):
        if length > 0:
            matrices.append(emit.constant(_windows(count, length), np.float32))
        else:
            matrices.append(_windows_of(emit, count, emit.squeeze(emit.shape(x, axis))))
    across = emit.node("MatMul", x, emit.node("Transpose", matrices[1], perm=[1, 0]))
    emit.give(emit.node("MatMul", matrices[0], across))


def _windows_of(emit: Emitter, count: int, length: str) -> str:
    """``_windows`` for a length that only the run knows."""
    first = emit.constant(np.arange(count).reshape(-1, 1))
    begin = emit.node("Div", emit.node("Mul", first, length), emit.constant(count))
    after = emit.node("Mul", emit.node("Add", first, emit.constant(1)), length)
    end = emit.node("Div", emit.node("Add", after, emit.constant(count - 1)), emit.constant(count))
    places = emit.node("Range", emit.constant(0), length, emit.constant(1))
    inside = emit.node("And", emit.node("GreaterOrEqual", places, begin), emit.node("Less", places, end))
    many = emit.cast(emit.node("Sub", end, begin), "float32")
    return emit.node("Div", emit.cast(inside, "float32"), many)


def _windows(count: int, length: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    matrix = np.zeros((count, length))
    for window in range(count):
        begin, end = window * length // count, -((window + 1) * length // -count)
        matrix[window, begin:end] = 1 / (end - begin)
    return matrix


def emit_max_pool_with_index(emit: Emitter) -> None:
    """Max pooling, and where in its channel each largest value stood (rows * columns of the input).

    ONNX counts through the whole tensor, so what is left over the size of a channel is taken.
    """
    (x,) = emit.joint.takes
    attributes = emit.joint.attributes
    high, wide = attributes["paddings"]
    window = {
        "kernel_shape": list(attributes["kernel_size"]),
        "strides": list(attributes["strides"]),
        "pads": [high, wide, high, wide],
        "ceil_mode": int(attributes["ceil_mode"]),
    }
    largest, places = emit.many("MaxPool", [x], 2, **window)
    area = emit.node("Mul", emit.shape(x, 2), emit.shape(x, 3))
    given = emit.joint.given[1]
    dtype = given.dtype if given is not None else "int32"
    emit.give(largest, emit.cast(emit.node("Mod", places, area), dtype))


def emit_unpool(emit: Emitter) -> None:
    """Values put back where max pooling found them, zeros elsewhere."""
    x, places, size = emit.joint.takes
    rows, columns = (
        emit.node("Slice", emit.cast(size, "int64"), emit.constant([begin]), emit.constant([begin + 1]))
        for begin in (0, 1)
    )
    batch, channels = emit.shape(x, 0), emit.shape(x, 1)
    area = emit.node("Mul", rows, columns)
    shape = emit.node("Concat", batch, channels, area, axis=0)
    empty = emit.node("Expand", emit.constant(0.0, np.float32), shape)
    flat = emit.reshape(x, batch, channels, -1)
    at = emit.reshape(emit.cast(places, "int64"), batch, channels, -1)
    filled = emit.node("ScatterElements", empty, at, flat, axis=2)
    emit.give(emit.reshape(filled, batch, channels, rows, columns))
