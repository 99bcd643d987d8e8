"""A scene: one to three people on a ground, their surroundings, light, and a camera; sampled from a seed.

World frame: y up, ground at y = 0, metres. The camera is OpenCV's: x_camera = rotation @ x_world +
translation. `dpose.synthetic.viewport` makes pictures of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dpose.synthetic import raytrace
from dpose.synthetic.people import (
    Outfit,
    figure,
    pose_people,
    sample_outfit,
    sample_skin_and_hair,
    vertex_normals,
)
from dpose.synthetic.poses import Pose, about, sample_pose
from dpose.synthetic.props import Props, random_color, stand_seat
from dpose.synthetic.surroundings import add_occluders, sample_surroundings
from dpose.synthetic.textures import pick

IMAGE_SIZE = (1280, 720)
IDENTITIES = {"train": 20_000, "val": 500, "test": 1_000}
LOW = 0.6  # spheres that reach below this height darken the ground
SPLITS = {"train": 0, "val": 1, "test": 2}
_BONES = (
    (0, 1),
    (0, 2),
    (1, 4),
    (2, 5),
    (4, 7),
    (5, 8),
    (0, 6),
    (6, 9),
    (16, 18),
    (17, 19),
    (18, 20),
    (19, 21),
)


@dataclass(frozen=True)
class Scene:
    """N people of P vertices each, N in 1..3."""

    seed: tuple[int, int, int]  # seed, split, index
    subjects: list[str]
    activities: list[str]
    betas: np.ndarray  # (N, 11)
    rotations: np.ndarray  # (N, 55, 3) axis-angle; the root in the world
    transl: np.ndarray  # (N, 3) SMPL-X `transl`, world
    pelvis: np.ndarray  # (N, 3) T-pose pelvis of these betas
    joints: np.ndarray  # (N, 55, 3) world
    vertices: np.ndarray  # (N, P, 3) world, clothes and hair included
    fields: np.ndarray  # (N, P, 4)
    outfits: list[Outfit]
    props: Props
    world: dict[str, Any]
    spheres: np.ndarray  # (K, 4)
    cam_int: np.ndarray  # (3, 3)
    rotation: np.ndarray  # (3, 3)
    translation: np.ndarray  # (3,)


def sample_identity(seed: int, split: str, number: int) -> tuple[np.ndarray, dict[str, Any]]:
    """betas (11,) and skin and hair of one of the split's people; splits share nobody."""
    rng = np.random.default_rng([seed, SPLITS[split], 1, number])
    return np.clip(rng.normal(size=11), -2.5, 2.5), sample_skin_and_hair(rng)


def sample_scene(seed: int, split: str, index: int) -> Scene:
    """Scene `index` of a split: the same for the same three arguments, on any machine and in any order."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, SPLITS[split], 0, index])
    u = rng.uniform
    count = int(rng.choice([1, 2, 3], p=[0.62, 0.26, 0.12]))
    numbers = rng.choice(IDENTITIES[split], count, replace=False)
    identities = [sample_identity(seed, split, int(number)) for number in numbers]
    betas = np.stack([identity[0] for identity in identities])
    outfits = [sample_outfit(rng, identity[1]) for identity in identities]
    poses: list[Pose] = [sample_pose(rng) for _ in range(count)]
    rotations = np.stack([pose.rotations for pose in poses])
    yaws = u(-np.pi, np.pi, count)
    for k in range(count):
        upright = Rotation.from_rotvec(rotations[k, 0]).as_matrix()
        rotations[k, 0] = Rotation.from_matrix(about("y", yaws[k]) @ upright).as_rotvec()
    vertices, joints, fields = pose_people(betas, rotations, outfits)
    f = figure()
    pelvis = f.joints[0] + (betas @ f.joint_shapes).reshape(-1, 55, 3)[:, 0]

    # Ground, seats, and places side by side, the people's boxes not overlapping in plan.
    props = Props()
    transl = np.zeros((count, 3))
    taken: list[tuple[np.ndarray, float]] = []
    for k, pose in enumerate(poses):
        surface = vertices[k, f.body]
        low, high = _bounds(surface)
        radius = float(np.linalg.norm((high - low)[::2]) / 2)
        middle = (low + high) / 2
        for attempt in range(60):
            place = (
                np.array([0.0, 0.0, 0.0])
                if not k
                else np.array([*u(-1, 1, 2), 0])[[0, 2, 1]] * (1.0 + 0.05 * attempt)
            )
            if all(np.linalg.norm(place - other) > 0.8 * (radius + size) for other, size in taken):
                break
        taken.append((place, radius))
        transl[k] = place - middle * [1, 0, 1]
        transl[k, 1] = -low[1]
        if pose.support == "air":
            transl[k, 1] += u(0.04, 0.3)
        elif pose.activity == "lie" and rng.random() < 0.4:
            lift = u(0.1, 0.55)
            transl[k, 1] += lift
            size = (high - low) * [1.1, 0, 1.1] + [0.2, lift, 0.2]
            props.box(
                place + [0, lift / 2, 0],
                size,
                0.0,
                random_color(rng, 0.2, 0.9, 0.3),
                pick(rng, "cloth", "carpet", "plaster"),
            )
        elif pose.support == "seat":
            buttocks = surface[f.weights[f.body][:, [0, 1, 2]].sum(1) > 0.6]
            height = buttocks[:, 1].min() + transl[k, 1] - 0.005
            if height > 0.15:
                stand_seat(rng, props, joints[k, 0] + transl[k], float(height), float(yaws[k]))
    vertices = vertices + transl[:, None].astype(np.float32)
    joints = joints + transl[:, None]
    for k, outfit in enumerate(outfits):
        code = raytrace.WORN - 3 * k
        if outfit.skirt_rings:
            _worn(
                props, vertices[k, f.skirt], f.skirt_faces, f.rest[f.skirt], code - (not outfit.skirt_is_top)
            )
        if outfit.hairstyle == "long":
            _worn(props, vertices[k, f.hair], f.hair_faces, f.rest[f.hair], code - 2)
    vertices, fields = np.ascontiguousarray(vertices[:, f.body]), np.ascontiguousarray(fields[:, f.body])
    centers = joints[:, 0] * [1, 0, 1]

    # Camera: someone fills a chosen part of the frame's height, somewhere in the frame.
    focal = float(np.exp(u(np.log(700), np.log(1800))))
    hero = int(rng.integers(count))
    low, high = _bounds(vertices[hero])
    tall = float(np.linalg.norm(high - low) * 0.85)
    fill = u(0.35, 0.95) if rng.random() < 0.85 else u(0.95, 1.7)
    distance = float(np.clip(focal * tall / (fill * IMAGE_SIZE[1]), 1.5, 14))
    azimuth = u(-np.pi, np.pi)
    look = (high + low) / 2
    eye_height = float(
        np.clip(
            rng.choice([u(0.9, 1.8), u(0.25, 0.9), u(1.8, 3.2)], p=[0.65, 0.12, 0.23]), 0.2, 0.2 + distance
        )
    )
    flat = np.sqrt(max(distance**2 - (eye_height - look[1]) ** 2, (0.6 * distance) ** 2))
    eye = np.array([look[0] + flat * np.sin(azimuth), eye_height, look[2] + flat * np.cos(azimuth)])
    forward = (look - eye) / np.linalg.norm(look - eye)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    # Aim off the person, then roll a little.
    half = np.array(IMAGE_SIZE) / 2
    room = np.maximum(half - 0.5 * fill * IMAGE_SIZE[1] * np.array([0.6, 1.0]), 40) * (
        1.35 if rng.random() < 0.12 else 0.9
    )
    shift = u(-1, 1, 2) * room / focal
    aim = about("x", -np.arctan(shift[1])) @ about("y", np.arctan(shift[0]))
    rotation = about("z", rng.normal(0, 0.03)) @ aim @ rotation
    cam_int = np.array([[focal, 0, half[0]], [0, focal, half[1]], [0, 0, 1.0]])

    world = sample_surroundings(rng, eye, centers, props)
    if rng.random() < 0.22:
        add_occluders(rng, props, eye, centers)
    spheres = _body_spheres(joints)
    world["influence"] = (
        *centers.mean(0),
        float(np.linalg.norm(joints - centers.mean(0), axis=-1).max() + 1.0),
    )
    return Scene(
        seed=(seed, SPLITS[split], index),
        subjects=[f"{split}-{number:05d}" for number in numbers],
        activities=[pose.activity for pose in poses],
        betas=betas, rotations=rotations, transl=transl, pelvis=pelvis, joints=joints, vertices=vertices,
        fields=fields, outfits=outfits, props=props, world=world, spheres=spheres,
        cam_int=cam_int, rotation=rotation, translation=-rotation @ eye,
    )  # fmt: skip


def _bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner (3,) of points (P, 3); coordinates in rows go several times as fast."""
    rows = np.ascontiguousarray(points.T)
    return rows.min(1), rows.max(1)


def _worn(props: Props, vertices: np.ndarray, faces: np.ndarray, rest: np.ndarray, code: int) -> None:
    """A skirt or long hair, drawn with the person's own cloth at its T-pose place."""
    around = np.arctan2(rest[:, 0], rest[:, 2]) * 0.2  # metres, for a radius of 20 cm
    uv = np.stack([around, rest[:, 1]], -1)
    props.add(vertices, faces, uv, (1, 1, 1), code, normals=vertex_normals(vertices, faces))


def _body_spheres(joints: np.ndarray) -> np.ndarray:
    """(K, 4) spheres that stand for the people where they darken the ground."""
    radius = np.full(22, 0.06)
    radius[[0, 3, 6, 9]] = 0.12
    radius[15] = 0.11
    out = [np.concatenate([body[:22], radius[:, None]], -1) for body in joints]
    for body in joints:
        out.append(
            np.array([[*(body[a] + body[b]) / 2, 0.075 if max(a, b) < 10 else 0.05] for a, b in _BONES])
        )
    spheres = np.concatenate(out).astype(np.float32)
    return spheres[
        np.argsort(spheres[:, 1] - spheres[:, 3] >= LOW, kind="stable")
    ]  # those near the ground first
