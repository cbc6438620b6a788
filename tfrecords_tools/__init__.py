"""Image folders to TFRecord shards. Knows nothing of models.

Users run `convert`, `verify` and `inspect`, and import `records` and `manifest`. The folders are private, and
each imports only from those under it:

writing    a list of images -> published shards; append and repair
checking   whether shards are sound; duplicates, contact sheets
listing    a folder or a table -> a list of images with splits and labels
images     bytes -> checked bytes, or a reason for rejection; bytes -> upright RGB pixels
format     records, tables and manifests; folders on disk and in object stores
"""

import sys as _sys
from types import TracebackType as _TracebackType


def _quiet_interrupt(kind: type[BaseException], error: BaseException, trace: _TracebackType | None) -> None:
    """Ctrl-C while a command is still importing is no error to trace."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=_sys.stderr)
    else:
        _sys.__excepthook__(kind, error, trace)


if _sys.argv[:1] == ["-m"]:  # python -m tfrecords_tools.convert is looking for its module
    _sys.excepthook = _quiet_interrupt
