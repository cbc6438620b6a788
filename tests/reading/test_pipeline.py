import itertools
import time

import numpy as np
import psutil
import pytest
import tensorflow as tf

from deepduel.augment import PRESETS, augment
from deepduel.decoding.batch_decoder import BatchDecoder
from deepduel.decoding.cached_decoder import CachedDecoder
from deepduel.decoding.split import Split
from deepduel.reading import batch_groups, order, pipeline, random_reader
from deepduel.reading import options as read_options
from deepduel.reading.options import ReadOptions
from tests.conftest import run_command
from tests.helpers.batches import numpy_batches, same
from tests.helpers.object_store import upload
from tfrecords_tools import convert, host_cpus
from tfrecords_tools.errors import UsageError

READERS = read_options.READERS
BATCH = 50  # 168 images: three whole batches and one of 18


@pytest.fixture(scope="module")
def split(toy_shards):
    return Split(toy_shards, "train")


@pytest.fixture(scope="module")
def mixed_shards(tmp_path_factory):
    """Images of three sizes, one of them PNG."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for number in range(24):
        width, height = [(40, 20), (20, 40), (30, 30)][number % 3]
        path = (
            folder / "images" / "train" / "ab"[number % 2] / f"{number:02d}.{'png' if number % 3 else 'jpg'}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    words = f"--input_dir={folder}/images", f"--output_dir={folder}/shards", "--workers=1"
    assert run_command(convert, *words) == 0
    return folder / "shards"


@pytest.mark.parametrize("reader", READERS)
def test_an_epoch_holds_every_record_once_with_its_labels(split, reader):
    batches = numpy_batches(
        pipeline.train_batches(split, ReadOptions(BATCH, reader=reader), order.Position()), 4
    )
    assert [len(batch["images"]) for batch in batches] == [50, 50, 50, 18]
    records = np.concatenate([batch["records"] for batch in batches])
    assert sorted(records) == list(range(168))
    for axis in ("authenticity", "category"):
        labels = np.concatenate([batch["labels"][axis] for batch in batches])
        assert (labels == split.labels[axis][records]).all()
    assert all(batch["weight"].all() for batch in batches)


def test_both_readers_give_the_same_images_and_seeds(split):
    by_record = []
    for reader in READERS:
        reading = ReadOptions(BATCH, reader=reader)
        batches = numpy_batches(pipeline.train_batches(split, reading, order.Position(3, 1)), 4)
        images, seeds, records = (
            np.concatenate([batch[name] for batch in batches]) for name in ("images", "seeds", "records")
        )
        by_record.append((images[np.argsort(records)], seeds[np.argsort(records)]))
    assert same(*by_record)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_the_order_is_the_same_whatever_the_threads(split, reader):
    def batches(threads):
        reading = ReadOptions(BATCH, reader=reader, threads=threads)
        return numpy_batches(pipeline.train_batches(split, reading, order.Position(1)), 6)

    expected = batches(None)
    for threads in (1, 7):
        assert same(expected, batches(threads))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_epochs_and_seeds_have_orders_of_their_own(split, reader):
    def records(seed, epoch):
        batches = pipeline.train_batches(split, ReadOptions(168, reader=reader), order.Position(seed, epoch))
        return next(iter(batches))["records"].numpy()

    orders = [records(0, 0), records(0, 1), records(1, 0)]
    assert all((a != b).mean() > 0.9 for a, b in itertools.combinations(orders, 2))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("batch_size", [1, 16, 54, 55, 1000])
def test_evaluation_sees_every_record_exactly_once(toy_shards, reader, batch_size):
    split = Split(toy_shards, "validation")
    batches = numpy_batches(pipeline.eval_batches(split, ReadOptions(batch_size, reader=reader)))
    assert len({batch["images"].shape for batch in batches}) == 1
    weights = np.concatenate([batch["weight"] for batch in batches])
    records = np.concatenate([batch["records"] for batch in batches])
    assert records[weights == 1].tolist() == list(range(54))
    assert (records[weights == 0] == -1).all()
    assert all(not batch["images"][batch["weight"] == 0].any() for batch in batches)


def test_differing_sizes_have_a_default(mixed_shards):
    train = pipeline.make_train(mixed_shards, batch_size=4)
    validation = pipeline.make_eval(mixed_shards, batch_size=4, split="train")
    assert next(iter(train))[0].shape == next(iter(validation))[0].shape == (4, 224, 224, 3)
    assert train.image_size == validation.image_size == (224, 224)


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_differing_sizes_are_brought_to_one_alike_by_both_readers(mixed_shards, fit):
    split = Split(mixed_shards, "train")
    assert split.one_size is None
    images = [
        numpy_batches(pipeline.eval_batches(split, ReadOptions(24, size=(28, 28), fit=fit, reader=reader)))[
            0
        ]["images"]
        for reader in READERS
    ]
    assert images[0].shape == (24, 28, 28, 3)
    difference = np.abs(images[0].astype(int) - images[1])
    assert difference.mean() < 1  # grey levels; Pillow rounds between its two passes


@pytest.mark.slow
def test_native_crops_are_the_same_in_both_readers_and_any_threads(mixed_shards):
    split = Split(mixed_shards, "train")

    def epochs(**options):
        reading = ReadOptions(24, size=(24, 24), fit="native", **options)
        batches = numpy_batches(pipeline.train_batches(split, reading, order.Position(3)), 2)
        return [batch["images"][np.argsort(batch["records"])] for batch in batches]

    first, second = epochs(threads=1)
    assert (first == second).all(axis=(1, 2, 3)).mean() < 0.2  # each epoch cuts elsewhere
    assert same([first, second], epochs(threads=3))
    assert same([first, second], epochs(reader="sequential"))
    batch = tf.constant(first)  # no augmentation, no resampling: what the network gets are these pixels
    assert (augment(batch, tf.zeros((24, 2), tf.int32), PRESETS["none"], 24).numpy() == first).all()
    centres = [
        numpy_batches(
            pipeline.eval_batches(split, ReadOptions(24, size=(24, 24), fit="native", reader=reader))
        )
        for reader in READERS
    ]
    assert same(centres[0][0]["images"], centres[1][0]["images"])


def test_native_crops_are_not_cached(mixed_shards, tmp_path):
    reading = ReadOptions(24, size=(24, 24), fit="native", cache="ram")
    with pytest.raises(UsageError, match="every epoch cuts other places"):
        pipeline.train_batches(Split(mixed_shards, "train"), reading, order.Position())


@pytest.mark.parametrize("cache", ["ram", "decoded:"])
def test_cached_pixels_are_copied_on_threads_of_the_data_set_and_one_hands_them_on(split, tmp_path, cache):
    """On TensorFlow's own, of which there are as many as cores, the batches would wait for the next copy."""
    where = cache if cache == "ram" else f"{cache}{tmp_path}"
    cached, decoded = (
        pipeline.train_batches(split, ReadOptions(8, size=(24, 24), threads=2, cache=name), order.Position())
        for name in (where, "none")
    )
    assert cached.options().threading.private_threadpool_size == 3
    assert decoded.options().threading.private_threadpool_size is None


@pytest.mark.parametrize("reader", READERS)
def test_an_iterator_that_is_deleted_waits_for_no_tuning_thread(split, reader):
    """Such a thread may sleep on for as long as it has lived: see `batch.options`."""
    train = pipeline.train_batches(split, ReadOptions(8, reader=reader), order.Position())
    validation = pipeline.eval_batches(split, ReadOptions(8, reader=reader))
    assert [batches.options().autotune.enabled for batches in (train, validation)] == [False, False]


def test_memory_does_not_grow_from_batch_to_batch(split):
    batches = iter(pipeline.train_batches(split, ReadOptions(BATCH, size=(256, 256)), order.Position()))
    resident = []
    for _ in range(40):  # of 10 MB
        next(batches)
        resident.append(psutil.Process().memory_info().rss)
    # 30 batches are read after the 10th. Kept, they would take 30 times a batch; how many of them are read
    # ahead depends on how busy the machine is.
    assert resident[-1] - resident[9] < 15 * BATCH * 256 * 256 * 3


def test_differing_sizes_need_a_size(mixed_shards):
    split = Split(mixed_shards, "train")
    with pytest.raises(UsageError, match="have 3 different sizes; set size"):
        pipeline.train_batches(split, ReadOptions(8), order.Position())


def test_make_train_and_make_eval_fit_any_keras_model(toy_shards):
    import keras

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, weighted_metrics=["accuracy"])
    train = pipeline.make_train(toy_shards, batch_size=32, labels="authenticity")
    validation = pipeline.make_eval(toy_shards, batch_size=32, labels="authenticity")
    history = model.fit(train, steps_per_epoch=6, epochs=2, validation_data=validation, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    wrong = 1 - history.history["val_accuracy"][-1]
    assert wrong * 54 == pytest.approx(round(wrong * 54), abs=1e-3)  # 54 images counted, no padding


def test_without_an_axis_labels_are_a_dict(toy_shards):
    _, labels = next(iter(pipeline.make_train(toy_shards, batch_size=8)))
    assert set(labels) == {"authenticity", "category"}


def test_unlabelled_images_weigh_nothing(toy_shards):
    _, labels, weight = next(
        iter(pipeline.make_eval(toy_shards, batch_size=18, labels="category", split="test"))
    )
    assert labels.numpy().tolist() == [0] * 18
    assert weight.numpy().tolist() == [0] * 18


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "reader"),
    [(2, "random"), (4, "random"), (2, "sequential"), pytest.param(4, "sequential", marks=pytest.mark.scale)],
)
def test_the_workers_batches_joined_are_those_of_one(split, reader, count):
    """168 images: the last batch of an epoch has 8."""
    expected = numpy_batches(
        pipeline.train_batches(split, ReadOptions(40, reader=reader), order.Position(2)), 6
    )
    readings = [ReadOptions(40, reader=reader, worker=order.Worker(index, count)) for index in range(count)]
    parts = [numpy_batches(pipeline.train_batches(split, each, order.Position(2)), 6) for each in readings]
    for batch, *shares in zip(expected, *parts, strict=True):
        joined = tf.nest.map_structure(lambda *each: np.concatenate(each), *shares)
        assert same(batch, joined)
        assert max(len(share["records"]) for share in shares) <= -(-len(batch["records"]) // count)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_the_workers_evaluate_every_record_once_between_them(toy_shards, reader):
    split = Split(toy_shards, "validation")
    readings = [ReadOptions(20, reader=reader, worker=order.Worker(index, 4)) for index in range(4)]
    batches = [batch for each in readings for batch in numpy_batches(pipeline.eval_batches(split, each))]
    assert {batch["images"].shape for batch in batches} == {(5, 32, 32, 3)}
    records = np.concatenate([batch["records"][batch["weight"] > 0] for batch in batches])
    assert sorted(records) == list(range(54))


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_workers_share_a_batch_smaller_than_their_number(toy_shards, reader):
    """54 = 52 + 2 images for 4 workers: two of them get an empty part of the last batch."""
    split = Split(toy_shards, "validation")
    sizes = []
    for index in range(4):
        reading = ReadOptions(52, reader=reader, worker=order.Worker(index, 4))
        sizes.append(
            len(numpy_batches(pipeline.train_batches(split, reading, order.Position()), 2)[1]["records"])
        )
    assert sizes == [0, 1, 0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_restored_at_any_step_every_later_pixel_is_the_same_augmentation_included(split, reader):
    def run(position, count):
        batches = pipeline.train_batches(split, ReadOptions(BATCH, reader=reader), position)
        batches = batches.map(
            lambda batch: (
                batch | {"images": augment(batch["images"], batch["seeds"], PRESETS["original"], 16)}
            )
        )
        return numpy_batches(batches, count)

    whole = run(order.Position(6), 8)
    for step in (0, 1, 3, 4, 6):
        assert same(whole[step:], run(order.Position(6, *divmod(step, 4)), 8 - step))


def test_bad_options_say_so(toy_shards):
    with pytest.raises(UsageError, match="no label axis 'colour'; it has authenticity, category"):
        pipeline.make_train(toy_shards, batch_size=8, labels="colour")
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        pipeline.make_train(toy_shards, batch_size=0)
    with pytest.raises(UsageError, match="reader must be one of"):
        pipeline.make_train(toy_shards, batch_size=8, reader="fast")
    with pytest.raises(UsageError, match="must be a multiple of their number, 3; got 8"):
        pipeline.make_train(toy_shards, batch_size=8, worker=order.Worker(0, 3))


@pytest.mark.parametrize(
    ("group", "large", "rows_of_calls"),
    [
        (1, 64 << 20, [[8] * 3, [8] * 4, [8] * 5, [8] * 6]),
        (1, 1, [[8] * 2, [8] * 3, [8] * 4, [8] * 5]),
        (3, 64 << 20, [[8, 16, 24], [8, 16, 24, 24], [8, 16, 24, 24], [8, 16, 24, 24, 24]]),
    ],
)
def test_no_more_batches_are_held_than_planned(toy_shards, monkeypatch, group, large, rows_of_calls):
    taken = []
    whole = BatchDecoder.__call__

    def counting(decoder, records, **options):
        taken.append(len(records))
        return whole(decoder, records, **options)

    monkeypatch.setattr(BatchDecoder, "__call__", counting)
    monkeypatch.setattr(batch_groups, "_DECODED", (group * 8 * 32 * 32 * 3, 8))
    monkeypatch.setattr(random_reader, "LARGE_BATCH_BYTES", large)
    monkeypatch.setattr(host_cpus, "available", lambda: 2)
    batches = iter(pipeline.train_batches(Split(toy_shards, "train"), ReadOptions(8), order.Position()))
    for rows in rows_of_calls:
        next(batches)
        time.sleep(0.3)
        assert sorted(taken) == rows  # two calls may begin in either order


def test_a_cache_is_read_in_larger_groups_from_the_second_epoch_on(toy_shards, monkeypatch):
    rows, whole = [], CachedDecoder.__call__

    def counting(decoder, records, **options):
        rows.append(len(records))
        return whole(decoder, records, **options)

    monkeypatch.setattr(CachedDecoder, "__call__", counting)
    monkeypatch.setattr(batch_groups, "_DECODED", (1 << 20, 2))
    monkeypatch.setattr(batch_groups, "_COPIED", (1 << 20, 3))
    split = Split(toy_shards, "train")
    epoch = order.steps_per_epoch(len(split), 8)
    reading = ReadOptions(8, cache="ram", threads=1)
    for _ in pipeline.train_batches(split, reading, order.Position()).take(2 * epoch):
        pass
    calls_of_first = rows[: next(n for n in range(len(rows)) if sum(rows[:n]) == len(split))]
    assert max(calls_of_first) == 2 * 8
    assert max(rows[len(calls_of_first) :]) == 3 * 8


def test_batches_from_an_object_store_are_those_of_the_local_shards(toy_shards):
    local, remote = (
        pipeline.make_train(folder, batch_size=32, labels="category").take(8)
        for folder in (toy_shards, upload(toy_shards))
    )
    for (images, labels), (theirs, their_labels) in zip(local, remote, strict=True):
        np.testing.assert_array_equal(images, theirs)
        np.testing.assert_array_equal(labels, their_labels)
