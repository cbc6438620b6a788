"""How often an epoch takes each record: all once, every class alike, or in shares of your choice.

    uniform                             every record once
    balanced                            every combination of labels alike
    balanced:AXIS                       every label of AXIS alike
    weighted:AXIS:NAME=2,OTHER=1        the labels of AXIS in these shares

An epoch always has as many draws as the split has records. A class takes its share of them by
going round its own records: no record is drawn n + 2 times while another of its class is drawn
n times. Which of them get the odd draw is decided anew in each epoch, as a pure function of
(seed, epoch).
"""

import dataclasses
import math

import numpy as np

from deepduel.decoding.split import Split
from deepduel.reading import order
from tfrecords_tools.errors import UsageError

_FORMS = "uniform, balanced, balanced:AXIS or weighted:AXIS:NAME=SHARE,NAME=SHARE"


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Attributes:
    kind: "uniform", "balanced" or "weighted".
    axis: the label axis; None for all of them together.
    shares: {label name: share of the draws, above 0}, of "weighted".
    """

    kind: str = "uniform"
    axis: str | None = None
    shares: dict[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Sampling":
        """Raises UsageError when the text is none of the forms above."""
        kind, _, rest = text.partition(":")
        axis, _, shares = rest.partition(":")
        if text in ("uniform", "balanced"):
            return cls(text)
        if kind == "balanced" and axis and not shares:
            return cls(kind, axis)
        if kind == "weighted" and axis and shares:
            return cls(kind, axis, dict(_share(entry, text) for entry in shares.split(",")))
        raise UsageError(f"sampling must be {_FORMS}, got {text!r}")

    def classes(self, split: Split) -> "Classes | None":
        """The classes from which an epoch of `split` is drawn; None when it takes every record once.

        Raises:
          UsageError: the axis or a label is unknown, a label of the split has no share, or
            no record has a label.
        """
        if self.kind == "uniform":
            return None
        axes = list(split.labels) if self.axis is None else [self.axis]
        for axis in axes:
            if axis not in split.labels:
                known = ", ".join(split.labels) or "none"
                raise UsageError(f"sampling: {split.data_dir} has no label axis {axis!r}; it has {known}")
        labels = np.stack([split.labels[axis] for axis in axes], 1) if axes else np.empty((len(split), 0))
        labelled = np.flatnonzero((labels >= 0).all(1)) if axes else np.empty(0, np.int64)
        if not len(labelled):
            raise UsageError(f"sampling: no record of split {split.name!r} has a label to balance by")
        classes, class_of = np.unique(labels[labelled], axis=0, return_inverse=True)
        members = tuple(labelled[class_of.ravel() == number] for number in range(len(classes)))
        if not self.shares:
            return Classes(members, (1.0,) * len(classes))
        return Classes(members, self._shares_of(split, classes[:, 0]))

    def _shares_of(self, split: Split, labels: np.ndarray) -> tuple[float, ...]:
        names = split.manifest.axes[str(self.axis)]
        for name in self.shares:
            if name not in names:
                raise UsageError(f"sampling: {self.axis!r} has no label {name!r}; it has {', '.join(names)}")
        missing = [names[label] for label in labels if names[label] not in self.shares]
        if missing:
            raise UsageError(f"sampling: no share for {', '.join(missing)} of {self.axis!r}; add NAME=SHARE")
        return tuple(self.shares[names[label]] for label in labels)


@dataclasses.dataclass(frozen=True)
class Classes:
    """Attributes:
    members: record numbers of each class, rising, none empty.
    shares: of the draws, above 0; only their ratios count.
    """

    members: tuple[np.ndarray, ...]
    shares: tuple[float, ...]

    def epoch(self, draws: int, *, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """One epoch: record numbers [draws] int64, and how often each was drawn before in it."""
        records, repeats = [], []
        for number, (members, count) in enumerate(zip(self.members, self.quotas(draws), strict=True)):
            rounds, rest = divmod(count, len(members))
            # Counters of their own: permutation() has counter 0.
            keys = np.random.Philox(key=[seed, epoch], counter=[0, 0, number + 1, 0]).random_raw(len(members))
            records += [np.tile(members, rounds), members[np.argsort(keys, kind="stable")[:rest]]]
            repeats += [np.repeat(np.arange(rounds), len(members)), np.full(rest, rounds)]
        mixed = order.permutation(draws, seed=seed, epoch=epoch)
        return np.concatenate(records)[mixed], np.concatenate(repeats)[mixed]

    def quotas(self, draws: int) -> list[int]:
        """Draws per class, together `draws`, by largest remainder."""
        total = math.fsum(self.shares)
        exact = [draws * share / total for share in self.shares]
        quotas = [math.floor(part) for part in exact]
        by_remainder = sorted(range(len(exact)), key=lambda number: (quotas[number] - exact[number], number))
        for number in by_remainder[: draws - sum(quotas)]:
            quotas[number] += 1
        return quotas


def _share(entry: str, text: str) -> tuple[str, float]:
    name, _, number = entry.rpartition("=")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not name or not 0 < share < math.inf:
        raise UsageError(f"sampling: {entry!r} in {text!r} must be NAME=SHARE with a number above 0")
    return name, share
