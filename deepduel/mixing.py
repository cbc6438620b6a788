"""MixUp and CutMix, whose random numbers are a function of the images' seeds."""

from deepduel.augmentation.mixing import Mix, mix_images, mix_labels, plan
from deepduel.augmentation.mixing_options import Mixing

__all__ = ["Mix", "Mixing", "mix_images", "mix_labels", "plan"]
