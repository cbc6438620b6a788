"""The examples in the docstrings of the reading functions, run on the toy shards."""

import doctest

import pytest
import tensorflow as tf

from deepduel import pipeline
from deepduel.decoding.split import Split


@pytest.mark.parametrize("example", [pipeline.make_train, pipeline.make_eval, Split.__init__])
def test_the_docstrings_example_gives_what_it_says(toy_shards, monkeypatch, example):
    monkeypatch.chdir(toy_shards.parent)
    if not (toy_shards.parent / "SHARDS").exists():
        (toy_shards.parent / "SHARDS").symlink_to(toy_shards)
    tests = doctest.DocTestFinder(recurse=False).find(example, "example", globs={"Split": Split})
    results = doctest.DocTestRunner().run(tests[0])
    assert results.attempted > 1
    assert results.failed == 0


def test_data_sets_know_their_class_names_and_their_length(toy_shards):
    train = pipeline.make_train(toy_shards, batch_size=50)
    assert train.class_names["authenticity"] == ["real", "fake"]
    assert set(train.class_names) == {"authenticity", "category"}
    assert train.cardinality() == tf.data.INFINITE_CARDINALITY
    assert train.steps_per_epoch == 4 and train.image_size == (32, 32)
    validation = pipeline.make_eval(toy_shards, batch_size=50, labels="authenticity")
    assert validation.class_names == ["real", "fake"]
    assert validation.cardinality() == 2


def test_an_unknown_option_is_refused(toy_shards):
    with pytest.raises(TypeError, match="unexpected keyword argument 'treads'"):
        pipeline.make_train(toy_shards, batch_size=8, treads=2)
