"""A trainer's connection to one data worker, which can read what the trainer reads."""

import contextlib
import dataclasses
import hashlib
import pathlib
import socket

import numpy as np
import tensorflow as tf

import deepduel
from deepduel.decoding.image import libraries
from deepduel.decoding.split import Split
from deepduel.reading import data_protocol as protocol
from deepduel.reading.data_protocol import Address, Greeting, Lost, Source
from tfrecords_tools.errors import DataError
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import storage

_OPEN_SECONDS = 120.0  # to open a split


def versions() -> dict[str, str]:
    """What the pixels of a batch depend on besides the options: {name: version}."""
    return {"deepduel": deepduel.__version__, "TensorFlow": tf.__version__, **libraries()}


def fingerprint(manifest: manifests.Manifest) -> str:
    """SHA-256 of the manifest of a folder of shards, hex."""
    return hashlib.sha256(manifests.dumps(manifest)).hexdigest()


class LostPart(Exception):
    """A data worker's part of a batch will not come; the text says why.

    Attributes:
      connected: the data worker.
      for_good: whether it answers, but cannot read the data.
    """

    def __init__(self, connected: "Connected", reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.connected = connected
        self.for_good = for_good


@dataclasses.dataclass(frozen=True)
class Connected:
    """A data worker that has greeted, and the connection to it."""

    address: Address
    greeting: Greeting
    socket: socket.socket

    def ask(self, request: protocol.Request) -> None:
        """Asks for batches. Raises LostPart."""
        try:
            protocol.send_json(self.socket, dataclasses.asdict(request))
        except OSError as error:
            raise LostPart(self, error.strerror or str(error), for_good=False) from error

    def receive(self, arrays: list[np.ndarray]) -> None:
        """Fills the rows of its part of the next batch. Raises LostPart."""
        try:
            kind, count = protocol.receive_header(self.socket)
            if kind == protocol.ERROR:
                raise LostPart(self, str(protocol.receive_error(self.socket, count)), for_good=True)
            if kind != protocol.BATCH or count != len(arrays[0]):
                raise LostPart(self, f"it sent {count} rows instead of {len(arrays[0])}", for_good=True)
            for array in arrays:
                protocol.receive_into(self.socket, array)
        except Lost as lost:
            raise LostPart(self, str(lost), for_good=False) from lost

    def hang_up(self) -> None:
        """Ends what waits for the connection."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the connection."""
        self.hang_up()
        self.socket.close()


class Refused(DataError):
    """A data worker answers, but cannot read the data as this machine does.

    Attributes:
      instance: of the data worker's greeting.
    """

    def __init__(self, message: str, instance: str) -> None:
        super().__init__(message)
        self.instance = instance


def source_of(split: Split) -> Source:
    """A split as a data worker is asked for it."""
    folder = split.root if storage.is_remote(split.root) else str(pathlib.Path(split.root).absolute())
    return Source(folder, split.name, fingerprint(split.manifest))


def greet(address: Address) -> tuple[socket.socket, Greeting]:
    """Connects. Raises Lost where no data worker answers."""
    try:
        connection = socket.create_connection(address, protocol.CONNECT_SECONDS)
    except OSError as error:
        raise Lost(f"it does not answer ({error.strerror or error})") from error
    try:
        protocol.keep_alive(connection)
        return connection, _greeting(connection)
    except Lost as lost:
        connection.close()
        raise Lost(f"it does not greet as a data worker does ({lost})") from lost
    except BaseException:  # whatever it is, also Ctrl-C: the connection does not stay open
        connection.close()
        raise


def _greeting(connection: socket.socket) -> Greeting:
    fields = protocol.receive_json(connection)
    try:
        return Greeting(**fields)
    except TypeError as error:
        raise Lost("the program that answers is not a data worker of this version") from error


def connect(address: Address, source: Source) -> Connected:
    """A connection on which batches of a split can be asked for.

    Raises:
      Lost: no data worker answers.
      Refused: it has other versions, or cannot read these data.
    """
    connection, greeting = greet(address)
    try:
        own = versions()
        for name in sorted(own | greeting.versions):
            theirs, ours = greeting.versions.get(name), own.get(name)
            if theirs != ours:
                raise Refused(
                    f"data worker {address} has {name} {theirs} and this machine {ours}, which may decode to "
                    "other pixels; install the same versions on both",
                    greeting.instance,
                )
        connection.settimeout(_OPEN_SECONDS)
        protocol.send_json(connection, dataclasses.asdict(source))
        problem = protocol.receive_json(connection).get("error")
        if problem is not None:
            raise Refused(
                f"data worker {address} cannot read the shards: {problem}; {source.data_dir} must lead to "
                "the same shards on both machines",
                greeting.instance,
            )
        connection.settimeout(protocol.SILENCE_SECONDS)
        return Connected(address, greeting, connection)
    except OSError as error:
        connection.close()
        raise Lost(error.strerror or str(error)) from error
    except BaseException:  # whatever it is, also Ctrl-C: the connection does not stay open
        connection.close()
        raise
