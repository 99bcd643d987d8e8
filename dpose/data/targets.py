"""Targets of the two map heads: part labels (paper, section 3.5) and depth (section 3.4).

Part labels are the posed body, drawn into its crop at any resolution, on the body's device. They are drawn
once, when data are prepared or made (`label_part_targets`, called by `dpose.data.frames` and
`dpose.synthetic.samples`; the rays: `dpose.render.raycast`). Training only cuts and mirrors them.

Two cameras. "crop", the default, is the full image's own camera seen through the box, so the labels lie
where the image shows the parts. "released" is the released code's camera, made up for the crop: a long focal
length, the principal point in the middle, and a translation of the body that fits its 3D joints to their 2D
positions. It needs no intrinsics, but its perspective is wrong: `notebooks/targets` measures by how much. The
paper names no camera.

The depth target is the depth of this person's visible pixels in the crop, scaled to [0.1, 1]: 0.1 at the
nearest visible point of the person, 1 at the farthest; other pixels are 0. `depth_target` defines it; in
training `person_codes` and `to_device` (`dpose.model.inference`) compute the same values, after the jitter.
`rule="released"` selects the authors' rule.

Depth and masks come from different passes of a game engine: the soft edge of a mask, mainly in hair, includes
pixels whose depth is the wall's or the sky's. A single one would compress the whole person to 0.1, so
`rule="paper"` first removes pixels that cannot be the person's (the paper does not mention them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dpose.batch import NEAREST_TARGET
from dpose.camera import BOX_UNIT, crop_intrinsics

if TYPE_CHECKING:
    from dpose.data.sample import SampleLabel

CAMERAS = ("crop", "released")
RELEASED_FOCAL = 5000.0  # pixels of a crop that has RELEASED_SIDE of them along a side
RELEASED_SIDE = 224
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
    """Part labels (B, size, size) uint8 of B people in their crops: 0 background, j + 1 the part of joint j.

    Each person is drawn alone, without occlusion by others.

    Args:
        vertices: (B, V, 3) metres, camera frame, of `body`.
        joints3d: (B, J or more, 3) metres, same frame. Only the camera "released" uses the joints.
        joints2d: (B, J, 3) x, y in full-image pixels, confidence; as in a `Batch`, J = 24.
        center, scale: (B, 2) and (B,) the box, as in `dpose.camera`.
        cam_int: (B, 3, 3) full-image intrinsics, pixels.
        body: gives `faces` and `part_of_vertex`.
        size: side of the labels in pixels; any.
        camera: "crop", the image's own perspective; or "released", the released code's. There, a person whose
            translation cannot be solved (see `released_translation`) is drawn in the image's own perspective.
        backend: of `dpose.render.render_parts`.
        margin: side of what is drawn / side of the box, a number or (B,). "released" stays the box's camera.
    Raises:
        ValueError: unknown camera or backend, wrong shapes.
        RuntimeError: the backend is not available.
    """
    if camera not in CAMERAS:
        raise ValueError(f"unknown camera {camera!r}; choose one of {', '.join(CAMERAS)}")
    intrinsics = crop_intrinsics(cam_int, center, scale * margin, size)
    if camera == "released":
        translation, solved = released_translation(joints3d, joints2d, center, scale)
        vertices = vertices + translation[:, None]
        intrinsics = torch.where(solved[:, None, None], released_intrinsics(scale, size, margin), intrinsics)
    from dpose.render import (
        render_parts,
    )  # imported here: Warp takes seconds, and the loader needs depth only

    return render_parts(vertices, body, intrinsics, size, backend)


def released_intrinsics(scale: Tensor, size: int, margin: float | Tensor = 1.0) -> Tensor:
    """The released code's camera of part labels, for crops of `size` pixels, `margin` boxes wide: (B, 3, 3).

    In pixels. Focal length 5000 for a crop of 224 pixels, proportionally for others; principal point in the
    middle. scale: (B,), only for B, type and device.
    """
    focal = RELEASED_FOCAL / RELEASED_SIDE * size / margin * torch.ones_like(scale)  # (B,)
    zero, middle = torch.zeros_like(focal), torch.full_like(focal, size / 2)
    rows = (focal, zero, middle), (zero, focal, middle), (zero, zero, torch.ones_like(focal))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def released_translation(
    joints3d: Tensor, joints2d: Tensor, center: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Translation with which `released_intrinsics` project a body's joints onto its 2D joints in the crop.

    With q the ray of a 2D joint (its offset from the crop's middle over the focal length), X = (x, y, z) the
    3D joint and c its confidence, t is the least-squares solution of x + t_x = q_x (z + t_z), and the same
    for y, weighted by c:

        t_z = sum c (q - mean q) . (xy - q z) / sum c |q - mean q|^2,   t_xy = mean(q) t_z - mean(xy - q z),

    with weighted means.

    Args:
        joints3d: (B, J or more, 3) metres, oriented as in the camera frame, at any place.
        joints2d: (B, J, 3) x, y in full-image pixels, confidence. A joint counts if its confidence is
            positive and all three are finite.
        center, scale: the box (B, 2), (B,).
    Returns:
        translation (B, 3) metres, always finite; and solved (B,) bool. Where that is False the translation is
        0: fewer than two joints count, they coincide, a 3D joint is not finite, or the fit puts a joint
        behind the camera.
    """
    confidence, pixels = joints2d[..., 2], joints2d[..., :2]
    usable = (confidence > 0) & joints2d.isfinite().all(-1)  # (B, J)
    weight = torch.where(usable, confidence, 0.0)
    weight = (weight / weight.sum(1, keepdim=True).clamp(min=1e-12))[..., None]  # (B, J, 1)
    points = joints3d[:, : joints2d.shape[1]]
    origin = points[:, :1]
    points = points - origin  # near zero, where single precision resolves most

    def mean(values: Tensor) -> Tensor:
        return (weight * values).sum(1, keepdim=True)

    pixel = BOX_UNIT * scale / RELEASED_SIDE * RELEASED_FOCAL  # focal length in full-image pixels (B,)
    rays = (pixels - center[:, None]) / pixel[:, None, None]
    rays = torch.where(usable[..., None], rays, 0.0)  # (B, J, 2)
    lever = points[..., :2] - rays * points[..., 2:]
    centred = rays - mean(rays)
    spread = mean((centred**2).sum(-1, keepdim=True))  # (B, 1, 1), mean square
    z = mean((centred * lever).sum(-1, keepdim=True)) / spread
    translation = torch.cat([mean(rays) * z - mean(lever), z], -1)[:, 0]  # (B, 3), of the first joint
    nearest = torch.where(usable, points[..., 2] + z[..., 0], torch.inf).amin(1)
    solved = (spread[:, 0, 0] > (MIN_SPREAD / RELEASED_FOCAL) ** 2) & (nearest > 0) & nearest.isfinite()
    return torch.where(solved[:, None], translation - origin[:, 0], 0.0), solved


def label_part_targets(
    poses,
    betas,
    trans,
    labels: list[SampleLabel],
    body,
    size: int,
    camera: str = "crop",
) -> np.ndarray:
    """Part labels of people in their stored cuts, hands included: (N, size, size) uint8.

    Args:
        poses: (N, 66 or 165; SMPL's 72) axis-angle.
        betas, trans: (N, 11); (N, 3) metres in the camera frame.
        labels: N labels, for the cameras and boxes.
        body: the `dpose.body.Body` that poses and betas are of.
        size, camera: as for `part_targets`; the camera "released" is that of the label's box, so that a
            later jitter of the box moves the labels with it.
    """
    device = body.faces.device

    def tensor(value) -> Tensor:
        return torch.as_tensor(np.asarray(value, np.float32), device=device)

    def column(name: str) -> Tensor:
        return tensor([label[name] for label in labels])

    poses, n, count = tensor(poses), len(labels), body.num_rotations
    fingers = poses.shape[1] == 165 and count == 22  # SMPL has none
    hands = poses[:, 75:165].reshape(n, 30, 3) if fingers else None
    with torch.no_grad():
        rotations = poses[:, : 3 * count].reshape(n, count, 3)
        posed = body(tensor(betas), rotations, tensor(trans), hands=hands, form="axis-angle")
    cam_int = column("cam_int").reshape(n, 3, 3)
    geometry = column("joints2d"), column("center"), column("scale"), cam_int
    parts = part_targets(*posed, *geometry, body, size, camera, margin=column("margin"))
    return parts.cpu().numpy()


# --- depth --------------------------------------------------------------------------------------------------

DEPTH_RULES = ("paper", "released")
PERSON_DEPTH_REACH = 2.5  # metres: largest distance of a hand or foot from the person's median depth


def person_pixels(depth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Pixels of depth (H, W), in metres, that can be the person's: (H, W) bool.

    They are inside mask (H, W) bool, finite, positive, and within `PERSON_DEPTH_REACH` of the median of such
    depths (the lower of two middle ones). Other surfaces within that reach stay: depth alone cannot tell them
    from an arm. Raises TypeError for integers, which cannot be metres.
    """
    person = _measured(depth, mask)
    values = depth[person]
    if values.size and values.max() - values.min() > PERSON_DEPTH_REACH:
        middle = (values.size - 1) // 2
        person[person] = np.abs(values - np.partition(values, middle)[middle]) <= PERSON_DEPTH_REACH
    return person


def _measured(depth: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Pixels inside the mask whose depth is a distance."""
    if not np.issubdtype(depth.dtype, np.floating):
        raise TypeError(f"depth is {depth.dtype}; bring it to metres first, in floating point")
    measured = np.isfinite(depth) & (depth > 0)
    return measured if mask is None else measured & mask.astype(bool)


def depth_target(depth: np.ndarray, mask: np.ndarray | None = None, rule: str = "paper") -> np.ndarray:
    """Depth target (H, W) float32, without unit, of depth (H, W) in metres.

    depth: 0, negative or not finite where nothing was measured. mask: (H, W) bool, the person's pixels.
    rule: "paper": 0 in the background; the depths of `person_pixels` scaled linearly from [nearest, farthest]
    to [0.1, 1]; a flat person is 0.1, nobody in view gives zeros. "released", the formula of the
    authors' code: the 5th to 95th percentile of the person's measured depths become 0.1 to 1, clipped to
    [0, 1]; it is applied to the background (depth 0), too, whose target may differ from 0; flat depth gives
    zeros. (The authors apply it to the full image, this package to the crop.) Raises ValueError for other
    rules, TypeError for integers. Half precision is computed in single precision.
    """
    if rule not in DEPTH_RULES:
        raise ValueError(f"unknown depth rule {rule!r}; choose one of {', '.join(DEPTH_RULES)}")
    if depth.dtype == np.float16:
        depth = depth.astype(np.float32)
    person, near, far = _person_range(depth, mask, rule)
    target = np.zeros(depth.shape, np.float32)
    if rule == "paper":
        share = (depth[person] - near) / (far - near) if far > near else 0.0
        target[person] = NEAREST_TARGET + (1 - NEAREST_TARGET) * share
        return target.clip(0, 1)
    if far <= near:
        return target
    beyond = np.where(person, depth, 0) - near
    return (NEAREST_TARGET + (1 - NEAREST_TARGET) * beyond / (far - near)).clip(0, 1).astype(np.float32)


def _person_range(
    depth: np.ndarray, mask: np.ndarray | None, rule: str
) -> tuple[np.ndarray, np.floating | float, np.floating | float]:
    """The person's pixels by a rule, and the depths that become 0.1 and 1, or zeros without such pixels."""
    person = person_pixels(depth, mask) if rule == "paper" else _measured(depth, mask)
    values = depth[person]
    if not values.size:
        return person, 0.0, 0.0
    if rule == "paper":
        return person, values.min(), values.max()
    return person, *np.percentile(values, [5, 95])


# --- depth in 16 bits ---------------------------------------------------------------------------------------


def encode_depth(depth: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Depth in metres (0: none) -> uint16 codes (0: none, 1..65535 linear) and [near, far] in metres."""
    person = depth > 0
    if not person.any():
        return np.zeros(depth.shape, np.uint16), [0.0, 0.0]
    near, far = float(depth[person].min()), float(depth[person].max())
    step = (far - near) / 65534 or 1.0
    return np.where(person, np.rint((depth - near) / step) + 1, 0).astype(np.uint16), [near, far]


def decode_depth(codes: np.ndarray, depth_range: Sequence[float]) -> np.ndarray:
    """uint16 codes -> float32 metres, 0: none."""
    near, far = depth_range
    metres = codes.astype(np.float32)
    metres -= 1
    metres *= np.float32((far - near) / 65534)
    metres += np.float32(near)
    metres *= codes > 0
    return metres


def person_codes(
    codes: np.ndarray, depth_range: Sequence[float], rule: str = "paper"
) -> tuple[bool, np.ndarray, tuple[float, float, float, float]]:
    """What `dpose.model.inference.to_device` needs for the depth target of a crop.

    codes: (H, W) uint16 with their depth_range, as from `encode_depth`. Returns whether the person is in
    view; the codes, 0 where `depth_target` of the decoded depth sees nothing; and the scaling (first, step,
    near, span): metres of code 1, metres per code, metres where the target is 0.1, and from there to 1.
    """
    near, far = depth_range
    first, step = np.float32(near), np.float32((far - near) / 65534)
    lowest = int((codes - np.uint16(1)).min())  # 0 wraps around to the largest
    if lowest == 65535:
        return False, codes, (0.0, 0.0, 0.0, 0.0)
    low, high = decode_depth(np.array([lowest + 1, codes.max()], np.uint16), depth_range)
    if rule == "paper" and low > 0 and high - low <= PERSON_DEPTH_REACH:  # no pixel to leave out: usually
        return True, codes, (first, step, low, high - low)
    person, low, high = _person_range(decode_depth(codes, depth_range), None, rule)
    return bool(person.any()), np.where(person, codes, np.uint16(0)), (first, step, low, high - low)
