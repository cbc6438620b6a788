import dataclasses
import importlib.util
import json
import pathlib
import sys

import pytest
from PIL import Image

from experiments import benchmark_contenders as contenders
from experiments import benchmark_photos
from experiments import benchmark_report as report
from experiments import benchmark_throughput as benchmark
from experiments import benchmark_worker as worker
from experiments.benchmark_job import Job
from tests.conftest import run_command
from tfrecords_tools import convert

JOB = Job(
    contender="bare_fast", prepare=False, data_dir="", split="train", shards=[], files=["a.jpg"] * 10,
    folder="", labels=[0] * 10, scratch="", size=(8, 8), target_size=8, batch_size=4, threads=1, seconds=2.0,
    warmup_seconds=1.0, cold=False, bytes=1000,
)  # fmt: skip
SETTINGS = benchmark.Settings(
    contenders.select(["ours_fast", "bare_fast", "ffcv_jpg", "dali", "flow_augmented"]),
    {}, (1,), ("warm",), 3, 1.0, 1.0, 4, 8,
)  # fmt: skip


def one_run(name: str, turn: int, rate: float) -> dict:
    """Four seconds; this package takes two processors, the others one."""
    return {
        "contender": name, "threads": 1, "cache": "warm", "round": turn, "images_per_second": rate,
        "images": int(4 * rate), "seconds": 4.0, "cpu_seconds": 8.0 if name.startswith("ours") else 4.0,
        "batch": "uint8 [4, 8, 8, 3]", "bytes": 1000, "peak_rss_bytes": 1 << 20,
        "versions": {"python": "3.11"},
    }  # fmt: skip


@pytest.fixture
def document() -> dict:
    runs = [one_run("ours_fast", turn, rate) for turn, rate in enumerate((100.0, 10.0, 90.0))]
    runs += [one_run("bare_fast", turn, rate) for turn, rate in enumerate((100.0, 20.0, 100.0))]
    runs += [{"contender": "ffcv_jpg", "threads": 1, "cache": "warm", "round": None, "missing": ["ffcv"]}]
    runs += [{"contender": "dali", "threads": 1, "cache": "warm", "round": 0, "failed": "it fell over"}]
    runs += [one_run("flow_augmented", turn, 2.0) for turn in range(3)]
    return report.document(JOB, SETTINGS, runs)


class Clock:
    """Seconds that pass only when a batch is made."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def batches(self, seconds: list[float]):
        for duration in seconds:
            self.now += duration
            yield 4, "made"


def test_a_measurement_leaves_out_the_first_batch_and_the_warm_up():
    clock = Clock()
    result = worker.measure(clock.batches([9.0, 0.5, 0.5, *[0.25] * 8, 7.0]), JOB, clock)
    assert result["first_batch_seconds"] == 9.0
    assert (result["images"], result["seconds"], result["images_per_second"]) == (32, 2.0, 16.0)


def test_a_cold_measurement_is_one_epoch_without_warm_up():
    clock = Clock()
    cold = dataclasses.replace(JOB, cold=True)
    result = worker.measure(clock.batches([9.0, 1.0, 1.0, 50.0]), cold, clock)
    assert (result["images"], result["seconds"]) == (8, 2.0)  # 10 images, 4 of them in the first batch


def test_every_contender_has_a_function_and_ratios_stay_within_a_group():
    everybody = contenders.CONTENDERS + contenders.PHOTO_CONTENDERS
    names = [contender.name for contender in everybody]
    assert len(set(names)) == len(names)
    for contender in everybody:
        source = pathlib.Path(benchmark.__file__).with_name(f"{contender.module}.py").read_text()
        assert f"def {contender.function}(job: Job" in source
        assert contender.prepare is None or f"def {contender.prepare}(job: Job" in source
        assert contender.group in contenders.GROUPS
    for pair in contenders.RATIOS:
        assert len({contenders.by_name(name).group for name in pair}) == 1


def test_select_keeps_the_order_and_names_what_there_is():
    assert [c.name for c in contenders.select(["flow", "bare_*_1"])] == [
        "bare_accurate_1",
        "bare_fast_1",
        "flow",
    ]
    with pytest.raises(ValueError, match="no contender is called 'fcv'; there are bare_accurate, "):
        contenders.select(["ours*", "fcv"])


def test_rounds_alternate_and_preparation_comes_first():
    settings = dataclasses.replace(
        SETTINGS, contenders=contenders.select(["bare_fast_1", "ffcv_jpg"]), rounds=2, caches=("warm", "cold")
    )
    plan = [(c.name, cache, turn) for c, _, cache, turn in benchmark._plan(settings)]
    assert plan == [
        ("ffcv_jpg", "warm", None),
        ("bare_fast_1", "warm", 0), ("ffcv_jpg", "warm", 0), ("ffcv_jpg", "cold", 0),
        ("bare_fast_1", "warm", 1), ("ffcv_jpg", "warm", 1), ("ffcv_jpg", "cold", 1),
    ]  # fmt: skip


def test_ratios_are_taken_within_each_round(document):
    (ratio,) = document["ratios"]
    assert (ratio["of"], ratio["over"]) == ("ours_fast", "bare_fast")
    assert (ratio["ratio"], ratio["lowest"], ratio["highest"]) == (0.9, 0.5, 1.0)
    assert ratio["cpu_ratio"] == 0.45


def test_medians_spread_and_absent_peers_are_reported(document):
    by_name = {entry["name"]: entry for entry in document["contenders"]}
    (result,) = by_name["ours_fast"]["results"]
    assert (result["images_per_second"], result["lowest"], result["highest"]) == (90.0, 10.0, 100.0)
    assert (by_name["ffcv_jpg"]["status"], by_name["ffcv_jpg"]["reason"]) == ("not installed", "needs ffcv")
    assert (by_name["dali"]["status"], by_name["dali"]["reason"]) == ("failed", "it fell over")
    text = report.text(document)
    assert "90  (10 - 100)         45  uint8" in text
    assert "not installed" in text and "needs ffcv" in text
    assert "0.9x" in text and "(0.5 - 1)" in text


def test_what_reads_memory_is_not_measured_from_a_cold_disk():
    settings = dataclasses.replace(SETTINGS, contenders=contenders.select(["bare_fast"]), caches=("cold",))
    document = report.document(JOB, settings, [])
    assert document["contenders"][0]["status"] == "not measured"
    assert "reads memory" in report.text(document)


def test_scaling_over_cores_is_told():
    settings = dataclasses.replace(SETTINGS, contenders=contenders.select(["ours_fast"]), threads=(1, 2))
    runs = [one_run("ours_fast", 0, 50.0), one_run("ours_fast", 0, 95.0) | {"threads": 2}]
    text = report.text(report.document(JOB, settings, runs))
    assert "Scaling: images/s with 2 cores over those with 1\n  1.90x  deepduel: random reader" in text


def test_the_chart_is_a_png_even_with_nothing_measured(document):
    assert report.chart(document).startswith(b"\x89PNG")
    assert report.chart(document | {"contenders": []}).startswith(b"\x89PNG")


@pytest.mark.skipif(importlib.util.find_spec("ffcv") is not None, reason="ffcv is installed here")
def test_a_peer_that_is_not_installed_says_what_it_needs(tmp_path):
    workspace = tmp_path / "packages"
    workspace.mkdir()
    (workspace / "experiments").symlink_to(pathlib.Path(benchmark.__file__).parent)
    job = dataclasses.replace(JOB, contender="ffcv_jpg")
    answer = benchmark.run(job, sys.executable, workspace)
    assert "ffcv" in answer["missing"]


def test_a_process_that_dies_is_a_failure_with_its_last_words(tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho one >&2\necho no such luck >&2\nexit 3\n")
    interpreter.chmod(0o755)
    workspace = tmp_path / "packages"
    workspace.mkdir()
    assert benchmark.run(JOB, str(interpreter), workspace) == {"failed": "no such luck"}


def test_the_command_measures_and_publishes(toy_folder, toy_shards, tmp_path, capsys):
    output = tmp_path / "result.json"
    code = run_command(
        benchmark, f"--images={toy_folder}", f"--data_dir={toy_shards}", f"--output={output}",
        "--contenders=bare_fast_1,torch_pillow", "--rounds=2", "--seconds=0.2", "--warmup_seconds=0",
        "--peer_python=torch=/bin/false", f"--scratch_dir={tmp_path}",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 1  # /bin/false is no Python: a failure is told and does not stop the others
    assert "1 of the contenders failed: torch_pillow: ended with code 1" in printed.err
    assert "bare libjpeg-turbo, fast, one process" in printed.out
    parsed = json.loads(output.read_text())
    assert parsed["images"]["count"] == 168
    bare = parsed["contenders"][0]
    assert len(bare["runs"]) == 2
    assert bare["results"][0]["lowest"] > 0
    assert bare["runs"][0]["peak_rss_bytes"] > 1 << 20
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.png"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--threads=0"], 2, "--threads counts cores, 1 to "),
        (["--threads=two"], 2, "--threads takes numbers of cores such as 1,2, not 'two'"),
        (["--cache=hot"], 2, "--cache takes warm and cold, not 'hot'"),
        (["--peer_python=jax=/bin/true"], 2, "--peer_python knows ffcv, dali, torch, not 'jax'"),
        (["--peer_python=ffcv=/no/python"], 2, "--peer_python=ffcv=/no/python: there is no such program"),
        (["--contenders=nobody"], 2, "no contender is called 'nobody'"),
        (["--output=result.txt"], 2, "give a name ending in .json, in a folder that exists"),
        (["--split=tset"], 2, "has no split 'tset'"),
        (["--images=/no/images"], 1, "there is no such folder; --images names the folder of images"),
        (["--images=/"], 1, "missing, but "),
        (["--data_dir=/no/shards"], 1, "/no/shards"),
    ],
)
def test_a_mistake_is_one_line(toy_folder, toy_shards, tmp_path, capsys, words, code, message):
    arguments = f"--images={toy_folder}", f"--data_dir={toy_shards}", f"--output={tmp_path / 'result.json'}"
    assert run_command(benchmark, *arguments, *words) == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_photographs_of_any_size_are_measured(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for number, size in enumerate([(60, 40), (30, 50), (20, 20)]):
        Image.new("RGB", size, "red").save(tmp_path / "photos" / f"{number}.jpg")
    output = tmp_path / "photos.json"
    arguments = f"--images={tmp_path / 'photos'}", f"--output={output}", "--image_size=16"
    quick = "--rounds=1", "--seconds=0.1", "--warmup_seconds=0", "--contenders=photos_bare"
    assert run_command(benchmark_photos, *arguments, *quick) == 0
    assert "bare libjpeg-turbo" in capsys.readouterr().out
    parsed = json.loads(output.read_text())
    assert parsed["images"]["count"] >= 1024
    assert parsed["contenders"][0]["results"][0]["lowest"] > 0
    assert run_command(benchmark_photos, *arguments, *quick, "--megapixels=0.01", "--cache=warm,cold") == 0
    images = json.loads(output.read_text())["images"]
    assert 64 <= images["count"] <= 66 and images["bytes"] > 64 * 600
    assert run_command(benchmark_photos, f"--images={tmp_path / 'none'}", f"--output={output}") == 1
    assert "there are no upright JPEG files there" in capsys.readouterr().err


def test_images_of_several_sizes_or_kinds_are_refused(tmp_path, capsys):
    for folder, size, ending in (("sizes", 9, "jpg"), ("kinds", 8, "png")):
        images = tmp_path / folder
        (images / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(images / "cat" / "a.jpg")
        Image.new("RGB", (size, 8)).save(images / "cat" / f"b.{ending}")
        shards = tmp_path / f"{folder}_shards"
        assert run_command(convert, f"--input_dir={images}", f"--output_dir={shards}", "--workers=1") == 0
        capsys.readouterr()
        output = tmp_path / "result.json"
        arguments = f"--images={images}", f"--data_dir={shards}", f"--output={output}"
        assert run_command(benchmark, *arguments, "--contenders=bare_fast_1") == 1
        said = capsys.readouterr().err
        assert ("images of 2 sizes" if folder == "sizes" else "1 of 2 images are no JPEGs") in said
        assert "--encoding=jpeg" in said
