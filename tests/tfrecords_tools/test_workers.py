"""Worker processes start and end whatever process they work for."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import tfrecords_tools

JOBS = """
    import time

    def multiplied(common, job, counts):
        counts.add(1)
        return common * job

    def endless(common, job, counts):
        counts.add(1)
        time.sleep(600)
"""
RUN = """
    print("once")
    from jobs import multiplied
    from tfrecords_tools import workers
    pool = workers.WorkerPool(multiplied, 7, workers=2, on_tick=lambda *counts: None)
    print(sorted(pool.run(range(5))))
"""
RESULT = "once\n[(0, 0), (1, 7), (2, 14), (3, 21), (4, 28)]\n"
IN_A_DAEMON = """
    import multiprocessing
    def run():
        exec(PROGRAM)
    if __name__ == "__main__":
        process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
        process.start()
        process.join()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS))
    return tmp_path


def python(folder, *words, **options):
    path = str(pathlib.Path(tfrecords_tools.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True,
        text=True, timeout=60, **options,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["script without a guard", "stdin", "daemonic process", "SIGCHLD ignored"])
def test_workers_start_and_end_in_any_process(folder, how):
    program = textwrap.dedent(RUN)
    if how == "daemonic process":
        program = textwrap.dedent(IN_A_DAEMON).replace("PROGRAM", repr(program))
    elif how == "SIGCHLD ignored":
        program = f"import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n{program}"
    if how == "stdin":
        done = python(folder, "-", input=program)
    else:
        (folder / "script.py").write_text(program)
        done = python(folder, "script.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, RESULT, "")


@pytest.mark.parametrize("seconds", [0, 0.1, 0.3, 1])
def test_a_worker_whose_parent_is_killed_ends_silently_even_while_it_starts(folder, seconds):
    program = f"""
        import os, signal, threading, time
        from jobs import endless
        from tfrecords_tools import workers

        def end():
            time.sleep({seconds})
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=end).start()
        list(workers.WorkerPool(endless, None, workers=2, on_tick=lambda *counts: None).run(range(2)))
    """
    started = time.monotonic()
    done = python(folder, "-c", textwrap.dedent(program))  # returns once the workers have closed stderr
    assert time.monotonic() - started < 30
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")


def test_a_function_that_a_worker_cannot_import_is_an_error(folder):
    program = "from __main__ import missing_in_workers\n".join(
        ["", textwrap.dedent(RUN).replace("multiplied, 7", "missing_in_workers, 7")]
    )
    program = f"def missing_in_workers(common, job, counts):\n    return job\n\n{program}"
    (folder / "script.py").write_text(program)
    done = python(folder, "script.py")
    assert done.returncode == 1
    assert "a worker cannot import the function to run" in done.stderr
