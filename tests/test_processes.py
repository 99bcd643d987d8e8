"""Parallel jobs: results, progress, and the end of all workers when a job fails or the parent dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpose.processes import run_jobs, usable_cores

ADVANCE = "__import__('dpose.processes').processes.advance(2)"
SLEEP = "__import__('time').sleep(600)"
KILL = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once_and_progress_adds_up(workers):
    results, ticks = [], []
    jobs = [(f"{ADVANCE} or {n * n}",) for n in range(9)]
    run_jobs(eval, jobs, workers, done=results.append, tick=ticks.append)
    assert sorted(results) == [n * n for n in range(9)] and sum(ticks) == 18


@pytest.mark.parametrize(
    ("jobs", "error", "message"),
    [
        (["1/0", SLEEP], ZeroDivisionError, "division by zero"),
        ([KILL, SLEEP], RuntimeError, "worker process was killed"),
    ],
)
def test_a_failed_job_ends_all_workers_at_once(jobs, error, message):
    with pytest.raises(error, match=message):
        run_jobs(eval, [(job,) for job in jobs], 2)
    assert not multiprocessing.active_children()


def stoppable(folder, job):
    """Notes that it began; the first job fails then, the others wait and save when they get SIGTERM."""

    def save(*_):
        Path(folder, f"saved-{job}").touch()
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, save)
    Path(folder, f"begun-{job}").touch()
    if job == 0:
        wait_until(Path(folder, "begun-1").exists)
        raise ValueError("enough")
    time.sleep(600)


def test_a_worker_that_was_stopped_and_saved_gets_no_other_job(tmp_path):
    with pytest.raises(ValueError, match="enough"):
        run_jobs(stoppable, [(tmp_path, job) for job in range(6)], 2)
    assert (
        len(list(tmp_path.glob("begun-*"))) <= 3
    )  # the failed worker may have begun one more before the others were stopped
    assert (tmp_path / "saved-1").exists() and not multiprocessing.active_children()


def test_an_error_while_handling_a_result_ends_all_workers():
    def refuse(result):
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        run_jobs(eval, [("1",), (SLEEP,)], 2, done=refuse)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, number):
    note = f"open({str(tmp_path)!r} + '/' + str(__import__('os').getpid()), 'w').close()"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; from dpose.processes import run_jobs\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
            f"if __name__ == '__main__': run_jobs(exec, [({f'{note}; {SLEEP}'!r},)] * 2, 2)",
        ],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        os.killpg(parent.pid, number) if number == signal.SIGINT else parent.send_signal(number)
        assert parent.wait(timeout=20) != 0
        workers = [int(path.name) for path in tmp_path.iterdir()]
        wait_until(lambda: not any(map(is_running, workers)))
    finally:
        parent.kill()


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no such call on this system")
def test_usable_cores_are_those_of_the_process():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cores() == len(allowed)
