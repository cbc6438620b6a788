"""Python functions in the graphs of data sets.

`tf.numpy_function` keeps each function, and all that it refers to, alive in TensorFlow's default graph until
the process ends. So only one function is registered with TensorFlow, once; the graphs name ours by number,
and each of ours lives for as long as its `HostFunction`, which the data set's `map` refers to: when the data
set and its iterators are gone, so are the decoder, its memory and its files.

No call is under way when the interpreter ends. A thread of tf.data that asks for the interpreter lock while
the interpreter is taken down never gets it (tensorflow#21319 names the race). The iterator, destroyed moments
later, waits for that thread, and the process hangs instead of ending. So calls are counted, and at exit no
new one begins and the last ones are waited for.
"""

import atexit
import functools
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_REST = 0.1  # seconds without a call, after which tf.data's own buffers are full and no more will come

_numbers = itertools.count()
_functions: weakref.WeakValueDictionary[int, "HostFunction"] = weakref.WeakValueDictionary()
_graph = tf.Graph()  # TensorFlow keeps `_call` registered for as long as this graph lives

_state = threading.Lock()
_under_way = 0
_last = -_REST  # time.monotonic() of the last call's beginning or end
_closed = False


class HostFunction:
    """A function of arrays that may be called in the graph of a data set.

    Whoever builds the graph keeps the object for as long as the graph runs: the function given to
    `Dataset.map` should refer to it, since the data set and its iterators keep that function.

    Examples:
      >>> twice = HostFunction(lambda number: 2 * number)
      >>> numbers = tf.data.Dataset.range(3).map(lambda number: twice([number], [tf.int64])[0])
      >>> [int(number) for number in numbers]
      [0, 2, 4]
    """

    def __init__(self, function: Callable[..., Any], *, in_turn: bool = False) -> None:
        """Makes `function` callable in graphs.

        Args:
          function: NumPy arrays -> an array or a sequence of arrays. Its result must depend on the inputs
            alone.
          in_turn: whether its calls come one after the other; else tf.data may make several at once.
        """
        self.function = function
        self._operation = tf.raw_ops.PyFunc if in_turn else tf.raw_ops.PyFuncStateless
        self._number = next(_numbers)
        _functions[self._number] = self

    def __call__(self, inputs: Sequence[tf.Tensor], types: Sequence[tf.DType]) -> list[tf.Tensor]:
        """The results as tensors of these types."""
        number = tf.constant(self._number, tf.int64)
        return self._operation(input=[number, *inputs], token=_token(), Tout=list(types))


@functools.cache
def _token() -> bytes:
    """The name under which TensorFlow knows `_call`."""
    with _graph.as_default():
        return tf.numpy_function(_call, [tf.constant(0, tf.int64)], tf.int64, stateful=False).op.get_attr(
            "token"
        )


@tf.autograph.experimental.do_not_convert
def _call(number: np.ndarray, *arrays: np.ndarray) -> Any:
    global _under_way, _last
    with _state:
        if _closed:
            raise RuntimeError("the process is about to end")
        _under_way += 1
    try:
        host_function = _functions.get(int(number))
        if host_function is None:
            raise RuntimeError("the data set of this iterator was deleted; keep a reference to it")
        return host_function.function(*arrays)
    finally:
        with _state:
            _under_way -= 1
            _last = time.monotonic()


@atexit.register
def _close() -> None:
    global _closed
    _closed = True
    while _under_way or time.monotonic() - _last < _REST:
        time.sleep(0.01)
