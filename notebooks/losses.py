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
# Training changes the weights of a network so that one number becomes small, the loss. This page writes out the
# loss of D-PoSE {cite:p}`dpose` (eqs. 1 to 4 of the paper). It measures how its terms respond to known errors, and
# how much each one contributes to the gradient that reaches the encoder's maps.
#
# :::{chapter}
# :needs: [The body model](body_model.ipynb), [the decoders](decoders.ipynb), [the camera](camera.ipynb), [the regressor](regressor.ipynb); gradients
# :learn: the eight terms of the loss and their units; which weights the paper, the released code and the shipped networks use; what an absolute and what a squared error do to the gradient; why samples without depth do not disturb training
# :::

# %% tags=["parameters", "hide-input"] nbmake={"mock": {"points": 5, "people": 8, "count": 8}} mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
data = None  # data root; None: $DPOSE_DATA, else the open data
sample = 3  # which test person
points = 21  # of each curve
people = 16  # for the gradients that reach the encoder
count = 96  # people whose pixels are counted
seed = 0

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

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
    label_ends,
    overlay,
    picture_grid,
    power_of_ten,
    style_axis,
    to_picture,
)
from dpose.losses import (
    COEFFICIENTS,
    LITE_WEIGHTS,
    MINI_WEIGHTS,
    PAPER_WEIGHTS,
    RELEASED_WEIGHTS,
    compute_losses,
)
from dpose.model.inference import to_device
from dpose.skeleton import JOINT_NAMES, NUM_CLASSES

torch.manual_seed(seed)
plt.rcParams["figure.dpi"] = 130
RECIPES = {
    "paper": PAPER_WEIGHTS,
    "released code": RELEASED_WEIGHTS,
    "lite": LITE_WEIGHTS,
    "mini": MINI_WEIGHTS,
}
COMPARED = ("paper", "released code", "lite")
NETWORKS = {"lite": "`lite`"}  # in the text
NAMES = {
    "depth_l1": "depth, pixel error",
    "depth_ssim": "depth, 1 − SSIM",
    "segm": "parts",
    "pose": "pose",
    "shape": "shape",
    "joints3d": "3D joints",
    "vertices": "vertices",
    "joints2d": "2D joints",
    "camera": "camera scale",
}
# Contrast above 4.5:1 on white and on black.
COLOUR = {
    "pose": "#127CB7",
    "joints3d": "#008662",
    "vertices": "#C15500",
    "joints2d": "#A36085",
    "paper": "#127CB7",
    "released code": "#C15500",
    "lite": "#008662",
}
config = dpose.preset("lite")
body, light_body = dpose.load_body(), dpose.load_body(vertex_stride=8)  # the light one: every eighth vertex

# %% [markdown]
# ## Three groups of terms
#
# The loss has one group for each output of the network, the depth map, the part map and the body:
#
# $$
# L = L_\mathrm{depth} + L_\mathrm{segm} + L_\mathrm{human} \tag{1}
# $$
#
# All three outputs are computed from the same encoder maps, so every term also trains the encoder.
#
# {py:obj}`dpose.losses.compute_losses` computes the terms of a batch and their weighted sum. Symbols with a hat
# are predictions, symbols without are the ground truth. $\langle\cdot\rangle$ is the mean over the batch
# and over all entries.
#
# ## Depth
#
# Two terms compare the predicted depth map $\hat d$ with the true one $d$:
#
# $$
# L_\mathrm{depth} = \lambda_1\, |d - \hat d| + \lambda_2\, \bigl(1 - \mathrm{SSIM}(d, \hat d)\bigr) \tag{2}
# $$
#
# The first is the L1 error, a mean over the set $P$ of pixels that show the person; the background is ignored:
#
# $$
# |d - \hat d| = \frac{1}{|P|} \sum_{p \in P} \bigl| d_p - \hat d_p \bigr|
# $$
#
# The second compares small windows by their structural similarity ({term}`SSIM`) {cite:p}`ssim`. With the means
# $\mu$, variances $\sigma^2$ and covariance $\sigma_{d\hat d}$ of the two maps in a window,
#
# $$
# \mathrm{SSIM}(d, \hat d) =
# \frac{2 \mu_d\, \mu_{\hat d} + c_1}{\mu_d^2 + \mu_{\hat d}^2 + c_1} \cdot
# \frac{2 \sigma_{d \hat d} + c_2}{\sigma_d^2 + \sigma_{\hat d}^2 + c_2} .
# $$
#
# The first factor compares the level, the second the pattern; both are 1 if the windows are equal. The
# constants $c_1 = 0.01^2$ and $c_2 = 0.03^2$ keep the fractions finite. Windows are Gaussian, 11 pixels wide with
# $\sigma = 1.5$ pixels. Outside of $P$ both maps are set to zero, and the mean is over the windows that contain a pixel
# of $P$.
#
# The functions are {py:obj}`dpose.losses.depth_l1` and {py:obj}`dpose.losses.depth_ssim`. Both get $P$ from
# {py:obj}`dpose.losses.supervised_pixels`: pixels with a positive target, of samples that have depth.
#
# ## Parts
#
# The part map is trained by the {term}`cross-entropy` over the 23 classes, 22 parts and the background:
#
# $$
# \begin{aligned}
# L_\mathrm{segm} &= \lambda_3\, \mathrm{CrossEntropy}(c, S), \\
# \mathrm{CrossEntropy}(c, S) &= - \biggl\langle \log \frac{\exp S_{c_p,\,p}}{\sum_k \exp S_{k,\,p}} \biggr\rangle_{\!p}
# \end{aligned}
# \tag{3}
# $$
#
# Here $S_{k,p}$ is the {term}`logit` of class $k$ at pixel $p$, and $c_p$ is the true class. The mean is over all pixels,
# background included, and over the whole of the training: PARE {cite:p}`pare` switches this supervision off
# after a while, D-PoSE does not. The function is {py:obj}`dpose.losses.segmentation`.
#
# ## Body
#
# Five terms compare the body:
#
# $$
# \begin{aligned}
# L_\mathrm{human} = {} & \lambda_4 L_\mathrm{SMPLpose} + \lambda_5 L_\mathrm{SMPLshape} \\
# & + \lambda_6 L_{J3D} + \lambda_7 L_{V3D} + \lambda_8 L_{J2D}
# \end{aligned}
# \tag{4}
# $$
#
# $$
# \begin{aligned}
# L_\mathrm{SMPLpose} &= \bigl\langle (\hat R_j - R_j)^2 \bigr\rangle
#   && \text{entries of the rotation matrices of 22 joints} \\
# L_\mathrm{SMPLshape} &= \bigl\langle (\hat \beta - \beta)^2 \bigr\rangle
#   && \text{11 shape coefficients} \\
# L_{J3D} &= \bigl\langle (\hat J_{3D} - J_{3D})^2 \bigr\rangle
#   && \text{22 joints relative to the middle of the hips, m}^2 \\
# L_{V3D} &= \bigl\langle |\hat V - V| \bigr\rangle
#   && \text{coordinates of the vertices, m} \\
# L_{J2D} &= \bigl\langle w_j\, (\hat J_{2D} - J_{2D})^2 \bigr\rangle
#   && \text{22 projected joints, half image sides}
# \end{aligned}
# $$
#
# The functions are {py:obj}`dpose.losses.pose`, {py:obj}`dpose.losses.shape`, {py:obj}`dpose.losses.joints3d`,
# {py:obj}`dpose.losses.vertices` and {py:obj}`dpose.losses.joints2d`. The paper writes four of the terms as norms, and calls
# them mean squared errors (MSE). Three details are not in its equations.
#
# - *Pose.* Rotations are compared as matrices $R_j$, global orientation included. Matrices change continuously with
#   the rotation, where {term}`axis-angle` vectors jump at 180°.
# - *3D joints and vertices.* The translation is left out: joints are relative to the midpoint of the two hips (the
#   released code: to the pelvis of the body model, difference {diff}`49`), vertices are in the frame of the posed body. Where the body is follows from the camera alone.
# - *2D joints.* $\hat J_{2D}$ is the projection of the predicted joints by {eqn}`6`, in the full image. Coordinates
#   are divided by half the width and height of the image, and $w_j$ is the confidence of the label.
#
# ## Weights
#
# The weights $\lambda_1$ to $\lambda_8$ balance terms of different units. The table shows those of the paper, of its authors'
# released code and of the two networks of this book, all of them fields of {py:obj}`dpose.losses.LossWeights`.

# %% tags=["remove-input"]
LONG = {
    "depth_l1": "depth, pixel error",
    "segm": "parts, cross-entropy",
    "pose": "pose, rotation matrices",
    "shape": "shape coefficients",
    "vertices": "vertices, absolute error",
    "camera": "camera scale (see below)",
}
rows = [
    (
        LONG.get(name, NAMES[name]),
        field.replace("lambda_", "λ").translate(str.maketrans("12345678", "₁₂₃₄₅₆₇₈"))
        if "lambda" in field
        else field,
        *(f"{getattr(weights, field):g}" for weights in RECIPES.values()),
    )
    for name, field in COEFFICIENTS.items()
]
rows.append(("common factor", "factor", *(f"{weights.factor:g}" for weights in RECIPES.values())))
html_table(("term", "symbol or field", *RECIPES), rows, "Weights of the loss terms", align="ll")


# %% tags=["remove-input"]
MAPS = ("depth_l1", "depth_ssim", "segm")
(factor,) = {round(LITE_WEIGHTS.of(name) / PAPER_WEIGHTS.of(name), 6) for name in MAPS}
Markdown(
    f"`lite` and `mini` multiply the paper's weights of the three map terms by {factor:g} and lower most others, because with the paper's "
    "weights hardly any of the gradient at the encoder's maps comes from these terms (*Which terms reach the encoder's maps?*, below). No trial of "
    "this factor is recorded, and whether it changes the answer about depth is not known (*What this design cannot show* in "
    "the [ablation](ablation.ipynb)). The two differ in the 2D term alone, whose weight and unit in `lite` were chosen by trials "
    "on [photographs](photographs.ipynb). Apart from weights, both change the unit of the 2D term (*The camera*) and the balance of the parts "
    "(*Small parts*); what the released code changes is on the page [All differences](../book/differences.md), section *The losses*."
)

# %% [markdown]
# ## A loss as a function of one error
#
# Take one of the rendered people of the open data and let the prediction be the ground truth, the parts with a large logit for the true class. Then
# change one thing in this prediction, by an amount that a dial sets. Every term becomes a function of one number, and
# automatic differentiation gives its slope.

# %%
everybody = next(iter(make_loader(data, "test", config, max(people, sample + 1))))
everybody = to_device(everybody, "cpu")
batch = {name: value[sample : sample + 1] for name, value in everybody.items()}
true_cam = weak_perspective(batch)  # (1, 3), `full_translation` undone
sure = 30 * torch.nn.functional.one_hot(batch["parts"], NUM_CLASSES).movedim(-1, 1).float()
truth = Prediction(batch["pose"], batch["betas"], true_cam, sure, batch["depth"])
perfect = compute_losses(truth, batch, light_body)

# %% tags=["remove-input"]
labels_off = PAPER_WEIGHTS.of("joints2d") * perfect["joints2d"]  # 2D labels of other data may be measured
assert perfect["total"] - labels_off < 1e-6
Markdown(
    f"The loss of the ground truth itself is {power_of_ten(perfect['total'].item(), 1)}, the rounding of labels and float32."
)


# %% [markdown]
# ### An elbow
#
# One dial turns the left elbow ({numref}`fig-elbow`). Four terms respond: the rotation is wrong, the
# joints and vertices further down the arm are in the wrong place, and so are their projections.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The left elbow of a test person, turned away from the true angle. Below: four terms with the paper's weights, and the absolute values of their derivatives. All axes are logarithmic.", "name": "fig-elbow"}, "image": {"alt": "Above, five crops of a person whose left forearm in the drawn mesh turns further in each. Below, two log-log charts: three terms rise steeply and the vertex term less so, while the derivative of the vertex term is nearly level and those of the others rise."}}
ELBOW = JOINT_NAMES.index("left_elbow")


def bend(degrees):
    """The truth, with the left elbow turned by so many degrees about the vertical axis of the T-pose."""
    turn = roma.rotvec_to_rotmat(degrees.deg2rad() * torch.tensor([0.0, -1.0, 0.0]))
    before, elbow, after = truth.rotmats.split([ELBOW, 1, 21 - ELBOW], 1)
    return truth._replace(rotmats=torch.cat([before, elbow @ turn, after], 1))


def dial(move, values, weights):
    """Every weighted term at each setting of a dial, and its derivative: two dicts of lists."""
    value, slope = {}, {}
    for setting in values:
        x = torch.tensor(float(setting), requires_grad=True)
        found = compute_losses(move(x), batch, light_body, weights)
        for name in NAMES:
            if name in found and found[name].requires_grad:
                weighted = weights.of(name) * found[name]
                (g,) = torch.autograd.grad(weighted, x, retain_graph=True, allow_unused=True)
                if g is not None:
                    value.setdefault(name, []).append(weighted.item())
                    slope.setdefault(name, []).append(abs(g.item()))
    responding = [name for name, line in value.items() if max(line) > 1e-9]
    return {name: value[name] for name in responding}, {name: slope[name] for name in responding}


def dial_figure(strip, titles, move, values, label, slope_label):
    """A strip of pictures over two panels: the weighted terms and their slopes, with the paper's weights."""
    figure = plt.figure(figsize=(7.5, 5.1), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.9))
    for part in (figure, upper, lower):
        part.patch.set_alpha(0)
    for axis, picture, title in zip(upper.subplots(1, len(strip)), strip, titles, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(title, fontsize=10, color=INK)
    axes = lower.subplots(1, 2)
    names = ("weighted term", slope_label)
    for axis, lines, name in zip(axes, dial(move, values, PAPER_WEIGHTS), names, strict=True):
        for term, line in lines.items():
            axis.loglog(values, line, color=COLOUR[term], linewidth=2)
        axis.set(xlabel=label, title=name)
        axis.title.set_fontsize(10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.minorticks_off()
        ends = np.log10([min(map(min, lines.values())), max(map(max, lines.values()))])
        axis.set_ylim(10 ** np.floor(ends[0]), 10 ** np.ceil(ends[1]))  # whole decades
        style_axis(axis)
        label_ends(axis, {NAMES[term]: (COLOUR[term], line[-1]) for term, line in lines.items()})
    return figure


picture = to_picture(batch["image"][0])
geometry = batch["cam_int"][0], batch["center"][0], batch["scale"][0]
strip = []
for degrees in (0.0, 30.0, 60.0, 90.0, 120.0):
    posed = body(batch["betas"], bend(torch.tensor(degrees)).rotmats, batch["trans"])
    strip.append(overlay(picture, posed.vertices[0], body.faces, *geometry))
titles = [f"{degrees}°" for degrees in (0, 30, 60, 90, 120)]
degrees = np.geomspace(1, 120, points)
figure = dial_figure(strip, titles, bend, degrees, "error of the elbow, degrees", "derivative, per degree")
plt.show()


# %% tags=["remove-input"]
def growth(name, low=1.0, high=4.0):
    """Exponent of a term between two angles: 2 for squares, 1 for absolute values."""
    value, _ = dial(bend, (low, high), PAPER_WEIGHTS)
    return np.log(value[name][1] / value[name][0]) / np.log(high / low)


exponents = ", ".join(
    f"{growth(name):.2f} ({NAMES[name]})" for name in ("pose", "joints3d", "joints2d", "vertices")
)
fine = np.geomspace(0.1, 120, 40)
_, slopes = dial(bend, fine, PAPER_WEIGHTS)
largest = [max(slopes, key=lambda name: slopes[name][i]) for i in range(len(fine))]
share = [slopes["vertices"][i] / sum(line[i] for line in slopes.values()) for i in range(len(fine))]
crossing = next((angle for angle, name in zip(fine, largest, strict=True) if name != "vertices"), None)
until = "at all angles shown" if crossing is None else f"below about {crossing:.0f}°"
one_degree = int(np.abs(fine - 1).argmin())
Markdown(
    f"On such axes $c\\,x^n$ is a straight line of slope $n$. Between 1° and 4° the exponents are {exponents}. The gradient of a "
    "squared term fades with the error; that of the vertex term, an absolute value, does not. For this person and joint "
    f"the vertex term has the largest derivative {until}; at 1° it makes up {100 * share[one_degree]:.0f} % of the four."
)

# %% [markdown]
# The pose term flattens for large angles; exercise 1 derives the formula.
#
# ### The camera
#
# Only the 2D term depends on the predicted camera $(s, t_x, t_y)$. {numref}`fig-camera-loss` shows it for a body that moves
# sideways and for a decreasing scale $s$. The distance is proportional to $1/s$ (see [the camera](camera.ipynb)), which
# would be infinite at $s = 0$ and negative below. In all losses here, $1/s$ is
# replaced below $s = 0.1$ by the straight line that touches its curve at $s = 0.1$, so that value and gradient stay finite
# ({py:obj}`dpose.camera.full_translation`). The released code has the same formula without that, and a ninth term
# that keeps $s$ positive, $\bigl\langle \exp(-10\, s)^2 \bigr\rangle$ with $s$ clamped to $\pm 0.5$
# ({py:obj}`dpose.losses.camera`). The paper does not mention it.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The 2D term while the body is moved sideways (left), and while the camera scale s decreases from its true value to below zero (right), with three sets of weights; dotted: the released code's term of the camera scale. The vertical line is at s = 0.1. Vertical axes are logarithmic.", "name": "fig-camera-loss"}, "image": {"alt": "Two line charts on logarithmic axes. On the left three curves rise, at first steeply. On the right they rise and become level near the vertical line; the dotted curve is level at first and then rises steeply above all others."}}


def shift(metres):
    """The truth, moved to the right."""
    return truth._replace(cam=true_cam + metres * torch.tensor([0.0, 1.0, 0.0]))


def rescale(scale):
    """The truth, with another camera scale."""
    return truth._replace(cam=torch.cat([scale.view(1, 1), true_cam[:, 1:]], 1))


figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.1), layout="constrained")
dials = (
    (shift, np.linspace(0.01, 0.8, points), "moved by, metres"),
    (rescale, np.linspace(true_cam[0, 0] - 0.01, -0.3, 2 * points), "camera scale s"),
)
for axis, (move, values, label) in zip(axes, dials, strict=True):
    ends = {}
    for name in COMPARED:
        lines, _ = dial(move, values, RECIPES[name])
        axis.semilogy(values, lines["joints2d"], color=COLOUR[name], linewidth=2)
        ends[name] = COLOUR[name], lines["joints2d"][-1]
        if move is rescale and "camera" in lines:
            axis.semilogy(values, lines["camera"], ":", color=COLOUR[name], linewidth=2)
            ends["its scale term"] = COLOUR[name], lines["camera"][-1]
    axis.set(xlabel=label, ylabel="weighted term")
    axis.spines[["top", "right"]].set_visible(False)
    axis.minorticks_off()
    style_axis(axis)
    if move is rescale:
        axis.invert_xaxis()
        axis.axvline(0.1, color=INK, linewidth=0.8)
    label_ends(axis, ends)
plt.show()

# %% [markdown]
# In `lite` and `mini` errors are in units of half the box, not of half the image, so that people count alike whatever their
# size in the image (exercise 2). In `lite`, where the box shows only a part of a person, the extent of the joints is the unit.
#
# ## Samples without depth
#
# AGORA's people have no depth {cite:p}`agora`, and a jittered crop may miss the person altogether. Such samples must not
# change the depth map, but a mean over no pixels would be 0/0, and a single NaN ends a training run. {numref}`fig-masks` shows
# the gradient of both depth terms with respect to random depth maps.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Depth targets of four people, and the size of the gradient at each pixel with the losses of the paper and of the released code (dark blue: zero; square roots, so that small values show).", "name": "fig-masks"}, "image": {"alt": "Grid of four columns. Two depth targets show a person, two are empty. Below the empty ones the gradient is dark throughout; below the people it covers the silhouette in the row of the paper, and the whole map in the row of the released code."}}
mixed = {name: value[:4] for name, value in everybody.items()}
mixed["has_depth"] = torch.tensor([True, False, True, True])
mixed["depth"] = mixed["depth"] * torch.tensor([1.0, 1, 0, 1]).view(4, 1, 1, 1)
depth_map = torch.rand(mixed["depth"].shape, requires_grad=True)
prediction = Prediction(
    mixed["pose"], mixed["betas"], true_cam.expand(4, 3), sure.expand(4, -1, -1, -1), depth_map
)


def depth_gradient(batch, weights):
    """Gradient of both weighted depth terms w.r.t. the depth map, (B, 1, M, M), and their sum."""
    found = compute_losses(prediction, batch, light_body, weights)
    value = sum(weights.of(name) * found[name] for name in ("depth_l1", "depth_ssim"))
    return torch.autograd.grad(value, depth_map)[0], value.item()


no_depth = mixed | {"has_depth": torch.zeros(4, dtype=torch.bool)}
for weights in RECIPES.values():
    gradient, _ = depth_gradient(mixed, weights)
    assert gradient.isfinite().all() and not gradient[[1, 2]].any() and gradient[[0, 3]].any()
    gradient, value = depth_gradient(no_depth, weights)
    assert value == 0 and not gradient.any()

pictures = [
    [colour_depth(d[0].numpy()) for d in mixed["depth"] * mixed["has_depth"].view(4, 1, 1, 1)],
    *(
        list(colour_values(depth_gradient(mixed, weights)[0].abs().sqrt()[:, 0]))
        for weights in (PAPER_WEIGHTS, RELEASED_WEIGHTS)
    ),
]
titles = ("with depth", "without depth", "not visible", "with depth")
figure = picture_grid(pictures, titles=titles, labels=("target", "paper", "released code"), side=1.75)
plt.show()

# %% tags=["remove-input"]
gradient, _ = depth_gradient(mixed, PAPER_WEIGHTS)
released, _ = depth_gradient(mixed, RELEASED_WEIGHTS)
background = (mixed["depth"] == 0) & mixed["has_depth"].view(4, 1, 1, 1)
background[2] = False  # not visible: no pixel of this sample is supervised
assert not gradient[background].any()
Markdown(
    "For the two people with depth, no background pixel has a gradient with the paper's losses, and "
    f"{100 * released[background].count_nonzero() / background.sum():.0f} % of them have one with the released code's. In a batch without any depth both terms and "
    "all gradients are exactly zero."
)

# %% [markdown]
# ## Which terms reach the encoder's maps?
#
# The maps $F_1$ to $F_4$ are where the branches of the network separate. How much a term changes the layers before them depends on its
# gradient with respect to these maps. {numref}`fig-shares` compares these gradients of `lite` for one
# batch of people: before training, when everything after the pretrained backbone is random, and after.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Norm of the gradient of each weighted term with respect to the encoder maps F1 to F4, in % of the sum over the terms, with three sets of weights. Bars and first numbers: the network before training; diamonds and second numbers: the trained network.", "name": "fig-shares"}, "image": {"alt": "Three bar charts with a row per term. With the weights of the paper and of the released code blue bars of the body terms are long and orange ones nearly absent; with those of lite the orange bars of the maps are long."}}
trained = dpose.load("lite").train()
fresh = dpose.DPose(config).train()
fresh.encoder.load_pretrained()
means = trained.regressor
fresh.set_means(means.init_pose, means.init_shape, means.init_cam)
crowd = {name: value[:people] for name, value in everybody.items()}
frequency = torch.bincount(crowd["parts"].flatten(), minlength=NUM_CLASSES) / crowd["parts"].numel()
fresh.init_head_priors(frequency, crowd["depth"][crowd["depth"] > 0].mean())
box = bbox_info(crowd["center"], crowd["scale"], crowd["cam_int"])


def shares(network):
    """{loss: {term: per cent}} of the gradient norms at the encoder maps."""
    predicted, features = network(crowd["image"], box, return_features=True)
    maps = (features.f1, features.f2, features.f3, features.f4)
    result = {}
    for name in COMPARED:
        found = compute_losses(predicted, crowd, light_body, RECIPES[name])
        norms = {}
        for term in found.keys() - {"total"}:
            gradients = torch.autograd.grad(RECIPES[name].of(term) * found[term], maps, retain_graph=True)
            norms[term] = torch.cat([g.flatten() for g in gradients]).norm().item()
        result[name] = {term: 100 * norm / sum(norms.values()) for term, norm in norms.items()}
    return result


before, after = shares(fresh), shares(trained)
figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.5), sharex=True, sharey=True, layout="constrained")
for axis, name in zip(axes, COMPARED, strict=True):
    colours = ["#C15500" if term in MAPS else "#127CB7" for term in NAMES]
    start = [before[name].get(term, 0.0) for term in NAMES]
    axis.barh(list(NAMES.values()), start, color=colours, height=0.62)
    for i, value in enumerate(start):
        end = after[name].get(list(NAMES)[i])
        if end is not None:
            axis.plot(end, i, "D", color=INK, markersize=4.5)
            text = f"{value:.1f} → {end:.1f}" if max(value, end) < 9.95 else f"{value:.0f} → {end:.0f}"
            axis.text(max(value, end) + 4, i, text, color=INK, fontsize=9, va="center")
    axis.set(xlabel="% of the norms", title=name, xlim=(0, 100))
    axis.title.set_fontsize(10)
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
    axis.grid(visible=False)
axes[0].invert_yaxis()
plt.show()


# %% tags=["remove-input"]
def map_share(state):
    return "; ".join(
        f"{sum(state[name][term] for term in MAPS):.1f} % ({NETWORKS.get(name, name)})" for name in COMPARED
    )


Markdown(
    f"The shares of the three map terms together (orange bars) are, before training: {map_share(before)}; after "
    f"training: {map_share(after)}. For `PAPER` this was not measured. "
    "A share of the gradient is not a result: what the losses do to the errors after equal training is measured in the [ablation](ablation.ipynb)."
)

# %% [markdown]
# ## Small parts
#
# A cross-entropy counts pixels, and most are background. `lite` and `mini` therefore multiply the
# cross-entropy of a pixel by $f^{-b}$, where $f$ is the share of its class in the batch, and divide by the sum of these weights: with
# $b = 0$, as in the paper, all pixels count alike; with $b = 1$ all classes do.

# %% tags=["remove-input"]
counts = torch.zeros(NUM_CLASSES)
for some in make_loader(data, "test", config, 16, limit=count):
    some = to_device(some, "cpu")
    counts += torch.bincount(some["parts"].flatten(), minlength=NUM_CLASSES)
share = counts / counts.sum()
b = MINI_WEIGHTS.parts_balance
weight = torch.where(share > 0, share ** (1 - b), 0.0)
weight = 100 * weight / weight.sum()
smallest = int(share.where(share > 0, 1.0).argmin())
name = ("background", *JOINT_NAMES[:22])[smallest].replace("_", " ")
Markdown(
    f"Of the pixels of {count} test people, {100 * share[0]:.0f} % are background, and {100 * share[smallest]:.2f} % show the smallest part, the "
    f"{name}. With the two networks' b = {b:g} their shares of the term are {weight[0]:.0f} % and {weight[smallest]:.2f} %."
)

# %% [markdown]
# ## Takeaways
#
# - The loss is a weighted sum of eight terms: two for the depth map, one for the part map, and five for the body,
#   which compare rotations, shape, 3D joints, vertices and projected joints.
# - A squared term has a gradient that fades with the error; the absolute value of the vertex term keeps its
#   gradient, so for small errors of the elbow it is the largest of the body terms.
# - Samples without depth, and crops without the person, have exactly zero depth loss and zero gradient, so
#   data sets with and without depth can share a batch.
#
# ## Exercises
#
# **Exercise 1.** One joint of one person is rotated away from the truth by the angle $a$; all other rotations are
# right. Show that $L_\mathrm{SMPLpose} = 8 \sin^2(a/2) / (9 \cdot 22)$. At which angle is the derivative with respect to $a$ largest?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
# |R' - R|² = tr(R'ᵀR') + tr(RᵀR) - 2 tr(R'ᵀR) = 6 - 2 (1 + 2 cos a) = 4 (1 - cos a) = 8 sin²(a / 2),
# and the term is the mean over 22 matrices of 9 entries. Its derivative, 4 sin(a) / 198, is largest at 90°.
angles = torch.linspace(0, torch.pi, 181)
measured = torch.stack([terms.pose(bend(angle.rad2deg()).rotmats, truth.rotmats) for angle in angles])
torch.testing.assert_close(measured, 8 * (angles / 2).sin() ** 2 / (9 * 22), atol=1e-6, rtol=1e-4)
steepest = angles[1:-1][(measured[2:] - measured[:-2]).argmax()].rad2deg()
assert abs(steepest - 90) < 2
Markdown(f"The formula holds at all {len(angles)} angles. The measured slope is largest at {steepest:.0f}°.")

# %% [markdown]
# **Exercise 2.** Put the same image into the corner of a black canvas four times as wide and high. Box, crop, labels and
# prediction stay the same, to the pixel. By which factor does the 2D term change with the weights of the paper, of the
# released code and of `lite`? What does that mean for people who are small in their image?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
canvas = batch | {"img_size": 4 * batch["img_size"]}  # the principal point stays, in pixels
wrong = shift(0.1)
changes = {}
for name in COMPARED:
    terms_2d = [compute_losses(wrong, b, light_body, RECIPES[name])["joints2d"] for b in (batch, canvas)]
    changes[name] = (terms_2d[0] / terms_2d[1]).item()
torch.testing.assert_close(torch.tensor(list(changes.values())), torch.tensor([16.0, 4.0, 1.0]))
Markdown(
    f"It is divided by {changes['paper']:.0f} (paper), {changes['released code']:.0f} (released code) and {changes['lite']:.0f} (`lite`). Squared errors "
    "in half image sides become a sixteenth; the released code multiplies them by image side / box side. The network receives only "
    "the crop, in which the error is the same, yet with the paper's unit people who are small in their image count less."
)

# %% [markdown]
# **Exercise 3.** Suppose the depth decoder could only output one constant for all pixels. Which constant has the smallest
# first depth term, with the paper's loss (absolute error on the person) and with the released code's (squared error
# on all pixels)? Compute both for the batch above.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
target, has_depth = crowd["depth"], crowd["has_depth"]
median, mean = target[target > 0].median(), target.mean()
grid = torch.linspace(0, 1, 401)
constants = [torch.full_like(target, c) for c in grid]
best_l1 = grid[torch.stack([terms.depth_l1(c, target, has_depth) for c in constants]).argmin()]
best_mse = grid[torch.stack([terms.depth_mse(c, target, has_depth, "all") for c in constants]).argmin()]
assert abs(best_l1 - median) < 0.01 and abs(best_mse - mean) < 0.01
Markdown(
    f"The median of the person's pixels, {median:.2f}, for the paper's loss; the mean over all pixels, {mean:.2f}, for the "
    "released code's. Most pixels are background, whose target is 0, so the second constant is far from the depth of a person."
)
