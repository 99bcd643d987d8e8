"""dpose.camera against closed forms, OpenCV and finite differences."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpose import camera

SIZE = 128
DOUBLE = torch.float64


def box(cx, cy, side):
    return torch.tensor([[cx, cy]], dtype=DOUBLE), torch.tensor([side / 200], dtype=DOUBLE)


def intrinsics(focal, w, h):
    return torch.tensor([[[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]]], dtype=DOUBLE)


boxes = st.tuples(st.floats(-200, 1500), st.floats(-200, 900), st.floats(20, 1200))
points = st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.5, 30))


def test_the_box_s_corners_become_the_crop_s_corners():
    affine = camera.crop_affine(*box(300.0, 200.0, 100.0), SIZE)[0]

    corners = torch.tensor([[250.0, 150, 1], [350, 250, 1], [300, 200, 1]], dtype=DOUBLE) @ affine.T

    assert torch.allclose(corners, torch.tensor([[0.0, 0], [SIZE, SIZE], [SIZE / 2, SIZE / 2]], dtype=DOUBLE))


@settings(deadline=None, max_examples=50)
@given(boxes, points)
def test_projecting_into_the_crop_is_projecting_into_the_image_then_cropping(b, point):
    center, scale = box(*b)
    cam_int = intrinsics(900.0, 1280, 720)
    points3d = torch.tensor([[point]], dtype=DOUBLE)

    in_crop = camera.project(points3d, camera.crop_intrinsics(cam_int, center, scale, SIZE))[0, 0]
    in_image = camera.project(points3d, cam_int)[0, 0]

    corner, zoom = center[0] - b[2] / 2, SIZE / b[2]
    assert torch.allclose(in_crop, (in_image - corner) * zoom, atol=1e-6, rtol=1e-9)


def test_projection_agrees_with_opencv():
    rng = np.random.default_rng(0)
    points3d = rng.uniform([-1, -1, 2], [1, 1, 8], (20, 3))
    matrix = np.array([[800.0, 0, 640], [0, 810.0, 350], [0, 0, 1]])

    expected, _ = cv2.projectPoints(points3d, np.zeros(3), np.zeros(3), matrix, None)
    actual = camera.project(torch.tensor(points3d)[None], torch.tensor(matrix)[None])[0]

    assert np.allclose(actual, expected[:, 0], atol=1e-8)


def test_points_at_and_behind_the_camera_project_to_finite_pixels():
    points3d = torch.tensor([[[1.0, 1, 0], [1, 1, -3], [0, 0, 0]]], requires_grad=True)

    pixels = camera.project(points3d, intrinsics(1000.0, 640, 480).float())
    pixels.sum().backward()

    assert pixels.isfinite().all() and points3d.grad.isfinite().all()


def test_bbox_info_is_cliff_s_three_numbers():
    center, scale = box(740.0, 260.0, 400.0)
    info = camera.bbox_info(center, scale, torch.tensor([[1280.0, 720]]), torch.tensor([1000.0]))

    assert torch.allclose(info, torch.tensor([[0.1, -0.1, 0.4]], dtype=DOUBLE))


def test_an_unknown_focal_length_is_the_diagonal():
    assert camera.default_focal(torch.tensor([[300.0, 400.0]])).item() == pytest.approx(500)


@settings(deadline=None, max_examples=50)
@given(boxes, st.floats(0.1, 3), st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_a_point_at_the_body_s_depth_lands_where_the_weak_perspective_camera_says(b, s, tx, ty, x, y):
    """Inside the box, in units of half its side, (x, y, 0) must land at s (x + tx), s (y + ty)."""
    center, scale = box(*b)
    img_size, focal = torch.tensor([[1280.0, 720.0]], dtype=DOUBLE), torch.tensor([1100.0], dtype=DOUBLE)
    cam = torch.tensor([[s, tx, ty]], dtype=DOUBLE)

    translation = camera.full_translation(cam, center, scale, img_size, focal)
    point = torch.tensor([[[x, y, 0.0]]], dtype=DOUBLE) + translation[:, None]
    pixel = camera.project(point, intrinsics(1100.0, 1280, 720), min_depth=1e-6)[0, 0]

    in_box = 2 * (pixel - center[0]) / b[2]
    assert torch.allclose(in_box, s * torch.tensor([x + tx, y + ty], dtype=DOUBLE), atol=1e-7)


@pytest.mark.parametrize("s", [0.1, 1e-9, 0.0, -0.5, -1e4])
def test_any_camera_scale_gives_a_body_in_front_of_the_camera_and_a_usable_gradient(s):
    cam = torch.tensor([[s, 0.1, 0.1]], requires_grad=True)
    center, scale = (x.float() for x in box(500.0, 300.0, 300.0))

    t = camera.full_translation(cam, center, scale, torch.tensor([[640.0, 480]]), torch.tensor([800.0]))
    t[0, 2].backward()

    assert t.isfinite().all() and t[0, 2] > 0
    assert cam.grad.isfinite().all() and cam.grad[0, 0] < 0  # a larger scale always brings the body nearer


def test_camera_gradients_agree_with_finite_differences():
    center, scale = box(500.0, 300.0, 300.0)
    img_size, focal = torch.tensor([[640.0, 480.0]], dtype=DOUBLE), torch.tensor([800.0], dtype=DOUBLE)
    cam = torch.tensor([[0.8, 0.1, -0.2], [0.05, 0.1, -0.2]], dtype=DOUBLE, requires_grad=True)
    points3d = torch.randn(2, 3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) + torch.tensor(
        [0, 0, 4.0]
    )

    assert torch.autograd.gradcheck(lambda c: camera.full_translation(c, center, scale, img_size, focal), cam)
    assert torch.autograd.gradcheck(
        lambda p: camera.project(p, intrinsics(800.0, 640, 480)), points3d.requires_grad_()
    )


def test_the_box_surrounds_the_visible_body_joints_with_a_margin():
    joints = torch.full((1, 24, 2), 9999.0)
    joints[0, 0], joints[0, 5], joints[0, 7] = torch.tensor([[100.0, 50], [200, 250], [630, 60]])
    joints[0, 23] = torch.tensor([10.0, 10.0])  # an eye: no body joint
    visible = torch.ones(1, 24, dtype=torch.bool)
    visible[0, 7] = False

    center, scale = camera.box_from_joints(joints, visible, torch.tensor([[640.0, 480.0]]))

    assert torch.allclose(center, torch.tensor([[150.0, 150.0]]))
    assert scale.item() == pytest.approx(1.2 * 200 / 200)


def test_nobody_visible_gives_the_whole_image_and_no_nan():
    center, scale = camera.box_from_joints(
        torch.full((2, 24, 3), float("nan")),
        torch.zeros(2, 24, dtype=torch.bool),
        torch.tensor([[640.0, 480.0]] * 2),
    )

    assert center.tolist() == [[320, 240]] * 2 and scale.tolist() == pytest.approx([3.2, 3.2])


def test_a_single_box_needs_no_batch_dimension():
    affine = camera.crop_affine(torch.tensor([50.0, 50.0]), torch.tensor(0.5), 100)

    assert affine.tolist() == [[1, 0, 0], [0, 1, 0]]
