"""The body: the open asset's geometry, and `Body` against the `smplx` package's own forward pass."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import roma
import smplx
import torch
from on_device import OnDevice
from scipy.spatial.transform import Rotation
from smplx.joint_names import JOINT_NAMES as SMPLX_JOINT_NAMES

from dpose.body import FORMS, OPEN_BODY, OPEN_SMPL, Body, load_body
from dpose.skeleton import JOINT_NAMES, PARENTS, PART_NAMES

HELD_OUT = Path(__file__).parent / "data" / "open_body_held_out.npz"
EXTRA = "nose reye leye rear lear LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel".split() + [
    f"{side}{finger}" for side in "lr" for finger in ("thumb", "index", "middle", "ring", "pinky")
]


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def reference() -> smplx.SMPLXLayer:
    return smplx.SMPLXLayer(str(OPEN_BODY), num_betas=11)


def random_input(batch: int, num_betas: int = 11, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "betas": torch.randn(batch, num_betas, generator=g),
        "rotations": roma.rotvec_to_rotmat(0.6 * torch.randn(batch, 22, 3, generator=g)),
        "trans": torch.randn(batch, 3, generator=g),
        "hands": roma.rotvec_to_rotmat(0.6 * torch.randn(batch, 30, 3, generator=g)),
    }


def smplx_output(layer: smplx.SMPLXLayer, betas, rotations, trans=None, hands=None):
    hands = torch.eye(3, dtype=betas.dtype).expand(len(betas), 30, 3, 3) if hands is None else hands
    return layer(
        betas=betas,
        global_orient=rotations[:, :1],
        body_pose=rotations[:, 1:],
        transl=trans,
        left_hand_pose=hands[:, :15],
        right_hand_pose=hands[:, 15:],
    )


def rest(body: Body, betas: torch.Tensor):
    out = body(betas, torch.eye(3).expand(len(betas), 22, 3, 3))
    return out.vertices, dict(zip(JOINT_NAMES, out.joints.unbind(1), strict=True))


def test_names_and_tree_are_those_of_smplx(reference):
    assert list(PART_NAMES) == SMPLX_JOINT_NAMES[:22]
    assert [n.removesuffix("_smplhf") for n in SMPLX_JOINT_NAMES[:55]] == list(JOINT_NAMES)
    assert reference.parents.tolist() == list(PARENTS)


def test_zero_pose_is_a_t_pose_facing_forward_for_every_shape(body):
    vertices, joint = rest(body, torch.randn(20, 11, generator=torch.Generator().manual_seed(1)))
    height = vertices[..., 1].amax(1) - vertices[..., 1].amin(1)
    assert 1.3 < height.min() and height.max() < 2.1
    for side, sign in (("left", 1), ("right", -1)):
        arm = torch.stack(
            [joint[f"{side}_{n}"] for n in ("shoulder", "elbow", "wrist", "middle1", "middle3")], 1
        )
        assert (sign * arm[..., 0].diff(dim=1) > 0.01).all()  # outwards
        assert (arm[..., 1:] - arm[:, :1, 1:]).abs().max() < 0.02  # level and straight
        assert (joint[f"{side}_index1"][:, 2] > joint[f"{side}_pinky1"][:, 2]).all()  # palms down
        assert (joint[f"{side}_thumb3"][:, 2] > joint[f"{side}_index1"][:, 2]).all()
        assert (joint[f"{side}_foot"][:, 2] > joint[f"{side}_ankle"][:, 2] + 0.05).all()
        assert (joint[f"{side}_eye"][:, 2] > joint["head"][:, 2] + 0.03).all()
    heights = [
        joint[n][:, 1] for n in ("left_foot", "left_ankle", "left_knee", "left_hip", "pelvis", "spine1")
    ]
    heights += [joint[n][:, 1] for n in ("spine2", "spine3", "left_shoulder", "neck", "head", "left_eye")]
    assert (torch.stack(heights).diff(dim=0) > 0).all()
    assert joint["pelvis"].abs().max() < 3e-3


def test_feet_are_flat_on_one_ground(body):
    betas = torch.randn(20, 11, generator=torch.Generator().manual_seed(2))
    vertices, _ = rest(body, betas)
    lowest = []
    for side in ("left", "right"):
        for part in ("ankle", "foot"):
            chosen = body.part_of_vertex == PART_NAMES.index(f"{side}_{part}")
            lowest.append(vertices[:, chosen, 1].amin(1))
    lowest = torch.stack(lowest)
    assert (lowest.amax(0) - lowest.amin(0)).max() < 0.02


def test_left_is_the_persons_left_and_both_sides_mirror(body):
    vertices, joint = rest(body, torch.zeros(1, 11))
    for i, name in enumerate(PART_NAMES):
        x = vertices[0, body.part_of_vertex == i, 0]
        assert len(x) > 20, name
        if name.startswith("left"):
            assert (x > 0).float().mean() > 0.99
        elif name.startswith("right"):
            assert (x < 0).float().mean() > 0.99
    for name in JOINT_NAMES:
        if name.startswith("left"):
            mirrored = joint[name] * torch.tensor([-1.0, 1, 1])
            assert (mirrored - joint[name.replace("left", "right")]).abs().max() < 2e-3, name


def test_surface_normals_point_outwards(body):
    corners = body.rest_vertices(torch.zeros(1, 11))[0][body.faces]
    volume = (corners[:, 0].cross(corners[:, 1], dim=1) * corners[:, 2]).sum() / 6
    assert 0.04 < volume < 0.11  # cubic metres of a person


def test_joints_bend_the_anatomical_way(body):
    rotvec = torch.zeros(3, 22, 3)
    rotvec[0, PART_NAMES.index("left_elbow"), 1] = -1.5
    rotvec[1, PART_NAMES.index("right_knee"), 0] = 1.5
    rotvec[2, PART_NAMES.index("head"), 1] = 0.7
    out = body(torch.zeros(3, 11), roma.rotvec_to_rotmat(rotvec)).joints
    zero = body(torch.zeros(3, 11), torch.eye(3).expand(3, 22, 3, 3)).joints
    moved = dict(zip(JOINT_NAMES, (out - zero).unbind(1), strict=True))
    assert moved["left_wrist"][0, 2] > 0.15 and moved["left_elbow"][0].norm() < 1e-6
    assert moved["right_ankle"][1, 2] < -0.25 and moved["right_knee"][1].norm() < 1e-6
    assert moved["left_eye"][2, 0] > 0.02  # looks to its left


def test_betas_of_held_out_adults_have_unit_variance():
    betas = np.load(HELD_OUT)["betas"]
    assert betas.shape == (100, 11)
    assert np.abs(betas.mean(0)).max() < 0.4
    assert 0.75 < betas.std(0).min() and betas.std(0).max() < 1.3


def test_regressed_joints_are_those_of_held_out_adults(body):
    held_out = np.load(HELD_OUT)
    betas = torch.as_tensor(held_out["betas"])
    joints = body(betas, torch.eye(3).expand(len(betas), 22, 3, 3)).joints
    error = (joints - torch.as_tensor(held_out["joints"])).norm(dim=-1)
    assert error.mean() < 1e-3 and error.mean(0).max() < 3e-3


@pytest.mark.parametrize("with_hands", [False, True])
def test_output_equals_smplx(body, reference, with_hands):
    given = random_input(4)
    if not with_hands:
        given["hands"] = None
    got, wanted = body(**given), smplx_output(reference, **given)
    assert (got.vertices - wanted.vertices).abs().max() < 1e-5
    assert (got.joints - wanted.joints[:, :55]).abs().max() < 1e-5


def rotations_as(form: str, rotvec: np.ndarray) -> torch.Tensor:
    """Axis-angle (..., 3) in another form, float64, by scipy; 6D stretched, which means the same rotation."""
    matrices = Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(*rotvec.shape, 3)
    sixd = (1.7 * matrices[..., :2]).reshape(*rotvec.shape[:-1], 6)
    return torch.from_numpy({"matrix": matrices, "axis-angle": rotvec, "6d": sixd}[form])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rotations_gives_smplx_s_output_in_float64(form):
    rng = np.random.default_rng(0)
    turns, fingers = rng.normal(size=(3, 22, 3)), 0.5 * rng.normal(size=(3, 30, 3))
    turns[0, :5] = 0  # at rest
    turns[1, :5] *= np.pi / np.linalg.norm(turns[1, :5], axis=-1, keepdims=True)  # half a turn
    betas, trans = (torch.from_numpy(rng.normal(size=(3, n))) for n in (11, 3))
    stock = smplx.SMPLX(
        str(OPEN_BODY), num_betas=11, use_pca=False, flat_hand_mean=True, batch_size=3, dtype=torch.float64
    )
    wanted = stock(
        betas=betas,
        transl=trans,
        global_orient=torch.from_numpy(turns[:, 0]),
        body_pose=torch.from_numpy(turns[:, 1:]).flatten(1),
        left_hand_pose=torch.from_numpy(fingers[:, :15]).flatten(1),
        right_hand_pose=torch.from_numpy(fingers[:, 15:]).flatten(1),
    )
    given = betas, rotations_as(form, turns), trans, rotations_as(form, fingers)
    got = load_body().double()(*given, form=form)
    assert (got.vertices - wanted.vertices).abs().max() < 1e-7  # buffers came through float32
    assert (got.joints - wanted.joints[:, :55]).abs().max() < 1e-7


@pytest.mark.parametrize("form", FORMS)
def test_every_form_poses_smpl_too_and_autocast_does_not_round_it(form):
    turns = np.random.default_rng(1).normal(size=(2, 24, 3))
    smpl, betas = load_body(OPEN_SMPL), torch.randn(2, 11)
    wanted = smpl(betas, rotations_as("matrix", turns)).vertices
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = smpl(betas, rotations_as(form, turns), form=form).vertices
    assert (got - wanted).abs().max() < 5e-6


@pytest.mark.parametrize("form", FORMS)
def test_no_form_needs_anything_from_the_host(form, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    shape, _ = FORMS[form]
    body = load_body(vertex_stride=100).to("meta")
    given = [torch.empty(2, *size, device="meta") for size in ((11,), (22, *shape), (3,), (30, *shape))]
    with OnDevice(given, list(body.buffers())):
        assert body(*given, form=form).vertices.device.type == "meta"


@pytest.mark.parametrize("form", ["axis-angle", "6d"])
def test_gradients_pass_through_every_form_also_at_rest(form):
    turns = np.random.default_rng(2).normal(size=(1, 22, 3))
    turns[0, ::2] = 0
    coarse, betas = load_body(vertex_stride=6000).double(), torch.zeros(1, 11).double()
    given = rotations_as(form, turns).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(coarse(betas, x, form=form)), given, fast_mode=True)


def test_resting_hands_may_be_left_out(body):
    given = random_input(2)
    given["hands"] = torch.eye(3).expand(2, 30, 3, 3)
    explicit, folded = body(**given), body(given["betas"], given["rotations"], given["trans"])
    assert (explicit.vertices - folded.vertices).abs().max() < 1e-5
    assert (explicit.joints - folded.joints).abs().max() < 1e-5


def test_double_precision_is_kept(body):
    given = {k: v.double() for k, v in random_input(2).items()}
    exact = load_body().double()(**given)
    assert exact.vertices.dtype == exact.joints.dtype == torch.float64
    assert (exact.vertices - body(**random_input(2)).vertices).abs().max() < 1e-5


def test_autocast_does_not_cost_precision(body):
    given = random_input(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = body(**given)
        assert torch.equal(body.rest_vertices(given["betas"]), body.rest_vertices(given["betas"].double()))
    assert torch.equal(output.vertices, body(**given).vertices)
    assert torch.equal(output.joints, body(**given).joints)


def test_a_vertex_stride_keeps_every_nth_vertex_and_all_joints(body):
    given = random_input(2)
    coarse = load_body(vertex_stride=5)
    assert coarse.num_vertices == -(-body.num_vertices // 5)
    torch.testing.assert_close(coarse(**given).vertices, body(**given).vertices[:, ::5], atol=2e-6, rtol=0)
    torch.testing.assert_close(coarse(**given).joints, body(**given).joints)
    assert torch.equal(coarse.part_of_vertex, body.part_of_vertex[::5])


def test_gradients_reach_shape_pose_and_translation():
    coarse = load_body(vertex_stride=6000).double()
    given = [v.double().requires_grad_() for v in random_input(1).values()]
    assert torch.autograd.gradcheck(lambda *x: tuple(coarse(*x)), given, fast_mode=True)


def test_smplx_create_reads_the_asset():
    model = smplx.create(
        str(OPEN_BODY.parents[1]), "smplx", use_pca=False, num_betas=11, use_face_contour=True
    )
    output = model()
    assert output.vertices.shape == (1, load_body().num_vertices, 3)
    assert output.joints.shape == (1, 55 + 21 + 51 + 17, 3)


def test_vertices_that_smplx_names_lie_on_the_right_places(body, reference):
    given = {"betas": torch.zeros(1, 11), "rotations": torch.eye(3).expand(1, 22, 3, 3)}
    output = smplx_output(reference, **given)
    joint = dict(zip(JOINT_NAMES, output.joints[0], strict=False))
    extra = dict(zip(EXTRA, output.joints[0, 55:76], strict=True))
    for side, sign in (("left", 1), ("right", -1)):
        s = side[0]
        for finger in ("thumb", "index", "middle", "ring", "pinky"):
            reach = (extra[s + finger] - joint[f"{side}_{finger}3"]).norm()
            assert 0.01 < reach < 0.045, (side, finger)
        heel, ankle = extra[f"{s.upper()}Heel"], joint[f"{side}_ankle"]
        assert 0.02 < ankle[2] - heel[2] < 0.09 and abs(heel[0] - ankle[0]) < 0.03
        big, small = extra[f"{s.upper()}BigToe"], extra[f"{s.upper()}SmallToe"]
        assert big[2] > joint[f"{side}_foot"][2] + 0.03 and sign * (small[0] - big[0]) > 0.03
        assert (extra[s + "eye"] - joint[f"{side}_eye"]).norm() < 0.03
        assert 0.06 < sign * extra[s + "ear"][0] < 0.1
    nose = extra["nose"]
    assert abs(nose[0]) < 5e-3 and nose[2] > extra["leye"][2] + 0.01 and nose[1] < extra["leye"][1] - 0.02


def write_made_up_smplx(path: Path, columns: int, **changes) -> Path:
    """A file as the licensed ones are laid out (10,475 vertices, pose correctives, uint32 tree), with random
    numbers.
    """
    rng = np.random.default_rng(0)
    v = 10475
    weights = np.zeros((v, 55))
    for _ in range(4):
        weights[np.arange(v), rng.integers(0, 55, v)] += rng.random(v) + 0.05
    weights /= weights.sum(1, keepdims=True)
    regressor = np.zeros((55, v))
    regressor[np.repeat(np.arange(55), 8), rng.integers(0, v, 440)] = 1 / 8
    tree = np.array([PARENTS, range(55)]) % 2**32
    arrays = {
        "v_template": rng.normal(size=(v, 3), scale=0.3),
        "shapedirs": 0.02 * rng.standard_normal((v, 3, columns), dtype=np.float32),
        "posedirs": 0.002 * rng.standard_normal((v, 3, 486), dtype=np.float32),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": tree.astype(np.uint32),
        "f": rng.integers(0, v, (20908, 3)).astype(np.uint32),
        **{f"hands_mean{s}": np.zeros(45) for s in "lr"},
        **{f"hands_components{s}": np.eye(45) for s in "lr"},
        "lmk_faces_idx": np.zeros(51, dtype=np.int64),
        "lmk_bary_coords": np.full((51, 3), 1 / 3),
        "joint2num": np.array(
            {"Pelvis": 0}, dtype=object
        ),  # genuine files hold pickled objects beside the arrays
    } | changes
    np.savez(path, **{k: a for k, a in arrays.items() if a is not None})
    return path


@pytest.mark.parametrize("columns", [20, 400])
def test_a_file_with_smplx_s_own_sizes_gives_smplx_s_own_output(tmp_path, columns):
    path = write_made_up_smplx(tmp_path / "SMPLX_NEUTRAL.npz", columns)
    num_betas = 10 if columns == 20 else 11
    layer = smplx.SMPLXLayer(str(path), num_betas=num_betas)
    given = random_input(2, num_betas)
    ours = load_body(path, num_betas=num_betas)
    assert ours.num_vertices == 10475
    for hands in (None, given["hands"]):
        got, wanted = ours(**given | {"hands": hands}), smplx_output(layer, **given | {"hands": hands})
        assert (got.vertices - wanted.vertices).abs().max() < 2e-5
        assert (got.joints - wanted.joints[:, :55]).abs().max() < 2e-5
    if columns == 20:  # an eleventh beta means nothing to a file of ten
        eleven = torch.cat([given["betas"], torch.ones(2, 1)], dim=1)
        assert torch.equal(load_body(path).rest_vertices(eleven), ours.rest_vertices(given["betas"]))


def test_licensed_files_are_found_by_the_environment_variable(tmp_path, monkeypatch):
    (tmp_path / "smplx").mkdir()
    write_made_up_smplx(tmp_path / "smplx" / "SMPLX_MALE.npz", 20)
    monkeypatch.setenv("DPOSE_BODY_MODELS", str(tmp_path))
    assert load_body("smplx-male").num_vertices == 10475
    with pytest.raises(FileNotFoundError, match="SMPLX_NEUTRAL.npz.*DPOSE_BODY_MODELS"):
        load_body("smplx-neutral")
    monkeypatch.delenv("DPOSE_BODY_MODELS")
    with pytest.raises(FileNotFoundError, match="DPOSE_BODY_MODELS is not set"):
        load_body("smplx-male")


def test_bad_files_and_shapes_are_named(tmp_path, body):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    with pytest.raises(FileNotFoundError, match="no body model at"):
        load_body(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="SMPLX_NEUTRAL.npz is not"):
        load_body(path)
    for change, message in (
        ({"weights": None}, "'weights'.* missing"),
        ({"J_regressor": np.zeros((24, 10475))}, r"J_regressor has shape \(24, 10475\)"),
        ({"kintree_table": np.zeros((2, 55), dtype=np.uint32)}, "joint tree"),
        ({"f": np.array([None] * 3, dtype=object)}, "SMPLX_NEUTRAL.npz is not"),
    ):
        with pytest.raises(ValueError, match=message):
            load_body(
                write_made_up_smplx(path, 20, posedirs=np.zeros((10475, 3, 486), dtype=np.int8), **change)
            )
    with pytest.raises(ValueError, match=r"betas must have shape \(B, 11\), got \(2, 10\)"):
        body(torch.zeros(2, 10), torch.eye(3).expand(2, 22, 3, 3))
    with pytest.raises(
        ValueError, match=r"rotations as 'matrix' must have shape \(B, 22, 3, 3\), got \(2, 22"
    ):
        body(torch.zeros(2, 11), torch.zeros(2, 22, 3))
    with pytest.raises(ValueError, match=r"hands as '6d' must have shape \(B, 30, 6\), got \(2, 30, 3\)"):
        body(torch.zeros(2, 11), torch.zeros(2, 22, 6), hands=torch.zeros(2, 30, 3), form="6d")
    for lengths in ((3, 8, 8, 8), (1, 8, 8, 8), (8, 8, 1, 8), (8, 8, 8, 1)):
        given = (
            torch.zeros(n, *size) for n, size in zip(lengths, ((11,), (22, 3), (3,), (30, 3)), strict=True)
        )
        with pytest.raises(ValueError, match="{} betas, {} rotations, {} trans, {} hands".format(*lengths)):
            body(*given, form="axis-angle")
    with pytest.raises(ValueError, match="'quaternion'.*matrix, axis-angle, 6d"):
        body(torch.zeros(2, 11), torch.zeros(2, 22, 4), form="quaternion")
    with pytest.raises(ValueError, match="vertex_stride"):
        load_body(vertex_stride=0)


@pytest.mark.parametrize("path, rotations", [(OPEN_BODY, 22), (OPEN_SMPL, 24)])
def test_joints_without_the_surface_are_the_joints(path, rotations):
    body = load_body(path)
    given = random_input(3)
    rotmats = given["rotations"][:, [*range(22), 1, 2][:rotations]]
    hands = given["hands"] if rotations == 22 else None
    whole = body(given["betas"], rotmats, given["trans"], hands)
    alone = body(given["betas"], rotmats, given["trans"], hands, surface=False)
    assert alone.vertices.shape == (3, 0, 3) and torch.equal(alone.joints, whole.joints)
