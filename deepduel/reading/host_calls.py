"""Python functions in the graph of a data set, none of them under way when the interpreter ends.

A thread of tf.data that asks for the interpreter lock while the interpreter is taken down never gets it
(tensorflow#21319 names the race). The iterator, destroyed moments later, waits for that thread, and the
process hangs instead of ending. So calls are counted, and at exit no new one is let in and the last ones
are waited for.
"""

import atexit
import threading
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

_REST = 0.1  # seconds without a call, after which tf.data's own buffers are full and no more will come

_state = threading.Lock()
_under_way = 0
_last = -_REST  # time.monotonic() of the last call's beginning or end
_closed = False


def host_call(function: Callable, inputs: Sequence[tf.Tensor], types: tf.DType | Sequence[tf.DType]):
    """`tf.numpy_function` for functions of their arguments alone; at exit they are ended in order."""

    @tf.autograph.experimental.do_not_convert
    def counted(*arrays):
        global _under_way, _last
        with _state:
            if _closed:
                raise RuntimeError("the process is about to end")
            _under_way += 1
        try:
            return function(*arrays)
        finally:
            with _state:
                _under_way -= 1
                _last = time.monotonic()

    return tf.numpy_function(counted, inputs, types, stateful=False)


@atexit.register
def _close() -> None:
    global _closed
    _closed = True
    while _under_way or time.monotonic() - _last < _REST:
        time.sleep(0.01)
