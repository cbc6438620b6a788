"""What the first directory of a TIFF file says of the memory that its decoding takes, without decoding it.

Layout: TIFF 6.0, section 2: II or MM, 42, the offset of the first directory; there a count, entries of tag,
type, count and value, and the offset of the next directory. BigTIFF has 43 for 42, and wider fields.
"""

import dataclasses
import struct

_WIDTH, _HEIGHT, _BITS, _SAMPLES, _ROWS = 0x100, 0x101, 0x102, 0x115, 0x116
_STRIPS, _TILE_WIDTH, _TILE_HEIGHT, _TILES = 0x111, 0x142, 0x143, 0x144
_NEEDED = frozenset((_WIDTH, _HEIGHT, _BITS, _SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT))
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types that widths and heights have


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """The first image of a TIFF file.

    Attributes:
      image_bytes: of its samples, unpacked.
      blocks: number of strips or tiles that its directory lists.
      block_bytes: of the largest that a decoder unpacks at once.
      several: whether another image follows.
    """

    image_bytes: int
    blocks: int
    block_bytes: int
    several: bool


def scan(data: bytes) -> Header | None:
    """The first image of a TIFF file; None when its directory makes no sense."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        return _scan(data, order)
    except (struct.error, IndexError):
        return None


def _scan(data: bytes, order: str) -> Header | None:
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    first, size, head = start + (8 if big else 2), (20 if big else 12), (12 if big else 8)
    counts: dict[int, int] = {}
    values: dict[int, int] = {}
    for position in range(first, first + min(entries, 1 << 16) * size, size):
        tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, position)
        counts.setdefault(tag, count)
        if tag in _NEEDED and kind in _NUMBERS and count and tag not in values:
            form = order + _NUMBERS[kind]
            place = position + head
            if count * struct.calcsize(form) > size - head:
                (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
            values[tag] = struct.unpack_from(form, data, place)[0]
    if _WIDTH not in values or _HEIGHT not in values:
        return None
    width, height = values[_WIDTH], values[_HEIGHT]
    samples = values.get(_SAMPLES, counts.get(_BITS, 1))
    # Decoders unpack some kinds to four bytes a pixel, whatever the samples are.
    pixel_bytes = max(samples * -(-values.get(_BITS, 8) // 8), 4)
    rows = min(values.get(_ROWS, height), height)
    block = max(width * rows, values.get(_TILE_WIDTH, 0) * values.get(_TILE_HEIGHT, 0))
    blocks = max(counts.get(_STRIPS, 0), counts.get(_TILES, 0))
    (following,) = struct.unpack_from(order + ("Q" if big else "I"), data, first + entries * size)
    return Header(width * height * pixel_bytes, blocks, block * pixel_bytes, bool(following))
