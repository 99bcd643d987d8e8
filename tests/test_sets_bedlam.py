"""Frames in BEDLAM's layout, written here file by file, read back as samples."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_people import body_joints, frame_sets, random_pose, write_bedlam_frame

from dpose.body import load_body
from dpose.data.frames import (
    BEHIND,
    NO_MASK,
    Skipped,
    TooManyFaults,
    check_projection,
    on_its_side,
    read_scenes,
)
from dpose.data.labels import COLUMNS, Labels
from dpose.data.sample import Sample, crop_matrix

FRAMES = [f"seq_{i:06d}/seq_{i:06d}_0000.png" for i in range(3)]


@pytest.fixture(scope="module")
def body():
    return load_body()


def people(rng) -> list:
    """Far, near and middle, the second hiding part of the others."""
    return [
        (random_pose(rng), rng.normal(0, 0.5, 11), np.array(trans))
        for trans in [(0.0, 0.1, 6.0), (0.3, 0.1, 3.0), (-0.6, 0.1, 4.0)]
    ]


@pytest.fixture
def root(tmp_path, body):
    rng = np.random.default_rng(0)
    tables = [write_bedlam_frame(tmp_path, body, people(rng), frame=frame) for frame in FRAMES]
    columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS}
    Labels(**columns).save(tmp_path / "labels" / "scene.npz")
    return tmp_path


def read(root: Path, size: int = 40, skipped: Skipped | None = None) -> Iterator[Sample]:
    return read_scenes(frame_sets(root), size, skipped=skipped)


def test_every_person_of_every_frame_becomes_a_sample_with_its_own_mask(root, body):
    samples = list(read(root, 80))
    assert len(samples) == 9 and len({sample["label"]["key"] for sample in samples}) == 9
    for i, sample in enumerate(samples):
        label, distance = sample["label"], (6.0, 3.0, 4.0)[i % 3]
        seen = sample["depth"][sample["depth"] > 0]
        assert (
            seen.size > 20 and (np.abs(seen - (distance + 0.1)) < 0.5).all()
        )  # of this person alone, in metres
        assert label["subject"] == f"person{i % 3}" and label["has_depth"]


def test_joints_part_labels_and_pixels_of_a_sample_agree(root, body):
    for i, sample in enumerate(read(root, 160)):
        label = sample["label"]
        joints = body_joints(body, label["pose"], label["betas"], label["trans"])
        cam_int = np.reshape(label["cam_int"], (3, 3))
        points = joints @ cam_int.T
        points = points[:, :2] / points[:, 2:]
        assert np.abs(points - np.array(label["joints2d"])[:, :2]).max() < 0.5
        matrix = crop_matrix(label["center"], label["scale"], 160, label["margin"])
        crop = points[:22] @ matrix[:, :2].T + matrix[:, 2]
        column, row = np.floor(crop).astype(int).T
        on_body = sample["parts"][row, column] > 0
        assert on_body.mean() > 0.9  # nearly every joint lies inside its body's silhouette
        if i % 3 == 1:  # unhidden: its figure is drawn through its joints
            assert (sample["depth"][row, column] > 0).mean() > 0.8


def test_masks_are_matched_to_people_whatever_their_numbers(root, body):
    masks = root / "scene" / "masks" / "seq_000000"
    for kind in ("body", "clothing"):
        names = [masks / f"seq_000000_0000_{n:02d}_{kind}.png" for n in range(3)]
        data = [name.read_bytes() for name in names]
        for name, content in zip(names, data[1:] + data[:1], strict=True):
            name.write_bytes(content)
    for sample, distance in zip(read(root, 80), (6.0, 3.0, 4.0), strict=False):
        seen = sample["depth"][sample["depth"] > 0]
        assert abs(np.median(seen) - distance) < 0.3


def test_people_seen_in_clothes_or_hair_alone_keep_their_masks(root, body):
    """A mask without pixels has no file: from behind a person may show no skin, above a wall hair alone."""
    masks = root / "scene" / "masks"
    for number in range(3):
        (masks / "seq_000000" / f"seq_000000_0000_{number:02d}_body.png").unlink(missing_ok=True)
        (masks / "seq_000001" / f"seq_000001_0000_{number:02d}_body.png").unlink(missing_ok=True)
        clothes = masks / "seq_000001" / f"seq_000001_0000_{number:02d}_clothing.png"
        clothes.rename(clothes.with_name(clothes.name.replace("clothing", "hair")))
    skipped = Skipped()
    samples = list(read(root, 80, skipped))
    assert len(samples) == 9 and not skipped.dropped and not skipped.faults
    for i, sample in enumerate(samples):
        seen = sample["depth"][sample["depth"] > 0]
        assert seen.size > 5 and (np.abs(seen - ((6.0, 3.0, 4.0)[i % 3] + 0.1)) < 0.5).all()


def test_a_hidden_person_does_not_get_the_mask_of_an_actor_without_labels(root, body):
    path = root / "labels" / "scene.npz"
    with np.load(path) as file:
        labelled = {name: file[name][file["sub"] != "person1"] for name in file.files}
    np.savez(path, **labelled)  # person 1 stands before person 0, who here is wholly hidden
    for mask in (root / "scene" / "masks").rglob("*_00_*.png"):
        mask.unlink()
    skipped = Skipped()
    samples = list(read(root, 80, skipped))
    assert {sample["label"]["subject"] for sample in samples} == {"person2"}
    assert skipped.dropped == {NO_MASK: 3} and not skipped.faults


@pytest.mark.parametrize("kind", ["png", "depth", "masks"])
@pytest.mark.parametrize("fault", ["short", "gone"])
def test_a_frame_with_a_damaged_file_is_skipped_counted_and_named(root, body, kind, fault):
    for path in sorted((root / "scene" / kind / "seq_000001").iterdir()):
        if fault == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    skipped = Skipped()
    with pytest.warns(UserWarning, match="seq_000001_0000"):
        samples = list(read(root, 40, skipped))
    assert len(samples) == 6 and len(skipped.faults) == 1 and "seq_000001_0000" in skipped.faults[0]
    with pytest.raises(TooManyFaults, match=r"limit 0.*seq_000001_0000"):
        list(read(root, 40, Skipped(limit=0)))


def test_an_exr_without_the_depth_channel_is_skipped_by_name(root, body):
    import OpenEXR

    path = root / "scene" / "depth" / "seq_000002" / "seq_000002_0000_depth.exr"
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Y": np.ones((180, 320), np.float32)}).write(str(path))
    with pytest.warns(UserWarning, match="seq_000002.*'Depth', only Y"):
        assert len(list(read(root, 40))) == 6


def change_labels(root: Path, **changes) -> None:
    path = root / "labels" / "scene.npz"
    replace(Labels.load(path), **changes).save(path)


@pytest.mark.parametrize("depth", [True, False])
def test_people_with_a_body_joint_behind_the_camera_are_left_out_and_counted(root, depth):
    """As BEDLAM's label files of 2023 have them: their mirrored image would be labelled as theirs."""
    labels = Labels.load(root / "labels" / "scene.npz")
    transl, gtkps = labels.trans_cam.copy(), labels.gtkps.copy()
    transl[[1, 5], 2] = -2.8  # wholly behind
    transl[6, 2] = 0.2  # some joints
    gtkps[[1, 5, 6], :, 2] = 0
    change_labels(root, trans_cam=transl, gtkps=gtkps)
    scenes, skipped = frame_sets(root), Skipped(limit=0)
    if not depth:
        scenes = [replace(scene, depth=None, masks=None) for scene in scenes]
    samples = list(read_scenes(scenes, 40, skipped=skipped))
    rows = {int(sample["label"]["key"].rpartition("-")[2]) for sample in samples}
    assert rows == {0, 2, 3, 4, 7, 8} and skipped.dropped == {BEHIND: 3}


def test_a_row_that_cannot_be_used_costs_itself_alone(root):
    path = root / "labels" / "scene.npz"
    with np.load(path) as file:
        columns = dict(file)
    columns["shape"][4, 7], columns["center"][8] = -113, np.inf
    np.savez(path, **columns)
    skipped = Skipped()
    with pytest.warns(UserWarning, match="scene.npz: row"):
        assert len(list(read(root, 40, skipped))) == 7
    assert len(skipped.faults) == 2 and "row 4" in skipped.faults[0] and "-113" in skipped.faults[0]


def test_labels_in_another_convention_are_refused(root):
    labels = Labels.load(root / "labels" / "scene.npz")
    change_labels(root, trans_cam=labels.trans_cam * (1, -1, 1) + (0, 1, 0))
    with pytest.raises(ValueError, match="scene.npz.* gtkps"):
        list(read(root))


def test_labels_of_another_body_model_are_warned_about_or_refused(root):
    """BEDLAM's betas make another person of the open body, with joints near the labelled ones."""
    labels = Labels.load(root / "labels" / "scene.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_projection(labels)
    labels.shape[:, :3] += 2
    with pytest.warns(UserWarning, match="scene.npz.*body open"):
        check_projection(labels)
    with pytest.raises(ValueError, match="body open"):
        check_projection(labels, exact=True)


def test_a_frame_stored_on_its_side_is_turned_upright(root, body):
    """A portrait view stored as landscape: its camera's principal point is (90, 160), its file 320 wide."""
    portrait = np.array([[260.0, 0, 90], [0, 260, 160], [0, 0, 1]])
    assert on_its_side((180, 320), portrait) and not on_its_side((320, 180), portrait)
    plain = list(read(root, 80))
    for kind in ("png", "depth", "masks"):
        for path in (root / "scene" / kind).rglob("*.*"):
            if path.suffix == ".png":
                cv2.imwrite(str(path), np.rot90(cv2.imread(str(path)), 1))
            else:
                import OpenEXR

                pixels = np.ascontiguousarray(np.rot90(OpenEXR.File(str(path)).channels()["Depth"].pixels, 1))
                header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
                OpenEXR.File(header, {"Depth": pixels}).write(str(path))
    for before, after in zip(plain, read(root, 80), strict=True):
        assert (before["image"] == after["image"]).all() and (before["depth"] == after["depth"]).all()
