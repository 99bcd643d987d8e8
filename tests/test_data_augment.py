"""Jitter and mirror images follow the picture exactly; pictures change by seed alone."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from data_people import body_joints, pinhole, random_label, random_sample

from dpose.body import load_body, num_rotations
from dpose.config import MINI
from dpose.config import PAPER as PAPER_MODEL
from dpose.data.augment import (
    MIRRORED,
    NO_AUGMENT,
    PAPER_AUGMENT,
    Augment,
    augmentation,
    change_picture,
    jitter_box,
    mirror_label,
    occlude,
    picture_transforms,
    sample_generator,
)
from dpose.data.loader import collate
from dpose.data.sample import SAMPLE_SIZE, crop_matrix, relative_matrix, sample_from_frame, warp_nearest
from dpose.data.streams import prepare_sample
from dpose.data.targets import decode_depth, depth_target, encode_depth
from dpose.model.inference import to_device


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


GEOMETRY = Augment(half_crop_p=0.5, fault_p=0, colour_p=0, occlusion_p=0)  # no change of colours
FRAME = (320, 180)
Y, X = np.mgrid[: FRAME[1], : FRAME[0]] + 0.5


def any_box(rng: np.random.Generator, outside: float = 40) -> dict:
    """From a fifth of the network's side to twice it, centred anywhere in the frame or a bit beyond."""
    low, high = np.array([-outside, -outside]), np.array(FRAME) + outside
    return {"center": rng.uniform(low, high), "scale": rng.uniform(0.15, 1.6)}


def full_pixels(label: dict, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in the frame the centres of a crop's columns and rows lie: the closed form."""
    (cx, cy), side = label["center"], 200 * label["scale"]
    steps = ((np.arange(size) + 0.5) / size - 0.5) * side
    return cx + steps, cy + steps


@pytest.mark.parametrize("config", [MINI, PAPER_MODEL], ids=["128 px", "224 px"])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_blobs_at_joints_stay_at_their_joints_through_cut_jitter_and_mirror(flip, config):
    """Three joints, each a Gaussian in its own colour, to a tenth of a pixel of frame or crop.

    (Of the coarser: what is enlarged is known no better than OpenCV's 1/32 of a pixel before.)
    """
    looked_at, shrunk, across = 0, 0, 0
    rng = np.random.default_rng(3)
    size = config.image_size
    for i in range(120):
        label = random_label(rng, f"p{i}", **any_box(rng))
        side = 200 * label["scale"]
        joints, sigma = (4, 5, 20), max(1.5, 0.03 * side)
        points = np.array(label["center"]) + rng.uniform(-0.3, 0.3, (3, 2)) * side
        for joint, point in zip(joints, points, strict=True):
            label["joints2d"][joint] = [*point, 1.0]
        image = [250 * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / (2 * sigma**2)) for x, y in points]
        image = np.rint(np.stack(image, -1)).astype(np.uint8)
        sample = sample_from_frame(image, None, None, label, SAMPLE_SIZE[size])
        row = prepare_sample(
            sample, config, replace(GEOMETRY, flip_p=flip), sample_generator(0, i, label["key"])
        )
        new = row["label"]
        matrix = crop_matrix(new["center"], new["scale"], size)
        zoom = matrix[0, 0]
        yy, xx = np.mgrid[:size, :size] + 0.5
        for channel, joint in enumerate(joints):
            seen = np.abs(points[channel] - np.clip(points[channel], 4 * sigma, np.array(FRAME) - 4 * sigma))
            joint = np.array(new["joints2d"][MIRRORED[joint] if flip else joint])[:2]
            expected = matrix[:, :2] @ joint + matrix[:, 2]
            edge = 4 * sigma * zoom
            if seen.any() or (expected < edge).any() or (expected > size - edge).any():
                continue  # the blob is cut off by the frame's or the crop's edge
            weight = row["image"][..., channel].astype(float)
            found = np.array([(xx * weight).sum(), (yy * weight).sum()]) / weight.sum()
            assert np.abs(found - expected).max() < 0.1 * max(1, zoom)
            looked_at, shrunk = looked_at + 1, shrunk + (zoom < 1)
            corners = np.array(new["center"])[:, None] + np.array([-0.5, 0.5]) * 200 * new["scale"]
            across += corners.min() < 0 or (corners[:, 1] > FRAME).any()
    assert looked_at > 25 and shrunk > 5 and looked_at - shrunk > 5 and across > 5


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_ramps_stay_where_they_were_as_image_depth_and_parts(flip):
    """Each pixel of a crop says where in the frame it comes from; the boxes are any, also across borders."""
    rng = np.random.default_rng(5)
    looked_at, bias = 0, []
    image = np.stack([X, Y, 0 * X], -1).astype(np.float32)
    depth = (2 + X / 1000).astype(np.float32)
    augment = replace(GEOMETRY, flip_p=flip)
    for i in range(60):
        label = random_label(rng, f"p{i}", **any_box(rng))
        sample = sample_from_frame(image, depth, np.ones_like(X, bool), label, 160)
        row = prepare_sample(sample, MINI, augment, sample_generator(0, i, label["key"]))
        columns, rows = full_pixels(row["label"], 128)
        columns = FRAME[0] - columns if flip else columns
        stored = 200 * label["scale"] * label["margin"] / 160  # px of the frame in one of the cut
        coarse = 2.5 * max(stored, 200 * row["label"]["scale"] / 128, 1)
        inner_x = (columns > coarse) & (columns < FRAME[0] - coarse)  # interpolation stays inside
        inner_y = (rows > coarse) & (rows < FRAME[1] - coarse)
        reach = 100 * label["scale"] * label["margin"] - coarse
        inner_x &= np.abs(columns - label["center"][0]) < reach
        inner_y &= np.abs(rows - label["center"][1]) < reach
        outside_y = (rows < -coarse) | (rows > FRAME[1] + coarse)
        assert (row["image"][outside_y] == 0).all()
        if not (inner_x.any() and inner_y.any()):
            continue
        looked_at += 1
        inside = row["image"][np.ix_(inner_y, inner_x)]
        tolerance = 0.1 * max(1, 200 * row["label"]["scale"] / 128)
        assert np.abs(inside[..., 0] - columns[inner_x]).max() < tolerance
        assert np.abs(inside[..., 1] - rows[inner_y][:, None]).max() < tolerance
        # the maps take whole pixels of frame and cut: half a pixel of each at most, and none on average
        columns, rows = full_pixels(row["label"], MINI.map_size)
        columns = FRAME[0] - columns if flip else columns
        inner_x, inner_y = ((c > 2 * coarse) & (c < high - 2 * coarse)
                            for c, high in zip((columns, rows), FRAME, strict=True))  # fmt: skip
        inner_x &= np.abs(columns - label["center"][0]) < reach
        inner_y &= np.abs(rows - label["center"][1]) < reach
        to_map = relative_matrix(label, 160, *original_box(row["label"], flip), MINI.map_size)
        stored_depth = decode_depth(*encode_depth(sample["depth"]))  # in 16 bits
        metres = warp_nearest(stored_depth, to_map, MINI.map_size)
        metres = metres[:, ::-1] if flip else metres
        target = depth_target(metres)
        assert (depth_of(row) == target).all()
        error = (metres[np.ix_(inner_y, inner_x)] - 2) * 1000 - columns[inner_x]
        if error.size:
            assert np.abs(error).max() <= (1 + stored) / 2 + 0.01
            bias += [error.mean() / max(1, stored)]
    assert looked_at > 25 and abs(np.mean(bias)) < 0.05


def depth_of(row: dict) -> np.ndarray:
    """The depth target of a row."""
    return to_device(collate([row]), "cpu")["depth"][0, 0].numpy()


def original_box(label: dict, flip: float) -> tuple[list[float], float]:
    x, y = label["center"]
    return [FRAME[0] - x if flip else x, y], label["scale"]


def test_part_labels_follow_the_crop_to_the_pixel():
    """Stripes of parts: each map pixel has the stripe in which its centre lies in the stored cut."""
    rng = np.random.default_rng(6)
    stripes = (np.arange(160) // 8 % 23).astype(np.uint8)[None].repeat(160, 0)
    for i in range(20):
        label = random_label(rng, f"p{i}", **any_box(rng))
        sample = sample_from_frame(np.zeros((180, 320, 3), np.uint8), None, None, label, 160, stripes)
        row = prepare_sample(sample, MINI, GEOMETRY, sample_generator(0, i, label["key"]))
        columns, _ = full_pixels(row["label"], MINI.map_size)
        side = 200 * label["scale"] * label["margin"]
        where = ((columns - label["center"][0]) / side + 0.5) * 160  # in the stored cut
        sure = (np.abs(where / 8 - np.rint(where / 8)) > 1e-6) & (where > 0) & (where < 160)
        assert (row["parts"][MINI.map_size // 2][sure] == where[sure].astype(int) // 8 % 23).all()


def test_a_box_outside_the_frame_gives_a_black_crop_with_its_labels():
    rng = np.random.default_rng(7)
    frame = rng.integers(1, 256, (180, 320, 3), np.uint8)
    for center in ([-300.0, 90.0], [700.0, 90.0], [160.0, -400.0], [160.0, 900.0]):
        label = random_label(rng, center=center, scale=0.5)
        sample = sample_from_frame(frame, np.ones((180, 320)), np.ones((180, 320), bool), label, 160)
        row = prepare_sample(sample, MINI, GEOMETRY, sample_generator(0, 0, "a"))
        assert (row["image"] == 0).all() and not row["has_depth"] and (row["depth"] == 0).all()
        assert (row["label"]["joints2d"] == np.array(label["joints2d"])).all()


def test_a_samples_changes_follow_from_seed_epoch_and_key_alone():
    """So the same on any rank or worker, which is as well: no two have a sample in the same epoch."""
    sample = random_sample(np.random.default_rng(0), "p1", size=160)
    groups = picture_transforms(PAPER_AUGMENT)

    def result(*of):
        row = prepare_sample(sample, MINI, PAPER_AUGMENT, sample_generator(*of), groups)
        return row["image"].tobytes(), row["label"]["scale"]

    first = result(0, 0, "p1")
    result(5, 5, "x")  # whatever the worker did before
    assert result(0, 0, "p1") == first
    assert first not in [result(1, 0, "p1"), result(0, 1, "p1"), result(0, 0, "p2")]


def test_an_smpl_persons_hands_are_mirrored_too():
    label = random_label(np.random.default_rng(0), pose=np.arange(72) / 72, body="smpl-female")
    mirrored = np.reshape(mirror_label(label)["pose"], (24, 3))
    pose = np.reshape(label["pose"], (24, 3))
    np.testing.assert_allclose(mirrored[[22, 23]], pose[[23, 22]] * (1, -1, -1))
    np.testing.assert_allclose(mirrored[20], pose[21] * (1, -1, -1))
    np.testing.assert_allclose(np.reshape(mirror_label(mirror_label(label))["pose"], (24, 3)), pose)


def test_mirrored_maps_follow_the_image_and_swap_sides():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (180, 320, 3), np.uint8)
    depth = rng.uniform(2, 3, (180, 320)).astype(np.float32)
    parts = np.zeros((160, 160), np.uint8)
    parts[:, :60], parts[:, 60:90], parts[:, 90:] = 2, 1, 17  # left hip, pelvis, left shoulder
    label = random_label(rng)
    sample = sample_from_frame(frame, depth, np.ones((180, 320), bool), label, 160, parts)
    plain = prepare_sample(sample, MINI)
    augment = Augment(**{**NO_AUGMENT.__dict__, "flip_p": 1.0})
    flipped = prepare_sample(sample, MINI, augment, sample_generator(0, 0, "a"))
    assert (flipped["image"] == plain["image"][:, ::-1]).all()
    assert (depth_of(flipped) == depth_of(plain)[:, ::-1]).all() and (depth_of(plain) > 0).any()
    swapped = {2: 3, 1: 1, 17: 18}
    expected = np.vectorize(swapped.get)(plain["parts"][:, ::-1])
    assert (flipped["parts"] == expected).all()


def test_jitter_has_the_released_chances_and_limits():
    label = random_label(np.random.default_rng(0))
    boxes = [jitter_box(label, PAPER_AUGMENT, sample_generator(0, i, "a")) for i in range(4000)]
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


def test_a_shift_moves_the_box_alone_and_by_shares_of_its_side():
    label = random_label(np.random.default_rng(0))
    augment = Augment(half_crop_p=0, scale_sigma=0, shift_sigma=0.04)
    centers, scales = zip(
        *(jitter_box(label, augment, sample_generator(0, i, "a")) for i in range(4000)), strict=True
    )
    shift = (np.array(centers) - label["center"]) / (200 * label["scale"])
    assert set(scales) == {label["scale"]} and np.abs(shift).max() == pytest.approx(0.08)
    assert np.abs(shift.mean(0)).max() < 0.003 and np.allclose(shift.std(0), 0.04, atol=0.003)
    plain, shifted = (
        jitter_box(label, replace(PAPER_AUGMENT, shift_sigma=sigma), sample_generator(1, 0, "a"))
        for sigma in (0, 0.04)
    )
    assert plain[1] == shifted[1]  # the other settings draw the same numbers


def test_each_transform_runs_on_a_crop_without_a_warning_and_repeats_by_seed():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = picture_transforms(Augment(fault_p=1.0, colour_p=1.0))
        for seed in range(40):
            outs = [change_picture(image, groups, sample_generator(seed, 0, "a")) for _ in range(2)]
            assert outs[0].shape == image.shape and outs[0].dtype == np.uint8
            assert (outs[0] == outs[1]).all()


@pytest.mark.parametrize("group", ["fault_p", "colour_p"])
def test_pictures_are_changed_as_often_as_the_strengths_say(group):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    for chance in (0.0, 0.3, 1.0):
        groups = picture_transforms(replace(NO_AUGMENT, **{group: chance}))
        changed = [
            (change_picture(image, groups, sample_generator(0, i, "a")) != image).any() for i in range(400)
        ]
        assert abs(np.mean(changed) - chance) < 0.07


def test_people_of_bodies_without_a_symmetric_shape_space_are_not_mirrored():
    """What the mirrored person's betas would be is known of the open bodies only."""
    for body, mirrored in (
        ("open", True),
        ("open-smpl", True),
        ("smplx-neutral", False),
        ("smpl-male", False),
    ):
        pose = np.linspace(0, 1, 72)[: 3 * num_rotations(body)]
        sample = random_sample(np.random.default_rng(0), "p1", size=160, body=body, pose=pose)
        rows = [
            prepare_sample(sample, MINI, replace(NO_AUGMENT, flip_p=chance), sample_generator(0, 0, "p1"))
            for chance in (0.0, 1.0)
        ]
        assert (rows[1]["image"] == rows[0]["image"]).all() != mirrored
        assert (rows[1]["label"]["trans"][0] == rows[0]["label"]["trans"][0]) != mirrored


def test_occlusion_boxes_change_part_of_a_copy():
    image = np.full((128, 128, 3), 100, np.uint8)
    out = occlude(image, Augment(occlusion_p=1.0), np.random.default_rng(0))
    changed = (out != image).any(-1).mean()
    assert 0 < changed < 0.3 and (image == 100).all()


def test_the_augmentation_of_a_mini_preset_is_milder():
    assert (
        augmentation("paper") == PAPER_AUGMENT == Augment()
        and augmentation("mini-no-depth").scale_sigma < 0.25
    )
