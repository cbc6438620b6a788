import signal
import threading
import types

import numpy as np
import pytest
import tensorflow as tf

from deepduel.runs.length import RunLength
from deepduel.runs.stopping import PlannedEnd, Stopped, StopRequest
from deepduel.runs.training_state import State


def test_a_resumed_run_whose_length_is_a_time_is_planned_at_once():
    trainer = types.SimpleNamespace(planned_steps=tf.Variable(0))
    state = State(epoch=1, step=4, history=[{"epoch": 1, "seconds": 20.0}])
    end = PlannedEnd(trainer, state, RunLength.parse("1min"), steps_per_epoch=7)
    assert end.epochs == 3
    assert int(trainer.planned_steps) == 3 * 7


def test_a_session_without_a_limit_is_not_stopped():
    assert StopRequest().reason is None
    assert StopRequest(1e-9).reason == "--max_minutes"


def test_a_signal_is_a_request_and_the_third_one_interrupts(capsys):
    stop, before = StopRequest(), signal.getsignal(signal.SIGTERM)
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGTERM"
        assert stop.agreed().code == 143
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().out.splitlines() == [
        "SIGTERM: stopping after the current step, with the state saved",
        "SIGINT: still stopping; a third signal stops without saving",
    ]


def test_a_signal_is_answered_while_the_main_thread_is_busy(capsys):
    """A sum of a second in C, during which Python calls no handler."""
    with StopRequest().listening():
        timer = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        timer.start()
        answered = threading.Event()
        threading.Timer(0.5, lambda: "SIGINT" in capsys.readouterr().out and answered.set()).start()
        np.linalg.svd(np.random.default_rng(0).normal(size=(900, 900)))
        assert answered.wait(5)


def test_a_signal_before_anything_is_computed_stops_at_once():
    stop = StopRequest()
    stop.nothing_to_save = True
    with stop.listening(), pytest.raises(Stopped, match="SIGINT: stopped before the first step") as error:
        signal.raise_signal(signal.SIGINT)
    assert error.value.code == 130


def test_training_in_another_thread_leaves_the_signals_alone():
    stop, errors = StopRequest(), []

    def listen():
        try:
            with stop.listening():
                pass
        except ValueError as error:  # what Python raises for signals outside the main thread
            errors.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert errors == []
