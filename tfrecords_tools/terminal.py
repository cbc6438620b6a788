"""Text of unknown origin on a terminal, in a log or in a spreadsheet, none of which may act on it."""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

_SHOWN = {"\n", "\r", "\t"}  # control characters of our own output: lines, progress bars, tables
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NUMBER = re.compile(r"[+-]?[\d.,]+%?\Z")


def escaped(text: str) -> str:
    """A text on one line, its control, format and line-breaking characters as backslash escapes."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def one_line(text: str) -> str:
    """A text without control characters, line ends and halves of characters: backslash escapes for them."""
    return _CONTROLS.sub(lambda match: _escape(match[0]), text)


def path_cell(path: str) -> str:
    """A relative path for a CSV file; one that a spreadsheet would compute gets `./`: the same file."""
    return f"./{path}" if _is_formula(path) else path


def word_cell(word: str) -> str:
    """A word for a CSV file: one that a spreadsheet would compute gets an apostrophe; see `plain_word`."""
    return f"'{word}" if _is_formula(word) else word


def plain_word(cell: str) -> str:
    """The word that `word_cell` made the cell of."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def joined(parts: Sequence[str]) -> str:
    """Parts of a line to print: on one line, or below one another in a terminal too narrow for it."""
    line = " | ".join(parts)
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (AttributeError, OSError, ValueError):
        return line
    return line if len(line) <= columns or not columns else "\n  ".join(parts)


def _is_formula(text: str) -> bool:
    """Numbers with a sign are no formulas, so that the classes -1 and +1 stay as they are."""
    return text[:1] in ("=", "+", "-", "@", "\t", "\r") and bool(text) and not _NUMBER.match(text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Within the block, nothing that is printed can fail or act on the terminal.

    Control characters but line ends and tabs are escaped, as is what the encoding lacks. What cannot be
    written, because the reader of a pipe is gone or a disk is full, is dropped: the work goes on.
    """
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Guarded(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before


def _open_standard_descriptors() -> None:
    """Where one was closed, the next file to be opened would get its number, and what others print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


class _Guarded:
    """A text stream whose writes never fail; None stands for one that was closed."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            if not text.isprintable():
                text = "".join(
                    letter if letter in _SHOWN or letter.isprintable() else _escape(letter) for letter in text
                )
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            encoded = text.encode(encoding, "backslashreplace")
            self._attempt(lambda stream: stream.write(encoded.decode(encoding)))
        return len(text)

    def flush(self) -> None:
        self._attempt(lambda stream: stream.flush())

    def close(self) -> None:
        """Closes nothing: the stream is the process', and absl closes its log's when Python ends."""

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def _attempt(self, action: Callable[[TextIO], object]) -> None:
        if self._stream is None:
            return
        try:
            action(self._stream)
        except ValueError:  # it was closed meanwhile
            self._stream = None
        except OSError:
            # What is in the stream's buffer would fail again when the process ends.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream = None

    def __getattr__(self, name: str) -> Any:
        if self._stream is None:
            raise AttributeError(f"the stream is closed, and has no {name}")
        return getattr(self._stream, name)
