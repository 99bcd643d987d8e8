"""Timing for the benchmarks."""

import time
from collections.abc import Callable

import torch


def seconds_of(call: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """Duration of one call, until the device has finished."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
