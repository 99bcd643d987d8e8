"""Kill a training run with SIGKILL at random moments, resume it, and compare it with an uninterrupted one.

    python scripts/kill_runs.py                  # 20 kills
    python scripts/kill_runs.py --kills 5 --devices 2 --seed 3

The run is resumed after every kill with `dpose train --resume last.ckpt` alone, until it is through; if that
happens before all kills are spent, another run begins. Of three kills one comes at start-up, one while a
checkpoint is being written, one after a step. Weights, optimizer, position in the data, validation and log
(but for times) must be equal bit by bit, and nothing else may be left in the run folder. Exit status 1 if
not. Data are a few made-up people; two runs of 40 steps take some minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
MOMENTS = ("start-up", "checkpoint", "step")
TIMES = ("seconds", "images_per_second")
PATIENCE = 300.0  # seconds that a run may take before it is killed without its moment having come


class Process(Protocol):
    """What is needed of a running `dpose train`, for instance `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...


def start(arguments: Sequence[str]) -> Process:
    """`dpose train` in a process of its own."""
    command = [sys.executable, "-m", "dpose.cli", "train", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def kill_and_resume(
    arguments: Sequence[str],
    out: Path,
    kills: int,
    rng: random.Random,
    launch: Callable[[Sequence[str]], Process] = start,
) -> list[str]:
    """Run `dpose train` with `arguments` into `out`, kill it up to `kills` times, and let it come to its end.

    Returns the moments at which it was killed. Raises RuntimeError if it ends with an error.
    """
    killed = []
    while True:
        last = out / "last.ckpt"
        process = launch(["--resume", str(last)] if last.exists() else [*arguments, "--out", str(out)])
        moment = MOMENTS[len(killed) % len(MOMENTS)]
        if len(killed) < kills:
            wait_for(moment, process, out, rng)
        if len(killed) < kills and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed.append(moment)
            for name, read in (("last.ckpt", _torch), ("model.safetensors", load_file)):
                if (out / name).exists():
                    read(out / name)  # raises if it is damaged
        elif status := process.wait():
            raise RuntimeError(f"status {status}: {process.stderr.read().decode() if process.stderr else ''}")
        else:
            return killed


def wait_for(moment: str, process: Process, out: Path, rng: random.Random) -> None:
    """Return at a random moment of a kind, or when the process has ended."""
    begin, before = time.monotonic(), _stamp(out / "log.csv")
    delay = rng.uniform(0, 3 if moment == "start-up" else 0.5)
    while process.poll() is None and time.monotonic() - begin < PATIENCE:
        if moment == "start-up" and time.monotonic() - begin > delay:
            return
        if moment == "checkpoint" and any(out.glob(".*.part")):
            time.sleep(rng.uniform(0, 0.03))
            return
        if moment == "step" and _stamp(out / "log.csv") != before:
            time.sleep(delay)
            return
        time.sleep(0.001)


def differences(one: Path, two: Path) -> Iterator[str]:
    """What differs in two run folders, apart from times; nothing if the runs are the same."""
    yield from _differences("files", *(sorted(path.name for path in out.iterdir()) for out in (one, two)))
    for name in ("model", "best"):
        if (one / f"{name}.safetensors").exists():
            yield from _differences(name, *(load_file(out / f"{name}.safetensors") for out in (one, two)))
    contents = [_torch(out / "last.ckpt") for out in (one, two)]
    for name in ("state_dict", "optimizer_states", "global_step"):
        yield from _differences(name, *(content[name] for content in contents))
    yield from _differences("position", *(content["dpose"]["ranks"] for content in contents))
    for name in ("log.csv", "val.csv"):
        yield from _differences(name, *(_rows(out / name) for out in (one, two)))


def _differences(where: str, one: Any, two: Any) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        for key in one:
            yield from _differences(f"{where}.{key}", one[key], two[key])
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for number, (mine, theirs) in enumerate(zip(one, two, strict=True)):
            yield from _differences(f"{where}.{number}", mine, theirs)
    elif isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        if not torch.equal(one, two):
            yield f"{where}: {int((one != two).sum())} of {one.numel()} numbers"
    elif one != two:
        yield f"{where}: {str(one)[:80]} and {str(two)[:80]}"


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def _torch(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        return path.stat().st_size, path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()

    sys.path.insert(0, str(ROOT / "tests"))
    from random_people import write_random_people  # of the tests

    rng, killed, found = random.Random(arguments.seed), [], []
    with tempfile.TemporaryDirectory(prefix="kill_runs-") as folder:
        data = write_random_people(Path(folder) / "people", train=24, test=1)
        options = (
            f"--preset mini --data {data} --steps {arguments.steps} --batch-size 4 --accelerator cpu "
            f"--devices {arguments.devices} --workers {arguments.workers} --log-every 3 "
            "--checkpoint-minutes 0.01 --validate-every 7 --no-progress"
        ).split()
        kill_and_resume(options, Path(folder) / "straight", 0, rng)
        while len(killed) < arguments.kills:
            out = Path(folder) / f"killed-{len(killed)}"
            killed += kill_and_resume(options, out, arguments.kills - len(killed), rng)
            found += differences(Path(folder) / "straight", out)
            print(f"{len(killed)} kills, {len(found)} differences", flush=True)
    moments = ", ".join(f"{killed.count(moment)} at {moment}" for moment in MOMENTS)
    print(f"{len(killed)} kills ({moments}), {arguments.devices} devices with {arguments.workers} workers")
    print("\n".join(["DIFFERENT", *found[:20]]) if found else "equal bit by bit")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
