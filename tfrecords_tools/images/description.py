"""What an image file is, in words: for the counts of images whose own bytes are not stored."""

from PIL import Image

from tfrecords_tools.images import jpeg, tiff

_TURNED = "EXIF orientation"


def kind(opened: Image.Image) -> str:
    """The format, for people."""
    return "JPEG" if opened.format == "MPO" else str(opened.format)


def is_animated(opened: Image.Image, data: bytes) -> bool:
    """Whether a file has several images, without visiting them all."""
    if opened.format == "TIFF":
        header = tiff.scan(data)
        return header is not None and header.several
    if opened.format == "GIF":
        return bool(opened.is_animated)  # type: ignore[attr-defined]  # of GIFs only
    return getattr(opened, "n_frames", 1) > 1


def why(kind: str, mode: str, data: bytes, animated: bool, orientation: int) -> str:
    """The reason why an image's own bytes are not stored."""
    words = [kind]
    if kind == "PNG" and data[24] == 16:
        words.append("of 16 bits")
    elif kind in ("PNG", "JPEG") and mode not in ("RGB", "L"):
        words.append({"P": "with palette", "RGBA": "with alpha", "LA": "with alpha"}.get(mode, mode))
    if animated:
        words.append("animated, first frame")
    if orientation != 1:
        words.append(f"EXIF orientation {orientation}")
    if words == ["PNG"]:
        words.append("with transparency")
    if words == ["JPEG"]:
        header = jpeg.scan(data)
        words.append("unusual coding" if header is None else header.coding)
    return ", ".join(words)


def turned(orientation: int, same_blocks: bool) -> str:
    """The reason why the bytes of a JPEG with an orientation, which is stored as a JPEG, are not its own."""
    return f"{_TURNED} {orientation}, {'blocks turned' if same_blocks else 'encoded anew in finer steps'}"


def stored(reason: str) -> str:
    """How images whose own bytes are not stored are stored, and why, for summaries."""
    return f"stored as {'JPEG' if reason.startswith(_TURNED) else 'PNG'} for {reason}"
