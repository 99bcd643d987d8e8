"""Boxes, crops and cameras, all batched and differentiable. The camera is CLIFF's (Li et al. 2022).

Pixels are continuous: pixel (row i, column j) covers [j, j+1) x [i, i+1). A box has a centre (cx, cy) and a
`scale`; its side is b = 200 scale pixels. Camera frame: x right, y down, z forward, metres. Leading
dimensions `...` broadcast, so one box may be given as `center` (2,) and `scale` (). Every sample has its own
focal length and image size. A box may lie partly or wholly outside the image, but it has a size: scale > 0 is
checked where data come in (`dpose.data`, `dpose.predict`), never here, which would make a GPU wait.

Nothing here is a matrix product: those are rounded to TF32 or bfloat16 where a program allows it, which moves
a projected point by pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "bbox_info",
    "box_from_joints",
    "crop_affine",
    "crop_intrinsics",
    "default_focal",
    "full_translation",
    "project",
]

BOX_UNIT = 200.0  # pixels of box side per unit of `scale`
BOX_FACTOR = 1.2  # side of a training box / longest extent of the joints in it
MIN_CAMERA_SCALE = 0.1  # a box side of 20 m; below it 1/s is continued by its tangent
MIN_DEPTH = 0.1  # metres


def crop_affine(center: Tensor, scale: Tensor, size: int) -> Tensor:
    """The map from full-image pixels to crop pixels: x_crop = (x - (cx - b/2)) size / b.

    Args:
        center: (..., 2) box centre, pixels.
        scale: (...) box side / 200.
        size: side of the crop, pixels.
    Returns:
        (..., 2, 3) affine matrix, to be applied to (x, y, 1).
    """
    zoom = size / (BOX_UNIT * scale)  # (...)
    corner = center - 0.5 * BOX_UNIT * scale[..., None]  # (..., 2)
    zero = torch.zeros_like(zoom)
    row_x = torch.stack([zoom, zero, -zoom * corner[..., 0]], -1)
    row_y = torch.stack([zero, zoom, -zoom * corner[..., 1]], -1)
    return torch.stack([row_x, row_y], -2)


def crop_intrinsics(cam_int: Tensor, center: Tensor, scale: Tensor, size: int) -> Tensor:
    """Intrinsics of the camera that sees the crop: `crop_affine` after `cam_int`.

    Args:
        cam_int: (..., 3, 3) full-image intrinsics, pixels.
        center, scale, size: the box and the crop's side, as in `crop_affine`.
    Returns:
        (..., 3, 3) crop intrinsics, pixels.
    """
    affine = crop_affine(center, scale, size).to(cam_int.dtype)  # (..., 2, 3): zoom, 0, offset
    last = cam_int[..., 2:, :]  # (..., 1, 3)
    first = affine[..., :1, :1] * cam_int[..., :2, :] + affine[..., 2:] * last
    return torch.cat([first, last.expand(*first.shape[:-2], 1, 3)], -2)


def default_focal(img_size: Tensor) -> Tensor:
    """CLIFF's guess of an unknown focal length: the image diagonal, sqrt(w^2 + h^2).

    Args:
        img_size: (..., 2) = (w, h), pixels.
    Returns:
        (...) focal length, pixels.
    """
    return torch.linalg.vector_norm(img_size, dim=-1)


def bbox_info(center: Tensor, scale: Tensor, img_size: Tensor, focal: Tensor) -> Tensor:
    """Where the crop sits in the full image: [(cx - w/2)/f, (cy - h/2)/f, b/f].

    Args:
        center: (B, 2) box centre, pixels.
        scale: (B,) box side / 200.
        img_size: (B, 2) = (w, h), pixels.
        focal: (B,) focal length, pixels.
    Returns:
        (B, 3), tangents of angles, no unit.
    """
    offset = center - 0.5 * img_size  # (B, 2)
    return torch.cat([offset, BOX_UNIT * scale[..., None]], -1) / focal[..., None]


def full_translation(cam: Tensor, center: Tensor, scale: Tensor, img_size: Tensor, focal: Tensor) -> Tensor:
    """Weak-perspective camera of the crop to a translation in the full image's camera.

    t = [tx + 2 (cx - w/2) / (s b), ty + 2 (cy - h/2) / (s b), 2 f / (s b)].

    An untrained network may say s <= 0, where 1/s blows up or puts the body behind the camera. Below
    s = 0.1 (a box 20 metres wide, which no person fills) 1/s is continued by its tangent, so that value and
    gradient stay finite, continuous and non-zero for every s; from 0.1 up the formula is exact.

    Args:
        cam: (B, 3) = (s, tx, ty).
        center, scale, img_size, focal: as in `bbox_info`.
    Returns:
        (B, 3) translation, metres, camera frame.
    """
    s, t_xy = cam[..., :1], cam[..., 1:]
    s_safe = s.clamp(min=MIN_CAMERA_SCALE)
    inverse_s = 1 / s_safe + (s_safe - s) / MIN_CAMERA_SCALE**2  # the tangent of 1/s below the minimum
    per_pixel = 2 * inverse_s / (BOX_UNIT * scale[..., None])  # (B, 1) = 2 / (s b)
    offset = center - 0.5 * img_size  # (B, 2)
    return torch.cat([t_xy + offset * per_pixel, focal[..., None] * per_pixel], -1)


def project(points: Tensor, cam_int: Tensor, min_depth: float = MIN_DEPTH) -> Tensor:
    """Pinhole projection (eq. 6).

    Points nearer than `min_depth`, or behind the camera, are projected as if they were at `min_depth`: the
    result stays finite, and no division by zero reaches a gradient.

    Args:
        points: (B, N, 3) metres, camera frame.
        cam_int: (B, 3, 3) intrinsics, pixels.
        min_depth: metres.
    Returns:
        (B, N, 2) pixels.
    """
    z = points[..., 2:].clamp(min=min_depth)
    rays = torch.cat([points[..., :2] / z, torch.ones_like(z)], -1)  # (B, N, 3)
    return (rays[..., None, :] * cam_int[..., None, :2, :]).sum(-1)


def box_from_joints(
    joints2d: Tensor, visible: Tensor, img_size: Tensor, factor: float = BOX_FACTOR
) -> tuple[Tensor, Tensor]:
    """BEDLAM's box: a square around the visible body joints, side = largest extent x `factor`.

    Only the first 22 joints count, and only those marked visible that lie inside the image. A person without
    any gets the square around the whole image; callers drop such samples (fewer than 8 visible joints).

    Args:
        joints2d: (..., J, 2 or more), x and y first, pixels.
        visible: (..., J) bool.
        img_size: (..., 2) = (w, h), pixels.
        factor: margin around the joints.
    Returns:
        center (..., 2) pixels and scale (...) = side / 200.
    """
    points = joints2d[..., :22, :2]
    inside = ((points >= 0) & (points < img_size[..., None, :])).all(-1)
    used = (visible[..., :22] & inside)[..., None]  # (..., J, 1)
    low = torch.where(used, points, torch.inf).amin(-2)  # (..., 2)
    high = torch.where(used, points, -torch.inf).amax(-2)
    some = used.any(-2)  # (..., 1)
    low, high = (
        torch.where(some, low, torch.zeros_like(low)),
        torch.where(some, high, img_size.to(high.dtype)),
    )
    margin = torch.where(some[..., 0], factor, 1.0)
    side = (high - low).amax(-1) * margin
    return 0.5 * (low + high), side.clamp(min=1.0) / BOX_UNIT
