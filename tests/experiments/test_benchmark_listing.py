from experiments import benchmark_listing
from tests.conftest import run_command


def test_every_file_and_class_is_listed_twice(tmp_path, capfd):
    words = "--files=1003", "--classes=50", f"--scratch={tmp_path}"
    assert run_command(benchmark_listing, *words) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("1,003 files, 50 classes: ") for line in lines)
    assert not list(tmp_path.iterdir())


def test_more_classes_than_files_are_refused(capfd):
    assert run_command(benchmark_listing, "--files=2", "--classes=3") == 2
    assert "--classes must be 1 to --files" in capfd.readouterr().err
