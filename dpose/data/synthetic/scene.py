"""A scene: one to three people on a ground, what stands around them, light, and a camera. Sampled from a seed, rendered by viewport.

World frame: y up, ground at y = 0, metres. The camera is OpenCV's: x_camera = rotation @ x_world + translation.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import warp as wp
from scipy.spatial.transform import Rotation

from dpose.data.sample import crop_matrix
from dpose.data.synthetic import raytrace
from dpose.data.synthetic.people import (
    Outfit,
    figure,
    pose_people,
    sample_outfit,
    sample_skin_and_hair,
    vertex_normals,
)
from dpose.data.synthetic.poses import Pose, about, sample_pose
from dpose.data.synthetic.textures import pick, textures

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
    props: "Props"
    world: dict[str, Any]
    spheres: np.ndarray  # (K, 4)
    cam_int: np.ndarray  # (3, 3)
    rotation: np.ndarray  # (3, 3)
    translation: np.ndarray  # (3,)


class Props:
    """Triangles of furniture, trees, walls, ... gathered into one mesh."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []

    def add(self, vertices, faces, uv, color, texture: int = -1, emission: float = 0.0, normals=None) -> None:
        """One thing: a colour, a texture's index (-1 none), and the light it gives off as a share of its colour."""
        rgba = np.tile(np.append(np.asarray(color, float), emission), (len(faces), 1))
        vertices = np.asarray(vertices, float)
        normals = np.zeros_like(vertices) if normals is None else normals
        texture = np.full(len(faces), texture)
        self.parts.append((vertices, np.asarray(faces), np.asarray(uv, float), normals, rgba, texture))

    def box(
        self, center, size, yaw: float = 0.0, color=(0.5, 0.5, 0.5), texture: int = -1, tile: float | None = 1.0,
        emission: float = 0.0,
    ) -> None:  # fmt: skip
        """tile: metres a repeat of the texture, None to stretch it over each side."""
        size = np.asarray(size, float)
        corners, faces, axes, uv = _unit_box()
        stretch = np.ones_like(uv) if tile is None else size[axes] / tile
        self.add((corners * size) @ about("y", yaw).T + center, faces, uv * stretch, color, texture, emission)

    def cylinder(
        self, base, radius: float, height: float, color, texture: int = -1, top: float = 1.0
    ) -> None:
        sides = 12
        angle = 2 * np.pi * np.arange(sides) / sides
        ring = np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], -1)
        vertices = (
            np.concatenate([ring * radius, ring * radius * top + [0, height, 0], [[0, height, 0]]]) + base
        )
        k = np.arange(sides)
        m = (k + 1) % sides
        faces = np.concatenate(
            [
                np.stack([k, k + sides, m + sides], -1),
                np.stack([k, m + sides, m], -1),
                np.stack([k + sides, np.full(sides, 2 * sides), m + sides], -1),
            ]
        )
        uv = np.stack(
            [np.append(np.tile(angle * radius, 2), 0), np.append(np.repeat([0, height], sides), height)], -1
        )
        self.add(vertices, faces, uv, color, texture)

    def foliage(self, rng, center, radii, color, leaf: float, count: int) -> None:
        """A cloud of leaves: small triangles about `leaf` metres large in an ellipsoid, denser towards its surface."""
        spot = rng.normal(size=(count, 3))
        spot *= (rng.random((count, 1)) ** 0.4) / np.linalg.norm(spot, axis=1, keepdims=True)
        corners = (spot * radii + center)[:, None] + rng.normal(0, 0.5 * leaf, (count, 3, 3))
        normals = np.repeat(spot + [0, 0.4, 0] + rng.normal(0, 0.3, (count, 3)), 3, 0)
        rgba = np.ones((count, 4)) * [*color, 0.0]
        rgba[:, :3] *= rng.uniform(0.55, 1.35, (count, 1)) * (0.75 + 0.35 * spot[:, 1:2])
        faces = np.arange(3 * count).reshape(-1, 3)
        self.parts.append(
            (corners.reshape(-1, 3), faces, np.zeros((3 * count, 2)), normals, rgba, np.full(count, -1))
        )

    def gathered(self) -> tuple[np.ndarray, ...]:
        """vertices (M, 3), faces (T, 3), uv (M, 2), normals (M, 3), colour and emission (T, 4), texture (T,)."""
        if not self.parts:
            self.add([[0, -90, 0], [0.01, -90, 0], [0, -90, 0.01]], [(0, 1, 2)], np.zeros((3, 2)), (0, 0, 0))
        first = np.cumsum([0] + [len(part[0]) for part in self.parts[:-1]])
        vertices, faces, *others = (np.concatenate(column) for column in zip(*self.parts, strict=True))
        faces = faces + np.repeat(first, [len(part[1]) for part in self.parts])[:, None]
        uv, normals, color, texture = others
        single = [a.astype(np.float32) for a in (uv, normals, color)]
        return vertices.astype(np.float32), faces.astype(np.int32), *single, texture.astype(np.int32)


@cache
def _unit_box() -> tuple[np.ndarray, ...]:
    """corners (24, 3), faces (12, 3), the two axes of each corner's side (24, 2), uv (24, 2) in [0, 1]."""
    corners, faces, axes, uv = [], [], [], []
    for axis, a, b in ((0, 2, 1), (1, 2, 0), (2, 0, 1)):
        for sign in (-0.5, 0.5):
            base = len(corners)
            for s, t in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
                p = np.zeros(3)
                p[axis], p[a], p[b] = sign, s, t
                corners.append(p)
                axes.append((a, b))
                uv.append((s + 0.5, 0.5 - t))
            faces += [(base, base + 1, base + 2), (base, base + 2, base + 3)]
    return np.array(corners), np.array(faces), np.array(axes), np.array(uv)


def _tint(
    rng: np.random.Generator, low: float = 0.25, high: float = 0.9, colorful: float = 0.12
) -> np.ndarray:
    return np.clip(rng.uniform(low, high) * np.exp(rng.normal(0, colorful, 3)), 0.02, 0.92)


WOOD = np.array(
    [[0.55, 0.36, 0.20], [0.32, 0.18, 0.09], [0.66, 0.50, 0.32], [0.18, 0.10, 0.06], [0.75, 0.68, 0.58]]
)


def _seat(rng: np.random.Generator, props: Props, position: np.ndarray, height: float, yaw: float) -> None:
    """A seat whose top is at `height` under a sitter at `position` who faces `yaw`."""
    turn = about("y", yaw)
    kind = rng.choice(["chair", "stool", "block", "bench", "sofa"], p=[0.4, 0.15, 0.15, 0.12, 0.18])
    color = WOOD[rng.integers(len(WOOD))] if rng.random() < 0.5 else _tint(rng, 0.05, 0.8, 0.5)
    texture = pick(rng, "wood", "cloth", "plaster")
    at = lambda x, y, z: position * [1, 0, 1] + turn @ [x, 0, z] + [0, y, 0]  # noqa: E731
    if kind == "stool":
        props.cylinder(at(0, height - 0.06, 0.02), 0.2, 0.06, color, texture)
        props.cylinder(at(0, 0, 0.02), 0.04, height - 0.05, color * 0.5)
        props.cylinder(at(0, 0, 0.02), 0.18, 0.03, color * 0.5)
        return
    if kind == "block":
        props.box(at(0, height / 2, 0.03), [0.5, height, 0.48], yaw + rng.normal(0, 0.2), color, texture, 0.6)
        return
    if kind == "bench":
        props.box(
            at(rng.uniform(-0.3, 0.3), height - 0.03, 0.03), [1.5, 0.06, 0.42], yaw, color, texture, 0.6
        )
        for x in (-0.55, 0.55):
            props.box(at(x, (height - 0.06) / 2, 0.03), [0.08, height - 0.06, 0.36], yaw, color * 0.7)
        return
    width, depth = (0.47, 0.46) if kind == "chair" else (rng.uniform(0.9, 1.7), 0.6)
    thick = 0.05 if kind == "chair" else min(0.3, height)
    props.box(at(0, height - thick / 2, 0.05), [width, thick, depth], yaw, color, texture, 0.5)
    back = rng.uniform(0.35, 0.55)
    props.box(
        at(0, height + back / 2, -0.27),
        [width, back, 0.05 if kind == "chair" else 0.14],
        yaw,
        color,
        texture,
        0.5,
    )
    if kind == "chair":
        for x in (-0.2, 0.2):
            for z in (-0.15, 0.25):
                props.box(at(x, (height - thick) / 2, z), [0.04, height - thick, 0.04], yaw, color * 0.8)
    else:
        for x in (-width / 2 - 0.07, width / 2 + 0.07):
            props.box(
                at(x, (height + 0.15) / 2, 0.03), [0.13, height + 0.15, depth], yaw, color, texture, 0.5
            )


def _indoor_things(
    rng: np.random.Generator, props: Props, low: np.ndarray, high: np.ndarray, free: Any, decorated: bool
) -> None:
    walls = [(0, low[0], 1), (0, high[0], -1), (2, low[2], 1), (2, high[2], -1)]
    for axis, place, sign in walls if decorated else ():
        along = 2 - axis
        yaw = 0.0 if axis == 2 else np.pi / 2
        x = low[along] + 0.5
        while x < high[along] - 0.5:
            what = rng.choice(
                ["picture", "window", "door", "shelf", "cabinet", "nothing"],
                p=[0.3, 0.14, 0.08, 0.1, 0.13, 0.25],
            )
            width = {"picture": rng.uniform(0.3, 1.2), "window": rng.uniform(0.8, 1.8), "door": 0.9}.get(
                what, rng.uniform(0.7, 1.6)
            )
            center = np.zeros(3)
            center[along], center[axis] = x + width / 2, place + sign * 0.015
            x += width + rng.uniform(0.2, 1.2)
            if center[along] + width / 2 > high[along]:
                break
            flat = lambda h, t: np.array([width, h, t])  # noqa: B023, E731
            if what == "picture":
                height = width * rng.uniform(0.6, 1.4)
                center[1] = rng.uniform(1.3, 1.8)
                props.box(
                    center,
                    flat(height, 0.03),
                    yaw,
                    _tint(rng, 0.7, 0.9),
                    pick(rng, "picture", "scenery"),
                    None,
                )
            elif what == "window":
                center[1] = 1.6
                glow = float(rng.uniform(0.4, 1.6))
                props.box(
                    center,
                    flat(1.2, 0.03),
                    yaw,
                    (0.8, 0.85, 0.9),
                    pick(rng, "scenery") if rng.random() < 0.5 else -1,
                    None,
                    glow,
                )
                for side in (-1, 0, 1):
                    bar = center.copy()
                    bar[along] += side * width / 2
                    bar[axis] += sign * 0.02
                    props.box(bar, [0.05, 1.25, 0.05], yaw, (0.75, 0.75, 0.73))
            elif what == "door":
                center[1] = 1.02
                props.box(
                    center,
                    flat(2.04, 0.05),
                    yaw,
                    WOOD[rng.integers(len(WOOD))],
                    pick(rng, "wood", "plaster"),
                    2.0,
                )
            elif what in ("shelf", "cabinet"):
                depth = rng.uniform(0.25, 0.5)
                height = rng.uniform(0.6, 1.0) if what == "cabinet" else rng.uniform(1.4, 2.1)
                center[axis] = place + sign * depth / 2
                center[1] = height / 2
                if free(center, width * 0.6):
                    texture = pick(rng, "books") if what == "shelf" else pick(rng, "wood", "plaster")
                    color = (0.75, 0.75, 0.75) if what == "shelf" else WOOD[rng.integers(len(WOOD))]
                    props.box(center, flat(height, depth), yaw, color, texture, 1.2)
    for _ in range(rng.integers(0, 5)):
        place = np.array(
            [rng.uniform(low[0] + 0.4, high[0] - 0.4), 0, rng.uniform(low[2] + 0.4, high[2] - 0.4)]
        )
        if free(place, 0.9):
            _thing(rng, props, place)


def _thing(rng: np.random.Generator, props: Props, place: np.ndarray) -> None:
    """A table, crate, plant, lamp or lone chair, standing at `place`."""
    what = rng.choice(["table", "crate", "plant", "lamp", "chair"], p=[0.28, 0.22, 0.22, 0.1, 0.18])
    yaw = rng.uniform(0, np.pi)
    color = WOOD[rng.integers(len(WOOD))] if rng.random() < 0.6 else _tint(rng, 0.1, 0.8, 0.5)
    if what == "table":
        size = np.array([rng.uniform(0.6, 1.5), rng.uniform(0.4, 0.8), rng.uniform(0.5, 0.9)])
        props.box(place + [0, size[1], 0], [size[0], 0.05, size[2]], yaw, color, pick(rng, "wood"), 0.8)
        turn = about("y", yaw)
        for x in (-0.45, 0.45):
            for z in (-0.45, 0.45):
                leg = turn @ [x * size[0], 0, z * size[2]]
                props.box(place + leg + [0, size[1] / 2, 0], [0.05, size[1], 0.05], yaw, color * 0.8)
        for _ in range(rng.integers(0, 4)):
            spot = turn @ [rng.uniform(-0.35, 0.35) * size[0], 0, rng.uniform(-0.35, 0.35) * size[2]]
            props.cylinder(
                place + spot + [0, size[1] + 0.02, 0],
                rng.uniform(0.03, 0.09),
                rng.uniform(0.05, 0.3),
                _tint(rng, 0.1, 0.9, 0.6),
            )
    elif what == "crate":
        size = rng.uniform(0.25, 0.8, 3)
        props.box(place + [0, size[1] / 2, 0], size, yaw, color, pick(rng, "wood", "cloth", "plaster"), 0.7)
        if rng.random() < 0.4:
            small = size * rng.uniform(0.4, 0.8)
            props.box(
                place + [0, size[1] + small[1] / 2, 0],
                small,
                yaw + 0.4,
                _tint(rng, 0.1, 0.8, 0.5),
                pick(rng, "cloth", "plaster"),
            )
    elif what == "plant":
        props.cylinder(place, 0.15, 0.3, _tint(rng, 0.2, 0.8, 0.3), top=1.25)
        for _ in range(rng.integers(3, 7)):
            leaf = place + [*rng.normal(0, 0.12, 2), 0]
            tuft = leaf + [0, rng.uniform(0.4, 1.1), rng.normal(0, 0.12)]
            props.foliage(rng, tuft, rng.uniform(0.1, 0.28, 3), (0.1, rng.uniform(0.16, 0.35), 0.06), 0.1, 60)
    elif what == "lamp":
        props.cylinder(place, 0.02, 1.5, color * 0.3)
        props.cylinder(place, 0.14, 0.03, color * 0.3)
        props.cylinder(place + [0, 1.4, 0], 0.2, 0.28, (0.9, 0.85, 0.7), top=0.7)
    else:
        _seat(rng, props, place, rng.uniform(0.4, 0.5), yaw)


def _outdoor_things(rng: np.random.Generator, props: Props, camera: np.ndarray, free: Any) -> None:
    setting = rng.choice(["park", "street", "yard", "field"], p=[0.35, 0.35, 0.2, 0.1])
    away = -camera * [1, 0, 1]
    heading = np.arctan2(away[0], away[2])
    for _ in range({"park": 14, "street": 9, "yard": 5, "field": 4}[setting]):
        angle, distance = heading + rng.uniform(-1.0, 1.0), rng.uniform(3, 30)
        place = np.array([np.sin(angle), 0, np.cos(angle)]) * distance
        if not free(place, 1.6):
            continue
        if setting == "street" and rng.random() < 0.75:
            distance = rng.uniform(8, 30)
            place = place / np.linalg.norm(place) * (distance + 5)
            size = np.array([rng.uniform(5, 14), rng.uniform(4, 16), rng.uniform(5, 10)])
            props.box(place + [0, size[1] / 2, 0], size, heading + rng.normal(0, 0.3), _tint(rng, 0.3, 0.9, 0.25), pick(rng, "facade", "brick", "facade", "concrete"), rng.uniform(3, 8))  # fmt: skip
        elif setting == "yard":
            size = np.array([rng.uniform(2, 7), rng.uniform(0.8, 3), 0.15])
            place = place / np.linalg.norm(place) * rng.uniform(2.5, 9)
            if free(place, size[0] / 2 + 0.6):
                props.box(place + [0, size[1] / 2, 0], size, heading + rng.normal(0, 0.7), _tint(rng, 0.3, 0.9, 0.25), pick(rng, "brick", "wood", "concrete"), rng.uniform(1, 2))  # fmt: skip
        elif rng.random() < 0.6:
            height = rng.uniform(2.5, 7)
            bark, green = (0.16, 0.11, 0.07), np.array([rng.uniform(0.08, 0.25), rng.uniform(0.2, 0.4), 0.06])
            props.cylinder(place, 0.05 * height**0.7, height * 0.6, bark, pick(rng, "wood"), 0.6)
            for _ in range(rng.integers(3, 7)):
                crown = place + np.array([*rng.normal(0, 0.13, 2) * height, 0])[[0, 2, 1]]
                crown = crown + [0, height * rng.uniform(0.55, 0.95), 0]
                props.foliage(rng, crown, height * rng.uniform(0.12, 0.26, 3), green, 0.06 * height, 130)
        else:
            for _ in range(rng.integers(1, 4)):
                bush = place + [rng.normal(0, 0.5), rng.uniform(0.2, 0.5), rng.normal(0, 0.5)]
                green = np.array([rng.uniform(0.08, 0.25), rng.uniform(0.18, 0.4), 0.06])
                props.foliage(rng, bush, rng.uniform(0.3, 0.9, 3), green, 0.15, 150)
    for _ in range(rng.integers(0, 4)):
        place = np.array([rng.uniform(-4, 4), 0, rng.uniform(-4, 4)])
        if free(place, 1.0):
            if rng.random() < 0.4:
                props.cylinder(place, rng.uniform(0.04, 0.1), rng.uniform(1, 4.5), _tint(rng, 0.1, 0.5, 0.2))
            else:
                _thing(rng, props, place)


def _occluders(rng: np.random.Generator, props: Props, camera: np.ndarray, people: np.ndarray) -> None:
    """Something between the camera and one of the people that hides a part: a post, a table, a crate, a plant."""
    target = people[rng.integers(len(people))]
    path = (target - camera) * [1, 0, 1]
    length = np.linalg.norm(path)
    if length < 1.8:
        return
    ahead = path / length
    aside = np.array([ahead[2], 0, -ahead[0]])
    place = (
        target * [1, 0, 1] - ahead * rng.uniform(0.75, min(1.6, length - 0.9)) + aside * rng.normal(0, 0.28)
    )
    if np.linalg.norm((people - place)[:, ::2], axis=1).min() < 0.7:
        return
    if rng.random() < 0.35:
        props.cylinder(
            place,
            rng.uniform(0.03, 0.1),
            rng.uniform(0.8, 2.6),
            _tint(rng, 0.1, 0.8, 0.3),
            pick(rng, "wood", "concrete"),
        )
    else:
        _thing(rng, props, place)


def _world(rng: np.random.Generator, camera: np.ndarray, people: np.ndarray, props: Props) -> dict[str, Any]:
    u = rng.uniform
    reach = np.linalg.norm(people[:, ::2], axis=1).max()

    def free(place: np.ndarray, gap: float) -> bool:
        """Far enough from people, from the camera, and from the line between."""
        if np.linalg.norm((people - place)[:, ::2], axis=1).min() < gap:
            return False
        eye, spot = camera[::2], place[::2]
        along = np.clip(spot @ eye / (eye @ eye), 0, 1.2)
        return bool(np.linalg.norm(spot - along * eye) > gap or np.linalg.norm(spot) > 6 and along <= 0)

    elevation, azimuth = u(0.35, 1.35), u(0, 2 * np.pi)
    world: dict[str, Any] = {"backdrop": -1, "room": 0, "haze": 0.0}
    if rng.random() < 0.45:
        spread = np.array([u(0.8, 3.5), 0, u(0.8, 3.5)])
        low = np.minimum(camera, -reach) - 0.4 - spread
        high = np.maximum(camera, reach) + 0.4 + spread[::-1]
        low[1], high[1] = 0, max(u(2.3, 3.4), camera[1] + 0.3)
        photo = rng.random() < 0.22  # a photograph all around, as if the person had been pasted into it
        _indoor_things(rng, props, low, high, free, decorated=not photo)
        lamp, ambient = u(0.3, 1.3), u(0.35, 0.75)
        warm = np.array([1.0, u(0.8, 1.0), u(0.6, 1.05)])
        floor = str(
            rng.choice(["wood", "tile", "carpet", "concrete", "checks"], p=[0.45, 0.2, 0.15, 0.15, 0.05])
        )
        wall_color = _tint(rng, 0.5, 0.9, 0.1) if rng.random() < 0.7 else _tint(rng, 0.15, 0.7, 0.4)
        world |= {
            "room": 1,
            "room_min": low,
            "room_max": high,
            "sun_color": lamp * warm,
            "sun_size": u(0.02, 0.06),
            "sky": ambient * warm,
            "bounce": ambient * warm * u(0.25, 0.6),
            "floor_tint": WOOD[rng.integers(len(WOOD))] if floor == "wood" else _tint(rng, 0.12, 0.75, 0.2),
            "wall_texture": pick(rng, "scenery")
            if photo
            else pick(rng, "plaster", "plaster", "wallpaper", "brick", "concrete", "wood"),
            "wall_scale": u(2.5, 5.0) if photo else u(1.0, 2.5),
            "wall_tint": _tint(rng, 0.6, 1.0, 0.1) if photo else wall_color,
            "ceiling": _tint(rng, 0.7, 0.9, 0.04),
        }
        elevation = u(0.8, 1.45)
        floor_scale = u(0.8, 2.0)
    else:
        overcast = rng.random() < 0.35
        sun = u(0.05, 0.35) if overcast else u(1.3, 2.6)
        warm = np.array([1.0, u(0.82, 1.0), u(0.6, 0.95)])
        blue = np.array([u(0.65, 0.95), u(0.8, 1.0), 1.0]) if not overcast else np.array([0.95, 0.97, 1.0])
        sky = u(0.7, 1.1) if overcast else u(0.22, 0.5)
        floor = str(
            rng.choice(
                ["grass", "gravel", "asphalt", "concrete", "brick", "tile"],
                p=[0.3, 0.15, 0.22, 0.18, 0.08, 0.07],
            )
        )
        tint = (
            np.array([u(0.2, 0.45), u(0.35, 0.6), u(0.08, 0.2)])
            if floor == "grass"
            else _tint(rng, 0.15, 0.7, 0.12)
        )
        zenith = np.array([0.16, 0.32, 0.75]) * u(0.6, 1.4) if not overcast else np.full(3, u(0.55, 0.9))
        world |= {
            "sun_color": sun * warm,
            "sun_size": 0.015 if not overcast else 0.06,
            "sky": sky * blue,
            "bounce": sky * 0.4 * tint + 0.05,
            "floor_tint": tint,
            "backdrop": pick(rng, "skyline") if rng.random() < 0.85 else -1,
            "backdrop_tint": _tint(rng, 0.35, 0.9, 0.2),
            "backdrop_height": u(0.06, 0.35),
            "backdrop_turn": u(0, 2),
            "zenith": zenith,
            "horizon": np.array([u(0.75, 0.95), u(0.82, 0.97), 1.0]) * u(0.7, 1.2),
            "haze": u(0.05, 0.5),
            "ceiling": np.ones(3),
        }  # fmt: skip
        _outdoor_things(rng, props, camera, free)
        floor_scale = u(0.8, 3.0)
    world |= {
        "sun": np.array(
            [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)]
        ),
        "hair_texture": pick(rng, "strands"),
        "floor_texture": pick(rng, floor),
        "floor_scale": floor_scale,
    }
    light = 0.6 * np.max(world["sun_color"]) + 0.75 * np.mean(world["sky"])
    world["exposure"] = float(np.clip(np.exp(rng.normal(0, 0.25)) * 0.85 / light, 0.35, 2.5))
    return world


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
        low, high = surface.min(0), surface.max(0)
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
                _tint(rng, 0.2, 0.9, 0.3),
                pick(rng, "cloth", "carpet", "plaster"),
            )
        elif pose.support == "seat":
            buttocks = surface[f.weights[f.body][:, [0, 1, 2]].sum(1) > 0.6]
            height = buttocks[:, 1].min() + transl[k, 1] - 0.005
            if height > 0.15:
                _seat(rng, props, joints[k, 0] + transl[k], float(height), float(yaws[k]))
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
    box = vertices[hero]
    tall = float(np.linalg.norm(box.max(0) - box.min(0)) * 0.85)
    fill = u(0.35, 0.95) if rng.random() < 0.85 else u(0.95, 1.7)
    distance = float(np.clip(focal * tall / (fill * IMAGE_SIZE[1]), 1.5, 14))
    azimuth = u(-np.pi, np.pi)
    look = (box.max(0) + box.min(0)) / 2
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

    world = _world(rng, eye, centers, props)
    if rng.random() < 0.22:
        _occluders(rng, props, eye, centers)
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


# --- rendering ------------------------------------------------------------------------------------------------------

_people_meshes: dict[int, wp.Mesh] = {}


@cache
def _constants() -> dict[str, Any]:
    f = figure()
    return {
        "rest": wp.array(f.rest, dtype=wp.vec3, device="cpu"),
        "tones": wp.array(f.tones, dtype=wp.vec3, device="cpu"),
        "bank": wp.array(textures(), dtype=wp.vec3ub, device="cpu"),
    }


def _people_mesh(vertices: np.ndarray) -> wp.Mesh:
    count, each = vertices.shape[:2]
    if count not in _people_meshes:
        # The tree is built on T-poses standing apart, so that it follows limbs and people, not one scene's accidents.
        apart = figure().template[figure().body] + np.arange(count, dtype=np.float32)[:, None, None] * [
            3,
            0,
            0,
        ]
        faces = np.concatenate([figure().faces + k * each for k in range(count)]).astype(np.int32)
        _people_meshes[count] = wp.Mesh(
            wp.array(apart.reshape(-1, 3), dtype=wp.vec3, device="cpu"),
            wp.array(faces.flatten(), dtype=wp.int32, device="cpu"),
        )
    mesh = _people_meshes[count]
    wp.copy(mesh.points, wp.array(vertices.reshape(-1, 3).astype(np.float32), dtype=wp.vec3, device="cpu"))
    mesh.refit()
    return mesh


class Prepared:
    """A scene in the renderer's memory. Only one is alive at a time in a process: the next one reuses its tree."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        constants = _constants()
        mesh = _people_mesh(scene.vertices)
        count, each = scene.vertices.shape[:2]
        normals = wp.zeros(count * each, dtype=wp.vec3, device="cpu")
        indices = mesh.indices.reshape((-1, 3))
        wp.launch(raytrace.normals_kernel, len(indices), inputs=[mesh.points, indices, normals], device="cpu")
        vertices, faces, uv, smooth, color, texture = scene.props.gathered()
        self.prop_mesh = wp.Mesh(
            wp.array(vertices, dtype=wp.vec3, device="cpu"),
            wp.array(faces.flatten(), dtype=wp.int32, device="cpu"),
        )
        world = raytrace.World()
        world.people, world.props = mesh.id, self.prop_mesh.id
        world.num_people, world.vertices_each, world.faces_each = count, each, len(figure().faces)
        world.num_spheres = len(scene.spheres)
        world.num_low = int(np.count_nonzero(scene.spheres[:, 1] - scene.spheres[:, 3] < LOW))
        for name, value in scene.world.items():
            if isinstance(value, np.ndarray):
                value = wp.vec3(*[float(v) for v in value])
            elif isinstance(value, tuple):
                value = wp.vec4(*[float(v) for v in value])
            setattr(world, name, value)
        wears = []
        for outfit in scene.outfits:
            wear = raytrace.Wear()
            for name, value in outfit.wear.items():
                setattr(
                    wear,
                    name,
                    wp.vec3(*[float(v) for v in value]) if isinstance(value, np.ndarray) else value,
                )
            wears.append(wear)
        self.mesh = mesh
        self.world = world
        self.arrays = [
            constants["rest"],
            constants["tones"],
            wp.array(scene.fields.reshape(-1, 4), dtype=wp.vec4, device="cpu"),
            normals,
            wp.array(wears, dtype=raytrace.Wear, device="cpu"),
            wp.array(uv, dtype=wp.vec2, device="cpu"),
            wp.array(smooth, dtype=wp.vec3, device="cpu"),
            wp.array(color, dtype=wp.vec4, device="cpu"),
            wp.array(texture, dtype=wp.int32, device="cpu"),
            wp.array(scene.spheres, dtype=wp.vec4, device="cpu"),
            constants["bank"],
        ]

    def render(self, cam_int: np.ndarray, height: int, width: int, border, grid: int):
        """One viewport: image (H, W, 3) uint8; person (H, W) int8, -1 none; depth along z (H, W) float32 metres;
        skin (H, W) bool: bare skin, where person is not -1."""
        scene = self.scene
        camera = raytrace.camera_struct(
            {
                "cam_int": cam_int,
                "rotation": scene.rotation,
                "translation": scene.translation,
                "border": border,
            }
        )
        shape = (height, width)
        image, person = np.empty((*shape, 3), np.uint8), np.empty(shape, np.int8)
        depth = np.empty(shape, np.float32)
        color = wp.empty(shape, dtype=wp.vec3, device="cpu")
        surface = wp.empty(shape, dtype=wp.int32, device="cpu")
        borrowed = [
            wp.array(array, dtype=dtype, device="cpu", copy=False)
            for array, dtype in ((image, wp.vec3ub), (person, wp.int8), (depth, wp.float32))
        ]
        seed = (scene.seed[0] * 7919 + scene.seed[2] * 31 + scene.seed[1]) % 2**30
        first = [self.world, camera, seed, *self.arrays, color, surface, *borrowed[1:]]
        wp.launch(raytrace.see_kernel, shape, inputs=first, device="cpu")
        second = [self.world, camera, seed, grid, color, surface, *self.arrays, borrowed[0]]
        wp.launch(raytrace.smooth_kernel, shape, inputs=second, device="cpu")
        what = surface.numpy()
        skin = (
            (what >= raytrace.PERSON)
            & (what < raytrace.PROP)
            & ((what - raytrace.PERSON) % raytrace.LAYERS == 0)
        )
        return image, person, depth, skin

    def frame(self, grid: int = 3):
        """The full 1280x720 picture."""
        width, height = IMAGE_SIZE
        return self.render(self.scene.cam_int, height, width, (0, 0, width, height), grid)

    def crop(self, center, scale: float, size: int, margin: float, grid: int = 2):
        """A square cut of `size` pixels around a box times `margin`, black outside the frame."""
        matrix = crop_matrix(center, scale, size, margin)
        cam_int = np.concatenate([matrix, [[0, 0, 1]]]) @ self.scene.cam_int
        corners = matrix @ np.array([[0, IMAGE_SIZE[0]], [0, IMAGE_SIZE[1]], [1, 1]])
        return self.render(cam_int, size, size, (*corners[:, 0], *corners[:, 1]), grid)
