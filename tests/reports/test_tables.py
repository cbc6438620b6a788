"""Tables of results for notebooks."""

import numpy as np

from deepduel.decoding.split import Split
from deepduel.reports import tables


def test_pictures_end_where_the_shards_are_others_than_those_that_were_evaluated(toy_shards):
    split = Split(toy_shards, "validation")
    keys = [split.key(record).decode() for record in (0, 2)] + ["gone.jpg"]
    pictures = tables._pictures(split, keys, [1, 0, 2, 0])
    assert len(pictures) == 2
    np.testing.assert_array_equal(pictures, [split.pixels(2), split.pixels(0)])
