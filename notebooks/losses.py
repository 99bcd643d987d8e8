# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The losses
#
# A loss is a taste: it says which mistakes hurt. D-PoSE {cite:p}`dpose` adds up eight of them (eqs. 1–4),
#
# $$
# L = \underbrace{\lambda_1 L_\mathrm{L1} + \lambda_2 L_\mathrm{SSIM}}_{\text{depth}}
#   + \underbrace{\lambda_3 L_\mathrm{CE}}_{\text{parts}}
#   + \underbrace{\lambda_4 L_\mathrm{pose} + \lambda_5 L_\mathrm{shape} + \lambda_6 L_\mathrm{3D}
#   + \lambda_7 L_\mathrm{V} + \lambda_8 L_\mathrm{2D}}_{\text{body}} .
# $$
#
# $L_\mathrm{L1}$ and $L_\mathrm{V}$ are mean absolute values, $L_\mathrm{CE}$ is the cross-entropy, and the other
# body terms are mean squares.
#
# This page starts from a perfect answer for one person, turns a dial that makes it wrong in one way, and
# watches what each term says about it, and how hard it pulls. It does so for three sets of weights: the
# paper's, `MINI`'s, and those of the code that the authors released, which is not the same as the paper in
# several places ([all of them](paper_vs_code.ipynb)).

# %% tags=["parameters"] nbmake={"mock": {"points": 5, "people": 8, "count": 8}}
data = None  # data root; None: $DPOSE_DATA, else the open data
sample = 3  # which test person
points = 21  # of each curve
people = 16  # for the gradients that reach the encoder
count = 96  # people whose pixels are counted
seed = 0

# %% tags=["hide-input"]
from dataclasses import fields

import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
from IPython.display import Markdown

import dpose
import dpose.losses as terms
from dpose.batch import Prediction
from dpose.camera import bbox_info
from dpose.data.loader import make_loader
from dpose.data.means import weak_perspective
from dpose.figures import (
    INK,
    colour_depth,
    colour_values,
    html_table,
    overlay,
    picture_grid,
    show_source,
    style_axis,
    to_picture,
)
from dpose.losses import MINI_WEIGHTS, PAPER_WEIGHTS, RELEASED_WEIGHTS, TERMS, LossWeights, compute_losses
from dpose.model.inference import to_device
from dpose.skeleton import JOINT_NAMES, NUM_CLASSES

torch.manual_seed(seed)
plt.rcParams["figure.dpi"] = 130
RECIPES = {"PAPER": PAPER_WEIGHTS, "MINI": MINI_WEIGHTS, "RELEASED": RELEASED_WEIGHTS}
COLOUR = {
    "pose": "#0072B2", "joints3d": "#009E73", "vertices": "#E69F00", "joints2d": "#CC79A7", "shape": "#56B4E9",
    "depth_l1": "#0072B2", "depth_ssim": "#E69F00", "segm": "#D55E00", "camera": "#D55E00",
}  # fmt: skip
config = dpose.preset("mini")
body, light_body = dpose.load_body(), dpose.load_body(vertex_stride=8)  # the light one: every eighth vertex

# %% [markdown]
# ## The three sets of weights

# %% tags=["hide-input"]
rows = [
    (field.name.replace("lambda_", "λ") + (f", {TERMS[i]}" if i < len(TERMS) else ""),)
    + tuple(str(getattr(weights, field.name)) for weights in RECIPES.values())
    for i, field in enumerate(fields(LossWeights))
]
html_table(("", *RECIPES), rows, "Coefficients, and the variants of the terms (dpose.losses.LossWeights)")

# %% [markdown]
# ## A perfect answer
#
# Take one person of the test set and answer with the truth: its rotations, its shape, a camera that puts the
# body where it is, the true parts with full confidence, the true depth.

# %%
everybody = next(iter(make_loader(data, "test", config, max(people, sample + 1))))
everybody = to_device(everybody, "cpu")
batch = {name: value[sample : sample + 1] for name, value in everybody.items()}
true_cam = weak_perspective(batch)  # (1, 3), `full_translation` undone
certain = 30 * torch.nn.functional.one_hot(batch["parts"], NUM_CLASSES).movedim(-1, 1).float()
truth = Prediction(batch["pose"], batch["betas"], true_cam, certain, batch["depth"])

perfect = compute_losses(truth, batch, light_body)
assert (
    perfect["total"] - PAPER_WEIGHTS.of("joints2d") * perfect["joints2d"] < 1e-6
)  # 2D labels may be measured
Markdown(
    f"The loss of the perfect answer is {perfect['total']:.1e}: zero, but for the rounding of stored labels."
)

# %% [markdown]
# ## One elbow
#
# Now bend the left elbow, and nothing else. Four terms notice: the rotation is wrong, and so are the joints
# and vertices further down the arm, and where they are seen in the image.

# %%
show_source(terms.pose, terms.joints3d, terms.vertices)


# %%
ELBOW = JOINT_NAMES.index("left_elbow")


def bend(degrees):
    """The truth, with the left elbow turned by so many degrees about the vertical axis of the T-pose."""
    turn = roma.rotvec_to_rotmat(degrees.deg2rad() * torch.tensor([0.0, -1.0, 0.0]))
    before, elbow, after = truth.rotmats.split([ELBOW, 1, 21 - ELBOW], 1)
    return truth._replace(rotmats=torch.cat([before, elbow @ turn, after], 1))


# %% tags=["hide-input"]
def dial(move, values, weights):
    """Every weighted term at each setting of a dial, and its derivative: two dicts of lists."""
    value, slope = {}, {}
    for setting in values:
        x = torch.tensor(float(setting), requires_grad=True)
        said = compute_losses(move(x), batch, light_body, weights)
        for name in (*TERMS, "camera"):
            if name in said and said[name].requires_grad:
                weighted = weights.of(name) * said[name]
                (g,) = torch.autograd.grad(weighted, x, retain_graph=True, allow_unused=True)
                if g is not None:
                    value.setdefault(name, []).append(weighted.item())
                    slope.setdefault(name, []).append(abs(g.item()))
    return value, slope


def curves(move, values, unit, log_x=True):
    """Values (above) and derivatives (below) of all terms that move, for each recipe."""
    figure, axes = plt.subplots(2, 3, figsize=(8.6, 4.6), sharex=True, sharey="row", layout="constrained")
    for column, (recipe, weights) in zip(axes.T, RECIPES.items(), strict=True):
        for axis, lines in zip(column, dial(move, values, weights), strict=True):
            for name, line in lines.items():
                if max(line) > 1e-9:
                    axis.plot(values, line, color=COLOUR[name], linewidth=2, label=name)
            axis.set_yscale("log")
            if log_x:
                axis.set_xscale("log")
            axis.spines[["top", "right"]].set_visible(False)
            axis.minorticks_off()
        column[0].set_title(recipe, fontsize=10)
        column[1].set_xlabel(unit)
    axes[0, 0].set_ylabel("weighted term")
    axes[1, 0].set_ylabel("its gradient")
    axes[0, 0].legend(fontsize=8, frameon=False)
    for axis in axes.flat:
        style_axis(axis)
    return figure


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The dial: the elbow of one test person, from right to wrong.", "name": "fig-elbow"}}
picture = to_picture(batch["image"][0])
geometry = batch["cam_int"][0], batch["center"][0], batch["scale"][0]
strip = []
for degrees in (0.0, 30.0, 60.0, 90.0, 120.0):
    posed = body(batch["betas"], bend(torch.tensor(degrees)).rotmats, batch["trans"])
    strip.append(overlay(picture, posed.vertices[0], body.faces, *geometry))
figure = picture_grid([strip], titles=[f"{d}°" for d in (0, 30, 60, 90, 120)], side=1.72)
plt.show()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What the terms say about the bent elbow, for the three sets of weights: weighted value, and its derivative by the angle (per degree). All axes logarithmic.", "name": "fig-elbow-curves"}}
degrees = np.geomspace(1, 120, points)
figure = curves(bend, degrees, "elbow off by, degrees")
plt.show()


# %% tags=["hide-input"]
def growth(name, weights, low=1.0, high=4.0):
    """Exponent of a term between two settings: 2 for squares, 1 for absolute values."""
    value, _ = dial(bend, (low, high), weights)
    return np.log(value[name][1] / value[name][0]) / np.log(high / low)


Markdown(
    "On such axes a power is a straight line and its exponent the slope. Between 1° and 4° the exponents of PAPER are "
    + ", ".join(
        f"{growth(name, PAPER_WEIGHTS):.2f} ({name})" for name in ("pose", "joints3d", "vertices", "joints2d")
    )
    + "."
)

# %% [markdown]
# Squares forgive small errors, and their pull fades as the error does; the absolute value of the vertex term
# pulls with the same force down to the last millimetre. So the vertices do the fine work. The pose term
# flattens for large angles, because a matrix cannot be more wrong than upside down.
#
# ## Depth
#
# Two terms look at the depth map. The first compares pixel by pixel. SSIM compares small windows, and asks
# more for the same pattern than for the same level. Both see the person only, in `PAPER` and `MINI`; the dial
# here mixes the true depth with the mean depth of this person, until at 1 the map is flat.

# %%
show_source(terms.supervised_pixels, terms.depth_l1, terms.depth_ssim)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The dial: from the true depth (0) to a flat one (1).", "name": "fig-flat"}}
person = batch["depth"] > 0
flat = torch.where(person, batch["depth"][person].mean(), 0.0)


def flatten(share):
    """The truth, with the depth map mixed with a flat one."""
    return truth._replace(depth=batch["depth"] + share * (flat - batch["depth"]))


shares = (0.0, 0.25, 0.5, 0.75, 1.0)
maps = [colour_depth(flatten(share).depth[0, 0].numpy(), person[0, 0].numpy()) for share in shares]
figure = picture_grid([maps], titles=[f"{share:g}" for share in shares], side=1.72)
plt.show()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What the two depth terms say. In RELEASED, the line called depth_l1 is a mean square.", "name": "fig-depth-curves"}}
figure = curves(flatten, np.geomspace(0.01, 1, points), "share of flatness")
plt.show()

# %% [markdown]
# ## The camera
#
# Only one term sees where the body stands: the projected joints. In `MINI` it is measured in boxes, not in
# images, so a small person counts as much as a large one. The released code also penalises small or negative
# scales $s$, for which the body would stand very far away or behind the camera. Here nothing would have to be:
# in all three sets, below $s = 0.1$, the translation continues $1/s$ by its tangent, so value and gradient
# stay finite.

# %%
show_source(terms.joints2d)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The body shifted sideways (left), and its camera scale turned from the true value to below zero (right): all weighted terms that notice.", "name": "fig-camera-curves"}}


def shift(metres):
    return truth._replace(cam=true_cam + metres * torch.tensor([0.0, 1.0, 0.0]))


def rescale(scale):
    return truth._replace(cam=torch.cat([scale.view(1, 1), true_cam[:, 1:]], 1))


figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.0), sharey=True, layout="constrained")
dials = (
    (shift, np.linspace(0.01, 0.8, points)),
    (rescale, np.linspace(true_cam[0, 0] - 0.01, -0.3, 2 * points)),
)
for axis, (move, values) in zip(axes, dials, strict=True):
    for recipe, style in zip(RECIPES, ("-", "--", ":"), strict=True):
        for name, line in dial(move, values, RECIPES[recipe])[0].items():
            axis.semilogy(values, line, style, color=COLOUR[name], linewidth=2, label=f"{recipe}, {name}")
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set(xlabel="shifted by, metres", ylabel="weighted term", ylim=(1e-3, 1e5))
axes[1].set(xlabel="camera scale s")
axes[1].axvline(0.1, color=INK, linewidth=0.8)
axes[1].invert_xaxis()
axes[1].legend(fontsize=8, frameon=False)
for axis in axes:
    style_axis(axis)
plt.show()

# %% [markdown]
# ## One property to doubt: where there is no truth, nothing is learned
#
# Some data sets have no depth, and after a jittered crop even a sample with depth may show nobody. Such
# samples sit in the same batch as others. They must not pull at the depth map at all; "hardly" would not do,
# because a mean over no pixels is 0/0, and one NaN ends a training run. Four people: the second has no depth,
# of the third nobody is in view.

# %%
mixed = {name: value[:4] for name, value in everybody.items()}
mixed["has_depth"] = torch.tensor([True, False, True, True])
mixed["depth"] = mixed["depth"] * torch.tensor([1.0, 1, 0, 1]).view(4, 1, 1, 1)
answer = torch.rand(mixed["depth"].shape, requires_grad=True)


def pull(batch, weights):
    """Gradient of both depth terms at a random depth map, (B, 1, M, M), and their sum."""
    said = Prediction(
        batch["pose"], batch["betas"], true_cam.expand(4, 3), certain.expand(4, -1, -1, -1), answer
    )
    found = compute_losses(said, batch, light_body, weights)
    value = weights.of("depth_l1") * found["depth_l1"] + weights.of("depth_ssim") * found["depth_ssim"]
    return torch.autograd.grad(value, answer)[0], value.item()


nobody = mixed | {"has_depth": torch.zeros(4, dtype=torch.bool)}
for weights in RECIPES.values():
    gradient, _ = pull(mixed, weights)
    assert gradient.isfinite().all() and gradient[[1, 2]].count_nonzero() == 0 and gradient[[0, 3]].any()
    gradient, value = pull(nobody, weights)
    assert value == 0 and gradient.count_nonzero() == 0
gradient, _ = pull(mixed, PAPER_WEIGHTS)
background = mixed["depth"] == 0
Markdown(
    f"Gradients that are not exactly zero, PAPER: {', '.join(str(int(g.count_nonzero())) for g in gradient)} of "
    f"{gradient[0].numel():,} pixels of the four people; on the background: "
    f"{int(gradient[background].count_nonzero())}. In a batch without any depth: value {value:g}, all gradients zero. "
    "The same holds for MINI and RELEASED, except that RELEASED looks at the background."
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Target, and size of the gradient at each pixel under PAPER and RELEASED (dark blue: zero), for the four people.", "name": "fig-masks"}}
rows = [
    [colour_depth(d[0].numpy()) for d in mixed["depth"] * mixed["has_depth"].view(4, 1, 1, 1)],
    *(list(colour_values(pull(mixed, w)[0].abs().sqrt()[:, 0])) for w in (PAPER_WEIGHTS, RELEASED_WEIGHTS)),
]
titles = ("with depth", "without", "nobody in view", "with depth")
figure = picture_grid(rows, titles=titles, labels=("target", "PAPER", "RELEASED"), side=1.55)
plt.show()

# %% [markdown]
# ## Why MINI's weights differ
#
# The paper's weights assume an encoder that has already learned to find people's joints. From random weights
# all is to be learned at once, through the same features, and what counts is how hard each term pulls at
# *them*. So here is an untrained `MINI`, one batch of people, and the gradient that each term sends back into
# the encoder's four feature maps.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Size of the gradient of each weighted term at the encoder's feature maps, in an untrained MINI, as a share of the sum over the terms.", "name": "fig-pull"}}
fresh = dpose.DPose(config).train()
means = dpose.load("mini").regressor
fresh.set_means(means.init_pose, means.init_shape, means.init_cam)
crowd = {name: value[:people] for name, value in everybody.items()}
share = torch.bincount(crowd["parts"].flatten(), minlength=NUM_CLASSES) / crowd["parts"].numel()
fresh.init_head_priors(share, crowd["depth"][crowd["depth"] > 0].mean())
box = bbox_info(crowd["center"], crowd["scale"], crowd["cam_int"])
said, features = fresh(crowd["image"], box, return_features=True)
inner = (features.f1, features.f2, features.f3, features.f4)


def pulls(weights):
    """Norm of each weighted term's gradient at the encoder's maps."""
    found = compute_losses(said, crowd, light_body, weights)
    out = {}
    for name in (*TERMS, "camera"):
        if name in found:
            gradients = torch.autograd.grad(weights.of(name) * found[name], inner, retain_graph=True)
            out[name] = torch.cat([g.flatten() for g in gradients]).norm().item()
    return out


names = (*TERMS, "camera")
figure, axes = plt.subplots(1, 3, figsize=(8.6, 2.9), sharex=True, sharey=True, layout="constrained")
share_of_maps = {}
for axis, (recipe, weights) in zip(axes, RECIPES.items(), strict=True):
    strength = pulls(weights)
    total = sum(strength.values())
    percent = [100 * strength.get(name, 0.0) / total for name in names]
    share_of_maps[recipe] = sum(percent[:3])
    axis.barh(names, percent, color=[COLOUR["segm"]] * 3 + [COLOUR["pose"]] * 6, height=0.7)
    for i, value in enumerate(percent):
        axis.text(
            value + 1.5,
            i,
            f"{value:.1f}" if names[i] in strength else "–",
            color=INK,
            fontsize=8,
            va="center",
        )
    axis.set(xlabel="% of the pull", title=recipe, xlim=(0, 100))
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
    axis.grid(visible=False)
axes[0].invert_yaxis()
plt.show()

# %% tags=["hide-input"]
Markdown(
    "Depth and parts together (vermilion) have "
    + ", ".join(f"{value:.1f} % of the pull in {recipe}" for recipe, value in share_of_maps.items())
    + ". MINI's weights give the maps a voice, because depth and parts are what is to be learned first."
)

# %% [markdown]
# ## Small parts
#
# A cross-entropy counts pixels, and most pixels are background. A toe that is never found costs next to
# nothing. `parts_balance` $= b$ gives a pixel of a class with share $f$ of the pixels the weight $f^{-b}$: 0
# leaves all pixels alike, as in the paper, at 1 all *classes* count alike. `MINI` takes a value in between:
# small parts count for more, and the background still for most. What it finds of them is on the page of
# [tables](tables.ipynb).

# %%
show_source(terms.segmentation)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How much each class weighs in the cross-entropy, as a share of all, for three exponents b. Classes by size.", "name": "fig-balance"}}
counts = torch.zeros(NUM_CLASSES)
for some in make_loader(data, "test", config, 16, limit=count):
    some = to_device(some, "cpu")
    counts += torch.bincount(some["parts"].flatten(), minlength=NUM_CLASSES)
share = counts / counts.sum()
order = share.argsort(descending=True)
labels = ("background", *(name.replace("_", " ") for name in JOINT_NAMES[:22]))
figure, axis = plt.subplots(figsize=(8.6, 3.2), layout="constrained")
for b, colour in (
    (PAPER_WEIGHTS.parts_balance, "#0072B2"),
    (MINI_WEIGHTS.parts_balance, "#D55E00"),
    (1.0, INK),
):
    weight = torch.where(share > 0, share ** (1 - b), 0.0)
    axis.semilogy(
        range(NUM_CLASSES),
        100 * (weight / weight.sum())[order],
        "o-",
        color=colour,
        markersize=4,
        label=f"b = {b:g}",
    )
axis.set(ylabel="% of the weight")
axis.set_xticks(range(NUM_CLASSES), [labels[i] for i in order], rotation=50, ha="right", fontsize=8)
axis.legend(fontsize=9, frameon=False)
axis.minorticks_off()
axis.spines[["top", "right"]].set_visible(False)
style_axis(axis)
plt.show()
