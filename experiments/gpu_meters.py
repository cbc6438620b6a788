"""Memory and utilisation of the first GPU; of the process where there is no GPU."""

import pathlib
import shutil
import subprocess
import tempfile

import tensorflow as tf

_PROCESS = pathlib.Path("/proc/self")


def reset_peak() -> None:
    """From here on `peak_bytes` counts anew."""
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")
    else:
        (_PROCESS / "clear_refs").write_text("5")  # proc(5): resets VmHWM


def peak_bytes() -> int:
    """The most since `reset_peak`: of the GPU as TensorFlow's allocator counts it, else resident memory."""
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    lines = (_PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class Utilisation:
    """A context manager; afterwards `mean` is nvidia-smi's utilisation of the first GPU, 0..100, or None.

    nvidia-smi's figure is the share of time in which any kernel ran, sampled twice a second.
    """

    mean: float | None = None
    _process = None

    def __enter__(self):
        if shutil.which("nvidia-smi"):
            query = "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0", "-lms", "500"
            self._file = tempfile.TemporaryFile("w+")
            self._process = subprocess.Popen(
                ["nvidia-smi", *query], stdout=self._file, stderr=subprocess.DEVNULL
            )
        return self

    def __exit__(self, *_):
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait()
        self._file.seek(0)
        samples = [int(line) for line in self._file if line.strip().isdigit()]
        self._file.close()
        self.mean = sum(samples) / len(samples) if samples else None
