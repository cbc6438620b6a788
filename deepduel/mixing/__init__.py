"""Re-exports `deepduel.augmentation.mixing`."""

from deepduel.augmentation.mixing import *  # noqa: F403
