"""The training loss L = L_depth + L_segm + L_human (eqs. 1-4), one function a term.

Each term is the bare mean that its equation names; `losses` weighs them by `LossWeights` and adds them up.
Every term is finite and differentiable whatever an untrained network says, never waits for the device, and is
exactly zero, with zero gradient, where a batch holds nothing to supervise it. All runs in float32, also under
autocast.

What the equations leave open, and how `PAPER_WEIGHTS` reads it. `RELEASED_WEIGHTS` does what the authors'
code does instead:

- *Rotations* are compared as matrices, the root included. Released: without the root.
- *3D joints* are taken relative to the pelvis, the midpoint of the hips, on both sides: where the body stands
  is the camera's business. Released: in the body's own frame, as the *vertices* are in both.
- *2D joints* are divided by half the image's width and height, so that the image spans [-1, 1]. Released:
  their squared errors times image side / box side. `joints2d_frame="crop"`: the box spans [-1, 1].
- *Depth* is supervised where the target shows the person (target > 0). Released: on all pixels.
- A sample without depth, or without the person in its crop, has no part in the depth terms, in both.

A mean runs over the batch that it is given; of several devices each has its share of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_msssim
import torch
from torch import Tensor
from torch.nn import functional as F

from dpose.batch import Batch, Prediction
from dpose.camera import BOX_UNIT, full_translation, project

__all__ = ["MINI_WEIGHTS", "PAPER_WEIGHTS", "RELEASED_WEIGHTS", "TERMS", "LossWeights", "compute_losses"]

TERMS = ("depth_l1", "depth_ssim", "segm", "pose", "shape", "joints3d", "vertices", "joints2d")
SSIM_SIGMA = 1.5

# Of the fields below that name a variant: what they may be.
VARIANTS = {
    "depth_error": ("l1", "mse"),
    "depth_pixels": ("person", "all"),
    "ssim_window": (11, 8),
    "joints3d_frame": ("pelvis", "body"),
    "joints2d_frame": ("image", "image/box", "crop"),
}


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
        joints2d_frame: what the 2D term's errors are measured in: "image", half the image's sides; "crop",
            half the box's; "image/box", half the image's, each squared error times image side / box side.
        parts_balance: exponent b in [0, 1]: a pixel of a class with share f of the batch's pixels weighs
            f^-b in the cross-entropy. 0 (the paper): all the same; 1: all classes the same.
        camera: a penalty on small camera scales, which the paper does not have (the released code: 10).
        factor: multiplies every coefficient; it matters where gradients are clipped (the released code: 60).
        depth_error: "l1" or "mse", what the first depth term is.
        depth_pixels: "person", or "all": the depth terms see the background too.
        ssim_window: 11, centred and wholly in the map, or 8, off-centre and over its edges (`depth_ssim`).
        joints3d_frame: "pelvis": each side relative to its pelvis; "body": as the body model puts them.
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
    camera: float = 0.0
    factor: float = 1.0
    depth_error: str = "l1"
    depth_pixels: str = "person"
    ssim_window: int = 11
    joints3d_frame: str = "pelvis"

    def __post_init__(self) -> None:
        for field, allowed in VARIANTS.items():
            if getattr(self, field) not in allowed:
                choice = ", ".join(map(repr, allowed))
                raise ValueError(f"{field} must be one of {choice}, got {getattr(self, field)!r}")
        if not 3 <= self.num_joints <= 24:
            raise ValueError(f"num_joints must lie in 3..24, got {self.num_joints}")
        if not 0 <= self.parts_balance <= 1:
            raise ValueError(f"parts_balance must lie in [0, 1], got {self.parts_balance}")

    def of(self, term: str) -> float:
        """What multiplies a term (of `TERMS`, or "camera") in the total: its coefficient times `factor`."""
        name = term if term == "camera" else f"lambda_{TERMS.index(term) + 1}"
        return self.factor * getattr(self, name)


PAPER_WEIGHTS = LossWeights()
# What the authors' code computes, where it departs from the paper (the book's page on the two lists it all).
# Its shipped configuration leaves the depth terms out; here they are as its code has them.
RELEASED_WEIGHTS = LossWeights(
    lambda_2=0.01,
    num_joints=24,
    pose_root=False,
    joints2d_frame="image/box",
    camera=10.0,
    factor=60.0,
    depth_error="mse",
    depth_pixels="all",
    ssim_window=8,
    joints3d_frame="body",
)
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


def compute_losses(
    pred: Prediction, batch: Batch, body: Callable[..., Any], weights: LossWeights = PAPER_WEIGHTS
) -> dict[str, Tensor]:
    """All terms of the loss on one batch, eq. 1.

    Args:
        pred: the network's output.
        batch: the ground truth, on the same device.
        body: `dpose.body.Body`: body(betas, rotmats) -> (vertices (B, V, 3), joints (B, J >= 24, 3)), metres.
        weights: coefficients and variants.
    Returns:
        Scalars: every one of `TERMS`, unweighted ("depth_l1" is the MSE if `weights` says so); "camera" if
        it has a weight; and "total", the sum of all, each times `weights.of(term)`. Without a depth branch
        the two depth terms are zero.
    """
    with torch.autocast(pred.rotmats.device.type, enabled=False):
        rotmats, betas, cam, parts = (x.float() for x in pred[:4])
        posed = body(betas, rotmats)
        with torch.no_grad():
            true = body(batch["betas"], batch["pose"])
        joints, true_joints = (out.joints[:, : weights.num_joints] for out in (posed, true))
        box = batch["center"], batch["scale"], batch["img_size"]
        if pred.depth is None:
            error = dissimilarity = betas.new_zeros(())
        else:
            depth = pred.depth.float(), batch["depth"], batch["has_depth"], weights.depth_pixels
            error = (depth_l1 if weights.depth_error == "l1" else depth_mse)(*depth)
            dissimilarity = depth_ssim(*depth, weights.ssim_window)

        terms = {
            "depth_l1": error,
            "depth_ssim": dissimilarity,
            "segm": segmentation(parts, batch["parts"], weights.parts_balance),
            "pose": pose(rotmats, batch["pose"], weights.pose_root),
            "shape": shape(betas, batch["betas"]),
            "joints3d": joints3d(joints, true_joints, weights.joints3d_frame),
            "vertices": vertices(posed.vertices, true.vertices),
            "joints2d": joints2d(
                joints, cam, batch["joints2d"], batch["cam_int"], *box, weights.joints2d_frame
            ),
        }
        if weights.camera:
            terms["camera"] = camera(cam)
        total = torch.stack([weights.of(name) * term for name, term in terms.items()]).sum()
    return terms | {"total": total}


def supervised_pixels(target: Tensor, has_depth: Tensor, pixels: str = "person") -> Tensor:
    """Where the depth terms look: (B, 1, M, M) bool.

    Only samples with depth and the person in the crop have such pixels: those of the person, where the target
    is not the background's zero, or "all".
    """
    person = (target > 0) & has_depth[:, None, None, None]
    return person if pixels == "person" else person.flatten(1).any(1)[:, None, None, None].expand_as(person)


def depth_l1(depth: Tensor, target: Tensor, has_depth: Tensor, pixels: str = "person") -> Tensor:
    """First part of eq. 2: mean |depth_gt - depth_pred| over the batch's supervised pixels.

    Args:
        depth: (B, 1, M, M) prediction.
        target: (B, 1, M, M), 0 or [0.1, 1].
        has_depth: (B,) bool.
        pixels: "person" or "all", as in `supervised_pixels`.
    """
    mask = supervised_pixels(target, has_depth, pixels)
    return torch.where(mask, depth - target, 0.0).abs().sum() / mask.sum().clamp(min=1)


def depth_mse(depth: Tensor, target: Tensor, has_depth: Tensor, pixels: str = "person") -> Tensor:
    """The released code's first part of eq. 2: mean (depth_gt - depth_pred)^2. Arguments as `depth_l1`."""
    mask = supervised_pixels(target, has_depth, pixels)
    return torch.where(mask, depth - target, 0.0).square().sum() / mask.sum().clamp(min=1)


def depth_ssim(
    depth: Tensor, target: Tensor, has_depth: Tensor, pixels: str = "person", window: int = 11
) -> Tensor:
    """Second part of eq. 2: mean 1 - SSIM(depth_gt, depth_pred) over the windows that see a supervised pixel.

    SSIM = (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_xx + s_yy + c2)), with the means m and
    (co)variances s of a window, c1 = 0.01^2, c2 = 0.03^2 (Wang et al. 2004, for values in a range of 1), by
    `pytorch_msssim`. What is not supervised is zero on both sides, and a window of zeros has SSIM 1 exactly:
    the mean over the windows that see something is therefore the library's over all N, N (1 - SSIM) / N_seen.

    Args:
        depth, target, has_depth, pixels: as in `depth_l1`.
        window: 11: Gaussian windows, sigma 1.5, that lie wholly in the map. 8: the released code's, weights
            exp(-(i - 4)^2 / (2 sigma^2)), i = 0..7, on a map with four zeros around: (M + 1)^2 windows.
    """
    mask = supervised_pixels(target, has_depth, pixels)
    x, y = (torch.where(mask, z, 0.0) for z in (depth, target))
    mask = mask.to(x.dtype)
    side = x.shape[-1]
    size = window if window == 8 else min(window, side - 1 + side % 2)  # odd also on a tiny map
    offset = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    gauss = torch.softmax(-offset.square() / (2 * SSIM_SIGMA**2), 0)
    if window == 8:
        mask = F.pad(mask, [size // 2] * 4)
        # The library takes odd windows: a ninth weight of zero, and a ninth pixel for it to fall on.
        x, y = (F.pad(z, [size // 2, size // 2 + 1] * 2) for z in (x, y))
        gauss = F.pad(gauss, [0, 1])
    seen = F.max_pool2d(F.max_pool2d(mask, (size, 1), 1), (1, size), 1)  # (B, 1, N, N) 0 or 1
    # With the samples as channels its convolutions are depthwise: eight times as fast on a CPU.
    x, y = x.transpose(0, 1), y.transpose(0, 1)  # (1, B, M, M)
    weights = gauss.expand(x.shape[1], 1, 1, -1)
    similarity = pytorch_msssim.ssim(x, y, data_range=1.0, win=weights)
    return (1 - similarity) * seen.numel() / seen.sum().clamp(min=1)


def segmentation(logits: Tensor, labels: Tensor, balance: float = 0.0) -> Tensor:
    """Eq. 3: cross-entropy -log softmax(S)[label] of the background and 22 parts, mean over all pixels.

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
    """L_SMPLpose of eq. 4: mean (R_gt - R_pred)^2 over the entries of rotation matrices (B, 22, 3, 3).

    One joint off by an angle a costs 8 sin(a / 2)^2 / (9 x 22). With or without the root's matrix.
    """
    first = 0 if root else 1
    return F.mse_loss(rotmats[:, first:], true_rotmats[:, first:])


def shape(betas: Tensor, true_betas: Tensor) -> Tensor:
    """L_SMPLshape of eq. 4: mean (beta_gt - beta_pred)^2 over shape coefficients (B, 11)."""
    return F.mse_loss(betas, true_betas)


def joints3d(joints: Tensor, true_joints: Tensor, frame: str = "pelvis") -> Tensor:
    """L_J3D of eq. 4: mean (J_gt - J_pred)^2 over the coordinates of joints (B, J, 3), metres.

    `frame`: "pelvis", each side relative to the midpoint of its hips; "body", as they are.
    """
    if frame == "pelvis":
        joints, true_joints = (j - j[:, 1:3].mean(1, keepdim=True) for j in (joints, true_joints))
    return F.mse_loss(joints, true_joints)


def vertices(verts: Tensor, true_verts: Tensor) -> Tensor:
    """L_V3D of eq. 4: mean |V_gt - V_pred| over the coordinates of vertices (B, V, 3).

    Metres, in the body's frame, global orientation applied, before any translation.
    """
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
    """L_J2D of eq. 4: mean c (2 (j_gt - j_pred) / side)^2 over the coordinates of joints projected by eq. 6.

    c is the label's confidence. `side` and a further factor depend on `frame`: the image's width and height
    ("image"), the box's side ("crop"), or the image's with squares times image side / box side ("image/box").

    Args:
        joints: (B, J, 3) predicted joints, metres, body frame.
        cam: (B, 3) predicted (s, tx, ty); `full_translation` keeps it finite for s near or below zero.
        true_joints2d: (B, J or more, 3) x, y pixels, confidence; at 0 or less x and y are never read.
        cam_int: (B, 3, 3) intrinsics, pixels.
        center, scale, img_size: the box and the image, as in `Batch`.
        frame: as above.
    """
    translation = full_translation(cam, center, scale, img_size, cam_int[:, 0, 0])
    projected = project(joints + translation[:, None], cam_int)  # (B, J, 2) pixels
    target = true_joints2d[:, : joints.shape[1]]
    confidence = target[..., 2:].clamp(min=0)  # (B, J, 1)
    box_side = BOX_UNIT * scale[:, None, None]  # (B, 1, 1) pixels
    image_side = img_size[:, None]  # (B, 1, 2) pixels
    weight = confidence * (image_side / box_side) if frame == "image/box" else confidence
    error = torch.where(confidence > 0, projected - target[..., :2], 0.0)
    error = error * (2 / (box_side if frame == "crop" else image_side))
    return (weight * error.square()).mean()


def camera(cam: Tensor) -> Tensor:
    """The released code's camera term: mean exp(-10 s)^2, s clamped to [-0.5, 0.5].

    It drives the scale s of cam (B, 3) = (s, tx, ty) away from zero and below; the paper has no such term.
    """
    return torch.exp(-10 * cam[:, 0].clamp(-0.5, 0.5)).square().mean()
