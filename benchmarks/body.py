"""Speed of `dpose.body.Body` compared with `smplx` for the 22 body joints.

Both get the same betas and axis-angle rotations in the same process and alternate; the median over the rounds
is reported. Two bodies: the open body, and the same with random pose correctives, which SMPL-X has and the
open body lacks. Goals: twice as fast, vertices within 1e-5 m. Needs `smplx` (extra `dev`).

    python benchmarks/body.py --out results/body.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import smplx
import torch
from timing import seconds_of
from torch import Tensor

from dpose import results
from dpose.body import OPEN_BODY, Body, load_body
from dpose.io import write_json

SPEED_GOAL, DISTANCE_GOAL = 2.0, 1e-5
NUM_BETAS = 11


def with_pose_correctives(folder: Path) -> Path:
    """The open body's file with random pose correctives of millimetres."""
    arrays = dict(np.load(OPEN_BODY))
    shape = arrays["posedirs"].shape
    arrays["posedirs"] = 0.002 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    np.savez(folder / OPEN_BODY.name, **arrays)
    return folder / OPEN_BODY.name


@torch.inference_mode()
def measure(path: Path, batch_size: int, rounds: int, device: torch.device) -> dict[str, float | int]:
    """Milliseconds per batch of both, and the largest distance between their vertices."""
    stock = smplx.SMPLX(
        str(path), num_betas=NUM_BETAS, use_pca=False, flat_hand_mean=True, batch_size=batch_size
    ).to(device)
    ours: Body = load_body(path, num_betas=NUM_BETAS).to(device)
    generator = torch.Generator().manual_seed(0)
    betas = torch.randn(batch_size, NUM_BETAS, generator=generator).to(device)
    turns = (0.5 * torch.randn(batch_size, ours.num_rotations, 3, generator=generator)).to(device)
    root, limbs = turns[:, 0], turns[:, 1:].flatten(1)

    def stock_call() -> Tensor:
        return stock(betas=betas, global_orient=root, body_pose=limbs).vertices

    def our_call() -> Tensor:
        return ours(betas, turns, form="axis-angle").vertices

    apart = torch.linalg.vector_norm(stock_call() - our_call(), dim=-1).max().item()
    times = [(seconds_of(stock_call, device), seconds_of(our_call, device)) for _ in range(rounds)]
    return {
        "vertices": ours.num_vertices,
        "smplx_ms": round(1000 * statistics.median(theirs for theirs, _ in times), 2),
        "dpose_ms": round(1000 * statistics.median(own for _, own in times), 2),
        "times_as_fast": round(statistics.median(theirs / own for theirs, own in times), 2),
        "largest_distance_m": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)

    with tempfile.TemporaryDirectory() as folder:
        paths = {"open body": OPEN_BODY, "with pose correctives": with_pose_correctives(Path(folder))}
        bodies = {name: measure(path, args.batch_size, args.rounds, device) for name, path in paths.items()}
    print(f"{args.batch_size} bodies on {device}, {torch.get_num_threads()} threads:")
    for name, row in bodies.items():
        print(
            f"  {name:22} smplx {row['smplx_ms']:.1f} ms, dpose {row['dpose_ms']:.1f} ms, "
            f"x{row['times_as_fast']:.2f}; vertices within {row['largest_distance_m']:.1e} m"
        )
    print(f"(goal: x{SPEED_GOAL:g} within {DISTANCE_GOAL:g} m)")
    if args.out:
        write_json(
            args.out,
            {
                "batch_size": args.batch_size,
                "rounds": args.rounds,
                "device": str(device),
                "bodies": bodies,
                **results.provenance(),
            },
        )


if __name__ == "__main__":
    main()
