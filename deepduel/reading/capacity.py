"""What reading, decoding and sending an image costs -> how many cores and data workers a GPU needs."""

import dataclasses
import math
import socket
import threading
import time

import numpy as np

from deepduel.reading import data_protocol


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of one image.

    Attributes:
      decode: processor seconds to read and decode it.
      send: processor seconds of a data worker to send it.
      receive: processor seconds of the trainer's one receiving thread.
      encoded_bytes: in the shards.
      pixel_bytes: in a batch.
    """

    decode: float
    send: float
    receive: float
    encoded_bytes: float
    pixel_bytes: int


def connection_costs(arrays: list[np.ndarray], seconds: float) -> tuple[float, float]:
    """(send, receive): processor seconds per image to pass a batch on, on a connection of this machine.

    Args:
      arrays: of one batch.
      seconds: how long to measure.
    """
    used = [0.0, 0.0]
    rounds = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        sending = socket.create_connection(server.getsockname())
        receiving, _ = server.accept()
    end = time.monotonic() + seconds

    def send() -> None:
        start = time.thread_time()
        with sending:
            while time.monotonic() < end:
                data_protocol.send_batch(sending, arrays)
            data_protocol.send(sending, data_protocol.END)
        used[0] = time.thread_time() - start

    thread = threading.Thread(target=send)
    thread.start()
    copies = [np.empty_like(array) for array in arrays]
    start = time.thread_time()
    with receiving:
        while data_protocol.receive_header(receiving)[0] == data_protocol.BATCH:
            for copy in copies:
                data_protocol.receive_into(receiving, copy)
            rounds += 1
    used[1] = time.thread_time() - start
    thread.join()
    images = max(rounds, 1) * len(arrays[0])
    return used[0] / images, used[1] / images


def predicted(costs: Costs, *, cores: int, data_workers: int) -> float:
    """Images/s of the input with so many data workers of `cores` cores each, 0 for this machine alone."""
    if not data_workers:
        return cores / costs.decode
    return min(data_workers * cores / (costs.decode + costs.send), 1 / costs.receive)


def plan(costs: Costs, *, gpu_rate: float, cores: int, disk: float, reader: str) -> str:
    """What a GPU needs, in some lines.

    Args:
      gpu_rate: images/s of its training step.
      cores: of this machine, and of each data worker.
      disk: images/s that the disk gives.
      reader: "random" or "sequential".
    """
    alone = predicted(costs, cores=cores, data_workers=0)
    needed = math.ceil(gpu_rate * costs.decode)
    lines = [f"for a GPU that trains on {gpu_rate:,.0f} images/s:"]
    if disk < gpu_rate:
        lines.append(
            f"  the disk delivers {disk:,.0f} images/s in the first epoch: put the shards on a faster one, "
            "store smaller images, or train for several epochs from memory"
        )
    if alone >= gpu_rate:
        lines.append(
            f"  this machine decodes {alone:,.0f} images/s on {cores} cores: {needed} are enough, and data "
            "workers would not help"
        )
        return "\n".join(lines)
    lines.append(
        f"  the bottleneck is decoding: this machine decodes {alone:,.0f} images/s on {cores} cores; "
        f"{needed} are needed"
    )
    most = 1 / costs.receive
    workers = math.ceil(min(gpu_rate, most) * (costs.decode + costs.send) / cores)
    counts = sorted({1, 2, workers})
    rates = ", ".join(
        f"{count}: {min(gpu_rate, predicted(costs, cores=cores, data_workers=count)):,.0f}"
        for count in counts
    )
    lines.append(f"  images/s by number of data workers with {cores} cores each: {rates}")
    if most < gpu_rate:
        lines.append(
            f"  the trainer can receive at most {most:,.0f} images/s: a cache of decoded images is faster"
        )
    reached = min(gpu_rate, most)
    times = workers if reader == "sequential" else 1
    lines.append(
        f"  network: {reached * costs.pixel_bytes / 1e6:,.0f} MB/s of pixels to the trainer, "
        f"{reached * costs.encoded_bytes * times / 1e6:,.0f} MB/s of encoded images to the data workers"
    )
    lines.append(
        "  what helps without data workers: smaller stored images, --cache=ram or decoded:FOLDER, "
        "--cache=features"
    )
    return "\n".join(lines)
