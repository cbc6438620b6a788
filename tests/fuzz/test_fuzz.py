"""Damaged files of every kind: whatever is in them, the answer is one line, or sound data.

Longer: `make fuzz`. A case that once went wrong is a file of tests/fuzz/corpus/TARGET and is tried each time.
"""

import contextlib
import csv
import hashlib
import io
import json
import pathlib
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from deepduel.decoding.split import Split
from deepduel.evaluation import calibration, saved_evaluation
from deepduel.networks.run_card import RunCard
from deepduel.runs import training_state
from tests.fuzz.mutations import NAMES, damaged_bytes, damaged_documents
from tests.helpers import bombs, folders, odd_images
from tfrecords_tools.checking import audit
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format import manifest as manifests
from tfrecords_tools.format import records
from tfrecords_tools.images import image
from tfrecords_tools.images.stored import stored_pixels
from tfrecords_tools.listing import folder as listing_folder

CORPUS = pathlib.Path(__file__).parent / "corpus"
FUZZ = hypothesis.settings.get_profile("fuzz")


@contextlib.contextmanager
def one_line_or_none():
    """Lets DataError and UsageError pass that are one line, and nothing else."""
    try:
        yield
    except (DataError, UsageError) as error:
        assert str(error).isprintable(), repr(str(error))


@pytest.fixture
def folder(sound, tmp_path) -> pathlib.Path:
    return shutil.copytree(sound, tmp_path / "shards")


def read_all(folder: pathlib.Path) -> None:
    """Opens a folder of shards and reads every record of it, as the readers and `verify` do."""
    with one_line_or_none():
        for name in manifests.load(folder).splits:
            with one_line_or_none():
                split = Split(folder, name)
                for record in range(min(len(split), 10)):
                    for read in (split.pixels, split.key, split.image):
                        with one_line_or_none():
                            read(record)
                    assert split.where(record).isprintable()
    with one_line_or_none():
        for damage in audit.audit(str(folder), decode=True)[1]:
            assert str(damage).isprintable()


def rewritten(folder: pathlib.Path, document: object) -> None:
    """Writes a manifest whose checksum fits, as an attacker would."""
    with contextlib.suppress(UnicodeEncodeError, TypeError):  # half a character; no object
        document["checksum"] = manifests._checksum(document)
    (folder / "manifest.json").write_text(json.dumps(document))


@hypothesis.settings(FUZZ)
@hypothesis.given(data=st.data())
def test_manifests(folder, sound, data):
    document = json.loads((sound / "manifest.json").read_text("utf-8"))
    rewritten(folder, data.draw(damaged_documents(document)))
    read_all(folder)
    assert not list(folder.parent.parent.glob("up*"))


@hypothesis.settings(FUZZ)
@hypothesis.given(data=st.data())
def test_manifests_byte_by_byte(folder, sound, data):
    (folder / "manifest.json").write_bytes(data.draw(damaged_bytes((sound / "manifest.json").read_bytes())))
    read_all(folder)


@pytest.mark.parametrize("ending", ["", ".npy", ".idx"])
@hypothesis.settings(FUZZ)
@hypothesis.given(data=st.data())
def test_shards_and_their_tables(folder, sound, data, ending):
    (name,) = (path.name for path in sound.glob(f"*-train.*-00001{ending}"))
    changed = data.draw(damaged_bytes((sound / name).read_bytes()))
    (folder / name).write_bytes(changed)
    document = json.loads((sound / "manifest.json").read_text("utf-8"))
    (entry,) = document["splits"]["train"]["shards"]
    if not ending:
        entry["bytes"] = len(changed)
    if data.draw(st.booleans()):  # an attacker's sums fit
        entry["sha256"][ending] = hashlib.sha256(changed).hexdigest()
    rewritten(folder, document)
    read_all(folder)


@hypothesis.settings(FUZZ)
@hypothesis.given(data=st.data())
def test_values_of_tables(folder, sound, data):
    (path,) = sound.glob("*-train.*-00001.npy")
    table = np.load(path)
    for _ in range(data.draw(st.integers(1, 3))):
        column = data.draw(st.sampled_from(table.dtype.names))
        bits = 63 if table.dtype[column].itemsize == 8 else 31
        value = data.draw(st.sampled_from([-1, 0, 1, 2, 3, 77, 2**bits - 1, -(2**bits), 1 << 20]))
        table[data.draw(st.integers(0, len(table) - 1))][column] = value
    np.save(folder / path.name, table)
    read_all(folder)


CARD = {
    "tasks": {"category": {"classes": ["a", "b"], "image_size": 8, "crop_size": 0}},
    "size": [16, 16], "fit": "crop", "fast_decode": False,
    "data_name": "images", "data_source": "0", "seed": 0,
}  # fmt: skip
METRICS = {"about": {"model_sha256": {"category": "0"}},
           "tasks": {"category": {"calibration": {"temperature": 1.0, "threshold": None}}}}  # fmt: skip


@hypothesis.settings(FUZZ)
@hypothesis.given(document=damaged_documents(CARD))
def test_run_cards(tmp_path, document):
    (tmp_path / "run.json").write_text(json.dumps(document))
    with one_line_or_none():
        card = RunCard.load(tmp_path)
        for axis in card.tasks:
            assert (tmp_path / axis).parent == tmp_path
        assert max(card.size) <= 1 << 14


@hypothesis.settings(FUZZ)
@hypothesis.given(data=st.data())
def test_saved_evaluations(tmp_path, data):
    (tmp_path / "evaluation" / "test").mkdir(parents=True, exist_ok=True)
    text = json.dumps(data.draw(damaged_documents(METRICS)))
    (tmp_path / "evaluation" / "test" / "metrics.json").write_text(text)
    table = b"key,category,category_predicted,p_category_a,p_category_b\nx,a,b,0.5,0.5\n"
    (tmp_path / "evaluation" / "test" / "predictions.csv").write_bytes(data.draw(damaged_bytes(table)))
    with one_line_or_none():
        fitted = calibration.load(tmp_path, "test", {"category": "0"})["category"]
        assert np.isfinite(fitted.probabilities(np.array([[0.5, 0.5], [0.0, 1.0]]))).all()
    with one_line_or_none():
        saved_evaluation.read(tmp_path, "test")


@hypothesis.settings(FUZZ)
@hypothesis.given(data=st.data())
def test_training_states(tmp_path, data):
    import keras

    variables = [keras.Variable(np.zeros(3, np.float32))]
    about = {"epoch": 1, "step": 2, "history": [{"epoch": 1, "seconds": 2.0}], "best": {"a": [0.5, 1]},
             "stopped": {}}  # fmt: skip
    if damage_about := data.draw(st.booleans()):
        about = data.draw(damaged_documents(about))
    stream = io.BytesIO()
    np.savez(stream, v0=np.ones(3, np.float32), about=np.frombuffer(json.dumps(about).encode(), np.uint8))
    content = stream.getvalue() if damage_about else data.draw(damaged_bytes(stream.getvalue()))
    (tmp_path / "state-000001-000000002.npz").write_bytes(content)
    state, lines = training_state.load(tmp_path, variables)
    assert (state is None) == bool(lines)
    assert all(line.isprintable() for line in lines)
    if state is not None:
        assert all(seconds > 0 for seconds in state.epoch_seconds)


IMAGES = {
    **odd_images.kept(),
    **{name: data for name, (data, _) in {**odd_images.reencoded(), **odd_images.rejected()}.items()},
    "tile.tif": bombs.tiff_tile(64),
    "scans.jpg": bombs.scans(16, 20),
    "icon.ico": bombs.icon(bombs.png(8, 8)),
}


def decode_every_way(data: bytes) -> None:
    for result in (image.check(data), image.pixels(data)):
        if isinstance(result, image.Rejected):
            assert result.reason
    for encoding in records.ENCODINGS:
        with contextlib.suppress(ValueError):
            assert stored_pixels(data, encoding, 24, 32).shape == (24, 32, 3)


@hypothesis.settings(FUZZ, max_examples=FUZZ.max_examples * 4)
@hypothesis.given(data=st.data())
def test_images(data):
    decode_every_way(data.draw(damaged_bytes(IMAGES[data.draw(st.sampled_from(sorted(IMAGES)))])))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> pathlib.Path:
    return folders.make(tmp_path_factory.mktemp("fuzz") / "images", {".": 4})


CELLS = NAMES | st.sampled_from(["0.jpg", "1.jpg", "./2.jpg", "train", "test", "0", "1", "cats", "=1+1"])


@hypothesis.settings(FUZZ)
@hypothesis.given(
    header=st.lists(
        st.sampled_from(["image_path", "class", "label", "split", "path", "x"]) | NAMES, max_size=4
    ),
    rows=st.lists(st.lists(CELLS, max_size=4), max_size=5),
    end=st.binary(max_size=6),
)
def test_metadata(labelled, header, rows, end):
    stream = io.StringIO()
    csv.writer(stream).writerows([header, *rows])
    (labelled / "metadata.csv").write_bytes(stream.getvalue().encode("utf-8", "backslashreplace") + end)
    with one_line_or_none():
        for names in listing_folder.scan(str(labelled)).axes.values():
            assert all("\n" not in name for name in names)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("tables/*")), ids=lambda path: path.name)
def test_tables_that_once_went_wrong(folder, path):
    (name,) = (table.name for table in folder.glob("*-train.*-00001.npy"))
    (folder / name).write_bytes(path.read_bytes())
    document = json.loads((folder / "manifest.json").read_text("utf-8"))
    document["splits"]["train"]["shards"][0]["sha256"][".npy"] = hashlib.sha256(path.read_bytes()).hexdigest()
    rewritten(folder, document)
    with pytest.raises(DataError, match=f"{name}: "):
        Split(folder, "train")
    read_all(folder)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("manifests/*")), ids=lambda path: path.name)
def test_manifests_that_once_went_wrong(folder, path):
    rewritten(folder, json.loads(path.read_text("utf-8")))
    with pytest.raises(DataError, match="cannot hold"):
        manifests.load(folder)
    read_all(folder)
