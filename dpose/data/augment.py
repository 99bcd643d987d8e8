"""Augmentation: jitter of the box, mirror images, picture faults and colours, boxes of noise.

All of it acts on the stored cut, never on the full frame, and every random number comes from one generator
derived from (seed, epoch, sample key): the same sample in the same epoch looks the same on any machine, rank
and worker. Jitter changes the sample's box, so `bbox_info` follows; labels stay in the full image's frame.
"""

import os
import random
import zlib
from dataclasses import dataclass, replace

import numpy as np

from dpose.camera import BOX_UNIT
from dpose.data.sample import SampleLabel

# Otherwise importing it asks the network for a newer release.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # noqa: E402

# SMPL-X's 22 body joints, left and right exchanged.
MIRRORED = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20])
MIRRORED_SMPL = np.append(MIRRORED, [23, 22])  # and its two hands
MIRRORED_PARTS = np.concatenate([[0], MIRRORED + 1]).astype(np.uint8)
LEFT_EYE = 23  # of the 24 joints with 2D labels; its mirror image, the right eye, is not among them


@dataclass(frozen=True)
class Augment:
    """Chances and strengths. The defaults are those of the preset "paper".

    The paper lists the kinds of augmentation, without numbers. The defaults are the released code's, except
    for the occlusion boxes (there one of 50 to 100 pixels of the whole image) and the chance of snow.

    `flip_p` applies only to people labelled with an open body: mirrored betas are unknown for SMPL-X and
    SMPL.
    """

    half_crop_p: float = 0.2  # chance of cutting the box to `half_crop_side` of it, at a random height
    half_crop_side: float = 0.5
    scale_sigma: float = 0.25  # box side times N(1, sigma), clipped
    scale_range: tuple[float, float] = (0.75, 1.25)
    shift_sigma: float = 0.0  # box centre plus N(0, sigma) of its side, per axis, as detectors err
    flip_p: float = 0.0  # chance of a mirror image, with left and right exchanged; the paper has none
    fault_p: float = 0.3  # one of: lower resolution, JPEG, rain, motion blur, blur, snow
    colour_p: float = 0.3  # one of: contrast, grey, noise, hue, posterised, gamma, equalised
    occlusion_p: float = 0.3  # boxes of noise
    occlusion_boxes: int = 3  # at most
    occlusion_side: tuple[float, float] = (0.05, 0.3)  # of the crop's side


PAPER_AUGMENT = Augment()
MINI_AUGMENT = Augment(half_crop_p=0.05, half_crop_side=0.6, scale_sigma=0.1, flip_p=0.5, occlusion_p=0.2)
LITE_AUGMENT = replace(MINI_AUGMENT, shift_sigma=0.02)
NO_AUGMENT = Augment(half_crop_p=0, scale_sigma=0, flip_p=0, fault_p=0, colour_p=0, occlusion_p=0)


def augmentation(preset: str) -> Augment:
    """The augmentation that belongs to a model preset's name: milder for the small networks."""
    family = preset.partition("-")[0]
    return {"lite": LITE_AUGMENT, "mini": MINI_AUGMENT}.get(family, PAPER_AUGMENT)


def sample_generator(seed: int, epoch: int, key: str) -> np.random.Generator:
    """The generator of everything random that happens to one sample in one epoch."""
    return np.random.default_rng([seed, epoch, zlib.crc32(key.encode())])


# --- geometry -----------------------------------------------------------------------------------------------


def jitter_box(label: SampleLabel, augment: Augment, rng: np.random.Generator) -> tuple[list[float], float]:
    """A jittered box (center, scale) in the full image, from the sample's own.

    Half crop: a square of `half_crop_side` of the box, centred across and anywhere down its height; then the
    shift and the scale.
    """
    (cx, cy), scale = label["center"], label["scale"]
    # Always drawn, so that these settings do not shift each other. The shift is newer: its numbers are drawn
    # only if it is set, so that runs without it keep their pictures.
    half, down, size = rng.random(), rng.random(), rng.normal()
    if half < augment.half_crop_p:
        cy += (down - 0.5) * (1 - augment.half_crop_side) * BOX_UNIT * scale
        scale *= augment.half_crop_side
    if augment.shift_sigma:
        across, along = np.clip(rng.normal(size=2), -2, 2) * augment.shift_sigma * BOX_UNIT * scale
        cx, cy = cx + float(across), cy + float(along)
    return [cx, cy], scale * float(np.clip(1 + augment.scale_sigma * size, *augment.scale_range))


def mirror_label(label: SampleLabel) -> SampleLabel:
    """The label of the mirrored image (x -> width - x), left and right exchanged.

    Betas stay, so it holds for bodies whose shape space is mirror-symmetric: the open ones. The left eye's 2D
    joint becomes the unlabelled right eye's, so its confidence turns 0.
    """
    width = label["img_size"][0]
    pose = np.reshape(label["pose"], (-1, 3))
    pose = pose[MIRRORED if len(pose) == 22 else MIRRORED_SMPL] * (1, -1, -1)
    joints, cam_int = np.array(label["joints2d"]), np.array(label["cam_int"])
    joints[:22] = joints[MIRRORED]
    joints[:, 0] = width - joints[:, 0]
    joints[LEFT_EYE, 2] = 0
    cam_int[1], cam_int[2] = -cam_int[1], width - cam_int[2]
    x, y, z = label["trans"]
    return {
        **label,
        "pose": pose.ravel(),
        "joints2d": joints,
        "cam_int": cam_int,
        "trans": np.array([-x, y, z]),
        "center": np.array([width - label["center"][0], label["center"][1]]),
    }


# --- the picture --------------------------------------------------------------------------------------------


def picture_transforms(augment: Augment) -> list[A.OneOf]:
    """The paper's transforms in two groups, as in the released code, each applied with its chance."""
    faults = A.OneOf(
        [
            A.Downscale(scale_range=(0.5, 0.9), p=0.1),
            A.ImageCompression(quality_range=(20, 100), p=0.1),
            A.RandomRain(blur_value=4, p=0.1),
            A.MotionBlur(blur_limit=(3, 15), p=0.2),
            A.Blur(blur_limit=(3, 9), p=0.1),  # 3-10, kernels being odd
            A.RandomSnow(brightness_coeff=1.5, snow_point_range=(0.2, 0.4), p=0.1),
        ],
        p=augment.fault_p,
    )
    colours = A.OneOf(
        [
            A.CLAHE(clip_limit=(1, 11), tile_grid_size=(10, 10), p=0.2),
            A.ToGray(p=0.2),
            A.RandomBrightnessContrast(p=0.2),
            A.MultiplicativeNoise(multiplier=(0.5, 1.5), per_channel=True, elementwise=True, p=0.2),
            A.HueSaturationValue(hue_shift_limit=20, sat_shift_limit=30, val_shift_limit=20, p=0.2),
            A.Posterize(p=0.1),
            A.RandomGamma(gamma_limit=(80, 200), p=0.1),
            A.Equalize(p=0.1),
        ],
        p=augment.colour_p,
    )
    return [faults, colours]


def change_picture(image: np.ndarray, transforms: list[A.OneOf], rng: np.random.Generator) -> np.ndarray:
    """Apply `picture_transforms` to a crop (S, S, 3) uint8, all randomness from `rng`."""
    for group, chance in zip(transforms, rng.random(len(transforms)), strict=True):
        if chance < group.p:
            group.set_random_state(rng, random.Random(int(rng.integers(2**32))))
            image = group(force_apply=True, image=image)["image"]
    return image


def occlude(image: np.ndarray, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Put boxes of noise on a crop (S, S, 3) uint8; maps and labels are unchanged."""
    if rng.random() >= augment.occlusion_p:
        return image
    size, image = image.shape[0], image.copy()
    for _ in range(rng.integers(1, augment.occlusion_boxes + 1)):
        w, h = (rng.uniform(*augment.occlusion_side, 2) * size).astype(int) + 1
        x, y = rng.integers(0, size - w + 1), rng.integers(0, size - h + 1)
        image[y : y + h, x : x + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
    return image
