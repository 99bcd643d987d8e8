"""Dressed people: the open body with clothes, hair and colours.

Clothes are regions of the T-pose, given as signed distances at the vertices (top, bottom, shoes, hair),
so their borders may run between vertices, and as displacements along the normal, with wrinkles. Skirts and
long hair are ring meshes of their own, skinned to the same joints. All people share one topology.

The skinning is not `dpose.body.Body`'s: it includes the ring meshes and all 55 joints, and its rounding is
part of what a seed reproduces.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import roma
import torch

from dpose.body import OPEN_BODY
from dpose.skeleton import PARENTS
from dpose.synthetic.raytrace import PATTERNS
from dpose.synthetic.textures import pick

NUM_WRINKLES = 24
COARSE = 0.015  # metres
SKIRT_RINGS, SKIRT_SIDES = 12, 32
HAIR_RINGS, HAIR_SIDES = 9, 17

# Linear RGB.
# fmt: off
SKINS = np.array(
    [[0.84, 0.60, 0.49], [0.77, 0.52, 0.40], [0.68, 0.43, 0.31], [0.56, 0.33, 0.22], [0.41, 0.23, 0.14],
     [0.27, 0.14, 0.085], [0.16, 0.085, 0.055], [0.10, 0.055, 0.04]]
)
HAIRS = np.array(
    [[0.012, 0.010, 0.009], [0.03, 0.018, 0.012], [0.07, 0.035, 0.018], [0.16, 0.08, 0.035],
     [0.42, 0.27, 0.11], [0.24, 0.06, 0.02], [0.33, 0.32, 0.31], [0.6, 0.58, 0.55]]
)
CLOTHS = np.array(
    [[0.02, 0.02, 0.025], [0.05, 0.05, 0.055], [0.16, 0.16, 0.17], [0.45, 0.45, 0.46], [0.8, 0.8, 0.79],
     [0.02, 0.035, 0.11], [0.05, 0.10, 0.28], [0.17, 0.30, 0.52], [0.35, 0.02, 0.03], [0.55, 0.07, 0.05],
     [0.06, 0.17, 0.07], [0.14, 0.16, 0.06], [0.48, 0.36, 0.20], [0.22, 0.12, 0.06], [0.72, 0.48, 0.06],
     [0.55, 0.20, 0.30], [0.24, 0.08, 0.28], [0.06, 0.32, 0.34], [0.78, 0.70, 0.55], [0.75, 0.30, 0.07]]
)
# fmt: on

HAIRSTYLES = {  # height of the hairline on the T-pose, and thickness of the hair, metres
    "bald": (9.0, 0),
    "shaved": (1.525, 0.002),
    "short": (1.52, 0.013),
    "medium": (1.48, 0.02),
    "afro": (1.51, 0.055),
    "long": (1.47, 0.014),
    "bun": (1.51, 0.01),
    "hat": (1.56, 0.018),
}


@dataclass(frozen=True)
class Figure:
    """The topology of all people: V vertices, the body's, then the skirt's, then those of long hair."""

    body: slice
    skirt: slice
    hair: slice
    faces: np.ndarray  # (F, 3) int32, of the body
    coarse: np.ndarray  # (C, 3) int32, fewer faces of the body for small pictures, accurate to COARSE
    skirt_faces: np.ndarray  # (F, 3) indices into the skirt's vertices
    hair_faces: np.ndarray  # (F, 3) indices into the hair's vertices
    template: np.ndarray  # (V, 3) T-pose, metres, pelvis at the origin
    rest: np.ndarray  # (V, 3) the same with y = 0 at the soles: texture coordinates of cloth
    shapes: np.ndarray  # (11, 3 V) shape directions
    weights: np.ndarray  # (V, 55) skinning weights
    joints: np.ndarray  # (55, 3) of the template
    joint_shapes: np.ndarray  # (11, 165) shape directions of the joints
    tones: np.ndarray  # (V, 3) factors of the skin colour: lips, eyes, brows
    wrinkles: np.ndarray  # (NUM_WRINKLES, V) displacement patterns of about unit variance
    normals: np.ndarray  # (V, 3) of the template
    is_head: np.ndarray  # (V,) 1 on the skin of the head, 0 in eyes and mouth and elsewhere


def _smooth(x: np.ndarray | float, low: float, high: float) -> Any:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _ring_faces(rings: int, sides: int, closed: bool) -> np.ndarray:
    """Triangles (T, 3) between neighbouring rings of `sides` vertices; vertices are ordered ring by ring."""
    columns = sides if closed else sides - 1
    i, k = np.meshgrid(np.arange(rings - 1), np.arange(columns), indexing="ij")
    a, b = i * sides + k, i * sides + (k + 1) % sides
    quads = np.stack([a, b, b + sides, a, b + sides, a + sides], -1)
    return quads.reshape(-1, 3)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (V, 3)."""
    corner = vertices[faces]
    face_normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], face_normal)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def _coarse_faces(vertices: np.ndarray, faces: np.ndarray, cell: float) -> np.ndarray:
    """Fewer faces (C, 3) between the same vertices: one vertex stands for all in a cube of side `cell`."""
    _, cube = np.unique(np.floor(vertices / cell).astype(int), axis=0, return_inverse=True)
    cube = cube.ravel()
    middle = np.stack([np.bincount(cube, values) for values in vertices.T], -1) / np.bincount(cube)[:, None]
    order = np.lexsort((((vertices - middle[cube]) ** 2).sum(1), cube))  # by cube, the middle one first
    chosen = order[np.flatnonzero(np.diff(cube[order], prepend=-1))]
    merged = chosen[cube][faces]
    merged = merged[(merged != np.roll(merged, 1, 1)).all(1)]
    return merged[np.unique(np.sort(merged, 1), axis=0, return_index=True)[1]]


@cache
def figure() -> Figure:
    """The open body with skirt and long hair, computed once per process."""
    file = np.load(OPEN_BODY, allow_pickle=False)
    body = file["v_template"].astype(np.float64)
    faces = file["f"].astype(np.int64)
    shapes = file["shapedirs"][..., :11].astype(np.float64)  # (V, 3, 11)
    weights = file["weights"].astype(np.float64)
    regressor = file["J_regressor"].astype(np.float64)
    ground = body[:, 1].min()
    names, group = list(file["face_group_names"]), file["face_group"]

    def vertices_of(*wanted: str) -> np.ndarray:
        mask = np.zeros(len(body), bool)
        for name in wanted:
            mask[faces[group == names.index(name)]] = True
        return mask

    # Skirt: elliptic rings around both legs, from the waist to below the knee.
    heights = np.linspace(1.06, 0.42, SKIRT_RINGS)
    angle = 2 * np.pi * np.arange(SKIRT_SIDES) / SKIRT_SIDES
    skirt, skirt_weights = [], []
    torso = np.abs(body[:, 0]) < 0.3
    for height in heights:
        near = body[torso & (np.abs(body[:, 1] - ground - height) < 0.025)]
        low, high = near.min(0), near.max(0)
        center, half = (low + high) / 2, (high - low) / 2 + 0.026
        half[2] = max(half[2], 0.45 * half[0])
        x, z = half[0] * np.sin(angle), center[2] + half[2] * np.cos(angle)
        ring = np.stack([x, np.full_like(angle, height + ground), z], -1)
        drop = _smooth(0.98 - height, 0.0, 0.3)
        left = 0.5 + 0.5 * np.tanh(ring[:, 0] / 0.07)
        w = np.zeros((SKIRT_SIDES, 55))
        w[:, 0] = 1 - drop
        w[:, 1], w[:, 2] = drop * left, drop * (1 - left)
        skirt.append(ring)
        skirt_weights.append(w)

    # Long hair: half rings from the crown to the shoulder blades, open at the face.
    hair, hair_weights = [], []
    for t in np.linspace(0, 1, HAIR_RINGS):
        spread = np.linspace(-2.05, 2.05, HAIR_SIDES)  # 0 is the back of the head
        fall = max(0.0, t - 0.35) / 0.65
        radius = np.sin(min(1.0, 0.15 + t / 0.35) * np.pi / 2)
        x = (0.085 - 0.01 * fall) * radius * np.sin(spread)
        z = 0.075 - (0.098 + 0.02 * fall) * radius * np.cos(spread)
        y = 1.70 - 0.10 * min(1.0, t / 0.35) ** 2 - 0.33 * fall + ground
        hair.append(np.stack([x, np.full_like(x, y), z], -1))
        w = np.zeros((HAIR_SIDES, 55))
        down = _smooth(fall, 0.15, 0.9)
        w[:, 15], w[:, 12], w[:, 9] = 1 - down, 0.5 * down, 0.5 * down
        hair_weights.append(w)

    extra = np.concatenate(skirt + hair)
    nearest = np.array(
        [np.argmin(((body - p) ** 2).sum(1) + 10 * (np.sign(body[:, 0]) != np.sign(p[0]))) for p in extra]
    )
    template = np.concatenate([body, extra])
    count, count_skirt = len(body), SKIRT_RINGS * SKIRT_SIDES
    skirt_faces = _ring_faces(SKIRT_RINGS, SKIRT_SIDES, True)
    hair_faces = _ring_faces(HAIR_RINGS, HAIR_SIDES, False)
    all_faces = np.concatenate([faces, skirt_faces + count, hair_faces + count + count_skirt])
    all_shapes = np.concatenate([shapes, shapes[nearest]])  # (V, 3, 11)
    joints = regressor @ body
    rest = template - [0, ground, 0]

    tones = np.ones((len(template), 3))
    x, y, z = rest.T
    face = vertices_of("head")
    face = np.concatenate([face, np.zeros(len(extra), bool)])
    eye = joints[23] - [0, ground, 0]
    lips = face & (np.abs(x) < 0.027) & (np.abs(y - (eye[1] - 0.072)) < 0.009) & (z > 0.13)
    brows = face & (np.abs(np.abs(x) - 0.033) < 0.02) & (np.abs(y - (eye[1] + 0.021)) < 0.005) & (z > 0.1)
    tones[lips] = [0.78, 0.48, 0.48]
    tones[brows] = 0.3
    for side in ("L", "R"):
        tones[: len(body)][vertices_of(f"eye_front.{side}", f"eye_back.{side}")] = [1.25, 1.6, 1.9]
        front = np.flatnonzero(vertices_of(f"eye_front.{side}"))
        center = body[front].mean(0)
        radius = np.hypot(*(body[front] - center)[:, :2].T)
        tones[front[radius < 0.5 * radius.max()]] = 0.08
    tones[: len(body)][vertices_of("mouth_cavity", "tongue")] *= [0.6, 0.35, 0.35]

    rng = np.random.default_rng(5)
    wrinkles = np.zeros((NUM_WRINKLES, len(template)))
    for field in wrinkles:
        for _ in range(14):
            wave = rng.normal(size=3) * [1.0, 0.7, 1.0]
            wave *= 2 * np.pi / rng.uniform(0.05, 0.16) / np.linalg.norm(wave)
            bend = 0.6 * np.sin(rest @ rng.normal(0, 9, 3) + rng.uniform(0, 6))
            field += np.sin(rest @ wave + bend + rng.uniform(0, 6))
        field /= field.std()
        field[:] = np.sign(field) * np.abs(field) ** 0.8
    cavity = np.concatenate(
        [vertices_of("mouth_cavity", "tongue", "eye_cavity.L", "eye_cavity.R"), np.zeros(len(extra), bool)]
    )
    arrays = {
        "template": template,
        "rest": rest,
        "shapes": all_shapes.transpose(2, 0, 1).reshape(11, -1),
        "weights": np.concatenate([weights, *skirt_weights, *hair_weights]),
        "joints": joints,
        "joint_shapes": np.einsum("jv,vkc->cjk", regressor, shapes).reshape(11, -1),
        "tones": tones,
        "wrinkles": wrinkles,
        "normals": vertex_normals(template, all_faces),
        "is_head": face & ~cavity,
    }
    return Figure(
        body=slice(0, count),
        skirt=slice(count, count + count_skirt),
        hair=slice(count + count_skirt, len(template)),
        faces=faces.astype(np.int32),
        coarse=_coarse_faces(body, faces, COARSE).astype(np.int32),
        skirt_faces=skirt_faces,
        hair_faces=hair_faces,
        **{name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()},
    )


@dataclass(frozen=True)
class Outfit:
    """The clothes and hair of one person. Metres on the T-pose of the mean body, soles at y = 0."""

    wear: dict[str, Any]  # fields of `raytrace.Wear`: colours and patterns
    sleeve: float  # |x| at which the sleeves end
    hem: float  # height of the top's lower border
    neckline: float  # height of the top's upper border
    v_neck: float  # depth of a V-neck, 0 for none
    waist: float  # height of the upper border of trousers or skirt
    leg: float  # height at which the trousers end
    skirt_rings: int  # length of the skirt or dress in rings, 0 for none
    skirt_is_top: bool  # a dress: the skirt has the top's colours
    flare: float  # widening of the skirt towards its hem
    shoe: float  # height of the shoes, 0 for bare feet
    loose_top: float  # distance of the cloth from the body
    loose_bottom: float
    wrinkle: int  # index of the wrinkle pattern
    wrinkle_depth: float
    hairstyle: str  # a key of HAIRSTYLES
    hair_length: int  # rings of long hair
    hair_volume: float  # factor of the hair's thickness
    beard: float  # 0 for none


def _color(rng: np.random.Generator, palette: np.ndarray, spread: float = 0.25) -> np.ndarray:
    """A colour (3,) of the palette, varied in brightness and, less, in hue."""
    base = palette[rng.integers(len(palette))]
    return np.clip(base * np.exp(rng.normal(0, spread, 3) * 0.4 + rng.normal(0, spread)), 0.008, 0.85)


def sample_skin_and_hair(rng: np.random.Generator) -> dict[str, Any]:
    """The looks of an identity, the same in every scene: skin, hair colour and style, beard."""
    place = rng.uniform(0, len(SKINS) - 1)
    low = int(place)
    skin = SKINS[low] * (low + 1 - place) + SKINS[min(low + 1, len(SKINS) - 1)] * (place - low)
    dark = place > 4
    hair = _color(rng, HAIRS[:3] if dark or rng.random() < 0.4 else HAIRS)
    styles = ["bald", "shaved", "short", "medium", "afro", "long", "bun"]
    style = str(rng.choice(styles, p=[0.06, 0.12, 0.3, 0.17, 0.07, 0.2, 0.08]))
    return {
        "skin": np.clip(skin * np.exp(rng.normal(0, 0.06, 3)), 0.01, 0.9),
        "hair": hair,
        "hairstyle": style,
        "hair_length": int(rng.integers(5, HAIR_RINGS + 1)) if style == "long" else 0,
        "hair_volume": float(rng.uniform(0.7, 1.3)),
        "beard": float(rng.uniform(0.4, 1.0)) if rng.random() < 0.15 else 0.0,
    }


def sample_outfit(rng: np.random.Generator, identity: dict[str, Any]) -> Outfit:
    """Random clothes for a person with these looks, see `sample_skin_and_hair`."""
    u = rng.uniform
    top, bottom = _color(rng, CLOTHS), _color(rng, CLOTHS[: 15 if rng.random() < 0.8 else None])
    top_pattern = str(rng.choice(list(PATTERNS)[:8], p=[0.46, 0.13, 0.05, 0.1, 0.05, 0.05, 0.11, 0.05]))
    patterns = ["plain", "pinstripes", "plaid", "camouflage", "dots"]
    bottom_pattern = str(rng.choice(patterns, p=[0.82, 0.05, 0.05, 0.05, 0.03]))
    dress = rng.random() < 0.09
    skirt = not dress and rng.random() < 0.11
    sleeve = float(rng.choice([0.185, u(0.27, 0.36), u(0.40, 0.5), u(0.60, 0.68)], p=[0.1, 0.42, 0.08, 0.4]))
    legs = [u(0.62, 0.75), u(0.48, 0.6), u(0.2, 0.35), u(0.02, 0.1)]
    leg = float(rng.choice(legs, p=[0.1, 0.17, 0.06, 0.67]))
    jacket = sleeve > 0.55 and rng.random() < 0.3
    hat = rng.random() < 0.12
    wear = {
        "skin": identity["skin"],
        "hair": _color(rng, CLOTHS) if hat else identity["hair"],
        "top": top,
        "top_second": _color(rng, CLOTHS),
        "top_pattern": PATTERNS[top_pattern],
        "top_scale": float(np.exp(rng.normal(np.log(0.07), 0.45))),
        "bottom": bottom,
        "bottom_second": _color(rng, CLOTHS),
        "bottom_pattern": PATTERNS[bottom_pattern],
        "bottom_scale": float(np.exp(rng.normal(np.log(0.06), 0.4))),
        "shoe": _color(rng, CLOTHS[:15]),
        "sole": _color(rng, CLOTHS[[0, 2, 4, 4, 13]]),
        "inner": _color(rng, CLOTHS),
        "opening": float(u(0.02, 0.07)) if jacket else 0.0,
        "shine": float(rng.choice([0.0, 0.03, 0.15], p=[0.6, 0.3, 0.1])),
        "print_texture": pick(rng, "print"),
    }
    return Outfit(
        wear=wear,
        sleeve=sleeve,
        hem=float(1.0 if dress else u(0.84, 0.97) if rng.random() < 0.75 else u(0.98, 1.05)),
        neckline=float(u(1.40, 1.45)),
        v_neck=float(u(0, 0.09) if rng.random() < 0.35 else 0.0),
        waist=float(u(1.0, 1.07)),
        leg=0.8 if skirt or dress else leg,
        skirt_rings=int(rng.integers(6, SKIRT_RINGS + 1)) if skirt or dress else 0,
        skirt_is_top=dress,
        flare=float(u(0.02, 0.35)),
        shoe=float(rng.choice([0.0, u(0.06, 0.09), u(0.12, 0.16), u(0.3, 0.4)], p=[0.08, 0.6, 0.25, 0.07])),
        loose_top=float(u(0.0, 0.03) if not jacket else u(0.015, 0.035)),
        loose_bottom=float(u(0.0, 0.022)),
        wrinkle=int(rng.integers(NUM_WRINKLES)),
        wrinkle_depth=float(u(0.0008, 0.0035)),
        hairstyle="hat" if hat else identity["hairstyle"],
        hair_length=identity["hair_length"],
        hair_volume=identity["hair_volume"],
        beard=0.0 if hat else identity["beard"],
    )


def loosened(rng: np.random.Generator, outfit: Outfit) -> Outfit:
    """The outfit with looser clothes whose folds shade, some of them coats, and with more kinds of cloth."""
    u, wear = rng.uniform, dict(outfit.wear)
    wear["fold"] = u(0.2, 0.9)
    what = rng.random()
    if what < 0.25:
        wear |= {"top_pattern": PATTERNS["logo"], "print_texture": pick(rng, "letters")}
    elif what < 0.5:
        wear |= {"top_pattern": PATTERNS["fabric"], "print_texture": pick(rng, "clutter")}
    elif what < 0.7:
        wear["top_pattern"] = PATTERNS["plain"]
    if rng.random() < 0.3:  # a dark suit, a uniform, sportswear: one colour
        wear |= {"bottom": wear["top"], "bottom_pattern": PATTERNS["plain"]}
    coat = not outfit.skirt_rings and outfit.sleeve > 0.55 and rng.random() < 0.35
    if coat:
        wear["opening"] = u(0.0, 0.06) * rng.integers(2)
    return replace(
        outfit,
        wear=wear,
        loose_top=float(u(0.012, 0.055)),
        loose_bottom=float(u(0.008, 0.045)),
        wrinkle_depth=float(u(0.0015, 0.006)),
        skirt_rings=int(rng.integers(3, 9)) if coat else outfit.skirt_rings,
        skirt_is_top=coat or outfit.skirt_is_top,
        flare=float(u(0.0, 0.25)) if coat else outfit.flare,
        hem=float(u(0.78, 0.95)) if rng.random() < 0.6 and not outfit.skirt_is_top else outfit.hem,
        hair_volume=outfit.hair_volume * float(u(0.8, 1.8)),
    )


def dress(outfit: Outfit) -> tuple[np.ndarray, np.ndarray]:
    """Where an outfit covers the T-pose, and its thickness.

    Returns fields (V, 4): approximate signed distances in metres to the borders of top, bottom, shoes and
    hair, positive inside; and displacement (V,) along the normal, metres.
    """
    f = figure()
    x, y, z = f.rest.T
    ax = np.abs(x)
    front = _smooth(z, 0.0, 0.12)
    collar = outfit.neckline + 0.03 - outfit.v_neck * front * np.clip(1 - ax / 0.08, 0, 1) - 0.035 * front
    arm = np.where(y > 1.2, outfit.sleeve - ax, 1.0)
    top = np.minimum(np.minimum(arm, y - outfit.hem), np.where(ax < 0.12, collar - y, 1.0))
    bottom = np.minimum(outfit.waist - y, y - outfit.leg)
    shoe = outfit.shoe - y if outfit.shoe > 0 else np.full_like(y, -1.0)
    hairline, hair_thickness = HAIRSTYLES[outfit.hairstyle]
    slope = 0.45 if outfit.hairstyle == "hat" else 0.8
    hair = np.where(f.is_head > 0, y - (hairline + slope * (z + 0.02)), -1.0)
    if outfit.beard:
        lower = np.minimum(np.minimum(1.535 - y - 0.5 * ax, y - 1.465), np.minimum(z - 0.08, 0.06 - ax))
        hair = np.maximum(hair, np.where((f.is_head > 0) & (f.tones[:, 0] == 1), lower, -1.0))
    fields = np.stack([top, bottom, shoe, hair], -1)

    wrinkle = f.wrinkles[outfit.wrinkle] * outfit.wrinkle_depth
    torso = np.where(y > 1.2, np.where(ax > 0.19, 0.5 + 0.5 * _smooth(ax, 0.19, outfit.sleeve), 0.45), 1.0)
    thick_top = 0.007 + outfit.loose_top * torso + wrinkle
    thick_bottom = 0.005 + outfit.loose_bottom * (0.3 + 0.7 * _smooth(0.95 - y, 0.0, 0.8)) + wrinkle
    thick_bottom = thick_bottom * (1 - 0.6 * _smooth(0.05 - ax, 0.0, 0.05))  # thinner between the legs
    thick_hair = hair_thickness * outfit.hair_volume * (0.4 + 0.6 * _smooth(hair, 0, 0.08))
    thick_hair = thick_hair + np.where((z > 0.07) & (y < 1.55), 0.006 * outfit.beard, 0)
    thick_hair = thick_hair * (1 + 0.15 * f.wrinkles[(outfit.wrinkle + 7) % NUM_WRINKLES])
    move = np.zeros_like(y)
    move = np.where(shoe > 0, 0.007, move)
    move = np.where(bottom > 0, np.maximum(move, thick_bottom), move)
    move = np.where(top > 0, np.maximum(move, thick_top) + np.where(bottom > 0, 0.004, 0), move)
    move = np.where(hair > 0, np.maximum(move, thick_hair), move)

    fields[f.skirt] = [1, -1, -1, -1] if outfit.skirt_is_top else [-1, 1, -1, -1]
    fields[f.hair] = [-1, -1, -1, 1]
    move[f.skirt] = 0.5 * wrinkle[f.skirt]
    move[f.hair] = 0.002 * f.wrinkles[outfit.wrinkle, f.hair]
    return fields.astype(np.float32), move.astype(np.float32)


def _rest_surface(betas: np.ndarray, outfit: Outfit, move: np.ndarray) -> np.ndarray:
    """The dressed T-pose (V, 3) of one person with betas (11,) and displacement `move` (V,).

    Rings below the hem of the skirt or the ends of long hair are moved onto the last one.
    """
    f = figure()
    rest = f.template + (betas.astype(np.float32) @ f.shapes).reshape(-1, 3) + f.normals * move[:, None]
    skirt = rest[f.skirt].reshape(SKIRT_RINGS, SKIRT_SIDES, 3)
    if outfit.skirt_rings:
        grow = 1 + outfit.flare * np.linspace(0, 1, SKIRT_RINGS)[:, None] * np.array([1.0, 1.3])
        angle = np.arange(SKIRT_SIDES) / SKIRT_SIDES * 2 * np.pi
        fold = 1 + 0.05 * np.linspace(0, 1, SKIRT_RINGS)[:, None] * np.sin((5 + outfit.wrinkle % 4) * angle)
        center = skirt.mean(1, keepdims=True)
        skirt[..., ::2] = center[..., ::2] + (skirt - center)[..., ::2] * grow[:, None] * fold[..., None]
        skirt[outfit.skirt_rings :] = skirt[outfit.skirt_rings - 1]
    hair = rest[f.hair].reshape(HAIR_RINGS, HAIR_SIDES, 3)
    keep = outfit.hair_length if outfit.hairstyle == "long" else 0
    hair[max(keep, 1) :] = hair[max(keep, 1) - 1]
    return rest


@cache
def _skinning_weights() -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(figure().weights.T))  # (55, V)


def pose_people(
    betas: np.ndarray, rotations: np.ndarray, outfits: list[Outfit]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Dressed surfaces of N people by linear blend skinning, pelvis near the origin, y up.

    betas: (N, 11). rotations: (N, 55, 3) axis-angle. Returns vertices (N, V, 3) and joints (N, 55, 3) in
    metres, the fields (N, V, 4) of `dress`, and the vertices (N, B, 3) of the bare bodies.
    """
    f = figure()
    fields, rests = [], []
    for b, outfit in zip(betas, outfits, strict=True):
        field, move = dress(outfit)
        fields.append(field)
        rests.append(_rest_surface(b, outfit, move))
    joints = f.joints + (betas @ f.joint_shapes).reshape(-1, 55, 3)
    local = roma.rotvec_to_rotmat(torch.from_numpy(rotations.astype(np.float32))).numpy()
    world = local.copy()  # (N, 55, 3, 3)
    posed = joints.copy()
    for joint, parent in enumerate(PARENTS[1:], 1):
        world[:, joint] = world[:, parent] @ local[:, joint]
        bone = joints[:, joint] - joints[:, parent]
        posed[:, joint] = posed[:, parent] + (world[:, parent] @ bone[..., None])[..., 0]
    offset = posed - (world @ joints[..., None])[..., 0]
    transform = np.concatenate([world, offset[..., None]], -1).reshape(len(betas), 55, 12)
    blend = torch.from_numpy(transform.astype(np.float32)).transpose(1, 2) @ _skinning_weights()  # (N, 12, V)
    blend = blend.unflatten(1, (3, 4))  # (N, 3, 4, V)

    def skinned(rest: np.ndarray) -> np.ndarray:
        """Vertices (N, V or B, 3) of a T-pose of this shape."""
        matrices, columns = blend[..., : rest.shape[1]], torch.from_numpy(rest).transpose(1, 2).contiguous()
        vertices = matrices[:, :, 3]  # (N, 3, V)
        for axis in range(3):
            vertices = torch.addcmul(vertices, matrices[:, :, axis], columns[:, axis, None])
        return vertices.transpose(1, 2).contiguous().numpy()

    shapes = f.shapes.reshape(11, -1, 3)[:, f.body].reshape(11, -1)
    bare = f.template[f.body] + (betas.astype(np.float32) @ shapes).reshape(len(betas), -1, 3)
    return skinned(np.stack(rests)), posed, np.stack(fields), skinned(bare)
