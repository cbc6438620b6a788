"""The items of an iterator, taken in a thread of its own, one ahead of their use."""

import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

_JOIN_SECONDS = 2.0
_running: "weakref.WeakKeyDictionary[threading.Thread, Callable[[], None]]" = weakref.WeakKeyDictionary()


class Ahead(Generic[Item]):
    """Takes items in a thread, which ends with the iterator, with `close`, or with this object.

    Examples:
      >>> numbers = Ahead(lambda: iter([1, 2]))
      >>> numbers.get(), numbers.get(), numbers.get()
      (1, 2, None)
    """

    def __init__(self, iterate: Callable[[], Iterator[Item]], unblock: Callable[[], None] | None = None):
        """Starts the thread.

        Args:
          iterate: returns the iterator; called in the thread.
          unblock: ends what the iterator may be waiting for.
        """
        ready: queue.Queue = queue.Queue(1)
        stop = threading.Event()

        def end() -> None:
            stop.set()
            if unblock is not None:
                unblock()

        thread = threading.Thread(target=_take, args=(iterate, ready, stop), daemon=True)
        _running[thread] = end
        self._ready = ready
        self.close = weakref.finalize(self, end)
        self.close.atexit = False
        thread.start()

    def get(self, timeout: float | None = None) -> Item | None:
        """The next item, or None behind the last one.

        Raises:
          queue.Empty: there is none after `timeout` seconds.
          BaseException: what the iterator raised.
        """
        item, error = self._ready.get(timeout=timeout)
        if error is not None:
            raise error
        return item


def _take(iterate: Callable[[], Iterator], ready: queue.Queue, stop: threading.Event) -> None:
    def put(item: object, error: BaseException | None = None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, error), timeout=1)
                return True
        return False

    try:
        for item in iterate():
            if not put(item):
                return
            del item  # the memory of a batch is used again once nothing refers to it
    except BaseException as error:
        put(None, error)
        return
    put(None)


@atexit.register
def _end_all() -> None:
    """No thread comes back from C++ while the interpreter is taken down."""
    threads = dict(_running)
    for end in threads.values():
        end()
    for thread in threads:
        thread.join(_JOIN_SECONDS)
