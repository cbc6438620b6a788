"""Augmentation of uint8 batches on the device, as functions and as a keras-cv layer."""

from deepduel.augmentation.options import Augmentation
from deepduel.augmentation.presets import PRESETS
from deepduel.augmentation.transform import RandomWarp, apply_transform, augment, draw, resize, uniforms

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
