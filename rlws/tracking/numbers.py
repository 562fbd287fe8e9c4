"""Numbers beside a picture of an environment, for films."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WIDTH, LINE, LEAST = 220, 20, 240  # of the panel, of a line in it; height of the smallest picture
SHOWN = 12  # bars at most
INK, PALE, BAR = (30, 30, 30), (225, 225, 225), (0, 114, 178)


def beside(
    picture: np.ndarray, numbers: Mapping[str, float], bars: Mapping[str, Sequence[float]]
) -> np.ndarray:
    """Returns a picture with a panel of numbers to its right, uint8 [H, W, 3].

    Args:
      picture: uint8 [h, w, 3]; one that is low is enlarged by a whole factor.
      numbers: lines of text, by name.
      bars: numbers to compare, by name: from 0, or the smallest if that is negative, to the
        largest, or 1 if all are probabilities.
    """
    from PIL import Image, ImageDraw, ImageFont  # matplotlib's, as the font is

    scale = -(-LEAST // len(picture))
    picture = np.asarray(picture).repeat(scale, 0).repeat(scale, 1)
    image = Image.new("RGB", (picture.shape[1] + WIDTH, len(picture)), "white")
    image.paste(Image.fromarray(picture), (0, 0))
    draw, left, top = ImageDraw.Draw(image), picture.shape[1] + 12, 10
    font: Any = ImageFont.truetype(_font(), 13)
    for name, value in numbers.items():
        draw.text((left, top), f"{name}  {value:.4g}", INK, font)
        top += LINE
    for name, values in bars.items():
        draw.text((left, top), name, INK, font)
        top += LINE
        low, high = min(0.0, *values), max(values)
        high = 1.0 if low == 0.0 and high <= 1.0 else high
        for i, value in enumerate(values[:SHOWN]):
            full = WIDTH - 90
            share = (value - low) / (high - low) if high > low else 0.0
            draw.rectangle((left, top + 3, left + full, top + LINE - 5), PALE)
            draw.rectangle((left, top + 3, left + share * full, top + LINE - 5), BAR)
            draw.text((left + full + 8, top), f"{i}: {value:.2f}", INK, font)
            top += LINE
    return np.asarray(image)


def _font() -> pathlib.Path:
    import matplotlib

    return pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
