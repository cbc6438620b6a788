"""A training or validation step in the form that Keras' fit and evaluate call: iterator -> results."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from deepduel.networks.compiled import compiled
from deepduel.training.progress import Progress
from deepduel.training.team import Team, whole


class CompiledStep:
    """Takes the next batch outside the graph, where a clock sees the wait, and runs the step on it compiled.

    The step is traced once per batch signature and set of tasks, so that batches of one size and the smaller
    last one share a trace, and a task that stops is traced out.
    """

    def __init__(
        self,
        step: Callable,
        task_names: Callable[[], tuple[str, ...]],
        progress: Progress,
        team: Team | None = None,
    ):
        """Args:
        step: batch -> results.
        task_names: gives the names of the tasks that the step computes at the moment.
        progress: whose `input_seconds` and `latest_records` are kept up to date.
        team: adds to its part of a batch what is known of all rows.
        """
        self._step = step
        self._task_names = task_names
        self._progress = progress
        self._team = team or Team()
        self._compiled: dict[tuple, Callable] = {}

    def __call__(self, iterator: Iterator) -> Any:
        started = time.perf_counter()
        batch = next(iterator)
        self._progress.input_seconds += time.perf_counter() - started
        batch = self._team.with_whole_batch(batch)
        self._progress.latest_records = whole(batch)["records"]
        spec = iterator.element_spec  # type: ignore[attr-defined]  # tf.data's iterators have it
        spec = self._team.spec_with_whole_batch(spec)
        key = *self._task_names(), *tf.nest.flatten(spec)
        if key not in self._compiled:
            self._compiled[key] = compiled(self._step, spec)
        return self._compiled[key](batch)
