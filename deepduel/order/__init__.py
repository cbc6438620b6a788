"""Re-exports `deepduel.reading.order`."""

from deepduel.reading.order import *  # noqa: F403
