import time

import numpy as np
import tensorflow as tf

from deepduel.training.compiled_step import CompiledStep
from deepduel.training.progress import Progress


def batches(sizes):
    """Batches of record numbers, each after a tenth of a second."""

    def generate():
        for size in sizes:
            time.sleep(0.1)
            yield {"records": np.arange(size)}

    return tf.data.Dataset.from_generator(
        generate, output_signature={"records": tf.TensorSpec((None,), tf.int64)}
    )


def test_the_wait_for_batches_and_their_records_are_in_the_progress():
    progress = Progress()
    step = CompiledStep(lambda batch: tf.reduce_sum(batch["records"]), lambda: ("category",), progress)
    iterator = iter(batches([3, 2]))
    assert int(step(iterator)) == 3
    assert progress.records.tolist() == [0, 1, 2]
    assert progress.input_seconds >= 0.1
    assert int(step(iterator)) == 1
    assert progress.records.tolist() == [0, 1]


def test_a_trace_serves_batches_of_all_sizes_until_the_tasks_change():
    traces, tasks = [], ["category", "authenticity"]

    def count(batch):
        traces.append(tuple(tasks))
        return tf.size(batch["records"])

    step, iterator = CompiledStep(count, lambda: tuple(tasks), Progress()), iter(batches([3, 2, 2]))
    assert [int(step(iterator)) for _ in range(2)] == [3, 2]
    tasks.remove("authenticity")
    assert int(step(iterator)) == 2
    assert traces == [("category", "authenticity"), ("category",)]
