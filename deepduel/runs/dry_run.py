"""--dry_run: what a run would be and what it would cost, without writing anything."""

import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.runs import disk_space
from deepduel.runs.options import RunOptions
from deepduel.training import devices, memory
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.errors import DataError
from tfrecords_tools.progress import counted, duration

_STEPS = 3
_SECONDS = 60.0  # after which no further step is timed


def report(
    trainer: MultiTaskTrainer,
    train_split: Split,
    validation_split: Split,
    reading: pipeline.ReadOptions,
    *,
    options: RunOptions,
) -> None:
    """Prints the networks, the memory and, from a few real steps, the time of an epoch.

    Raises:
      DataError: the estimate exceeds the device's memory, and no step is run then; or the disk.
    """
    for task in trainer.tasks:
        for part in (task.model.extractor, task.model.head):
            part.summary(line_length=100)
    _report_memory(trainer, reading, reading.decoding(train_split).size)
    steps = order.steps_per_epoch(len(train_split), reading.batch_size)
    training = pipeline.train_batches(train_split, reading, order.Position(options.seed))
    batches = iter(trainer.on_device(training))
    train = _timed(trainer.make_train_function(), batches, min(_STEPS, steps))
    validation_steps = order.steps_per_epoch(len(validation_split), reading.batch_size)
    batches = iter(trainer.on_device(pipeline.eval_batches(validation_split, reading)))
    validate = _timed(trainer.make_test_function(), batches, min(2, validation_steps))
    print(
        f"{counted(steps, 'step')} of {reading.batch_size} images an epoch, {train:.2f} s each; "
        f"{validation_steps:,} for validation, {validate:.2f} s each"
    )
    print(f"estimated time of an epoch: {duration(steps * train + validation_steps * validate)}")
    _report_disk(trainer, options)
    print(f"peak memory so far: {devices.peak_memory() / 1e9:.2f} GB; nothing was written")


def _report_memory(trainer: MultiTaskTrainer, reading: pipeline.ReadOptions, size: tuple[int, int]) -> None:
    cached = reading.cache != "none"
    parts = memory.estimate(trainer, batch_size=reading.batch_size, size=size, cached=cached)
    total, (available, kind) = sum(parts.values()), devices.available_memory()
    if kind == "free RAM":
        print(f"{devices.peak_memory() / 1e9:8.2f} GB  taken by the process so far, in addition to:")
    for name, count in parts.items():
        print(f"{count / 1e9:8.2f} GB  {name}")
    print(f"{total / 1e9:8.2f} GB  estimated in total, of {available / 1e9:.2f} GB {kind}", flush=True)
    if total > available:
        raise DataError(
            f"training would take about {total / 1e9:.1f} GB of {available / 1e9:.1f} GB {kind}; "
            "lower --micro_batch, then --batch_size, or choose a smaller head or backbone"
        )


def _report_disk(trainer: MultiTaskTrainer, options: RunOptions) -> None:
    epochs, free = options.length.epochs or 1, disk_space.free_bytes(pathlib.Path(options.workdir))
    total = disk_space.whole_run_bytes(trainer, epochs=epochs, keep_epochs=options.keep_epochs)
    of_what = counted(epochs, "epoch") if options.length.epochs else "an epoch"
    print(
        f"disk: {disk_space.state_bytes(trainer) / 1e9:.3f} GB a state, "
        f"{disk_space.epoch_bytes(trainer) / 1e9:.3f} GB the models of an epoch, up to {total / 1e9:.3f} GB "
        f"for {of_what}, of {free / 1e9:.1f} GB free"
    )
    if total > free:
        raise DataError(
            f"the run needs up to {total / 1e9:.3f} GB of the disk of {options.workdir}, which has "
            f"{free / 1e9:.3f} GB free; --keep_epochs=1 keeps fewer models, or give another --workdir"
        )


def _timed(step: Callable, batches: Iterator, count: int) -> float:
    """Seconds of a step, including the wait for its batch; the first one, which traces, does not count."""
    started = time.perf_counter()
    _wait(step(batches))
    if count == 1:  # the only step: it counts, tracing included
        return time.perf_counter() - started
    started, done = time.perf_counter(), 0
    while done < count - 1 and time.perf_counter() - started < _SECONDS:
        _wait(step(batches))
        done += 1
    return (time.perf_counter() - started) / done


def _wait(results: Any) -> None:
    tf.nest.map_structure(lambda tensor: tensor.numpy(), results)
