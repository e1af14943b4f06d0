"""A hundred lines of text as images, and what a recogniser reads in them.

Lines are made from a seed and drawn with Pillow in a font that matplotlib brings (DejaVu Sans and Mono).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

HEIGHT = 48  # rows of the recogniser's input
_FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf")
_MARGIN = 5  # columns left and right of the text, as a detector cuts lines out
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


def image(text: str, index: int) -> np.ndarray:
    """``text`` as the recogniser wants it: float32 [1, 3, 48, W], from -1 to 1."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / _FONTS[index % len(_FONTS)]), 28 + index % 7)
    left, _, right, _ = font.getbbox(text)
    ground, ink = ((235, 20), (40, 220), (200, 60))[index % 3]
    page = Image.new("L", (int(right - left) + 2 * _MARGIN, HEIGHT), ground)
    ImageDraw.Draw(page).text((_MARGIN - left, HEIGHT // 2), text, fill=ink, font=font, anchor="lm")
    grey = np.asarray(page, np.float32)
    noise = np.random.default_rng(index).normal(0, 6, grey.shape).astype(np.float32)
    scaled = (np.clip(grey + noise, 0, 255) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(np.broadcast_to(scaled, (1, 3, *scaled.shape)), np.float32)


def read(session: Any, dictionary: Sequence[str], picture: np.ndarray) -> str:
    """The likeliest text by CTC's greedy rule: class 0 is the blank, the last one the space.

    Spaces at the ends are no text: they are the margin.
    """
    scores = session.run(None, {session.get_inputs()[0].name: picture})[0][0]
    best = scores.argmax(-1)
    signs = ["", *dictionary, " "]
    assert scores.shape[-1] == len(signs)
    kept = [now for before, now in zip([0, *best], best, strict=False) if now != before]
    return "".join(signs[index] for index in kept).strip()
