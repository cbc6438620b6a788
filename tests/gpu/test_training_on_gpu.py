"""Training on the device: each precision, resuming, the search of the micro-batch, several devices."""

import json
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import history_rows
from tests.helpers import tiny_network

# cuDNN's and XLA's sums may come in another order in each process; on a CPU they do not.
WEIGHTS_TOLERANCE = 1e-4
SEARCH_SECONDS = 20  # --micro_batch=auto, from its first network's pass to its answer

PROGRAM = """
import sys
from tests.helpers import tiny_network
{patch}
from deepduel import train
sys.exit(train.entry())
"""
TWO_CPUS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""
TINY = PROGRAM.format(patch="tiny_network.install()")
SMALL = (
    "--tasks=category,authenticity", "--backbone=small_cnn", "--head=avg,dropout:0.5,dense:8",
    "--image_size=32", "--augmentation=original", "--batch_size=60", "--epochs=2",
)  # fmt: skip


def train(program, toy_shards, workdir, *words) -> str:
    """Runs deepduel.train in a process of its own; returns what it printed."""
    command = [sys.executable, "-c", program, f"--data_dir={toy_shards}", f"--workdir={workdir}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def weights(workdir, epoch=2, task="category"):
    return keras.models.load_model(workdir / task / f"epoch-0{epoch}.keras").get_weights()


def assert_close(one, other, atol):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize("fine_tune", ["none", "all"])
@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_a_run_in_each_precision_has_finite_losses(toy_shards, tmp_path, device, precision, fine_tune):
    words = *SMALL, f"--precision={precision}", f"--fine_tune={fine_tune}"
    train(PROGRAM.format(patch=""), toy_shards, tmp_path / "run", *words)
    rows = history_rows(tmp_path / "run")
    assert len(rows) == 2
    losses = [float(row[name]) for row in rows for name in row if name.endswith("_loss") and row[name]]
    assert losses and np.isfinite(losses).all()
    # The first steps of mixed_float16 may be skipped while the scale of the loss finds its size.
    skipped = sum(float(row[name]) for row in rows for name in row if name.endswith("skipped_steps"))
    assert skipped < 3


def test_a_resumed_run_is_the_uninterrupted_one(toy_shards, tmp_path):
    words = *tiny_network.RUN, "--save_every=1steps", "--optimizer=adamw", "--ema=0.9"
    train(TINY, toy_shards, tmp_path / "whole", *words, "--epochs=2")
    train(TINY, toy_shards, tmp_path / "parts", *words, "--epochs=2", "--max_minutes=0.0001")
    assert not (tmp_path / "parts" / "category" / "epoch-02.keras").exists(), "it was not interrupted"
    train(TINY, toy_shards, tmp_path / "parts", *words, "--epochs=2")
    assert_close(weights(tmp_path / "whole"), weights(tmp_path / "parts"), WEIGHTS_TOLERANCE)


def test_the_micro_batch_is_found_in_time_and_remembered(toy_shards, device):
    """Of Xception and VGG-16 at 224 px, the networks that it is for."""
    from deepduel.decoding.split import Split
    from deepduel.networks import task_model
    from deepduel.networks.architecture import Architecture
    from deepduel.runs import micro_batch_search
    from tests.helpers.tasks import compiled
    from tests.helpers.tasks import make as make_task

    split = Split(toy_shards, "train")
    size = 224 if device.startswith("GPU") else 71
    networks = {axis: Architecture(*parts, size) for axis, parts in task_model.ORIGINAL.items()}
    built = compiled(*(make_task(axis, split, network) for axis, network in networks.items()))
    started = time.perf_counter()
    rates = micro_batch_search.measure(built, batch_size=512)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "rates": rates}))
    assert min(rates) == 8 and all(rate > 0 for rate in rates.values())
    assert seconds < SEARCH_SECONDS


def test_networks_compiled_by_xla_train_to_the_same_weights(toy_shards, tmp_path):
    words = *tiny_network.RUN, "--epochs=2", "--optimizer=sgd", "--fine_tune=all"
    for choice in ("true", "false"):
        train(TINY, toy_shards, tmp_path / choice, *words, f"--jit_compile={choice}")
    assert_close(weights(tmp_path / "true"), weights(tmp_path / "false"), 10 * WEIGHTS_TOLERANCE)


def test_batches_reach_the_device_as_uint8_before_the_step(toy_shards, device):
    from deepduel.decoding.split import Split
    from deepduel.reading import order, pipeline
    from deepduel.training import transfer

    split, reading = Split(toy_shards, "train"), pipeline.ReadOptions(50)
    batches = pipeline.train_batches(split, reading, order.Position())
    name = tf.config.list_logical_devices(device.partition(":")[0])[0].name
    for expected, batch in zip(batches.take(5), transfer.to_device(batches, name), strict=False):
        assert batch["images"].device.endswith(device) and batch["images"].dtype == tf.uint8
        for one, other in zip(tf.nest.flatten(expected), tf.nest.flatten(batch), strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


GROWING = """
import subprocess
from tfrecords_tools import cli
cli.quiet_tensorflow()
import tensorflow as tf
tf.ones((1024, 1024)) @ tf.ones((1024, 1024))
query = ["nvidia-smi", "--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits", "--id=0"]
print(subprocess.run(query, capture_output=True, text=True, check=True).stdout)
"""


def test_the_memory_of_a_gpu_is_taken_as_needed(device):
    if device.startswith("CPU"):
        pytest.skip("a CPU's memory is never taken whole")
    done = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True, check=True)
    used, total = map(float, done.stdout.split(","))
    print(json.dumps({"used": used, "total": total}))
    assert used < total / 2


@pytest.mark.parametrize("fine_tune", ["none", "all"])
def test_the_estimate_of_the_memory_is_near_the_allocators_peak(toy_shards, device, fine_tune):
    """Within a factor of two and half a gigabyte, which cuDNN may take for itself."""
    from deepduel.decoding.split import Split
    from deepduel.networks.architecture import Architecture
    from deepduel.reading import order, pipeline
    from deepduel.training import memory
    from experiments import gpu_meters
    from tests.helpers.tasks import compiled
    from tests.helpers.tasks import make as make_task

    if device.startswith("CPU"):
        pytest.skip("the memory of the process is that of TensorFlow too")
    split, reading = Split(toy_shards, "train"), pipeline.ReadOptions(128)
    network = Architecture("efficientnetv2b0", "avg", 224, fine_tune=fine_tune)
    gpu_meters.reset_peak()
    trainer = compiled(make_task("category", split, network), micro_batch=64)
    iterator = iter(trainer.on_device(pipeline.train_batches(split, reading, order.Position())))
    trainer.make_train_function()(iterator)
    estimate = sum(memory.estimate(trainer, batch_size=128, size=(32, 32)).values())
    peak = gpu_meters.peak_bytes()
    print(json.dumps({"fine_tune": fine_tune, "estimate": estimate, "peak": peak}))
    assert estimate / 2 - 5e8 < peak < 2 * estimate + 5e8


def test_two_devices_train_to_the_weights_of_one(toy_shards, tmp_path, two_devices):
    words = *SMALL, "--batch_norm=frozen", "--fine_tune=last:3"
    program = PROGRAM.format(patch=TWO_CPUS if two_devices == "CPU" else "")
    for count in ("1", "2"):
        train(program, toy_shards, tmp_path / count, *words, f"--devices={count}")
    for task in ("category", "authenticity"):
        one, two = (weights(tmp_path / count, task=task) for count in ("1", "2"))
        assert_close(one, two, WEIGHTS_TOLERANCE)


def test_a_step_that_does_not_fit_raises_what_the_search_catches(device):
    """The search of the micro-batch takes ResourceExhaustedError for the end of the memory."""
    if device.startswith("CPU"):
        pytest.skip("a CPU's allocator hands out memory that is not there")
    with pytest.raises(tf.errors.ResourceExhaustedError), tf.device(device):
        tf.ones((2**20, 2**20)) * 2.0  # 4 TiB
