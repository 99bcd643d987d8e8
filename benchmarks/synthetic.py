"""Speed of the synthetic generator: samples per second and core, and the time per stage.

    python benchmarks/synthetic.py [--scenes 60] [--sizes 128 160] [--out results/synthetic.json]

The pictures of training (drawn) and those of validation and test (ray-traced, as in earlier versions of the
generator) take turns, in rounds over the same numbers of scenes. Rates refer to the CPU time of this process
on one thread, which depends little on other processes; the median round counts. Encoding for shards is not
part of a rate, since `--data synth:` does without; its time is given. Goal: 60 samples per second and core.
"""

import argparse
import cProfile
import pstats
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import cv2
import torch

from dpose import results
from dpose.data.shards import encode_sample
from dpose.io import write_json
from dpose.synthetic import SceneRenderer, person_samples, sample_scene, samples
from dpose.synthetic import scene as scene_module

SPLITS = {"train": "training", "test": "validation and test"}
WARM_UP, GOAL = 5, 60.0
# Parts of `person_samples` and `sample_scene`, by stage.
STAGES = {
    "poses and clothes": (scene_module, "pose_people"),
    "surroundings": (scene_module, "sample_surroundings"),
    "labels": (samples, "people_labels"),
    "part labels": (samples, "_parts"),
    "upload and shadows": (SceneRenderer, "__init__"),
    "silhouettes for boxes": (SceneRenderer, "silhouettes"),
    "picture": (SceneRenderer, "crop"),
    "lens, sensor and tone": (samples, "_finished"),
}
spent: dict[str, float] = defaultdict(float)


def timed(call: Callable, stage: str) -> Callable:
    def measured(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        result = call(*arguments, **options)
        spent[stage] += time.process_time() - start
        return result

    return measured


def measure(split: str, size: int, scenes: range) -> dict[str, Any]:
    """CPU milliseconds per sample, in total and by stage."""
    spent.clear()
    made, start = [], time.process_time()
    for number in scenes:
        made += person_samples(sample_scene(0, split, number), size)
    total = time.process_time() - start
    for sample in made:
        timed(encode_sample, "encoding for shards")(sample)
    per_sample = {stage: round(1000 * seconds / len(made), 2) for stage, seconds in spent.items()}
    encoding = per_sample.pop("encoding for shards")
    rest = round(1000 * total / len(made) - sum(per_sample.values()), 2)
    return {
        "samples": len(made),
        "samples_per_second_and_core": round(len(made) / total, 1),
        "ms_by_stage": per_sample | {"the rest of the scene": rest},
        "encoding_for_shards_ms": encoding,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 160], help="sides of a crop in pixels")
    parser.add_argument("--scenes", type=int, default=60, help="scenes in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="also print the slowest functions")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    for stage, (owner, name) in STAGES.items():
        setattr(owner, name, timed(getattr(owner, name), stage))
    for split in SPLITS:
        measure(split, args.sizes[0], range(WARM_UP))
    found: dict[str, Any] = {}
    with cProfile.Profile() if args.profile else nullcontext() as profile:
        for size in args.sizes:
            rounds: dict[str, list[dict]] = {split: [] for split in SPLITS}
            for _ in range(args.rounds):
                for split, of_split in rounds.items():
                    of_split.append(measure(split, size, range(WARM_UP, WARM_UP + args.scenes)))
            for split, of_split in rounds.items():
                rates = [one["samples_per_second_and_core"] for one in of_split]
                middle = of_split[rates.index(statistics.median_low(rates))]
                found[f"{SPLITS[split]}, {size} pixels"] = middle | {"rates_by_round": rates}
                print(
                    f"{SPLITS[split]:20} {size:4d} pixels {statistics.median_low(rates):6.1f} samples/s/core"
                )
    if args.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    if args.out:
        content = {"benchmark": "synthetic", "scenes": args.scenes, "goal": GOAL, "rates": found}
        write_json(args.out, content | results.provenance())


if __name__ == "__main__":
    main()
