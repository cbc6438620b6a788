"""Messages between two processes of a team over a TCP connection.

    4 bytes    length of what follows, little endian
    message    a MessagePack array: the kind of the message, then its values

Any type of message may come from anybody who reaches the port until a peer has said hello, so a message is
decoded into plain values only and limited in length until then.
"""

import contextlib
import select
import socket
import threading
from typing import Any

import msgspec

FIRST_BYTES = 1 << 10  # of the first message
MOST_BYTES = (1 << 32) - 1
# Without an acknowledgement of what was sent, after which the other machine counts as lost. Its system
# acknowledges also what a busy or a stopped process has yet to read, so this tells of the machine alone.
UNREACHABLE_SECONDS = 7.0
_PIECE = 1 << 20  # bytes that are sent or received at a time


class Channel:
    """One end of a connection. Several threads may send; one receives."""

    def __init__(self, connection: socket.socket, *, silence: float):
        """Args:
        connection: a connected socket, which the channel owns from now on.
        silence: seconds without a byte after which `receive` and `send` raise TimeoutError.
        """
        connection.settimeout(silence)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            milliseconds = int(1000 * UNREACHABLE_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, *message: Any) -> None:
        """Raises OSError when the connection is gone; no further message can be sent or received then."""
        content = memoryview(msgspec.msgpack.encode(message))
        with self._sending:
            try:
                self._connection.sendall(len(content).to_bytes(4, "little"))
                for start in range(0, len(content), _PIECE):  # each piece may take as long as `silence`
                    self._connection.sendall(content[start : start + _PIECE])
            except OSError:
                self._end()  # what follows half a message could not be told from the rest of it
                raise

    def receive(self, limit: int = MOST_BYTES) -> list[Any]:
        """The next message.

        Raises:
          EOFError: the other end has closed the connection.
          TimeoutError: nothing has come for too long.
          OSError: the connection is gone.
          ValueError: it is no message, or larger than `limit` bytes.
        """
        size = int.from_bytes(self._exactly(4), "little")
        if size > limit:
            raise ValueError(f"a message of {size} bytes")
        try:
            message = msgspec.msgpack.decode(self._exactly(size))
        except (msgspec.DecodeError, RecursionError) as error:  # the first is a ValueError in newer ones
            raise ValueError(f"no message: {error}") from None
        if not isinstance(message, list) or not message:
            raise ValueError("no message")
        return message

    @property
    def is_closed(self) -> bool:
        """Whether the other end has closed the connection; only to be asked while nobody receives."""
        try:
            ready, _, _ = select.select([self._connection], [], [], 0)
            return bool(ready) and not self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def close(self) -> None:
        """Closes the connection; a thread that receives ends with EOFError."""
        self._end()
        self._connection.close()

    def _end(self) -> None:
        with contextlib.suppress(OSError):  # it is closed already
            self._connection.shutdown(socket.SHUT_RDWR)

    def _exactly(self, count: int) -> bytes:
        content = bytearray()
        while len(content) < count:
            received = self._received(min(count - len(content), _PIECE))
            if not received:
                raise EOFError
            content += received
        return bytes(content)

    def _received(self, count: int) -> bytes:
        try:
            return self._connection.recv(count)
        except TimeoutError as error:
            if error.errno is None:  # of `silence`
                raise
            raise ConnectionAbortedError(error.errno, error.strerror) from error
