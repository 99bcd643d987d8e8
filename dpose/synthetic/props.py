"""Objects in a scene as textured triangles: boxes, cylinders, foliage, and furniture made of them.

World frame, metres, y up. Colours are linear RGB.
"""

from functools import cache

import numpy as np

from dpose.synthetic.poses import about
from dpose.synthetic.textures import pick


class Props:
    """Objects that are collected and then joined into one mesh."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []

    def add(self, vertices, faces, uv, color, texture: int = -1, emission: float = 0.0, normals=None) -> None:
        """Add an object of a single colour.

        vertices (M, 3) metres, world; faces (T, 3); uv (M, 2) texture coordinates. texture: index into the
        texture bank, -1 for none; for skirts and long hair see `raytrace.WORN`. emission: emitted light as a
        share of the colour. normals: (M, 3) for smooth shading, None for flat.
        """
        rgba = np.tile(np.append(np.asarray(color, float), emission), (len(faces), 1))
        vertices = np.asarray(vertices, float)
        normals = np.zeros_like(vertices) if normals is None else normals
        texture = np.full(len(faces), texture)
        self.parts.append((vertices, np.asarray(faces), np.asarray(uv, float), normals, rgba, texture))

    def box(
        self,
        center,
        size,
        yaw: float | np.ndarray = 0.0,
        color=(0.5, 0.5, 0.5),
        texture: int = -1,
        tile: float | None = 1.0,
        emission: float = 0.0,
    ) -> None:
        """Add a box with edges of `size` (3,), turned by `yaw`, an angle or a rotation matrix (3, 3).

        tile: metres per repetition of the texture; None stretches it over each side.
        """
        size = np.asarray(size, float)
        corners, faces, axes, uv = _unit_box()
        stretch = np.ones_like(uv) if tile is None else size[axes] / tile
        turn = yaw if isinstance(yaw, np.ndarray) else about("y", yaw)
        self.add((corners * size) @ turn.T + center, faces, uv * stretch, color, texture, emission)

    def cylinder(
        self, base, radius: float, height: float, color, texture: int = -1, top: float = 1.0
    ) -> None:
        """Add an upright cylinder on `base` (3,), whose upper end is `top` times as wide as the lower."""
        sides = 12
        angle = 2 * np.pi * np.arange(sides) / sides
        ring = np.stack([np.cos(angle), np.zeros(sides), np.sin(angle)], -1)
        rings = np.concatenate([ring * radius, ring * radius * top + [0, height, 0], [[0, height, 0]]])
        k = np.arange(sides)
        m = (k + 1) % sides
        triangles = (
            (k, k + sides, m + sides),
            (k, m + sides, m),
            (k + sides, np.full(sides, 2 * sides), m + sides),
        )
        faces = np.concatenate([np.stack(triangle, -1) for triangle in triangles])
        around, up = (
            np.append(np.tile(angle * radius, 2), 0),
            np.append(np.repeat([0, height], sides), height),
        )
        self.add(rings + base, faces, np.stack([around, up], -1), color, texture)

    def foliage(self, rng, center, radii, color, leaf: float, count: int) -> None:
        """Add `count` leaves in an ellipsoid: triangles of about `leaf` metres, denser near its surface."""
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
        """vertices (M, 3), faces (T, 3), uv (M, 2), normals (M, 3), colour and emission (T, 4), texture (T,).

        Float32 and int32. Without objects, one tiny triangle far below the ground (Warp cannot build an
        empty mesh).
        """
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
    """corners (24, 3), faces (12, 3), the axes that span each corner's side (24, 2), uv (24, 2) in [0, 1]."""
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


def random_color(
    rng: np.random.Generator, low: float = 0.25, high: float = 0.9, colorful: float = 0.12
) -> np.ndarray:
    """A grey between `low` and `high`, each channel times a log-normal factor of deviation `colorful`."""
    return np.clip(rng.uniform(low, high) * np.exp(rng.normal(0, colorful, 3)), 0.02, 0.92)


WOOD = np.array(
    [[0.55, 0.36, 0.20], [0.32, 0.18, 0.09], [0.66, 0.50, 0.32], [0.18, 0.10, 0.06], [0.75, 0.68, 0.58]]
)


def stand_seat(
    rng: np.random.Generator, props: Props, position: np.ndarray, height: float, yaw: float
) -> None:
    """Add a seat with its top at `height`, below a person at `position` (3,) who faces `yaw`."""
    turn = about("y", yaw)
    kind = rng.choice(["chair", "stool", "block", "bench", "sofa"], p=[0.4, 0.15, 0.15, 0.12, 0.18])
    color = WOOD[rng.integers(len(WOOD))] if rng.random() < 0.5 else random_color(rng, 0.05, 0.8, 0.5)
    texture = pick(rng, "wood", "cloth", "plaster")

    def at(x: float, y: float, z: float) -> np.ndarray:
        """A place in the person's frame: x to the left, y up from the ground, z ahead."""
        return position * [1, 0, 1] + turn @ [x, 0, z] + [0, y, 0]

    if kind == "stool":
        props.cylinder(at(0, height - 0.06, 0.02), 0.2, 0.06, color, texture)
        props.cylinder(at(0, 0, 0.02), 0.04, height - 0.05, color * 0.5)
        props.cylinder(at(0, 0, 0.02), 0.18, 0.03, color * 0.5)
        return
    if kind == "block":
        props.box(at(0, height / 2, 0.03), [0.5, height, 0.48], yaw + rng.normal(0, 0.2), color, texture, 0.6)
        return
    if kind == "bench":
        middle = at(rng.uniform(-0.3, 0.3), height - 0.03, 0.03)
        props.box(middle, [1.5, 0.06, 0.42], yaw, color, texture, 0.6)
        for x in (-0.55, 0.55):
            props.box(at(x, (height - 0.06) / 2, 0.03), [0.08, height - 0.06, 0.36], yaw, color * 0.7)
        return
    width, depth = (0.47, 0.46) if kind == "chair" else (rng.uniform(0.9, 1.7), 0.6)
    thick = 0.05 if kind == "chair" else min(0.3, height)
    props.box(at(0, height - thick / 2, 0.05), [width, thick, depth], yaw, color, texture, 0.5)
    back = rng.uniform(0.35, 0.55)
    size = [width, back, 0.05 if kind == "chair" else 0.14]
    props.box(at(0, height + back / 2, -0.27), size, yaw, color, texture, 0.5)
    if kind == "chair":
        for x in (-0.2, 0.2):
            for z in (-0.15, 0.25):
                props.box(at(x, (height - thick) / 2, z), [0.04, height - thick, 0.04], yaw, color * 0.8)
    else:
        for x in (-width / 2 - 0.07, width / 2 + 0.07):
            size = [0.13, height + 0.15, depth]
            props.box(at(x, (height + 0.15) / 2, 0.03), size, yaw, color, texture, 0.5)


def stand_thing(rng: np.random.Generator, props: Props, place: np.ndarray) -> None:
    """Add a table, crate, plant, lamp or chair at `place` (3,)."""
    what = rng.choice(["table", "crate", "plant", "lamp", "chair"], p=[0.28, 0.22, 0.22, 0.1, 0.18])
    yaw = rng.uniform(0, np.pi)
    color = WOOD[rng.integers(len(WOOD))] if rng.random() < 0.6 else random_color(rng, 0.1, 0.8, 0.5)
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
            base = place + spot + [0, size[1] + 0.02, 0]
            radius, height = rng.uniform(0.03, 0.09), rng.uniform(0.05, 0.3)
            props.cylinder(base, radius, height, random_color(rng, 0.1, 0.9, 0.6))
    elif what == "crate":
        size = rng.uniform(0.25, 0.8, 3)
        props.box(place + [0, size[1] / 2, 0], size, yaw, color, pick(rng, "wood", "cloth", "plaster"), 0.7)
        if rng.random() < 0.4:
            small = size * rng.uniform(0.4, 0.8)
            middle, color = place + [0, size[1] + small[1] / 2, 0], random_color(rng, 0.1, 0.8, 0.5)
            props.box(middle, small, yaw + 0.4, color, pick(rng, "cloth", "plaster"))
    elif what == "plant":
        props.cylinder(place, 0.15, 0.3, random_color(rng, 0.2, 0.8, 0.3), top=1.25)
        for _ in range(rng.integers(3, 7)):
            leaf = place + [*rng.normal(0, 0.12, 2), 0]
            tuft = leaf + [0, rng.uniform(0.4, 1.1), rng.normal(0, 0.12)]
            props.foliage(rng, tuft, rng.uniform(0.1, 0.28, 3), (0.1, rng.uniform(0.16, 0.35), 0.06), 0.1, 60)
    elif what == "lamp":
        props.cylinder(place, 0.02, 1.5, color * 0.3)
        props.cylinder(place, 0.14, 0.03, color * 0.3)
        props.cylinder(place + [0, 1.4, 0], 0.2, 0.28, (0.9, 0.85, 0.7), top=0.7)
    else:
        stand_seat(rng, props, place, rng.uniform(0.4, 0.5), yaw)
