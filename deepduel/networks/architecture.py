"""A task's network: options that check themselves, without TensorFlow."""

import dataclasses
import re

from tfrecords_tools.errors import UsageError

OWN_BACKBONES = ("small_cnn", "forensic_cnn")  # not of keras.applications, no ImageNet weights
INPUT_FILTERS = ("none", "highpass", "srm", "spectrum")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
_POOLINGS = ("avg", "max", "flatten")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One task's network.

    Attributes:
      backbone: a network of keras.applications by name, in any case ("xception",
        "EfficientNetV2S"), or one of OWN_BACKBONES; `backbones.names` has them all.
      head: pooling ("avg", "max", "flatten"), then any of "dropout:RATE" and "dense:UNITS" (relu),
        separated by commas; the last layer, one logit per class, is added.
      image_size: side of the square input, pixels.
      weights: of the backbone: "imagenet", "none", or a file: .weights.h5 or .keras, of the backbone or of a
        model that was trained on it, such as best.keras.
      fine_tune: what of the backbone is trained: "none", "all", or "last:N", its last N layers that have
        weights.
      batch_norm: "frozen": the backbone runs in inference mode, with the batch-norm statistics that it came
        with and without its own dropout; "trained"; "auto": trained with fine_tune "all", else frozen, as
        Keras recommends (keras.io/guides/transfer_learning).
      precision: "float32", "mixed_float16", "mixed_bfloat16": of the backbone. The head is float32.
      input_filter: what is in front of the backbone, one of INPUT_FILTERS (see input_filters).
      stem_stride: of the backbone's first convolution that has a stride; 1 loses no pixel early, and makes
        the feature maps larger; 0: the network's own.
      mirrored: the saved model's probabilities are the mean of an image's and of its mirror image's, for
        twice the time. Training, and validation while it runs, go without.
    """

    backbone: str
    head: str = "avg"
    image_size: int = 224
    weights: str = "none"
    fine_tune: str = "none"
    precision: str = "float32"
    batch_norm: str = "auto"
    input_filter: str = "none"
    stem_stride: int = 0
    mirrored: bool = False

    def __post_init__(self) -> None:
        parse_head(self.head)
        if self.backbone in OWN_BACKBONES and self.weights == "imagenet":
            raise UsageError(f"{self.backbone} has no ImageNet weights; use --weights=none or --weights=FILE")
        if self.input_filter not in INPUT_FILTERS:
            raise UsageError(
                f"input_filter must be one of {', '.join(INPUT_FILTERS)}, got {self.input_filter!r}"
            )
        if self.stem_stride < 0:
            raise UsageError(f"stem_stride must be from 0 (the network's own) on, got {self.stem_stride}")
        if self.image_size < 1:
            raise UsageError(f"image_size must be at least 1 pixel, got {self.image_size}")
        if not re.fullmatch(r"none|all|last:[1-9]\d*", self.fine_tune):
            raise UsageError(f"fine_tune must be none, all or last:N, got {self.fine_tune!r}")
        if self.batch_norm not in ("auto", "frozen", "trained"):
            raise UsageError(f"batch_norm must be auto, frozen or trained, got {self.batch_norm!r}")
        if self.batch_norm == "trained" and not self.trainable:
            raise UsageError("batch_norm=trained needs a backbone that is trained: fine_tune=all or last:N")
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    @property
    def trainable(self) -> bool:
        """Whether anything of the backbone is trained."""
        return self.fine_tune != "none"

    @property
    def trains_statistics(self) -> bool:
        """Whether the backbone runs in training mode."""
        if self.batch_norm != "auto":
            return self.batch_norm == "trained"
        return self.trainable and not self.fine_tune.startswith("last:")


def parse_head(head: str) -> tuple[str, list[tuple[str, float]]]:
    """`Architecture.head` -> (pooling, [("dropout", rate) or ("dense", units)])."""
    pooling, *rest = [part.strip() for part in head.split(",")]
    try:
        if pooling not in _POOLINGS:
            raise ValueError(pooling)
        return pooling, [_hidden(*part.split(":")) for part in rest]
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"head {head!r}: must be {', '.join(_POOLINGS[:-1])} or {_POOLINGS[-1]}, then dropout:RATE or "
            f"dense:UNITS, separated by commas, for example avg,dropout:0.5,dense:512 (wrong: {error})"
        ) from error


def _hidden(kind: str, value: str) -> tuple[str, float]:
    if kind == "dropout" and 0 <= float(value) < 1:
        return kind, float(value)
    if kind == "dense" and int(value) > 0:
        return kind, int(value)
    raise ValueError(f"{kind}:{value}")
