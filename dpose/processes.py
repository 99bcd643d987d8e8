"""Jobs in parallel processes of one thread each that end with the parent.

A task reports progress with `advance`. If a job fails or the parent is interrupted or killed, the workers end
at once, in the middle of their work: a task must write each file completely or not at all (`dpose.io`). A
task that handles SIGTERM, as a training run does, may save its state first if it then raises SystemExit.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

POLL = 0.5  # seconds between two readings of the workers' progress


def _ignore(_: object) -> None:
    pass


_tick: Callable[[int], object] = _ignore  # where `advance` counts; set by `run_jobs`


def usable_cores() -> int:
    """Cores that this process may use, which in a job or a container are fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def advance(count: int = 1) -> None:
    """Called by a task: reports `count` finished units."""
    _tick(count)


def run_jobs(
    task: Callable,
    jobs: Sequence[tuple],
    workers: int,
    *,
    done: Callable[[object], object] = _ignore,
    tick: Callable[[int], object] = _ignore,
) -> None:
    """Run task(*job) for each job in `workers` spawned processes, or in this process if there is only one.

    Args:
        done: called in this process with each result, in the order in which jobs end.
        tick: called in this process with the counts that tasks passed to `advance`.

    Raises:
        RuntimeError: a worker was killed.
        Exception: whatever a task or `done` raised; all workers have ended then.
    """
    global _tick
    workers = min(workers, len(jobs))
    if workers <= 1:
        before, _tick = _tick, tick
        try:
            with one_thread():
                for job in jobs:
                    done(task(*job))
        finally:
            _tick = before
        return
    context = multiprocessing.get_context("spawn")
    counter, counted = context.Value("q", 0), 0
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, _start_worker, (counter,)) as pool:
        try:
            waiting = {pool.submit(_call, task, job) for job in jobs}
            pool.submit(int)  # makes the pool check its workers again: it could miss the death of the last
            while waiting:
                ended, waiting = wait(waiting, POLL, FIRST_COMPLETED)
                new = counter.value - counted
                tick(new)
                counted += new
                for future in ended:
                    done(future.result())
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise RuntimeError(
                    "a worker process was killed, perhaps because memory ran out: try fewer workers"
                ) from error
            raise
    tick(counter.value - counted)


def _call(task: Callable, job: tuple) -> object:
    """task(*job) in a worker. One that a signal has stopped must not get the next job from the pool."""
    try:
        return task(*job)
    except (KeyboardInterrupt, SystemExit):
        os._exit(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch and OpenCV to one thread, as in a worker."""
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


def _start_worker(counter) -> None:
    import cv2
    import torch

    global _tick

    def count(number: int) -> None:
        with counter.get_lock():
            counter.value += number

    _tick = count
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the workers
    end_with_parent()


def end_with_parent() -> None:
    """End this process when its parent ends: a killed run must not go on in processes that it started."""
    started = multiprocessing.parent_process()  # of one that was forked or spawned
    parent = os.getppid() if started is None else started.pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
