"""Free memory, of the machine and of the container."""

import psutil
import pytest

from deepduel.decoding import host_memory


@pytest.fixture
def group(tmp_path, monkeypatch):
    free = psutil.virtual_memory()._replace(available=10**10)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    return tmp_path


def _limit(group, limit, used=5 * 10**9, stat="anon 1000000000\nfile 4000000000\nshmem 500000000\n"):
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(stat)


def test_without_a_container_the_machines_memory_counts(group):
    assert host_memory.available_bytes(group) == 10**10


def test_processes_of_one_machine_divide_its_memory(group):
    with host_memory.divided_among(4):
        assert host_memory.available_bytes(group) == 10**10 // 4
    assert host_memory.available_bytes(group) == 10**10


def test_a_container_without_a_limit_does_not_count(group):
    _limit(group, "max")
    assert host_memory.available_bytes(group) == 10**10


def test_pages_of_files_can_be_dropped_and_shared_memory_cannot(group):
    _limit(group, 8 * 10**9)
    assert host_memory.available_bytes(group) == 8 * 10**9 - 5 * 10**9 + 3_500_000_000


def test_a_full_container_has_no_memory_left(group):
    _limit(group, 10**9, stat="file 0\nshmem 0\n")
    assert host_memory.available_bytes(group) == 0


def test_a_limit_that_cannot_be_read_does_not_count(group):
    _limit(group, 10**9, stat="")
    assert host_memory.available_bytes(group) == 10**10
