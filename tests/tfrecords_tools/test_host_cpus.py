import os

import pytest

from tfrecords_tools import host_cpus


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("250000 100000", 3),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
        ("1 0", 8),
    ],
)
def test_a_containers_quota_limits_the_cores(tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert host_cpus.available(tmp_path) == cores


def test_without_a_container_the_processs_affinity_counts(tmp_path):
    assert host_cpus.available(tmp_path) == 8
