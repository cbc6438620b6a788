"""The devices that a run computes on."""

import tensorflow as tf

from tfrecords_tools.errors import UsageError


def strategy(devices: str) -> tf.distribute.Strategy | None:
    """Several devices that share each batch, or None for TensorFlow's own choice of one.

    Args:
      devices: "auto" for all GPUs, or how many. CPUs count where there is no GPU; there is one, unless
        tf.config.set_logical_device_configuration made more.
    """
    gpus = tf.config.list_logical_devices("GPU")
    found = gpus or tf.config.list_logical_devices("CPU")
    count = max(len(gpus), 1) if devices == "auto" else int(devices)
    if count > len(found):
        kind = "GPUs" if gpus else "CPU device and no GPU"
        raise UsageError(f"--devices={devices}: TensorFlow sees {len(found)} {kind}")
    if count == 1:
        return None
    return tf.distribute.MirroredStrategy([device.name for device in found[:count]])


def kind() -> str:
    """What the first device is, such as "Tesla T4" or "CPU x2", to remember measurements by."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    import os

    return f"CPU x{len(os.sched_getaffinity(0))}"
