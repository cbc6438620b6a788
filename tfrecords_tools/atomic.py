"""Text files that appear under their names whole, or not at all."""

import os
import pathlib


class published:
    """A text file that appears under its name when the block ends well: `with published(path) as file`."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def __enter__(self):
        self._file = self._partial.open("w", encoding="utf-8", newline="")
        return self._file

    def __exit__(self, kind, *rest) -> None:
        self._file.close()
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)
