"""Augmentation of uint8 batches on the device, as functions and as a keras-cv layer."""

from deepduel.augmentation.draws import draw, uniforms
from deepduel.augmentation.options import Augmentation
from deepduel.augmentation.presets import PRESETS
from deepduel.augmentation.random_warp import RandomWarp
from deepduel.augmentation.transform import apply_transform, augment, resize

__all__ = [
    "PRESETS",
    "Augmentation",
    "RandomWarp",
    "apply_transform",
    "augment",
    "draw",
    "resize",
    "uniforms",
]
