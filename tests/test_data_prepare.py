"""`dpose prepare`: what is cut, in what order, and what is left when it is interrupted, damaged or misled."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from data_people import frame_sets, random_label, random_pose, write_bedlam_frame
from gendered_people import licensed_bodies
from licensed_files import write_smplx_npz

from dpose.body import Bodies, load_body
from dpose.cli import main
from dpose.config import MINI
from dpose.data.augment import MINI_AUGMENT, PAPER_AUGMENT, jitter_box
from dpose.data.frames import BEHIND, NO_MASK, Skipped, TooManyFaults
from dpose.data.labels import COLUMNS, Labels
from dpose.data.loader import make_loader
from dpose.data.prepare import driver, job, prepare, prepare_scenes
from dpose.data.prepare.plan import Settings, plan, split_of
from dpose.data.sample import MARGIN, relative_matrix
from dpose.data.shards import read_manifest
from dpose.data.sources import BadCount, read_members

SCENES, SEQUENCES, FRAMES, PEOPLE = 2, 10, 2, 2
TOTAL = SCENES * SEQUENCES * FRAMES * PEOPLE
SETTINGS = {"dataset": "made", "validation": 0.2, "per_shard": 8, "workers": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two scenes of 10 sequences of 2 frames of 2 people; the sequences all look the same."""
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
    prepare_scenes(frame_sets(root), out, "train", 40, **SETTINGS)
    return out


@pytest.fixture
def copy(root, tmp_path) -> Path:
    """A root to damage."""
    return shutil.copytree(root, tmp_path / "copy")


def cut(root: Path, out: Path, **changes) -> dict:
    return prepare_scenes(frame_sets(root), out, "train", 40, **(SETTINGS | changes))


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


def test_every_person_is_in_one_shard_once_beside_the_others_of_the_frame(whole):
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
    assert manifest["faults"] == [] and manifest["dropped"] == {}
    assert manifest["bodies"] == {"open": {"name": "open", "hash": load_body().hash}}
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


def test_a_fifth_of_the_sequences_goes_to_val():
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


def test_a_killed_run_resumes_and_ends_with_the_shards_of_one_process(copy, tmp_path):
    """Also with its counts: people are left out in both scenes."""
    for scene in ("first", "second"):
        for path in (copy / scene / "masks").glob("*/*_0000_00_*.png"):
            path.unlink()
    whole, out = cut(copy, tmp_path / "whole", per_shard=2), tmp_path / "out"
    assert whole["dropped"] == {NO_MASK: SCENES * SEQUENCES}
    folder, options = out / "shards", {"workers": 2, "per_shard": 2}
    process = multiprocessing.get_context("fork").Process(target=cut, args=(copy, out), kwargs=options)
    process.start()
    late = time.monotonic() + 300
    while not list(folder.glob("*.tar")):
        assert process.is_alive(), "it ended without a shard"
        assert time.monotonic() < late, "it makes no shard"
        time.sleep(0.01)
    children = [int(child) for child in _children(process.pid)]
    process.kill()
    process.join()
    for _ in range(600):  # the workers notice
        if not any(map(_is_running, children)):
            break
        time.sleep(0.05)
    assert len(children) >= 2 and not any(map(_is_running, children))
    made = check_shards(folder)
    assert made < len(whole["shards"]) and read_manifest(folder) is None
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert cut(copy, out, **options) == whole  # with every hash
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


def test_parts_in_any_order_make_the_files_of_one_run(root, whole, tmp_path):
    said, folder, times = [], tmp_path / "shards", {}
    for part in ("3/4", "1/4", "4/4", "1/4"):
        assert cut(root, tmp_path, part=part, say=said.append) is None
        assert {path: path.stat().st_mtime_ns for path in times} == times  # not made again
        times = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert "part 2 of 4" in said[-1] and "--part 2/4" in said[-1]
    with pytest.raises(FileNotFoundError, match="part 2 of 4 .*dpose prepare made .*--part 2/4"):
        make_loader(tmp_path, "train", MINI, 4)
    assert cut(root, tmp_path, part="2/4") == read_manifest(whole / "shards") == read_manifest(folder)
    names = [path.name for path in (whole / "shards").glob("*.tar")]
    assert sorted(path.name for path in folder.glob("*.tar")) == sorted(names)
    for name in [*names, "manifest.json"]:
        assert (folder / name).read_bytes() == (whole / "shards" / name).read_bytes()


def test_shards_that_another_part_has_made_meanwhile_are_merged_with_their_faults(
    copy, tmp_path, monkeypatch
):
    """The parts end at the same time: the first to end finds the second's shards only in the end."""
    path = next((copy / "second" / "png").glob("*/*.png"))
    path.unlink()
    path.write_bytes(b"no picture")
    expected, real = cut(copy, tmp_path / "whole"), driver.run_jobs
    assert expected["faults"]

    def other_part_first(*args, **options):
        monkeypatch.setattr(driver, "run_jobs", real)
        assert cut(copy, tmp_path / "out", part="2/2") is None
        real(*args, **options)

    monkeypatch.setattr(driver, "run_jobs", other_part_first)
    assert cut(copy, tmp_path / "out", part="1/2") == expected


def test_a_disk_that_is_full_is_named_and_the_same_call_goes_on(root, whole, tmp_path, monkeypatch):
    made, real = [], job.write_tar

    def full(*args, **options):
        if len(made) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        made.append(real(*args, **options))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_tar", full)
        with pytest.raises(OSError, match=rf"{tmp_path}/shards is full .*3 of"):
            cut(root, tmp_path)
    assert check_shards(tmp_path / "shards") == 3
    assert cut(root, tmp_path) == read_manifest(whole / "shards")


# --- other data in the way ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"per_shard": 9}, "per_shard 8.*per_shard 9"),
        ({"limit": 10}, "limit None.*limit 10"),
        ({"validation": 0.5}, "validation 0.2.*validation 0.5"),
        ({"dataset": "other"}, "set 'made'.*set 'other'"),
    ],
)
def test_shards_of_other_settings_are_not_mixed_with(root, whole, changes, facts):
    before = sorted(path.name for path in (whole / "shards").iterdir())
    with pytest.raises(ValueError, match=facts):
        cut(root, whole, **changes)
    assert sorted(path.name for path in (whole / "shards").iterdir()) == before


def change_labels(root: Path, scene: str, change) -> None:
    """Applies a function to the columns of a label file."""
    path = root / "labels" / f"{scene}.npz"
    with np.load(path) as file:
        columns = dict(file)
    change(columns)
    np.savez(path, **columns)


def test_shards_of_other_labels_and_foreign_shards_are_not_mixed_with(copy, whole, tmp_path):
    change_labels(copy, "second", lambda columns: columns.update(center=columns["center"] + 1))
    with pytest.raises(ValueError, match=r"other labels.*second"):
        cut(copy, whole)
    shards = tmp_path / "foreign" / "shards"
    shards.mkdir(parents=True)
    (shards / "train-000007.tar").write_bytes(b"earlier")
    with pytest.raises(ValueError, match=r"train-000007.tar has no record"):
        cut(copy, shards.parent)
    assert [path.name for path in shards.iterdir()] == ["train-000007.tar"]


# --- bodies -------------------------------------------------------------------------------------------------


def test_licensed_files_do_not_change_shards_of_the_open_body(root, whole, tmp_path):
    with licensed_bodies(tmp_path / "bodies", "smplx-neutral", "smplx-male"):
        assert cut(root, tmp_path / "out") == read_manifest(whole / "shards")  # with every hash


def test_labels_without_a_body_are_of_smplx_and_need_its_file(copy, tmp_path, monkeypatch):
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    change_labels(copy, "second", lambda columns: columns.pop("body"))
    with pytest.raises(FileNotFoundError, match=r"SMPLX_NEUTRAL\.npz.*https://smpl-x\.is"):
        cut(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_of_another_version_of_a_body_are_not_mixed_with(copy, tmp_path):
    for scene in ("first", "second"):
        change_labels(copy, scene, lambda columns: columns.pop("body"))
    with licensed_bodies(tmp_path / "bodies", "smplx-neutral") as bodies:
        body = load_body("smplx-neutral")
        for path in (copy / "labels").iterdir():
            labels = Labels.load(path)
            labels.gtkps[:, :, 2] = 0  # of the open body
            labels.save(path)
        manifest = cut(copy, tmp_path / "out", limit=8)
        assert manifest["bodies"] == {"smplx-neutral": {"name": "smplx-neutral", "hash": body.hash}}
        arrays = bodies["smplx-neutral"]
        arrays["v_template"] = arrays["v_template"] * np.float32(1.001)
        write_smplx_npz(tmp_path / "bodies" / "smplx" / "SMPLX_NEUTRAL.npz", arrays)
        with pytest.raises(ValueError, match="body models.*first"):
            cut(copy, tmp_path / "out", limit=8)


def test_labels_of_another_body_are_refused_before_anything_is_written(copy, tmp_path):
    """The same betas make another person of it, whose part labels would be a few pixels off."""

    def change(columns):
        columns["shape"][:, :3] += 2

    change_labels(copy, "second", change)
    with pytest.raises(ValueError, match="second.npz.* open "):
        cut(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- names and cameras --------------------------------------------------------------------------------------


def test_two_scenes_of_one_name_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match="same name"):
        prepare_scenes(frame_sets(root)[:1] * 2, tmp_path / "out", "train", 40, workers=1)
    assert not (tmp_path / "out").exists()


def test_part_labels_in_the_released_camera_need_shards_of_their_own(copy, tmp_path):
    """Only the part labels differ, and the masks are matched all the same."""
    cut(copy, tmp_path / "crop")
    manifest = cut(copy, tmp_path / "released", parts_camera="released")
    assert manifest["parts_camera"] == "released" and manifest["dropped"] == {}
    same, apart = [], []
    for name in sorted(path.name for path in (tmp_path / "crop" / "shards").glob("*.tar")):
        files = [tmp_path / kind / "shards" / name for kind in ("crop", "released")]
        pair = (read_members([file], BadCount(0, 0)) for file in files)
        for one, other in zip(*pair, strict=True):
            same.append(all(one[kind] == other[kind] for kind in ("jpg", "depth.png", "json")))
            apart.append(one["parts.png"] != other["parts.png"])
    assert len(same) == TOTAL and all(same) and all(apart)
    with pytest.raises(ValueError, match="parts_camera 'crop'"):
        cut(copy, tmp_path / "released")
    with pytest.raises(ValueError, match="fisheye.*crop, released"):
        cut(copy, tmp_path / "other", parts_camera="fisheye")


def test_shards_made_when_the_released_camera_was_called_paper_are_kept(copy, tmp_path):
    """Their records name it "paper", and their fingerprints were made with that name."""
    settings = Settings("made", "train", 40, MARGIN, 0.2, 8, None)
    crop, former, now = (
        [job.fingerprint for job in plan(frame_sets(copy), made, Bodies(), Skipped(0))[0]]
        for made in (replace(settings, parts_camera=name) for name in ("crop", "paper", "released"))
    )
    assert former == now and not set(crop) & set(now)
    cut(copy, tmp_path / "out", parts_camera="released")
    shards = tmp_path / "out" / "shards"
    for path in shards.glob("*-??????.json"):
        record = json.loads(path.read_text())
        assert record["settings"]["parts_camera"] == "released"
        record["settings"]["parts_camera"] = "paper"
        path.write_text(json.dumps(record))
    before = {path: path.stat().st_mtime_ns for path in shards.glob("*.tar")}
    manifest = cut(copy, tmp_path / "out", parts_camera="released")
    assert {path: path.stat().st_mtime_ns for path in shards.glob("*.tar")} == before
    assert manifest["parts_camera"] == "released"
    with pytest.raises(ValueError, match="parts_camera 'paper'.*'crop'"):
        cut(copy, tmp_path / "out")


# --- faults -------------------------------------------------------------------------------------------------


def damage(root: Path, scene: str, sequence: str) -> None:
    for path in (root / scene / "png" / sequence).iterdir():
        path.write_bytes(path.read_bytes()[:1000])


def test_a_damaged_frame_is_counted_and_named_and_the_others_are_made(copy, tmp_path):
    damage(copy, "first", "seq_000003")
    manifest = cut(copy, tmp_path / "out")
    assert sum(manifest["splits"].values()) == TOTAL - FRAMES * PEOPLE and len(manifest["faults"]) == FRAMES
    assert all("seq_000003" in fault for fault in manifest["faults"])
    assert cut(copy, tmp_path / "out") == manifest  # remembered though nothing is made anew


def test_faults_of_all_jobs_count_together_and_past_the_limit_nothing_is_half_written(copy, tmp_path):
    damage(copy, "first", "seq_000003")
    damage(copy, "second", "seq_000004")
    out = tmp_path / "out"
    with pytest.raises(TooManyFaults, match="limit 3"):
        cut(copy, out, skipped=Skipped(3))
    assert check_shards(out / "shards") > 0
    assert not list((out / "shards").glob(".*")) and read_manifest(out / "shards") is None
    with pytest.raises(TooManyFaults):
        cut(copy, out, skipped=Skipped(3))
    assert len(cut(copy, out, skipped=Skipped(4))["faults"]) == 4


def test_a_person_whose_mask_is_black_or_not_there_is_left_out_and_counted(copy, tmp_path):
    """The renderer writes no mask for a hidden person; without any visible person, an `_env` mask remains."""
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


def test_rows_that_cannot_be_used_are_faults_and_the_others_are_used(copy, tmp_path):
    names = {}

    def change(columns):
        columns["pose_cam"][5, 70], columns["scale"][8], columns["shape"][11, 2] = np.nan, 0, 113
        names.update({row: columns["imgname"][row] for row in (5, 8, 11)})

    change_labels(copy, "first", change)
    with pytest.warns(UserWarning, match="first.npz: row"):
        manifest = cut(copy, tmp_path / "out")
    assert sum(manifest["splits"].values()) == TOTAL - 3
    facts = {5: "'pose_cam'", 8: "'scale'", 11: "113"}
    for (row, fact), fault in zip(facts.items(), manifest["faults"], strict=True):
        assert "first.npz" in fault and f"row {row} ({names[row]})" in fault and fact in fault
    with pytest.warns(UserWarning, match="row"), pytest.raises(TooManyFaults, match="limit 2.*row 5"):
        cut(copy, tmp_path / "out", skipped=Skipped(2))


def test_people_behind_the_camera_are_counted_and_not_samples(copy, tmp_path):
    for scene in ("first", "second"):

        def change(columns):
            columns["trans_cam"][::8, 2] = -2.8
            columns["gtkps"][::8, :, 2] = 0

        change_labels(copy, scene, change)
    scenes = [replace(scene, depth=None, masks=None) for scene in frame_sets(copy)]  # masks would hide them
    manifest = prepare_scenes(scenes, tmp_path / "out", "train", 40, **SETTINGS)
    assert manifest["dropped"] == {BEHIND: TOTAL // 8} and not manifest["faults"]
    assert sum(manifest["splits"].values()) == TOTAL - TOTAL // 8


def test_a_box_without_extent_is_a_fault_and_not_a_sample(copy, tmp_path):
    labels = Labels.load(copy / "labels" / "first.npz")
    labels.scale[5] = 1e-4  # a fiftieth of a pixel
    labels.save(copy / "labels" / "first.npz")
    manifest = cut(copy, tmp_path / "out")
    assert sum(manifest["splits"].values()) == TOTAL - 1 and len(manifest["faults"]) == 1
    assert labels.imgname[5].removesuffix(".png").replace("/", "-") in manifest["faults"][0]


def test_boxes_without_extent_do_not_end_the_estimate(copy, tmp_path):
    labels = Labels.load(copy / "labels" / "first.npz")
    labels.scale[:] = 1e-4
    labels.save(copy / "labels" / "first.npz")
    scenes = frame_sets(copy)
    options = {"workers": 1, "skipped": Skipped(TOTAL)}
    manifest = prepare_scenes(scenes, tmp_path / "out", "train", 40, **options)
    assert manifest["splits"] == {"train": TOTAL // 2} and len(manifest["faults"]) > 24
    assert len(manifest["faults"]) + manifest["dropped"].get(NO_MASK, 0) == TOTAL // 2


def test_a_shard_without_samples_is_not_written(copy, tmp_path):
    damage(copy, "first", "seq_000003")
    scene = frame_sets(copy)[0]
    labels = Labels.load(scene.labels)
    own = np.flatnonzero([name.startswith("seq_000003") for name in labels.imgname])
    columns = {name: getattr(labels, name)[own] for name in COLUMNS}
    lost = replace(scene, name="lost", labels=Labels(**columns).save(tmp_path / "lost.npz"))
    manifest = prepare_scenes([lost, scene], tmp_path / "out", "test", 40, workers=1)
    assert {row["scene"] for row in manifest["shards"]} == {"first"} and len(manifest["faults"]) == 4
    assert check_shards(tmp_path / "out" / "shards") == len(manifest["shards"])
    assert prepare_scenes([lost, scene], tmp_path / "out", "test", 40, workers=1) == manifest
    (tmp_path / "out" / "shards" / "test-000000.json").unlink()  # killed before the empty shard
    assert prepare_scenes([lost, scene], tmp_path / "out", "test", 40, workers=1) == manifest
    with pytest.raises(ValueError, match="seq_000003"):
        prepare_scenes([lost], tmp_path / "nothing", "test", 40, workers=1)
    assert not (tmp_path / "nothing").exists()


# --- before it starts ---------------------------------------------------------------------------------------


def test_the_estimate_is_near_what_is_made(root, whole, tmp_path):
    lines = []
    assert cut(root, tmp_path / "out", dry_run=True, say=lines.append, workers=3) is None
    assert not (tmp_path / "out").exists()
    assert f"people {TOTAL}, frames {TOTAL // 2}, scenes {SCENES}" in lines[0]
    made = sum(shard["bytes"] for shard in read_manifest(whole / "shards")["shards"])
    assert "3 processes" in lines[1] and "24 people, of whom 24" in lines[1]
    assert 0.6 < 1e6 * float(lines[1].split(" MB")[0].split()[-1]) / made < 1.1  # without a tar's last block


def test_a_malformed_label_file_is_refused_before_anything_is_written(copy, tmp_path):
    change_labels(copy, "second", lambda columns: columns.pop("cam_int"))
    with pytest.raises(ValueError, match="second.npz.* cam_int"):
        cut(copy, tmp_path / "out")
    not_in_pixels = np.tile(np.eye(3), (TOTAL // 2, 1, 1))
    change_labels(copy, "second", lambda columns: columns.update(cam_int=not_in_pixels))
    with pytest.raises(ValueError, match="second.npz.* gtkps"):
        cut(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_limit_takes_about_that_many_people(root, tmp_path):
    manifest = cut(root, tmp_path / "out", limit=9)
    assert 9 <= sum(manifest["splits"].values()) < 9 + PEOPLE
    assert {row["scene"] for row in manifest["shards"]} == {"first"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_shard": 0}, "per_shard .*1, got 0"),
        ({"workers": 0}, "workers .*1, got 0"),
        ({"limit": 0}, "limit .*1, got 0"),
        ({"validation": 1.0}, "validation .*got 1.0"),
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

    def scenes(root, out, split, skipped, bodies, progress=False):
        skipped.drop("out of sight", 3)
        (out / "labels").mkdir(parents=True, exist_ok=True)
        found = []
        for scene in frame_sets(root):
            shutil.copy(scene.labels, out / "labels")
            found.append(replace(scene, labels=out / "labels" / scene.labels.name))
        return found

    module.scenes = scenes
    monkeypatch.setitem(driver.SETS, "made", "made")
    monkeypatch.setitem(sys.modules, "dpose.data.sets.made", module)
    return module


def test_the_command_prepares_a_set(root, whole, made_set, tmp_path, capsys):
    out = tmp_path / "out"
    command = f"prepare made --root {root} --out {out} --size 40 --per-shard 8 --workers 1 --no-progress"
    assert main([*command.split(), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"people {TOTAL}" in printed and "left out: 3 people, out of sight" in printed
    assert not out.exists()
    assert main(command.split()) == 0
    manifest = read_manifest(out / "shards")
    assert manifest["protocol"] == "smplx24" and manifest["source"] == "Made: a set for tests."
    assert manifest["dropped"] == {"out of sight": 3}
    assert manifest["fingerprint"] == read_manifest(whole / "shards")["fingerprint"]  # 80/20 by itself
    printed = capsys.readouterr().out
    assert f"{TOTAL - manifest['splits']['val']}" in printed
    assert "left out: 3 people, out of sight" in printed.rpartition(str(out))[2]  # in the end, too


def test_the_command_prints_how_many_no_mask_shows(copy, made_set, tmp_path, capsys):
    for path in (copy / "first" / "masks" / "seq_000000").glob("*_[0-9][0-9]_*.png"):
        path.unlink()
    command = f"prepare made --root {copy} --out {tmp_path / 'out'} --size 40 --workers 1 --no-progress"
    assert main(command.split()) == 0
    assert f"left out: {FRAMES * PEOPLE} people, {NO_MASK}" in capsys.readouterr().out


def test_test_splits_and_sets_that_train_whole_are_not_divided(root, made_set, tmp_path, monkeypatch):
    options = {"size": 40, "workers": 1, "limit": 40}
    assert set(prepare("made", root, tmp_path / "a", "test", **options)["splits"]) == {"test"}
    monkeypatch.setattr(driver, "WHOLE", ("made",))
    assert set(prepare("made", root, tmp_path / "b", **options)["splits"]) == {"train"}


def test_an_unknown_set_or_split_or_a_missing_root_is_named(root, made_set, tmp_path, capsys):
    with pytest.raises(ValueError, match="'other'.*bedlam, agora, 3dpw, emdb, rich"):
        prepare("other", root, tmp_path / "out")
    with pytest.raises(ValueError, match="'val'.*train, test"):
        prepare("made", root, tmp_path / "out", "val")
    with pytest.raises(ValueError, match="another folder"):
        prepare("made", root, root)
    for empty in ({"root": "", "out": tmp_path / "out"}, {"root": root, "out": ""}):
        with pytest.raises(ValueError, match="empty string"):
            prepare("made", **empty)
    assert main(["prepare", "made", "--root", str(root / "no"), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and str(root / "no") in printed.err and printed.out == ""
    assert not (tmp_path / "out").exists()
