import pytest

from deepduel.augmentation.mixing_options import Mixing
from deepduel.augmentation.presets import PRESETS
from deepduel.networks.architecture import Architecture
from deepduel.reading.options import ReadOptions
from deepduel.runs.length import RunLength
from deepduel.runs.options import RunOptions, SaveInterval, TaskOptions, check_cluster, check_sharing
from deepduel.training.cluster import Cluster
from tfrecords_tools.errors import UsageError


def task(axis, **changes) -> TaskOptions:
    return TaskOptions(axis, Architecture("small_cnn"), PRESETS["none"], **changes)


@pytest.mark.parametrize(
    ("interval", "steps", "seconds", "due"),
    [
        (SaveInterval(), 7, 299.9, False),
        (SaveInterval(), 7, 300, True),
        (SaveInterval(None, 5), 9, 1e6, False),
        (SaveInterval(None, 5), 10, 0, True),
        (SaveInterval(None, None), 10, 1e6, False),
    ],
)
def test_a_state_is_saved_by_time_or_by_steps(interval, steps, seconds, due):
    assert interval.due(steps, seconds) == due


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": 1.0}, "ema must be from 0 to below 1, got 1.0"),
        ({"monitor": "luck"}, "monitor must be one of accuracy, auc, loss, got 'luck'"),
        ({"early_stopping": -1}, "early_stopping must be a number of epochs, or 0 for never, got -1"),
    ],
)
def test_bad_options_of_a_task_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        task("category", **changes)


@pytest.mark.parametrize("changes", [{"micro_batch": 0}, {"devices": "0"}, {"devices": "two"}])
def test_bad_options_of_a_run_are_refused(changes):
    options = {"length": RunLength(1), "micro_batch": 8, "seed": 0} | changes
    with pytest.raises(UsageError, match=f"{next(iter(changes))} must be"):
        RunOptions("shards", "run", "train", "validation", ReadOptions(8), **options)


def test_tasks_that_differ_in_their_heads_alone_share_a_backbone():
    check_sharing([task("category"), task("authenticity", label_smoothing=0.1)])
    with pytest.raises(UsageError, match="category and authenticity differ in ema; give both the same"):
        check_sharing([task("category"), task("authenticity", ema=0.9)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": "2"}, "devices=2 does not go together with a cluster: each worker has one device"),
        ({"features": "F"}, "cache=features does not go together with a cluster"),
        ({"reading": ReadOptions(8, data_workers=("c:1",))}, "data_workers does not go together"),
        ({"dry_run": True}, "dry_run does not go together with a cluster: it is for one process"),
        ({"find_learning_rate": True}, "find_learning_rate does not go together with a cluster"),
    ],
)
def test_what_one_process_does_alone_is_refused_in_a_cluster(changes, message):
    options = {"reading": ReadOptions(8), "length": RunLength(1), "micro_batch": 8, "seed": 0} | changes
    with pytest.raises(UsageError, match=message):
        RunOptions("", "", "", "", cluster=Cluster(("a:1", "b:1"), 0), **options)


def test_mixed_images_are_refused_in_a_cluster():
    check_cluster([task("category")])
    with pytest.raises(UsageError, match="category: .*leave MixUp and CutMix out"):
        check_cluster([task("category", mixing=Mixing(mixup_alpha=0.2))])
