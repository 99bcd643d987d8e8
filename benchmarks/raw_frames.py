"""Samples per second and core: prepared shards against raw frames read as the released code reads them.

The same people of the same frames, in the same run, to inputs of 224 px with a depth target. The
released way: one 1280x720 PNG, one EXR and the person's masks per sample, augmentation on the full frame,
crops resized by scikit-image; its part labels are drawn later, on the GPU, and cost nothing here. Ours: a
loader over shards that were cut from the frames before, part labels included. The augmentations are the same
transforms with the same chances. Both take turns in one process; times are that process's CPU time, so that a
busy machine changes them little. Goal: 20 times as fast.

Our loader yields compact batches, which the device expands (`to_device`). On a GPU that costs the processor
nothing; the rate with expansion on the CPU is measured as well.

The frames are the open data's, not BEDLAM's: fewer people in each, so fewer masks to read. Cutting the shards
is done once and not in the ratio. What the released code does if no mask belongs to a person (it uses
everybody's) is not imitated. Also measured: the loader's memory after 1,000 and after 11,000 samples.

    python benchmarks/raw_frames.py --out results/loader.json
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.transform import resize

from dpose import results
from dpose.body import Bodies
from dpose.config import PAPER
from dpose.data import augment
from dpose.data.frames import (
    FrameSet,
    Skipped,
    mask_numbers,
    read_depth,
    read_person_mask,
    read_png,
    read_scenes,
)
from dpose.data.labels import Labels
from dpose.data.loader import make_loader
from dpose.data.sample import SAMPLE_SIZE
from dpose.data.sets import bedlam
from dpose.data.shards import shard_row, write_manifest, write_tar
from dpose.data.targets import depth_target
from dpose.io import write_json
from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD, to_device
from dpose.synthetic import write_frames

GOAL = 20.0
SIZE = PAPER.image_size


def raw_samples(
    scene: FrameSet, seed: int, spent: dict[str, float]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Image (3, S, S) and depth target (S, S) of every person, file by file; adds up `spent` seconds."""
    labels = Labels.load(scene.labels)
    transforms = augment.picture_transforms(augment.PAPER_AUGMENT)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    clock = time.process_time

    def step(name: str, since: float) -> float:
        now = clock()
        spent[name] = spent.get(name, 0.0) + now - since
        return now

    for row in np.random.default_rng(seed).permutation(len(labels)).tolist():
        imgname = str(labels.imgname[row])
        stem = Path(imgname).with_suffix("")
        rng = augment.sample_generator(seed, 0, f"{row}")
        now = clock()
        image = read_png(scene.images / imgname)
        now = step("png", now)
        depth = read_depth(scene.depth / stem.with_name(f"{stem.name}_depth.exr"))
        now = step("exr", now)
        x, y = labels.gtkps[row, :22, :2].astype(int).T
        seen = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
        for number in mask_numbers(scene.masks, imgname):  # the first one that any keypoint hits
            mask = read_person_mask(scene.masks, imgname, number)
            if mask[y[seen], x[seen]].any():
                break
        now = step("masks", now)
        image = augment.change_picture(image, transforms, rng)
        now = step("augmentation", now)
        label = {"center": labels.center[row].tolist(), "scale": float(labels.scale[row])}
        center, scale = augment.jitter_box(label, augment.PAPER_AUGMENT, rng)
        image = resize(window(image, center, scale), (SIZE, SIZE))
        person = resize(window(np.where(mask, depth, np.float32(0)), center, scale), (SIZE, SIZE))
        now = step("scikit-image resize", now)
        target = depth_target(person)
        image = (image.transpose(2, 0, 1).astype(np.float32) - mean) / std
        step("targets", now)
        yield image, target


def window(array: np.ndarray, center: list[float], scale: float) -> np.ndarray:
    """The box's whole pixels, black outside the frame."""
    side = max(1, round(200 * scale))
    x, y = round(center[0] - side / 2), round(center[1] - side / 2)
    out = np.zeros((side, side, *array.shape[2:]), array.dtype)
    height, width = array.shape[:2]
    top, bottom, left, right = max(y, 0), min(y + side, height), max(x, 0), min(x + side, width)
    if top < bottom and left < right:
        out[top - y : bottom - y, left - x : right - x] = array[top:bottom, left:right]
    return out


def memory(folder: Path, first: int = 1000, then: int = 10000) -> dict[str, float]:
    """Megabytes that this process holds after `first` samples of an endless loader, and after `then` more."""
    loader = iter(make_loader(folder, "train", PAPER, 16, train=True, shuffle_buffer=100))
    held = {}
    for count in (first, then):
        for _ in range(-(-count // 16)):
            next(loader)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held[f"after {sum((first, then)[: len(held) + 1]):,} samples"] = round(
            pages * resource.getpagesize() / 1e6, 1
        )
    return held


def measure(frames: int, rounds: int, passes: int, folder: Path) -> dict:
    write_frames(folder, "test", frames, progress=False)
    (scene,) = bedlam.scenes(folder, folder, "test", Skipped(), Bodies())
    size = SAMPLE_SIZE[SIZE]
    start = time.process_time()
    samples, rows = list(read_scenes([scene], size)), []
    (folder / "shards").mkdir()
    for first in range(0, len(samples), 20):
        path = folder / "shards" / f"train-{first // 20:06d}.tar"
        rows.append(shard_row(path.name, path, write_tar(samples[first : first + 20], path)))
    cutting = time.process_time() - start
    manifest = write_manifest(folder / "shards", rows, source="benchmark")
    people = manifest["splits"]["train"]
    spent: dict[str, float] = {}
    raw, prepared, expanded = [], [], []
    for index in range(rounds + 1):  # the first round warms up
        start = time.process_time()
        count = sum(1 for _ in raw_samples(scene, index, spent if index else {}))
        raw.append((time.process_time() - start) / count)
        loader = make_loader(folder, "train", PAPER, 16, train=True, seed=index, shuffle_buffer=100)
        batches = itertools.islice(loader, max(1, passes * people // 16))
        expansion, start, count = 0.0, time.process_time(), 0
        for batch in batches:
            before = time.process_time()
            count += len(to_device(batch, "cpu")["key"])
            expansion += time.process_time() - before
        total = time.process_time() - start
        prepared.append((total - expansion) / count)
        expanded.append(total / count)
    raw, prepared, expanded = raw[1:], prepared[1:], expanded[1:]
    ratios = [a / b for a, b in zip(raw, prepared, strict=True)]
    return {
        "people": people,
        "frames": frames,
        "network": PAPER.name,
        "stored_side": size,
        "shards": len(rows),
        "bytes_per_sample": sum(row["bytes"] for row in manifest["shards"]) // people,
        "cutting_ms_per_sample": round(1000 * cutting / people, 1),
        "raw_ms_per_sample": [round(1000 * t, 2) for t in raw],
        "raw_ms_by_step": {k: round(1000 * v / (rounds * people), 2) for k, v in spent.items()},
        "prepared_ms_per_sample": [round(1000 * t, 2) for t in prepared],
        "prepared_and_expanded_ms_per_sample": [round(1000 * t, 2) for t in expanded],
        "samples_per_second_and_core": {
            "raw frames, the released way": round(1 / statistics.median(raw), 1),
            "prepared shards": round(1 / statistics.median(prepared), 1),
            "prepared shards, expanded on the CPU": round(1 / statistics.median(expanded), 1),
        },
        "loader_memory_mb": memory(folder),
        "times_as_fast": round(statistics.median(ratios), 1),
        "times_as_fast_by_round": [round(ratio, 1) for ratio in ratios],
        "goal": GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=40, help="full 1280x720 frames to render")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=10, help="of the loader over the shards, a round")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.frames, args.rounds, args.passes, Path(folder))
    for name, rate in found["samples_per_second_and_core"].items():
        print(f"{name:30} {rate:8.1f} samples/s/core")
    print("memory of the loader, MB: " + ", ".join(f"{v} {k}" for k, v in found["loader_memory_mb"].items()))
    print(f"{found['times_as_fast']:.1f} times as fast (goal {GOAL:g})")
    if args.out:
        write_json(args.out, {"benchmark": "raw_frames"} | found | results.provenance())


if __name__ == "__main__":
    main()
