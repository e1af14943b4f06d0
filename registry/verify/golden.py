"""Golden inputs: made from a seed or read from the user's samples.

Made pictures, and other large tensors, lie on a grid of 256 levels with a power-of-two step, so that a bundle
can carry them as bytes and every language decodes the same floats. Other floats do not: among so few levels
many values tie, of which a sort, a k-th smallest or a suppression of boxes may take either and be right, and
some are round thresholds (0.5) exactly.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipway.registry.errors import ConversionError, UsageError
from shipway.registry.nouns import TensorSpec
from shipway.registry.verify.parity import Array

Case = dict[str, Array]
"""One call of the model: its inputs by name."""

GRID_STEP = 2.0**-7  # floats are (q - 128) * GRID_STEP: -1 to 0.992, the range of normalised images
GRID_ZERO = 128
CONTRASTS = (10, 20, 40, 80)  # levels: of the pictures that are made
OFF_GRID = 1 << 15  # elements: so many floats take 128 KB in a bundle, less than a picture of 224 x 224
ONES = (1, 2)
RANGES = ((0, 4), (1, 10), (0, 2), ONES)
"""Low and high (exclusive) of whole numbers whose meaning is not known: where the trained model refuses one
(a division by zero, an index too high, more boxes than there are) it may run on another."""
MAX_SAMPLES = 64  # more say little more and take long
_APART = 1000  # seeds: more than there are golden cases

_IMAGE_SIZES = (64, 224, 256, 320, 512, 640)  # multiples of 32, as detectors want; small first
_IMAGE_WIDTHS = (
    96,
    *_IMAGE_SIZES[1:],
)  # unlike the height at first: so an output's axis shows what it follows
_WIDTHS = (160, 320, 64, 224)  # of text lines and the like, where the height is fixed
_LENGTHS = (16, 32, 128, 8)
_OTHER = (4, 8, 16, 1)


def parse_input(text: str) -> TensorSpec:
    """Read ``NAME:DTYPE:SHAPE``, the shape as ``1x3x48x320`` or ``1,3,48,320``; a name or ``?`` for a dynamic
    dimension. Raises UsageError."""
    name, _, rest = text.rpartition(":")
    name, _, dtype = name.rpartition(":")
    parts = rest.replace(",", "x").split("x") if rest else []
    shape: list[int | str] = []
    for part in parts:
        if part.isascii() and part.isdigit() and int(part) > 0:
            shape.append(int(part))
        elif part in ("?", "-1"):
            shape.append("?")
        elif part.isidentifier():
            shape.append(part)
        else:
            shape = []
            break
    try:
        known = bool(dtype) and np.dtype(dtype).kind in "fiub"
    except TypeError:
        known = False
    if not (name and known and shape):
        raise UsageError(
            f"{text!r} is not an input.",
            remedy="Write NAME:DTYPE:SHAPE, as in x:float32:1x3x48x320 ('?' or a name where it may vary).",
        )
    return TensorSpec(name, str(np.dtype(dtype)), tuple(shape))


def check_inputs(asked: Sequence[TensorSpec], inputs: Sequence[TensorSpec]) -> None:
    """Raise UsageError where ``--input`` names no input of the model or contradicts it."""
    by_name = {spec.name: spec for spec in inputs}
    for spec in asked:
        real = by_name.get(spec.name)
        if real is None:
            problem = f"it has {', '.join(by_name)}"
        elif real.dtype != spec.dtype:
            problem = f"{spec.name} is {real.dtype}, not {spec.dtype}"
        elif len(real.shape) != len(spec.shape) or any(
            isinstance(have, int) and isinstance(want, int) and have != want
            for have, want in zip(real.shape, spec.shape, strict=True)
        ):
            problem = f"{spec.name} has the shape {'x'.join(map(str, real.shape))}"
        else:
            continue
        raise UsageError(
            f"--input {spec.name}:{spec.dtype}:{'x'.join(map(str, spec.shape))} does not fit the model.",
            why=f"Of the model: {problem}.",
            remedy="Name an input of the model; only dynamic dimensions can be fixed.",
        )


def axis_sizes(inputs: Sequence[TensorSpec]) -> Iterator[dict[str, int]]:
    """Sizes to try for the dynamic axes, by name, small ones first; the first that the model runs is meant.

    A model without dynamic axes gets one empty choice.
    """
    kinds: dict[str, tuple[int, ...]] = {}
    for spec in inputs:
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str):
                kinds.setdefault(size, _sizes(spec, axis))
    tries = max((len(sizes) for sizes in kinds.values()), default=1)
    for attempt in range(tries):
        yield {name: sizes[min(attempt, len(sizes) - 1)] for name, sizes in kinds.items()}


def _sizes(spec: TensorSpec, axis: int) -> tuple[int, ...]:
    if axis == 0 or spec.shape[axis] == "N":
        return (1,)
    if len(spec.shape) == 4 and axis in (1, 2, 3):
        if axis == 1 and isinstance(spec.shape[3], str):
            return (3, 1, 4)
        if any(isinstance(size, int) and size > 4 for size in spec.shape[1:]):
            return _WIDTHS
        return _IMAGE_WIDTHS if axis == 3 or isinstance(spec.shape[3], int) else _IMAGE_SIZES
    if axis == 1 and len(spec.shape) == 3 and isinstance(spec.shape[0], int):
        return (*_LENGTHS, 1)  # last: of the first states of an LSTM it is the batch
    return _LENGTHS if len(spec.shape) in (2, 3) and axis == 1 else _OTHER


def is_picture(spec: TensorSpec) -> bool:
    """Whether an input looks like images: floats in NCHW with one, three or four channels."""
    return spec.dtype.startswith("float") and len(spec.shape) == 4 and spec.shape[1] in (1, 3, 4)


def larger(sizes: Mapping[str, int]) -> dict[str, int] | None:
    """The next sizes up from those that the model ran: batches of two, everything else twice as large."""
    return {name: size * 2 for name, size in sizes.items()} or None


def make_case(
    inputs: Sequence[TensorSpec],
    sizes: Mapping[str, int],
    *,
    seed: int,
    limits: Mapping[str, int] | None = None,
    contrast: int | None = None,
    whole: tuple[int, int] = RANGES[0],
) -> Case:
    """One case from ``seed``. ``sizes`` by axis name; ``limits`` bounds ids (exclusive) by input; ``whole``
    is the range of ``counts``.

    With ``contrast`` (1 to 120 levels) image-like inputs hold lines of made-up letters instead of noise, for
    models that see nothing in noise. Raises ConversionError where one does not fit into memory.
    """
    case: Case = {}
    for spec in inputs:
        shape = tuple(size if isinstance(size, int) else sizes[size] for size in spec.shape)
        random = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
        try:
            case[spec.name] = _values(spec, shape, random, (limits or {}).get(spec.name), contrast, whole)
        except MemoryError:
            raise ConversionError(
                f"No input of the shape {'x'.join(map(str, shape))} can be made for {spec.name!r}.",
                why="It takes more memory than there is.",
                remedy="Check the shapes that the model was saved with.",
            ) from None
    return case


def counts(inputs: Sequence[TensorSpec], limits: Mapping[str, int]) -> list[str]:
    """The inputs of whole numbers of which nothing tells the range: no table, no name."""
    whole = (spec for spec in inputs if np.dtype(spec.dtype).kind in "iu")
    return [s.name for s in whole if not limits.get(s.name) and not _has_two_values(s) and not _is_size(s)]


def range_of(names: Sequence[str], cases: Sequence[Case]) -> tuple[int, int]:
    """Low and high (exclusive) of what ``cases`` hold for these inputs of whole numbers."""
    held = [case[name] for case in cases for name in names if case[name].size]
    if not held:
        return RANGES[0]
    return min(int(array.min()) for array in held), 1 + max(int(array.max()) for array in held)


def _has_two_values(spec: TensorSpec) -> bool:
    return "mask" in spec.name.lower() or "type" in spec.name.lower()


def _is_size(spec: TensorSpec) -> bool:
    """Whether it is the height and width of an image in pixels, as PaddleDetection's exports take them."""
    named = spec.name.lower() in ("im_shape", "im_size", "img_size", "image_size", "size")
    fits = len(spec.shape) == 2 and spec.shape[1] == 2 and np.dtype(spec.dtype).itemsize > 1
    return spec.name == "im_shape" or (named and fits)


def to_round_for(
    inputs: Sequence[TensorSpec],
    sizes: Mapping[str, int],
    limits: Mapping[str, int],
    *,
    seed: int,
    whole: tuple[int, int] = RANGES[0],
) -> list[Case]:
    """Eight cases, none of them a golden one made from ``seed``: lines of made-up letters, faint to strong,
    where the model takes pictures (nearer to what it is given than noise is), else noise."""
    first = seed if any(is_picture(spec) for spec in inputs) else seed + _APART
    return [
        make_case(inputs, sizes, seed=first + index, limits=limits, contrast=contrast, whole=whole)
        for index, contrast in enumerate(2 * CONTRASTS)
    ]


def _values(
    spec: TensorSpec,
    shape: tuple[int, ...],
    random: np.random.Generator,
    limit: int | None,
    contrast: int | None,
    whole: tuple[int, int],
) -> Array:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "b":
        return np.asarray(random.integers(0, 2, shape), dtype=bool)
    if dtype.kind in "iu" and (limit or not _is_size(spec)):
        low, high = (0, limit) if limit else (0, 2) if _has_two_values(spec) else whole
        return np.asarray(random.integers(low, high, shape), dtype=dtype)
    if spec.name == "scale_factor":  # of PaddleDetection's exports: how much the image was resized
        return np.ones(shape, dtype)
    if _is_size(spec):
        return np.full(shape, 320, dtype)
    if contrast is not None and is_picture(spec):
        grid = _picture(shape, random, contrast)
    elif not is_picture(spec) and math.prod(shape) <= OFF_GRID:
        return np.asarray(random.uniform(-1, 1, shape), dtype=dtype)
    else:
        grid = random.integers(0, 256, shape)
    return np.asarray((grid.astype(np.float32) - GRID_ZERO) * np.float32(GRID_STEP), dtype=dtype)


def _picture(shape: tuple[int, ...], random: np.random.Generator, contrast: int) -> NDArray[np.int64]:
    """Lines of made-up letters (strokes 3 pixels thick), dark on light ground, alike in all channels.

    Detectors and recognisers of text see something in them, and classifiers edges and corners.
    """
    batch, _, height, width = shape
    grid = np.full(shape, GRID_ZERO + contrast, dtype=np.int64)
    tall = min(20, max(3, height - 4))
    for item in range(batch):
        for top in range(max(0, (min(height, 48) - tall) // 2), height - tall + 1, 2 * tall):
            for left in range(4, width - 12, 14):
                page = grid[item, :, top : top + tall, left : left + 11]
                for stroke in random.permutation(4)[: int(random.integers(2, 4))]:
                    if stroke < 2:
                        page[:, :, 8 * stroke : 8 * stroke + 3] = GRID_ZERO - contrast
                    else:
                        at = int(random.integers(0, max(1, tall - 3)))
                        page[:, at : at + 3, :] = GRID_ZERO - contrast
    noisy: NDArray[np.int64] = np.clip(grid + random.integers(-2, 3, shape), 0, 255)
    return noisy


def read_samples(path: Path, inputs: Sequence[TensorSpec]) -> list[Case]:
    """The user's samples: one ``.npz`` (arrays by input name) or ``.npy`` (for the only input) a case.

    ``path`` is a file or a folder of them, taken in the order of their names, at most ``MAX_SAMPLES``.
    Raises UsageError where they do not fit the model.
    """
    if not path.exists():
        raise UsageError(
            f"There is no {path}.", remedy="--samples takes .npz or .npy files, or a folder of them."
        )
    paths = _samples_at(path)
    if not paths or not paths[0].is_file():
        raise UsageError(f"{path} holds no samples.", remedy="Give .npz or .npy files, or a folder of them.")
    return [_read_sample(p, inputs) for p in paths[:MAX_SAMPLES]]


def left_out(path: Path) -> int:
    """How many of the samples at ``path`` are not taken, because there are so many."""
    return max(0, len(_samples_at(path)) - MAX_SAMPLES)


def _samples_at(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix in (".npz", ".npy")) if path.is_dir() else [path]


def _read_sample(path: Path, inputs: Sequence[TensorSpec]) -> Case:
    try:
        with path.open("rb") as stream:  # NumPy leaves open what it can't read
            loaded = np.load(stream, allow_pickle=False)
            arrays = {inputs[0].name: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # of a damaged file NumPy, zipfile and zlib raise what they like
        raise UsageError(
            f"{path} can't be read as samples.",
            why=f"{type(error).__name__}: {error}",
            remedy="Save each case with numpy.savez, or with numpy.save where there is one input.",
        ) from error
    case: Case = {}
    for spec in inputs:
        if spec.name not in arrays:
            raise UsageError(
                f"{path} has no array called {spec.name!r}.",
                why=f"It holds {', '.join(arrays)}; the model reads {', '.join(s.name for s in inputs)}.",
                remedy="Save each case with numpy.savez(file, **{input name: array}).",
            )
        array = arrays[spec.name]
        fits = array.ndim == len(spec.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or not np.can_cast(array.dtype, np.dtype(spec.dtype), "same_kind"):
            raise UsageError(
                f"{path}: {spec.name!r} does not fit the model.",
                why=f"It is {array.dtype} {list(array.shape)}, not {spec.dtype} {list(spec.shape)}.",
                remedy="Save it as the model takes it, or say with --input what else the model takes.",
            )
        case[spec.name] = np.ascontiguousarray(array, dtype=np.dtype(spec.dtype))
    return case
