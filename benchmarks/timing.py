"""What the benchmarks time with."""

import time
from collections.abc import Callable

import torch


def seconds_of(call: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """One call, timed, with the device's work done."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
