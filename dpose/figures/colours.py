"""Colours of parts, depth and other maps."""

import numpy as np
from torch import Tensor

INK = (
    "#747679"  # text and axes of pictures, on white in the light theme and on black in the dark: above 4.5:1
)
BACKGROUND = (34, 36, 40)  # of part and depth maps
MESH_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_LIMBS = {  # Okabe and Ito's colours, and the joints of a limb from the trunk outwards
    (0, 158, 115): (0, 3, 6, 9, 12),  # pelvis, spine, neck
    (204, 121, 167): (15,),  # head
    (0, 114, 178): (13, 16, 18, 20),  # left collar, shoulder, elbow, wrist
    (86, 180, 233): (14, 17, 19, 21),  # right arm
    (213, 94, 0): (1, 4, 7, 10),  # left hip, knee, ankle, foot
    (240, 190, 40): (2, 5, 8, 11),  # right leg
}


def part_palette() -> np.ndarray:
    """(23, 3) uint8: background, then the 22 body joints of SMPL-X.

    22 hues cannot be told apart by every reader, so hue identifies the limb and lightness the part along it.
    """
    palette = np.zeros((23, 3))
    palette[0] = BACKGROUND
    for colour, joints in _LIMBS.items():
        for i, joint in enumerate(joints):
            t = 0.0 if len(joints) == 1 else 0.9 * (i / (len(joints) - 1)) - 0.45  # darker to lighter
            palette[joint + 1] = (1 - abs(t)) * np.array(colour) + max(t, 0) * 255
    return palette.round().astype(np.uint8)


def colour_parts(parts: np.ndarray) -> np.ndarray:
    """Part labels 0..22 of any shape (...) -> RGB (..., 3) uint8."""
    return part_palette()[np.asarray(parts)]


def colour_depth(depth: np.ndarray, person: np.ndarray | None = None) -> np.ndarray:
    """Depth in [0, 1] (...) -> RGB (..., 3) uint8: near is bright, far dark; background where not `person`.

    person: (...) bool; by default where the depth is positive.
    """
    depth = np.asarray(depth)
    person = depth > 0 if person is None else np.asarray(person)
    return np.where(person[..., None], _cividis(1 - np.clip(depth, 0, 1)), np.uint8(BACKGROUND))


def colour_values(values: Tensor) -> np.ndarray:
    """Numbers (...) -> RGB (..., 3) uint8: the smallest is dark blue, the largest yellow."""
    values = values.detach().float().cpu().numpy()
    return _cividis((values - values.min()) / max(float(np.ptp(values)), 1e-12))


def _cividis(values: np.ndarray) -> np.ndarray:
    import matplotlib

    return (matplotlib.colormaps["cividis"](values)[..., :3] * 255).round().astype(np.uint8)
