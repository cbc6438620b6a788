"""TFDS's view of a data folder: dataset_info.json, features.json and a `.labels.txt` per axis.

With them `tfds.builder_from_directory(SHARDS)` reads the folder with no code of ours. Written
through TFDS itself, which does not import TensorFlow for it.
"""

import pathlib
import tempfile

import numpy as np

from tfrecords_tools.manifest import Manifest


def write(whole: Manifest, target) -> None:
    """Publishes the metadata files of a manifest's folder.

    Args:
      whole: the manifest.
      target: the folder, see `storage`.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, splits, utils

    with tempfile.TemporaryDirectory() as folder:
        identity = dataset_info.DatasetIdentity(
            name=whole.name, version=utils.Version("1.0.0"), data_dir=folder, module_name=""
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
        for file in sorted(pathlib.Path(folder).iterdir()):
            target.write(file.name, file.read_bytes())


def _features(tfds, whole: Manifest):
    side = whole.options.get("image_size")
    if set(whole.encodings) == {"raw"}:
        image = tfds.features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes")
    else:
        image = tfds.features.Image(shape=(side or None, side or None, 3))
    labels = {axis: tfds.features.ClassLabel(names=names) for axis, names in whole.axes.items()}
    return tfds.features.FeaturesDict({"image": image, "key": tfds.features.Text(), **labels})
