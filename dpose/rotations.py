"""Rotations: conversion between matrices and the 6D representation (Zhou et al. 2019), and projection."""

from __future__ import annotations

import roma
import torch
from torch import Tensor


def sixd_to_rotmat(sixd: Tensor) -> Tensor:
    """6D vectors (..., 6) to rotation matrices (..., 3, 3).

    The six numbers are the first two columns of the matrix, row by row; Gram-Schmidt orthonormalises them.
    Columns that are zero or parallel give a matrix that is finite, but no rotation.
    """
    return roma.special_gramschmidt(sixd.unflatten(-1, (3, 2)), epsilon=1e-8)


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
