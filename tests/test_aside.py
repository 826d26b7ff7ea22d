"""Work beside what comes next: how much at once, and what becomes of errors."""

from __future__ import annotations

import threading
import time

import pytest

from attentus.aside import Aside


def test_no_more_calls_than_threads_are_under_way():
    done = []

    def call():
        time.sleep(0.01)
        done.append(1)

    with Aside(2) as aside:
        for begun in range(1, 10):
            aside.do(call)
            assert begun - len(done) <= 2
        aside.wait()
        assert len(done) == 9


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
