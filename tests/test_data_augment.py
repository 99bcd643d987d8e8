"""Jitter and mirror images follow the picture exactly; pictures change by seed alone."""

import warnings

import numpy as np
import pytest
from data_people import body_joints, pinhole, random_label

from dpose.body import load_body
from dpose.config import MINI
from dpose.data.augment import (
    NONE,
    PAPER,
    Augment,
    augmentation,
    change_picture,
    jitter_box,
    mirror_label,
    occlude,
    picture_transforms,
    sample_generator,
)
from dpose.data.loader import prepare_sample
from dpose.data.sample import crop_matrix, sample_from_frame


def person_label(rng, body, **changes):
    label = random_label(rng, **changes)
    points = pinhole(body_joints(body, label["pose"], label["betas"], label["trans"]))
    return {**label, "joints2d": np.concatenate([points, np.ones((24, 1))], 1).tolist()}


@pytest.fixture(scope="module")
def body():
    return load_body()


def test_a_mirrored_label_projects_onto_its_own_mirrored_joints(body):
    rng = np.random.default_rng(0)
    for _ in range(5):
        label = person_label(rng, body, cam_int=[[260, 0, 160], [0, 260, 90], [0, 0, 1]])
        mirrored = mirror_label(label)
        points = pinhole(body_joints(body, mirrored["pose"], mirrored["betas"], mirrored["trans"]))
        joints = np.array(mirrored["joints2d"])
        assert np.abs(points[:23] - joints[:23, :2]).max() < 1.0  # the body is symmetric to millimetres
        assert joints[23, 2] == 0 and (joints[:23, 2] == 1).all()


def test_mirroring_twice_gives_the_label_back():
    label = random_label(np.random.default_rng(0))
    twice = mirror_label(mirror_label(label))
    for name in ("pose", "trans", "center", "cam_int"):
        np.testing.assert_allclose(twice[name], label[name], atol=1e-9)
    np.testing.assert_allclose(np.array(twice["joints2d"])[:, :2], np.array(label["joints2d"])[:, :2])


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_dot_at_a_joint_stays_at_that_joint_through_cut_jitter_and_mirror(flip):
    """A dot is drawn at the left wrist; after everything it is where the labels say that wrist is."""
    looked_at = 0
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:180, :320] + 0.5
    for i in range(10):
        label = random_label(rng, f"p{i}", center=(111.3, 95.7), scale=0.55)
        wrist = np.array(label["center"]) + rng.uniform(-12, 12, 2)
        label["joints2d"][20] = [*wrist, 1.0]
        value = 250 * np.exp(-((x - wrist[0]) ** 2 + (y - wrist[1]) ** 2) / 18)
        image = np.rint(value).astype(np.uint8)[..., None].repeat(3, -1)
        sample = sample_from_frame(image, None, None, label, 160)
        augment = Augment(half_crop_p=0.5, flip_p=flip, fault_p=0, colour_p=0, occlusion_p=0)
        row = prepare_sample(sample, MINI, augment, sample_generator(0, i, label["key"]))
        new = row["label"]
        joint = np.array(new["joints2d"][21 if flip else 20])[:2]
        matrix = crop_matrix(new["center"], new["scale"], 128)
        expected = matrix[:, :2] @ joint + matrix[:, 2]
        if not (30 < expected).all() or not (expected < 98).all():
            continue  # the dot is cut off by the crop's edge
        weight = row["image"][..., 0].astype(float)
        yy, xx = np.mgrid[:128, :128] + 0.5
        found = np.array([(xx * weight).sum(), (yy * weight).sum()]) / weight.sum()
        assert np.abs(found - expected).max() < 0.2
        assert new["scale"] != label["scale"]
        looked_at += 1
    assert looked_at >= 5


def test_mirrored_maps_follow_the_image_and_swap_sides():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (180, 320, 3), np.uint8)
    depth = rng.uniform(2, 3, (180, 320)).astype(np.float32)
    parts = np.zeros((160, 160), np.uint8)
    parts[:, :60], parts[:, 60:90], parts[:, 90:] = 2, 1, 17  # left hip, pelvis, left shoulder
    label = random_label(rng)
    sample = sample_from_frame(frame, depth, np.ones((180, 320), bool), label, 160, parts)
    plain = prepare_sample(sample, MINI)
    augment = Augment(**{**NONE.__dict__, "flip_p": 1.0})
    flipped = prepare_sample(sample, MINI, augment, sample_generator(0, 0, "a"))
    assert (flipped["image"] == plain["image"][:, ::-1]).all()
    assert (flipped["depth"] == plain["depth"][:, ::-1]).all()
    swapped = {2: 3, 1: 1, 17: 18}
    expected = np.vectorize(swapped.get)(plain["parts"][:, ::-1])
    assert (flipped["parts"] == expected).all()


def test_jitter_has_the_papers_chances_and_limits():
    label = random_label(np.random.default_rng(0))
    boxes = [jitter_box(label, PAPER, sample_generator(0, i, "a")) for i in range(4000)]
    factor = np.array([scale for _, scale in boxes]) / label["scale"]
    halved = np.array([center[1] != label["center"][1] for center, _ in boxes])
    assert abs(halved.mean() - 0.2) < 0.02
    full, half = factor[~halved], factor[halved] * 2
    for values in (full, half):
        assert values.min() == 0.75 and values.max() == 1.25
    assert abs(np.mean(full == 0.75) - 0.1587) < 0.02  # P(N(1, 0.25) < 0.75)
    shift = np.array([center[1] for center, _ in boxes])[halved] - label["center"][1]
    side = 200 * label["scale"]
    assert np.abs(shift).max() <= side / 4 and np.abs(shift).max() > 0.24 * side  # stays within the box
    assert all(center[0] == label["center"][0] for center, _ in boxes)


def test_each_transform_runs_on_a_crop_without_a_warning_and_repeats_by_seed():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = picture_transforms(Augment(fault_p=1.0, colour_p=1.0))
        for seed in range(40):
            outs = [change_picture(image, groups, sample_generator(seed, 0, "a")) for _ in range(2)]
            assert outs[0].shape == image.shape and outs[0].dtype == np.uint8
            assert (outs[0] == outs[1]).all()


def test_occlusion_boxes_change_part_of_a_copy():
    image = np.full((128, 128, 3), 100, np.uint8)
    out = occlude(image, Augment(occlusion_p=1.0), np.random.default_rng(0))
    changed = (out != image).any(-1).mean()
    assert 0 < changed < 0.3 and (image == 100).all()


def test_the_augmentation_of_a_mini_preset_is_milder():
    assert augmentation("paper") == PAPER == Augment() and augmentation("mini-no-depth").scale_sigma < 0.25
