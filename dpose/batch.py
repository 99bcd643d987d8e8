"""`Batch` and `Prediction`: what goes into the network, losses and metrics, and what the network predicts.

Frames. *Camera*: OpenCV, x right, y down, z forward, metres. *Image*: continuous pixels, pixel (row i,
column j) covers [j, j+1) x [i, i+1), so its centre is (j + 0.5, i + 0.5). *Crop*: the box (centre, scale)
brought to S x S pixels, `dpose.camera.crop_affine`.
"""

from __future__ import annotations

from typing import NamedTuple, NotRequired, TypedDict

from torch import Tensor

NEAREST_TARGET = 0.1  # depth target of a person's nearest visible point; that of the farthest is 1


class Batch(TypedDict):
    """B crops of one person each; float32 unless said otherwise.

    Vertices and 3D joints are not stored: `dpose.losses` makes them from pose, betas and trans.

    Loaders yield a compact form, batches of a quarter of the size, from which
    `dpose.model.inference.to_device` computes what follows on the device: image is (B, 3, S, S) uint8 RGB in
    channels-last memory, parts (B, M, M) uint8, depth (B, 1, M, M) uint16 codes, 0 in the background.

    Attributes:
        image: (B, 3, S, S) RGB, normalised with the ImageNet mean and standard deviation.
        center: (B, 2) box centre (cx, cy), full-image pixels.
        scale: (B,) box side / 200, so that b = 200 scale pixels.
        img_size: (B, 2) full image (w, h), pixels.
        cam_int: (B, 3, 3) full-image intrinsics, pixels.
        pose: (B, 22, 3, 3) rotation matrices, parent-relative; the root's is in the camera frame.
        betas: (B, 11) shape coefficients.
        trans: (B, 3) SMPL-X `transl`, metres, camera frame.
        joints2d: (B, 24, 3) x, y in full-image pixels and a confidence >= 0 (0: ignore this joint).
        parts: (B, M, M) int64, 0 background, j + 1 = joint j's part (0..22), crop frame.
        depth: (B, 1, M, M) depth target: 0 background, [0.1, 1] on the person (near to far), crop frame.
        has_depth: (B,) bool, False where the sample's data set has no depth; its `depth` is then all zeros.
        key: B strings naming the samples.
        body: B names of the body models that pose, betas and trans are meant for, of
            `dpose.body.BODY_NAMES`: "open" in the open data, "smplx-neutral" in BEDLAM.
        smpl_hands: (B, 2, 3, 3) rotation matrices of SMPL's joints 22 and 23, parent-relative; identities
            where the body is SMPL-X.
        position: of a training loader: where in its stream the batch ends, see `dpose.data.loader.Progress`.
        depth_scaling: of the compact form, (B, 4): what turns codes into the target, see
            `dpose.data.targets.person_codes`.
        depth_rule: of the compact form, "paper" or "released", see `dpose.data.targets.depth_target`.
    """

    image: Tensor
    center: Tensor
    scale: Tensor
    img_size: Tensor
    cam_int: Tensor
    pose: Tensor
    betas: Tensor
    trans: Tensor
    joints2d: Tensor
    parts: Tensor
    depth: Tensor
    has_depth: Tensor
    key: list[str]
    body: list[str]
    smpl_hands: Tensor
    depth_scaling: NotRequired[Tensor]
    depth_rule: NotRequired[str]
    position: NotRequired[dict]


class Prediction(NamedTuple):
    """The network's outputs for B crops; all float32. Maps are in the crop frame.

    A network without depth branch has no `depth`; one that pools globally (HMR, CLIFF) has neither map.
    """

    rotmats: Tensor  # (B, 22, 3, 3) rotations relative to the parent joint; the root's is in the camera frame
    betas: Tensor  # (B, num_betas) shape coefficients
    cam: Tensor  # (B, 3) weak-perspective camera (s, tx, ty) of the crop, see `dpose.camera.full_translation`
    parts: Tensor | None  # (B, 23, M, M) part logits, background first, then in joint order
    depth: Tensor | None  # (B, 1, M, M) in (0, 1), small is near; undefined off the person
