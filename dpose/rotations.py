"""Rotations as the network and the body exchange them: 6D vectors (Zhou et al. 2019) and matrices."""

from __future__ import annotations

import roma
import torch
from torch import Tensor

__all__ = ["nearest_rotation", "rotmat_to_sixd", "sixd_to_rotmat"]


def sixd_to_rotmat(sixd: Tensor) -> Tensor:
    """Six numbers a joint to a rotation (Zhou et al. 2019): read as 3x2, row by row, columns orthonormalised.

    A zero or parallel pair of columns gives no rotation but no NaN either.

    Args:
        sixd: (..., 6).
    Returns:
        (..., 3, 3) rotation matrices.
    """
    return roma.special_gramschmidt(sixd.unflatten(-1, (3, 2)), epsilon=1e-8)


def rotmat_to_sixd(rotmats: Tensor) -> Tensor:
    """The first two columns, row by row: (..., 3, 3) -> (..., 6); `sixd_to_rotmat` undoes it exactly."""
    return rotmats[..., :2].flatten(-2)


def nearest_rotation(matrices: Tensor) -> Tensor:
    """(..., 3, 3) the rotations nearest to `matrices`; of a mean of rotations, their chordal mean."""
    u, _, vh = torch.linalg.svd(matrices)
    vh = torch.cat([vh[..., :2, :], vh[..., 2:, :] * torch.linalg.det(u @ vh)[..., None, None]], -2)
    return u @ vh
