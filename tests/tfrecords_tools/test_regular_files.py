import os
import socket

import pytest

from tfrecords_tools import regular_files


def test_a_regular_file_is_read_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes("grün\r\n".encode())
    (tmp_path / "link").symlink_to("file")
    assert regular_files.read(tmp_path / "link", limit=7) == "grün\r\n".encode()
    assert regular_files.read_text(tmp_path / "link") == "grün\r\n"
    with regular_files.open_text(tmp_path / "link") as file:
        assert file.read() == "grün\r\n"


def test_a_larger_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes, more than the 10 that are read"):
        regular_files.read(tmp_path / "sparse", limit=10)


def test_whatever_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "fifo", tmp_path / "socket", tmp_path, "/dev/zero"):
            with pytest.raises(OSError, match="not a regular file|No such device"):
                regular_files.read(path)


def test_a_file_that_is_not_utf_8_is_a_value_error(tmp_path):
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        regular_files.read_text(tmp_path / "file")
