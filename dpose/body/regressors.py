"""Points that are fixed weighted sums of vertices: SMPL's vertices out of SMPL-X's, joints out of vertices.

The weights are in licensed files, or in those that stand in for them with the open body; here they become
sparse tensors, and one sparse product applies them. Which a benchmark asks for is said by
`dpose.metrics.PROTOCOLS`. Never mix the two: the open body's numbers of vertices differ from SMPL-X's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from dpose.body import OPEN_SMPL, files

__all__ = ["combine", "joint_regressor", "smplx_to_smpl", "sparse_tensor"]


def combine(matrix: Tensor, points: Tensor) -> Tensor:
    """The sums that a matrix (N, V), sparse or dense, makes of points (..., V, 3) -> (..., N, 3).

    Computed in float64, which neither autocast nor TF32 rounds, and returned in the points' dtype.
    Differentiable with respect to the points. Raises ValueError if the matrix takes another number.
    """
    if matrix.shape[-1] != points.shape[-2]:
        raise ValueError(f"a matrix for {matrix.shape[-1]} points, given {points.shape[-2]}")
    columns = points.movedim(-2, 0)  # (V, ..., 3)
    product = matrix.double() @ columns.flatten(1).double()
    return product.unflatten(1, columns.shape[1:]).movedim(0, -2).to(points.dtype)


def smplx_to_smpl(path: str | Path | None = None) -> Tensor:
    """The sparse matrix (6890, 10475), float64, with which `combine` makes SMPL's vertices of SMPL-X's.

    path: `smplx2smpl.pkl` or `smplx_to_smpl.pkl`; None: the one under $DPOSE_BODY_MODELS; "open": that of
    the open body (6890, 13718), to the vertices of the body "open-smpl". Raises FileNotFoundError with where
    to get it, ValueError if it is something else.
    """
    if path == "open":
        return sparse_tensor(scipy.sparse.load_npz(OPEN_SMPL.with_name("smplx2smpl.npz")))
    return sparse_tensor(files.read_smplx_to_smpl(path))


def joint_regressor(joints: str, path: str | Path | None = None) -> Tensor:
    """The sparse matrix (J, 6890), float64, with which `combine` makes joints of SMPL's vertices.

    joints: "h36m", the 17 of Human3.6M, for the protocol `h36m14`; or "smpl", SMPL's own 24, for `smpl24` and
    `smpl22`. path: `J_regressor_h36m.npy`, or a SMPL file; None: the one under $DPOSE_BODY_MODELS (of SMPL,
    the neutral one's); "open": that for the body "open-smpl", whose joints lie about where Human3.6M's do.
    Raises FileNotFoundError with where to get it, ValueError if it is something else.
    """
    if joints == "h36m":
        if path == "open":
            return sparse_tensor(scipy.sparse.load_npz(OPEN_SMPL.with_name("J_regressor_h36m.npz")))
        return sparse_tensor(files.read_h36m_regressor(path))
    if joints == "smpl":
        path = OPEN_SMPL if path == "open" else path or files.locate("smpl-neutral")
        regressor = files.read_body(path)["J_regressor"]
        if len(regressor) != 24:
            raise ValueError(f"{path} holds a SMPL-X model; SMPL's joints need a SMPL file")
        return sparse_tensor(regressor)
    raise ValueError(f"no regressor for {joints!r} joints; choose 'h36m' or 'smpl'")


def sparse_tensor(matrix: np.ndarray | scipy.sparse.spmatrix) -> Tensor:
    """A coalesced sparse tensor (COO, float64, on the CPU) of a matrix."""
    coo = scipy.sparse.coo_matrix(matrix)
    indices = torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64))
    values = torch.as_tensor(coo.data.astype(np.float64))
    return torch.sparse_coo_tensor(indices, values, coo.shape, check_invariants=True).coalesce()
