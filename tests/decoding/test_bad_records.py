"""Bad records and failing shards, through both readers."""

import itertools
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from deepduel import train
from deepduel.decoding import bad_records
from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.reading.options import READERS, ReadOptions
from tests.conftest import TOY_TRAINING, history_rows, run_command
from tests.helpers import tiny_network
from tests.helpers.batches import spoil
from tfrecords_tools.errors import DataError, UsageError

BAD = (7, 60, 100)


@pytest.fixture
def copy(toy_shards, tmp_path):
    return shutil.copytree(toy_shards, tmp_path / "shards")


@pytest.fixture
def spoilt(copy):
    spoil(copy, *BAD)
    return Split(copy, "train")


def epoch(split, reading, position=None):
    steps = order.steps_per_epoch(len(split), reading.batch_size)
    batches = pipeline.train_batches(split, reading, position or order.Position())
    return [
        tf.nest.map_structure(lambda part: part.numpy().copy(), batch)
        for batch in itertools.islice(batches, steps)
    ]


def test_fail_names_shard_record_and_key(spoilt):
    with pytest.raises(tf.errors.OpError) as caught:
        epoch(spoilt, ReadOptions(50))
    message = str(bad_records.data_error(caught.value))
    first = spoilt.shards[0].records
    named = [f"record {number if number < first else number - first} (key train/" for number in BAD]
    assert any(name in message for name in named)
    assert "-of-00003" in message and "verify" in message


def test_the_sequential_reader_names_shard_record_and_key_in_its_graph(copy):
    spoil(copy, 60)
    split = Split(copy, "train")
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        epoch(split, ReadOptions(50, reader="sequential"))
    shard = split.shards[1]
    number = 60 - split.shards[0].records
    assert str(bad_records.data_error(caught.value)) == (
        f"{copy / shard.file}, record {number} (key {split.key(60).decode()}): does not decode; "
        "run python -m tfrecords_tools.verify on the data folder, or leave bad images out with "
        "on_error=skip"
    )


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_skip_keeps_shapes_order_and_all_other_rows(spoilt, toy_shards, reader, capfd):
    sound = Split(toy_shards, "train")
    expected = epoch(sound, ReadOptions(50, reader=reader), order.Position(3, 1))
    actual = epoch(spoilt, ReadOptions(50, reader=reader, on_error="skip"), order.Position(3, 1))
    for one, other in zip(expected, actual, strict=True):
        assert (one["records"] == other["records"]).all()
        assert (one["seeds"] == other["seeds"]).all()
        bad = np.isin(one["records"], BAD)
        assert (other["weight"] == ~bad).all()
        assert (other["images"][~bad] == one["images"][~bad]).all()
        assert not other["images"][bad].any()
        for axis in one["labels"]:
            assert (other["labels"][axis] == np.where(bad, -1, one["labels"][axis])).all()
    if reader == "random":
        assert sorted(spoilt.bad) == list(BAD)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 3
    assert any("record 7 (key train/" in line for line in lines)


@pytest.mark.parametrize("reader", READERS)
def test_a_batch_of_nothing_but_bad_records_is_black(copy, reader):
    spoil(copy, *range(10), split="validation")
    split = Split(copy, "validation")
    first = next(iter(pipeline.eval_batches(split, ReadOptions(10, reader=reader, on_error="skip"))))
    assert first["records"].numpy().tolist() == list(range(10))
    assert not first["images"].numpy().any()
    assert not first["weight"].numpy().any()


def test_bad_records_are_listed_up_to_twenty(copy, capfd):
    spoil(copy, *range(30))
    split = Split(copy, "train")
    epoch(split, ReadOptions(50, on_error="skip"))
    epoch(split, ReadOptions(50, on_error="skip"), order.Position(0, 1))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 21
    assert lines[-1] == "left out: further bad records are counted, not listed"
    assert len(split.bad) == 30


def test_training_on_what_is_left_gives_a_finite_loss(spoilt):
    import keras

    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = pipeline.make_train(spoilt.data_dir, batch_size=50, labels="authenticity", on_error="skip")
    images, labels, weight = next(iter(batches))
    assert images.shape[0] == labels.shape[0] == weight.shape[0] == 50
    history = model.fit(batches, steps_per_epoch=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_other_errors_are_no_data_errors():
    assert bad_records.data_error(ValueError("shapes (3,) and (4,)")) is None


@pytest.mark.slow
def test_a_shard_cut_short_while_it_is_read_is_an_error_and_no_crash(copy):
    """In a process of its own: through a memory map this would be SIGBUS, which kills it."""
    program = """
        import os, sys
        from deepduel.decoding import bad_records
        from deepduel.reading import order, pipeline
        from deepduel.reading.options import ReadOptions
        from deepduel.decoding.split import Split
        split = Split(sys.argv[1], "train")
        batches = iter(pipeline.train_batches(split, ReadOptions(8), order.Position()))
        next(batches)
        for shard in split.shards:
            os.truncate(split.data_dir / shard.file, 4096)
        try:
            for _ in range(100):
                next(batches)
        except Exception as error:
            print(bad_records.data_error(error))
            sys.exit(1)
    """
    words = [sys.executable, "-c", textwrap.dedent(program), str(copy)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "so it was truncated since it was opened; copy the folder again" in done.stdout


def test_a_shard_that_was_removed_or_replaced_is_read_to_the_end_as_it_was(copy, toy_shards):
    expected = epoch(Split(toy_shards, "train"), ReadOptions(50))
    split = Split(copy, "train")
    for shard in split.shards:
        (copy / shard.file).unlink()
    actual = epoch(split, ReadOptions(50))
    assert all((a["images"] == b["images"]).all() for a, b in zip(expected, actual, strict=True))


def test_a_disk_that_fails_names_the_shard(copy, monkeypatch):
    split = Split(copy, "train")

    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("deepduel.decoding.split.os.pread", fails)
    with pytest.raises(DataError, match=r"00000-of-00003: unreadable at byte .*Input/output error"):
        split.image(0)


def test_an_unknown_policy_is_refused():
    with pytest.raises(UsageError, match="on_error must be one of fail, skip, got 'ignore'"):
        ReadOptions(8, on_error="ignore")


@pytest.mark.slow
def test_a_run_leaves_bad_images_out_and_says_how_many_in_each_epoch(spoilt, tmp_path, capsys, monkeypatch):
    tiny_network.install(monkeypatch)
    spoil(spoilt.data_dir, 5, split="validation")
    words = f"--data_dir={spoilt.data_dir}", *TOY_TRAINING, "--tasks=category", "--epochs=2"
    assert run_command(train, f"--workdir={tmp_path}/strict", *words) == 1
    error = capsys.readouterr().err
    assert "does not decode" in error and "Traceback" not in error
    assert run_command(train, f"--workdir={tmp_path}/run", *words, "--on_error=skip") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    summary = "left out, as they cannot be decoded: 3 training images and 1 validation image"
    assert [line.endswith(summary) for line in lines] == [True, True]
    rows = history_rows(tmp_path / "run")
    assert [(float(row["left_out"]), float(row["val_left_out"])) for row in rows] == [(3, 1), (3, 1)]
