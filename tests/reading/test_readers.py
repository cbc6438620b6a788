"""Folders read by others: each reader's count, labels and pixels against the source files."""

import dataclasses
import importlib.util
import io
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.conftest import run_command
from tests.helpers import folders, odd_images
from tfrecords_tools import convert
from tfrecords_tools.format import manifest, tfds_metadata


@pytest.fixture(scope="module", params=["keep", "png", "raw"])
def data(request, tmp_path_factory):
    """(folder, {key: pixels}); some of the sources are no plain JPEG."""
    root = folders.duel(tmp_path_factory.mktemp("readers") / "images")
    odd = odd_images.reencoded() | odd_images.turned()
    for name in ("turned6_32x48_2.jpg", "turned6_31x45_2.jpg", "alpha.png", "cmyk.jpg", "deep.png"):
        (root / "train/real/cats" / name).write_bytes(odd[name][0])
    words = [f"--encoding={request.param}"] + (["--image_size=16"] if request.param == "raw" else [])
    output = root.parent / "shards"
    words += [f"--input_dir={root}", f"--output_dir={output}", "--workers=1", "--num_shards=2"]
    assert run_command(convert, *words) == 0
    from tfrecords_tools.images import image
    from tfrecords_tools.images.encoding_options import EncodingOptions

    options = EncodingOptions(request.param, 16 if request.param == "raw" else 0)
    expected = {}
    for path in root.rglob("*.*"):
        checked = image.check(path.read_bytes(), options)
        raw = request.param == "raw"
        pixels = (
            np.frombuffer(checked.data, np.uint8).reshape(16, 16, 3) if raw else image.decode(checked.data)
        )
        expected[path.relative_to(root).as_posix()] = pixels
    return output, expected


def require_same(actual: dict, data_dir: pathlib.Path, expected: dict) -> None:
    """found: key -> (authenticity, category, pixels). JPEG decoders may differ by a few levels."""
    assert set(actual) == set(expected)
    jpeg = "jpeg" in manifest.load(data_dir).encodings
    for key, (authenticity, category, pixels) in actual.items():
        parts = key.split("/")
        if parts[0] == "test":
            assert (authenticity, category) == (-1, -1)
        else:
            assert (authenticity, category) == (int(parts[1] == "fake"), int(parts[2] == "dogs"))
        assert pixels.shape == expected[key].shape
        error = np.abs(pixels.astype(int) - expected[key])
        assert error.mean() < 2 if jpeg else not error.any(), key


def test_tfds_reads_it(data):
    import tensorflow_datasets as tfds

    folder, expected = data
    builder = tfds.builder_from_directory(str(folder))
    stored_splits = manifest.load(folder).splits
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        name: split.records for name, split in stored_splits.items()
    }
    assert builder.info.features["authenticity"].names == ["real", "fake"]
    actual = {}
    for split in stored_splits:
        for example in tfds.as_numpy(builder.as_dataset(split=split)):
            actual[example["key"].decode()] = example["authenticity"], example["category"], example["image"]
    require_same(actual, folder, expected)


def written_by_tfds(whole: manifest.Manifest, folder: pathlib.Path) -> dict[str, bytes]:
    """The metadata of a manifest, as TFDS itself writes it."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, splits, utils

    side = whole.options["image_size"]
    image = tfds.features.Image(shape=(side or None, side or None, 3))
    if "raw" in whole.encodings:
        image = tfds.features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes")
    labels = {axis: tfds.features.ClassLabel(names=names) for axis, names in whole.axes.items()}
    features = tfds.features.FeaturesDict({"image": image, "key": tfds.features.Text(), **labels})
    identity = dataset_info.DatasetIdentity(
        name=whole.name, version=utils.Version("1.0.0"), data_dir=str(folder), module_name=""
    )
    info = dataset_info.DatasetInfo(builder=identity, features=features)
    info.set_file_format(tfds.core.FileFormat.TFRECORD)
    template = tfds.core.ShardedFileTemplate(
        dataset_name=whole.name, data_dir=str(folder), filetype_suffix="tfrecord"
    )
    infos = [
        tfds.core.SplitInfo(
            name=name, shard_lengths=[part.records for part in split.shards],
            num_bytes=sum(part.bytes for part in split.shards), filename_template=template,
        )
        for name, split in whole.splits.items()
    ]  # fmt: skip
    info.set_splits(splits.SplitDict(infos))
    info.write_to_directory(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_metadata_is_what_tfds_writes(data, tmp_path):
    whole = manifest.load(data[0])
    empty = manifest.Split((manifest.Shard("x", 0, 0, {}), manifest.Shard("y", 0, 0, {})), {})
    axes = whole.axes | {"umlaut": ("dögs", "猫")}
    for number, changed in enumerate((whole, dataclasses.replace(whole, splits={"train": empty}, axes=axes))):
        (tmp_path / str(number)).mkdir()
        assert tfds_metadata.files(changed) == written_by_tfds(changed, tmp_path / str(number))


def test_plain_tf_data_reads_it(data):
    import tensorflow as tf

    folder, expected = data
    schema = {"image": tf.io.FixedLenFeature([], tf.string), "key": tf.io.FixedLenFeature([], tf.string),
              "authenticity": tf.io.FixedLenFeature([], tf.int64),
              "category": tf.io.FixedLenFeature([], tf.int64)}  # fmt: skip
    files = sorted(str(path) for path in folder.glob("*.tfrecord-?????-of-?????"))
    raw = "raw" in manifest.load(folder).encodings
    actual = {}
    for record in tf.data.TFRecordDataset(files):
        example = tf.io.parse_single_example(record, schema)
        if raw:
            pixels = tf.reshape(tf.io.decode_raw(example["image"], tf.uint8), [16, 16, 3])
        else:
            pixels = tf.io.decode_image(example["image"], channels=3)
        actual[example["key"].numpy().decode()] = (
            int(example["authenticity"]), int(example["category"]), pixels.numpy(),
        )  # fmt: skip
    require_same(actual, folder, expected)


# In a process of its own: the package registers tf.train.Example a second time, beside TensorFlow's.
PYTORCH = """
import pathlib, pickle, sys
from tfrecord.reader import tfrecord_loader
kinds = {"image": "byte", "key": "byte", "authenticity": "int", "category": "int"}
found = []
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.tfrecord-?????-of-?????")):
    for example in tfrecord_loader(str(path), f"{path}.idx", kinds):
        labels = int(example["authenticity"][0]), int(example["category"][0])
        found.append((bytes(example["key"]).decode(), *labels, bytes(example["image"])))
sys.stdout.buffer.write(pickle.dumps(found))
"""


def test_the_tfrecord_package_for_pytorch_reads_it(data):
    if importlib.util.find_spec("tfrecord") is None:
        pytest.skip("the package tfrecord is not installed")
    folder, expected = data
    done = subprocess.run([sys.executable, "-c", PYTORCH, folder], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    raw, actual = "raw" in manifest.load(folder).encodings, {}
    for key, authenticity, category, encoded in pickle.loads(done.stdout):
        if raw:
            pixels = np.frombuffer(encoded, np.uint8).reshape(16, 16, 3)
        else:
            pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
        actual[key] = authenticity, category, pixels
    require_same(actual, folder, expected)


# Likewise: DALI may live in an environment of its own.
DALI = """
import pickle, sys
import numpy as np
import nvidia.dali as dali
import nvidia.dali.fn as fn
import nvidia.dali.tfrecord as tfrec
count, raw, files = int(sys.argv[1]), sys.argv[2] == "raw", sys.argv[3:]

@dali.pipeline_def(batch_size=1, num_threads=1, device_id=None)
def pipeline():
    features = {"image": tfrec.FixedLenFeature((), tfrec.string, ""),
                "key": tfrec.FixedLenFeature((), tfrec.string, ""),
                "authenticity": tfrec.FixedLenFeature([1], tfrec.int64, -9),
                "category": tfrec.FixedLenFeature([1], tfrec.int64, -9)}
    read = fn.readers.tfrecord(path=files, index_path=[file + ".idx" for file in files], features=features)
    if raw:
        pixels = fn.reshape(read["image"], shape=[16, 16, 3])
    else:
        pixels = fn.decoders.image(read["image"], device="cpu", output_type=dali.types.RGB)
    return read["key"], read["authenticity"], read["category"], pixels

pipe = pipeline()
pipe.build()
found = {}
for _ in range(count):
    key, authenticity, category, pixels = (np.array(output.at(0)) for output in pipe.run())
    found[key.tobytes().decode()] = int(authenticity[0]), int(category[0]), pixels
sys.stdout.buffer.write(pickle.dumps(found))
"""
DALI_PYTHON = os.environ.get("DEEPDUEL_DALI_PYTHON", sys.executable)


def test_dali_reads_it(data):
    has_dali = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
    if sys.executable == DALI_PYTHON and not has_dali:
        pytest.skip("nvidia-dali is not installed (DEEPDUEL_DALI_PYTHON can name a Python with it)")
    folder, expected = data
    raw = "raw" if "raw" in manifest.load(folder).encodings else "coded"
    files = sorted(str(path) for path in folder.glob("*.tfrecord-?????-of-?????"))
    done = subprocess.run(
        [DALI_PYTHON, "-c", DALI, str(len(expected)), raw, *files],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr.decode()
    require_same(pickle.loads(done.stdout), folder, expected)
