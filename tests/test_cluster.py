"""Work on a cluster: how a piece of it ended."""

from __future__ import annotations

import pytest

from attentus import cluster

distributed = pytest.importorskip("distributed")


class Future:
    """As Dask's: what it knows of a piece of work, and what asking for the result does."""

    def __init__(self, status, answer):
        self.status, self.answer = status, answer

    def done(self):
        return self.status != "pending"

    def result(self, timeout):
        assert timeout > 0, "nobody waits for ever"
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def test_what_has_ended_gives_its_result_or_its_error():
    error = distributed.KilledWorker("scan", None, 3)
    assert cluster.ended(Future("finished", "done")) == "done"
    assert cluster.ended(Future("error", error)) is error
    assert cluster.died(error)


def test_what_a_dead_worker_held_is_waited_for():
    assert cluster.ended(Future("pending", None)) is None
    assert cluster.ended(Future("lost", "done")) is None
    assert cluster.ended(Future("finished", distributed.TimeoutError())) is None, "it is computed again"


def test_work_that_nobody_knows_of_any_more_is_a_lost_connection():
    error = cluster.ended(Future("cancelled", None))
    assert isinstance(error, ConnectionError)
    assert not cluster.died(error)


def test_what_dask_reports_does_not_reach_the_user(capfd):
    """A worker that misses the scheduler while all is closing prints two tracebacks otherwise."""

    def report():
        import logging
        import os

        logging.getLogger("distributed.worker").error("no scheduler")
        os.write(2, b"but this does\n")

    with cluster.connect(None, 2) as client:
        client.run(report)
    told = capfd.readouterr().err
    assert "but this does" in told
    assert "no scheduler" not in told
