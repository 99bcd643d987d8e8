"""Targets: part labels and depth.

Part labels: posed bodies drawn into their crops at any resolution, on their device (section 3.5).

Two cameras. "crop", the default, is the full image's own camera seen through the box, so the labels lie where
the image shows the parts. "paper" is a camera made up for the crop: a long focal length, the principal point
in the middle, and a place for the body that fits its joints to theirs in the crop (spec section 6). It needs
no intrinsics, and pays with the perspective: `notebooks/targets` measures by how much.
The depth target: this person's visible pixels brought to [0.1, 1], everything else exactly 0 (spec 5).

Computed after the jitter, on the pixels in view, so that the target always spans its range: 0.1 is the
nearest visible point of the person in the crop, 1 the farthest. The rule of the released code is there by
name.

Depth and masks come from different passes of a game engine: a mask's soft edge, in hair above all, takes in
pixels whose depth is the wall's or the sky's. One of them would press the whole person into 0.1. So the
paper's rule first asks which pixels can be the person's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dpose.batch import NEAREST_TARGET
from dpose.camera import BOX_UNIT, crop_intrinsics

if TYPE_CHECKING:
    from dpose.data.sample import SampleLabel

__all__ = [
    "CAMERAS",
    "DEPTH_RULES",
    "PAPER_FOCAL",
    "PAPER_SIDE",
    "decode_depth",
    "depth_target",
    "encode_depth",
    "paper_intrinsics",
    "paper_translation",
    "part_targets",
    "person_codes",
    "person_pixels",
    "render_label_parts",
]

CAMERAS = ("crop", "paper")
PAPER_FOCAL = 5000.0  # pixels of a crop that has PAPER_SIDE of them along a side
PAPER_SIDE = 224
MIN_SPREAD = 0.01  # of the joints in the crop, the same pixels; below it they say nothing about the distance


@torch.no_grad()
def part_targets(
    vertices: Tensor,
    joints3d: Tensor,
    joints2d: Tensor,
    center: Tensor,
    scale: Tensor,
    cam_int: Tensor,
    body: torch.nn.Module,
    size: int,
    camera: str = "crop",
    backend: str = "warp",
    margin: float | Tensor = 1.0,
) -> Tensor:
    """Part labels (B, size, size) uint8 of B people in their crops: 0 background, j + 1 joint j's part.

    People are drawn alone: nobody and nothing hides them.

    Args:
        vertices: (B, V, 3) metres, camera frame, of `body`.
        joints3d: (B, J or more, 3) metres, same frame. Only "paper" reads the joints.
        joints2d: (B, J, 3) x, y in full-image pixels, confidence; as in a `Batch`, J = 24.
        center, scale: (B, 2) and (B,) the box, as in `dpose.camera`.
        cam_int: (B, 3, 3) full-image intrinsics, pixels.
        body: gives `faces` and `part_of_vertex`.
        size: side of the labels, pixels; any, the camera being the same.
        camera: "crop", the image's own perspective; or "paper". There, a person whose joints determine no
            place (see `paper_translation`) is drawn in the image's own perspective all the same.
        backend: of `dpose.render.render_parts`.
        margin: a number, or one for each person (B,): what is drawn is so many boxes wide. The paper's camera
            stays the box's.
    Raises ValueError for other cameras, backends and shapes, RuntimeError for a backend that is not there.
    """
    if camera not in CAMERAS:
        raise ValueError(f"unknown camera {camera!r}; choose one of {', '.join(CAMERAS)}")
    intrinsics = crop_intrinsics(cam_int, center, scale * margin, size)
    if camera == "paper":
        translation, solved = paper_translation(joints3d, joints2d, center, scale)
        vertices = vertices + translation[:, None]
        intrinsics = torch.where(solved[:, None, None], paper_intrinsics(scale, size, margin), intrinsics)
    from dpose.render import render_parts  # here, as Warp takes seconds to start: the loader needs depth only

    return render_parts(vertices, body, intrinsics, size, backend)


def paper_intrinsics(scale: Tensor, size: int, margin: float | Tensor = 1.0) -> Tensor:
    """The paper's camera for crops of `size` pixels that are `margin` boxes wide: (B, 3, 3), pixels.

    Focal length 5000, principal point in the middle. 5000 counts pixels of the paper's crop, 224 a side; it
    grows and shrinks with the crop, so that labels of another size show the same. scale: (B,), for B, type
    and device; its values do not matter.
    """
    focal = PAPER_FOCAL / PAPER_SIDE * size / margin * torch.ones_like(scale)  # (B,)
    zero, middle = torch.zeros_like(focal), torch.full_like(focal, size / 2)
    rows = (focal, zero, middle), (zero, focal, middle), (zero, zero, torch.ones_like(focal))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def paper_translation(
    joints3d: Tensor, joints2d: Tensor, center: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """What to add to a body so that the paper's camera sees its joints where the crop has them (spec 6).

    With q the ray of a 2D joint, its pixel from the crop's middle over the focal length, X = (x, y, z) the 3D
    joint and c its confidence, this is the least-squares answer t to x + t_x = q_x (z + t_z), and the same
    for y, weighted by c:

        t_z = sum c (q - mean q) . (xy - q z) / sum c |q - mean q|^2,   t_xy = mean(q) t_z - mean(xy - q z),

    the means being weighted, too. It is linear, so a body that is moved first gets that much less.

    Args:
        joints3d: (B, J or more, 3) metres, turned into the camera's frame, wherever they stand.
        joints2d: (B, J, 3) x, y in full-image pixels, confidence; where that is not above 0, or anything is
            not finite, the joint does not count.
        center, scale: the box (B, 2), (B,).
    Returns:
        translation (B, 3) metres, always finite; and solved (B,) bool. Where it is False the translation is
        0: fewer than two joints count, they all lie on one spot of the crop, a 3D joint is not finite, or the
        fit puts one of them behind the camera, as with 3D joints that contradict the 2D ones.
    """
    confidence, pixels = joints2d[..., 2], joints2d[..., :2]
    usable = (confidence > 0) & joints2d.isfinite().all(-1)  # (B, J)
    weight = torch.where(usable, confidence, 0.0)
    weight = (weight / weight.sum(1, keepdim=True).clamp(min=1e-12))[..., None]  # (B, J, 1)
    points = joints3d[:, : joints2d.shape[1]]
    origin = points[:, :1]
    points = points - origin  # near zero, where single precision is finest

    def mean(values: Tensor) -> Tensor:
        return (weight * values).sum(1, keepdim=True)

    pixel = BOX_UNIT * scale / PAPER_SIDE * PAPER_FOCAL  # focal length in full-image pixels (B,)
    rays = (pixels - center[:, None]) / pixel[:, None, None]
    rays = torch.where(usable[..., None], rays, 0.0)  # (B, J, 2)
    lever = points[..., :2] - rays * points[..., 2:]
    centred = rays - mean(rays)
    spread = mean((centred**2).sum(-1, keepdim=True))  # (B, 1, 1), mean square
    z = mean((centred * lever).sum(-1, keepdim=True)) / spread
    translation = torch.cat([mean(rays) * z - mean(lever), z], -1)[:, 0]  # (B, 3), of the first joint
    nearest = torch.where(usable, points[..., 2] + z[..., 0], torch.inf).amin(1)
    solved = (spread[:, 0, 0] > (MIN_SPREAD / PAPER_FOCAL) ** 2) & (nearest > 0) & nearest.isfinite()
    return torch.where(solved[:, None], translation - origin[:, 0], 0.0), solved


def render_label_parts(
    poses,
    betas,
    trans,
    labels: list[SampleLabel],
    body,
    size: int,
    camera: str = "crop",
    backend: str = "warp",
) -> np.ndarray:
    """Part labels of people in their stored cuts, hands included (spec 6).

    poses (N, 66 or 165; SMPL's 72) axis-angle, betas (N, 11), trans (N, 3) metres in the camera frame, N
    labels, body: the `dpose.body.Body` they are of -> (N, size, size) uint8, 0 background, j + 1 joint j;
    nobody else hides them. camera and backend as in `part_targets`; the paper's camera is that
    of the label's box, so that a later jitter moves the box, and the labels with it, but not the camera.
    """
    device = body.faces.device
    tensor = lambda value: torch.as_tensor(np.asarray(value, np.float32), device=device)  # noqa: E731
    column = lambda name: tensor([label[name] for label in labels])  # noqa: E731
    poses, n, count = tensor(poses), len(labels), body.num_rotations
    fingers = poses.shape[1] == 165 and count == 22  # SMPL has none
    hands = poses[:, 75:165].reshape(n, 30, 3) if fingers else None
    with torch.no_grad():
        rotations = poses[:, : 3 * count].reshape(n, count, 3)
        posed = body(tensor(betas), rotations, tensor(trans), hands=hands, form="axis-angle")
    cam_int = column("cam_int").reshape(n, 3, 3)
    geometry = column("joints2d"), column("center"), column("scale"), cam_int
    parts = part_targets(*posed, *geometry, body, size, camera, backend, column("margin"))
    return parts.cpu().numpy()


# --- depth --------------------------------------------------------------------------------------------------

DEPTH_RULES = ("paper", "released")
PERSON_DEPTH_REACH = 2.5  # metres: nobody's hand or foot is farther from the middle of them


def person_pixels(depth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Where depth (H, W) in metres can be the person's -> (H, W) bool.

    That is where mask (H, W) bool holds, depth is finite and positive, and not more than
    `PERSON_DEPTH_REACH` from the median of such depths (the lower of two middle ones). What leaked in
    within that reach stays, for depth alone cannot tell it from an arm. A person whose depths span less than
    `PERSON_DEPTH_REACH` keeps every pixel. Raises TypeError for whole numbers, which cannot be metres.
    """
    person = _measured(depth, mask)
    person[person] = _in_reach(depth[person])
    return person


def _in_reach(values: np.ndarray) -> np.ndarray:
    """Which of a person's measured depths (N,) are not too far from the median."""
    if not values.size or values.max() - values.min() <= PERSON_DEPTH_REACH:
        return np.ones(values.shape, bool)
    middle = (values.size - 1) // 2
    return np.abs(values - np.partition(values, middle)[middle]) <= PERSON_DEPTH_REACH


def _measured(depth: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Where the mask holds and depth is a distance."""
    if not np.issubdtype(depth.dtype, np.floating):
        raise TypeError(f"depth is {depth.dtype}; bring it to metres first, in floating point")
    measured = np.isfinite(depth) & (depth > 0)
    return measured if mask is None else measured & mask.astype(bool)


def depth_target(depth: np.ndarray, mask: np.ndarray | None = None, rule: str = "paper") -> np.ndarray:
    """Depth in metres -> target without unit, float32, of the same shape (H, W).

    depth is 0, negative or not finite where there is nothing; mask (H, W) bool narrows it to the person.
    "paper": background 0, the person's values linear from [nearest, farthest] to [0.1, 1], the person being
    `person_pixels`; a flat depth is 0.1 throughout (it is all nearest), nobody in view gives zeros.
    "released": between the 5th and 95th percentile of all there is, clipped to [0, 1], background included,
    so that it may differ from 0; flat gives zeros (spec 11, 30-32). Raises ValueError for other rules,
    TypeError for whole numbers. Half precision is computed in single.
    """
    if rule not in DEPTH_RULES:
        raise ValueError(f"unknown depth rule {rule!r}; choose one of {', '.join(DEPTH_RULES)}")
    if depth.dtype == np.float16:
        depth = depth.astype(np.float32)
    person = _measured(depth, mask)
    values = depth[person]
    if rule == "paper":
        kept = _in_reach(values)
        if not kept.all():
            person[person], values = kept, values[kept]
    target = np.zeros(depth.shape, np.float32)
    if not values.size:
        return target
    if rule == "paper":
        near, span = values.min(), values.max() - values.min()
        target[person] = NEAREST_TARGET + (1 - NEAREST_TARGET) * ((values - near) / span if span > 0 else 0.0)
        return target.clip(0, 1)
    near, far = np.percentile(values, [5, 95])
    if far <= near:
        return target
    beyond = np.where(person, depth, 0) - near
    return (NEAREST_TARGET + (1 - NEAREST_TARGET) * beyond / (far - near)).clip(0, 1).astype(np.float32)


# --- depth in 16 bits ---------------------------------------------------------------------------------------


def encode_depth(depth: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Depth in metres (0 = none) -> uint16 codes (0 = none, 1..65535 linear) and [near, far] in metres."""
    person = depth > 0
    if not person.any():
        return np.zeros(depth.shape, np.uint16), [0.0, 0.0]
    near, far = float(depth[person].min()), float(depth[person].max())
    step = (far - near) / 65534 or 1.0
    return np.where(person, np.rint((depth - near) / step) + 1, 0).astype(np.uint16), [near, far]


def decode_depth(codes: np.ndarray, depth_range: list[float]) -> np.ndarray:
    """uint16 codes -> float32 metres, 0 = none."""
    near, far = depth_range
    metres = codes.astype(np.float32)
    metres -= 1
    metres *= np.float32((far - near) / 65534)
    metres += np.float32(near)
    metres *= codes > 0
    return metres


def person_codes(
    codes: np.ndarray, depth_range: list[float], rule: str = "paper"
) -> tuple[bool, np.ndarray, tuple[float, float, float, float]]:
    """Codes of a crop (M, M) uint16 -> what `depth_target` of the decoded depth follows from.

    Returns whether the person is in view; the codes, 0 where `depth_target` sees nobody; and the line
    (first, step, near, span): metres of code 1, metres per code, metres where the target is 0.1 and metres
    from there to where it is 1. `dpose.model.inference.to_device` computes the target from these.
    """
    near, far = depth_range
    first, step = np.float32(near), np.float32((far - near) / 65534)
    lowest = int((codes - np.uint16(1)).min())  # code 0, nobody, becomes the largest
    if lowest == 65535:
        return False, codes, (0.0, 0.0, 0.0, 0.0)
    nearest, farthest = decode_depth(np.array([lowest + 1, codes.max()], np.uint16), depth_range)
    if rule == "paper" and nearest > 0 and farthest - nearest <= PERSON_DEPTH_REACH:  # usually
        return True, codes, (first, step, nearest, farthest - nearest)
    metres = decode_depth(codes, depth_range)
    person = _measured(metres, None)
    if not person.any():
        return False, np.zeros_like(codes), (0.0, 0.0, 0.0, 0.0)
    if rule == "paper":
        person[person] = _in_reach(metres[person])
        low, high = metres[person].min(), metres[person].max()
    else:
        low, high = np.percentile(metres[person], [5, 95])
    return True, np.where(person, codes, np.uint16(0)), (first, step, low, high - low)
