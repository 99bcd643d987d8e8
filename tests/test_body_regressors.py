"""Vertices and joints out of other vertices: the sparse product equals the dense one, for every file."""

import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from licensed_files import body_arrays, write_smpl_pkl, write_smplx_npz

from dpose.body.regressors import combine, joint_regressor, smplx_to_smpl, sparse_tensor
from dpose.metrics import PROTOCOLS


def random_matrix(rows: int, columns: int) -> scipy.sparse.csr_matrix:
    return scipy.sparse.random(rows, columns, density=0.2, format="csr", random_state=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_a_sparse_product_equals_the_dense_one_in_numpy(batch, dtype):
    matrix = random_matrix(12, 20)
    points = torch.randn(*batch, 20, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    wanted = np.einsum("nv,...vk->...nk", matrix.toarray(), points.double().numpy())
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for given in (sparse_tensor(matrix), torch.as_tensor(matrix.toarray(), dtype=dtype)):
        got = combine(given, points)
        assert got.dtype == dtype and got.shape == (*batch, 12, 3)
        assert np.abs(got.numpy() - wanted).max() < tolerance


def test_gradients_pass_through_the_product():
    matrix, points = sparse_tensor(random_matrix(6, 9)), torch.randn(2, 9, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: combine(matrix, x), points.requires_grad_())


def test_a_translation_of_all_points_translates_their_weighted_sums():
    matrix = random_matrix(6, 9).toarray() + 0.01
    matrix = sparse_tensor(matrix / matrix.sum(1, keepdims=True))
    points, shift = torch.randn(4, 9, 3), torch.randn(4, 1, 3)
    assert (combine(matrix, points + shift) - combine(matrix, points) - shift).abs().max() < 1e-6


def test_a_matrix_for_another_number_of_points_is_refused():
    with pytest.raises(ValueError, match="a matrix for 9 points, given 8"):
        combine(sparse_tensor(random_matrix(6, 9)), torch.zeros(2, 8, 3))


def test_the_licensed_matrices_become_what_the_protocols_need(tmp_path, monkeypatch):
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path))
    rows = np.arange(6890)
    conversion = scipy.sparse.csc_matrix((np.ones(6890), (rows, (7 * rows) % 10475)), shape=(6890, 10475))
    (tmp_path / "smplx2smpl.pkl").write_bytes(pickle.dumps({"matrix": conversion}))
    h36m = scipy.sparse.random(17, 6890, density=0.01, random_state=0).toarray()
    np.save(tmp_path / "J_regressor_h36m.npy", h36m)
    arrays = body_arrays(24, vertices=30)
    write_smpl_pkl(tmp_path / "smpl/basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl", arrays)

    vertices = torch.randn(2, 10475, 3)
    smpl = combine(smplx_to_smpl(), vertices)
    assert torch.equal(smpl, vertices[:, (7 * rows) % 10475])
    regressor = joint_regressor("h36m")
    assert regressor.is_sparse and len(regressor) == PROTOCOLS["h36m14"].regressed
    wanted = np.einsum("jv,bvk->bjk", h36m, smpl.double().numpy())
    assert np.abs(combine(regressor, smpl).numpy() - wanted).max() < 1e-5
    assert len(joint_regressor("smpl")) == PROTOCOLS["smpl24"].regressed == PROTOCOLS["smpl22"].regressed
    assert np.allclose(joint_regressor("smpl").to_dense(), arrays["J_regressor"], atol=1e-12)


def test_other_files_and_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    with pytest.raises(ValueError, match="no regressor for 'lsp' joints"):
        joint_regressor("lsp")
    with pytest.raises(ValueError, match="SMPLX_MALE.npz holds a SMPL-X model"):
        joint_regressor("smpl", write_smplx_npz(tmp_path / "SMPLX_MALE.npz", body_arrays()))
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"SMPL_NEUTRAL\.pkl.*https://smpl\.is"):
        joint_regressor("smpl")
