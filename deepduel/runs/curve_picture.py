"""A picture of a loss by learning rate, drawn with Pillow: uint8 [1, H, W, 3]."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT = 720, 440  # pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 34, 50
_TICKS = 5  # of the loss
_HIGHEST = 1.3  # the top of the axis, times the first smoothed loss: a loss that explodes leaves the picture


def draw(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], *, marked: float | None
) -> np.ndarray:
    """The losses as points and the smoothed ones as a line, over the logarithm of the rate.

    Args:
      rates, losses, smoothed: of each step.
      marked: a rate that a vertical line marks.
    """
    canvas = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    pen.rectangle((_LEFT, _TOP, right, bottom), outline="gray")
    pen.text((_LEFT, 8), "loss of training by learning rate (line: smoothed)", "black", font)
    if len(rates) < 2:
        return np.asarray(canvas)[None]
    low, high = math.log10(rates[0]), math.log10(rates[-1])
    floor, top = min(smoothed) * 0.9, max(_HIGHEST * smoothed[0], min(smoothed) + 1e-6)

    def x(rate: float) -> float:
        return _LEFT + (math.log10(rate) - low) / (high - low) * (right - _LEFT)

    def y(loss: float) -> float:
        share = (loss - floor) / (top - floor)
        return bottom - min(max(share, 0.0), 1.0) * (bottom - _TOP)

    for power in range(math.ceil(low), math.floor(high) + 1):
        pen.line((x(10.0**power), bottom, x(10.0**power), bottom + 5), "black")
        pen.text((x(10.0**power), bottom + 8), f"1e{power}", "black", font, anchor="ma")
    for tick in np.linspace(floor, top, _TICKS):
        pen.line((_LEFT - 5, y(tick), _LEFT, y(tick)), "black")
        pen.text((_LEFT - 8, y(tick)), f"{tick:.3g}", "black", font, anchor="rm")
    pen.text(((_LEFT + right) / 2, _HEIGHT - 22), "learning rate", "black", font, anchor="ma")
    for rate, loss in zip(rates, losses, strict=True):
        pen.ellipse((x(rate) - 2, y(loss) - 2, x(rate) + 2, y(loss) + 2), "lightsteelblue")
    pen.line([(x(rate), y(loss)) for rate, loss in zip(rates, smoothed, strict=True)], "navy", 2)
    if marked is not None and rates[0] <= marked <= rates[-1]:
        pen.line((x(marked), _TOP, x(marked), bottom), "firebrick", 2)
        pen.text((x(marked) + 6, _TOP + 4), f"suggestion {marked:.1g}", "firebrick", font)
    return np.asarray(canvas)[None]
