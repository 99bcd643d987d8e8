# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The data, made and looked at
#
# Before a network can learn where a body is, somebody has to know. No person can draw the depth of every
# pixel of a photograph, or 22 joint rotations, so methods of this kind learn from computer graphics:
# BEDLAM {cite:p}`bedlam`, which the paper trains on {cite:p}`dpose`, is rendered in a game engine, and so
# are its labels. BEDLAM, AGORA {cite:p}`agora` and the SMPL-X body {cite:p}`smplx` are for research only,
# behind a registration, and may not be passed on. A book that everybody can build needs people of its
# own.
#
# So this page makes them. The bodies are the open body of this project, public domain like the MakeHuman
# figures {cite:p}`makehuman` that it comes from. Clothes, rooms, trees and light are program code; the
# photographs on the walls are sample pictures of scikit-image. A ray caster {cite:p}`warp` draws all of
# it. The images are plainer than BEDLAM's, and nobody should expect a network to cope with photographs
# after seeing nothing else. But they come in BEDLAM's own files, so that whatever reads these reads
# those, and their labels are exact.

# %% tags=["parameters"]
data = None  # data root; None: $DPOSE_DATA, else the open data in the user's cache
train_scenes = 1500  # how much to make, if nothing is there yet
val_scenes = 250
test_scenes = 750
frames = 24  # full test frames among it
seed = 0
frame = 19  # the full frame to show
person = 34  # the training crop to take apart: its number within the first shard
hidden = 22  # another one, of whom less is seen
sheet = 60  # crops on the contact sheet

# %% tags=["hide-input"]
import itertools
import json
import tarfile
import time
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
from IPython.display import Image, Markdown
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch, Rectangle

import dpose
from dpose import load_body
from dpose.body import JOINT_NAMES, PARENTS
from dpose.data.augment import MINI, NONE, PAPER, picture_transforms, sample_generator
from dpose.data.bedlam import read_bedlam
from dpose.data.depth import depth_target
from dpose.data.frames import mask_numbers, read_depth, read_png
from dpose.data.labels import Labels
from dpose.data.loader import BadCount, find_shards, make_loader, prepare_sample, read_members
from dpose.data.sample import crop_matrix
from dpose.data.shards import decode_sample, read_manifest
from dpose.data.synthetic import generate, person_samples, sample_scene, write_frames
from dpose.data.synthetic.poses import ACTIVITIES
from dpose.figures import INK, NOBODY, colour_parts, contact_sheet, html_table, part_palette
from dpose.paths import data_root, shard_folder

LEFT, MIDDLE, RIGHT = "#0072B2", "#009E73", "#E69F00"
ink = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color")
plt.rcParams.update(dict.fromkeys(ink, INK))
plt.rcParams.update(
    {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "figure.dpi": 130,
        "font.size": 9,
        "axes.titlesize": 9,
    }
)
torch.set_grad_enabled(False)
rng = np.random.default_rng(seed)

# %% [markdown]
# If the data is already there, the next cell does nothing. Otherwise it makes it, as `dpose synth` would.
# The seed decides everything: a scene is a function of (seed, split, number), so a small data set is the
# beginning of a large one, and an interrupted run goes on where it stopped. No person occurs in two
# splits.

# %%
root = data_root(data)
if read_manifest(shard_folder(root)) is None:
    generate(root, {"train": train_scenes, "val": val_scenes, "test": test_scenes}, seed=seed, frames=0)
manifest = read_manifest(shard_folder(root))
if manifest.get("generator") != "dpose.data.synthetic":
    raise ValueError(f"{root} holds other data; this page shows the open data: set `data` to its folder")
if not (root / "frames" / "labels" / "open_test.npz").is_file():
    write_frames(root / "frames", "test", frames, seed=manifest["seed"], progress=False)
labels = Labels.load(root / "frames" / "labels" / "open_test.npz")

# %% tags=["hide-input"]
html_table(
    ("split", "shards", "people", "megabytes"),
    [
        (
            split,
            str(sum(shard["split"] == split for shard in manifest["shards"])),
            f"{people:,}",
            f"{sum(s['bytes'] for s in manifest['shards'] if s['split'] == split) / 1e6:.1f}",
        )
        for split, people in manifest["splits"].items()
    ],
    f"Crops of {manifest['size']} × {manifest['size']} pixels, made from seed {manifest['seed']}",
)

# %% [markdown]
# ## The folders of BEDLAM
#
# BEDLAM is a collection of scenes, each filmed in sequences. Beside every image lie a depth map in 32-bit
# floating point, measured in the game engine's centimetres, and one black and white image a person for
# bare skin and another for clothes. All labels of a scene are in one file. Ours look the same, with a
# single frame a sequence:


# %%
def tree(folder, depth=0, show=2):
    """The folder as lines of text; of many similar entries only the first few."""
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    many = len(entries) > 8
    for path in entries[: show if many else None]:
        yield (
            "    " * depth + path.name + ("/" if path.is_dir() else f"  {path.stat().st_size / 1e3:,.0f} kB")
        )
        if path.is_dir():
            yield from tree(path, depth + 1, 1)
    if many:
        yield "    " * depth + f"... {len(entries) - show} more"


print("\n".join(tree(root / "frames")))

# %% [markdown]
# The label file is a table with one row for each person in each frame. Its columns are the only
# description of a person that the rest of the code ever sees; every data set is turned into them once.

# %% tags=["hide-input"]
MEANING = {
    "imgname": "the frame, below the scene's png folder",
    "center": "centre of the person's square box, pixels",
    "scale": "side of the box / 200 pixels",
    "pose_cam": "rotation of each of 55 joints as axis and angle, radians; the root seen from the camera",
    "shape": "shape coefficients (betas)",
    "trans_cam": "where the body stands from the camera, metres",
    "gtkps": "joints in the image: x, y in pixels, confidence",
    "cam_int": "intrinsics: focal length and principal point, pixels",
    "cam_ext": "world to camera (here: identity)",
    "gender": "body model that was used",
    "sub": "who it is",
    "motion_info": "what they are doing",
}
html_table(
    ("column", "of each row", "meaning"),
    [
        (name, " × ".join(map(str, getattr(labels, name).shape[1:])) or "one value", text)
        for name, text in MEANING.items()
    ],
    f"labels/open_test.npz: {len(labels)} people in {len(set(labels.imgname))} frames",
    align="lll",
)

# %% [markdown]
# ## One frame
#
# This is everything that the data says about one frame. Coloured lines join the labelled joints (blue the
# person's left side, orange the right); they come from the labels alone, and fit because the camera does.
# The box is drawn around the joints that lie inside the frame and then enlarged by a fifth, as in BEDLAM.
# Depth is the distance along the camera's axis, for the whole scene. The masks tell people apart, and
# skin (light) from clothes (dark).


# %% tags=["hide-input"]
def draw_joints(axis, joints, width=1.6, matrix=None):
    """Bones between the first 22 joints (J, 3), in pixels of the frame or, by `matrix` (2, 3), of a cut."""
    points = np.asarray(joints)[:22, :2]
    if matrix is not None:
        points = points @ matrix[:, :2].T + matrix[:, 2]
    for joint, parent in enumerate(PARENTS[:22]):
        if joint:
            side = JOINT_NAMES[joint].split("_")[0]
            colour = {"left": LEFT, "right": RIGHT}.get(side, MIDDLE)
            axis.plot(
                *points[[parent, joint]].T, color="white", linewidth=width + 1.2, solid_capstyle="round"
            )
            axis.plot(*points[[parent, joint]].T, color=colour, linewidth=width, solid_capstyle="round")
    axis.scatter(*points.T, s=3 * width**2, color="white", edgecolors="black", linewidths=0.4, zorder=3)


def bare(axis, title=""):
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
    axis.set_title(title, fontsize=9)


imgname = list(dict.fromkeys(labels.imgname.tolist()))[frame % len(set(labels.imgname))]
rows = np.flatnonzero(labels.imgname == imgname)
scene, stem = root / "frames" / "open_test", Path(imgname).with_suffix("")
image = read_png(scene / "png" / imgname)
metres = read_depth(scene / "depth" / stem.with_name(stem.name + "_depth.exr"))
height, width = image.shape[:2]
masks = np.full((height, width, 3), NOBODY, np.uint8)
hues = ((230, 159, 0), (86, 180, 233), (204, 121, 167))
for number, hue in zip(mask_numbers(scene / "masks", imgname), hues, strict=False):
    for kind, light in (("clothing", 0.6), ("body", 1.0)):
        mask = read_png(scene / "masks" / stem.with_name(f"{stem.name}_{number}_{kind}.png"), gray=True) > 127
        masks[mask] = np.array(hue) * light

figure, axes = plt.subplot_mosaic(
    [["image", "image"], ["depth", "masks"]],
    figsize=(8.6, 7.6),
    height_ratios=(2.05, 1),
    layout="constrained",
)
axes["image"].imshow(image)
for row in rows:
    draw_joints(axes["image"], labels.gtkps[row])
    side = 200 * labels.scale[row]
    corner = labels.center[row] - side / 2
    axes["image"].add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=1.5))
    axes["image"].text(
        *np.clip(corner + (8, 26), (8, 26), (width - 160, height - 8)),
        f"{labels.motion_info[row].replace('_', ' ')}, {labels.transl[row, 2]:.1f} m",
        color="white",
        fontsize=8,
        bbox={"facecolor": "black", "alpha": 0.55, "pad": 2, "linewidth": 0},
    )
seen = np.isfinite(metres) & (metres < 50)
shown = axes["depth"].imshow(
    np.where(seen, metres, np.nan), cmap="cividis_r", vmax=np.percentile(metres[seen], 97)
)
inset = axes["depth"].inset_axes([0.03, 0.06, 0.4, 0.05])
bar = figure.colorbar(shown, cax=inset, orientation="horizontal")
bar.outline.set_visible(False)
inset.tick_params(
    labelsize=7, colors="white", length=2, pad=1.5, labeltop=True, labelbottom=False, top=True, bottom=False
)
axes["masks"].imshow(masks)
focal = labels.cam_int[rows[0], 0, 0]
bare(axes["image"], f"{imgname}: {width} × {height} pixels, focal length {focal:.0f} pixels")
bare(axes["depth"], "depth, metres")
bare(axes["masks"], "masks")
for name in ("image", "masks"):
    axes[name].set(xlim=(0, width), ylim=(height, 0))
plt.show()

# %% [markdown]
# ## What a scene is made of
#
# A network learns the distribution it is shown, including what we would rather it did not: if everybody
# faced the camera, it would believe that people do. So the generator draws the direction a person faces
# evenly from the full circle, poses from eleven activities, and heights from the open body's adults. How
# much of the frame a person fills and the focal length are drawn independently, so that size in the image
# does not tell the distance. Many people share the frame with others, and posts, tables and plants stand
# in the way of some.
#
# The panels below show what came out, counted from the labels of the training crops. Activities are not
# stored with a crop, so for that panel scenes are drawn again from their seeds, which gives the same
# people.

# %% tags=["hide-input"]
shards = find_shards(root, "train")
people, members = [], list(read_members(shards[:1], BadCount(0, 0)))
for shard in shards[:4]:
    with tarfile.open(shard) as tar:
        people += [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
crops = [decode_sample(member) for member in members]
again = [sample_scene(manifest["seed"], "train", index) for index in range(150)]
doing = [activity for scene_ in again for activity in scene_.activities]

column = lambda name: torch.tensor([label[name] for label in people])  # noqa: E731
facing = roma.rotvec_to_rotmat(column("pose")[:, :3]) @ torch.tensor([0.0, 0.0, 1.0])
turn = torch.rad2deg(torch.atan2(facing[:, 0], -facing[:, 2])).numpy()
body = load_body()
tall = lambda betas: (lambda y: y.amax(1) - y.amin(1))(body.rest_vertices(betas)[..., 1])  # noqa: E731
heights = torch.cat([tall(betas) for betas in column("betas").float().split(100)]).numpy()
sight = lambda crop: ((crop["depth"] > 0) & (crop["parts"] > 0)).sum() / (crop["parts"] > 0).sum()  # noqa: E731
visible = np.array([sight(crop) for crop in crops])

figure, axes = plt.subplots(2, 3, figsize=(8.6, 5.2), layout="constrained")
figure.get_layout_engine().set(hspace=0.06, wspace=0.04)
names = list(ACTIVITIES)
axes[0, 0].barh(names, [100 * doing.count(name) / len(doing) for name in names], color=LEFT)
axes[0, 0].plot(
    [100 * ACTIVITIES[name] for name in names], names, "|", color="#D55E00", markersize=9, markeredgewidth=2
)
axes[0, 0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
axes[0, 0].invert_yaxis()
axes[0, 0].set(xlabel="% of people (mark: asked for)", title="activity")
panels = (
    (axes[0, 1], turn, np.arange(-180, 181, 30), "degrees; 0 towards the camera", "direction of the pelvis"),
    (axes[0, 2], heights, 16, "metres, standing straight", "height"),
    (axes[1, 0], column("trans")[:, 2].numpy(), 16, "metres", "distance"),
    (
        axes[1, 1],
        column("cam_int")[:, 0].numpy(),
        np.arange(700, 1801, 100),
        "pixels, images 1280 wide",
        "focal length",
    ),
    (axes[1, 2], 100 * visible, np.arange(0, 101, 5), "% of the body's silhouette", "in sight"),
)
for axis, values, bins, unit, title in panels:
    axis.hist(values, bins, color=LEFT, weights=np.full(len(values), 100 / len(values)), rwidth=0.92)
    axis.set(xlabel=unit, title=title, ylabel="% of people")
axes[0, 1].set_xticks(range(-180, 181, 90))
for axis in axes.flat:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x" if axis is axes[0, 0] else "y", color=INK, alpha=0.25, linewidth=0.5)
    axis.set_axisbelow(True)
plt.show()

frame_of = [label["key"].rsplit("-", 1)[0] for label in people]
together = np.array([frame_of.count(name) for name in frame_of])
Markdown(
    f"{len(people):,} people, {heights.mean():.2f} ± {heights.std():.2f} m tall; "
    f"{100 * np.mean(together > 1):.0f} % of them share the frame with another labelled person. "
    f"Activities from {len(doing)} people in {len(again)} scenes; sight from {len(crops)} crops."
)

# %% [markdown]
# "In sight" is the share of the body's outline on which this person can be seen; the rest is behind
# somebody or something, or beyond the edge of the frame. People of whom less than about 30 % is left are
# not used.
#
# ## A contact sheet
#
# Statistics do not show whether the pictures are any good. These crops were drawn at random, not chosen.
# Black is where the square reaches beyond the frame, which happens to photographs, too.

# %% tags=["hide-input"]
picked = rng.choice(len(crops), min(sheet, len(crops)), replace=False)
ok, jpeg = cv2.imencode(
    ".jpg",
    contact_sheet([crops[i]["image"] for i in picked], columns=6, gap=3)[..., ::-1],
    [cv2.IMWRITE_JPEG_QUALITY, 88],
)
Image(data=jpeg.tobytes(), format="jpeg")

# %% [markdown]
# ## From a crop to training targets
#
# Frames are large, and a training step uses only one square of each. So the crops are cut once, with a
# margin of an eighth on every side for the jitter below, and stored by the thousand in tar files
# ("shards"). Four small files a person: the image, the person's depth, the part labels, and the numbers.
#
# **Parts** are rendered, not photographed: each vertex of the body belongs to the joint that moves it
# most, with fingers counted to the wrists, jaw and eyes to the head. The naked body is drawn alone, so a
# hidden arm is labelled as if nothing stood before it, and a skirt is background. The network has to
# learn to say where a part *is*, which is not the same as where it shows.

# %% tags=["hide-input"]
config = dpose.preset("mini")
crop = crops[person % len(crops)]
label = crop["label"]

figure, axes = plt.subplots(2, 3, figsize=(8.6, 5.9), layout="constrained")
for line, shown in zip(axes, (crop, crops[hidden % len(crops)]), strict=True):
    made = prepare_sample(shown, config)
    to_crop = crop_matrix(shown["label"]["center"], shown["label"]["scale"], config.image_size)
    for axis in line:
        bare(axis)
    line[0].imshow(made["image"])
    line[1].imshow(made["image"])
    draw_joints(line[1], shown["label"]["joints2d"], 1.8, to_crop)
    line[1].set(xlim=(0, config.image_size), ylim=(config.image_size, 0))
    line[2].imshow(colour_parts(made["parts"]), interpolation="nearest")
titles = (
    f"image, {config.image_size} × {config.image_size}",
    "joints",
    f"parts, {config.map_size} × {config.map_size}",
)
for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title)
palette = part_palette() / 255
arm, leg = ("collar", "shoulder", "elbow", "wrist"), ("hip", "knee", "ankle", "foot")
order = ["pelvis", "spine1", "spine2", "spine3", "neck", "head", "", ""]  # columns of four
order += [f"{side}_{name}" for limb in (arm, leg) for side in ("left", "right") for name in limb]
number = {name: JOINT_NAMES.index(name) + 1 for name in order if name}
blank = Patch(alpha=0, label=" ")
handles = [
    Patch(color=palette[number[name]], label=f"{number[name]} {name.replace('_', ' ')}") if name else blank
    for name in order
]
figure.legend(
    handles=handles,
    ncols=6,
    loc="outside lower center",
    fontsize=7.5,
    frameon=False,
    handlelength=1.2,
    labelcolor=INK,
)
plt.show()

# %% [markdown]
# **Depth** in metres would be impossible to tell from one image: a child nearby and a giant far away look
# the same. What an image does show is which part of a person is nearer than another, so the paper's
# target keeps only that. Take this person's visible pixels; the nearest becomes 0.1, the farthest 1,
# everything in between in proportion; everything else is exactly 0. The step from 0 to 0.1 separates the
# person from the background.

# %% tags=["hide-input"]
target = depth_target(crop["depth"])
on_person = target > 0
cividis = ListedColormap(plt.get_cmap("cividis_r")(np.linspace(0, 1, 256)))
cividis.set_bad(np.array(NOBODY) / 255)
figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.9), width_ratios=(1, 1, 0.95), layout="constrained")
figure.get_layout_engine().set(wspace=0.04)
for axis, values in ((axes[0], crop["depth"]), (axes[1], target)):
    drawn = axis.imshow(np.where(on_person, values, np.nan), cmap=cividis, interpolation="nearest")
    bar = figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.invert_yaxis()
bare(axes[0], "this person's depth, metres")
bare(axes[1], "depth target")
share = 100 / target.size
axes[2].hist(
    target[~on_person], np.linspace(0, 1.0, 41), color=INK, weights=np.full((~on_person).sum(), share)
)
axes[2].hist(target[on_person], np.linspace(0, 1.0, 41), color=LEFT, weights=np.full(on_person.sum(), share))
top = 1.25 * share * np.histogram(target[on_person], np.linspace(0, 1.0, 41))[0].max()
axes[2].set(
    xlabel="target",
    ylabel="% of all pixels",
    ylim=(0, top),
    xlim=(-0.02, 1.02),
    title="how often each value occurs",
)
axes[2].annotate(
    f"background: {share * (~on_person).sum():.0f} %",
    (0.03, 0.97 * top),
    (0.16, 0.9 * top),
    fontsize=8,
    arrowprops={"arrowstyle": "->", "color": INK},
)
axes[2].spines[["top", "right"]].set_visible(False)
plt.show()

# %% tags=["hide-input"]
person_depth = crop["depth"][on_person]
Markdown(
    f"Metres: {person_depth.min():.2f} to {person_depth.max():.2f}. "
    f"Target: background {{{', '.join(f'{v:g}' for v in np.unique(target[~on_person]))}}}, "
    f"person {target[on_person].min():.3f} to {target[on_person].max():.3f}, "
    f"{on_person.mean():.0%} of the stored crop."
)

# %% [markdown]
# The colours follow the same rule on every page: near is bright, far is dark.
#
# ## Augmentation: the same crop, never the same twice
#
# During training each crop is changed at random each time it is used. First its box: now and then only
# half of it, always a little larger or smaller. Then the picture: lower resolution, JPEG, rain, blur,
# snow; grey, noise, other colours and contrast; boxes of noise over it. The strengths are the paper's
# where it gives them. `MINI` has little time to learn, so it gets milder jitter, and mirror images, which
# double the data: there the labels are mirrored as well and left and right trade places (compare the
# colours of the legs).


# %% tags=["hide-input"]
def several(augment, epochs):
    """(image, parts) of the crop in some epochs; None is the crop unchanged."""
    pairs = []
    for epoch in epochs:
        strength = NONE if epoch is None else augment
        generator = sample_generator(seed, epoch or 0, label["key"])
        row = prepare_sample(crop, config, strength, generator, picture_transforms(strength))
        pairs.append((row["image"], colour_parts(row["parts"])))
    return zip(*pairs, strict=True)


epochs = [None, 1, 2, 3, 4, 5]
lines = [*several(PAPER, epochs), *several(MINI, epochs)]
figure, axes = plt.subplots(4, 6, figsize=(8.6, 5.9), layout="constrained")
for line, pictures in zip(axes, lines, strict=True):
    for axis, picture in zip(line, pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
        bare(axis)
for axis, epoch in zip(axes[0], epochs, strict=True):
    axis.set_title(f"epoch {epoch}" if epoch else "before")
for axis, text in zip(axes[:, 0], ("the paper's", "its parts", "MINI's", "its parts"), strict=True):
    axis.set_ylabel(text)
plt.show()

# %% [markdown]
# ## Frames and crops agree
#
# Writing 1280 × 720 pixels with depth and masks for a hundred thousand people would fill hundreds of
# gigabytes, most of it never looked at. Training crops are therefore rendered directly, through the part
# of the camera that sees the box. That is only allowed if it gives what cutting them from the frame would
# have given. So here the frames are read by the same code that reads BEDLAM, and compared person by
# person with the crops in the test shards:

# %% tags=["hide-input"]
stored = {}
for member in itertools.islice(read_members(find_shards(root, "test"), BadCount(0, 0)), 80):
    sample = decode_sample(member)
    stored[sample["label"]["subject"], int(sample["label"]["key"].split("-")[2])] = sample

differences = []
for cut in itertools.islice(read_bedlam(root / "frames", manifest["size"], body), 16):
    number = int(cut["label"]["key"].split("seq_")[1].split("_")[0].split("-")[0])
    other = stored.get((cut["label"]["subject"], number))
    if other is None:
        continue
    one, two = cut["depth"] > 0, other["depth"] > 0
    both = one & two
    far = np.abs(cut["depth"] - other["depth"])[both]
    differences.append(
        {
            "joints2d, largest difference, pixels": np.abs(
                np.array(cut["label"]["joints2d"]) - np.array(other["label"]["joints2d"])
            ).max(),
            "pose, largest difference, radians": np.abs(
                np.array(cut["label"]["pose"]) - np.array(other["label"]["pose"])
            ).max(),
            "parts, % of pixels equal": 100 * (cut["parts"] == other["parts"]).mean(),
            "person's pixels, overlap (IoU), %": 100 * both.sum() / (one | two).sum(),
            "depth, median difference, millimetres": 1000 * np.median(far),
            "image, mean difference of 255": np.abs(cut["image"].astype(float) - other["image"]).mean(),
        }
    )

html_table(
    (f"{len(differences)} people", "mean", "worst"),
    [
        (
            name,
            f"{np.mean(values):.4g}",
            f"{min(values) if '%' in name else max(values):.4g}",
        )
        for name in (differences[0] if differences else ())
        for values in [[row[name] for row in differences]]
    ],
    "Crops cut from full frames against crops rendered directly",
)

# %% [markdown]
# Labels are the same up to rounding, and so are the parts, which are rendered from the labels both times.
# The other pixels differ by what a change of resolution costs: the frame has been rendered on its own
# grid and then resampled, the crop directly on the finer or coarser one.
#
# ## What it costs

# %% tags=["hide-input"]
start = time.perf_counter()
made = sum(
    len(person_samples(sample_scene(manifest["seed"], "train", i), manifest["size"])) for i in range(12)
)
per_sample = (time.perf_counter() - start) / made

loader = iter(make_loader(root, "train", config, batch_size=32, train=True, seed=seed, shuffle_buffer=1))
next(loader)
start = time.perf_counter()
loaded = sum(len(batch["key"]) for batch in itertools.islice(loader, 4))
per_load = (time.perf_counter() - start) / loaded

stored_bytes = sum(s["bytes"] for s in manifest["shards"]) / sum(manifest["splits"].values())
frame_files = [path for path in (root / "frames").rglob("*") if path.is_file()]
frame_bytes = sum(path.stat().st_size for path in frame_files) / len(labels)
html_table(
    ("", "measured here"),
    [
        ("one person as a crop in a shard", f"{stored_bytes / 1e3:.1f} kB"),
        ("one person's share of full frames", f"{frame_bytes / 1e3:,.0f} kB"),
        ("making one crop, one process", f"{1000 * per_sample:.0f} ms"),
        ("reading one for training, augmented, one process", f"{1000 * per_load:.1f} ms"),
        (
            "so: 100,000 crops, one process",
            f"{100_000 * per_sample / 3600:.1f} hours, {stored_bytes / 1e4:.1f} GB",
        ),
    ],
    "Time and space on the machine that built this page, busy or not",
)
