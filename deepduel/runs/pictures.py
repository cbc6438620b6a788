"""Pictures for TensorBoard, drawn with Pillow: uint8 [1, H, W, 3].

TensorBoard shows a picture about 350 pixels wide until it is clicked on: text must be legible at two thirds
of its size.
"""

import bisect
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfrecords_tools.terminal import escaped

_TILE = 168  # pixels, side of an image in a grid
_FONT = 14
_LINE = 17
_CELL = 96
_MOST_LETTERS = 1_000  # that a line of text is measured for; no picture has room for as many


def captioned(images: np.ndarray, captions: Sequence[tuple[str, ...]], *, columns: int = 3) -> np.ndarray:
    """Images uint8 [N, H, W, 3] in a grid, each above its lines of text, which are shortened to its width.

    Small images are enlarged without smoothing, so that their pixels can be seen.
    """
    font = ImageFont.load_default(_FONT)
    lines = max(len(caption) for caption in captions)
    height = _TILE + lines * _LINE + 8
    columns = min(columns, len(images))
    canvas = Image.new("RGB", (columns * (_TILE + 6), -(-len(images) // columns) * height), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = number % columns * (_TILE + 6), number // columns * height
        picture = Image.fromarray(pixels)
        enlarged = max(picture.size) < _TILE
        filter_ = Image.Resampling.NEAREST if enlarged else Image.Resampling.BILINEAR
        scale = _TILE / max(picture.size)
        size = [max(1, round(side * scale)) for side in picture.size]
        canvas.paste(picture.resize(size, filter_), (left, top))
        for line, text in enumerate(caption):
            draw.text((left, top + _TILE + 2 + line * _LINE), _cut(text, _TILE, font), "black", font)
    return np.asarray(canvas)[None]


def confusion(counts: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """A table of counts int [true class, predicted class], darker the larger a cell's share of its row."""
    font = ImageFont.load_default(_FONT)
    names = tuple(_cut(name, 4 * _CELL, font) for name in names)
    margin = 12 + max(int(font.getlength(name)) for name in names)
    side = len(names) * _CELL
    canvas = Image.new("RGB", (margin + side + 2, side + 2 * _LINE + 12), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 2), "true \\ predicted", "black", font)
    for row, name in enumerate(names):
        top = 2 * _LINE + 6 + row * _CELL
        draw.text((4, top + _CELL // 2 - 9), name, "black", font)
        draw.text((margin + row * _CELL + 4, _LINE + 4), _cut(name, _CELL - 8, font), "black", font)
        total = max(int(counts[row].sum()), 1)
        for column, count in enumerate(counts[row].tolist()):
            left, share = margin + column * _CELL, count / total
            shade = tuple(round(255 - share * (255 - part)) for part in (8, 69, 148))
            draw.rectangle((left, top, left + _CELL - 2, top + _CELL - 2), shade, "gray")
            text, ink = f"{count:,}\n{share:.1%}", "white" if share > 0.5 else "black"
            draw.multiline_text((left + 8, top + _CELL // 2 - 18), text, ink, font)
    return np.asarray(canvas)[None]


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the end of a text as `width` pixels hold: the end of a key says more than its beginning."""
    text = escaped(text[-_MOST_LETTERS:])
    if font.getlength(text) <= width:
        return text
    # The length grows with the number of letters: bisection takes ten measurements, not one for each letter.
    fits = lambda start: font.getlength(f"…{text[start:]}") <= width
    return f"…{text[bisect.bisect_left(range(len(text)), True, key=fits) :]}"
