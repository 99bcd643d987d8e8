"""Draws the open body in ten shapes and ten poses, by ray casting, into book/_static/open_body.png.

python scripts/draw_open_body.py [--out FILE] [--size PIXELS]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import roma
import torch
import trimesh
from PIL import Image

from dpose.body import Body, load_body
from dpose.skeleton import JOINT_NAMES

OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "open_body.png"

OVERSAMPLING = 2  # each way, against jagged edges

# Axis-angle in degrees per joint; "flex" bends all finger joints except the thumbs'.
POSES: list[dict] = [
    {"yaw": 20, "left_shoulder": (0, 0, -70), "right_shoulder": (0, 0, 70)},  # standing, arms down
    {"yaw": -50, "left_shoulder": (0, 0, -65), "right_shoulder": (0, 0, 65), "left_hip": (-35, 0, 0),
     "right_hip": (25, 0, 0), "left_knee": (25, 0, 0), "right_knee": (35, 0, 0), "left_elbow": (0, -40, 0),
     "right_elbow": (0, 50, 0), "spine2": (0, 10, 0), "right_ankle": (15, 0, 0)},  # walking
    {"yaw": 40, "left_hip": (-85, 8, 5), "right_hip": (-85, -8, -5), "left_knee": (85, 0, 0),
     "right_knee": (85, 0, 0), "left_shoulder": (0, -25, -60), "right_shoulder": (0, 25, 60),
     "left_elbow": (0, -60, 0), "right_elbow": (0, 60, 0)},  # sitting
    {"yaw": 0, "left_shoulder": (0, 0, 75), "right_shoulder": (0, 0, -75), "left_collar": (0, 0, 20),
     "right_collar": (0, 0, -20)},  # arms up
    {"yaw": 60, "left_hip": (-120, 15, 10), "right_hip": (-120, -15, -10), "left_knee": (130, 0, 0),
     "right_knee": (130, 0, 0), "left_ankle": (-25, 0, 0), "right_ankle": (-25, 0, 0), "spine1": (25, 0, 0),
     "spine2": (15, 0, 0), "left_shoulder": (0, -70, -20), "right_shoulder": (0, 70, 20)},  # squatting
    {"yaw": 150, "left_shoulder": (0, 0, -40), "right_shoulder": (0, 0, 40), "left_elbow": (0, -120, 0),
     "right_elbow": (0, 120, 0), "flex": 60, "head": (0, 30, 0)},  # from behind, elbows bent, fists
    {"yaw": 30, "left_shoulder": (0, -80, 0), "right_shoulder": (0, 80, 0), "flex": 25},  # arms forwards
    {"yaw": -30, "spine1": (30, 0, 0), "spine2": (20, 0, 0), "spine3": (15, 0, 0), "left_hip": (-40, 0, 0),
     "right_hip": (-40, 0, 0), "left_shoulder": (0, -60, -50), "right_shoulder": (0, 60, 50),
     "neck": (-15, 0, 0)},
    {"yaw": 10, "left_shoulder": (-80, 0, 0), "left_elbow": (0, -85, 0), "right_shoulder": (0, 0, 75),
     "right_elbow": (0, 15, 0), "left_hip": (0, 0, 25), "left_knee": (30, 0, 0), "head": (0, 0, 20),
     "spine2": (0, 0, 10)},  # waving
    {"yaw": -20, "left_shoulder": (0, -95, -30), "left_elbow": (0, -130, 0), "right_shoulder": (0, 95, 30),
     "right_elbow": (0, 120, 0), "left_wrist": (0, 0, 30), "right_hip": (-60, 0, 0), "right_knee": (90, 0, 0),
     "right_ankle": (20, 0, 0), "flex": 70},  # guard
]  # fmt: skip


def rotations(pose: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The 22 body and 30 finger rotation matrices of one entry of POSES."""
    degrees = torch.zeros(55, 3)
    for name, angle in pose.items():
        if name in JOINT_NAMES:
            degrees[JOINT_NAMES.index(name)] = torch.tensor(angle, dtype=torch.float32)
    degrees[0, 1] = pose.get("yaw", 0)
    for joint, name in enumerate(JOINT_NAMES):
        if joint >= 25 and "thumb" not in name:
            degrees[joint, 2] = pose.get("flex", 0) * (-1 if name.startswith("left") else 1)
    matrices = roma.rotvec_to_rotmat(degrees.deg2rad())
    return matrices[:22], matrices[25:]


def draw(vertices: np.ndarray, faces: np.ndarray, size: int, extent: float, colors: np.ndarray) -> np.ndarray:
    """Orthographic view along -z of a square of `extent` metres around the vertices' centre: RGBA uint8."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    middle = (vertices.min(0) + vertices.max(0)) / 2
    line = ((np.arange(size) + 0.5) / size - 0.5) * extent
    x, y = np.meshgrid(line + middle[0], -line + middle[1])
    origins = np.stack([x, y, np.full_like(x, 5.0)], axis=-1).reshape(-1, 3)
    face = mesh.ray.intersects_first(origins, np.tile([0.0, 0.0, -1.0], (len(origins), 1)))
    hit = face >= 0
    corners = mesh.triangles[face[hit]]
    point = origins[hit].copy()
    normal = mesh.face_normals[face[hit]]
    point[:, 2] = corners[:, 0, 2] - ((point - corners[:, 0])[:, :2] * normal[:, :2]).sum(1) / np.where(
        np.abs(normal[:, 2]) < 1e-6, 1e-6, normal[:, 2]
    )
    weights = trimesh.triangles.points_to_barycentric(corners, point).clip(0, 1)
    smooth = (mesh.vertex_normals[faces[face[hit]]] * weights[..., None]).sum(1)
    smooth /= np.linalg.norm(smooth, axis=1, keepdims=True) + 1e-9
    light = np.array([0.4, 0.6, 0.7]) / np.linalg.norm([0.4, 0.6, 0.7])
    shade = 0.25 + 0.75 * (smooth @ light).clip(0, 1)
    image = np.zeros((size * size, 4), dtype=np.uint8)
    image[hit, :3] = (colors[face[hit]] * shade[:, None]).astype(np.uint8)
    image[hit, 3] = 255
    return image.reshape(size, size, 4)


def picture(body: Body, size: int, seed: int = 0) -> Image.Image:
    """Two rows of shapes in the T-pose, two of poses coloured by body part; `size` pixels a figure,
    transparent ground.
    """
    size *= OVERSAMPLING
    generator = torch.Generator().manual_seed(seed)
    betas = torch.randn(10, body.num_betas, generator=generator).clamp(-2.5, 2.5)
    faces = body.faces.numpy()
    skin = np.tile([222.0, 184.0, 160.0], (len(faces), 1))
    hue = np.arange(22) * 0.618 % 1
    palette = 255 * (0.55 + 0.4 * np.cos(2 * np.pi * (hue[:, None] + np.array([0, 1 / 3, 2 / 3]))))
    parts = palette[body.part_of_vertex.numpy()[faces[:, 0]]]
    rest = body.rest_vertices(betas).numpy()
    posed = []
    for i, pose in enumerate(POSES):
        rotmats, hands = rotations(pose)
        posed.append(body(betas[i, None], rotmats[None], hands=hands[None]).vertices[0].numpy())
    grid = []
    for half in (slice(0, 5), slice(5, 10)):
        grid.append(np.concatenate([draw(v, faces, size, 2.0, skin) for v in rest[half]], axis=1))
    for half in (slice(0, 5), slice(5, 10)):
        grid.append(np.concatenate([draw(v, faces, size, 2.2, parts) for v in posed[half]], axis=1))
    sheet = Image.fromarray(np.concatenate(grid))
    return sheet.reduce(OVERSAMPLING)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--size", type=int, default=260, help="pixels a figure")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    picture(load_body(), args.size).save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
