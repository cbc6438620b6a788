"""Images under their keys, as the folder had them that the shards were made of.

Where the keys' directories do not say each image's split and labels, a metadata.csv does.
"""

import csv
import pathlib
import re
import shlex
from collections.abc import Iterable
from typing import TextIO

from tfrecords_tools import terminal
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.exporting.stored_images import StoredImage
from tfrecords_tools.format import records
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.listing.layout import AUTHENTICITY, DEFAULT_SPLIT, SPLIT, TRUTH_WORDS, Layout
from tfrecords_tools.sources import member_names

METADATA = "metadata.csv"
CLASSES = "classes.txt"  # the class names in label order, one a line


class ImageFolder:
    """Writes files named after the keys."""

    def __init__(self, folder: pathlib.Path, manifest: Manifest, target: pathlib.Path):
        """Args: the folder to write to, what is written, and the name that the folder will have."""
        self._folder, self._manifest, self._target = folder, manifest, target
        self._layout = _layout(manifest)
        self._rows: list[list[str]] = []
        self._directories_say_all = True

    def write(self, images: Iterable[StoredImage]) -> None:
        """Writes the images of one split.

        Raises:
          DataError: a key is no path inside a folder, or there are two files of one name.
        """
        for image in images:
            shown = records.key_shown(image.key)
            key, problem = member_names.to_key(image.key)
            if problem or key != image.key:
                raise DataError(
                    f"the image {shown}: {problem or 'its key is not a plain path'}; export with "
                    "--format=webdataset or parquet"
                )
            path = self._folder / key.decode("utf-8", "surrogateescape")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    file.write(image.data)
            except (FileExistsError, NotADirectoryError) as error:
                raise DataError(
                    f"the image {shown}: another image has this path ({error.strerror}); export with "
                    "--format=webdataset or parquet"
                ) from error
            self._directories_say_all &= _agrees(self._layout, image)
            labels = (terminal.word_cell(name or "") for name in image.labels.values())
            cell = terminal.path_cell(str(path.relative_to(self._folder)))
            self._rows.append([cell, image.split, *labels])

    def finish(self) -> str:
        """Writes metadata.csv and classes.txt where they are needed.

        Returns the flags with which the folder is converted to what it was made of.
        """
        return " ".join(filter(None, (self._labels(), self._order())))

    def _order(self) -> str:
        """A flag for class names whose order is not the sorted one."""
        axes = {axis: names for axis, names in self._manifest.axes.items() if axis != AUTHENTICITY}
        if all(names == tuple(sorted(names)) for names in axes.values()):
            return ""
        if len(axes) > 1:
            print(
                "the numbers of classes are not in the order of their names, which a folder cannot keep for "
                f"{len(axes)} label axes; --format=webdataset and parquet keep them"
            )
            return ""
        (names,) = axes.values()
        with self._opened(CLASSES) as file:
            file.writelines(f"{name}\n" for name in names)
        return f"--class_order={shlex.quote(str(self._target / CLASSES))}"

    def _labels(self) -> str:
        if self._directories_say_all:
            return f"--layout={shlex.quote(self._layout.template)}"
        for axis, names in self._manifest.axes.items():
            for name in names:
                if name != name.strip() or not name:
                    raise DataError(
                        f"the class {name!r} of {axis}: a table keeps no spaces around a name, and no "
                        "empty one; export with --format=webdataset or parquet"
                    )
        with self._opened(METADATA) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["image_path", SPLIT, *self._manifest.axes])
            table.writerows(sorted(self._rows))
        columns = ",".join(f"{column}={column}" for column in (SPLIT, *self._manifest.axes))
        return f"--layout= --label_columns={columns}"

    def _opened(self, name: str) -> TextIO:
        """A new file beside the images. Raises DataError where an image has its name."""
        try:
            return (self._folder / name).open("x", encoding="utf-8", errors="surrogateescape", newline="")
        except FileExistsError as error:
            raise DataError(
                f"an image has the path {name}, where the labels have to be written; export with "
                "--format=webdataset or parquet"
            ) from error


def _layout(manifest: Manifest) -> Layout:
    try:
        return Layout(str(manifest.options.get("layout", "")))
    except UsageError:
        return Layout("")


def _agrees(layout: Layout, image: StoredImage) -> bool:
    """Whether an image's directories say its split and its labels."""
    folders = tuple(records.key_text(part) for part in image.key.split(b"/")[:-1])
    values = layout.match(folders)
    if values is None:
        return False
    split = re.sub(r"\W", "_", values.pop(SPLIT, DEFAULT_SPLIT), flags=re.ASCII)
    if AUTHENTICITY in values:
        values[AUTHENTICITY] = TRUTH_WORDS.get(values[AUTHENTICITY].casefold(), values[AUTHENTICITY])
    labels = {axis: name for axis, name in image.labels.items() if name is not None}
    return split == image.split and values == labels
