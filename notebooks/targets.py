# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Robustness of targets and cameras
#
# The chapter on the [decoders](decoders.ipynb) defines the targets of the depth map and of the part map in a few
# lines. This appendix examines what these lines leave open. How does the depth target depend on single wrong
# pixels and on the rule of normalisation? And which camera should the parts be rendered with? In both cases the
# authors' released code differs from the text of the paper or adds to it, and this package offers both variants.
#
# :::{chapter}
# :needs: the targets in [The decoders: depth map and body parts](decoders.ipynb), perspective projection from [Bounding box and camera](camera.ipynb)
# :learn: how the two rules for the depth target differ; why a single pixel of sky can destroy a target, and what prevents it; how the camera of the released code places the parts, and how much its perspective differs from the image
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"} nbmake={"mock": {"people": 24, "frames": 6, "poses": 4}}
data = None  # data root; None: $DPOSE_DATA, else the open data
frame = 0  # the full frame to begin with
frames = 24  # full frames in which masks are made worse
people = 240  # test people for everything that is counted
shown = [3, 14]  # of these, the ones whose depth targets are drawn
poses = 16  # of these, the first are put at other places in front of the camera
seed = 0

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import itertools
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
from dpose.camera import crop_affine, project
from dpose.data.frames import Skipped, frames_of, mask_numbers, read_depth, read_person_mask, read_png
from dpose.data.labels import Labels
from dpose.data.loader import make_loader
from dpose.data.sets import bedlam
from dpose.data.shards import decode_sample
from dpose.data.sources import BadCount, find_shards, read_members
from dpose.data.targets import (
    PERSON_DEPTH_REACH,
    RELEASED_FOCAL,
    RELEASED_SIDE,
    depth_target,
    part_targets,
    person_pixels,
    released_intrinsics,
    released_translation,
)
from dpose.figures import (
    BACKGROUND,
    INK,
    colour_depth,
    colour_parts,
    html_table,
    percent,
    picture_grid,
    style_axis,
    to_picture,
)
from dpose.metrics import mean_iou, parts_confusion, parts_overlap
from dpose.model.inference import to_device
from dpose.paths import data_root

torch.set_grad_enabled(False)
rng = np.random.default_rng(seed)
BLUE, ORANGE = "#0072B2", "#D55E00"
RULES = ("formula alone", "formula with check", "released code")


def bare(axis, title=""):
    style_axis(axis)
    axis.grid(False)
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
    axis.set_title(title, fontsize=10, color=INK)


scenes = bedlam.scenes(data_root(data) / "frames", Path(), "test", Skipped(), Bodies())
scene = scenes[0]
names = list(frames_of(Labels.load(scene.labels)))


def read(imgname):
    """A frame's image (H, W, 3), depth (H, W) in metres, and the masks (H, W) of its people."""
    stem = Path(imgname).with_suffix("")
    metres = read_depth(scene.depth / stem.with_name(f"{stem.name}_depth.exr"))
    masks = [read_person_mask(scene.masks, imgname, n) for n in mask_numbers(scene.masks, imgname)]
    return read_png(scene.images / imgname), metres, [mask for mask in masks if mask.any()]


def square(mask, margin=1.2):
    """Slices of the square window around a mask, as far as it lies in the frame."""
    y, x = np.nonzero(mask)
    half = 0.5 * margin * max(np.ptp(x), np.ptp(y), 20)
    return tuple(
        slice(max(int(c - half), 0), int(c + half))
        for c in ((y.min() + y.max()) / 2, (x.min() + x.max()) / 2)
    )


image, metres, masks = read(names[frame % len(names)])
mask = max(masks, key=np.sum)
members = itertools.islice(read_members(find_shards(data, "test"), BadCount(0, 0)), people)
crops = [c for c in map(decode_sample, members) if c["depth"] is not None and (c["depth"] > 0).any()]

# %% [markdown]
# ## Depth: from the frame to the target
#
# {numref}`fig-targets-steps` shows a frame of the open data, which has the same files as {term}`BEDLAM`: an image,
# the depth of every pixel in 32 bits (distance along the camera's axis, stored in centimetres), and a mask of each
# person.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A frame; the depth of all its pixels, on a logarithmic scale; the mask of one person; and the depth under the mask, on a scale of its own. White: the window that the pictures on the right show.", "name": "fig-targets-steps"}, "image": {"alt": "Two rows of two pictures. Left, a frame with a person and the depth of the frame, in which the whole person has one colour. Right, a white silhouette on black and the depth of the person, in which the limbs have different colours."}}
window = square(mask)
own = np.where(mask & person_pixels(metres, mask), metres, np.nan)
cividis = plt.get_cmap("cividis_r").copy()
cividis.set_bad(np.array(BACKGROUND) / 255)
figure, axes = plt.subplots(2, 2, figsize=(7, 5.4), width_ratios=(1.78, 1), layout="constrained")
figure.patch.set_alpha(0)
axes[0, 0].imshow(image)
axes[0, 1].imshow(mask[window], cmap="gray", interpolation="nearest")
drawn = (
    axes[1, 0].imshow(metres, cmap=cividis, norm="log"),
    axes[1, 1].imshow(own[window], cmap=cividis, interpolation="nearest"),
)
titles = ("frame", "mask of one person", "depth of the frame (m)", "depth of the person (m)")
for axis, title in zip(axes.flat, titles, strict=True):
    bare(axis, title)
for axis, picture, form in zip(axes[1], drawn, ("{x:,.0f}", None), strict=True):
    bar = figure.colorbar(picture, ax=axis, orientation="horizontal", shrink=0.8, aspect=30, format=form)
    style_axis(bar.ax)
rows, columns = window
place = (columns.start, rows.start), columns.stop - columns.start, rows.stop - rows.start
for axis in axes[:, 0]:
    axis.add_patch(Rectangle(*place, fill=False, edgecolor="white", linewidth=1.5))
    axis.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
plt.show()

# %% tags=["remove-input"]
span = np.nanmax(own) - np.nanmin(own)
Markdown(
    f"The depth of this frame ranges from {metres.min():.2f} to {metres.max():,.0f}\u00a0m, that of the person from {np.nanmin(own):.2f} to "
    f"{np.nanmax(own):.2f}\u00a0m. On a linear scale for the whole frame, the person would occupy {100 * span / np.ptp(metres):.1g}\u00a0% of the range. "
    "Therefore the target is normalised per person."
)

# %% [markdown]
# ### Two rules of normalisation
#
# The paper (section 3.4) normalises the depth $z$ of the person's pixels to the range from 0.1 to 1 and sets the
# background to 0. This package takes the smallest and the largest depth of the person as the ends of the range:
#
# $$
# d = 0.1 + 0.9\, \frac{z - z_{\min}}{z_{\max} - z_{\min}} \;\text{ on the person,} \qquad d = 0 \;\text{ elsewhere.}
# $$
#
# The released code uses the 5th and the 95th percentile, $p_5$ and $p_{95}$, instead. It applies the formula to
# *every* pixel, where the background counts as $z = 0$, and clips the result:
#
# $$
# d_{\text{released}} = \operatorname{clip}\!\left(0.1 + 0.9\, \frac{z - p_5}{p_{95} - p_5},\; 0,\; 1\right) .
# $$
#
# {py:obj}`dpose.data.targets.depth_target` computes both, with `rule="paper"` (the default) or `rule="released"`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The depth target of two test people by both rules, and the difference: blue where the released code gives a smaller value (nearer), red where it gives a larger one.", "name": "fig-targets-rules"}, "image": {"alt": "Two rows of four pictures: the crop of a person, two depth maps of the person that look alike, and a map of their difference, pale where the two agree and red or blue on single limbs and on the trunk."}}


def colour_difference(difference, person, limit=0.25):
    """Signed numbers (H, W) -> RGB uint8: blue below zero, red above, `BACKGROUND` outside `person`."""
    rgb = plt.get_cmap("RdBu_r")(0.5 + 0.5 * np.clip(difference / limit, -1, 1))[..., :3]
    return np.where(person[..., None], (255 * rgb).round().astype(np.uint8), np.uint8(BACKGROUND))


pictures = []
for crop in (crops[i % len(crops)] for i in shown):
    person = crop["depth"] > 0
    paper, released = (depth_target(crop["depth"], rule=rule) for rule in ("paper", "released"))
    pictures.append(
        [
            crop["image"],
            colour_depth(paper),
            colour_depth(released, person),
            colour_difference(released - paper, person),
        ]
    )
picture_grid(pictures, titles=("crop", "paper", "released code", "difference"), side=1.73)
plt.show()

# %% tags=["remove-input"]
shares = {"paper": [], "released": []}  # of each person: share of pixels at 0, in (0, 0.1), at 1
background = dict.fromkeys(shares, 0.0)
spans, distances = [], []
for crop in crops:
    person = crop["depth"] > 0
    spans.append(np.ptp(crop["depth"][person]))
    distances.append(np.median(crop["depth"][person]))
    for rule in shares:
        target = depth_target(crop["depth"], rule=rule)
        values = target[person]
        small = (values > 0) & (values < np.float32(0.1))
        shares[rule].append([(values == 0).mean(), small.mean(), (values == 1).mean()])
        background[rule] = max(background[rule], np.abs(target[~person]).max(initial=0))
shares = {rule: np.array(rows) for rule, rows in shares.items()}
html_table(
    ("share of the person's pixels", "paper", "released code"),
    [
        (name, *(percent(shares[rule][:, k].mean(), 2) for rule in shares))
        for k, name in enumerate(("exactly 0, as the background", "above 0 and below 0.1", "exactly 1"))
    ]
    + [("largest value on the background", *(f"{background[rule]:g}" for rule in shares))],
    f"Target values of {len(crops)} test people, mean over the people",
)

# %% [markdown]
# In the paper's rule, 0 means background and nothing else, so the loss can take the person's pixels from the
# target itself. In the rule of the released code, 5 % of each person lie below 0.1 by definition and 5 % are set
# to 1. Some of the nearest pixels have the value 0 of the background.
#
# With both rules, one unit of the target is a different length for each person:

# %% tags=["remove-input"]
lowest, middle, highest = 100 * np.quantile(spans, [0.05, 0.5, 0.95]) / 9
near, far = np.quantile(distances, [0.05, 0.95])
Markdown(
    f"A tenth of the target corresponds to {middle:.1f}\u00a0cm for the median person, and to {lowest:.1f} to {highest:.1f}\u00a0cm for the middle 90\u00a0% of the people. The distance from the camera, "
    f"{near:.1f} to {far:.1f}\u00a0m for the middle 90\u00a0%, is not contained in the target."
)

# %% [markdown]
# ### Wrong pixels
#
# A minimum and a maximum depend on single pixels. In rendered data the outline of a person may be smoothed and
# hair half transparent, and mask and depth come from different passes of the renderer. A pixel at the outline can
# then belong to the person in the mask, but have the depth of the wall or the sky behind. The masks of the open
# data are exact, therefore the errors are introduced here on purpose: in the first row of
# {numref}`fig-targets-wrong` one pixel of the outline gets the depth of the sky, in the second the mask is two
# pixels too wide.


# %% tags=["remove-input"]
def formula(depth, mask):
    """The paper's formula, with all pixels of the mask."""
    z = depth[mask]
    return np.where(mask, 0.1 + 0.9 * (depth - z.min()) / (z.max() - z.min()), 0)


def grown(mask, pixels):
    """The mask, wider by so many pixels on all sides."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8)) > 0


def outline(mask):
    """The border pixels of the mask: (N, 2) rows and columns."""
    return np.argwhere(mask & grown(~mask, 1))


def by_rules(depth, mask):
    """The targets by `RULES`."""
    return formula(depth, mask), depth_target(depth, mask), depth_target(depth, mask, rule="released")


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Targets with a mask that contains one pixel of sky, and with a mask that is two pixels too wide: the paper's formula alone, the formula after the check of this package, and the rule of the released code.", "name": "fig-targets-wrong"}, "image": {"alt": "Two rows of four depth maps of one person. With the formula alone the whole person has the same colour. The check restores the differences between the limbs in the first row and few of them in the second."}}
depth, person = metres[window], mask[window]
with_sky = depth.copy()
with_sky[tuple(outline(person)[0])] = metres.max()
correct = colour_depth(depth_target(depth, person))
pictures = []
for wrong_depth, wrong_mask in ((with_sky, person), (depth, grown(person, 2))):
    alone, checked, released = by_rules(wrong_depth, wrong_mask)
    pictures.append([correct, colour_depth(alone), colour_depth(checked), colour_depth(released, wrong_mask)])
picture_grid(pictures, ("exact mask", *RULES), ("one pixel of sky", "mask 2 pixels too wide"), side=1.73)
plt.show()

# %% [markdown]
# With the formula alone, one pixel out of thousands makes the target useless: all of the person gets nearly the
# same value. Therefore {py:obj}`dpose.data.targets.person_pixels` first removes the pixels that cannot belong to
# the person, because their depth differs from the median depth of the person by more than 2.5 m, is not finite, or
# is not positive. The paper does not mention such a check. It cannot detect a wall half a metre behind the person,
# which could be an arm.
#
# The table introduces the same errors for every person of several frames. It lists the mean error of the target on
# the pixels that belong to the person.

# %% tags=["remove-input"]
damage = {"one pixel of sky": [], "1 pixel too wide": [], "2 pixels too wide": []}
ring = []
for name in names[:frames]:
    _, frame_depth, frame_masks = read(name)
    for frame_mask in frame_masks:
        where = square(frame_mask, 1.4)
        one_depth, one_mask = frame_depth[where], frame_mask[where]
        if one_mask.sum() < 100:
            continue
        ring.append(grown(one_mask, 1).sum() / one_mask.sum() - 1)
        truth = by_rules(one_depth, one_mask)
        wrong = one_depth.copy()
        pixel = tuple(outline(one_mask)[0])
        wrong[pixel] = 1e4
        with_pixel = by_rules(wrong, one_mask)
        one_mask[pixel] = False  # its correct value is unknown
        found = with_pixel, by_rules(one_depth, grown(one_mask, 1)), by_rules(one_depth, grown(one_mask, 2))
        for case, results in zip(damage, found, strict=True):
            damage[case].append([np.abs(f - t)[one_mask].mean() for f, t in zip(results, truth, strict=True)])
damage = {case: np.array(rows) for case, rows in damage.items()}
html_table(
    ("mask", *RULES),
    [
        (case, *(f"{values[:, k].mean():.3f} ({values[:, k].max():.2f})" for k in range(3)))
        for case, values in damage.items()
    ],
    f"Mean difference from the target by the same rule with the exact mask, and in brackets that of the worst person: {len(ring)} people in {min(frames, len(names))} frames. The target ranges from 0.1 to 1.",
)

# %% tags=["remove-input"]
dropped = sum(int(((c["depth"] > 0) & ~person_pixels(c["depth"])).sum()) for c in crops)
sky, wide, wider = (values.mean(0) for values in damage.values())
Markdown(
    f"The check removes the effect of a pixel of sky: the mean error falls from {sky[0]:.3f} to {sky[1]:.3f}. It helps little against a mask that includes floor and walls on all sides "
    f"({wide[0]:.3f} to {wide[1]:.3f} with one pixel), because most of them are less than {PERSON_DEPTH_REACH}\u00a0m away. The percentiles of the released code tolerate 5\u00a0% of wrong pixels at each end. One pixel on all "
    f"sides is {percent(np.median(ring))} of the median person, and the error is {wide[2]:.3f} with one pixel and {wider[2]:.3f} with two.\n\n"
    f"With correct masks the check changes nothing: it removes {dropped}\u00a0pixels of the {len(crops)} people above, of whom the largest depth range is {max(spans):.2f}\u00a0m."
)

# %% [markdown]
# ## Parts: which camera?
#
# The part map is rendered from the posed mesh, and rendering needs a camera. The paper names the renderer
# {cite:p}`neuralrenderer`, but no camera. Two are in use.
#
# **The camera of the crop** is the default of this package. The image was taken by a camera with the
# {term}`intrinsics <camera intrinsics>` $K$. If $T$ is the affine map from the image to the crop, then $TK$ are
# the intrinsics of the crop. The rendered parts lie where the image shows them.
#
# **The camera of the released code** does not use $K$. Its axis passes through the middle of the crop, and its
# focal length is 5,000 pixels for a crop of 224, as that of a telephoto lens. The body keeps the global orientation
# of its label and is translated so that its joints fit best to the labelled 2D joints. Let $\mathbf p_j$ be the 2D
# joints relative to the middle of the crop, $\mathbf q_j = \mathbf p_j / 5{,}000$, and $(\mathbf x_j, z_j)$ the 3D
# joints. The condition $\mathbf x_j + \mathbf t = \mathbf q_j (z_j + t_z)$ is linear in the translation $(\mathbf
# t, t_z)$, so the least-squares solution, weighted by the confidences $c_j$, has a closed form:
#
# $$
# t_z = \frac{\sum_j c_j\, (\mathbf q_j - \overline{\mathbf q}) \cdot (\mathbf x_j - \mathbf q_j z_j)}
#            {\sum_j c_j\, \lVert \mathbf q_j - \overline{\mathbf q} \rVert^2},
# \qquad
# \mathbf t = t_z\, \overline{\mathbf q} - \overline{(\mathbf x - \mathbf q z)} .
# $$
#
# A bar is the mean weighted by $c_j$. {py:obj}`dpose.data.targets.released_translation` computes the translation
# (exercise 2 verifies it), and {py:obj}`dpose.data.targets.part_targets` the labels, with `camera="crop"` or
# `camera="released"`.

# %% tags=["remove-input"]
body = dpose.load_body()
loader = make_loader(data, "test", dpose.preset("mini"), batch_size=60)
batches = [to_device(batch, "cpu") for batch in itertools.islice(loader, -(-people // 60))]


def column(name):
    return torch.cat([batch[name] for batch in batches])[:people]


posed = [body(batch["betas"], batch["pose"], batch["trans"]) for batch in batches]
vertices = torch.cat([p.vertices for p in posed])[:people]  # (P, V, 3) metres, camera frame
joints3d = torch.cat([p.joints for p in posed])[:people, :24]
joints2d, center, scale, cam_int = (column(n) for n in ("joints2d", "center", "scale", "cam_int"))
box = joints2d, center, scale, cam_int
SIZE = 112
true = part_targets(vertices, joints3d, *box, body, SIZE)  # (P, SIZE, SIZE) uint8
labels = part_targets(vertices, joints3d, *box, body, SIZE, camera="released")

shift, solved = released_translation(joints3d, *box[:3])
placed = joints3d + shift[:, None]
fitted = project(placed, released_intrinsics(scale, RELEASED_SIDE))  # (P, 24, 2) pixels of 224
affine = crop_affine(center, scale, RELEASED_SIDE)
labelled = joints2d[..., :2] @ affine[..., :2].mT + affine[:, None, :, 2]
counted = joints2d[..., 2] > 0
miss = ((fitted - labelled).norm(dim=-1) * counted).sum(1) / counted.sum(1)
away, true_away = placed[:, 0].norm(dim=-1), joints3d[:, 0].norm(dim=-1)
Markdown(
    f"For {int(solved.sum())} of {len(solved)} test people the joints determine a translation. In the median the camera of the released code is {away.median():.0f}\u00a0m from the pelvis, the camera that took the image {true_away.median():.1f}\u00a0m. "
    f"After the fit, the joints are {miss.mean():.1f}\u00a0pixels of the crop of {RELEASED_SIDE} from their labelled places on average."
)

# %% [markdown]
# {numref}`fig-targets-cameras` compares the part labels of both cameras for five people. They were not selected by
# eye: sorted by the difference of the two maps, they are at 10, 30, 50, 70 and 90 % of the list.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Part labels by the two cameras. From above: the crop with the outline of the silhouettes (white: camera of the crop, orange: released code); the labels by the camera of the crop; the labels by the camera of the released code; and the pixels that differ, light blue where both see a part, but not the same one, orange where only one of them sees the body. Titles: share of the body's pixels with another label, and distance of the person.", "name": "fig-targets-cameras"}, "image": {"alt": "Grid with a person per column: the crop with two outlines, two part maps, and a map of the differing pixels. From left to right the outlines are farther apart and the light blue and orange areas larger."}}
def differing(labels, truth=true):
    """Share of the pixels of each body that have another label: (P,)."""
    on_body = truth > 0
    return ((labels != truth) & on_body).flatten(1).sum(1) / on_body.flatten(1).sum(1).clamp(min=1)


def overlap(labels, truth=true):
    """IoU of the silhouettes: (P,)."""
    a, b = labels > 0, truth > 0
    return (a & b).flatten(1).sum(1) / (a | b).flatten(1).sum(1).clamp(min=1)


share = differing(labels)
order = share.argsort()
picked = [int(order[round(q * (len(order) - 1))]) for q in (0.1, 0.3, 0.5, 0.7, 0.9)]
figure, axes = plt.subplots(4, 5, figsize=(7, 6), layout="constrained")
figure.patch.set_alpha(0)
for line, i in zip(axes.T, picked, strict=True):
    a, b = true[i].numpy(), labels[i].numpy()
    middles = np.arange(SIZE) + 0.5
    line[0].imshow(to_picture(column("image")[i]), extent=(0, SIZE, SIZE, 0))
    line[0].contour(middles, middles, a > 0, [0.5], colors="white", linewidths=1)
    line[0].contour(middles, middles, b > 0, [0.5], colors="#E69F00", linewidths=1)
    line[1].imshow(colour_parts(a), interpolation="nearest")
    line[2].imshow(colour_parts(b), interpolation="nearest")
    where = np.full((SIZE, SIZE, 3), BACKGROUND, np.uint8)
    where[(a > 0) & (a == b)] = (96, 98, 104)
    where[(a > 0) & (b > 0) & (a != b)] = (86, 180, 233)
    where[(a > 0) != (b > 0)] = (230, 159, 0)
    line[3].imshow(where, interpolation="nearest")
    for axis in line:
        bare(axis)
    line[0].set_title(f"{percent(share[i])}, {true_away[i]:.1f}\u00a0m", fontsize=10, color=INK)
for axis, name in zip(axes[:, 0], ("crop", "camera of the crop", "released code", "difference"), strict=True):
    axis.set_ylabel(name, color=INK, fontsize=9)
plt.show()

# %% [markdown]
# As a scale for the difference, the table also lists the true labels moved sideways. The {term}`mIoU` is the score
# of a network that predicts the labels of the released code perfectly and is compared with the labels by the
# camera of the crop.


# %% tags=["remove-input"]
def moved(labels, pixels):
    """Labels (P, S, S) moved to the right by pixels of S, with background from the left."""
    out = torch.zeros_like(labels)
    out[..., pixels:] = labels[..., :-pixels]
    return out


def table_row(name, labels, truth=true):
    share, silhouettes = differing(labels, truth), overlap(labels, truth)
    score = mean_iou(*parts_overlap(parts_confusion(labels, truth).sum(0)))
    middle = " to ".join(f"{100 * share.quantile(q):.0f}" for q in (0.05, 0.95))
    return name, percent(share.mean(), 1), f"{middle}\u00a0%", f"{silhouettes.mean():.3f}", f"{score:.2f}"


rows = [table_row("camera of the released code", labels)]
rows += [table_row(f"moved by {2 * n} of 224 pixels", moved(true, n)) for n in (1, 3, 5)]
html_table(
    ("labels", "other label", "middle 90\u00a0%", "IoU of silhouettes", "mIoU"),
    rows,
    f"Part labels compared with those by the camera of the crop: {len(true)} people",
)

# %% tags=["remove-input"]
shifts = np.arange(0, 13, 2)
by_shift = [0.0, *(differing(moved(true, n // 2)).mean().item() for n in shifts[1:])]
Markdown(
    f"On average **{percent(share.mean())}** of the pixels of a body have another label under the camera of the released code. The labels by the camera of the crop would have to be moved by "
    f"{np.interp(share.mean(), by_shift, shifts):.1f} of the crop's 224 pixels for the same number of wrong pixels."
)

# %% [markdown]
# ### Why the cameras differ
#
# Without the true camera, two things are lost.
#
# - The *direction* of the person. The rotation in the label is relative to the axis of the camera that took the
#   image. The camera of the released code has its axis in the middle of the crop and applies the same rotation. So
#   the body appears turned by the angle between the axis and the direction of the person ([the
#   camera](camera.ipynb) explains this for the prediction).
# - The *distance*. Perspective enlarges what is near: a hand 0.6 m in front of the body appears $3 / (3 - 0.6) =
#   1.25$ times as large when the body is 3 m away, but $30 / (30 - 0.6) \approx 1.02$ times at 30 m.
#
# The two effects can be separated. If the body is turned by the angle of its direction before the camera of the
# released code sees it, only the effect of the distance remains. {numref}`fig-targets-why` also shows each effect
# for the same poses at chosen places: 4 m away in different directions, and on the axis at different distances.


# %% tags=["remove-input"]
ray = torch.stack(
    [
        (center[:, 0] - cam_int[:, 0, 2]) / cam_int[:, 0, 0],
        (center[:, 1] - cam_int[:, 1, 2]) / cam_int[:, 1, 1],
        torch.ones(len(center)),
    ],
    1,
)
off_axis = torch.atan(ray[:, :2].norm(dim=1))  # angle between the middle of the box and the camera's axis
towards = torch.linalg.cross(ray, torch.tensor([0.0, 0.0, 1.0]).expand_as(ray))
turn = roma.rotvec_to_rotmat(torch.nn.functional.normalize(towards, dim=1) * off_axis[:, None])
turned = part_targets(vertices @ turn.mT, joints3d @ turn.mT, *box, body, SIZE, camera="released")
share_turned = differing(turned)


def put(angle, distance):
    """Shares (poses,) for the first people with the pelvis at this angle (radians) and distance (metres)."""
    n = min(poses, len(vertices))
    at = distance * torch.tensor([np.sin(angle), 0.0, np.cos(angle)], dtype=torch.float32)
    move = at - joints3d[:n, :1]
    mesh, joints = vertices[:n] + move, joints3d[:n] + move
    k = torch.tensor([[1000.0, 0, 0], [0, 1000.0, 0], [0, 0, 1]]).expand(n, 3, 3)
    pixels = project(joints, k)
    low, high = pixels[:, :22].amin(1), pixels[:, :22].amax(1)
    new_box = (
        torch.cat([pixels, torch.ones(n, 24, 1)], -1),
        (low + high) / 2,
        1.2 * (high - low).amax(1) / 200,
        k,
    )
    a, b = (part_targets(mesh, joints, *new_box, body, SIZE, camera=name) for name in ("crop", "released"))
    return differing(b, a)


angles, ranges = np.linspace(0, 35, 8), np.array([1.5, 2, 3, 4, 6, 9, 14])
by_angle = 100 * torch.stack([put(np.deg2rad(a), 4.0) for a in angles]).numpy()
by_range = 100 * torch.stack([put(0.0, d) for d in ranges]).numpy()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the pixels of a body with another label under the camera of the released code. Left: against the angle between the camera's axis and the direction of the person. Right: against the distance, with the body turned by that angle first. Dots: test people. Lines and bands: the same poses at chosen places, median and middle half.", "name": "fig-targets-why"}, "image": {"alt": "Two scatter plots of the share of differing pixels, each with a line and a band. At the left the share rises with the angle, at the right it falls with the distance."}}
figure, axes = plt.subplots(1, 2, figsize=(7, 3.1), sharey=True, layout="constrained")
axes[0].plot(off_axis.rad2deg(), 100 * share, ".", color=BLUE, alpha=0.8, markersize=4)
axes[1].plot(true_away, 100 * share_turned, ".", color=BLUE, alpha=0.8, markersize=4)
for axis, x, values in ((axes[0], angles, by_angle), (axes[1], ranges, by_range)):
    low, mid, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
    axis.fill_between(x, low, high, color=ORANGE, alpha=0.4, linewidth=0)
    axis.plot(x, mid, color=ORANGE, linewidth=2)
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set(
    xlabel="angle from the camera's axis (degrees)", ylabel="other label (% of the body)", ylim=(0, 90)
)
axes[1].set(xlabel="distance (m)", xlim=(0, 15), xticks=range(0, 16, 3))
axes[0].set_title("as labelled", fontsize=10)
axes[1].set_title("turned first", fontsize=10)
for axis in axes:
    style_axis(axis)
plt.show()

# %% tags=["remove-input"]
far = true_away > true_away.median()
Markdown(
    f"Of the {percent(share.mean())} that differ on average, {percent(share_turned.mean())} remain if the body is turned first: "
    f"{percent(share_turned[~far].mean())} for the nearer half of the people, {percent(share_turned[far].mean())} for the farther half. "
    f"On the axis, the same poses differ by {np.median(by_range[0]):.0f}\u00a0% at {ranges[0]:g}\u00a0m and by {np.median(by_range[-1]):.0f}\u00a0% at {ranges[-1]:g}\u00a0m. "
    f"At 4\u00a0m the difference grows from {np.median(by_angle[0]):.0f}\u00a0% on the axis to {np.median(by_angle[-1]):.0f}\u00a0% at {angles[-1]:.0f}°."
)

# %% [markdown]
# ### Which one to use
#
# The camera of the released code needs no intrinsics, and for a person far away in the middle of the image it
# gives nearly the same labels. For other people it trains the network to predict a part at places where the image
# shows another one or none, by an offset that depends on the position of the crop, which the decoders do not
# receive.
#
# This page measures labels, not networks. Whether the camera of the crop leads to more accurate predictions is not
# known; it would take two complete training runs that differ only in the labels. The shares above also depend on
# the distances and directions of the people in the data, and those of the open data were chosen for this package.
# BEDLAM has others.
#
# Where the intrinsics are known, as in every rendered data set, the camera of the crop costs nothing. It is
# therefore the default; `dpose prepare --parts-camera released` selects the other one.
#
# ## Takeaways
#
# - The paper's rule keeps 0 for the background, while the percentiles of the released code give some pixels of the
#   person the background's value, but tolerate wrong pixels at both ends.
# - A single pixel with the depth of the sky makes a target by the formula alone useless, and a check against the
#   median depth of the person prevents this.
# - The camera with a focal length of 5,000 pixels belongs to the released code, not to the paper, and its labels
#   differ from the image the more, the nearer a person is and the farther from the middle of the image.
#
# ## Exercises
#
# **Exercise 1.** Which targets do both rules give if one pixel of the person is not a number, infinite or
# negative, if 6 % of the pixels have the depth of the sky, if all pixels have the same depth, and if nobody is
# visible?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
crop = crops[shown[0] % len(crops)]["depth"]
person = crop > 0
places = np.argwhere(person)


def spoilt(value, count):
    """The crop's depth with `value` at random places of the person, and the mask of the other places."""
    there = tuple(places[rng.permutation(len(places))[:count]].T)
    depth, untouched = crop.copy(), person.copy()
    depth[there], untouched[there] = value, False
    return depth, untouched


cases = {
    "unchanged": (crop, person),
    "one pixel is NaN": spoilt(np.nan, 1),
    "one pixel is infinite": spoilt(np.inf, 1),
    "one pixel is negative": spoilt(-1.0, 1),
    "6\u00a0% are sky": spoilt(1e6, int(0.06 * len(places))),
    "all the same, 3\u00a0m": (np.where(person, np.float32(3), 0), person),
    "nobody": (np.zeros_like(crop), person),
}
rows = []
for name, (depth, untouched) in cases.items():
    cells = []
    for rule in ("paper", "released"):
        values = depth_target(depth, person, rule)[untouched]
        same = values.min() == values.max()
        text = f"{values.min():.2f} to {values.max():.2f}, median {np.median(values):.2f}"
        cells.append(f"all {values[0]:g}" if same else text)
    rows.append((name, *cells))
html_table(
    ("depth", "formula with check", "released code"), rows, "Targets of the untouched pixels of one person"
)

# %% [markdown]
# **Exercise 2.** Verify the closed form of the translation: solve the equations of one person by
# `numpy.linalg.lstsq`.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
first = int(solved.nonzero()[0])
q = (labelled[first].double().numpy() - RELEASED_SIDE / 2) / RELEASED_FOCAL  # (24, 2)
xyz, weight = joints3d[first].double().numpy(), joints2d[first, :, 2].double().numpy() ** 0.5
zero, one = np.zeros(24), np.ones(24)
# x + tx = qx (z + tz), and the same for y: rows (1, 0, -qx) and (0, 1, -qy)
matrix = np.concatenate([np.stack([one, zero, -q[:, 0]], 1), np.stack([zero, one, -q[:, 1]], 1)])
right = np.concatenate([q[:, k] * xyz[:, 2] - xyz[:, k] for k in range(2)])
weights = np.tile(weight, 2)
solution = np.linalg.lstsq(matrix * weights[:, None], right * weights, rcond=None)[0]
assert np.allclose(solution, shift[first].numpy(), rtol=1e-3, atol=1e-3)
Markdown(
    f"Both give a translation of ({', '.join(f'{v:.2f}' for v in solution).replace('-', '−')})\u00a0m. The weights enter as square roots, because `lstsq` minimises the sum of the squared rows."
)

# %% [markdown]
# **Exercise 3.** A body is 1.8 m tall and fills 90 % of a crop of 224 pixels. How far is it from a camera with a
# focal length of 5,000 pixels?
#
# :::{dropdown} Solution
# The image of the body has a height of $0.9 \times 224 \approx 202$ pixels. With the focal length $f$ and the height $h$, the distance is $f h / 202 = 5{,}000 \times 1.8 / 202 \approx 45$ m. At this distance all parts of a body have nearly the same scale, so the
# projection is almost a {term}`weak perspective`.
# :::
