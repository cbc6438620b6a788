"""How long the fuzzing lasts: seconds with the other tests, as long as FUZZ_EXAMPLES says by `make fuzz`."""

import os
import pathlib

import hypothesis
import pytest

from tests.helpers import folders
from tests.helpers.conversions import convert_to

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
hypothesis.settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,  # the same cases in every run of the tests, new ones by `make fuzz`
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> pathlib.Path:
    """Two splits of JPEG and PNG images in shards, one shard each; do not write to it."""
    root = tmp_path_factory.mktemp("fuzz")
    images = folders.make(root / "images", {"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    folders.make(images, {"train/c": 2, "test/c": 1}, kind="PNG")
    assert convert_to(root / "shards", images, "--num_shards=1") == 0
    return root / "shards"
