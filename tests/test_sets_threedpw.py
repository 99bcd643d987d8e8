"""3DPW as it is published, written here as Python 2 pickles and as a processed file, read to samples."""

import os
import pickle

import numpy as np
import pytest
import torch
from gendered_people import (
    check_samples,
    licensed_bodies,
    parsed_pixels,
    posed,
    random_camera,
    random_person,
    write_pictures,
)
from licensed_files import python2_pickle
from scipy.spatial.transform import Rotation

from dpose.body import Bodies
from dpose.cli import main
from dpose.config import MINI
from dpose.data.frames import Skipped
from dpose.data.labels import Labels
from dpose.data.loader import make_loader
from dpose.data.prepare import prepare
from dpose.data.sets.threedpw import scenes

SIZE, N = (216, 384), 6
INTRINSICS = np.array([[390.0, 0, 108], [0, 390, 192], [0, 0, 1]])
SEQUENCE = "downtown_talking_00"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    with licensed_bodies(tmp_path_factory.mktemp("bodies"), "smpl-male", "smpl-female") as arrays:
        yield arrays


@pytest.fixture
def sequence(arrays):
    return make_sequence(arrays)


def make_sequence(arrays):
    """A sequence's content as 3DPW has it, and its people."""
    rng = np.random.default_rng(0)
    cameras = random_camera(rng, N)
    people = [
        random_person(rng, arrays["smpl-male"], cameras, INTRINSICS, (-0.3, -0.1, 4)),
        random_person(rng, arrays["smpl-female"], cameras, INTRINSICS, (0.4, -0.2, 5)),
    ]
    content = {
        "sequence": SEQUENCE,
        "betas": [np.pad(person.betas, (0, 290)) for person in people],
        "poses": [person.pose for person in people],
        "trans": [person.trans for person in people],
        "genders": ["m", "f"],
        "poses2d": [np.ones((N, 3, 18)) for _ in people],
        "poses_60Hz": [np.repeat(person.pose, 2, 0) for person in people],
        "jointPositions": [person.world.reshape(N, 72) for person in people],
        "img_frame_ids": np.arange(0, 2 * N, 2),
        "cam_poses": cameras,
        "campose_valid": [np.ones(N, int) for _ in people],
        "cam_intrinsics": INTRINSICS,
        "texture_maps": [],
    }
    return content, people


def write(root, content, split="test", protocol=2):
    folder = root / "sequenceFiles" / split
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{SEQUENCE}.pkl").write_bytes(python2_pickle(content, protocol))
    write_pictures(root / "imageFiles" / SEQUENCE, N, SIZE)


def read(root, out, split="test") -> tuple[list, Skipped]:
    skipped = Skipped(limit=5)
    return scenes(root, out, split, skipped, Bodies()), skipped


@pytest.mark.parametrize(("split", "protocol"), [("test", 2), ("train", 0)])
def test_a_moving_cameras_people_project_onto_their_joints(tmp_path, arrays, sequence, split, protocol):
    content, people = sequence
    write(tmp_path, content, split, protocol)
    (scene,), skipped = read(tmp_path, tmp_path / "out", split)
    labels = Labels.load(scene.labels)
    assert len(labels) == 2 * N and not skipped.dropped and not skipped.faults
    truth = np.concatenate([person.pixels[:, :22] for person in people])
    assert np.abs(parsed_pixels(labels, arrays) - truth).max() < 0.01
    seen = labels.gtkps[:, :22, 2] > 0
    assert np.abs(labels.gtkps[:, :22, :2] - truth)[seen].max() < 0.01
    assert (seen == ((truth >= 0) & (truth < SIZE)).all(-1)).all() and not labels.gtkps[:, 22:, 2].any()
    for points, shown, center, scale in zip(truth, seen, labels.center, labels.scale, strict=True):
        low, high = points[shown].min(0), points[shown].max(0)
        assert np.allclose(center, (low + high) / 2, atol=0.01)
        assert np.isclose(200 * scale, 1.2 * (high - low).max(), atol=0.01)
    assert labels.body.tolist() == ["smpl-male"] * N + ["smpl-female"] * N
    assert labels.sub.tolist() == [f"{SEQUENCE}_0"] * N + [f"{SEQUENCE}_1"] * N
    assert labels.imgname[2] == f"{SEQUENCE}/image_00002.jpg" and scene.dataset == "3dpw"


def test_the_training_sequences_are_not_divided(tmp_path, sequence):
    write(tmp_path, sequence[0], "train")
    manifest = prepare("3dpw", tmp_path, tmp_path / "out", "train", size=40, workers=1)
    assert manifest["validation"] == 0 and manifest["splits"] == {"train": 2 * N}


def test_sequences_become_samples_with_parts_of_their_gendered_bodies(tmp_path, sequence):
    write(tmp_path, sequence[0])
    found, _ = read(tmp_path, tmp_path / "out")
    labels = check_samples(found, 2 * N)
    assert {label["body"] for label in labels} == {"smpl-male", "smpl-female"}
    assert all(len(label["pose"]) == 72 and label["img_size"] == list(SIZE) for label in labels)


def test_a_prepared_sets_batches_hold_the_gendered_truth(tmp_path, arrays, sequence):
    content, people = sequence
    write(tmp_path, content)
    command = f"prepare 3dpw --root {tmp_path} --out {tmp_path / 'out'} --size 160 --workers 1 --no-progress"
    assert main(command.split()) == 0
    (batch,) = make_loader(tmp_path / "out", "test", MINI, 2 * N)
    assert len(batch["key"]) == 2 * N
    for i, key in enumerate(batch["key"]):
        row = int(key.rpartition("-")[2])
        turns = torch.cat([batch["pose"][i], batch["smpl_hands"][i]])  # 24 matrices
        pose = Rotation.from_matrix(turns.double().numpy()).as_rotvec().reshape(1, 72)
        betas, trans, cam_int = (batch[name][i].double().numpy() for name in ("betas", "trans", "cam_int"))
        rays = posed(arrays[batch["body"][i]], betas[:10], pose, trans[None])[0] @ cam_int.T
        truth = people[row // N].pixels[row % N]
        assert np.abs(rays[:, :2] / rays[:, 2:] - truth).max() < 0.05


def test_people_left_out_are_counted_by_name_also_when_labels_are_there_already(tmp_path, arrays, sequence):
    content, (first, _) = sequence
    content["campose_valid"][0][1] = 0
    move = np.linalg.inv(content["cam_poses"][:, :3, :3])
    content["trans"][1][2] -= move[2] @ (0, 0, 9)  # behind the camera
    content["trans"][1][4] += move[4] @ (2.2, 0, 0)  # out of sight
    del content["jointPositions"]  # not all copies have them
    content["poses"][0][5, 3] = np.nan
    write(tmp_path, content)
    with pytest.warns(UserWarning, match="not finite in 1 of 5 frames"):
        (scene,), skipped = read(tmp_path, tmp_path / "out")
    wanted = {
        "camera not aligned to the image (campose_valid)": 1,
        "a body joint behind the camera": 1,
        "fewer than 8 joints in the image": 1,
    }
    assert skipped.dropped == wanted and len(skipped.faults) == 1
    labels, stamp = Labels.load(scene.labels), scene.labels.stat().st_mtime_ns
    assert len(labels) == 2 * N - 4
    assert np.abs(parsed_pixels(labels, arrays)[:4] - first.pixels[[0, 2, 3, 4], :22]).max() < 0.01
    with pytest.warns(UserWarning, match="not finite"):
        again, later = read(tmp_path, tmp_path / "out")
    assert again == [scene] and scene.labels.stat().st_mtime_ns == stamp
    assert later.dropped == wanted and later.faults == skipped.faults


def test_labels_are_made_again_when_their_sources_change(tmp_path, sequence):
    content, _ = sequence
    write(tmp_path, content)
    (scene,), _ = read(tmp_path, tmp_path / "out")
    content["campose_valid"][0][:] = 0
    write(tmp_path, content)
    (again,), skipped = read(tmp_path, tmp_path / "out")
    assert again == scene and len(Labels.load(scene.labels)) == N and skipped.dropped.total() == N
    content["campose_valid"][1][:] = 0
    write(tmp_path, content)
    assert read(tmp_path, tmp_path / "out")[0] == [] and not scene.labels.exists()


def test_damaged_hostile_and_imageless_sequences_are_faults_and_run_nothing(tmp_path, sequence):
    content, _ = sequence
    write(tmp_path, content)
    folder, ran = tmp_path / "sequenceFiles" / "test", tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(ran),)

    bad = {
        "cut": (folder / f"{SEQUENCE}.pkl").read_bytes()[:5000],
        "hostile": pickle.dumps(content | {"poses2d": Hostile()}),
        "keyless": pickle.dumps({k: v for k, v in content.items() if k != "cam_poses"}),
        "short": pickle.dumps(content | {"trans": [np.zeros((N - 1, 3))] * 2}),
    }
    for name, data in bad.items():
        (folder / f"{name}.pkl").write_bytes(data)
        write_pictures(tmp_path / "imageFiles" / name, 1, SIZE)
    (folder / "unseen.pkl").write_bytes((folder / f"{SEQUENCE}.pkl").read_bytes())
    with pytest.warns(UserWarning, match="skipped"):
        found, skipped = read(tmp_path, tmp_path / "out")
    assert [scene.name for scene in found] == [SEQUENCE] and not ran.exists()
    faults = "\n".join(skipped.faults)
    assert len(skipped.faults) == 5 and "mkdir" in faults and "lacks 'cam_poses'" in faults
    assert "'trans' has shape (5, 3), expected (6, 3)" in faults and "unseen: no images" in faults


def test_files_of_the_other_gender_are_refused(tmp_path, sequence):
    content, _ = sequence
    content["jointPositions"] = [1.3 * joints for joints in content["jointPositions"]]
    write(tmp_path, content)
    with pytest.raises(ValueError, match="smpl-male .*jointPositions"):
        read(tmp_path, tmp_path / "out")


def test_what_is_missing_is_named(tmp_path, sequence, monkeypatch):
    with pytest.raises(ValueError, match="'val'.*test, validation, train"):
        prepare("3dpw", tmp_path, tmp_path / "out", "val")
    with pytest.raises(FileNotFoundError, match=r"sequenceFiles.*3dpw_test\.npz"):
        read(tmp_path, tmp_path / "out")
    write(tmp_path, sequence[0])
    monkeypatch.delenv("DPOSE_BODY_MODELS")
    with pytest.raises(FileNotFoundError, match=r"SMPL male is missing.*https://smpl\.is\.tue\.mpg\.de"):
        read(tmp_path, tmp_path / "out")
    (tmp_path / "imageFiles").rename(tmp_path / "images")
    with pytest.raises(FileNotFoundError, match=r"imageFiles\.zip"):
        read(tmp_path, tmp_path / "out")


# --- the processed file -------------------------------------------------------------------------------------


def processed(arrays) -> dict:
    """Its columns, without camera and translation; boxes like those of the people's joints."""
    rng = np.random.default_rng(1)
    folders = [f"imageFiles/{SEQUENCE}", "imageFiles/wide"]
    return {
        "imgname": np.array([f"{folders[i % 2]}/image_{i // 2:05d}.jpg" for i in range(8)]),
        "center": np.stack([rng.uniform(40, 180, 8), rng.uniform(80, 300, 8)], 1),
        "scale": rng.uniform(0.3, 1.9, 8),
        "pose_cam": np.concatenate([np.tile((np.pi, 0, 0), (8, 1)), rng.normal(0, 0.2, (8, 69))], 1),
        "shape": rng.normal(0, 1, (8, 10)),
        "gender": np.array(["m", "f"] * 4),
    }


def write_processed(root, columns):
    for name, size in ((SEQUENCE, SIZE), ("wide", SIZE[::-1])):
        write_pictures(root / "imageFiles" / name, 4, size)
    np.savez(root / "3dpw_test.npz", **columns)


def test_bodies_of_a_processed_file_fill_their_boxes(tmp_path, arrays):
    columns = processed(arrays)
    write_processed(tmp_path, columns)
    (scene,), skipped = read(tmp_path, tmp_path / "out")
    labels = Labels.load(scene.labels)
    assert not skipped.faults and len(labels) == 8 and scene.images == tmp_path
    points = parsed_pixels(labels, arrays)
    low, high = points.min(1), points.max(1)
    assert np.abs((low + high) / 2 - columns["center"]).max() < 0.05
    assert np.abs(1.2 * (high - low).max(1) - 200 * columns["scale"]).max() < 0.05
    for i, (w, h) in enumerate([SIZE, SIZE[::-1]] * 4):
        wanted = [[np.hypot(w, h), 0, w / 2], [0, np.hypot(w, h), h / 2], [0, 0, 1]]
        assert np.allclose(labels.cam_int[i], wanted)
    assert np.allclose(labels.pose_cam[:, :72], columns["pose_cam"]) and not labels.gtkps[..., 2].any()
    assert (labels.center == columns["center"].astype(np.float32)).all()
    assert labels.body.tolist() == ["smpl-male", "smpl-female"] * 4
    check_samples([scene], 8)


def test_people_of_a_processed_file_without_box_numbers_or_images_are_faults(tmp_path, arrays):
    columns = processed(arrays)
    columns["scale"][2] = 0
    columns["shape"][3, 1] = -40
    columns["shape"][5, 3] = np.nan
    columns["imgname"] = np.array([*columns["imgname"][:7], "imageFiles/gone/image_00000.jpg"])
    write_processed(tmp_path, columns)
    with pytest.warns(UserWarning, match="skipped"):
        (scene,), skipped = read(tmp_path, tmp_path / "out")
    assert len(Labels.load(scene.labels)) == 4
    assert "gone: no images, so 1 people of 3dpw_test.npz" in skipped.faults[0]
    assert "3 of 8 people" in skipped.faults[1] and "row 2" in skipped.faults[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pose_cam": None}, "lacks the column pose_cam"),
        ({"pose_cam": np.zeros((8, 66))}, "'pose_cam' has 66 numbers"),
        ({"gender": np.array(["x"] * 8)}, "gender 'x'"),
        ({"shape": np.zeros((7, 10))}, "shape not as long as imgname"),
        ({"shape": np.ones((8, 16))}, "'shape' has 16"),
        ({"imgname": np.array(["elsewhere/0.jpg"] * 8)}, "no images of"),
        ({"center": np.full((8, 2), 900.0)}, "boxes are outside their images"),
    ],
)
def test_a_malformed_processed_file_is_refused_in_one_message(tmp_path, arrays, change, message):
    columns = {name: value for name, value in (processed(arrays) | change).items() if value is not None}
    write_processed(tmp_path, columns)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(tmp_path, tmp_path / "out")
