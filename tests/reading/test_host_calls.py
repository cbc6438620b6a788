import gc
import subprocess
import sys
import textwrap
import weakref

import keras
import pytest
import tensorflow as tf

from deepduel.reading.host_calls import HostFunction

PROGRAM = """
    import atexit, os, sys, time

    def end():  # registered first, so called last
        os.write(1, b"end of the process\\n")
        time.sleep(0.5)

    atexit.register(end)
    import tensorflow as tf
    from deepduel.reading.host_calls import HostFunction

    def slow(number):
        os.write(1, b"begun\\n")
        time.sleep(0.3)
        os.write(1, b"done\\n")
        return number

    slow = HostFunction(slow)
    numbers = tf.data.Dataset.range(1000).map(lambda n: slow([n], [tf.int64])[0], num_parallel_calls=2)
    kept = iter(numbers.prefetch(1))
    next(kept)
    sys.exit(3)
"""


@pytest.mark.slow
def test_calls_under_way_are_waited_for_at_the_end_of_the_process():
    words = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3, ended.stderr[-2000:]
    lines = ended.stdout.splitlines()
    assert lines.count("begun") == lines.count("done") >= 2
    assert lines[-1] == "end of the process"


def in_data_set(function):
    """Both a data set that calls `function` and a weak reference to what keeps the function."""
    host_function = HostFunction(function)
    numbers = tf.data.Dataset.range(4).map(lambda number: host_function([number], [tf.int64])[0])
    return numbers, weakref.ref(host_function)


def test_a_function_lives_as_long_as_its_data_set_and_iterators():
    numbers, kept = in_data_set(lambda number: 2 * number)
    derived = numbers.batch(2).prefetch(1)
    del numbers
    iterator = iter(derived)
    del derived
    gc.collect()
    assert [batch.numpy().tolist() for batch in iterator] == [[0, 2], [4, 6]]
    assert kept() is not None
    del iterator
    gc.collect()
    assert kept() is None


def test_nothing_of_a_data_set_is_left_in_the_default_graph():
    list(in_data_set(lambda number: number)[0])
    registered = lambda: len(getattr(tf.compat.v1.get_default_graph(), "_py_funcs_used_in_graph", []))
    before = registered()
    list(in_data_set(lambda number: number)[0])
    assert registered() == before


def test_a_data_set_still_works_after_clear_session():
    numbers, _ = in_data_set(lambda number: number)
    keras.utils.clear_session()
    assert [int(number) for number in numbers] == [0, 1, 2, 3]


def test_an_iterator_whose_function_is_gone_says_so():
    numbers, kept = in_data_set(lambda number: number)
    variant, spec = tf.data.experimental.to_variant(numbers), numbers.element_spec
    del numbers
    gc.collect()
    assert kept() is None
    with pytest.raises(tf.errors.OpError, match="the data set of this iterator was deleted"):
        next(iter(tf.data.experimental.from_variant(variant, spec)))
