"""The open data: same seed, same people; labels that the body, the BEDLAM reader and anatomy agree with."""

import importlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import roma
import torch

from dpose import cli
from dpose.body import load_body
from dpose.data.frames import Skipped
from dpose.data.sets.bedlam import read_bedlam
from dpose.data.shards import decode_sample, read_manifest
from dpose.synthetic import Prepared, generate, person_samples, poses, sample_scene, write_frames
from dpose.synthetic.scene import IDENTITIES, sample_identity

generator = importlib.import_module("dpose.synthetic.dataset")  # the package's name is the function's

SIZE = 96
SCENES = 24


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(0, "test", index) for index in range(SCENES)]


@pytest.fixture(scope="module")
def samples(scenes):
    return [sample for scene in scenes for sample in person_samples(scene, SIZE)]


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of two scenes, so that a handful of scenes makes several."""
    monkeypatch.setattr(generator, "SCENES_PER_SHARD", 2)


def posed(body, betas, axis_angle, trans):
    """Vertices and joints of N people by `dpose.body`, which the generator's own skinning does not use."""
    tensor = lambda a: torch.as_tensor(np.asarray(a), dtype=torch.float32)  # noqa: E731
    rotmats = roma.rotvec_to_rotmat(tensor(axis_angle).reshape(len(betas), 22, 3))
    with torch.no_grad():
        out = body(tensor(betas), rotmats, tensor(trans))
    return out.vertices.numpy(), out.joints.numpy()


def as_bytes(samples) -> list[bytes]:
    return [
        part
        for s in samples
        for part in (
            s["image"].tobytes(),
            s["depth"].tobytes(),
            s["parts"].tobytes(),
            repr(s["label"]).encode(),
        )
    ]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


# --- what a seed makes --------------------------------------------------------------------------------------


def test_a_scene_is_the_same_bytes_whatever_was_made_before_it():
    first = as_bytes(person_samples(sample_scene(3, "train", 7), 48))
    for index in (2, 9):
        person_samples(sample_scene(3, "train", index), 48)
    assert first and as_bytes(person_samples(sample_scene(3, "train", 7), 48)) == first


@pytest.mark.parametrize("other", [(4, "train", 7), (3, "val", 7), (3, "train", 8)])
def test_seed_split_and_number_each_make_another_scene(other):
    a, b = sample_scene(3, "train", 7), sample_scene(*other)
    assert a.betas.shape != b.betas.shape or not np.allclose(a.betas, b.betas)
    assert not np.allclose(a.translation, b.translation)


def test_splits_share_no_identity():
    betas = {split: [sample_identity(0, split, n)[0] for n in range(100)] for split in IDENTITIES}
    everyone = np.concatenate(list(betas.values()))
    assert len(np.unique(everyone.round(9), axis=0)) == 300


def test_an_identity_keeps_its_body_and_skin_in_every_scene(scenes):
    for scene in scenes[:6]:
        for subject, betas, outfit in zip(scene.subjects, scene.betas, scene.outfits, strict=True):
            split, number = subject.split("-")
            expected, looks = sample_identity(0, split, int(number))
            np.testing.assert_array_equal(betas, expected)
            np.testing.assert_array_equal(outfit.wear["skin"], looks["skin"])


def test_unknown_split_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown split 'training'; one of train, val, test"):
        sample_scene(0, "training", 0)


def test_a_scene_whose_place_was_taken_does_not_render_the_other_ones_people(scenes):
    first = Prepared(scenes[0])
    Prepared(scenes[1])
    with pytest.raises(RuntimeError, match="prepare it again"):
        first.frame()


# --- anatomy and ground -------------------------------------------------------------------------------------


def test_probabilities_of_activities_sum_to_one():
    assert sum(poses.ACTIVITIES.values()) == pytest.approx(1)


@pytest.mark.parametrize("activity", poses.ACTIVITIES)
def test_knees_and_elbows_bend_only_the_way_they_can(activity):
    for seed in range(25):
        pose = poses.sample_pose(np.random.default_rng(seed), activity)
        local = roma.rotvec_to_rotmat(torch.from_numpy(pose.rotations)).numpy()
        assert pose.activity == activity and np.isfinite(local).all()
        shins = local[[4, 5]] @ [0.0, -1, 0]  # in the thigh's frame, where straight is -y and back is -z
        assert (shins[:, 2] <= 1e-6).all() and np.abs(shins[:, 0]).max() < 1e-6
        assert (np.arccos(-shins[:, 1].clip(-1, 1)) < np.deg2rad(145)).all()
        for elbow, side in ((18, 1), (19, -1)):  # in the upper arm's frame: straight is outwards, forwards +z
            forearm = local[elbow] @ [side, 0.0, 0]
            assert forearm[2] >= -1e-6 and abs(forearm[1]) < 1e-6
            assert np.arccos(np.clip(side * forearm[0], -1, 1)) < np.deg2rad(150)


@pytest.mark.parametrize("side", [1, -1])
def test_upper_arm_points_where_its_angles_say(side):
    up = np.pi / 2
    for lift, forward, direction in ((0, 0, [0, -1, 0]), (up, up, [0, 0, 1]), (up, 0, [side, 0, 0])):
        arm = poses._arm(side, lift, forward, twist=0.4)
        np.testing.assert_allclose(arm @ [side, 0, 0], direction, atol=1e-9)


def test_unknown_activity_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="unknown activity 'swim'; one of stand"):
        poses.sample_pose(np.random.default_rng(0), "swim")


def test_people_stand_on_the_ground_and_only_jumpers_leave_it(body, scenes):
    on_ground = 0
    for scene in scenes:
        vertices, _ = posed(body, scene.betas, scene.rotations[:, :22], scene.transl)
        for activity, lowest in zip(scene.activities, vertices[..., 1].min(1), strict=True):
            assert -0.01 < lowest < 0.6, activity
            raised = lowest > 0.035  # soles, clothes: the dressed surface touches, the bare one is inside
            assert not raised or activity in ("run", "sport", "lie"), (activity, lowest)
            on_ground += not raised
    assert on_ground >= 0.75 * sum(len(scene.subjects) for scene in scenes)


def test_sitters_have_a_seat_under_them(body):
    import trimesh

    seen = 0
    for index in range(40):
        scene = sample_scene(1, "train", index)
        sitters = [k for k, activity in enumerate(scene.activities) if activity == "sit"]
        if not sitters:
            continue
        vertices, joints = posed(body, scene.betas, scene.rotations[:, :22], scene.transl)
        props = trimesh.Trimesh(*scene.props.gathered()[:2], process=False)
        for k in sitters:
            seat_part = np.isin(body.part_of_vertex.numpy(), (0, 1, 2))
            bottom = vertices[k, seat_part, 1].min()
            hits, _, _ = props.ray.intersects_location([joints[k, 0]], [[0.0, -1, 0]], multiple_hits=False)
            if bottom > 0.2:  # lower ones sit on the ground
                assert len(hits) == 1
                assert -0.02 < bottom - hits[0, 1] < 0.06
                seen += 1
    assert seen >= 3


# --- labels against pixels ----------------------------------------------------------------------------------


def test_joints_are_the_projected_joints_of_the_labelled_body(body, samples):
    labels = [sample["label"] for sample in samples]
    _, joints = posed(body, *([label[key] for label in labels] for key in ("betas", "pose", "trans")))
    for label, points in zip(labels, joints[:, :24], strict=True):
        pixels = points @ np.reshape(label["cam_int"], (3, 3)).T
        expected = np.array(label["joints2d"])
        np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], expected[:, :2], atol=0.5)
        assert (expected[:22, 2] == 1).all()


def test_a_box_surrounds_the_joints_in_the_picture(samples):
    for label in (sample["label"] for sample in samples):
        joints = np.array(label["joints2d"])[:22, :2]
        inside = joints[((joints > 0) & (joints < label["img_size"])).all(1)]
        assert len(inside) >= 8
        assert (np.abs(inside - label["center"]) <= 100 * label["scale"]).all()


def test_the_visible_person_lies_within_the_labelled_bodys_silhouette(samples):
    shares, near_shares = [], []
    for sample in samples:
        visible, silhouette = sample["depth"] > 0, sample["parts"] > 0
        near = cv2.dilate(silhouette.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        shares.append((visible & silhouette).sum() / visible.sum())
        near_shares.append((visible & near).sum() / visible.sum())
    # Clothes, hair and shoes stick out by centimetres, which is a pixel or two around a person of 30 x 80.
    assert np.mean(shares) >= 0.85 and np.min(shares) > 0.7
    assert np.mean(near_shares) >= 0.99 and np.min(near_shares) > 0.9


def test_depth_is_that_of_the_body_under_the_clothes(body, samples):
    from dpose.render import render_mesh

    for sample in samples[:8]:
        label = sample["label"]
        vertices, _ = posed(body, [label["betas"]], [label["pose"]], [label["trans"]])
        side = 200 * label["scale"] * label["margin"]
        crop = np.array([[SIZE / side, 0, SIZE / 2], [0, SIZE / side, SIZE / 2], [0, 0, 1]])
        crop[:2, 2] -= np.array(label["center"]) * SIZE / side
        k = torch.tensor(crop @ np.reshape(label["cam_int"], (3, 3)), dtype=torch.float32)
        _, bare = render_mesh(torch.from_numpy(vertices), body.faces, k[None], SIZE)
        both = (sample["depth"] > 0) & (bare[0].numpy() > 0)
        gap = bare[0].numpy()[both] - sample["depth"][both]  # clothes are nearer to the camera
        assert 0 <= np.median(gap) < 0.05
        assert np.quantile(np.abs(gap), 0.8) < 0.08


def test_people_mostly_hidden_are_left_out(samples):
    for sample in samples:
        assert (sample["depth"] > 0).sum() >= 0.3 * (sample["parts"] > 0).sum()


# --- both ways to the same sample ---------------------------------------------------------------------------


def test_frames_read_as_bedlam_give_the_samples_that_are_rendered_directly(tmp_path, body, scenes):
    write_frames(tmp_path, "test", 3, progress=False)
    skipped = Skipped(limit=0)
    read = list(read_bedlam(tmp_path, SIZE, body, skipped=skipped))
    direct = [sample for scene in scenes[:3] for sample in person_samples(scene, SIZE)]
    assert len(read) == len(direct) >= 3 and not skipped.faults
    for ours in direct:
        joints = np.array(ours["label"]["joints2d"])
        theirs = min(read, key=lambda s: np.abs(np.array(s["label"]["joints2d"]) - joints).max())  # noqa: B023
        for key, tolerance in (
            ("pose", 1e-5), ("betas", 1e-5), ("trans", 1e-5), ("joints2d", 1e-3), ("center", 1e-3),
            ("scale", 1e-6), ("cam_int", 1e-3), ("img_size", 0), ("margin", 0),
        ):  # fmt: skip
            np.testing.assert_allclose(ours["label"][key], theirs["label"][key], rtol=0, atol=tolerance)
        assert ours["label"]["subject"] == theirs["label"]["subject"] and theirs["label"]["has_depth"]
        assert (ours["parts"] == theirs["parts"]).mean() > 0.999
        mine, other = ours["depth"] > 0, theirs["depth"] > 0
        assert (mine == other).mean() > 0.97
        both = mine & other
        assert both.sum() > 0.9 * mine.sum()
        assert np.median(np.abs(ours["depth"] - theirs["depth"])[both]) < 0.002
        assert np.abs(ours["image"].astype(float) - theirs["image"]).mean() < 6


def test_frames_of_another_seed_replace_those_that_are_there(tmp_path, monkeypatch):
    def cheap_frame(self, grid=3):  # a view of a few pixels' worth of work
        view = self.crop((640, 360), 1280 / 200, 64, 1.0, grid=1)
        return type(view)(*(np.ascontiguousarray(part[:36]) for part in view))

    monkeypatch.setattr(Prepared, "frame", cheap_frame)
    monkeypatch.setattr(generator, "SPLITS", {"test": 2})
    first = write_frames(tmp_path, "test", 2, progress=False)
    content, stamp = first.read_bytes(), first.stat().st_mtime_ns
    assert write_frames(tmp_path, "test", 2, progress=False).stat().st_mtime_ns == stamp
    assert write_frames(tmp_path, "test", 2, seed=5, progress=False).read_bytes() != content
    masks = len(list(tmp_path.rglob("*_body.png")))
    assert masks == sum(len(sample_scene(5, "test", index).subjects) for index in range(2))
    with pytest.raises(ValueError, match="at least 1"):
        write_frames(tmp_path, "test", 0)


# --- generate -----------------------------------------------------------------------------------------------


def make(root: Path, scenes=None, **options) -> dict:
    options = {"size": 32, "frames": 0, "workers": 1, "progress": False} | options
    return read_manifest(generate(root, scenes or {"train": 3, "val": 1}, **options))


def test_an_interrupted_run_goes_on_to_the_same_data(tmp_path, small_shards):
    manifest = make(tmp_path)
    names = [shard["name"] for shard in manifest["shards"]]
    assert names == ["train-000000.tar", "train-000001.tar", "val-000000.tar"]  # 3 scenes: two whole shards
    assert manifest["splits"]["train"] >= 2 and manifest["size"] == 32
    kept = tmp_path / "shards" / names[1]
    stamp = kept.stat().st_mtime_ns
    (tmp_path / "shards" / names[0]).unlink()
    (tmp_path / "shards" / "manifest.json").unlink()
    assert make(tmp_path)["fingerprint"] == manifest["fingerprint"]
    assert kept.stat().st_mtime_ns == stamp


def test_a_small_set_is_the_beginning_of_a_large_one(tmp_path, small_shards):
    few, more = make(tmp_path / "a", {"val": 2}), make(tmp_path / "b", {"val": 4})
    assert more["shards"][: len(few["shards"])] == few["shards"] and len(more["shards"]) == 2


def test_several_processes_make_what_one_makes(tmp_path, small_shards):
    scenes = {"train": 2, "test": 2}
    one, two = make(tmp_path / "one", scenes), make(tmp_path / "two", scenes, workers=2)
    assert one["fingerprint"] == two["fingerprint"]
    assert not [name for name in files(tmp_path) if name.endswith(".part")]


def test_shards_hold_the_samples_of_their_scenes(tmp_path, small_shards):
    import tarfile

    make(tmp_path, {"val": 2})
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tmp_path / "shards" / "val-000000.tar") as tar:
        for member in tar:
            key, extension = member.name.split(".", 1)
            members.setdefault(key, {})[extension] = tar.extractfile(member).read()
    direct = [sample for index in range(2) for sample in person_samples(sample_scene(0, "val", index), 32)]
    assert list(members) == [sample["label"]["key"] for sample in direct]
    for sample in direct:
        stored = decode_sample(members[sample["label"]["key"]])
        np.testing.assert_array_equal(stored["parts"], sample["parts"])
        np.testing.assert_allclose(stored["depth"], sample["depth"], atol=1e-3)


def test_data_of_other_settings_is_not_touched_unless_told(tmp_path, small_shards):
    manifest = make(tmp_path, {"val": 2})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.tar")}
    with pytest.raises(ValueError, match=r"holds other data .*'seed': 0.*--overwrite"):
        make(tmp_path, {"val": 2}, seed=1)
    with pytest.raises(ValueError, match="--overwrite"):
        make(tmp_path, {"val": 2}, size=48)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.tar")} == before
    assert make(tmp_path, {"val": 2}, seed=1, overwrite=True)["fingerprint"] != manifest["fingerprint"]


def test_shards_of_unknown_origin_are_not_touched(tmp_path, small_shards):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train-000000.tar").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match="without synth.json"):
        make(tmp_path)
    assert files(tmp_path) == {"train-000000.tar"}


def test_a_failure_leaves_no_half_written_file_and_the_next_run_mends_it(tmp_path, small_shards, monkeypatch):
    real, calls = person_samples, []

    def fails_later(scene, size):
        calls.append(scene)
        if len(calls) == 4:  # in the second shard
            raise MemoryError("out of memory")
        return real(scene, size)

    monkeypatch.setattr(generator, "person_samples", fails_later)
    with pytest.raises(MemoryError):
        make(tmp_path, {"train": 4})
    assert files(tmp_path) == {"synth.json", "train-000000.tar"}
    monkeypatch.setattr(generator, "person_samples", real)
    assert make(tmp_path, {"train": 4})["fingerprint"] == make(tmp_path / "b", {"train": 4})["fingerprint"]


@pytest.mark.parametrize(
    ("scenes", "options", "message"),
    [
        ({"dev": 1}, {}, "unknown split 'dev'; one of train, val, test"),
        ({"train": -1}, {}, "train: the number of scenes must not be negative, got -1"),
        ({"train": 1}, {"size": 0}, "size must be at least 16"),
        ({"train": 1}, {"frames": -1}, "frames must be at least 0"),
        ({"train": 1}, {"workers": -2}, "workers must be at least 1"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path, scenes, options, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "root", scenes, **options)
    assert not (tmp_path / "root").exists()


# --- command line -------------------------------------------------------------------------------------------


def test_help_of_the_command_names_its_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["synth", "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for word in (
        "--root",
        "--train",
        "--val",
        "--test",
        "--frames",
        "--size",
        "--seed",
        "--workers",
        "--overwrite",
    ):
        assert word in text


def test_the_command_makes_data_and_says_where(tmp_path, small_shards, capsys):
    root = tmp_path / "open"
    counts = ["--train", "2", "--val", "0", "--test", "0", "--frames", "0"]
    code = cli.main(["synth", "--root", str(root), *counts, "--size", "32", "--workers", "1"])
    manifest = read_manifest(root / "shards")
    assert not code and f"train {manifest['splits']['train']}" in capsys.readouterr().out
    assert json.loads((root / "synth.json").read_text())["size"] == 32
