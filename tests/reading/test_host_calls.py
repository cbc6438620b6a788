"""When the interpreter is taken down, no call is under way and none begins."""

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
    import atexit, os, sys, time

    def end():  # registered first, so called last
        os.write(1, b"end of the process\\n")
        time.sleep(0.5)

    atexit.register(end)
    import tensorflow as tf
    from deepduel.reading.host_calls import host_call

    def slow(number):
        os.write(1, b"begun\\n")
        time.sleep(0.3)
        os.write(1, b"done\\n")
        return number

    numbers = tf.data.Dataset.range(1000).map(lambda n: host_call(slow, [n], tf.int64), num_parallel_calls=2)
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
