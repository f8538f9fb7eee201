"""Functions in processes of their own: values come back, and so does the news of every way to fail."""

import operator
import os
import signal
import time

import pytest
import torch

from ealinformer.measure.isolated import attempt, isolated


def test_the_value_comes_back_from_another_process() -> None:
    first, second = isolated(os.getpid), isolated(os.getpid)
    assert (first.status, second.status) == ("ok", "ok")
    assert len({first.value, second.value, os.getpid()}) == 3


def test_a_limit_may_be_longer_than_the_system_can_wait() -> None:
    assert isolated(operator.sub, 7, 3, time_limit=1e12).value == 4


def test_arguments_travel() -> None:
    assert isolated(operator.sub, 7, 3).value == 4
    assert isolated(torch.full, (2,), 3.0).value.tolist() == [3.0, 3.0]


def test_a_value_that_cannot_travel_is_a_failure() -> None:
    outcome = isolated(open, os.devnull)
    assert outcome.status == "failed"
    assert "pickle" in str(outcome.reason)


def test_an_error_is_one_line() -> None:
    outcome = isolated(operator.truediv, 1, 0)
    assert (outcome.status, outcome.reason, outcome.value) == ("failed", "ZeroDivisionError: division by zero", None)


def test_running_out_of_memory_says_what_was_asked_for() -> None:
    outcome = isolated(torch.empty, 2**50)
    assert outcome.status == "out of memory"
    assert outcome.needed_bytes == 4 * 2**50
    assert "\n" not in str(outcome.reason)


def test_a_process_that_is_killed_ran_out_of_memory_as_far_as_we_know() -> None:
    outcome = isolated(signal.raise_signal, signal.SIGKILL)
    assert outcome.status == "out of memory"
    assert "killed by the system" in str(outcome.reason)


def test_a_process_that_crashes_is_a_failure_with_its_signal() -> None:
    outcome = isolated(signal.raise_signal, signal.SIGSEGV)
    assert (outcome.status, outcome.reason) == ("failed", "the process was ended by SIGSEGV")


def test_a_process_that_leaves_without_a_word_is_a_failure() -> None:
    outcome = isolated(os._exit, 7)
    assert (outcome.status, outcome.reason) == ("failed", "the process ended with status 7 and said nothing")


def test_a_process_that_takes_too_long_is_stopped() -> None:
    isolated(os.getpid)  # starts the server that the others are forked by
    start = time.monotonic()
    outcome = isolated(time.sleep, 60, time_limit=1.0)
    assert (outcome.status, outcome.reason) == ("too slow", "stopped after 1 s")
    assert time.monotonic() - start < 20


def test_ctrl_c_is_left_to_the_caller() -> None:
    assert isolated(signal.raise_signal, signal.SIGINT).status == "ok"


def test_an_attempt_here_tells_the_same() -> None:
    assert attempt(operator.sub, 7, 3).value == 4
    assert attempt(operator.truediv, 1, 0).status == "failed"
    assert attempt(torch.empty, 2**50).status == "out of memory"
    with pytest.raises(KeyboardInterrupt):
        attempt(signal.raise_signal, signal.SIGINT)
