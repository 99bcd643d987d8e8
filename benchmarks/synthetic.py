"""Speed of the synthetic generator: samples per second and core, and the time per stage.

    python benchmarks/synthetic.py [--size 128] [--scenes 60] [--profile]

Stages: sampling the scene, labels and part labels, upload to the renderer, rendering, and encoding for
shards. Rates refer to the CPU time of this process on one thread, which depends little on other processes.
Goal: 60 samples per second and core at 128 pixels.
"""

import argparse
import cProfile
import json
import pstats
import time
from collections import defaultdict
from contextlib import contextmanager, nullcontext

import cv2
import numpy as np
import torch

from dpose.body import Body
from dpose.data.sample import MARGIN, Sample
from dpose.data.shards import encode_sample
from dpose.data.targets import label_part_targets
from dpose.synthetic import SceneRenderer, person_samples, sample_scene
from dpose.synthetic.samples import MIN_VISIBLE, open_body, people_labels

SPLIT, WARM_UP = "train", 3


class Stages:
    """CPU seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str):
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start


def person_samples_in_stages(index: int, size: int, body: Body, stage: Stages) -> list[Sample]:
    """`person_samples` in separate stages; `measure` checks that both give the same pictures."""
    with stage("scene"):
        scene = sample_scene(0, SPLIT, index)
    with stage("parts"):
        people = people_labels(scene)
        if not people:
            return []
        labels = [label for _, _, label in people]
        poses = np.stack([pose for _, pose, _ in people])
        betas, trans = ([label[name] for label in labels] for name in ("betas", "trans"))
        parts = label_part_targets(poses, betas, trans, labels, body, size)
    with stage("upload"):
        renderer = SceneRenderer(scene)
    samples = []
    for (k, _, label), part in zip(people, parts, strict=True):
        with stage("render"):
            view = renderer.crop(label["center"], label["scale"], size, MARGIN)
        person = view.person == k
        if person.sum() >= MIN_VISIBLE * max(np.count_nonzero(part), 1):
            depth = np.where(person, view.depth, np.float32(0))
            samples.append(Sample(image=view.image, depth=depth, parts=part, label=label))
    return samples


def measure(size: int, scenes: int) -> dict:
    stage, count, body = Stages(), 0, open_body()
    for index in range(WARM_UP):
        person_samples_in_stages(index, size, body, Stages())
    for index in range(WARM_UP, WARM_UP + scenes):
        samples = person_samples_in_stages(index, size, body, stage)
        count += len(samples)
        with stage("encode"):
            for sample in samples:
                encode_sample(sample)
    check = person_samples(sample_scene(0, SPLIT, WARM_UP + scenes - 1), size)
    assert [s["image"].tobytes() for s in check] == [s["image"].tobytes() for s in samples]
    total = sum(stage.seconds.values())
    return {
        "size": size,
        "samples": count,
        "samples_per_s_core": round(count / total, 1),
        "ms_per_sample": {name: round(1000 * t / count, 2) for name, t in stage.seconds.items()}
        | {"total": round(1000 * total / count, 2)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128, help="side of a crop in pixels (default 128)")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--profile", action="store_true", help="also print the slowest functions")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with cProfile.Profile() if arguments.profile else nullcontext() as profile:
        results = measure(arguments.size, arguments.scenes)
    print(json.dumps(results, indent=1))
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
