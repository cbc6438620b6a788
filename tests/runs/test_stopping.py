import signal
import threading
import types

import pytest
import tensorflow as tf

from deepduel.runs.length import RunLength
from deepduel.runs.stopping import PlannedEnd, StopRequest
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


def test_a_signal_is_a_request_and_a_second_one_interrupts():
    stop, before = StopRequest(), signal.getsignal(signal.SIGTERM)
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
        assert stop.reason == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


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
