"""Batch numbers -> batches; while one is waited for, the next ones are being decoded already.

A batch depends on its number alone, so what was begun ahead is only ever work done early: whoever asks
for another number than the next one, or for the same twice, gets the same batch a little later.
"""

import threading
from collections.abc import Callable


class ReadAhead:
    """Callable: batch number -> what `begin(number)` gives. May be called by several threads at once.

    Two iterators over one data set may stand at two places. Batches that nobody comes for any more
    give way to others.
    """

    def __init__(self, begin: Callable, *, batches: int, end: int):
        """Keeps up to `batches` under way beyond the one asked for, of those before number `end`."""
        self._begin = begin
        self._batches = batches
        self._end = end
        self._begun: dict[int, object] = {}
        self._lock = threading.Lock()

    def __call__(self, number: int):
        with self._lock:
            asked = self._begun.pop(number) if number in self._begun else self._begin(number)
            for following in range(number + 1, min(number + 1 + self._batches, self._end)):
                if following not in self._begun:
                    self._begun[following] = self._begin(following)
            while len(self._begun) > 2 * self._batches:
                del self._begun[next(iter(self._begun))]
        return asked
