"""Images in memory, and lists of them and of paths, as sources to predict; see `sources`."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from deepduel.decoding.image import DecodeOptions
from deepduel.prediction import file_decoding, sources
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.images import rgb
from tfrecords_tools.images.encoding_options import KEEP, EncodingOptions

Picture = np.ndarray | Image.Image


class Pictures:
    """Images in memory, in the given order; see `sources.Source`. They are named "0", "1", …

    Attributes:
      rejected: empty.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        decoding: DecodeOptions,
        *,
        encoding: EncodingOptions = KEEP,
        first: int = 0,
    ):
        """Args:
        pictures: arrays [H, W, 3], [H, W, 1] or [H, W], 0..255, uint8 or float, or Pillow images.
        decoding: how they are resized.
        encoding: the conversion's, which the pixels are as after.
        first: the number of the first one, in its name.

        Raises:
          UsageError: an array has another shape, or values out of this range.
        """
        self.rejected: list[tuple[str, str]] = []
        self._pictures = pictures
        self._decoding, self._encoding = decoding, encoding
        self._first = first
        for number, picture in enumerate(pictures):
            if isinstance(picture, np.ndarray):
                _check(picture, self.name(number))

    def __len__(self) -> int:
        return len(self._pictures)

    def name(self, number: int) -> str:
        """Its place in the list, from 0."""
        return str(self._first + number)

    def read(self, numbers: np.ndarray, rows: int) -> tuple[np.ndarray, list[str]]:
        """See `sources.Source`."""
        batch = np.zeros((rows, *self._decoding.size, 3), np.uint8)
        for row, number in enumerate(numbers.tolist()):
            upright = _upright(self._pictures[number], self.name(number), self._encoding.pixels)
            file_decoding.decode_picture(upright, self._decoding, batch[row], self._encoding)
        return batch, [""] * len(numbers)


def open_sources(
    images: Iterable[str | os.PathLike | Picture],
    decoding: DecodeOptions,
    *,
    encoding: EncodingOptions = KEEP,
    split: str | None = None,
    threads: int | None = None,
    on_error: str = "skip",
) -> Iterator[sources.Source]:
    """Opens paths, as `sources.open_source` does, and images in memory; neighbours of a kind make a source.

    All images stay in the given order.
    """
    in_memory = 0
    for is_path, group in itertools.groupby(images, lambda image: isinstance(image, str | os.PathLike)):
        if is_path:
            paths = [os.fspath(path) for path in group if isinstance(path, str | os.PathLike)]
            yield sources.open_source(
                paths, decoding, encoding=encoding, split=split, threads=threads, on_error=on_error,
                keep_order=True,
            )  # fmt: skip
        else:
            pictures = [picture for picture in group if isinstance(picture, Picture)]
            yield Pictures(pictures, decoding, encoding=encoding, first=in_memory)
            in_memory += len(pictures)


def _check(picture: np.ndarray, name: str) -> None:
    gray = picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 1)
    if not (gray or (picture.ndim == 3 and picture.shape[2] == 3)) or not picture.size:
        raise UsageError(
            f"image {name}: an array must be [height, width, 3] or [height, width], got {picture.shape}"
        )
    if picture.dtype == np.uint8:
        return
    low, high = picture.min(), picture.max()
    if not 0 <= low <= high <= 255:  # false for NaN too
        raise UsageError(f"image {name}: the values of an array must be 0 to 255, got {low} to {high}")
    if np.issubdtype(picture.dtype, np.floating) and 0 < high <= 1:
        raise UsageError(
            f"image {name}: the values of an array must be 0 to 255, but the highest is {high:.3g}; multiply "
            "values of 0 to 1 by 255"
        )


def _upright(picture: Picture, name: str, options: rgb.PixelOptions) -> Image.Image:
    """RGB, upright."""
    if isinstance(picture, Image.Image):
        try:
            return rgb.upright(picture, b"", options)
        except (rgb.NoPixels, OSError, SyntaxError) as error:
            raise DataError(f"image {name}: {error}") from error
    if picture.dtype != np.uint8:
        picture = np.rint(picture).astype(np.uint8)
    if picture.ndim == 2:
        picture = picture[..., None]
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3))))
