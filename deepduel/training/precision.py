"""`--precision=auto`: the fastest precision that this machine computes in without emulating it."""

import pathlib

_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of /proc/cpuinfo
_CPU_INFO = pathlib.Path("/proc/cpuinfo")
_NVIDIA = pathlib.Path("/dev/nvidia0")


def best() -> str:
    """mixed_bfloat16 on GPUs of compute capability 8 on and processors that multiply it, mixed_float16 on
    GPUs from 7 on (T4, V100), else float32."""
    capabilities = _gpu_capabilities() if _NVIDIA.exists() else []
    if capabilities:
        lowest = min(capabilities)
        return "mixed_bfloat16" if lowest >= 8 else "mixed_float16" if lowest >= 7 else "float32"
    return "mixed_bfloat16" if _BFLOAT16_FLAGS & _processor_flags() else "float32"


def _processor_flags() -> set[str]:
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}


def _gpu_capabilities() -> list[int]:
    """The major part of each visible GPU's compute capability."""
    from tfrecords_tools import cli

    cli.quiet_tensorflow()
    import tensorflow as tf

    details = [
        tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")
    ]
    return [found["compute_capability"][0] for found in details if found.get("compute_capability")]
