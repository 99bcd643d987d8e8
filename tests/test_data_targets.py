"""Part targets on the device: the released camera against numpy's least squares, and labels."""

import numpy as np
import pytest
import roma
import torch
from on_device import OnDevice

from dpose.body import load_body
from dpose.camera import crop_affine, crop_intrinsics, project
from dpose.data.sample import make_label
from dpose.data.targets import (
    RELEASED_FOCAL,
    RELEASED_SIDE,
    label_part_targets,
    part_targets,
    released_intrinsics,
    released_translation,
)
from dpose.render import render_parts

PEOPLE, WIDTH, HEIGHT, FOCAL = 6, 640, 480, 600.0


@pytest.fixture(scope="module")
def people() -> dict:
    """People in the left half of the image, 3 to 5 m away, as the tensors of a batch, and their body."""
    generator = torch.Generator().manual_seed(0)
    body = load_body()
    axis_angle = 0.3 * torch.randn(PEOPLE, 22, 3, generator=generator)
    axis_angle[:, 0] = torch.tensor([np.pi, 0.0, 0.0])
    betas = torch.randn(PEOPLE, 11, generator=generator)
    trans = torch.tensor([-0.8, 0.1, 3.0]) + torch.rand(PEOPLE, 3, generator=generator) * torch.tensor(
        [0.6, 0.2, 2.0]
    )
    posed = body(betas, axis_angle, trans, form="axis-angle")
    cam_int = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]).expand(PEOPLE, 3, 3)
    pixels = project(posed.joints[:, :24], cam_int)
    confidence = torch.rand(PEOPLE, 24, 1, generator=generator)
    confidence[:, 3] = 0
    low, high = pixels.amin(1), pixels.amax(1)
    return {
        "vertices": posed.vertices,
        "joints3d": posed.joints,
        "joints2d": torch.cat([pixels, confidence], -1),
        "center": (low + high) / 2 + torch.tensor([3.0, -2.0]),
        "scale": 1.2 * (high - low).amax(-1) / 200,
        "cam_int": cam_int,
        "body": body,
        "label": {"pose": axis_angle, "betas": betas, "trans": trans},
    }


GEOMETRY = ("vertices", "joints3d", "joints2d", "center", "scale", "cam_int", "body")
FIT = ("joints3d", "joints2d", "center", "scale")


def labels(people: dict, size: int = 56, changes: dict | None = None, **how) -> torch.Tensor:
    given = people | (changes or {})
    return part_targets(*(given[name] for name in GEOMETRY), size, **how)


def crop_pixels(people: dict) -> torch.Tensor:
    """The labelled 2D joints in a crop of 224 pixels, from its middle (B, 24, 2)."""
    affine = crop_affine(people["center"], people["scale"], RELEASED_SIDE)
    xy = people["joints2d"][..., :2]
    return xy @ affine[:, :, :2].mT + affine[:, None, :, 2] - RELEASED_SIDE / 2


def test_the_translation_is_the_weighted_least_squares_answer(people):
    found, solved = released_translation(*(people[name] for name in FIT))
    assert solved.all()
    pixels, weight = crop_pixels(people).double().numpy(), people["joints2d"][..., 2].double().numpy()
    points = people["joints3d"][:, :24].double().numpy()
    for i in range(PEOPLE):
        rows, right = [], []
        for (u, v), (x, y, z), c in zip(pixels[i], points[i], weight[i], strict=True):
            rows += [[c**0.5 * RELEASED_FOCAL, 0, -(c**0.5) * u], [0, c**0.5 * RELEASED_FOCAL, -(c**0.5) * v]]
            right += [c**0.5 * (u * z - RELEASED_FOCAL * x), c**0.5 * (v * z - RELEASED_FOCAL * y)]
        expected = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_body_viewed_by_the_released_camera_is_found_where_it_stands(people):
    truth = torch.tensor([[0.3, -0.2, 40.0]]).repeat(PEOPLE, 1) + torch.arange(PEOPLE)[:, None]
    rooted = people["joints3d"] - people["joints3d"][:, :1]
    seen = project(rooted[:, :24] + truth[:, None], released_intrinsics(people["scale"], RELEASED_SIDE))
    zoom = 200 * people["scale"] / RELEASED_SIDE
    full = (seen - RELEASED_SIDE / 2) * zoom[:, None, None] + people["center"][:, None]
    joints2d = torch.cat([full, torch.ones(PEOPLE, 24, 1)], -1)
    found, solved = released_translation(rooted, joints2d, people["center"], people["scale"])
    assert solved.all()
    np.testing.assert_allclose(found, truth, rtol=2e-4, atol=1e-3)


def test_a_body_that_is_moved_first_ends_in_the_same_place(people):
    found, _ = released_translation(*(people[name] for name in FIT))
    shift = torch.tensor([1.0, -2.0, 5.0])
    moved, _ = released_translation(people["joints3d"] + shift, *(people[name] for name in FIT[1:]))
    np.testing.assert_allclose(moved + shift, found, atol=2e-4)


def test_the_fitted_joints_come_near_the_labelled_ones(people):
    translation, _ = released_translation(*(people[name] for name in FIT))
    placed = people["joints3d"][:, :24] + translation[:, None]
    seen = project(placed, released_intrinsics(people["scale"], RELEASED_SIDE)) - RELEASED_SIDE / 2
    assert (seen - crop_pixels(people)).norm(dim=-1).mean() < 12  # of 224; they stand aside, and near


def broken(people: dict, how: str) -> dict:
    """The second person's joints spoilt."""
    joints3d, joints2d = people["joints3d"].clone(), people["joints2d"].clone()
    if how == "no joint":
        joints2d[1, :, 2] = 0
    elif how == "one joint":
        joints2d[1, 1:, 2] = 0
    elif how == "one spot":
        joints2d[1, :, :2] = joints2d[1, 0, :2]
    elif how == "all NaN":
        joints2d[1, :, :2] = torch.nan
    elif how == "negative confidence":
        joints2d[1, :, 2] = -2
    elif how == "3D NaN":
        joints3d[1] = torch.nan
    elif how == "upside down":
        joints2d[1, :, :2] = 2 * people["center"][1] - joints2d[1, :, :2]
    return {"joints3d": joints3d, "joints2d": joints2d}


SPOILT = ("no joint", "one joint", "one spot", "all NaN", "negative confidence", "3D NaN", "upside down")


@pytest.mark.parametrize("how", SPOILT)
def test_joints_that_determine_no_place_leave_the_image_s_own_perspective(people, how):
    given = people | broken(people, how)
    translation, solved = released_translation(*(given[name] for name in FIT))
    whole, _ = released_translation(*(people[name] for name in FIT))
    assert solved.tolist() == [i != 1 for i in range(PEOPLE)]
    assert (translation[1] == 0).all() and (translation[solved] == whole[solved]).all()
    found, true, released = (
        labels(given, camera="released"),
        labels(people),
        labels(people, camera="released"),
    )
    assert (found[1] == true[1]).all() and (found[solved] == released[solved]).all()
    assert (found[1] > 0).any() and (found[1] != released[1]).any()


def test_a_joint_without_confidence_may_hold_anything(people):
    changed = people["joints2d"].clone()
    changed[:, 3, :2] = torch.tensor([torch.nan, torch.inf])
    changed[0, 5, 2] = torch.nan
    dropped = people["joints2d"].clone()
    dropped[0, 5, 2] = 0
    geometry = people["center"], people["scale"]
    found, solved = released_translation(people["joints3d"], changed, *geometry)
    assert solved.all()
    assert (found == released_translation(people["joints3d"], dropped, *geometry)[0]).all()


def test_the_fit_never_makes_a_cuda_program_wait(people):
    given = [people[name].to("meta") for name in FIT]
    with OnDevice(given):
        released_translation(*given)
        released_intrinsics(given[-1], 56, 1.25)


def test_two_joints_are_enough(people):
    joints2d = people["joints2d"].clone()
    joints2d[..., 2] = 0
    joints2d[:, [0, 15], 2] = 1
    found, solved = released_translation(
        people["joints3d"], joints2d, *(people[name] for name in ("center", "scale"))
    )
    assert solved.all() and (found[:, 2] > 10).all()


def test_labels_lie_where_the_crop_s_own_camera_sees_the_body(people):
    camera = crop_intrinsics(people["cam_int"], people["center"], people["scale"], 60)
    expected = render_parts(people["vertices"], people["body"], camera, 60)
    found = labels(people, 60)
    assert found.dtype == torch.uint8 and (found == expected).all()
    points = project(people["joints3d"][:, :22], camera)
    inside = ((points >= 0) & (points < 60)).all(-1)
    row, column = points[..., 1].clamp(0, 59).long(), points[..., 0].clamp(0, 59).long()
    hit = found[torch.arange(PEOPLE)[:, None], row, column] > 0
    assert (hit & inside).sum() > 0.9 * inside.sum()


@pytest.mark.parametrize("camera", ["crop", "released"])
def test_another_resolution_shows_the_same(people, camera):
    fine = labels(people, 165, camera=camera)
    assert (fine[:, 1::3, 1::3] != labels(people, 55, camera=camera)).float().mean() < 1e-3


@pytest.mark.parametrize("camera", ["crop", "released"])
def test_a_margin_only_adds_pixels_around(people, camera):
    margin = torch.full((PEOPLE,), 1.25)
    wide = labels(people, 140, camera=camera, margin=margin)
    assert (wide[:, 14:126, 14:126] != labels(people, 112, camera=camera)).float().mean() < 1e-3
    assert (wide == labels(people, 140, camera=camera, margin=1.25)).all()


def test_both_cameras_agree_where_the_image_is_taken_from_afar_and_straight(people):
    middle = torch.tensor([[0.0, 0.0, 45.0]]) - people["joints3d"][:, 0]
    vertices, joints = people["vertices"] + middle[:, None], people["joints3d"] + middle[:, None]
    cam_int = torch.tensor([[5000.0, 0, 320], [0, 5000, 240], [0, 0, 1]]).expand(PEOPLE, 3, 3)
    joints2d = torch.cat([project(joints[:, :24], cam_int), torch.ones(PEOPLE, 24, 1)], -1)
    center, scale = torch.tensor([[320.0, 240.0]]).expand(PEOPLE, 2), torch.full((PEOPLE,), 1.4)
    changes = {"vertices": vertices, "joints3d": joints, "joints2d": joints2d, "center": center}
    changes |= {"scale": scale, "cam_int": cam_int}
    true, released = labels(people, 56, changes), labels(people, 56, changes, camera="released")
    assert (true > 0).any((1, 2)).all()
    assert (true != released).float().sum() < 0.02 * (true > 0).sum()


@pytest.mark.parametrize("camera", ["crop", "released"])
def test_stored_cuts_get_the_labels_of_their_margin(people, camera):
    rows = [
        make_label(
            key=f"person-{i}",
            **{name: value[i].numpy() for name, value in people["label"].items()},
            joints2d=people["joints2d"][i],
            center=people["center"][i],
            scale=people["scale"][i],
            img_size=(WIDTH, HEIGHT),
            cam_int=people["cam_int"][i],
        )
        for i in range(PEOPLE)
    ]
    poses, betas, trans = (people["label"][name] for name in ("pose", "betas", "trans"))
    found = label_part_targets(poses.flatten(1), betas, trans, rows, people["body"], 70, camera=camera)
    expected = labels(people, 70, camera=camera, margin=1.25).numpy()
    assert found.dtype == np.uint8 and (found != expected).mean() < 1e-3


def test_bent_fingers_are_drawn_and_counted_to_the_wrists(people):
    rows = [
        make_label(
            key="person",
            pose=people["label"]["pose"][0].numpy(),
            betas=people["label"]["betas"][0],
            trans=people["label"]["trans"][0],
            joints2d=people["joints2d"][0],
            center=people["center"][0],
            scale=people["scale"][0],
            img_size=(WIDTH, HEIGHT),
            cam_int=people["cam_int"][0],
        )
    ]
    pose = torch.zeros(1, 165)
    pose[:, :66] = people["label"]["pose"][:1].flatten(1)
    pose[:, 75:] = 0.6
    betas, trans = people["label"]["betas"][:1], people["label"]["trans"][:1]
    found = torch.tensor(label_part_targets(pose, betas, trans, rows, people["body"], 200))
    rotmats = roma.rotvec_to_rotmat(pose[:, :66].view(1, 22, 3))
    hands = roma.rotvec_to_rotmat(pose[:, 75:].view(1, 30, 3))
    vertices = people["body"](betas, rotmats, trans, hands=hands).vertices
    expected = labels(
        {name: value[:1] if torch.is_tensor(value) else value for name, value in people.items()},
        200,
        {"vertices": vertices},
        margin=1.25,
    )
    assert (found != expected).float().mean() < 1e-3
    resting = torch.tensor(label_part_targets(pose[:, :66], betas, trans, rows, people["body"], 200))
    changed = torch.unique(torch.stack([found, resting])[:, found != resting]).tolist()
    assert {21, 22} & set(changed)


def test_another_camera_or_backend_is_refused(people):
    with pytest.raises(ValueError, match="crop, released"):
        labels(people, camera="weak")
    with pytest.raises(ValueError, match="opengl"):
        labels(people, backend="opengl")
    with pytest.raises((RuntimeError, ValueError), match="backend='warp'"):
        labels(people, backend="neural_renderer")  # the package is missing, or the tensors are on the CPU
