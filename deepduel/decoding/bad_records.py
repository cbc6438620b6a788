"""Records that do not decode: they end the reading, or are left out and counted.

A record that is left out keeps its row in the batch, black and with weight 0, so that shapes,
steps and the order of all other records stay as they are. The functions here serve the random-access
reader; the sequential one does the same in its graph.
"""

import os
import re
import sys
import threading

import numpy as np

from deepduel.decoding.split import Split
from tfrecords_tools.errors import DataError

POLICIES = ("fail", "skip")
_LISTED = 20  # bad records that get a line of their own
_LOCK = threading.Lock()


def found(split: Split, record: int, reason: str, *, on_error: str) -> None:
    """A record of `split` does not decode.

    Raises:
      DataError: with on_error "fail"; names shard, record and key. With "skip" they are printed,
        for the first 20, and `split.bad` keeps the record.
    """
    if on_error == "fail":
        raise DataError(_message(split, record, reason))
    with _LOCK:  # decoding threads come here at once; a line is printed whole and in its turn
        if record in split.bad:  # of an earlier epoch
            return
        split.bad[record] = reason
        if len(split.bad) <= _LISTED:
            sys.stderr.write(f"left out: {_message(split, record, reason)}\n")
        elif len(split.bad) == _LISTED + 1:
            sys.stderr.write("left out: further bad records are counted, not listed\n")
        sys.stderr.flush()


def weights(split: Split, records: np.ndarray) -> np.ndarray:
    """float32 [B]: 1 for images; 0 for padding (record -1) and for records known to be bad."""
    weight = (records >= 0).astype(np.float32)
    if split.bad:
        weight[np.isin(records, list(split.bad))] = 0
    return weight


def _message(split: Split, record: int, reason: str) -> str:
    return (
        f"{split.where(record)}: does not decode ({reason}); "
        "run python -m tfrecords_tools.verify on the data folder"
    )


def data_error(error: Exception) -> DataError | None:
    """The DataError inside an error of TensorFlow's that a data set raised; None if it is another matter."""
    text = str(error)
    raised = re.search(r"DataError: ([^\n\"\]]*)", text.replace("\\n", "\n"))
    if raised:
        return DataError(raised.group(1))
    resized = re.search(r'input file "([^"]*)" has body length', text)
    if resized:
        return DataError(
            f"{resized.group(1)}{_first_lost(resized.group(1))}: it was cut short or replaced since it was "
            "opened; copy the folder again, or convert again"
        )
    gone = re.search(
        r"([^\s;]*\.tfrecord-[^;]*); (No such file or directory|Permission denied|[^\n\[]*)", text
    )
    if gone:
        return DataError(f"{gone.group(1)}: cannot be opened ({gone.group(2)})")
    return None


def _first_lost(shard: str) -> str:
    """ ", record N (key unreadable)" of the first that is not whole any more; "" where nobody can tell."""
    try:
        size = os.stat(shard).st_size  # noqa: PTH116
        table = np.load(f"{shard}.npy", allow_pickle=False)
    except (OSError, ValueError):
        return ""
    lost = np.flatnonzero(table["offset"] + table["size"] > size)
    return f", record {lost[0]} (key unreadable)" if len(lost) else ""
