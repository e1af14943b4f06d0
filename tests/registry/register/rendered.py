"""A hundred lines of text as images, and what a recogniser reads in them.

Lines are made from a seed and drawn with Pillow in fonts that matplotlib brings (DejaVu). They come as
PP-OCR's own detector cuts them out of a page, or with a margin of so many columns left and right of the text.
The detector leaves -5 to 5 columns (measured on these lines, at 48 rows), so that a margin of 12 is out of
the ordinary: there a recogniser wavers whether the margin is a space.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

HEIGHT = 48  # rows of the recogniser's input
_PAGE = 160  # rows of a page for the detector
_IMAGENET = (
    (0.485, 0.229),
    (0.456, 0.224),
    (0.406, 0.225),
)  # mean and spread of a channel, as PP-OCR has them
_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_WORDS = (
    "invoice",
    "total",
    "due",
    "date",
    "net",
    "weight",
    "batch",
    "lot",
    "number",
    "serial",
    "made",
    "in",
)


def lines(count: int = 100, seed: int = 3) -> list[str]:
    """Words, codes, dates and amounts, 6 to 24 characters each."""
    chance = random.Random(seed)
    made = []
    for index in range(count):
        code = "".join(chance.choices(_LETTERS, k=chance.randint(6, 14)))
        words = " ".join(chance.sample(_WORDS, 3)).capitalize()
        date = f"20{chance.randint(10, 30)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        amount = f"{chance.choice(['Total', 'Net', 'VAT'])}: {chance.randint(1, 99999) / 100:.2f}"
        made.append((code, words, date, amount)[index % 4])
    return made


def image(text: str, index: int, margin: int) -> np.ndarray:
    """``text`` as the recogniser wants it: float32 [1, 3, 48, W], from -1 to 1."""
    return _scaled(_page(text, index, margin, HEIGHT))


def crop(text: str, index: int, detector: Any) -> np.ndarray:
    """The same, but for that ``detector`` (a session of PP-OCR's) found the text on a page and cut it out.

    Thresholds and the growing of boxes are PP-OCR's defaults: 0.3, and area times 1.5 over the outline
    (``unclip`` in PaddleOCR's ppocr/postprocess/db_postprocess.py), here for boxes that are not turned.
    """
    page = _page(text, index, 60, _PAGE)
    page = np.pad(page, ((0, 0), (0, -page.shape[1] % 32)), mode="edge")
    channels = [(page / 255 - mean) / spread for mean, spread in _IMAGENET]
    found = detector.run(None, {detector.get_inputs()[0].name: np.stack(channels)[None].astype(np.float32)})
    seen, _ = ndimage.label(found[0][0, 0] > 0.3)
    parts = [part for part in ndimage.find_objects(seen) if part[0].stop - part[0].start >= 3]
    top, left = (min(part[axis].start for part in parts) for axis in (0, 1))
    bottom, right = (max(part[axis].stop for part in parts) for axis in (0, 1))
    assert top < _PAGE // 2 < bottom  # it found the text
    width, height = right - left, bottom - top
    more = width * height * 1.5 / (2 * (width + height))
    box = [round(edge) for edge in (left - more, top - more, right + more, bottom + more)]
    cut = Image.fromarray(page.astype(np.uint8)).crop((box[0], box[1], box[2], box[3]))
    size = (max(1, round(cut.width * HEIGHT / cut.height)), HEIGHT)
    return _scaled(np.asarray(cut.resize(size, Image.Resampling.BILINEAR), np.float32))


def _page(text: str, index: int, margin: int, height: int) -> np.ndarray:
    """Grey levels [height, W], with some noise; font, size and colours go by ``index``."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / _FONTS[index % len(_FONTS)]), 28 + index % 7)
    left, _, right, _ = font.getbbox(text)
    ground, ink = ((235, 20), (40, 220), (200, 60))[index % 3]
    page = Image.new("L", (int(right - left) + 2 * margin, height), ground)
    ImageDraw.Draw(page).text((margin - left, height // 2), text, fill=ink, font=font, anchor="lm")
    grey = np.asarray(page, np.float32)
    noise = np.random.default_rng(index).normal(0, 6, grey.shape).astype(np.float32)
    return np.clip(grey + noise, 0, 255)


def _scaled(grey: np.ndarray) -> np.ndarray:
    scaled = (grey / 255 - 0.5) / 0.5
    return np.ascontiguousarray(np.broadcast_to(scaled, (1, 3, *scaled.shape)), np.float32)


def read(session: Any, dictionary: Sequence[str], picture: np.ndarray) -> str:
    """The likeliest text by CTC's greedy rule, spaces too: class 0 is the blank, the last one the space."""
    scores = session.run(None, {session.get_inputs()[0].name: picture})[0][0]
    best = scores.argmax(-1)
    signs = ["", *dictionary, " "]
    assert scores.shape[-1] == len(signs)
    return "".join(signs[now] for before, now in zip([0, *best], best, strict=False) if now != before)
