"""Processes of a team as threads of this one, each with its own connections."""

import ctypes
import queue
import socket
import struct
import threading
import time

import pytest

from deepduel.training import channel as channel_module
from deepduel.training import peers as peers_module
from deepduel.training.channel import Channel
from deepduel.training.cluster import Cluster
from deepduel.training.meeting import PROTOCOL, meet
from deepduel.training.peers import Peers
from tfrecords_tools.errors import DataError, PeerError, UsageError


class Member:
    """One worker, with the sentences of its `on_failure`."""

    def __init__(self, cluster, channels):
        self.channels = channels
        self.failures: queue.Queue = queue.Queue()
        self.peers = Peers(cluster, channels, self.failures.put)


def clusters(count) -> list[Cluster]:
    """On free ports."""
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    addresses = tuple(f"localhost:{server.getsockname()[1]}" for server in sockets)
    for server in sockets:
        server.close()
    return [Cluster(addresses, index) for index in range(count)]


def at_once(functions) -> list:
    """What the functions return, each called in a thread of its own."""
    results = [None] * len(functions)

    def call(number):
        results[number] = functions[number]()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results


def team(count) -> list[Member]:
    members = clusters(count)
    channels = at_once([lambda cluster=cluster: meet(cluster, patience=10) for cluster in members])
    return [Member(cluster, channel) for cluster, channel in zip(members, channels, strict=True)]


def test_all_get_the_values_of_all_in_the_order_of_their_numbers():
    members = team(3)
    for step in range(2):
        values = [{"rows": bytes(5), "step": step, "worker": index} for index in range(3)]
        gathered = at_once([lambda m=m, v=v: m.peers.gather(v) for m, v in zip(members, values, strict=True)])
        assert gathered == [values] * 3


def test_a_worker_that_is_killed_ends_all_others_with_its_name():
    zero, one, two = team(3)
    two.channels[0].close()
    for member in zero, one:
        assert member.failures.get(timeout=5).startswith("worker 2 of 3 (localhost:")


def test_without_worker_0_the_others_end_too():
    members = clusters(3)
    channels = at_once([lambda cluster=cluster: meet(cluster, patience=10) for cluster in members])
    one, two = (Member(*pair) for pair in list(zip(members, channels, strict=True))[1:])
    for channel in channels[0].values():  # nobody listens to them: worker 0 dies without a word
        channel.close()
    for member in one, two:
        assert "worker 0 of 3" in member.failures.get(timeout=5)


def test_a_reason_travels_and_leaves_time_to_end_by_oneself(monkeypatch):
    monkeypatch.setattr(peers_module, "_PATIENCE_SECONDS", 0.5)
    zero, one, two = team(3)
    started = time.monotonic()
    one.peers.end("the disk is full")
    two.peers.end("the disk is full")  # it came to the same end
    assert zero.failures.get(timeout=5).endswith("has ended: the disk is full")
    assert time.monotonic() - started >= 0.5
    assert two.failures.empty()


def test_an_end_that_all_have_agreed_to_is_no_failure(monkeypatch):
    monkeypatch.setattr(peers_module, "_PATIENCE_SECONDS", 0.0)
    members = team(3)
    for member in members:
        member.peers.expect_end()
    members[1].peers.end("SIGTERM: stopped and saved")
    members[1].channels[0].close()
    time.sleep(0.2)  # the others take their time
    assert all(member.failures.empty() for member in members)


def test_the_end_of_all_is_no_failure():
    members = team(2)
    for member in members:
        member.peers.end(None)
        for channel in member.channels.values():
            channel.close()
    time.sleep(0.2)
    assert all(member.failures.empty() for member in members)


def test_a_silent_worker_counts_as_stopped(monkeypatch):
    monkeypatch.setattr("deepduel.training.meeting.SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(peers_module, "_BEAT_SECONDS", 0.1)
    members = clusters(2)
    channels = at_once([lambda cluster=cluster: meet(cluster, patience=10) for cluster in members])
    zero = Member(members[0], channels[0])  # worker 1 sends no sign of life
    assert "has not answered for" in zero.failures.get(timeout=5)


def without_power(channel) -> None:
    """Has the system drop all that arrives before it is acknowledged, as if the machine were off."""
    return_nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # a filter of packets
    attached = struct.pack("HP", 1, ctypes.addressof(return_nothing))
    so_attach_filter = 26  # Python has no name for it
    channel._connection.setsockopt(socket.SOL_SOCKET, so_attach_filter, attached)


def test_a_machine_that_is_off_is_noticed_long_before_a_process_that_is_stopped(monkeypatch):
    monkeypatch.setattr(channel_module, "UNREACHABLE_SECONDS", 0.3)
    monkeypatch.setattr(peers_module, "_BEAT_SECONDS", 0.1)
    members = clusters(3)
    channels = at_once([lambda cluster=cluster: meet(cluster, patience=10) for cluster in members])
    zero = Member(members[0], {1: channels[0][1]})  # nobody receives what it sends to worker 1
    with pytest.raises(queue.Empty):
        zero.failures.get(timeout=1)
    without_power(channels[2][0])
    zero = Member(members[0], channels[0])
    sentence = zero.failures.get(timeout=5)
    assert sentence.startswith("worker 2 of 3 (localhost:")
    assert sentence.endswith("was killed, or its machine can no longer be reached")


def pair(silence) -> tuple[Channel, socket.socket]:
    """A channel, and the other end of its connection, whose buffers hold little."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        one = socket.create_connection(server.getsockname())
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        return Channel(one, silence=silence), server.accept()[0]


def test_a_large_message_may_take_longer_than_silence_may_last():
    """That is for its pieces: a connection may be slow."""
    channel, other = pair(silence=0.6)
    threading.Thread(target=channel.send, args=(bytes(6 << 20),), daemon=True).start()
    size = int.from_bytes(other.recv(4), "little")
    while size > 0:
        size -= len(other.recv(1 << 18))
        time.sleep(0.02)
    assert size == 0


def test_half_a_message_is_the_last_one():
    channel, other = pair(silence=0.2)
    with pytest.raises(TimeoutError):
        channel.send(bytes(8 << 20))
    with pytest.raises(OSError):
        channel.send("beat")
    receiving = Channel(other, silence=5)
    with pytest.raises(EOFError):
        receiving.receive()


def test_missing_workers_are_named():
    first, _, last = clusters(3)
    with pytest.raises(PeerError, match=r"worker 1 of 3 \(localhost:\d+\), worker 2 of 3 .* did not connect"):
        meet(first, patience=0.3)
    with pytest.raises(PeerError, match=r"worker 0 of 3 .* within 0 seconds \(Connection refused\); start"):
        meet(last, patience=0.3)


def test_a_missing_worker_is_named_by_all_that_have_come():
    first, _, last = clusters(3)
    sentences: queue.Queue = queue.Queue()

    def come(cluster, patience):
        with pytest.raises(PeerError) as error:
            meet(cluster, patience=patience)
        sentences.put(str(error.value))

    at_once([lambda: come(first, 1), lambda: come(last, 20)])
    for _ in range(2):
        assert sentences.get(timeout=5).startswith("worker 1 of 3 ")


def connected(first) -> socket.socket:
    """A connection to worker 0, once it listens."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return socket.create_connection(first.host_and_port(0), timeout=5)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline


def test_strangers_and_other_versions_are_turned_away():
    first, second = clusters(2)
    result: queue.Queue = queue.Queue()
    threading.Thread(target=lambda: result.put(meet(first, patience=10)), daemon=True).start()

    def hello(*message) -> list:
        channel = Channel(connected(first), silence=5)
        channel.send(*message)
        return channel.receive()

    nested = len(b"\x91" * 1000).to_bytes(4, "little") + b"\x91" * 1000
    for stranger in (b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\1\0\0\0\xc1", nested, b""):
        with connected(first) as connection:
            connection.sendall(stranger)
    assert "another version" in hello("hello", "deepduel team 0", 1, 2)[1]
    assert "a list of 2 workers" in hello("hello", PROTOCOL, 1, 3)[1]
    assert "a list of 2 workers" in hello("hello", PROTOCOL, 0, 2)[1]
    assert meet(second, patience=10)
    assert list(result.get(timeout=5)) == [1]


def test_a_second_worker_of_a_number_is_refused_and_a_restarted_one_is_not():
    first, second, third = clusters(3)
    result: queue.Queue = queue.Queue()
    threading.Thread(target=lambda: result.put(meet(first, patience=10)), daemon=True).start()
    killed = Channel(connected(first), silence=5)
    killed.send("hello", PROTOCOL, 1, 3)
    assert killed.receive() == ["beat"]
    with pytest.raises(DataError, match="refused by worker 0.*is there already"):
        meet(second, patience=10)
    killed.close()
    channels = at_once([lambda: meet(second, patience=10), lambda: meet(third, patience=10)])
    assert all(channels)
    assert sorted(result.get(timeout=5)) == [1, 2]


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of localhost cannot be used"):
            meet(Cluster((f"localhost:{port}", "localhost:1"), 0))
