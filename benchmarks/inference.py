"""Speed of `FastDPose` compared with the network as trained, and the difference of their outputs.

Speed and differences are measured with the `paper` network (random weights, batch norms measured on the
batch), the change of the errors with the shipped `mini` on the open test people. The variants alternate, and
the median over the rounds is reported. Goals: three times as fast for `paper`, MPJPE changed by less than
0.1 mm.

    python benchmarks/inference.py --out results/inference.json
    python benchmarks/inference.py --compile       # also through torch.compile (minutes to compile on a CPU)
"""

from __future__ import annotations

import argparse
import statistics

import torch
from timing import seconds_of
from torch import Tensor, nn

import dpose
from dpose import results
from dpose.batch import Prediction
from dpose.config import preset
from dpose.data.loader import make_loader
from dpose.evaluate import measure
from dpose.io import write_json
from dpose.model.inference import FastDPose
from dpose.model.network import DPose
from dpose.paths import data_root

SPEED_GOAL, MPJPE_GOAL = 3.0, 0.1


@torch.no_grad()
def random_network(name: str, image: Tensor, box: Tensor) -> DPose:
    """A network with random weights and the batch norm statistics of this batch: no feature vanishes."""
    model = DPose(preset(name)).to(image.device)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(image, box)
    return model.eval()


def difference(one: Prediction, two: Prediction) -> dict[str, float]:
    """Largest absolute difference of each output; part logits are compared as probabilities."""
    pairs = {name: (getattr(one, name), getattr(two, name)) for name in Prediction._fields}
    pairs["parts"] = tuple(logits.softmax(1) for logits in pairs["parts"])
    return {name: float((a - b).abs().max()) for name, (a, b) in pairs.items() if a is not None}


def speed(args: argparse.Namespace, device: torch.device) -> dict[str, dict]:
    """Images per second of each variant, and its difference from the first."""
    generator = torch.Generator().manual_seed(0)
    size = preset(args.preset).image_size
    image = torch.randn(args.batch_size, 3, size, size, generator=generator).to(device)
    box = torch.randn(args.batch_size, 3, generator=generator).to(device)
    model = random_network(args.preset, image, box)
    variants: dict[str, nn.Module] = {"eager, 32 bits": model, "fast, 32 bits": FastDPose(model, bf16=False)}
    fast = FastDPose(model)
    if fast.bf16:
        variants["fast, bf16"] = fast
    if args.compile:
        variants["fast, compiled"] = torch.compile(fast, fullgraph=True)

    with torch.inference_mode():
        expected = model(image, box)
        differences = {name: difference(variant(image, box), expected) for name, variant in variants.items()}
        times = {name: [] for name in variants}
        for _ in range(args.rounds):
            for name, variant in variants.items():
                times[name].append(seconds_of(lambda variant=variant: variant(image, box), device))
    first = next(iter(times.values()))
    return {
        name: {
            "images_per_second": round(args.batch_size / statistics.median(seconds), 3),
            "times_as_fast": round(statistics.median(a / b for a, b in zip(first, seconds, strict=True)), 2),
            "largest_difference": differences[name],
        }
        for name, seconds in times.items()
    }


def errors(args: argparse.Namespace, device: torch.device) -> dict[str, dict[str, float]]:
    """Mean errors of `mini` on the open test people, as trained and as `FastDPose`."""
    model = dpose.load("mini", device=device)
    body = dpose.load_body().to(device)
    found = {}
    for name, network in {"eager, 32 bits": model, "fast": FastDPose(model)}.items():
        loader = make_loader(data_root(args.data), "test", model.config, 64, train=False, workers=1)
        table = measure(network, loader, body)
        found[name] = {metric: float(table[metric].mean()) for metric in ("mpjpe", "pa_mpjpe", "mve")}
        found[name]["samples"] = len(table["key"])
    found["change"] = {
        metric: found["fast"][metric] - found["eager, 32 bits"][metric]
        for metric in ("mpjpe", "pa_mpjpe", "mve")
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--data", help="data root (default: $DPOSE_DATA, else the open data)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    device = torch.device(args.device)

    variants = speed(args, device)
    print(f"{args.preset}, batches of {args.batch_size} on {device}:")
    for name, row in variants.items():
        worst = ", ".join(f"{output} {value:.1e}" for output, value in row["largest_difference"].items())
        print(f"  {name:16} {row['images_per_second']:8.2f} images/s  x{row['times_as_fast']:.2f}  {worst}")
    best = max(row["times_as_fast"] for row in variants.values())
    print(f"best: {best:.2f} times as fast (goal {SPEED_GOAL:g})")

    measured = errors(args, device)
    for metric, change in measured["change"].items():
        print(f"mini, {metric}: {measured['eager, 32 bits'][metric]:.3f} mm, fast {change:+.3f} mm")
    print(f"(goal: MPJPE changed by less than {MPJPE_GOAL:g} mm)")
    if args.out:
        write_json(
            args.out,
            {
                "preset": args.preset,
                "batch_size": args.batch_size,
                "device": str(device),
                "variants": variants,
                "best_times_as_fast": best,
                "mini": measured,
                **results.provenance(),
            },
        )


if __name__ == "__main__":
    main()
