"""Time from a picture to bodies and overlay, and memory over many pictures, on this CPU.

Networks: `lite`, `mini`, and `paper` with random weights. Paths: the network as trained in float32 ("eager"),
`FastDPose` ("fast", what `dpose predict` uses) and its ONNX file in onnxruntime. Each case runs in a process
of its own. The picture has 1280 x 720 pixels and shows one person, or eight. `first` is from the start of the
process to the first overlay; the other times are medians of warm calls:

    read      the JPEG file
    detector  boxes
    bodies    crops, network, body model
    overlay   the shaded bodies over the picture, in memory
    files     the other files that `dpose predict` writes, and the overlay as JPEG
    picture   detector, bodies and overlay in one

Goals: `picture` below 150 ms for `mini` and one person, below 500 ms for eight; memory does not grow from
picture 100 to picture 1,000.

    python benchmarks/predict.py --out results/predict.json     # 5 minutes on two quiet cores
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PATHS = ("eager", "fast", "onnx")
NETWORKS = ("lite", "mini", "paper")
GOALS_MS = {1: 150, 8: 500}  # of mini


def run_case(
    folder: Path, network: str, path: str, people: int, threads: int, rounds: int
) -> dict[str, float]:
    """The times of one case, milliseconds. The first call comes first, so what it needs is imported here."""
    from dpose import predictor as module

    picture = str(folder / f"{people}.jpg")
    predictor = module.Predictor(checkpoint(folder, network), fast=path == "fast")
    if path == "onnx":
        from onnx_network import OnnxNetwork

        config, predictor.model = (
            predictor.model.config,
            OnnxNetwork(str(folder / f"{network}.onnx"), threads),
        )
        predictor.model.config = config
        module.normalise = lambda image: image  # the graph normalises
    found = predictor(picture)
    module.overlay(found, module.read_image(picture))
    first = time.time()
    if len(found) != people:
        raise RuntimeError(f"the detector found {len(found)} of {people} people")

    from timing import seconds_of

    from dpose.export import DEFAULT, encode_jpeg, write

    image, boxes = module.read_image(picture), [person.box for person in found]
    drawn, others = module.overlay(found, image), [kind for kind in DEFAULT if kind != "overlay"]
    with tempfile.TemporaryDirectory() as out:
        parts: dict[str, Callable[[], object]] = {
            "read": lambda: module.read_image(picture),
            "detector": lambda: predictor.detector(image),
            "bodies": lambda: predictor(image, boxes),
            "overlay": lambda: module.overlay(found, image),
            "files": lambda: (write(found, f"{out}/one", save=others), encode_jpeg(drawn)),
            "picture": lambda: module.overlay(predictor(image), image),
        }
        times: dict[str, list[float]] = {name: [] for name in parts}
        for turn in range(rounds + 1):
            for name, call in parts.items():
                seconds = seconds_of(call)
                if turn > 0:
                    times[name].append(1000 * seconds)
    return {name: statistics.median(values) for name, values in times.items()} | {"first_done": first}


def run_memory(folder: Path, network: str, count: int) -> dict[str, float]:
    """Resident memory in MB after 100 and after `count` pictures of changing size and number of people."""
    import cv2
    import numpy as np

    from dpose.export import write
    from dpose.predictor import Predictor, read_image

    predictor, generator = Predictor(checkpoint(folder, network)), np.random.default_rng(0)
    pictures = [read_image(folder / f"{people}.jpg") for people in GOALS_MS]
    resident = {}
    with tempfile.TemporaryDirectory() as out:
        for number in range(1, count + 1):
            scale = generator.uniform(0.4, 1.0)
            image = cv2.resize(pictures[number % 10 == 0], None, fx=scale, fy=scale)
            if found := predictor(image):
                write(found, f"{out}/{number % 5}", image)
            if number in (100, count):
                status = Path("/proc/self/status").read_text()
                resident[str(number)] = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024 / 1e6
    return resident


def checkpoint(folder: Path, network: str) -> str:
    """`paper`'s file; the others come with the package."""
    return str(folder / "paper.safetensors") if network == "paper" else network


def make_inputs(folder: Path, networks: list[str]) -> None:
    """Writes the pictures, `paper`'s checkpoint, and the networks' ONNX files."""
    import cv2
    import numpy as np
    import torch
    from inference import random_network
    from skimage import data

    from dpose import load_body, save
    from dpose.model.onnx_file import export_onnx

    person = data.astronaut()[..., ::-1]
    small = cv2.resize(person, (320, 320), interpolation=cv2.INTER_AREA)
    one, eight = (np.full((720, 1280, 3), 114, np.uint8) for _ in range(2))
    one[104:616, 384:896] = person
    for row in (20, 370):
        eight[row : row + 320] = np.tile(small, (1, 4, 1))
    for people, picture in ((1, one), (8, eight)):
        cv2.imwrite(f"{folder}/{people}.jpg", picture)
    for name in networks:
        if name == "paper":
            torch.manual_seed(0)
            model = random_network(name, torch.randn(4, 3, 224, 224), torch.randn(4, 3))
            body = load_body()
            save(model, checkpoint(folder, name), {"body": {"name": body.name, "hash": body.hash}})
        export_onnx(checkpoint(folder, name), folder / f"{name}.onnx")


def in_new_process(threads: int, *arguments: str, **environment: str) -> tuple[float, dict]:
    """Runs this script with `--case` or `--memory`: the time of its start, and its JSON."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)} | environment
    start = time.time()
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return start, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9, help="warm calls of a case")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--paths", nargs="+", default=list(PATHS), choices=PATHS)
    parser.add_argument("--pictures", type=int, default=1000, help="of the measurement of memory; 0: none")
    parser.add_argument(
        "--case", nargs=4, metavar=("FOLDER", "NETWORK", "PATH", "PEOPLE"), help="one case, as JSON"
    )
    parser.add_argument("--memory", nargs=2, metavar=("FOLDER", "NETWORK"), help="memory, as JSON")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    if args.case:
        folder, network, path, people = args.case
        print(json.dumps(run_case(Path(folder), network, path, int(people), args.threads, args.rounds)))
        return
    if args.memory:
        print(json.dumps(run_memory(Path(args.memory[0]), args.memory[1], args.pictures)))
        return

    from dpose import results
    from dpose.io import write_json

    load = round(os.getloadavg()[0], 1)  # above 0.5: other programs are running
    rows, memory = [], {}
    options = ["--threads", str(args.threads), "--rounds", str(args.rounds)]
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder), args.networks)

        def run(network: str, path: str, people: int, **environment: str) -> dict[str, float]:
            case = ["--case", folder, network, path, str(people)]
            start, row = in_new_process(args.threads, *case, *options, **environment)
            return {"first": 1000 * (row.pop("first_done") - start)} | row

        run(args.networks[0], "fast", 1)  # brings files to the system's cache
        for network, path, people in itertools.product(args.networks, args.paths, GOALS_MS):
            row = {name: round(value, 1) for name, value in run(network, path, people).items()}
            if path == "onnx":
                del row["first"]  # the process loads the checkpoint, too
            rows.append({"network": network, "path": path, "people": people, **row})
            print(f"{network:6} {path:6} {people} people  " + "  ".join(f"{k} {v}" for k, v in row.items()))
        compiling = round(run(args.networks[0], "fast", 1, WARP_CACHE_PATH=f"{folder}/warp")["first"])
        print(f"first call on a machine, which compiles the kernels: {compiling} ms")
        if args.pictures:
            case = ["--memory", folder, args.networks[0], "--pictures", str(args.pictures)]
            memory = in_new_process(args.threads, *case)[1]
            print(
                "resident memory, MB: " + ", ".join(f"{v:.0f} after {k} pictures" for k, v in memory.items())
            )
    for row in rows:
        if row["network"] == "mini" and row["path"] == "fast":
            print(f"mini, {row['people']} people: {row['picture']} ms (goal {GOALS_MS[row['people']]} ms)")
    if args.out:
        about = {"threads": args.threads, "rounds": args.rounds, "load": load, "unit": "ms"}
        content = {"cases": rows, "first_with_compilation": compiling, "resident_mb": memory}
        write_json(args.out, {**about, **content, **results.provenance()})


if __name__ == "__main__":
    main()
