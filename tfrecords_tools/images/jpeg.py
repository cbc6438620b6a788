"""What a JPEG's markers say, without decoding it.

Layout: ITU-T T.81, annex B: FFD8, then segments `FF kind length(2) …`, the frame header (SOF)
among them, up to the first scan (SOS). Orientation: Exif 2.3, tag 0x0112 of IFD0 in APP1.
"""

import dataclasses
import re
import struct
from collections.abc import Iterator

_CODINGS = {
    0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive", 0xC3: "lossless",
    0xC9: "arithmetic-coded", 0xCA: "arithmetic-coded", 0xCB: "lossless",
}  # fmt: skip
SCAN = b"\xff\xda"  # cannot occur within a scan
MAX_SCANS = 100  # libtiff's limit; encoders write about ten
MAX_SCANNED_PIXELS = 2_500_000_000  # of all scans together: some ten seconds
_OTHER_FRAMES = frozenset((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF))  # hierarchical
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\b")
_STRAY_AT_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """A JPEG's frame header.

    Attributes:
      height, width: pixels as stored, before any rotation.
      components: 1 gray, 3 colour, 4 CMYK or YCCK.
      precision: bits per sample.
      coding: "baseline", "progressive", "arithmetic-coded", …
      orientation: Exif's, 1 (upright) to 8.
      interleaved: whether the first scan holds all components. Then a baseline JPEG has no other scan.
      frame_at: where the frame header's fields begin in the file.
    """

    height: int
    width: int
    components: int
    precision: int
    coding: str
    orientation: int
    interleaved: bool
    frame_at: int = dataclasses.field(default=0, compare=False)

    @property
    def common(self) -> bool:
        """Whether every common decoder gives RGB from these bytes, turned as `orientation` says."""
        return (
            self.coding in ("baseline", "extended", "progressive")
            and self.precision == 8
            and self.components in (1, 3)
            and self.height > 0
            and self.width > 0
        )

    @property
    def plain(self) -> bool:
        """Whether every common decoder gives upright RGB from these bytes."""
        return self.common and self.orientation == 1


def scan(data: bytes) -> Header | None:
    """The header of a JPEG; None when its markers make no sense or end before the first scan."""
    position, end, frame, frame_at = 2, len(data) - 4, None, 0
    exif: int | None = None  # the first Exif block decides, else XMP
    xmp: int | None = None
    while position < end:
        if data[position] != 0xFF:
            return None
        kind = data[position + 1]
        if kind == 0xFF:  # fill byte
            position += 1
            continue
        if kind == 0xDA:
            orientation = exif or xmp or 1
            if frame is None:
                return None
            return Header(*frame, orientation, data[position + 4] == frame[2], frame_at)
        length = data[position + 2] << 8 | data[position + 3]
        if kind in _CODINGS or kind in _OTHER_FRAMES:
            if position + 10 > len(data):
                return None
            precision, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            frame = height, width, components, precision, _CODINGS.get(kind, "hierarchical")
            frame_at = position + 4
        elif kind == 0xE1 and data.startswith(b"Exif\0\0", position + 4):
            if exif is None:
                exif = _orientation(data[position + 4 : position + 2 + length])
        elif kind == 0xE1 and data.startswith(_XMP, position + 4):
            match = _XMP_ORIENTATION.search(data, position + 4, position + 2 + length)
            xmp = int(match[1]) if match else xmp
        position += 2 + length
    return None


def excessive_scans(data: bytes, header: Header | None) -> int:
    """The number of scans of a JPEG if decoding them would take too long, else 0.

    Each scan may visit all pixels and take a dozen bytes.

    Args:
      header: what `scan` says of it.
    """
    if header is not None and header.interleaved and header.coding in ("baseline", "extended"):
        return 0
    scans = data.count(SCAN)
    pixels = header.height * header.width if header is not None else 1
    return scans if scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS else 0


def repairs(data: bytes, reason: str) -> Iterator[bytes]:
    """A JPEG with the end marker that it lacks, or without the stray bytes before it.

    Args:
      reason: why a decoder rejected it; libjpeg tells how many stray bytes there are.
    """
    stray = _STRAY_AT_END.search(reason)
    end = data.rfind(b"\xff\xd9")
    if stray is None:
        yield data + b"\xff\xd9"
    elif end > int(stray[1]):
        yield data[: end - int(stray[1])] + b"\xff\xd9"


def _orientation(block: bytes) -> int | None:
    """Orientation in an Exif block, whose header may come twice; None when there is none or it is damaged."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    tiff = block
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return None
