"""The errors that a user sees: bad data, or a wrong call."""


class DataError(RuntimeError):
    """The data or the run is bad (exit code 1). The message says what, where, the rule and the remedy."""


class UsageError(ValueError):
    """A function or a command was called wrongly (exit code 2). It names the argument and the rule."""
