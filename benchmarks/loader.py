"""Loader throughput: samples per second and core from prepared shards, and where the time goes.

    python benchmarks/loader.py [--data FOLDER] [--preset mini] [--samples 2000]

Without --data it makes shards of made-up people (noise with a photograph's spectrum, part labels and depth of
a stick figure). Rates are per second of this process's CPU time, so that a busy machine changes them little.
"Expand on the CPU" is what `to_device` does there; on a GPU it costs the processor nothing.
"""

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from dpose.config import preset
from dpose.data.augment import augmentation, picture_transforms, sample_generator
from dpose.data.loader import collate, make_loader
from dpose.data.sample import SAMPLE_SIZE, make_label
from dpose.data.shards import decode_sample, write_tar
from dpose.data.sources import BadCount, find_shards, read_members
from dpose.data.streams import prepare_sample
from dpose.model.inference import to_device


def made_up_sample(i: int, size: int) -> dict:
    rng = np.random.default_rng(i)
    image = np.zeros((size, size, 3), np.float32)
    for cells in (4, 12, 40, size):  # a spectrum that falls like a photograph's
        noise = rng.normal(0, 300 / cells**0.7, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    parts = np.zeros((size, size), np.uint8)
    points = rng.normal(size / 2, size / 6, (22, 2))
    for k, (a, b) in enumerate(zip(points, points[1:], strict=False)):
        cv2.line(parts, tuple(map(int, a)), tuple(map(int, b)), k + 1, size // 12)
    ramp = np.linspace(0, 0.6, size, dtype=np.float32)
    depth = np.where(parts > 0, 4 + ramp + ramp[:, None] + parts / np.float32(50), np.float32(0))
    label = make_label(
        key=f"p{i:06d}",
        pose=rng.normal(0, 0.3, 66),
        betas=rng.normal(size=11),
        trans=(0.1, 0.2, 4.3),
        joints2d=rng.uniform(0, 700, (24, 3)),
        center=(640.5, 360.5),
        scale=2.0,
        img_size=(1280, 720),
        cam_int=np.diag([1000.0, 1000, 1]),
        body="open",
    )
    image = (image + 128).clip(0, 255).astype(np.uint8)
    return {"image": image, "depth": depth, "parts": parts, "label": label}


def rate(seconds: float, count: int) -> dict:
    return {"ms_per_sample": round(1000 * seconds / count, 3), "samples_per_s_core": round(count / seconds)}


def measure(data: Path, name: str, count: int) -> dict:
    config, cpu = preset(name), time.process_time
    results = {}
    for train in (False, True):
        loader = make_loader(data, "train", config, 64, train=train, shuffle_buffer=500)
        iterator, seen = iter(loader), 0
        next(iterator)
        start = cpu()
        while seen < count and (batch := next(iterator, None)) is not None:
            seen += len(batch["key"])
        results["loader, augmented" if train else "loader, plain"] = rate(cpu() - start, seen)
    start = cpu()
    raw = list(islice(read_members(find_shards(data, "train"), BadCount(0, 0)), count))
    results["read tar"] = rate(cpu() - start, len(raw))
    results["bytes_per_sample"] = sum(len(v) for m in raw for v in m.values() if isinstance(v, bytes)) // len(
        raw
    )
    start = cpu()
    samples = [decode_sample(members, codes=True) for members in raw]
    results["decode"] = rate(cpu() - start, len(raw))
    start = cpu()
    rows = [prepare_sample(sample, config) for sample in samples]
    results["cut and targets"] = rate(cpu() - start, len(raw))
    augment = augmentation(name)
    transforms = picture_transforms(augment)
    start = cpu()
    for sample in samples:
        rng = sample_generator(0, 0, sample["label"]["key"])
        prepare_sample(sample, config, augment, rng, transforms)
    results["jitter, cut, targets, augment"] = rate(cpu() - start, len(raw))
    start = cpu()
    batches = [collate(rows[i : i + 64]) for i in range(0, len(rows), 64)]
    results["collate"] = rate(cpu() - start, len(rows))
    tensors = [value for value in batches[0].values() if isinstance(value, torch.Tensor)]
    results["bytes_per_sample_in_a_batch"] = sum(value.nbytes for value in tensors) // len(batches[0]["key"])
    start = cpu()
    for batch in batches:
        to_device(batch, "cpu")
    results["expand on the CPU"] = rate(cpu() - start, len(rows))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="folder with shards (default: made up in a temporary folder)"
    )
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--samples", type=int, default=2000)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or Path(folder)
        if not arguments.data:
            size = SAMPLE_SIZE[preset(arguments.preset).image_size]
            for first in range(0, arguments.samples, 500):
                numbers = range(first, min(first + 500, arguments.samples))
                samples = (made_up_sample(i, size) for i in numbers)
                write_tar(samples, data / f"train-{first // 500:06d}.tar")
        results = measure(data, arguments.preset, arguments.samples)
    print(
        json.dumps(
            {"preset": arguments.preset, "data": str(arguments.data or "made up"), **results}, indent=1
        )
    )


if __name__ == "__main__":
    main()
