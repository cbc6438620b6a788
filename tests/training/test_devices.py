"""Devices. Two logical CPU devices need a process of their own: TensorFlow creates its devices once."""

import subprocess
import sys
import types

import pytest

from deepduel.training import devices
from tfrecords_tools.errors import UsageError

PROGRAM = """
import contextlib, sys
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from deepduel.augmentation.presets import PRESETS
from deepduel.decoding.split import Split
from deepduel.networks.architecture import Architecture
from deepduel.reading import order, pipeline
from deepduel.runs import build
from deepduel.runs.length import RunLength
from deepduel.runs.options import RunOptions, TaskOptions
from deepduel.training import loss_scaling, transfer
from deepduel.training.optimizer_options import OptimizerOptions
from deepduel.training.passes import Passes
from tfrecords_tools.errors import UsageError

train, validation = (Split(sys.argv[1], name) for name in ("train", "validation"))
reading = pipeline.ReadOptions(61)  # an odd batch, an odd last one

def options(count, micro_batch=16):
    common = {"length": RunLength(1), "micro_batch": micro_batch, "seed": 1, "devices": count}
    return RunOptions("", "", "", "", reading, **common)

def fit(count):
    head = "avg,dropout:0.5,dense:8"
    frozen = Architecture("small_cnn", head, 8)
    tuned = Architecture("small_cnn", head, 8, fine_tune="last:3", precision="mixed_float16")
    tasks = [
        TaskOptions(
            "category", frozen, PRESETS["forensic"], OptimizerOptions("adamw", clip_norm=0.1), ema=0.9
        ),
        TaskOptions(
            "authenticity", tuned, PRESETS["forensic"], OptimizerOptions("sgd"), class_weights="balanced"
        ),
    ]
    trainer = build.trainer(options(count), tasks, train)
    assert trainer.strategy.num_replicas_in_sync == int(count)
    trainer.passes = Passes(compiled=sys.argv[2] == "xla")
    history = trainer.fit(
        pipeline.train_batches(train, reading, order.Position(3)), steps_per_epoch=3, epochs=2,
        validation_data=pipeline.eval_batches(validation, reading), shuffle=False, verbose=0,
    ).history
    assert loss_scaling.scale_of(trainer.tasks[1].optimizer) > 0  # of a variable on both devices
    return [variable.numpy() for variable in trainer.state_variables()], history

(one, expected), (two, history) = fit("1"), fit("2")
print("weights", max(np.abs(a.astype(float) - b).max() for a, b in zip(one, two)))
for name in expected:
    print(name, max(abs(a - b) for a, b in zip(expected[name], history[name])))
on_host = pipeline.train_batches(train, reading, order.Position(3))
before, after = next(zip(on_host, transfer.to_device(on_host, "CPU:1")))
print("moved:", *sorted({part.device[-5:] for part in tf.nest.flatten(after)}), after["images"].dtype.name)
assert all((a.numpy() == b.numpy()).all() for a, b in zip(tf.nest.flatten(before), tf.nest.flatten(after)))
whole = Architecture("small_cnn", "avg", 8, fine_tune="all")
tasks = [TaskOptions("category", whole, PRESETS["none"])]
try:
    build.trainer(options("2"), tasks, train)
except UsageError as error:
    print("refused:", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("networks", ["plain", pytest.param("xla", marks=pytest.mark.scale)])
def test_two_devices_train_to_the_weights_of_one(toy_shards, networks):
    """Frozen and trained backbones, dropout, clipping, averages, loss scaling; metrics too."""
    words = [sys.executable, "-c", PROGRAM, str(toy_shards), networks]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "refused: category: batch-norm statistics can be trained on one device only" in lines[-1]
    assert lines[-2] == "moved: CPU:1 uint8"  # all parts of a batch
    differences = {line.split()[0]: float(line.split()[1]) for line in lines[:-2]}
    assert differences["weights"] < 1e-5
    assert "val_authenticity_auc" in differences
    assert max(differences.values()) < 1e-3


TIMED = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from deepduel import train
from deepduel.runs import callbacks
from tests.helpers import tiny_network
from tests.conftest import run_command

def twenty_seconds(clock, epoch, logs):
    print("rate", float(clock.model.tasks[0].optimizer.learning_rate))
    logs |= {"seconds": 20.0, "images_per_second": 1.0, "input_wait_share": 0.0}

callbacks.Clock.on_epoch_end = twenty_seconds
tiny_network.install()
words = f"--data_dir={sys.argv[1]}", f"--workdir={sys.argv[2]}", *tiny_network.RUN, "--batch_norm=frozen"
sys.exit(run_command(train, *words, "--epochs=1min", "--schedule=cosine", "--devices=2"))
"""


@pytest.mark.slow
@pytest.mark.scale
def test_a_run_given_a_time_plans_its_epochs_on_two_devices_too(toy_shards, tmp_path):
    words = [sys.executable, "-c", TIMED, str(toy_shards), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    rates = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("rate")]
    assert rates == pytest.approx([0.001, 0.0005, 0], abs=1e-9)
    assert "epoch 3/3" in done.stdout


def test_one_device_needs_no_strategy():
    assert devices.strategy("auto") is None
    assert devices.strategy("1") is None


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UsageError, match="TensorFlow sees 1 CPU device and no GPU"):
        devices.strategy("9")


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx512f avx512_bf16 x", "mixed_bfloat16"),
        ("fpu amx_bf16", "mixed_bfloat16"),
        ("fpu avx2", "float32"),
    ],
)
def test_a_processor_that_multiplies_bfloat16_computes_in_it(tmp_path, monkeypatch, flags, precision):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\nbogomips : 1\n")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(devices, "NVIDIA_DEVICE", tmp_path / "none")
    assert devices.fastest_precision() == precision


def test_a_machine_without_cpuinfo_computes_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(devices, "NVIDIA_DEVICE", tmp_path / "none")
    assert devices.fastest_precision() == "float32"


@pytest.mark.parametrize(
    ("capabilities", "precision"), [([8, 9], "mixed_bfloat16"), ([8, 7], "mixed_float16"), ([6], "float32")]
)
def test_the_weakest_gpu_decides(tmp_path, monkeypatch, capabilities, precision):
    monkeypatch.setattr(devices, "NVIDIA_DEVICE", tmp_path)
    monkeypatch.setattr(devices, "gpu_capabilities", lambda: capabilities)
    assert devices.fastest_precision() == precision


def test_memory_without_a_gpu_is_that_of_the_process():
    bytes_available, kind = devices.available_memory()
    assert kind == "free RAM" and bytes_available > 0
    assert 0 < devices.memory_in_use() <= devices.peak_memory() * 1.1


def test_the_memory_of_this_process_gpu_is_asked_for_and_no_other_gpu_is_opened(monkeypatch):
    """Several processes of a machine have a GPU each."""
    import tensorflow as tf
    from tensorflow.python.client import device_lib

    opened = []

    def local_devices(config):
        opened.append(config.gpu_options.visible_device_list)
        return [types.SimpleNamespace(device_type=kind, memory_limit=5) for kind in ("CPU", "GPU")]

    second = types.SimpleNamespace(name="/physical_device:GPU:1")
    monkeypatch.setattr(devices, "gpu_names", lambda: ["Tesla T4"] * 2)
    monkeypatch.setattr(device_lib, "list_local_devices", local_devices)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [second])
    assert devices.available_memory() == (5, "GPU memory")
    assert opened == ["1"]


def test_a_gpu_of_another_process_of_the_cluster_is_not_its_own(monkeypatch):
    import tensorflow as tf

    names = [f"/job:worker/replica:0/task:{task}/device:GPU:0" for task in (1, 0)]
    gpus = [types.SimpleNamespace(name=name) for name in names]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    assert devices.only_gpu(tf.distribute.get_strategy()) is None  # no physical GPU is visible here
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"])
    assert devices.only_gpu(tf.distribute.get_strategy()) == names[0]
