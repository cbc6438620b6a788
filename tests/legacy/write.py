"""Writes what this version leaves on disk, for later ones: `python -m tests.legacy.write FOLDER`.

`tests/legacy/v0_1` was written by it with version 0.1.0 and the oldest supported packages
(constraints-oldest.txt), since a later Keras reads what an earlier one wrote:

    shards/            24 toy images of 16 pixels, two splits
    run/               one finished epoch on them, of a network of a few hundred weights
    random_warp.keras  a model with a `RandomWarp` in it
"""

import os
import pathlib
import shutil
import subprocess
import sys

TRAINING = (
    "--tasks=category",
    "--backbone=small_cnn",
    "--head=avg",
    "--image_size=8",
    "--augmentation=original",
    "--batch_size=8",
    "--epochs=1",
)


def main(folder: pathlib.Path) -> None:
    """Writes into a new folder; all paths in what is written are relative to it."""
    folder.mkdir(parents=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    os.chdir(folder)
    _run("deepduel.toy_images", "--output_dir=images", "--count=24", "--size=16")
    _run(
        "tfrecords_tools.convert",
        "--input_dir=images",
        "--output_dir=shards",
        "--num_shards=1",
        "--workers=1",
    )
    shutil.rmtree("images")
    train()
    shutil.rmtree(pathlib.Path("run", "tensorboard"))
    random_warp(pathlib.Path("random_warp.keras"))


def train() -> None:
    """Trains in this process, with the tests' tiny network in small_cnn's place."""
    from deepduel import train
    from tests.conftest import run_command
    from tests.helpers import tiny_network

    tiny_network.install()
    if run_command(train, "--data_dir=shards", "--workdir=run", *TRAINING) != 0:
        sys.exit(1)


def random_warp(path: pathlib.Path) -> None:
    """Saves a model that begins with a `RandomWarp`."""
    import keras

    from deepduel.augment import PRESETS, RandomWarp

    keras.utils.set_random_seed(0)
    keras.Sequential(
        [
            keras.Input((16, 16, 3), dtype="uint8"),
            RandomWarp(size=8, seed=3, augmentation=PRESETS["original"]),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    ).save(path)


def _run(module: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", module, *words], check=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).absolute())
