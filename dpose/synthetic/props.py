"""What stands in a synthetic scene, as textured triangles: boxes, cylinders, foliage, and furniture of these.

World frame, metres, y up. Colours are linear RGB. Everything that takes `rng` draws from it.
"""

from functools import cache

import numpy as np

from dpose.synthetic.poses import about
from dpose.synthetic.textures import pick


class Props:
    """Triangles of furniture, trees, walls, ... gathered into one mesh."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, ...]] = []

    def add(self, vertices, faces, uv, color, texture: int = -1, emission: float = 0.0, normals=None) -> None:
        """One thing of a single colour.

        vertices (M, 3) metres, world; faces (T, 3); uv (M, 2). texture: index into the bank, -1 none, worn
        things' codes see `raytrace.WORN`. emission: light given off, a share of the colour. normals (M, 3):
        for smooth shading, None for flat.
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
        yaw: float = 0.0,
        color=(0.5, 0.5, 0.5),
        texture: int = -1,
        tile: float | None = 1.0,
        emission: float = 0.0,
    ) -> None:
        """A box of `size` (3,), turned by `yaw`. tile: metres a repeat of the texture, None: one a side."""
        size = np.asarray(size, float)
        corners, faces, axes, uv = _unit_box()
        stretch = np.ones_like(uv) if tile is None else size[axes] / tile
        self.add((corners * size) @ about("y", yaw).T + center, faces, uv * stretch, color, texture, emission)

    def cylinder(
        self, base, radius: float, height: float, color, texture: int = -1, top: float = 1.0
    ) -> None:
        """An upright cylinder standing at `base` (3,); its upper end is `top` times as wide as the lower."""
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
        """A cloud of `count` leaves in an ellipsoid, triangles about `leaf` metres large, denser outside."""
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
        """vertices (M, 3), faces (T, 3), uv (M, 2), normals (M, 3), colour + emission (T, 4), texture (T,).

        Float32 and int32. Without any thing: one tiny triangle far underground, since a mesh needs one.
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


def random_color(
    rng: np.random.Generator, low: float = 0.25, high: float = 0.9, colorful: float = 0.12
) -> np.ndarray:
    """A grey between `low` and `high`, each channel then varied by the log-normal factor's `colorful`."""
    return np.clip(rng.uniform(low, high) * np.exp(rng.normal(0, colorful, 3)), 0.02, 0.92)


WOOD = np.array(
    [[0.55, 0.36, 0.20], [0.32, 0.18, 0.09], [0.66, 0.50, 0.32], [0.18, 0.10, 0.06], [0.75, 0.68, 0.58]]
)


def stand_seat(
    rng: np.random.Generator, props: Props, position: np.ndarray, height: float, yaw: float
) -> None:
    """A seat whose top is at `height` under a sitter at `position` who faces `yaw`."""
    turn = about("y", yaw)
    kind = rng.choice(["chair", "stool", "block", "bench", "sofa"], p=[0.4, 0.15, 0.15, 0.12, 0.18])
    color = WOOD[rng.integers(len(WOOD))] if rng.random() < 0.5 else random_color(rng, 0.05, 0.8, 0.5)
    texture = pick(rng, "wood", "cloth", "plaster")

    def at(x: float, y: float, z: float) -> np.ndarray:
        """A place from the sitter's view: x to the left, y up from the ground, z ahead."""
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


def stand_thing(rng: np.random.Generator, props: Props, place: np.ndarray) -> None:
    """A table, crate, plant, lamp or lone chair, standing at `place`."""
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
            props.cylinder(
                place + spot + [0, size[1] + 0.02, 0],
                rng.uniform(0.03, 0.09),
                rng.uniform(0.05, 0.3),
                random_color(rng, 0.1, 0.9, 0.6),
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
                random_color(rng, 0.1, 0.8, 0.5),
                pick(rng, "cloth", "plaster"),
            )
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
