"""Scenes to files: crops as shards, full frames as BEDLAM lays them out, and the command `dpose synth`."""

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from dpose.body import Body, load_body
from dpose.camera import BOX_FACTOR, BOX_UNIT
from dpose.data.labels import MIN_VISIBLE_JOINTS, Labels
from dpose.data.sample import MARGIN, Sample, SampleLabel, make_label
from dpose.data.shards import write_manifest, write_shards
from dpose.data.targets import render_label_parts
from dpose.io import replacing
from dpose.paths import data_root
from dpose.processes import advance, run_jobs, usable_cores
from dpose.synthetic.scene import IMAGE_SIZE, SPLITS, Scene, sample_scene
from dpose.synthetic.viewport import Prepared

VERSION = 2  # raise it whenever the same seed gives other people or pictures
SCENES_PER_SHARD = 250
MIN_VISIBLE = 0.3  # share of a person's silhouette that must be in sight
UNREAL_UNITS_PER_METRE = 100.0
DEFAULT_SCENES = {"train": 1500, "val": 250, "test": 750}
NEAR_PLANE = 0.2  # metres; nearer joints count as not visible


@cache
def _body() -> Body:
    return load_body("open")


def people_labels(scene: Scene) -> list[tuple[int, np.ndarray, SampleLabel]]:
    """(number in the scene, pose (165,), label) of the people with enough joints in the frame.

    Poses (axis-angle, radians) and `trans` (metres) are in the camera's frame, as in BEDLAM's processed
    labels. The box surrounds the body joints in sight, times BOX_FACTOR.
    """
    out = []
    for k, subject in enumerate(scene.subjects):
        joints = scene.joints[k] @ scene.rotation.T + scene.translation  # (55, 3), camera
        pixels = joints @ scene.cam_int.T
        pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 1e-6)
        front = joints[:, 2] > NEAR_PLANE
        inside = front & ((pixels > 0) & (pixels < IMAGE_SIZE)).all(1)
        seen = pixels[:22][inside[:22]]
        if len(seen) < MIN_VISIBLE_JOINTS or (joints[:22, 2] < NEAR_PLANE).any():
            continue
        low, high = seen.min(0), seen.max(0)
        pose = scene.rotations[k].copy()
        pose[0] = (Rotation.from_matrix(scene.rotation) * Rotation.from_rotvec(pose[0])).as_rotvec()
        pelvis = scene.pelvis[k]
        label = make_label(
            key=f"{scene.seed[0]:03d}-{subject.split('-')[0]}-{scene.seed[2]:07d}-{k}",
            dataset="open",
            body="open",
            subject=subject,
            pose=pose[:22],
            betas=scene.betas[k],
            trans=scene.rotation @ (pelvis + scene.transl[k]) + scene.translation - pelvis,
            joints2d=np.concatenate([pixels[:24], front[:24, None]], 1),
            center=(low + high) / 2,
            scale=float((high - low).max()) * BOX_FACTOR / BOX_UNIT,
            img_size=IMAGE_SIZE,
            cam_int=scene.cam_int,
        )
        out.append((k, pose.reshape(165), label))
    return out


def person_samples(scene: Scene, size: int, grid: int = 2, margin: float = MARGIN) -> list[Sample]:
    """The scene's people as crops of `size` pixels, rendered directly, without the frame.

    People of whose silhouette less than MIN_VISIBLE is in sight are left out. margin: side of the crop / side
    of the box. grid: rays along a side of the pixels that need anti-aliasing.
    """
    people = people_labels(scene)
    if not people:
        return []
    numbers, poses, labels = zip(*people, strict=True)
    for label in labels:
        label["margin"] = margin
    betas, trans = [label["betas"] for label in labels], [label["trans"] for label in labels]
    parts = render_label_parts(np.stack(poses), betas, trans, list(labels), _body(), size)
    prepared, samples = Prepared(scene), []
    for k, label, part in zip(numbers, labels, parts, strict=True):
        view = prepared.crop(label["center"], label["scale"], size, margin, grid)
        own = view.person == k
        if own.sum() >= MIN_VISIBLE * max(np.count_nonzero(part), 1):
            depth = np.where(own, view.depth, np.float32(0))
            samples.append(Sample(image=view.image, depth=depth, parts=part, label=label))
    return samples


def write_frames(
    root: str | os.PathLike, split: str, count: int, seed: int = 0, progress: bool = True
) -> Path:
    """The first `count` scenes of a split as full frames in BEDLAM's layout; returns the label file.

    One BEDLAM scene `open_<split>`, one frame a sequence: PNG, depth EXR in Unreal units, masks of skin,
    clothes and surroundings, and the label file, which comes last, so that a root with labels is complete.
    Frames that are there and were made the same way are kept, others are replaced. Raises ValueError for an
    unknown split or a count below 1.
    """
    _check_scenes({split: count})
    if count < 1:
        raise ValueError(f"the number of frames must be at least 1, got {count}")
    root, name = Path(root), f"open_{split}"
    folder, target = root / name, root / "labels" / f"{name}.npz"
    made = {"scenes": count, "seed": seed, "version": VERSION}
    if target.is_file() and _read_json(folder / "frames.json") == made:
        return target
    target.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # a mask of another person must not stay behind
    rows: list[dict] = []
    for index in tqdm(range(count), desc=f"frames {split}", disable=not progress, unit="frame"):
        scene = sample_scene(seed, split, index)
        kept = {sample["label"]["key"] for sample in person_samples(scene, 64)}
        people = [person for person in people_labels(scene) if person[2]["key"] in kept]
        if not people:
            continue
        sequence, frame = f"seq_{index:06d}", f"seq_{index:06d}_0000"
        _write_frame(folder, sequence, frame, scene)
        for k, pose, label in people:
            rows.append(
                {
                    "imgname": f"{sequence}/{frame}.png",
                    "center": label["center"],
                    "scale": label["scale"],
                    "pose_cam": pose,
                    "shape": label["betas"],
                    "trans_cam": label["trans"],
                    "gtkps": label["joints2d"],
                    "cam_int": np.reshape(label["cam_int"], (3, 3)),
                    "sub": label["subject"],
                    "motion_info": scene.activities[k],
                    "body": label["body"],
                }
            )
    if not rows:
        raise ValueError(f"nobody is in sight in the first {count} scenes of {split}: ask for more frames")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "frames.json") as temporary:
        temporary.write_text(json.dumps(made))
    columns = {column: np.asarray([row[column] for row in rows]) for column in rows[0]}
    return Labels(**columns).save(target)


def _write_frame(folder: Path, sequence: str, frame: str, scene: Scene) -> None:
    """One scene's picture, depth and masks under a BEDLAM scene's folder."""
    import OpenEXR

    view = Prepared(scene).frame()
    places = {kind: folder / kind / sequence for kind in ("png", "depth", "masks")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    _write_png(places["png"] / f"{frame}.png", view.image[..., ::-1])
    with replacing(places["depth"] / f"{frame}_depth.exr") as temporary:
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"Depth": view.depth * np.float32(UNREAL_UNITS_PER_METRE)}).write(str(temporary))
    _write_png(places["masks"] / f"{frame}_env.png", np.where(view.person < 0, 255, 0).astype(np.uint8))
    for k in range(len(scene.subjects)):
        for kind, mask in (("body", view.skin), ("clothing", ~view.skin)):
            own = np.where((view.person == k) & mask, 255, 0).astype(np.uint8)
            _write_png(places["masks"] / f"{frame}_{k:02d}_{kind}.png", own)


def _write_png(path: Path, array: np.ndarray) -> None:
    ok, data = cv2.imencode(".png", array)
    if not ok:
        raise OSError(f"{path}: could not encode a PNG")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _read_json(path: Path) -> dict | None:
    """The file's content, None if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _check_scenes(scenes: dict[str, int]) -> None:
    for split, count in scenes.items():
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
        if count < 0:
            raise ValueError(f"{split}: the number of scenes must not be negative, got {count}")


def _write_one_shard(folder: Path, seed: int, size: int, split: str, number: int, scenes: range) -> None:
    def samples() -> Iterator[Sample]:
        for index in scenes:
            yield from person_samples(sample_scene(seed, split, index), size)
            advance()

    write_shards(samples(), folder, split, start=number, per_shard=10 * SCENES_PER_SHARD)


def generate(
    root: str | os.PathLike,
    scenes: dict[str, int],
    *,
    size: int = 160,
    seed: int = 0,
    frames: int = 24,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Make the open data under `root`: `shards/`, crops of `size` pixels, and `frames/`, full test frames.

    scenes: how many a split (about 1.4 people each), rounded up to whole shards of SCENES_PER_SHARD. What is
    there already and was made the same way is kept, so an interrupted run goes on; made another way, it is an
    error unless `overwrite`. frames: how many full frames. workers: processes that make shards (None: one a
    core; 1: this very process). Returns the shard folder.
    Raises ValueError for an unknown split, a number out of range, or data of other settings in the way.
    """
    _check_scenes(scenes)
    for what, value, least in (("size", size, 16), ("frames", frames, 0), ("workers", workers or 1, 1)):
        if value < least:
            raise ValueError(f"{what} must be at least {least}, got {value}")
    root = Path(root)
    folder, marker = root / "shards", root / "synth.json"
    settings = {"generator": "dpose.synthetic", "version": VERSION, "seed": seed, "size": size}
    if marker.is_file() or (folder.is_dir() and any(folder.glob("*.tar"))):
        found = _read_json(marker)
        if found != settings:
            if not overwrite:
                raise ValueError(
                    f"{root} holds other data ({found or 'without synth.json'}; asked for {settings}): "
                    "give another --root, or --overwrite to replace it"
                )
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(root / "frames", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(marker) as temporary:
        temporary.write_text(json.dumps(settings) + "\n")
    jobs = [
        (split, number, range(start, start + SCENES_PER_SHARD))
        for split, count in scenes.items()
        for number, start in enumerate(range(0, count, SCENES_PER_SHARD))
        if not (folder / f"{split}-{number:06d}.tar").is_file()
    ]
    if jobs:
        task, total = partial(_write_one_shard, folder, seed, size), len(jobs) * SCENES_PER_SHARD
        with tqdm(total=total, desc="people", unit="scene", disable=not progress) as bar:
            run_jobs(task, jobs, workers or usable_cores(), tick=bar.update)
    if jobs or not (folder / "manifest.json").is_file():
        write_manifest(folder, **settings, bodies={"open": _body().record})
    if frames:
        write_frames(root / "frames", "test", frames, seed, progress)
    return folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dpose synth`."""
    parser.description = (
        "Make the open data set: random people rendered in random scenes. Crops for training go to "
        "ROOT/shards, full frames in BEDLAM's layout to ROOT/frames. An interrupted run goes on where it "
        "stopped; the same seed gives the same people."
    )
    parser.add_argument("--root", help="where to (default: $DPOSE_DATA, else a folder in the user's cache)")
    for split, count in DEFAULT_SCENES.items():
        parser.add_argument(
            f"--{split}", type=int, default=count, metavar="SCENES",
            help=f"scenes in the {split} split, about 1.4 people each (default {count})",
        )  # fmt: skip
    parser.add_argument("--frames", type=int, default=24, help="full 1280x720 test frames (default 24)")
    parser.add_argument(
        "--size",
        type=int,
        default=160,
        help="side of a crop in pixels: 160 for mini (default), 280 for paper",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="replace data made with other settings")


def run(args: argparse.Namespace) -> int:
    """`dpose synth`."""
    from dpose.data.shards import read_manifest

    root = data_root(args.root)
    scenes = {split: getattr(args, split) for split in DEFAULT_SCENES}
    # The folder in the user's cache is ours alone: stale data in it is simply made anew.
    ours = args.root is None and not os.environ.get("DPOSE_DATA")
    folder = generate(
        root, scenes, size=args.size, seed=args.seed, frames=args.frames, workers=args.workers,
        overwrite=args.overwrite or ours,
    )  # fmt: skip
    manifest = read_manifest(folder) or {"splits": {}}
    people = ", ".join(f"{split} {count}" for split, count in manifest["splits"].items())
    print(f"{folder}: {people} people; frames in {root / 'frames'}")
    return 0
