"""Two heads on one backbone: its gradient is that of the sum of their losses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deepduel import evaluate, predict, train
from deepduel.augment import PRESETS, augment
from deepduel.decoding.split import Split
from deepduel.networks import task_model
from deepduel.networks.architecture import Architecture
from deepduel.reading import order, pipeline
from deepduel.training.task import Task
from deepduel.training.trainer import MultiTaskTrainer
from tests.conftest import TOY_TRAINING, run_command

pytestmark = pytest.mark.numeric

AXES = ("category", "authenticity")


@pytest.fixture(scope="module")
def split(toy_shards):
    return Split(toy_shards, "train")


def shared_tasks(split, optimizers, **fields) -> list[Task]:
    architecture = Architecture("small_cnn", "avg,dropout:0.5,dense:8", 16, **fields)
    tasks: list[Task] = []
    for axis, optimizer in zip(AXES, optimizers, strict=True):
        extractor = tasks[0].model.extractor if tasks else None
        model = task_model.build(axis, architecture, split.manifest.axes[axis], seed=1, extractor=extractor)
        tasks.append(Task(axis, model, PRESETS["forensic"], optimizer, shares_extractor=bool(tasks)))
    return tasks


def fit(tasks, split, *, steps=4, micro_batch=16):
    trainer = MultiTaskTrainer(tasks, micro_batch=micro_batch)
    trainer.compile()
    batches = pipeline.train_batches(split, pipeline.ReadOptions(50), order.Position(3))
    trainer.fit(batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
    return trainer


def weights(tasks) -> list[np.ndarray]:
    return [*tasks[0].model.extractor.get_weights(), *(w for t in tasks for w in t.model.head.get_weights())]


@pytest.mark.slow
@pytest.mark.parametrize("fine_tune", ["none", pytest.param("last:3", marks=pytest.mark.scale), "all"])
def test_trains_by_the_sum_of_the_losses_as_in_plain_keras(split, fine_tune):
    fields = {"fine_tune": fine_tune, "batch_norm": "auto" if fine_tune == "none" else "frozen"}
    ours = shared_tasks(split, [keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05)], **fields)
    fit(ours, split)

    plain = shared_tasks(split, [None, None], **fields)
    extractor, heads = plain[0].model.extractor, [task.model.head for task in plain]
    variables = [variable for task in plain for variable in task.trained_variables]
    optimizer = keras.optimizers.SGD(0.05)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for batch in pipeline.train_batches(split, pipeline.ReadOptions(50), order.Position(3)).take(4):
        pixels = augment(batch["images"], batch["seeds"], PRESETS["forensic"], 16)
        with tf.GradientTape() as tape:
            features = extractor(pixels, training=False)
            losses = [
                cross_entropy(batch["labels"][axis], head(features, training=True))
                for axis, head in zip(AXES, heads, strict=True)
            ]
            loss = sum(losses)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    for a, b in zip(weights(ours), weights(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_the_loss_scale_of_float16_does_not_show_in_the_other_head(split):
    head_weights = []
    for scale in (1.0, 1024.0):
        first = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=scale)
        tasks = shared_tasks(
            split,
            [first, keras.optimizers.SGD(0.05)],
            fine_tune="all",
            batch_norm="frozen",
            precision="mixed_float16",
        )
        fit(tasks, split, steps=1)
        head_weights.append(tasks[1].model.head.get_weights())
    for a, b in zip(*head_weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def convolutions(model) -> int:
    return sum(
        convolutions(layer) if isinstance(layer, keras.Model) else isinstance(layer, keras.layers.Conv2D)
        for layer in model.layers
    )


@pytest.mark.slow
def test_images_pass_through_the_backbone_once(split):
    for trained in ("all", "none"):
        tasks = shared_tasks(split, [keras.optimizers.SGD(), keras.optimizers.SGD()], fine_tune=trained)
        trainer = fit(tasks, split, steps=1)
        batch = next(iter(pipeline.train_batches(split, pipeline.ReadOptions(50), order.Position())))
        graph = tf.function(trainer.train_step, autograph=False).get_concrete_function(batch).graph
        functions = graph.as_graph_def().library.function
        passes = [
            sum(node.op == "Conv2D" for node in function.node_def)
            for function in functions
            if "while" in function.signature.name
        ]
        assert max(passes) == convolutions(tasks[0].model.extractor)


WORDS = (*TOY_TRAINING, "--shared_backbone")


@pytest.fixture(scope="module")
def run(toy_shards, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("shared") / "run"
    words = f"--data_dir={toy_shards}", f"--workdir={workdir}", *WORDS, "--epochs=2", "--ema=0.9"
    assert run_command(train, *words) == 0
    return workdir


@pytest.mark.slow
def test_each_task_has_a_whole_model_with_the_same_backbone(run):
    both = [keras.models.load_model(run / axis / "epoch-02.keras") for axis in AXES]
    backbones = [model.get_weights()[:-2] for model in both]  # the last two are the head's
    assert len(backbones[0]) == 45
    for one, other in zip(*backbones, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [model.output.shape[1] for model in both] == [3, 2]


@pytest.mark.slow
def test_a_run_resumes_to_the_same_weights(run, toy_shards, tmp_path):
    words = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *WORDS, "--ema=0.9"
    assert run_command(train, *words, "--epochs=1") == 0
    assert run_command(train, *words, "--epochs=2") == 0
    for axis in AXES:
        one, other = (
            keras.models.load_model(folder / axis / "epoch-02.keras").get_weights()
            for folder in (run, tmp_path / "run")
        )
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_it_is_evaluated_and_predicts_like_any_run(run, toy_shards, toy_folder, tmp_path):
    assert run_command(evaluate, f"--workdir={run}", f"--data_dir={toy_shards}", "--bootstrap=0") == 0
    output = tmp_path / "found.csv"
    words = f"--workdir={run}", f"--images={toy_folder}/test", f"--output={output}"
    assert run_command(predict, *words) == 0
    assert len(output.read_text().splitlines()) == 19


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tasks=category"], "needs two or more tasks, got category alone"),
        (["--backbone=authenticity=forensic_cnn"], "category and authenticity differ in backbone"),
        (["--head=authenticity=max"], "differ in the pooling of head"),
        (["--augmentation=authenticity=light"], "differ in their augmentation"),
        (["--ema=category=0.9"], "differ in ema"),
        (["--early_stopping=2"], "early_stopping would stop category alone"),
    ],
)
def test_tasks_that_cannot_share_are_refused(words, says, toy_shards, tmp_path, capsys):
    command = f"--data_dir={toy_shards}", f"--workdir={tmp_path}/run", *WORDS, *words
    assert run_command(train, *command) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
