# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The data, from download to batch
#
# Networks of this kind learn from computer graphics, because nobody can annotate the depth of each pixel and
# 22 joint rotations in a photograph. The paper {cite:p}`dpose` trains on BEDLAM {cite:p}`bedlam`, which is
# rendered in a game engine. It takes terabytes, its labels are in the engine's coordinates, and its files
# are too slow to read in a training loop. This page prepares such data for training, measures what each step
# costs, and projects the costs for all of BEDLAM.
#
# BEDLAM is for research only, behind a registration, and may not be passed on. By default the page therefore
# reads the open data: people rendered by this project, in BEDLAM's file layout. `dpose synth` makes them, as
# the last section describes. With one parameter the same cells read BEDLAM:
#
# ```
# papermill notebooks/data_prep.ipynb mine.ipynb -p bedlam /data/bedlam
# ```

# %% tags=["parameters"] nbmake={"mock": {"sheet": 12, "tried": 6, "batches": 1, "scenes_again": 30}}
bedlam = None  # a BEDLAM root, its labels raw or processed; None: the open data
out = None  # for converted labels and shards; None: a temporary folder
people = 300  # number of people to prepare, about
data = None  # the open data; None: $DPOSE_DATA, else the user's cache
train_scenes = 1500  # how much open data to make, if nothing is there yet
val_scenes = 250
test_scenes = 750
frames = 24  # of them as full frames
seed = 0
scene_number = 0  # scene and
frame = 19  # frame to show
person = 3  # number of the prepared person to augment
sheet = 48  # crops on the contact sheet
tried = 24  # frames to measure the time of cutting
batches = 4  # to measure the time of loading
scenes_again = 150  # open data: scenes whose activities are counted

# %% tags=["hide-input"]
import cProfile
import inspect
import itertools
import json
import pstats
import re
import shutil
import tarfile
import tempfile
import textwrap
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
from IPython.display import Image, Markdown
from matplotlib.patches import Rectangle
from scipy.spatial.transform import Rotation

import dpose
from dpose.body import Bodies
from dpose.data.augment import MINI_AUGMENT, NO_AUGMENT, PAPER_AUGMENT, picture_transforms, sample_generator
from dpose.data.frames import (
    FrameSet,
    Skipped,
    frames_of,
    labelled_joints,
    mask_numbers,
    on_its_side,
    read_depth,
    read_frame,
    read_person_mask,
    read_png,
    read_scenes,
)
from dpose.data.labels import Labels
from dpose.data.loader import make_loader
from dpose.data.prepare import PRESETS, SETS, prepare, prepare_scenes, set_module
from dpose.data.sets import bedlam as bedlam_files
from dpose.data.sets import bedlam_raw
from dpose.data.shards import decode_sample, encode_sample, read_manifest
from dpose.data.sources import BadCount, find_shards, read_members
from dpose.data.streams import prepare_sample
from dpose.data.targets import depth_target
from dpose.figures import (
    BACKGROUND,
    INK,
    colour_depth,
    colour_parts,
    contact_sheet,
    html_table,
    picture_grid,
    show_source,
    style_axis,
)
from dpose.model.inference import to_device
from dpose.paths import data_root, shard_folder
from dpose.processes import one_thread
from dpose.results import read_json
from dpose.skeleton import JOINT_NAMES, PARENTS
from dpose.synthetic import VERSION, generate, person_samples, sample_scene, write_frames
from dpose.synthetic.poses import ACTIVITIES
from dpose.synthetic.variety import OPTIONS, PLAIN, Variety

LEFT, MIDDLE, RIGHT = "#0072B2", "#009E73", "#E69F00"
ink = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color")
plt.rcParams.update(dict.fromkeys(ink, INK))
plt.rcParams.update({"figure.facecolor": "none", "axes.facecolor": "none", "figure.dpi": 130})
plt.rcParams.update({"font.size": 9, "axes.titlesize": 9})
torch.set_grad_enabled(False)
rng = np.random.default_rng(seed)
clock = time.process_time  # depends little on other processes
results = Path(dpose.__file__).parents[1] / "results"


def bare(axis, title=""):
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
    axis.set_title(title, fontsize=9)


# %% [markdown]
# The next cell lists the scenes below `root`, a folder in BEDLAM's layout, and makes the open data if there
# are none. A scene is a label file and folders of its images, depth maps and masks. Raw ground truth is
# converted to label files, which takes a while the first time (`out` keeps them) and needs the licensed
# SMPL-X body in `$DPOSE_BODY_MODELS`.

# %%
temporary = tempfile.TemporaryDirectory()
out = Path(out or temporary.name)
if bedlam is None:
    made = data_root(data)
    if read_manifest(shard_folder(made)) is None:
        generate(made, {"train": train_scenes, "val": val_scenes, "test": test_scenes}, seed=seed, frames=0)
    synthetic = read_manifest(shard_folder(made))
    if synthetic.get("generator") != "dpose.synthetic":
        raise ValueError(f"{made} holds other data: set `data` to the open data's folder")
    if synthetic["version"] != VERSION:
        print(f"{made}: version {synthetic['version']} of the generator; this page describes {VERSION}.")
    if not (made / "frames" / "labels" / "open_test.npz").is_file():
        write_frames(made / "frames", "test", frames, seed=synthetic["seed"], progress=False)
root = made / "frames" if bedlam is None else Path(bedlam)
skipped, bodies = Skipped(), Bodies()
started = clock()
scenes = bedlam_files.scenes(root, out, "train", skipped, bodies)
finding = clock() - started
tables = [Labels.load(scene.labels) for scene in scenes]
body = bodies(str(tables[0].body[0]))

# %% tags=["hide-input"]
everybody = sum(map(len, tables))
count_frames = sum(len(set(labels.imgname)) for labels in tables)
html_table(
    ("scene", "frames", "people", "labels"),
    [
        (
            scene.name,
            f"{len(set(labels.imgname)):,}",
            f"{len(labels):,}",
            "converted" if scene.labels.parent == out / "labels" else "as published",
        )
        for scene, labels in itertools.islice(zip(scenes, tables, strict=True), 12)
    ]
    + ([("all", f"{count_frames:,}", f"{everybody:,}", "")] if len(scenes) > 1 else [])
    + [(f"left out: {rule}", "", f"{count:,}", "") for rule, count in skipped.dropped.items()]
    + [(f"fault: {fault.replace(f'{root}/', '')}", "", "", "") for fault in skipped.faults[:10]]
    + [("faults", "", f"{len(skipped.faults):,}", "")],
    f"{len(scenes)} scene{'s' * (len(scenes) > 1)}, found in {finding:.1f} s of processor time",
    align="lrrl",
)

# %% [markdown]
# ## What one downloads
#
# BEDLAM has about 380,000 images at six frames a second, of about a million people. At the thirty frames a
# second of the depth maps it takes 2.2 TB of PNG and 3.8 TB of depth. A frame has several files: the image; a
# depth map of everything in it, in 32-bit floating point and centimetres; and per person a black and white
# image of bare skin and one of clothes. These are the files of one frame:

# %% tags=["hide-input"]
BEDLAM = {"images": 380_000, "people": 1_000_000, "png": 2.2e12, "depth": 3.8e12, "rate": 30 / 6}

scene, labels = scenes[scene_number], tables[scene_number]
imgname = list(frames_of(labels))[frame % len(frames_of(labels))]
stem = Path(imgname).with_suffix("")


def files_of(scene, imgname):
    """The files of a frame, by kind."""
    stem = Path(imgname).with_suffix("")
    found = {"image": [scene.images / imgname], "depth": [], "masks": []}
    if scene.depth is not None:
        found["depth"] = [scene.depth / stem.with_name(f"{stem.name}_depth.exr")]
        for number in mask_numbers(scene.masks, imgname):
            found["masks"] += sorted((scene.masks / stem.parent).glob(f"{stem.name}_{number}_*.png"))
    return found


def kilobytes(paths):
    return sum(path.stat().st_size for path in paths) / 1e3


def short(path, below=root):
    return str(path.relative_to(below)) if path.is_relative_to(below) else path.name


spread = [
    (s, t, name)
    for s, t in zip(scenes, tables, strict=True)
    for name in list(frames_of(t))[:: max(1, len(frames_of(t)) * len(scenes) // tried)]
][: 4 * tried]
mean_kb = {
    kind: np.mean([kilobytes(files_of(s, name)[kind]) for s, _, name in spread])
    for kind in ("image", "depth", "masks")
}
html_table(
    ("file", "kB", "what"),
    [
        (short(path), f"{kilobytes([path]):,.0f}", kind)
        for kind, paths in files_of(scene, imgname).items()
        for path in paths[:8]
    ]
    + [
        (
            f"{short(scene.labels, root if scene.labels.is_relative_to(root) else out)}",
            f"{kilobytes([scene.labels]):,.0f}",
            f"labels of all {len(labels):,} people of the scene",
        )
    ],
    f"On average a frame has {mean_kb['image']:,.0f} kB of image, {mean_kb['depth']:,.0f} kB of depth and "
    f"{mean_kb['masks']:,.0f} kB of masks. BEDLAM's: {BEDLAM['png'] / BEDLAM['images'] / BEDLAM['rate'] / 1e3:,.0f} kB "
    f"and {BEDLAM['depth'] / BEDLAM['images'] / BEDLAM['rate'] / 1e3:,.0f} kB of depth",
    align="lrl",
)

# %% [markdown]
# Masks are numbered, but the label file does not say which number belongs to which person. `dpose prepare`
# finds that out.
#
# ## From the engine's world to one table
#
# The label file is a table with one row per person and frame. The rest of the code uses only its columns;
# each data set is converted to them once.

# %% tags=["hide-input"]
MEANING = {
    "imgname": "the frame, below the scene's png folder",
    "center": "centre of the person's square box, pixels",
    "scale": "side of the box / 200 pixels",
    "pose_cam": "rotation of each of 55 joints as axis and angle, radians; the root seen from the camera",
    "shape": "shape coefficients (betas)",
    "trans_cam": "plus the last column of cam_ext: translation of the body, camera frame, metres",
    "gtkps": "joints in the image: x, y in pixels, confidence",
    "cam_int": "intrinsics: focal length and principal point, pixels",
    "cam_ext": "world to camera",
    "gender": "of the person",
    "sub": "name of the person",
    "motion_info": "activity, or name of the motion",
    "body": "name of the body model of pose and shape",
}
html_table(
    ("column", "of each row", "meaning"),
    [
        (name, " × ".join(map(str, getattr(labels, name).shape[1:])) or "one value", text)
        for name, text in MEANING.items()
    ],
    f"{scene.labels.name}",
    align="lll",
)

# %% [markdown]
# BEDLAM offers such tables, and also what they were computed from: csv files with the places of people and
# with the camera of each frame, and a motion per person, as rotations of SMPL-X's joints {cite:p}`smplx`. The
# conversion is a change of axes between three conventions, one of which is left-handed.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: three sets of axes, each with one arrow pointing into the page. Unreal's is left-handed: seen from the tip of z, x turns into y clockwise. Right: the world from above. Yaw turns clockwise; a camera of yaw 0 looks along x, a body of yaw 0 along y.", "name": "fig-axes"}, "image": {"alt": "Axes of Unreal, of an OpenCV camera and of SMPL-X, and a camera and a body with their yaws, from above"}}
def arrow(axis, start, way, name, colour, gap=1.16):
    axis.annotate("", np.add(start, way), start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8})
    axis.text(*np.add(start, gap * np.array(way)), name, color=colour, ha="center", va="center", fontsize=11)


figure, (axis, above) = plt.subplots(1, 2, figsize=(8.6, 3.6), width_ratios=(1.6, 1), layout="constrained")
right, up, ahead = np.array([1.0, 0]), np.array([0, 1.0]), np.array([0.62, 0.5])  # ahead: into the page
for k, (title, ways) in enumerate(
    {
        "Unreal,\ncentimetres": {"x": ahead, "y": right, "z": up},
        "camera (OpenCV),\nmetres": {"x": right, "y": -up, "z": ahead},
        "SMPL-X,\nseen from behind": {"x": -right, "y": up, "z": ahead},
    }.items()
):
    at = np.array([2.45 * k + 0.85 * (k == 2), 0])
    for (name, way), colour in zip(ways.items(), (RIGHT, MIDDLE, LEFT), strict=True):
        arrow(axis, at, way, name, colour, 1.2)
    axis.text(*(at + (0.2, -1.75)), title, ha="center", va="center", fontsize=10)
axis.set(xlim=(-0.9, 6.9), ylim=(-2.3, 1.4), aspect="equal")
bare(axis)


def heading(yaw):
    """On the page, x up and y to the right."""
    return np.array([np.sin(np.radians(yaw)), np.cos(np.radians(yaw))])


arrow(above, (-0.6, -0.4), (0, 1.1), "x", RIGHT)
arrow(above, (-0.6, -0.4), (1.1, 0), "y", MIDDLE)
camera_at, body_at, camera_yaw, body_yaw = np.array([0.6, 0.2]), np.array([2.2, 3.1]), 32.0, 140.0
for side in (-24, 24):
    above.plot(*np.transpose([camera_at, camera_at + 3.4 * heading(camera_yaw + side)]), color=INK, lw=0.7)
arrow(above, camera_at, 1.3 * heading(camera_yaw), "", LEFT)
above.plot(*camera_at, "s", color=LEFT, markersize=8)
above.text(*(camera_at + (0.85, -0.1)), f"camera, yaw {camera_yaw:.0f}°", color=LEFT, va="center")
above.plot(*body_at, "o", color="#CC79A7", markersize=9)
arrow(above, body_at, 1.1 * heading(90 + body_yaw), "", "#CC79A7")
above.text(*(body_at + (0.2, 0.25)), f"body, yaw {body_yaw:.0f}°", color="#CC79A7", ha="left")
turned = np.radians(np.linspace(0, camera_yaw, 20))
above.plot(camera_at[0] + 0.9 * np.sin(turned), camera_at[1] + 0.9 * np.cos(turned), color=LEFT, lw=0.8)
above.plot(*np.transpose([camera_at, camera_at + (0, 1.1)]), color=INK, lw=0.7, ls=":")
above.set(xlim=(-0.9, 4.8), ylim=(-0.9, 4.2), aspect="equal")
bare(above)
plt.show()

# %% [markdown]
# Let $\mathbf b$ and $\mathbf c$ be the places of body and camera in the csv files. $P$ reorders the axes; its
# determinant is $-1$, which makes the left-handed frame right-handed. $V$ undoes the camera's yaw, then its
# pitch, then its roll:
#
# $$
# \begin{aligned}
# \mathbf p &= V P\, \frac{\mathbf b - \mathbf c}{100}, \qquad
# P = \begin{pmatrix} 0 & 1 & 0 \\ 0 & 0 & -1 \\ 1 & 0 & 0 \end{pmatrix}, \\[2mm]
# V &= R_z(-\text{roll})\, R_x(-\text{pitch})\, R_y(-\text{yaw}_c) .
# \end{aligned}
# $$
#
# A body has only a yaw. At yaw 0 it faces Unreal's $y$, and a motion has $y$ up where the camera has $y$ down:
#
# $$
# \begin{aligned}
# S &= V\, R_y(\text{yaw}_b - 90^\circ)\, R_x(180^\circ), \\
# R_{\text{cam}} &= S\, R_{\text{motion}}, \\
# \mathbf t_{\text{cam}} &= S\,(\mathbf j_0 + \mathbf t) - \mathbf j_0 + \mathbf p .
# \end{aligned}
# $$
#
# The last equation has the pelvis at rest, $\mathbf j_0$, because SMPL-X rotates a body about its pelvis and
# not about the origin. Focal lengths are in millimetres of a sensor 36 mm wide. "Closeup" scenes were filmed
# with the camera on its side: roll gets another quarter turn, sensor and image sides are exchanged, and
# frames are turned upright when they are read. Every fifth of the thirty frames a second is used. People with
# a vertex behind the camera, or with fewer than eight of the 22 body joints in the image, are left out and
# counted. (BEDLAM's own script asked for twelve joints from June 2023 until February 2025, so label files
# published in between have fewer people.)

# %%
show_source(bedlam_raw.place_people)

# %% tags=["hide-input"]
raw = [parent / scene.name for parent in bedlam_files.scene_parents(root)]
raw = next((folder for folder in raw if (folder / "be_seq.csv").is_file()), None)
lines = []
if raw is not None and scene.labels.parent == out / "labels":
    sequence = next(s for s in bedlam_raw.read_sequences(raw / "be_seq.csv")[0] if s.name == stem.parent.name)
    numbers, moves = bedlam_raw.read_camera(raw / "ground_truth/camera" / f"{sequence.name}_camera.csv")
    x, y, z, yaw, pitch, roll, millimetres = moves[numbers.tolist().index(int(stem.name.rsplit("_", 1)[1]))]
    lines.append(("camera", f"{x:.0f}, {y:.0f}, {z:.0f}", f"{yaw:.1f}", f"{pitch:.1f}, {roll:.1f}", ""))
    for placed in sequence.bodies:
        rows = [r for r in frames_of(labels)[imgname] if labels.sub[r] == placed.person]
        lands = ", ".join(f"{v:.2f}" for v in labels.transl[rows[0]]) if rows else "left out"
        place = ", ".join(f"{v:.0f}" for v in placed.place)
        lines.append((placed.person, place, f"{placed.yaw:.1f}", "", lands))
show = None
if lines:
    header = ("", "x, y, z, cm", "yaw", "pitch, roll", "in the table: x, y, z, m")
    show = html_table(header, lines, f"{imgname}, focal length {millimetres:.1f} mm")
show

# %% [markdown]
# Errors in the signs of two angles can cancel. The next cell therefore computes the inverse in a different
# way, from the directions *forward*, *right* and *up* of a camera in Unreal's world after yaw, pitch and
# roll. It puts each labelled person in a random place of that world, with a random camera and body yaw, and
# converts the result with the function above.


# %% tags=["hide-input"]
def camera_axes(yaw, pitch, roll):
    """Forward, right and up, (N, 3) each, after a turn to the right, nose up, tilt clockwise (degrees)."""
    forward, right, up = (np.tile(axis, (len(yaw), 1)) for axis in np.eye(3))
    for angle, first, second, sign in ((yaw, 0, 1, 1), (pitch, 0, 2, 1), (roll, 1, 2, -1)):
        axes = [forward, right, up]
        c, s = np.cos(np.radians(angle))[:, None], sign * np.sin(np.radians(angle))[:, None]
        a, b = axes[first], axes[second]
        axes[first], axes[second] = c * a + s * b, c * b - s * a
        forward, right, up = axes
    return forward, right, up


def to_unreal(labels, some, size):
    """Rows of a label table as raw ground truth, in random places: arguments of `place_people`."""
    n = len(some)
    place = rng.uniform(-5000, 5000, (n, 3))
    yaw, pitch, roll, body_yaw = rng.uniform((-180, -40, -20, -180), (180, 40, 20, 180), (n, 4)).T
    forward, right, up = camera_axes(yaw, pitch, roll)
    world = np.stack([right, -up, forward], -1)  # the camera's axes as columns
    facing, level = np.radians(body_yaw), np.zeros(n)
    stand = np.stack(  # the body's left, up and ahead as columns
        [
            np.stack([np.cos(facing), np.sin(facing), level], -1),
            np.stack([level, level, level + 1], -1),
            np.stack([-np.sin(facing), np.cos(facing), level], -1),
        ],
        -1,
    )
    poses = labels.pose_cam[some].astype(float)
    turn = stand.transpose(0, 2, 1) @ world @ Rotation.from_rotvec(poses[:, :3]).as_matrix()
    poses[:, :3] = Rotation.from_matrix(turn).as_rotvec()
    shape = torch.from_numpy(labels.shape[some])
    rest = body(shape, torch.zeros(n, 22, 3), form="axis-angle", surface=False)
    pelvis, transl = rest.joints[:, 0].double().numpy(), rng.normal(0, 1, (n, 3))
    ahead = np.einsum("nij,nj->ni", world, pelvis + labels.transl[some])
    body_place = place + 100 * (ahead - np.einsum("nij,nj->ni", stand, pelvis + transl))
    rows = {"poses": poses, "transl": transl, "place": body_place, "yaw": body_yaw}
    portrait = size[0] < size[1]
    focal = labels.cam_int[some, 0, 0] / size[0] * bedlam_raw.SENSOR[portrait]
    camera = np.column_stack([place, yaw, pitch, roll + 90 * portrait, focal])
    return rows | {"shape": labels.shape[some].astype(float)}, camera


some = rng.choice(len(labels), min(len(labels), 200), replace=False)
size = tuple(np.rint(2 * labels.cam_int[0, :2, 2]).astype(int).tolist())  # upright
rows, camera = to_unreal(labels, some, size)
with one_thread():
    started = clock()
    table = bedlam_raw.place_people(rows, camera, body, size)
    converting = (clock() - started) / len(some)
off = np.linalg.norm(table["gtkps"][:, :22, :2] - labels.gtkps[some, :22, :2], axis=-1)
off = off[labels.gtkps[some, :22, 2] > 0]

# %% tags=["hide-input"]
Markdown(
    f"{len(some)} people, from the table to Unreal and back: the largest distance of a joint from its label is "
    f"**{off.max():.2g} pixels**. {1000 * converting:.1f} ms per person on one core."
)

# %% [markdown]
# ## Labels, checked against the picture
#
# The table can now be compared with the image. Coloured lines join the labelled joints (blue: the person's
# left side, orange: the right); they come from the labels alone. The box surrounds the joints inside the
# frame, enlarged by a fifth. Masks separate people, and skin (light) from clothes (dark).


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The labels of one frame: joints and boxes, depth along the camera's axis, masks.", "name": "fig-frame"}, "image": {"alt": "A rendered frame with skeletons and boxes drawn over its people, its depth map, and the masks of its people"}}
def draw_joints(axis, joints, width=1.6):
    """Bones between the first 22 joints (J, 3), in pixels."""
    points = np.asarray(joints)[:22, :2]
    for joint, parent in enumerate(PARENTS[:22]):
        if joint:
            side = JOINT_NAMES[joint].split("_")[0]
            colour = {"left": LEFT, "right": RIGHT}.get(side, MIDDLE)
            ends = points[[parent, joint]].T
            axis.plot(*ends, color="white", linewidth=width + 1.2, solid_capstyle="round")
            axis.plot(*ends, color=colour, linewidth=width, solid_capstyle="round")
    axis.scatter(*points.T, s=3 * width**2, color="white", edgecolors="black", linewidths=0.4, zorder=3)


members = frames_of(labels)[imgname]
image = read_png(scene.images / imgname)
turned = on_its_side(image.shape[:2], labels.cam_int[members[0]])
upright = (lambda array: np.ascontiguousarray(np.rot90(array, -1))) if turned else np.asarray
image = upright(image)
height, width = image.shape[:2]
panels = ["image"]
if scene.depth is not None:
    panels += ["depth", "masks"]
    metres = upright(read_depth(scene.depth / stem.with_name(f"{stem.name}_depth.exr")))
    masks = np.full((height, width, 3), BACKGROUND, np.uint8)
    hues = itertools.cycle(((230, 159, 0), (86, 180, 233), (204, 121, 167), (0, 158, 115), (240, 228, 66)))
    for number, hue in zip(mask_numbers(scene.masks, imgname), hues, strict=False):
        bare_skin = scene.masks / stem.with_name(f"{stem.name}_{number}_body.png")
        masks[upright(read_person_mask(scene.masks, imgname, number))] = 0.6 * np.array(hue)
        if bare_skin.is_file():
            masks[upright(read_png(bare_skin, gray=True) > 127)] = hue
if width < height or len(panels) == 1:
    figure, axes = plt.subplot_mosaic([panels], figsize=(8.6, 5.2), layout="constrained")
else:
    figure, axes = plt.subplot_mosaic(
        [["image", "image"], ["depth", "masks"]],
        figsize=(8.6, 7.6),
        height_ratios=(2.05, 1),
        layout="constrained",
    )
axes["image"].imshow(image)
for row in members:
    draw_joints(axes["image"], labels.gtkps[row])
    side = 200 * labels.scale[row]
    corner = labels.center[row] - side / 2
    axes["image"].add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.5))
    doing = str(labels.motion_info[row]).replace("_", " ")
    axes["image"].annotate(
        ", ".join([doing] * (0 < len(doing) < 20) + [f"{labels.transl[row, 2]:.1f} m"]),
        np.clip(corner, 0, (0.85 * width, 0.95 * height)),
        xytext=(5, -12),
        textcoords="offset points",
        color="white",
        fontsize=8,
        bbox={"facecolor": "black", "alpha": 0.55, "pad": 2, "linewidth": 0},
    )
focal = labels.cam_int[members[0], 0, 0]
bare(axes["image"], f"{width} × {height} pixels, focal length {focal:.0f} pixels")
if len(panels) > 1:
    seen = np.isfinite(metres) & (metres < 50)
    far = np.percentile(metres[seen], 97) if seen.any() else 1
    shown = axes["depth"].imshow(np.where(seen, metres, np.nan), cmap="cividis_r", vmax=far)
    inset = axes["depth"].inset_axes([0.03, 0.06, 0.4, 0.05])
    figure.colorbar(shown, cax=inset, orientation="horizontal").outline.set_visible(False)
    inset.tick_params(labelsize=7, colors="white", length=2, pad=1.5)
    inset.tick_params(labeltop=True, labelbottom=False, top=True, bottom=False)
    axes["masks"].imshow(masks)
    bare(axes["depth"], "depth, metres")
    bare(axes["masks"], "masks")
for axis in axes.values():
    axis.set(xlim=(0, width), ylim=(height, 0))
plt.show()

# %% [markdown]
# The same check for all of the data: the joints of the posed body, projected by the label's camera, against
# the labelled joints in the image.

# %% tags=["hide-input"]
distances = []
for table in tables:
    pick = np.unique(np.linspace(0, len(table) - 1, max(2, 600 // len(tables))).astype(int))
    points = labelled_joints(table, pick, bodies) @ table.cam_int[pick].transpose(0, 2, 1)
    away = np.linalg.norm(points[..., :2] / points[..., 2:] - table.gtkps[pick, :22, :2], axis=-1)
    distances.append(away[table.gtkps[pick, :22, 2] > 0])
off = np.concatenate(distances)
Markdown(
    f"{len(off):,} joints: {np.median(off):.2g} pixels in the median, {off.max():.2g} at most. "
    "`dpose prepare` checks this for each label file, and refuses files whose bodies do not fit."
)

# %% [markdown]
# ## Shards: each person is cut once
#
# A training step needs one square of a frame. The released code {cite:p}`dpose` reads the whole image, the
# whole depth map, and masks until one fits, changes the colours of the whole image, and discards most of it,
# for each person in each epoch. `dpose prepare` does this once: it cuts each person's square, with a margin
# of an eighth on every side for the jitter in training, finds the person's mask, renders the part labels from
# the labelled body, and stores people by the thousand in tar files of the WebDataset format:
#
# ```
# dpose prepare bedlam --root /data/bedlam --out /data/bedlam-160 --preset mini
# ```
#
# It begins with an estimate, measured on a few people; `--dry-run` ends there.


# %%
def say(line):
    print(textwrap.fill(line, 76))


arguments = {"size": PRESETS["mini"], "limit": people, "per_shard": max(10, people // 20), "workers": 1}
manifest = prepare("bedlam", root, out, say=say, **arguments)

# %% tags=["hide-input"]
keys = ("set", "split", "size", "validation", "splits", "dropped", "faults", "protocol", "version")
html_table(
    ("manifest.json", ""),
    [(key, json.dumps(manifest[key])[:200]) for key in keys]
    + [("fingerprint", f"{manifest['fingerprint'][:16]}…")]
    + [("first of shards", ", ".join(f"{k} {str(v)[:16]}" for k, v in manifest["shards"][0].items()))],
    "The manifest of a folder of shards",
    align="ll",
)

# %% [markdown]
# Validation takes a fifth of the *sequences*, since neighbouring frames are alike. The people and motions of a
# training sequence may still occur in a validation sequence. Frames are distributed to shards in a shuffled
# order that is always the same.
#
# All of BEDLAM takes hours. A shard gets its name only when it is complete, together with a record of what
# it was made from, so after a crash or `kill -9` the same command continues. Here one shard is deleted:

# %%
(out / "shards" / manifest["shards"][0]["name"]).unlink()
again = prepare("bedlam", root, out, say=say, **arguments)
print("the same:", again["fingerprint"] == manifest["fingerprint"])

# %% [markdown]
# The shard is made again with the same bytes: the fingerprint is a hash of the hashes of all shards. Other
# settings or other labels in the same folder are refused. A person is stored in four files:

# %% tags=["hide-input"]
split = max(manifest["splits"], key=manifest["splits"].get)
cut = [decode_sample(member) for member in read_members(find_shards(out, split), BadCount(0, 0))]
with tarfile.open(find_shards(out, split)[0]) as tar:
    entries = [(entry.name, entry.size) for entry in tar]
first = entries[0][0].split(".")[0]
each = Counter()
for name, size_ in entries:
    each[name.split(".", 1)[1]] += size_
per_file = {kind: total / len({name.split(".")[0] for name, _ in entries}) for kind, total in each.items()}
WHAT = {
    "jpg": "the square with its margin, JPEG of quality 95",
    "depth.png": "the person's depth, 65,535 steps from nearest to farthest; 0 elsewhere",
    "parts.png": "0 background, 1 to 22 the body's parts",
    "json": "pose, shape, translation, joints, box, camera, names of body and person",
}
html_table(
    ("file", "bytes", "mean", "what"),
    [
        (name, f"{size_:,}", f"{per_file[name.split('.', 1)[1]]:,.0f}", WHAT[name.split(".", 1)[1]])
        for name, size_ in entries
        if name.split(".")[0] == first
    ],
    f"The first person of {find_shards(out, split)[0].name}",
    align="lrrl",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Stored people. White: the box, the input without augmentation. The depth is shown as its training target, near bright and far dark.", "name": "fig-stored"}, "image": {"alt": "Five people: crops with their boxes, depth of the visible person, and coloured body parts"}}
chosen = [cut[i] for i in np.unique(np.linspace(0, len(cut) - 1, 5).astype(int))]


def with_box(crop):
    picture = crop["image"].copy()
    side = picture.shape[0]
    low = round(side * (1 - 1 / crop["label"]["margin"]) / 2)
    cv2.rectangle(picture, (low, low), (side - low - 1, side - low - 1), (255, 255, 255), 1)
    return picture


def target_of(crop):
    none = np.zeros(crop["parts"].shape, np.float32)
    return colour_depth(none if crop["depth"] is None else depth_target(crop["depth"]))


picture_grid(
    [
        [with_box(crop) for crop in chosen],
        [target_of(crop) for crop in chosen],
        [colour_parts(crop["parts"]) for crop in chosen],
    ],
    labels=("image", "depth", "parts"),
    side=1.72,
)
plt.show()

# %% [markdown]
# Only visible pixels of the person have a depth. Parts are rendered from the body alone, without clothes and
# without occlusion. The [targets](targets.ipynb) page describes how both become training targets.
#
# ### What cannot be used
#
# A person left out by a rule is counted under that rule. A frame that should have been usable but is not is a
# fault: faults are listed in the manifest, and more than a hundred of them end the command. The next table
# shows what is reported for a frame with different damages:


# %% tags=["hide-input", "remove-output"]
def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flat_exr(path):
    import OpenEXR

    OpenEXR.File({}, {"Y": read_depth(path)}).write(str(path))


def first_gone(path):
    if f"_{mask_numbers(scene.masks, imgname)[0]}_" in path.name:
        path.unlink()


damage = {
    "image": [("image cut in half", half), ("image gone", Path.unlink)],
    "depth": [("EXR cut in half", half), ("EXR without a channel Depth", flat_exr)],
    "masks": [("one person's masks gone", first_gone), ("all masks gone", Path.unlink)],
}
found = []
tasks = [(kind, what, act) for kind in damage if files_of(scene, imgname)[kind] for what, act in damage[kind]]
for kind, what, act in tasks:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copies = {name: Path(folder) / name for name in ("image", "depth", "masks")}
        for name, paths in files_of(scene, imgname).items():
            for path in paths:
                copy = copies[name] / Path(imgname).parent / path.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
                if name == kind:
                    act(copy)
        some_depth = (copies["depth"], copies["masks"]) if scene.depth else (None, None)
        bad, broken = FrameSet(scene.name, scene.labels, copies["image"], *some_depth), Skipped()
        samples = read_frame(bad, imgname, members, labels, PRESETS["mini"], skipped=broken, bodies=bodies)
        report = [fault.replace(f"{folder}/", "") for fault in broken.faults]
        report += [f"counted, {count}: {rule}" for rule, count in broken.dropped.items()]
        found.append((what, len(samples), "; ".join(report)))

# %% tags=["hide-input"]
html_table(("damage", "people used", "reported"), found, "One frame with damaged files", align="lrl")

# %% [markdown]
# Shards can also be damaged later, for instance when they are copied. The loader skips and counts what it
# cannot read: the rest of a truncated shard, one person for a broken picture. It stops at more than twenty in
# an epoch.
#
# ## From shards to batches
#
# `make_loader` reads shards from a folder, or streams them from a web server or bucket, several at a time, so
# that neighbours in a batch come from different scenes. Data sets are mixed person by person, with weights.
# Here the shards from above are mixed three to one with the same people without depth and masks, as AGORA
# {cite:p}`agora` has them:

# %%
config = dpose.preset("mini")
plain = [replace(s, name=f"{k}-plain", depth=None, masks=None) for k, s in enumerate(scenes)]
without = Path(temporary.name) / "plain"
prepare_scenes(plain, without, split, PRESETS["mini"], limit=people, workers=1)
mixed = make_loader(
    [out, without], split, config, batch_size=32, train=True, seed=seed, mix=(3, 1), shuffle_buffer=50
)
batch = to_device(next(iter(mixed)), "cpu")

# %% tags=["hide-input"]
from_plain = sum("-plain-" in key for key in batch["key"])
fields = (
    f"`{name}` {' × '.join(map(str, value.shape[1:])) or 'one value'}"
    for name, value in batch.items()
    if isinstance(value, torch.Tensor)
)
Markdown(
    f"A batch of {len(batch['key'])}, {from_plain} of them from the set without depth; `has_depth` is true for "
    f"{int(batch['has_depth'].sum())}. Of each person: {', '.join(fields)}, and the names of person and body."
)

# %% [markdown]
# The depth losses ignore people for whom `has_depth` is false; the other losses do not change.
#
# ### Augmentation
#
# In training, each crop changes at random each time it is used. Its box is sometimes halved, and always
# scaled, within the stored margin. Its picture may get lower resolution, JPEG, rain, blur, snow, noise, other
# colours and contrast, or rectangles of noise. The strengths are the paper's where it gives them. `MINI`
# trains for a short time, so its jitter is milder, and it gets mirror images too, with mirrored labels: left
# and right trade places (compare the colours of the legs). The changes follow from seed, epoch and the key
# of the person alone.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "One crop and its parts in five epochs.", "name": "fig-augmentation"}, "image": {"alt": "A crop and its part labels before augmentation and in five epochs, with the paper's and with MINI's augmentation"}}
def several(augment, epochs):
    """(image, parts) of the crop in some epochs; None is the crop unchanged."""
    pairs = []
    for epoch in epochs:
        strength = NO_AUGMENT if epoch is None else augment
        generator = sample_generator(seed, epoch or 0, one["label"]["key"])
        row = prepare_sample(one, config, strength, generator, picture_transforms(strength))
        pairs.append((row["image"], colour_parts(row["parts"])))
    return list(zip(*pairs, strict=True))


one = cut[person % len(cut)]
epochs = [None, 1, 2, 3, 4, 5]
picture_grid(
    [*several(PAPER_AUGMENT, epochs), *several(MINI_AUGMENT, epochs)],
    titles=[f"epoch {epoch}" if epoch else "before" for epoch in epochs],
    labels=("the paper's", "its parts", "MINI's", "its parts"),
    side=1.42,
)
plt.show()

# %% [markdown]
# ## Statistics
#
# A network learns the distribution of its training data, for instance the directions that people face. So it
# is worth counting before a long training. For the open data, this section counts training crops, of which
# there are many more than full frames.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Distributions over the people. Visible: share of the body's silhouette in the crop where the person is visible; the rest is hidden, or outside of the frame.", "name": "fig-people"}, "image": {"alt": "Six histograms: labelled people per frame, direction of the pelvis, height, distance, field of view, and visible share of the silhouette"}}
whole = made if bedlam is None else out
shards = find_shards(whole, "train" if bedlam is None else split)
counted, crops = [], []
for shard in shards[:4]:
    with tarfile.open(shard) as tar:
        counted += [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
for member in itertools.islice(read_members(shards, BadCount(0, 0)), 600):
    crops.append(decode_sample(member))

column = lambda name: torch.tensor([label[name] for label in counted])  # noqa: E731
facing = roma.rotvec_to_rotmat(column("pose")[:, :3]) @ torch.tensor([0.0, 0.0, 1.0])
turn = torch.rad2deg(torch.atan2(facing[:, 0], -facing[:, 2])).numpy()
betas = column("betas").float()[:1000].split(100)
heights = torch.cat([(y.amax(1) - y.amin(1)) for y in (body.rest_vertices(b)[..., 1] for b in betas)]).numpy()
visible = np.array(
    [
        ((crop["depth"] > 0) & (crop["parts"] > 0)).sum() / (crop["parts"] > 0).sum()
        for crop in crops
        if crop["depth"] is not None and crop["parts"].any()
    ]
)


def frame_of(key):
    """Name of the frame; in the open data, people of a scene's second camera have numbers from 10."""
    start, _, last = key.rpartition("-")
    return start, len(last) < 6 and int(last) // 10


per_frame = Counter(frame_of(label["key"]) for label in counted)
together = np.array([per_frame[frame_of(label["key"])] for label in counted])

figure, axes = plt.subplots(2, 3, figsize=(8.6, 4.9), layout="constrained")
figure.get_layout_engine().set(hspace=0.06, wspace=0.04)
field = 2 * torch.atan(column("img_size").amax(1) / 2 / column("cam_int")[:, 0]).rad2deg().numpy()
panels = (
    (together, np.arange(0.5, together.max() + 1), "labelled people in the frame", "people"),
    (turn, np.arange(-180, 181, 30), "degrees; 0 towards the camera", "direction of the pelvis"),
    (heights, 16, "metres, standing straight", "height"),
    (column("trans")[:, 2].numpy(), 16, "metres", "distance"),
    (field, 16, "degrees, longer side of the image", "field of view"),
    (100 * visible, np.arange(0, 101, 5), "% of the body's silhouette", "visible"),
)
for axis, (values, bins, unit, title) in zip(axes.flat, panels, strict=True):
    axis.hist(values, bins, color=LEFT, weights=np.full(len(values), 100 / max(1, len(values))), rwidth=0.92)
    axis.set(xlabel=unit, title=title, ylabel="% of people")
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
axes[0, 1].set_xticks(range(-180, 181, 90))
plt.show()

# %% tags=["hide-input"]
Markdown(
    f"{len(counted):,} people of the first {len(shards[:4])} shards (height: of {len(heights):,}, visible share: of "
    f"{len(visible):,}), {heights.mean():.2f} ± {heights.std():.2f} m tall. {100 * np.mean(together > 1):.0f} % share the "
    f"frame with another labelled person; {100 * np.mean(abs(turn) < 45):.0f} % face the camera within 45°."
)

# %% [markdown]
# The next crops were drawn at random.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Crops at random. Black is outside of the frame.", "name": "fig-crops"}, "image": {"alt": "Rendered people in many poses, clothes, places and kinds of light"}}
picked = rng.choice(len(crops), min(sheet, len(crops)), replace=False)
ok, jpeg = cv2.imencode(
    ".jpg",
    contact_sheet([crops[i]["image"] for i in picked], columns=min(8, len(picked)), gap=3)[..., ::-1],
    [cv2.IMWRITE_JPEG_QUALITY, 88],
)
Image(data=jpeg.tobytes(), format="jpeg")

# %% [markdown]
# ## What it costs
#
# Processor time of this machine, one core, for frames cut at the crop sizes of the two presets:


# %% tags=["hide-input"]
def measured(size):
    """Seconds of processor time by step over the tried frames, and the people in them."""
    profile, cut_people, stored = cProfile.Profile(clock), 0, 0
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The first call loads body and renderer.
        read_frame(scene, imgname, members, labels, size, bodies, skipped=Skipped())
        for s, t, name in trial:
            rows = frames_of(t)[name]
            for sample in profile.runcall(read_frame, s, name, rows, t, size, bodies, skipped=Skipped()):
                stored += sum(map(len, profile.runcall(encode_sample, sample).values())) + 4 * 768  # tar
                cut_people += 1
    spent, inside = Counter(), Counter()
    for (_, _, name), (*_, total, callers) in pstats.Stats(profile).stats.items():
        spent[name] += total
        for (_, _, caller), (*_, part) in callers.items():
            inside[name, caller] += part
    spent["read_png"] -= inside["read_png", "read_person_mask"]
    return spent, cut_people, stored


FRAME = {"read_png": "image, PNG", "read_depth": "depth, EXR"}
PERSON = {
    "read_person_mask": "masks, PNG",
    "label_part_targets": "rendering part labels",
    "match_masks": "assigning masks to people",
    "sample_from_frame": "cutting",
    "encode_sample": "writing JPEG, PNG, JSON",
}
trial = spread[:: max(1, len(spread) // tried)][:tried]
costs, loading = {}, {}
for name, size in PRESETS.items():
    spent, cut_people, stored = measured(size)
    frame_s = {step: spent[step] / len(trial) for step in FRAME}
    person_s = {step: spent[step] / max(1, cut_people) for step in PERSON}
    rest = spent["read_frame"] + spent["encode_sample"] - sum(spent[step] for step in FRAME | PERSON)
    person_s["rest"] = max(0, rest) / max(1, cut_people)
    costs[size] = frame_s, person_s, stored / max(1, cut_people)
    folder = out
    if size != arguments["size"]:
        folder = Path(temporary.name) / name
        prepare_scenes(scenes, folder, split, size, limit=people, workers=1)
    loader = iter(
        make_loader(folder, split, dpose.preset(name), 32, train=True, seed=seed, shuffle_buffer=20)
    )
    with one_thread():
        next(loader)
        started = clock()
        loaded = sum(len(next(loader)["key"]) for _ in range(batches))
        loading[size] = (clock() - started) / loaded

# %% tags=["hide-input"]
small, large = PRESETS["lite"], PRESETS["paper"]
lines = [("raw labels to table, the arithmetic", "person", *2 * [f"{1000 * converting:.1f}"], "")]
for step, name in FRAME.items():
    kb = mean_kb["image" if step == "read_png" else "depth"]
    lines.append(
        (name, "frame", *(f"{1000 * costs[s][0][step]:.1f}" for s in (small, large)), f"{kb:,.0f} read")
    )
for step, name in (PERSON | {"rest": "everything else"}).items():
    note = (
        f"{mean_kb['masks'] * len(trial) / max(1, cut_people):,.0f} read"
        if step == "read_person_mask"
        else ""
    )
    if step == "encode_sample":
        note = f"{costs[small][2] / 1e3:.0f} / {costs[large][2] / 1e3:.0f} written"
    lines.append((name, "person", *(f"{1000 * costs[s][1][step]:.1f}" for s in (small, large)), note))
lines.append(
    (
        "loading for training, augmented",
        "person",
        *(f"{1000 * loading[size]:.1f}" for size in (small, large)),
        f"{costs[small][2] / 1e3:.0f} / {costs[large][2] / 1e3:.0f} read",
    )
)
html_table(
    ("step", "per", f"ms, {small} px", f"ms, {large} px", "kB"),
    lines,
    f"Measured on this machine, over {len(trial)} frames with {cut_people} people",
    align="ll",
)

# %% [markdown]
# The costs for all of BEDLAM are its number of images times the cost of a frame, plus its number of people
# times the cost of a person. This is a projection: the open data's files are about as large as BEDLAM's, but
# BEDLAM has more people per frame, which makes finding masks slower, and waiting for a disk is not included.

# %% tags=["hide-input"]
CORES = (1, 16, 64)


def duration(seconds):
    """Duration of work that takes `seconds` of processor time, for each number of cores."""
    each = (seconds / cores for cores in CORES)
    return [f"{t / 3600:.2g} hours" if t >= 3600 else f"{t / 60:.2g} minutes" for t in each]


total = {
    size: BEDLAM["images"] * sum(frame_s.values()) + BEDLAM["people"] * sum(person_s.values())
    for size, (frame_s, person_s, _) in costs.items()
}
read_tb = (BEDLAM["png"] + BEDLAM["depth"]) / BEDLAM["rate"] / 1e12
html_table(
    ("", *(f"{cores} core{'s' * (cores > 1)}" for cores in CORES), "GB"),
    [
        ("raw labels to tables, the arithmetic", *duration(BEDLAM["people"] * converting), ""),
        *(
            (
                f"frames to shards, {size} px",
                *duration(total[size]),
                f"{BEDLAM['people'] * costs[size][2] / 1e9:,.0f}",
            )
            for size in costs
        ),
        *(
            (f"loading 200,000 batches of 64, {size} px", *duration(200_000 * 64 * loading[size]), "")
            for size in costs
        ),
        *(
            (f"BEDLAM's {name} at 6 fps", *[""] * len(CORES), f"{BEDLAM[kind] / BEDLAM['rate'] / 1e9:,.0f}")
            for name, kind in (("images", "png"), ("depth", "depth"))
        ),
    ],
    f"All of BEDLAM, projected: {BEDLAM['images']:,} images, {BEDLAM['people']:,} people",
)

# %% tags=["hide-input"]
disk = 150e6
reading = (
    BEDLAM["images"] * sum(costs[large][0].values()) + BEDLAM["people"] * costs[large][1]["read_person_mask"]
)
smaller = {size: 1e12 * read_tb / (BEDLAM["people"] * costs[size][2]) for size in costs}
waiting = 1e12 * read_tb / disk  # seconds
text = (
    "The rows about loading are for as many batches as the paper's training has. The shards for the smaller network are "
    f"{smaller[small]:.0f} times smaller than the images and depth maps that they are cut from, those for the larger "
    f"one {smaller[large]:.0f} times. A hard disk that reads {disk / 1e6:.0f} MB a second needs {waiting / 3600:.1f} hours "
    f"for the {read_tb:.1f} TB, so from {np.ceil(total[large] / waiting):.0f} cores on the disk is the limit. "
    f"Reading PNG and EXR takes {100 * reading / total[large]:.0f} % of the processor time; a loader of raw frames repeats it "
    "for each person in each epoch."
)
raced = read_json(results / "loader.json")
rates, steps = raced["samples_per_second_and_core"], raced["raw_ms_by_step"]
slow = max(steps, key=steps.get)
before, after = raced["loader_memory_mb"].values()
Markdown(
    f"{text}\n\nIn a benchmark on {raced['frames']} open frames (`benchmarks/raw_frames.py`), reading frames as the "
    f"released code does gave {rates['raw frames, the released way']:.1f} people per second and core (slowest step: {slow}, "
    f"{steps[slow]:.0f} of {sum(steps.values()):.0f} ms per person); prepared shards gave {rates['prepared shards']:.0f}, "
    f"**{raced['times_as_fast']:.0f} times as many**. The loader held {before:.0f} MB after 1,000 people and "
    f"{after:.0f} MB after 11,000."
)

# %% [markdown]
# ## Other sets
#
# AGORA is a second training set. 3DPW {cite:p}`threedpw`, EMDB {cite:p}`emdb` and RICH {cite:p}`rich` are
# pictures of people whose pose was measured; the paper tests on them. `dpose prepare NAME --help` says what to
# download and where to put it. All sets become the same kind of shards.

# %% tags=["hide-input"]
TRUTH = {
    "bedlam": "neutral SMPL-X, depth and masks",
    "agora": "neutral SMPL-X, no depth",
    "3dpw": "SMPL of the person's gender; raw pickles or processed labels",
    "emdb": "SMPL of the person's gender; the sequences of EMDB 1, good frames",
    "rich": "SMPL-X of the person's gender; processed labels",
}
html_table(
    ("set", "truth", "splits", "scored by", "command"),
    [
        (
            set_module(name).__doc__.strip().split(" (")[0].split(":")[0],
            TRUTH[name],
            ", ".join(set_module(name).SPLITS),
            set_module(name).PROTOCOL,
            f"dpose prepare {name}",
        )
        for name in SETS
    ],
    align="lllll",
)

# %% [markdown]
# ## How the open data are made
#
# From here on the page is about the open data alone; with BEDLAM, cells that read the open data do nothing.
#
# The bodies are the open body of this project, public domain like the MakeHuman figures {cite:p}`makehuman`
# that it comes from. Clothes, rooms, trees and light are program code; photographs on walls are sample
# pictures of scikit-image. Warp {cite:p}`warp` kernels render the pictures on the CPU: those of validation,
# test and full frames by ray tracing, those of training and of the split "hard" by rasterisation with shadow
# maps, for two cameras per scene. The pictures are plainer than BEDLAM's, but the labels are exact.
#
# Validation and test: people face all directions equally often, and their poses come from eleven activities.
# How much of the frame a person fills and the focal length are independent, so that the size in the image does
# not determine the distance. Some people are hidden in part by others, posts, tables or plants; people of whom
# less than about 30 % is visible are left out. A scene is a function of seed, split and number alone, so a
# small data set is the beginning of a large one. No person occurs in two splits. The split "hard", empty by
# default, is a test split with the variety of training that the next section describes.
#
# ```
# dpose synth --root DIR --hard 250                       # with 250 scenes of the split "hard"
# dpose synth --root DIR --without groups tone            # without two options in training, for comparisons
# dpose synth --root DIR --train 1000000 --part 3/16      # one of 16 jobs that share a folder
# dpose train --data synth: --preset lite --out runs/own  # renders people while training, without files
# ```

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Activities of test people, and their probabilities (marks).", "name": "fig-activities"}, "image": {"alt": "Bar chart of eleven activities with the shares that were asked for"}}
if bedlam is None:
    doing = Counter(
        activity
        for index in range(scenes_again)
        for activity in sample_scene(synthetic["seed"], "test", index).activities
    )
    names = list(ACTIVITIES)
    figure, axis = plt.subplots(figsize=(8.6, 2.6), layout="constrained")
    axis.barh(names, [100 * doing[name] / doing.total() for name in names], color=LEFT)
    axis.plot([100 * ACTIVITIES[name] for name in names], names, "|", color="#D55E00", ms=9, mew=2)
    axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel=f"% of {doing.total()} people")
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
    plt.show()

# %% [markdown]
# Full frames with depth and masks of a hundred thousand people would fill hundreds of gigabytes. Crops are
# therefore rendered directly, by a camera that covers the box. The next table compares crops that were cut
# from the full frames, by the code that reads BEDLAM, with the crops of the same people in the test shards:

# %% tags=["hide-input"]
compared = None
if bedlam is None:
    stored = {}
    for member in itertools.islice(read_members(find_shards(made, "test"), BadCount(0, 0)), 80):
        sample = decode_sample(member)
        stored[sample["label"]["subject"], int(sample["label"]["key"].split("-")[2])] = sample
    differences = []
    for ours in itertools.islice(read_scenes(scenes, synthetic["size"]), 16):
        number = int(ours["label"]["key"].split("seq_")[1].split("_")[0].split("-")[0])
        other = stored.get((ours["label"]["subject"], number))
        if other is None:
            continue
        both, either = (f(ours["depth"] > 0, other["depth"] > 0) for f in (np.logical_and, np.logical_or))
        apart = {
            k: np.abs(np.subtract(ours["label"][k], other["label"][k])).max() for k in ("joints2d", "pose")
        }
        differences.append(
            {
                "joints2d, largest difference, pixels": apart["joints2d"],
                "pose, largest difference, radians": apart["pose"],
                "parts, % of pixels equal": 100 * (ours["parts"] == other["parts"]).mean(),
                "person's pixels, overlap (IoU), %": 100 * both.sum() / either.sum(),
                "depth, median difference, millimetres": 1000
                * np.median(np.abs(ours["depth"] - other["depth"])[both]),
                "image, mean difference of 255": np.abs(ours["image"].astype(float) - other["image"]).mean(),
            }
        )
    compared = html_table(
        (f"{len(differences)} people", "mean", "worst"),
        [
            (name, f"{np.mean(values):.4g}", f"{min(values) if '%' in name else max(values):.4g}")
            for name in (differences[0] if differences else ())
            for values in [[row[name] for row in differences]]
        ],
        "Crops cut from full frames against crops rendered directly",
    )
compared

# %% [markdown]
# Labels and parts are the same up to rounding. The other pixels differ by the change of resolution: the frame
# is rendered on its own grid and resampled, the crop directly on its grid.
#
# ### People like those in photographs
#
# Networks trained on rendered people do worse on [photographs](photographs.ipynb), which show other poses,
# crowds, clothes, light and lenses, and boxes drawn by annotators: a domain gap. So scenes of training, and of
# "hard", take options at random that make people and pictures more varied. Each has its own random numbers:
# switching one off changes nothing else, except where people and camera depend on it. Validation and test take
# none and stay bit-equal to those of earlier versions, so that results remain comparable.

# %% tags=["hide-input"]
about = re.findall(r"(\w+): float = [\d.]+  # (\w+): (.+)", inspect.getsource(Variety))
html_table(
    ("option", "probability", "per", "what it does"),
    [(name, f"{getattr(Variety, name):.2f}", *line[1:]) for name, line in zip(OPTIONS, about, strict=True)],
    "Options of training scenes (`dpose.synthetic.variety`)",
    align="lrll",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "One person of a training scene per option. Above: without any option; below: with this option alone.", "name": "fig-options"}, "image": {"alt": "Eight pairs of pictures, one per option: another pose, a second person close by, loose clothes, a suitcase, a table, night, clutter, and a background out of focus"}}
SHOWN = {  # option: number of a training scene, and of one of its people
    "poses": (16, 0), "groups": (75, 0), "clothes": (14, 0), "belongings": (19, 0),
    "tables": (1, 0), "light": (3, 0), "backgrounds": (9, 0), "focus": (18, 0),
}  # fmt: skip


def crop_with(variety, number, who):
    """The crop (192, 192, 3) of a person of a training scene."""
    for sample in person_samples(sample_scene(0, "train", number, variety), 192):
        if sample["label"]["key"].endswith(f"-{who}"):
            return sample["image"]


figure, axes = plt.subplots(2, 4, figsize=(8.6, 9.1), layout="constrained")
for axis, (name, place) in zip(axes.flat, SHOWN.items(), strict=True):
    pair = [crop_with(variety, *place) for variety in (PLAIN, replace(PLAIN, **{name: 1.0}))]
    axis.imshow(contact_sheet(pair, columns=1, gap=4))
    bare(axis, name)
plt.show()

# %% tags=["hide-input"]
speed = read_json(results / "synthetic.json")
rate = {name: run["samples_per_second_and_core"] for name, run in speed["rates"].items()}
one_crop = speed["rates"]["training, 160 pixels"]
making = 1 / rate["training, 160 pixels"] + one_crop["encoding_for_shards_ms"] / 1000
cost = (
    f"`benchmarks/synthetic.py` renders {rate['training, 160 pixels']:.0f} training crops of 160 pixels per second and "
    f"core ({speed['hardware']['cpu']}), and {rate['training, 128 pixels']:.0f} of 128 pixels; ray-traced crops of test "
    f"scenes, {rate['validation and test, 160 pixels']:.0f} and {rate['validation and test, 128 pixels']:.0f}. "
    f"With encoding, 100,000 training crops of 160 pixels take {100_000 * making / 3600:.1f} hours of one core."
)
if bedlam is None:
    each = sum(s["bytes"] for s in synthetic["shards"]) / sum(synthetic["splits"].values())
    per_split = ", ".join(f"{split} {number:,}" for split, number in synthetic["splits"].items())
    cost += f" The open data here have crops of {synthetic['size']} pixels, {each / 1e3:.0f} kB each: {per_split}."
Markdown(cost)
