"""Re-exports `deepduel.augmentation.transform`."""

from deepduel.augmentation.transform import *  # noqa: F403
