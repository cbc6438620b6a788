"""--micro_batch=auto: the size of a micro-batch that fits and is fastest, by trying.

    RUN/micro_batch.json    {device and networks: {"micro_batch": 32, "images_per_second": {"8": 21.5, …}}}

The answer is kept and taken again by whoever goes on with the run on such a device. Where batch-norm
statistics are trained, the micro-batch is part of the result: there the first answer holds on any device.
"""

import json
import pathlib
import time

import tensorflow as tf

from deepduel.runs import build
from deepduel.training import devices, memory, step
from deepduel.training.task import Task
from deepduel.training.task_losses import Targets
from deepduel.training.trainer import Duel

_FIRST = 8
_SECONDS = 15.0  # for all sizes together, once the function is traced
_USABLE = 0.8  # of the memory; the rest is margin
_GAIN = 1.03  # that a size must be faster by than all smaller ones


def chosen(duel: Duel, workdir: pathlib.Path, *, batch_size: int) -> int:
    """The remembered size, or one that is measured now and remembered."""
    path = workdir / "micro_batch.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    key = _key(duel, batch_size)
    if key not in known:
        rates = measure(duel, batch_size=batch_size)
        best = fastest(rates)
        known[key] = {"micro_batch": best, "images_per_second": {str(size): rates[size] for size in rates}}
        partial = path.with_name(".micro_batch.json.partial")
        partial.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
        partial.replace(path)
        tried = ", ".join(f"{size}: {rate:,.1f}" for size, rate in rates.items())
        print(f"micro-batch {best} (images/s of the networks by size: {tried})", flush=True)
    return known[key]["micro_batch"]


def fastest(rates: dict[int, float]) -> int:
    """The smallest size that no other beats by 3 %."""
    return min(size for size, rate in rates.items() if rate * _GAIN >= max(rates.values()))


def measure(duel: Duel, *, batch_size: int) -> dict[int, float]:
    """{size: images/s} through all tasks' networks, from 8 on in doublings, as long as memory and time allow.

    Nothing that it changes (batch-norm statistics, seeds) stays changed.
    """
    variables = duel.state_variables()
    kept = [variable.numpy() for variable in variables]
    spec = tf.TensorSpec((), tf.int32)
    run = tf.function(lambda count: _once(duel.tasks, count), input_signature=[spec], autograph=False)
    free, _ = memory.device_bytes()
    before, rates, started, spent = memory.peak_bytes(), {}, None, 0.0
    size = min(_FIRST, batch_size)
    try:
        while True:
            try:
                run(size)  # the first time traced, then with memory that is there
                started = started or time.perf_counter()
                taken = min(_seconds(run, size) for _ in range(2))
            except tf.errors.ResourceExhaustedError:
                break
            rates[size] = size / taken
            spent = time.perf_counter() - started
            growth = memory.peak_bytes() - before
            if size >= batch_size or 2 * growth > _USABLE * free or spent + 6 * taken > _SECONDS:
                break
            size = min(2 * size, batch_size)
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
    return rates or {1: 0.0}


def _seconds(run, size: int) -> float:
    started = time.perf_counter()
    tf.nest.map_structure(lambda tensor: tensor.numpy(), run(size))  # waits for the device
    return time.perf_counter() - started


def _once(tasks: tuple[Task, ...], count: tf.Tensor) -> list[tf.Tensor]:
    """One pass of `count` gray images: forward, and back where the backbone is trained."""
    results = []
    for sharers in step.sharing(tasks):
        first = sharers[0]
        images = tf.fill((count, first.size, first.size, 3), 127.0)
        images = tf.ensure_shape(images, (None, first.size, first.size, 3))
        if not first.trainable:
            results.append(tf.reduce_sum(tf.cast(first.model.frozen(images), tf.float32)))
            continue
        targets, masks, totals = {}, {}, {}
        for task in sharers:
            soft = tf.fill((count, task.classes), 1 / task.classes)
            targets[task.name] = Targets(soft, tf.ones(count), tf.zeros(count, tf.int32), tf.ones(count))
            masks[task.name] = step.draw_masks(task.model.head, count)
            totals[task.name] = tf.cast(count, tf.float32)
        _, gradients = step.backward(sharers, images, masks, targets, totals)
        results.append(tf.linalg.global_norm(tf.nest.flatten(gradients)))
    return results


def _key(duel: Duel, batch_size: int) -> str:
    networks = [
        f"{task.model.architecture.backbone}@{task.size} {task.model.architecture.fine_tune} "
        f"{task.model.architecture.precision} stem {task.model.architecture.stem_stride}"
        f"{' shared' * task.borrows}"
        for task in duel.tasks
    ]
    fixed = any(task.trains_statistics and build.normalises(task) for task in duel.tasks)
    device = "any device" if fixed else devices.kind()
    return "; ".join([device, *networks, f"batch {batch_size}"])
