"""Flags for what happens to training images: a preset, and one flag per parameter that changes it.

    --augmentation=original --rotation_range=15 --rotation_range=authenticity=0 --mixup_alpha=0.2

The parameters are `Augmentation`'s and `Mixing`'s, the first ones ImageDataGenerator's by name and
meaning; what is not given is the preset's. Import takes no TensorFlow, so that --help is quick.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from tfrecords_tools.errors import UsageError

if TYPE_CHECKING:
    from deepduel.augmentation.options import Augmentation, Mixing

PRESETS = ("original", "forensic", "robust", "light", "none")
MIXING = ("mixup_alpha", "cutmix_alpha")


def _number(text: str) -> int | float:
    """A whole number stays one: as in ImageDataGenerator, the shifts 5 and 5.0 differ."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _numbers(text: str) -> int | float | tuple:
    """0.3, or 0.8,1.2; brackets as in Python are allowed."""
    parts = text.strip("[]() ").split(",")
    return _number(parts[0]) if len(parts) == 1 else tuple(_number(part) for part in parts)


def _pair(text: str) -> tuple | None:
    if text.lower() == "none":
        return None
    numbers = _numbers(text)
    if not isinstance(numbers, tuple):
        raise ValueError
    return numbers


def truth(text: str) -> bool:
    """ "true", "1", "false" or "0", in any case. Raises KeyError."""
    return {"true": True, "1": True, "false": False, "0": False}[text.lower()]


_KINDS: dict[Callable, str] = {
    int: "a whole number",
    str: "a word",
    _number: "a number",
    _numbers: "a number, or several like 0.8,1.2",
    _pair: "two numbers like 0.5,1.5, or none",
    truth: "true or false",
}
_PARAMETERS: dict[str, tuple[Callable, str]] = {  # name: (kind, help)
    "rotation_range": (_number, "Degrees, uniform in ±."),
    "width_shift_range": (_numbers, "As in ImageDataGenerator: a share, pixels, or several to choose from."),
    "height_shift_range": (_numbers, "As width_shift_range."),
    "shear_range": (_number, "Degrees, uniform in ±."),
    "zoom_range": (_numbers, "A share in ±, or the lowest and the highest factor: 0.8,1.2."),
    "horizontal_flip": (truth, "true or false."),
    "vertical_flip": (truth, "true or false."),
    "channel_shift_range": (_number, "Grey levels, uniform in ±, added within the image's own range."),
    "brightness_range": (_pair, "Lowest and highest factor: 0.5,1.5; or none."),
    "fill_mode": (str, "What lies outside the image: nearest, constant, reflect or wrap."),
    "cval": (_number, "Grey level outside the image, with fill_mode constant."),
    "quarter_turns": (truth, "Turn by 0, 90, 180 or 270 degrees: true or false."),
    "shift_pixels": (int, "Shift by whole pixels, up to so many in each direction."),
    "crop_size": (int, "Side in pixels of a random crop; evaluation takes the centre. 0: none."),
    "blur_sigma": (_pair, "Lowest and highest standard deviation of a blur in pixels, or none."),
    "blur_probability": (_number, "Share of the images that are blurred."),
    "jpeg_quality": (_pair, "Lowest and highest quality 1..100 of a JPEG compression, or none."),
    "jpeg_probability": (_number, "Share of the images that are compressed."),
    "rand_augment": (int, "Operations of keras-cv's RandAugment per image; 0: off."),
    "rand_augment_magnitude": (_number, "Their mean strength, 0..1."),
    "mixup_alpha": (_number, "MixUp with Beta(alpha, alpha); 0: off, 0.2 is usual."),
    "cutmix_alpha": (_number, "CutMix with Beta(alpha, alpha); 0: off, 1 is usual."),
}
_FILLED = (
    "rotation_range", "width_shift_range", "height_shift_range", "shear_range", "zoom_range", "shift_pixels",
)  # fmt: skip
_NEEDS = {  # a flag that does nothing unless one of these is on
    "fill_mode": _FILLED,
    "blur_probability": ("blur_sigma",),
    "jpeg_probability": ("jpeg_quality",),
    "rand_augment_magnitude": ("rand_augment",),
}


def define(flag_values: flags.FlagValues, *, tasks: bool = True) -> None:
    """The parameters' flags; --augmentation itself is defined by the command.

    Args:
      tasks: whether there are tasks to train: without, no TASK=VALUE is explained, and nothing is mixed.
    """
    use = " VALUE or TASK=VALUE; may be repeated." if tasks else ""
    for name, (_, text) in _PARAMETERS.items():
        if tasks or name not in MIXING:
            flags.DEFINE_multi_string(
                name, None, f"{text} Default: the preset's.{use}", flag_values=flag_values
            )


def given(options: flags.FlagValues, axes: list[str], per_task: Callable) -> dict[str, dict[str, str]]:
    """{axis: {parameter: text}} of what was given for it."""
    found: dict[str, dict[str, str]] = {axis: {} for axis in axes}
    for name in _PARAMETERS:
        values = options[name].value if name in options else None
        for axis, text in per_task(name, values or [], axes, required=False).items():
            found[axis][name] = text
    return found


def build(preset: str, texts: dict[str, str]) -> "tuple[Augmentation, Mixing]":
    """The preset with these parameters changed: (Augmentation, Mixing). Raises UsageError."""
    from deepduel.augmentation.options import PRESETS as presets
    from deepduel.augmentation.options import Mixing

    if preset not in presets:
        raise UsageError(f"--augmentation must be one of {', '.join(PRESETS)}, got {preset!r}")
    values = {name: _value(name, text) for name, text in texts.items()}
    mixed = {name: values.pop(name) for name in MIXING if name in values}
    try:
        augmentation, mixing = dataclasses.replace(presets[preset], **values), Mixing(**mixed)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    _check_effect(augmentation, values, preset)
    return augmentation, mixing


def _value(name: str, text: str) -> Any:
    kind = _PARAMETERS[name][0]
    try:
        return kind(text)
    except (ValueError, KeyError):
        raise UsageError(f"--{name} must be {_KINDS[kind]}, got {text!r}") from None


def _check_effect(augmentation: "Augmentation", values: dict[str, Any], preset: str) -> None:
    """Raises UsageError when a flag that was given changes nothing."""
    for name, needed in _NEEDS.items():
        if name in values and not any(getattr(augmentation, other) for other in needed):
            raise UsageError(
                f"--{name} does nothing here: --augmentation={preset} has no {' or '.join(needed)}; "
                "add one, or leave it out"
            )
    if "cval" in values and augmentation.fill_mode != "constant":
        raise UsageError(
            f"--cval needs --fill_mode=constant; fill_mode={augmentation.fill_mode} does not use it"
        )
