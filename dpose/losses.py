"""The training loss L = L_depth + L_segm + L_human (eqs. 1-4), one function a term.

Each term is the bare mean that its equation names; `losses` weighs them by `LossWeights` and adds them up.
Every term is finite and differentiable whatever an untrained network says, needs no host synchronisation, and
is exactly zero, with zero gradient, where a batch holds nothing to supervise it. All runs in float32, also
under autocast.

What the equations leave open, and how it is read here:

- *Rotations* are compared as matrices, the root included (the released code leaves the root out).
- *3D joints* are taken relative to the pelvis, the midpoint of the hips, on both sides, as BEDLAM-CLIFF does:
  where the body stands is the camera's business. *Vertices* stay in the body's frame, before any translation.
- *2D joints* are divided by half the image's width and height, so that the image spans [-1, 1]; with
  `joints2d_frame="crop"` by half the box's side, so that the box does (times image side / box side).
- *Depth* is supervised where the target shows the person (target > 0) and the sample has depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dpose.batch import Batch
from dpose.camera import BOX_UNIT, full_translation, project
from dpose.model.network import Prediction

__all__ = ["MINI_WEIGHTS", "PAPER", "TERMS", "LossWeights", "losses"]

TERMS = ("depth_l1", "depth_ssim", "segm", "pose", "shape", "joints3d", "vertices", "joints2d")
HIPS = (1, 2)
SSIM_WINDOW = 11


@dataclass(frozen=True)
class LossWeights:
    """The coefficients of eqs. 2-4, and the variants of their terms. Defaults: the paper's.

    Attributes:
        lambda_1: depth, L1.
        lambda_2: depth, 1 - SSIM.
        lambda_3: part segmentation, cross-entropy.
        lambda_4: pose, MSE of rotation matrices.
        lambda_5: shape, MSE of betas.
        lambda_6: 3D joints, MSE, metres.
        lambda_7: vertices, L1, metres.
        lambda_8: 2D joints, MSE, half image or box sides.
        num_joints: how many of SMPL-X's first joints the two joint terms take (22; the released code: 24).
        pose_root: whether the pose term sees the global orientation.
        joints2d_frame: "image" or "crop", what spans [-1, 1] in the 2D term.
        parts_balance: exponent b in [0, 1]: a pixel of a class with share f of the batch's pixels weighs
            f^-b in the cross-entropy. 0 (the paper): all the same; 1: all classes the same.
    """

    lambda_1: float = 0.1
    lambda_2: float = 0.02
    lambda_3: float = 0.1
    lambda_4: float = 10.0
    lambda_5: float = 0.01
    lambda_6: float = 50.0
    lambda_7: float = 10.0
    lambda_8: float = 50.0
    num_joints: int = 22
    pose_root: bool = True
    joints2d_frame: str = "image"
    parts_balance: float = 0.0

    def __post_init__(self) -> None:
        if self.joints2d_frame not in ("image", "crop"):
            raise ValueError(f"joints2d_frame must be 'image' or 'crop', got {self.joints2d_frame!r}")
        if not 3 <= self.num_joints <= 24:
            raise ValueError(f"num_joints must lie in 3..24, got {self.num_joints}")
        if not 0 <= self.parts_balance <= 1:
            raise ValueError(f"parts_balance must lie in [0, 1], got {self.parts_balance}")

    def of(self, term: str) -> float:
        """The coefficient of one of `TERMS`."""
        return getattr(self, f"lambda_{TERMS.index(term) + 1}")


PAPER = LossWeights()
# From scratch the paper's ratio, which presumes a pretrained encoder, leaves the maps unlearned. Here the
# maps' terms count 24 times as much, the joints' and vertices' a tenth, the pose's a fifth. Betas count twice
# as much, else they follow the noise of the vertex term; the 2D term a hundredth, being larger in the crop.
# Of a crop's pixels four in five are background and one in a thousand is a toe: small parts get more weight.
MINI_WEIGHTS = LossWeights(
    lambda_1=2.4,
    lambda_2=0.48,
    lambda_3=2.4,
    lambda_4=2.0,
    lambda_5=0.02,
    lambda_6=5.0,
    lambda_7=1.0,
    lambda_8=0.5,
    joints2d_frame="crop",
    parts_balance=0.25,
)


def losses(
    pred: Prediction, batch: Batch, body: Callable[..., Any], weights: LossWeights = PAPER
) -> dict[str, Tensor]:
    """All terms of the loss on one batch, eq. 1.

    Args:
        pred: the network's output.
        batch: the ground truth, on the same device.
        body: `dpose.body.Body`: body(betas, rotmats) -> (vertices (B, V, 3), joints (B, J >= 24, 3)), metres.
        weights: coefficients and variants.
    Returns:
        Scalars: every one of `TERMS`, unweighted, and "total", their weighted sum. Without a depth branch the
        two depth terms are zero.
    """
    with torch.autocast(pred.rotmats.device.type, enabled=False):
        rotmats, betas, cam, parts = (x.float() for x in pred[:4])
        depth = None if pred.depth is None else pred.depth.float()
        posed = body(betas, rotmats)
        with torch.no_grad():
            true = body(batch["betas"], batch["pose"])
        joints, true_joints = (out.joints[:, : weights.num_joints] for out in (posed, true))
        box = batch["center"], batch["scale"], batch["img_size"]

        terms = {
            "depth_l1": depth_l1(depth, batch["depth"], batch["has_depth"]),
            "depth_ssim": depth_ssim(depth, batch["depth"], batch["has_depth"]),
            "segm": segmentation(parts, batch["parts"], weights.parts_balance),
            "pose": pose(rotmats, batch["pose"], weights.pose_root),
            "shape": shape(betas, batch["betas"]),
            "joints3d": joints3d(joints, true_joints),
            "vertices": vertices(posed.vertices, true.vertices),
            "joints2d": joints2d(
                joints, cam, batch["joints2d"], batch["cam_int"], *box, weights.joints2d_frame
            ),
        }
        total = torch.stack([weights.of(name) * term for name, term in terms.items()]).sum()
    return terms | {"total": total}


def person_pixels(target: Tensor, has_depth: Tensor) -> Tensor:
    """Where depth is supervised, as 0 or 1: (B, 1, M, M); the background's target is exactly zero."""
    return ((target > 0) & has_depth[:, None, None, None]).to(target.dtype)


def depth_l1(depth: Tensor | None, target: Tensor, has_depth: Tensor) -> Tensor:
    """First part of eq. 2: |depth_gt - depth_pred|, mean over the batch's person pixels.

    Args:
        depth: (B, 1, M, M) prediction, or None.
        target: (B, 1, M, M), 0 or [0.1, 1].
        has_depth: (B,) bool.
    """
    if depth is None:
        return target.new_zeros(())
    mask = person_pixels(target, has_depth)
    return ((depth - target).abs() * mask).sum() / mask.sum().clamp(min=1)


def depth_ssim(depth: Tensor | None, target: Tensor, has_depth: Tensor) -> Tensor:
    """Second part of eq. 2: 1 - SSIM(depth_gt, depth_pred), 11x11 Gaussian windows with sigma 1.5, range 1.

    The background is set to zero on both sides. Windows without a person's pixel then have SSIM 1 and no
    gradient; they are left out of the mean, which runs over each image's other windows, then over the images
    that have any. Arguments as `depth_l1`.
    """
    if depth is None:
        return target.new_zeros(())
    mask = person_pixels(target, has_depth)
    similarity = ssim_map((depth * mask)[:, 0], (target * mask)[:, 0])  # (B, N, N), N = M - 10
    ones = _bands(torch.ones_like(_gaussian(target)), target.shape[-1])
    touched = (ones @ mask[:, 0] @ ones.T > 0.5).to(depth.dtype)  # (B, N, N) windows with the person
    count = touched.sum((1, 2))  # (B,)
    dissimilarity = ((1 - similarity) * touched).sum((1, 2)) / count.clamp(min=1)
    seen = (count > 0).to(depth.dtype)
    return (dissimilarity * seen).sum() / seen.sum().clamp(min=1)


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) of every window that lies wholly in the image, for values in a range of 1.

    `pytorch_msssim` averages the same map. Its convolutions, of one channel each, took a tenth of a whole
    training step on a CPU; the same smoothing as two products with a band matrix takes a hundredth.

    Args:
        x, y: (B, M, M).
    Returns:
        (B, N, N) in [-1, 1], N = M - 10 (windows of 11, or of M where the maps are smaller).
    """
    band = _bands(_gaussian(x), x.shape[-1])  # (N, M)

    def smooth(z: Tensor) -> Tensor:
        return band @ z @ band.T

    c1, c2 = 0.01**2, 0.03**2
    mean_x, mean_y = smooth(x), smooth(y)
    xx, yy, xy = mean_x.square(), mean_y.square(), mean_x * mean_y
    variances = smooth(x.square() + y.square()) - xx - yy
    covariance = smooth(x * y) - xy
    return (2 * xy + c1) * (2 * covariance + c2) / ((xx + yy + c1) * (variances + c2))


def _gaussian(like: Tensor, sigma: float = 1.5) -> Tensor:
    """(11,) Gaussian window with sum 1, or (M,) for maps (..., M, M) smaller than that."""
    size = min(SSIM_WINDOW, like.shape[-1])
    offset = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    return torch.softmax(-offset.square() / (2 * sigma**2), 0)


def _bands(window: Tensor, size: int) -> Tensor:
    """The (size - n + 1, size) matrix whose product slides the (n,) window along a map's side."""
    n = len(window)
    rows, columns = (torch.arange(k, device=window.device) for k in (size - n + 1, size))
    place = columns - rows[:, None]  # (size - n + 1, size)
    return torch.where((place >= 0) & (place < n), window[place.clamp(0, n - 1)], 0.0)


def segmentation(logits: Tensor, labels: Tensor, balance: float = 0.0) -> Tensor:
    """Eq. 3: cross-entropy over the background and 22 parts, mean over all pixels.

    Args:
        logits: (B, 23, M, M).
        labels: (B, M, M) int64.
        balance: `LossWeights.parts_balance`; above 0 the mean is weighted.
    """
    if balance == 0:
        return F.cross_entropy(logits, labels)
    flat = labels.flatten()
    # `bincount` would wait for a GPU
    count = flat.new_zeros(logits.shape[1]).scatter_add_(0, flat, torch.ones_like(flat))
    share = count / len(flat)
    weight = torch.where(share > 0, share, 1.0) ** -balance
    return F.cross_entropy(logits, labels, weight)


def pose(rotmats: Tensor, true_rotmats: Tensor, root: bool = True) -> Tensor:
    """L_SMPLpose of eq. 4: MSE between rotation matrices (B, 22, 3, 3), with or without the root's."""
    first = 0 if root else 1
    return F.mse_loss(rotmats[:, first:], true_rotmats[:, first:])


def shape(betas: Tensor, true_betas: Tensor) -> Tensor:
    """L_SMPLshape of eq. 4: MSE between shape coefficients (B, 11)."""
    return F.mse_loss(betas, true_betas)


def joints3d(joints: Tensor, true_joints: Tensor) -> Tensor:
    """L_J3D of eq. 4: MSE between joints (B, J, 3), metres, each side relative to its pelvis."""
    return F.mse_loss(*(j - j[:, HIPS].mean(1, keepdim=True) for j in (joints, true_joints)))


def vertices(verts: Tensor, true_verts: Tensor) -> Tensor:
    """L_V3D of eq. 4: L1 between vertices (B, V, 3), metres, body frame, global orientation applied."""
    return F.l1_loss(verts, true_verts)


def joints2d(
    joints: Tensor,
    cam: Tensor,
    true_joints2d: Tensor,
    cam_int: Tensor,
    center: Tensor,
    scale: Tensor,
    img_size: Tensor,
    frame: str = "image",
) -> Tensor:
    """L_J2D of eq. 4: MSE of projected joints (eq. 6) in the full image, times the labels' confidence.

    Args:
        joints: (B, J, 3) predicted joints, metres, body frame.
        cam: (B, 3) predicted (s, tx, ty); `full_translation` keeps it finite for s near or below zero.
        true_joints2d: (B, J or more, 3) x, y pixels, confidence; at 0 or less x and y are never read.
        cam_int: (B, 3, 3) intrinsics, pixels.
        center, scale, img_size: the box and the image, as in `Batch`.
        frame: "image": the image's width and height span [-1, 1]; "crop": the box's side does.
    """
    translation = full_translation(cam, center, scale, img_size, cam_int[:, 0, 0])
    projected = project(joints + translation[:, None], cam_int)  # (B, J, 2) pixels
    target = true_joints2d[:, : joints.shape[1]]
    confidence = target[..., 2:].clamp(min=0)  # (B, J, 1)
    extent = img_size if frame == "image" else BOX_UNIT * scale[:, None].expand(-1, 2)  # (B, 2) pixels
    error = torch.where(confidence > 0, projected - target[..., :2], 0.0) * (2 / extent[:, None])
    return (confidence * error.square()).mean()
