"""Raw BEDLAM ground truth -> labels. The world is composed independently, in Unreal's left-handed axes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from data_people import random_pose, write_frame

from dpose.body import OPEN_BODY, Bodies, Body
from dpose.body.files import read_body
from dpose.data.frames import Skipped, TooManyFaults, labelled_joints, read_scenes
from dpose.data.labels import Labels
from dpose.data.sets import bedlam, bedlam_raw

WIDTH, HEIGHT = 320, 180  # of a frame as it is stored
WIDE, CLOSE = "20221010_3-10_1000_batch01hand", "20221011_1_250_batch01hand_closeup_suburb_a"
SEQUENCE = "seq_000007"
PEOPLE = ("rp_aaron_posed_002_1038", "rp_emma_posed_011_0012")  # motions by person and number
START = 3
CAMERA_FRAMES, MOTION_FRAMES = 15, 30
PICKED = (0, 5, 10)
HEADER = "Index,Type,Body,X,Y,Z,Yaw,Pitch,Roll,Comment\n"


@pytest.fixture(scope="module")
def body() -> Body:
    """Stands for neutral SMPL-X: the open body's geometry under its name."""
    return Body(read_body(OPEN_BODY), name="smplx-neutral")


def scenes(root: Path, out: Path, split: str, skipped: Skipped, body: Body | None = None, **options):
    return bedlam.scenes(root, out, split, skipped, Bodies(given=[body] if body else []), **options)


# --- Unreal's world, by the words of its manual, float64 and centimetres ------------------------------------


def camera_axes(yaw: float, pitch: float, roll: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forward, right and up after a turn to the right, then the nose up, then a clockwise roll (degrees)."""
    forward, right, up = np.eye(3)
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    forward, right = c * forward + s * right, c * right - s * forward
    c, s = np.cos(np.radians(pitch)), np.sin(np.radians(pitch))
    forward, up = c * forward + s * up, c * up - s * forward
    c, s = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    return forward, c * right - s * up, c * up + s * right


def in_the_world(points: np.ndarray, place, yaw: float) -> np.ndarray:
    """A motion's points (metres; x left, y up, z ahead) in the world: a body of yaw 0 looks along Y, so its
    left is X and its up is Z; then it is turned to the right and put in its place."""
    x, y, z = 100 * np.moveaxis(points, -1, 0)
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    return np.stack([c * x - s * z, s * x + c * z, y], -1) + place


def seen_by(points: np.ndarray, camera: dict) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the frame as it is stored, and the distance along the view in metres."""
    forward, right, up = camera_axes(*(camera[name] for name in ("yaw", "pitch", "roll")))
    away = points - [camera[name] for name in "xyz"]
    ahead = away @ forward
    x = WIDTH / 2 + camera["focal_length"] / 36 * WIDTH * (away @ right) / ahead
    y = HEIGHT / 2 - camera["focal_length"] / 20.25 * HEIGHT * (away @ up) / ahead
    return np.stack([x, y], -1), ahead / 100


def upright(points: np.ndarray, scene: str) -> np.ndarray:
    """Stored pixels of a closeup -> those of the frame turned clockwise by a quarter."""
    return np.stack([HEIGHT - points[..., 1], points[..., 0]], -1) if "closeup" in scene else points


# --- the files ----------------------------------------------------------------------------------------------


def cameras(scene: str) -> list[dict]:
    """One a 30 fps frame; it moves, turns, nods, rolls and zooms."""
    close = "closeup" in scene
    t = np.arange(CAMERA_FRAMES)
    columns = {
        "x": 5012.3 - 1.5 * t,
        "y": -3033.1 + 2 * t,
        "z": 171 + t,
        "yaw": 152.0 + 0.2 * t,
        "pitch": -4.0 - 0.3 * t,
        "roll": (86.0 if close else -5.0) + 0.8 * t,
        "focal_length": (42.0 if close else 26.0) + 0.1 * t,
    }
    return [{name: float(value[i]) for name, value in columns.items()} for i in t]


def motion(number: int) -> dict:
    """poses, trans and betas of person `number`: it walks and turns, hands and face move too."""
    rng = np.random.default_rng(number)
    poses = np.concatenate([random_pose(rng), rng.normal(0, 0.2, 99)]) + rng.normal(
        0, 0.02, (MOTION_FRAMES, 165)
    )
    poses[:, :3] = rng.normal(0, 0.1, 3) + np.linspace([0, 0.3, 0], [0.1, 1.2, -0.1], MOTION_FRAMES)
    trans = np.linspace([0.1, 1.2, -0.2], [0.3, 1.3, 0.2], MOTION_FRAMES) + rng.normal(
        0, 0.01, (MOTION_FRAMES, 3)
    )
    return {"poses": poses, "trans": trans, "betas": rng.normal(0, 0.7, 11)}


def places(scene: str) -> list[tuple[np.ndarray, float]]:
    """Place and yaw of the two bodies: ahead of the camera and to its sides."""
    camera, close = cameras(scene)[0], "closeup" in scene
    forward, right, _ = camera_axes(camera["yaw"], 0, 0)
    ground = np.array([camera["x"], camera["y"], 20.0])
    ways = [(330, -25, 200.0), (480, 40, -70.0)] if close else [(390, -70, 250.0), (560, 110, 15.0)]
    return [(ground + ahead * forward + side * right, yaw) for ahead, side, yaw in ways]


@pytest.fixture(scope="module")
def stock() -> Callable:
    """The joints and vertices of a person's motion by the `smplx` package, float64."""
    layer = smplx.SMPLX(
        str(OPEN_BODY), num_betas=11, use_pca=False, flat_hand_mean=True, batch_size=1, dtype=torch.float64
    )

    def pose(number: int, frame: int):
        moved = motion(number)
        poses = torch.from_numpy(moved["poses"][frame : frame + 1])
        names = {"global_orient": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3}
        names |= {"left_hand_pose": 45, "right_hand_pose": 45}
        split = dict(zip(names, poses.split(list(names.values()), 1), strict=True))
        betas = torch.from_numpy(moved["betas"][None])
        with torch.no_grad():
            out = layer(betas=betas, transl=torch.from_numpy(moved["trans"][frame : frame + 1]), **split)
        return out.joints[0, :55].numpy(), out.vertices[0].numpy()

    return pose


@pytest.fixture(scope="module")
def truth(stock) -> dict:
    """(scene, frame, person) -> where the 55 joints are, upright pixels, and how far."""
    found = {}
    for scene in (WIDE, CLOSE):
        for frame in PICKED:
            for number, (place, yaw) in enumerate(places(scene)):
                joints, _ = stock(number, frame + START)
                points, ahead = seen_by(in_the_world(joints, place, yaw), cameras(scene)[frame])
                found[scene, frame, number] = upright(points, scene), ahead
    return found


def write_scene(root: Path, scene: str) -> None:
    folder = root / scene
    (folder / "ground_truth" / "camera").mkdir(parents=True)
    lines = [
        "0,Comment,None,0,0,0,0,0,0,a comment of the scene",
        "1,Group,None,1,2,3,0,0,0,sequence_name=seq_000006;frames=1;hdri=none",
        f"2,Group,None,1,2,3,0,0,0,sequence_name={SEQUENCE};frames={CAMERA_FRAMES};hdri=none",
    ]
    for name, (place, yaw) in zip(PEOPLE, places(scene), strict=True):
        x, y, z = place.tolist()
        comment = f"start_frame={START};texture_body=skin.png;texture_clothing=coat"
        lines.append(f"{len(lines)},Body,{name},{x!r},{y!r},{z!r},{yaw},0.0,0.0,{comment}")
    lines.append(f"{len(lines)},Camera,None,0,0,0,10,20,30,")
    (folder / "be_seq.csv").write_text(HEADER + "\n".join(lines) + "\n")
    columns = "x y z yaw pitch roll focal_length".split()
    rows = [f"name,{','.join(columns)},sensor_width,sensor_height,hfov"]
    for i, camera in enumerate(cameras(scene)):
        numbers = ",".join(repr(camera[name]) for name in columns)
        rows.append(f"{SEQUENCE}_{i:04d}.png,{numbers},36,20.25,52")
    (folder / "ground_truth" / "camera" / f"{SEQUENCE}_camera.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def written(tmp_path_factory, truth) -> Path:
    """A raw root: a scene whose frames came at 30 fps, and a closeup with images at 6 fps."""
    root = tmp_path_factory.mktemp("written")
    for number, name in enumerate(PEOPLE):
        person, moves = name.rsplit("_", 1)
        path = root / "smplx_gt" / "neutral_ground_truth_motioninfo" / person / moves / "motion_seq.npz"
        path.parent.mkdir(parents=True)
        text = {
            "gender": "neutral",
            "gender_sub": ("male", "female")[number],
            "motion_info": f"walk {number}",
        }
        np.savez(path, **motion(number), **text)
    for scene in (WIDE, CLOSE):
        write_scene(root, scene)
        for frame in PICKED:
            figures = []
            for number in range(2):
                points, ahead = truth[scene, frame, number]
                stored = np.stack([points[:, 1], HEIGHT - points[:, 0]], -1) if scene == CLOSE else points
                figures.append((stored, ahead[0]))
            focal = cameras(scene)[frame]["focal_length"] / 36 * WIDTH
            write_frame(root / scene, f"{SEQUENCE}/{SEQUENCE}_{frame:04d}.png", figures, focal)
        empty = root / scene / "png" / "seq_000006"
        empty.mkdir()
        picture = empty / "seq_000006_0000.png"  # of a sequence without people
        shutil.copy(root / scene / "png" / SEQUENCE / f"{SEQUENCE}_0000.png", picture)
        shutil.copy(
            root / scene / "ground_truth" / "camera" / f"{SEQUENCE}_camera.csv",
            root / scene / "ground_truth" / "camera" / "seq_000006_camera.csv",
        )
    for frame in range(CAMERA_FRAMES):
        if frame not in PICKED:
            (root / WIDE / "png" / SEQUENCE / f"{SEQUENCE}_{frame:04d}.png").write_bytes(b"never read")
    (root / f"{CLOSE}_6fps").mkdir()
    (root / CLOSE / "png").rename(root / f"{CLOSE}_6fps" / "png")
    return root


@pytest.fixture
def root(written, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(written, tmp_path / "root"))


def convert(root: Path, out: Path, body: Body, skipped: Skipped | None = None, **options):
    """The label tables by scene; warnings of faults are for the tests that expect them."""
    skipped = Skipped(limit=0) if skipped is None else skipped
    found = scenes(root, out, "train", skipped, body, **options)
    return {scene.name: Labels.load(scene.labels) for scene in found}


@pytest.fixture(scope="module")
def tables(written, body, tmp_path_factory) -> dict[str, Labels]:
    return convert(written, tmp_path_factory.mktemp("out"), body)


def row_of(labels: Labels, frame: int, person: int) -> int:
    name, subject = f"{SEQUENCE}/{SEQUENCE}_{frame:04d}.png", PEOPLE[person].rsplit("_", 1)[0]
    (row,) = np.flatnonzero((labels.imgname == name) & (labels.sub == subject))
    return int(row)


# --- what is right ------------------------------------------------------------------------------------------


def test_every_fifth_frame_and_every_person_are_in_the_table_once(tables):
    assert set(tables) == {WIDE, CLOSE}
    for labels in tables.values():
        frames = [f"{SEQUENCE}/{SEQUENCE}_{frame:04d}.png" for frame in PICKED]
        assert labels.imgname.tolist() == [name for name in frames for _ in PEOPLE]
        assert labels.gender.tolist() == ["male", "female"] * 3
        assert labels.motion_info.tolist() == ["walk 0", "walk 1"] * 3
        assert set(labels.body) == {"smplx-neutral"}


@pytest.mark.parametrize("scene", [WIDE, CLOSE])
def test_the_parsed_body_under_the_parsed_camera_is_where_unreal_shows_it(tables, truth, body, scene):
    """All 55 joints within a hundredth of a pixel, posed by what the table holds; gtkps and depth too."""
    labels = tables[scene]
    arrays = (labels.shape, labels.pose_cam[:, :66].reshape(-1, 22, 3), labels.transl)
    hands = torch.from_numpy(labels.pose_cam[:, 75:].reshape(-1, 30, 3))
    with torch.no_grad():
        joints = body(*map(torch.from_numpy, arrays), hands, form="axis-angle").joints.double().numpy()
    points = joints @ labels.cam_int.transpose(0, 2, 1)
    points = points[..., :2] / points[..., 2:]
    for frame in PICKED:
        for person in range(2):
            row = row_of(labels, frame, person)
            expected, ahead = truth[scene, frame, person]
            assert np.abs(points[row] - expected).max() < 0.01
            assert np.abs(labels.gtkps[row, :, :2] - expected[:24]).max() < 0.01
            assert np.abs(joints[row, :, 2] - ahead).max() < 1e-4
    assert (labels.gtkps[..., 2] == 1).all()
    body_joints = labelled_joints(labels, np.arange(len(labels)), Bodies(given=[body]))
    assert np.abs(body_joints[:, :, 2] - joints[:, :22, 2]).max() < 1e-4  # hands do not matter


@pytest.mark.parametrize("scene", [WIDE, CLOSE])
def test_camera_and_box_columns_follow_the_published_rules(tables, truth, scene):
    labels = tables[scene]
    width, height = (HEIGHT, WIDTH) if scene == CLOSE else (WIDTH, HEIGHT)
    for frame in PICKED:
        camera = cameras(scene)[frame]
        forward, right, up = camera_axes(camera["yaw"], camera["pitch"], camera["roll"])
        focal = camera["focal_length"] / 36 * WIDTH
        for person in range(2):
            row = row_of(labels, frame, person)
            intrinsics = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
            np.testing.assert_allclose(labels.cam_int[row], intrinsics, rtol=1e-6)
            away = (places(scene)[person][0] - [camera[name] for name in "xyz"]) / 100
            seen = np.array([away @ right, -away @ up, away @ forward])  # OpenCV's axes of the stored frame
            if scene == CLOSE:
                seen[:2] = -seen[1], seen[0]
            np.testing.assert_allclose(labels.cam_ext[row, :3, 3], seen, atol=1e-5)
            points = truth[scene, frame, person][0][:22]
            inside = points[((points >= 0) & (points < (width, height))).all(1)]
            assert 8 <= len(inside)
            low, high = inside.min(0), inside.max(0)
            np.testing.assert_allclose(labels.center[row], (low + high) / 2, atol=0.01)
            assert abs(200 * labels.scale[row] - 1.2 * (high - low).max()) < 0.01


@pytest.mark.parametrize("size, turned", [((WIDTH, HEIGHT), ""), ((HEIGHT, WIDTH), "closeup")])
def test_any_camera_and_any_yaw_are_composed_as_unreal_does(body, stock, size, turned):
    """All the way round, nose far up and down, on the side and upside down; a body at 3 to 9 m."""
    rng, moved = np.random.default_rng(5), motion(0)
    n = 40
    camera = np.concatenate(
        [
            rng.uniform(-1e4, 1e4, (n, 3)),
            rng.uniform((-180, -80, -180), (180, 80, 180), (n, 3)),
            rng.uniform(20, 60, (n, 1)),
        ],
        1,
    )
    named = [dict(zip(bedlam_raw.CAMERA, row, strict=True)) for row in camera.tolist()]
    ahead = [camera_axes(row["yaw"], row["pitch"], row["roll"])[0] for row in named]
    frame, yaw = rng.integers(0, MOTION_FRAMES, n), rng.uniform(-180, 180, n)
    place = camera[:, :3] + rng.uniform(300, 900, (n, 1)) * ahead
    rows = {"poses": moved["poses"][frame], "transl": moved["trans"][frame], "place": place, "yaw": yaw}
    table = bedlam_raw.place_people(rows | {"shape": np.tile(moved["betas"], (n, 1))}, camera, body, size)
    assert not table["behind"].any()
    for i in range(n):
        points, _ = seen_by(in_the_world(stock(0, frame[i])[0], place[i], yaw[i]), named[i])
        assert np.abs(table["gtkps"][i, :, :2] - upright(points, turned)).max() < 0.01


def test_raw_files_become_samples_with_depth_and_mask(written, body, tmp_path):
    """The whole way; the closeup's frames are stored on their side, and its images lie in another folder."""
    found = scenes(written, tmp_path, "train", Skipped(limit=0), body)
    skipped = Skipped()
    samples = list(read_scenes(found, 80, Bodies(given=[body]), skipped=skipped))
    assert len(samples) == 12 and not skipped.faults and not skipped.dropped
    for sample in samples:
        label = sample["label"]
        seen = sample["depth"][sample["depth"] > 0]
        assert seen.size > 20 and (np.abs(seen - (label["trans"][2] + 0.1)) < 0.6).all()
        assert label["img_size"] == ([180, 320] if "closeup" in label["key"] else [320, 180])
        assert (sample["parts"][sample["depth"] > 0] > 0).mean() > 0.6  # the drawn figure is on the body


# --- what is left out ---------------------------------------------------------------------------------------


def edit(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def body_line(root: Path, person: int) -> str:
    (line,) = [
        line for line in (root / WIDE / "be_seq.csv").read_text().splitlines() if PEOPLE[person] in line
    ]
    return line


def move(root: Path, person: int, place) -> None:
    parts = body_line(root, person).split(",")
    parts[3:6] = [repr(float(value)) for value in place]
    edit(root / WIDE / "be_seq.csv", body_line(root, person), ",".join(parts))


def motion_file(root: Path, person: int) -> Path:
    person, number = PEOPLE[person].rsplit("_", 1)
    return root / "smplx_gt" / "neutral_ground_truth_motioninfo" / person / number / "motion_seq.npz"


def change_motion(root: Path, person: int, **changes) -> None:
    path = motion_file(root, person)
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    np.savez(path, **{name: changes.get(name, lambda value: value)(value) for name, value in content.items()})


def only_wide(root: Path) -> Path:
    shutil.rmtree(root / CLOSE)
    shutil.rmtree(root / f"{CLOSE}_6fps")
    return root


@pytest.mark.parametrize("length, short", [(START + 10, 1), (START + 11, 0), (START, 3)])
def test_frames_after_a_motions_end_are_dropped(root, body, tmp_path, length, short):
    """A motion of T frames has the numbers 0 to T - 1; the published script takes T too."""
    cut = lambda value: value[:length]  # noqa: E731
    change_motion(only_wide(root), 1, poses=cut, trans=cut)
    skipped = Skipped(limit=0)
    assert len(convert(root, tmp_path, body, skipped)[WIDE]) == 6 - short
    assert skipped.dropped == ({"motion too short": short} if short else {})


def only_first_frame(root: Path) -> None:
    for frame in range(1, CAMERA_FRAMES):
        (root / WIDE / "png" / SEQUENCE / f"{SEQUENCE}_{frame:04d}.png").unlink()
    edit(root / WIDE / "be_seq.csv", f"frames={CAMERA_FRAMES}", "frames=1")


@pytest.mark.parametrize("joints_in_sight, kept", [(8, 1), (7, 0)])
def test_people_with_too_few_joints_in_the_image_are_dropped(
    root, body, stock, tmp_path, joints_in_sight, kept
):
    """Moved out at the left, bit by bit, until so many of the first 22 joints are left."""
    only_first_frame(only_wide(root))
    camera, (place, yaw) = cameras(WIDE)[0], places(WIDE)[0]
    right = camera_axes(camera["yaw"], 0, 0)[1]
    joints = in_the_world(stock(0, START)[0][:22], place, yaw)
    for step in np.arange(0, 300, 0.1):
        points, _ = seen_by(joints - step * right, camera)
        if ((points >= 0) & (points < (WIDTH, HEIGHT))).all(1).sum() == joints_in_sight:
            break
    else:
        pytest.fail("no such step")
    move(root, 0, place - step * right)
    skipped = Skipped(limit=0)
    assert len(convert(root, tmp_path, body, skipped)[WIDE]) == 1 + kept
    assert skipped.dropped["fewer than 8 joints in the image"] == 1 - kept


@pytest.mark.parametrize("nearest, behind", [(-0.02, True), (0.02, False)])
def test_people_with_a_vertex_behind_the_camera_are_dropped(root, body, stock, tmp_path, nearest, behind):
    """Moved until the nearest vertex of one frame is 2 cm behind or before the camera, all joints before."""
    only_first_frame(only_wide(root))
    camera, (place, yaw) = cameras(WIDE)[0], places(WIDE)[0]
    forward = camera_axes(camera["yaw"], camera["pitch"], camera["roll"])[0]
    joints, vertices = stock(0, START)
    ahead = seen_by(in_the_world(vertices, place, yaw), camera)[1].min()
    place = place + (nearest - ahead) * 100 * forward
    assert seen_by(in_the_world(joints, place, yaw), camera)[1].min() > 0
    move(root, 0, place)
    skipped = Skipped(limit=0)
    assert PEOPLE[1].startswith(convert(root, tmp_path, body, skipped)[WIDE].sub[-1])
    assert skipped.dropped["a vertex behind the camera"] == behind


def nan_in(frame: int) -> Callable:
    def change(value: np.ndarray) -> np.ndarray:
        value = value.copy()
        value[frame, -1] = np.nan
        return value

    return change


def nothing(value: np.ndarray) -> np.ndarray:
    return value[:0]


CAMERA_CSV = Path(WIDE) / "ground_truth" / "camera" / f"{SEQUENCE}_camera.csv"
SECOND = r"be_seq.csv, line 6: bad csv, .*"
FAULTS = {
    "no camera csv": (
        lambda root: (root / CAMERA_CSV).unlink(),
        rf"{CAMERA_CSV.name}: missing camera csv",
        0,
    ),
    "no motion": (
        lambda root: motion_file(only_wide(root), 1).unlink(),
        "motion_seq.npz: missing motion .*rp_emma",
        3,
    ),
    "half a motion": (
        lambda root: motion_file(only_wide(root), 1).write_bytes(motion_file(root, 1).read_bytes()[:5000]),
        "motion_seq.npz: not a readable motion",
        3,
    ),
    "another model's motion": (
        lambda root: change_motion(only_wide(root), 1, gender=lambda value: "female"),
        "11 betas of the female body; needed are .*neutral",
        3,
    ),
    "betas that no body has": (
        lambda root: change_motion(only_wide(root), 1, betas=lambda value: value - 60),
        "motion_seq.npz: betas up to 6",
        3,
    ),
    "a motion of SMPL": (
        lambda root: change_motion(only_wide(root), 1, poses=lambda value: value[:, :72]),
        r"not a SMPL-X motion, its arrays are poses \(30, 72\)",
        3,
    ),
    "an empty motion": (
        lambda root: change_motion(only_wide(root), 1, poses=nothing, trans=nothing),
        r"not a SMPL-X motion, its arrays are poses \(0, 165\)",
        3,
    ),
    "a pose that is no number": (
        lambda root: change_motion(only_wide(root), 1, poses=nan_in(START + 5)),
        f"non-finite numbers, in 1 of {SEQUENCE}'s frames",
        5,
    ),
    "a place that is no number": (
        lambda root: edit(root / WIDE / "be_seq.csv", ",15.0,0.0,0.0", ",nan,0.0,0.0"),
        SECOND + "non-finite numbers: Yaw is nan",
        3,
    ),
    "a word for a number": (
        lambda root: edit(root / WIDE / "be_seq.csv", ",15.0,0.0,0.0", ",east,0.0,0.0"),
        SECOND + "Yaw is 'east', no number",
        3,
    ),
    "a body that leans": (
        lambda root: edit(root / WIDE / "be_seq.csv", ",15.0,0.0,0.0", ",15.0,0.0,-4.0"),
        SECOND + "a body with pitch 0 and roll -4",
        3,
    ),
    "a line cut short": (
        lambda root: edit(root / WIDE / "be_seq.csv", body_line(root, 1), body_line(root, 1)[:30]),
        SECOND + "the line is cut short",
        3,
    ),
    "a name without a motion": (
        lambda root: edit(root / WIDE / "be_seq.csv", PEOPLE[1], "somebody"),
        SECOND + "Body 'somebody'",
        3,
    ),
    "a camera row cut short": (
        lambda root: (root / CAMERA_CSV).write_text((root / CAMERA_CSV).read_text()[:-60]),
        rf"{CAMERA_CSV.name}, line 16: bad csv, .* no number",
        0,
    ),
    "a camera csv without a column": (
        lambda root: edit(root / CAMERA_CSV, "pitch", "tilt"),
        rf"{CAMERA_CSV.name}, line 1: bad csv, without the column pitch",
        0,
    ),
    "a camera with another sensor": (
        lambda root: edit(root / CAMERA_CSV, ",36,20.25,", ",24,13.5,"),
        r"line 2: bad csv, a sensor of \[24.0, 13.5\] mm",
        0,
    ),
    "no images": (
        lambda root: (root / WIDE / "png" / SEQUENCE).rename(root / "elsewhere"),
        f"{SEQUENCE}: missing images",
        0,
    ),
    "an image missing": (
        lambda root: (root / WIDE / "png" / SEQUENCE / f"{SEQUENCE}_0005.png").unlink(),
        f"{SEQUENCE}_0005 and on: missing images, 1 of 3",
        4,
    ),
    "images without camera rows": (
        lambda root: (root / CAMERA_CSV).write_text(
            "".join((root / CAMERA_CSV).read_text().splitlines(keepends=True)[:9])
        ),
        f"{SEQUENCE}_0010 and on: 1 of 3 images have no row",
        4,
    ),
    "no depth": (lambda root: shutil.rmtree(root / WIDE / "depth"), "taken without depth", 6),
    "no frames": (
        lambda root: (root / WIDE / "png").rename(root / WIDE / "jpg"),
        f"{WIDE} has no frames: there is no folder",
        0,
    ),
    "no columns": (
        lambda root: edit(root / WIDE / "be_seq.csv", "Comment\n", "Remark\n"),
        "be_seq.csv, line 1: bad csv, without the column Comment",
        0,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_broken_is_named_and_counted_and_the_rest_is_used(root, body, tmp_path, name):
    breaks, message, people = FAULTS[name]
    breaks(root)
    skipped = Skipped()
    with pytest.warns(UserWarning, match=message):
        tables = convert(root, tmp_path, body, skipped)
    assert len(skipped.faults) == 1
    assert len(tables.get(WIDE, [])) == people
    assert not (root / CLOSE).is_dir() or len(tables[CLOSE]) == 6
    with pytest.raises(TooManyFaults, match="limit 0"):
        convert(root, tmp_path, body, Skipped(limit=0))


def test_a_root_with_nothing_to_use_is_refused(written, root, body, tmp_path):
    with pytest.raises(FileNotFoundError, match="no labels .*be_seq.csv"):
        convert(tmp_path / "nowhere", tmp_path, body)
    shutil.rmtree(root / "smplx_gt")
    with pytest.raises(FileNotFoundError, match=r"smplx_gt/neutral_ground_truth_motioninfo/<person>"):
        convert(root, tmp_path, body)


def test_a_root_without_usable_scenes_is_refused_with_the_reason(root, body, tmp_path):
    images = only_wide(root) / WIDE / "png"
    shutil.rmtree(images)
    images.mkdir()
    reason = "none of the 1 scenes .*: missing images"
    with pytest.warns(UserWarning, match="missing"), pytest.raises(FileNotFoundError, match=reason):
        convert(root, tmp_path, body, Skipped())


def test_without_the_licensed_body_raw_files_are_not_converted(written, tmp_path, monkeypatch):
    monkeypatch.delenv("DPOSE_BODY_MODELS", raising=False)
    with pytest.raises(FileNotFoundError, match="DPOSE_BODY_MODELS"):
        scenes(written, tmp_path, "train", Skipped())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def labelled(root, tables) -> Path:
    """The root with its labels as published, where the authors' scripts have them."""
    for scene, labels in tables.items():
        labels.save(root / "training_labels" / "all_npz_12_training" / f"{scene}.npz")
    return root


def test_labels_without_frames_and_those_of_agora_are_no_faults(labelled, body, tmp_path):
    """Labels of all scenes come in one archive, AGORA's among them; images scene by scene."""
    folder = labelled / "training_labels" / "all_npz_12_training"
    for name in ("agora-bfh", "agora-body"):
        shutil.copy(folder / f"{WIDE}.npz", folder / f"{name}.npz")
    shutil.rmtree(labelled / f"{CLOSE}_6fps")
    skipped = Skipped(limit=0)
    (wide,) = scenes(labelled, tmp_path, "train", skipped)
    assert wide.name == WIDE and skipped.dropped == {f"labelled in a scene without frames: {CLOSE}": 6}
    shutil.rmtree(labelled / WIDE / "png")
    with pytest.raises(
        FileNotFoundError, match="none of the 2 scenes .*: labelled in a scene without frames"
    ):
        scenes(labelled, tmp_path, "train", Skipped(limit=0))


def test_a_root_without_depth_is_refused_unless_requested(root, body, tmp_path):
    for scene, kind in ((WIDE, "depth"), (CLOSE, "masks")):
        shutil.rmtree(root / scene / kind)
    with pytest.raises(FileNotFoundError, match="no scene below .* has depth and masks.*--without-depth"):
        convert(root, tmp_path / "out", body)
    assert not (tmp_path / "out").exists()
    found = scenes(root, tmp_path / "out", "train", Skipped(limit=0), body, depth=False)
    samples = list(read_scenes(found, 40, Bodies(given=[body]), skipped=Skipped(limit=0)))
    assert len(samples) == 12 and not any(sample["label"]["has_depth"] for sample in samples)


def test_closeups_are_known_by_their_cameras_and_not_by_their_names(written, body, tmp_path):
    """20221017_1_250_batch01hand_closeup_suburb_a, for one, is none."""
    root = tmp_path / "root"
    shutil.copytree(written / WIDE, root / "20221017_1_250_batch01hand_closeup_suburb_a")
    shutil.copytree(written / CLOSE, root / "some_scene")
    shutil.copytree(written / f"{CLOSE}_6fps", root / "some_scene_6fps")
    (root / "smplx_gt").symlink_to(written / "smplx_gt")
    tables = convert(root, tmp_path / "out", body)
    wide, close = (tables[name].cam_int[:, :2, 2] for name in sorted(tables))
    assert (wide == (WIDTH / 2, HEIGHT / 2)).all() and (close == (HEIGHT / 2, WIDTH / 2)).all()


# --- made once ----------------------------------------------------------------------------------------------


def test_a_table_is_made_again_only_when_what_it_comes_from_has_changed(root, body, tmp_path, monkeypatch):
    made = []
    original = bedlam_raw.convert_sequence
    monkeypatch.setattr(
        bedlam_raw, "convert_sequence", lambda *a, **k: made.append(a[0].name) or original(*a, **k)
    )
    cut = lambda value: value[: START + 10]  # noqa: E731
    change_motion(only_wide(root), 1, poses=cut, trans=cut)

    def run(body=body, out=tmp_path) -> tuple[int, dict]:
        made.clear()
        skipped = Skipped(limit=0)
        labels = convert(root, out, body, skipped)[WIDE]
        assert len(labels) == 5
        return len(made), dict(skipped.dropped)

    assert run() == (2, {"motion too short": 1})
    assert run() == (0, {"motion too short": 1})  # counted again, not made again
    os.utime(root / CAMERA_CSV, (1, 1))
    assert run()[0] == 2 and run()[0] == 0
    root = root.rename(root.with_name("moved"))
    assert run()[0] == 0
    (tmp_path / "labels" / f"{WIDE}.npz").unlink()
    assert run()[0] == 2 and run()[0] == 0
    arrays = read_body(OPEN_BODY)
    assert run(Body(arrays, vertex_stride=100, name="smplx-neutral"))[0] == 0  # the same model
    other = Body(arrays | {"v_template": 1.01 * arrays["v_template"]}, name="smplx-neutral")
    assert run(other)[0] == 2
    change_motion(root, 0, trans=lambda value: value + 0.001)
    assert run()[0] == 2


def test_published_labels_are_used_as_they_are_wherever_they_lie(root, tables, body, tmp_path):
    """Ten betas, no column of ours, `gender` of the person, names with and without frame rate and hyphen."""
    images = root / "training_images"
    images.mkdir()
    (root / WIDE).rename(images / WIDE)
    labels = tables[WIDE]
    names = "imgname center scale pose_cam trans_cam gtkps cam_int cam_ext gender sub".split()
    columns = {name: getattr(labels, name) for name in names} | {"shape": labels.shape[:, :10]}
    columns = {name: a.astype(float) if a.dtype.kind == "f" else a for name, a in columns.items()}
    columns["gtkps"] = np.concatenate([columns["gtkps"], np.full((6, 103, 3), 7.0)], 1)
    extra = {
        "proj_verts": np.zeros((6, 437, 3)),
        "trans_world": np.zeros((6, 3)),
        "hand_boxes": np.zeros((6, 8)),
    }
    published = root / "training_labels" / "all_npz_12_training" / f"{WIDE.replace('-', '_')}_6fps.npz"
    published.parent.mkdir(parents=True)
    np.savez(published, **columns, **extra)
    out = tmp_path / "out"
    found = scenes(root, out, "test", Skipped(limit=0), body)
    wide, close = found
    assert np.abs(Labels.load(published).gtkps - labels.gtkps).max() == 0
    assert wide.labels == published and wide.depth == images / WIDE / "depth" and wide.dataset == "bedlam"
    assert [path.name for path in (out / "labels").glob("*.npz")] == [f"{CLOSE}.npz"]
    assert close.images == root / f"{CLOSE}_6fps" / "png" and close.masks == root / CLOSE / "masks"
    samples = list(read_scenes([wide], 40, Bodies(given=[body]), skipped=Skipped(limit=0)))
    assert len(samples) == 6 and {sample["label"]["subject"] for sample in samples} == set(labels.sub)
    shutil.copytree(published.parent, root / "labels")  # where ours are looked for first
    assert scenes(root, out, "test", Skipped(), body)[0].labels.parent == root / "labels"
