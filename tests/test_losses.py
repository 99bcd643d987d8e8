"""dpose.losses against closed forms, scipy and finite differences, mostly on a small stand-in for a body."""

import contextlib
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import OnDevice
from scipy.signal import correlate2d
from scipy.special import log_softmax
from torch import Tensor, nn

from dpose import losses as L
from dpose.batch import Prediction
from dpose.camera import full_translation, project

B, M, DOUBLE = 3, 24, torch.float64


class FakeOutput(NamedTuple):
    vertices: Tensor
    joints: Tensor


class FakeBody(nn.Module):
    """A template plus shape offsets, turned by the root and bent a little by every joint."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("template", torch.randn(60, 3, generator=generator) * 0.3)
        self.register_buffer("directions", torch.randn(11, 60, 3, generator=generator) * 0.02)
        self.register_buffer("bends", torch.randn(22, 60, 3, generator=generator) * 0.05)
        self.grad_modes = []

    def forward(self, betas, rotmats, trans=None, hands=None):
        self.grad_modes.append(torch.is_grad_enabled())
        points = self.template + torch.einsum("bk,kvc->bvc", betas, self.directions)
        points = points + torch.einsum("bjcd,jvd->bvc", rotmats[:, 1:], self.bends[1:])
        points = points @ rotmats[:, 0].transpose(1, 2)
        return FakeOutput(points, points[:, :55])


def rotation(angles):
    """(...,) radians about y -> (..., 3, 3)."""
    zero, one = torch.zeros_like(angles), torch.ones_like(angles)
    rows = [angles.cos(), zero, angles.sin(), zero, one, zero, -angles.sin(), zero, angles.cos()]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


@pytest.fixture
def body():
    return FakeBody()


@pytest.fixture
def batch(body):
    generator = torch.Generator().manual_seed(1)
    pose, betas = rotation(torch.rand(B, 22, generator=generator)), torch.randn(B, 11, generator=generator)
    img_size, focal = torch.tensor([[1280.0, 720.0]]).repeat(B, 1), 1000.0
    cam_int = torch.tensor([[focal, 0, 640], [0, focal, 360], [0, 0, 1.0]]).repeat(B, 1, 1)
    center = torch.tensor([[500.0, 300], [700, 400], [640, 360]])
    scale = torch.tensor([1.0, 2.0, 3.0])
    trans = full_translation(TRUE_CAM, center, scale, cam_int)
    joints2d = project(body(betas, pose).joints[:, :24] + trans[:, None], cam_int)
    depth = torch.zeros(B, 1, M, M)
    depth[:, 0, 5:15, 8:14] = torch.rand(B, 10, 6, generator=generator) * 0.9 + 0.1
    return {
        "image": torch.zeros(B, 3, 64, 64),
        "center": center,
        "scale": scale,
        "img_size": img_size,
        "cam_int": cam_int,
        "pose": pose,
        "betas": betas,
        "trans": trans,
        "joints2d": torch.cat([joints2d, torch.ones(B, 24, 1)], -1),
        "parts": torch.randint(0, 23, (B, M, M), generator=generator),
        "depth": depth,
        "has_depth": torch.ones(B, dtype=torch.bool),
        "key": ["a", "b", "c"],
    }


TRUE_CAM = torch.tensor([[0.9, 0.1, 0.0], [0.7, 0.0, 0.2], [1.1, -0.1, 0.1]])


def perfect(batch):
    logits = 100 * torch.nn.functional.one_hot(batch["parts"], 23).permute(0, 3, 1, 2).float()
    leaves = (batch["pose"], batch["betas"], TRUE_CAM, logits, batch["depth"])
    return Prediction(*(x.clone().requires_grad_() for x in leaves))


def wrong(batch):
    generator = torch.Generator().manual_seed(2)
    return Prediction(*(torch.rand(x.shape, generator=generator).requires_grad_() for x in perfect(batch)))


def test_a_perfect_prediction_costs_nothing(batch, body):
    terms = L.compute_losses(perfect(batch), batch, body, L.PAPER_WEIGHTS)

    assert set(terms) == {*L.TERMS, "total"}
    assert {name for name, value in terms.items() if abs(value.item()) > 1e-5} == set()


def test_a_perfect_prediction_costs_the_released_loss_only_its_camera_term(batch, body):
    terms = L.compute_losses(perfect(batch), batch, body, L.RELEASED_WEIGHTS)
    scales = TRUE_CAM[:, 0].double().clamp(max=0.5)

    assert set(terms) == {*L.TERMS, "camera", "total"}
    assert {name for name in L.TERMS if abs(terms[name].item()) > 1e-5} == set()
    assert terms["camera"].item() == pytest.approx(torch.exp(-20 * scales).mean().item(), rel=1e-5)


def test_the_coefficients_are_the_paper_s_and_the_total_is_the_weighted_sum(batch, body):
    coefficients = 0.1, 0.02, 0.1, 10, 0.01, 50, 10, 50  # lambda_1 to lambda_8
    paper = dict(zip(L.TERMS, coefficients, strict=True))
    terms = L.compute_losses(wrong(batch), batch, body)

    assert {term: L.PAPER_WEIGHTS.of(term) for term in L.TERMS} == paper
    assert terms["total"].item() == pytest.approx(
        sum(w * terms[term].item() for term, w in paper.items()), rel=1e-5
    )


def test_the_released_coefficients_are_sixty_times_the_paper_s_but_for_ssim_and_a_camera_term(batch, body):
    coefficients = 6, 0.6, 6, 600, 0.6, 3000, 600, 3000, 600
    released = dict(zip((*L.TERMS, "camera"), coefficients, strict=True))
    terms = L.compute_losses(wrong(batch), batch, body, L.RELEASED_WEIGHTS)

    assert {term: L.RELEASED_WEIGHTS.of(term) for term in released} == pytest.approx(released)
    assert terms["total"].item() == pytest.approx(
        sum(w * terms[term].item() for term, w in released.items()), rel=1e-5
    )


def test_the_released_terms_are_those_of_numpy_in_float64(batch, body):
    """Its departures from the paper written out: 24 joints as they are, no root, all pixels, box weight."""
    pred = wrong(batch)
    batch["joints2d"][0, :5, 2] = torch.tensor([-2.0, 0, 0.5, 1, 2])
    terms = L.compute_losses(pred, batch, body, L.RELEASED_WEIGHTS)
    np_ = lambda x: x.detach().double().numpy()  # noqa: E731
    posed, true = body(pred.betas, pred.rotmats), body(batch["betas"], batch["pose"])
    geometry = batch["center"], batch["scale"], batch["cam_int"]
    joints, true_joints = np_(posed.joints)[:, :24], np_(true.joints)[:, :24]
    points = joints + np_(full_translation(pred.cam, *geometry))[:, None]
    size, side = np_(batch["img_size"])[:, None], 200 * np_(batch["scale"])[:, None, None]
    pixels = 1000 * points[..., :2] / points[..., 2:] + [640, 360]
    label, confidence = np_(batch["joints2d"])[..., :2], np_(batch["joints2d"])[..., 2:]
    confidence = np.where(confidence == -2, 0, confidence)
    normalised = (2 * pixels / size - 1) - (2 * label / size - 1)

    expected = {
        "depth_l1": np.square(np_(pred.depth) - np_(batch["depth"])).mean(),
        "pose": np.square(np_(pred.rotmats) - np_(batch["pose"]))[:, 1:].mean(),
        "joints3d": np.square(joints - true_joints).mean(),
        "vertices": np.abs(np_(posed.vertices) - np_(true.vertices)).mean(),
        "joints2d": (confidence * normalised**2 * size / side).mean(),
        "camera": np.square(np.exp(-10 * np.clip(np_(pred.cam)[:, 0], -0.5, 0.5))).mean(),
    }

    assert {name: terms[name].item() for name in expected} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("term", L.TERMS)
def test_each_coefficient_scales_its_own_term_only(term, batch, body):
    none = L.LossWeights(0, 0, 0, 0, 0, 0, 0, 0)
    one = replace(none, **{f"lambda_{L.TERMS.index(term) + 1}": 2.0})

    terms = L.compute_losses(wrong(batch), batch, body, one)

    assert terms["total"].item() == pytest.approx(2 * terms[term].item()) and terms[term].item() > 0


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2, math.pi])
def test_one_turned_joint_costs_eight_sine_squared_of_half_its_angle(angle, batch):
    turned = batch["pose"].clone()
    turned[:, 7] = turned[:, 7] @ rotation(torch.tensor(angle))

    assert L.pose(turned, batch["pose"]).item() == pytest.approx(
        8 * math.sin(angle / 2) ** 2 / (22 * 9), abs=1e-6
    )


def test_without_the_root_its_turn_costs_nothing(batch):
    turned = batch["pose"].clone()
    turned[:, 0] = turned[:, 0] @ rotation(torch.tensor(1.0))

    assert L.pose(turned, batch["pose"], root=False) == 0 < L.pose(turned, batch["pose"])


def test_joints_are_relative_to_the_pelvis_and_vertices_are_not():
    points = torch.randn(B, 24, 3, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)

    assert L.joints3d(points + 0.5, points).item() == pytest.approx(0, abs=1e-12)
    assert L.joints3d(points + 0.5, points, "body").item() == pytest.approx(0.25)
    assert L.vertices(points + 0.5, points).item() == pytest.approx(0.5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(-3, 3))
def test_turning_both_bodies_alike_changes_no_squared_term(seed, angle):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, B, 22, 3, dtype=DOUBLE, generator=generator)
    r, q = (rotation(torch.randn(B, 22, dtype=DOUBLE, generator=generator)) for _ in range(2))
    turn = rotation(torch.tensor(angle, dtype=DOUBLE))

    assert L.joints3d(a @ turn, b @ turn).item() == pytest.approx(L.joints3d(a, b).item())
    assert L.pose(turn @ r, turn @ q).item() == pytest.approx(L.pose(r, q).item())


def test_the_order_of_the_samples_does_not_matter(batch, body):
    pred, order = wrong(batch), [2, 0, 1]
    shuffled = {k: v[order] if isinstance(v, Tensor) else [v[i] for i in order] for k, v in batch.items()}

    for weights in (L.PAPER_WEIGHTS, L.RELEASED_WEIGHTS, L.MINI_WEIGHTS):
        one = L.compute_losses(pred, batch, body, weights)
        other = L.compute_losses(Prediction(*(x[order] for x in pred)), shuffled, body, weights)
        assert {k: v.item() for k, v in one.items()} == pytest.approx(
            {k: v.item() for k, v in other.items()}, rel=1e-4
        )


def test_one_joint_off_gives_its_squared_distance_over_all_coordinates():
    points = torch.zeros(B, 22, 3)
    moved = points.clone()
    moved[:, 5, 1] = 0.3

    assert L.joints3d(moved, points).item() == pytest.approx(0.09 / 66)


@pytest.mark.parametrize(
    ("frame", "expected"),  # of 64 pixels in 1280 x 720, with boxes of 200, 400 and 600
    [
        ("image", 0.1**2),
        ("image/box", 0.1**2 * np.mean([1280 / 200, 1280 / 400, 1280 / 600])),
        ("crop", np.mean([(64 / 100) ** 2, (64 / 200) ** 2, (64 / 300) ** 2])),
    ],
)
def test_a_shift_in_the_image_costs_its_square_in_the_frame_s_half_sides(frame, expected, batch, body):
    joints = body(batch["betas"], batch["pose"]).joints[:, :22]
    geometry = batch["cam_int"], batch["center"], batch["scale"], batch["img_size"]
    shifted = batch["joints2d"] + torch.tensor([64.0, 0, 0])

    loss = L.joints2d(joints, TRUE_CAM, shifted, *geometry, frame)

    assert loss.item() == pytest.approx(expected / 2, rel=1e-4)


def test_errors_are_relative_to_the_person_where_the_box_shows_a_part(batch, body):
    """The extent of the labelled joints counts if it is larger than the box; unlabelled ones do not."""
    joints = body(batch["betas"], batch["pose"]).joints[:, :22]
    geometry = batch["cam_int"], batch["center"], batch["scale"], batch["img_size"]
    target = batch["joints2d"].clone()
    target[:, 3] = torch.tensor([1e4, 1e4, 0])
    target[0, 5, 1] = target[0, :3, 1].mean() + 2000.0  # a leg far below
    labelled = np.delete(target[..., :2].numpy(), 3, 1)[:, :21]
    extent = np.maximum(np.ptp(labelled, axis=1).max(1), [200, 400, 600])
    errors = (target - batch["joints2d"])[:, :22, :2].numpy()
    errors[:, 3] = 0
    expected = np.mean((errors * 2 / extent[:, None, None]) ** 2)

    loss = L.joints2d(joints, TRUE_CAM, target, *geometry, "person")

    assert extent[0] > 1000 and loss.item() == pytest.approx(expected, rel=1e-3)
    inside = batch["joints2d"] + torch.tensor([9.0, 0, 0])
    same = [L.joints2d(joints, TRUE_CAM, inside, *geometry, frame) for frame in ("crop", "person")]
    small = np.ptp(batch["joints2d"][:, :22, :2].numpy(), axis=1).max(1) < [200, 400, 600]
    assert not small.all() or same[0] == same[1]


def test_the_released_2d_weight_is_the_image_s_own_side_along_each_axis(batch, body):
    joints = body(batch["betas"], batch["pose"]).joints[:, :22]
    geometry = batch["cam_int"], batch["center"], batch["scale"], batch["img_size"]
    shifted = batch["joints2d"] + torch.tensor([0, 36.0, 0])

    loss = L.joints2d(joints, TRUE_CAM, shifted, *geometry, "image/box")

    assert loss.item() == pytest.approx(0.1**2 * np.mean([720 / 200, 720 / 400, 720 / 600]) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("scale", "expected"), [(0.1, -2), (0.0, 0), (0.5, -10), (7.0, -10), (-0.5, 10), (-3.0, 10)]
)
def test_the_camera_term_is_the_exponential_of_minus_twenty_scales_up_to_a_half(scale, expected):
    cam = torch.tensor([[scale, 5.0, -5.0]], dtype=DOUBLE, requires_grad=True)

    loss = L.camera(cam)
    loss.backward()

    assert loss.item() == pytest.approx(math.exp(expected))
    inside = abs(scale) <= 0.5
    assert cam.grad[0].tolist() == pytest.approx([-20 * math.exp(expected) if inside else 0, 0, 0])


def test_ignored_joints_may_hold_anything_and_confidence_weighs_the_rest(batch, body):
    joints = body(batch["betas"], batch["pose"]).joints[:, :22].requires_grad_()
    labels = batch["joints2d"] + torch.tensor([10.0, 0, 0])
    labels[:, 11:] = torch.tensor([float("nan"), float("inf"), 0.0])
    labels[:, 12, 2] = -2
    labels[:, :11, 2] = 0.5
    geometry = batch["cam_int"], batch["center"], batch["scale"], batch["img_size"]

    loss = L.joints2d(joints, TRUE_CAM, labels, *geometry)
    loss.backward()

    assert loss.item() == pytest.approx(0.5 * 0.5 * (10 / 640) ** 2 / 2, rel=1e-3)
    assert joints.grad.isfinite().all() and (joints.grad[:, 11:] == 0).all()


def test_cross_entropy_is_scipy_s():
    generator = torch.Generator().manual_seed(4)
    logits, labels = (
        torch.randn(2, 23, 5, 5, generator=generator),
        torch.randint(0, 23, (2, 5, 5), generator=generator),
    )

    expected = -np.take_along_axis(
        log_softmax(logits.numpy(), axis=1), labels.numpy()[:, None], axis=1
    ).mean()

    assert L.segmentation(logits, labels).item() == pytest.approx(expected, rel=1e-5)


def test_balanced_cross_entropy_weighs_a_class_by_a_power_of_its_share():
    """On a map of 3 background pixels and 1 of a part, by hand; unused classes change nothing."""
    logits = torch.randn(1, 23, 2, 2, generator=torch.Generator().manual_seed(5))
    labels = torch.tensor([[[0, 0], [0, 7]]])
    each = -np.take_along_axis(log_softmax(logits.numpy(), axis=1), labels.numpy()[:, None], axis=1).flatten()
    weight = np.array([0.75, 0.75, 0.75, 0.25]) ** -0.5

    loss = L.segmentation(logits, labels, balance=0.5)

    assert loss.item() == pytest.approx((weight * each).sum() / weight.sum(), rel=1e-5)
    assert L.segmentation(logits, labels, balance=1.0).item() == pytest.approx(
        (each[:3].mean() + each[3]) / 2, rel=1e-5
    )


def test_depth_is_compared_on_the_person_s_pixels_of_samples_that_have_depth(batch):
    depth = batch["depth"] + 0.25
    depth[:, :, :3] = 77.0  # background: anything goes
    depth[1] = -99.0
    depth.requires_grad_()
    has_depth = torch.tensor([True, False, True])

    loss = L.depth_l1(depth, batch["depth"], has_depth)
    (loss + L.depth_ssim(depth, batch["depth"], has_depth)).backward()

    assert loss.item() == pytest.approx(0.25, rel=1e-5)
    assert (depth.grad[batch["depth"] == 0] == 0).all() and (depth.grad[1] == 0).all()
    assert (depth.grad[0][batch["depth"][0] > 0] != 0).all()


def ssim_by_scipy(x, y, window):
    """Wang et al.'s formula at every window that lies in the arrays, in float64."""

    def smooth(z):
        return correlate2d(z, window, mode="valid")

    mx, my = smooth(x), smooth(y)
    vx, vy, cov = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    return (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))


def gaussian(offsets):
    bell = np.exp(-(offsets**2) / (2 * 1.5**2))
    return np.outer(bell, bell) / bell.sum() ** 2


def random_depth():
    return torch.rand(B, 1, M, M, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))


def test_ssim_is_the_mean_over_the_windows_that_see_a_person(batch):
    depth, has_depth = random_depth(), torch.tensor([True, False, True])
    batch["depth"][2, :, :14] = 0  # another person, smaller

    windows = []
    for i in (0, 2):
        target = batch["depth"][i, 0].double().numpy()
        ssim_map = ssim_by_scipy(depth[i, 0].numpy() * (target > 0), target, gaussian(np.arange(-5, 6)))
        seen = correlate2d(target > 0, np.ones((11, 11)), mode="valid") > 0.5
        windows.append((1 - ssim_map)[seen])

    actual = L.depth_ssim(depth, batch["depth"].double(), has_depth)

    assert len(windows[0]) != len(windows[1])
    assert actual.item() == pytest.approx(np.concatenate(windows).mean(), rel=1e-9)


def test_the_released_ssim_has_even_windows_off_centre_over_the_map_s_edges(batch):
    depth, has_depth = random_depth(), torch.tensor([True, False, True])
    maps = [
        ssim_by_scipy(np.pad(x, 4), np.pad(y, 4), gaussian(np.arange(8) - 4))
        for x, y in zip(
            depth[has_depth, 0].numpy(), batch["depth"][has_depth, 0].double().numpy(), strict=True
        )
    ]

    actual = L.depth_ssim(depth, batch["depth"].double(), has_depth, "all", 8)

    assert maps[0].shape == (M + 1, M + 1)
    assert actual.item() == pytest.approx(1 - np.mean(maps), rel=1e-9)


def test_maps_smaller_than_the_window_still_have_an_ssim(batch):
    small = batch["depth"][:, :, 4:10, 6:12]

    assert L.depth_ssim(small, small, batch["has_depth"]).item() == pytest.approx(0, abs=1e-6)
    assert L.depth_ssim(1 - small, small, batch["has_depth"]) > 0.1


def test_the_released_depth_error_is_the_mean_square_over_all_pixels_of_samples_with_depth(batch):
    depth, has_depth = random_depth(), torch.tensor([True, False, True])
    target = batch["depth"].double()

    actual = L.depth_mse(depth, target, has_depth, "all")

    assert actual.item() == pytest.approx(np.square((depth - target)[has_depth].numpy()).mean(), rel=1e-12)


@pytest.mark.parametrize("weights", [L.PAPER_WEIGHTS, L.RELEASED_WEIGHTS])
def test_a_sample_without_depth_or_without_a_person_gets_no_depth_gradient_at_all(weights, batch, body):
    batch["has_depth"][0] = False
    batch["depth"][0] = float("nan")
    batch["depth"][1] = 0
    pred = wrong(batch)

    terms = L.compute_losses(pred, batch, body, weights)
    terms["total"].backward()

    assert all(value.isfinite() for value in terms.values())
    assert (pred.depth.grad[:2] == 0).all() and (pred.depth.grad[2] != 0).any()


@pytest.mark.parametrize("weights", [L.PAPER_WEIGHTS, L.RELEASED_WEIGHTS])
@pytest.mark.parametrize("why", ["no sample has depth", "nobody in the crop"])
def test_a_batch_without_any_depth_costs_exactly_zero_with_zero_gradient(why, weights, batch, body):
    if why == "no sample has depth":
        batch["has_depth"] = torch.zeros(B, dtype=torch.bool)
    else:
        batch["depth"] = torch.zeros_like(batch["depth"])
    pred = wrong(batch)

    terms = L.compute_losses(pred, batch, body, weights)
    terms["total"].backward()

    assert terms["depth_l1"].item() == 0 and terms["depth_ssim"].item() == 0
    assert (pred.depth.grad == 0).all()
    assert all(x.grad.isfinite().all() for x in pred)


def test_a_network_without_depth_has_zero_depth_terms(batch, body):
    terms = L.compute_losses(wrong(batch)._replace(depth=None), batch, body)

    assert terms["depth_l1"].item() == 0 and terms["depth_ssim"].item() == 0 and terms["total"].isfinite()


@pytest.mark.parametrize("cam", [[0.0, 0, 0], [-5.0, 1, 1], [1e-8, 0, 0], [50.0, 0, 0], [-1e3, 9, 9]])
@pytest.mark.parametrize("frame", ["image", "crop"])
def test_any_camera_of_an_untrained_network_gives_finite_losses_and_gradients(cam, frame, batch, body):
    pred = wrong(batch)._replace(cam=torch.tensor([cam] * B, requires_grad=True))

    total = L.compute_losses(pred, batch, body, replace(L.PAPER_WEIGHTS, joints2d_frame=frame))["total"]
    total.backward()

    assert total.isfinite() and all(x.grad.isfinite().all() for x in pred)


def test_the_truth_s_body_is_made_without_gradient_and_the_prediction_s_with(batch, body):
    body.grad_modes.clear()
    L.compute_losses(wrong(batch), batch, body)

    assert sorted(body.grad_modes) == [False, True]


def test_every_output_gets_a_gradient(batch, body):
    pred = wrong(batch)
    L.compute_losses(pred, batch, body, L.MINI_WEIGHTS)["total"].backward()

    assert all((x.grad != 0).any() for x in pred)


def test_half_precision_predictions_are_compared_in_float32_also_under_autocast(batch, body):
    pred = wrong(batch)
    half = Prediction(*(x.detach().bfloat16() for x in pred))
    rounded = Prediction(*(x.float() for x in half))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = L.compute_losses(half, batch, body)
    expected = L.compute_losses(rounded, batch, body)

    assert all(actual[term].dtype == torch.float32 for term in actual)
    assert all(actual[term].item() == expected[term].item() for term in actual)


ALL_WEIGHTS = [L.PAPER_WEIGHTS, L.RELEASED_WEIGHTS, L.MINI_WEIGHTS]


def test_nothing_waits_for_the_device(batch, monkeypatch):
    """On the meta device, whose tensors hold no values: reading one, or branching on one, raises."""
    from dpose.body import load_body

    # autocast does not support the meta device
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    body = load_body(vertex_stride=64).to("meta")
    pred = Prediction(*(x.detach().to("meta").requires_grad_() for x in wrong(batch)))
    batch = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in batch.items()}

    def watched():
        return OnDevice(pred, batch, list(body.buffers()))

    for waits in (
        lambda: pred.betas[:, [1, 2]],
        lambda: pred.betas * torch.arange(11),
        lambda: pred.betas * torch.tensor([2.0] * 11, device="meta"),
        lambda: pred.betas.sum().item(),
        lambda: pred.betas[pred.betas > 0],
    ):
        with pytest.raises((RuntimeError, NotImplementedError)), watched():
            waits()
    for weights in ALL_WEIGHTS:
        with watched():
            total = L.compute_losses(pred, batch, body, weights)["total"]
        total.backward()
    assert all(x.grad.shape == x.shape for x in pred)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_never_makes_the_host_wait(batch, body):
    pred = Prediction(*(x.detach().cuda().requires_grad_() for x in wrong(batch)))
    batch = {k: v.cuda() if isinstance(v, Tensor) else v for k, v in batch.items()}
    body.cuda()
    L.compute_losses(pred, batch, body)["total"].backward()  # libraries load
    torch.cuda.set_sync_debug_mode("error")
    try:
        for weights in ALL_WEIGHTS:
            L.compute_losses(pred, batch, body, weights)["total"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("weights", ALL_WEIGHTS)
def test_the_loss_compiles_as_one_graph(weights, batch, body):
    pred = wrong(batch)
    compiled = torch.compile(L.compute_losses, fullgraph=True, backend="eager")

    actual, expected = (f(pred, batch, body, weights) for f in (compiled, L.compute_losses))

    assert {k: v.item() for k, v in actual.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}
    )


def test_gradients_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(6)

    def random(*shape):
        return torch.rand(*shape, dtype=DOUBLE, generator=generator)

    target = random(2, 1, 12, 12) * 0.9 + 0.1
    target[:, :, :3] = 0
    has_depth = torch.tensor([True, False])
    labels = torch.randint(0, 23, (1, 2, 2), generator=generator)
    cam_int = torch.tensor([[[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]], dtype=DOUBLE)
    box = (
        torch.tensor([[300.0, 200]], dtype=DOUBLE),
        torch.ones(1, dtype=DOUBLE),
        torch.tensor([[640.0, 480]], dtype=DOUBLE),
    )
    joints2d = torch.cat([random(1, 4, 2) * 400, torch.ones(1, 4, 1, dtype=DOUBLE)], -1)
    true_joints, true_pose = random(1, 4, 3), random(1, 22, 3, 3)

    for function, inputs in [
        (lambda d: L.depth_l1(d, target, has_depth), [random(2, 1, 12, 12)]),
        (lambda d: L.depth_ssim(d, target, has_depth), [random(2, 1, 12, 12)]),
        (lambda d: L.depth_mse(d, target, has_depth, "all"), [random(2, 1, 12, 12)]),
        (lambda d: L.depth_ssim(d, target, has_depth, "all", 8), [random(2, 1, 12, 12)]),
        (L.camera, [random(2, 3) * 0.5]),
        (lambda x: L.segmentation(x, labels), [random(1, 23, 2, 2)]),
        (lambda r: L.pose(r, true_pose), [random(1, 22, 3, 3)]),
        (lambda j: L.joints3d(j, true_joints), [random(1, 4, 3)]),
        (lambda v: L.vertices(v, true_joints), [random(1, 4, 3)]),
        *(
            (
                lambda j, c, frame=frame: L.joints2d(j, c, joints2d, cam_int, *box, frame),
                [random(1, 4, 3), random(1, 3) + 0.2],
            )
            for frame in ("image", "image/box", "crop", "person")
        ),
    ]:
        assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in inputs], fast_mode=True)


@pytest.mark.parametrize("wrong_field", [{"joints2d_frame": "box"}, {"num_joints": 30}, {"ssim_window": 9}])
def test_an_impossible_variant_is_refused(wrong_field):
    with pytest.raises(ValueError, match=next(iter(wrong_field))):
        L.LossWeights(**wrong_field)


def test_the_open_body_gives_zero_at_the_truth_and_gradients_elsewhere(batch):
    from dpose.body import load_body

    body = load_body(vertex_stride=8)
    trans = batch["trans"]
    joints = body(batch["betas"], batch["pose"]).joints[:, :24]
    batch["joints2d"][..., :2] = project(joints + trans[:, None], batch["cam_int"])
    exact, off = perfect(batch), wrong(batch)

    at_truth, elsewhere = L.compute_losses(exact, batch, body), L.compute_losses(off, batch, body)
    elsewhere["total"].backward()

    assert at_truth["total"].item() < 1e-4 < elsewhere["total"].item()
    assert all(x.grad.isfinite().all() for x in off)
