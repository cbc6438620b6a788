"""Epochs without images: every image goes through the frozen extractors once, its features are kept.

K augmented views of every training image and one plain view of every validation image are made before the
first step (see `feature_store` for where they lie); then a batch is a gather from a memory map, with the
same records in the same order as a batch of images. View v shows what epoch v would have shown, so the
first K epochs are those on images, but for the features' rounding to float16; epoch K + v shows view v again.
"""

import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable

import numpy as np
import simplejpeg
import tensorflow as tf

from deepduel.decoding import bad_records
from deepduel.decoding.split import Split
from deepduel.reading import batch_groups, batch_plan, order, random_reader
from deepduel.reading.batch import options
from deepduel.reading.options import ReadOptions
from deepduel.training import step
from deepduel.training.feature_store import CHUNK, FeatureStore, Source
from deepduel.training.task import Task
from tfrecords_tools.format import records as record_format
from tfrecords_tools.progress import Progress


class Features:
    """The features of one split's images for each task.

    Attributes:
      seconds: that making what was missing took.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        split: Split,
        reading: ReadOptions,
        tasks: tuple[Task, ...],
        *,
        micro_batch: int,
        seed: int,
        views: int = 0,
    ):
        """Opens the stores, and checks what is in them.

        Args:
          views: augmented views of each image; 0 for a single plain one.

        Raises:
          DataError: there is no room.
        """
        self._split = split
        self._reading = reading
        self._tasks = tasks
        self._micro_batch = micro_batch
        self._seed = seed
        self._views = max(views, 1)
        self._augmented = views > 0
        self.stores = {task.name: FeatureStore(folder, self._source(task, views)) for task in tasks}
        self.seconds = 0.0

    def make(self, between: Callable[[], None] = lambda: None) -> None:
        """Makes what is missing, and says so. `between` is called after each chunk and may raise."""
        damaged = sum(store.damaged for store in self.stores.values())
        if damaged:
            print(f"{damaged} damaged chunks of features are made again")
        missing = {view: self._missing(view) for view in range(self._views)}
        total = sum(self._rows(view, chunks) for view, chunks in missing.items())
        started = time.perf_counter()
        if total:
            bar = Progress(f"features of {self._split.name}", total=total)
            done = 0
            for view, chunks in missing.items():
                for rows in self._make_view(view, chunks):
                    done += rows
                    bar.update(done)
                    between()
            bar.close()
        self.seconds = time.perf_counter() - started
        for store in self.stores.values():
            store.built()
        for record in next(iter(self.stores.values())).undecodable().tolist():
            self._split.bad.setdefault(record, "did not decode when its features were made")

    def train_batches(self, position: order.Position) -> tf.data.Dataset:
        """As `pipeline.train_batches`, with {"features": {task: float16 [B, …]}} for the images."""
        training = batch_plan.ShuffledPlan(self._split, self._reading, position.seed)
        return self._batches(training.numbers(position), training, rows=None)

    def eval_batches(self) -> tf.data.Dataset:
        """As `pipeline.eval_batches`."""
        rows = min(self._reading.batch_size, len(self._split))
        listed = batch_plan.FixedPlan(np.arange(len(self._split)), self._reading, rows=rows)
        return self._batches(listed.numbers(), listed, rows=rows)

    def _batches(
        self, numbers: batch_groups.BatchRange, plan: Callable, *, rows: int | None
    ) -> tf.data.Dataset:
        split, stores = self._split, self.stores
        axes = split.manifest.axes

        def load(numbers: list[int]):
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

        def arrange(seeds, records, weight, *parts):
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
            here = np.flatnonzero(views == view)
            out[here] = store.read(view, records[here])
        return np.nan_to_num(out, copy=False)  # rows that do not decode; their weight is 0

    def _missing(self, view: int) -> np.ndarray:
        return np.unique(np.concatenate([store.missing(view) for store in self.stores.values()]))

    def _rows(self, view: int, chunks: np.ndarray) -> int:
        return int(np.minimum(CHUNK, len(self._split) - chunks * CHUNK).sum())

    def _make_view(self, view: int, chunks: np.ndarray):
        """Makes chunks of one view; yields the rows of each."""
        records = (chunks[:, None] * CHUNK + np.arange(CHUNK)).ravel()
        records = records[records < len(self._split)]
        # A chunk is a batch: only the last of all can be smaller, and it is the last of the records.
        listed = batch_plan.FixedPlan(records, self._reading, rows=CHUNK, seed=self._seed, epoch=view)
        reading = dataclasses.replace(self._reading, batch_size=CHUNK)
        batches = random_reader.listed(self._split, reading, listed, random_crops=self._augmented)
        extract = self._extractor()
        for chunk, batch in zip(chunks.tolist(), batches, strict=True):
            weight = batch["weight"].numpy()
            rows = min(CHUNK, len(self._split) - chunk * CHUNK)
            for task, features in extract(batch["images"], batch["seeds"]).items():
                values = features.numpy().astype(np.float32)[:rows]
                values[weight[:rows] == 0] = np.nan
                self.stores[task].write(view, chunk, values)
            yield rows

    def _extractor(self) -> Callable:
        @tf.function(autograph=False, reduce_retracing=True)
        def extract(images, seeds):
            return step.extract(
                self._tasks, images, seeds, augmented=self._augmented, micro_batch=self._micro_batch
            )

        return extract

    def _source(self, task: Task, views: int) -> Source:
        architecture = task.model.architecture
        about = {
            "data": [[shard.records, shard.sha256[""]] for shard in self._split.shards],
            "decoding": dataclasses.asdict(self._reading.decoding(self._split)),
            "decoder": simplejpeg.__version__,
            "on_error": self._reading.on_error,
            "backbone": architecture.backbone,
            "input_filter": architecture.input_filter,
            "stem_stride": architecture.stem_stride,
            "pooling": architecture.head.partition(",")[0],
            "image_size": architecture.image_size,
            "precision": architecture.precision,
            "weights": _digest(task),
            "augmentation": dataclasses.asdict(task.augmentation) if views else None,
            "crop_size": task.augmentation.crop_size,
            "seed": self._seed if views else None,
        }  # fmt: skip
        about = json.loads(json.dumps(about))  # tuples as lists, as it is read back
        shape = tuple(task.model.extractor.output.shape[1:])
        return Source(task.name, self._split.name, len(self._split), shape, max(views, 1), about)


def _digest(task: Task) -> str:
    """SHA-256 of the extractor's weights."""
    digest = hashlib.sha256()
    for variable in task.model.extractor.variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()
