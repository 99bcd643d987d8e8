"""How much of the network's speed is left in training: images per second, end to end and bare.

Bare is the network's forward and backward pass over one batch that is already on the device. End to end is
`dpose.training` itself: reading and augmenting, both bodies, all losses, clipping, Adam, logging. They are
measured in turn, in one process, in the same precision and with as many threads; the median of the rounds'
ratios counts. The goal is 0.7.

    python benchmarks/train_throughput.py --out results/train_throughput.json
    python benchmarks/train_throughput.py --preset paper --accelerator cuda --batch-size 64
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace

import torch

from dpose import results
from dpose.config import preset
from dpose.data.fingerprint import data_fingerprint
from dpose.data.loader import make_loader
from dpose.io import write_json
from dpose.model.inference import run_network, to_device
from dpose.model.network import DPose
from dpose.training import PRECISIONS, TrainConfig, on_cuda, train
from dpose.training.environment import precision_record, preserved, set_up_process

GOAL = 0.7


def bare(config: TrainConfig, seconds: float) -> float:
    """Images per second of the network alone, forward and backward, on one batch."""
    device = "cuda" if on_cuda(config.accelerator) else "cpu"
    model = DPose(preset(config.preset)).to(device, memory_format=torch.channels_last)
    loader = make_loader(config.data, "train", model.config, config.batch_size, train=True, workers=0)
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

    with preserved():
        set_up_process(config.precision, config.accelerator)
        step(), step()
        begin, steps = wait(), 0
        while wait() - begin < seconds:
            step()
            steps += 1
        return steps * config.batch_size / (wait() - begin)


def end_to_end(config: TrainConfig, seconds: float, rate: float) -> float:
    """Images per second of `train`, after its first step."""
    steps = 2 + round(rate * seconds / config.batch_size)
    with tempfile.TemporaryDirectory() as out:
        return train(replace(config, out=out, steps=steps, recipe=None)).images_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--data", help="data root (default: $DPOSE_DATA, else the open data)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, help="loader processes (default: spare cores)")
    parser.add_argument("--accelerator", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=PRECISIONS, help="(default: the preset's recipe)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as out:  # where nothing is yet
        config = TrainConfig(
            preset=args.preset,
            data=args.data,
            out=out,
            batch_size=args.batch_size,
            workers=args.workers,
            accelerator=args.accelerator,
            precision=args.precision,
            progress=False,
        ).resolve()
    rounds = []
    for number in range(args.rounds):
        network = bare(config, args.seconds)
        training = end_to_end(config, args.seconds, network)
        rounds.append({"bare": round(network, 2), "end_to_end": round(training, 2)})
        print(f"round {number + 1}: bare {network:.1f}, end to end {training:.1f} images/s", flush=True)
    ratio = statistics.median(row["end_to_end"] / row["bare"] for row in rounds)
    print(f"ratio {ratio:.2f} (goal {GOAL}), precision {config.precision}, {config.workers} loaders")
    if args.out:
        result = {
            "benchmark": "train_throughput",
            "preset": config.preset,
            "batch_size": config.batch_size,
            "precision": precision_record(config.precision),
            "accelerator": config.accelerator,
            "workers": config.workers,
            "rounds": rounds,
            "ratio": round(ratio, 3),
            "goal": GOAL,
            "data": {"fingerprint": data_fingerprint(config.data)},
        }
        write_json(args.out, result | results.provenance())


if __name__ == "__main__":
    main()
