"""dpose.losses against closed forms, scipy and finite differences, mostly on a small stand-in for a body."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import pytorch_msssim
import torch
from scipy.signal import convolve2d
from scipy.special import log_softmax
from torch import Tensor, nn

from dpose import losses as L
from dpose.camera import full_translation, project
from dpose.model.network import Prediction

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
    trans = full_translation(TRUE_CAM, center, scale, img_size, cam_int[:, 0, 0])
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
    terms = L.losses(perfect(batch), batch, body, L.PAPER)

    assert set(terms) == {*L.TERMS, "total"}
    assert {name for name, value in terms.items() if abs(value.item()) > 1e-5} == set()


def test_the_coefficients_are_the_paper_s_and_the_total_is_the_weighted_sum(batch, body):
    paper = {
        "depth_l1": 0.1, "depth_ssim": 0.02, "segm": 0.1, "pose": 10, "shape": 0.01,
        "joints3d": 50, "vertices": 10, "joints2d": 50,
    }  # fmt: skip
    terms = L.losses(wrong(batch), batch, body)

    assert {term: L.PAPER.of(term) for term in L.TERMS} == paper
    assert terms["total"].item() == pytest.approx(
        sum(w * terms[term].item() for term, w in paper.items()), rel=1e-5
    )


@pytest.mark.parametrize("term", L.TERMS)
def test_each_coefficient_scales_its_own_term_only(term, batch, body):
    none = L.LossWeights(0, 0, 0, 0, 0, 0, 0, 0)
    one = replace(none, **{f"lambda_{L.TERMS.index(term) + 1}": 2.0})

    terms = L.losses(wrong(batch), batch, body, one)

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


def test_joints_forget_where_the_pelvis_is_and_vertices_do_not():
    points = torch.randn(B, 24, 3, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)

    assert L.joints3d(points + 0.5, points).item() == pytest.approx(0, abs=1e-12)
    assert L.vertices(points + 0.5, points).item() == pytest.approx(0.5)


def test_one_joint_off_gives_its_squared_distance_over_all_coordinates():
    points = torch.zeros(B, 22, 3)
    moved = points.clone()
    moved[:, 5, 1] = 0.3

    assert L.joints3d(moved, points).item() == pytest.approx(0.09 / 66)


@pytest.mark.parametrize("frame", ["image", "crop"])
def test_a_shift_in_the_image_costs_its_square_in_the_frame_s_half_sides(frame, batch, body):
    shifted = batch["joints2d"].clone()
    shifted[..., 0] += 64  # pixels: a tenth of half the image's width
    joints = body(batch["betas"], batch["pose"]).joints[:, :22]
    geometry = batch["cam_int"], batch["center"], batch["scale"], batch["img_size"]

    loss = L.joints2d(joints, TRUE_CAM, shifted, *geometry, frame)

    expected = (
        0.1**2 / 2 if frame == "image" else np.mean([(64 / 100) ** 2, (64 / 200) ** 2, (64 / 300) ** 2]) / 2
    )
    assert loss.item() == pytest.approx(expected, rel=1e-4)


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


def test_ssim_is_the_mean_over_the_windows_that_see_the_person(batch):
    """Reference: the SSIM map by scipy in float64, from Wang et al.'s formula."""
    generator = torch.Generator().manual_seed(5)
    depth = torch.rand(B, 1, M, M, dtype=DOUBLE, generator=generator)
    bell = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2

    def smooth(x):
        return convolve2d(x, window, mode="valid")

    expected = []
    for x, y in zip(depth[:, 0].numpy(), batch["depth"][:, 0].double().numpy(), strict=True):
        person = y > 0
        x = x * person
        mx, my = smooth(x), smooth(y)
        vx, vy, cov = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
        ssim_map = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
        touched = convolve2d(person, np.ones((11, 11)), mode="valid") > 0.5
        expected.append((1 - ssim_map)[touched].mean())

    actual = L.depth_ssim(depth, batch["depth"].double(), batch["has_depth"])

    assert actual.item() == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.parametrize("side", [11, 24, 65])
def test_the_ssim_map_s_mean_is_pytorch_msssim_s(side):
    generator = torch.Generator().manual_seed(7)
    x, y = torch.rand(2, 4, side, side, dtype=DOUBLE, generator=generator)

    expected = pytorch_msssim.ssim(x[:, None], y[:, None], data_range=1.0, size_average=False)

    assert torch.allclose(
        L.ssim_map(x, y).mean((1, 2)), expected, atol=1e-6
    )  # its window is built in float32
    assert torch.allclose(L.ssim_map(x, x), torch.ones((), dtype=DOUBLE))


def test_maps_smaller_than_the_window_still_have_an_ssim(batch):
    small = batch["depth"][:, :, 4:10, 6:12]

    assert L.depth_ssim(small, small, batch["has_depth"]).item() == pytest.approx(0, abs=1e-6)
    assert L.depth_ssim(1 - small, small, batch["has_depth"]) > 0.1


@pytest.mark.parametrize("why", ["no sample has depth", "nobody in the crop"])
def test_a_batch_without_any_depth_costs_exactly_zero_with_zero_gradient(why, batch, body):
    if why == "no sample has depth":
        batch["has_depth"] = torch.zeros(B, dtype=torch.bool)
    else:
        batch["depth"] = torch.zeros_like(batch["depth"])
    pred = wrong(batch)

    terms = L.losses(pred, batch, body)
    terms["total"].backward()

    assert terms["depth_l1"].item() == 0 and terms["depth_ssim"].item() == 0
    assert (pred.depth.grad == 0).all()
    assert all(x.grad.isfinite().all() for x in pred)


def test_a_network_without_depth_has_zero_depth_terms(batch, body):
    terms = L.losses(wrong(batch)._replace(depth=None), batch, body)

    assert terms["depth_l1"].item() == 0 and terms["depth_ssim"].item() == 0 and terms["total"].isfinite()


@pytest.mark.parametrize("cam", [[0.0, 0, 0], [-5.0, 1, 1], [1e-8, 0, 0], [50.0, 0, 0], [-1e3, 9, 9]])
@pytest.mark.parametrize("frame", ["image", "crop"])
def test_any_camera_of_an_untrained_network_gives_finite_losses_and_gradients(cam, frame, batch, body):
    pred = wrong(batch)._replace(cam=torch.tensor([cam] * B, requires_grad=True))

    total = L.losses(pred, batch, body, replace(L.PAPER, joints2d_frame=frame))["total"]
    total.backward()

    assert total.isfinite() and all(x.grad.isfinite().all() for x in pred)


def test_the_truth_s_body_is_made_without_gradient_and_the_prediction_s_with(batch, body):
    body.grad_modes.clear()
    L.losses(wrong(batch), batch, body)

    assert sorted(body.grad_modes) == [False, True]


def test_every_output_gets_a_gradient(batch, body):
    pred = wrong(batch)
    L.losses(pred, batch, body, L.MINI_WEIGHTS)["total"].backward()

    assert all((x.grad != 0).any() for x in pred)


def test_half_precision_predictions_are_compared_in_float32_also_under_autocast(batch, body):
    pred = wrong(batch)
    half = Prediction(*(x.detach().bfloat16() for x in pred))
    rounded = Prediction(*(x.float() for x in half))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = L.losses(half, batch, body)
    expected = L.losses(rounded, batch, body)

    assert all(actual[term].dtype == torch.float32 for term in actual)
    assert all(actual[term].item() == expected[term].item() for term in actual)


def test_nothing_waits_for_the_device(batch, body):
    """Fake tensors hold no values: reading one on the host, or branching on one, raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    values = [x.detach() for x in wrong(batch)]
    with FakeTensorMode() as mode:
        pred = Prediction(*(mode.from_tensor(x).requires_grad_() for x in values))
        batch = {k: mode.from_tensor(v) if isinstance(v, Tensor) else v for k, v in batch.items()}
        for name, value in list(body.named_buffers()):
            setattr(body, name, mode.from_tensor(value))
        with pytest.raises(Exception, match="_local_scalar_dense"):
            pred.betas.sum().item()
        for weights in (L.PAPER, L.MINI_WEIGHTS):
            L.losses(pred, batch, body, weights)["total"].backward()

    assert all(x.grad.shape == x.shape for x in pred)


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
        (lambda x: L.segmentation(x, labels), [random(1, 23, 2, 2)]),
        (lambda r: L.pose(r, true_pose), [random(1, 22, 3, 3)]),
        (lambda j: L.joints3d(j, true_joints), [random(1, 4, 3)]),
        (lambda v: L.vertices(v, true_joints), [random(1, 4, 3)]),
        (lambda j, c: L.joints2d(j, c, joints2d, cam_int, *box), [random(1, 4, 3), random(1, 3) + 0.2]),
    ]:
        assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize("wrong_field", [{"joints2d_frame": "box"}, {"num_joints": 30}])
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

    at_truth, elsewhere = L.losses(exact, batch, body), L.losses(off, batch, body)
    elsewhere["total"].backward()

    assert at_truth["total"].item() < 1e-4 < elsewhere["total"].item()
    assert all(x.grad.isfinite().all() for x in off)
