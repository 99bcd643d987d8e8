# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From download to batch
#
# The network is trained on rendered people, because depth and joint rotations cannot be annotated in photographs. The paper
# {cite:p}`dpose` uses {term}`BEDLAM` {cite:p}`bedlam` and {term}`AGORA` {cite:p}`agora`. Such a set takes terabytes, and reading it
# as it is takes many times the processor time of reading prepared crops, in every epoch. This appendix follows the data from the downloaded files to the batches that the network receives:
# labels, crops, shards, augmentation, and the cost of each step. The last section describes the open data of this book.
#
# :::{chapter}
# :needs: [The network at a glance](architecture.ipynb), [the camera](camera.ipynb); to use BEDLAM, an account with its makers
# :learn: which files and labels BEDLAM has; how people become crops in shards; what a batch contains and how it is augmented; how long all of BEDLAM takes; how the open data are made
# :::
#
# BEDLAM may be used for research only, requires registration, and must not be passed on. By default this page therefore
# reads a few frames of the open data, which have BEDLAM's file layout. With one parameter the same cells read BEDLAM:
#
# ```sh
# papermill notebooks/data_prep.ipynb mine.ipynb -p bedlam ~/data/bedlam
# ```
#
# All commands for the real data sets are on the page [Real data, step by step](../book/real_data.md).

# %% tags=["parameters", "hide-input"] nbmake={"mock": {"sheet": 12, "tried": 4, "count": 300}} mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
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
sheet = 40  # crops on the contact sheet
tried = 24  # frames to measure the time of cutting
count = None  # training people whose distributions are drawn; None: all

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import inspect
import io
import itertools
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
import warnings
from collections import Counter
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
from IPython.display import Markdown
from matplotlib.patches import Rectangle

import dpose
from dpose.body import Bodies
from dpose.data.augment import LITE_AUGMENT, NO_AUGMENT, PAPER_AUGMENT, picture_transforms, sample_generator
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
from dpose.data.prepare.driver import WHOLE
from dpose.data.sets import bedlam as bedlam_files
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
    style_axis,
)
from dpose.model.inference import to_device
from dpose.paths import data_root, shard_folder
from dpose.processes import one_thread
from dpose.results import read_json
from dpose.skeleton import JOINT_NAMES, PARENTS
from dpose.synthetic import VERSION, generate, person_samples, sample_scene, write_frames
from dpose.synthetic.variety import OPTIONS, PLAIN, Variety
from dpose.training import recipe

LEFT, MIDDLE, RIGHT = "#127CB7", "#008662", "#C15500"  # contrast above 4.5:1 on white and on black
ink = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color")
plt.rcParams.update(dict.fromkeys(ink, INK))
plt.rcParams.update({"figure.facecolor": "none", "axes.facecolor": "none", "figure.dpi": 130})
plt.rcParams.update({"font.size": 9, "axes.titlesize": 9.5})
torch.set_grad_enabled(False)
rng = np.random.default_rng(seed)
results = Path(dpose.__file__).parents[1] / "results"
BEDLAM = {  # as its makers state; the sizes are of 30 frames per second, of which every fifth is used
    "images": 380_000,
    "people": 1_000_000,
    "png": 2.2e12,
    "depth": 3.8e12,
    "rate": 30 / 6,
}


def bare(axis, title=""):
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
    axis.set_title(title)


def kilobytes(paths):
    return sum(path.stat().st_size for path in paths) / 1e3


def files_of(scene, imgname):
    """The files of a frame, by kind."""
    stem = Path(imgname).with_suffix("")
    found = {"image": [scene.images / imgname], "depth": [], "masks": []}
    if scene.depth is not None:
        found["depth"] = [scene.depth / stem.with_name(f"{stem.name}_depth.exr")]
        for number in mask_numbers(scene.masks, imgname):
            found["masks"] += sorted((scene.masks / stem.parent).glob(f"{stem.name}_{number}_*.png"))
    return found


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
scenes = bedlam_files.scenes(root, out, "train", skipped, bodies)
tables = [Labels.load(scene.labels) for scene in scenes]
scene, labels = scenes[scene_number], tables[scene_number]
imgname = list(frames_of(labels))[frame % len(frames_of(labels))]
members = frames_of(labels)[imgname]
body = bodies(str(tables[0].body[0]))

# %% tags=["remove-input"]
count_frames = sum(len(set(table.imgname)) for table in tables)
left_out = [f"{count:,} people were left out ({rule})" for rule, count in skipped.dropped.items()]
faults = [f"{len(skipped.faults)} faults, the first: {skipped.faults[0]}"] if skipped.faults else []
Markdown(
    f"The data of this page: scenes {len(scenes)}, frames {count_frames:,}, labelled people {sum(map(len, tables)):,}"
    + "".join(f"; {text}" for text in (*left_out, *faults))
    + "."
)

# %% [markdown]
# ## What a raw set contains
#
# BEDLAM is organised in *scenes*, each in one place with one kind of camera motion; a scene has *sequences* of a few
# seconds. Every frame has an image, a depth map of everything in it, and for each person two masks: bare skin, and clothes. The
# label file of a scene describes all of its people.

# %% tags=["remove-input"]
stem = Path(imgname).with_suffix("")
spread = [
    (s, table, name)
    for s, table in zip(scenes, tables, strict=True)
    for name in list(frames_of(table))[:: max(1, len(frames_of(table)) * len(scenes) // tried)]
][: 4 * tried]
mean_kb = {
    kind: np.mean([kilobytes(files_of(s, name)[kind]) for s, _, name in spread])
    for kind in ("image", "depth", "masks")
}
KINDS = {
    "image": "8-bit PNG",
    "depth": "EXR, 32-bit floating point, centimetres along the camera's axis",
    "masks": "8-bit PNG, white where the person is visible",
}


def in_root(path):
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


html_table(
    ("file", "kB", "content"),
    [
        (in_root(path), f"{kilobytes([path]):,.0f}", KINDS[kind])
        for kind, paths in files_of(scene, imgname).items()
        for path in paths[:4]
    ]
    + [(in_root(scene.labels), f"{kilobytes([scene.labels]):,.0f}", f"labels of {len(labels):,} people")],
    "The files of one frame, and the label file of its scene",
    align="lrl",
)

# %% tags=["remove-input"]
per_image = {kind: BEDLAM[kind] / BEDLAM["images"] / BEDLAM["rate"] / 1e3 for kind in ("png", "depth")}
Markdown(
    f"On average over {len(spread)} frames a frame here has {mean_kb['image']:,.0f} kB of image, {mean_kb['depth']:,.0f} kB of depth and {mean_kb['masks']:,.0f} kB "
    f"of masks. BEDLAM has about {BEDLAM['images']:,} images at six frames per second, with about {BEDLAM['people']:,} people; by the sizes that "
    f"its makers state, a frame has {per_image['png']:,.0f} kB of image and {per_image['depth']:,.0f} kB of depth."
)

# %% [markdown]
# ## Labels
#
# All data sets are converted to one table with a row per person and frame, which has the columns of BEDLAM's label
# files. The rest of the package reads nothing else ({py:obj}`dpose.data.labels.Labels`).

# %% tags=["remove-input"]
MEANING = {
    "imgname": "the frame",
    "center": "centre of the person's square box, pixels",
    "scale": "side of the box / 200 pixels",
    "pose_cam": "rotations of 55 joints, axis-angle, radians; the root relative to the camera",
    "shape": "shape coefficients (betas)",
    "trans_cam": "translation in the camera frame, metres, to which the last column of cam_ext is added",
    "gtkps": "joints in the image: x, y in pixels, confidence",
    "cam_int": "intrinsics: focal length and principal point, pixels",
    "cam_ext": "world to camera",
    "gender": "of the person",
    "sub": "name of the person",
    "motion_info": "activity, or name of the motion",
    "body": "name of the body model that pose and shape belong to",
}
html_table(
    ("column", "shape", "meaning"),
    [
        (name, " × ".join(map(str, getattr(labels, name).shape[1:])) or "1", text)
        for name, text in MEANING.items()
    ],
    "A row of the label table",
    align="lll",
)

# %% [markdown]
# Three coordinate frames are enough to use the table:
#
# | frame | axes | unit |
# | --- | --- | --- |
# | camera | x right, y down, z forward (as in OpenCV) | metres |
# | image | x right, y down; the centre of the first pixel is (0.5, 0.5) | pixels |
# | body at rest | x to its left, y up, z forward (as in SMPL-X) | metres |
#
# BEDLAM also publishes what its tables were computed from: positions of people and cameras in the world of the game engine
# (Unreal, left-handed, centimetres), and a motion per person. `dpose prepare` converts such raw scenes too
# ({py:obj}`dpose.data.sets.bedlam_raw`). It takes every fifth of the thirty frames per second, and leaves out and counts people with a vertex
# behind the camera or with fewer than eight visible body joints. "Closeup" scenes were filmed with the camera on its side; their
# frames are turned upright when they are read.
#
# {numref}`fig-frame` compares the labels of one frame with its files. The box surrounds the joints inside of the frame, enlarged
# by a fifth.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "One frame. Above: the labelled joints (blue: the person's left side, orange: the right, green: spine and head), boxes, activity and distance. Below: the depth map in metres, and the masks, with skin in light and clothes in dark colours.", "name": "fig-frame"}, "image": {"alt": "A rendered scene with a few people, their skeletons in blue, orange and green and a white box around each; below it the depth map, from yellow, near, to blue, far, and the masks, one colour per person on a dark ground."}}
def draw_joints(axis, joints, width=1.6):
    """Bones between the first 22 joints (J, 3), in pixels."""
    points = np.asarray(joints)[:22, :2]
    for joint, parent in enumerate(PARENTS[:22]):
        if joint:
            colour = {"left": LEFT, "right": RIGHT}.get(JOINT_NAMES[joint].split("_")[0], MIDDLE)
            ends = points[[parent, joint]].T
            axis.plot(*ends, color="white", linewidth=width + 1.2, solid_capstyle="round")
            axis.plot(*ends, color=colour, linewidth=width, solid_capstyle="round")
    axis.scatter(*points.T, s=3 * width**2, color="white", edgecolors="black", linewidths=0.4, zorder=3)


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
    figure, axes = plt.subplot_mosaic([panels], figsize=(7.5, 4.5), layout="constrained")
else:
    layout = [["image", "image"], ["depth", "masks"]]
    figure, axes = plt.subplot_mosaic(
        layout, figsize=(7.5, 6.7), height_ratios=(2.05, 1), layout="constrained"
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
        fontsize=9,
        bbox={"facecolor": "black", "alpha": 0.6, "pad": 2, "linewidth": 0},
    )
focal = labels.cam_int[members[0], 0, 0]
bare(axes["image"], f"{width:,} × {height:,} pixels, focal length {focal:,.0f} pixels")
if len(panels) > 1:
    near = np.isfinite(metres) & (metres < 50)
    far = np.percentile(metres[near], 97) if near.any() else 1
    shown = axes["depth"].imshow(np.where(near, metres, np.nan), cmap="cividis_r", vmax=far)
    bar = figure.colorbar(shown, ax=axes["depth"], orientation="horizontal", aspect=40, pad=0.03)
    bar.outline.set_visible(False)
    bar.set_label("metres")
    axes["masks"].imshow(masks)
    bare(axes["depth"], "depth")
    bare(axes["masks"], "masks")
for name in panels:
    axes[name].set(xlim=(0, width), ylim=(height, 0))
plt.show()

# %% tags=["remove-input"]
distances = []
for table in tables:
    for rows in np.array_split(np.arange(len(table)), max(1, len(table) // 500)):
        points = labelled_joints(table, rows, bodies) @ table.cam_int[rows].transpose(0, 2, 1)
        away = np.linalg.norm(points[..., :2] / points[..., 2:] - table.gtkps[rows, :22, :2], axis=-1)
        distances.append(away[table.gtkps[rows, :22, 2] > 0])
off = np.concatenate(distances)
Markdown(
    f"The same check in numbers: the body is posed with the labelled rotations, shape and translation, and its joints are projected "
    f"with the labelled camera. For all {len(off):,} joints inside of the {count_frames:,} frames, the distance from the labelled 2D "
    f"joints is {np.median(off):.5f} pixels (median) and at most {off.max():.5f} pixels. `dpose prepare` checks each label file in this way "
    "and refuses one whose bodies do not fit."
)

# %% [markdown]
# ## Crops in shards
#
# A training step needs one square of a frame. The released code {cite:p}`dposecode` reads the whole image, the depth map and the
# masks for it, again for each person in each epoch. `dpose prepare` does this once. For every person it cuts out the box, with a
# margin of an eighth on each side for the jitter of the augmentation, finds the mask that belongs to the person, renders the part labels
# from the labelled body, and stores the result. People are stored by the thousand in tar files (*shards*) in the
# WebDataset format.
#
# ```sh
# dpose prepare bedlam --root ~/data/bedlam --out ~/shards/bedlam --dry-run
# dpose prepare bedlam --root ~/data/bedlam --out ~/shards/bedlam
# ```
#
# With `--dry-run` it only prints an estimate of time and disk space, from a few people. Here without it:


# %%
def say(line):
    print(line.replace("; ", ";\n"))


settings = {"size": PRESETS["lite"], "limit": people, "per_shard": max(10, people // 20)}
manifest = prepare("bedlam", root, out, workers=1, say=say, **settings)

# %% tags=["remove-input"]
split = max(manifest["splits"], key=manifest["splits"].get)
cut = [decode_sample(member) for member in read_members(find_shards(out, split), BadCount(0, 0))]
sizes, stored_people = Counter(), 0
for shard in find_shards(out, split):
    with tarfile.open(shard) as tar:
        for entry in tar:
            sizes[entry.name.split(".", 1)[1]] += entry.size
            stored_people += entry.name.endswith(".json")
WHAT = {
    "jpg": "the square with its margin, JPEG of quality 95",
    "depth.png": "the person's depth, 65,535 steps from nearest to farthest; 0 elsewhere",
    "parts.png": "0 background, 1 to 22 the body's parts",
    "json": "pose, shape, translation, joints, box, camera, names of body and person",
}
html_table(
    ("file", "bytes, mean", "content"),
    [
        (f"<person>.{kind}", f"{sizes[kind] / stored_people:,.0f}", text)
        for kind, text in WHAT.items()
        if kind in sizes
    ],
    f"What a shard stores per person, for crops of {manifest['size']} pixels, {sum(sizes.values()) / stored_people / 1000:.1f} kB together; the tar file adds a "
    "header and padding to each file",
    align="lrl",
)

# %% [markdown]
# Depth is stored for visible pixels of the person only. Parts are rendered from the body alone, without clothes and without
# what hides it ({numref}`fig-stored`). How both become training targets is on the page [targets](targets.ipynb).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Stored people: the crop with its margin (the white square is the box), depth as a training target (yellow: near, blue: far), and parts.", "name": "fig-stored"}, "image": {"alt": "Three rows of five pictures: crops with a white square inside; the people shaded by depth on a dark ground; and their body parts in colours."}}
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
    side=1.46,
)
plt.show()

# %% [markdown]
# Three properties matter for large sets.
#
# - *Validation.* A fifth of the sequences goes to the split `val`. It is divided by sequences, because neighbouring
#   frames are alike; people and motions may still occur in both splits.
# - *Interruption.* A shard gets its name only when it is complete. After a crash the same command continues, and the files are
#   those of an uninterrupted run, byte for byte (exercise 1).
# - *Damage.* A person whom a rule leaves out is counted under that rule. A file that cannot be read is a fault, which
#   `manifest.json` lists; more than a hundred faults end the command (exercise 2). In training, the loader skips what it
#   cannot read, and stops at more than twenty faults per epoch.
#
# ## Batches
#
# {py:obj}`dpose.data.loader.make_loader` reads shards from a folder, a web server or a bucket. It reads several at a time, so that
# neighbours in a batch come from different scenes, and mixes data sets person by person. Here the shards from above are
# mixed three to one with the same people without depth, as AGORA would have them:

# %%
config = dpose.preset("lite")
plain = [replace(s, name=f"{k}-plain", depth=None, masks=None) for k, s in enumerate(scenes)]
without = Path(temporary.name) / "plain"
prepare_scenes(plain, without, split, PRESETS["lite"], limit=people, workers=1)
loader = make_loader(
    [out, without], split, config, batch_size=32, train=True, seed=seed, mix=(3, 1), shuffle_buffer=50
)
batch = to_device(next(iter(loader)), "cpu")

# %% tags=["remove-input"]
FIELDS = {
    "image": "RGB, normalised",
    "parts": "part labels, 0 is the background",
    "depth": "depth target",
    "has_depth": "whether the data set has depth",
    "pose": "rotation matrices of 22 joints",
    "betas": "shape coefficients",
    "trans": "translation, camera frame",
    "joints2d": "joints in the image, and confidence",
    "cam_int": "intrinsics",
    "center": "centre of the box",
    "scale": "side of the box / 200",
    "img_size": "width and height of the image",
}
html_table(
    ("field", "shape per person", "content"),
    [(name, " × ".join(map(str, batch[name].shape[1:])) or "1", text) for name, text in FIELDS.items()],
    "The fields of a batch",
    align="lll",
)

# %% tags=["remove-input"]
from_plain = sum("-plain-" in key for key in batch["key"])
raced = read_json(results / "loader.json")
rates, slow_steps = raced["samples_per_second_and_core"], raced["raw_ms_by_step"]
largest = sorted(slow_steps, key=slow_steps.get, reverse=True)[:3]
before, after = raced["loader_memory_mb"].values()
Markdown(
    f"Of the {len(batch['key'])} people in this batch {from_plain} are of the set without depth, and `has_depth` is true for "
    f"{int(batch['has_depth'].sum())}. {{py:obj}}`dpose.batch.Batch` documents all shapes, units and frames.\n\n"
    f"**Speed.** The record `results/loader.json` compares prepared shards with frames that are read as the released code reads them, for the same "
    f"{raced['people']} people: {rates['prepared shards']:.0f} and {rates['raw frames, the released way']:.0f} people per second and core, "
    f"a ratio of **{raced['times_as_fast']:.0f}** ({raced['hardware']['cpu']}, `benchmarks/raw_frames.py`). With raw frames loading a person takes "
    f"{sum(slow_steps.values()):.0f} ms, most of it for "
    + ", ".join(f"{step} ({slow_steps[step]:.0f} ms)" for step in largest)
    + f". The loader's memory does not grow: {before:.0f} MB after 1,000 people and {after:.0f} MB after 11,000."
)

# %% [markdown]
# ### Augmentation
#
# In training each crop is changed at random every time it is used. The box is sometimes halved, and always scaled, within the
# stored margin. The image may get lower resolution, JPEG compression, rain, blur, snow, noise, other colours and contrast, or
# rectangles of noise. The paper lists kinds without strengths; those of `PAPER` are the
# released code's, except for snow and occlusion (differences {diff}`4` to {diff}`7`). `lite` trains for a shorter time, so its
# jitter is milder; half of its images are mirrored, with left and right exchanged in the labels. All random numbers follow from the seed,
# the epoch and the key of the person, so that a run can be repeated.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "One crop and its parts before augmentation and in four epochs, with the augmentation of PAPER and that of lite.", "name": "fig-augmentation"}, "image": {"alt": "Four rows of five pictures: the crop and its parts, unchanged on the left and then differently shifted, scaled, recoloured and mirrored in each epoch; more strongly in the upper two rows than in the lower two."}}
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
epochs = [None, 1, 2, 3, 4]
picture_grid(
    [*several(PAPER_AUGMENT, epochs), *several(LITE_AUGMENT, epochs)],
    titles=[f"epoch {epoch}" if epoch else "before" for epoch in epochs],
    labels=("paper", "parts", "lite", "parts"),
    side=1.46,
)
plt.show()

# %% [markdown]
# ## Who is in the data
#
# A network learns the distribution of its training data, for example the directions that people face. {numref}`fig-people` counts it
# for all people of the training split.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Distributions over all people of the training split. Visible: share of the body's silhouette inside of the crop on which the person is visible; the rest is hidden, or outside of the frame.", "name": "fig-people"}, "image": {"alt": "Six histograms in per cent of people: people per frame, direction of the pelvis, height, distance, field of view, and the visible share of the silhouette, most of which is close to complete."}}
whole, counted_split = (made, "train") if bedlam is None else (out, split)
counted, visible = [], []
for member in itertools.islice(read_members(find_shards(whole, counted_split), BadCount(0, 0)), count):
    counted.append(json.loads(member["json"]))
    if "depth.png" in member:
        depth_map, parts_map = (
            cv2.imdecode(np.frombuffer(member[name], np.uint8), cv2.IMREAD_UNCHANGED)
            for name in ("depth.png", "parts.png")
        )
        if parts_map.any():
            visible.append(((depth_map > 0) & (parts_map > 0)).sum() / (parts_map > 0).sum())


def column(name):
    return torch.tensor([label[name] for label in counted])


def frame_of(key):
    """Name of the frame; in the open data, people of a scene's second camera have numbers from 10."""
    start, _, last = key.rpartition("-")
    return start, len(last) < 6 and int(last) // 10


facing = roma.rotvec_to_rotmat(column("pose")[:, :3]) @ torch.tensor([0.0, 0.0, 1.0])
turn = torch.rad2deg(torch.atan2(facing[:, 0], -facing[:, 2])).numpy()
stature = dpose.load_body(str(counted[0]["body"]), vertex_stride=4)  # every fourth vertex, for the height
tall = [stature.rest_vertices(betas)[..., 1] for betas in column("betas").float().split(500)]
heights = torch.cat([y.amax(1) - y.amin(1) for y in tall]).numpy()
per_frame = Counter(frame_of(label["key"]) for label in counted)
together = np.array([per_frame[frame_of(label["key"])] for label in counted])
field = 2 * torch.atan(column("img_size").amax(1) / 2 / column("cam_int")[:, 0]).rad2deg().numpy()

figure, axes = plt.subplots(2, 3, figsize=(7.5, 4.7), layout="constrained")
panels = (
    (together, np.arange(0.5, together.max() + 1), "people", "labelled people in the frame"),
    (turn, np.arange(-180, 181, 30), "degrees; 0: towards the camera", "direction of the pelvis"),
    (heights, 16, "metres", "height"),
    (column("trans")[:, 2].numpy(), 16, "metres", "distance"),
    (field, 16, "degrees", "field of view, longer side"),
    (100 * np.array(visible), np.arange(0, 101, 5), "% of the silhouette", "visible"),
)
for axis, (values, bins, unit, title) in zip(axes.flat, panels, strict=True):
    axis.hist(values, bins, color=LEFT, weights=np.full(len(values), 100 / max(1, len(values))), rwidth=0.92)
    axis.set(xlabel=unit, title=title, ylabel="% of people")
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
axes[0, 1].set_xticks(range(-180, 181, 90))
plt.show()

# %% tags=["remove-input"]
Markdown(
    f"{len(counted):,} people, {heights.mean():.2f} ± {heights.std():.2f} m tall. {100 * np.mean(together > 1):.0f} % share the "
    f"frame with another labelled person; {100 * np.mean(abs(turn) < 45):.0f} % face the camera within 45°; on average "
    f"{100 * np.mean(visible):.0f} % of the silhouette is visible."
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Stored crops of the training split, drawn at random. Black is outside of the frame.", "name": "fig-crops"}, "image": {"alt": "Contact sheet of small square crops of people in many poses, clothes, rooms and kinds of light."}}
picked = set(rng.choice(len(counted), min(sheet, len(counted)), replace=False).tolist())
crops = [
    decode_sample(member)["image"]
    for i, member in enumerate(read_members(find_shards(whole, counted_split), BadCount(0, 0)))
    if i in picked
]
columns = min(8, len(crops))
figure, axis = plt.subplots(figsize=(7.5, 7.5 * -(-len(crops) // columns) / columns))
axis.imshow(
    contact_sheet([cv2.resize(crop, (120, 120), interpolation=cv2.INTER_AREA) for crop in crops], columns, 3)
)
axis.set_axis_off()
figure.subplots_adjust(0, 0, 1, 1)
plt.show()

# %% [markdown]
# ## The time for all of BEDLAM
#
# The time to prepare BEDLAM is its number of people times the time per person, frames included. For crops of 280 pixels that time is in
# the record `results/loader.json`; how it divides into reading frames and cutting people is measured here. This is an estimate: BEDLAM
# has more people per frame. They share the reading of the frame, but the search for their masks takes longer. Waiting for a
# disk is not included. [Real data, step by step](../book/real_data.md) has the disk space.

# %% tags=["remove-input"]
clock = time.process_time  # depends little on other processes
trial = spread[:: max(1, len(spread) // tried)][:tried]


def measure(size):
    """Seconds of processor time to read a frame and to cut a person out, for crops of `size` pixels."""
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_frame(scene, imgname, members, labels, size, bodies, skipped=Skipped())  # loads the renderer
        started = clock()
        for s, _, name in trial:
            read_png(s.images / name)
            if s.depth is not None:
                read_depth(files_of(s, name)["depth"][0])
        reading = clock() - started
        cut_people = 0
        started = clock()
        for s, table, name in trial:
            for sample in read_frame(s, name, frames_of(table)[name], table, size, bodies, skipped=Skipped()):
                encode_sample(sample)
                cut_people += 1
        total = clock() - started
    return reading / len(trial), max(0.0, total - reading) / cut_people


CORES = (1, 16, 64)


def time_on_cores(seconds):
    times = (seconds / cores for cores in CORES)
    return [f"{t / 3600:.2g} hours" if t >= 3600 else f"{t / 60:.2g} minutes" for t in times]


frame_s, person_s = measure(PRESETS["paper"])
size = raced["stored_side"]
rows = [
    (
        f"frames to shards, {size} pixels",
        *time_on_cores(BEDLAM["people"] * raced["cutting_ms_per_sample"] / 1000),
    )
]
plan = recipe("paper")
loading = plan.steps * plan.batch_size / rates["prepared shards"]
rows.append((f"loading {plan.steps:,} batches of {plan.batch_size}, {size} pixels", *time_on_cores(loading)))
html_table(
    ("what", *(f"{cores} core{'s' * (cores > 1)}" for cores in CORES)),
    rows,
    f"Time for all of BEDLAM, estimated: {BEDLAM['images']:,} images, {BEDLAM['people']:,} people",
)

# %% tags=["remove-input"]
read_tb = (BEDLAM["png"] + BEDLAM["depth"]) / BEDLAM["rate"] / 1e12
disk = 150e6  # bytes per second
Markdown(
    f"In the record a person takes {raced['cutting_ms_per_sample']:.0f} ms, which includes the reading of the frames ({raced['frames']} frames for {raced['people']} people). On the frames of this page, "
    f"reading a frame's image and depth takes {1000 * frame_s:.0f} ms, and cutting out a person another {1000 * person_s:.0f} ms (crops of {PRESETS['paper']} pixels). The shards are "
    f"{1e12 * read_tb / (BEDLAM['people'] * raced['bytes_per_sample']):.0f} times smaller than the images and depth maps they are cut from. A hard disk that reads {disk / 1e6:.0f} MB per "
    f"second needs {1e12 * read_tb / disk / 3600:.1f} hours for those {read_tb:.1f} TB, so with many cores the disk is the limit. The row about loading "
    "is for as many batches as the paper's training has."
)

# %% [markdown]
# ## Other data sets
#
# AGORA is the second training set. {term}`3DPW` {cite:p}`threedpw`, {term}`EMDB` {cite:p}`emdb` and {term}`RICH` {cite:p}`rich` are photographs of
# people whose pose was measured; the paper tests on them. All become the same kind of shards.

# %% tags=["remove-input"]
TRUTH = {
    "bedlam": "neutral SMPL-X, depth and masks",
    "agora": "neutral SMPL-X, no depth",
    "3dpw": "SMPL of the person's gender",
    "emdb": "SMPL of the person's gender; EMDB 1, good frames",
    "rich": "SMPL-X of the person's gender",
}


def made_of(name, given):
    """The splits that prepare makes of a split of the set's files."""
    return "train and val" if given == "train" and name not in WHOLE else given


html_table(
    ("command", "ground truth", "makes", "with --split", "protocol"),
    [
        (
            f"dpose prepare {name}",
            TRUTH[name],
            made_of(name, module.SPLITS[0]),
            "; ".join(
                f"{given}: {made_of(name, given)}" if given != made_of(name, given) else given
                for given in module.SPLITS[1:]
            )
            or "–",
            module.PROTOCOL,
        )
        for name, module in ((name, set_module(name)) for name in SETS)
    ],
    "The data sets that the package reads, the splits of the shards, and the protocol by which each is scored",
    align="lllll",
)

# %% [markdown]
# ## The open data
#
# The open data exist so that everything in this book runs without an account. The bodies are the open body, made from MakeHuman's public-domain figures
# {cite:p}`makehuman`; clothes, rooms, trees and light are program code. Warp {cite:p}`warp` renders validation and test images by ray
# tracing and training images by rasterisation. The images are plainer than BEDLAM's; the labels are exact.
#
# In validation and test, people face all directions equally often, and the size of a person in the image is independent of the focal length. No
# person occurs in two splits. A scene is a function of seed, split and number alone, so that a small data set is the beginning of a
# large one. Training scenes, and those of the split `hard`, have random *options* that make people and images more varied, because
# networks trained on rendered people do worse on [photographs](photographs.ipynb) (a {term}`domain gap`). {numref}`fig-options` shows
# eight of them. Validation and test have none.
#
# ```sh
# dpose synth --root ~/data/open --hard 250                   # with 250 scenes "hard"
# dpose synth --root ~/data/open --without groups tone        # without two options
# dpose synth --root ~/data/open --train 1000000 --part 3/16  # one of 16 jobs
# dpose train --data synth: --preset lite --out runs/own     # renders while training
# ```

# %% tags=["remove-input"]
about = re.findall(r"(\w+): float = [\d.]+  # (\w+): (.+)", inspect.getsource(Variety))
about = {name: (per, re.sub(r" \(`.*`\)", "", text)) for name, per, text in about}
html_table(
    ("option", "probability", "per", "what it does"),
    [(name, f"{getattr(Variety, name):.2f}", *about[name]) for name in OPTIONS],
    "Options of training scenes (dpose.synthetic.variety)",
    align="lrll",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Eight options of training scenes, one person each: on the left without any option, on the right with this option alone.", "name": "fig-options"}, "image": {"alt": "Eight pairs of crops, titled with the name of an option. In each pair the same person is plain on the left; on the right the pose, company, clothes, objects, light, background or sharpness is different."}}
SHOWN = {  # option: number of a training scene, and of one of its people
    "poses": (16, 0),
    "groups": (75, 0),
    "clothes": (14, 0),
    "belongings": (19, 0),
    "tables": (1, 0),
    "light": (3, 0),
    "backgrounds": (9, 0),
    "focus": (18, 0),
}


def crop_with(variety, number, who):
    """The crop (160, 160, 3) of a person of a training scene."""
    for sample in person_samples(sample_scene(0, "train", number, variety), 160):
        if sample["label"]["key"].endswith(f"-{who}"):
            return sample["image"]


figure, axes = plt.subplots(2, 4, figsize=(7.5, 2.65), layout="constrained")
for axis, (name, place) in zip(axes.flat, SHOWN.items(), strict=True):
    pair = [crop_with(variety, *place) for variety in (PLAIN, replace(PLAIN, **{name: 1.0}))]
    axis.imshow(contact_sheet(pair, columns=2, gap=3))
    bare(axis, name)
plt.show()

# %% tags=["remove-input"]
speed = read_json(results / "synthetic.json")
rate = {name: run["samples_per_second_and_core"] for name, run in speed["rates"].items()}
texts = [
    f"One core ({speed['hardware']['cpu']}) renders {rate['training, 160 pixels']:.0f} training crops of 160 pixels per second, and "
    f"{rate['validation and test, 160 pixels']:.0f} of validation and test (`results/synthetic.json`)."
]
if bedlam is None:
    stored = {}
    for member in itertools.islice(read_members(find_shards(made, "test"), BadCount(0, 0)), 80):
        sample = decode_sample(member)
        stored[sample["label"]["subject"], int(sample["label"]["key"].split("-")[2])] = sample
    equal, apart = [], []
    for ours in itertools.islice(read_scenes(scenes, synthetic["size"]), 16):
        number = int(ours["label"]["key"].split("seq_")[1].split("_")[0].split("-")[0])
        other = stored.get((ours["label"]["subject"], number))
        if other is not None:
            equal.append((ours["parts"] == other["parts"]).mean())
            apart.append(np.abs(np.subtract(ours["label"]["joints2d"], other["label"]["joints2d"])).max())
    texts.append(
        f"Crops are rendered directly, by a camera that covers the box. For a sample of {len(equal)} people, crops cut out of full frames "
        f"by the code that reads BEDLAM have the same labels (2D joints within {max(apart):.5f} pixels) and the same parts in {100 * np.mean(equal):.1f} % of the pixels."
    )
    per_split = ", ".join(f"{name} {number:,}" for name, number in synthetic["splits"].items())
    each = sum(s["bytes"] for s in synthetic["shards"]) / sum(synthetic["splits"].values())
    texts.append(f"The open data used here: {per_split} people, {each / 1e3:.0f} kB each.")
Markdown(" ".join(texts))

# %% [markdown]
# ## Takeaways
#
# - Every data set becomes one table of labels and then shards of crops, with part labels rendered from the labelled body and depth of the
#   visible person.
# - Reading whole frames for each person and epoch is an order of magnitude slower than reading prepared crops, so preparation is done
#   once and training reads shards.
# - Augmentation, order and shards follow from seeds and keys alone: data can be made again with the same bytes, and a run can be repeated.
#
# ## Exercises
#
# **Exercise 1.** Delete one of the shards made above and run the same `prepare` again. Is the result the same data set, byte for byte? The fingerprint in
# `manifest.json` is a hash of the hashes of all shards.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
(out / "shards" / manifest["shards"][0]["name"]).unlink()
with redirect_stdout(io.StringIO()) as printed:
    again = prepare("bedlam", root, out, workers=1, say=print, **settings)
assert again["fingerprint"] == manifest["fingerprint"] and again["shards"] == manifest["shards"]
made_already = int(re.search(r"made already (\d+)", printed.getvalue())[1])
Markdown(
    f"{made_already} of {len(manifest['shards'])} shards were kept and the missing one was made again; the fingerprint is the same, "
    f"`{again['fingerprint'][:16]}`."
)

# %% [markdown]
# **Exercise 2.** What does preparation do with a frame whose image is cut in half, whose depth map is cut in half, or which lost the masks of one
# person? Make damaged copies of the frame above and read them with `read_frame`.


# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_first_person(path):
    if f"_{mask_numbers(scene.masks, imgname)[0]}_" in path.name:
        path.unlink()


@contextmanager
def quiet():
    """Drop what the readers of PNG and EXR files print about files that they cannot read."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # libraries in C write to the file descriptor
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


rows = []
for kind, what, damage in (
    ("image", "image cut in half", half),
    ("depth", "depth cut in half", half),
    ("masks", "masks of one person missing", drop_first_person),
):
    if not files_of(scene, imgname)[kind]:
        continue
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        quiet(),
    ):
        warnings.simplefilter("ignore")
        copies = {name: Path(folder) / name for name in ("image", "depth", "masks")}
        for name, paths in files_of(scene, imgname).items():
            for path in paths:
                copy = copies[name] / Path(imgname).parent / path.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
                if name == kind:
                    damage(copy)
        maps = (copies["depth"], copies["masks"]) if scene.depth else (None, None)
        damaged, report = FrameSet(scene.name, scene.labels, copies["image"], *maps), Skipped()
        used = read_frame(damaged, imgname, members, labels, PRESETS["lite"], bodies, skipped=report)
        reasons = [re.sub(r"/tmp/\S*/", "", fault) for fault in report.faults]
        reasons += [f"left out: {rule}" for rule in report.dropped]
        rows.append((what, f"{len(used)} of {len(members)}", "; ".join(reasons)))
html_table(("damage", "people used", "reported"), rows, "One frame with damaged files", align="lll")

# %% [markdown]
# **Exercise 3.** The batch above mixes two sets three to one. How many people of the second set do you expect in 32, and how much does the
# number vary? Count it over ten batches.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
# Each person comes from the second set with probability 1/4: binomial, mean 32 / 4 = 8, deviation sqrt(32 · 1/4 · 3/4).
found = [sum("-plain-" in key for key in one["key"]) for one in itertools.islice(loader, 10)]
expected, deviation = 32 / 4, (32 * 0.25 * 0.75) ** 0.5
assert abs(np.mean(found) - expected) < 4 * deviation / len(found) ** 0.5
Markdown(
    f"Expected: {expected:.0f} ± {deviation:.1f}. Found in {len(found)} batches: {', '.join(map(str, found))}, on average {np.mean(found):.1f}."
)
