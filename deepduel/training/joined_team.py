"""A team of several processes: `Team.gather` over TCP, `Team.sum` over TensorFlow's collective operations.

Keras' fit cannot train under a distribution strategy of several workers. So the variables are ordinary ones,
the strategy is that of no scope, and it only adds up tensors: over NCCL between GPUs, over gRPC between CPUs.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from deepduel.decoding import host_memory
from deepduel.training.channel import UNREACHABLE_SECONDS
from deepduel.training.cluster import Cluster
from deepduel.training.meeting import PATIENCE_SECONDS, meet
from deepduel.training.peers import SILENCE_SECONDS, Peers
from deepduel.training.team import Team, in_pieces
from tfrecords_tools import cli
from tfrecords_tools.errors import UsageError

# Within which a lost worker is named, of which an operation has failed: one that is stopped makes it wait.
_NOTICED_SECONDS = UNREACHABLE_SECONDS + 8
_OWN_ERRORS = tf.errors.ResourceExhaustedError, tf.errors.InvalidArgumentError


@contextlib.contextmanager
def joined(cluster: Cluster | None, *, command: str, patience: float = PATIENCE_SECONDS) -> Iterator[Team]:
    """A block in which this process is a member of the team; TensorFlow must not have computed anything yet.

    When another process ends early, is killed or stops, this one ends with exit code 3 and a line about it.

    Args:
      cluster: None for a team of one.
      command: the name of the command for that line.
      patience: seconds to wait for the others.

    Raises:
      PeerError: a worker is missing.
    """
    if cluster is None:
        yield Team()
        return

    def fail(sentence: str) -> None:
        try:
            print(
                f"{command}: {sentence}; the same command on every machine resumes the run at its last state",
                file=sys.stderr,
                flush=True,
            )
            sys.stdout.flush()
        finally:  # also where nobody reads what it prints
            os._exit(cli.PEER_LOST)

    print(f"{cluster.name(cluster.index)}: waiting for the others", flush=True)
    peers = Peers(cluster, meet(cluster, patience=patience), fail)
    try:
        # Worker 0 measures a micro-batch for all, so its part is that of a worker where most of them are.
        with host_memory.divided_among(cluster.most_on_a_host):
            yield _JoinedTeam(cluster, peers)
        peers.gather(None)  # all have done their work
    except BaseException as error:
        if isinstance(error, tf.errors.OpError) and not isinstance(error, _OWN_ERRORS):
            peers.wait_for_failure(_NOTICED_SECONDS)
        peers.end(_reason(error))
        raise
    peers.end(None)


class _JoinedTeam(Team):
    def __init__(self, cluster: Cluster, peers: Peers):
        self.worker = cluster.worker
        self._peers = peers
        self._strategy = _strategy(cluster)

    def gather(self, value: Any) -> list[Any]:
        return self._peers.gather(value)

    def expect_end(self) -> None:
        self._peers.expect_end()

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        def reduce_all(pieces: list[tf.Tensor]) -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.identity(piece) for piece in pieces])

        return in_pieces(tensors, lambda pieces: self._strategy.run(reduce_all, (pieces,)))


def _strategy(cluster: Cluster) -> tf.distribute.Strategy:
    """Starts TensorFlow's server on this process' port, and connects those of all processes."""
    gpus = tf.config.get_visible_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[cluster.local_index % len(gpus)], "GPU")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": 1} if gpus else {},
    )
    _leave_heartbeats_to_peers(len(cluster.addresses))
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except RuntimeError as error:
        raise UsageError(
            f"cluster: TensorFlow cannot join it any more in this process ({error}); train in a new process, "
            "before TensorFlow computes anything"
        ) from error


def _leave_heartbeats_to_peers(count: int) -> None:
    """Has TensorFlow wait longer for signs of life than `Peers`: its 10 seconds are few on a busy machine.

    TensorFlow has no public name for this; the strategy keeps what is configured before it.
    """
    from tensorflow.python.eager import context

    job = context.coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=count)
    context.context().configure_coordination_service(
        "standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=int(10 * SILENCE_SECONDS * 1000),
        coordinated_jobs=[job],
    )


def _reason(error: BaseException) -> str:
    """Why this process ends, for the others: the first line of the error."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return (str(error) or type(error).__name__).splitlines()[0]
