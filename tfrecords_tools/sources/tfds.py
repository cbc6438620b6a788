"""Data sets of TensorFlow Datasets: any builder with one image and at least one class label.

TFDS prepares the data set where it is not on the disk, and reads it, whatever its file format. The encoded
images are taken as they are stored. Its files are read in order, so the images go through a spool.
"""

import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfrecords_tools import cli
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format.folder import FolderEntry
from tfrecords_tools.images.image import MAX_FILE_BYTES
from tfrecords_tools.sources import labelled
from tfrecords_tools.sources.labelled import KEY, SPLIT
from tfrecords_tools.sources.spool import Spool

_NAME_FEATURES = ("image/filename", "filename", "file_name")
_NAME = re.compile(
    r"(?P<name>.+?)(?P<version>:[\d*]+\.[\d*]+\.[\d*]+)?(:(?P<split>[A-Za-z_]\w*(\[[^\]]*\])?))?"
)


class Tfds(labelled.Labelled):
    """A `Source`: the examples of a data set."""

    _spool: Spool

    def __init__(self, name: str, columns: Mapping[str, str], spool_folder: str | None):
        """Finds the builder, and has it prepare the data set where that was not done.

        Args:
          name: NAME, NAME/CONFIG or NAME:VERSION of a builder, or the folder of a prepared data set; with
            `:SPLIT` for one of its splits, which may be a slice such as `train[:10%]`.
          columns: axis -> feature; empty for all class labels.
          spool_folder: see `Spool`.
        """
        self.root = f"tfds:{name}"
        matched = _NAME.fullmatch(name)
        if matched is None:
            raise UsageError(
                f"--input=tfds:{name}: must be tfds:NAME or tfds:NAME:SPLIT, such as tfds:mnist:train"
            )
        self._builder: Any = _prepared(self.root, matched["name"] + (matched["version"] or ""))
        info = self._builder.info
        self._splits = [matched["split"]] if matched["split"] else sorted(info.splits)
        for split in self._splits:
            if split.partition("[")[0] not in info.splits:
                raise DataError(f"{self.root}: no split {split!r}; it has {', '.join(sorted(info.splits))}")
        self._image = _image_feature(self.root, info.features)
        columns, self._split = labelled.without_split(columns)
        self._columns = columns or _label_features(
            {name: feature for name, feature in info.features.items() if name != self._split}
        )
        for axis, feature in (*self._columns.items(), *[(SPLIT, self._split)] * (self._split is not None)):
            if feature not in info.features:
                raise DataError(
                    f"{self.root}: no feature {feature!r} for {axis}; it has {', '.join(info.features)}"
                )
        if not self._columns:
            raise DataError(
                f"{self.root}: no class label among its features {', '.join(info.features)}; name one with "
                "--label_columns=category=FEATURE"
            )
        self.axes = labelled.ordered(tuple(self._columns))
        self.class_names = {
            axis: tuple(info.features[feature].names)
            for axis, feature in self._columns.items()
            if getattr(info.features[feature], "names", None)
        }
        sizes = {split: [part.num_bytes, part.shard_lengths] for split, part in info.splits.items()}
        place = str(self._builder.data_dir)
        identity = [info.full_name, place, sizes, self._splits, self._columns, self._split]
        self._spool = Spool(spool_folder, identity)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_builder"}

    def walk(self) -> Iterator[FolderEntry]:
        """The image of each example, and why it cannot be one."""
        return self._spool.entries(self._entries)

    def _entries(self, keep: Callable[[bytes], int]) -> Iterator[FolderEntry]:
        keys = labelled.Keys()
        for split in self._splits:
            for example in self._examples(split):
                yield self._entry(example, split.partition("[")[0], keys, keep)

    def _examples(self, split: str) -> Iterator[dict[str, Any]]:
        import tensorflow_datasets as tfds

        features = self._builder.info.features
        others = [name for name in (KEY, self._split, *_NAME_FEATURES) if name in features]
        wanted = dict.fromkeys((self._image, *self._columns.values(), *others), True)
        decoders = tfds.decode.PartialDecoding(wanted, decoders={self._image: tfds.decode.SkipDecoding()})
        config = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1, try_autocache=False)
        try:
            examples = self._builder.as_dataset(
                split=split, decoders=decoders, shuffle_files=False, read_config=config
            )
            yield from examples.as_numpy_iterator()
        except Exception as error:  # TFDS and TensorFlow have exceptions of their own
            raise DataError(f"{self.root}: split {split}: {_one_line(error)}") from error

    def _entry(
        self, example: dict[str, Any], split: str, keys: labelled.Keys, keep: Callable[[bytes], int]
    ) -> FolderEntry:
        data, problem = example[self._image], ""
        values = {SPLIT: split}
        try:
            if self._split:
                names = getattr(self._builder.info.features[self._split], "names", None) or ()
                values[SPLIT] = labelled.named_split(_plain(example[self._split]), self._split, names)
            for axis in self.axes:
                value = _plain(example[self._columns[axis]])
                label = labelled.label_name(value, self.class_names.get(axis, ()))
                if label is not None:
                    values[axis] = label
        except (ValueError, TypeError) as error:
            problem = str(error)
        # "mnist-train.tfrecord-00000-of-00001__12": the file, and the number of the example in it
        shard, _, number = example["tfds_id"].decode().rpartition("__")
        name = next((example[feature].decode() for feature in _NAME_FEATURES if feature in example), "")
        position = f"{shard.rpartition('.')[2]}-{int(number):06d}"
        key = keys.own(example.get(KEY)) or keys.key(values, name, position, data)
        if not problem and len(data) > MAX_FILE_BYTES:
            problem = f"{len(data):,} bytes: over the limit of {MAX_FILE_BYTES:,} bytes"
        return FolderEntry(key, len(data), problem, 0 if problem else keep(data), values)


def _plain(value: Any) -> str | int:
    return value.decode() if isinstance(value, bytes) else int(value)


def _prepared(root: str, name: str) -> Any:
    """A builder whose data is on the disk."""
    cli.quiet_tensorflow()  # its start-up messages would come later
    import tensorflow_datasets as tfds

    for name_of_logger in ("absl", "tensorflow"):  # TFDS' remarks on its own deprecated calls
        logging.getLogger(name_of_logger).setLevel(logging.ERROR)

    try:
        if os.path.isdir(name):  # noqa: PTH112, a Path of "" is the current directory
            if not pathlib.Path(name, "dataset_info.json").is_file():
                raise DataError(
                    f"{root}: no dataset_info.json in this folder; name the folder of one version, such as "
                    f"{name.rstrip('/')}/1.0.0"
                )
            return tfds.builder_from_directory(name)
        builder = tfds.builder(name)
        builder.download_and_prepare()
        return builder
    except DataError:
        raise
    except Exception as error:  # TFDS has exceptions of its own, and downloads raise what they like
        raise DataError(
            f"{root}: TensorFlow Datasets cannot give it: {_one_line(error)}; it looks for data sets in "
            "TFDS_DATA_DIR, by default ~/tensorflow_datasets"
        ) from error


def _image_feature(root: str, features: Mapping[str, Any]) -> str:
    import tensorflow_datasets as tfds

    names = [name for name in features if isinstance(features[name], tfds.features.Image)]
    if "image" in names:
        return "image"
    if len(names) != 1:
        has = f"several ({', '.join(names)})" if names else f"none, only {', '.join(features)}"
        raise DataError(f"{root}: must have one feature of an encoded image, but has {has}")
    return names[0]


def _label_features(features: Mapping[str, Any]) -> dict[str, str]:
    """Axis -> feature: all class labels."""
    import tensorflow_datasets as tfds

    columns: dict[str, str] = {}
    for name in features:
        if isinstance(features[name], tfds.features.ClassLabel) and name != SPLIT:
            columns.setdefault(labelled.axis_of(name, features[name].names), name)
    return columns


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).partition(" Available datasets:")[0]  # which has hundreds of names
    return text[:500] or type(error).__name__
