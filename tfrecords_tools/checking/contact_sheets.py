"""Counts and contact sheets of a data folder, read through its index tables."""

import collections
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import records, storage
from tfrecords_tools.format.manifest import Manifest, cell_name
from tfrecords_tools.images.stored import stored_pixels

MOST_SHEETS = 100  # of a split
THUMBNAIL = 112  # pixels, with 4 of margin
_MARGIN = 4
_LONGEST = 120  # bytes of a cell in the name of its sheet, which a file system may limit to 255


def tables(manifest: Manifest, data_dir: str, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """(shard, its table) for each shard of a split. Raises DataError for a damaged one."""
    store = storage.open_folder(data_dir)
    for part in manifest.splits[split].shards:
        try:
            table = records.load_table(store.read(f"{part.file}.npy"), len(manifest.axes))
        except (ValueError, OSError) as error:
            raise _damaged(f"{store.root}/{part.file}.npy", error) from error
        yield part.file, table


def cells(manifest: Manifest, data_dir: str, split: str) -> dict[str, tuple[int, float]]:
    """Per combination of labels: images, and mean bytes of an encoded image."""
    counts: collections.Counter[str] = collections.Counter()
    sizes: collections.Counter[str] = collections.Counter()
    for _, table in tables(manifest, data_dir, split):
        labels, which = np.unique(table["labels"], axis=0, return_inverse=True)
        which = which.reshape(-1)
        images = np.bincount(which, minlength=len(labels)).tolist()
        size = np.bincount(which, table["image_size"], len(labels)).tolist()
        for cell, count, total in zip(labels.tolist(), images, size, strict=True):
            name = cell_name(manifest.axes, cell)
            counts[name] += count
            sizes[name] += int(total)
    return {name: (count, sizes[name] / count) for name, count in sorted(counts.items())}


def draw_sheets(
    manifest: Manifest,
    data_dir: str,
    sheet_dir: str,
    *,
    per_sheet: int = 36,
    on_progress: Callable[[int], None] = lambda sheets: None,
) -> list[pathlib.Path]:
    """Draws a PNG per split and cell with its first images, a random selection; of many cells, the largest.

    Returns:
      The files, `SPLIT-fake-animals.png`.

    Raises:
      DataError: a shard is damaged.
    """
    folder = pathlib.Path(sheet_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[pathlib.Path] = []
    uses: collections.Counter[str] = collections.Counter()  # of names: `a b` and `a_b` have the same
    for split in manifest.splits:
        for cell, images in _first_images(manifest, data_dir, split, per_sheet).items():
            name = f"{split}-{_file_name(cell)}"
            uses[name] += 1
            file = folder / f"{name}{f'-{uses[name]}' if uses[name] > 1 else ''}.png"
            with published(file, binary=True) as stream:
                _sheet(images).save(stream, "PNG")
            files.append(file)
            on_progress(len(files))
    return files


def _file_name(cell: str) -> str:
    name = cell.replace("/", "-") if cell.strip("?/") else "unlabelled"
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    return name.encode()[:_LONGEST].decode(errors="ignore")


def _first_images(manifest: Manifest, data_dir: str, split: str, count: int) -> dict[str, list[Image.Image]]:
    """The first images of each cell, as thumbnails."""
    store = storage.open_folder(data_dir)
    images: dict[str, list[Image.Image]] = collections.defaultdict(list)
    ordered = sorted(manifest.splits[split].cells.items(), key=lambda item: (-item[1], item[0]))
    wanted = {cell for cell, _ in ordered[:MOST_SHEETS]}
    for file, table in tables(manifest, data_dir, split):
        data = store.view(file)
        for row in table:
            cell = cell_name(manifest.axes, row["labels"].tolist())
            if cell in wanted and len(images[cell]) < count:
                try:
                    images[cell].append(_thumbnail(pixels(data, row)))
                except ValueError as error:
                    raise _damaged(f"{store.root}/{file}", error) from error
        if all(len(images[cell]) >= count for cell in wanted):
            break
    return dict(sorted(images.items()))


def pixels(data: records.Buffer, row: np.ndarray) -> np.ndarray:
    """One record's image, uint8 [H, W, 3].

    Args:
      data: the shard.
      row: of its table.
    """
    start = int(row["image_offset"])
    encoded = bytes(data[start : start + int(row["image_size"])])
    encoding = records.ENCODINGS[row["encoding"]]
    return stored_pixels(encoded, encoding, int(row["height"]), int(row["width"]))


def _damaged(where: str, error: Exception) -> DataError:
    return DataError(f"{where}: {error}; python -m tfrecords_tools.verify tells what to do")


def _thumbnail(values: np.ndarray) -> Image.Image:
    thumbnail = Image.fromarray(values)
    if max(thumbnail.size) > THUMBNAIL:
        thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    return thumbnail


def _sheet(images: list[Image.Image]) -> Image.Image:
    columns = max(1, int(np.ceil(np.sqrt(len(images)))))
    step = THUMBNAIL + 2 * _MARGIN
    sheet = Image.new("RGB", (columns * step, -(-len(images) // columns) * step), (255, 255, 255))
    for number, thumbnail in enumerate(images):
        left = number % columns * step + (step - thumbnail.width) // 2
        top = number // columns * step + (step - thumbnail.height) // 2
        sheet.paste(thumbnail, (left, top))
    return sheet
