"""Image folders to TFRecord shards. Knows nothing of models.

cli        flags in, exit code out; the errors that a user sees
layout     which part of a path says what
folder     image folder -> listing (keys, sizes, splits, labels): walk, then table
metadata   metadata.csv, checked against the folders
curation   listing -> listing with splits made and duplicates dropped
image      bytes -> checked bytes | Rejected;  bytes -> upright RGB pixels
planning   listing -> which image goes into which shard
shard      one shard, from its images to its files
workers    several processes at one list of jobs
writer     plan -> whole data folder
rejection  rejected.csv, and when too many images are in it
records    one record, byte by byte
manifest   what a data folder holds
audit      whether a data folder is what its manifest says
contents   images by cell, contact sheets
duplicates, splitting: which images are the same; splits by content
storage, remote, beam: folders here and in object stores; other machines
mending    damaged shards rebuilt, new images appended
telling    a plan and a finished folder, for people
convert, verify, inspect: the commands
"""

import sys as _sys


def _quiet_interrupt(kind, error, trace) -> None:
    """Ctrl-C while a command is still importing is no error to trace."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=_sys.stderr)
    else:
        _sys.__excepthook__(kind, error, trace)


if _sys.argv[:1] == ["-m"]:  # python -m tfrecords_tools.convert is looking for its module
    _sys.excepthook = _quiet_interrupt
