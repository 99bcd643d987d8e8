"""Points that are fixed weighted sums of vertices: SMPL vertices from SMPL-X, joints from SMPL vertices.

The weights are read from licensed files or, for the open body, from dpose/assets, and applied as a sparse
product. `dpose.metrics.PROTOCOLS` lists which of them a benchmark uses. Matrices for SMPL-X and for the open
body cannot be mixed: their numbers of vertices differ.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from dpose.body import OPEN_SMPL, files
from dpose.skeleton import NUM_SMPL_JOINTS


def combine(matrix: Tensor, points: Tensor) -> Tensor:
    """Weighted sums of points: matrix (N, V), sparse or dense, times (..., V, 3) -> (..., N, 3).

    Computed in float64, which neither autocast nor TF32 rounds, and returned in the dtype of `points`.
    Differentiable with respect to `points`. Raises ValueError if the numbers of points differ.
    """
    if matrix.shape[-1] != points.shape[-2]:
        raise ValueError(f"a matrix for {matrix.shape[-1]} points, given {points.shape[-2]}")
    columns = points.movedim(-2, 0)  # (V, ..., 3)
    product = matrix.double() @ columns.flatten(1).double()
    return product.unflatten(1, columns.shape[1:]).movedim(0, -2).to(points.dtype)


def smplx_to_smpl(path: str | Path | None = None) -> Tensor:
    """The sparse matrix (6890, 10475), float64, for `combine`: SMPL vertices from SMPL-X vertices.

    path: `smplx2smpl.pkl` or `smplx_to_smpl.pkl`; None: the one under $DPOSE_BODY_MODELS; "open": the open
    body's (6890, 13718), to the vertices of the body "open-smpl". Raises FileNotFoundError, which names
    the download address, or ValueError for another file.
    """
    if path == "open":
        return sparse_tensor(scipy.sparse.load_npz(OPEN_SMPL.with_name("smplx2smpl.npz")))
    return sparse_tensor(files.read_smplx_to_smpl(path))


def joint_regressor(joints: str, path: str | Path | None = None) -> Tensor:
    """The sparse matrix (J, 6890), float64, for `combine`: joints from SMPL vertices.

    joints: "h36m", the 17 of Human3.6M, for the protocol `h36m14`; or "smpl", SMPL's own 24, for `smpl24` and
    `smpl22`. path: `J_regressor_h36m.npy`, or a SMPL file; None: the one under $DPOSE_BODY_MODELS (of SMPL,
    the neutral body's); "open": the one for the body "open-smpl", whose joints are near Human3.6M's.
    Raises FileNotFoundError, which names the download address, or ValueError for another file.
    """
    if joints == "h36m":
        if path == "open":
            return sparse_tensor(scipy.sparse.load_npz(OPEN_SMPL.with_name("J_regressor_h36m.npz")))
        return sparse_tensor(files.read_h36m_regressor(path))
    if joints == "smpl":
        if path is None:
            path = files.locate("smpl-neutral")
        elif path == "open":
            path = OPEN_SMPL
        regressor = files.read_body(path)["J_regressor"]
        if len(regressor) != NUM_SMPL_JOINTS:
            raise ValueError(f"{path} holds a SMPL-X model; SMPL's joints need a SMPL file")
        return sparse_tensor(regressor)
    raise ValueError(f"no regressor for {joints!r} joints; choose 'h36m' or 'smpl'")


def sparse_tensor(matrix: np.ndarray | scipy.sparse.spmatrix) -> Tensor:
    """A matrix as a coalesced sparse tensor (COO, float64, CPU)."""
    coo = scipy.sparse.coo_matrix(matrix)
    indices = torch.as_tensor(np.stack([coo.row, coo.col]).astype(np.int64))
    values = torch.as_tensor(coo.data.astype(np.float64))
    return torch.sparse_coo_tensor(indices, values, coo.shape, check_invariants=True).coalesce()
