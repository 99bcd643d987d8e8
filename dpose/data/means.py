"""Means of a training set: pose, shape, camera, part frequencies and depth of a person.

The regressor predicts residuals on these means (paper, section 3.9), the mini recipe initialises its map
decoders with the frequencies, and evaluation takes the mean pose as the baseline for a trained network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dpose.batch import Batch
from dpose.camera import BOX_UNIT
from dpose.config import ModelConfig
from dpose.data.loader import MAX_BAD, make_loader
from dpose.data.sources import find_sources, mixture
from dpose.model.inference import to_device
from dpose.paths import Data, data_roots, is_generated
from dpose.rotations import nearest_rotation, rotmat_to_sixd


@dataclass(frozen=True)
class Means:
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
        camera" is also what the mean-parameter file of the released code does.
        """
        pose = self.pose.clone()
        pose[0] = FACING_CAMERA
        return rotmat_to_sixd(pose).flatten()


RENDERED = 300  # people that are rendered for means; it takes some ten seconds
FACING_CAMERA = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # body frame y up, z forward -> camera frame


def training_means(
    data: Data,
    config: ModelConfig,
    samples: int = 2048,
    mix: Sequence[float] | None = None,
    max_bad: int = MAX_BAD,
) -> Means:
    """Means over about `samples` (or all) unaugmented training samples, taken from all over the split.

    data, mix, max_bad: as for `make_loader`; of several data sets each gives an equal number of samples, the
    generator at most RENDERED, and counts by its weight. Deterministic. Raises what the loader raises, also
    without a training split.
    """
    roots = data_roots(data)
    weights = mixture(find_sources(roots, "train"), mix)
    share = -(-samples // len(roots))
    sums, count = _Sums(config), 0
    for root, weight in zip(roots, weights, strict=True):
        own, wanted = _Sums(config), min(share, RENDERED) if is_generated(root) else share
        loader = make_loader(root, "train", config, min(64, share), spread=wanted, max_bad=max_bad)
        for batch in loader:
            own.add(to_device(batch, "cpu"))
        count += own.samples
        sums.merge(own, weight / own.samples)
    persons = sums.person_pixels
    return Means(
        samples=count,
        pose=nearest_rotation(sums.pose).float(),
        betas=sums.betas.float(),
        cam=sums.cam.float(),
        part_frequency=(sums.parts / sums.parts.sum()).float(),
        mean_depth=torch.tensor(sums.depth / persons if persons else 0.5),
    )


class _Sums:
    """What the means are made of, in double precision."""

    def __init__(self, config: ModelConfig) -> None:
        self.pose = torch.zeros(22, 3, 3, dtype=torch.float64)
        self.betas = torch.zeros(config.num_betas, dtype=torch.float64)
        self.cam = torch.zeros(3, dtype=torch.float64)
        self.parts = torch.zeros(23, dtype=torch.float64)
        self.depth, self.person_pixels, self.samples = 0.0, 0.0, 0

    def add(self, batch: Batch) -> None:
        person = batch["depth"] > 0
        self.pose += batch["pose"].double().sum(0)
        self.betas += batch["betas"].double().sum(0)
        self.cam += weak_perspective(batch).double().sum(0)
        self.parts += torch.bincount(batch["parts"].flatten(), minlength=23)
        self.depth += float(batch["depth"][person].double().sum())
        self.person_pixels += int(person.sum())
        self.samples += len(batch["pose"])

    def merge(self, other: _Sums, weight: float) -> None:
        for name in ("pose", "betas", "cam", "parts", "depth", "person_pixels"):
            setattr(self, name, getattr(self, name) + weight * getattr(other, name))


def weak_perspective(batch: dict[str, Tensor]) -> Tensor:
    """(B, 3) the camera (s, tx, ty) that `dpose.camera.full_translation` turns into the batch's `trans`."""
    cam_int = batch["cam_int"]
    side = BOX_UNIT * batch["scale"]  # (B,)
    s = 2 * cam_int[:, 0, 0] / (batch["trans"][:, 2] * side)  # (B,)
    offset = batch["center"] - cam_int[:, :2, 2]  # (B, 2)
    t_xy = batch["trans"][:, :2] - 2 * offset / (s * side)[:, None]
    return torch.cat([s[:, None], t_xy], 1)
