# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The regressor
#
# After encoder, decoders and attention, every joint has a feature vector of its own. What remains is the
# part with the least work to do and the only one that speaks of bodies: it turns 22 feature vectors into 22
# rotations, one shape and one camera.
#
# For joint $j$, with the attended feature $A_j$, CLIFF's three numbers $\mathbf q$ and the depth branch's
# average $\bar D$,
#
# $$
# g_j = [\, A_j,\; \mathbf{q},\; \bar D \,], \qquad
# \theta_j = \theta_j^0 + W_j''\, \mathrm{ReLU}\bigl( W_j' [\, \theta_j^0,\, g_j \,] + c_j' \bigr) + c_j'' .
# $$
#
# Two choices in this line are worth a closer look. Each joint has matrices *of its own*: a knee and a wrist
# share no weight. And nothing is predicted from zero: $\theta_j^0$ is the mean, and the network only says how
# this person differs from it.

# %% tags=["parameters"] nbmake={"mock": {"seconds": 0.02, "draws": 10000, "people": 4}}
preset = "paper"  # whose regressor is measured
checkpoint = "mini"  # a trained network, for the mean body and the corrections
data = None  # data root; None: $DPOSE_DATA, else the open data
sample = 3  # which test person
people = 24  # test people for the last figure
batch_sizes = [1, 4, 16, 64]
threads = 1  # of the processor, while measuring speed
seconds = 0.25  # to measure each speed
draws = 300_000  # random inputs for the 6D property
seed = 0

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
from IPython.display import Markdown
from torch import nn
from torch.utils.benchmark import Timer

import dpose
from dpose.camera import bbox_info
from dpose.data.loader import make_loader
from dpose.figures import (
    INK,
    MESH_COLOURS,
    draw_mesh,
    picture_grid,
    show_source,
    style_axis,
    to_picture,
)
from dpose.model.checkpoint import body_of
from dpose.model.inference import to_device
from dpose.model.regressor import MultiLinear, Regressor
from dpose.rotations import sixd_to_rotmat
from dpose.skeleton import JOINT_NAMES, NUM_BODY_JOINTS

torch.set_grad_enabled(False)
torch.manual_seed(seed)
plt.rcParams["figure.dpi"] = 130
config = dpose.preset(preset)
regressor = Regressor(config)

# %% [markdown]
# ## Twenty-two layers as one
#
# Twenty-two separate linear layers would mean a Python loop, and 22 small products where the processor would
# like one large. The construction used here, which the authors took from ReFit {cite:p}`refit`, stacks the
# matrices and multiplies all of them at once. The layer below is all there is to it.

# %%
show_source(MultiLinear)

# %% [markdown]
# **Does it compute the same?** Copy its weights into 22 ordinary layers and compare. A sum of several hundred
# products rounds differently when it is added up in another order, so "the same" means: both are equally near
# to what double precision says.

# %%
stacked = regressor.pose_hidden
separate = nn.ModuleList(
    nn.Linear(stacked.weight.shape[2], stacked.weight.shape[1]) for _ in range(NUM_BODY_JOINTS)
)
for layer, weight, bias in zip(separate, stacked.weight, stacked.bias, strict=True):
    layer.weight.copy_(weight), layer.bias.copy_(bias)


def loop(x):
    """The same as `stacked`, one joint after the other: (B, 22, inp) -> (B, 22, out)."""
    return torch.stack([layer(x[:, j]) for j, layer in enumerate(separate)], 1)


x = torch.randn(64, NUM_BODY_JOINTS, stacked.weight.shape[2])
exact = torch.einsum("kij,bkj->bki", stacked.weight.double(), x.double()) + stacked.bias.double()
difference = (stacked(x) - loop(x)).abs().max().item()
errors = [(y - exact).abs().max().item() for y in (stacked(x), loop(x))]
rounding = (
    torch.finfo(torch.float32).eps * exact.abs().max().item()
)  # of a single number as large as the largest
assert difference < 100 * rounding and max(errors) < 100 * rounding
Markdown(
    f"Outputs reach {exact.abs().max():.1f}. Largest difference between the two: **{difference:.1e}**; from double precision the "
    f"stacked layer differs by {errors[0]:.1e}, the loop by {errors[1]:.1e}. "
    f"The spacing of single-precision numbers of that size is {rounding:.1e}."
)

# %% [markdown]
# **Is it faster?** Measured when this page was built, on this machine, so the numbers are of this machine and
# of this hour.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Time of one layer (777 to 32 numbers for each of 22 joints, in PAPER), by batch size; both axes logarithmic.", "name": "fig-speed"}}
def milliseconds(statement, x):
    """Median time of one call."""
    timer = Timer(statement, globals={"stacked": stacked, "loop": loop, "x": x}, num_threads=threads)
    return 1e3 * timer.blocked_autorange(min_run_time=seconds).median


with torch.inference_mode():
    times = np.array(
        [[milliseconds(f"{kind}(x)", x[:size]) for kind in ("loop", "stacked")] for size in batch_sizes]
    )

figure, axis = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
for values, colour in zip(times.T, (INK, MESH_COLOURS[0]), strict=True):
    axis.loglog(batch_sizes, values, "o-", color=colour, linewidth=2, markersize=5)
where = {"textcoords": "offset points", "fontsize": 9}
axis.annotate("22 separate layers", (batch_sizes[1], times[1, 0]), (-4, 12), ha="right", color=INK, **where)
axis.annotate("MultiLinear", (batch_sizes[1], times[1, 1]), (6, -12), color=MESH_COLOURS[0], **where)
axis.set(xlabel="batch", ylabel="milliseconds", ylim=(times.min() / 1.6, times.max() * 1.8))
axis.set_xticks(batch_sizes, [str(size) for size in batch_sizes])
axis.minorticks_off()
axis.spines[["top", "right"]].set_visible(False)
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
ratio = times[:, 0] / times[:, 1]
Markdown(
    "On this machine the loop takes "
    + ", ".join(f"{r:.1f} times as long at batch {size}" for r, size in zip(ratio, batch_sizes, strict=True))
    + f" ({threads} thread{'s' * (threads > 1)})."
)

# %% [markdown]
# ## Six numbers for a rotation
#
# A joint's rotation leaves the network as six numbers, read as two columns $a_1, a_2$ of a matrix and
# straightened {cite:p}`sixd`:
#
# $$
# b_1 = \frac{a_1}{\lVert a_1 \rVert}, \qquad b_2 = \frac{a_2 - (b_1^\top a_2)\, b_1}{\lVert a_2 - (b_1^\top
# a_2)\, b_1 \rVert}, \qquad b_3 = b_1 \times b_2 .
# $$

# %%
show_source(sixd_to_rotmat)

# %% [markdown]
# Why not three numbers, when three are enough? Because no three numbers describe all rotations without a jump
# somewhere, and a network is a continuous function. Let a joint turn once around an oblique axis. The
# rotation ends where it began, without a jump; so do the six numbers. The rotation vector has to jump back at
# 180°.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A joint turns once around an oblique axis: its rotation vector, and its six numbers.", "name": "fig-sixd"}}
t = torch.linspace(0, 2 * torch.pi, 721)
axis_of_turn = nn.functional.normalize(torch.tensor([0.5, 0.8, 0.33]), dim=0)
turning = roma.rotvec_to_rotmat(t[:, None] * axis_of_turn)
rotvec = roma.rotmat_to_rotvec(turning)
rotvec[(t - torch.pi).abs() < 0.006] = torch.nan  # a gap where it jumps

figure, axes = plt.subplots(1, 2, figsize=(8.6, 2.6), layout="constrained")
colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
for axis, curves, title in zip(
    axes, (rotvec, turning[..., :2].flatten(1)), ("rotation vector, radians", "the six numbers"), strict=True
):
    for curve, colour in zip(curves.T, colours, strict=False):
        axis.plot(t.rad2deg(), curve, color=colour, linewidth=1.8)
    axis.set(xlabel="turned by, degrees", title=title)
    axis.set_xticks(range(0, 361, 90))
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
plt.show()

# %% [markdown]
# ## One property to doubt: a rotation, whatever comes in
#
# Nothing holds the network to columns of unit length or at right angles. Is the result a rotation for *any*
# six numbers? Here are random ones, each column of a size between a thousandth and a million.

# %%
size = 10 ** torch.empty(draws, 2).uniform_(-3, 6)  # of either column
columns = nn.functional.normalize(torch.randn(draws, 3, 2), dim=1) * size[:, None]
rotations = sixd_to_rotmat(columns.flatten(1))  # (draws, 3, 3)


def defect(rotations):
    """Largest entry of R^T R - 1 of each: (N, 3, 3) -> (N,)."""
    return (rotations.mT @ rotations - torch.eye(3)).abs().amax((1, 2))


determinants = torch.linalg.det(rotations)
angle = torch.linalg.vector_norm(torch.linalg.cross(*columns.unbind(2)), dim=1) / size.prod(
    1
)  # sine between columns
assert torch.isfinite(rotations).all() and determinants.min() > 0
assert (defect(rotations) * angle).max() < 1e-5
Markdown(
    f"{draws:,} random inputs: median of the largest entry of $R^\\top R - 1$ **{defect(rotations).median():.0e}**, "
    f"99.9 % below {defect(rotations).quantile(0.999):.0e}; determinants between {determinants.min():.5f} and {determinants.max():.5f}."
)

# %% [markdown]
# It is, as far as the two columns point into different directions; their length does not matter. What remains
# is a matter of rounding: if the columns are nearly parallel, little is left after taking off the common
# part, and what is left is mostly rounding error. The next figure closes the angle between them, and marks
# the angles that the trained network actually produces.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How far the result is from a rotation when the two columns are nearly parallel (blue, the worst of 500 pairs). Grey: angles between the columns that the trained network puts out, before they are straightened.", "name": "fig-parallel"}}
network = dpose.load(checkpoint)
loader = make_loader(data, "test", network.config, max(people, sample + 1))
batch = to_device(next(iter(loader)), "cpu")
box = bbox_info(batch["center"], batch["scale"], batch["cam_int"])
heard = []
handle = network.regressor.pose_out.register_forward_hook(lambda module, inputs, output: heard.append(output))
prediction = network(batch["image"], box)
handle.remove()
mean = network.regressor.init_pose.view(NUM_BODY_JOINTS, 6)
residual = heard[0]  # (B, 22, 6)
first, second = (mean + residual).unflatten(-1, (3, 2)).unbind(-1)
between = torch.atan2(
    torch.linalg.vector_norm(torch.linalg.cross(first, second), dim=-1), (first * second).sum(-1)
).rad2deg()

degrees = torch.logspace(-6, np.log10(90), 60)
a = nn.functional.normalize(torch.randn(500, 3), dim=1)
b = nn.functional.normalize(torch.linalg.cross(a, torch.randn(500, 3)), dim=1)
worst = [
    defect(
        sixd_to_rotmat(torch.stack([a, d.deg2rad().cos() * a + d.deg2rad().sin() * b], 2).flatten(1))
    ).max()
    for d in degrees
]
figure, axis = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
axis.loglog(degrees, worst, color=MESH_COLOURS[0], linewidth=2)
axis.set(xlabel="angle between the columns, degrees", ylabel="largest entry of $R^T R - 1$", ylim=(3e-8, 3))
crowd = axis.twinx()
nearest = torch.minimum(between, 180 - between).flatten()
crowd.hist(nearest, np.logspace(-6, np.log10(90), 90), color=INK, alpha=0.5)
crowd.axis("off")
crowd.text(
    nearest.median() / 2,
    0.9 * crowd.get_ylim()[1],
    f"{network.config.name.upper()}'s joints",
    color=INK,
    ha="right",
    fontsize=9,
)
axis.minorticks_off()
axis.spines[["top", "right"]].set_visible(False)
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
Markdown(
    f"Over {between.shape[0]} test people and {NUM_BODY_JOINTS} joints, {network.config.name.upper()}'s columns are between "
    f"{between.min():.0f}° and {between.max():.0f}° apart, where the result is a rotation to {defect(prediction.rotmats.flatten(0, 1)).max():.0e}. "
    "Exactly parallel columns, or a column of zeros, say nothing about a second direction; the package then returns finite numbers, but no rotation."
)

# %% [markdown]
# ## Means and corrections
#
# The means are stored in the checkpoint. For `MINI`, pose, shape and camera are averages over training
# people, and everybody's correction starts there. Only the global orientation is no average: people face all
# ways, and the mean of that says nothing, so it is set to upright, facing the camera. Below, one person's
# correction is dialled in, from nothing to all of it.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "From the mean body (left) to the network's answer for one test person (right): means plus a growing share of the predicted residuals.", "name": "fig-residual"}}
body = body_of(network)
shares = torch.linspace(0, 1, 5)
rotmats = sixd_to_rotmat(mean + shares[:, None, None] * residual[sample])  # (5, 22, 3, 3)
mean_shape = network.regressor.init_shape
betas = mean_shape + shares[:, None] * (prediction.betas[sample] - mean_shape)
posed = body(betas, rotmats)
SIDE = 220
camera = torch.tensor([[2.2 * SIDE, 0, SIDE / 2], [0, 2.2 * SIDE, SIDE / 2], [0, 0, 1]])
vertices = (
    posed.vertices
    - 0.5 * (posed.vertices.amax(1, True) + posed.vertices.amin(1, True))
    + torch.tensor([0, 0, 4.2])
)
strip = [draw_mesh(v, body.faces, camera, SIDE) for v in vertices]
picture = to_picture(batch["image"][sample])
titles = [
    "image",
    *("mean" if s == 0 else "mean + residual" if s == 1 else f"+ {100 * s:.0f} %" for s in shares),
]
figure = picture_grid([[picture, *strip]], titles=titles, side=1.45)
plt.show()

# %% tags=["hide-input"]
turned = roma.rotmat_geodesic_distance(sixd_to_rotmat(mean), prediction.rotmats).rad2deg()  # (B, 22)
largest = turned.mean(0)
order = largest.argsort(descending=True)
name = lambda j: JOINT_NAMES[j].replace("_", " ")  # noqa: E731
Markdown(
    f"The correction turns {name(order[0])} most ({largest[order[0]]:.0f}° on average over {len(turned)} people), then "
    f"{name(order[1])} ({largest[order[1]]:.0f}°) and {name(order[2])} ({largest[order[2]]:.0f}°); it turns {name(order[-1])} least "
    f"({largest[order[-1]]:.0f}°)."
)
