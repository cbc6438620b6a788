"""The devices that this process computes on: how many, what kind, which precision, how much memory.

The module imports TensorFlow only where a GPU is asked for, so that `--precision=auto` on a machine without
one needs no TensorFlow.
"""

import pathlib
import platform
import resource
from typing import TYPE_CHECKING

from deepduel.decoding import host_memory
from tfrecords_tools import host_cpus
from tfrecords_tools.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # in /proc/cpuinfo
CPU_INFO = pathlib.Path("/proc/cpuinfo")
NVIDIA_DEVICE = pathlib.Path("/dev/nvidia0")


def strategy(devices: str) -> "tf.distribute.Strategy | None":
    """A strategy that shares each batch among several devices, or None for TensorFlow's own choice of one.

    Args:
      devices: "auto" for all GPUs, or a number of devices. CPUs count where there is no GPU; there is one,
        unless tf.config.set_logical_device_configuration made more.

    Raises:
      UsageError: there are fewer devices.
    """
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    available = gpus or tf.config.list_logical_devices("CPU")
    count = max(len(gpus), 1) if devices == "auto" else int(devices)
    if count > len(available):
        kind = "GPUs" if gpus else "CPU device and no GPU"
        raise UsageError(f"devices={devices}: TensorFlow sees {len(available)} {kind}; give auto or fewer")
    if count == 1:
        return None
    return tf.distribute.MirroredStrategy([device.name for device in available[:count]])


def only_gpu(strategy: "tf.distribute.Strategy") -> str | None:
    """The name of the GPU that computes alone; None for CPUs, and where several GPUs share each batch."""
    gpu = _first_gpu()
    return gpu if strategy.num_replicas_in_sync == 1 else None


def gpu_names() -> list[str]:
    """The product name of each GPU that TensorFlow sees, such as "Tesla T4"."""
    return [details.get("device_name", "GPU") for details in _gpu_details()]


def kind() -> str:
    """The first device and how many processors there are without a GPU, such as "Tesla T4" or "CPU x2"."""
    names = gpu_names()
    return names[0] if names else f"CPU x{host_cpus.available()}"


def description() -> str:
    """All GPUs by name, or the processor, for reports."""
    return ", ".join(gpu_names()) or f"CPU ({platform.processor() or platform.machine()})"


def fastest_precision() -> str:
    """The fastest precision that the hardware supports natively, as a Keras policy's name.

    mixed_bfloat16 on GPUs of compute capability 8 and higher (A100, L4, H100) and on processors that multiply
    bfloat16; mixed_float16 on GPUs of capability 7 (T4, V100); else float32. The weakest GPU decides.
    """
    capabilities = gpu_capabilities() if NVIDIA_DEVICE.exists() else []
    if capabilities:
        lowest = min(capabilities)
        return "mixed_bfloat16" if lowest >= 8 else "mixed_float16" if lowest >= 7 else "float32"
    return "mixed_bfloat16" if _BFLOAT16_FLAGS & _processor_flags() else "float32"


def available_memory() -> tuple[int, str]:
    """(bytes, "GPU memory" or "free RAM"): what TensorFlow may use of the first GPU, else the free RAM."""
    if gpu_names():
        import tensorflow as tf
        from tensorflow.python.client import device_lib  # TensorFlow has no public name for the limit

        # Of several processes of a machine each has one GPU, and must not open those of the others.
        visible = (gpu.name.rpartition(":")[2] for gpu in tf.config.get_visible_devices("GPU"))
        own = tf.compat.v1.GPUOptions(visible_device_list=",".join(visible))
        local = device_lib.list_local_devices(tf.compat.v1.ConfigProto(gpu_options=own))
        return next(device.memory_limit for device in local if device.device_type == "GPU"), "GPU memory"
    return host_memory.available_bytes(), "free RAM"


def peak_memory() -> int:
    """The most bytes that this process has taken so far: of the first GPU, else of RAM."""
    gpu_peak = _gpu_peak()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if gpu_peak is None else gpu_peak


def memory_in_use() -> int:
    """Bytes to follow over time: the peak of the first GPU's allocator, else the process' resident memory."""
    import psutil

    gpu_peak = _gpu_peak()
    return psutil.Process().memory_info().rss if gpu_peak is None else gpu_peak


def _first_gpu() -> str | None:
    """TensorFlow's name of the first GPU of this process; in a cluster, those of other processes follow."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU") if tf.config.get_visible_devices("GPU") else []
    return gpus[0].name if gpus else None


def _gpu_peak() -> int | None:
    import tensorflow as tf

    if _first_gpu() is None:
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def _processor_flags() -> set[str]:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def gpu_capabilities() -> list[int]:
    """The major part of each visible GPU's compute capability."""
    known = [details.get("compute_capability") for details in _gpu_details()]
    return [capability[0] for capability in known if capability]


def _gpu_details() -> list[dict]:
    """TensorFlow's details of each visible GPU."""
    from tfrecords_tools import cli

    cli.quiet_tensorflow(devices=False)
    import tensorflow as tf

    return [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.get_visible_devices("GPU")]
