"""WebDataset: tar files with the image, its class number and a document of each sample."""

import contextlib
import io
import json
import pathlib
import tarfile
from collections.abc import Iterable, Iterator

from tfrecords_tools import atomic
from tfrecords_tools.exporting.stored_images import ENDINGS, StoredImage, class_numbers
from tfrecords_tools.format.manifest import Manifest
from tfrecords_tools.listing.layout import CATEGORY


class WebDataset:
    """Writes NAME-SPLIT-000000.tar, …, and AXIS.labels.txt with the class names."""

    def __init__(self, folder: pathlib.Path, manifest: Manifest, max_bytes: int):
        self._folder, self._manifest, self._max_bytes = folder, manifest, max_bytes
        self._class_axis = CATEGORY if CATEGORY in manifest.axes else next(iter(manifest.axes))
        self._numbers = class_numbers(manifest)[self._class_axis]

    def write(self, images: Iterable[StoredImage]) -> None:
        """Writes the images of one split."""
        shards, size = 0, self._max_bytes
        with contextlib.ExitStack() as stack:
            for number, image in enumerate(images):
                if size >= self._max_bytes:
                    stack.close()  # and with it the file before this one
                    path = self._folder / f"{self._manifest.name}-{image.split}-{shards:06d}.tar"
                    archive = stack.enter_context(_opened(path))
                    shards, size = shards + 1, 0
                for ending, data in self._members(image):
                    member = tarfile.TarInfo(f"{number:08d}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
                size += len(image.data)

    def _members(self, image: StoredImage) -> Iterable[tuple[str, bytes]]:
        yield ENDINGS[image.encoding], image.data
        name = image.labels[self._class_axis]
        if name is not None:
            yield "cls", str(self._numbers[name]).encode()
        key = image.key.decode("utf-8", "surrogateescape")
        yield "json", json.dumps({"key": key, "split": image.split, "labels": image.labels}).encode()

    def finish(self) -> str:
        """Writes the class names. Returns the flags of a conversion."""
        for axis, names in self._manifest.axes.items():
            text = "\n".join(names) + "\n"
            (self._folder / f"{axis}.labels.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
        return ""


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[tarfile.TarFile]:
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            yield archive
        atomic.sync(file)
