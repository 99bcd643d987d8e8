"""Speed of part labels: this package's renderer compared with `trimesh` and Embree in the same process.

Each person is cropped as in the data sets, so that all pictures are filled alike. Both renderers go from
posed vertices to labels, with new poses in each call: ours refits its trees, Embree builds new ones. Embree
runs as `trimesh` calls it, on one core, and with the people distributed over as many Python threads as ours
uses; the faster of the two is compared. The renderers alternate, and the median of the ratios of the rounds
is reported. Goal: five times as fast.

    python benchmarks/render.py --out results/render.json
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import roma
import torch
import trimesh
from timing import seconds_of
from torch import Tensor

from dpose import results
from dpose.body import Body, load_body
from dpose.camera import box_from_joints, crop_intrinsics, project
from dpose.data.sample import MARGIN
from dpose.io import write_json
from dpose.render import raycast, render_parts

GOAL = 5.0
IMG_SIZE, FOCAL = (1280.0, 720.0), 1000.0


@torch.no_grad()
def people(body: Body, count: int, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Vertices (B, V, 3) of people in random poses, camera frame, and cameras (B, 3, 3) of their crops."""
    generator = torch.Generator().manual_seed(seed)
    axis_angle = 0.3 * torch.randn(count, 22, 3, generator=generator)
    axis_angle[:, 0] = torch.tensor([3.1, 0.0, 0.0]) + 0.3 * torch.randn(count, 3, generator=generator)
    trans = torch.rand(count, 3, generator=generator) * torch.tensor([2.0, 0.6, 3.0])
    trans = trans + torch.tensor([-1.0, 0.0, 3.5])
    betas = torch.randn(count, 11, generator=generator)
    posed = body(betas, roma.rotvec_to_rotmat(axis_angle), trans)
    width, height = IMG_SIZE
    cam_int = torch.tensor([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]]).expand(count, 3, 3)
    joints = project(posed.joints[:, :22], cam_int)
    img_size = torch.tensor(IMG_SIZE).expand(count, 2)
    center, scale = box_from_joints(joints, torch.ones(joints.shape[:2], dtype=torch.bool), img_size)
    return posed.vertices, crop_intrinsics(cam_int, center, MARGIN * scale, size)


def embree_parts(
    vertices: np.ndarray, faces: np.ndarray, part: np.ndarray, k: np.ndarray, size: int
) -> np.ndarray:
    """Labels (S, S) of one person as `dpose.render.render_parts` defines them, by `trimesh` and Embree."""
    y, x = np.mgrid[:size, :size] + 0.5
    rays = np.stack([(x - k[0, 2]) / k[0, 0], (y - k[1, 2]) / k[1, 1], np.ones_like(x)], -1).reshape(-1, 3)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    face = mesh.ray.intersects_first(np.zeros_like(rays), rays)
    hit = np.nonzero(face >= 0)[0]
    corners = faces[face[hit]]
    a, b, c = (vertices[corners[:, i]] for i in range(3))
    ray = rays[hit]
    # The ray through the pinhole meets a, b and c's plane at weights proportional to these triple products.
    weights = [np.einsum("nk,nk->n", ray, np.cross(*pair)) for pair in ((b, c), (c, a), (a, b))]
    weights = np.stack(weights, -1)
    nearest = (weights * np.sign(weights.sum(-1, keepdims=True))).argmax(-1)
    label = np.zeros(size * size, np.uint8)
    label[hit] = part[corners[np.arange(len(hit)), nearest]] + 1
    return label.reshape(size, size)


def measure(count: int, size: int, rounds: int) -> dict:
    body, threads = load_body(), torch.get_num_threads()
    faces, part = body.faces.numpy(), body.part_of_vertex.numpy()
    batches = [people(body, count, seed, size) for seed in range(rounds + 1)]
    if "embree" not in type(trimesh.Trimesh(np.eye(3), [[0, 1, 2]]).ray).__module__:
        raise SystemExit("trimesh found no Embree: pip install embreex")

    def embree(index: int, map_: Callable = map) -> np.ndarray:
        vertices, k = (value.numpy() for value in batches[index])
        return np.stack(list(map_(lambda v, k: embree_parts(v, faces, part, k, size), vertices, k)))

    def embree_in_threads(index: int) -> np.ndarray:
        with ThreadPoolExecutor(threads) as pool:
            return embree(index, pool.map)

    def ours(index: int) -> np.ndarray:
        vertices, k = batches[index]
        return render_parts(vertices, body, k, size).numpy()

    def ours_on_one_core(index: int) -> None:
        torch.set_num_threads(1)
        ours(index)
        torch.set_num_threads(threads)

    def ours_rebuilt(index: int) -> None:
        for vertices, k in zip(*batches[index], strict=True):
            raycast._kept.clear()
            render_parts(vertices[None], body, k[None], size)

    first = {"ours": seconds_of(lambda: ours(0))}  # trees are built here, once
    expected = embree(0)
    agreement, filled = float((ours(0) == expected).mean()), float((expected > 0).mean())
    sides = {
        "ours": ours,
        "ours, one core": ours_on_one_core,
        "embree": embree,
        "embree, threads": embree_in_threads,
    }
    busy = os.getloadavg()[0]  # by others: what came before was short
    times = {name: [] for name in sides}
    for index in range(1, rounds + 1):
        for name, side in sides.items():
            times[name].append(seconds_of(lambda side=side, index=index: side(index)))

    def ratio(one: str, *others: str) -> float:
        pairs = zip(times[one], *(times[name] for name in others), strict=True)
        return round(statistics.median(min(theirs) / own for own, *theirs in pairs), 2)

    rebuilt = seconds_of(lambda: ours_rebuilt(1))
    return {
        "people": count,
        "size": size,
        "threads": threads,
        "faces": len(faces),
        "pixels_on_the_person": round(filled, 4),
        "labels_equal": round(agreement, 6),
        "first_call_s": round(first["ours"], 4),
        "one_by_one_with_rebuilt_trees_s": round(rebuilt, 4),
        "seconds": {name: [round(t, 4) for t in values] for name, values in times.items()},
        "people_per_second": {name: round(count / statistics.median(t), 1) for name, t in times.items()},
        "times_as_fast_as_embree": ratio("ours", "embree"),
        "times_as_fast_as_the_faster_embree": ratio("ours", "embree", "embree, threads"),
        "times_as_fast_on_one_core_each": ratio("ours, one core", "embree"),
        "load_before": round(busy, 2),
        "goal": GOAL,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--size", type=int, default=224, help="side of a picture in pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure(args.people, args.size, args.rounds)
    for name, rate in found["people_per_second"].items():
        print(f"{name:16} {rate:8.1f} people/s")
    print(
        f"{found['times_as_fast_as_embree']:.2f} times as fast as Embree through trimesh, "
        f"{found['times_as_fast_as_the_faster_embree']:.2f} times as the faster of both (goal {GOAL:g}), "
        f"{found['times_as_fast_on_one_core_each']:.2f} times on one core each; "
        f"{100 * found['labels_equal']:.3f}% of the labels are equal"
    )
    if args.out:
        write_json(args.out, {"benchmark": "render", "device": "cpu"} | found | results.provenance())


if __name__ == "__main__":
    main()
