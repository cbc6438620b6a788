"""Flags of the augmentation: one per parameter, which changes the preset.

    --augmentation=original --rotation_range=15 --rotation_range=authenticity=0 --mixup_alpha=0.2

The flags, with their help and their rules, come from the rows of `Augmentation` and `Mixing`. A parameter
without a flag has the preset's value. Importing this loads no TensorFlow, so that --help is quick.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from absl import flags

from deepduel.augmentation.mixing_options import Mixing
from deepduel.augmentation.options import Augmentation
from deepduel.augmentation.parameters import parameters
from deepduel.augmentation.presets import PRESETS
from tfrecords_tools.errors import UsageError

_MIXING = parameters(Mixing)
_ALL = parameters(Augmentation) | _MIXING
NAMES = tuple(_ALL)


def define(flag_values: flags.FlagValues, *, tasks: bool = True) -> None:
    """Defines a flag for each parameter; the command defines --augmentation itself.

    Args:
      tasks: whether the command trains tasks. If not, the flags are not marked as flags per task, and there
        are none for mixing.
    """
    scope = " [per task]" if tasks else ""
    for name, parameter in _ALL.items():
        if tasks or name not in _MIXING:
            default = " Default: 0." if name in _MIXING else " Default: the preset's."
            text = parameter.description + default + scope
            flags.DEFINE_multi_string(name, None, text, flag_values=flag_values)


def texts_per_task(
    options: flags.FlagValues, axes: list[str], per_task: Callable
) -> dict[str, dict[str, str]]:
    """{axis: {parameter: text}} of the flags that were given for it."""
    texts: dict[str, dict[str, str]] = {axis: {} for axis in axes}
    for name in _ALL:
        values = options[name].value if name in options else None
        for axis, text in per_task(name, values or [], axes, required=False).items():
            texts[axis][name] = text
    return texts


def build(preset: str, texts: dict[str, str]) -> tuple[Augmentation, Mixing]:
    """The preset with the parameters of `texts`, {parameter: text}, changed. Raises UsageError."""
    if preset not in PRESETS:
        raise UsageError(f"--augmentation must be one of {', '.join(PRESETS)}, got {preset!r}")
    values = {name: _parsed(name, text) for name, text in texts.items()}
    mixed = {name: values.pop(name) for name in _MIXING if name in values}
    try:
        augmentation, mixing = dataclasses.replace(PRESETS[preset], **values), Mixing(**mixed)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    _check_effect(augmentation, values, preset)
    return augmentation, mixing


def _parsed(name: str, text: str) -> Any:
    kind = _ALL[name].kind
    try:
        return kind.parse(text)
    except ValueError:
        raise UsageError(f"--{name} must be {kind.description}, got {text!r}") from None


def _check_effect(augmentation: Augmentation, values: dict[str, Any], preset: str) -> None:
    """Raises UsageError if a flag has no effect, because another parameter that it needs is off."""
    for name in values:
        needs = _ALL[name].needs
        if needs and not any(_is_met(augmentation, need) for need in needs):
            raise UsageError(
                f"--{name} has no effect with --augmentation={preset} unless --{' or --'.join(needs)} is "
                f"given too; add it, or leave --{name} out"
            )


def _is_met(augmentation: Augmentation, need: str) -> bool:
    """Whether a parameter NAME is on, or has the value of NAME=VALUE."""
    name, _, value = need.partition("=")
    return getattr(augmentation, name) == value if value else bool(getattr(augmentation, name))
