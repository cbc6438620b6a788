"""How the images of a batch are mixed: `Mixing`. Each field is a parameter, see `parameters`."""

import dataclasses
from dataclasses import field

from deepduel.augmentation.parameters import ZERO_OR_NUMBER, changed, check, docstring, row


@dataclasses.dataclass(frozen=True, order=True)  # tf.nest sorts the keys of dictionaries
class Mixing:
    """How the images of a batch are mixed; with both, each image has an even chance of either.

    Raises:
      ValueError: a value is outside its parameter's limits.

    Example:
      >>> str(Mixing(mixup_alpha=0.2))
      'mixup_alpha=0.2'
    """

    mixup_alpha: float = field(
        default=0.0,
        metadata=row(
            ZERO_OR_NUMBER,
            "",
            "MixUp (arXiv 1710.09412): blend with a partner image, in shares drawn from Beta(alpha, "
            "alpha). 0.2 is common; 0 disables it.",
            low=0.01,
            high=100,
        ),
    )
    cutmix_alpha: float = field(
        default=0.0,
        metadata=row(
            ZERO_OR_NUMBER,
            "",
            "CutMix (arXiv 1905.04899): cover a rectangle with a partner image's pixels. Its share of "
            "the area is 1 - Beta(alpha, alpha) before it is clipped at the edge. 1 is common; 0 "
            "disables it.",
            low=0.01,
            high=100,
        ),
    )

    def __post_init__(self) -> None:
        check(self)

    def __bool__(self) -> bool:
        return bool(self.mixup_alpha or self.cutmix_alpha)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value:g}" for name, value in changed(self).items())


Mixing.__doc__ = docstring(Mixing)
