from experiments import benchmark_guard
from tfrecords_tools import cli


def test_a_figure_that_is_slower_by_more_than_a_twentieth_is_named(capsys):
    before = [{"fast": 100.0, "accurate": 50.0}] * 3
    pairs = (94.0, 48.0), (97.0, 49.0), (93.0, 60.0)
    now = [{"fast": fast, "accurate": accurate} for fast, accurate in pairs]
    assert benchmark_guard.compare(now, before, "main") == ["fast"]
    assert "0.940 (0.930 to 0.970)" in capsys.readouterr().out


def test_an_unknown_revision_is_a_usage_error(tmp_path, capsys):
    words = ["guard", f"--data_dir={tmp_path}", "--against=no-such-revision"]
    assert cli.run(benchmark_guard.main, benchmark_guard.FLAGS, name="guard", argv=words) == 2
    assert "no-such-revision: git has no such revision" in capsys.readouterr().err
