"""Draws a folder of toy images, with which to try all commands without a data set.

    OUTPUT/train|validation/real|fake/animals|human_faces|vehicles/NAME.jpg
    OUTPUT/test/NAME.jpg          without labels
    OUTPUT/metadata.csv           image_path,label,class

The category is the shape: animals are blobs with legs, human faces ellipses
with eyes, vehicles boxes on wheels, each on a noisy gradient. A fake is drawn
at half size and upscaled with a checkerboard, the periodic artefact of
transposed convolutions. Sensor noise and JPEG quality have the same
distribution for both labels, so that file size and quality do not predict them.
"""

import csv
import pathlib
import re
import shutil
import sys

import numpy as np
from absl import flags
from PIL import Image, ImageDraw

from tfrecords_tools import cli, progress
from tfrecords_tools.atomic import written_beside
from tfrecords_tools.errors import DataError

CATEGORIES = ("animals", "human_faces", "vehicles")
LABELS = ("real", "fake")
CHECKERBOARD = 0.025, 0.045  # range of the amplitude of a fake's checkerboard, relative to the pixel
_NAMES = re.compile(  # of all files
    r"metadata\.csv|test/test_\d{5,}\.jpg|(train|validation)/(real|fake)/"
    r"(?P<category>animals|human_faces|vehicles)/(?P=category)_\d{5,}\.jpg"
)
NOISE = 5.0, 12.0  # range of the standard deviation of the noise, grey levels
QUALITY = 85, 97  # range of the JPEG quality

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "output_dir", None, "Folder for the images; an earlier one is replaced.", flag_values=FLAGS, required=True
)
flags.DEFINE_integer("count", 3000, "Number of images.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("size", 32, "Side length of the images in pixels.", lower_bound=16, flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0, flag_values=FLAGS)


def draw(category: str, fake: bool, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws one image, uint8 [size, size, 3]."""
    scene = _scene(category, size, rng)
    if fake:
        half = scene[::2, ::2]
        scene = np.repeat(np.repeat(half, 2, axis=0), 2, axis=1)[:size, :size]
        weights = 1 + rng.uniform(*CHECKERBOARD) * np.array([[1, -1], [-1, 1]])
        scene = scene * np.tile(weights, (size // 2 + 1, size // 2 + 1))[:size, :size, None]
    noise = rng.normal(0, rng.uniform(*NOISE), scene.shape)
    return np.clip(np.rint(scene + noise), 0, 255).astype(np.uint8)


def _scene(category: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """The image without noise, float [size, size, 3] 0..255, drawn at four times the size and downscaled."""
    big = 4 * size
    corners = Image.fromarray(rng.uniform(60, 200, (2, 2, 3)).astype(np.uint8))
    picture = corners.resize((big, big), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(picture)
    colour, detail = (
        tuple(int(v) for v in rng.integers(low, high, 3)) for low, high in ((150, 250), (0, 70))
    )
    unit = big * rng.uniform(0.55, 0.85)
    left, top = rng.uniform(0.05, 0.95, 2) * (big - unit)
    frame = lambda x0, y0, x1, y1: [left + x0 * unit, top + y0 * unit, left + x1 * unit, top + y1 * unit]
    if category == "animals":
        for leg in (0.1, 0.3, 0.6, 0.8):
            pen.rectangle(frame(leg, 0.6, leg + 0.08, 1.0), fill=colour)
        pen.ellipse(frame(0, 0.3, 0.9, 0.75), fill=colour)
        pen.ellipse(frame(0.7, 0.05, 1.0, 0.4), fill=colour)
    elif category == "human_faces":
        pen.ellipse(frame(0.12, 0, 0.88, 1), fill=colour)
        for eye in (0.3, 0.6):
            pen.ellipse(frame(eye, 0.3, eye + 0.12, 0.42), fill=detail)
        pen.arc(frame(0.32, 0.5, 0.68, 0.8), 20, 160, fill=detail, width=max(1, big // 48))
    else:
        pen.rectangle(frame(0, 0.3, 1, 0.75), fill=colour)
        pen.rectangle(frame(0.2, 0.05, 0.75, 0.3), fill=colour)
        for wheel in (0.12, 0.64):
            pen.ellipse(frame(wheel, 0.62, wheel + 0.26, 0.88), fill=detail)
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), float)


def write_folder(output_dir: pathlib.Path, *, count: int, size: int, seed: int) -> None:
    """Draws `count` images: 70 % train, 25 % validation, 5 % test, with all labels equally frequent."""
    with written_beside(output_dir) as partial:
        _draw_all(partial, count=count, size=size, seed=seed)
        if output_dir.exists():
            shutil.rmtree(output_dir)


def _draw_all(folder: pathlib.Path, *, count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    bar = progress.Progress("drawing", total=count)
    for number in range(count):
        bar.update(number)
        category, fake = CATEGORIES[number % 3], number // 3 % 2
        share = (number // 6 * 37 % 100) / 100  # stratified: the same shares for all labels
        split = "train" if share < 0.70 else "validation" if share < 0.95 else "test"
        if split == "test":
            path = pathlib.PurePosixPath(split, f"test_{number:05d}.jpg")
        else:
            path = pathlib.PurePosixPath(split, LABELS[fake], category, f"{category}_{number:05d}.jpg")
            rows.append((path, fake, category))
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(category, bool(fake), size, rng)).save(
            target, quality=int(rng.integers(*QUALITY))
        )
    bar.close()
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_path", "label", "class"), *rows])


def _first_of_others(folder: pathlib.Path) -> str:
    """A file of a folder that is not named as a toy image is; "" where there is none."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return next((name for name in files if not _NAMES.fullmatch(name)), "")


def main(options: flags.FlagValues) -> None:
    output_dir = pathlib.Path(options.output_dir)
    strange = _first_of_others(output_dir)
    if strange:
        raise DataError(
            f"{output_dir}: is not empty and holds more than toy images, {strange}; set another --output_dir"
        )
    write_folder(output_dir, count=options.count, size=options.size, seed=options.seed)
    print(f"{options.count} toy images of {options.size}x{options.size} pixels in {output_dir}")


def entry() -> int:
    """The command; returns its exit code."""
    return cli.run(main, FLAGS, name="deepduel.toy_images", usage="--output_dir=IMAGES")


if __name__ == "__main__":
    sys.exit(entry())
