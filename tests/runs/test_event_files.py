import time

import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from deepduel.runs import event_files


def write(folder, steps):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for step in steps:
            tf.summary.scalar("loss", step / 10, step=step)
    writer.close()


def read(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return [point.step for point in events.Tensors("loss")]


def test_a_resumed_run_has_no_doubled_points(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    assert event_files.forget_after(tmp_path, 2) == 2
    time.sleep(1.1)  # as sessions are: files of one second are read in the order of a counter's digits
    write(tmp_path, [3, 4, 5])
    assert read(tmp_path) == [1, 2, 3, 4, 5]
    assert event_files.forget_after(tmp_path, 5) == 0


def test_the_end_of_a_killed_session_is_cut_off(tmp_path):
    write(tmp_path, [1, 2])
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-3])
    event_files.forget_after(tmp_path, 9)
    assert read(tmp_path) == [1]
    assert [part for part in tmp_path.iterdir() if part.name.startswith(".")] == []


def test_no_folder_is_no_points(tmp_path):
    assert event_files.forget_after(tmp_path / "nowhere", 0) == 0
