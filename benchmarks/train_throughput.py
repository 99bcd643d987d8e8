"""How much of the network's speed is left in training: images per second of the full step, and bare.

Bare is the network's forward and backward pass over one batch that is already on the device. The full step is
`dpose.training` itself: reading and augmenting, moving and expanding the batch, both bodies, all losses,
clipping, Adam, logging. For each precision, with and without `torch.compile`, both are measured in turn, with
as many processes of as many threads; the median of the rounds' ratios counts. The goal is 0.85.

On the CPU there are two ratios. That of images per second depends on free cores for the loader, and on other
programs. That of images per second of CPU time, loader processes included, does not: it is the ratio on a
machine whose cores are all in use.

    python benchmarks/train_throughput.py --out results/training_speed.json
    python benchmarks/train_throughput.py --devices 2      # two processes on the CPU
    python benchmarks/train_throughput.py --preset paper --accelerator cuda --batch-size 64 --compile no yes

With --out a case that the file has already is replaced, and the others are kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as lightning
import torch

from dpose import results
from dpose.config import preset
from dpose.data.fingerprint import data_fingerprint
from dpose.data.loader import make_loader
from dpose.io import write_json
from dpose.model.hrnet import HRNet
from dpose.model.inference import computes_in_bf16, run_network, to_device
from dpose.model.network import DPose
from dpose.training import PRECISIONS, TrainConfig, on_cuda, train
from dpose.training.environment import preserved, set_up_process

GOAL = 0.85
SAME = ("preset", "devices", "batch_size", "precision", "compiled", "device")  # make a case


class Speed(NamedTuple):
    wall: float  # images per second, of all processes
    cpu: float  # images per second of CPU time


def bare(config: TrainConfig, steps: int, compiled: bool) -> Speed:
    """The network alone, forward and backward, in each process on its share of a batch."""
    if config.devices == 1:
        return _bare(config, steps, compiled)
    with multiprocessing.get_context("fork").Pool(config.devices) as pool:  # as training does on the CPU
        speeds = pool.starmap(_bare, [(config, steps, compiled)] * config.devices, chunksize=1)
    return Speed(sum(speed.wall for speed in speeds), statistics.mean(speed.cpu for speed in speeds))


def _bare(config: TrainConfig, steps: int, compiled: bool) -> Speed:
    device = "cuda" if on_cuda(config.accelerator) else "cpu"
    size = config.batch_size // config.devices
    with preserved():
        set_up_process(config.precision, config.accelerator)
        model = DPose(preset(config.preset)).to(device, memory_format=torch.channels_last)
        if config.recipe.backbone_lr == 0 and not isinstance(model.encoder, HRNet):  # fixed, as in training
            model.encoder.backbone.requires_grad_(False)
        if compiled:
            model.compile()
        loader = make_loader(config.data, "train", model.config, size, train=True, workers=0)
        batch = to_device(next(iter(loader)), device)

        def step() -> None:
            prediction = run_network(model, batch, PRECISIONS[config.precision].bf16)
            outputs = [output for output in prediction if output is not None]
            torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
            model.zero_grad(set_to_none=True)

        def wait() -> float:
            if device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter()

        step(), step()
        begin, cpu = wait(), time.process_time()
        for _ in range(steps):
            step()
        images = steps * size
        return Speed(images / (wait() - begin), images / (time.process_time() - cpu))


class Meter(lightning.Callback):
    """CPU time of a process and of its loader processes, from the first step to the last, into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.is_global_zero and trainer.global_step in (1, trainer.max_steps):
            times = [time.process_time()]
            for child in multiprocessing.active_children():
                fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
                times.append(sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK"))
            with open(self.path, "a") as file:
                print(sum(times), file=file)


class Compile(lightning.Callback):
    """Has the network compiled before the first step."""

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        module.model.compile()


def full(config: TrainConfig, steps: int, compiled: bool) -> Speed:
    """`train`, after its first step."""
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(Path(folder) / "cpu")
        config = replace(config, out=Path(folder) / "run", steps=steps + 1, recipe=None, validate_every=0)
        wall = train(config, callbacks=[meter, *([Compile()] if compiled else [])]).images_per_second
        first, last = map(float, meter.path.read_text().split())
    return Speed(wall, steps * config.batch_size / config.devices / (last - first))


def measure(config: TrainConfig, steps: int, compiled: bool, rounds: int) -> dict[str, Any]:
    """One case of the results."""
    rows = []
    for _ in range(rounds):
        rows.append((bare(config, steps, compiled), full(config, steps, compiled)))
    cuda = on_cuda(config.accelerator)
    case = {
        "preset": config.preset,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "devices": config.devices,
        "threads": None if cuda else torch.get_num_threads(),
        "workers": config.workers,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "compiled": compiled,
    }
    for kind in ("wall",) if cuda else ("wall", "cpu"):
        speeds = [[round(getattr(speed, kind), 2) for speed in row] for row in rows]
        middle = [statistics.median(column) for column in zip(*speeds, strict=True)]
        ratio = statistics.median(two / one for one, two in speeds)
        case[kind] = {"bare": middle[0], "full": middle[1], "ratio": round(ratio, 3), "rounds": speeds}
    return case | {"data": data_fingerprint(config.data), **results.provenance()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--data", help="data root (default: $DPOSE_DATA, else the open data)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--devices", type=int, default=1, help="processes on the CPU")
    parser.add_argument("--workers", type=int, help="loader processes (default: spare cores)")
    parser.add_argument("--accelerator", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help="(default: 32, on CUDA tf32, and bf16 where the hardware computes in it)",
    )
    parser.add_argument("--compile", nargs="+", choices=["no", "yes"], default=["no"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of each measurement")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()

    cuda = on_cuda(args.accelerator)
    if cuda and args.devices > 1:
        parser.error("several devices are compared on the CPU only")
    precisions = args.precision or ["32", *(["tf32"] if cuda else [])]
    if not args.precision and computes_in_bf16("cuda" if cuda else "cpu"):
        precisions.append("bf16")
    if not cuda:
        set_up_process("32", args.accelerator)  # one thread for each process
    for precision, compiled in itertools.product(precisions, args.compile):
        with tempfile.TemporaryDirectory() as out:  # where nothing is yet
            config = TrainConfig(
                preset=args.preset,
                data=args.data,
                out=out,
                batch_size=args.batch_size,
                devices=args.devices,
                workers=args.workers,
                accelerator=args.accelerator,
                precision=precision,
                progress=False,
            ).resolve()
        case = measure(config, args.steps, compiled == "yes", args.rounds)
        for kind in case.keys() & Speed._fields:
            print(
                f"{precision}{', compiled' * case['compiled']}, {kind}: bare {case[kind]['bare']:.1f}, full "
                f"step {case[kind]['full']:.1f} images/s, ratio {case[kind]['ratio']:.2f} (goal {GOAL})",
                flush=True,
            )
        if args.out:
            kept = json.loads(Path(args.out).read_text())["cases"] if Path(args.out).exists() else []
            kept = [row for row in kept if any(row[name] != case[name] for name in SAME)]
            write_json(args.out, {"benchmark": "train_throughput", "goal": GOAL, "cases": [*kept, case]})


if __name__ == "__main__":
    main()
