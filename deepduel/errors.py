"""The errors that deepduel raises: bad data, or a wrong call."""

from tfrecords_tools.errors import DataError, UsageError

__all__ = ["DataError", "UsageError"]
