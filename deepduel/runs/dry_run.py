"""--dry_run: what a run would be, and what it would cost, without writing anything."""

import time

import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.training import memory
from deepduel.training.trainer import Duel
from tfrecords_tools.errors import DataError
from tfrecords_tools.progress import duration

_STEPS = 3
_SECONDS = 60.0  # after which no further step is timed


def report(
    duel: Duel, train_split: Split, validation_split: Split, reading: pipeline.ReadOptions, *, seed: int
):
    """Prints the networks, the memory and, from a few real steps, the time of an epoch.

    Raises:
      DataError: the estimate exceeds the device's memory; no step is tried then.
    """
    for task in duel.tasks:
        for part in (task.model.extractor, task.model.head):
            part.summary(line_length=100)
    _say_memory(duel, reading, reading.decoding(train_split).size)
    steps = order.steps_per_epoch(len(train_split), reading.batch_size)
    batches = iter(pipeline.train_batches(train_split, reading, order.Position(seed)))
    train = _timed(duel.make_train_function(), batches, min(_STEPS, steps))
    validation_steps = order.steps_per_epoch(len(validation_split), reading.batch_size)
    batches = iter(pipeline.eval_batches(validation_split, reading))
    validate = _timed(duel.make_test_function(), batches, min(2, validation_steps))
    print(
        f"{steps:,} steps of {reading.batch_size} images an epoch, {train:.2f} s each; "
        f"{validation_steps:,} for validation, {validate:.2f} s each"
    )
    print(f"estimated time of an epoch: {duration(steps * train + validation_steps * validate)}")
    print(f"peak memory so far: {memory.peak_bytes() / 1e9:.2f} GB; nothing was written")


def _say_memory(duel: Duel, reading: pipeline.ReadOptions, size: tuple[int, int]) -> None:
    parts = memory.estimate(duel, batch_size=reading.batch_size, size=size)
    total, (available, what) = sum(parts.values()), memory.device_bytes()
    if what == "free RAM":
        print(f"{memory.peak_bytes() / 1e9:8.2f} GB  taken by the process so far, before what follows")
    for name, count in parts.items():
        print(f"{count / 1e9:8.2f} GB  {name}")
    print(f"{total / 1e9:8.2f} GB  in all, estimated, of {available / 1e9:.2f} GB {what}", flush=True)
    if total > available:
        raise DataError(
            f"training would take about {total / 1e9:.1f} GB of {available / 1e9:.1f} GB {what}; "
            "lower --micro_batch, then --batch_size, or take a smaller head or backbone"
        )


def _timed(step, batches, count: int) -> float:
    """Seconds of a step, waiting for its batch included; the first, which traces, does not count."""
    results, started = step(batches), time.perf_counter()
    _wait(results)
    if count == 1:  # all there is: time it again, traced, on the same number of images
        return time.perf_counter() - started
    started, done = time.perf_counter(), 0
    while done < count - 1 and time.perf_counter() - started < _SECONDS:
        _wait(step(batches))
        done += 1
    return (time.perf_counter() - started) / done


def _wait(results) -> None:
    tf.nest.map_structure(lambda tensor: tensor.numpy(), results)
