"""Jobs in processes: results, progress, and an end to all of them when one fails."""

import multiprocessing
import operator
import os

import pytest

from dpose.processes import run_jobs, usable_cores

ADVANCE = "__import__('dpose.processes').processes.advance(2)"
SLEEP = "__import__('time').sleep(600)"
KILL = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once_and_progress_adds_up(workers):
    results, ticks = [], []
    run_jobs(operator.mul, [(n, n) for n in range(9)], workers, done=results.append)
    assert sorted(results) == [n * n for n in range(9)]
    run_jobs(eval, [(ADVANCE,)] * 5, workers, tick=ticks.append)
    assert sum(ticks) == 10


@pytest.mark.parametrize(
    ("jobs", "error", "message"),
    [
        (["1/0", SLEEP], ZeroDivisionError, "division by zero"),
        ([KILL, SLEEP], RuntimeError, "a worker process was killed"),
    ],
)
def test_a_failure_ends_all_workers_whatever_they_do(jobs, error, message):
    with pytest.raises(error, match=message):
        run_jobs(eval, [(job,) for job in jobs], 2)
    assert not multiprocessing.active_children()


def test_an_error_over_a_result_ends_them_too():
    def refuse(result):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        run_jobs(eval, [("1",), (SLEEP,)], 2, done=refuse)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no such call on this system")
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cores() == len(allowed)
