"""AutoGraph has nothing to rewrite here, and its looking at every function takes seconds of each start."""

import pytest
import tensorflow as tf
from tensorflow.python.autograph.impl import api

from deepduel import evaluate, predict, train
from deepduel.augment import Augmentation, augment
from deepduel.augmentation import randaugment, transform
from deepduel.reading import pipeline
from deepduel.reading.options import READERS
from tests.conftest import run_command
from tests.helpers import tiny_network


@pytest.fixture
def converted(monkeypatch) -> list[str]:
    """What AutoGraph has been given since."""
    names, convert = [], api._convert_actual

    def noting(entity, context):
        names.append(f"{entity.__module__}.{entity.__qualname__}")
        return convert(entity, context)

    monkeypatch.setattr(api, "_convert_actual", noting)
    transform._warped.cache_clear()
    randaugment._function.cache_clear()
    return names


FEATURES = "--cache=features --views=1 --backbone=vgg16 --weights=none --head=avg --image_size=32"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", ["--reader=sequential --micro_batch=auto", pytest.param(FEATURES, marks=pytest.mark.scale)]
)
def test_nothing_of_a_run_is_converted(converted, monkeypatch, toy_shards, toy_folder, tmp_path, more):
    tiny_network.install(monkeypatch)
    run = f"--workdir={tmp_path}/run"
    data = f"--data_dir={toy_shards}"
    assert run_command(train, data, run, *tiny_network.RUN, *more.split(), "--epochs=1") == 0
    assert run_command(evaluate, data, run, "--split=validation") == 0
    assert run_command(predict, run, f"--images={toy_folder}/test", f"--output={tmp_path}/rows.csv") == 0
    assert not converted


@pytest.mark.parametrize("reader", READERS)
def test_nothing_of_a_data_set_is_converted(converted, toy_shards, reader):
    options = {"batch_size": 8, "labels": "category", "reader": reader}
    for on_error in ("fail", "skip"):
        next(iter(pipeline.make_train(toy_shards, on_error=on_error, **options)))
    next(iter(pipeline.make_eval(toy_shards, **options)))
    assert not converted


def test_what_rand_augment_takes_of_keras_cv_is(converted):
    images, seeds = tf.zeros((2, 16, 16, 3), tf.uint8), tf.zeros((2, 2), tf.int32)
    tf.function(lambda: augment(images, seeds, Augmentation(rand_augment=1), None), autograph=False)()
    assert any("Equalization" in name for name in converted)
