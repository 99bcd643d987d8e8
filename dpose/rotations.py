"""Rotations: conversion between matrices and the 6D representation (Zhou et al. 2019), and projection."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sixd_to_rotmat(sixd: Tensor) -> Tensor:
    """6D vectors (..., 6) to rotation matrices (..., 3, 3).

    The six numbers are the first two columns of the matrix, row by row; Gram-Schmidt orthonormalises them.
    Columns that are zero or parallel give a matrix that is finite, but no rotation.
    """
    x, y = sixd.unflatten(-1, (3, 2)).unbind(-1)  # (..., 3) each
    x = F.normalize(x, dim=-1, eps=1e-8)
    y = F.normalize(y - (x * y).sum(-1, keepdim=True) * x, dim=-1, eps=1e-8)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def rotmat_to_sixd(rotmats: Tensor) -> Tensor:
    """The first two columns, row by row: (..., 3, 3) -> (..., 6), the inverse of `sixd_to_rotmat`."""
    return rotmats[..., :2].flatten(-2)


def nearest_rotation(matrices: Tensor) -> Tensor:
    """The rotations nearest to `matrices` (..., 3, 3) in Frobenius norm.

    Of the mean of several rotation matrices, this is their chordal mean.
    """
    u, _, vh = torch.linalg.svd(matrices)
    vh = torch.cat([vh[..., :2, :], vh[..., 2:, :] * torch.linalg.det(u @ vh)[..., None, None]], -2)
    return u @ vh
