"""Epochs on stored features: every image passes through the frozen extractors once.

The features of K augmented views of every training image and of one plain view of every validation image are
computed before the first step (see `feature_store` for the files). Then a batch is a gather from a memory
map, with the same records in the same order as a batch of images. View v is what epoch v would have shown, so
the first K epochs equal those on images, up to the rounding of features to float16; epoch K + v shows view v
again.
"""

import math
import os
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deepduel.decoding import bad_records
from deepduel.decoding.split import Split
from deepduel.reading import batch_groups, batch_plan, order
from deepduel.reading.batch import options
from deepduel.reading.options import ReadOptions
from deepduel.training.feature_extraction import Extraction
from deepduel.training.feature_store import FeatureStore
from deepduel.training.passes import Passes
from deepduel.training.task import Task
from tfrecords_tools.format import records as record_format
from tfrecords_tools.progress import Progress


class Features:
    """The features of one split's images for each task.

    Attributes:
      stores: {task name: its store}.
      seconds: how long computing the missing features took.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        split: Split,
        reading: ReadOptions,
        tasks: tuple[Task, ...],
        *,
        micro_batch: int,
        passes: Passes,
        seed: int,
        views: int = 0,
    ):
        """Opens the stores, and verifies what is in them.

        Args:
          folder: where the stores are.
          split, reading: the images.
          tasks: tasks with frozen backbones.
          micro_batch: images per pass through the extractors.
          passes: runs the extractors.
          seed: of order and augmentation.
          views: augmented views of each image; 0 for a single plain one.

        Raises:
          DataError: there is no space on the disk.
        """
        self._split = split
        self._reading = reading
        self._views = max(views, 1)
        self._extraction = Extraction(
            split, reading, tasks, micro_batch=micro_batch, passes=passes, seed=seed, augmented=views > 0
        )
        self.stores = {
            task.name: FeatureStore(folder, self._extraction.source(task, self._views)) for task in tasks
        }
        self.seconds = 0.0

    def compute(self, after_chunk: Callable[[], None] = lambda: None) -> None:
        """Computes the features that are missing, with progress on the console.

        Args:
          after_chunk: called after each chunk; it may raise, and the next session continues from there.
        """
        damaged = sum(store.damaged for store in self.stores.values())
        if damaged:
            print(f"{damaged} damaged chunks of features are computed again")
        missing = {view: self._missing(view) for view in range(self._views)}
        total = sum(self._extraction.rows(chunk) for chunks in missing.values() for chunk in chunks.tolist())
        started = time.perf_counter()
        if total:
            bar = Progress(f"features of {self._split.name}", total=total)
            done = 0
            for view, chunks in missing.items():
                for chunk, features in self._extraction.view(view, chunks):
                    for name, store in self.stores.items():
                        store.write(view, chunk, features[name])
                    done += self._extraction.rows(chunk)
                    bar.update(done)
                    after_chunk()
            bar.close()
        self.seconds = time.perf_counter() - started
        for store in self.stores.values():
            store.release()
        for record in next(iter(self.stores.values())).undecodable().tolist():
            self._split.bad.setdefault(record, "could not be decoded when its features were computed")

    def train_batches(self, position: order.Position) -> tf.data.Dataset:
        """As `pipeline.train_batches`, with {"features": {task: float16 [B, …]}} instead of images."""
        plan = batch_plan.ShuffledPlan(self._split, self._reading, position.seed)
        return self._batches(plan.numbers(position), plan, rows=None)

    def eval_batches(self) -> tf.data.Dataset:
        """As `pipeline.eval_batches`, with features instead of images."""
        rows = min(self._reading.batch_size, len(self._split))
        plan = batch_plan.FixedPlan(np.arange(len(self._split)), self._reading, rows=rows)
        return self._batches(plan.numbers(), plan, rows=rows)

    def _batches(
        self, numbers: batch_groups.BatchRange, plan: Callable, *, rows: int | None
    ) -> tf.data.Dataset:
        """Batches of `rows` rows, the last one padded; None for batches of differing sizes."""
        split, stores = self._split, self.stores
        axes = split.manifest.axes

        def load(numbers: list[int]) -> tuple:
            records, seeds, rounds = plan(numbers)
            pad = rows * len(numbers) - len(records) if rows else 0
            gathered = [self._gather(store, rounds % self._views, records, pad) for store in stores.values()]
            labels = [np.pad(split.labels[axis][records], (0, pad)) for axis in axes]
            records = np.pad(records, (0, pad), constant_values=-1)
            weight = bad_records.weights(split, records)
            for column in labels:
                column[weight == 0] = record_format.NO_LABEL
            return np.pad(seeds, ((0, pad), (0, 0))), records, weight, *labels, *gathered

        specs = [
            tf.TensorSpec((rows, 2), tf.int32),
            tf.TensorSpec((rows,), tf.int64),
            tf.TensorSpec((rows,), tf.float32),
            *[tf.TensorSpec((rows,), tf.int32)] * len(axes),
            *[tf.TensorSpec((rows, *store.source.shape), tf.float16) for store in stores.values()],
        ]

        def arrange(seeds: tf.Tensor, records: tf.Tensor, weight: tf.Tensor, *parts: tf.Tensor) -> dict:
            return {
                "features": dict(zip(stores, parts[len(axes) :], strict=True)),
                "labels": dict(zip(axes, parts[: len(axes)], strict=True)),
                "seeds": seeds,
                "records": records,
                "weight": weight,
            }

        row_bytes = sum(2 * math.prod(store.source.shape) for store in stores.values())
        size = batch_groups.group_size((rows or self._reading.batch_size) * row_bytes)
        batches = batch_groups.batches(numbers, load, specs, arrange, size=size, parallel=2)
        return batches.with_options(options())

    def _gather(self, store: FeatureStore, views: np.ndarray, records: np.ndarray, pad: int) -> np.ndarray:
        out = np.zeros((len(records) + pad, *store.source.shape), np.float16)
        for view in np.unique(views).tolist():
            of_view = np.flatnonzero(views == view)
            out[of_view] = store.read(view, records[of_view])
        return np.nan_to_num(out, copy=False)  # records that cannot be decoded have weight 0

    def _missing(self, view: int) -> np.ndarray:
        """Chunks that any of the stores lacks."""
        return np.unique(np.concatenate([store.missing(view) for store in self.stores.values()]))
