"""The other end of `data_workers`: reads and decodes batches for trainers on other machines.

Each connection has a thread that reads and one that sends, so that the next batch is decoded while one is
under way. All connections share the processes that decode, and the last splits that were opened.
"""

import collections
import contextlib
import queue
import socket
import socketserver
import sys
import threading
import time
import uuid
from collections.abc import Callable

import tensorflow as tf

from deepduel.decoding import bad_records
from deepduel.decoding.split import Split
from deepduel.reading import data_protocol as protocol
from deepduel.reading import order, pipeline
from deepduel.reading.ahead import Ahead
from deepduel.reading.batch import batch_arrays
from deepduel.reading.data_connection import fingerprint, versions
from deepduel.reading.options import ReadOptions
from tfrecords_tools import host_cpus
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest as manifests

_STUCK_SECONDS = 300.0  # without a batch, after which it no longer says that it is alive
_SPLITS = 4  # kept open
_QUESTION_SECONDS = 60.0  # for a trainer to say what it wants
_MOST_TEXT = 10_000  # bytes of an error


class DataServer(socketserver.ThreadingTCPServer):
    """Serves batches at an address until `shutdown`.

    Attributes:
      greeting: what it tells each trainer.
      threads, remote_cache: as in ReadOptions, for all that is read here.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(
        self, address: protocol.Address, *, threads: int | None = None, remote_cache: str = "auto"
    ) -> None:
        """Listens at once. Raises OSError when the address cannot be had."""
        self.address_family, _, _, _, name = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        self.greeting = protocol.Greeting(uuid.uuid4().hex, threads or host_cpus.available(), versions())
        self.threads = threads
        self.remote_cache = remote_cache
        self._splits: collections.OrderedDict[protocol.Source, Split] = collections.OrderedDict()
        self._lock = threading.Lock()
        super().__init__((str(name[0]), int(name[1])), _Connection)

    def opened(self, source: protocol.Source) -> Split:
        """The split, once it is sure that it is the one that the trainer has.

        Raises:
          DataError, UsageError: it is another one, or cannot be read here.
        """
        manifest = manifests.load(source.data_dir)
        if fingerprint(manifest) != source.manifest:
            raise DataError(f"{source.data_dir} holds other data on its machine than on this one")
        with self._lock:
            split = self._splits.pop(source, None) or Split(source.data_dir, source.split)
            self._splits[source] = split  # the last one used goes last
            while len(self._splits) > _SPLITS:
                self._splits.popitem(last=False)
        return split

    def handle_error(self, request: object, client_address: object) -> None:
        """Says in one line what went wrong in a connection."""
        print(f"{client_address}: {sys.exception()!r}", file=sys.stderr, flush=True)


class _Connection(socketserver.BaseRequestHandler):
    """Serves one trainer's data set."""

    server: DataServer

    def handle(self) -> None:
        with contextlib.suppress(protocol.Lost, OSError):  # the trainer has what it wants, or is gone
            protocol.keep_alive(self.request)
            self.request.settimeout(_QUESTION_SECONDS)
            greeting = self.server.greeting
            protocol.send_json(self.request, vars(greeting))
            source = protocol.Source(**protocol.receive_json(self.request))
            try:
                split = self.server.opened(source)
            except (DataError, UsageError, OSError) as error:
                protocol.send_json(self.request, {"error": str(error)})
                return
            protocol.send_json(self.request, {})
            request = protocol.Request(**protocol.receive_json(self.request))
            self.request.settimeout(None)  # a trainer that evaluates takes no training batches meanwhile
            self._send(lambda: self._batches(split, request))

    def _batches(self, split: Split, request: protocol.Request) -> tf.data.Dataset:
        fields = request.reading | {"threads": self.server.threads, "remote_cache": self.server.remote_cache}
        fields["size"] = fields["size"] and tuple(fields["size"])
        reading = ReadOptions(**fields, worker=order.Worker(*request.part))
        if request.position is not None:
            return pipeline.train_batches(split, reading, order.Position(*request.position))
        return pipeline.eval_batches(split, reading, rows=request.rows).skip(request.skip)

    def _send(self, make: Callable[[], tf.data.Dataset]) -> None:
        """Sends the batches of a data set as they become ready, and signs of life between them."""
        ahead = Ahead(lambda: batch_arrays(make()))
        last = time.monotonic()
        try:
            while True:
                try:
                    arrays = ahead.get(timeout=protocol.ALIVE_SECONDS)
                except queue.Empty:
                    if time.monotonic() - last < _STUCK_SECONDS:
                        protocol.send(self.request, protocol.ALIVE)
                    continue
                except Exception as error:  # whatever it is, the trainer continues elsewhere
                    problem = bad_records.data_error(error) or error
                    protocol.send(self.request, protocol.ERROR, str(problem).encode()[:_MOST_TEXT])
                    return
                if arrays is None:
                    protocol.send(self.request, protocol.END)
                    return
                protocol.send_batch(self.request, arrays)
                del arrays  # its memory is used again once nothing refers to it
                last = time.monotonic()
        finally:
            ahead.close()
