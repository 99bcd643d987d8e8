"""What training has beyond test: each option does what it says, and pictures, depth and labels agree."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import roma
import torch
from test_synthetic import as_bytes, make

from dpose import cli
from dpose.camera import BOX_FACTOR
from dpose.data.targets import label_part_targets
from dpose.synthetic import SceneRenderer, finish, person_samples, poses, sample_scene
from dpose.synthetic.samples import open_body, people_labels
from dpose.synthetic.scene import second_view
from dpose.synthetic.variety import OPTIONS, PLAIN, Options, Variety

SIZE = 96
NUMBERS = range(40, 52)
ALL = Variety(**dict.fromkeys(OPTIONS, 1.0))


def only(name: str) -> Variety:
    return replace(PLAIN, **{name: 1.0})


def scenes(variety: Variety | None, numbers=NUMBERS):
    return [sample_scene(0, "train", number, variety) for number in numbers]


@pytest.fixture(scope="module")
def varied():
    return scenes(None)


# --- which options a scene takes ----------------------------------------------------------------------------


def test_without_options_training_has_the_people_of_earlier_versions():
    """Numbers of version 2, whose training scenes had no options."""
    first, second = person_samples(sample_scene(0, "train", 0, PLAIN), SIZE)
    np.testing.assert_allclose(first["label"]["trans"], [0.059921, -0.050262, 4.69903], atol=1e-4)
    np.testing.assert_allclose(first["image"].mean((0, 1)), [175.344, 185.056, 137.197], atol=0.05)
    assert [abs((s["depth"] > 0).sum() - n) <= 4 for s, n in ((first, 1099), (second, 1081))] == [True] * 2


@pytest.mark.parametrize(
    ("split", "plain"), [("test", True), ("val", True), ("train", False), ("hard", False)]
)
def test_only_training_and_the_hard_test_set_vary(split, plain):
    found = [sample_scene(0, split, number) for number in range(6)]
    asked = [sample_scene(0, split, number, PLAIN) for number in range(6)]
    same = [np.array_equal(a.translation, b.translation) for a, b in zip(found, asked, strict=True)]
    assert all(same) == plain
    assert plain == all(second_view(scene) is None for scene in found)


def test_options_are_taken_as_often_as_asked():
    keys = [(0, 0, 2, number) for number in range(600)]
    for name in ("groups", "facing", "views"):
        taken = np.mean([Options(Variety(), key)(name) is not None for key in keys])
        assert taken == pytest.approx(getattr(Variety(), name), abs=0.06)
    pairs = [(o("poses", 0) is None, o("poses", 1) is None) for o in (Options(Variety(), k) for k in keys)]
    assert 0.3 < np.mean([a == b for a, b in pairs]) < 0.7  # people of a scene are independent


@pytest.mark.parametrize("name", ["tone", "focus", "resolution"])
def test_options_of_the_picture_change_nothing_else(name):
    changed = 0
    for number in NUMBERS[:4]:
        pairs = [person_samples(sample_scene(0, "train", number, v), 48) for v in (ALL, ALL.without(name))]
        for a, b in zip(*pairs, strict=True):
            assert as_bytes([a | {"image": a["image"] * 0}]) == as_bytes([b | {"image": b["image"] * 0}])
            changed += not np.array_equal(a["image"], b["image"])
    assert changed


@pytest.mark.parametrize("name", ["clothes", "belongings", "light", "backgrounds", "tables", "occluders"])
def test_options_of_the_scene_leave_people_and_camera_as_they_are(name):
    for a, b in zip(scenes(ALL, NUMBERS[:3]), scenes(ALL.without(name), NUMBERS[:3]), strict=True):
        np.testing.assert_array_equal(a.rotations, b.rotations)
        if name != "clothes":  # thicker soles
            np.testing.assert_array_equal(a.translation, b.translation)


def test_an_unknown_option_is_refused_with_the_choices(tmp_path, capsys):
    with pytest.raises(ValueError, match="rain.*poses"):
        Variety().without("rain")
    with pytest.raises(ValueError, match="rain"):
        make(tmp_path / "root", without=["rain"])
    assert not (tmp_path / "root").exists()


def test_data_without_an_option_are_not_mixed_with_others(tmp_path, capsys):
    small = ["--root", str(tmp_path), "--train", "1", "--val", "0", "--test", "0", "--frames", "0"]
    small += ["--size", "32", "--workers", "1", "--without", "groups", "tone"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpose.synthetic.dataset.SCENES_PER_SHARD", 2)
        assert not cli.main(["synth", *small])
        assert make(tmp_path, {"train": 1}, without=["tone", "groups"])["without"] == ["groups", "tone"]
        with pytest.raises(ValueError, match="groups"):
            make(tmp_path, {"train": 1})


# --- pictures and labels ------------------------------------------------------------------------------------


def test_drawn_people_are_those_that_rays_hit(varied):
    """Of the same scenes, the ray tracer and the labels of `dpose.data.targets` against drawn faces."""
    seen = 0
    for scene in varied[:6]:
        people = people_labels(scene)
        crops = [(label["center"], label["scale"], SIZE, 1.25) for _, _, label in people]
        renderer = SceneRenderer(scene)
        drawn = [renderer.crop(*crop) for crop in crops]
        coarse = [renderer.silhouettes(*crop) for crop in crops]
        parts = [renderer.parts(k, *crop) for (k, _, _), crop in zip(people, crops, strict=True)]
        rays = SceneRenderer(replace(scene, options=Options(PLAIN, scene.options.key)))
        for (_, pose, label), crop, view, silhouettes, part in zip(
            people, crops, drawn, coarse, parts, strict=True
        ):
            traced = rays.crop(*crop)
            assert (view.person != traced.person).mean() < 0.004
            assert (silhouettes != traced.person).mean() < 0.004
            both = (view.person == traced.person) & (traced.depth > 0)
            assert np.quantile(np.abs(view.depth - traced.depth)[both], 0.9) < 0.01
            # shadows are a little softer
            assert np.abs(view.image.astype(float) - traced.image).mean() < 8
            columns = [pose], [label["betas"]], [label["trans"]]
            expected = label_part_targets(*columns, [label], open_body(), SIZE)[0]
            assert (part != expected).mean() < 5e-4 and expected.any()
            seen += 1
    assert seen >= 6


def test_visible_people_lie_within_their_silhouettes_and_some_are_hidden():
    def shares(variety):
        out = []
        for number in NUMBERS:
            for sample in person_samples(sample_scene(0, "train", number, variety), SIZE):
                visible, parts = sample["depth"] > 0, sample["parts"] > 0
                near = cv2.dilate(parts.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
                out.append(((visible & near).sum() / visible.sum(), (visible & parts).sum() / parts.sum()))
        return np.array(out).T

    near, open_share = shares(None)
    _, plain_share = shares(PLAIN)
    assert np.median(near) > 0.98 and near.min() > 0.7  # coats and skirts are wide
    assert np.mean(open_share < 0.8) > 1.5 * np.mean(plain_share < 0.8)


def test_boxes_surround_what_is_visible():
    checked = 0
    for number in NUMBERS:
        scene = sample_scene(0, "train", number, replace(PLAIN, boxes=1.0, tables=1.0))
        around_joints = {label["key"]: label for _, _, label in people_labels(scene)}
        for sample in person_samples(scene, SIZE):
            label, visible = sample["label"], sample["depth"] > 0
            if label["scale"] < 0.46 * around_joints[label["key"]]["scale"]:
                continue  # hardly visible: the smallest box
            rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
            extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
            assert extent * BOX_FACTOR == pytest.approx(SIZE / 1.25, abs=6)
            middle = np.array([rows[0] + rows[-1], columns[0] + columns[-1]]) / 2
            np.testing.assert_allclose(middle, (SIZE - 1) / 2, atol=3)
            checked += 1
    assert checked >= 8


def test_two_cameras_see_the_same_people_from_other_places(varied):
    for scene in varied:
        other = second_view(scene)
        np.testing.assert_array_equal(scene.joints, other.joints)
        eyes = [-s.rotation.T @ s.translation for s in (scene, other)]
        assert np.linalg.norm(eyes[0] - eyes[1]) > 0.1
        if scene.world["room"]:
            assert (eyes[1] >= scene.world["room_min"]).all() and (eyes[1] <= scene.world["room_max"]).all()
    people = [sample for scene in varied[:5] for sample in person_samples(scene, 32)]
    keys = [sample["label"]["key"] for sample in people]
    assert len(set(keys)) == len(keys)
    subjects = [(k.split("-")[2], sample["label"]["subject"]) for k, sample in zip(keys, people, strict=True)]
    assert len(set(subjects)) < len(subjects)


# --- people and things --------------------------------------------------------------------------------------


def test_groups_stand_together_without_standing_in_one_another():
    gaps = {}
    for variety in (only("groups"), PLAIN):
        for scene in scenes(variety, range(60)):
            for k in range(1, len(scene.joints)):
                others = scene.joints[:k, :22].reshape(-1, 1, 3)
                gap = np.linalg.norm(others - scene.joints[k, :22], axis=-1).min()
                gaps.setdefault(variety, []).append(gap)
    together, apart = (np.array(gaps[variety]) for variety in (only("groups"), PLAIN))
    assert np.median(together) < 0.35 < np.median(apart)
    assert np.quantile(together, 0.05) > 0.1  # those who leap or sit change height afterwards


def test_wide_poses_bend_knees_and_elbows_only_the_way_they_can():
    found = [poses.sample_wide_pose(np.random.default_rng(seed)) for seed in range(300)]
    assert {pose.activity for pose in found} == set(poses.STANCES)
    assert sum(probability for probability, *_ in poses.STANCES.values()) == pytest.approx(1)
    local = roma.rotvec_to_rotmat(torch.tensor(np.stack([pose.rotations for pose in found]))).numpy()
    shins = local[:, [4, 5]] @ [0.0, -1, 0]
    assert (shins[..., 2] <= 1e-6).all() and np.abs(shins[..., 0]).max() < 1e-6
    assert (np.arccos(-shins[..., 1].clip(-1, 1)) < np.deg2rad(145)).all()
    for elbow, side in ((18, 1), (19, -1)):
        forearms = local[:, elbow] @ [side, 0.0, 0]
        assert (forearms[:, 2] >= -1e-6).all() and np.abs(forearms[:, 1]).max() < 1e-6
        assert (np.arccos((side * forearms[:, 0]).clip(-1, 1)) < np.deg2rad(150)).all()
    for hip in (1, 2):
        thighs = local[:, hip] @ [0.0, -1, 0]
        assert (np.arccos(-thighs[:, 1].clip(-1, 1)) < np.deg2rad(135)).all()


def test_tables_hide_legs_more_than_heads():
    shins, heads = [5, 6, 8, 9], [13, 16]  # parts are the joints' numbers plus 1
    visible = []
    for variety in (only("facing"), replace(PLAIN, tables=1.0, facing=1.0)):
        found = [s for n in range(60, 110) for s in person_samples(sample_scene(0, "train", n, variety), 48)]
        parts, seen = (np.stack([sample[name] for sample in found]) for name in ("parts", "depth"))
        visible.append([(seen[np.isin(parts, chosen)] > 0).mean() for chosen in (shins, heads)])
    of_shins, of_heads = np.subtract(*visible)
    assert of_shins > 0.15 and of_heads < 0.5 * of_shins


def test_only_what_is_behind_the_person_is_out_of_focus():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    depth, person = np.full((64, 64), 9.0), np.zeros((64, 64), bool)
    person[20:44, 20:44] = True
    depth[person], depth[:, :10] = 3.0, 1.0  # something stands in front at the left
    out = finish.focused(np.random.default_rng(1), image, depth, person)
    sharp = person | (depth < 3)
    inner = cv2.erode(sharp.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    np.testing.assert_allclose(out[inner], image[inner], atol=1)
    behind = cv2.erode((~sharp).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert out[behind].std() < 0.5 * image[behind].std()


def test_a_person_of_few_pixels_loses_detail_but_not_its_place():
    yy, xx = np.mgrid[:96, :96]
    image = np.repeat(np.where((xx // 2 + yy // 2) % 2, 200, 40)[..., None], 3, -1).astype(np.uint8)
    image[30:60, 30:60] = 250
    for seed in range(5):
        out = finish.coarse(np.random.default_rng(seed), image).astype(float)
        assert out.shape == image.shape
        assert out[:25, :25].std() < 0.7 * image[:25, :25].std()
        assert out[34:56, 34:56].mean() > out[64:, 64:].mean() + 60


def test_exposure_brings_dark_and_bright_pictures_together():
    levels = [20, 60, 140, 220]
    inside = np.ones((32, 32), bool)
    means = [
        finish.toned(np.random.default_rng(3), np.full((32, 32, 3), level, np.uint8), inside).mean()
        for level in levels
    ]
    assert sorted(means) == means and means[-1] / means[0] < 0.5 * levels[-1] / levels[0]
