"""What one augmentation parameter is: its kind, unit, limits, flag help and random streams.

    rotation_range: float = field(default=0.0, metadata=row(NUMBER, "degrees", "Rotate by …", streams={…}))

`options.Augmentation` and `mixing_options.Mixing` declare such a row with each field. Their checks, the
numbers of the random streams (`draws`), the flags (`flags`) and the table of the documentation
(`markdown_table`) come from these rows. Importing this loads no TensorFlow, so that --help is quick.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_KEY = "parameter"  # in a field's metadata


@dataclasses.dataclass(frozen=True)
class Kind:
    """How the values of a parameter are written and checked.

    Attributes:
      description: what a flag's text must be, for errors: "a number".
      parse: text -> value; raises ValueError on any other text.
      check: (name, value, row); raises ValueError on a value that the parameter cannot have.
    """

    description: str
    parse: Callable[[str], Any]
    check: Callable[[str, Any, "Parameter"], None]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A row of the table.

    Attributes:
      kind: how its values are written and checked.
      unit: of its values, "" for none.
      help: what it does, in sentences; help of the flag and text of the documentation.
      low, high: limits of its numbers, both included.
      choices: the values of a word.
      needs: the parameter has an effect only together with one of these, NAME or NAME=VALUE; for any effect.
      streams: {name of a random number: which uniform of the image's it is}. Numbers are never reused, so
        that the draws of a parameter are the same whatever other parameters are on.
    """

    kind: Kind
    unit: str
    help: str
    low: float = 0
    high: float = math.inf
    choices: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    streams: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def description(self) -> str:
        """What it does, and the unit of its values."""
        return f"{self.help} Unit: {self.unit}." if self.unit else self.help


def row(kind: Kind, unit: str, help: str, **values: Any) -> dict[str, Parameter]:
    """The metadata of a dataclass's field that is an augmentation parameter, see `Parameter`."""
    return {_KEY: Parameter(kind, unit, help, **values)}


def parameters(options: Any) -> dict[str, Parameter]:
    """{name: row} of a dataclass of parameters, or of an instance, in the order of its fields."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(options)}


def check(options: Any) -> None:
    """Raises ValueError, which names the parameter, its rule and its value, if one is out of its limits."""
    for name, parameter in parameters(options).items():
        parameter.kind.check(name, getattr(options, name), parameter)


def changed(options: Any) -> dict[str, Any]:
    """{name: value} of the parameters that are not at their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    values = {name: getattr(options, name) for name in defaults}
    return {name: value for name, value in values.items() if value != defaults[name]}


def text_of(value: Any) -> str:
    """A value as it is written in a flag: (0.3, 1.7) -> "0.3,1.7", True -> "true", None -> "none"."""
    if isinstance(value, tuple):
        return ",".join(text_of(part) for part in value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def docstring(options: type) -> str:
    """The docstring of a dataclass of parameters, with a section "Attributes" from its rows."""
    rows = (f"  {name}: {parameter.description}" for name, parameter in parameters(options).items())
    return "\n".join([inspect.cleandoc(options.__doc__ or ""), "", "Attributes:", *rows, ""])


def markdown_table(kinds: Iterable[type], presets: Mapping[str, Any]) -> str:
    """The parameters as a table in Markdown: flag, meaning, unit, default, and the value in each preset.

    Args:
      kinds: dataclasses of parameters.
      presets: {name: instance of one of them}. A cell is empty where the preset has the default.
    """
    lines = ["| flag | meaning | unit | default |" + "".join(f" `{name}` |" for name in presets)]
    lines.append("|---" * (4 + len(presets)) + "|")
    for kind in kinds:
        for field in dataclasses.fields(kind):
            parameter = field.metadata[_KEY]
            cells = [f"`--{field.name}`", parameter.help, parameter.unit, text_of(field.default)]
            for preset in presets.values():
                value = changed(preset).get(field.name, "") if isinstance(preset, kind) else ""
                cells.append("" if value == "" else text_of(value))
            lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in cells))
    return "\n".join(lines) + "\n"


def zoom_factors(zoom_range: Any) -> Any:
    """The lowest and the highest factor of a `zoom_range`: 0.3 -> (0.7, 1.3); a pair is the factors."""
    if isinstance(zoom_range, int | float):
        return 1 - zoom_range, 1 + zoom_range
    return zoom_range


def _parse_number(text: str) -> int | float:
    """A whole number stays one: as in ImageDataGenerator, the shifts 5 and 5.0 differ."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _parse_numbers(text: str) -> int | float | tuple:
    """0.3, or 0.8,1.2; brackets as in Python are allowed."""
    parts = text.strip("[]() ").split(",")
    return _parse_number(parts[0]) if len(parts) == 1 else tuple(_parse_number(part) for part in parts)


def _parse_pair(text: str) -> tuple | None:
    if text.lower() == "none":
        return None
    numbers = _parse_numbers(text)
    if not isinstance(numbers, tuple):
        raise ValueError(text)
    return numbers


def parse_bool(text: str) -> bool:
    """True for "true" and "1", False for "false" and "0", in any case. Raises ValueError."""
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


def _check_number(name: str, value: Any, parameter: Parameter) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not parameter.low <= value <= parameter.high:
        raise ValueError(f"{name}={value!r}: must be a number{_limits(parameter)}")
    if not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: must be finite")


def _check_integer(name: str, value: Any, parameter: Parameter) -> None:
    integer = isinstance(value, int) and not isinstance(value, bool)
    if not integer or not parameter.low <= value <= parameter.high:
        raise ValueError(f"{name}={value!r}: must be a whole number{_limits(parameter)}")


def _check_bool(name: str, value: Any, parameter: Parameter) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: must be True or False")


def _check_choice(name: str, value: Any, parameter: Parameter) -> None:
    if value not in parameter.choices:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(parameter.choices)}")


def _check_pair(name: str, value: Any, parameter: Parameter) -> None:
    if not isinstance(value, tuple) or len(value) != 2:
        raise ValueError(f"{name}={value!r}: must be two numbers (lowest, highest)")
    for number in value:
        _check_number(name, number, parameter)
    if value[0] > value[1]:
        raise ValueError(f"{name}={value!r}: the lowest comes first")


def _check_optional_pair(name: str, value: Any, parameter: Parameter) -> None:
    if value is not None:
        _check_pair(name, value, parameter)


def _check_zoom(name: str, value: Any, parameter: Parameter) -> None:
    factors = zoom_factors(value)
    _check_pair(name, factors, parameter)
    if factors[0] == 0:
        raise ValueError(f"{name}={value!r}: the lowest factor must be above 0")


def _check_shift(name: str, value: Any, parameter: Parameter) -> None:
    if isinstance(value, tuple) and value:
        for number in value:
            _check_number(name, number, dataclasses.replace(parameter, low=-math.inf))
    else:
        _check_number(name, value, parameter)


def _check_zero_or_number(name: str, value: Any, parameter: Parameter) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (value == 0 or parameter.low <= value <= parameter.high):
        raise ValueError(f"{name}={value!r}: must be 0 (off) or a number{_limits(parameter)}")


def _limits(parameter: Parameter) -> str:
    """ " from 0 to 90", " from 0 upwards", or nothing where any number will do."""
    if parameter.low == -math.inf:
        return ""
    upper = "upwards" if parameter.high == math.inf else f"to {parameter.high}"
    return f" from {parameter.low} {upper}"


INTEGER = Kind("a whole number", int, _check_integer)
NUMBER = Kind("a number", _parse_number, _check_number)
ZERO_OR_NUMBER = Kind("a number", _parse_number, _check_zero_or_number)
SHIFT = Kind("a number, or several like 0.8,1.2", _parse_numbers, _check_shift)
ZOOM = Kind("a number, or several like 0.8,1.2", _parse_numbers, _check_zoom)
OPTIONAL_PAIR = Kind("two numbers like 0.5,1.5, or none", _parse_pair, _check_optional_pair)
BOOL = Kind("true or false", parse_bool, _check_bool)
CHOICE = Kind("a word", str, _check_choice)
