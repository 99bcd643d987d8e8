"""Global settings of a run's processes: precision of arithmetic, threads, random state.

They are set for a run and are restored after the run (`preserved`).

Threads. On the CPU every process uses one thread, unless $OMP_NUM_THREADS is set; more cores are used by more
processes (`devices`). The threads of a process wait for each other after every operation, and therefore wait
for other programs on their cores; processes wait once per step. Measured with MINI on two cores that other
programs used too, images per second in two rounds (load average about 7): one process of one thread 19 and
29, one process of two threads 3 and 70, two processes of one thread 23 and 47.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from dpose.model.inference import computes_in_bf16
from dpose.processes import usable_cores

MOST_WORKERS = 8  # loader processes per device
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # variables of launchers
LEAST_SHARE = 16  # samples per process, for the batch norms, where `devices="auto"` divides a batch


class Precision(NamedTuple):
    matmul: str  # of float32 matrix products, as `torch.set_float32_matmul_precision` takes it
    conv_tf32: bool  # `torch.backends.cudnn.allow_tf32`: TF32 in float32 convolutions
    bf16: bool  # the network under bf16 autocast; the losses are float32 in any case


# "32" is strict float32. "tf32-conv" is PyTorch's default. Only CUDA devices have TF32.
PRECISIONS = {
    "32": Precision("highest", False, False),
    "tf32": Precision("high", True, False),
    "tf32-conv": Precision("highest", True, False),
    "bf16": Precision("highest", False, True),
}


def choose_precision(name: str, accelerator: str, several: bool) -> str:
    """The precision that "auto" stands for: "bf16" where the hardware computes in it, else "tf32" or "32".

    several: with several devices, processes may be forked later, so CUDA must not be initialised here.
    """
    if name != "auto":
        return name
    if not on_cuda(accelerator):
        return "bf16" if accelerator in ("auto", "cpu") and computes_in_bf16("cpu") else "32"
    if not several or torch.cuda.is_initialized():
        return "bf16" if computes_in_bf16("cuda") else "tf32"
    code = "from dpose.model.inference import computes_in_bf16 as test; print(test('cuda'))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return "bf16" if answer.stdout.strip() == "True" else "tf32"


def precision_record(name: str) -> dict[str, Any]:
    """The flags behind a name, for `run.json` and checkpoints."""
    chosen = PRECISIONS[name]
    return {
        "name": name,
        "float32_matmul_precision": chosen.matmul,
        "cudnn_allow_tf32": chosen.conv_tf32,
        "autocast": "bfloat16" if chosen.bf16 else None,
    }


def set_up_process(precision: str, accelerator: str) -> None:
    """Set precision flags and threads of this process."""
    chosen = PRECISIONS[precision]
    torch.set_float32_matmul_precision(chosen.matmul)
    torch.backends.cudnn.allow_tf32 = chosen.conv_tf32
    torch.backends.cudnn.benchmark = True  # images never change size: cuDNN may look for its fastest kernels
    if not on_cuda(accelerator):
        cv2.setNumThreads(1)
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
            os.environ["OMP_NUM_THREADS"] = "1"  # else lightning sets another number in each process


@contextmanager
def preserved() -> Iterator[None]:
    """Restore what a run changes in its process: random state, precision flags, threads."""
    cudnn = torch.backends.cudnn
    matmul, conv_tf32, benchmark = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    named = os.environ.get("OMP_NUM_THREADS")
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32, cudnn.benchmark = conv_tf32, benchmark
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
        if named is None:
            os.environ.pop("OMP_NUM_THREADS", None)


def on_cuda(accelerator: str) -> bool:
    """Whether a run uses CUDA. Does not initialise it: lightning has `is_available` ask NVML."""
    return accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available()


def launched() -> tuple[int, int] | None:
    """The numbers of nodes, and of processes on each, if torchrun or SLURM's srun started this process."""
    if TorchElasticEnvironment.detect():
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        return int(os.environ["WORLD_SIZE"]) // processes, processes
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return nodes, int(os.environ["SLURM_NTASKS"]) // nodes
    return None


def without_requeue() -> list[SLURMEnvironment]:
    """Under srun, lightning's plugin without its own checkpoints and requeueing, which `resume` replaces."""
    srun = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if srun else []


def first_process() -> bool:
    """Whether this process is the first of its run, or will start the first, by the environment."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def check_nodes(nodes: int) -> None:
    """Raises ValueError if the processes of several nodes could not find each other."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if nodes > 1 and missing and not launched():
        raise ValueError(
            f"nodes {nodes}: start the run on every node with torchrun or srun, or set $MASTER_ADDR and "
            f"$MASTER_PORT of the first node and $NODE_RANK ({', '.join(missing)} missing)"
        )


def choose_devices(devices: int | str, accelerator: str, batch_size: int) -> int | str:
    """The number of processes that "auto" stands for: all GPUs; on the CPU one per core.

    On the CPU the number divides the batch and leaves each process `LEAST_SHARE` samples or more.
    """
    if devices != "auto":
        return devices
    if on_cuda(accelerator):
        return torch.cuda.device_count()
    if accelerator not in ("auto", "cpu"):
        return devices
    most = max(1, min(usable_cores(), batch_size // LEAST_SHARE))
    return next(count for count in range(most, 0, -1) if batch_size % count == 0)


def spare_workers(devices: int | str) -> int:
    """Loader processes per device: the cores that training leaves free, shared by the devices."""
    count = devices if isinstance(devices, int) else 1
    return max(1, min(MOST_WORKERS, (usable_cores() - count) // count))
