"""EMDB as it is published, written here as pickles of numpy arrays, read to samples."""

import os
import pickle

import numpy as np
import pytest
from gendered_people import (
    check_samples,
    licensed_bodies,
    parsed_pixels,
    random_camera,
    random_person,
    write_pictures,
)

from dpose.body import Bodies
from dpose.data.frames import Skipped
from dpose.data.labels import Labels
from dpose.data.prepare import prepare
from dpose.data.sets.emdb import scenes

SIZE, N = (216, 288), 7
INTRINSICS = np.array([[290.0, 0, 107], [0, 291, 145], [0, 0, 1]])


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    with licensed_bodies(tmp_path_factory.mktemp("bodies"), "smpl-male", "smpl-female") as arrays:
        yield arrays


def sequence(arrays, gender="female", seed=0) -> dict:
    """A sequence's content as EMDB has it; its boxes hug the body's joints, its kp2d are the joints."""
    rng = np.random.default_rng(seed)
    cameras = random_camera(rng, N)
    person = random_person(rng, arrays[f"smpl-{gender}"], cameras, INTRINSICS, (0.1, -0.2, 3))
    return {
        "gender": gender,
        "name": "P3_31_outdoor_workout",
        "emdb1": True,
        "emdb2": False,
        "n_frames": N,
        "good_frames_mask": np.ones(N, bool),
        "camera": {"intrinsics": INTRINSICS, "extrinsics": cameras, "width": SIZE[0], "height": SIZE[1]},
        "smpl": {
            "poses_root": person.pose[:, :3],
            "poses_body": person.pose[:, 3:],
            "trans": person.trans,
            "betas": person.betas,
        },
        "kp2d": person.pixels,
        "bboxes": {
            "bboxes": np.concatenate([person.pixels.min(1), person.pixels.max(1)], 1),
            "invalid_idxs": np.array([], int),
        },
    }


def write(root, content, name="31_outdoor_workout", person="P3"):
    folder = root / person / name
    write_pictures(folder / "images", N, SIZE)
    (folder / f"{person}_{name}_data.pkl").write_bytes(pickle.dumps(content))
    return folder


def read(root, out) -> tuple[list, Skipped]:
    skipped = Skipped(limit=5)
    return scenes(root, out, "test", skipped, Bodies()), skipped


def test_a_sequences_bodies_project_onto_its_own_2d_joints(tmp_path, arrays):
    for i, (gender, person) in enumerate((("female", "P3"), ("male", "P5"))):
        write(tmp_path, sequence(arrays, gender, i), person=person)
    found, skipped = read(tmp_path, tmp_path / "out")
    assert not skipped.dropped and not skipped.faults
    assert [scene.name for scene in found] == ["P3_31_outdoor_workout", "P5_31_outdoor_workout"]
    for i, (scene, gender) in enumerate(zip(found, ("female", "male"), strict=True)):
        labels, content = Labels.load(scene.labels), sequence(arrays, gender, i)
        truth, box = content["kp2d"][:, :22], content["bboxes"]["bboxes"]
        assert np.abs(parsed_pixels(labels, arrays) - truth).max() < 0.01
        assert np.abs(labels.gtkps[:, :22, :2] - truth).max() < 0.001
        inside = ((truth >= 0) & (truth < SIZE)).all(-1)
        assert (labels.gtkps[:, :22, 2] == inside).all() and not labels.gtkps[:, 22:, 2].any()
        assert np.allclose(labels.center, (box[:, :2] + box[:, 2:]) / 2)
        assert np.allclose(200 * labels.scale, 1.2 * (box[:, 2:] - box[:, :2]).max(1))
        assert set(labels.body) == {f"smpl-{gender}"} and set(labels.sub) == {scene.name[:2]}
        assert labels.imgname.tolist() == [f"images/{k:05d}.jpg" for k in range(N)]
    check_samples(found, 2 * N)


def test_frames_and_sequences_left_out_are_counted_by_name(tmp_path, arrays):
    content = sequence(arrays)
    content["good_frames_mask"][[1, 2]] = False
    content["bboxes"]["invalid_idxs"] = np.array([1, 2, 4])
    content["bboxes"]["bboxes"][5, 2] = content["bboxes"]["bboxes"][5, 0]
    content["bboxes"]["bboxes"][1] = np.nan  # of a bad frame, which is left out
    write(tmp_path, content)
    write(tmp_path, content | {"emdb1": False}, "36_outdoor_long_walk")
    wanted = {
        "sequence not of EMDB 1": N,
        "frame marked as bad (good_frames_mask)": 2,
        "box marked as invalid, or without size": 2,
    }
    for _ in range(2):  # made, and found made
        (scene,), skipped = read(tmp_path, tmp_path / "out")
        assert skipped.dropped == wanted and not skipped.faults
        assert Labels.load(scene.labels).imgname.tolist() == [f"images/0000{k}.jpg" for k in (0, 3, 6)]


def test_damaged_hostile_and_imageless_sequences_are_faults_and_run_nothing(tmp_path, arrays):
    content, ran = sequence(arrays), tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(ran),)

    write(tmp_path, content)
    write(tmp_path, content | {"contact": Hostile()}, "hostile")
    write(tmp_path, content | {"kp2d": content["kp2d"][:3]}, "short")
    write(tmp_path, content | {"camera": content["camera"] | {"extrinsics": np.ones((N, 4, 4))}}, "bent")
    write(tmp_path, content | {"n_frames": 10**15}, "endless")  # refused before it fills the memory
    folder = write(tmp_path, content, "unseen")
    (folder / "images").rename(folder / "pictures")
    with pytest.warns(UserWarning, match="skipped"):
        found, skipped = read(tmp_path, tmp_path / "out")
    assert [scene.name for scene in found] == ["P3_31_outdoor_workout"] and not ran.exists()
    faults = "\n".join(skipped.faults)
    assert "'poses_root' has shape (7, 3), expected (1000000000000000, 3)" in faults
    assert len(skipped.faults) == 5 and "mkdir" in faults and "extrinsics are no rotations" in faults
    assert "'kp2d' has shape (3, 24, 2), expected (7, 24, 2)" in faults and "no images, so" in faults


def test_bodies_that_do_not_project_onto_kp2d_are_refused(tmp_path, arrays):
    content = sequence(arrays)
    content["smpl"]["trans"] += (0.5, 0, 0)
    write(tmp_path, content)
    with pytest.raises(ValueError, match="P3_31_outdoor_workout.*smpl-female"):
        prepare("emdb", tmp_path, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "shards").exists()


def test_files_of_the_other_gender_are_refused(tmp_path, arrays, monkeypatch):
    """Only by some centimetres another body: the joints are near kp2d, not on it."""
    write(tmp_path, sequence(arrays) | {"gender": "male"})
    with pytest.raises(ValueError, match="smpl-male"):
        prepare("emdb", tmp_path, tmp_path / "out", workers=1)


def test_a_person_with_impossible_betas_is_a_fault(tmp_path, arrays):
    content = sequence(arrays)
    write(tmp_path, content)
    content["smpl"]["betas"] = content["smpl"]["betas"] + 113 * (np.arange(10) == 4)
    write(tmp_path, content, "broken")
    with pytest.warns(UserWarning, match="broken_data.pkl.*11[0-9]"):
        found, skipped = read(tmp_path, tmp_path / "out")
    assert [scene.name for scene in found] == ["P3_31_outdoor_workout"] and len(skipped.faults) == 1


def test_what_is_missing_is_named(tmp_path, arrays, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"unpack EMDB's P0\.zip"):
        read(tmp_path, tmp_path / "out")
    write(tmp_path, sequence(arrays))
    monkeypatch.delenv("DPOSE_BODY_MODELS")
    with pytest.raises(FileNotFoundError, match=r"SMPL male is missing.*https://smpl\.is\.tue\.mpg\.de"):
        read(tmp_path, tmp_path / "out")
