"""The open data: a seed always gives the same people; labels agree with body, anatomy and BEDLAM's reader."""

import multiprocessing
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import roma
import torch
from data_people import frame_sets
from gendered_people import licensed_bodies
from licensed_files import write_smplx_npz

from dpose import cli
from dpose.body import OPEN_BODY, load_body
from dpose.data.frames import Skipped, mask_numbers, read_person_mask, read_scenes
from dpose.data.labels import Labels
from dpose.data.shards import decode_sample, read_manifest, write_manifest
from dpose.io import HOST, write_json
from dpose.keypoints import read_annotations
from dpose.skeleton import JOINT_NAMES, LIMBS
from dpose.synthetic import (
    SceneRenderer,
    dataset,
    generate,
    person_samples,
    poses,
    sample_scene,
    write_frames,
)
from dpose.synthetic import samples as samples_module
from dpose.synthetic.scene import IDENTITIES, sample_identity
from dpose.synthetic.variety import PLAIN

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
    """Shards of two scenes each, so that a few scenes make several shards."""
    monkeypatch.setattr(dataset, "SCENES_PER_SHARD", 2)


def posed(body, betas, axis_angle, trans):
    """Vertices and joints of N people by `dpose.body`, which the skinning of the generator does not use."""
    betas, axis_angle, trans = (
        torch.as_tensor(np.asarray(values), dtype=torch.float32) for values in (betas, axis_angle, trans)
    )
    rotmats = roma.rotvec_to_rotmat(axis_angle.reshape(len(betas), 22, 3))
    with torch.no_grad():
        out = body(betas, rotmats, trans)
    return out.vertices.numpy(), out.joints.numpy()


def as_bytes(samples) -> list[bytes]:
    names = ("image", "depth", "parts")
    return [s[name].tobytes() for s in samples for name in names] + [
        repr(s["label"]).encode() for s in samples
    ]


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


# --- what a seed gives --------------------------------------------------------------------------------------


def test_a_seed_gives_the_people_that_it_always_gave():
    """If this fails on purpose, increase VERSION: data sets of the same settings would differ."""
    scene = sample_scene(0, "test", 4)
    np.testing.assert_allclose(scene.vertices[1, 5000], [-0.491433, 0.057527, -0.907968], atol=1e-4)
    first, second = person_samples(scene, SIZE)
    label = first["label"]
    assert (label["key"], label["subject"], label["body"]) == ("000-test-0000004-0", "test-00671", "open")
    np.testing.assert_allclose(label["betas"][:3], [-0.507275, -1.650308, 1.137359], atol=1e-5)
    np.testing.assert_allclose(label["trans"], [-2.398753, -0.141688, 5.674406], atol=1e-4)
    np.testing.assert_allclose(label["center"], [95.281062, 372.531891], atol=1e-2)
    np.testing.assert_allclose(label["joints2d"][15], [66.112363, 208.770712, 1], atol=1e-2)
    np.testing.assert_allclose(first["image"].mean((0, 1)), [127.693, 103.471, 113.973], atol=0.05)
    depth = second["depth"][second["depth"] > 0]  # partly hidden by the first person
    assert abs(len(depth) - 726) <= 4 and np.median(depth) == pytest.approx(5.979256, abs=5e-4)


def test_licensed_bodies_on_the_machine_change_nothing(tmp_path, body):
    scene = sample_scene(3, "train", 7)
    before = as_bytes(person_samples(scene, 48))
    with licensed_bodies(tmp_path, "smplx-male"):
        arrays = dict(np.load(OPEN_BODY)) | {"v_template": np.load(OPEN_BODY)["v_template"] * 1.3}
        write_smplx_npz(tmp_path / "smplx" / "SMPLX_NEUTRAL.npz", arrays)
        assert load_body("smplx-neutral").hash != body.hash  # the stand-in is found
        samples_module.open_body.cache_clear()
        after = as_bytes(person_samples(scene, 48))
        manifest = generate(tmp_path / "data", {}, frames=0, progress=False)
    assert before and after == before
    assert read_manifest(manifest)["bodies"] == {"open": {"name": "open", "hash": body.hash}}


def test_only_the_formats_of_the_data_package_are_imported():
    code = "import sys, dpose.synthetic; print(*[name for name in sys.modules if 'dpose.data.' in name])"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    names = {name.removeprefix("dpose.data.") for name in modules.split()}
    assert names == {"labels", "parts", "sample", "shards", "targets"}


def test_a_scene_is_the_same_whatever_was_made_before_it():
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
    assert len(np.unique(everyone.round(9), axis=0)) == 100 * len(IDENTITIES)


def test_an_identity_keeps_its_body_and_skin_in_every_scene(scenes):
    for scene in scenes[:6]:
        for subject, betas, outfit in zip(scene.subjects, scene.betas, scene.outfits, strict=True):
            split, number = subject.split("-")
            expected, looks = sample_identity(0, split, int(number))
            np.testing.assert_array_equal(betas, expected)
            np.testing.assert_array_equal(outfit.wear["skin"], looks["skin"])


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ((0, "training", 0), "training.*train, val, test"),
        ((-1, "train", 0), "seed.*-1"),
        ((2**32, "train", 0), "seed.*4294967295.*4294967296"),
        ((0, "train", -1), "train.*-1"),
    ],
)
def test_a_scene_that_does_not_exist_is_refused_by_name(arguments, fact):
    with pytest.raises(ValueError, match=fact):
        sample_scene(*arguments)


def test_a_renderer_whose_mesh_was_replaced_refuses_to_render_other_people(scenes):
    first = SceneRenderer(scenes[0])
    SceneRenderer(scenes[1])
    with pytest.raises(RuntimeError, match="later SceneRenderer"):
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
def test_the_upper_arm_points_in_the_direction_of_its_angles(side):
    up = np.pi / 2
    for lift, forward, direction in ((0, 0, [0, -1, 0]), (up, up, [0, 0, 1]), (up, 0, [side, 0, 0])):
        arm = poses._arm(side, lift, forward, twist=0.4)
        np.testing.assert_allclose(arm @ [side, 0, 0], direction, atol=1e-9)


def test_unknown_activity_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="swim.*stand"):
        poses.sample_pose(np.random.default_rng(0), "swim")


def test_people_stand_on_the_ground_and_only_jumpers_leave_it(body, scenes):
    on_ground = 0
    for scene in scenes:
        vertices, _ = posed(body, scene.betas, scene.rotations[:, :22], scene.transl)
        for activity, lowest in zip(scene.activities, vertices[..., 1].min(1), strict=True):
            assert -0.01 < lowest < 0.6, activity
            raised = lowest > 0.035  # the dressed surface touches the ground, soles and clothes are thick
            assert not raised or activity in ("run", "sport", "lie"), (activity, lowest)
            on_ground += not raised
    assert on_ground >= 0.75 * sum(len(scene.subjects) for scene in scenes)


def test_sitters_have_a_seat_under_them(body):
    import trimesh

    seen = 0
    for index in range(40):
        scene = sample_scene(1, "train", index, PLAIN)
        sitters = [k for k, activity in enumerate(scene.activities) if activity == "sit"]
        if not sitters:
            continue
        vertices, joints = posed(body, scene.betas, scene.rotations[:, :22], scene.transl)
        props = trimesh.Trimesh(*scene.props.gathered()[:2], process=False)
        for k in sitters:
            seat_part = np.isin(body.part_of_vertex.numpy(), (0, 1, 2))
            bottom = vertices[k, seat_part, 1].min()
            hits, _, _ = props.ray.intersects_location([joints[k, 0]], [[0.0, -1, 0]], multiple_hits=False)
            if bottom > 0.2:  # the others sit on the ground
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
    # Clothes, hair and shoes extend by centimetres, a pixel or two for a person of 30 x 80 pixels.
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


def test_people_of_whom_less_than_a_third_is_visible_are_left_out(monkeypatch):
    scene = sample_scene(0, "test", 26)
    kept = [sample["label"]["key"] for sample in person_samples(scene, SIZE)]
    monkeypatch.setattr(samples_module, "MIN_VISIBLE", 0.0)
    everyone = person_samples(scene, SIZE)
    shares = {s["label"]["key"]: (s["depth"] > 0).sum() / (s["parts"] > 0).sum() for s in everyone}
    assert [key for key, share in shares.items() if share >= 0.3] == kept
    assert (len(kept), len(everyone)) == (2, 3)


# --- full frames --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    write_frames(folder, "test", 3, progress=False)
    return folder


def test_frames_read_as_bedlam_give_the_samples_that_are_rendered_directly(frames, body, scenes):
    skipped = Skipped(limit=0)
    read = list(read_scenes(frame_sets(frames), SIZE, skipped=skipped))
    direct = [sample for scene in scenes[:3] for sample in person_samples(scene, SIZE)]
    assert len(read) == len(direct) >= 3 and not skipped.faults
    for ours in direct:
        joints = np.array(ours["label"]["joints2d"])
        theirs = min(read, key=lambda s: np.abs(np.array(s["label"]["joints2d"]) - joints).max())  # noqa: B023
        tolerances = {"pose": 1e-5, "betas": 1e-5, "trans": 1e-5, "joints2d": 1e-3, "center": 1e-3}
        tolerances |= {"scale": 1e-6, "cam_int": 1e-3, "img_size": 0, "margin": 0}
        for key, tolerance in tolerances.items():
            np.testing.assert_allclose(ours["label"][key], theirs["label"][key], rtol=0, atol=tolerance)
        assert ours["label"]["subject"] == theirs["label"]["subject"] and theirs["label"]["has_depth"]
        assert (ours["parts"] == theirs["parts"]).mean() > 0.999
        person, other = ours["depth"] > 0, theirs["depth"] > 0
        assert (person == other).mean() > 0.97
        both = person & other
        assert both.sum() > 0.9 * person.sum()
        assert np.median(np.abs(ours["depth"] - theirs["depth"])[both]) < 0.002
        assert np.abs(ours["image"].astype(float) - theirs["image"]).mean() < 6


def test_keypoints_of_frames_are_the_joints_of_the_labels_and_boxes_those_of_the_masks(frames):
    labels = Labels.load(frames / "labels" / "open_test.npz")
    people = read_annotations(frames / "labels" / "open_test.json", LIMBS, min_joints=0)
    assert len(people.box) == len(labels.imgname) >= 3
    for number, box in enumerate(people.box):
        name = people.files[people.image[number]]
        assert name == labels.imgname[number] and (frames / "open_test" / "png" / name).is_file()
        joints = labels.gtkps[number, [JOINT_NAMES.index(joint) for joint in people.names], :2]
        counted = people.keypoints[number, :, 2] > 0
        assert (counted == ((joints >= 0) & (joints < (1280, 720))).all(1)).all() and counted.any()
        np.testing.assert_allclose(people.keypoints[number, counted, :2], joints[counted], atol=0.01)
        masks = frames / "open_test" / "masks"
        pixels = [
            np.argwhere(read_person_mask(masks, name, person))[:, ::-1]
            for person in mask_numbers(masks, name)
        ]
        assert box.tolist() in [[*xy.min(0), *(np.ptp(xy, 0) + 1)] for xy in pixels if len(xy)]


def test_frames_of_another_seed_replace_existing_ones(tmp_path, monkeypatch):
    def small_frame(self):
        view = self.crop((640, 360), 1280 / 200, 64, 1.0)
        return type(view)(*(np.ascontiguousarray(part[:36]) for part in view))

    monkeypatch.setattr(SceneRenderer, "frame", small_frame)
    first = write_frames(tmp_path, "test", 2, progress=False)
    content, stamp = first.read_bytes(), first.stat().st_mtime_ns
    assert write_frames(tmp_path, "test", 2, progress=False).stat().st_mtime_ns == stamp
    assert write_frames(tmp_path, "test", 2, seed=5, progress=False).read_bytes() != content
    masks = len(list(tmp_path.rglob("*_body.png")))
    assert masks == sum(len(sample_scene(5, "test", index).subjects) for index in range(2))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        write_frames(tmp_path, "test", 0)
    with pytest.raises(ValueError, match="seed.*-3"):
        write_frames(tmp_path, "test", 1, seed=-3)
    with pytest.raises(ValueError, match="hard"):  # its scenes have no mesh to trace
        write_frames(tmp_path, "hard", 1)


# --- generate -----------------------------------------------------------------------------------------------


def make(root: Path, scenes=None, **options) -> dict:
    options = {"size": 32, "frames": 0, "workers": 1, "progress": False} | options
    return read_manifest(generate(root, scenes or {"train": 3, "val": 1}, **options))


SETTINGS = ("generator", "version", "seed", "size", "bodies", "without")


def stamps(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in root.rglob("*.tar")}


def test_scenes_are_rounded_up_to_whole_shards_and_the_manifest_lists_them(tmp_path, small_shards, body):
    manifest = make(tmp_path)
    names = [shard["name"] for shard in manifest["shards"]]
    assert names == ["train-000000.tar", "train-000001.tar", "val-000000.tar"]
    assert manifest["splits"]["train"] >= 2 and manifest["size"] == 32
    assert manifest["bodies"] == {"open": {"name": "open", "hash": body.hash}}


def test_a_second_run_writes_nothing_and_makes_only_what_is_missing(tmp_path, small_shards):
    manifest, before = make(tmp_path), stamps(tmp_path)
    listed = (tmp_path / "shards" / "manifest.json").stat().st_mtime_ns
    assert make(tmp_path) == manifest and stamps(tmp_path) == before
    assert (tmp_path / "shards" / "manifest.json").stat().st_mtime_ns == listed
    more = make(tmp_path, {"train": 3, "val": 3})
    assert more["splits"]["val"] > manifest["splits"]["val"]
    assert {name: stamp for name, stamp in stamps(tmp_path).items() if name in before} == before


@pytest.mark.parametrize("damage", ["shorter", "one byte", "missing", "empty manifest"])
def test_damaged_shards_are_made_again_and_the_others_kept(tmp_path, small_shards, damage, capsys):
    manifest, before = make(tmp_path), stamps(tmp_path)
    victim = tmp_path / "shards" / "train-000001.tar"
    content = victim.read_bytes()
    if damage == "shorter":
        victim.write_bytes(content[:1000])
    elif damage == "one byte":
        victim.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])
    elif damage == "missing":
        victim.unlink()
    else:
        kept = [row for row in manifest["shards"] if row["name"] != victim.name]
        write_manifest(tmp_path / "shards", kept, **{name: manifest[name] for name in SETTINGS})
    assert make(tmp_path, progress=True) == manifest
    assert victim.read_bytes() == content
    assert {name for name, stamp in stamps(tmp_path).items() if stamp != before[name]} == {victim.name}
    assert (victim.name in capsys.readouterr().out) == (damage != "empty manifest")


def test_overwrite_makes_everything_again(tmp_path, small_shards):
    manifest, before = make(tmp_path), stamps(tmp_path)
    (tmp_path / "shards" / "train-000009.tar").write_bytes(b"stray")
    assert make(tmp_path, overwrite=True)["fingerprint"] == manifest["fingerprint"]
    assert stamps(tmp_path).keys() == before.keys()
    assert all(stamp > before[name] for name, stamp in stamps(tmp_path).items())


def test_a_killed_run_continues_to_the_same_data(tmp_path, small_shards):
    start = multiprocessing.get_context("fork").Process
    process = start(target=make, args=(tmp_path / "a", {"train": 40}))
    process.start()
    listing, rows = tmp_path / "a" / "shards" / "manifest.json", []
    while len(rows) < 2:
        assert process.is_alive()
        rows = read_manifest(listing.parent)["shards"] if listing.is_file() else []
        time.sleep(0.01)
    process.kill()
    process.join()
    before = stamps(tmp_path / "a")
    finished = make(tmp_path / "a", {"train": 8})
    assert not list((tmp_path / "a").rglob("*.part"))
    assert finished["shards"][:4] == make(tmp_path / "b", {"train": 8})["shards"]
    listed = {row["name"] for row in rows}
    assert {name: stamp for name, stamp in stamps(tmp_path / "a").items() if name in listed} == {
        name: before[name] for name in listed
    }


def test_unfinished_files_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path, small_shards):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "shards").mkdir()
    names = {process: f".train-000000.tar.{HOST}.{process}.part" for process in (dead.pid, os.getppid())}
    for name in names.values():
        (tmp_path / "shards" / name).write_bytes(b"unfinished")
    make(tmp_path, {"train": 2})
    assert files(tmp_path / "shards") == {"manifest.json", "train-000000.tar", names[os.getppid()]}


def test_a_second_process_with_other_settings_is_refused_and_spoils_nothing(
    tmp_path, small_shards, monkeypatch
):
    real, refused = person_samples, []

    def interrupting(scene, size):
        for options in ({"size": 48}, {"seed": 5, "overwrite": True}, {"size": 48, "replace_other": True}):
            with pytest.raises(
                RuntimeError, match=f"{tmp_path}.*(size 32 instead of 48|seed 0 instead of 5)"
            ):
                make(tmp_path, {"train": 2}, **options)
            refused.append(options)
        return real(scene, size)

    monkeypatch.setattr(dataset, "person_samples", interrupting)
    manifest = make(tmp_path, {"train": 2})
    monkeypatch.setattr(dataset, "person_samples", real)
    assert len(refused) == 6 and manifest["size"] == 32
    assert manifest == make(tmp_path / "alone", {"train": 2})


def test_a_second_process_with_the_same_settings_waits_and_finds_the_data(
    tmp_path, small_shards, monkeypatch
):
    real, calls, threads, manifests = person_samples, [], [], []

    def second():
        manifests.append(make(tmp_path, {"train": 2}))

    def counting(scene, size):
        if not calls:
            threads.append(threading.Thread(target=second))
            threads[0].start()
            time.sleep(0.3)
            assert not manifests  # it waits
        calls.append(scene)
        return real(scene, size)

    monkeypatch.setattr(dataset, "person_samples", counting)
    manifest = make(tmp_path, {"train": 2})
    threads[0].join()
    assert manifests == [manifest] and len(calls) == 2


def test_a_small_set_is_the_beginning_of_a_large_one(tmp_path, small_shards):
    few, more = make(tmp_path / "a", {"val": 2}), make(tmp_path / "b", {"val": 4})
    assert more["shards"][: len(few["shards"])] == few["shards"] and len(more["shards"]) == 2


def test_several_processes_make_what_one_makes(tmp_path, small_shards):
    scenes = {"train": 2, "test": 2}
    one, two = make(tmp_path / "one", scenes), make(tmp_path / "two", scenes, workers=2)
    assert one["fingerprint"] == two["fingerprint"]
    assert not [name for name in files(tmp_path) if name.endswith(".part")]


def test_shards_hold_the_samples_of_their_scenes(tmp_path, small_shards):
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


def test_data_of_other_settings_are_refused_unless_they_are_to_be_replaced(tmp_path, small_shards):
    manifest = make(tmp_path, {"val": 2})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.tar")}
    with pytest.raises(ValueError, match=r"seed 0 instead of 1.*--overwrite"):
        make(tmp_path, {"val": 2}, seed=1)
    with pytest.raises(ValueError, match=r"size 32 instead of 48.*--overwrite"):
        make(tmp_path, {"val": 2}, size=48)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.tar")} == before
    kept = stamps(tmp_path)
    make(tmp_path, {"val": 2}, replace_other=True)
    assert stamps(tmp_path) == kept  # these are not other data
    other = make(tmp_path, {"val": 2}, seed=1, replace_other=True)
    assert other["seed"] == 1 and other["fingerprint"] != manifest["fingerprint"]
    assert make(tmp_path, {"val": 2}, overwrite=True) == manifest


@pytest.mark.parametrize("manifest", [None, {"shards": [], "splits": {}}, "not JSON"])
def test_shards_of_unknown_origin_are_not_touched(tmp_path, small_shards, manifest):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train-000000.tar").write_bytes(b"of another program")
    if isinstance(manifest, dict):
        write_json(tmp_path / "shards" / "manifest.json", manifest)
    elif manifest:
        (tmp_path / "shards" / "manifest.json").write_text(manifest)
    before = files(tmp_path / "shards")
    with pytest.raises(ValueError, match="--overwrite"):
        make(tmp_path)
    assert files(tmp_path / "shards") == before


def test_after_a_failure_there_is_no_partial_file_and_the_next_run_completes(
    tmp_path, small_shards, monkeypatch
):
    real, calls = person_samples, []

    def fails_later(scene, size):
        calls.append(scene)
        if len(calls) == 4:  # in the second shard
            raise MemoryError("out of memory")
        return real(scene, size)

    monkeypatch.setattr(dataset, "person_samples", fails_later)
    with pytest.raises(MemoryError):
        make(tmp_path, {"train": 4})
    assert files(tmp_path / "shards") == {"manifest.json", "train-000000.tar"}
    monkeypatch.setattr(dataset, "person_samples", real)
    assert make(tmp_path, {"train": 4}) == make(tmp_path / "b", {"train": 4})


@pytest.mark.parametrize(
    ("scenes", "options", "fact"),
    [
        ({"dev": 1}, {}, "dev.*train, val, test"),
        ({"train": -1}, {}, "train.*-1"),
        ({"train": 10**8}, {}, "train.*100000000"),
        ({"train": 1}, {"size": 0}, "size.*16.*0"),
        ({"train": 1}, {"size": 10**6}, "size.*2048.*1000000"),
        ({"train": 1}, {"frames": -1}, "frames.*-1"),
        ({"train": 1}, {"workers": -2}, "workers.*-2"),
        ({"train": 1}, {"seed": -1}, "seed.*-1"),
        ({"train": 1}, {"seed": 2**32}, "seed.*4294967295"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, scenes, options, fact):
    with pytest.raises(ValueError, match=fact):
        make(tmp_path / "root", scenes, **options)
    assert not (tmp_path / "root").exists()


# --- command line -------------------------------------------------------------------------------------------

FEW = ["--train", "2", "--val", "0", "--test", "0", "--frames", "0", "--size", "32", "--workers", "1"]


def test_the_help_of_the_command_names_its_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["synth", "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for word in ("root", "train", "val", "test", "frames", "size", "seed", "workers", "overwrite"):
        assert f"--{word}" in text


def test_the_command_makes_data_and_prints_where(tmp_path, small_shards, capsys):
    root = tmp_path / "open"
    assert not cli.main(["synth", "--root", str(root), *FEW])
    manifest, out = read_manifest(root / "shards"), capsys.readouterr().out
    assert f"train {manifest['splits']['train']}" in out and str(root) in out
    assert manifest["size"] == 32


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_root_below_a_file_is_refused_in_one_line_before_any_work(tmp_path, capsys, place):
    (tmp_path / "file").write_text("content")
    assert cli.main(["synth", "--root", str(tmp_path / place), *FEW]) == 2
    text = capsys.readouterr().err.strip()
    assert f"{tmp_path / 'file'} is a file" in text and len(text.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "content"


def test_a_bad_seed_is_refused_in_one_line_before_any_work(tmp_path, capsys):
    assert cli.main(["synth", "--root", str(tmp_path / "root"), *FEW, "--seed", "-1"]) == 2
    text = capsys.readouterr().err.strip()
    assert "seed" in text and "-1" in text and len(text.splitlines()) == 1


def test_old_data_in_the_users_cache_are_made_anew_and_elsewhere_refused(tmp_path, small_shards, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DPOSE_DATA", raising=False)
    cache, elsewhere = tmp_path / "dpose" / "open", tmp_path / "elsewhere"
    for root in (cache, elsewhere):
        manifest = make(root, {"train": 2})
        old = {name: manifest[name] for name in ("seed", "size")}
        old |= {"generator": "dpose.data.synthetic", "version": 1}
        (root / "shards" / "train-000000.tar").write_bytes(b"of version 1")
        write_json(root / "shards" / "manifest.json", {"shards": [], "splits": {}, **old})
    assert cli.main(["synth", "--root", str(elsewhere), *FEW]) == 2
    assert (elsewhere / "shards" / "train-000000.tar").read_bytes() == b"of version 1"
    assert not cli.main(["synth", *FEW])
    assert read_manifest(cache / "shards") == manifest
