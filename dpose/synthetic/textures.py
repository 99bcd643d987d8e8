"""Textures: photographs that come with scikit-image, and procedural materials.

Photographs of people are not used: they would put unlabelled people behind the labelled ones.
"""

from functools import cache

import cv2
import numpy as np
from skimage import data

from dpose.synthetic.raytrace import MIP_SIDE, mip_chain

GROUPS: dict[str, list[int]] = {}  # material -> indices into the bank, filled by `textures`


def _noise(rng: np.random.Generator, octaves: tuple[int, ...], weights: tuple[float, ...]) -> np.ndarray:
    """Tileable noise (S, S) in [-1, 1], of random phases around the given frequencies."""
    frequency = np.fft.fftfreq(MIP_SIDE, 1 / MIP_SIDE)
    radius = np.hypot(frequency[:, None], frequency[None])
    spectrum = np.zeros((MIP_SIDE, MIP_SIDE), complex)
    for octave, weight in zip(octaves, weights, strict=True):
        ring = np.exp(-(((radius - octave) / (0.5 * octave + 0.5)) ** 2))
        phase = np.exp(2j * np.pi * rng.random((MIP_SIDE, MIP_SIDE)))
        layer = np.fft.ifft2(ring * phase).real
        spectrum += weight * np.fft.fft2(layer / layer.std())
    field = np.fft.ifft2(spectrum).real
    return np.clip(field / (2.5 * field.std()), -1, 1)


def _drawn(rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Materials as (S, S, 3) arrays, about 0.8 grey: the colour comes from a tint."""
    s = MIP_SIDE
    y, x = np.mgrid[:s, :s] / s

    def grey(*values: np.ndarray) -> list[np.ndarray]:
        return [np.repeat(np.clip(value, 0, 1)[..., None], 3, -1) for value in values]

    def planks(count: int, seams: bool) -> np.ndarray:
        plank = np.floor(x * count)
        shade = rng.normal(0, 0.06, count)[plank.astype(int)]
        grain = _noise(rng, (3, 40), (0.3, 1.0))
        grain = np.repeat(grain[:16], s // 16, 0)  # stretched along the plank
        board = 0.78 + shade + 0.07 * grain
        edge = np.abs(x * count - plank - 0.5) > 0.485
        ends = np.abs((y * 2 + rng.random(count)[plank.astype(int)]) % 1 - 0.5) > 0.492
        return np.where((edge | ends) & seams, board * 0.6, board)

    def tiles(count: int, joint: float) -> np.ndarray:
        u, v = x * count, y * count
        shade = rng.normal(0, 0.035, (count, count))[(v.astype(int)) % count, (u.astype(int)) % count]
        line = np.maximum(np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5)) > 0.5 - joint
        return np.where(line, 0.55, 0.82 + shade + 0.02 * _noise(rng, (20,), (1.0,)))

    plaster = [0.85 + a * _noise(rng, (4, 12, 40), (1, 0.6, 0.5)) for a in (0.02, 0.05, 0.1)]
    concrete = [0.72 + 0.14 * _noise(rng, (3, 10, 60), (1, 0.8, 0.8)) for _ in range(2)]
    asphalt = 0.7 + 0.2 * _noise(rng, (6, 50, 100), (0.5, 0.6, 1.2))
    checks = np.where((np.floor(x * 4) + np.floor(y * 4)) % 2 > 0, 0.9, 0.45)
    wallpaper = [
        np.where((x * 8) % 1 < 0.5, 0.88, 0.76),
        0.8 + 0.12 * np.sin(2 * np.pi * 6 * x) * np.sin(2 * np.pi * 6 * y),
    ]
    cloth = 0.78 + 0.1 * np.sign(np.sin(2 * np.pi * 64 * x) * np.sin(2 * np.pi * 64 * y))
    facade = np.full((s, s), 0.75)
    window = (np.abs((x * 4) % 1 - 0.5) < 0.3) & (np.abs((y * 4) % 1 - 0.5) < 0.33)
    facade[window] = (0.25 + 0.3 * rng.random((4, 4)))[(y * 4).astype(int), (x * 4).astype(int)][window]
    leaves = 0.55 + 0.45 * _noise(rng, (12, 40), (1, 1.2))
    skylines = _skylines(rng)
    strands = np.repeat(0.45 + 0.5 * _noise(rng, (25, 70), (1, 1))[:4], s // 4, 0)
    wave = np.sin(2 * np.pi * 3 * y)
    carpet = 0.7 + 0.18 * np.sin(2 * np.pi * (3 * x + 0.15 * wave)) * wave
    books = np.repeat(rng.random((1, 32, 3)) * 0.7 + 0.15, s, 0).repeat(s // 32, 1)
    books[np.broadcast_to(((y * 4) % 1 < 0.12)[..., None], books.shape)] = 0.3
    return {
        "wood": grey(planks(4, True), planks(8, True), planks(3, False)),
        "tile": grey(tiles(4, 0.02), tiles(8, 0.03)),
        "plaster": grey(*plaster),
        "concrete": grey(*concrete),
        "asphalt": grey(asphalt),
        "checks": grey(checks),
        "wallpaper": grey(*wallpaper),
        "cloth": grey(cloth),
        "facade": grey(facade),
        "leaves": grey(leaves),
        "carpet": grey(carpet),
        "books": [books],
        "skyline": skylines,
        "strands": grey(strands),
    }


def _skylines(rng: np.random.Generator) -> list[np.ndarray]:
    """Strips along the horizon (S, S, 3), black above their outline: trees, towns, hills."""
    s = MIP_SIDE
    rows = 1 - np.arange(s)[:, None] / s  # height above the horizon
    out = []
    for k in range(4):
        outline = 0.45 + 0.25 * _noise(rng, (2, 5, 20, 60), (1, 0.6, 0.35, 0.25))[0]
        green = np.stack([0.28 + 0.2 * k / 4, np.full((), 0.42), np.full((), 0.2)], -1)
        crowns = 0.75 + 0.45 * _noise(rng, (14, 45), (1.0, 1.0))
        out.append(np.where(rows[..., None] < outline[None, :, None], green * crowns[..., None], 0))
    for _ in range(4):
        picture = np.zeros((s, s, 3))
        for depth in range(3):
            x = 0
            while x < s:
                width, height = int(rng.integers(10, 50)), rng.uniform(0.15, 0.95 - 0.22 * depth)
                wall = rng.uniform(0.35, 0.9) * np.exp(rng.normal(0, 0.12, 3))
                block = np.broadcast_to(wall, (int(height * s), min(width, s - x), 3)).copy()
                if rng.random() < 0.8:
                    pitch, inset = int(rng.integers(5, 10)), int(rng.integers(2, 4))
                    v, u = np.mgrid[: block.shape[0], : block.shape[1]]
                    block[(v % pitch >= inset) & (u % pitch >= inset)] *= rng.uniform(0.4, 0.8)
                picture[s - len(block) :, x : x + block.shape[1]] = block
                x += width + int(rng.integers(0, 12))
        out.append(picture)
    far = np.zeros((s, s, 3))
    for level, shade in ((0.7, 0.75), (0.5, 0.6), (0.3, 0.45)):
        outline = level + 0.15 * _noise(rng, (2, 6), (1, 0.4))[0]
        far[rows[:, 0][:, None] < outline[None]] = shade * np.array([0.8, 0.95, 1.0])
    return [*out, far]


def _varied(rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Textures (S, S, 3) of `Variety`: clutter of overlapping shapes, and letters, white on black."""
    s, clutter, letters = MIP_SIDE, [], []
    grains = [1 + 0.3 * _noise(rng, (6, 30, 90), (1, 0.7, 0.7))[..., None] for _ in range(4)]
    for k in range(32):
        warm = rng.normal(0.1, 0.35, (6, 1)) * [1.0, 0.1, -1.0] + rng.normal(0, 0.08, (6, 3))
        palette = np.clip(0.2 * np.exp(rng.normal(0, 0.8, (6, 1)) + warm), 0.01, 0.95)
        picture = np.tile(palette[0].astype(np.float32), (s, s, 1))
        # Radii with density r^-3 give the statistics of natural pictures ("dead leaves").
        radii = (4 + 2 * (k % 4)) / np.sqrt(rng.uniform(0.0025, 1, 400))
        for radius in np.sort(radii)[::-1] if k % 2 else radii:
            color = np.clip(
                palette[rng.integers(6)] * np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.05, 3)), 0.01, 1
            ).tolist()
            center, kind = rng.integers(0, s, 2), rng.integers(4)
            if kind < 2:
                axes = np.maximum(radius * rng.uniform(0.3, 1, 2), 1).astype(int).tolist()
                angle = float(rng.uniform(0, 180))
                cv2.ellipse(picture, center.tolist(), axes, angle, 0, 360, color, -1, cv2.LINE_AA)
            elif kind == 2:
                turn = np.linalg.qr(rng.normal(size=(2, 2)))[0] if rng.random() < 0.5 else np.eye(2)
                corners = (
                    np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * rng.uniform(0.3, 1, 2) @ turn * radius
                )
                cv2.fillPoly(picture, [(corners + center).astype(np.int32)], color, cv2.LINE_AA)
            else:
                end = (center + rng.normal(0, 3 * radius, 2)).astype(int).tolist()
                cv2.line(picture, center.tolist(), end, color, max(int(radius / 6), 1), cv2.LINE_AA)
        clutter.append(np.clip(picture * grains[k % 4], 0.02, 1))
    for k in range(24):
        picture = np.zeros((s, s, 3), np.uint8)
        words = str(rng.integers(1, 100)) if k % 2 else "".join(rng.choice(list("AEIKLMNORSTU"), 5))
        font, thick = int(rng.choice([0, 2, 3, 4])), int(rng.integers(10, 26))
        (width, height), _ = cv2.getTextSize(words, font, 1.0, 1)
        zoom = min(0.9 * s / width, 0.6 * s / height)
        corner = int((s - zoom * width) / 2), int((s + zoom * height) / 2)
        cv2.putText(picture, words, corner, font, zoom, (255, 255, 255), thick if k % 2 else thick // 2 + 2)
        letters.append(picture / 255.0)
    return {"clutter": clutter, "letters": letters}


def _photographs() -> dict[str, list[np.ndarray]]:
    """Crops of photographs as (S, S, 3) arrays."""

    def cut(image: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
        """The region between these fractions of width and height."""
        h, w = image.shape[:2]
        part = image[int(y0 * h) : int(y1 * h), int(x0 * w) : int(x1 * w)]
        if part.ndim == 2:
            part = np.repeat(part[..., None], 3, -1)
        return cv2.resize(part[..., :3], (MIP_SIDE, MIP_SIDE), interpolation=cv2.INTER_AREA) / 255.0

    garage = data.stereo_motorcycle()[0]
    coffee, cat, rocket = data.coffee(), data.chelsea(), data.rocket()
    nature = [data.retina(), data.hubble_deep_field(), data.immunohistochemistry()]

    def level(image: np.ndarray) -> list[np.ndarray]:
        whole = cut(image, 0, 0, 1, 1)
        return [np.clip(whole / whole.mean() * 0.6, 0, 1)]

    return {
        "brick": level(data.brick()),
        "grass": level(data.grass()),
        "gravel": level(data.gravel()),
        "scenery": [
            cut(garage, 0, 0, 0.5, 0.6),
            cut(garage, 0.5, 0, 1, 0.6),
            cut(garage, 0, 0.3, 1, 1),
            cut(rocket, 0, 0.2, 1, 1),
            cut(coffee, 0, 0, 1, 1),
            cut(garage, 0, 0, 1, 1),
        ],
        "picture": [
            cut(cat, 0, 0, 1, 1),
            cut(rocket, 0, 0, 1, 1),
            cut(coffee, 0.2, 0, 0.8, 0.9),
            cut(garage, 0.2, 0.2, 0.8, 1),
            *(cut(image, 0, 0, 1, 1) for image in nature),
        ],
        "print": [
            *(cut(image, 0.1, 0.1, 0.9, 0.9) for image in nature),
            cut(cat, 0.1, 0.1, 0.9, 0.9),
            cut(coffee, 0.3, 0.1, 0.8, 0.7),
        ],
    }


@cache
def textures() -> np.ndarray:
    """The texture bank with its mip levels, (T, texels, 3) uint8; the same in every process."""
    bank: list[np.ndarray] = []
    drawn, varied = _drawn(np.random.default_rng(11)), _varied(np.random.default_rng(12))
    for name, images in (drawn | _photographs() | varied).items():
        GROUPS[name] = list(range(len(bank), len(bank) + len(images)))
        bank += images
    return mip_chain((np.stack(bank) * 255).round().astype(np.uint8))


def pick(rng: np.random.Generator, *groups: str) -> int:
    """The index of a random texture of these groups."""
    textures()
    return int(rng.choice([i for group in groups for i in GROUPS[group]]))
