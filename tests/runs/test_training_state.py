import keras
import numpy as np
import pytest

from deepduel.runs import training_state
from deepduel.runs.training_state import State, StateWriter


def variables(value):
    return [keras.Variable(np.full(shape, value, "float32")) for shape in ((3,), (2, 2), ())]


def save(folder, state, variables):
    writer = StateWriter(folder)
    writer.save(state, variables)
    writer.wait()


def values(variables):
    return {float(value) for variable in variables for value in np.ravel(variable)}


def test_what_is_saved_is_loaded(tmp_path):
    state = State(3, 7, [{"epoch": 1, "loss": 0.5}], {"category": (0.9, 2)})
    save(tmp_path, state, variables(1.5))
    fresh = variables(0)
    assert training_state.load(tmp_path, fresh) == (state, [])
    assert values(fresh) == {1.5}


def test_no_state_is_none(tmp_path):
    assert training_state.load(tmp_path / "nowhere", variables(0)) == (None, [])


def test_the_two_newest_are_kept(tmp_path):
    for epoch in range(1, 12):
        save(tmp_path, State(epoch), variables(epoch))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "state-000010-000000000.npz",
        "state-000011-000000000.npz",
    ]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_newest_state_falls_back_to_the_one_before(tmp_path, damage):
    save(tmp_path, State(1), variables(1))
    save(tmp_path, State(2), variables(2))
    newest = tmp_path / "state-000002-000000000.npz"
    data = bytearray(newest.read_bytes())
    at = data.find(np.float32(2).tobytes() * 3)  # the first array's values
    assert at > 0
    data[at] ^= 1
    newest.write_bytes({"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage])
    fresh = variables(0)
    state, lines = training_state.load(tmp_path, fresh)
    assert state.epoch == 1
    assert values(fresh) == {1.0}
    assert len(lines) == 1
    assert "state-000002-000000000.npz: damaged" in lines[0]


def test_a_partial_file_is_no_state(tmp_path):
    save(tmp_path, State(1), variables(1))
    (tmp_path / ".state-000002-000000000.npz.partial").write_bytes(b"half")
    assert training_state.load(tmp_path, variables(0))[0].epoch == 1


def test_the_state_of_another_network_is_not_taken(tmp_path):
    save(tmp_path, State(1), variables(1))
    other = [keras.Variable(np.zeros((5,), "float32"))]
    state, lines = training_state.load(tmp_path, other)
    assert state is None
    assert "its variables are not those of this run" in lines[0]


def test_the_state_of_an_earlier_version_leaves_later_variables_alone(tmp_path):
    save(tmp_path, State(1), variables(1))
    later = [*variables(0), keras.Variable(np.full((2,), 7, "float32"))]
    assert training_state.load(tmp_path, later)[0].epoch == 1
    assert values(later[:-1]) == {1.0}
    assert values(later[-1:]) == {7.0}


def test_a_state_is_what_the_variables_were_when_it_was_saved(tmp_path):
    """The file is written by a thread; training continues meanwhile."""
    writer, trained = StateWriter(tmp_path), variables(1)
    for epoch in range(1, 4):
        writer.save(State(epoch), trained)
        for variable in trained:
            variable.assign(variable + 1)
    writer.wait()
    fresh = variables(0)
    assert training_state.load(tmp_path, fresh)[0].epoch == 3
    assert values(fresh) == {3.0}


def test_a_state_that_cannot_be_written_is_an_error_of_the_run(tmp_path):
    (tmp_path / "resume").write_text("in the way")
    writer = StateWriter(tmp_path / "resume")
    writer.save(State(1), variables(1))
    with pytest.raises(OSError, match="resume"):
        writer.wait()
