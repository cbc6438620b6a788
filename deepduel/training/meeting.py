"""How the processes of a team find one another: all connect to the address of worker 0.

    worker I -> worker 0    "hello", PROTOCOL, I, N
    worker 0 -> worker I    "beat" while others are missing, then "welcome"; or "refused" or "missing" and why

Worker 0 listens only until all have come: from then on the port is TensorFlow's, and the connections stay.
"""

import contextlib
import socket
import time

from deepduel.training.channel import FIRST_BYTES, Channel
from deepduel.training.cluster import Cluster
from deepduel.training.peers import SILENCE_SECONDS
from tfrecords_tools.errors import DataError, PeerError, UsageError

PROTOCOL = "deepduel team 1"  # another number for messages that an earlier version does not understand
PATIENCE_SECONDS = 300.0  # for machines that a queue starts one after the other
_HELLO_SECONDS = 5.0
_RETRY_SECONDS = 0.2


def meet(cluster: Cluster, *, patience: float = PATIENCE_SECONDS) -> dict[int, Channel]:
    """The connections of this process once all have come: to worker 0, or of worker 0 to all others.

    Args:
      patience: seconds to wait for the others.

    Raises:
      PeerError: a worker is missing; the message names it.
      UsageError: the port is used by another process.
      DataError: worker 0 has refused this process.
    """
    deadline = time.monotonic() + patience
    host, port = cluster.host_and_port(cluster.index)
    try:
        listening = _listener(port)
    except OSError as error:
        raise UsageError(
            f"cluster: port {port} of {host} cannot be used ({error.strerror}); name another one"
        ) from None
    with listening:
        if cluster.index == 0:
            return _receive_all(cluster, listening, deadline, patience)
    return {0: _go_to_first(cluster, deadline, patience)}


def _listener(port: int) -> socket.socket:
    """A socket that listens on all addresses of this machine, as TensorFlow's server does later."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", port), family=family, dualstack_ipv6=both)


def _receive_all(
    cluster: Cluster, listening: socket.socket, deadline: float, patience: float
) -> dict[int, Channel]:
    channels: dict[int, Channel] = {}
    count = len(cluster.addresses)
    listening.settimeout(_RETRY_SECONDS)
    while len(channels) < count - 1:
        if time.monotonic() > deadline:
            missing = [cluster.name(index) for index in range(1, count) if index not in channels]
            problem = (
                f"{', '.join(missing)} did not connect within {patience:.0f} seconds; start the same command "
                f"there, and check that {cluster.addresses[0]} can be reached from there"
            )
            for channel in channels.values():
                with contextlib.suppress(OSError):
                    channel.send("missing", problem)
            raise PeerError(problem)
        with contextlib.suppress(TimeoutError):
            _greet(cluster, listening.accept()[0], channels)
        for index, channel in list(channels.items()):
            try:
                channel.send("beat")
            except OSError:
                del channels[index]
    for channel in channels.values():
        with contextlib.suppress(OSError):  # noticed when it is listened to
            channel.send("welcome")
    return channels


def _greet(cluster: Cluster, connection: socket.socket, channels: dict[int, Channel]) -> None:
    """Adds the channel of a worker that says hello; closes the connection of anybody else."""
    hello = Channel(connection, silence=_HELLO_SECONDS)
    try:
        kind, protocol, index, count = hello.receive(FIRST_BYTES)
    except (OSError, EOFError, ValueError):
        return hello.close()  # no worker of ours
    if kind != "hello" or not isinstance(index, int):
        return hello.close()
    refusal = _refusal(cluster, protocol, index, count, channels)
    if refusal:
        with contextlib.suppress(OSError):
            hello.send("refused", refusal)
        return hello.close()
    channels[index] = Channel(connection, silence=SILENCE_SECONDS)
    return None


def _refusal(
    cluster: Cluster, protocol: object, index: int, count: object, channels: dict[int, Channel]
) -> str | None:
    """Why a worker cannot take part; None if it can."""
    expected = len(cluster.addresses)
    if protocol != PROTOCOL:
        return "worker 0 runs another version of deepduel; install the same one everywhere"
    if count != expected or not 0 < index < expected:
        return f"worker 0 has a list of {expected} workers; give the same --cluster everywhere"
    if index in channels and not channels[index].is_closed:
        return f"{cluster.name(index)} is there already; give each process a number of its own"
    return None


def _go_to_first(cluster: Cluster, deadline: float, patience: float) -> Channel:
    problem = "no answer"
    while time.monotonic() < deadline:
        try:
            channel = Channel(
                socket.create_connection(cluster.host_and_port(0), timeout=_HELLO_SECONDS),
                silence=SILENCE_SECONDS,
            )
            channel.send("hello", PROTOCOL, cluster.index, len(cluster.addresses))
            while (answer := channel.receive())[0] == "beat":
                pass
        except (OSError, EOFError, ValueError) as error:  # it does not listen yet, or an earlier session does
            problem = getattr(error, "strerror", None) or str(error) or problem
            time.sleep(_RETRY_SECONDS)
            continue
        if answer[0] == "welcome":
            return channel
        if answer[0] == "missing":
            raise PeerError(answer[-1])
        raise DataError(f"refused by {cluster.name(0)}: {answer[-1]}")
    raise PeerError(
        f"{cluster.name(0)} did not answer within {patience:.0f} seconds ({problem}); start the same command "
        "there, and check that its name and port can be reached"
    )
