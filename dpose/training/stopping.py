"""SIGTERM and Ctrl-C: the run ends after its current step and saves first.

Lightning's own handling ends with exit status 0 and 1, broadcasts from within a signal handler, and saves
nothing in processes that were forked or spawned.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch.utils.data import get_worker_info

POLL = 0.2  # seconds between looks at other processes
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 10.0  # seconds; a signal that is repeated later than this ends the run at once, unsaved


class Stopped(SystemExit):
    """A run was stopped by a signal.

    `code` is the exit status: 130 or 143 in a node's first process; 0 in the others, so that the launcher
    does not kill the rest.
    """

    def __init__(self, signum: int, message: str = "", leader: bool = True) -> None:
        super().__init__(message)
        self.code = 128 + signum if leader else 0


def report_deaths(processes: Sequence[subprocess.Popen]) -> None:
    """Print a line when one of the processes that this one started fails, from a thread.

    lightning then ends the run within five seconds, but with SIGKILL and without a message.
    """

    def watch() -> None:
        while not any(process.poll() for process in processes):
            time.sleep(POLL)
        rank, status = next((i, p.returncode) for i, p in enumerate(processes, 1) if p.returncode)
        print(f"dpose: training process {rank} ended with status {status}: the run ends", file=sys.stderr)

    if processes:
        threading.Thread(target=watch, daemon=True).start()


class StopSignals:
    """Stores the signal; the loop checks it.

    Attributes:
        received: number of the first signal; 0: none yet.
        looping: whether this process is in the training loop; outside it a signal ends the run at once.
        launcher: the launcher of the processes that this one waits for and sends SIGTERM to.
    """

    def __init__(self) -> None:
        self.received = 0
        self.looping = False
        self.launcher: _MultiProcessingLauncher | None = None
        self._owner, self._time = os.getpid(), 0.0

    def install(self) -> None:
        """Handle the signals in this process. Only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                signal.signal(signum, self._handle)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """`install`; restores the caller's handlers afterwards."""
        before = [signal.getsignal(signum) for signum in SIGNALS]
        self.install()
        try:
            yield
        finally:
            if threading.current_thread() is threading.main_thread():
                for signum, handler in zip(SIGNALS, before, strict=True):
                    signal.signal(signum, handler or signal.SIG_DFL)

    def _handle(self, signum: int, frame: object) -> None:
        now = time.monotonic()
        if get_worker_info() is not None:  # a loader process: its batches are needed until the step ends
            return
        if not self.received:
            self.received, self._time = signum, now
            if self.launcher is not None and self.launcher.procs and os.getpid() == self._owner:
                self.launcher.kill(signal.SIGTERM)
                return
            if self.looping:
                return
        elif now - self._time < PATIENCE:
            return
        raise Stopped(self.received)
