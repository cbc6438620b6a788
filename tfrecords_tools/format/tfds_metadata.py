"""TFDS's view of a data folder: dataset_info.json, features.json and a `.labels.txt` per axis.

With them `tfds.builder_from_directory(SHARDS)` reads the folder with no code of ours. They are the
very bytes that TFDS writes (a test compares them): importing TFDS takes longer than converting a
few thousand images, and leaves the converter without TensorFlow.
"""

import json

from tfrecords_tools.format.manifest import Manifest, shard_name

_HOME = "tensorflow_datasets.core.features"


def files(manifest: Manifest) -> dict[str, bytes]:
    """The metadata files of a manifest's folder, by name."""
    contents = {
        # Protocol buffer JSON for the one (default values left out), plain JSON for the other.
        "dataset_info.json": json.dumps(
            _info(manifest), indent=2, ensure_ascii=False, sort_keys=True
        ).encode(),
        "features.json": json.dumps(
            _features(manifest), indent=4, ensure_ascii=False, sort_keys=True
        ).encode(),
    }
    for axis, names in manifest.axes.items():
        contents[f"{axis}.labels.txt"] = ("\n".join(names) + "\n").encode("utf-8", "backslashreplace")
    return contents


def _info(manifest: Manifest) -> dict:
    splits = []
    for name, split in manifest.splits.items():
        size = sum(part.bytes for part in split.shards)
        splits.append(
            {"filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", "name": name}
            | ({"numBytes": str(size)} if size else {})
            | {"shardLengths": [str(part.records) for part in split.shards]}
        )
    version = f"1.0.{max(0, len(manifest.generations) - 1)}"
    return {"fileFormat": "tfrecord", "name": manifest.name, "splits": splits, "version": version}


def _features(manifest: Manifest) -> dict:
    side = manifest.options.get("image_size") or -1
    dimensions = {"dimensions": [str(side), str(side), "3"]}
    features = {"image": {"image": {"dtype": "uint8", "shape": dimensions}} | _class("image_feature.Image")}
    if set(manifest.encodings) == {"raw"}:
        tensor = {"dtype": "uint8", "encoding": "bytes", "shape": dimensions}
        features["image"] = {"tensor": tensor} | _class("tensor_feature.Tensor")
    features["key"] = {"text": {}} | _class("text_feature.Text")
    for axis, names in manifest.axes.items():
        label = {"numClasses": str(len(names))}
        features[axis] = {"classLabel": label} | _class("class_label_feature.ClassLabel")
    return {"featuresDict": {"features": features}} | _class("features_dict.FeaturesDict")


def _class(name: str) -> dict:
    return {"pythonClassName": f"{_HOME}.{name}"}


def aliases(manifest: Manifest) -> dict[str, str]:
    """Further names of shards, name -> shard, by which TFDS finds them after something was appended.

    TFDS derives all names of a split from the number of its shards, `-of-00010`; shards that were
    written when there were 8 keep their names and get these beside them.
    """
    names = {}
    for name, split in manifest.splits.items():
        for index, part in enumerate(split.shards):
            alias = shard_name(manifest.name, name, index, len(split.shards))
            if alias != part.file:
                names[alias] = part.file
    return names
