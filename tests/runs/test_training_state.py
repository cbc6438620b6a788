import dataclasses
import json
import tracemalloc
import warnings
import zipfile

import keras
import numpy as np
import pytest

from deepduel.runs import training_state
from deepduel.runs.training_state import Snapshot, State, StateWriter


def variables(value):
    return [keras.Variable(np.full(shape, value, "float32")) for shape in ((3,), (2, 2), ())]


def save(folder, state, variables):
    writer = StateWriter(folder)
    writer.save(Snapshot.of(state, variables))
    writer.wait()


def values(variables):
    return {float(value) for variable in variables for value in np.ravel(variable)}


def test_what_is_saved_is_loaded(tmp_path):
    state = State(3, 7, [{"epoch": 1, "loss": 0.5, "seconds": 2.0}], {"category": (0.9, 2)})
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
        writer.save(Snapshot.of(State(epoch), trained))
        for variable in trained:
            variable.assign(variable + 1)
    writer.wait()
    fresh = variables(0)
    assert training_state.load(tmp_path, fresh)[0].epoch == 3
    assert values(fresh) == {3.0}


def test_a_state_that_cannot_be_written_is_an_error_of_the_run(tmp_path):
    (tmp_path / "resume").write_text("in the way")
    writer = StateWriter(tmp_path / "resume")
    writer.save(Snapshot.of(State(1), variables(1)))
    with pytest.raises(OSError, match="resume"):
        writer.wait()


def arrays(**about):
    """The arrays of a state of `variables`, whose document has these fields."""
    fields = dataclasses.asdict(State(1)) | about
    values = {f"v{number}": variable.numpy() for number, variable in enumerate(variables(1))}
    return values | {"about": np.frombuffer(json.dumps(fields).encode(), np.uint8)}


DEEP = np.frombuffer(b"[" * 100_000, np.uint8)


@pytest.mark.parametrize(
    "hostile",
    [
        arrays(epoch=-1),
        arrays(epoch="1"),
        arrays(step=1 << 70),
        arrays(history=[{"loss": 1.0}]),
        arrays(history=[{"seconds": 0.0}]),
        arrays(history=[{"seconds": "1"}]),
        arrays(history=3),
        arrays(best={"..": [0.5, 1]}),
        arrays(best={"a": 1}),
        arrays(stopped={"a/b": 1}),
        arrays() | {"about": DEEP},
        arrays() | {"about": np.array([{}], object)},
        arrays() | {"v0": np.array([{}, {}, {}], object)},
        arrays() | {"v0": np.array(["a", "b", "c"])},
        arrays() | {"v0": np.zeros(1 << 22, np.float32)},
        {name: value for name, value in arrays().items() if name != "v1"},
        {name: value for name, value in arrays().items() if name != "about"},
        {},
    ],
)
def test_a_hostile_state_is_passed_over_with_one_line(tmp_path, hostile):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez_compressed(tmp_path / "state-000001-000000000.npz", **hostile)
    fresh = variables(0)
    state, lines = training_state.load(tmp_path, fresh)
    assert (state, values(fresh), len(lines)) == (None, {0.0}, 1)
    assert "\n" not in lines[0]


def test_an_array_that_inflates_is_refused_before_it_is_read(tmp_path):
    """A 400 kB file of 400 MB of zeros."""
    path = tmp_path / "state-000001-000000000.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("about", "v0", "v1", "v2"):
            with archive.open(f"{name}.npy", "w") as file:
                for _ in range(100 if name == "about" else 1):
                    file.write(bytes(4 << 20))
    tracemalloc.start()
    state, lines = training_state.load(tmp_path, variables(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert state is None
    assert "is larger than that of this run" in lines[0]
    assert peak < 20e6
