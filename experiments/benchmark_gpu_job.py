"""One measurement of `benchmark_gpu`, in a process of its own: a job as JSON in, rows as JSON out.

    python -m experiments.benchmark_gpu_job JOB

prints one row a line as soon as it is measured, so that what is measured stays when time is over.
"""

import gc
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from tfrecords_tools import cli

NETWORKS = {  # label axis, backbone, head, fine_tune
    "xception": ("category", "xception", "avg,dropout:0.5,dense:512", "none"),
    "vgg16": ("authenticity", "vgg16", "flatten,dense:2048,dense:2048", "none"),
    "efficientnetv2s": ("category", "efficientnetv2s", "avg", "all"),
    "small_cnn": ("category", "small_cnn", "avg", "none"),
}


def main(text: str) -> None:
    job = json.loads(text)
    if job.get("cores"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["cores"]])
    cli.quiet_tensorflow()
    for row in {"training": training, "augmentation": augmentation, "waiting": waiting}[job["kind"]](job):
        print(json.dumps(row), flush=True)
    os._exit(0)  # the loaders' threads and processes need no farewell


def training(job: dict) -> Iterator[dict]:
    """Each batch size and way: images/s, peak memory with its estimate, utilisation."""
    import tensorflow as tf

    from experiments import gpu_meters

    for batch in job["batches"]:
        for way in [*job["ways"], *(job["xla_ways"] if batch in job["xla_batches"] else [])]:
            row = {name: job[name] for name in ("kind", "network", "precision")} | {
                "batch": batch,
                "way": way,
            }
            if time.time() > job["deadline"]:
                yield row | {"failed": "the time was over"}
                continue
            tf.keras.backend.clear_session()
            gc.collect()  # what was measured before is in cycles of references
            gpu_meters.reset_peak()
            try:
                row |= (_deepduel if way.startswith("deepduel") else _keras)(job, batch, way)
                row["peak_bytes"] = gpu_meters.peak_bytes()
            except tf.errors.ResourceExhaustedError:
                row["failed"] = "out of memory"
            yield row


def waiting(job: dict) -> Iterator[dict]:
    """deepduel on some cores: the share of the time spent waiting for batches, and a trace's figures."""
    from experiments import gpu_trace

    step, trainer = _trainer(job, job["batch"])
    step()
    rate, seconds, waited = _timed(step, trainer, job["batch"], job["seconds"])
    row = {"kind": "waiting", "cores": job["cores"], "network": job["network"], "batch": job["batch"]}
    row |= {"images_per_second": rate, "waiting_share": waited / seconds}
    if job["trace"]:
        import tensorflow as tf

        with tempfile.TemporaryDirectory() as folder:
            tf.profiler.experimental.start(folder)
            for _ in range(3):
                step()
            tf.profiler.experimental.stop()
            row["trace"] = gpu_trace.figures(gpu_trace.read(pathlib.Path(folder)))
    yield row


def augmentation(job: dict) -> Iterator[dict]:
    """The warp and the keras-cv layers on a batch that is there, flow_from_directory from the files."""
    from experiments import benchmark_keras, benchmark_ours
    from experiments.benchmark_job import Job

    loader_job = Job(**job["job"])
    ways = {
        "deepduel's warp": lambda: benchmark_ours.augmentation_alone(loader_job),
        "keras-cv layers": lambda: benchmark_keras.keras_cv_alone(loader_job),
        "flow_from_directory": lambda: benchmark_keras.flow(loader_job, augment=True),
    }
    for way, batches in ways.items():
        row = {"kind": "augmentation", "way": way, "batch": loader_job.batch_size}
        iterator = batches()
        step = lambda iterator=iterator: next(iterator)
        _wait(step()[1])
        yield row | {"images_per_second": _rate(step, job["seconds"])}


def _rate(step: Callable, seconds: float) -> float:
    images, started = 0, time.perf_counter()
    while not images or time.perf_counter() - started < seconds:
        for _ in range(4):
            count, batch = step()
            images += count
        _wait(batch)  # a GPU is given work long before it is done
    return images / (time.perf_counter() - started)


def _wait(batch) -> None:
    if hasattr(batch, "numpy"):
        batch[0, 0, 0].numpy()


def _deepduel(job: dict, batch: int, way: str) -> dict:
    from deepduel.training import memory
    from experiments import gpu_meters

    step, trainer = _trainer(job, batch, compiled=way == "deepduel-xla")
    step()
    estimate = memory.estimate(trainer, batch_size=batch, size=(job["stored_size"],) * 2)
    with gpu_meters.Utilisation() as utilisation:
        rate, seconds, waited = _timed(step, trainer, batch, job["seconds"])
    row = {"images_per_second": rate, "waiting_share": waited / seconds, "utilisation": utilisation.mean}
    return row | {"micro_batch": trainer.micro_batch, "estimated_bytes": sum(estimate.values())}


def _timed(step: Callable, trainer, batch: int, at_least: float) -> tuple[float, float, float]:
    """(images/s, seconds, seconds of these spent waiting for batches)."""
    before, started, done = trainer.progress.input_seconds, time.perf_counter(), 0
    while not done or time.perf_counter() - started < at_least:
        results = step()
        done += 1
        next(iter(results.values())).numpy()
    seconds = time.perf_counter() - started
    return batch * done / seconds, seconds, trainer.progress.input_seconds - before


def _trainer(job: dict, batch: int, *, compiled: bool = False):
    """(a function that trains a step, deepduel's trainer)."""
    from deepduel.augment import PRESETS
    from deepduel.training.passes import Passes
    from deepduel.training.task import Task
    from deepduel.training.trainer import MultiTaskTrainer

    axis, model, split = _model(job)
    task = Task(axis, model, PRESETS["original"], _optimizer(model))
    trainer = MultiTaskTrainer([task], micro_batch=min(job["micro_batch"], batch))
    trainer.passes = Passes(compiled=compiled)
    trainer.compile()
    function, iterator = trainer.make_train_function(), iter(trainer.on_device(_batches(split, batch)))
    return lambda: function(iterator), trainer


def _keras(job: dict, batch: int, way: str) -> dict:
    """Keras' fit of the same network on the same batches, augmented by the same layer within the model."""
    import keras

    from deepduel.augment import PRESETS, RandomWarp

    axis, parts, split = _model(job)
    size = parts.architecture.image_size
    network = keras.Model(
        parts.extractor.input,
        parts.head(
            parts.extractor(
                parts.extractor.input, training=None if parts.architecture.trains_statistics else False
            )
        ),
    )
    model = keras.Sequential([RandomWarp(size, augmentation=PRESETS["original"]), network])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(_optimizer(parts), loss, metrics=["accuracy"], jit_compile=way == "keras-xla")
    batches = _batches(split, batch).map(lambda batch: (batch["images"], batch["labels"][axis]))
    clock = _Clock(job["seconds"])
    model.fit(batches, steps_per_epoch=10**6, epochs=1, callbacks=[clock.callback(model)], verbose=0)
    clock.utilisation.__exit__()
    return {
        "images_per_second": batch * clock.steps / clock.seconds,
        "utilisation": clock.utilisation.mean,
    }


class _Clock:
    """Times fit's steps after the first one, and ends it when there was time enough."""

    def __init__(self, at_least: float):
        from experiments import gpu_meters

        self._at_least, self.steps, self.seconds = at_least, 0, 0.0
        self.utilisation = gpu_meters.Utilisation()

    def callback(self, model):
        import keras

        started: list[float] = []

        def on_train_batch_end(batch, logs=None):
            if not started:
                self.utilisation.__enter__()
                started.append(time.perf_counter())
                return
            self.steps += 1
            self.seconds = time.perf_counter() - started[0]
            model.stop_training = self.seconds >= self._at_least  # Keras looks at it after each batch

        return keras.callbacks.LambdaCallback(on_train_batch_end=on_train_batch_end)


def _optimizer(model):
    """Adam, which scales the loss where float16 is trained."""
    import keras

    optimizer = keras.optimizers.Adam(0.001)
    scaling = model.architecture.trainable and model.architecture.precision == "mixed_float16"
    return keras.optimizers.LossScaleOptimizer(optimizer) if scaling else optimizer


def _model(job: dict):
    """(label axis, built model, split)."""
    from deepduel.decoding.split import Split
    from deepduel.networks import task_model
    from deepduel.networks.architecture import Architecture

    split = Split(job["data_dir"], "train")
    axis, backbone, head, fine_tune = NETWORKS[job["network"]]
    architecture = Architecture(
        backbone, head, job["image_size"], fine_tune=fine_tune, precision=job["precision"]
    )
    return axis, task_model.build(axis, architecture, split.manifest.axes[axis]), split


def _batches(split, batch: int):
    from deepduel import order
    from deepduel.reading import pipeline

    return pipeline.train_batches(split, pipeline.ReadOptions(batch), order.Position())


if __name__ == "__main__":
    main(*sys.argv[1:])
