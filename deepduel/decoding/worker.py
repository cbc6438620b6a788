"""A process that decodes rows of batches for `worker_pool`, until its parent ends.

    task     one message of the shared socket, and descriptors with it: the batch's memory, then files
             HEADER | int64 [rows, len(COLUMNS)]
    answer   one message of the call's own socket: DONE | int32 [rows that failed]

Of rows that fail only the numbers are sent: the parent decodes them again and reports what is wrong. The
modules imported here are few and light: their import time is the time that a pool needs to start.
"""

import collections
import functools
import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence

import numpy as np

from deepduel.decoding.image import FITS, DecodeOptions, decode_image
from tfrecords_tools.format.records import ENCODINGS

# Number of the call; the memory's number and bytes; first row of the task; height, width, fit, fast;
# whether the rows have seeds.
HEADER = struct.Struct("<HQQIIIBBB")
# file: an index into the task's files; encoding: an index into ENCODINGS.
COLUMNS = ("file", "start", "bytes", "encoding", "height", "width", "seed", "seed")
ROWS = 128  # of a task, at most
DONE, DIED, READY = b"d", b"x", b"r"

_MESSAGE_BYTES = HEADER.size + ROWS * len(COLUMNS) * 8
_MAPPED = 64  # batches whose memory stays mapped


class Worker:
    """Decodes tasks one after the other."""

    def __init__(self) -> None:
        self._mapped: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()

    def task(self, message: bytes, files: Sequence[int]) -> tuple[int, bytes]:
        """Decodes one task; returns the number of its call and the answer."""
        call, number, size, first, height, width, fit, fast, seeded = HEADER.unpack_from(message)
        table = np.frombuffer(message, np.int64, offset=HEADER.size).reshape(-1, len(COLUMNS))
        options = _options(height, width, fit, fast)
        memory, row_bytes = self._memory(number, size, files[0]), height * width * 3
        batch = memory[first * row_bytes :][: len(table) * row_bytes].reshape(-1, height, width, 3)
        seeds = table[:, 6:].tolist() if seeded else [None] * len(table)
        failed = []
        for row, (file, start, length, encoding, h, w) in enumerate(table[:, :6].tolist()):
            try:
                data = os.pread(files[1 + file], length, start)
                if len(data) != length:
                    raise OSError("the file ends before the image does")
                decode_image(data, ENCODINGS[encoding], h, w, options, batch[row], seeds[row])
            except Exception:  # whatever it is: the parent meets it too, and reports it
                failed.append(first + row)
        return call, DONE + np.array(failed, np.int32).tobytes()

    def _memory(self, number: int, size: int, file: int) -> np.ndarray:
        if number not in self._mapped:
            if len(self._mapped) >= _MAPPED:
                self._mapped.popitem(last=False)
            self._mapped[number] = np.frombuffer(mmap.mmap(file, size), np.uint8)
        self._mapped.move_to_end(number)
        return self._mapped[number]


@functools.lru_cache
def _options(height: int, width: int, fit: int, fast: int) -> DecodeOptions:
    return DecodeOptions((height, width), FITS[fit], bool(fast))


def main(tasks: int, alive: int, answers: Sequence[int]) -> None:
    """Decodes until the parent ends, which closes its side of the sockets.

    Args:
      tasks, answers: descriptors of the sockets.
      alive: descriptor of a pipe to which READY is written, and which is closed when this process ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the parent, which may have
        signal.signal(number, signal.SIG_IGN)  # a state to save before it ends
    inbox, outboxes = socket.socket(fileno=tasks), [socket.socket(fileno=answer) for answer in answers]
    worker = Worker()
    try:
        os.write(alive, READY)
        while True:
            message, files, _, _ = socket.recv_fds(inbox, _MESSAGE_BYTES, ROWS + 1)
            if not message:
                return
            try:
                call, answer = worker.task(message, files)
            finally:
                for file in files:
                    os.close(file)
            outboxes[call].send(answer)
    except (BrokenPipeError, ConnectionResetError):  # the parent has ended
        sys.exit(1)
