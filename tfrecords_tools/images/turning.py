"""A JPEG that its orientation asks to turn -> an upright JPEG of the same quality.

Its samples are decoded, colour at its own resolution, then turned, and encoded with the file's own
quantization tables. Where each side that becomes a left or an upper edge is a multiple of the blocks (8
pixels; 16 where colour has half the resolution), every block of the result is one of the source's, and so
are its coefficients. Elsewhere blocks are cut anew, and steps half as wide as the file's are used, which
keeps the second rounding small against the first.
"""

import dataclasses
import io
import struct
import warnings

from PIL import Image, JpegImagePlugin

from tfrecords_tools.images import jpeg

TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_MIRRORED = {  # by orientation, whether (height, width) as stored run backwards in the upright image
    2: (False, True), 3: (True, True), 4: (True, False), 5: (False, False), 6: (True, False),
    7: (True, True), 8: (False, True),
}  # fmt: skip
_SWAPPED = frozenset((5, 6, 7, 8))  # height becomes width
_FINER = 2  # by which quantization steps are divided where blocks are cut anew


@dataclasses.dataclass(frozen=True, slots=True)
class Upright:
    """An upright JPEG.

    Attributes:
      data: its bytes, without the source's metadata.
      height, width: in pixels.
      same_blocks: whether every block of it is one of the source's.
    """

    data: bytes
    height: int
    width: int
    same_blocks: bool


@dataclasses.dataclass(frozen=True, slots=True)
class _Component:
    """One of a frame's components: sampling factors (vertical, horizontal), quantization table."""

    sampling: tuple[int, int]
    table: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Blocks:
    """How blocks lie in the source and in the upright image.

    Attributes:
      unit: (height, width) in pixels of what the source is coded in, its minimum coded unit.
      halved: whether colour has half the resolution in both directions, here and there.
      same_luma, same_colour: whether the upright image's blocks are the source's.
    """

    unit: tuple[int, int]
    halved: bool
    same_luma: bool
    same_colour: bool


def upright(data: bytes, header: jpeg.Header) -> Upright | None:
    """Turns a JPEG by its orientation, 2 to 8.

    Args:
      data: a JPEG that decodes without a complaint.
      header: what `jpeg.scan` says of it.

    Returns:
      The upright JPEG; None for a coding that cannot be turned, such as components that are RGB.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
            return _turn(data, header)
    except Exception:  # decoders and encoders of hostile bytes raise anything: OSError, SyntaxError, …
        return None


def _turn(data: bytes, header: jpeg.Header) -> Upright:
    components = _components(data, header)
    blocks = _blocks(header, components)
    # With the sides rounded up, what lies in the last blocks beyond the edge is decoded as well.
    planes, tables = _planes(_resized(data, header, _padded(header, blocks.unit)), blocks.halved)
    written = _padded(header, (16, 16) if blocks.halved else (8, 8))
    turned: list[Image.Image] = []
    while planes:
        plane = planes.pop(0)
        size = [side // 2 for side in written] if blocks.halved and turned else written
        plane = plane.crop((0, 0, size[1], size[0])).transpose(TRANSPOSE[header.orientation])
        if blocks.halved and turned:  # the encoder averages four equal samples: the same samples again
            plane = plane.resize(turned[0].size, Image.Resampling.NEAREST)
        turned.append(plane)
    image = turned[0] if len(turned) == 1 else Image.merge("YCbCr", turned)
    del turned
    same = (blocks.same_luma, blocks.same_colour, blocks.same_colour)
    swapped = header.orientation in _SWAPPED
    steps = [
        _table(tables[component.table], swapped, same_blocks)
        for component, same_blocks in zip(components, same, strict=False)
    ]
    if steps[1:2] == steps[2:]:
        del steps[2:]
    stream = io.BytesIO()
    sampling = "4:2:0" if blocks.halved else "4:4:4"
    image.save(stream, "JPEG", qtables=steps, subsampling=sampling, optimize=True)
    coded = stream.getvalue()
    coded_header = jpeg.scan(coded)
    assert coded_header is not None
    size = header.height, header.width
    height, width = reversed(size) if swapped else size
    same_blocks = all(same[: len(components)])
    return Upright(_resized(coded, coded_header, (height, width)), height, width, same_blocks)


def _components(data: bytes, header: jpeg.Header) -> list[_Component]:
    start = header.frame_at + 6  # after precision, height, width and the number of components
    return [
        _Component((data[at + 1] & 15, data[at + 1] >> 4), data[at + 2])
        for at in range(start, start + 3 * header.components, 3)
    ]


def _blocks(header: jpeg.Header, components: list[_Component]) -> _Blocks:
    ends = _ends(header)
    sampling = [component.sampling for component in components]
    alike = len(set(sampling)) == 1
    halved = sampling == [(2, 2), (1, 1), (1, 1)] and all(side % 2 == 0 for side in ends)
    same_luma = all(side % 8 == 0 for side in ends)
    same_colour = all(side % 16 == 0 for side in ends) if halved else alike and same_luma
    unit = 8 * sampling[0][0], 8 * sampling[0][1]
    if len(components) == 1:  # a single component has no sampling
        unit = 8, 8
    return _Blocks(unit, halved, same_luma, same_colour)


def _ends(header: jpeg.Header) -> list[int]:
    """The sides whose end becomes a left or an upper edge."""
    sides, mirrored = (header.height, header.width), _MIRRORED[header.orientation]
    return [side for side, backwards in zip(sides, mirrored, strict=True) if backwards]


def _padded(header: jpeg.Header, unit: tuple[int, int]) -> tuple[int, int]:
    """(height, width) as stored, rounded up to whole units where the end remains a lower or right edge."""
    sides, mirrored = (header.height, header.width), _MIRRORED[header.orientation]
    height, width = (
        side if backwards else -(-side // length) * length
        for side, backwards, length in zip(sides, mirrored, unit, strict=True)
    )
    return height, width


def _planes(data: bytes, halved: bool) -> tuple[list[Image.Image], dict[int, list[int]]]:
    """The planes Y, Cb and Cr, or Y of a grayscale image, and the quantization tables."""
    # The class itself, since Image.open reads Exif and the further images of a file.
    opened = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    tables = opened.quantization
    opened.draft("YCbCr", None)
    if opened.mode == "L" or not halved:
        return list(opened.split()), tables
    luma = opened.getchannel(0)
    # At half the size libjpeg decodes halved colour as it is stored, without interpolating it.
    opened = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    opened.draft("YCbCr", (opened.width // 2, opened.height // 2))
    return [luma, opened.getchannel(1), opened.getchannel(2)], tables


def _table(steps: list[int], swapped: bool, same_blocks: bool) -> list[int]:
    """64 quantization steps for the turned blocks, row by row."""
    if swapped:
        steps = [steps[8 * column + row] for row in range(8) for column in range(8)]
    return steps if same_blocks else [max(1, round(step / _FINER)) for step in steps]


def _resized(data: bytes, header: jpeg.Header, size: tuple[int, int]) -> bytes:
    """The JPEG with another size in its frame header; the same number of blocks must be coded in it."""
    if size == (header.height, header.width):
        return data
    at = header.frame_at + 1
    return b"".join((data[:at], struct.pack(">HH", *size), data[at + 4 :]))
