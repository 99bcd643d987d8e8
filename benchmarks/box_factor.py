"""How large the network's square should be around a box that surrounds the visible person.

Training boxes surround the joints, times 1.2. Detectors and annotators surround what is visible. Measured on
the open data: the ratio of the two squares, and the errors of a network whose squares are those of the
visible pixels (clothes and hair included), times several factors.

    python benchmarks/box_factor.py --out results/box_factor.json     # 2 minutes
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch

import dpose
from dpose import results
from dpose.camera import BOX_UNIT
from dpose.data.sample import Sample, relative_matrix, warp_image
from dpose.data.shards import decode_sample
from dpose.data.sources import BadCount, find_shards, read_members
from dpose.io import write_json
from dpose.metrics import mpjpe, pa_mpjpe
from dpose.model.checkpoint import body_of
from dpose.model.inference import normalise, run_network
from dpose.paths import data_root

FACTORS = (0.9, 1.0, 1.1, 1.2)
BATCH = 64
WHOLE = 0.97  # share of the bare body's pixels that must be visible, at least


def samples(data: str | None, split: str) -> Iterator[Sample]:
    """The people of a split of whom something is visible; depth in codes."""
    for members in read_members(find_shards(data_root(data), split), BadCount(0, 0)):
        sample = decode_sample(members, codes=True)
        if sample["depth"] is not None and sample["depth"].any():
            yield sample


def visible_box(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Centre and size (2,) of the box around a person's visible pixels, pixels of the full image."""
    label, visible = sample["label"], sample["depth"] > 0
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    low, high = np.array([columns[0], rows[0]]), np.array([columns[-1], rows[-1]]) + 1
    pixel = BOX_UNIT * label["scale"] * label["margin"] / len(visible)
    return label["center"] + ((low + high) / 2 - len(visible) / 2) * pixel, (high - low) * pixel


def is_whole(sample: Sample) -> bool:
    """Whether (almost) all of a person is visible, inside of the image."""
    label, bare = sample["label"], sample["parts"] > 0
    center, size = visible_box(sample)
    joints = label["joints2d"][:22, :2]
    inside = (joints > 0).all() and (joints < label["img_size"]).all()
    inside &= (center > size / 2 + 1).all() and (center + size / 2 + 1 < label["img_size"]).all()
    return bool(inside and (bare & (sample["depth"] > 0)).sum() > WHOLE * bare.sum())


@torch.inference_mode()
def errors(people: list[Sample], network: str, factor: float | None) -> dict[str, float]:
    """MPJPE and PA-MPJPE, mm. factor: of the visible person's box; None: the squares of the labels."""
    model = dpose.load(network)
    body, size, measured = body_of(model), model.config.image_size, []
    for start in range(0, len(people), BATCH):
        group, crops, boxes = people[start : start + BATCH], [], []
        for sample in group:
            label, center, scale = sample["label"], sample["label"]["center"], sample["label"]["scale"]
            if factor is not None:
                center, sides = visible_box(sample)
                scale = factor * sides.max() / BOX_UNIT
            matrix = relative_matrix(label, len(sample["image"]), center, scale, size)
            crops.append(warp_image(sample["image"], matrix, size))
            boxes.append((*center, scale))
        pose, betas, cam_int = (
            torch.from_numpy(np.stack([one["label"][name] for one in group])).float()
            for name in ("pose", "betas", "cam_int")
        )
        boxes = torch.tensor(np.array(boxes), dtype=torch.float32)
        image = normalise(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))
        batch = {"image": image, "center": boxes[:, :2], "scale": boxes[:, 2]}
        prediction = run_network(model, batch | {"cam_int": cam_int.view(-1, 3, 3)})
        joints = body(prediction.betas, prediction.rotmats).joints
        true = body(betas, pose.view(-1, 22, 3), form="axis-angle").joints
        measured.append(torch.stack([mpjpe(joints, true), pa_mpjpe(joints, true)]))
    mean = torch.cat(measured, 1).mean(1).tolist()
    return {"mpjpe": round(mean[0], 2), "pa_mpjpe": round(mean[1], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="lite")
    parser.add_argument("--data", help="data root (default: $DPOSE_DATA, else the open data)")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)

    people = {split: list(samples(args.data, split)) for split in ("val", "test")}
    everybody = [*people["val"], *people["test"]]
    ratios = np.array([BOX_UNIT * one["label"]["scale"] / visible_box(one)[1].max() for one in everybody])
    whole = np.array([is_whole(one) for one in everybody])
    about = {}
    for name, chosen in (("all", whole | True), ("whole", whole)):
        quartiles = np.quantile(ratios[chosen], (0.25, 0.5, 0.75)).round(3).tolist()
        about[name] = {"people": int(chosen.sum()), "quartiles": quartiles}
    print(about)
    rows = {}
    for factor in (None, *FACTORS):
        name = "training box" if factor is None else f"{factor:g}"
        rows[name] = errors(people["test"], args.checkpoint, factor)
        print(name, rows[name])
    if args.out:
        record = {"network": args.checkpoint, "samples": len(people["test"]), "ratios": about, "errors": rows}
        write_json(args.out, {**record, **results.provenance()})


if __name__ == "__main__":
    main()
