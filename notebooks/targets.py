# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The two targets: depth and parts
#
# On its way to a body the network draws two maps, and for each of them somebody has to supply the right
# answer. No data set contains these answers. BEDLAM {cite:p}`bedlam` has the depth of whole scenes and masks
# that tell people apart; the paper {cite:p}`dpose` makes a depth target out of them. Parts it renders from the
# labelled body. This page makes both, one step after the other, and takes a close look at the places where
# something can go wrong: what happens to a pixel of sky on a person's outline, and which camera the parts
# should be drawn with.

# %% tags=["parameters"] nbmake={"mock": {"people": 24, "frames": 6, "poses": 4}}
data = None  # data root; None: $DPOSE_DATA, else the open data
frame = 0  # the full frame to begin with
frames = 24  # full frames in which masks are made worse
people = 240  # test people for everything that is counted
shown = [3, 14, 10, 5]  # of these, the ones whose depth targets are drawn
poses = 16  # of these, the first are moved about before the camera
seed = 0

# %% tags=["hide-input"]
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
from dpose.camera import crop_affine, crop_intrinsics, project
from dpose.data.frames import Skipped, frames_of, mask_numbers, read_depth, read_person_mask, read_png
from dpose.data.labels import Labels
from dpose.data.loader import make_loader
from dpose.data.sets import bedlam
from dpose.data.shards import decode_sample
from dpose.data.sources import BadCount, find_shards, read_members
from dpose.data.targets import (
    PERSON_DEPTH_REACH,
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
    draw_mesh,
    html_table,
    picture_grid,
    show_source,
    style_axis,
    to_picture,
)
from dpose.metrics import mean_iou, parts_confusion, parts_overlap
from dpose.model.inference import to_device
from dpose.paths import data_root

torch.set_grad_enabled(False)
rng = np.random.default_rng(seed)
ink = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color")
plt.rcParams.update(dict.fromkeys(ink, INK))
plt.rcParams.update({"figure.facecolor": "none", "axes.facecolor": "none", "figure.dpi": 130, "font.size": 9})
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"


def bare(axis, title=""):
    axis.set(xticks=[], yticks=[])
    axis.set_frame_on(False)
    axis.set_title(title, fontsize=9)


# %% [markdown]
# ## Depth, step by step
#
# Here is a frame with its depth map: 32-bit numbers, in the game engine's centimetres, divided by 100 when
# they are read. They measure the distance along the camera's axis, and they measure everything.

# %%
scenes = bedlam.scenes(data_root(data) / "frames", Path(), "test", Skipped(), Bodies())
scene = scenes[0]
names = list(frames_of(Labels.load(scene.labels)))


def read(imgname):
    """A frame's image (H, W, 3), depth (H, W) in metres, and masks (H, W), one a person."""
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

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A frame; the depth of everything in it, on a logarithmic scale; the person's mask; and the depth under the mask, on a scale of its own.", "name": "fig-steps"}}
window = square(mask)
own = np.where(mask & person_pixels(metres, mask), metres, np.nan)
cividis = plt.get_cmap("cividis_r").copy()
cividis.set_bad(np.array(BACKGROUND) / 255)
figure, axes = plt.subplots(2, 2, figsize=(8.6, 6.5), width_ratios=(1.78, 1), layout="constrained")
axes[0, 0].imshow(image)
rows, columns = window
corner, wide, high = (columns.start, rows.start), columns.stop - columns.start, rows.stop - rows.start
axes[0, 1].imshow(mask[window], cmap="gray", interpolation="nearest")
maps = (
    axes[1, 0].imshow(metres, cmap=cividis, norm="log"),
    axes[1, 1].imshow(own[window], cmap=cividis, interpolation="nearest"),
)
for axis, drawn, place in zip(axes[1], maps, ([0.66, 0.1, 0.3, 0.045], [0.06, 0.1, 0.4, 0.045]), strict=True):
    inset = axis.inset_axes(place)
    figure.colorbar(drawn, cax=inset, orientation="horizontal").outline.set_visible(False)
    dark = "black" if axis is axes[1, 0] else "white"
    inset.tick_params(which="both", labelsize=8, colors=dark, length=2, pad=2)
titles = ("the frame", "this person's mask", "depth of the frame, metres", "depth of the person, metres")
for axis, title in zip(axes.flat, titles, strict=True):
    bare(axis, title)
for axis in axes[:, 0]:
    axis.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor="white", linewidth=1.5))
    axis.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
plt.show()

# %% tags=["hide-input"]
span = np.nanmax(own) - np.nanmin(own)
Markdown(
    f"The frame reaches from {metres.min():.2f} to {metres.max():,.0f} metres, the person from {np.nanmin(own):.2f} to "
    f"{np.nanmax(own):.2f}. On a linear scale for the whole frame all of this person would lie within "
    f"**{100 * span / np.ptp(metres):.3g} %** of it."
)

# %% [markdown]
# So the scene has to go, and with it the distance. What one image shows of depth is not metres but order:
# this knee is nearer than that shoulder. The paper keeps just this. With $z$ the depth of a pixel and the
# minimum and maximum taken over the person's visible pixels,
#
# $$
# d = \begin{cases}
# 0.1 + 0.9\, \dfrac{z - z_{\min}}{z_{\max} - z_{\min}} & \text{on the person,} \\[2mm]
# 0 & \text{elsewhere.}
# \end{cases}
# $$
#
# The released code {cite:p}`dpose` takes the 5th and 95th percentile in place of minimum and maximum, applies
# the formula to *every* pixel, the background counting as $z = 0$, and clips what comes out:
#
# $$
# d_{\text{released}} = \operatorname{clip}\!\left(0.1 + 0.9\, \frac{z - p_5}{p_{95} - p_5},\; 0,\; 1\right).
# $$
#
# Its range is not decided by single pixels, and what lies outside of it is lost. Both rules are here:

# %%
show_source(depth_target)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Image, the target by the paper's rule, by the released rule, and where the two differ: blue where the released value is smaller, red where it is larger.", "name": "fig-rules"}}
members = itertools.islice(read_members(find_shards(data, "test"), BadCount(0, 0)), people)
crops = [c for c in map(decode_sample, members) if c["depth"] is not None and (c["depth"] > 0).any()]


def colour_difference(difference, person, limit=0.25):
    """Signed numbers (H, W) -> RGB uint8; blue below zero, red above, `BACKGROUND` outside `person`."""
    rgb = plt.get_cmap("RdBu_r")(0.5 + 0.5 * np.clip(difference / limit, -1, 1))[..., :3]
    return np.where(person[..., None], (255 * rgb).round().astype(np.uint8), np.uint8(BACKGROUND))


lines = []
for crop in (crops[i % len(crops)] for i in shown):
    person = crop["depth"] > 0
    paper, released = (depth_target(crop["depth"], rule=rule) for rule in ("paper", "released"))
    lines.append(
        [
            crop["image"],
            colour_depth(paper),
            colour_depth(released, person),
            colour_difference(released - paper, person),
        ]
    )
figure = picture_grid(lines, titles=("image", "paper", "released", "difference"), side=2.15)
plt.show()

# %% [markdown]
# They look much the same. Leaving out both ends spreads what remains farther apart, so that near gets nearer
# (blue) and far gets farther (red), and at the far end, the shoe or hand behind all others, it runs into 1 and
# goes flat. Counted over many people:

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How often each target value occurs on a person, every person counting the same. Hatched: exactly 0 and exactly 1.", "name": "fig-values"}}
bins = np.linspace(0, 1, 41)
histogram = {"paper": np.zeros(40), "released": np.zeros(40)}
ends = {"paper": [], "released": []}  # of each person: share at 0, in (0, 0.1), at 1
backgrounds, spans, distances = [], [], []
for crop in crops:
    person = crop["depth"] > 0
    spans.append(np.ptp(crop["depth"][person]))
    distances.append(np.median(crop["depth"][person]))
    for rule in histogram:
        target = depth_target(crop["depth"], rule=rule)
        values = target[person]
        inner = (values > 0) & (values < 1)
        histogram[rule] += 100 * np.histogram(values[inner], bins)[0] / values.size / len(crops)
        small = (values > 0) & (values < np.float32(0.1))
        ends[rule].append(100 * np.array([(values == 0).mean(), small.mean(), (values == 1).mean()]))
        backgrounds.append((rule, np.abs(target[~person]).max(initial=0)))
ends = {rule: np.array(rows) for rule, rows in ends.items()}

figure, axes = plt.subplots(1, 2, figsize=(8.6, 2.9), sharey=True, layout="constrained")
for axis, rule, colour in zip(axes, histogram, (BLUE, ORANGE), strict=True):
    axis.bar(bins[:-1], histogram[rule], 1 / 40, align="edge", color=colour, edgecolor="none")
    at_0, _, at_1 = ends[rule].mean(0)
    axis.bar([-0.0125, 1.0125], [at_0, at_1], 1 / 40, color="none", edgecolor=colour, hatch="/////")
    axis.axvline(0.1, color=INK, linewidth=0.8, linestyle="--")
    axis.set(xlabel="target", title=rule, xlim=(-0.04, 1.04))
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
axes[0].set_ylabel("% of a person's pixels")
plt.show()

# %% tags=["hide-input"]
largest = {rule: max(value for name, value in backgrounds if name == rule) for rule in histogram}
html_table(
    ("on the person's pixels", "paper", "released"),
    [
        (
            name,
            *(f"{ends[rule][:, k].mean():.2f} % (at most {ends[rule][:, k].max():.1f} %)" for rule in ends),
        )
        for k, name in enumerate(("exactly 0, the background's value", "below 0.1, but not 0", "exactly 1"))
    ]
    + [("largest value on the background", *(f"{largest[rule]:g}" for rule in ends))],
    f"{len(crops)} people of the test split",
)

# %% [markdown]
# In the paper's rule 0 means background and nothing else, so the loss can tell by the target alone where to
# look. In the released rule a twentieth of each person slips below 0.1 by construction, another twentieth is
# flattened at 1, and a hand held far out has the value of the wall behind it.
#
# Either way one unit of the target is not one length. It is what the person at hand spans:

# %% tags=["hide-input"]
lowest, middle, highest = 100 * np.quantile(spans, [0.05, 0.5, 0.95]) / 9
Markdown(
    f"A tenth of the target is {middle:.1f} cm for the median person, and {lowest:.1f} to {highest:.1f} cm for nine in ten. "
    f"How far away the person is, {np.quantile(distances, 0.05):.1f} to {np.quantile(distances, 0.95):.1f} m for nine in ten, leaves no trace."
)

# %% [markdown]
# ## What can go wrong
#
# A minimum and a maximum trust every pixel, and real masks do not deserve it. Outlines are anti-aliased, hair
# is half transparent, and a pixel that is 60 % person in the mask may have the depth of what is behind: the
# wall's, or the sky's. In our open data masks are exact, so we have to do the damage ourselves. Below, one
# single pixel of the person's outline gets the sky's depth; and in the second row the mask grows by two pixels
# on all sides.


# %%
def bare_formula(depth, mask):
    """The equation above, with all that the mask holds."""
    z = depth[mask]
    return np.where(mask, 0.1 + 0.9 * (depth - z.min()) / (z.max() - z.min()), 0)


def grown(mask, pixels):
    """The mask, so many pixels wider on all sides."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8)) > 0


def outline(mask):
    """Its border pixels, (N, 2) rows and columns."""
    return np.argwhere(mask & grown(~mask, 1))


def three(depth, mask):
    """The target by the bare formula, by the paper's rule as it is here, and by the released one."""
    return bare_formula(depth, mask), depth_target(depth, mask), depth_target(depth, mask, rule="released")


# %% tags=["hide-input"] mystnb={"figure": {"caption": "A mask with one pixel of sky, and a mask that is two pixels too wide: the bare formula, the paper's rule with its check, and the released rule.", "name": "fig-leak"}}
depth, person = metres[window], mask[window]
one = depth.copy()
one[tuple(outline(person)[0])] = metres.max()
clean = depth_target(depth, person)
lines = []
for leaky, within in ((one, person), (depth, grown(person, 2))):
    bare_one, ours, released = three(leaky, within)
    lines.append(
        [
            colour_depth(clean),
            colour_depth(bare_one),
            colour_depth(ours),
            colour_depth(released, within),
        ]
    )
figure = picture_grid(
    lines,
    titles=("true mask", "bare formula", "paper's rule, here", "released rule"),
    labels=("one pixel of sky", "mask 2 pixels too wide"),
    side=2.15,
)
plt.show()

# %% [markdown]
# One pixel out of thousands, and the target says nothing any more: the whole person is "near". So before the
# extremes are taken, a pixel has to be possible. A human body is not large. Whatever lies more than
# 2.5 metres from the median of the person's depths is not this person's, and becomes background, as does what
# is not a finite, positive number. There is no more to it than that:

# %%
show_source(person_pixels)

# %% [markdown]
# It cannot know about a wall half a metre behind the person, for that could be an arm. How much remains? The
# next table does the same damage to every person in the frames: one pixel of the outline in the sky, or masks
# that are too wide all around. It gives the mean error of the target on the pixels that really are the
# person's.

# %% tags=["hide-input"]
rules = ("bare formula", "paper's rule, here", "released rule")
damage = {"one pixel of sky": [], "1 pixel too wide": [], "2 pixels too wide": []}
ring = []
for name in names[:frames]:
    _, metres_, masks_ = read(name)
    for mask_ in masks_:
        where = square(mask_, 1.4)
        depth_, person_ = metres_[where], mask_[where]
        if person_.sum() < 100:
            continue
        ring.append(grown(person_, 1).sum() / person_.sum() - 1)
        truth = three(depth_, person_)
        leaky = depth_.copy()
        pixel = tuple(outline(person_)[0])
        leaky[pixel] = 1e4
        with_leak = three(leaky, person_)
        person_[pixel] = False  # nobody can say what is right there
        found = with_leak, three(depth_, grown(person_, 1)), three(depth_, grown(person_, 2))
        for case, targets in zip(damage, found, strict=True):
            damage[case].append([np.abs(f - t)[person_].mean() for f, t in zip(targets, truth, strict=True)])
damage = {case: np.array(rows) for case, rows in damage.items()}
table = []
for case, values in damage.items():
    for k, rule in enumerate(rules):
        numbers = np.median(values[:, k]), values[:, k].mean(), values[:, k].max()
        table.append((case if k == 0 else "", rule, *(f"{x:.3f}" for x in numbers)))
html_table(
    ("mask", "rule", "median", "mean", "worst person"),
    table,
    f"{len(ring)} people in {min(frames, len(names))} frames; the target runs from 0.1 to 1",
    align="ll",
)

# %% tags=["hide-input"]
dropped = sum(int(((c["depth"] > 0) & ~person_pixels(c["depth"])).sum()) for c in crops)
sky, wider = damage["one pixel of sky"].mean(0), damage["1 pixel too wide"].mean(0)
Markdown(
    f"Against the sky the check does all that is needed: the mean error falls from {sky[0]:.2f} to {sky[1]:.3f}. Against a mask that takes in "
    f"floor and walls all around it does little ({wider[0]:.2f} to {wider[1]:.2f}), because most of them are within {PERSON_DEPTH_REACH} m. The released rule "
    f"forgives up to 5 % of wrong pixels at either end and one pixel all around is {100 * np.median(ring):.0f} % of the median person: it comes to {wider[2]:.2f} with one "
    f"pixel too many and to {damage['2 pixels too wide'].mean(0)[2]:.2f} with two. Nothing but a better mask would help.\n\n"
    f"Where masks are right the check changes nothing: among the {len(crops)} people above it drops **{dropped}** pixels. The one who reaches "
    f"farthest along the line of sight spans {max(spans):.2f} m."
)

# %% [markdown]
# The remaining cases, one line each. Pixels without a sensible depth become background. A flat person is "all
# nearest" and not "no person"; nobody in view gives a target of zeros and, in the loader, a sample whose depth
# is not supervised.

# %% tags=["hide-input"]
crop = crops[shown[0] % len(crops)]["depth"]
person = crop > 0
places = np.argwhere(person)


def spoilt(value, count):
    """The crop's depth with `value` at random places of the person, and where it was left alone."""
    there = tuple(places[rng.permutation(len(places))[:count]].T)
    depth, alone = crop.copy(), person.copy()
    depth[there], alone[there] = value, False
    return depth, alone


cases = {
    "as it is": (crop, person),
    "one pixel is NaN": spoilt(np.nan, 1),
    "one pixel is infinite": spoilt(np.inf, 1),
    "one pixel is negative": spoilt(-1.0, 1),
    "6 % of the person are sky": spoilt(1e6, int(0.06 * len(places))),
    "all of it infinite": (np.where(person, np.inf, 0), person),
    "flat, 3 m": (np.where(person, np.float32(3), 0), person),
    "nobody": (np.zeros_like(crop), person),
}
rows = []
for name, (depth, alone) in cases.items():
    cells = []
    for rule in ("paper", "released"):
        on = depth_target(depth, person, rule)[alone]
        flat = on.min() == on.max()
        cells.append(
            f"all {on[0]:g}" if flat else f"{on.min():.2f} … {on.max():.2f}, median {np.median(on):.2f}"
        )
    rows.append((name, *cells))
html_table(("depth", "paper's rule, here", "released rule"), rows, "Targets on one person's untouched pixels")

# %% [markdown]
# ## Parts
#
# Nobody paints 22 body parts into photographs either. They come from the label: the body model is posed as
# the label says, every vertex carries the number of the joint that moves it most (fingers count to the
# wrists, jaw and eyes to the head), and the mesh is drawn into the crop, alone. Rays go through the middles of
# the pixels, so the labels can be made at whatever size a network answers with; nothing is resampled.

# %%
config = dpose.preset("mini")
body = dpose.load_body()
loader = make_loader(data, "test", config, batch_size=60)
batches = [to_device(batch, "cpu") for batch in itertools.islice(loader, -(-people // 60))]
column = lambda name: torch.cat([batch[name] for batch in batches])[:people]  # noqa: E731
posed = [body(batch["betas"], batch["pose"], batch["trans"]) for batch in batches]
vertices = torch.cat([p.vertices for p in posed])[:people]  # (P, V, 3) metres, camera frame
joints3d = torch.cat([p.joints for p in posed])[:people, :24]
joints2d, center, scale, cam_int = (column(n) for n in ("joints2d", "center", "scale", "cam_int"))
box = joints2d, center, scale, cam_int
true = part_targets(vertices, joints3d, *box, body, 224)  # (P, 224, 224) uint8

# %% tags=["hide-input"] mystnb={"figure": {"caption": "One person: the crop, the posed mesh with its 22 parts, and the labels at three sizes.", "name": "fig-part-labels"}}
first = shown[1] % len(true)
one = slice(first, first + 1)
picture = to_picture(column("image")[first])
side = 448
camera = crop_intrinsics(cam_int[first], center[first], scale[first], side)
lit = draw_mesh(
    vertices[first], body.faces, camera, np.full((side, side, 3), BACKGROUND, np.uint8), "#ffffff"
)
fine = part_targets(vertices[one], joints3d[one], *(v[one] for v in box), body, side)[0].numpy()
coloured = (lit / 255.0 * colour_parts(fine)).round().astype(np.uint8)
coloured[fine == 0] = BACKGROUND
sizes = (224, 56, 28)
small = [part_targets(vertices[one], joints3d[one], *(v[one] for v in box), body, s)[0] for s in sizes]
figure = picture_grid(
    [[picture, coloured, *(colour_parts(s.numpy()) for s in small)]],
    titles=("image", "mesh", *(f"{s} × {s}" for s in sizes)),
    side=1.75,
)
plt.show()

# %% [markdown]
# ### Whose camera?
#
# To draw a mesh one needs a camera, and here the paper and this package part.
#
# **The crop's own camera**, the default here. The image was taken by a camera with intrinsics $K$, and a crop
# is nothing but a piece of it, enlarged. If $A$ is the map from image to crop pixels, then the camera with
# intrinsics $AK$ sees the crop, and the labels lie where the image shows the parts.
#
# **The paper's camera** does without $K$. It looks straight at the crop's middle with a focal length of 5000
# pixels for 224 of crop, a telephoto lens, and the body, turned as the label says, is put where it fits best:
# with $\mathbf p_j$ the 2D joints of the label in the crop, counted from the middle, and
# $\mathbf q_j = \mathbf p_j / 5000$ the rays through them, the joints $(\mathbf x_j, z_j)$ should obey
# $\mathbf x_j + \mathbf t = \mathbf q_j (z_j + t_z)$. That is linear in the translation, so least squares,
# weighted by the confidences $c_j$ ($\overline{\,\cdot\,}$ is the weighted mean), has a closed form, for a
# whole batch at once:
#
# $$
# t_z = \frac{\sum_j c_j\, (\mathbf q_j - \overline{\mathbf q}) \cdot (\mathbf x_j - \mathbf q_j z_j)}
#            {\sum_j c_j\, \lVert \mathbf q_j - \overline{\mathbf q} \rVert^2},
# \qquad
# \mathbf t = t_z\, \overline{\mathbf q} - \overline{(\mathbf x - \mathbf q z)} .
# $$

# %%
show_source(released_translation)

# %%
shift, solved = released_translation(joints3d, *box[:3])
paper = part_targets(vertices, joints3d, *box, body, 224, camera="released")

# %% tags=["hide-input"]
placed = joints3d + shift[:, None]
fitted = project(placed, released_intrinsics(scale, RELEASED_SIDE))  # (P, 24, 2) pixels of 224
affine = crop_affine(center, scale, RELEASED_SIDE)
labelled = joints2d[..., :2] @ affine[..., :2].mT + affine[:, None, :, 2]
counted = joints2d[..., 2] > 0
miss = ((fitted - labelled).norm(dim=-1) * counted).sum(1) / counted.sum(1)
away, true_away = placed[:, 0].norm(dim=-1), joints3d[:, 0].norm(dim=-1)
Markdown(
    f"{int(solved.sum())} of {len(solved)} people have joints that determine a place. The paper's camera stands {away.median():.0f} m from the median "
    f"person's pelvis, the camera that took the image {true_away.median():.1f} m. After the fit a joint still misses its labelled place by "
    f"{miss.mean():.1f} of the crop's 224 pixels on average ({miss.quantile(0.05):.1f} to {miss.quantile(0.95):.1f} for nine in ten people)."
)

# %% [markdown]
# Five people, drawn both ways. They are not chosen by hand: sorted by how much the two maps differ, they are
# the ones at 10, 30, 50, 70 and 90 % of the list.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The two cameras. From above: the crop with the outline of either silhouette (white: the crop's own camera, orange: the paper's), the labels in the crop's true perspective, the labels by the paper's camera, and the pixels that differ, blue where the part is another one, orange where only one of the two sees a body.", "name": "fig-cameras"}}
def differing(labels, truth=true):
    """Of each person's true pixels, the share that has another label (P,)."""
    body_ = truth > 0
    return ((labels != truth) & body_).flatten(1).sum(1) / body_.flatten(1).sum(1).clamp(min=1)


def overlap(labels, truth=true):
    """IoU of the silhouettes (P,)."""
    one, two = labels > 0, truth > 0
    return (one & two).flatten(1).sum(1) / (one | two).flatten(1).sum(1).clamp(min=1)


share = differing(paper)
order = share.argsort()
picked = [int(order[round(q * (len(order) - 1))]) for q in (0.1, 0.3, 0.5, 0.7, 0.9)]
figure, axes = plt.subplots(4, 5, figsize=(8.6, 7.2), layout="constrained")
for line, i in zip(axes.T, picked, strict=True):
    a, b = true[i].numpy(), paper[i].numpy()
    line[0].imshow(to_picture(column("image")[i]), extent=(0, 224, 224, 0))
    line[0].contour(np.arange(224) + 0.5, np.arange(224) + 0.5, a > 0, [0.5], colors="white", linewidths=1)
    line[0].contour(np.arange(224) + 0.5, np.arange(224) + 0.5, b > 0, [0.5], colors=ORANGE, linewidths=1)
    line[1].imshow(colour_parts(a), interpolation="nearest")
    line[2].imshow(colour_parts(b), interpolation="nearest")
    where = np.full((224, 224, 3), BACKGROUND, np.uint8)
    where[(a > 0) & (a == b)] = (96, 98, 104)
    where[(a > 0) & (b > 0) & (a != b)] = (86, 180, 233)
    where[(a > 0) != (b > 0)] = (230, 159, 0)
    line[3].imshow(where, interpolation="nearest")
    for axis in line:
        bare(axis)
    line[0].set_title(f"{100 * share[i]:.0f} % differ, {true_away[i]:.1f} m", fontsize=9)
for axis, name in zip(axes[:, 0], ("image", "crop's camera", "paper's camera", "difference"), strict=True):
    axis.set_ylabel(name)
plt.show()

# %% [markdown]
# That is more than a few pixels along the outlines. To have something to compare with, the table also moves
# the true labels by whole pixels of the crop, and repeats the count at smaller sizes. "mIoU" is what a
# network would score that draws the paper's labels perfectly and is measured against those in the image.


# %% tags=["hide-input"]
def moved(labels, pixels):
    """Labels (P, S, S) shifted to the right, background coming in."""
    out = torch.zeros_like(labels)
    out[..., pixels:] = labels[..., :-pixels]
    return out


def line(name, labels, truth):
    a, b = differing(labels, truth), overlap(labels, truth)
    score = mean_iou(*parts_overlap(parts_confusion(labels, truth).sum(0)))
    return (
        name,
        f"{100 * a.mean():.1f} ± {100 * a.std():.1f} %",
        f"{100 * a.quantile(0.05):.0f} … {100 * a.quantile(0.95):.0f} %",
        f"{b.mean():.3f} ± {b.std():.3f}",
        f"{score:.2f}",
    )


rows = [line("paper's camera, 224", paper, true)]
coarse = {}
for size in (56, 28):
    coarse[size] = [
        part_targets(vertices, joints3d, *box, body, size, camera=name) for name in ("crop", "released")
    ]
    rows.append(line(f"paper's camera, {size}", coarse[size][1], coarse[size][0]))
rows += [line(f"true labels moved by {n} of 224", moved(true, n), true) for n in (1, 5, 10)]
html_table(
    ("", "another label", "nine in ten people", "silhouettes, IoU", "mIoU"),
    rows,
    f"Against the labels in the crop's true perspective: {len(true)} people, mean ± standard deviation",
)

# %% tags=["hide-input"]
shifts = np.arange(11)
by_shift = [0.0, *(differing(moved(true, n)).mean().item() for n in shifts[1:])]
Markdown(
    f"On average **{100 * share.mean():.0f} %** of a person's pixels carry another label under the paper's camera. One would have to move the true "
    f"labels by {np.interp(share.mean(), by_shift, shifts):.1f} of the crop's 224 pixels to make as many wrong. For the best tenth of the people it "
    f"is at most {100 * share.quantile(0.1):.0f} %, for the worst at least {100 * share.quantile(0.9):.0f} %."
)

# %% [markdown]
# ### Why they differ
#
# Two things are lost with the true camera. One is the *place in the image*. A person near the margin is seen
# from the side, as the page on the [camera](camera.ipynb) shows: the label's rotation is measured against the
# camera's axis, not against the line of sight. The paper's camera has its axis in the middle of the crop, so
# it sees the same rotation from another direction, and the body appears turned by the angle between the two.
# The other is *nearness*. From three metres a hand that is stretched towards the camera is a quarter larger
# than the other; from thirty, both are alike.
#
# The two can be told apart. Turn the body by the angle of its box before the paper's camera looks at it, and
# the first cause is gone; what then remains is the second.

# %%
ray = torch.stack(
    [
        (center[:, 0] - cam_int[:, 0, 2]) / cam_int[:, 0, 0],
        (center[:, 1] - cam_int[:, 1, 2]) / cam_int[:, 1, 1],
        torch.ones(len(center)),
    ],
    1,
)
off_axis = torch.atan(ray[:, :2].norm(dim=1))  # angle of the box's middle from the camera's axis, radians
towards = torch.linalg.cross(ray, torch.tensor([0.0, 0.0, 1.0]).expand_as(ray))
turn = roma.rotvec_to_rotmat(torch.nn.functional.normalize(towards, dim=1) * off_axis[:, None])
turned = part_targets(vertices @ turn.mT, joints3d @ turn.mT, *box, body, 224, camera="released")
share_turned = differing(turned)

# %% [markdown]
# To see each cause by itself, the same people, in the poses they have, are also put elsewhere: at four metres
# in ever wider directions, and straight ahead at ever larger distances. Curves below are these; dots are the
# people as they stand in the data.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of a person's pixels that get another label from the paper's camera. Left: against the angle at which the person stands from the camera's axis. Right: against the distance, when the body has first been turned by that angle. Dots: people of the data; lines: the same poses moved about, their median and middle half.", "name": "fig-why"}}
def put(angle, distance):
    """The first people with their pelvis at this angle (radians) and distance (metres): shares (poses,)."""
    n = min(poses, len(vertices))
    at = distance * torch.tensor([np.sin(angle), 0.0, np.cos(angle)], dtype=torch.float32)
    move = at - joints3d[:n, :1]
    mesh, joints = vertices[:n] + move, joints3d[:n] + move
    k = torch.tensor([[1000.0, 0, 0], [0, 1000.0, 0], [0, 0, 1]]).expand(n, 3, 3)
    pixels = project(joints, k)
    low, high = pixels[:, :22].amin(1), pixels[:, :22].amax(1)
    there = (
        torch.cat([pixels, torch.ones(n, 24, 1)], -1),
        (low + high) / 2,
        1.2 * (high - low).amax(1) / 200,
        k,
    )
    a, b = (part_targets(mesh, joints, *there, body, 112, camera=name) for name in ("crop", "released"))
    return differing(b, a)


angles, ranges = np.linspace(0, 35, 8), np.array([1.5, 2, 3, 4, 6, 9, 14])
by_angle = 100 * torch.stack([put(np.deg2rad(a), 4.0) for a in angles]).numpy()
by_range = 100 * torch.stack([put(0.0, d) for d in ranges]).numpy()
figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.4), sharey=True, layout="constrained")
axes[0].plot(off_axis.rad2deg(), 100 * share, ".", color=BLUE, alpha=0.45, markersize=4)
axes[1].plot(true_away, 100 * share_turned, ".", color=BLUE, alpha=0.45, markersize=4)
for axis, x, values in ((axes[0], angles, by_angle), (axes[1], ranges, by_range)):
    low, mid, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
    axis.fill_between(x, low, high, color=ORANGE, alpha=0.3, linewidth=0)
    axis.plot(x, mid, color=ORANGE, linewidth=2)
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
axes[0].set(xlabel="angle from the camera's axis, degrees", ylabel="% of a person's pixels", ylim=(0, 90))
axes[0].set_title("as the paper has it", fontsize=9)
axes[1].set(xlabel="distance, metres", xlim=(0, 15))
axes[1].set_title("turned by the angle first", fontsize=9)
plt.show()

# %% tags=["hide-input"]
far = true_away > true_away.median()
expected = np.interp(true_away, ranges, np.median(by_range, 1)) / 100
excess = share_turned.numpy() - expected
reach_along = (joints3d[..., 2].amax(1) - joints3d[..., 2].amin(1)).numpy()
with_reach, with_angle = (np.corrcoef(excess, x)[0, 1] for x in (reach_along, off_axis.numpy()))
Markdown(
    f"Of the {100 * share.mean():.0f} % that differ on average, turning first leaves {100 * share_turned.mean():.0f} %: "
    f"{100 * share_turned[~far].mean():.0f} % for the nearer half of the people, {100 * share_turned[far].mean():.0f} % for the farther half. "
    f"Straight ahead the same poses differ by {np.median(by_range[0]):.0f} % at {ranges[0]:g} m and by {np.median(by_range[-1]):.0f} % at {ranges[-1]:g} m; "
    f"at 4 m they go from {np.median(by_angle[0]):.0f} % straight ahead to {np.median(by_angle[-1]):.0f} % at {angles[-1]:.0f}°.\n\n"
    "People above the curve on the right reach far along the line of sight, or stand near the margin, where a flat image stretches what it "
    f"shows and the paper's camera does not: how far above they lie is correlated with the one by {with_reach:.2f} and with the angle by {with_angle:.2f}."
)

# %% [markdown]
# ### What this means
#
# The paper's way needs no intrinsics, and for somebody far away in the middle of the picture it is as good as
# the true perspective. For everybody else it asks the network to say "shoulder" at a place where the image
# shows none, in a direction that depends on where the crop was cut out, which the decoder is not told. The
# paper reports good numbers all the same, so attention can evidently be learned from parts that are only
# roughly in place. Whether true labels would have made them better is not measured here: that would take two
# full trainings that differ in nothing else. Nor do the shares above carry over to BEDLAM as they are. They
# depend on how near and how far off the axis people stand, and on the open data that is our own doing.
#
# What can be said is that the true perspective costs nothing where the intrinsics are known, as they are in
# every data set with rendered people. So it is the default, and `camera="released"` is there for comparison:

# %%
show_source(part_targets)
