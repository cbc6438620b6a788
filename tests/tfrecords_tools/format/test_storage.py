import concurrent.futures
import os
import subprocess
import threading

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import storage


def test_a_folder_is_locked_once(tmp_path):
    first_lock = storage.lock(tmp_path / ".convert" / "lock")
    with pytest.raises(DataError, match="another conversion is writing here"):
        storage.lock(tmp_path / ".convert" / "lock")
    first_lock.release()
    storage.lock(tmp_path / ".convert" / "lock").release()


def test_a_place_that_cannot_hold_the_lock_is_an_error(tmp_path):
    """Not to be mistaken for a file system without locks."""
    (tmp_path / ".convert").write_text("a file")
    with pytest.raises(FileExistsError):
        storage.lock(tmp_path / ".convert" / "lock")


def unable(*args, **options):
    raise OSError("not possible")


@pytest.mark.parametrize("links", [True, False])
def test_of_many_files_of_one_name_the_first_stays(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", unable)
    folder = storage.open_folder(tmp_path)
    folder.create("a", b"first")
    folder.create("a", b"second")
    assert folder.read("a") == b"first"
    assert folder.names(".convert") == []


@pytest.mark.parametrize("exclusive", [True, False])
def test_of_many_objects_of_one_name_the_first_stays(monkeypatch, exclusive):
    folder = storage.open_folder(f"memory://bucket/{exclusive}")
    if not exclusive:  # the driver knows no such mode
        write = MemoryFileSystem.pipe_file
        monkeypatch.setattr(MemoryFileSystem, "pipe_file", lambda files, path, data: write(files, path, data))
    folder.create("a", b"first")
    folder.create("a", b"second")
    assert folder.read("a") == b"first"


def test_of_many_threads_that_create_a_file_one_succeeds(tmp_path):
    folder = storage.open_folder(tmp_path)
    start = threading.Barrier(8)

    def create(number: int) -> bytes:
        start.wait()
        folder.create("a", b"%d" % number)
        return folder.read("a")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(8)))) == 1


def test_a_span_of_a_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    folder = storage.open_folder(tmp_path)
    assert folder.read_span("a", 3, 4) == b"3456"
    assert folder.read_span("a", 8, 4) == b"89"


def test_directories_of_any_depth_are_walked(tmp_path):
    """1,200 of them, more than Python's recursion limit; their path is longer than a system call takes."""
    try:
        deep = os.open(tmp_path, os.O_RDONLY)
        for _ in range(1_200):
            os.mkdir("d", dir_fd=deep)
            below = os.open("d", os.O_RDONLY, dir_fd=deep)
            os.close(deep)
            deep = below
        os.close(os.open("a.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
        os.close(deep)
        assert [entry.key for entry in storage.open_folder(tmp_path).walk()] == [b"d/" * 1_200 + b"a.jpg"]
    finally:
        subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)  # shutil.rmtree recurses


def test_a_path_that_is_longer_than_the_system_takes_is_a_problem_of_its_own(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=folder)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    (entry,) = storage.open_folder(tmp_path).walk()
    assert entry.problem in ("unreadable directory: File name too long", "unreadable: File name too long")


def test_links_to_directories_of_links_do_not_make_a_walk_endless(tmp_path):
    """2**30 paths lead to the one file."""
    for number in range(30):
        (tmp_path / "all" / f"{number:02d}").mkdir(parents=True)
        for name in "ab":
            (tmp_path / "all" / f"{number:02d}" / name).symlink_to(f"../{number + 1:02d}")
    (tmp_path / "all" / "30").mkdir()
    (tmp_path / "all" / "30" / "x.jpg").write_bytes(b"x")
    files = list(storage.open_folder(tmp_path / "all").walk())
    assert b"00/" + b"a/" * 30 + b"x.jpg" in {entry.key for entry in files}
    assert sum(not entry.problem for entry in files) <= 101
    assert len(files) < 10_000


def test_what_is_no_regular_file_is_listed_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    folder = storage.open_folder(tmp_path)
    assert [(entry.key, entry.problem) for entry in folder.walk()] == [(b"a.jpg", "not a regular file")]
    assert folder.size("a.jpg") is None
    reads = (
        lambda: folder.read("a.jpg"),
        lambda: folder.read_image(b"a.jpg"),
        lambda: folder.read_span("a.jpg", 0, 1),
        lambda: folder.view("a.jpg"),
    )
    for read in reads:
        with pytest.raises(OSError, match="not a regular file"):
            read()
