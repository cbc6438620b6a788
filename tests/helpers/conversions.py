"""Conversions, and what came of them."""

import pathlib

from tests.conftest import run_command
from tfrecords_tools import convert
from tfrecords_tools.format import manifest, records


def convert_to(output, images, *words: str) -> int:
    return run_command(convert, f"--input_dir={images}", f"--output_dir={output}", "--workers=1", *words)


def stored(data_dir) -> dict[str, tuple[str, dict[str, int], bytes]]:
    """key -> (split, labels, encoded image), read record by record."""
    whole, images_by_key = manifest.load(data_dir), {}
    for split, of_split in whole.splits.items():
        for part in of_split.shards:
            for payload in records.read_payloads((pathlib.Path(data_dir) / part.file).read_bytes()):
                encoded, key, labels = records.parse(payload)
                images_by_key[records.key_text(key)] = split, labels, encoded
    return images_by_key
