from deepduel import quickstart
from tests.conftest import run_command


def test_only_what_an_earlier_quickstart_made_is_replaced(tmp_path, monkeypatch, capsys):
    def run(module, *words):
        (tmp_path / "new" / "run").mkdir(exist_ok=True)

    monkeypatch.setattr(quickstart, "_run", run)
    monkeypatch.setattr(quickstart, "_summary", lambda *arguments: "done")
    (tmp_path / "own" / "run").mkdir(parents=True)
    assert run_command(quickstart, f"--output_dir={tmp_path / 'own'}") == 1
    assert "own/run: is there already, but not of a quickstart" in capsys.readouterr().err
    assert (tmp_path / "own" / "run").is_dir()
    for _ in range(2):
        assert run_command(quickstart, f"--output_dir={tmp_path / 'new'}") == 0
        assert not (tmp_path / "new" / "run" / "old").exists()
        (tmp_path / "new" / "run" / "old").touch()
