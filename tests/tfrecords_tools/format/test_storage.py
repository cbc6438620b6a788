import pytest

from tfrecords_tools.errors import DataError
from tfrecords_tools.format import storage


def test_a_folder_is_locked_once(tmp_path):
    held = storage.lock(tmp_path / ".convert" / "lock")
    with pytest.raises(DataError, match="another conversion is writing here"):
        storage.lock(tmp_path / ".convert" / "lock")
    held.release()
    storage.lock(tmp_path / ".convert" / "lock").release()


def test_a_place_that_cannot_hold_the_lock_is_an_error(tmp_path):
    """Not to be mistaken for a file system without locks."""
    (tmp_path / ".convert").write_text("a file")
    with pytest.raises(FileExistsError):
        storage.lock(tmp_path / ".convert" / "lock")


def test_a_span_of_a_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    folder = storage.open_folder(tmp_path)
    assert folder.read_span("a", 3, 4) == b"3456"
    assert folder.read_span("a", 8, 4) == b"89"
