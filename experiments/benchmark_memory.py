"""Peak memory and speed of a training step of Deepfake Duel's two models, against the batch size.

    python -m experiments.benchmark_memory --data_dir=SHARDS --models=xception,vgg16 --batches=64,512

Each model and batch size runs in a fresh process: a few steps on augmented images of 200x200 pixels,
random weights (they cost what trained ones cost). `plain` is the same network in Keras' own fit, on
the same augmented images, where the whole batch goes through the backbone at once.
"""

import functools
import json
import resource
import subprocess
import sys
import time

from absl import flags

from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError
from tfrecords_tools.progress import Progress

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "data_dir", None, "Folder of shards to read images from.", flag_values=FLAGS, required=True
)
flags.DEFINE_list(
    "models", ["xception", "vgg16", "both"], "Models to measure: xception, vgg16, both.", flag_values=FLAGS
)
flags.DEFINE_list("batches", ["64", "512"], "Batch sizes.", flag_values=FLAGS)
flags.DEFINE_list("ways", ["ours"], "What to measure: ours, or plain (Keras).", flag_values=FLAGS)
flags.DEFINE_integer(
    "image_size", 224, "Side of the networks' input in pixels.", lower_bound=71, flag_values=FLAGS
)
flags.DEFINE_integer("micro_batch", 32, "Micro-batch of ours.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string(
    "fine_tune", "none", "What ours trains of the backbone: none, all or last:N.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "precision", "float32", ["float32", "mixed_bfloat16"],
    "Precision of the backbones.", flag_values=FLAGS)  # fmt: skip
flags.DEFINE_integer(
    "steps",
    2,
    "Number of steps; the first is not timed, so 1 measures only the memory.",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_string("job", "", "Internal: one measurement, as JSON.", flag_values=FLAGS)

MODELS = {"xception": ("category",), "vgg16": ("authenticity",), "both": ("category", "authenticity")}


def main(options: flags.FlagValues) -> None:
    if options.job:
        print(json.dumps(_measure(options.data_dir, **json.loads(options.job))))
        return
    batches = [_positive(batch) for batch in options.batches]
    jobs = [
        {"model": model, "batch": batch, "way": way, "size": options.image_size,
         "micro_batch": options.micro_batch, "fine_tune": options.fine_tune, "precision": options.precision,
         "steps": options.steps}
        for model in options.models for way in options.ways for batch in batches
    ]  # fmt: skip
    for job in jobs:
        if job["model"] not in MODELS or job["way"] not in ("ours", "plain"):
            raise UsageError(f"--models takes {', '.join(MODELS)}; --ways takes ours, plain")
    if options.fine_tune != "none" and "plain" in options.ways:
        raise UsageError("--fine_tune is of ours; leave plain out of --ways")
    print(f"{'model':10} {'way':6} {'batch':>6} {'peak GB':>8} {'uint8 batch GB':>15} {'images/s':>9}")
    with Progress("measuring", total=len(jobs), unit="runs") as bar:
        for number, job in enumerate(jobs):
            bar.update(number)
            words = [f"--data_dir={options.data_dir}", f"--job={json.dumps(job)}"]
            done = subprocess.run(
                [sys.executable, "-m", "experiments.benchmark_memory", *words],
                stdout=subprocess.PIPE,
                text=True,
            )
            name = f"{job['model']:10} {job['way']:6} {job['batch']:>6}"
            if done.returncode:
                print(f"{name}   failed with exit code {done.returncode}", flush=True)
                continue
            figures = json.loads(done.stdout.splitlines()[-1])
            images = job["batch"] * 200 * 200 * 3 / 1e9
            rate = f"{figures['images_per_second']:9.1f}" if job["steps"] > 1 else f"{'-':>9}"
            print(f"{name} {figures['peak_gb']:8.2f} {images:15.2f} {rate}", flush=True)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batches takes numbers from 1 on, got {text!r}")
    return int(text)


def _measure(
    data_dir: str, *, model, batch, way, size, micro_batch, fine_tune, precision, steps
) -> dict[str, float]:
    cli.quiet_tensorflow()
    from deepduel.decoding.split import Split
    from deepduel.order import Position
    from deepduel.reading import pipeline
    from deepduel.reading.options import ReadOptions

    split = Split(data_dir, "train")
    batches = pipeline.train_batches(split, ReadOptions(batch, size=(200, 200)), Position())
    ours = functools.partial(_ours, batch=batch, micro_batch=micro_batch, fine_tune=fine_tune)
    step = {"ours": ours, "plain": _plain}[way](split, iter(batches), MODELS[model], size, precision)
    step()
    started = time.perf_counter()
    for _ in range(steps - 1):
        step()
    rate = batch * (steps - 1) / (time.perf_counter() - started)
    return {
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "images_per_second": rate,
    }


def _ours(split, iterator, axes, size, precision, *, batch, micro_batch, fine_tune):
    import keras

    from deepduel.augment import PRESETS
    from deepduel.networks import task_model
    from deepduel.networks.architecture import Architecture
    from deepduel.training.task import Task
    from deepduel.training.trainer import MultiTaskTrainer

    tasks = []
    for axis in axes:
        backbone, head = task_model.ORIGINAL[axis]
        architecture = Architecture(backbone, head, size, fine_tune=fine_tune, precision=precision)
        model = task_model.build(axis, architecture, split.manifest.axes[axis])
        tasks.append(Task(axis, model, PRESETS["original"], keras.optimizers.Adam(0.001)))
    trainer = MultiTaskTrainer(tasks, micro_batch=min(micro_batch, batch))
    trainer.compile()
    function = trainer.make_train_function()
    return lambda: function(iterator)


def _plain(split, iterator, axes, size, precision):
    import keras

    from deepduel.augment import PRESETS, augment
    from deepduel.networks import task_model
    from deepduel.networks.architecture import Architecture

    built = []
    for axis in axes:
        backbone, head = task_model.ORIGINAL[axis]
        architecture = Architecture(backbone, head, size, precision=precision)
        parts = task_model.build(axis, architecture, split.manifest.axes[axis])
        outputs = parts.head(parts.extractor(parts.extractor.input, training=False))
        model = keras.Model(parts.extractor.input, outputs)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"], jit_compile=False)
        built.append((axis, model))

    def step():
        images = next(iterator)
        pixels = augment(images["images"], images["seeds"], PRESETS["original"], size)
        for axis, model in built:
            model.train_on_batch(pixels, images["labels"][axis])

    return step


if __name__ == "__main__":
    sys.exit(cli.run(main, FLAGS, name="experiments.benchmark_memory"))
