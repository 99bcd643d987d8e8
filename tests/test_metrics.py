"""dpose.metrics against closed forms, scipy, and the properties that define them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dpose import metrics

DOUBLE = torch.float64
seeds = st.integers(0, 2**31)


def random_joints(seed, batch=4, joints=24):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, joints, 3, dtype=DOUBLE, generator=generator) * 0.3


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


def test_mpjpe_forgets_where_the_pelvis_is_and_mve_too():
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
def test_pa_mpjpe_does_not_see_a_similarity(seed, scale):
    truth, joints = random_joints(seed), random_joints(seed + 1)
    rotation = torch.tensor(Rotation.random(random_state=seed % 2**31).as_matrix())

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
        rotated = mirrored @ torch.tensor(Rotation.random(random_state=seed).as_matrix())
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
    rotation = torch.tensor(Rotation.random(random_state=1).as_matrix(), dtype=dtype)
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


def test_confusion_counts_every_pixel_and_adds_up_over_batches():
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 23, (2, 4, 8, 8))
    expected = np.zeros((23, 23), dtype=int)
    np.add.at(expected, (truth.ravel(), labels.ravel()), 1)

    whole = metrics.parts_confusion(torch.tensor(labels), torch.tensor(truth))
    halves = sum(
        metrics.parts_confusion(torch.tensor(labels[i::2]), torch.tensor(truth[i::2])) for i in range(2)
    )

    assert (whole.numpy() == expected).all() and (halves.numpy() == expected).all()


def test_iou_by_hand_with_absent_classes_left_out():
    truth = torch.tensor([0, 0, 0, 1, 1, 2])
    labels = torch.tensor([0, 0, 1, 1, 0, 2])

    confusion = metrics.parts_confusion(labels, truth, num_classes=4)
    iou = metrics.parts_iou(confusion)

    assert iou[:3].tolist() == pytest.approx([2 / 4, 1 / 3, 1]) and iou[3].isnan()
    assert metrics.mean_iou(confusion).item() == pytest.approx((1 / 3 + 1) / 2)
    assert metrics.mean_iou(confusion, background=True).item() == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)


def test_depth_error_counts_person_pixels_only_and_survives_an_empty_crop():
    target = torch.zeros(2, 1, 4, 4)
    target[0, 0, 1, 1:3] = torch.tensor([0.5, 1.0])
    depth = torch.full_like(target, 0.7)

    error, count = metrics.depth_l1(depth, target)

    assert error.tolist() == pytest.approx([0.25, 0]) and count.tolist() == [2, 0]


def test_an_unknown_protocol_and_too_few_joints_are_refused():
    with pytest.raises(ValueError, match="smplx24"):
        metrics.mpjpe(random_joints(0), random_joints(0), protocol="coco")
    with pytest.raises(ValueError, match="24 joints, got 22"):
        metrics.pa_mpjpe(random_joints(0, joints=22), random_joints(0, joints=22))
