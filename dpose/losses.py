"""The training loss L = L_depth + L_segm + L_human (eqs. 1-4), one function per term.

Each term is the plain mean of its equation. `compute_losses` multiplies the terms by `LossWeights` and sums
them. Every term is finite and differentiable for any prediction, never synchronises the device, and is
exactly zero, with zero gradient, if the batch has no supervision for it. All terms are computed in float32,
also under autocast.

Where the equations are ambiguous, `PAPER_WEIGHTS` and `RELEASED_WEIGHTS` (the authors' code) differ:

- *Rotations* are compared as matrices, including the root. Released: without the root.
- *3D joints* are relative to the pelvis, the midpoint of the hips, because the camera determines where the
  body is. Released: in the body's own frame. *Vertices* are in the body's own frame in both.
- *2D joints* are divided by half the image's width and height. Released: their squared errors are also
  multiplied by image side / box side. `joints2d_frame="crop"` divides by half the box's side; "person" by
  half the person's extent, if that is larger because the box shows a part of the person.
- *Depth* is supervised on the person's pixels, where the target is positive. Released: on all pixels. Samples
  without depth, or without person pixels in the crop, do not contribute in either.
- *First depth term*: mean absolute error. Released: mean squared error, although the code calls it L1.

Means are over the batch that is passed; with several devices each takes its own share of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytorch_msssim
import torch
from torch import Tensor
from torch.nn import functional as F

from dpose.batch import Batch, Prediction
from dpose.camera import BOX_UNIT, full_translation, project

TERMS = ("depth_l1", "depth_ssim", "segm", "pose", "shape", "joints3d", "vertices", "joints2d")
COEFFICIENTS = {term: f"lambda_{number}" for number, term in enumerate(TERMS, 1)} | {"camera": "camera"}
SSIM_SIGMA = 1.5

VARIANTS = {  # allowed values of the fields of `LossWeights` that select a variant of a term
    "depth_error": ("l1", "mse"),
    "depth_pixels": ("person", "all"),
    "ssim_window": (11, 8),
    "joints3d_frame": ("pelvis", "body"),
    "joints2d_frame": ("image", "image/box", "crop", "person"),
}


@dataclass(frozen=True)
class LossWeights:
    """The coefficients of eqs. 2-4 and the variants of their terms.

    The defaults are the paper's. Where its text leaves a term open (the window of SSIM; the number, origin
    and unit of the joints) they are choices of this package.

    Attributes:
        lambda_1: depth, L1.
        lambda_2: depth, 1 - SSIM.
        lambda_3: part segmentation, cross-entropy.
        lambda_4: pose, MSE of rotation matrices.
        lambda_5: shape, MSE of betas.
        lambda_6: 3D joints, MSE, metres.
        lambda_7: vertices, L1, metres.
        lambda_8: 2D joints, MSE, in half image or box sides.
        num_joints: number of SMPL-X joints in the two joint terms (22; released code: 24).
        pose_root: whether the pose term includes the global orientation.
        joints2d_frame: unit of the 2D term's errors: "image", half the image's sides; "crop", half the box's
            side; "person", the same, or half the extent of the person's joints if that is larger;
            "image/box", half the image's sides, with squared errors times image side / box side.
        parts_balance: exponent b in [0, 1]. The weight of a pixel in the cross-entropy is f^-b, where f is
            the share of its class in the batch. 0 (the paper): equal pixels; 1: equal classes.
        camera: weight of a penalty on small camera scales (released code: 10), which the paper does not have.
        factor: multiplies every coefficient, which matters when gradients are clipped (released code: 60).
        depth_error: "l1" or "mse": the first depth term. Its coefficient is lambda_1 and its name "depth_l1"
            in both cases.
        depth_pixels: "person" or "all": the pixels of the depth terms.
        ssim_window: 11, centred and inside the map, or 8, off-centre and over its edges (`depth_ssim`).
        joints3d_frame: "pelvis": joints relative to their pelvis; "body": in the body's own frame.
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
        """The weight of a term (one of `TERMS`, or "camera") in the total: its coefficient times `factor`."""
        return self.factor * getattr(self, COEFFICIENTS[term])


PAPER_WEIGHTS = LossWeights()
# The loss of the authors' code, where it differs from the paper (the book's page "paper versus code" has the
# full list). "depth_l1" is a mean squared error here, as in that code. The configuration shipped with the
# code disables the depth terms.
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
# The paper's weights assume a pretrained encoder; from random weights they leave the maps untrained. Relative
# to them, the map terms are multiplied by 24, the joint and vertex terms by a tenth and the pose term by a
# fifth. The weight of the betas is doubled, because otherwise they follow the noise of the vertex term. The
# 2D term's weight is a hundredth, because its errors are larger in units of the crop. Four in five pixels of
# a crop are background and one in a thousand is a toe, so small parts get more weight.
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
# With four times the weight of the 2D term the body follows the person in photographs more closely
# (results/trials). Where the box shows a part of the person, joints far outside of it would dominate the
# term: their errors are relative to the person instead.
LITE_WEIGHTS = replace(MINI_WEIGHTS, lambda_8=2.0, joints2d_frame="person")


def compute_losses(
    pred: Prediction, batch: Batch, body: Callable[..., Any], weights: LossWeights = PAPER_WEIGHTS
) -> dict[str, Tensor]:
    """All terms of the loss for one batch (eq. 1).

    Args:
        pred: the network's output.
        batch: the ground truth, on the same device, with float images (`dpose.model.inference.to_device`).
        body: `dpose.body.Body`: body(betas, rotmats) -> (vertices (B, V, 3), joints (B, J >= 24, 3)), metres.
        weights: coefficients and variants.
    Returns:
        Scalars: every term of `TERMS`, unweighted ("depth_l1" is an MSE if `weights.depth_error` is "mse");
        "camera" if its weight is not zero; and "total", the sum of all terms times `weights.of(term)`. The
        depth terms are zero for a network without a depth branch, "segm" for one without a part map.
    """
    with torch.autocast(pred.rotmats.device.type, enabled=False):
        rotmats, betas, cam = (x.float() for x in pred[:3])
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
            "segm": betas.new_zeros(())
            if pred.parts is None
            else segmentation(pred.parts.float(), batch["parts"], weights.parts_balance),
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
    """The pixels on which the depth terms are computed: (B, 1, M, M) bool.

    "person": pixels with a positive target. "all": all pixels of samples that have such a pixel. Samples
    without depth have none.
    """
    person = (target > 0) & has_depth[:, None, None, None]
    return person if pixels == "person" else person.flatten(1).any(1)[:, None, None, None].expand_as(person)


def depth_l1(depth: Tensor, target: Tensor, has_depth: Tensor, pixels: str = "person") -> Tensor:
    """First term of eq. 2: mean |depth_gt - depth_pred| over the batch's supervised pixels.

    Args:
        depth: (B, 1, M, M) prediction.
        target: (B, 1, M, M), 0 on the background, [0.1, 1] on the person.
        has_depth: (B,) bool.
        pixels: "person" or "all", as in `supervised_pixels`.
    """
    mask = supervised_pixels(target, has_depth, pixels)
    return torch.where(mask, depth - target, 0.0).abs().sum() / mask.sum().clamp(min=1)


def depth_mse(depth: Tensor, target: Tensor, has_depth: Tensor, pixels: str = "person") -> Tensor:
    """The released code's first term of eq. 2: mean (depth_gt - depth_pred)^2. Arguments as in `depth_l1`."""
    mask = supervised_pixels(target, has_depth, pixels)
    return torch.where(mask, depth - target, 0.0).square().sum() / mask.sum().clamp(min=1)


def depth_ssim(
    depth: Tensor, target: Tensor, has_depth: Tensor, pixels: str = "person", window: int = 11
) -> Tensor:
    """Second term of eq. 2: mean 1 - SSIM(depth_gt, depth_pred) over windows with a supervised pixel.

    SSIM = (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_xx + s_yy + c2)), with the means m and
    (co)variances s of a window, c1 = 0.01^2, c2 = 0.03^2 (Wang et al. 2004, for values in a range of 1),
    computed by `pytorch_msssim`. Unsupervised pixels are set to zero in both maps. The SSIM of a window of
    zeros is exactly 1, so the mean over the N_seen windows with a supervised pixel is the library's mean over
    all N windows times N / N_seen.

    Args:
        depth, target, has_depth, pixels: as in `depth_l1`.
        window: 11: Gaussian windows, sigma 1.5, inside the map. 8: the released code's, weights
            exp(-(i - 4)^2 / (2 sigma^2)), i = 0..7, on a map padded with four zeros: (M + 1)^2 windows.
    """
    mask = supervised_pixels(target, has_depth, pixels)
    x, y = (torch.where(mask, z, 0.0) for z in (depth, target))
    mask = mask.to(x.dtype)
    side = x.shape[-1]
    size = window if window == 8 else min(window, side - 1 + side % 2)  # odd on tiny maps too
    offset = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    gauss = torch.softmax(-offset.square() / (2 * SSIM_SIGMA**2), 0)
    if window == 8:
        mask = F.pad(mask, [size // 2] * 4)
        # The library only takes odd windows: add a ninth weight, zero, and one more pixel of padding.
        x, y = (F.pad(z, [size // 2, size // 2 + 1] * 2) for z in (x, y))
        gauss = F.pad(gauss, [0, 1])
    seen = F.max_pool2d(F.max_pool2d(mask, (size, 1), 1), (1, size), 1)  # (B, 1, N, N) 0 or 1
    # With samples as channels the library's convolutions are depthwise, which is 8 times as fast on a CPU.
    x, y = x.transpose(0, 1), y.transpose(0, 1)  # (1, B, M, M)
    weights = gauss.expand(x.shape[1], 1, 1, -1)
    similarity = pytorch_msssim.ssim(x, y, data_range=1.0, win=weights)
    return (1 - similarity) * seen.numel() / seen.sum().clamp(min=1)


def segmentation(logits: Tensor, labels: Tensor, balance: float = 0.0) -> Tensor:
    """Eq. 3: mean cross-entropy -log softmax(S)[label] over all pixels; background and 22 parts.

    Args:
        logits: (B, 23, M, M).
        labels: (B, M, M) int64.
        balance: `LossWeights.parts_balance`; the mean is weighted if it is positive.
    """
    flat = labels.flatten()
    logits = logits.permute(0, 2, 3, 1).flatten(0, 2)  # a view of channels-last maps, and twice as fast
    if balance == 0:
        return F.cross_entropy(logits, flat)
    # not `bincount`, which synchronises a GPU
    count = flat.new_zeros(logits.shape[1]).scatter_add_(0, flat, torch.ones_like(flat))
    share = count / len(flat)
    weight = torch.where(share > 0, share, 1.0) ** -balance
    return F.cross_entropy(logits, flat, weight)


def pose(rotmats: Tensor, true_rotmats: Tensor, root: bool = True) -> Tensor:
    """L_SMPLpose of eq. 4: mean (R_gt - R_pred)^2 over the entries of rotation matrices (B, 22, 3, 3).

    An error of angle a in one joint of one sample adds 8 sin(a / 2)^2 to the sum over entries. `root`:
    whether the root's matrix is included.
    """
    first = 0 if root else 1
    return F.mse_loss(rotmats[:, first:], true_rotmats[:, first:])


def shape(betas: Tensor, true_betas: Tensor) -> Tensor:
    """L_SMPLshape of eq. 4: mean (beta_gt - beta_pred)^2 over shape coefficients (B, 11)."""
    return F.mse_loss(betas, true_betas)


def joints3d(joints: Tensor, true_joints: Tensor, frame: str = "pelvis") -> Tensor:
    """L_J3D of eq. 4: mean (J_gt - J_pred)^2 over the coordinates of joints (B, J, 3), metres.

    `frame`: "pelvis", both relative to the midpoint of their hips; "body", unchanged.
    """
    if frame == "pelvis":
        joints, true_joints = (j - j[:, 1:3].mean(1, keepdim=True) for j in (joints, true_joints))
    return F.mse_loss(joints, true_joints)


def vertices(verts: Tensor, true_verts: Tensor) -> Tensor:
    """L_V3D of eq. 4: mean |V_gt - V_pred| over the coordinates of vertices (B, V, 3).

    Vertices are in metres, with the global orientation applied and without translation.
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

    c is the label's confidence. `side` depends on `frame`: the image's width and height ("image"), the box's
    side ("crop"), the larger of that and the extent of the true joints ("person"), or the image's, with
    squared errors multiplied by image side / box side ("image/box").

    Args:
        joints: (B, J, 3) predicted joints, metres, body frame.
        cam: (B, 3) predicted (s, tx, ty); `full_translation` is finite for s near or below zero.
        true_joints2d: (B, J or more, 3) x, y pixels, confidence; x and y are ignored if it is 0 or less.
        cam_int: (B, 3, 3) intrinsics, pixels.
        center, scale, img_size: box and image, as in `Batch`.
        frame: see above.
    """
    translation = full_translation(cam, center, scale, cam_int)
    projected = project(joints + translation[:, None], cam_int)  # (B, J, 2) pixels
    target = true_joints2d[:, : joints.shape[1]]
    confidence = target[..., 2:].clamp(min=0)  # (B, J, 1)
    box_side = BOX_UNIT * scale[:, None, None]  # (B, 1, 1) pixels
    image_side = img_size[:, None]  # (B, 1, 2) pixels
    weight = confidence * (image_side / box_side) if frame == "image/box" else confidence
    error = torch.where(confidence > 0, projected - target[..., :2], 0.0)
    if frame == "person":
        known = torch.where(confidence > 0, target[..., :2], center[:, None])  # (B, J, 2)
        extent = (known.amax(1) - known.amin(1)).amax(1)  # (B,) pixels
        box_side = torch.maximum(box_side, extent[:, None, None])
    error = error * (2 / (box_side if frame in ("crop", "person") else image_side))
    return (weight * error.square()).mean()


def camera(cam: Tensor) -> Tensor:
    """The released code's camera term: mean exp(-10 s)^2, s clamped to [-0.5, 0.5].

    It penalises small and negative scales s of cam (B, 3) = (s, tx, ty). The paper has no such term.
    """
    return torch.exp(-10 * cam[:, 0].clamp(-0.5, 0.5)).square().mean()
