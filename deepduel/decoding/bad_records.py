"""Records that do not decode: they raise an error, or are left out and counted.

A record that is left out keeps its row in the batch, black and with weight 0, so that shapes,
steps and the order of all other records stay as they are. These functions serve the random-access
reader; the sequential one does the same in its graph.
"""

import contextlib
import pathlib
import re
import sys
import threading
from collections.abc import Iterator

import numpy as np

from deepduel.decoding.split import Split
from tfrecords_tools.errors import DataError

POLICIES = ("fail", "skip")
_LISTED = 20  # bad records printed with a line of their own
_LOCK = threading.Lock()


def report(split: Split, record: int, reason: str, *, on_error: str) -> None:
    """Reports that a record of `split` does not decode.

    With on_error "skip", the record is added to `split.bad`, and the first 20 are printed to stderr.

    Raises:
      DataError: with on_error "fail"; names shard, record and key.
    """
    if on_error == "fail":
        raise DataError(
            f"{_message(split, record, reason)}; run python -m tfrecords_tools.verify "
            f"--data_dir={split.data_dir} --decode, or leave bad images out with on_error=skip"
        )
    with _LOCK:  # several threads decode; their lines must not mix
        if record in split.bad:  # reported in an earlier epoch
            return
        split.bad[record] = reason
        if len(split.bad) <= _LISTED:
            sys.stderr.write(f"left out: {_message(split, record, reason)}\n")
        elif len(split.bad) == _LISTED + 1:
            sys.stderr.write("left out: further bad records are counted, not listed\n")
        sys.stderr.flush()


def weights(split: Split, records: np.ndarray) -> np.ndarray:
    """Weights of records int64 [B]: float32 [B], 0 for padding (record -1) and for bad records, else 1."""
    weight = (records >= 0).astype(np.float32)
    if split.bad:
        weight[np.isin(records, list(split.bad))] = 0
    return weight


def _message(split: Split, record: int, reason: str) -> str:
    return f"{split.where(record)}: does not decode ({reason})"


@contextlib.contextmanager
def as_data_errors() -> Iterator[None]:
    """A block in which TensorFlow's errors that data sets raised become DataError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise data_error(error) or error from error


def data_error(error: Exception) -> DataError | None:
    """The DataError inside a TensorFlow error that a data set raised; None if it has another cause."""
    text = str(error)
    raised = re.search(r"DataError: ([^\n\"\]]*)", text.replace("\\n", "\n"))
    if raised:
        return DataError(raised.group(1))
    resized = re.search(r'input file "([^"]*)" has body length', text)
    if resized:
        return DataError(
            f"{resized.group(1)}{_first_lost(resized.group(1))}: it was truncated or replaced since it was "
            "opened; copy the folder again, or convert again"
        )
    unopened = re.search(
        r"([^\s;]*\.tfrecord-[^;]*); (No such file or directory|Permission denied|[^\n\[]*)", text
    )
    if unopened:
        return DataError(f"{unopened.group(1)}: cannot be opened ({unopened.group(2)})")
    return None


def _first_lost(shard: str) -> str:
    """ ", record N (key unreadable)" for the first record no longer whole; "" where that is unknown."""
    try:
        size = pathlib.Path(shard).stat().st_size
        table = np.load(f"{shard}.npy", allow_pickle=False)
        lost = np.flatnonzero(table["offset"] + table["size"] > size)
    except (OSError, ValueError, IndexError):
        return ""
    return f", record {lost[0]} (key unreadable)" if len(lost) else ""
