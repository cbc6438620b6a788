"""Re-exports `deepduel.reading.pipeline`."""

from deepduel.reading.pipeline import *  # noqa: F403
