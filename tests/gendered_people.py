"""Imitations of the licensed body files, made from the open body, and people whose every pixel is known.

The forward computation is smplx's own skinning function in float64; worlds, cameras and pixels are composed
here, by hand: none of the code that reads the files is used.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from licensed_files import write_smpl_pkl, write_smplx_npz
from scipy.spatial.transform import Rotation
from smplx.lbs import lbs

from dpose.body import OPEN_BODY, OPEN_SMPL
from dpose.body.files import read_body
from dpose.data.frames import FrameSet, Skipped, read_scenes
from dpose.data.labels import Labels
from dpose.paths import BODY_MODELS_VARIABLE
from dpose.skeleton import PARENTS

STRETCH = {"neutral": (1.02, 0.98, 1.0), "male": (1.05, 1.06, 1.1), "female": (0.97, 0.92, 0.95)}
PELVIS = (0.01, -0.3, 0.02)  # about where SMPL's is at rest; the open body's is the origin
FILES = {
    "smpl-male": ("basicmodel_m_lbs_10_207_0_v1.1.0.pkl", OPEN_SMPL, write_smpl_pkl),
    "smpl-female": ("basicmodel_f_lbs_10_207_0_v1.1.0.pkl", OPEN_SMPL, write_smpl_pkl),
    "smplx-neutral": ("SMPLX_NEUTRAL.npz", OPEN_BODY, write_smplx_npz),
    "smplx-male": ("SMPLX_MALE.npz", OPEN_BODY, write_smplx_npz),
    "smplx-female": ("SMPLX_FEMALE.npz", OPEN_BODY, write_smplx_npz),
}


def gendered_arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of a body's file, as it is below $DPOSE_BODY_MODELS within `licensed_bodies`."""
    return dict(_gendered_arrays(name))


@functools.cache
def _gendered_arrays(name: str) -> dict[str, np.ndarray]:
    arrays = dict(read_body(FILES[name][1]))
    stretch = np.array(STRETCH[name.partition("-")[2]])  # makes them different bodies
    arrays["v_template"] = (arrays["v_template"] * stretch + PELVIS).astype(np.float32)
    arrays["shapedirs"] = arrays["shapedirs"][:, :, :10].astype(np.float32)
    return arrays


@contextmanager
def licensed_bodies(folder: Path, *names: str) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """The named bodies' files are below $DPOSE_BODY_MODELS; yields their arrays."""
    arrays = {name: gendered_arrays(name) for name in names}
    for name, content in arrays.items():
        file, _, write = FILES[name]
        write(folder / name.partition("-")[0] / file, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(BODY_MODELS_VARIABLE, str(folder))
        yield arrays


def posed(arrays: dict, betas, pose, trans) -> np.ndarray:
    """(N, J, 3) float64 joints of betas (10,), pose (N, 3 K) and trans (N, 3), by smplx's skinning."""
    n, joints = len(pose), arrays["kintree_table"].shape[1]
    pose = np.pad(pose, ((0, 0), (0, 3 * joints - pose.shape[1])))
    tensors = {
        key: torch.as_tensor(np.asarray(arrays[key], np.float64))
        for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    }
    tree = (*PARENTS[:22], 20, 21) if joints == 24 else PARENTS
    _, posed = lbs(
        torch.tensor(np.repeat(np.asarray(betas, float)[None], n, 0)),
        torch.tensor(pose),
        tensors["v_template"][None],
        tensors["shapedirs"],
        tensors["posedirs"].reshape(-1, 9 * (joints - 1)).T,
        tensors["J_regressor"],
        torch.tensor(tree),
        tensors["weights"],
    )
    return posed.numpy() + np.asarray(trans)[:, None]


class Person(NamedTuple):
    """n frames of one person: SMPL in the world, and where its joints are in the camera and in the image."""

    betas: np.ndarray  # (10,)
    pose: np.ndarray  # (n, 72), root in the world
    trans: np.ndarray  # (n, 3), world
    world: np.ndarray  # (n, 24, 3)
    camera: np.ndarray  # (n, 24, 3)
    pixels: np.ndarray  # (n, 24, 2)


def random_camera(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, 4, 4) world to camera: a random rotation and translation per frame."""
    extrinsics = np.tile(np.eye(4), (n, 1, 1))
    extrinsics[:, :3, :3] = Rotation.random(n, random_state=int(rng.integers(2**31))).as_matrix()
    extrinsics[:, :3, 3] = rng.normal(0, 3, (n, 3))
    return extrinsics


def random_person(
    rng: np.random.Generator, arrays: dict, extrinsics: np.ndarray, intrinsics: np.ndarray, at
) -> Person:
    """An upright person in front of the camera, the pelvis near `at` (3,), metres in the camera's frame."""
    n = len(extrinsics)
    turn, move = extrinsics[:, :3, :3], extrinsics[:, :3, 3]
    betas, pose = rng.normal(0, 1, 10), rng.normal(0, 0.2, (n, 72))
    seen = Rotation.from_euler("xy", np.stack([np.full(n, np.pi), rng.uniform(-1, 1, n)], 1))
    pose[:, :3] = (Rotation.from_matrix(turn).inv() * seen).as_rotvec()
    near = np.asarray(at) + rng.normal(0, 0.05, (n, 3))
    trans = np.einsum("nji,nj->ni", turn, near - move)
    world = posed(arrays, betas, pose, trans)
    camera = np.einsum("nij,nkj->nki", turn, world) + move[:, None]
    points = camera @ intrinsics.T
    return Person(betas, pose, trans, world, camera, points[..., :2] / points[..., 2:])


def write_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
    """`image_00000.jpg`'s siblings: gray JPEGs of (w, h) pixels, named by `count` numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    for i in range(count):
        name = f"image_{i:05d}.jpg" if folder.parent.name == "imageFiles" else f"{i:05d}.jpg"
        cv2.imwrite(str(folder / name), picture)


def parsed_pixels(labels: Labels, arrays: dict[str, dict]) -> np.ndarray:
    """(N, 22, 2): the parsed bodies, posed by smplx's skinning, through the parsed cameras."""
    points = np.empty((len(labels), 22, 2))
    for i, name in enumerate(labels.body.tolist()):
        count = arrays[name]["kintree_table"].shape[1]
        pose = labels.pose_cam[i : i + 1, : 72 if count == 24 else 66].astype(float)
        joints = posed(arrays[name], labels.shape[i, :10], pose, labels.transl[i : i + 1].astype(float))
        rays = joints[0, :22] @ labels.cam_int[i].astype(float).T
        points[i] = rays[:, :2] / rays[:, 2:]
    return points


def check_samples(found: list[FrameSet], people: int, size: int = 64) -> list[dict]:
    """The scenes' samples: all are there, and their joints are on their part labels. Returns their labels."""
    skipped = Skipped(limit=0)
    samples = list(read_scenes(found, size, skipped=skipped))
    assert len(samples) == people and len({sample["label"]["key"] for sample in samples}) == people
    for sample in samples:
        label = sample["label"]
        assert sample["depth"] is None and not label["has_depth"]
        assert 0.05 < (sample["parts"] > 0).mean() < 0.7 and len(np.unique(sample["parts"])) > 12
        points = np.array([[x, y] for x, y, seen in label["joints2d"][:22] if seen])
        if len(points):
            side = 200 * label["scale"] * label["margin"]
            column, row = np.floor((points - label["center"] + side / 2) / side * size).astype(int).T
            assert (sample["parts"][row, column] > 0).mean() > 0.8
    return [sample["label"] for sample in samples]
