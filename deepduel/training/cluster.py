"""Which processes train together: their addresses, and which of them this one is. No TensorFlow.

--cluster=gpu1:5060,gpu2:5060 --worker=0/2    named one by one
--cluster=slurm                               the tasks of a Slurm job step
--cluster=tf_config                           TF_CONFIG, as Kubernetes or Vertex AI set it
"""

import collections
import dataclasses
import itertools
import json
import re
from collections.abc import Mapping

from deepduel.reading.order import Worker
from tfrecords_tools.errors import UsageError

_FIRST_PORT, _PORTS = 20_000, 8_000  # for Slurm's tasks, below the ports that systems give out themselves


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes that train together, one per device.

    Attributes:
      addresses: HOST:PORT of each, in the order of their numbers.
      index: of this process.

    Raises:
      UsageError: an address is no HOST:PORT, or is there twice.
    """

    addresses: tuple[str, ...]
    index: int

    def __post_init__(self) -> None:
        for address in self.addresses:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
                raise UsageError(f"cluster: {address!r} must be HOST:PORT, such as gpu1:5060")
            if self.addresses.count(address) > 1:
                raise UsageError(f"cluster: {address} is listed twice; each process needs a port of its own")

    @property
    def worker(self) -> Worker:
        """The part of every batch that this process reads."""
        return Worker(self.index, len(self.addresses))

    @property
    def local_index(self) -> int:
        """How many processes before this one are on the same host: the number of this one's GPU there."""
        host = _host(self.addresses[self.index])
        return sum(_host(address) == host for address in self.addresses[: self.index])

    @property
    def most_on_a_host(self) -> int:
        """The largest number of processes on one host."""
        return max(collections.Counter(map(_host, self.addresses)).values())

    def host_and_port(self, index: int) -> tuple[str, int]:
        """Of one process."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)

    def name(self, index: int) -> str:
        """One process for messages, such as "worker 1 of 2 (gpu2:5060)"."""
        return f"worker {index} of {len(self.addresses)} ({self.addresses[index]})"


def from_flags(cluster: str, worker: str, environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that --cluster and --worker name; None where this process trains alone.

    Args:
      cluster: "", "slurm", "tf_config", or addresses separated by commas.
      worker: "", or "I/N".
      environment: os.environ.

    Raises:
      UsageError: one flag lacks the other, they contradict each other, or variables are missing.
    """
    if not cluster:
        if worker:
            raise UsageError(
                f"--worker={worker} needs --cluster=HOST:PORT,HOST:PORT, the addresses of all workers"
            )
        return None
    if cluster in ("slurm", "tf_config"):
        if worker:
            raise UsageError(f"--cluster={cluster} numbers the workers itself; leave --worker out")
        cluster_of_process = _from_slurm(environment) if cluster == "slurm" else _from_tf_config(environment)
    else:
        cluster_of_process = _listed(tuple(address.strip() for address in cluster.split(",")), worker)
    return cluster_of_process if len(cluster_of_process.addresses) > 1 else None


def _listed(addresses: tuple[str, ...], worker: str) -> Cluster:
    match = re.fullmatch(r"(\d+)/(\d+)", worker)
    if not match:
        raise UsageError(
            f"--cluster needs --worker=I/{len(addresses)}, the number of this process from 0 on and how many "
            f"there are; got --worker={worker}"
        )
    index, count = int(match[1]), int(match[2])
    if count != len(addresses) or index >= count:
        raise UsageError(
            f"--worker={worker}: --cluster lists {len(addresses)} addresses, so it is 0/{len(addresses)} to "
            f"{len(addresses) - 1}/{len(addresses)}"
        )
    return Cluster(addresses, index)


def _from_tf_config(environment: Mapping[str, str]) -> Cluster:
    """{"cluster": {"chief": […], "worker": […]}, "task": {"type": "worker", "index": 0}}."""
    try:
        config = json.loads(environment["TF_CONFIG"])
        roles = {name: [str(address) for address in config["cluster"][name]] for name in config["cluster"]}
        role, index = config["task"]["type"], int(config["task"]["index"])
    except KeyError as error:
        raise UsageError(f"--cluster=tf_config: TF_CONFIG or its entry {error} is not set") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"--cluster=tf_config: TF_CONFIG does not describe a cluster ({error})") from None
    trainers = [name for name in ("chief", "master", "worker") if name in roles]
    if role not in trainers or index >= len(roles[role]):
        raise UsageError(
            f"--cluster=tf_config: this process is {role} {index}, and only a chief and workers train; "
            "leave evaluators and parameter servers out of the job"
        )
    before = sum(len(roles[name]) for name in trainers[: trainers.index(role)])
    addresses = tuple(address for name in trainers for address in roles[name])
    return Cluster(addresses, before + index)


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    def variable(*names: str) -> str:
        for name in names:
            if name in environment:
                return environment[name]
        raise UsageError(f"--cluster=slurm: {names[0]} is not set; start the command with srun")

    hosts = _expanded(variable("SLURM_STEP_NODELIST", "SLURM_NODELIST"))
    counts = _counts(variable("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))
    index = int(variable("SLURM_PROCID"))
    # The tasks of an array have numbers in a row, and may share a node.
    first = _FIRST_PORT + int(variable("SLURM_JOB_ID")) * max(counts) % _PORTS
    places = [(node, task) for node, count in enumerate(counts) for task in range(count)]
    if len(counts) != len(hosts) or len(places) != int(variable("SLURM_NTASKS")):
        raise UsageError(
            f"--cluster=slurm: {len(hosts)} nodes with {sum(counts)} tasks do not go together with "
            f"SLURM_NTASKS={variable('SLURM_NTASKS')}; start the command with srun"
        )
    if places[index] != (int(variable("SLURM_NODEID")), int(variable("SLURM_LOCALID"))):
        raise UsageError("--cluster=slurm: needs tasks in blocks; give srun --distribution=block")
    return Cluster(tuple(f"{hosts[node]}:{first + task}" for node, task in places), index)


def _expanded(nodes: str) -> list[str]:
    """ "gpu[01-03,7],login" -> ["gpu01", "gpu02", "gpu03", "gpu7", "login"]."""
    hosts: list[str] = []
    for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        parts = [
            _range(part[1:-1]) if part.startswith("[") else [part]
            for part in re.findall(r"\[[^\]]*\]|[^\[]+", word)
        ]
        hosts += ["".join(choice) for choice in itertools.product(*parts)]
    return hosts


def _range(text: str) -> list[str]:
    """ "01-03,7" -> ["01", "02", "03", "7"]."""
    numbers: list[str] = []
    for entry in text.split(","):
        first, _, last = entry.partition("-")
        numbers += [f"{n:0{len(first)}d}" for n in range(int(first), int(last or first) + 1)]
    return numbers


def _counts(text: str) -> list[int]:
    """ "2(x3),1" -> [2, 2, 2, 1]."""
    counts: list[int] = []
    for entry in text.split(","):
        count, _, repeats = entry.partition("(x")
        counts += [int(count)] * int(repeats.rstrip(")") or 1)
    return counts


def _host(address: str) -> str:
    return address.rpartition(":")[0]
