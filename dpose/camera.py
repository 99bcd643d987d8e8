"""Boxes, crops and cameras, all batched and differentiable. The camera model is CLIFF's (Li et al. 2022).

Pixels are continuous: pixel (row i, column j) covers [j, j+1) x [i, i+1). A box has a centre (cx, cy) and a
`scale`; its side is b = 200 scale pixels. Camera frame: x right, y down, z forward, metres. Leading
dimensions `...` broadcast, so a single box may be given as `center` (2,) and `scale` (). Every sample has its
own intrinsics. A box may lie partly or wholly outside the image. `scale` must be positive; this is checked
where data are read (`dpose.data`, `dpose.pictures`) and not here, because the check would synchronise a GPU.

No matrix products are used: TF32 and bfloat16 would round them, which moves projected points by pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dpose.skeleton import NUM_BODY_JOINTS

BOX_UNIT = 200.0  # pixels of box side per unit of `scale`
BOX_FACTOR = 1.2  # side of a training box / longest extent of the joints in it
MIN_CAMERA_SCALE = 0.1  # a box side of 20 m; below it 1/s is replaced by its tangent line
MIN_DEPTH = 0.1  # metres


def crop_affine(center: Tensor, scale: Tensor, size: int) -> Tensor:
    """The affine map from full-image pixels to crop pixels: x_crop = (x - (cx - b/2)) size / b.

    Args:
        center: (..., 2) box centre, pixels.
        scale: (...) box side / 200.
        size: side of the crop, pixels.
    Returns:
        (..., 2, 3) affine matrix, applied to (x, y, 1).
    """
    zoom = size / (BOX_UNIT * scale)  # (...)
    corner = center - 0.5 * BOX_UNIT * scale[..., None]  # (..., 2)
    zero = torch.zeros_like(zoom)
    row_x = torch.stack([zoom, zero, -zoom * corner[..., 0]], -1)
    row_y = torch.stack([zero, zoom, -zoom * corner[..., 1]], -1)
    return torch.stack([row_x, row_y], -2)


def crop_intrinsics(cam_int: Tensor, center: Tensor, scale: Tensor, size: int) -> Tensor:
    """Intrinsics of the crop's camera: `crop_affine` applied after `cam_int`.

    Args:
        cam_int: (..., 3, 3) full-image intrinsics, pixels.
        center, scale, size: box and side of the crop, as in `crop_affine`.
    Returns:
        (..., 3, 3) crop intrinsics, pixels.
    """
    affine = crop_affine(center, scale, size).to(cam_int.dtype)  # (..., 2, 3): zoom, 0, offset
    last = cam_int[..., 2:, :]  # (..., 1, 3)
    first = affine[..., :1, :1] * cam_int[..., :2, :] + affine[..., 2:] * last
    return torch.cat([first, last.expand(*first.shape[:-2], 1, 3)], -2)


def default_intrinsics(img_size: Tensor, focal: Tensor | None = None) -> Tensor:
    """Intrinsics of an unknown camera: square pixels and the principal point at the image centre.

    Args:
        img_size: (..., 2) = (w, h), pixels.
        focal: (...) focal length, pixels; None: CLIFF's estimate, the image diagonal, sqrt(w^2 + h^2).
    Returns:
        (..., 3, 3) intrinsics, pixels.
    """
    focal = torch.linalg.vector_norm(img_size, dim=-1) if focal is None else focal
    cam_int = torch.diag_embed(torch.stack([focal, focal, torch.ones_like(focal)], -1))
    cam_int[..., :2, 2] = 0.5 * img_size
    return cam_int


def bbox_info(center: Tensor, scale: Tensor, cam_int: Tensor) -> Tensor:
    """CLIFF's box information: [(cx - px)/f, (cy - py)/f, b/f] with the principal point (px, py).

    Args:
        center: (..., 2) box centre, pixels.
        scale: (...) box side / 200.
        cam_int: (..., 3, 3) full-image intrinsics, pixels. f is `cam_int[..., 0, 0]`.
    Returns:
        (..., 3), tangents of angles, no unit.
    """
    offset = center - cam_int[..., :2, 2]  # (..., 2)
    return torch.cat([offset, BOX_UNIT * scale[..., None]], -1) / cam_int[..., 0, 0, None]


def full_translation(cam: Tensor, center: Tensor, scale: Tensor, cam_int: Tensor) -> Tensor:
    """Converts the crop's weak-perspective camera to a translation in the full image's camera frame.

    t = [tx + 2 (cx - px) / (s b), ty + 2 (cy - py) / (s b), 2 f / (s b)].

    An untrained network may predict s <= 0, where 1/s diverges or is negative. Below s = 0.1 (a box 20 metres
    wide) 1/s is continued by its tangent, so that value and gradient are finite, continuous and non-zero for
    every s. The formula is exact for s >= 0.1.

    Args:
        cam: (..., 3) = (s, tx, ty).
        center, scale, cam_int: as in `bbox_info`.
    Returns:
        (..., 3) translation, metres, camera frame.
    """
    s, t_xy = cam[..., :1], cam[..., 1:]
    s_safe = s.clamp(min=MIN_CAMERA_SCALE)
    inverse_s = 1 / s_safe + (s_safe - s) / MIN_CAMERA_SCALE**2  # the tangent of 1/s below the minimum
    per_pixel = 2 * inverse_s / (BOX_UNIT * scale[..., None])  # (..., 1) = 2 / (s b)
    offset = center - cam_int[..., :2, 2]  # (..., 2)
    return torch.cat([t_xy + offset * per_pixel, cam_int[..., 0, 0, None] * per_pixel], -1)


def project(points: Tensor, cam_int: Tensor, min_depth: float = MIN_DEPTH) -> Tensor:
    """Pinhole projection (eq. 6).

    Points with z < `min_depth`, including those behind the camera, are projected as if z were `min_depth`, so
    that the result and its gradient are finite.

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

    Only the 22 body joints are used, and only those that are marked visible and lie inside the image. Without
    any such joint the box is the square around the whole image; callers drop these samples (fewer than 8
    visible joints).

    Args:
        joints2d: (..., J, 2 or more), x and y first, pixels.
        visible: (..., J) bool.
        img_size: (..., 2) = (w, h), pixels.
        factor: margin around the joints.
    Returns:
        center (..., 2), pixels, and scale (...) = side / 200.
    """
    points = joints2d[..., :NUM_BODY_JOINTS, :2]
    inside = ((points >= 0) & (points < img_size[..., None, :])).all(-1)
    used = (visible[..., :NUM_BODY_JOINTS] & inside)[..., None]  # (..., J, 1)
    low = torch.where(used, points, torch.inf).amin(-2)  # (..., 2)
    high = torch.where(used, points, -torch.inf).amax(-2)
    any_used = used.any(-2)  # (..., 1)
    low = torch.where(any_used, low, torch.zeros_like(low))
    high = torch.where(any_used, high, img_size.to(high.dtype))
    margin = torch.where(any_used[..., 0], factor, 1.0)
    side = (high - low).amax(-1) * margin
    return 0.5 * (low + high), side.clamp(min=1.0) / BOX_UNIT
