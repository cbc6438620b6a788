import json

import pytest

from deepduel.training.cluster import Cluster, from_flags
from tfrecords_tools.errors import UsageError

SLURM = {
    "SLURM_STEP_NODELIST": "gpu[01-02,7],login",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)",
    "SLURM_NTASKS": "6",
    "SLURM_JOB_ID": "8001",
    "SLURM_PROCID": "3",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
}


def tf_config(role, index, **roles):
    return {"TF_CONFIG": json.dumps({"cluster": roles, "task": {"type": role, "index": index}})}


def refusal(cluster, worker="", environment=None) -> str:
    with pytest.raises(UsageError) as error:
        from_flags(cluster, worker, environment or {})
    return str(error.value)


def test_addresses_and_a_number_make_a_worker_of_its_host():
    cluster = from_flags("gpu1:5060,gpu1:5061,gpu2:5060", "1/3", {})
    assert (cluster.worker.index, cluster.worker.count, cluster.local_index) == (1, 3, 1)
    assert cluster.most_on_a_host == 2
    assert cluster.host_and_port(2) == ("gpu2", 5060)
    assert cluster.name(2) == "worker 2 of 3 (gpu2:5060)"
    assert from_flags("gpu1:5060, gpu2:5060", "0/2", {}).addresses == ("gpu1:5060", "gpu2:5060")
    assert Cluster(("[::1]:5060", "[::1]:5061"), 0).host_and_port(1) == ("::1", 5061)


def test_without_a_cluster_or_with_a_single_address_a_process_trains_alone():
    assert from_flags("", "", SLURM) is None
    assert from_flags("gpu1:5060", "0/1", {}) is None


def test_slurm_lists_the_tasks_of_a_step_in_blocks():
    cluster = from_flags("slurm", "", SLURM)
    assert cluster.addresses == (
        "gpu01:20002", "gpu01:20003", "gpu02:20002", "gpu02:20003", "gpu7:20002", "login:20002",
    )  # fmt: skip
    assert (cluster.index, cluster.local_index) == (3, 1)
    racks = SLURM | {"SLURM_STEP_NODELIST": "r[1-2]n[08-09]"}
    hosts = [address.partition(":")[0] for address in from_flags("slurm", "", racks).addresses]
    assert list(dict.fromkeys(hosts)) == ["r1n08", "r1n09", "r2n08", "r2n09"]


def test_slurm_jobs_in_a_row_have_ports_of_their_own():
    one, next_one = (
        from_flags("slurm", "", SLURM | {"SLURM_JOB_ID": number}).addresses for number in ("8001", "8002")
    )
    assert not set(one) & set(next_one)


def test_tf_config_counts_a_chief_before_the_workers():
    roles = {"worker": ["b:2222", "c:2222"], "chief": ["a:2222"]}
    cluster = from_flags("tf_config", "", tf_config("worker", 1, **roles))
    assert cluster == Cluster(("a:2222", "b:2222", "c:2222"), 2)
    assert from_flags("tf_config", "", tf_config("chief", 0, chief=["a:2222"])) is None


@pytest.mark.parametrize(
    ("cluster", "worker", "environment", "words"),
    [
        ("", "0/2", {}, "--worker=0/2 needs --cluster=HOST:PORT"),
        ("a:1,b:1", "", {}, "--cluster needs --worker=I/2"),
        ("a:1,b:1", "0/3", {}, "lists 2 addresses, so it is 0/2 to 1/2"),
        ("a:1,b:1", "2/2", {}, "lists 2 addresses"),
        ("a:1,b", "0/2", {}, "'b' must be HOST:PORT"),
        ("a:1,a:1", "0/2", {}, "a:1 is listed twice"),
        ("slurm", "0/2", {}, "leave --worker out"),
        ("slurm", "", {}, "SLURM_STEP_NODELIST is not set; start the command with srun"),
        ("slurm", "", SLURM | {"SLURM_NTASKS": "5"}, "start the command with srun"),
        ("slurm", "", SLURM | {"SLURM_NODEID": "0"}, "srun --distribution=block"),
        ("tf_config", "", {}, "'TF_CONFIG' is not set"),
        ("tf_config", "", {"TF_CONFIG": "{"}, "does not describe a cluster"),
        ("tf_config", "", tf_config("ps", 0, ps=["p:1"], worker=["a:1"]), "this process is ps 0"),
    ],
)
def test_what_is_no_cluster_is_refused(cluster, worker, environment, words):
    assert words in refusal(cluster, worker, environment)
