"""Prediction: a row per image in the order of names, whatever lies in the folder."""

import csv
import functools
import http.server
import io
import json
import os
import pathlib
import re
import shutil
import threading
import weakref

import fsspec
import numpy as np
import pytest
from PIL import Image

from deepduel import predict
from deepduel.decoding.image import DecodeOptions
from deepduel.decoding.split import Split
from deepduel.prediction import fetching, image_predictions, sources, submission
from deepduel.prediction.predictor import Predictor
from tests.conftest import run_command
from tests.helpers.batches import spoil
from tests.helpers.fake_runs import write_run
from tfrecords_tools.errors import DataError


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, toy_shards):
    return write_run(tmp_path_factory.mktemp("predict") / "run", toy_shards)


def _predict(run_folder, images, output, *more) -> int:
    images = [images] if isinstance(images, str | pathlib.Path) else images
    return run_command(
        predict, f"--workdir={run_folder}", *(f"--images={i}" for i in images), f"--output={output}", *more
    )


def _rows(path):
    with pathlib.Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _picture(size, seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def odd_folder(tmp_path):
    """Images of many sizes and formats, nested, and files that are none."""
    folder = tmp_path / "odd"
    (folder / "deep" / "er").mkdir(parents=True)
    _picture((32, 32), 1).save(folder / "b.jpg", quality=95)
    _picture((200, 90), 2).save(folder / "a.png")
    _picture((31, 45), 3, "RGBA").save(folder / "deep" / "alpha.png")
    _picture((64, 64), 4, "L").save(folder / "deep" / "er" / "gray.jpeg")
    _picture((1, 1), 5).save(folder / "deep" / "one pixel, comma.webp", lossless=True)
    _picture((40, 40), 6, "CMYK").save(folder / "cmyk.jpg")
    _picture((40, 40), 7).save(folder / "no_ending", "PNG")
    (folder / "broken.jpg").write_bytes((folder / "b.jpg").read_bytes()[:200])
    (folder / "text.jpg").write_text("no image at all")
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("notes")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    return folder


GOOD = [
    "a.png",
    "b.jpg",
    "cmyk.jpg",
    "deep/alpha.png",
    "deep/er/gray.jpeg",
    "deep/one pixel, comma.webp",
    "no_ending",
]
BAD = ["broken.jpg", "empty.png", "gone.jpg", "notes.txt", "text.jpg"]


def test_rows_are_the_readable_images_sorted_by_name(run_folder, odd_folder, tmp_path, capsys):
    assert _predict(run_folder, odd_folder, tmp_path / "out.csv") == 0
    rows = _rows(tmp_path / "out.csv")
    assert [row["image"] for row in rows] == GOOD
    assert all(
        row["label"] in "01" and row["class"] in ("animals", "human_faces", "vehicles") for row in rows
    )
    rejected = _rows(tmp_path / "out.rejected.csv")
    assert sorted(row["image"] for row in rejected) == BAD
    assert all(row["reason"] for row in rejected)
    said = capsys.readouterr()
    assert f"{len(BAD)} files" in said.err and "out.rejected.csv" in said.err
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]


def test_the_header_is_that_of_a_submission(run_folder, toy_folder, tmp_path):
    assert _predict(run_folder, toy_folder / "test", tmp_path / "out.csv") == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "image,label,class"
    assert len(lines) == 1 + len(list((toy_folder / "test").iterdir()))
    assert not (tmp_path / "out.rejected.csv").exists()


@pytest.mark.slow
def test_files_and_shards_of_the_same_images_get_the_same_probabilities(
    run_folder, toy_folder, toy_shards, tmp_path
):
    assert (
        _predict(run_folder, toy_folder / "test", tmp_path / "f.csv", "--probabilities", "--batch_size=5")
        == 0
    )
    assert _predict(run_folder, toy_shards, tmp_path / "s.csv", "--probabilities", "--split=test") == 0
    files, shards = _rows(tmp_path / "f.csv"), _rows(tmp_path / "s.csv")
    assert [f"test/{row['image']}" for row in files] == [row["image"] for row in shards]
    for one, other in zip(files, shards, strict=True):
        for name in (name for name in one if name.startswith("p_")):
            assert float(one[name]) == pytest.approx(float(other[name]), abs=1e-4)


def test_rows_are_what_the_model_says_of_the_pixels(run_folder, toy_folder, tmp_path):
    """Predictions against plain Keras on pixels read by Pillow."""
    import keras
    import tensorflow as tf

    assert _predict(run_folder, toy_folder / "test", tmp_path / "out.csv", "--probabilities") == 0
    rows = _rows(tmp_path / "out.csv")
    pixels = np.stack([np.asarray(Image.open(toy_folder / "test" / row["image"])) for row in rows])
    inputs = tf.image.resize(pixels, (24, 24))
    model = keras.models.load_model(run_folder / "category" / "best.keras")
    expected = np.asarray(model.predict(inputs, verbose=0))
    classes = ("animals", "human_faces", "vehicles")
    predicted = np.array([[float(row[f"p_category_{name}"]) for name in classes] for row in rows])
    np.testing.assert_allclose(predicted, expected, atol=1e-4)
    assert [row["class"] for row in rows] == [classes[number] for number in expected.argmax(1)]
    assert len({tuple(row) for row in predicted}) > 10  # a constant would prove nothing


def test_json_lines_hold_the_same_as_the_csv(run_folder, odd_folder, tmp_path):
    assert _predict(run_folder, odd_folder, tmp_path / "out.jsonl", "--probabilities") == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [line["image"] for line in lines] == GOOD
    with submission.Writer(tmp_path / "out.csv", list(lines[0]), form="csv") as writer:
        for line in lines:
            writer.write(list(line.values()))
        writer.publish()
    assert [{key: str(value) for key, value in line.items()} for line in lines] == _rows(tmp_path / "out.csv")
    for line in lines:
        assert line["label"] in (0, 1)
        assert sum(value for name, value in line.items() if name.startswith("p_category")) == pytest.approx(
            1, abs=1e-5
        )


def test_files_and_patterns_keep_the_paths_as_given(run_folder, odd_folder, tmp_path):
    one = odd_folder / "no_ending"
    assert _predict(run_folder, [one, f"{odd_folder}/**/*.png"], tmp_path / "out.csv") == 0
    names = [row["image"] for row in _rows(tmp_path / "out.csv")]
    assert names == sorted(
        str(path) for path in (one, odd_folder / "a.png", odd_folder / "deep" / "alpha.png")
    )
    assert [row["image"] for row in _rows(tmp_path / "out.rejected.csv")] == [str(odd_folder / "empty.png")]


def test_one_image_is_enough(run_folder, tmp_path):
    _picture((5, 300)).save(tmp_path / "thin.bmp")
    assert _predict(run_folder, tmp_path / "thin.bmp", tmp_path / "out.csv") == 0
    assert len(_rows(tmp_path / "out.csv")) == 1


def test_file_names_of_any_bytes_have_rows(run_folder, tmp_path):
    import os

    folder = tmp_path / "names"
    folder.mkdir()
    stream = io.BytesIO()
    _picture((32, 32)).save(stream, "PNG")
    names = [b"caf\xe9.png", "ü.png".encode(), b"new\nline.png", b'quo"te.png']
    for name in names:
        pathlib.Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(stream.getvalue())
    assert _predict(run_folder, folder, tmp_path / "out.csv") == 0
    assert [row["image"] for row in _rows(tmp_path / "out.csv")] == [
        "caf\\xe9.png",
        "new\nline.png",
        'quo"te.png',
        "ü.png",
    ]


def test_files_are_read_as_the_images_of_the_run_unless_flags_say_otherwise(run_folder, tmp_path, capsys):
    run = shutil.copytree(run_folder, tmp_path / "run")
    card = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(card | {"data_options": {"alpha": "white", "seed": 0}}))
    transparent = _picture((32, 32), 1, "RGBA")
    transparent.putalpha(128)
    white = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
    folder = tmp_path / "images"
    folder.mkdir()
    transparent.save(folder / "transparent.png")
    white.convert("RGB").save(folder / "on_white.png")

    def is_on_white(*more) -> bool:
        assert _predict(run, folder, tmp_path / "out.csv", "--probabilities", *more) == 0
        one, other = _rows(tmp_path / "out.csv")
        return [*one.values()][1:] == [*other.values()][1:]

    assert is_on_white() and not is_on_white("--alpha=drop")
    assert _predict(run, folder, tmp_path / "out.csv", "--alpha=paper") == 2
    assert "--alpha=paper: must be drop, the name of a colour" in capsys.readouterr().err
    (run / "run.json").write_text(json.dumps(card | {"data_options": {"image_size": "large"}}))
    assert _predict(run, folder, tmp_path / "out.csv") == 1
    assert "run.json: data_options are those of no conversion (Expected `int`" in capsys.readouterr().err


def test_pixels_from_files_equal_those_of_conversion(toy_folder, toy_shards):
    from deepduel.decoding.split import Split

    decoding = DecodeOptions((32, 32))
    files = sources.open_source([str(toy_folder / "test")], decoding)
    shards = sources.open_source([str(toy_shards)], decoding, split="test")
    assert isinstance(shards, sources.Shards) and len(files) == len(Split(toy_shards, "test"))
    numbers = np.arange(len(files))
    np.testing.assert_array_equal(files.read(numbers, 20)[0], shards.read(numbers, 20)[0])


def test_reading_files_uses_memory_again(toy_folder):
    decoding = DecodeOptions((32, 32))
    source = sources.open_source([str(toy_folder / "test")], decoding)
    first, _ = source.read(np.arange(7), 7)
    memory, pixels = weakref.ref(first.base), first.copy()
    second, _ = source.read(np.arange(7, 14), 7)
    assert second.base is not memory()
    del first
    again, _ = source.read(np.arange(5), 7)
    assert again.base is memory()
    assert (again[:5] == pixels[:5]).all()
    assert not again[5:].any()  # the padding, though images were there


def test_batches_have_one_shape_and_every_image_once(toy_folder):
    decoding = DecodeOptions((20, 30), "pad")
    source = sources.open_source([str(toy_folder / "test")], decoding)
    batches = list(sources.batches(source, 7, decoding))
    assert {tuple(batch["images"].shape) for batch in batches} == {(7, 20, 30, 3)}
    numbers = np.concatenate([batch["numbers"] for batch in batches])
    assert numbers[numbers >= 0].tolist() == list(range(len(source)))


def test_axes_of_their_own_get_columns_of_their_own():
    columns = submission.Columns({"generator": ("gan", "sd"), "authenticity": ("real", "fake")})
    assert columns.header == ["image", "label", "generator"]
    one = {"generator": np.array([0.2, 0.8]), "authenticity": np.array([0.9, 0.1])}
    pixels = np.zeros((4, 4, 3), np.uint8)
    predicted = image_predictions.ImagePrediction("x", "", pixels, one, {"generator": 1, "authenticity": 0})
    assert columns.row(predicted) == ["x", 0, "sd"]
    chosen = "id=image", "p_generator_gan", "confidence_authenticity", "real=p_authenticity_real"
    columns = submission.Columns(
        {"generator": ("gan", "sd"), "authenticity": ("real", "fake")}, columns=chosen
    )
    assert columns.header == ["id", "p_generator_gan", "confidence_authenticity", "real"]
    assert columns.row(predicted) == ["x", 0.2, 0.9, 0.9]
    assert submission.Columns({"category": ("a", "b")}).header == ["image", "class"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            ["image", "lable"],
            "no column 'lable'; there are image, class, confidence, p_category_a, p_category_b",
        ),
        (["confidence_category"], "no column 'confidence_category'"),
        ([], "names no column; there are image"),
        (["image", "image=class"], "give each another name"),
    ],
)
def test_a_mistyped_column_is_an_error_that_names_those_there_are(columns, words):
    with pytest.raises(submission.UsageError, match=words):
        submission.Columns({"category": ("a", "b")}, columns=columns)


def test_of_many_columns_the_similar_ones_are_named():
    names = tuple(f"breed{number:03d}" for number in range(500))
    with pytest.raises(submission.UsageError, match=r"among 503 there are .*p_category_breed007") as error:
        submission.Columns({"category": names}, columns=["p_category_bred007"])
    assert len(str(error.value)) < 700


@pytest.mark.slow
def test_heat_maps_are_written_beside_the_images(run_folder, odd_folder, tmp_path, capsys):
    one = odd_folder / "a.png"
    assert run_command(predict, f"--workdir={run_folder}", one, "--explain") == 0
    for axis in ("authenticity", "category"):
        heat = Image.open(odd_folder / f"a.png.{axis}.heat.png")
        assert heat.size == (640, 320) and heat.mode == "RGB"
        (odd_folder / f"a.png.{axis}.heat.png").unlink()
    assert _predict(run_folder, odd_folder, tmp_path / "out.csv", "--explain", "--tasks=category") == 0
    written = {path.name for path in (tmp_path / "out.csv.explained").iterdir()}
    assert written == {f"{re.sub('[^a-z_.]+', '_', name)}.category.heat.png" for name in GOOD}
    assert f"{len(GOOD)} heat maps in" in capsys.readouterr().out
    assert run_command(predict, f"--workdir={run_folder}", odd_folder, "--explain") == 2
    assert "needs --output=FILE" in capsys.readouterr().err


def test_columns_of_ones_own_submission(run_folder, toy_folder, tmp_path, capsys):
    columns = "--columns=id=image,confidence_category,p_category_animals"
    assert _predict(run_folder, toy_folder / "test", tmp_path / "out.csv", columns) == 0
    assert list(_rows(tmp_path / "out.csv")[0]) == ["id", "confidence_category", "p_category_animals"]
    assert _predict(run_folder, toy_folder / "test", tmp_path / "no.csv", "--columns=image,labels") == 2
    assert "there is no column 'labels'; there are image, label, class" in capsys.readouterr().err
    assert not (tmp_path / "no.csv").exists()
    assert _predict(run_folder, toy_folder / "test", tmp_path / "out.jsonl") == 0
    line = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert list(line) == ["image", "label", "class", "confidence_authenticity", "confidence_category"]


def test_axes_that_would_share_a_column_are_refused():
    with pytest.raises(submission.UsageError, match="share a column"):
        submission.Columns({"label": ("a", "b"), "authenticity": ("real", "fake")})


def test_nothing_is_left_when_writing_fails_half_way(tmp_path):
    with pytest.raises(KeyError), submission.Writer(tmp_path / "out.csv", ["image"], form="csv") as writer:
        writer.write(["x"])
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_an_old_list_of_rejected_files_does_not_outlive_its_run(tmp_path):
    for rejected in (True, False):
        with submission.Writer(tmp_path / "out.csv", ["image"], form="csv") as writer:
            writer.write(["x"])
            if rejected:
                writer.reject("y", "broken")
            writer.publish()
        assert (tmp_path / "out.rejected.csv").exists() == rejected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]


def _fails(capsys, run_folder, images, output, *more, code, says):
    assert _predict(run_folder, images, output, *more) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    for part in says:
        assert part in error, error


def test_mistakes_get_one_clear_line(run_folder, toy_folder, toy_shards, tmp_path, capsys):
    out = tmp_path / "out.csv"
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.jpg").write_text("no image")
    images = toy_folder / "test"
    _fails(capsys, tmp_path, images, out, code=1, says=["no run.json"])
    _fails(capsys, run_folder, tmp_path / "nowhere", out, code=1, says=["nowhere", "no such folder or file"])
    _fails(capsys, run_folder, tmp_path / "empty", out, code=1, says=["no images"])
    _fails(capsys, run_folder, tmp_path / "bad", out, code=1, says=["no readable image in 1 file ", "x.jpg"])
    _fails(capsys, run_folder, images, tmp_path, code=2, says=["is a folder"])
    _fails(capsys, run_folder, images, "/proc/none/out.csv", code=1, says=["cannot be written"])
    _fails(capsys, run_folder, images, out, "--tasks=nope", code=2, says=["'nope'", "category"])
    _fails(capsys, run_folder, images, out, "--model=epoch-07", code=2, says=["epoch-07", "best"])
    _fails(capsys, run_folder, images, out, "--split=test", code=2, says=["--split=test", "shards"])
    _fails(capsys, run_folder, toy_shards, out, code=2, says=["--split", "validation"])
    words = "--split=test", "--depth=0:9"
    _fails(capsys, run_folder, toy_shards, out, *words, code=2, says=["--depth is for image files"])
    _fails(capsys, run_folder, images, "/dev/null", "--explain", code=2, says=["is a device or a pipe"])
    assert not out.exists()


def test_the_predictor_does_not_mind_the_micro_batch(run_folder):
    images = np.random.default_rng(0).integers(0, 255, (10, 32, 32, 3), dtype=np.uint8)
    one, other = (Predictor(run_folder, micro_batch=size)(images) for size in (3, 64))
    for axis in one:
        assert one[axis].shape == (10, {"authenticity": 2, "category": 3}[axis])
        np.testing.assert_allclose(one[axis], other[axis], atol=1e-5)


@pytest.mark.slow
def test_calibrated_decisions_follow_the_evaluations_threshold(run_folder, toy_folder, toy_shards, tmp_path):
    """A threshold that calls nothing fake must reach the output."""
    from deepduel.evaluation import calibration, provenance

    card_models = Predictor(run_folder).files
    folder = run_folder / "evaluation" / "validation"
    folder.mkdir(parents=True, exist_ok=True)
    fitted = {
        "authenticity": {"temperature": 2.0, "threshold": 1.0},
        "category": {"temperature": 0.5, "threshold": None},
    }
    document = {
        "about": {"model_sha256": {axis: provenance.sha256(path) for axis, path in card_models.items()}},
        "tasks": {axis: {"calibration": one} for axis, one in fitted.items()},
    }
    (folder / "metrics.json").write_text(json.dumps(document))
    images = toy_folder / "test"
    assert _predict(run_folder, images, tmp_path / "raw.csv", "--probabilities") == 0
    assert (
        _predict(run_folder, images, tmp_path / "cal.csv", "--probabilities", "--calibration=validation") == 0
    )
    raw, calibrated = _rows(tmp_path / "raw.csv"), _rows(tmp_path / "cal.csv")
    assert {row["label"] for row in calibrated} == {"0"} != {row["label"] for row in raw}
    assert [row["class"] for row in raw] == [row["class"] for row in calibrated]
    for one, other in zip(raw, calibrated, strict=True):
        said = np.array([[float(one["p_authenticity_real"]), float(one["p_authenticity_fake"])]])
        expected = calibration.tempered(said, 2.0)[0, 1]
        assert float(other["p_authenticity_fake"]) == pytest.approx(expected, abs=1e-4)


def test_a_calibration_that_is_not_there_names_the_command_that_makes_it(
    run_folder, toy_folder, tmp_path, capsys
):
    _fails(capsys, run_folder, toy_folder / "test", tmp_path / "o.csv", "--calibration=train", code=1,
           says=["--calibration=train", "deepduel.evaluate"])  # fmt: skip


def test_an_image_that_cannot_be_read_ends_it_on_request(run_folder, odd_folder, tmp_path, capsys):
    assert _predict(run_folder, odd_folder, tmp_path / "out.csv", "--on_error=fail") == 1
    assert "set --on_error=skip to leave it out" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.csv"))


def test_bad_records_of_shards_are_listed_or_end_it(run_folder, toy_shards, tmp_path, capsys):
    shards = shutil.copytree(toy_shards, tmp_path / "shards")
    spoil(shards, 3, 17, split="test")
    split = Split(shards, "test")
    bad = sorted(split.key(number).decode() for number in (3, 17))
    assert _predict(run_folder, shards, tmp_path / "out.csv", "--split=test", "--on_error=fail") == 1
    assert "does not decode" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    assert _predict(run_folder, shards, tmp_path / "out.csv", "--split=test") == 0
    assert "no row for 2 files that could not be read" in capsys.readouterr().err
    listed = _rows(tmp_path / "out.rejected.csv")
    assert sorted(row["image"] for row in listed) == bad
    assert all(row["reason"] for row in listed)
    names = [row["image"] for row in _rows(tmp_path / "out.csv")]
    assert len(names) == len(split) - 2
    assert not set(names) & set(bad)


def test_a_model_that_diverged_predicts_nothing(run_folder, toy_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        Predictor, "__call__", lambda _, images: {"category": np.full((len(images), 3), np.nan)}
    )
    words = run_folder, toy_folder / "test", tmp_path / "out.csv", "--tasks=category"
    _fails(capsys, *words, code=1, says=["the category model gives NaN", "choose an earlier model"])
    assert list(tmp_path.iterdir()) == []


def test_predictions_go_through_a_pipe_with_nothing_beside_it(run_folder, odd_folder, tmp_path, capsys):
    pipe, text = tmp_path / "out" / "pipe", []
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: text.append(pipe.read_text()))
    reader.start()
    assert _predict(run_folder, odd_folder, pipe) == 0
    reader.join(10)
    assert text[0].startswith("image,")
    assert [path.name for path in pipe.parent.iterdir()] == ["pipe"]
    assert pipe.is_fifo()
    assert "left out: " in capsys.readouterr().err


def test_an_image_is_never_overwritten(run_folder, toy_folder, tmp_path, capsys):
    image = tmp_path / "image.csv"
    image.symlink_to(shutil.copy(next(toy_folder.rglob("*.jpg")), tmp_path / "photo.jpg"))
    before = image.read_bytes()
    _fails(capsys, run_folder, tmp_path, image, code=2, says=["is an image, which would be lost"])
    assert image.read_bytes() == before


def test_words_are_images_and_without_an_output_predictions_are_printed(run_folder, tmp_path, capsys):
    _picture((40, 50), 1).save(tmp_path / "photo.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    photo, broken = tmp_path / "photo.png", tmp_path / "broken.jpg"
    assert run_command(predict, photo, f"--workdir={run_folder}", broken) == 0
    said = capsys.readouterr()
    authenticity, category = sorted(said.out.splitlines())
    assert authenticity.startswith(f"{photo}  authenticity: ") and category.startswith(f"{photo}  category: ")
    assert {part.split()[0] for part in category.rpartition(": ")[2].split(", ")} == {
        "animals", "human_faces", "vehicles",
    }  # fmt: skip
    shares = [float(part.split()[1].rstrip("%")) for part in category.rpartition(": ")[2].split(", ")]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.3)
    assert f"{broken}: " in said.err
    assert run_command(predict, photo, f"--workdir={run_folder}", "--probabilities") == 2
    assert "--probabilities needs --output=FILE" in capsys.readouterr().err


def test_a_url_is_predicted_like_a_file(run_folder, tmp_path, capsys):
    _picture((40, 50), 1).save(tmp_path / "photo.png")
    shutil.copy(tmp_path / "photo.png", tmp_path / "my phötö.png")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        web = f"http://127.0.0.1:{server.server_port}"
        words = [f"{web}/{name}" for name in ("my phötö.png", "none.png", "photo.png")]
        words += [str(tmp_path / "photo.png"), "http://127.0.0.1:none/photo.png"]
        assert run_command(predict, f"--workdir={run_folder}", "--tasks=category", *words) == 0
        server.shutdown()
    said = capsys.readouterr()
    rows = [line.partition("  category: ")[::2] for line in said.out.splitlines()]
    assert {name for name, _ in rows} == {words[0], words[2], words[3]}
    assert len({labels for _, labels in rows}) == 1
    assert f"{web}/none.png: unreadable file: HTTP Error 404" in said.err
    assert "http://127.0.0.1:none/photo.png: unreadable file: InvalidURL: nonnumeric port" in said.err


def test_what_a_driver_raises_is_the_reason_why_an_image_is_unreadable(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("Unable to locate\ncredentials")

    store = fsspec.filesystem("memory")
    monkeypatch.setattr(type(store), "open", fail)
    monkeypatch.setattr(type(store), "isdir", fail)
    with pytest.raises(OSError, match="^Unable to locate credentials$"):
        fetching.read(b"memory://bucket/photo.png", limit=9)
    with pytest.raises(DataError, match="^memory://bucket: Unable to locate credentials$"):
        fetching.is_folder("memory://bucket")


def test_a_folder_of_any_store_is_predicted(run_folder, tmp_path, capsys):
    _picture((40, 50), 1).save(tmp_path / "photo.png")
    store = fsspec.filesystem("memory")
    store.pipe("/pictures/photo.png", (tmp_path / "photo.png").read_bytes())
    store.pipe("/pictures/notes.txt", b"notes")
    output = tmp_path / "out.csv"
    assert _predict(run_folder, "memory://pictures", output) == 0
    assert [row["image"] for row in _rows(output)] == ["photo.png"]
    assert run_command(predict, f"--workdir={run_folder}", "memory://pictures/photo.png") == 0
    assert "memory://pictures/photo.png  category: " in capsys.readouterr().out
