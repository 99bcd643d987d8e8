"""dpose.camera against closed forms, OpenCV and finite differences."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpose import camera
from dpose.data.labels import Labels
from dpose.data.means import weak_perspective
from dpose.data.sample import make_label, warp_image
from dpose.pictures import square_box

SIZE = 128
DOUBLE = torch.float64


def box(cx, cy, side):
    return torch.tensor([[cx, cy]], dtype=DOUBLE), torch.tensor([side / 200], dtype=DOUBLE)


def intrinsics(focal, w, h):
    """A centred camera of a w x h image; give twice the principal point for an off-centre one."""
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


@settings(deadline=None, max_examples=30)
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.11, 0.5), st.floats(-50, 50))
def test_a_body_very_near_is_projected_exactly_down_to_ten_centimetres(x, y, z, skew):
    matrix = intrinsics(900.0, 1280, 720)
    matrix[0, 0, 1] = skew

    pixel = camera.project(torch.tensor([[[x, y, z]]], dtype=DOUBLE), matrix)[0, 0]

    expected = [900 * x / z + skew * y / z + 640, 900 * y / z + 360]
    assert pixel.tolist() == pytest.approx(expected)


def test_a_point_nearer_than_ten_centimetres_is_pushed_aside_but_not_in_depth():
    points3d = torch.tensor([[[0.02, -0.01, 0.05]]], dtype=DOUBLE, requires_grad=True)

    pixel = camera.project(points3d, intrinsics(1000.0, 640, 480))[0, 0]
    pixel.sum().backward()

    assert pixel.tolist() == pytest.approx([1000 * 0.02 / 0.1 + 320, 1000 * -0.01 / 0.1 + 240])
    assert points3d.grad[0, 0].tolist() == pytest.approx([1e4, 1e4, 0])


def test_autocast_does_not_round_the_camera():
    generator = torch.Generator().manual_seed(0)
    points3d = torch.rand(1, 50, 3, generator=generator) + torch.tensor([0, 0, 3.0])
    center, scale = (x.float() for x in box(500.0, 300.0, 300.0))
    cam_int = intrinsics(1000.0, 1280, 720).float()

    def in_crop():
        return camera.project(points3d, camera.crop_intrinsics(cam_int, center, scale, SIZE))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = in_crop()

    assert low.dtype == torch.float32 and torch.equal(low, in_crop())


def test_points_at_and_behind_the_camera_project_to_finite_pixels():
    points3d = torch.tensor([[[1.0, 1, 0], [1, 1, -3], [0, 0, 0]]], requires_grad=True)

    pixels = camera.project(points3d, intrinsics(1000.0, 640, 480).float())
    pixels.sum().backward()

    assert pixels.isfinite().all() and points3d.grad.isfinite().all()


def test_bbox_info_is_cliff_s_three_numbers():
    center, scale = box(740.0, 260.0, 400.0)
    info = camera.bbox_info(center, scale, intrinsics(1000.0, 1280, 720))

    assert torch.allclose(info, torch.tensor([[0.1, -0.1, 0.4]], dtype=DOUBLE))


def test_an_unknown_camera_has_the_image_s_diagonal_and_centre():
    size = torch.tensor([[300.0, 400.0], [30.0, 16.0]])
    expected = [[[500, 0, 150], [0, 500, 200], [0, 0, 1]], [[34, 0, 15], [0, 34, 8], [0, 0, 1]]]
    assert camera.default_intrinsics(size).tolist() == expected
    assert camera.default_intrinsics(size[0], torch.tensor(7.0))[0].tolist() == [7, 0, 150]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_the_principal_point_is_the_image_centre_the_result_is_bit_identical_to_the_size_formula(dtype):
    """CLIFF's published formulas take offsets from (w/2, h/2)."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda low, high, *shape: low + (high - low) * torch.rand(*shape, generator=generator, dtype=dtype)  # noqa: E731
    size = draw(100, 4000, 500, 2).round()
    center, scale, focal = draw(-300, 4000, 500, 2), draw(0.05, 8, 500), draw(100, 5000, 500)
    cam = torch.cat([draw(0.1, 3, 500, 1), draw(-1, 1, 500, 2)], 1)
    cam_int = camera.default_intrinsics(size, focal)

    offset, side = center - 0.5 * size, (200 * scale)[:, None]
    per_pixel = 2 * (1 / cam[:, :1]) / side

    assert torch.equal(
        camera.bbox_info(center, scale, cam_int), torch.cat([offset, side], 1) / focal[:, None]
    )
    assert torch.equal(
        camera.full_translation(cam, center, scale, cam_int),
        torch.cat([cam[:, 1:] + offset * per_pixel, focal[:, None] * per_pixel], 1),
    )


principal = st.tuples(st.floats(-400, 1700), st.floats(-300, 1000))


@settings(deadline=None, max_examples=50)
@given(boxes, principal, st.floats(0.1, 3))
def test_with_any_principal_point_the_camera_s_origin_lands_at_the_box_centre_by_opencv(b, point, s):
    center, scale = box(*b)
    cam_int = intrinsics(1100.0, 2 * point[0], 2 * point[1])
    cam = torch.tensor([[s, 0.0, 0.0]], dtype=DOUBLE)

    t = camera.full_translation(cam, center, scale, cam_int)

    zero = np.zeros(3)
    pixel, _ = cv2.projectPoints(t.numpy(), zero, zero, cam_int[0].numpy(), None)
    np.testing.assert_allclose(pixel[0, 0], b[:2], atol=1e-6)
    ray = np.linalg.inv(cam_int[0].numpy()) @ [*b[:2], 1]  # the tangents of the viewing angle
    np.testing.assert_allclose(camera.bbox_info(center, scale, cam_int)[0, :2], ray[:2], atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(boxes, principal)
def test_a_crop_of_a_larger_photo_has_the_larger_photo_s_camera(b, corner):
    """Cutting (left, top) off an image moves box and principal point alike; the body stays where it is."""
    center, scale = box(*b)
    cut = torch.tensor([corner], dtype=DOUBLE)
    whole, cropped = (
        intrinsics(900.0, 1280, 720),
        intrinsics(900.0, 1280 - 2 * corner[0], 720 - 2 * corner[1]),
    )
    cam = torch.tensor([[0.7, 0.2, -0.1]], dtype=DOUBLE)

    for formula in (camera.bbox_info, lambda *geometry: camera.full_translation(cam, *geometry)):
        in_crop, in_whole = formula(center - cut, scale, cropped), formula(center, scale, whole)
        torch.testing.assert_close(in_crop, in_whole, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(boxes, principal, st.floats(0.1, 3), *[st.floats(-1, 1)] * 4)
def test_a_point_at_the_body_s_depth_lands_where_the_weak_perspective_camera_says(b, at, s, tx, ty, x, y):
    """Inside the box, in units of half its side, (x, y, 0) must land at s (x + tx), s (y + ty)."""
    center, scale = box(*b)
    cam_int = intrinsics(1100.0, 2 * at[0], 2 * at[1])
    cam = torch.tensor([[s, tx, ty]], dtype=DOUBLE)

    translation = camera.full_translation(cam, center, scale, cam_int)
    point = torch.tensor([[[x, y, 0.0]]], dtype=DOUBLE) + translation[:, None]
    pixel = camera.project(point, cam_int, min_depth=1e-6)[0, 0]

    in_box = 2 * (pixel - center[0]) / b[2]
    assert torch.allclose(in_box, s * torch.tensor([x + tx, y + ty], dtype=DOUBLE), atol=1e-7)


people = st.tuples(
    boxes, st.tuples(st.floats(200, 4000), st.floats(200, 4000)), st.floats(100, 8000), st.floats(0.05, 3)
)


@settings(deadline=None, max_examples=40)
@given(st.lists(people, min_size=2, max_size=4))
def test_each_sample_has_its_own_image_size_and_focal_length(batch):
    """The released code mixes estimated focal lengths of a batch whose images differ in size."""

    def place(batch):
        b, size, focal, s = (torch.tensor(column, dtype=DOUBLE) for column in zip(*batch, strict=True))
        cam = torch.stack([s, 0.1 * s, -0.2 * s], -1)
        found = []
        for cam_int in (camera.default_intrinsics(size, focal), camera.default_intrinsics(size)):
            geometry = b[:, :2], b[:, 2] / 200, cam_int
            t = camera.full_translation(cam, *geometry)
            found += [camera.bbox_info(*geometry), t, camera.project(t[:, None], cam_int)[:, 0]]
        return torch.cat(found, -1)

    alone = torch.cat([place([person]) for person in batch])

    assert torch.allclose(place(batch), alone, rtol=1e-12)
    assert alone.isfinite().all()


@pytest.mark.parametrize(
    "center", [(-500.0, 200.0), (2000.0, 300.0), (640.0, -900.0), (0.0, 0.0), (1280.0, 720.0)]
)
def test_a_box_over_the_edge_or_wholly_outside_has_the_same_camera(center):
    """The centre of any box is where the weak-perspective camera (s, 0, 0) puts the body's origin."""
    cam_int = intrinsics(1000.0, 1280, 720)
    at, scale = box(*center, 300.0)
    cam = torch.tensor([[0.8, 0.0, 0.0]], dtype=DOUBLE)

    translation = camera.full_translation(cam, at, scale, cam_int)
    in_image = camera.project(translation[:, None], cam_int)[0, 0]
    in_crop = camera.project(translation[:, None], camera.crop_intrinsics(cam_int, at, scale, SIZE))[0, 0]
    info = camera.bbox_info(at, scale, cam_int)[0]

    assert in_image.tolist() == pytest.approx(center)
    assert in_crop.tolist() == pytest.approx([SIZE / 2, SIZE / 2])
    assert info.tolist() == pytest.approx([(center[0] - 640) / 1000, (center[1] - 360) / 1000, 0.3])


@pytest.mark.parametrize("corner", [(-120.0, -40.0), (30.0, 20.0), (-1000.0, 0.0), (0.0, 5000.0)])
def test_a_crop_shows_the_image_where_it_covers_it_and_black_elsewhere(corner):
    """With a box of the crop's own size a crop is a plain window of the image in an endless black."""
    picture = np.random.default_rng(0).integers(1, 255, (60, 80, 3), dtype=np.uint8)
    center, scale = torch.tensor(corner) + SIZE / 2, torch.tensor(SIZE / 200)

    crop = warp_image(picture, camera.crop_affine(center.double(), scale.double(), SIZE).numpy(), SIZE)

    expected = np.zeros((SIZE, SIZE, 3), np.uint8)
    x, y = np.meshgrid(np.arange(SIZE) + int(corner[0]), np.arange(SIZE) + int(corner[1]))
    inside = (x >= 0) & (x < 80) & (y >= 0) & (y < 60)
    expected[inside] = picture[y[inside], x[inside]]
    assert (crop == expected).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_box_without_a_size_is_refused_where_data_come_in(scale):
    label = {"key": "k", "pose": np.zeros(66), "betas": np.zeros(10), "trans": np.zeros(3)}
    label |= {"joints2d": np.zeros((24, 3)), "center": (0, 0), "img_size": (9, 9), "cam_int": np.eye(3)}
    row = {"imgname": ["a/b.png"], "center": np.zeros((1, 2)), "pose_cam": np.zeros((1, 66))}
    row |= {"shape": np.zeros((1, 10)), "trans_cam": np.zeros((1, 3)), "gtkps": np.zeros((1, 24, 3))}

    with pytest.raises(ValueError, match="sample k: .*scale"):
        make_label(**label, scale=scale)
    with pytest.raises(ValueError, match="'scale'"):
        Labels(**row, scale=np.array([scale]), cam_int=np.eye(3)[None])
    with pytest.raises(ValueError, match="pixels|finite"):
        square_box((5, 5, scale, scale), 640, 480)


@pytest.mark.parametrize("s", [0.1, 1e-9, 0.0, -0.5, -1e4])
def test_any_camera_scale_gives_a_body_in_front_of_the_camera_and_a_usable_gradient(s):
    cam = torch.tensor([[s, 0.1, 0.1]], requires_grad=True)
    center, scale = (x.float() for x in box(500.0, 300.0, 300.0))

    t = camera.full_translation(cam, center, scale, intrinsics(800.0, 640, 480).float())
    t[0, 2].backward()

    assert t.isfinite().all() and t[0, 2] > 0
    assert cam.grad.isfinite().all() and cam.grad[0, 0] < 0  # a larger scale always brings the body nearer


def test_camera_gradients_agree_with_finite_differences():
    center, scale = box(500.0, 300.0, 300.0)
    cam_int = intrinsics(800.0, 640, 480)
    cam = torch.tensor([[0.8, 0.1, -0.2], [0.05, 0.1, -0.2]], dtype=DOUBLE, requires_grad=True)
    points3d = torch.randn(2, 3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) + torch.tensor(
        [0, 0, 4.0]
    )

    assert torch.autograd.gradcheck(lambda c: camera.full_translation(c, center, scale, cam_int), cam)
    assert torch.autograd.gradcheck(lambda p: camera.project(p, cam_int), points3d.requires_grad_())


def test_the_box_surrounds_the_visible_body_joints_with_a_margin():
    joints = torch.full((1, 24, 2), 9999.0)
    joints[0, 0], joints[0, 5], joints[0, 7] = torch.tensor([[100.0, 50], [200, 250], [630, 60]])
    joints[0, 23] = torch.tensor([10.0, 10.0])  # an eye: no body joint
    visible = torch.ones(1, 24, dtype=torch.bool)
    visible[0, 7] = False

    center, scale = camera.box_from_joints(joints, visible, torch.tensor([[640.0, 480.0]]))

    assert torch.allclose(center, torch.tensor([[150.0, 150.0]]))
    assert scale.item() == pytest.approx(1.2 * 200 / 200)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_every_box_has_a_size_and_holds_the_joints_that_made_it(seed, seen):
    rng = np.random.default_rng(seed)
    joints = rng.uniform(-200, 900, (5, 24, 2))
    joints[rng.random((5, 24)) < 0.1] = np.nan
    visible = rng.random((5, 24)) < seen

    center, scale = camera.box_from_joints(
        torch.tensor(joints), torch.tensor(visible), torch.tensor([[640.0, 480.0]]).expand(5, 2)
    )

    assert (scale > 0).all() and center.isfinite().all()
    for i in range(5):
        used = visible[i, :22] & ((joints[i, :22] >= 0) & (joints[i, :22] < [640, 480])).all(1)
        if used.any():
            low, high = joints[i, :22][used].min(0), joints[i, :22][used].max(0)
            assert center[i].tolist() == pytest.approx((low + high) / 2)
            assert scale[i].item() * 200 == pytest.approx(max(1.2 * (high - low).max(), 1))


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


def test_the_weak_perspective_camera_of_a_label_is_undone_by_full_translation_off_the_centre_too():
    center, scale = torch.tensor([[500.0, 300.0]]), torch.tensor([1.7])
    cam_int, trans = intrinsics(800.0, 900, 300).float(), torch.tensor([[0.4, -0.3, 4.5]])
    batch = {"center": center, "scale": scale, "cam_int": cam_int, "trans": trans}

    cam = weak_perspective(batch)

    torch.testing.assert_close(camera.full_translation(cam, center, scale, cam_int), trans)
    in_box = (camera.project(trans[:, None], cam_int)[0, 0] - center[0]) / (100 * scale)
    torch.testing.assert_close(cam[0, :1] * cam[0, 1:], in_box)
