"""Latency and memory of one image on this CPU: `paper`, `lite`, `mini`, HMR2.0 and TokenHMR.

All weights are random, which changes neither. Only the network runs: no detection, cropping or body model.
Each case runs in a process of its own and reports the median over its passes. The cases alternate over the
rounds, and the fastest round is reported, the one that other programs disturbed least. Memory is that of
the whole process: after the imports, at most during the passes, and at most since the start.

    python benchmarks/latency.py --out results/latency.json     # 10 minutes on two cores, 4 GB of memory
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from timing import seconds_of

from dpose import results
from dpose.io import write_json
from dpose.model.inference import FastDPose
from dpose.model.size import PUBLISHED, build

VARIANTS = {  # float32; FastDPose in bfloat16; weights and activations in bfloat16
    **dict.fromkeys(("paper", "lite", "mini"), ("eager", "fast")),
    **dict.fromkeys(PUBLISHED, ("eager", "bf16")),
}
FEWEST = 5  # passes


def peak_mb() -> float:
    """Largest resident memory of this process since its start, or since `reset_peak`."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6


def reset_peak() -> None:
    """Returns freed memory to the system and forgets the peak (Linux with glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def run_case(name: str, variant: str, threads: int, seconds: float) -> dict[str, float]:
    """Median milliseconds of a pass, and the process's memory in MB."""
    imports = peak_mb()
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.bfloat16 if variant == "bf16" else torch.float32)
    network, inputs = build(name)
    if variant == "fast":
        network = FastDPose(network, bf16=True)
    with torch.inference_mode():
        network(*inputs)  # the first pass chooses algorithms and repacks weights
        building = peak_mb()
        reset_peak()
        times = []
        end = time.perf_counter() + seconds
        while len(times) < FEWEST or time.perf_counter() < end:
            times.append(1000 * seconds_of(lambda: network(*inputs)))
    running = peak_mb()
    return {
        "ms": statistics.median(times),
        "imports_mb": imports,
        "running_mb": running,
        "peak_mb": max(building, running),
    }


def in_new_process(name: str, variant: str, threads: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", name, variant, str(threads), "--seconds", str(seconds)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help=f"of a case; at least {FEWEST} passes")
    parser.add_argument("--networks", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument(
        "--case", nargs=3, metavar=("NETWORK", "VARIANT", "THREADS"), help="one case, as JSON"
    )
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    if args.case:
        name, variant, threads = args.case
        print(json.dumps(run_case(name, variant, int(threads), args.seconds)))
        return

    cases = [(n, variant, t) for n in args.networks for variant in VARIANTS[n] for t in args.threads]
    load = round(os.getloadavg()[0], 1)  # above 0.5: other programs are running
    measured = {case: [] for case in cases}
    for _ in range(args.rounds):
        for case in cases:
            measured[case].append(in_new_process(*case, args.seconds))
    rows = []
    for (name, variant, threads), rounds in measured.items():
        best = {key: round(min(each[key] for each in rounds), 2) for key in rounds[0]}
        rows.append({"network": name, "variant": variant, "threads": threads, **best})
        text = "  ".join(f"{key} {value:.1f}" for key, value in best.items())
        print(f"{name:9} {variant:6} {threads} threads  {text}")
    if args.out:
        about = {
            "batch_size": 1,
            "weights": "random",
            "rounds": args.rounds,
            "seconds": args.seconds,
            "load": load,
        }
        write_json(args.out, {**about, "cases": rows, **results.provenance()})


if __name__ == "__main__":
    main()
