import keras
import numpy as np
import pytest

from deepduel.decoding.split import Split
from deepduel.reading import order, pipeline
from deepduel.runs import training_state
from deepduel.runs.checkpointing import Checkpoint
from deepduel.runs.loss_range import LossRange
from deepduel.runs.non_finite import NonFinite
from deepduel.runs.options import SaveInterval
from deepduel.runs.stopping import StopRequest
from deepduel.runs.training_state import Snapshot, State
from tests.helpers.tasks import compiled, make
from tfrecords_tools.errors import DataError


def test_a_run_whose_rate_explodes_keeps_the_state_from_before(toy_shards, tmp_path):
    """Step 4 gets a rate of 1e30, so that the weights after it are finite and useless."""
    split = Split(toy_shards, "train")
    task = make("category", split)
    trainer, state = compiled(task, micro_batch=8), State()
    checkpoint = Checkpoint(
        trainer, tmp_path, state, interval=SaveInterval(None, 1), steps_per_epoch=40, stop=StopRequest()
    )

    def explode(step, logs):
        if step == 3:
            task.optimizer.learning_rate.assign(1e30)

    listed = [
        LossRange(trainer, state),
        NonFinite(trainer, split, tmp_path / "non_finite.csv", state, rewind=checkpoint.rewind),
        checkpoint,
        keras.callbacks.LambdaCallback(on_train_batch_end=explode),
    ]
    batches = pipeline.train_batches(split, pipeline.ReadOptions(4), order.Position(3))
    with pytest.raises(DataError) as error:
        trainer.fit(batches, steps_per_epoch=40, shuffle=False, verbose=0, callbacks=listed)
    assert "the loss was last up to 11.0 at epoch 1, step 4" in str(error.value)
    assert "the learning rate (1e+30)" in str(error.value)
    assert "The last good state is that of epoch 1, step 4" in str(error.value)
    assert [path.name for path in tmp_path.glob("state-*")] == ["state-000000-000000004.npz"]
    training_state.load(tmp_path, trainer.state_variables())
    assert max(np.abs(weight).max() for weight in task.model.head.get_weights()) < 10


def test_a_list_that_a_kill_cut_off_is_continued(toy_shards, tmp_path):
    split, path = Split(toy_shards, "train"), tmp_path / "non_finite.csv"
    trainer = compiled(make("category", split))
    listed = NonFinite(trainer, split, path, State(), rewind=lambda position: None)
    head, row = b"task,epoch,step,key\r\n", b"category,1,3,a.jpg\r\n"
    for end in (b"", b"category,2,1", b'category,2,1,"k', "category,2,1,ü".encode()[:-1]):
        path.write_bytes(head + row + end)
        listed.start(1, 1)  # the second epoch, before its second step
        assert path.read_bytes() == head + row
    path.write_bytes(b"")
    listed.start(1, 1)
    assert path.read_bytes() == head


def test_the_newest_state_that_is_known_to_be_good_is_kept_beside_the_two_newest(tmp_path):
    writer, weight = training_state.StateWriter(tmp_path), keras.Variable([1.0])
    for step in range(1, 7):
        state = State(0, step, in_range={"a": (0, min(step, 3)), "b": (0, step)})
        writer.save(Snapshot.of(state, [weight]))
    writer.wait()
    steps = sorted(int(path.stem[-9:]) for path in tmp_path.glob("state-*"))
    assert steps == [3, 5, 6]
    assert training_state.remove_after(tmp_path, (0, 3)) == (0, 3)
    state, damaged = training_state.load(tmp_path, [weight])
    assert (state.step, state.in_range, damaged) == (3, {"a": (0, 3), "b": (0, 3)}, [])
    assert training_state.remove_after(tmp_path, (0, 2)) is None
