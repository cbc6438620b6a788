import pytest

from deepduel.training import precision


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("fpu avx512f avx512_bf16 x", "mixed_bfloat16"),
        ("fpu amx_bf16", "mixed_bfloat16"),
        ("fpu avx2", "float32"),
    ],
)
def test_a_processor_that_multiplies_bfloat16_computes_in_it(tmp_path, monkeypatch, flags, found):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\nbogomips : 1\n")
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(precision, "_NVIDIA", tmp_path / "none")
    assert precision.best() == found


def test_a_machine_that_tells_nothing_computes_in_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(precision, "_NVIDIA", tmp_path / "none")
    assert precision.best() == "float32"


@pytest.mark.parametrize(
    ("capabilities", "found"), [([8, 9], "mixed_bfloat16"), ([8, 7], "mixed_float16"), ([6], "float32")]
)
def test_the_weakest_gpu_decides(tmp_path, monkeypatch, capabilities, found):
    monkeypatch.setattr(precision, "_NVIDIA", tmp_path)
    monkeypatch.setattr(precision, "_gpu_capabilities", lambda: capabilities)
    assert precision.best() == found
