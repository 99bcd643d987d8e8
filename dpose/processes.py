"""Jobs spread over processes of one thread each, none of which outlives its parent.

A task tells how far it got with `advance`. Where a job fails, the parent is interrupted or even killed, the
workers end at once, in the middle of what they do: a task must write its files whole or not at all.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

POLL = 0.5  # seconds between looks at how far the workers got

_advanced: Callable[[int], object] = lambda count: None  # noqa: E731 (run_jobs sets it)


def usable_cores() -> int:
    """Cores that this process may use: a job's or a container's share, not all of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def advance(count: int = 1) -> None:
    """In a task: so many of its units are done."""
    _advanced(count)


def run_jobs(
    task: Callable,
    jobs: Sequence[tuple],
    workers: int,
    *,
    done: Callable[[object], object] = lambda result: None,
    tick: Callable[[int], object] = lambda count: None,
) -> None:
    """task(*job) for each of the jobs, in `workers` spawned processes (1: in this one).

    done: gets each result, here, as the job ends, in any order. tick: gets the counts that tasks `advance`.
    What a task or `done` raises stops all of it and is raised here; RuntimeError if a worker was killed.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        with one_thread(), _advancing(tick):
            for job in jobs:
                done(task(*job))
        return
    context = multiprocessing.get_context("spawn")
    counter, (alive, held) = context.Value("q", 0), context.Pipe(duplex=False)
    told = 0
    with ProcessPoolExecutor(workers, context, _start_worker, (alive, counter)) as pool:
        try:
            waiting = {pool.submit(task, *job) for job in jobs}
            pool.submit(int)  # has the pool look at its workers again: the last one's death might pass unseen
            while waiting:
                ended, waiting = wait(waiting, POLL, FIRST_COMPLETED)
                if counter.value > told:
                    tick(counter.value - told)
                    told = counter.value
                for future in ended:
                    done(future.result())
        except BaseException as error:
            held.close()  # the workers' signal to end
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise RuntimeError(
                    "a worker process was killed, perhaps for want of memory: try fewer workers"
                ) from error
            raise
    tick(counter.value - told)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and OpenCV on one thread: the work is spread over processes."""
    import cv2
    import torch

    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


@contextmanager
def _advancing(tick: Callable[[int], object]) -> Iterator[None]:
    global _advanced
    before, _advanced = _advanced, tick
    try:
        yield
    finally:
        _advanced = before


def _start_worker(alive, counter) -> None:
    """alive: the reading end of a pipe whose other end is the parent's, and is gone when the parent is."""
    import cv2
    import torch

    global _advanced

    def count(number: int) -> None:
        with counter.get_lock():
            counter.value += number

    def end_with_the_parent() -> None:
        alive.poll(None)
        os._exit(1)

    _advanced = count
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us
    threading.Thread(target=end_with_the_parent, daemon=True).start()
