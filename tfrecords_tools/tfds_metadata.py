"""TFDS's view of a data folder: dataset_info.json, features.json and a `.labels.txt` per axis.

With them `tfds.builder_from_directory(SHARDS)` reads the folder with no code of ours. Written
through TFDS itself, which does not import TensorFlow for it.
"""

import pathlib
import tempfile

import numpy as np

from tfrecords_tools import planning
from tfrecords_tools.manifest import Manifest


def files(whole: Manifest) -> dict[str, bytes]:
    """The metadata files of a manifest's folder, by name."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, splits, utils

    with tempfile.TemporaryDirectory() as folder:
        identity = dataset_info.DatasetIdentity(
            name=whole.name,
            version=utils.Version(f"1.0.{max(0, len(whole.generations) - 1)}"),
            data_dir=folder,
            module_name="",
        )
        info = dataset_info.DatasetInfo(builder=identity, features=_features(tfds, whole))
        info.set_file_format(tfds.core.FileFormat.TFRECORD)
        template = tfds.core.ShardedFileTemplate(
            dataset_name=whole.name, data_dir=folder, filetype_suffix="tfrecord"
        )
        info.set_splits(
            splits.SplitDict(
                [
                    tfds.core.SplitInfo(
                        name=name,
                        shard_lengths=[shard.records for shard in split.shards],
                        num_bytes=sum(shard.bytes for shard in split.shards),
                        filename_template=template,
                    )
                    for name, split in whole.splits.items()
                ]
            )
        )
        info.write_to_directory(folder)
        return {file.name: file.read_bytes() for file in sorted(pathlib.Path(folder).iterdir())}


def aliases(whole: Manifest) -> dict[str, str]:
    """Further names of shards, name -> shard, by which TFDS finds them after something was appended.

    TFDS derives all names of a split from the number of its shards, `-of-00010`; shards that were
    written when there were 8 keep their names and get these beside them.
    """
    names = {}
    for name, split in whole.splits.items():
        for index, part in enumerate(split.shards):
            alias = planning.shard_name(whole.name, name, index, len(split.shards))
            if alias != part.file:
                names[alias] = part.file
    return names


def _features(tfds, whole: Manifest):
    side = whole.options.get("image_size")
    if set(whole.encodings) == {"raw"}:
        image = tfds.features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes")
    else:
        image = tfds.features.Image(shape=(side or None, side or None, 3))
    labels = {axis: tfds.features.ClassLabel(names=names) for axis, names in whole.axes.items()}
    return tfds.features.FeaturesDict({"image": image, "key": tfds.features.Text(), **labels})
