"""Progress for whatever takes longer than two seconds.

with progress.Progress("converting", total=5200) as bar:
    bar.update(images_done, "3 rejected")

In a terminal it is a bar, or what a narrow one has room for; in a notebook one output that is updated, and
saved in its last state; in a pipe or a file lines, fewer the longer it takes.
"""

import html
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

QUIET_SECONDS = 2.0  # nothing is shown for a task that ends sooner
LINE_SECONDS = 5.0  # between two lines when the output is a file or a pipe, at first
MOST_LINE_SECONDS = 60.0  # and after ten minutes
CELL_SECONDS = 1.0  # between two updates in a notebook
NARROW = 72  # columns of a terminal that has no room for a bar
_NARROW_FORMATS = {
    True: "{desc} {percentage:.0f}% {remaining} left{postfix}",
    False: "{desc} {n_fmt}{postfix}",
}


class Progress:
    """Shows how far a task has come, its rate and the time left. A context manager.

    Args:
      title: what is being done, for example "converting".
      total: how many units there are; None if unknown.
      unit: of `total`, for example "images", "steps".
      stream: where to show it; default: standard error, or the output of a notebook's cell.
      clock: seconds, rising; for tests.
    """

    def __init__(self, title: str, *, total: int | None = None, unit: str = "images",
                 stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):  # fmt: skip
        self._title, self._total, self._unit = title, total, unit
        self._stream = sys.stderr if stream is None else stream
        self._display: Any = _notebook_display() if stream is None else None
        self._cell: Any = None  # the handle of what a notebook displays
        self._clock = clock
        self._start = clock()
        self._line_time = self._start + QUIET_SECONDS - LINE_SECONDS
        self._bar: Any = None  # tqdm's
        self._done = self._first = 0
        self._note = ""
        self._shown, self._shown_done = False, -1

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start_from(self, done: int) -> None:
        """Units that an earlier run has done: they count as done but not in the rate."""
        self._first = self._done = done

    def update(self, done: int, note: str = "") -> None:
        """Reports that `done` units in all are finished; `note` is shown after the rate."""
        self._done, self._note = done, note
        if self._clock() - self._start < QUIET_SECONDS:
            return
        now = self._clock()
        if self._display is not None:
            if self._cell is None or now - self._line_time >= CELL_SECONDS:
                self._line_time = now
                self._update_cell()
        elif _is_terminal(self._stream):
            self._draw()
        elif now - self._line_time >= min(max(LINE_SECONDS, (now - self._start) / 10), MOST_LINE_SECONDS):
            self._line_time = now
            self._line()

    def close(self) -> None:
        """Shows the last state, if any was shown before."""
        if self._bar is not None:
            self._draw()
            self._bar.close()
            self._bar = None
        elif self._cell is not None:
            self._update_cell()
            self._cell = None
        elif self._shown and self._done != self._shown_done:
            self._line()
        self._shown = False

    def _draw(self) -> None:
        narrow = _columns(self._stream) < NARROW
        bar_format = _NARROW_FORMATS[self._total is not None] if narrow else None
        if self._bar is None:
            import tqdm  # slow to import

            tqdm.tqdm.monitor_interval = 0  # no thread: workers are forked from this process
            self._bar = tqdm.tqdm(
                total=self._total, desc=self._title, unit=f" {self._unit}", initial=self._first,
                file=self._stream, dynamic_ncols=True, mininterval=0.2,
                bar_format=bar_format,
            )  # fmt: skip
            self._bar.start_t -= self._clock() - self._start
        self._bar.bar_format = bar_format
        self._bar.set_postfix_str(self._note, refresh=False)
        self._bar.update(self._done - self._bar.n)

    def _update_cell(self) -> None:
        text = self._text()
        bar = f'<progress value="{self._done}" max="{self._total}"></progress> ' if self._total else ""
        content = {"text/plain": text, "text/html": f"{bar}<code>{html.escape(text)}</code>"}
        if self._cell is None:
            self._cell = self._display(content, raw=True, display_id=True)
        else:
            self._cell.update(content, raw=True)

    def _line(self) -> None:
        self._shown, self._shown_done = True, self._done
        print(self._text(), file=self._stream, flush=True)

    def _text(self) -> str:
        elapsed = max(self._clock() - self._start, 1e-9)
        rate = (self._done - self._first) / elapsed
        amount = f"{self._done:,}" if self._total is None else f"{self._done:,} of {self._total:,}"
        unit = self._unit.removesuffix("s") if (self._total or self._done) == 1 else self._unit
        words = [f"{self._title}: {amount} {unit}", f"{per_second(rate)}/s"]
        if self._total and rate and self._done < self._total:
            words.append(f"{duration((self._total - self._done) / rate)} left")
        return ", ".join([*words, *([self._note] if self._note else [])])


def per_second(rate: float) -> str:
    """A rate in digits: below ten with one after the point."""
    return f"{rate:,.{0 if rate >= 10 else 1}f}"


def counted(number: int, noun: str) -> str:
    """A number of things, such as "1 image" or "2,062 images", for nouns whose plural is in -s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as people say them: "42 s", "3 min 05 s", "2 h 10 min"."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60:02d} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60:02d} min"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # no stream at all, or a closed one
        return False


def _columns(stream: TextIO) -> int:
    """Columns of a terminal; many where that cannot be told."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or sys.maxsize
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


def _notebook_display() -> Callable[..., Any] | None:
    """The function that displays something below a notebook's cell; None outside of notebooks."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    return display
