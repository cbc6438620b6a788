import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel.decoding.split import Split
from deepduel.networks import backbones
from deepduel.networks.architecture import Architecture
from deepduel.reading import order, pipeline
from deepduel.reading.order import Worker
from deepduel.training.team import Team, in_pieces, whole
from deepduel.training.trainer import MultiTaskTrainer
from tests.helpers import tiny_network
from tests.helpers.tasks import assert_same, make, weights
from tests.helpers.workers import free_addresses

TRAINED = Architecture("small_cnn", "avg,dropout:0.5,dense:4", 8, fine_tune="all", batch_norm="frozen")
REAL = dataclasses.replace(TRAINED, head="avg,dropout:0.5,dense:8", image_size=16)
FROZEN = Architecture("small_cnn", "avg,dropout:0.5,dense:4", 8)


class Rehearsed(Team):
    """A worker in a single process: at first `sum` gives its own terms, later the `total` of all workers."""

    def __init__(self, index, count):
        self.worker = Worker(index, count)
        self.terms = self.total = None

    def sum(self, tensors):
        self.terms = list(tensors)
        return self.total or self.terms


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        tiny_network.install(patch)
        yield


@pytest.fixture(scope="module")
def batch(toy_shards):
    split = Split(toy_shards, "train")
    return next(iter(pipeline.train_batches(split, pipeline.ReadOptions(5), order.Position(1))))


def trainer(split, team=None) -> MultiTaskTrainer:
    tasks = make("category", split, FROZEN, "none"), make("authenticity", split, TRAINED, "none")
    built = MultiTaskTrainer(tasks, micro_batch=2, team=team)
    built.compile()
    return built


def step_together(split, batch, count, change=lambda team: None, build=trainer) -> list[MultiTaskTrainer]:
    """The trainers of all workers after a step on their parts of a batch."""
    trainers, parts = [], []
    for index in range(count):
        team = Rehearsed(index, count)
        start, end = team.worker.part(len(batch["weight"]))
        part = tf.nest.map_structure(lambda rows, start=start, end=end: rows[start:end], batch)
        parts.append(part | {"whole": whole(batch)})
        trainers.append(build(split, team))
        before = [variable.numpy() for variable in trainers[-1].state_variables()]
        trainers[-1].train_step(parts[-1])
        for variable, value in zip(trainers[-1].state_variables(), before, strict=True):
            variable.assign(value)
        change(team)
    totals = [sum(terms) for terms in zip(*(member.team.terms for member in trainers), strict=True)]
    for member, part in zip(trainers, parts, strict=True):
        member.team.total = totals
        member.train_step(part)
    return trainers


@pytest.mark.parametrize(("rows", "count"), [(5, 2), (2, 3)])  # of 3 workers one has no row
def test_workers_make_the_step_of_one_process(toy_shards, batch, rows, count):
    split = Split(toy_shards, "train")
    batch = tf.nest.map_structure(lambda column: column[:rows], batch)
    alone = trainer(split)
    logs = alone.train_step(batch)
    workers = step_together(split, batch, count)
    for worker in workers:
        for one, other, first in zip(alone.tasks, worker.tasks, workers[0].tasks, strict=True):
            assert_same(weights(one), weights(other), atol=1e-6)
            assert_same(weights(first), weights(other), atol=0)
        for name in alone.task_metrics:
            assert float(worker.task_metrics[name].loss.result()) == pytest.approx(
                float(logs[f"{name}_loss"])
            )


@pytest.mark.slow
@pytest.mark.scale
@pytest.mark.parametrize(
    ("optimizer", "bound"),
    [
        (keras.optimizers.SGD, 1e-7),
        # Adam divides gradients by their own size, and so enlarges the rounding of those near its epsilon.
        (keras.optimizers.Adam, 1e-5),
    ],
)
def test_workers_make_the_step_of_one_process_in_a_real_network(
    toy_shards, batch, monkeypatch, optimizer, bound
):
    def build(split, team=None):
        task = dataclasses.replace(make("authenticity", split, REAL, "none"), optimizer=optimizer(0.01))
        built = MultiTaskTrainer([task], micro_batch=2, team=team)
        built.compile()
        return built

    monkeypatch.setitem(backbones.OWN, "small_cnn", backbones.small_cnn)
    split = Split(toy_shards, "train")
    alone = build(split)
    batch = tf.nest.map_structure(lambda column: column[:2], batch)
    alone.train_step(batch)
    for worker in step_together(split, batch, 3, build=build):
        assert_same(weights(worker.tasks[0]), weights(alone.tasks[0]), rtol=0, atol=bound)


def test_what_is_not_finite_in_one_part_is_skipped_by_all(toy_shards, batch):
    def poison(team):
        if team.worker.index == 1:
            team.terms = [tf.fill(term.shape, np.nan) for term in team.terms]

    split = Split(toy_shards, "train")
    before = weights(trainer(split).tasks[0])
    for worker in step_together(split, batch, 2, poison):
        assert_same(weights(worker.tasks[0]), before, atol=0)
        assert worker.task_metrics["category"].skipped_steps == 1


def test_tensors_are_summed_in_pieces_of_one_size_and_keep_their_shapes(monkeypatch):
    monkeypatch.setattr("deepduel.training.team._PIECE", 4)
    sizes = []

    def double(pieces):
        sizes.extend(int(tf.size(piece)) for piece in pieces)
        return [2 * piece for piece in pieces]

    tensors = [tf.range(6.0), tf.ones((2, 2)), tf.constant(3, tf.int32), tf.constant(5.0)]
    results = in_pieces(tensors, double)
    for tensor, result in zip(tensors, results, strict=True):
        np.testing.assert_array_equal(result, 2 * tensor)
    assert sizes == [3, 4, 4, 1]


PROGRAM = """
import sys
from deepduel.training.cluster import from_flags
from deepduel.training.joined_team import joined
from deepduel.decoding import host_memory
import tensorflow as tf, keras
free = host_memory.available_bytes()
with joined(from_flags(sys.argv[1], sys.argv[2], {}), command="test") as team:
    index = team.worker.index
    assert host_memory.available_bytes() < 0.75 * free  # half of it, and what others take meanwhile
    first, *_ = tf.config.list_logical_devices("CPU")  # the others' are listed too
    assert first.name == f"/job:worker/replica:0/task:{index}/device:CPU:0"
    part = {name: tf.fill([index + 1], index) for name in ("labels", "weight", "records")}
    batch = team.with_whole_batch(part)
    assert batch["whole"]["labels"].numpy().tolist() == [0, 1, 1]
    variable = keras.Variable([index + 1.0])
    team.share([variable])
    assert float(variable.value[0]) == 1
    logits, sums = tf.function(
        lambda rows: team.joined(rows, [tf.constant(index + 1.0)], tf.constant(3))
    )(tf.fill([index + 1, 2], float(index)))
    assert logits.numpy().tolist() == [[0, 0], [1, 1], [1, 1]]
    assert float(sums[0]) == 3
    assert team.decided(lambda: "worker 0 says") == "worker 0 says"
"""


@pytest.mark.slow
def test_two_processes_gather_sum_and_share():
    cluster = ",".join(free_addresses(2))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, f"{cluster}", f"{index}/2"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
