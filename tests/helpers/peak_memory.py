"""How much memory decoding takes at its peak, measured in a process of its own that does nothing else.

In the process of the tests, memory that other tests freed would hide some of it.
"""

import ctypes
import json
import pathlib
import subprocess
import sys

STATUS, CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def of_formats(side: int) -> dict[str, int]:
    """{file name of `bombs.packed`: bytes at the peak of checking or decoding it}."""
    words = [sys.executable, "-m", __name__, str(side)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _peak_bytes(call) -> int:
    """How far the memory of this process grows during a call."""

    def kilobytes(name: str) -> int:
        return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name))

    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed goes back to the system
    CLEAR.write_text("5")  # the peak so far becomes the present
    before = kilobytes("VmRSS")
    call()
    return (kilobytes("VmHWM") - before) * 1024


def _measure(side: int) -> dict[str, int]:
    from tests.helpers import bombs
    from tfrecords_tools.images import image

    image.pixels(bombs.png(64, 64))  # what is loaded at the first image is no part of the others' memory
    peaks = {}
    for name, data in bombs.packed(side).items():
        for way in (image.check, image.pixels):
            results: list = []
            peak = _peak_bytes(lambda way=way, data=data, results=results: results.append(way(data)))
            assert not isinstance(results[0], image.Rejected), name
            peaks[name] = max(peaks.get(name, 0), peak)
    return peaks


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
