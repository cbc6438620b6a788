import os
import pathlib
import platform
import re
import stat
import subprocess
import sys
import threading

import pytest

from tfrecords_tools.atomic import published, written_beside


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "a.txt"
    with published(path) as file:
        file.write("grün\r\n")
        assert not path.exists()
    assert path.read_bytes() == "grün\r\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("durable", [False, True])
def test_an_error_leaves_the_earlier_file_and_nothing_beside_it(tmp_path, durable):
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), published(path, binary=True, durable=durable) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "file").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "to" / "file")
    with published(tmp_path / "link") as file:
        file.write("after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "to" / "file").read_text() == "after"


def test_a_named_pipe_is_written_to_and_not_replaced(tmp_path):
    path, read = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    with published(path) as file:
        file.write("through")
    reader.join(10)
    assert read == ["through"]
    assert path.is_fifo()


def test_a_pipe_without_a_name_is_written_to():
    """What a shell's >(command) hands over, and /dev/stdout | command."""
    reading, writing = os.pipe()
    with published(f"/dev/fd/{writing}") as file:
        file.write("through")
    os.close(writing)
    with os.fdopen(reading) as file:
        assert file.read() == "through"


def test_a_device_that_may_be_replaced_stays_a_device(tmp_path):
    """/dev is protected by its permissions, except from root."""
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        null.write_text("")
    except PermissionError:
        pytest.skip("only root makes devices, where the file system allows them")
    for path in (null, tmp_path / "link"):
        if path != null:
            path.symlink_to(null)
        with published(path) as file:
            file.write("nothing")
    assert null.is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "null"]


def test_a_device_stays_a_device():
    with published(os.devnull) as file:
        file.write("nothing")
    assert pathlib.Path(os.devnull).is_char_device()


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError), published(tmp_path / "folder") as file:
        file.write("text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_path_beside_has_the_ending_that_is_needed(tmp_path):
    with written_beside(tmp_path / "model", ending=".keras") as partial:
        assert partial.parent == tmp_path
        assert partial.suffix == ".keras"
        partial.write_text("weights")
    assert (tmp_path / "model").read_text() == "weights"


def test_the_next_write_removes_what_a_killed_process_left(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    host = re.sub("[^A-Za-z0-9]", "_", platform.node())[:32]
    number = f"{host}-{killed.stdout.strip()}"
    left = tmp_path / f".model.keras.{number}.partial.keras"
    left.write_text("half")
    (tmp_path / f".folder.{number}.partial").mkdir()
    others = [
        tmp_path / f".model.keras.{host}-{os.getppid()}.partial.keras",
        tmp_path / f".model.keras.elsewhere-{killed.stdout.strip()}.partial.keras",
    ]
    for other in others:
        other.write_text("at work")
    with written_beside(tmp_path / "model.keras", ending=".keras") as partial:
        partial.write_text("weights")
    with written_beside(tmp_path / "folder") as partial:
        partial.mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(other.name for other in others), "model.keras", "folder"]
    )


def test_a_folder_appears_when_the_block_ends_and_not_after_an_error(tmp_path):
    with written_beside(tmp_path / "model") as partial:
        partial.mkdir()
        (partial / "weights").write_text("1")
    with pytest.raises(KeyboardInterrupt), written_beside(tmp_path / "other") as partial:
        partial.mkdir()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "1"
