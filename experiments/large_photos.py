"""Photographs as large as phones take them, put together from small ones.

Each is a mosaic of small photographs, enlarged twice because a phone's pixels are soft, saved as phones do:
4:3, quality 92, colour at half the resolution. So blocks have a photograph's frequencies, which an
enlargement of a single small photograph has not.
"""

import itertools
import pathlib
from collections.abc import Sequence

from PIL import Image

QUALITY = 92
_ENLARGED = 2
_UNIT = 16  # pixels: sides are whole blocks


def write(
    photos: Sequence[pathlib.Path], folder: pathlib.Path, megapixels: float, count: int
) -> list[pathlib.Path]:
    """Writes `count` mosaics of about `megapixels` million pixels; each begins with another photograph."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:04d}.jpg"
        chosen = itertools.cycle([*photos[number % len(photos) :], *photos[: number % len(photos)]])
        _mosaic(chosen, *_sides(megapixels)).save(path, quality=QUALITY, subsampling="4:2:0")
        paths.append(path)
    return paths


def _sides(megapixels: float) -> tuple[int, int]:
    """(width, height) in pixels, 4:3."""
    width = (megapixels * 1e6 * 4 / 3) ** 0.5
    return max(_UNIT, round(width / _UNIT) * _UNIT), max(_UNIT, round(width * 0.75 / _UNIT) * _UNIT)


def _mosaic(photos: "itertools.cycle[pathlib.Path]", width: int, height: int) -> Image.Image:
    """Rows of photographs, each row as high as its first one."""
    mosaic = Image.new("RGB", (width, height))
    top = 0
    while top < height:
        left, row = 0, 0
        while left < width:
            with Image.open(next(photos)) as opened:
                small = opened.convert("RGB")
            row = row or small.height * _ENLARGED
            size = max(1, round(small.width * row / small.height)), row
            mosaic.paste(small.resize(size, Image.Resampling.BICUBIC), (left, top))
            left += size[0]
        top += row
    return mosaic
