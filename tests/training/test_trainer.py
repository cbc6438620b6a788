import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel.augment import Augmentation, augment
from deepduel.augmentation import mixing
from deepduel.augmentation.mixing import Mixing
from deepduel.decoding.split import Split
from deepduel.networks.architecture import Architecture
from deepduel.reading import order, pipeline
from deepduel.runs.non_finite import NonFinite
from deepduel.runs.training_state import State
from deepduel.training import step, updates
from deepduel.training.trainer import MultiTaskTrainer
from tests.helpers.tasks import FROZEN, TRAINED, assert_same, compiled, fit, weights
from tests.helpers.tasks import make as make_task

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def split(toy_shards):
    return Split(toy_shards, "train")


@pytest.mark.slow
def test_a_frozen_backbone_trains_as_in_plain_keras_on_the_full_batch(split):
    """Head weights after 6 steps, partial batch and dropout included, against Model.fit."""
    ours = make_task("category", split)
    fit([ours], split, steps=6)

    plain = make_task("category", split)
    inputs = plain.model.extractor.input
    model = keras.Model(inputs, plain.model.head(plain.model.extractor(inputs, training=False)))
    model.compile(
        plain.optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )

    def prepared(batch):
        return augment(batch["images"], batch["seeds"], plain.augmentation, 16), batch["labels"]["category"]

    batches = pipeline.train_batches(split, pipeline.ReadOptions(50), order.Position(3)).take(6).map(prepared)
    model.fit(batches, epochs=1, verbose=0, shuffle=False)
    assert_same(plain.model.head.get_weights(), ours.model.head.get_weights(), atol=1e-5)
    untouched = make_task("category", split).model.extractor.get_weights()
    assert_same(ours.model.extractor.get_weights(), untouched, atol=0)


@pytest.mark.slow
def test_the_micro_batch_does_not_show(split):
    """One image at a time, and more than the batch holds."""
    one, other = make_task("category", split), make_task("category", split)
    fit([one], split, micro_batch=1)
    fit([other], split, micro_batch=64)
    assert_same(one.model.head.get_weights(), other.model.head.get_weights(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [pytest.param(FROZEN, id="frozen"), pytest.param(TRAINED, id="trained", marks=pytest.mark.scale)],
)
def test_two_tasks_train_to_the_weights_that_each_has_alone(split, architecture):
    axes = ("category", "authenticity")
    together = [make_task(axis, split, architecture, "forensic") for axis in axes]
    fit(together, split)
    for axis, task in zip(axes, together, strict=True):
        alone = make_task(axis, split, architecture, "forensic")
        fit([alone], split)
        assert_same(weights(task), weights(alone), atol=1e-6)


@pytest.mark.slow
def test_tasks_may_differ_in_size_augmentation_and_training(split):
    small = Architecture("small_cnn", "avg", 12, fine_tune="all")
    tasks = [
        make_task("category", split, FROZEN, "original"),
        make_task("authenticity", split, small, "none"),
    ]
    before = [np.copy(weight) for weight in weights(tasks[1])]
    results = fit(tasks, split).get_metrics_result()
    assert np.isfinite(list(results.values())).all()
    assert any((a != b).any() for a, b in zip(before, weights(tasks[1]), strict=True))


MIXED = Mixing(mixup_alpha=0.4, cutmix_alpha=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [pytest.param(1, marks=pytest.mark.scale), 16, 64])
def test_mixed_images_train_as_plain_keras_with_soft_labels_whatever_the_micro_batch(split, micro_batch):
    ours = make_task("category", split, mixing=MIXED)
    results = fit([ours], split, micro_batch=micro_batch).get_metrics_result()

    plain = make_task("category", split)
    inputs = plain.model.extractor.input
    model = keras.Model(inputs, plain.model.head(plain.model.extractor(inputs, training=False)))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(plain.optimizer, loss, metrics=["categorical_accuracy"], jit_compile=False)

    def prepared(batch):
        images = augment(batch["images"], batch["seeds"], plain.augmentation, 16)
        mix = mixing.plan(MIXED, 16, batch["seeds"])
        images = mixing.mix_images(images, tf.gather(images, mix.partner), mix.keep, mix.box)
        return images, mixing.mix_labels(batch["labels"]["category"], mix, 3)

    batches = pipeline.train_batches(split, pipeline.ReadOptions(50), order.Position(3)).take(4).map(prepared)
    history = model.fit(batches, epochs=1, verbose=0, shuffle=False).history
    assert_same(plain.model.head.get_weights(), ours.model.head.get_weights(), atol=1e-5)
    assert float(results["category_accuracy"]) == pytest.approx(history["categorical_accuracy"][0], abs=1e-6)
    assert float(results["category_loss"]) == pytest.approx(history["loss"][0], abs=1e-4)


@pytest.mark.slow
def test_tasks_may_be_mixed_differently_or_not_at_all(split):
    axes = ("category", "authenticity")
    kinds = (Mixing(), Mixing(cutmix_alpha=1.0))
    together = [make_task(axis, split, mixing=kind) for axis, kind in zip(axes, kinds, strict=True)]
    fit(together, split, steps=2)
    for axis, kind, task in zip(axes, kinds, together, strict=True):
        alone = make_task(axis, split, mixing=kind)
        fit([alone], split, steps=2)
        assert_same(weights(task), weights(alone), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("fine_tune", ["last:3", "all"])
def test_accumulated_gradients_are_those_of_the_full_batch_in_plain_keras(split, fine_tune):
    """Partial batch, dropout in the head and images without a label included; no batch-norm statistics."""
    architecture = Architecture(
        "small_cnn", "avg,dropout:0.5,dense:8", 16, fine_tune=fine_tune, batch_norm="frozen"
    )

    def some_unlabelled(batch):
        labels = batch["labels"]["category"]
        return batch | {"labels": {"category": tf.where(batch["records"] % 5 == 0, -1, labels)}}

    reading, steps = pipeline.ReadOptions(50), 4
    batches = pipeline.train_batches(split, reading, order.Position(3)).take(steps).map(some_unlabelled)
    ours = make_task("category", split, architecture, "forensic")
    before = ours.model.extractor.get_weights()
    trainer = compiled(ours, micro_batch=16)
    trainer.fit(batches.repeat(), steps_per_epoch=steps, shuffle=False, verbose=0)

    plain = make_task("category", split, architecture, "forensic")
    variables = plain.trained_variables
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(True, ignore_class=-1, reduction="sum")
    for batch in batches:
        images = augment(batch["images"], batch["seeds"], plain.augmentation, 16)
        labels = batch["labels"]["category"]
        with tf.GradientTape() as tape:
            logits = plain.model.head(plain.model.extractor(images, training=False), training=True)
            loss = cross_entropy(labels, logits) / np.count_nonzero(labels >= 0)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        plain.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    assert_same(weights(plain), weights(ours), atol=1e-5)
    changed = [(a != b).any() for a, b in zip(before, ours.model.extractor.get_weights(), strict=True)]
    assert changed[0] == (fine_tune == "all")
    assert any(changed)


def test_images_without_a_label_do_not_count(split):
    task, expected = (
        make_task("category", split, TRAINED, "none"),
        make_task("category", split, TRAINED, "none"),
    )
    batch = next(iter(pipeline.train_batches(split, pipeline.ReadOptions(8), order.Position())))
    labels = batch["labels"]["category"].numpy().copy()
    labels[3:] = -1
    for trained, weight, label in (
        (task, np.ones(8), labels),
        (expected, [1] * 3 + [0] * 5, np.maximum(labels, 0)),
    ):
        trainer = compiled(trained, micro_batch=8)
        one = batch | {"labels": {"category": tf.constant(label)}, "weight": tf.constant(weight, tf.float32)}
        results = trainer.train_step(one)
    assert_same(weights(task), weights(expected), atol=1e-7)
    assert 0 <= float(results["category_accuracy"]) <= 1


def test_a_batch_without_any_label_leaves_the_loss_finite(split):
    task = make_task("category", split, TRAINED, "none")
    trainer = compiled(task, micro_batch=8)
    batch = next(iter(pipeline.train_batches(split, pipeline.ReadOptions(8), order.Position())))
    trainer.train_step(batch | {"labels": {"category": tf.fill([8], -1)}})
    assert all(np.isfinite(weight).all() for weight in weights(task))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_in_float32_variables(split, precision):
    architecture = Architecture("small_cnn", "avg", 8, fine_tune="all", precision=precision)
    task = make_task("authenticity", split, architecture, "none")
    trainer = fit([task], split, steps=2, batch_size=4, micro_batch=4)
    assert all(variable.dtype == "float32" for variable in task.trained_variables)
    assert np.isfinite(float(trainer.get_metrics_result()["authenticity_loss"]))


def test_validation_counts_every_image_once_and_is_not_augmented(split, toy_shards):
    validation = Split(toy_shards, "validation")
    task = make_task("category", split, TRAINED)
    trainer = compiled(task, micro_batch=16)
    results = trainer.evaluate(
        pipeline.eval_batches(validation, pipeline.ReadOptions(50)), verbose=0, return_dict=True
    )
    batch = next(iter(pipeline.eval_batches(validation, pipeline.ReadOptions(54))))
    plain = augment(batch["images"], batch["seeds"], Augmentation(), 16)
    predicted = task.model.saved_model(plain).numpy().argmax(axis=1)
    correct = (predicted == batch["labels"]["category"].numpy()).mean()
    assert float(results["category_accuracy"]) == pytest.approx(correct, abs=1e-6)


def test_validations_are_traced_once_for_each_shape_of_their_batches(split, toy_shards, monkeypatch):
    traced = []
    test_step = MultiTaskTrainer.test_step
    monkeypatch.setattr(
        MultiTaskTrainer,
        "test_step",
        lambda trainer, batch: traced.append(batch) or test_step(trainer, batch),
    )
    validation = Split(toy_shards, "validation")
    trainer = compiled(make_task("category", split), micro_batch=16)
    for rows, traces in (50, 1), (50, 1), (54, 2), (50, 2):
        trainer.evaluate(pipeline.eval_batches(validation, pipeline.ReadOptions(rows)), verbose=0)
        assert len(traced) == traces


def test_a_batch_with_a_nan_never_reaches_the_weights(split):
    """The same with and without a poisoned batch in between: weights, batch norm, optimizer."""
    batches = list(pipeline.train_batches(split, pipeline.ReadOptions(8), order.Position()).take(2))
    results = []
    for poisoned in (False, True):
        task = make_task("category", split, TRAINED, "none")
        trainer = compiled(task, micro_batch=4)
        trainer.train_step(batches[0])
        if poisoned:  # the last image of the last micro-batch
            images = batches[1]["images"].numpy().astype(np.float32)
            images[-1] = np.nan
            trainer.train_step(batches[1] | {"images": tf.constant(images)})
            assert trainer.task_metrics[task.name].skipped_steps == 1
        trainer.train_step(batches[1])
        results.append([*weights(task), *(np.asarray(v) for v in task.optimizer.variables)])
        assert all(np.isfinite(weight).all() for weight in results[-1])
        assert np.isfinite(float(trainer.get_metrics_result()["category_loss"]))
    assert_same(*results, atol=0)


def test_float16_overflow_lowers_the_loss_scale_and_leaves_the_weights(split):
    architecture = Architecture("small_cnn", "avg", 8, fine_tune="all", precision="mixed_float16")
    task = make_task("authenticity", split, architecture, "none")
    trainer = compiled(task, micro_batch=4)
    before = [weight.copy() for weight in weights(task)]
    scale = float(task.optimizer.dynamic_scale)
    batch = next(iter(pipeline.train_batches(split, pipeline.ReadOptions(4), order.Position())))
    trainer.train_step(batch | {"images": tf.fill((4, 8, 8, 3), 1e30)})
    assert trainer.task_metrics[task.name].skipped_steps == 1
    assert float(task.optimizer.dynamic_scale) < scale
    assert_same(before, weights(task), atol=0)


def test_logits_of_1e5_in_float16_stay_finite(split):
    """The backbone computes in float16, whose largest number is 65,504; head, loss and metrics in float32."""
    architecture = Architecture("small_cnn", "avg", 8, fine_tune="all", precision="mixed_float16")
    task = make_task("authenticity", split, architecture, "none")
    kernel = task.model.head.get_layer("logits").kernel
    kernel.assign(np.sign(kernel.numpy()) * 1e5)
    trainer = compiled(task, micro_batch=4)
    batch = next(iter(pipeline.train_batches(split, pipeline.ReadOptions(8), order.Position())))
    logits = step.predict([task], batch, micro_batch=4)["authenticity"].numpy()
    assert 65_504 < np.abs(logits).max() < np.inf
    results = trainer.train_step(batch)
    assert np.isfinite([float(results[f"authenticity_{name}"]) for name in ("loss", "accuracy")]).all()
    assert all(np.isfinite(weight).all() for weight in weights(task))


def test_a_loss_scale_that_overflows_is_halved_and_its_step_is_no_bad_one(split):
    architecture = Architecture("small_cnn", "avg", 8, fine_tune="all", precision="mixed_float16")
    task = make_task("category", split, architecture, "none")
    trainer = compiled(task, micro_batch=8)
    task.optimizer.dynamic_scale.assign(2.0**60)
    before = [weight.copy() for weight in weights(task)]
    batch = next(iter(pipeline.train_batches(split, pipeline.ReadOptions(8), order.Position())))
    assert float(trainer.train_step(batch)["category_skipped_steps"]) == 0
    assert float(task.optimizer.dynamic_scale) == 2.0**59
    assert_same(before, weights(task), atol=0)
    task.model.head.get_layer("logits").kernel.assign(np.full((128, 3), np.nan))
    assert float(trainer.train_step(batch)["category_skipped_steps"]) == 1


def test_gradients_that_no_scale_makes_finite_are_bad(split):
    architecture = Architecture("small_cnn", "avg", 8, fine_tune="all", precision="mixed_float16")
    task = make_task("category", split, architecture, "none")
    task.optimizer.build(task.trained_variables)
    logits = tf.zeros((1, 3))
    targets = task.objective.targets(tf.constant([1]), tf.ones(1), None, 3)
    for scale, overflowed in ((2.0, True), (1.0, False)):
        task.optimizer.dynamic_scale.assign(scale)
        assert bool(updates.scale_overflowed(task, targets, logits, tf.constant(False))) is overflowed
        assert not updates.scale_overflowed(task, targets, logits, tf.constant(True))


@pytest.mark.parametrize("architecture", [FROZEN, TRAINED], ids=["frozen", "trained"])
def test_an_empty_batch_changes_nothing(split, architecture):
    task = make_task("category", split, architecture, "none")
    trainer = compiled(task, micro_batch=4)
    before = [weight.copy() for weight in weights(task)]
    batch = next(iter(pipeline.train_batches(split, pipeline.ReadOptions(8), order.Position())))
    results = trainer.train_step(tf.nest.map_structure(lambda part: part[:0], batch))
    assert float(results["category_loss"]) == 0
    trained = [np.isfinite(weight).all() for weight in weights(task)]
    assert all(trained)
    if architecture is FROZEN:
        assert_same(before, weights(task), atol=0)


@pytest.mark.slow
def test_a_nan_image_from_a_custom_reader_is_skipped_and_listed(split, tmp_path):
    """A reader may give float images; what is not a number in them ends in no weight, but in the list."""
    task = make_task("category", split, TRAINED, "none")
    trainer = compiled(task, micro_batch=4)

    def poisoned(batch):
        bad = batch["records"] == 7
        images = tf.where(bad[:, None, None, None], np.nan, tf.cast(batch["images"], tf.float32))
        return batch | {"images": images}

    batches = pipeline.train_batches(split, pipeline.ReadOptions(60), order.Position(3)).map(poisoned)
    path = tmp_path / "non_finite.csv"
    listed = NonFinite(trainer, split, path, State(), rewind=lambda position: None)
    logs = trainer.fit(batches, steps_per_epoch=3, shuffle=False, verbose=0, callbacks=[listed]).history
    assert logs["category_skipped_steps"] == [1]
    assert all(np.isfinite(weight).all() for weight in weights(task))
    lines = path.read_text().splitlines()
    assert len(lines) - 1 in (60, 48)  # the batch it was in
    assert any(split.key(7).decode() in line for line in lines)
