"""The errors that a user sees: bad data, a wrong call, or another process that is missing."""


class DataError(RuntimeError):
    """The data or the run is bad (exit code 1). The message says what, where, the rule and the remedy."""


class UsageError(ValueError):
    """A function or a command was called wrongly (exit code 2). It names the argument and the rule."""


class PeerError(RuntimeError):
    """Another process of a distributed training is missing (exit code 3). The message names it."""
