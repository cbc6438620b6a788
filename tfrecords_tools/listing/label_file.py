"""A CSV file with labels: bytes -> rows of text, whatever its encoding, delimiter and columns.

By default a row names its file in a column `image_path`, `path`, `file`, `image`, `filename` or
`file_name`, and has labels in columns called `class` (the axis category), `label`, or as an axis is;
`split` too. `LabelFileOptions` names others. Columns that are not asked for are left alone.
"""

import codecs
import csv
import dataclasses
import io
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from tfrecords_tools import terminal
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.listing.layout import AUTHENTICITY, CATEGORY, SPLIT, TRUTH_WORDS

FILE_NAME = "metadata.csv"
PATH_COLUMNS = ("image_path", "path", "file", "image", "filename", "file_name", "filepath", "file_path")
MISSING = ("fail", "skip")
_DELIMITERS = ",;\t|"


@dataclasses.dataclass(frozen=True)
class LabelFileOptions:
    """How CSV files with labels are read.

    Attributes:
      file: path of the file in the folder; None for every metadata.csv in it, "" for none.
      path_column: the column that names the image, or its number from 0 in a file without a header line.
      label_columns: axis (or "split") -> column, or its number; directories give no labels then.
      base_dir: the directory in the folder to which the paths are relative; None for the file's own.
      path_suffix: what the paths lack, such as ".jpg".
      encoding: of the text; "" for UTF-8, or UTF-16 where the file begins with its mark.
      missing: "fail" or "skip": what to do with rows without an image and images without a row.
    """

    file: str | None = None
    path_column: str = ""
    label_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    base_dir: str | None = None
    path_suffix: str = ""
    encoding: str = ""
    missing: str = "fail"

    def __post_init__(self) -> None:
        if self.encoding:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise UsageError(
                    f"--metadata_encoding={self.encoding}: there is no such encoding; usual ones are utf-8, "
                    "latin-1, cp1252, utf-16, gb18030 and shift_jis"
                ) from None
        numbers = [
            column.isdecimal() for column in (self.path_column, *self.label_columns.values()) if column
        ]
        if any(numbers) and not (self.path_column and all(numbers)):
            raise UsageError(
                "--path_column and --label_columns are both numbers, for a file without a header line, or "
                f"both names, not {self.path_column!r} and {', '.join(self.label_columns.values())!r}"
            )


class Row(NamedTuple):
    """A row: where it is, for messages; the path of its image; its labels by axis, "" for none."""

    where: str
    path: str
    labels: dict[str, str]


def delimiter(line: str) -> str | None:
    """What separates the columns of a line: a comma, semicolon, tab or bar; None for a single column."""
    counts = {one: len(next(csv.reader([line], delimiter=one), [])) for one in _DELIMITERS}
    best = max(counts, key=lambda one: counts[one])
    return best if counts[best] > 1 else None


class LabelFile:
    """One CSV file.

    Attributes:
      where: its name in messages.
      base: the directory to which its paths are relative, with a slash at the end; "" for the folder itself.
      axes: the label axes (and perhaps "split") that it has columns for.
      notes: what a reader should know of how the columns were understood.
    """

    def __init__(
        self,
        data: bytes,
        where: str,
        base: str,
        options: LabelFileOptions,
        directories: Mapping[str, Collection[str]],
    ):
        """Reads the header line.

        Args:
          directories: the label axes that directories give, and their names on each.

        Raises:
          DataError: the text is not in its encoding, or a column is missing.
        """
        self.where, self.base, self._options = where, base, options
        self.notes: list[str] = []
        self._text = self._decoded(data)
        try:
            self._delimiter = self._find_delimiter()
            self._columns = self._find_columns(directories)
        except csv.Error as error:
            raise DataError(
                f"{where}: its header is not valid CSV ({error}); correct it, or pass --metadata= to "
                "read no such file"
            ) from error

    @property
    def axes(self) -> set[str]:
        return set(self._columns)

    def values(self, axis: str) -> set[str]:
        """The distinct values of an axis, "" left out."""
        return {row.labels[axis] for row in self.rows()} - {""}

    def rows(self) -> Iterator[Row]:
        """The rows, empty lines left out. Raises DataError for one that cannot be read, with its number."""
        reader = self._reader()
        if not self._numbered:
            next(reader, None)
        width = len(self._header)
        try:
            for fields in reader:
                if not fields:
                    continue
                where = f"{self.where}: row {reader.line_num}"
                if len(fields) != width and not self._numbered:
                    raise DataError(
                        f"{where} has {len(fields)} fields, but the header has {width}; correct the row"
                    )
                if len(fields) <= max(self._path, *self._columns.values(), 0):
                    raise DataError(f"{where} has only {len(fields)} fields; correct the row")
                labels = {
                    axis: terminal.plain_word(fields[position].strip())
                    for axis, position in self._columns.items()
                }
                self._require_text(where, labels)
                yield Row(where, fields[self._path].strip(), labels)
        except csv.Error as error:
            raise DataError(
                f"{self.where}: row {reader.line_num} is not valid CSV ({error}); correct it"
            ) from error

    def _require_text(self, where: str, labels: Mapping[str, str]) -> None:
        for axis, label in labels.items():
            if not label.isascii() and any("\ud800" <= letter <= "\udfff" for letter in label):
                column = self._header[self._columns[axis]]
                raise DataError(
                    f"{where}, column {column!r}: {label.encode('utf-8', 'surrogateescape')!r} is not UTF-8; "
                    "save the file as UTF-8, or name its encoding, for example --metadata_encoding=cp1252"
                )

    def _decoded(self, data: bytes) -> str:
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = self._options.encoding or ("utf-16" if marked else "utf-8")
        # Names of files may be any bytes; labels are checked later, row by row.
        errors = "strict" if self._options.encoding or marked else "surrogateescape"
        try:
            return data.decode(encoding, errors).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            row = data.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{self.where}: row {row} has bytes that are not {encoding} ({error.reason}); "
                "name another --metadata_encoding"
            ) from error

    def _find_delimiter(self) -> str:
        line = next((line for line in self._text.splitlines() if line.strip()), "")
        separator = delimiter(line)
        if separator is None and self._numbered and " " in line.strip():
            return " "
        return separator or ","

    def _reader(self):  # type: ignore[no-untyped-def]  # csv's reader has no public type
        stream = io.StringIO(self._text, newline="")
        return csv.reader(stream, delimiter=self._delimiter, skipinitialspace=self._delimiter == " ")

    @property
    def _numbered(self) -> bool:
        return self._options.path_column.isdecimal()

    def _find_columns(self, directories: Mapping[str, Collection[str]]) -> dict[str, int]:
        """Axis -> position; sets the position of the path too."""
        options = self._options
        self._header = [column.strip() for column in next(self._reader(), [])]
        if self._numbered:
            self._path = self._position(options.path_column)
            return {axis: self._position(column) for axis, column in options.label_columns.items()}
        if options.path_column:
            self._path = self._position(options.path_column)
        else:
            known = [self._header.index(column) for column in PATH_COLUMNS if column in self._header]
            if not known:
                raise DataError(
                    f"{self.where}: no column {' or '.join(PATH_COLUMNS)}; its columns are {self._header}: "
                    "name the one with the images' paths with --path_column (a number from 0 if there is no "
                    "header)"
                )
            self._path = known[0]
        if options.label_columns:
            return {axis: self._position(column) for axis, column in options.label_columns.items()}
        return self._known_columns(directories)

    def _position(self, column: str) -> int:
        if self._numbered and int(column) < len(self._header):
            return int(column)
        if self._numbered or column not in self._header:
            raise DataError(f"{self.where}: no column {column!r}; its columns are {self._header}")
        return self._header.index(column)

    def _known_columns(self, directories: Mapping[str, Collection[str]]) -> dict[str, int]:
        axes = {SPLIT, AUTHENTICITY, CATEGORY, *directories}
        columns = {}
        for position, column in enumerate(self._header):
            axis = CATEGORY if column == "class" else column
            if axis in axes and axis not in columns and position != self._path:
                columns[axis] = position
        if "label" in self._header and "label" not in columns and self._header.index("label") != self._path:
            self._columns = {"label": self._header.index("label")}
            columns[self._axis_of_label(columns, directories)] = self._columns["label"]
        return columns

    def _axis_of_label(self, columns: Collection[str], directories: Mapping[str, Collection[str]]) -> str:
        """What the column `label` means: real or fake only where something else says that this is told."""
        labels = self.values("label")
        values = {value.casefold() for value in labels}
        truth = values <= set(TRUTH_WORDS)
        words = truth and not values <= {"0", "1"}
        if AUTHENTICITY not in columns and (words or AUTHENTICITY in directories or CATEGORY in columns):
            return AUTHENTICITY
        classes = set(directories.get(CATEGORY, ()))
        own_axis = CATEGORY in columns or (len(classes) > 1 and not classes & labels)
        axis = "label" if own_axis else CATEGORY
        remedies = []
        if truth:
            remedies.append("if its 0 is real and its 1 is fake, pass --label_columns=authenticity=label")
        if own_axis and CATEGORY not in columns:
            remedies.append("if it alone has the classes, pass --label_columns=category=label")
        if remedies:
            self.notes.append(
                f"{self.where}: the column label is read as the axis {axis}; {'; '.join(remedies)}"
            )
        return axis
