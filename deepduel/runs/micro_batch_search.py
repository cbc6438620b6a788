"""--micro_batch=auto and --jit_compile=auto: what is the fastest on this device, found by measuring.

    RUN/micro_batch.json    {device and networks: {"micro_batch": 32, "images_per_second": {"8": 21.5, …},
                                                   "compiled": false, "compiled_images_per_second": {}}}

First the size of a micro-batch is chosen. Then XLA is tried with that size on a GPU; on a CPU it is slow. The
result is stored, and used again when the run is resumed on such a device. Where batch-norm statistics are
trained, the micro-batch is part of the result, and so is XLA where a trained backbone draws random numbers:
there the first choice holds on any device.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import tensorflow as tf

from deepduel.networks import keras_graph
from deepduel.networks.compiled import compiled
from deepduel.runs import build
from deepduel.training import devices, step
from deepduel.training.passes import Passes
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
      compiled: whether XLA compiles the networks.
      compiled_images_per_second: by size, compiled; empty where that was not tried.
    """

    micro_batch: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
    images_per_second: dict[str, float]
    compiled: bool = False
    compiled_images_per_second: dict[str, float] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        parts = [("by size", self.images_per_second), ("compiled by XLA", self.compiled_images_per_second)]
        rates = "; ".join(
            f"{name}: {', '.join(f'{size}: {rate:,.1f}' for size, rate in measured.items())}"
            for name, measured in parts
            if measured
        )
        return f"micro-batch {self.micro_batch}{', compiled by XLA' * self.compiled} (images/s {rates})"


def choose(
    trainer: MultiTaskTrainer,
    *,
    micro_batch: int | None,
    compiled: bool | None,
    batch_size: int,
    workdir: pathlib.Path | None,
) -> None:
    """Sets the trainer's micro-batch, and whether XLA compiles its networks.

    Args:
      micro_batch, compiled: what the options say; None for the fastest.
      workdir: folder of the run, where what is measured is stored; None stores nothing.
    """
    path = workdir / "micro_batch.json" if workdir else None
    trainer.passes = Passes(compiled=bool(compiled))
    tries_xla = compiled is None and (_draws(trainer) or bool(devices.gpu_names()))
    if micro_batch is not None and not tries_xla:
        trainer.micro_batch = min(micro_batch, batch_size)
        return
    stored = _stored(path) if path else {}
    key = _key(trainer, micro_batch, compiled, batch_size)
    if key not in stored:
        stored[key] = search(trainer, micro_batch=micro_batch, compiled=compiled, batch_size=batch_size)
        if path:
            _store(path, stored)
        if stored[key].images_per_second:
            print(stored[key], flush=True)
    trainer.micro_batch = stored[key].micro_batch
    by_xla = stored[key].compiled and tries_xla if compiled is None else compiled
    if trainer.passes.compiled != by_xla:  # else what the search has compiled is used again
        trainer.passes = Passes(compiled=by_xla)


def search(
    trainer: MultiTaskTrainer, *, micro_batch: int | None, compiled: bool | None, batch_size: int
) -> Search:
    """Measures; leaves the trainer's `passes` as they are found to be the fastest. Arguments as `choose`."""
    rates: dict[int, float] = {}
    size = min(micro_batch or batch_size, batch_size)
    if micro_batch is None:
        rates = measure(trainer, batch_size=batch_size) or {1: 0.0}
        size = fastest(rates)
    by_xla: dict[int, float] = {}
    if compiled is None and devices.gpu_names():
        rates = rates or measure(trainer, batch_size=size, first=size)
        trainer.passes = Passes(compiled=True)
        by_xla = _by_xla(trainer, size)
        if not by_xla or by_xla[size] < _GAIN * rates.get(size, 0):
            trainer.passes = Passes()
    return Search(size, _named(rates), trainer.passes.compiled, _named(by_xla))


def _by_xla(trainer: MultiTaskTrainer, size: int) -> dict[int, float]:
    """{size: images/s} with networks that XLA compiles; empty where it cannot, or memory does not suffice."""
    try:
        return measure(trainer, batch_size=size, first=size)
    except tf.errors.OpError as error:
        print(f"XLA does not compile these networks: {str(error).splitlines()[0]}", flush=True)
        return {}


def _named(rates: dict[int, float]) -> dict[str, float]:
    return {str(size): rate for size, rate in rates.items()}


def lower(
    trainer: MultiTaskTrainer,
    workdir: pathlib.Path,
    *,
    micro_batch: int,
    compiled: bool | None,
    batch_size: int,
) -> None:
    """Lets `choose` give another micro-batch from now on, where it measures one."""
    path = workdir / "micro_batch.json"
    stored, key = _stored(path), _key(trainer, None, compiled, batch_size)
    search = stored.get(key) or Search(micro_batch, {}, trainer.passes.compiled)
    _store(path, stored | {key: dataclasses.replace(search, micro_batch=micro_batch)})


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


def measure(trainer: MultiTaskTrainer, *, batch_size: int, first: int = _FIRST) -> dict[int, float]:
    """{size: images/s} through all tasks' networks, from `first` on in doublings, as memory and time allow.

    Empty where memory does not suffice for the first size. All variables that it changes (batch-norm
    statistics, seeds) get their values back.
    """
    variables = trainer.state_variables()
    values = [variable.numpy() for variable in variables]
    try:
        return _rates(_pass(trainer), min(first, batch_size), batch_size)
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _pass(trainer: MultiTaskTrainer) -> Callable[[int], Any]:
    """A function of the number of images, which is static where XLA compiles, as it is in training."""
    if not trainer.passes.compiled:
        spec = tf.TensorSpec((), tf.int32)
        return compiled(lambda count: _once(trainer, count), spec)
    functions: dict[int, Callable] = {}

    def run(size: int) -> Any:
        if size not in functions:
            functions[size] = compiled(functools.partial(_once, trainer, size))
        return functions[size]()

    return run


def _rates(run: Callable, size: int, batch_size: int) -> dict[int, float]:
    free, _ = devices.available_memory()
    peak_before, started = devices.peak_memory(), None
    rates: dict[int, float] = {}
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


def _once(trainer: MultiTaskTrainer, count: int | tf.Tensor) -> list[tf.Tensor]:
    """One pass of `count` gray images: forward, and backward where the backbone is trained."""
    results = []
    for tasks_with_this_extractor in step.group_by_extractor(trainer.tasks):
        owner = tasks_with_this_extractor[0]
        images = tf.fill((count, owner.size, owner.size, 3), 127.0)
        images = tf.ensure_shape(images, (None, owner.size, owner.size, 3))
        if not owner.trainable:
            features = trainer.passes.features(owner, images)
            results.append(tf.reduce_sum(tf.cast(features, tf.float32)))
            continue
        targets, masks, weights = {}, {}, {}
        for task in tasks_with_this_extractor:
            soft = tf.fill((count, task.classes), 1 / task.classes)
            targets[task.name] = Targets(soft, tf.ones(count), tf.zeros(count, tf.int32), tf.ones(count))
            masks[task.name] = step.draw_masks(task.model.head, count)
            weights[task.name] = tf.cast(count, tf.float32)
        _, gradients = trainer.passes.backward(tasks_with_this_extractor, images, masks, targets, weights)
        results.append(tf.linalg.global_norm(tf.nest.flatten(gradients)))
    return results


def _draws(trainer: MultiTaskTrainer) -> bool:
    """Whether a trained backbone draws random numbers, of which XLA draws others."""
    layers = [
        layer
        for task in trainer.tasks
        if task.trains_statistics
        for layer in keras_graph.flat_layers(task.model.extractor)
    ]
    return any(getattr(layer, "seed_generator", None) for layer in layers)


def _key(trainer: MultiTaskTrainer, micro_batch: int | None, compiled: bool | None, batch_size: int) -> str:
    networks = [
        f"{task.model.architecture.backbone}@{task.size} {task.model.architecture.fine_tune} "
        f"{task.model.architecture.precision} stem {task.model.architecture.stem_stride}"
        f"{' shared' * task.shares_extractor}"
        for task in trainer.tasks
    ]
    is_part_of_the_result = any(task.trains_statistics and build.normalises(task) for task in trainer.tasks)
    device = "any device" if is_part_of_the_result or _draws(trainer) else devices.kind()
    options = [f"micro-batch {micro_batch}"] * (micro_batch is not None) + ["compiled"] * bool(compiled)
    return "; ".join([device, *networks, f"batch {batch_size}", *options])
