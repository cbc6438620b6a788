"""Small image folders, and what several tests of the converter do with them."""

import hashlib
import pathlib

import numpy as np

from tests.helpers import odd_images


def make(folder: pathlib.Path, counts: dict[str, int], *, size: int = 24, kind: str = "JPEG") -> pathlib.Path:
    """Draws `{directory: images}`: differing pictures, `0.jpg`, `1.jpg`, …"""
    seed = 0
    for directory, count in counts.items():
        (folder / directory).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed += 1
            image = odd_images.picture(size, size, seed=seed)
            ending = {"JPEG": "jpg", "PNG": "png"}[kind]
            (folder / directory / f"{number}.{ending}").write_bytes(odd_images.save(image, kind))
    return folder


def duel(folder: pathlib.Path, *, each: int = 4, size: int = 24) -> pathlib.Path:
    """train and validation with real|fake of two classes, and a flat test."""
    counts = {
        f"{split}/{truth}/{category}": each
        for split in ("train", "validation")
        for truth in ("real", "fake")
        for category in ("cats", "dogs")
    }
    return make(folder, counts | {"test": each}, size=size)


def sums(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def labels_of(listing) -> dict[str, tuple[str, dict[str, int]]]:
    """key -> (split, labels) of a listing."""
    return {example.key.decode(): (example.split, example.labels) for example in listing.examples()}


def random_bytes(count: int, seed: int = 0) -> bytes:
    """Bytes that no image begins with."""
    return b"?" + np.random.default_rng(seed).bytes(count)
