"""`dpose prepare`: what is cut, in what order, and what is left when it is interrupted, damaged or misled."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from data_people import random_label, random_pose, write_bedlam_frame

from dpose.body import load_body
from dpose.cli import main
from dpose.config import MINI
from dpose.data import prepare as prepare_module
from dpose.data.augment import MINI_AUGMENT, PAPER_AUGMENT, jitter_box
from dpose.data.frames import NO_MASK, FrameSet, Skipped, TooManyFaults
from dpose.data.labels import COLUMNS, Labels
from dpose.data.loader import make_loader
from dpose.data.prepare import clean, prepare, prepare_scenes, split_of
from dpose.data.sample import relative_matrix
from dpose.data.sets.bedlam import label_scenes
from dpose.data.shards import read_manifest
from dpose.data.sources import BadCount, read_members
from dpose.io import HOST

SCENES, SEQUENCES, FRAMES, PEOPLE = 2, 20, 2, 2
TOTAL = SCENES * SEQUENCES * FRAMES * PEOPLE
SETTINGS = {"dataset": "made", "validation": 0.2, "per_shard": 8, "workers": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two scenes of 20 sequences of 2 frames of 2 people; the sequences all look the same."""
    root, body, rng = tmp_path_factory.mktemp("root"), load_body(), np.random.default_rng(0)
    for scene in ("first", "second"):
        tables = []
        for frame in range(FRAMES):
            people = [
                (random_pose(rng), rng.normal(0, 0.5, 11), np.array([x, 0.1, 3.5])) for x in (-0.9, 0.6)
            ]
            name = f"seq_000000/seq_000000_{5 * frame:04d}.png"
            tables.append(write_bedlam_frame(root, body, people, scene, name))
        for sequence in range(1, SEQUENCES):
            for kind in ("png", "depth", "masks"):
                folder = root / scene / kind / f"seq_{sequence:06d}"
                folder.mkdir()
                for path in (root / scene / kind / "seq_000000").iterdir():
                    os.link(path, folder / path.name.replace("seq_000000", folder.name))
        columns = {name: np.concatenate([getattr(t, name) for t in tables] * SEQUENCES) for name in COLUMNS}
        names = columns["imgname"].reshape(SEQUENCES, -1)
        columns["imgname"] = [
            str(name).replace("seq_000000", f"seq_{sequence:06d}")
            for sequence, row in enumerate(names)
            for name in row
        ]
        Labels(**columns).save(root / "labels" / f"{scene}.npz")
    return root


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> Path:
    """What one process makes of it without interruption."""
    out = tmp_path_factory.mktemp("whole")
    prepare_scenes(label_scenes(root), out, "train", 40, **SETTINGS)
    return out


@pytest.fixture
def copy(root, tmp_path) -> Path:
    """A root to damage."""
    return shutil.copytree(root, tmp_path / "copy")


def cut(root: Path, out: Path, **changes) -> dict:
    return prepare_scenes(label_scenes(root), out, "train", 40, **(SETTINGS | changes))


def keys(shard: Path) -> list[str]:
    with tarfile.open(shard) as tar:
        return [member.name.removesuffix(".json") for member in tar if member.name.endswith(".json")]


def check_shards(folder: Path) -> int:
    """Every shard is whole and has a record that says what it is; the number of shards."""
    shards = sorted(folder.glob("*.tar"))
    for shard in shards:
        record = json.loads(shard.with_suffix(".json").read_text())["shard"]
        data = shard.read_bytes()
        assert record["bytes"] == len(data) and record["sha256"] == hashlib.sha256(data).hexdigest()
        assert data.endswith(bytes(1024)) and len(keys(shard)) == record["samples"]
    return len(shards)


# --- what is in the shards ----------------------------------------------------------------------------------


def test_everybody_is_in_one_shard_once_beside_the_others_of_the_frame(whole):
    manifest = read_manifest(whole / "shards")
    shards = [keys(whole / "shards" / row["name"]) for row in manifest["shards"]]
    everybody = [key for shard in shards for key in shard]
    assert len(set(everybody)) == len(everybody) == sum(manifest["splits"].values()) == TOTAL
    assert all(4 <= len(shard) <= 10 for shard in shards)  # about 8, and evenly
    for shard in shards:
        frames = [key.rsplit("-", 1)[0] for key in shard]
        assert frames[::2] == frames[1::2] and len(set(frames)) == len(frames) // 2
    assert len({frame for shard in shards for frame in (k.rsplit("-", 1)[0] for k in shard)}) == TOTAL // 2


def test_frames_are_shuffled_within_their_scene(whole):
    shard = keys(whole / "shards" / "train-000000.tar")
    assert {key.split("-")[0] for key in shard} == {"first"} and shard != sorted(shard)
    assert len({key.split("-")[1] for key in shard}) > 2  # sequences in a shard


def test_the_manifest_says_what_was_made_of_what(whole):
    manifest = read_manifest(whole / "shards")
    expected = {"set": "made", "split": "train", "size": 40, "margin": 1.25, "validation": 0.2}
    assert expected.items() <= manifest.items()
    assert manifest["faults"] == [] and manifest["faults_total"] == 0 and manifest["dropped"] == {}
    assert manifest["bodies"]["smplx-neutral"]["model"] == "open" and len(manifest["bodies"]) == 1
    for row in manifest["shards"]:
        assert hashlib.sha256((whole / "shards" / row["name"]).read_bytes()).hexdigest() == row["sha256"]


def test_sequences_do_not_straddle_train_and_val_and_the_loader_reads_both(whole):
    sequences = {}
    for split in ("train", "val"):
        for batch in make_loader(whole, split, MINI, 16):
            sequences.setdefault(split, set()).update("-".join(key.split("-")[:2]) for key in batch["key"])
            assert batch["has_depth"].all() and (batch["parts"].amax((1, 2)) > 10).all()
    assert not sequences["train"] & sequences["val"]
    assert len(sequences["train"] | sequences["val"]) == SCENES * SEQUENCES


def test_a_fifth_of_the_sequences_goes_to_val_whatever_else_is_there():
    splits = [split_of("scene", f"seq_{i:06d}/frame.png", "train", 0.2) for i in range(4000)]
    assert abs(splits.count("val") / 4000 - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5
    assert splits[7] == split_of("scene", "seq_000007/another.png", "train", 0.2)
    assert {split_of("scene", f"{i}/a.png", "test", 0.0) for i in range(1000)} == {"test"}


@pytest.mark.parametrize("augment", [PAPER_AUGMENT, MINI_AUGMENT])
def test_the_margin_suffices_for_every_jitter(augment):
    rng = np.random.default_rng(0)
    label = random_label(rng, center=(0.0, 0.0))
    for _ in range(500):
        matrix = relative_matrix(label, 160, *jitter_box(label, augment, rng), 128)
        corners = (np.array([[0, 0], [128, 128]]) - matrix[:, 2]) / matrix[0, 0]
        assert corners.min() > -1e-6 and corners.max() < 160 + 1e-6


# --- interruption -------------------------------------------------------------------------------------------

RUN = """
import sys
from dpose.data.sets.bedlam import label_scenes
from dpose.data.prepare import prepare_scenes

if __name__ == "__main__":
    root, out = sys.argv[1:]
    settings = {"dataset": "made", "validation": 0.2, "per_shard": 2, "workers": 2}
    prepare_scenes(label_scenes(root), out, "train", 40, **settings)
"""


def test_killed_in_the_middle_it_goes_on_to_the_very_shards_of_one_process(root, tmp_path):
    whole = cut(root, tmp_path / "whole", per_shard=2)
    script, folder = tmp_path / "run.py", tmp_path / "out" / "shards"
    script.write_text(RUN)
    process = subprocess.Popen([sys.executable, script, root, folder.parent])
    late = time.monotonic() + 300
    while not list(folder.glob("*.tar")):
        assert process.poll() is None, "it ended without a shard"
        assert time.monotonic() < late, "it makes no shard"
        time.sleep(0.01)
    children = [int(child) for child in _children(process.pid)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(600):  # the workers notice
        if not any(map(_is_running, children)):
            break
        time.sleep(0.05)
    assert not any(map(_is_running, children))
    made = check_shards(folder)
    assert made < len(whole["shards"]) and read_manifest(folder) is None
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert cut(root, folder.parent, workers=2, per_shard=2) == whole  # with every hash
    assert check_shards(folder) == len(whole["shards"])
    assert {path: path.stat().st_mtime_ns for path in times} == times  # not made again
    assert not list(folder.glob(".*"))


def _children(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_shard_without_its_whole_file_is_made_again(root, whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "out") / "shards"
    (folder / "train-000001.tar").unlink()  # killed between record and shard
    (folder / "val-000000.tar").write_bytes(b"cut short")
    (folder / "manifest.json").unlink()
    assert cut(root, folder.parent) == read_manifest(whole / "shards")
    check_shards(folder)


def test_unfinished_files_go_with_their_process(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, alive, elsewhere = (
        tmp_path / f".train-000000.tar.{host}.{pid}.part"
        for host, pid in ((HOST, process.pid), (HOST, os.getppid()), ("elsewhere", process.pid))
    )
    for path in (dead, alive, elsewhere):
        path.touch()
    clean(tmp_path)
    assert not dead.exists() and alive.exists() and elsewhere.exists()
    for path in (alive, elsewhere):
        os.utime(path, (0, 0))  # the number belongs to another process by now
    clean(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_named_and_the_same_call_goes_on(root, whole, tmp_path, monkeypatch):
    made, real = [], prepare_module.write_tar

    def full(*args, **options):
        if len(made) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        made.append(real(*args, **options))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_tar", full)
        with pytest.raises(OSError, match=rf"^the disk of {tmp_path}/shards is full \(3 of \d+ shards are"):
            cut(root, tmp_path)
    assert check_shards(tmp_path / "shards") == 3
    assert cut(root, tmp_path) == read_manifest(whole / "shards")


# --- other data in the way ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_shard": 9}, r"made with per_shard 8, asked for is per_shard 9"),
        ({"limit": 10}, r"made with limit None, asked for is limit 10"),
        ({"validation": 0.5}, r"made with validation 0.2, asked for is validation 0.5"),
        ({"dataset": "other"}, r"made with set 'made', asked for is set 'other'"),
    ],
)
def test_shards_of_other_settings_are_not_mixed_with(root, whole, changes, message):
    before = sorted(path.name for path in (whole / "shards").iterdir())
    with pytest.raises(ValueError, match=message):
        cut(root, whole, **changes)
    assert sorted(path.name for path in (whole / "shards").iterdir()) == before


def test_shards_of_other_labels_and_foreign_shards_are_not_mixed_with(copy, whole, tmp_path):
    with np.load(copy / "labels" / "second.npz") as file:
        columns = dict(file)
    columns["center"] = columns["center"] + 1
    np.savez(copy / "labels" / "second.npz", **columns)
    with pytest.raises(ValueError, match=r"made from other labels, scenes or body models \(second\)"):
        cut(copy, whole)
    shards = tmp_path / "foreign" / "shards"
    shards.mkdir(parents=True)
    (shards / "train-000007.tar").write_bytes(b"earlier")
    with pytest.raises(ValueError, match=r"train-000007.tar has no record"):
        cut(copy, shards.parent)
    assert [path.name for path in shards.iterdir()] == ["train-000007.tar"]


def test_samples_of_two_scenes_that_would_have_the_same_key_are_refused(root, tmp_path):
    labels, folder = Labels.load(root / "labels" / "first.npz"), root / "first"
    scenes = []
    for name, imgname in (("a", "b/c.png"), ("a-b", "c.png")):
        table = replace(labels, imgname=np.array([imgname] * len(labels)))
        path = table.save(tmp_path / f"{name}.npz")
        scenes.append(FrameSet(name, path, folder / "png", folder / "depth", folder / "masks"))
    with pytest.raises(ValueError, match="scenes 'a' and 'a-b' both have samples a-b-c-"):
        prepare_scenes(scenes, tmp_path / "out", "train", 40, workers=1)
    with pytest.raises(ValueError, match="two scenes have the same name"):
        prepare_scenes(scenes[:1] * 2, tmp_path / "out", "train", 40, workers=1)
    assert not (tmp_path / "out").exists()


def test_part_labels_by_the_papers_camera_are_another_settings_shards(copy, tmp_path):
    """Only the part labels differ, and the masks are matched all the same."""
    cut(copy, tmp_path / "crop")
    manifest = cut(copy, tmp_path / "paper", parts_camera="paper")
    assert manifest["parts_camera"] == "paper" and manifest["dropped"] == {}
    same, apart = [], []
    for name in sorted(path.name for path in (tmp_path / "crop" / "shards").glob("*.tar")):
        files = [tmp_path / kind / "shards" / name for kind in ("crop", "paper")]
        pair = (read_members([file], BadCount(0, 0)) for file in files)
        for one, other in zip(*pair, strict=True):
            same.append(all(one[kind] == other[kind] for kind in ("jpg", "depth.png", "json")))
            apart.append(one["parts.png"] != other["parts.png"])
    assert len(same) == TOTAL and all(same) and all(apart)
    with pytest.raises(ValueError, match="parts_camera 'crop'"):
        cut(copy, tmp_path / "paper")
    with pytest.raises(ValueError, match="unknown parts_camera 'fisheye'; one of crop, paper"):
        cut(copy, tmp_path / "other", parts_camera="fisheye")


# --- faults -------------------------------------------------------------------------------------------------


def damage(root: Path, scene: str, sequence: str) -> None:
    for path in (root / scene / "png" / sequence).iterdir():
        path.write_bytes(path.read_bytes()[:1000])


def test_a_damaged_frame_is_counted_and_named_and_the_others_are_made(copy, tmp_path):
    damage(copy, "first", "seq_000003")
    manifest = cut(copy, tmp_path / "out")
    assert sum(manifest["splits"].values()) == TOTAL - FRAMES * PEOPLE and manifest["faults_total"] == FRAMES
    assert all("seq_000003" in fault for fault in manifest["faults"])
    assert cut(copy, tmp_path / "out") == manifest  # remembered though nothing is made anew


def test_faults_of_all_jobs_count_together_and_past_the_limit_nothing_is_half_written(copy, tmp_path):
    damage(copy, "first", "seq_000003")
    damage(copy, "second", "seq_000004")
    out = tmp_path / "out"
    with pytest.raises(TooManyFaults, match=r"4 frames or people could not be used \(limit 3\)"):
        cut(copy, out, skipped=Skipped(3))
    assert check_shards(out / "shards") > 0
    assert not list((out / "shards").glob(".*")) and read_manifest(out / "shards") is None
    with pytest.raises(TooManyFaults):
        cut(copy, out, skipped=Skipped(3))
    assert cut(copy, out, skipped=Skipped(4))["faults_total"] == 4


def test_a_person_whose_mask_is_black_or_not_there_is_left_out_and_counted(copy, tmp_path):
    """The renderer writes no mask of somebody wholly hidden; where nobody at all shows, an `_env` remains."""
    masks = copy / "first" / "masks"
    for path in (masks / "seq_000003").glob("*_0000_00_*.png"):
        path.unlink()
    for path in (masks / "seq_000004").glob("*_0005_01_*.png"):
        black = np.zeros_like(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        path.unlink()  # it is linked to the other sequences'
        cv2.imwrite(str(path), black)
    for path in (masks / "seq_000005").glob("*_0000_*.png"):
        path.unlink()
    cv2.imwrite(str(masks / "seq_000005" / "seq_000005_0000_env.png"), np.full_like(black, 255))
    manifest = cut(copy, tmp_path / "out")
    assert manifest["dropped"] == {NO_MASK: 2 + PEOPLE} and manifest["faults"] == []
    assert sum(manifest["splits"].values()) == TOTAL - 2 - PEOPLE


def hide(root: Path, scene: str, sequences: int) -> None:
    """Nobody shows in the scene's first sequences any more."""
    for number in range(sequences):
        for path in (root / scene / "masks" / f"seq_{number:06d}").glob("*_[0-9][0-9]_*.png"):
            path.unlink()


@pytest.mark.parametrize("scene", ["first", "second"])
def test_masks_that_hide_half_of_the_people_are_refused_before_anything_is_written(copy, tmp_path, scene):
    hide(copy, scene, SEQUENCES)
    message = (
        r"of those tried: \d+ of 24 people would be left out, as no mask shows them.*--max-hidden above 0.25"
    )
    with pytest.raises(ValueError, match=message):
        cut(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    manifest = cut(copy, tmp_path / "out", max_hidden=1)
    assert manifest["dropped"] == {NO_MASK: TOTAL // 2} and manifest["splits"].keys() == {"train", "val"}
    with pytest.raises(ValueError, match="max_hidden is a share from 0 to 1, got 25"):
        cut(copy, tmp_path / "out", max_hidden=25)


def test_a_scene_whose_masks_do_not_fit_is_refused_in_the_end_by_name(copy, tmp_path):
    """Too few to be noticed among those who are cut for a try; shards stay, but there is no manifest."""
    hide(copy, "second", 12)
    with pytest.raises(ValueError, match=r"second: 48 of 80 people would be left out"):
        cut(copy, tmp_path / "out")
    folder = tmp_path / "out" / "shards"
    assert read_manifest(folder) is None and check_shards(folder)
    assert cut(copy, tmp_path / "out", max_hidden=0.6)["dropped"] == {NO_MASK: 48}


def test_rows_with_numbers_that_are_none_are_faults_and_the_others_are_used(copy, tmp_path):
    path = copy / "labels" / "first.npz"
    with np.load(path) as file:
        columns = dict(file)
    columns["pose_cam"][5, 70], columns["scale"][8] = np.nan, 0
    np.savez(path, **columns)
    with pytest.warns(UserWarning, match="first.npz: row"):
        manifest = cut(copy, tmp_path / "out")
    assert sum(manifest["splits"].values()) == TOTAL - 2 and manifest["faults_total"] == 2
    wanted = [
        f"row 5 ({columns['imgname'][5]}): 'pose_cam' is not finite",
        f"row 8 ({columns['imgname'][8]})",
    ]
    assert all(text in fault for text, fault in zip(wanted, manifest["faults"], strict=True))
    with pytest.warns(UserWarning, match="row"), pytest.raises(TooManyFaults, match="limit 1.*row 5"):
        cut(copy, tmp_path / "out", skipped=Skipped(1))


def test_a_box_without_extent_is_a_fault_and_not_a_sample(copy, tmp_path):
    labels = Labels.load(copy / "labels" / "first.npz")
    labels.scale[5] = 1e-4  # a fiftieth of a pixel
    labels.save(copy / "labels" / "first.npz")
    manifest = cut(copy, tmp_path / "out")
    assert sum(manifest["splits"].values()) == TOTAL - 1 and manifest["faults_total"] == 1
    assert labels.imgname[5].removesuffix(".png").replace("/", "-") in manifest["faults"][0]


def test_boxes_without_extent_do_not_end_the_estimate(copy, tmp_path):
    labels = Labels.load(copy / "labels" / "first.npz")
    labels.scale[:] = 1e-4
    labels.save(copy / "labels" / "first.npz")
    scenes = label_scenes(copy)
    options = {"workers": 1, "max_hidden": 1, "skipped": Skipped(TOTAL)}
    manifest = prepare_scenes(scenes, tmp_path / "out", "train", 40, **options)
    assert manifest["splits"] == {"train": TOTAL // 2} and manifest["faults_total"] > 40
    assert manifest["faults_total"] + manifest["dropped"].get(NO_MASK, 0) == TOTAL // 2


def test_a_shard_of_which_nothing_is_left_is_none(copy, tmp_path):
    damage(copy, "first", "seq_000003")
    scene = label_scenes(copy, ["first"])[0]
    labels = Labels.load(scene.labels)
    mine = np.flatnonzero([name.startswith("seq_000003") for name in labels.imgname])
    columns = {name: getattr(labels, name)[mine] for name in COLUMNS}
    lost = replace(scene, name="lost", labels=Labels(**columns).save(tmp_path / "lost.npz"))
    manifest = prepare_scenes([lost, scene], tmp_path / "out", "test", 40, workers=1)
    assert {row["scene"] for row in manifest["shards"]} == {"first"} and manifest["faults_total"] == 4
    assert check_shards(tmp_path / "out" / "shards") == len(manifest["shards"])
    assert prepare_scenes([lost, scene], tmp_path / "out", "test", 40, workers=1) == manifest
    (tmp_path / "out" / "shards" / "test-000000.json").unlink()  # killed before the shard of nobody
    assert prepare_scenes([lost, scene], tmp_path / "out", "test", 40, workers=1) == manifest
    with pytest.raises(ValueError, match=r"none of the frames tried can be used: .*seq_000003"):
        prepare_scenes([lost], tmp_path / "nothing", "test", 40, workers=1)
    assert not (tmp_path / "nothing").exists()


# --- before it starts ---------------------------------------------------------------------------------------


def test_the_estimate_is_near_what_is_made(root, whole, tmp_path):
    said = []
    assert cut(root, tmp_path / "out", dry_run=True, say=said.append) is None
    assert not (tmp_path / "out").exists()
    assert f"people {TOTAL}, frames {TOTAL // 2}, sequences {SCENES * SEQUENCES}, scenes {SCENES}" in said[0]
    made = sum(sample["bytes"] for sample in read_manifest(whole / "shards")["shards"])
    jobs, *_ = prepare_module.plan(label_scenes(root), _settings())
    guess = prepare_module.estimate(jobs, workers=3)
    assert 0.6 < guess.bytes / made < 1.1  # a tar's last block is not counted
    assert guess.people == TOTAL and guess.workers == 3 and guess.seconds > 0


def _settings():
    return prepare_module.Settings("made", "train", 40, 1.25, 0.2, 8, None)


def test_a_disk_too_small_is_said_before_anything_is_written(root, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5000, 5000))
    with pytest.raises(ValueError, match=r"of shards do not fit: .* has 0.01 MB free"):
        cut(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_malformed_label_file_is_refused_before_anything_is_written(copy, tmp_path):
    with np.load(copy / "labels" / "second.npz") as file:
        columns = {name: file[name] for name in file.files if name != "cam_int"}
    np.savez(copy / "labels" / "second.npz", **columns)
    with pytest.raises(ValueError, match="second.npz: label file lacks the column cam_int"):
        cut(copy, tmp_path / "out")
    columns["cam_int"] = np.tile(np.eye(3), (len(columns["scale"]), 1, 1))  # not in pixels
    np.savez(copy / "labels" / "second.npz", **columns)
    with pytest.raises(ValueError, match="do not project onto gtkps"):
        cut(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_of_smplx_are_refused_where_only_the_open_body_is_there(copy, tmp_path):
    """The same betas make another person of it, whose part labels would be a few pixels off."""
    path = copy / "labels" / "second.npz"
    with np.load(path) as file:
        columns = dict(file)
    columns["shape"][:, :3] += 2
    np.savez(path, **columns)
    with pytest.raises(ValueError, match="second.npz: the labelled joints are 0.0.*DPOSE_BODY_MODELS"):
        cut(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_limit_takes_about_so_many_people(root, tmp_path):
    manifest = cut(root, tmp_path / "out", limit=9)
    assert 9 <= sum(manifest["splits"].values()) < 9 + PEOPLE
    assert {row["scene"] for row in manifest["shards"]} == {"first"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_shard": 0}, "per_shard must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"validation": 1.0}, "validation is a share from 0 to below 1"),
    ],
)
def test_numbers_out_of_range_are_refused(root, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        cut(root, tmp_path / "out", **changes)


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def made_set(monkeypatch) -> ModuleType:
    """A data set `made` of BEDLAM's layout, which converts its labels."""
    module = ModuleType("dpose.data.sets.made", "Made: a set for tests.\n\n    <root>/labels/<scene>.npz")
    module.SPLITS, module.PROTOCOL = ("train", "test"), "smplx24"

    def scenes(root, out, split, skipped, *, bodies=None, progress=False):
        skipped.drop("out of sight", 3)
        (out / "labels").mkdir(parents=True, exist_ok=True)
        found = []
        for scene in label_scenes(root):
            shutil.copy(scene.labels, out / "labels")
            found.append(replace(scene, labels=out / "labels" / scene.labels.name))
        return found

    module.scenes = scenes
    monkeypatch.setitem(prepare_module.SETS, "made", "made")
    monkeypatch.setitem(sys.modules, "dpose.data.sets.made", module)
    return module


def test_the_command_prepares_a_set(root, whole, made_set, tmp_path, capsys):
    out = tmp_path / "out"
    command = f"prepare made --root {root} --out {out} --size 40 --per-shard 8 --workers 1 --no-progress"
    assert main([*command.split(), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"people {TOTAL}" in said and "left out: 3 people, out of sight" in said and not out.exists()
    assert main(command.split()) == 0
    manifest = read_manifest(out / "shards")
    assert manifest["protocol"] == "smplx24" and manifest["source"] == "Made: a set for tests."
    assert manifest["dropped"] == {"out of sight": 3}
    assert manifest["fingerprint"] == read_manifest(whole / "shards")["fingerprint"]  # 80/20 by itself
    said = capsys.readouterr().out
    assert f"{TOTAL - manifest['splits']['val']}" in said
    assert "left out: 3 people, out of sight" in said.rpartition(str(out))[2]  # in the end, too


def test_the_command_says_whom_no_mask_shows(copy, made_set, tmp_path, capsys):
    hide(copy, "first", 1)
    command = f"prepare made --root {copy} --out {tmp_path / 'out'} --size 40 --workers 1 --no-progress"
    assert main(command.split()) == 0
    assert f"left out: {FRAMES * PEOPLE} people, {NO_MASK}" in capsys.readouterr().out
    assert main([*command.split(), "--max-hidden", "0"]) == 2
    assert "--max-hidden above 0" in capsys.readouterr().err


def test_test_splits_and_sets_that_train_whole_are_not_cut(root, made_set, tmp_path, monkeypatch):
    options = {"size": 40, "workers": 1, "limit": 40}
    assert set(prepare("made", root, tmp_path / "a", "test", **options)["splits"]) == {"test"}
    monkeypatch.setattr(prepare_module, "WHOLE", ("made",))
    assert set(prepare("made", root, tmp_path / "b", **options)["splits"]) == {"train"}


def test_an_unknown_set_or_split_or_a_missing_root_is_said(root, made_set, tmp_path, capsys):
    with pytest.raises(ValueError, match="unknown data set 'other'; one of bedlam, agora, 3dpw, emdb, rich"):
        prepare("other", root, tmp_path / "out")
    with pytest.raises(ValueError, match="made has no split 'val'; it has train, test"):
        prepare("made", root, tmp_path / "out", "val")
    assert main(["prepare", "made", "--root", str(root / "no"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and f"no folder {root / 'no'}" in said.err and said.out == ""
    assert not (tmp_path / "out").exists()
