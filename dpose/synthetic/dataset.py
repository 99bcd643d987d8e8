"""The open data set on disk: shards of crops, full frames in BEDLAM's layout, and `dpose synth`."""

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dpose.data.labels import Labels
from dpose.data.parts import Part, describe_missing, parse_part, read_parts
from dpose.data.sample import Sample, SampleLabel
from dpose.data.shards import MANIFEST, read_manifest, shard_row, write_manifest, write_tar
from dpose.io import check_folder, file_hash, remove_stale, replacing, write_json, write_png
from dpose.paths import DATA_VARIABLE, data_root
from dpose.processes import advance, run_jobs, usable_cores
from dpose.skeleton import JOINT_NAMES, LIMBS
from dpose.synthetic.samples import open_body, people_labels, person_samples
from dpose.synthetic.scene import VARIETIES, Scene, check_scenes, sample_scene
from dpose.synthetic.variety import OPTIONS, PLAIN
from dpose.synthetic.viewport import SceneRenderer

VERSION = 3  # increase it whenever the same seed gives other people, pictures or labels
SCENES_PER_SHARD = 250
UNREAL_UNITS_PER_METRE = 100.0
PEOPLE = {"train": 3.1, "val": 1.4, "test": 1.4, "hard": 3.1}  # of a scene, on average
DEFAULT_SCENES = {"train": 1500, "val": 250, "test": 750, "hard": 0}


def generate(
    root: str | os.PathLike,
    scenes: dict[str, int],
    *,
    size: int = 160,
    seed: int = 0,
    frames: int = 24,
    workers: int | None = None,
    part: str | None = None,
    without: Iterable[str] = (),
    overwrite: bool = False,
    replace_other: bool = False,
    progress: bool = True,
) -> Path:
    """Make the open data below `root`: crops in `shards/`, full test frames in `frames/`.

    Shards that the manifest lists are kept if their size and hash agree with it. Missing and damaged shards
    are made, so an interrupted run continues and a damaged data set is repaired. One process at a time works
    on a root, or several parts: another one waits if its settings are the same.

    Args:
        root: data folder, created if needed.
        scenes: number of scenes per split (see PEOPLE for people per scene), rounded up to whole shards of
            SCENES_PER_SHARD.
        size: side of a crop, pixels.
        seed: the same seed gives the same people and pictures.
        frames: number of full frames.
        workers: processes; None for one per core, 1 for the calling process.
        part: "K/N" makes one of N parts, see `dpose.data.parts`; the first one makes the full frames.
        without: options of `Variety` that the split "train" does without.
        overwrite: delete the data below `root` first.
        replace_other: delete them first only if they were made with other settings.
        progress: show progress bars and notes.
    Returns:
        The shard folder.
    Raises:
        ValueError: an unknown split or option, a number out of range, `overwrite` for one part, or `root`
            holds data made with other settings.
        FileExistsError, NotADirectoryError: `root` is a file, or below one.
        RuntimeError: another process is making data with other settings below `root`.
    """
    check_scenes(scenes, seed)
    for name, value, least, most in (
        ("size", size, 16, 2048),
        ("frames", frames, 0, 1_000_000),
        ("workers", workers or 1, 1, 1024),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name} must be from {least} to {most}, got {value}")
    root, chosen = Path(root), None if part is None else parse_part(part)
    if chosen and overwrite:
        raise ValueError(f"part {part}: --overwrite would delete the other parts; delete {root} instead")
    settings = {"generator": "dpose.synthetic", "version": VERSION, "seed": seed, "size": size}
    settings["bodies"] = {"open": open_body().record}
    settings["without"] = sorted(set(without))
    VARIETIES["train"].without(*settings["without"])  # checks the names
    check_folder(root).mkdir(parents=True, exist_ok=True)
    with _locked(root, settings, progress, shared=chosen is not None):
        folder = root / "shards"
        other = _other_settings(folder, settings)
        if other and (chosen or not (overwrite or replace_other)):
            raise ValueError(f"{folder} holds {other}: choose another --root, or --overwrite to replace them")
        if other or overwrite:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(root / "frames", ignore_errors=True)
        folder.mkdir(exist_ok=True)
        remove_stale(folder)
        if frames and (chosen is None or chosen.number == 1):
            write_frames(root / "frames", "test", frames, seed, progress)
        _make_shards(folder, settings, scenes, workers or usable_cores(), progress, chosen)
    return folder


@contextmanager
def _locked(root: Path, settings: dict[str, Any], progress: bool, shared: bool) -> Iterator[None]:
    """Hold the lock of the data folder, `shared` with others of its kind or alone. The system releases it
    when the process ends, even by kill -9.

    Waits for a process that makes data with the same settings; raises RuntimeError for other settings.
    Without effect on Windows and on file systems that have no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path, kind = root / ".synth.lock", fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with open(path, "a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            other = _read_json(path)
            if other and (differences := _differences(other, settings)):
                raise RuntimeError(
                    f"another process is making data in {root} ({differences}): wait until it has finished, "
                    "or choose another --root"
                ) from None
            if progress:
                print(f"waiting for another process that is making the same data in {root}")
            fcntl.flock(file, kind)
        except OSError:
            pass
        if _read_json(path) != settings:
            file.truncate(0)
            file.write(json.dumps(settings))
            file.flush()
        yield


def _differences(found: dict[str, Any], settings: dict[str, Any]) -> str:
    """Settings that are not those of this run, for messages; empty if all are equal."""
    return ", ".join(
        f"{name} {found.get(name)} instead of {value}"
        for name, value in settings.items()
        if found.get(name) != value
    )


def _other_settings(folder: Path, settings: dict[str, Any]) -> str | None:
    """Describes the shards in a folder if they were made with other settings, else None."""
    made_with = [part.get("settings", {}) for part in read_parts(folder).values()]
    try:
        manifest = read_manifest(folder)
    except ValueError:
        return "shards with a damaged manifest"
    if manifest is not None or (not made_with and any(folder.glob("*.tar"))):
        made_with.append(manifest or {})
    if not all("generator" in found for found in made_with):
        return "shards that `dpose synth` did not make"
    differences = next(filter(None, (_differences(found, settings) for found in made_with)), None)
    return f"shards of other settings ({differences})" if differences else None


def _make_shards(
    folder: Path,
    settings: dict[str, Any],
    scenes: dict[str, int],
    workers: int,
    progress: bool,
    part: Part | None,
) -> None:
    """Make the shards, or a part's, that are missing or damaged.

    The manifest, or the part's file, always lists the finished ones.
    """
    jobs = [
        (split, number, range(start, start + SCENES_PER_SHARD))
        for split, count in scenes.items()
        for number, start in enumerate(range(0, count, SCENES_PER_SHARD))
    ]
    listed = _listed(folder, settings)
    if part is not None:
        jobs = part.share(jobs)
        own = {_shard_name(split, number) for split, number, _ in jobs}
        listed = {name: row for name, row in listed.items() if name in own}
    rows = {name: row for name, row in listed.items() if _is_intact(folder / name, row)}
    if progress and (damaged := [name for name in listed if name not in rows]):
        print(f"{folder}: missing or damaged, made again: {', '.join(damaged)}")
    jobs = [job for job in jobs if _shard_name(*job[:2]) not in rows]

    def save(row: dict[str, Any] | None, complete: bool = False) -> None:
        if row:
            rows[row["name"]] = row
        own = [rows[name] for name in sorted(rows)]
        if part is None:
            write_manifest(folder, own, **settings)
        else:
            part.write(folder, "dpose synth", complete, settings=settings, scenes=scenes, shards=own)

    if part is not None or len(rows) < len(listed) or not (folder / MANIFEST).is_file():
        save(None)
    task = partial(_make_shard, folder, settings)
    total = len(jobs) * SCENES_PER_SHARD
    with tqdm(total=total, desc="people", unit="scene", disable=not progress or not jobs) as bar:
        run_jobs(task, jobs, workers, done=save, tick=bar.update)
    if part is not None:
        save(None, complete=True)
        _merge(folder, settings, scenes, part.parts)


def _listed(folder: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of all shards that the manifest or a part of the same settings lists, by name."""
    parts = [part for part in read_parts(folder).values() if part.get("settings") == settings]
    listings = [*parts, read_manifest(folder) or {"shards": []}]
    return {row["name"]: row for listing in listings for row in listing["shards"]}


def _merge(folder: Path, settings: dict[str, Any], scenes: dict[str, int], parts: int) -> None:
    """Write the manifest, if all parts are complete; else say which are not."""
    wanted = {"complete": True, "settings": settings, "scenes": scenes}
    complete = {
        part.number
        for part, content in read_parts(folder).items()
        if part.parts == parts and wanted.items() <= content.items()
    }
    if missing := set(range(1, parts + 1)) - complete:
        print(f"{folder}: {describe_missing(missing, parts, 'dpose synth')}")
        return
    rows = _listed(folder, settings)
    write_manifest(folder, [rows[name] for name in sorted(rows)], **settings)


def _is_intact(path: Path, row: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == row["bytes"] and file_hash(path) == row.get("sha256")


def _shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def _make_shard(
    folder: Path, settings: dict[str, Any], split: str, number: int, scenes: range
) -> dict[str, Any] | None:
    """Write one shard; returns its row of the manifest, or None if nobody is visible in its scenes."""

    variety = VARIETIES[split]
    if split == "train":
        variety = variety.without(*settings["without"])

    def samples() -> Iterator[Sample]:
        for index in scenes:
            scene = sample_scene(settings["seed"], split, index, variety)
            yield from person_samples(scene, settings["size"])
            advance()

    path = folder / _shard_name(split, number)
    with replacing(path) as temporary:
        count = write_tar(samples(), temporary)
    if not count:
        path.unlink()
        return None
    return shard_row(path.name, path, count)


# --- full frames --------------------------------------------------------------------------------------------


def write_frames(
    root: str | os.PathLike, split: str, count: int, seed: int = 0, progress: bool = True
) -> Path:
    """Write the first `count` scenes of a split as full frames in BEDLAM's layout; returns the label file.

    One BEDLAM scene `open_<split>` with one frame per sequence: PNG, depth as EXR in Unreal units, and masks
    of skin, clothes and environment. Beside the label file, `open_<split>.json` has 2D keypoints in COCO's
    format, for `dpose evaluate --keypoints`; images are named relative to the folder `png`. The label file is
    written last, so a root with labels is complete.
    Frames that were made with the same arguments are kept, others are replaced.

    Raises ValueError for an unknown split, one of varied people ("train" and "hard", whose scenes are
    rendered as crops only), or a number out of range.
    """
    check_scenes({split: count}, seed)
    if VARIETIES[split] != PLAIN:
        raise ValueError(f"full frames are rendered of the splits val and test only, not of {split}")
    if count < 1:
        raise ValueError(f"the number of frames must be at least 1, got {count}")
    root, name = Path(root), f"open_{split}"
    folder, target, settings_file = root / name, root / "labels" / f"{name}.npz", root / name / "frames.json"
    settings, keypoints = {"scenes": count, "seed": seed, "version": VERSION}, target.with_suffix(".json")
    if target.is_file() and keypoints.is_file() and _read_json(settings_file) == settings:
        return target
    remove_stale(target.parent)
    target.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # masks of other people must not remain
    rows: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in tqdm(range(count), desc=f"frames {split}", disable=not progress, unit="frame"):
        scene = sample_scene(seed, split, index)
        kept = {sample["label"]["key"] for sample in person_samples(scene, 64)}
        people = [person for person in people_labels(scene) if person[2]["key"] in kept]
        if not people:
            continue
        sequence, frame = f"seq_{index:06d}", f"seq_{index:06d}_0000"
        persons = _write_frame(folder, sequence, frame, scene)
        height, width = persons.shape
        image = {"id": index, "file_name": f"{sequence}/{frame}.png", "width": width, "height": height}
        images.append(image)
        for k, pose, label in people:
            annotations.append({"id": len(rows), "image_id": index, **_annotation(persons == k, label)})
            rows.append(
                {
                    "imgname": image["file_name"],
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
        raise ValueError(f"no person is visible in the first {count} scenes of {split}: ask for more frames")
    category = {"id": 1, "name": "person", "keypoints": list(LIMBS)}
    write_json(
        keypoints, {"images": images, "annotations": annotations, "categories": [category]}, indent=None
    )
    write_json(settings_file, settings, indent=None)
    return Labels(**{column: np.asarray([row[column] for row in rows]) for column in rows[0]}).save(target)


def _annotation(visible: np.ndarray, label: SampleLabel) -> dict[str, Any]:
    """COCO's annotation of a person: the box of the visible pixels (H, W), and the limb joints in the image.

    A joint has the flag 2 where the person is visible, 1 where other people or objects hide it.
    """
    y, x = np.nonzero(visible)
    left, top = int(x.min()), int(y.min())
    keypoints: list[float] = []
    for name in LIMBS:
        x_joint, y_joint, in_front = label["joints2d"][JOINT_NAMES.index(name)]
        inside = in_front and 0 <= x_joint < visible.shape[1] and 0 <= y_joint < visible.shape[0]
        flag = 1 + int(visible[int(y_joint), int(x_joint)]) if inside else 0
        keypoints += [round(x_joint, 2), round(y_joint, 2), flag] if inside else [0, 0, 0]
    return {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, int(x.max()) + 1 - left, int(y.max()) + 1 - top],
        "keypoints": keypoints,
    }


def _write_frame(folder: Path, sequence: str, frame: str, scene: Scene) -> np.ndarray:
    """Write picture, depth and masks of one scene into the folder of a BEDLAM scene.

    Returns the number of the visible person of each pixel (H, W), negative where there is none.
    """
    import OpenEXR  # only frames need it

    view = SceneRenderer(scene).frame()
    png, depth, masks = (folder / kind / sequence for kind in ("png", "depth", "masks"))
    for place in (png, depth, masks):
        place.mkdir(parents=True, exist_ok=True)
    write_png(png / f"{frame}.png", view.image)
    with replacing(depth / f"{frame}_depth.exr") as temporary:
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"Depth": view.depth * np.float32(UNREAL_UNITS_PER_METRE)}).write(str(temporary))
    write_png(masks / f"{frame}_env.png", _mask(view.person < 0))
    for k in range(len(scene.subjects)):
        write_png(masks / f"{frame}_{k:02d}_body.png", _mask((view.person == k) & view.skin))
        write_png(masks / f"{frame}_{k:02d}_clothing.png", _mask((view.person == k) & ~view.skin))
    return view.person


def _mask(where: np.ndarray) -> np.ndarray:
    return np.where(where, 255, 0).astype(np.uint8)


def _read_json(path: Path) -> Any:
    """The content of the file, None if there is none."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


# --- command line -------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `dpose synth`."""
    parser.description = (
        "Make the open data set: random people rendered in random scenes. Crops for training are written to "
        "ROOT/shards, full frames in BEDLAM's layout to ROOT/frames. Complete data are kept, damaged shards "
        "are repaired, and an interrupted run continues. The same seed gives the same people. With --part "
        "the work is shared by an array of jobs, in any order or at the same time, on one shared folder, for "
        "instance of SLURM:\n\n"
        "    #SBATCH --array=1-16\n\n"
        "    dpose synth --root DIR --train 1000000 --part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
    )
    add = parser.add_argument
    add("--root", help="data folder (default: $DPOSE_DATA, else a folder in the user's cache)")
    for split, count in DEFAULT_SCENES.items():
        text = f"scenes of the {split} split, about {PEOPLE[split]} people each"
        add(f"--{split}", type=int, default=count, metavar="SCENES", help=text)
    add("--frames", type=int, default=24, help="full test frames of 1280x720 pixels")
    add("--size", type=int, default=160, help="side of a crop, pixels: 160 for mini and lite, 280 for paper")
    add("--seed", type=int, default=0, help="random seed of all people and scenes")
    add("--workers", type=int, help="processes (default: one per core)")
    add("--part", metavar="K/N", help="make part K of N; the last one to finish writes the manifest of all")
    add(
        "--without",
        nargs="+",
        choices=OPTIONS,
        default=[],
        metavar="OPTION",
        help=f"leave these out of the training split, for comparisons: {', '.join(OPTIONS)}",
    )
    add("--overwrite", action="store_true", help="delete the data in ROOT and make all of them again")


def run(args: argparse.Namespace) -> int:
    """`dpose synth`."""
    root = data_root(args.root)
    # The folder in the user's cache holds nothing but data of `dpose synth`.
    in_cache = args.root is None and not os.environ.get(DATA_VARIABLE)
    folder = generate(
        root,
        {split: getattr(args, split) for split in DEFAULT_SCENES},
        size=args.size,
        seed=args.seed,
        frames=args.frames,
        workers=args.workers,
        part=args.part,
        without=args.without,
        overwrite=args.overwrite,
        replace_other=in_cache,
    )
    if manifest := read_manifest(folder):  # not before the last part
        people = ", ".join(f"{split} {count}" for split, count in manifest["splits"].items())
        print(f"{folder}: {people} people; frames in {root / 'frames'}")
    return 0
