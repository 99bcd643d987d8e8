"""dpose.metrics against closed forms, scipy, and the properties that define them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation
from torchmetrics.classification import MulticlassJaccardIndex

from dpose import metrics
from dpose.body import BodyOutput

DOUBLE = torch.float64
seeds = st.integers(0, 2**31)


def random_joints(seed, batch=4, joints=24):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, joints, 3, dtype=DOUBLE, generator=generator) * 0.3


def random_rotation(seed, dtype=DOUBLE):
    return torch.tensor(Rotation.random(random_state=seed % 2**31).as_matrix(), dtype=dtype)


def best_similarity(x, y):
    """scipy's best rotation (never a reflection), then the best scale and shift."""
    x, y = x - x.mean(0), y - y.mean(0)
    rotated = Rotation.align_vectors(y, x)[0].apply(x)
    return (rotated * y).sum() / (x**2).sum() * rotated, y


def test_one_joint_off_by_a_known_length_gives_its_share_of_the_mean():
    truth = random_joints(0)
    joints = truth.clone()
    joints[:, 5] += torch.tensor([0.03, 0.0, 0.04])

    assert metrics.mpjpe(joints, truth).tolist() == pytest.approx([50 / 24] * 4)


def test_mpjpe_and_mve_are_relative_to_the_pelvis():
    truth, shift = random_joints(0), torch.tensor([1.0, -2.0, 3.0])
    vertices = random_joints(1, joints=50)

    assert metrics.mpjpe(truth + shift, truth).max() < 1e-9
    assert metrics.mve(vertices + shift, vertices, truth + shift, truth).max() < 1e-9


def test_the_pelvis_is_the_midpoint_of_the_hips():
    truth = torch.zeros(1, 24, 3, dtype=DOUBLE)
    joints = truth.clone()
    joints[0, 1, 0] = 0.024  # the pelvis moves by 12 mm, so 23 joints are 12 mm off and so is this hip

    assert metrics.mpjpe(joints, truth).item() == pytest.approx(12)
    assert metrics.mve(truth, truth, joints, truth).item() == pytest.approx(12)


def test_joints_beyond_the_protocol_s_do_not_count():
    truth = random_joints(0, joints=55)
    joints = truth.clone()
    joints[:, 24:] += 1

    assert metrics.mpjpe(joints, truth).max() == 0
    assert metrics.pa_mpjpe(joints, truth).max() < 1e-6


@settings(deadline=None, max_examples=30)
@given(seeds, st.floats(0.1, 10))
def test_pa_mpjpe_is_invariant_to_a_similarity(seed, scale):
    truth, joints = random_joints(seed), random_joints(seed + 1)
    rotation = random_rotation(seed)

    moved = scale * joints @ rotation.T + torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)

    assert torch.allclose(metrics.pa_mpjpe(moved, truth), metrics.pa_mpjpe(joints, truth), rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_pa_mpjpe_equals_scipy_s_best_rotation_with_the_best_scale(seed):
    truth, joints = random_joints(seed), random_joints(seed + 1)

    expected = []
    for x, y in zip(joints.numpy(), truth.numpy(), strict=True):
        aligned, centred = best_similarity(x, y)
        expected.append(1000 * np.linalg.norm(aligned - centred, axis=1).mean())

    assert metrics.pa_mpjpe(joints, truth).tolist() == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(seeds, seeds)
def test_turning_both_bodies_alike_changes_no_error(seed, turn):
    truth, joints = random_joints(seed), random_joints(seed + 1)
    rotation = random_rotation(turn)

    for metric in (metrics.mpjpe, metrics.pa_mpjpe):
        assert torch.allclose(metric(joints @ rotation, truth @ rotation), metric(joints, truth))
    aligned = metrics.similarity_align(joints @ rotation, truth @ rotation)
    assert torch.allclose(aligned, metrics.similarity_align(joints, truth) @ rotation)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_residual_where_no_mirroring_is_needed_is_scipy_s_procrustes_disparity(seed):
    """`scipy.spatial.procrustes` may mirror, so the cloud is a moved and blurred truth."""
    truth = random_joints(seed, batch=1)[0]
    joints = truth @ random_rotation(seed) * 3 + 0.1 * random_joints(seed + 1, batch=1)[0]

    residual = (metrics.similarity_align(joints, truth) - truth).square().sum()
    size = (truth - truth.mean(0)).square().sum()

    assert (residual / size).item() == pytest.approx(procrustes(truth.numpy(), joints.numpy())[2], rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_single_precision_errs_by_less_than_a_micrometre_ten_metres_away(seed):
    truth, joints = random_joints(seed), random_joints(seed + 1)
    far = torch.tensor([1.0, 2.0, 10.0])
    truth, joints = ((x + far).float() for x in (truth, joints))

    for metric in (metrics.mpjpe, metrics.pa_mpjpe):
        exact = metric(joints.double(), truth.double())
        assert (metric(joints, truth) - exact).abs().max() < 2e-3  # mm


@pytest.mark.parametrize("size", [1e-25, 1e-8, 1e8])
def test_a_body_of_any_size_is_aligned_also_in_single_precision(size):
    truth, joints = random_joints(0).float(), random_joints(1).float()

    assert torch.allclose(metrics.pa_mpjpe(size * joints, truth), metrics.pa_mpjpe(joints, truth), rtol=1e-5)


def test_a_sample_that_is_not_finite_has_no_error_and_spoils_no_other():
    truth, joints = random_joints(0), random_joints(1)
    joints[1, 3, 0], joints[2, 5] = torch.nan, torch.inf

    for metric in (metrics.mpjpe, metrics.pa_mpjpe):
        errors = metric(joints, truth)
        assert not errors[1:3].isfinite().any()
        assert torch.equal(errors[[0, 3]], metric(joints[[0, 3]], truth[[0, 3]]))


def test_autocast_rounds_nothing():
    truth, joints = random_joints(0).float(), random_joints(1).float()
    body, true_body = (BodyOutput(random_joints(i, 4, 50).float(), None) for i in (2, 3))
    regressed = metrics.BodyErrors("smpl24", regressor=torch.eye(24, 50))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = metrics.pa_mpjpe(joints, truth), regressed.per_sample(body, true_body)
    high = metrics.pa_mpjpe(joints, truth), regressed.per_sample(body, true_body)

    assert torch.equal(low[0], high[0]) and all(torch.equal(low[1][k], high[1][k]) for k in high[1])


@settings(deadline=None, max_examples=20)
@given(seeds, st.permutations(range(4)))
def test_a_permuted_batch_gives_permuted_errors(seed, order):
    truth, joints = random_joints(seed), random_joints(seed + 1)

    for metric in (metrics.mpjpe, metrics.pa_mpjpe):
        assert torch.allclose(
            metric(joints[list(order)], truth[list(order)]), metric(joints, truth)[list(order)]
        )


def test_a_mirrored_body_cannot_be_aligned():
    truth = random_joints(0)
    mirrored = truth * torch.tensor([-1.0, 1.0, 1.0])
    aligned = metrics.similarity_align(mirrored, truth)
    least = (aligned - truth).square().sum((1, 2))

    assert (least > 0.1).all()
    for seed in range(50):  # no other rotation, each with its own best scale, does better
        rotated = mirrored @ random_rotation(seed)
        x, y = (p - p.mean(1, keepdim=True) for p in (rotated, truth))
        scale = ((x * y).sum((1, 2)) / x.square().sum((1, 2))).clamp(min=0)
        assert ((scale[:, None, None] * x - y).square().sum((1, 2)) >= least - 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("kind", ["single point", "identical", "collinear", "planar", "equal"])
def test_degenerate_clouds_align_exactly(kind, dtype):
    """Each is a similarity of itself turned, grown and moved, so the residual must vanish."""
    cloud = random_joints(3).to(dtype)
    if kind == "single point":
        cloud = cloud[:, :1]
    elif kind == "identical":
        cloud = cloud[:, :1].expand(-1, 24, -1)
    elif kind == "collinear":
        cloud = cloud[..., :1] * torch.tensor([1.0, 2.0, -1.0], dtype=dtype)
    elif kind == "planar":
        cloud = cloud * torch.tensor([1.0, 1.0, 0.0], dtype=dtype)
    rotation = random_rotation(1, dtype)
    moved = cloud if kind == "equal" else 1.7 * cloud @ rotation.T + 1

    aligned = metrics.similarity_align(moved, cloud)

    assert torch.allclose(aligned, cloud, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_a_prediction_that_is_one_point_is_moved_to_the_truth_s_centre():
    truth = random_joints(0)

    aligned = metrics.similarity_align(torch.zeros_like(truth), truth)

    assert torch.allclose(aligned, truth.mean(1, keepdim=True).expand_as(truth))


def test_similarity_align_takes_any_number_of_leading_dimensions():
    a, b = random_joints(0, 6), random_joints(1, 6)

    together = metrics.similarity_align(a.view(2, 3, 24, 3), b.view(2, 3, 24, 3))

    assert torch.allclose(together.view(6, 24, 3), metrics.similarity_align(a, b))
    assert torch.allclose(together[1, 2], metrics.similarity_align(a[5], b[5]))


def test_orientation_error_is_scipy_s_angle_in_degrees():
    a, b = Rotation.random(50, random_state=0), Rotation.random(50, random_state=1)

    actual = metrics.orientation_error(torch.tensor(a.as_matrix()), torch.tensor(b.as_matrix()))

    assert np.allclose(actual, np.rad2deg((a.inv() * b).magnitude()), atol=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 90.0, 179.999, 180.0])
def test_orientation_error_is_exact_at_both_ends(degrees):
    turned = torch.tensor(Rotation.from_euler("y", degrees, degrees=True).as_matrix())[None]

    assert metrics.orientation_error(turned, torch.eye(3, dtype=DOUBLE)[None]).item() == pytest.approx(
        degrees, abs=1e-5
    )


def test_confusion_counts_every_pixel_of_each_sample():
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 23, (2, 4, 8, 8))
    expected = np.zeros((4, 23, 23), dtype=int)
    sample = np.broadcast_to(np.arange(4)[:, None, None], truth.shape)
    np.add.at(expected, (sample.ravel(), truth.ravel(), labels.ravel()), 1)

    confusion = metrics.parts_confusion(torch.tensor(labels), torch.tensor(truth))

    assert (confusion.numpy() == expected).all()


def test_iou_is_torchmetrics_jaccard_index():
    rng = np.random.default_rng(1)
    labels, truth = (torch.tensor(x) for x in rng.integers(0, 23, (2, 6, 8, 8)))

    confusion = metrics.parts_confusion(labels, truth)
    each = MulticlassJaccardIndex(23, average="none")(labels, truth)

    overlap = metrics.parts_overlap(confusion.sum(0))
    assert torch.allclose(metrics.parts_iou(*overlap).float(), each)
    assert torch.allclose(metrics.mean_iou(*overlap).float(), each[1:].mean())


def test_iou_by_hand_with_absent_classes_left_out():
    truth = torch.tensor([[0, 0, 0, 1, 1, 2]])
    labels = torch.tensor([[0, 0, 1, 1, 0, 2]])

    (confusion,) = metrics.parts_confusion(labels, truth, num_classes=4)
    overlap = metrics.parts_overlap(confusion)
    iou = metrics.parts_iou(*overlap)

    assert iou[:3].tolist() == pytest.approx([2 / 4, 1 / 3, 1]) and iou[3].isnan()
    assert metrics.mean_iou(*overlap).item() == pytest.approx((1 / 3 + 1) / 2)
    assert [x.tolist() for x in overlap] == [[2, 1, 1, 0], [4, 3, 1, 0]]


def test_depth_error_counts_person_pixels_only_and_survives_an_empty_crop():
    target = torch.zeros(2, 1, 4, 4)
    target[0, 0, 1, 1:3] = torch.tensor([0.5, 1.0])
    depth = torch.full_like(target, 0.7)

    error, count = metrics.depth_l1(depth, target)

    assert error.tolist() == pytest.approx([0.25, 0]) and count.tolist() == [2, 0]


def test_an_unknown_protocol_and_too_few_joints_are_refused():
    with pytest.raises(ValueError, match="smplx24"):
        metrics.mpjpe(random_joints(0), random_joints(0), protocol="coco")
    with pytest.raises(ValueError, match="24.*22"):
        metrics.pa_mpjpe(random_joints(0, joints=22), random_joints(0, joints=22))


SMPL, SMPLX = 40, 60  # vertices, instead of 6890 and 10475
ROWS = {"h36m14": 17, "smpl24": 24, "smpl22": 24}


def matrices(protocol):
    generator = torch.Generator().manual_seed(9)
    to_smpl = torch.rand(SMPL, SMPLX, dtype=DOUBLE, generator=generator)
    return to_smpl * (to_smpl > 0.8), torch.rand(ROWS[protocol], SMPL, dtype=DOUBLE, generator=generator)


@pytest.mark.parametrize(
    ("protocol", "compared", "pelvis"),
    [
        ("h36m14", [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16], [0]),
        ("smpl24", range(24), [1, 2]),
        ("smpl22", range(22), [0]),
    ],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_protocol_on_smpl_is_its_definition_in_numpy(protocol, compared, pelvis, sparse):
    to_smpl, regressor = matrices(protocol)
    vertices, truth = random_joints(0, joints=SMPLX), random_joints(1, joints=SMPL)  # a truth that is SMPL's

    def distance(a, b):
        return 1000 * np.linalg.norm(a - b, axis=1).mean()

    given = [matrix.to_sparse() if sparse else matrix for matrix in (to_smpl, regressor)]
    errors = metrics.BodyErrors(protocol, *given)
    actual = errors.per_sample(BodyOutput(vertices, None), BodyOutput(truth, None))
    for i in range(4):
        x, y = to_smpl.numpy() @ vertices[i].numpy(), truth[i].numpy()
        jx, jy = regressor.numpy() @ x, regressor.numpy() @ y
        px, py = jx[pelvis].mean(0), jy[pelvis].mean(0)
        aligned, centred = best_similarity(jx[compared], jy[compared])

        assert actual["mpjpe"][i].item() == pytest.approx(distance(jx[compared] - px, jy[compared] - py))
        assert actual["mve"][i].item() == pytest.approx(distance(x - px, y - py))
        assert actual["pa_mpjpe"][i].item() == pytest.approx(distance(aligned, centred))


def test_points_once_taken_stay_as_they_are():
    errors = metrics.BodyErrors("h36m14", *matrices("h36m14"))
    points = errors.points(BodyOutput(random_joints(0, joints=SMPLX), None))
    again = errors.points(points)

    assert torch.equal(points.vertices, again.vertices) and torch.equal(points.joints, again.joints)


def test_matrices_that_are_missing_or_do_not_fit_are_named():
    to_smpl, regressor = matrices("h36m14")
    body = BodyOutput(random_joints(0, joints=SMPLX), None)

    with pytest.raises(ValueError, match=r"'smpl24'.*`regressor`.*\(24, 6890\)"):
        metrics.BodyErrors("smpl24", to_smpl)
    with pytest.raises(ValueError, match=r"J_regressor_h36m.npy.*\(24, 40\)"):
        metrics.BodyErrors("h36m14", to_smpl, matrices("smpl24")[1])
    with pytest.raises(ValueError, match="60.*`smplx_to_smpl`"):
        metrics.BodyErrors("h36m14", regressor=regressor).points(body)
    with pytest.raises(ValueError, match=r"\(60, 40\).*\(40, 60\)"):
        metrics.BodyErrors("h36m14", to_smpl.T, regressor).points(body)


def bodies(start, stop):
    """Bodies of a fixed list of 9, predicted and true."""
    pair = (BodyOutput(random_joints(i, 9, 30), random_joints(i + 2, 9)) for i in (0, 1))
    return (BodyOutput(*(x[start:stop] for x in body)) for body in pair)


def test_the_metric_averages_over_samples_however_they_are_batched():
    whole, parts = metrics.BodyErrors(), metrics.BodyErrors()
    each = whole.per_sample(*bodies(0, 9))

    whole.update(*bodies(0, 9))
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        parts(*bodies(start, stop))

    for name, mean in whole.compute().items():
        assert mean.item() == pytest.approx(each[name].mean().item())
        assert parts.compute()[name].item() == pytest.approx(mean.item())
    parts.reset()
    parts.update(*bodies(2, 3))
    assert parts.compute()["mve"].item() == pytest.approx(each["mve"][2].item())


def test_the_metric_can_be_copied_and_moved_with_its_matrices():
    errors = metrics.BodyErrors("h36m14", *matrices("h36m14")).clone().to("cpu")

    assert errors.smplx_to_smpl.is_sparse and not errors.state_dict()


def one_process(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2
    )
    errors = metrics.BodyErrors()
    for start, stop in ((0, 3), (3, 6), (6, 7)) if rank == 0 else ((7, 9),):
        errors.update(*bodies(start, stop))
    torch.save(errors.compute(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_unequal_shares_give_the_mean_over_all_samples(tmp_path):
    expected = metrics.BodyErrors()
    expected.update(*bodies(0, 9))

    torch.multiprocessing.start_processes(one_process, (tmp_path,), nprocs=2, start_method="fork")

    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected.compute())
