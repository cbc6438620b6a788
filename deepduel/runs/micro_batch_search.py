"""--micro_batch=auto: the fastest size of a micro-batch that fits into memory, found by measuring.

    RUN/micro_batch.json    {device and networks: {"micro_batch": 32, "images_per_second": {"8": 21.5, …}}}

The result is stored, and used again when the run is resumed on such a device. Where batch-norm
statistics are trained, the micro-batch is part of the result: there the first choice holds on any device.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
import tensorflow as tf

from deepduel.runs import build
from deepduel.training import devices, step
from deepduel.training.task import Task
from deepduel.training.task_losses import Targets
from deepduel.training.trainer import MultiTaskTrainer
from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import documents

_FIRST = 8
_SECONDS = 15.0  # for all sizes together, not counting the first trace
_USABLE = 0.8  # of the memory; the rest is margin
_GAIN = 1.03  # how much faster a larger size must be to be preferred


@dataclasses.dataclass(frozen=True)
class Search:
    """What a search has found.

    Attributes:
      micro_batch: the size that was chosen, images.
      images_per_second: by size.
    """

    micro_batch: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    images_per_second: dict[str, float]


def chosen(trainer: MultiTaskTrainer, workdir: pathlib.Path, *, batch_size: int) -> int:
    """The stored size, or one that is measured and stored now."""
    path = workdir / "micro_batch.json"
    stored = _stored(path)
    key = _key(trainer, batch_size)
    if key not in stored:
        rates = measure(trainer, batch_size=batch_size)
        best = fastest(rates)
        stored[key] = Search(best, {str(size): rates[size] for size in rates})
        _store(path, stored)
        measured = ", ".join(f"{size}: {rate:,.1f}" for size, rate in rates.items())
        print(f"micro-batch {best} (images/s of the networks by size: {measured})", flush=True)
    return stored[key].micro_batch


def store(trainer: MultiTaskTrainer, workdir: pathlib.Path, *, batch_size: int, size: int) -> None:
    """Lets `chosen` give another size from now on."""
    path = workdir / "micro_batch.json"
    stored, key = _stored(path), _key(trainer, batch_size)
    rates = stored[key].images_per_second if key in stored else {}
    _store(path, stored | {key: Search(size, rates)})


def _store(path: pathlib.Path, searches: dict[str, Search]) -> None:
    with published(path) as file:
        sizes = {name: dataclasses.asdict(search) for name, search in searches.items()}
        file.write(json.dumps(sizes, indent=1) + "\n")


def _stored(path: pathlib.Path) -> dict[str, Search]:
    try:
        return documents.read_file(path, dict[str, Search])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: unreadable ({error}); remove it, and the size is measured again") from error


def fastest(rates: dict[int, float]) -> int:
    """The smallest size that no other exceeds by 3 %; `rates` is {size: images/s}."""
    return min(size for size, rate in rates.items() if rate * _GAIN >= max(rates.values()))


def measure(trainer: MultiTaskTrainer, *, batch_size: int) -> dict[int, float]:
    """{size: images/s} through all tasks' networks, from 8 on in doublings, as memory and time allow.

    All variables that it changes (batch-norm statistics, seeds) get their values back.
    """
    variables = trainer.state_variables()
    values = [variable.numpy() for variable in variables]
    spec = tf.TensorSpec((), tf.int32)
    run = tf.function(lambda count: _once(trainer.tasks, count), input_signature=[spec], autograph=False)
    try:
        return _rates(run, batch_size) or {1: 0.0}
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _rates(run: Callable, batch_size: int) -> dict[int, float]:
    free, _ = devices.available_memory()
    peak_before, started = devices.peak_memory(), None
    rates: dict[int, float] = {}
    size = min(_FIRST, batch_size)
    while True:
        try:
            run(size)  # the first call traces, the others allocate
            started = started or time.perf_counter()
            seconds = min(_seconds(run, size) for _ in range(2))
        except tf.errors.ResourceExhaustedError:
            return rates
        rates[size] = size / seconds
        spent = time.perf_counter() - started
        growth = devices.peak_memory() - peak_before
        if size >= batch_size or 2 * growth > _USABLE * free or spent + 6 * seconds > _SECONDS:
            return rates
        size = min(2 * size, batch_size)


def _seconds(run: Callable, size: int) -> float:
    started = time.perf_counter()
    tf.nest.map_structure(lambda tensor: tensor.numpy(), run(size))  # waits for the device
    return time.perf_counter() - started


def _once(tasks: Sequence[Task], count: tf.Tensor) -> list[tf.Tensor]:
    """One pass of `count` gray images: forward, and backward where the backbone is trained."""
    results = []
    for tasks_with_this_extractor in step.group_by_extractor(tasks):
        owner = tasks_with_this_extractor[0]
        images = tf.fill((count, owner.size, owner.size, 3), 127.0)
        images = tf.ensure_shape(images, (None, owner.size, owner.size, 3))
        if not owner.trainable:
            results.append(tf.reduce_sum(tf.cast(owner.model.frozen(images), tf.float32)))
            continue
        targets, masks, weights = {}, {}, {}
        for task in tasks_with_this_extractor:
            soft = tf.fill((count, task.classes), 1 / task.classes)
            targets[task.name] = Targets(soft, tf.ones(count), tf.zeros(count, tf.int32), tf.ones(count))
            masks[task.name] = step.draw_masks(task.model.head, count)
            weights[task.name] = tf.cast(count, tf.float32)
        _, gradients = step.backward(tasks_with_this_extractor, images, masks, targets, weights)
        results.append(tf.linalg.global_norm(tf.nest.flatten(gradients)))
    return results


def _key(trainer: MultiTaskTrainer, batch_size: int) -> str:
    networks = [
        f"{task.model.architecture.backbone}@{task.size} {task.model.architecture.fine_tune} "
        f"{task.model.architecture.precision} stem {task.model.architecture.stem_stride}"
        f"{' shared' * task.shares_extractor}"
        for task in trainer.tasks
    ]
    is_part_of_the_result = any(task.trains_statistics and build.normalises(task) for task in trainer.tasks)
    device = "any device" if is_part_of_the_result else devices.kind()
    return "; ".join([device, *networks, f"batch {batch_size}"])
