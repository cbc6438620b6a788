"""Pictures for TensorBoard, drawn with Pillow: uint8 [1, H, W, 3].

TensorBoard shows a picture about 350 pixels wide until it is clicked on: text must be legible at little more
than half its size.
"""

import bisect
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfrecords_tools.terminal import escaped

_TILE = 200  # pixels, side of an image in a grid
_FONT = 19
_LINE = 23
_SIDE = 600  # pixels, of the cells of a confusion matrix together, at least
_CELL = 48  # pixels, of one of them, at least
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


def confusion(counts: np.ndarray, names: tuple[str, ...], totals: np.ndarray) -> np.ndarray:
    """A table of counts int [true class, predicted class], darker the larger a cell's share of its row.

    Args:
      totals: int [true class], images of each class, of which the shares are.
    """
    cell = max(_CELL, -(-_SIDE // len(names)))
    size = min(max(cell // 7, 15), 28)
    font, line = ImageFont.load_default(size), size * 5 // 4
    names = tuple(_cut(name, _SIDE // 2, font) for name in names)
    longest = 12 + max(int(font.getlength(name)) for name in names)
    upright = longest > cell
    left, top = longest + line + 8, 2 * line + 6 + (longest if upright else line)
    side = len(names) * cell
    canvas = Image.new("RGB", (left + side + 2, top + side + 2), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((left + side / 2, 4), "predicted class", "black", font, anchor="ma")
    _upwards(canvas, "true class", 2, top + side / 2 + font.getlength("true class") / 2, font)
    for number, name in enumerate(names):
        middle = (number + 0.5) * cell
        draw.text((left - 6, top + middle), name, "black", font, anchor="rm")
        if upright:
            _upwards(canvas, name, left + middle - line / 2, top - 4, font)
        else:
            draw.text((left + middle, top - 6), name, "black", font, anchor="ms")
    for row, column in np.ndindex(counts.shape):
        count, share = int(counts[row, column]), float(counts[row, column] / max(totals[row], 1))
        x, y = left + column * cell, top + row * cell
        shade = tuple(round(255 - share * (255 - part)) for part in (8, 69, 148))
        draw.rectangle((x, y, x + cell - 2, y + cell - 2), shade, "lightgray")
        text = f"{count:,}\n{share:.1%}" if cell >= 4 * line else f"{count}" if count else ""
        ink = "white" if share > 0.5 else "black"
        draw.multiline_text((x + cell / 2, y + cell / 2), text, ink, font, anchor="mm", align="center")
    return np.asarray(canvas)[None]


def _upwards(
    canvas: Image.Image,
    text: str,
    left: float,
    bottom: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Writes a text from below to above."""
    height = int(font.getbbox("Äg")[3]) + 1
    strip = Image.new("RGB", (int(font.getlength(text)) + 2, height), "white")
    ImageDraw.Draw(strip).text((0, 0), text, "black", font)
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    canvas.paste(turned, (round(left), round(bottom) - turned.height))


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the end of a text as `width` pixels hold: the end of a key says more than its beginning."""
    text = escaped(text[-_MOST_LETTERS:])
    if font.getlength(text) <= width:
        return text
    # The length grows with the number of letters: bisection takes ten measurements, not one for each letter.
    fits = lambda start: font.getlength(f"…{text[start:]}") <= width
    return f"…{text[bisect.bisect_left(range(len(text)), True, key=fits) :]}"
