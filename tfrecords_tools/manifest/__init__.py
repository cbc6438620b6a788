"""Re-exports `tfrecords_tools.format.manifest`."""

from tfrecords_tools.format.manifest import *  # noqa: F403
