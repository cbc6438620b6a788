"""TensorBoard's event files: removes points that a resumed run will write again.

TensorBoard would drop such points itself after a session that begins with a SessionLog, but its readers
differ in that; files without duplicates are read correctly by all of them.
"""

import pathlib

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event

from tfrecords_tools.atomic import written_beside


def forget_after(folder: pathlib.Path, step: int) -> int:
    """Removes every point whose step is above `step`. Returns how many there were.

    A file that changes is written again beside the old one and renamed; a last record that a killed process
    left incomplete is removed too.
    """
    return sum(_rewrite(path, step) for path in sorted(folder.glob("events.out.tfevents.*")))


def _rewrite(path: pathlib.Path, step: int) -> int:
    kept, dropped, complete = [], 0, True
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = Event.FromString(record)
            if event.step > step and not event.file_version:  # every file begins with its version
                dropped += 1
            else:
                kept.append(record)
    except tf.errors.DataLossError:
        complete = False
    if dropped or not complete:
        with written_beside(path) as partial, tf.io.TFRecordWriter(str(partial)) as writer:
            for record in kept:
                writer.write(record)
    return dropped
