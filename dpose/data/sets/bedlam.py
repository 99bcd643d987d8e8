"""BEDLAM: synthetic people with depth, the set that the paper trains on; free after registration.

From https://bedlam.is.tue.mpg.de, below one root folder (scenes also below `training_images/`):

    <scene>/png/<sequence>/<sequence>_NNNN.png            frames; NNNN counts 30 a second in the downloads of
                                                          6 and of 30 fps, every fifth is taken
    <scene>/depth/<sequence>/<sequence>_NNNN_depth.exr    depth, and
    <scene>/masks/<sequence>/<sequence>_NNNN_NN_body.png  who is where; a scene without these two is prepared
                                                          without depth, a root of such scenes alone only with
                                                          --without-depth

and labels, either as published, used as they are,

    labels/<scene>.npz                                    or processed_labels/, or as the authors' scripts lay
                                                          them out, training_labels/all_npz_12_training/

or, for scenes that have none, the raw ground truth, from which the same table is computed (spec 8):

    <scene>/be_seq.csv                                    who stands where, in Unreal's centimetres
    <scene>/ground_truth/camera/<sequence>_camera.csv     the camera in each frame
    smplx_gt/neutral_ground_truth_motioninfo/<person>/<motion>/motion_seq.npz
                                                          motions of the neutral body; or below motions/

Raw ground truth is turned into joints and boxes, and all labels into part labels, by the neutral SMPL-X body,
which $DPOSE_BODY_MODELS must hold: of the open body, the same betas make another person. A scene's folder may
carry the frame rate, `<scene>_6fps`, and `3-10` may be `3_10`: the published names differ so. Closeups,
stored on their side, are known by their cameras: one of the folders with "closeup" in its name is none.
Published labels of the three hair scenes are at 30 fps; those of AGORA among them are left to `dpose prepare
agora`. A split is what lies below the root: "train" is cut into train and val when shards are made, "test" is
for a root with BEDLAM's validation scenes. The open data's frames have this layout too.
"""

import csv
import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dpose.body import DEFAULT_BODY
from dpose.camera import box_from_joints
from dpose.data.frames import METRES_PER_UNREAL_UNIT, FrameSet, Skipped, UnreadableFile, read_scenes
from dpose.data.labels import HANDS, MIN_VISIBLE_JOINTS, NUM_BETAS, POSE_SIZE, Labels, read_columns
from dpose.data.sample import MARGIN, Sample
from dpose.data.sets.common import converted

SPLITS = ("train", "test")
PROTOCOL = "smplx24"
LABELS = ("labels", "processed_labels", "training_labels/all_npz_12_training")
MOTIONS = ("motions", "smplx_gt/neutral_ground_truth_motioninfo", "smplx_gt/*")

FRAME_RATE = 30  # of the camera files, the motions and the numbers in file names
SENSOR = (36.0, 20.25)  # mm, of a frame as it is stored
VERTEX_REACH = 1.0  # metres: no vertex is so far ahead of all joints
CAMERA = ("x", "y", "z", "yaw", "pitch", "roll", "focal_length")
CONVERSION = 2  # to be raised when the same raw files give another table


# --- the data set -------------------------------------------------------------------------------------------


def scenes(
    root: str | os.PathLike,
    out: str | os.PathLike,
    split: str,
    skipped: Skipped,
    *,
    bodies: Callable | None = None,
    progress: bool = False,
    depth: bool = True,
    fps: int = 6,
) -> list[FrameSet]:
    """The scenes below `root`, with labels as published or converted from raw ground truth (module's text).

    out: converted labels are written to `<out>/labels/<scene>.npz`, each with a record `<scene>.json`, and
    made again only when something they come from has changed. split: one of SPLITS; all there is, either way.
    skipped: people whom a rule leaves out, and faults; of an earlier conversion too. bodies: a function of a
    body's name; None: a new `dpose.body.Bodies`. depth: whether to take it; False: all people without. fps: a
    divisor of 30, of what is converted.

    The people of a label file without frames are counted, as labels of all scenes come in one download; raw
    scenes without them, and scenes without depth beside others that have it, are faults. Raises
    FileNotFoundError when no scene is left, none has depth, or raw scenes have no motions or no licensed
    body; ValueError for another split or fps; and TooManyFaults.
    """
    from dpose.body import Bodies

    root, out = Path(root), Path(out)
    if split not in SPLITS:
        raise ValueError(f"BEDLAM has no split {split!r}; choose one of {', '.join(SPLITS)}")
    if fps < 1 or FRAME_RATE % fps:
        raise ValueError(f"fps must divide {FRAME_RATE}, got {fps}")
    raw = {bare(path.parent.name): path.parent for path in _below(scene_parents(root), "*/be_seq.csv")}
    files = _below([root / folder for folder in LABELS], "*.npz")
    processed = {bare(path.stem): path for path in files if not path.stem.startswith("agora-")}
    if out.resolve() == root.resolve():  # then earlier conversions lie among the labels: still to be checked
        made = {bare(path.stem) for path in (out / "labels").glob("*.json")} & set(raw)
        processed = {key: path for key, path in processed.items() if key not in made}
    sources = raw | processed
    if not sources:
        raise FileNotFoundError(
            f"no labels {root / LABELS[0]}/<scene>.npz and no raw ground truth {root}/<scene>/be_seq.csv; "
            "give the folder that BEDLAM was unpacked in"
        )
    there = []
    for key, source in sorted(sources.items()):
        name = source.stem if key in processed else source.name
        images, *maps = (find_frames(root, name, kind) for kind in ("png", "depth", "masks"))
        if images is not None:
            there.append((key, source, name, images, maps if depth and all(maps) else (None, None)))
        elif key in processed:
            count = len(read_columns(source, ("imgname",))["imgname"])
            skipped.drop(f"labelled in a scene without frames: {name}", count)
        else:
            skipped.fault(f"{source} has no frames: there is no folder {root / name}/png")
    bare_of_depth = [images.parent for *_, images, maps in there if not all(maps)]
    if depth and there and len(bare_of_depth) == len(there):
        raise FileNotFoundError(
            f"no scene below {root} has depth and masks, as {bare_of_depth[0]}/depth and /masks: download "
            "them, or ask for people without depth (--without-depth)"
        )
    for folder in bare_of_depth if depth else ():
        skipped.fault(f"{folder} has no depth or no masks: its people are taken without depth")
    found, motions, body = [], None, None
    for key, source, name, images, maps in there:
        labels = source
        if key not in processed:
            motions = find_motions(root) if motions is None else motions
            if body is None:
                body = (bodies or Bodies())(DEFAULT_BODY)
            labels = convert_scene(source, images, out, motions, body, skipped, fps, progress)
            if labels is None:
                continue
        found.append(FrameSet(name, labels, images, *maps, "bedlam"))
    if not found:
        why = [*skipped.faults, *skipped.dropped][-1:]
        raise FileNotFoundError(
            ": ".join([f"none of the {len(sources)} scenes below {root} can be used", *why])
        )
    return found


def bare(scene: str) -> str:
    """A scene's name without frame rate, and with `_` for `-`."""
    return re.sub(r"_(6|30)fps$", "", scene).replace("-", "_")


def scene_parents(root: Path) -> list[Path]:
    return [folder for folder in (root, root / "training_images") if folder.is_dir()]


def _below(folders: list[Path], pattern: str) -> list[Path]:
    """The files, those of the first folders last."""
    return [path for folder in reversed(folders) for path in sorted(folder.glob(pattern))]


def find_frames(root: Path, scene: str, kind: str) -> Path | None:
    """The folder of a scene's "png", "depth" or "masks": under its exact name, or with another frame rate."""
    folders = [
        folder / kind
        for parent in scene_parents(root)
        for folder in sorted(parent.iterdir(), key=lambda folder: (folder.name != scene, folder.name))
        if bare(folder.name) == bare(scene) and (folder / kind).is_dir()
    ]
    return folders[0] if folders else None


def find_motions(root: Path) -> Path:
    for pattern in MOTIONS:
        for folder in sorted(root.glob(pattern)):
            if next(folder.glob("*/*/motion_seq.npz"), None):
                return folder
    raise FileNotFoundError(
        f"raw ground truth needs BEDLAM's motions, {root / MOTIONS[1]}/<person>/<motion>/motion_seq.npz (or "
        f"below {root / MOTIONS[0]}); download them, or the processed labels into {root / LABELS[0]}"
    )


# --- raw ground truth -> labels -----------------------------------------------------------------------------


def convert_scene(
    raw: Path,
    images: Path,
    out: Path,
    motions: Path,
    body,
    skipped: Skipped,
    fps: int = 6,
    progress: bool = False,
) -> Path | None:
    """The label file of a raw scene, made if need be (`converted`); None without people.

    raw: the folder of be_seq.csv and ground_truth/camera. body: the neutral SMPL-X, with 11 betas. Raises
    TooManyFaults.
    """
    from tqdm import tqdm

    sequences, wrong = read_sequences(raw / "be_seq.csv")
    frames = {sequence.name: frames_at(images / sequence.name, fps) for sequence in sequences}
    size = frame_size(images, frames)
    cameras = {
        sequence.name: raw / "ground_truth" / "camera" / f"{sequence.name}_camera.csv"
        for sequence in sequences
    }

    def make(skipped: Skipped) -> Labels | None:
        for fault in wrong:
            skipped.fault(fault)
        tables = []
        for sequence in tqdm(sequences, desc=raw.name, unit="sequence", disable=not progress):
            folder = images / sequence.name
            if not frames[sequence.name]:
                skipped.fault(f"{folder}: missing images, there is no {sequence.name}_NNNN.png")
            elif size is None:
                skipped.fault(f"{folder}: missing images, none in this scene is a PNG")
            else:
                tables += convert_sequence(
                    sequence, frames[sequence.name], cameras[sequence.name], motions, body, size, skipped, fps
                )
        if not tables:
            return None
        return Labels(**{name: np.concatenate([table[name] for table in tables]) for name in tables[0]})

    files = {*cameras.values(), *(motions / b.file for sequence in sequences for b in sequence.bodies)}
    sources = [raw / "be_seq.csv", *sorted(path for path in files if path.is_file())]
    rest = hashlib.sha256(json.dumps(frames).encode())
    for tensor in (body.joint_template, body.joint_directions):  # another body: other joints, other labels
        rest.update(tensor.float().cpu().numpy().tobytes())
    given = {"fps": fps, "min_joints": MIN_VISIBLE_JOINTS, "size": size, "frames and body": rest.hexdigest()}
    return converted(out, raw.name, sources, CONVERSION, make, skipped, given)


def convert_sequence(
    sequence: "Sequence",
    frames: dict[int, str],
    camera_csv: Path,
    motions: Path,
    body,
    size: tuple[int, int],
    skipped: Skipped,
    fps: int = 6,
) -> list[dict[str, np.ndarray]]:
    """The labels of one sequence: none or one table of `Labels`' columns, frame after frame.

    frames: number -> file name. size: (w, h) px of a frame as it is stored. A camera that rolls by about +90
    degrees lies on its side: its frames, turned clockwise, are portraits.
    """
    try:
        numbers, camera = read_camera(camera_csv)
    except UnreadableFile as error:
        skipped.fault(str(error))
        return []
    if len(camera) and 45 < np.median(camera[:, CAMERA.index("roll")]) < 135:
        size = min(size), max(size)
    end = numbers.max(initial=-1) + 1 if sequence.frames is None else sequence.frames
    wanted = {n for n in numbers.tolist() if n < end and n % (FRAME_RATE // fps) == 0}
    for missing, what in (
        (wanted - set(frames), f"missing images, {{}} of {len(wanted)} frames of {camera_csv} have none"),
        (set(frames) - set(numbers.tolist()), f"{{}} of {len(frames)} images have no row in {camera_csv}"),
    ):
        if missing:
            where = f"{sequence.name}_{min(missing):04d}"
            skipped.fault(f"{where} and on: {what.format(len(missing))}")
    usable = np.array(sorted(set(frames) & set(numbers.tolist())), int)
    at = np.argsort(numbers)[np.searchsorted(np.sort(numbers), usable)]  # rows of `camera`
    people = []
    for placed in sequence.bodies:
        path = motions / placed.file
        try:
            motion = read_motion(path)
        except UnreadableFile as error:
            skipped.fault(f"{error} ({placed.person} in {camera_csv.parents[2].name}/{sequence.name})")
            continue
        row = usable + placed.start
        there = row < len(motion["poses"])
        skipped.drop("motion too short", (~there).sum())
        finite = np.isfinite(motion["poses"]).all(1) & np.isfinite(motion["trans"]).all(1)
        finite &= np.isfinite(motion["betas"]).all()
        bad = there & ~finite[np.where(there, row, 0)]
        if bad.any():
            skipped.fault(f"{path}: non-finite numbers, in {bad.sum()} of {sequence.name}'s frames")
        take = np.flatnonzero(there & ~bad)
        people.append(
            {
                "frame": take,
                "poses": motion["poses"][row[take]],
                "transl": motion["trans"][row[take]],
                "shape": np.broadcast_to(motion["betas"], (len(take), NUM_BETAS)),
                "place": np.broadcast_to(placed.place, (len(take), 3)),
                "yaw": np.full(len(take), placed.yaw),
                "gender": np.full(len(take), motion["gender"], object),
                "sub": np.full(len(take), placed.person, object),
                "motion_info": np.full(len(take), motion["motion_info"], object),
            }
        )
    if not sum(len(person["frame"]) for person in people):
        return []
    rows = {name: np.concatenate([person[name] for person in people]) for name in people[0]}
    order = np.argsort(rows["frame"], kind="stable")
    rows = {name: value[order] for name, value in rows.items()}
    frame = rows.pop("frame")
    table = place_people(rows, camera[at[frame]], body, size)
    behind, hidden = table.pop("behind"), table.pop("visible") < MIN_VISIBLE_JOINTS
    skipped.drop("a vertex behind the camera", behind.sum())
    skipped.drop(f"fewer than {MIN_VISIBLE_JOINTS} joints in the image", (hidden & ~behind).sum())
    names = [f"{sequence.name}/{frames[n]}" for n in usable[frame].tolist()]
    table |= {"imgname": np.array(names, object)}
    table |= {name: rows[name] for name in ("shape", "gender", "sub", "motion_info")}
    keep = ~behind & ~hidden
    return [{name: value[keep] for name, value in table.items()}] if keep.any() else []


def place_people(
    rows: dict[str, np.ndarray], camera: np.ndarray, body, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """People of a motion, put where Unreal has them and seen by its camera: columns of `Labels`, float64.

    rows: poses (N, 165), transl (N, 3) m and shape (N, 11) of the motion, place (N, 3) cm and yaw (N,)
    degrees of the body. camera: (N, 7) as CAMERA, cm, degrees, mm. size: see `convert_sequence`. Besides,
    `behind` (N,) bool: a vertex is behind the camera; `visible` (N,): how many of the first 22 joints are in
    the image.

    Unreal has x forward, y right, z up, left-handed: in OpenCV's axes its (x, y, z) is (y, -z, x), and its
    turns change their sign. A body of yaw 0 faces y.
    """
    import torch
    from scipy.spatial.transform import Rotation

    position, (yaw, pitch, roll, focal) = camera[:, :3], camera[:, 3:].T
    width, height = size
    portrait = width < height
    turn = np.stack([90 * portrait - roll, -pitch], 1)
    tilt = Rotation.from_euler("ZX", turn, degrees=True)
    away = (rows["place"] - position) * METRES_PER_UNREAL_UNIT
    away = np.stack([away[:, 1], -away[:, 2], away[:, 0]], 1)
    place = (tilt * Rotation.from_euler("Y", -yaw[:, None], degrees=True)).apply(away)
    facing = Rotation.from_rotvec([np.pi, 0, 0])  # from y up, facing the camera, to OpenCV's axes
    stand = tilt * Rotation.from_euler("Y", (rows["yaw"] - 90 - yaw)[:, None], degrees=True) * facing
    pose = rows["poses"].copy()
    pose[:, :3] = (stand * Rotation.from_rotvec(pose[:, :3])).as_rotvec()

    def posed(some, surface: bool):
        arrays = (
            rows["shape"][some],
            pose[some, :66].reshape(-1, 22, 3),
            pose[some, HANDS].reshape(-1, 30, 3),
        )
        shape, rotations, hands = (
            torch.as_tensor(array, dtype=torch.float32, device=body.faces.device) for array in arrays
        )
        with torch.no_grad():
            return body(shape, rotations, hands=hands, form="axis-angle", surface=surface)

    joints = posed(slice(None), False).joints.double().cpu().numpy()
    pelvis = joints[:, 0]  # which no rotation moves
    trans_cam = stand.apply(pelvis + rows["transl"]) - pelvis
    transl = trans_cam + place
    joints = joints + transl[:, None]
    behind = (joints[..., 2] <= 0).any(1)
    near = np.flatnonzero(~behind & (joints[..., 2].min(1) < VERTEX_REACH))
    for some in np.array_split(near, 1 + near.size // 64):
        if some.size:
            nearest = posed(some, True).vertices[..., 2].amin(1).double().cpu().numpy()
            behind[some] = nearest + transl[some, 2] <= 0

    sensor = SENSOR[::-1] if portrait else SENSOR
    cam_int = np.zeros((len(pose), 3, 3))
    cam_int[:, 0, 0], cam_int[:, 1, 1] = focal / sensor[0] * width, focal / sensor[1] * height
    cam_int[:, :, 2] = width / 2, height / 2, 1
    points = (joints / np.where(behind[:, None, None], 1, joints[..., 2:])) @ cam_int.transpose(0, 2, 1)
    points = torch.from_numpy(points[..., :2])
    inside = ((points >= 0) & (points < torch.tensor(size))).all(-1)[:, :22]
    center, scale = box_from_joints(
        points, torch.ones(points.shape[:2], dtype=torch.bool), torch.tensor(size)
    )
    cam_ext = np.zeros((len(pose), 4, 4))
    cam_ext[:, :3, :3], cam_ext[:, :3, 3], cam_ext[:, 3, 3] = tilt.as_matrix(), place, 1
    return {
        "center": center.numpy(),
        "scale": scale.numpy(),
        "pose_cam": pose,
        "trans_cam": trans_cam,
        "gtkps": np.concatenate([points.numpy(), np.ones((*points.shape[:2], 1))], -1),
        "cam_int": cam_int,
        "cam_ext": cam_ext,
        "behind": behind,
        "visible": inside.sum(1).numpy(),
    }


# --- raw files ----------------------------------------------------------------------------------------------


class PlacedBody(NamedTuple):
    """A body of a sequence: whose motion it moves by from frame `start` on, its place (cm) and yaw (deg)."""

    person: str
    motion: str
    place: tuple[float, float, float]
    yaw: float
    start: int

    @property
    def file(self) -> Path:
        """Its motion, relative to the folder of motions."""
        return Path(self.person, self.motion, "motion_seq.npz")


@dataclass
class Sequence:
    name: str
    frames: int | None = None
    bodies: list[PlacedBody] = field(default_factory=list)


def read_sequences(path: Path) -> tuple[list[Sequence], list[str]]:
    """be_seq.csv, and what is wrong with it, by file and line; lines that are wrong are left out."""
    sequences: list[Sequence] = []
    wrong: list[str] = []
    current = None
    wanted = ("Type", "Body", "X", "Y", "Z", "Yaw", "Pitch", "Roll", "Comment")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in wanted if name not in (reader.fieldnames or [])]:
                return [], [f"{path}, line 1: bad csv, without the column {', '.join(missing)}"]
            for row in reader:
                try:
                    if row["Comment"] is None:
                        raise ValueError("the line is cut short")
                    pairs = (pair.partition("=") for pair in row["Comment"].split(";"))
                    comment = {name.strip(): value.strip() for name, _, value in pairs}
                    if row["Type"] == "Group" or "sequence_name" in comment:
                        current = None  # if this line is bad, what follows belongs to no earlier one
                    if "sequence_name" in comment:
                        current = _sequence(comment)
                        sequences.append(current)
                    elif "start_frame" in comment:
                        if current is None:
                            raise ValueError("a body that belongs to no sequence")
                        current.bodies.append(_placed(row, comment["start_frame"]))
                except ValueError as error:
                    wrong.append(f"{path}, line {reader.line_num}: bad csv, {error}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        wrong.append(f"{path}: bad csv, {error}")
    return sequences, wrong


def _sequence(comment: dict[str, str]) -> Sequence:
    name, frames = comment.get("sequence_name", ""), comment.get("frames", "")
    if not re.fullmatch(r"\w+", name) or not re.fullmatch(r"\d*", frames):
        raise ValueError(f"a sequence with sequence_name={name!r} and frames={frames!r}")
    return Sequence(name, int(frames) if frames else None)


def _placed(row: dict[str, str], start: str) -> PlacedBody:
    x, y, z, yaw, pitch, roll = (_number(row, name) for name in ("X", "Y", "Z", "Yaw", "Pitch", "Roll"))
    if pitch or roll:
        raise ValueError(f"a body with pitch {pitch:g} and roll {roll:g}, which BEDLAM does not have")
    name = re.fullmatch(r"(\w[\w.-]*)_([a-zA-Z0-9]+)", row["Body"])
    if not name or not start.isdigit():
        raise ValueError(f"Body {row['Body']!r} with start_frame {start!r}: no <person>_<motion> and number")
    return PlacedBody(name[1], name[2], (x, y, z), yaw, int(start))


def _number(row: dict[str, str], name: str) -> float:
    try:
        number = float(row[name] or "")
    except ValueError:
        raise ValueError(f"{name} is {row[name]!r}, no number") from None
    if not np.isfinite(number):
        raise ValueError(f"non-finite numbers: {name} is {number}")
    return number


def read_camera(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frame numbers (F,) and (F, 7) float64, as CAMERA. Raises UnreadableFile with file and line."""
    if not path.is_file():
        raise UnreadableFile(f"{path}: missing camera csv")
    line, numbers, values = 1, [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in ("name", *CAMERA) if name not in (reader.fieldnames or [])]:
                raise ValueError(f"without the column {', '.join(missing)}")
            for row in reader:
                line = reader.line_num
                frame = re.search(r"(\d+)(\.\w+)?$", row["name"] or "")
                if not frame or int(frame[1]) in numbers:
                    raise ValueError(f"name {row['name']!r} is no new frame")
                values.append([_number(row, name) for name in CAMERA])
                numbers.append(int(frame[1]))
                sides = [side for side in ("sensor_width", "sensor_height") if side in row]
                sensor = sorted((_number(row, side) for side in sides), reverse=True)
                if any(abs(a - b) > 0.01 * b for a, b in zip(sensor, SENSOR, strict=False)):
                    raise ValueError(f"a sensor of {sensor} mm, not {SENSOR}")
    except (OSError, ValueError, csv.Error) as error:
        raise UnreadableFile(f"{path}, line {line}: bad csv, {error}") from error
    return np.array(numbers, int), np.array(values, float).reshape(-1, len(CAMERA))


def read_motion(path: Path) -> dict:
    """poses (T, 165), trans (T, 3), betas (11,) float64; gender, of the person, and motion_info, text.

    Raises UnreadableFile.
    """
    if not path.is_file():
        raise UnreadableFile(f"{path}: missing motion")
    text = {"gender": "", "gender_sub": "neutral", "motion_info": ""}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name].astype(float) for name in ("poses", "trans", "betas")}
            for name in text:
                try:
                    text[name] = str(file[name].item())
                except (KeyError, ValueError):  # absent, or for pickle only
                    pass
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UnreadableFile(f"{path}: not a readable motion ({error})") from error
    length, betas = len(np.atleast_1d(arrays["poses"])), arrays["betas"].ravel()
    if not length or arrays["poses"].shape != (length, POSE_SIZE) or arrays["trans"].shape != (length, 3):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise UnreadableFile(f"{path}: not a SMPL-X motion, its arrays are {shapes}")
    if text["gender"] not in ("", "neutral") or betas.size not in (10, NUM_BETAS):
        raise UnreadableFile(
            f"{path}: {betas.size} betas of the {text['gender'] or 'neutral'} body; needed are the motions "
            "of the neutral one (neutral_ground_truth_motioninfo)"
        )
    arrays["betas"] = np.pad(betas, (0, NUM_BETAS - betas.size))
    return arrays | {"gender": text["gender_sub"], "motion_info": text["motion_info"]}


def frames_at(folder: Path, fps: int = 6) -> dict[int, str]:
    """Number, at 30 fps, and file name of a sequence's frames at `fps`, in order; none without the folder."""
    names = os.listdir(folder) if folder.is_dir() else []
    matches = (re.fullmatch(rf"{re.escape(folder.name)}_(\d+)\.png", name) for name in names)
    numbers = {int(match[1]): match[0] for match in matches if match}
    return {number: numbers[number] for number in sorted(numbers) if number % (FRAME_RATE // fps) == 0}


def frame_size(images: Path, frames: dict[str, dict[int, str]]) -> tuple[int, int] | None:
    """(w, h) of the first frame with a PNG's beginning; a scene's are all of one size."""
    for sequence, names in frames.items():
        for name in names.values():
            with open(images / sequence / name, "rb") as file:
                head = file.read(24)
            if len(head) == 24 and head.startswith(b"\x89PNG"):
                return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    return None


# --- label files and their samples --------------------------------------------------------------------------


def read_bedlam(
    root: str | os.PathLike,
    size: int,
    body=None,
    *,
    scenes: list[str] | None = None,
    margin: float = MARGIN,
    depth: bool = True,
    dataset: str = "bedlam",
    keep=None,
    skipped: Skipped | None = None,
) -> Iterator[Sample]:
    """Every labelled person of a BEDLAM-layout root, as samples of `size` pixels.

    body: a `dpose.body.Body` (None: the open or licensed default). scenes: label files' stems (None: all).
    depth=False: a set without depth and masks. keep, skipped: see `read_scenes`. Raises FileNotFoundError
    without labels, and what `read_scenes` raises.
    """
    found = label_scenes(root, scenes, depth, dataset)
    return read_scenes(
        found, size, None if body is None else lambda name: body, margin=margin, keep=keep, skipped=skipped
    )


def label_scenes(
    root: str | os.PathLike, names: list[str] | None = None, depth: bool = True, dataset: str = "bedlam"
) -> list[FrameSet]:
    """The scenes of a root with processed labels; arguments and errors as for `read_bedlam`."""
    found, root = [], Path(root)
    for path in label_files(root, names):
        images = find_frames(root, path.stem, "png")
        if images is None:
            raise FileNotFoundError(f"{path} has no frames: there is no folder {root / path.stem}/png")
        maps = (find_frames(root, path.stem, kind) or images.parent / kind for kind in ("depth", "masks"))
        found.append(FrameSet(path.stem, path, images, *(maps if depth else (None, None)), dataset))
    return found


def label_files(root: str | os.PathLike, scenes: list[str] | None = None) -> list[Path]:
    """The label files of a root, sorted. Raises FileNotFoundError saying what was looked for."""
    folder = Path(root) / "labels"
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise FileNotFoundError(f"no label files {folder}/<scene>.npz; a BEDLAM-layout root has them there")
    if scenes is None:
        return files
    missing = sorted(set(scenes) - {path.stem for path in files})
    if missing:
        raise FileNotFoundError(f"no label files for {', '.join(missing)} in {folder}")
    return [path for path in files if path.stem in scenes]
