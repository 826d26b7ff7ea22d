"""Work beside what comes next: how much at once, and what becomes of errors."""

from __future__ import annotations

import threading

import pytest

from attentus.aside import Aside


def test_no_more_calls_than_threads_are_begun():
    busy, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def call():
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        go.wait(0.01)
        with lock:
            busy -= 1

    with Aside(2) as aside:
        for _ in range(9):
            aside.do(call)
        aside.wait()
        assert busy == 0
    assert most == 2


def test_calls_go_on_while_the_caller_does():
    begun, go = threading.Event(), threading.Event()

    def call():
        begun.set()
        assert go.wait(10)

    with Aside(1) as aside:
        aside.do(call)
        assert begun.wait(10)
        go.set()


def test_what_a_call_raises_is_raised_by_the_next_or_at_the_end():
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), Aside(1) as aside:
        aside.do(fail)
    with Aside(1) as aside:
        aside.do(fail)
        with pytest.raises(ValueError, match="no"):
            aside.wait()
    with Aside(1) as aside:
        aside.do(fail)
        with pytest.raises(ValueError, match="no"):
            aside.do(print)


def test_an_error_of_the_caller_comes_first():
    def fail():
        raise ValueError("of a call")

    def both():
        with Aside(1) as aside:
            aside.do(fail)
            raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        both()
