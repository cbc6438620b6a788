"""What a trainer and a data worker say to each other over one TCP connection, which carries one data set.

    data worker   greeting: versions, cores, the instance of the process
    trainer       which folder of shards, and the checksum of its manifest
    data worker   {} or {"error": why it cannot read it}
    trainer       which batches, and which part of each
    data worker   batches, without end or to the end of a split

A message is HEADER | payload. Greetings, questions and errors are JSON. A batch's payload is its arrays one
behind the other: images uint8 [rows, H, W, 3], seeds int32 [rows, 2], records int64 [rows], weight float32
[rows], and of each label axis int32 [rows], all little-endian. Where no batch is ready for ALIVE_SECONDS, the
data worker says that it is alive, so that silence means that it is not.

No message holds code: a data worker reads shards, and does nothing else.
"""

import dataclasses
import json
import socket
import struct
from typing import Any, NamedTuple

import numpy as np

from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import documents

DEFAULT_PORT = 5050
ALIVE_SECONDS = 5.0
SILENCE_SECONDS = 30.0  # after which a data worker counts as lost
CONNECT_SECONDS = 5.0  # to connect, and to greet

JSON, BATCH, ALIVE, END, ERROR = b"J", b"B", b"A", b"Z", b"E"

_MAGIC = b"ddw1"
_HEADER = struct.Struct("<4scI")  # magic, kind, rows of a batch or bytes of a payload
_MOST_BYTES = 1 << 20  # of a JSON payload


class Address(NamedTuple):
    """Where a data worker listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """HOST:PORT, or [HOST]:PORT for IPv6. Raises UsageError."""
        host, colon, port = text.strip().rpartition(":")
        if not (colon and host and port.isdigit() and 0 < int(port) < 2**16):
            raise UsageError(f"data_workers must be HOST:PORT, separated by commas, got {text!r}")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Greeting:
    """What a data worker says about itself.

    Attributes:
      instance: random text, which another process does not have.
      cores: how many it may use.
      versions: of everything that the pixels depend on, {name: version}.
    """

    instance: str
    cores: int
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Source:
    """Which data a trainer wants to be read.

    Attributes:
      data_dir: folder of shards, an absolute path or a URL.
      split: name of the split, or of a part of it.
      manifest: SHA-256 of the folder's manifest, hex.
    """

    data_dir: str
    split: str
    manifest: str


@dataclasses.dataclass(frozen=True)
class Request:
    """Which batches a trainer wants.

    Attributes:
      reading: fields of ReadOptions by name.
      part: (index, count) of the part of each batch.
      position: (seed, epoch, step) of the first training batch; None to evaluate.
      rows: rows of the whole batches in evaluation.
      skip: batches to leave out at the beginning of an evaluation.
    """

    reading: dict[str, Any]
    part: tuple[int, int]
    position: tuple[int, int, int] | None = None
    rows: int = 0
    skip: int = 0


class Lost(Exception):
    """A data worker does not answer, ended, or is none; the text says what was seen."""


def receive_into(connection: socket.socket, array: np.ndarray) -> None:
    """Fills an array with the next bytes. Raises Lost."""
    view = _bytes_of(array)
    done = 0
    while done < len(view):
        try:
            count = connection.recv_into(view[done:])
        except TimeoutError:
            raise Lost(f"no sign of life for {connection.gettimeout():.0f} s") from None
        except OSError as error:
            raise Lost(error.strerror or str(error)) from error
        if not count:
            raise Lost("it closed the connection")
        done += count


def receive_header(connection: socket.socket) -> tuple[bytes, int]:
    """(kind, rows or bytes) of the next message that is not ALIVE. Raises Lost."""
    header = np.empty(_HEADER.size, np.uint8)
    while True:
        receive_into(connection, header)
        magic, kind, count = _HEADER.unpack(header.tobytes())
        if magic != _MAGIC:
            raise Lost("the program that answers is not a data worker of this version")
        if kind != ALIVE:
            return kind, count


def receive_json(connection: socket.socket) -> dict[str, Any]:
    """The next message, which must be JSON. Raises Lost."""
    kind, count = receive_header(connection)
    if kind != JSON or count > _MOST_BYTES:
        raise Lost(f"unexpected message {kind!r}")
    try:
        document = documents.parse(_payload(connection, count))
    except ValueError as error:
        raise Lost(f"a message that is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise Lost("a message without fields")
    return document


def receive_error(connection: socket.socket, count: int) -> DataError:
    """The payload of an ERROR."""
    return DataError(_payload(connection, min(count, _MOST_BYTES)).decode("utf-8", "replace"))


def _payload(connection: socket.socket, count: int) -> bytes:
    payload = np.empty(count, np.uint8)
    receive_into(connection, payload)
    return payload.tobytes()


def send_json(connection: socket.socket, document: dict[str, Any]) -> None:
    """Sends a JSON message."""
    send(connection, JSON, json.dumps(document).encode())


def send(connection: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    """Sends a message whose header counts the bytes of its payload."""
    connection.sendall(_HEADER.pack(_MAGIC, kind, len(payload)) + payload)


def send_batch(connection: socket.socket, arrays: list[np.ndarray]) -> None:
    """Sends a batch: images, seeds, records, weight, and the labels of each axis."""
    connection.sendall(_HEADER.pack(_MAGIC, BATCH, len(arrays[0])))
    for array in arrays:
        connection.sendall(_bytes_of(np.ascontiguousarray(array)))


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def keep_alive(connection: socket.socket) -> None:
    """Has the system send what is small at once, and notice a peer whose machine is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
