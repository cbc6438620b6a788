"""What the programs for GPUs compute by themselves, without one."""

import json

import numpy as np
import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from experiments import (
    benchmark_gpu,
    benchmark_gpu_page,
    export_stablehlo,
    gpu_trace,
    run_stablehlo,
)
from tests.conftest import run_command

MILLISECOND = 10**9  # in picoseconds


def plane(space, name, lines):
    """Adds a plane of lines {name: [(event, start, milliseconds)]}."""
    added = space.planes.add(name=name)
    for number, (title, events) in enumerate(lines.items()):
        line = added.lines.add(id=number, name=title, timestamp_ns=0)
        for event, start, duration in events:
            key = len(added.event_metadata) + 1
            added.event_metadata[key].name = event
            line.events.add(
                metadata_id=key, offset_ps=start * MILLISECOND, duration_ps=duration * MILLISECOND
            )


def test_a_trace_says_what_share_of_the_copies_overlapped():
    space = xplane_pb2.XSpace()
    compute = [("gemm", 0, 10), ("conv", 5, 10), ("conv", 30, 10)]  # busy 0..15 and 30..40
    copies = [("MemcpyH2D", 10, 10), ("MemcpyH2D", 32, 5), ("MemcpyD2H", 0, 40)]
    plane(space, "/device:GPU:0", {"Stream #1(Compute)": compute, "Stream #2(MemcpyH2D)": copies,
                                   "XLA Modules": [("derived", 0, 1000)]})  # fmt: skip
    plane(space, "/host:CPU", {"python": [("call", 0, 1000)]})
    actual = gpu_trace.figures(space)
    assert actual == {
        "gpus": 1, "seconds": pytest.approx(0.04), "busy_share": pytest.approx(25 / 40), "copies": 2,
        "copy_seconds": pytest.approx(0.015), "overlapped_share": pytest.approx(10 / 15),
    }  # fmt: skip


def test_a_trace_without_a_gpu_says_nothing():
    space = xplane_pb2.XSpace()
    plane(space, "/host:CPU", {"python": [("call", 0, 1000)]})
    assert gpu_trace.figures(space) is None


def test_the_page_has_every_row_and_every_failure():
    machine = {"gpu": "Card, 1, 2", "cores": 8, "python": "3", "tensorflow": "2", "keras": "3",
               "keras-cv": "0.9", "date": "today"}  # fmt: skip
    common = {"kind": "training", "network": "vgg16", "precision": "float32", "batch": 4096}
    done = {"images_per_second": 1234.56, "peak_bytes": 2.5e9, "utilisation": 97.2}
    trace = {"copies": 3, "copy_seconds": 0.0123, "overlapped_share": 0.5, "busy_share": 0.9}
    rows = [
        common | {"way": "deepduel", "estimated_bytes": 2e9} | done,
        common | {"way": "keras-xla"} | done,
        common | {"way": "keras", "failed": "out of memory"},
        {"kind": "training", "network": "xception", "precision": "float32", "failed": "killed"},
        {"kind": "waiting", "cores": 4, "failed": "the time was over"},
        {"kind": "waiting", "cores": 2, "images_per_second": 10.0, "waiting_share": 0.25, "trace": trace},
        {"kind": "augmentation", "way": "warp", "images_per_second": 9999.6},
    ]
    page = benchmark_gpu_page.page({"machine": machine, "rows": rows})
    for text in (
        "# Card, 1, 2",
        "| vgg16 | float32 | 4,096 | 1,234.6 (2.50 GB, 2.00 estimated; 97 %) |  | out of memory |"
        " 1,234.6 (2.50 GB; 97 %) |",
        "- xception, float32: killed",
        "| 2 | 10.0 | 25% |",
        "| 4 | the time was over |",
        "3 copies to the GPU took 12.3 ms, of which 50% overlapped",
        "| warp | 10,000 |",
    ):
        assert text in page


def test_without_a_gpu_the_benchmark_names_the_small_form(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark_gpu.shutil, "which", lambda name: None)
    assert run_command(benchmark_gpu, f"--output={tmp_path}/result.json") == 1
    assert "--small runs a small form on the CPU" in capsys.readouterr().err


def test_values_are_a_function_of_the_rule_alone():
    """Golden values: a folder that was exported earlier must mean the same."""
    uniform = run_stablehlo.values({"kind": "uniform", "scale": 0.5, "seed": 7}, (2, 2), "float32")
    whole = uniform * 2**24
    assert (whole == np.round(whole)).all() and np.abs(uniform).max() < 0.5
    images = run_stablehlo.values({"kind": "bytes", "seed": 1}, (5,), "uint8")
    assert images.tolist() == [111, 102, 200, 53, 65]
    many = run_stablehlo.values({"kind": "uniform", "scale": 1.0, "seed": 3}, (100_000,), "float32")
    assert abs(many.mean()) < 0.01 and many.var() == pytest.approx(1 / 3, abs=0.01)
    labels = run_stablehlo.values({"kind": "below", "limit": 3, "seed": 3}, (1000,), "int32")
    assert set(labels.tolist()) == {0, 1, 2}


def test_a_difference_is_relative_to_the_values_and_never_hidden():
    expected = run_stablehlo.describe(np.linspace(-1, 1, 1000, dtype=np.float32))
    assert run_stablehlo.difference(expected, expected) == 0
    moved = run_stablehlo.describe(np.linspace(-1, 1, 1000, dtype=np.float32) + np.float32(0.05))
    assert run_stablehlo.difference(moved, expected) == pytest.approx(0.1, rel=0.01)
    broken = run_stablehlo.describe(np.full(1000, np.nan, np.float32))
    assert run_stablehlo.difference(broken, expected) == float("inf")


def test_places_in_the_source_are_taken_out_of_the_text():
    text = (
        '#loc1 = loc("a")\n'
        'func.func @main(%arg0: tensor<2xf32> loc("x(")) -> (tensor<2xf32>, tensor<f32>) {\n'
        '  %0 = op %arg0 : tensor<2xf32> loc(callsite("f"("file.py":1:2) at #loc1))\n} loc(#loc)\n'
    )
    plain = export_stablehlo.without_places(text)
    assert "loc" not in plain
    assert plain.splitlines()[1] == "  %0 = op %arg0 : tensor<2xf32>"
    assert export_stablehlo.signature(plain) == (1, 2)


def test_an_exported_folder_holds_rules_and_the_cpus_results(tmp_path):
    words = (
        "--only=augment-original,augment-none,keras_cv-RandomRotation",
        "--augment_batch=2",
        "--stored_size=24",
    )
    output = tmp_path / "folder"
    assert run_command(export_stablehlo, f"--output={output}", *words, "--image_size=32") == 0
    document = json.loads((output / "programs.json").read_text("utf-8"))
    cards = {card["name"]: card for card in document["programs"]}
    assert set(cards) == {"augment-original", "augment-none"}
    assert "ImageProjectiveTransformV3" in document["left_out"]["keras_cv-RandomRotation"]
    assert cards["augment-original"]["tolerance"] == 0
    assert len(cards["augment-original"]["expected"][0][0]["samples"]) == run_stablehlo.SAMPLES
    assert (output / "run_stablehlo.py").exists() and (output / "augment-original.mlir.gz").exists()
    assert run_command(export_stablehlo, f"--output={output}") == 2  # never overwritten
