"""What a trace of TensorFlow's profiler says of the GPU: how busy it was, and whether copies overlapped.

    FOLDER/plugins/profile/*/*.xplane.pb --read--> XSpace --figures--> {"busy_share": …, …}

In the trace each GPU is a plane, each of its streams a line of events. A copy from host to device is
overlapped where a kernel runs on any stream of the same GPU at the same time.
"""

import pathlib
from collections.abc import Iterable

Interval = tuple[int, int]  # start and end, picoseconds


def read(folder: pathlib.Path):
    """The newest trace in a folder that tf.profiler.experimental.start wrote to, as an XSpace."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    paths = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if not paths:
        raise FileNotFoundError(f"{folder}: the profiler wrote no trace")
    space = xplane_pb2.XSpace()
    space.ParseFromString(paths[-1].read_bytes())
    return space


def figures(space) -> dict | None:
    """Of all GPUs together, or None where the trace has none.

    Returns:
      gpus: their number. seconds: from the first event to the last. busy_share: of that time, with a kernel
      running. copies: from host to device. copy_seconds: all of them. overlapped_share: of that time, with
      a kernel running; None without copies.
    """
    planes = [plane for plane in space.planes if plane.name.startswith("/device:GPU:")]
    if not planes:
        return None
    span = busy = copying = overlapped = copies = 0
    for plane in planes:
        kernels, copied = [], []
        for name, interval in _events(plane):
            if "memcpyh2d" in name.lower():
                copied.append(interval)
            elif not name.lower().startswith(("memcpy", "memset")):
                kernels.append(interval)
        running = union(kernels)
        both = [*running, *copied]
        span += max(end for _, end in both) - min(start for start, _ in both) if both else 0
        busy += length(running)
        copies += len(copied)
        copying += length(copied)
        overlapped += sum(length(intersection(running, one)) for one in copied)
    return {
        "gpus": len(planes),
        "seconds": span / 1e12,
        "busy_share": busy / span if span else 0.0,
        "copies": copies,
        "copy_seconds": copying / 1e12,
        "overlapped_share": overlapped / copying if copying else None,
    }


def _events(plane) -> Iterable[tuple[str, Interval]]:
    """(name, interval) of what ran on the streams; other lines of the plane are derived from these."""
    for line in plane.lines:
        if not line.name.startswith("Stream"):
            continue
        for event in line.events:
            start = line.timestamp_ns * 1000 + event.offset_ps
            yield plane.event_metadata[event.metadata_id].name, (start, start + event.duration_ps)


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time in intervals that do not touch, in order."""
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def intersection(intervals: Iterable[Interval], one: Interval) -> list[Interval]:
    parts = ((max(start, one[0]), min(end, one[1])) for start, end in intervals)
    return [(start, end) for start, end in parts if start < end]


def length(intervals: Iterable[Interval]) -> int:
    return sum(end - start for start, end in intervals)
