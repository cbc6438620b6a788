"""Re-exports `tfrecords_tools.format.records`."""

from tfrecords_tools.format.records import *  # noqa: F403
