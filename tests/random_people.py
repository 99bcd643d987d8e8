"""A tiny data set for tests: people splatted as coloured points by a few lines of numpy, no renderer."""

from pathlib import Path

import numpy as np
import roma
import torch
from shard_files import write_manifest, write_shards

from dpose.body import load_body
from dpose.data.sample import MARGIN, Sample, make_label

FOCAL, WIDTH, HEIGHT = 600.0, 640, 480


def random_samples(n: int, seed: int = 0, side: int = 160, prefix: str = "p") -> list[Sample]:
    """n people of random shape, pose and yaw, at 4-6 m; image colours are the part's."""
    rng = np.random.default_rng(seed)
    body = load_body(vertex_stride=4)
    pose = rng.normal(0, 0.25, (n, 22, 3)).astype(np.float32)
    yaw = roma.rotvec_to_rotmat(torch.tensor([[0, a, 0] for a in rng.uniform(-np.pi, np.pi, n)]).float())
    pose[:, 0] = roma.rotmat_to_rotvec(torch.diag(torch.tensor([1.0, -1, -1])) @ yaw).numpy()
    betas = rng.normal(0, 1, (n, 11)).astype(np.float32)
    trans = np.stack([rng.uniform(-0.5, 0.5, n), rng.uniform(-0.2, 0.2, n), rng.uniform(4, 6, n)], 1)
    posed = body(
        torch.from_numpy(betas),
        roma.rotvec_to_rotmat(torch.from_numpy(pose)),
        torch.from_numpy(trans).float(),
    )
    cam_int = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    colours = np.random.default_rng(1).integers(60, 255, (23, 3)).astype(np.uint8)
    colours[0] = 30
    samples = []
    for i in range(n):
        vertices, joints = posed.vertices[i].numpy(), posed.joints[i, :24].numpy()
        pixels = joints[:, :2] / joints[:, 2:] * FOCAL + cam_int[:2, 2]
        low, high = pixels[:22].min(0), pixels[:22].max(0)
        center, box = (low + high) / 2, 1.2 * (high - low).max()
        cut = box * MARGIN
        where = (vertices[:, :2] / vertices[:, 2:] * FOCAL + cam_int[:2, 2] - center + cut / 2) * side / cut
        column, row = np.floor(where).astype(int).T
        depth, parts = np.zeros((side, side), np.float32), np.zeros((side, side), np.uint8)
        for j in np.argsort(-vertices[:, 2]):  # far to near, as 5x5 dots
            window = np.s_[max(row[j] - 2, 0) : row[j] + 3, max(column[j] - 2, 0) : column[j] + 3]
            depth[window] = vertices[j, 2]
            parts[window] = body.part_of_vertex[j] + 1
        label = make_label(
            key=f"{prefix}{i:04d}",
            pose=pose[i],
            betas=betas[i],
            trans=trans[i],
            joints2d=np.concatenate([pixels, np.ones((24, 1))], 1),
            center=center,
            scale=box / 200,
            img_size=(WIDTH, HEIGHT),
            cam_int=cam_int,
            body="open",
        )
        samples.append(Sample(image=colours[parts], depth=depth, parts=parts, label=label))
    return samples


def write_random_people(root: Path, train: int = 24, test: int = 10) -> Path:
    """A data root with a training, a validation and a test split."""
    for seed, (split, n) in enumerate({"train": train, "val": 4, "test": test}.items()):
        write_shards(random_samples(n, seed, prefix=split), root / "shards", split)
    write_manifest(root / "shards", bodies={"open": load_body().record})
    return root
