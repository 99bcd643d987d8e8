"""What is typical of a training set: mean pose, shape and camera, part frequencies, depth of a person.

The regressor predicts residuals on these means (spec section 2), the mini recipe starts its map decoders at
the frequencies, and evaluation takes the mean pose as the baseline that a trained network has to beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dpose.camera import BOX_UNIT
from dpose.config import ModelConfig
from dpose.data.loader import make_loader
from dpose.model.regressor import rotmat_to_sixd


@dataclass(frozen=True)
class Statistics:
    """Means over samples of a training set; rotations are chordal means."""

    samples: int
    pose: Tensor  # (22, 3, 3) rotations, the root's in the camera frame
    betas: Tensor  # (11,)
    cam: Tensor  # (3,) weak-perspective s, tx, ty
    part_frequency: Tensor  # (23,) share of the crop's pixels
    mean_depth: Tensor  # () mean depth target on the persons' pixels

    @property
    def pose6d(self) -> Tensor:
        """(132,) mean pose as 6D rotations, with the root turned upright towards the camera.

        People face every way, so their mean orientation says little; starting all of them at "facing the
        camera" is also what the mean-parameter file of the paper's regressor does.
        """
        pose = self.pose.clone()
        pose[0] = FACING_CAMERA
        return rotmat_to_sixd(pose).flatten()


FACING_CAMERA = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # body frame y up, z forward -> camera frame


def training_statistics(
    root: str | Path, config: ModelConfig, samples: int = 2048, batch_size: int = 64
) -> Statistics:
    """Statistics of the first `samples` (or all) unaugmented training samples under a data root.

    Deterministic. Raises what the loader raises if there is no training split.
    """
    loader = make_loader(root, "train", config, min(batch_size, samples), train=False, seed=0, workers=0)
    count, pixels, person_pixels = 0, 0, 0.0
    pose = torch.zeros(22, 3, 3, dtype=torch.float64)
    betas, cam = torch.zeros(config.num_betas, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    parts, depth = torch.zeros(23, dtype=torch.float64), 0.0
    for batch in loader:
        pose += batch["pose"].double().sum(0)
        betas += batch["betas"].double().sum(0)
        cam += weak_perspective(batch).double().sum(0)
        parts += torch.bincount(batch["parts"].flatten(), minlength=23)
        person = batch["depth"] > 0
        depth += float(batch["depth"][person].double().sum())
        person_pixels += int(person.sum())
        pixels += batch["parts"].numel()
        count += len(batch["pose"])
        if count >= samples:
            break
    if count == 0:
        raise ValueError(f"the training split under {root} holds no sample")
    return Statistics(
        samples=count,
        pose=nearest_rotation(pose / count).float(),
        betas=(betas / count).float(),
        cam=(cam / count).float(),
        part_frequency=(parts / pixels).float(),
        mean_depth=torch.tensor(depth / person_pixels if person_pixels else 0.5),
    )


def weak_perspective(batch: dict[str, Tensor]) -> Tensor:
    """(B, 3) the camera (s, tx, ty) that `dpose.camera.full_translation` turns into the batch's `trans`."""
    focal = batch["cam_int"][:, 0, 0]
    side = BOX_UNIT * batch["scale"]  # (B,)
    s = 2 * focal / (batch["trans"][:, 2] * side)  # (B,)
    offset = batch["center"] - 0.5 * batch["img_size"]  # (B, 2)
    t_xy = batch["trans"][:, :2] - 2 * offset / (s * side)[:, None]
    return torch.cat([s[:, None], t_xy], 1)


def nearest_rotation(matrices: Tensor) -> Tensor:
    """(..., 3, 3) the rotations nearest to `matrices`; of a mean of rotations, their chordal mean."""
    u, _, vh = torch.linalg.svd(matrices)
    vh = torch.cat([vh[..., :2, :], vh[..., 2:, :] * torch.linalg.det(u @ vh)[..., None, None]], -2)
    return u @ vh
