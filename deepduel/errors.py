"""The errors that deepduel raises: bad data, a wrong call, or another process that is missing."""

from tfrecords_tools.errors import DataError, PeerError, UsageError

__all__ = ["DataError", "PeerError", "UsageError"]
