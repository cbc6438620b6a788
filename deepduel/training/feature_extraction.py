"""Images -> features of frozen extractors, chunk by chunk of record numbers."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from deepduel.decoding.image import libraries
from deepduel.decoding.split import Split
from deepduel.networks.compiled import compiled
from deepduel.reading import batch_plan, random_reader
from deepduel.reading.options import ReadOptions
from deepduel.training import feature_store, step
from deepduel.training.feature_store import Source
from deepduel.training.passes import Passes, Tensors
from deepduel.training.task import Task


class Extraction:
    """Computes the features of one split's images for each task."""

    def __init__(
        self,
        split: Split,
        reading: ReadOptions,
        tasks: tuple[Task, ...],
        *,
        micro_batch: int,
        passes: Passes,
        seed: int,
        augmented: bool,
    ):
        """Args:
        split, reading: the images.
        tasks: tasks with frozen backbones.
        micro_batch: images per pass through the extractors.
        passes: runs the extractors.
        seed: of the augmentation.
        augmented: whether to augment as in training.
        """
        self._split = split
        self._reading = reading
        self._tasks = tasks
        self._micro_batch = micro_batch
        self._passes = passes
        self._seed = seed
        self._augmented = augmented

    def rows(self, chunk: int) -> int:
        """Number of images in a chunk; only the last one of the split can be smaller than the others."""
        return min(feature_store.CHUNK, len(self._split) - chunk * feature_store.CHUNK)

    def view(self, view: int, chunks: np.ndarray) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Computes chunks of one view, which shows what epoch `view` would.

        Args:
          view: number of the view, from 0.
          chunks: int64 [M], numbers of chunks.

        Yields:
          (number of the chunk, {task: float32 [rows, …]}); rows of NaN for records that cannot be decoded.
        """
        size = feature_store.CHUNK
        records = (chunks[:, None] * size + np.arange(size)).ravel()
        records = records[records < len(self._split)]
        # Each chunk is a batch.
        plan = batch_plan.FixedPlan(records, self._reading, rows=size, seed=self._seed, epoch=view)
        reading = dataclasses.replace(self._reading, batch_size=size)
        batches = random_reader.listed(self._split, reading, plan, random_crops=self._augmented)
        extract = compiled(self._extract, *(batches.element_spec[name] for name in ("images", "seeds")))
        for chunk, batch in zip(chunks.tolist(), batches, strict=True):
            rows, weight = self.rows(chunk), batch["weight"].numpy()
            values = {}
            for task, features in extract(batch["images"], batch["seeds"]).items():
                values[task] = features.numpy().astype(np.float32)[:rows]
                values[task][weight[:rows] == 0] = np.nan
            yield chunk, values

    def source(self, task: Task, views: int) -> Source:
        """Everything that the features of a task depend on."""
        architecture = task.model.architecture
        about = {
            "data": [[shard.records, shard.sha256[""]] for shard in self._split.shards],
            "decoding": dataclasses.asdict(self._reading.decoding(self._split)),
            **libraries(),
            "on_error": self._reading.on_error,
            "backbone": architecture.backbone,
            "input_filter": architecture.input_filter,
            "stem_stride": architecture.stem_stride,
            "pooling": architecture.head.partition(",")[0],
            "image_size": architecture.image_size,
            "precision": architecture.precision,
            "weights": _digest(task),
            "augmentation": dataclasses.asdict(task.augmentation) if self._augmented else None,
            "crop_size": task.augmentation.crop_size,
            "seed": self._seed if self._augmented else None,
        }  # fmt: skip
        about = json.loads(json.dumps(about))  # tuples as lists, as it is read back
        shape = tuple(task.model.extractor.output.shape[1:])
        return Source(task.name, self._split.name, len(self._split), shape, views, about)

    def _extract(self, images: tf.Tensor, seeds: tf.Tensor) -> Tensors:
        return step.extract(
            self._tasks,
            images,
            seeds,
            augmented=self._augmented,
            micro_batch=self._micro_batch,
            passes=self._passes,
        )


def _digest(task: Task) -> str:
    """SHA-256 of the extractor's weights."""
    digest = hashlib.sha256()
    for variable in task.model.extractor.variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()
