"""The open body in SMPL's format: the same body on fewer vertices, for every protocol on open data."""

import sys
from pathlib import Path

import numpy as np
import pytest
import roma
import scipy.spatial
import torch
import trimesh

from dpose.body import OPEN_SMPL, load_body
from dpose.body.regressors import combine, joint_regressor, smplx_to_smpl
from dpose.metrics import PROTOCOLS, BodyErrors
from dpose.skeleton import JOINT_NAMES, PART_NAMES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from build_open_smpl import H36M, simplify  # noqa: E402


@pytest.fixture(autouse=True)
def no_licensed_files(monkeypatch):
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def smpl():
    return load_body(OPEN_SMPL)


def random_people(count: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rotvec = 0.4 * torch.randn(count, 22, 3, generator=generator)
    return torch.randn(count, 11, generator=generator), roma.rotvec_to_rotmat(rotvec)


def with_hands(rotmats: torch.Tensor) -> torch.Tensor:
    return torch.cat([rotmats, torch.eye(3).expand(len(rotmats), 2, 3, 3)], dim=1)


def test_it_has_smpls_numbers_of_vertices_and_joints(smpl):
    assert smpl.num_vertices == 6890 and smpl.num_rotations == 24
    assert smpl(torch.zeros(1, 11), torch.eye(3).expand(1, 24, 3, 3)).joints.shape == (1, 24, 3)


def test_the_converted_open_body_is_the_smpl_like_body_in_the_same_pose(body, smpl):
    betas, rotmats = random_people(6)
    wanted, got = smpl(betas, with_hands(rotmats)), body(betas, rotmats)
    assert (combine(smplx_to_smpl("open"), got.vertices) - wanted.vertices).abs().max() < 1e-5
    assert (got.joints[:, :22] - wanted.joints[:, :22]).abs().max() < 1e-5


def test_the_parts_stay_what_they_were(body, smpl):
    kept = smplx_to_smpl("open").indices()[1]
    assert torch.equal(smpl.part_of_vertex, body.part_of_vertex[kept])
    assert smpl.part_of_vertex.bincount(minlength=len(PART_NAMES)).min() > 30


def test_its_surface_is_closed_and_hardly_moved(body, smpl):
    fine, coarse = (
        trimesh.Trimesh(b.rest_vertices(torch.zeros(1, 11))[0], b.faces, process=False) for b in (body, smpl)
    )
    assert coarse.is_watertight and coarse.is_winding_consistent
    assert coarse.euler_number == fine.euler_number == 8  # the skin, two eyes and the mouth
    assert abs(coarse.volume / fine.volume - 1) < 2e-3
    assert abs(coarse.area / fine.area - 1) < 0.02
    near = scipy.spatial.KDTree(coarse.triangles_center).query(fine.vertices, 50)[1].ravel()
    points = np.repeat(fine.vertices, 50, axis=0)
    nearest = trimesh.triangles.closest_point(coarse.triangles[near], points)
    apart = np.linalg.norm(nearest - points, axis=1).reshape(-1, 50).min(1)
    assert apart.max() < 2.2e-3 and apart.mean() < 0.25e-3  # as scripts/build_open_smpl.py has it


def test_its_fingers_turn_about_the_knuckles(smpl):
    betas, rotmats = torch.zeros(1, 11), torch.eye(3).repeat(1, 24, 1, 1)
    still = smpl(betas, rotmats)
    rotmats[:, 22] = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 0.8]))
    turned = smpl(betas, rotmats)
    moved = (turned.vertices - still.vertices).norm(dim=-1)[0]
    assert torch.equal(turned.joints, still.joints) and moved.max() > 0.05
    assert set(smpl.part_of_vertex[moved > 1e-4].tolist()) == {PART_NAMES.index("left_wrist")}


def test_the_human36m_like_joints_follow_shape_and_pose(body, smpl):
    betas, rotmats = random_people(20, seed=9)  # other people than they were fitted to
    joints = body(betas, rotmats).joints
    regressor = joint_regressor("h36m", "open")
    assert (regressor.values() > 0).all()
    assert np.allclose(regressor.to_dense().sum(1), 1, atol=1e-3)
    got = combine(regressor, smpl(betas, with_hands(rotmats)).vertices)
    assert got.shape == (20, 17, 3)
    for i, names in enumerate(H36M):
        if names:
            wanted = joints[:, [JOINT_NAMES.index(name) for name in names]].mean(1)
            assert (got[:, i] - wanted).norm(dim=-1).mean() < 0.0171, names


def test_smpls_joints_are_regressed_from_resting_vertices(smpl):
    betas = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    joints = smpl(betas, torch.eye(3).expand(5, 24, 3, 3)).joints
    assert (combine(joint_regressor("smpl", "open"), smpl.rest_vertices(betas)) - joints).abs().max() < 1e-4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_runs_on_open_data(body, smpl, protocol):
    betas, rotmats = random_people(4)
    matrices = {}
    if PROTOCOLS[protocol].regressor:
        joints = "h36m" if protocol == "h36m14" else "smpl"
        matrices = {"smplx_to_smpl": smplx_to_smpl("open"), "regressor": joint_regressor(joints, "open")}
        truth = smpl(betas, with_hands(rotmats))
    else:
        truth = body(betas, rotmats)
    for turn, near in ((0.0, True), (0.3, False)):
        errors = BodyErrors(protocol, **matrices)
        turned = rotmats @ roma.rotvec_to_rotmat(torch.tensor([turn, 0.0, 0.0]))
        errors.update(body(betas, turned), truth)
        for name, value in errors.compute().items():
            assert (value < 0.01) if near else (value > 1), (name, value)  # millimetres


def test_a_sphere_on_fewer_vertices_is_still_a_sphere():
    sphere = trimesh.creation.icosphere(3)  # 642 vertices
    stays, faces = simplify(np.asarray(sphere.vertices), np.asarray(sphere.faces), 200)
    coarse = trimesh.Trimesh(sphere.vertices[stays], faces, process=False)
    assert len(stays) == 200 and len(faces) == 2 * 200 - 4
    assert coarse.is_watertight and coarse.is_winding_consistent and coarse.euler_number == 2
    assert np.ptp(np.linalg.norm(coarse.triangles_center, axis=1)) < 0.06
    assert coarse.volume > 0.95 * sphere.volume
