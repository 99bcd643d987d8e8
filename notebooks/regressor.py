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
# Encoder, decoders and attention produce one feature vector per joint. The regressor turns these 22 vectors
# into the parameters of the [body model](body_model.ipynb): 22 rotations, eleven shape coefficients and a
# camera. This page explains its inputs and layers, why it outputs six numbers per rotation, and why it predicts
# differences from a mean body in a single pass.
#
# :::{chapter}
# :needs: [The body model](body_model.ipynb), [Soft attention: features for each joint](attention.ipynb), [Bounding box and camera](camera.ipynb)
# :learn: what the input of each joint consists of; the equations of the pose, shape and camera heads; why six numbers are a better output than three for a rotation; what the mean pose is for, and how one pass differs from iterative regression; for which joints a trained network is better than the mean pose
# :::

# %% tags=["parameters", "hide-input"] nbmake={"mock": {"draws": 10000, "people": 4}} mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
preset = "paper"  # the network whose sizes are listed
checkpoint = "mini"  # the trained network of the measurements
data = None  # data root; None: $DPOSE_DATA, else the open data
sample = 8  # the test person of the first picture
people = 200  # test people of the measurements
draws = 300_000  # random inputs for the 6D property
seed = 0

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
from IPython.display import Markdown
from torch import nn
from torch.nn import functional as F
from torch.utils.benchmark import Timer

import dpose
from dpose.camera import bbox_info
from dpose.config import HEADS, PAPER
from dpose.data.loader import make_loader
from dpose.figures import (
    INK,
    MESH_COLOURS,
    draw_mesh,
    html_table,
    picture_grid,
    power_of_ten,
    show_source,
    style_axis,
    to_picture,
)
from dpose.metrics import orientation_error
from dpose.model.checkpoint import body_of
from dpose.model.inference import run_network, to_device
from dpose.model.regressor import Regressor
from dpose.rotations import sixd_to_rotmat
from dpose.skeleton import NUM_BODY_JOINTS, PART_NAMES

torch.set_grad_enabled(False)
torch.manual_seed(seed)
plt.rcParams["figure.dpi"] = 130
config = dpose.preset(preset)
regressor = Regressor(config)

network = dpose.load(checkpoint)
if network.config.head != HEADS[0]:
    raise ValueError(
        f"this page needs a network with D-PoSE's head, {checkpoint} has {network.config.head!r}"
    )
NAME = f"`{network.config.name}`"
loader = make_loader(data, "test", network.config, max(people, sample + 1))
batch = to_device(next(iter(loader)), "cpu")
raw_outputs = []
handle = network.regressor.pose_out.register_forward_hook(
    lambda module, inputs, output: raw_outputs.append(output)
)
where = bbox_info(batch["center"], batch["scale"], batch["cam_int"])
prediction = network(batch["image"], where)
handle.remove()
mean_6d = network.regressor.init_pose.view(NUM_BODY_JOINTS, 6)
correction = raw_outputs[0]  # (B, 22, 6)


def spaced(name):
    return name.replace("_", " ")


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


# %% [markdown]
# (input-of-a-joint)=
# ## The input of a joint
#
# For joint $j$ the regressor receives the vector
#
# $$
# g_j = [\, A_j,\; \mathbf{q},\; \bar D \,], \qquad j = 1, \dots, 22 .
# $$
#
# $A_j$ are the attended features of the joint ({eqn}`5`, followed by the additional linear layer), 720 numbers; $\mathbf q$ is the
# [box information](camera.ipynb), 3 numbers; $\bar D$ is the mean of the depth features $D$ over all
# positions of the map, 48 numbers. Together these are 771 numbers. Only $A_j$ differs between the joints.
#
# The depth branch contributes by $\bar D$ alone: neither the depth map nor the places of the depth features are an input of
# the regressor. The paper's text says that the estimated depth map is concatenated; the released code appends this mean,
# and so does the package.

# %% tags=["remove-input"]
w = PAPER.width
assert 15 * w + 3 + w == 771


def disturb(decoder, inputs, output):
    """Noise for the depth map, and the features D at other places."""
    order = torch.randperm(output[1].flatten(2).shape[-1])
    return torch.randn_like(output[0]), output[1].flatten(2)[..., order].view_as(output[1])


text = f"{NAME} has no depth branch."
if network.config.depth:
    handle = network.depth_decoder.register_forward_hook(disturb)
    disturbed = network(batch["image"], where)
    handle.remove()
    same = (disturbed.rotmats - prediction.rotmats).abs().max().item()
    assert same < 1e-4 < (disturbed.depth - prediction.depth).abs().max()
    text = (
        "As a check, the depth map is replaced by noise, and the positions of $D$ are permuted at random: no entry of any predicted "
        f"rotation matrix changes by more than {power_of_ten(same)}."
    )
Markdown(text)

# %% [markdown]
# How much each of the three inputs contributes is measured on the page [What the errors depend on](analysis.ipynb), by exchanging
# one of them between people.
#
# ## Three heads
#
# Each head is a linear layer, a ReLU and a second linear layer, and each predicts a *difference* from a mean
# value, which is also part of its input. The **pose head** has weights of its own for every joint and sees only
# that joint's vector:
#
# $$
# x_j = \theta_j^0 + W_j\, \mathrm{ReLU} \bigl( W_j' [\, \theta_j^0,\, g_j \,] + c_j' \bigr)
# + c_j , \qquad R_j = \mathrm{GS}(x_j) .
# $$
#
# $\theta_j^0$ and $x_j$ are six numbers, so the input of the pose head has 771 + 6 = 777. As $\theta_j^0$ is the same for
# all people, $W_j'$ maps it to a constant, which acts as a bias only; the same holds for $\beta^0$ and $\kappa^0$
# below. The input remains from the [iterative form](#one-pass-or-several), in which it is the current estimate and
# differs between people. The function $\mathrm{GS}$ turns six numbers into a {term}`rotation matrix`, see
# below. The **shape head** and the **camera head** see the vectors of all joints:
#
# $$
# \begin{aligned}
# \beta &= \beta^0 + W_\beta\, \mathrm{ReLU} \bigl( W_\beta' [\, \beta^0,\, g_1, \dots, g_{22} \,] + c_\beta' \bigr)
# + c_\beta , \\
# (s, t_x, t_y) &= \kappa^0 + W_\kappa\, \mathrm{ReLU} \bigl( W_\kappa' [\, \kappa^0,\, g_1, \dots, g_{22} \,]
# + c_\kappa' \bigr) + c_\kappa .
# \end{aligned}
# $$
#
# $W$ and $W'$ are matrices, $c$ and $c'$ biases, and $\theta^0, \beta^0, \kappa^0$ the means of pose, shape and camera.
# {py:obj}`dpose.model.regressor.Regressor` computes all three. The paper gives neither the hidden size nor the
# place of the ReLU; both are those of the released code.

# %% tags=["remove-input"]
heads = {
    "pose, per joint": (regressor.pose_hidden, regressor.pose_out),
    "shape": (regressor.shape_hidden, regressor.shape_out),
    "camera": (regressor.cam_hidden, regressor.cam_out),
}
html_table(
    ("head", "input", "hidden", "output", "parameters"),
    [
        (
            name,
            f"{hidden.weight.shape[-1]:,}",
            f"{hidden.weight.shape[-2]}",
            f"{out.weight.shape[-2]}",
            f"{parameters(hidden, out):,}" + (" (22 joints)" if name.startswith("pose") else ""),
        )
        for name, (hidden, out) in heads.items()
    ],
    f"Sizes of the heads in {preset.upper()}; together {parameters(regressor):,} parameters",
)

# %% [markdown]
# As 22 separate linear layers the pose head would need a loop. The released code takes the *MultiLinear* layer of ReFit
# {cite:p}`refit` instead, which stacks the matrices and multiplies them in one call
# ({py:obj}`dpose.model.regressor.MultiLinear`):

# %%
weight = torch.randn(22, 32, 777)  # one matrix per joint
x = torch.randn(8, 22, 777)  # one vector per joint, batch of 8
tuple(torch.einsum("kij,bkj->bki", weight, x).shape)

# %% [markdown]
# ## Six numbers for a rotation
#
# The network outputs a {term}`6D rotation` {cite:p}`sixd`: two vectors $a_1, a_2 \in \mathbb{R}^3$, read as the
# first two columns of the matrix. Nothing forces an output of a linear layer to have unit length or to be
# perpendicular to another, so Gram-Schmidt orthonormalisation follows:
#
# $$
# \begin{gathered}
# b_1 = \frac{a_1}{\lVert a_1 \rVert}, \qquad
# b_2 = \frac{a_2 - (b_1^{\mathsf T} a_2)\, b_1}{\lVert a_2 - (b_1^{\mathsf T} a_2)\, b_1 \rVert}, \\
# b_3 = b_1 \times b_2, \qquad
# \mathrm{GS}(a_1, a_2) = (b_1, b_2, b_3) .
# \end{gathered}
# $$

# %% tags=["remove-input"]
show_source(sixd_to_rotmat)

# %% [markdown]
# Three numbers would be enough to describe a rotation, but not continuously. A rotation about an axis by 181°
# is the rotation about the opposite axis by 179°: the {term}`axis-angle` vector jumps where the rotation
# itself changes by a little. A network is a continuous function and cannot fit the jump. Zhou et al. prove
# that every representation by four or fewer real numbers is discontinuous somewhere, while the 6D representation
# is continuous everywhere. {numref}`fig-sixd` shows it for one full turn.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A joint makes one full turn about an oblique axis. Left: its axis-angle vector, three curves, which jumps at 180°. Right: its six numbers, which change continuously and end where they began.", "name": "fig-sixd"}, "image": {"alt": "Two line charts against the angle of a turn. On the left, three straight lines rise, all jump at half a turn, and rise again; on the right, six smooth waves."}}
t = torch.linspace(0, 2 * torch.pi, 721)
axis_of_turn = F.normalize(torch.tensor([0.5, 0.8, 0.33]), dim=0)
turning = roma.rotvec_to_rotmat(t[:, None] * axis_of_turn)
rotvec = roma.rotmat_to_rotvec(turning)
rotvec[(t - torch.pi).abs() < 0.006] = torch.nan  # a gap at the jump

figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.7), layout="constrained")
colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#B07A00")
titles = ("axis-angle, radians", "6D, no unit")
for axis, curves, title in zip(axes, (rotvec, turning[..., :2].flatten(1)), titles, strict=True):
    for curve, colour in zip(curves.T, colours, strict=False):
        axis.plot(t.rad2deg(), curve, color=colour, linewidth=1.8)
    axis.set(xlabel="turn, degrees", title=title)
    axis.set_xticks(range(0, 361, 90))
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
plt.show()

# %% tags=["remove-input"]
size = 10 ** torch.empty(draws, 2).uniform_(-3, 6)  # of each column
columns = F.normalize(torch.randn(draws, 3, 2), dim=1) * size[:, None]
rotations = sixd_to_rotmat(columns.flatten(1))  # (draws, 3, 3)
defect = (rotations.mT @ rotations - torch.eye(3)).abs().amax((1, 2))
sine = torch.linalg.vector_norm(torch.linalg.cross(*columns.unbind(2)), dim=1) / size.prod(1)
assert torch.isfinite(rotations).all() and torch.linalg.det(rotations).min() > 0
assert (defect * sine).max() < 1e-5  # nearly parallel columns lose digits
first, second = (mean_6d + correction).unflatten(-1, (3, 2)).unbind(-1)
cross = torch.linalg.vector_norm(torch.linalg.cross(first, second), dim=-1)
between = torch.atan2(cross, (first * second).sum(-1)).rad2deg()
Markdown(
    f"Gram-Schmidt makes a rotation of any two vectors that are not zero and not parallel, whatever their lengths. For {draws:,} random pairs with lengths "
    f"between 0.001 and a million, the median of the largest entry of $R^{{\\mathsf T}} R - E$ ($E$: the identity) is {power_of_ten(defect.median().item())}, the rounding of single precision; it grows as the vectors become parallel. "
    f"Parallel vectors have no second direction, but a trained network stays far from them: the two vectors of {NAME} are between {between.min():.0f}° "
    f"and {between.max():.0f}° apart ({between.shape[0]} test people, {NUM_BODY_JOINTS} joints)."
)

# %% [markdown]
# ## Start from the mean, correct once
#
# The heads add their outputs to means, as in HMR {cite:p}`hmr`. The {term}`mean pose` is a good
# first guess for most joints, and the network only has to learn deviations from it. In this package the
# means of pose, shape and camera are averages over the training set
# ({py:obj}`dpose.data.means.training_means`), stored with the weights. The global orientation is an exception.
# People face all directions, so an average orientation means nothing. It starts upright and facing the camera.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "From the mean body to the prediction for one of the rendered people of the open data: the mean parameters plus a growing share of the predicted correction. The camera of the pictures is fixed.", "name": "fig-residual"}, "image": {"alt": "A crop of a person, then five blue bodies seen by one camera: the first upright and facing the viewer, the last in the pose of the person, the others in between."}}
body = body_of(network)
shares = torch.linspace(0, 1, 5)
rotmats = sixd_to_rotmat(mean_6d + shares[:, None, None] * correction[sample])  # (5, 22, 3, 3)
mean_shape = network.regressor.init_shape
betas = mean_shape + shares[:, None] * (prediction.betas[sample] - mean_shape)
vertices = body(betas, rotmats).vertices
vertices = vertices - 0.5 * (vertices.amax(1, True) + vertices.amin(1, True)) + torch.tensor([0, 0, 4.2])
SIDE = 220
camera = torch.tensor([[2.2 * SIDE, 0, SIDE / 2], [0, 2.2 * SIDE, SIDE / 2], [0, 0, 1]])
strip = [draw_mesh(v, body.faces, camera, SIDE) for v in vertices]
image = to_picture(batch["image"][sample])
titles = ["image", "mean", *(f"+ {100 * s:.0f}\u00a0%" for s in shares[1:-1]), "prediction"]
picture_grid([[image, *strip]], titles=titles, side=1.24)
plt.show()

# %% [markdown]
# (one-pass-or-several)=
# ### One pass or several
#
# HMR and {term}`CLIFF` use an {term}`iterative regressor`. It receives pooled image features $\phi$ and its own
# current estimate $\Theta$ of all parameters, predicts a correction, and does this three times with the same
# weights:
#
# $$
# \Theta^{(k+1)} = \Theta^{(k)} + f\bigl( \phi,\, \Theta^{(k)} \bigr), \qquad k = 0, 1, 2, \qquad \Theta^{(0)} = \text{mean} .
# $$
#
# {py:obj}`dpose.model.heads.IterativeRegressor` is such a head. The estimate of one joint can depend on the
# estimates of the others. D-PoSE makes a single correction, and its joints are predicted independently of each other,
# from features that are already specific to the joint. PARE {cite:p}`pare` also predicts each joint once,
# from attended features.

# %% tags=["remove-input"]
others = {name: dpose.DPose(dpose.preset(f"paper-{name}")) for name in ("cliff", "pare")}
Markdown(
    f"With the encoder of `{preset.upper()}`, D-PoSE's regressor has {parameters(regressor) / 1e6:.2f} million parameters, the head of CLIFF "
    f"{parameters(others['cliff'].regressor) / 1e6:.2f} million and that of PARE {parameters(others['pare'].regressor) / 1e6:.2f} million (without its part "
    "branch), as implemented in `dpose.model.heads`."
)

# %% [markdown]
# The paper claims that training with this regressor converges faster than with the regressors of PARE and
# CLIFF (section 3.9), without giving a number. This book does not test the claim.
# [Does depth help? The ablation](ablation.ipynb) compares the errors of networks with these heads after training, not how fast they
# converge.
#
# ## What the corrections achieve, joint by joint
#
# {numref}`fig-joints` compares two errors of each joint's rotation: that of the mean pose, which is the same for
# all people, and that of the trained network's prediction. The difference is what the network has learned to
# read from the image.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean error of each joint's rotation relative to its parent, for the mean pose (grey, open) and the prediction of the trained network (blue, filled). The pelvis is the global orientation; its mean pose faces the camera. Joints below the line never move in the rendered people.", "name": "fig-joints"}, "image": {"alt": "Dot chart with a row per joint and the error in degrees. The pelvis has by far the longest line from an open to a filled dot. For shoulders, hips, knees and elbows the filled dot is clearly to the left of the open one; in most other rows the two coincide. The feet, below a line, are at zero."}}
true = batch["pose"]  # (B, 22, 3, 3)
mean_pose = sixd_to_rotmat(mean_6d)
error_mean = orientation_error(mean_pose.expand_as(true), true).mean(0)  # (22,) degrees
error_prediction = orientation_error(prediction.rotmats, true).mean(0)
spread = orientation_error(true[:1].expand_as(true), true).amax(0)
fixed = [j for j in range(NUM_BODY_JOINTS) if spread[j] < 0.1]
moving = [j for j in error_mean.argsort(descending=True).tolist() if j not in fixed]

figure, axis = plt.subplots(figsize=(7.2, 5.2), layout="constrained")
rows = [*moving, *fixed]
y = np.arange(len(rows))
axis.hlines(y, error_prediction[rows], error_mean[rows], color=INK, alpha=0.6, linewidth=1.2)
axis.plot(
    error_mean[rows],
    y,
    "o",
    color="none",
    markeredgecolor=INK,
    markeredgewidth=1.5,
    markersize=9,
    label="mean pose",
)
axis.plot(error_prediction[rows], y, "o", color=MESH_COLOURS[0], label="prediction")
if fixed:
    axis.axhline(len(moving) - 0.5, color=INK, linewidth=0.8)
axis.set_yticks(y, [spaced(PART_NAMES[j]) for j in rows], fontsize=9)
axis.invert_yaxis()
axis.set(xlabel="error of the rotation, degrees", xlim=(-2, None))
axis.legend(loc="lower right", fontsize=9)
axis.spines[["top", "right"]].set_visible(False)
style_axis(axis)
plt.show()

# %% tags=["remove-input"]
gain = 100 * (1 - error_prediction / error_mean)
best = [j for j in moving if gain[j] > 20]


def listed(joints):
    groups = {}  # a joint of one side only is named with its side
    for j in joints:
        groups.setdefault(spaced(PART_NAMES[j]).split(" ")[-1], []).append(spaced(PART_NAMES[j]))
    names = [one[0] if len(one) == 1 else name for name, one in groups.items()]
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1] if names else "no joint"


def compare(network):
    """The row of a network: joints by what its corrections achieve, and the errors of the first coefficient."""
    batch = to_device(next(iter(make_loader(data, "test", network.config, len(true)))), "cpu")
    prediction = run_network(network, batch)
    mean_pose = sixd_to_rotmat(network.regressor.init_pose.view(NUM_BODY_JOINTS, 6))
    errors = [orientation_error(r, batch["pose"]).mean(0) for r in (mean_pose[None], prediction.rotmats)]
    gain = 100 * (1 - errors[1] / errors[0])
    shape = [
        (b - batch["betas"])[:, 0].square().mean().sqrt().item()
        for b in (prediction.betas, network.regressor.init_shape)
    ]
    return (
        network.config.name,
        listed([j for j in moving if gain[j] > 20]),
        listed([j for j in moving if 0 <= gain[j] < 5]),
        listed([j for j in moving if gain[j] < 0]),
        f"{shape[0]:.2f}, {shape[1]:.2f}",
    )


html_table(
    (
        "network",
        "error lower by more than 20\u00a0%",
        "lower by less than 5\u00a0%",
        "higher",
        "β₁: prediction, mean",
    ),
    [
        compare(network),
        *(compare(dpose.load(name)) for name in sorted({"lite", "mini"} - {network.config.name})),
    ],
    f"The prediction against the mean pose, by joint, and the root-mean-square error of the first shape coefficient in standard "
    f"deviations ({len(true)} test people). Joints without a side stand for both",
    align="lllll",
)

# %% [markdown]
# A trained network can be worse than the mean. The loss is a weighted sum over all joints and outputs, and nothing
# forces each of its terms below that of the mean, least of all on people that the network was not trained with.

# %% tags=["remove-input"]
names = " and ".join(spaced(PART_NAMES[j]) for j in fixed)
largest = error_prediction[fixed].max().item() if fixed else 0.0
Markdown(
    f"**Joints without articulation.** {names.capitalize() or 'None'}: these joints have the same rotation in all {len(true)} test people, because the generator of the poses "
    f"never turns them. The network reproduces it (error {'below 0.1°' if largest < 0.05 else f'at most {largest:.1f}°'}), but this is no achievement, and it means that the network "
    "cannot predict a bent forefoot. An average over all joints would count these zeros as success. Fingers, jaw and eyes are not predicted at all."
    if fixed
    else "All 22 joints move in these data."
)

# %% [markdown]
# ## Takeaways

# %% tags=["remove-input"]
Markdown(
    f"""* The regressor maps one vector per joint (attended features, box information, mean depth features) to 22 rotations, eleven shape coefficients
  and a camera, with separate weights per joint and {parameters(regressor) / 1e6:.1f} million parameters in total.
* Rotations are predicted as six numbers and orthonormalised, because a representation by three numbers has jumps, which a network cannot fit.
* Every output is the mean plus one predicted correction; for {NAME} the correction helps {len(best)} of {NUM_BODY_JOINTS} joints clearly, and
  {len(fixed)} joints never move in the rendered people."""
)

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** Write the pose head's first layer as a loop over 22 `nn.Linear` layers that have the weights
# of the `MultiLinear` layer. Check that the outputs agree, and compare the time for a batch of 64.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
stacked = regressor.pose_hidden
joints, out, inp = stacked.weight.shape
layers = [nn.Linear(inp, out) for _ in range(joints)]
for layer, weight, bias in zip(layers, stacked.weight, stacked.bias, strict=True):
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def loop(x):
    return torch.stack([layer(x[:, j]) for j, layer in enumerate(layers)], 1)


x = torch.randn(64, joints, inp)
torch.testing.assert_close(stacked(x), loop(x), rtol=1e-4, atol=1e-4)
times = [
    1e3 * Timer(f"{name}(x)", globals={name: call, "x": x}).timeit(10).mean
    for name, call in (("stacked", stacked), ("loop", loop))
]
Markdown(
    f"The outputs agree up to rounding. One call takes {times[0]:.1f}\u00a0ms stacked and {times[1]:.1f}\u00a0ms as a loop, on the CPU that built this page. "
    + (
        "So the stacked layer is clearly faster on it. "
        if times[0] < 0.75 * times[1]
        else "So here the loop is faster; the stacked layer replaces 22 modules by one. "
        if times[1] < 0.85 * times[0]
        else "So on a CPU the stacked layer has no clear advantage in time; it replaces 22 modules by one. "
    )
    + "On a GPU the loop launches 22 small kernels instead of one; that difference is not measured here."
)

# %% [markdown]
# **Exercise 2.** What does an untrained network predict? Give `Regressor(config)` random features and compare
# its rotations with the mean pose. Which line of {py:obj}`dpose.model.regressor.Regressor` is responsible?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
untrained = Regressor(config)
features = torch.randn(16, 15 * config.width, NUM_BODY_JOINTS)
depth_mean = torch.randn(16, config.width) if config.depth else None
rotmats, betas, cam = untrained(features, torch.randn(16, 3), depth_mean)
start = sixd_to_rotmat(untrained.init_pose.view(NUM_BODY_JOINTS, 6))
angle = orientation_error(rotmats, start.expand_as(rotmats))
assert angle.max() < 20
Markdown(
    f"Its rotations are {angle.mean():.1f}° from the mean pose on average. The line `nn.init.normal_(last.weight, std=0.01)` is responsible, with "
    "`nn.init.zeros_(last.bias)` after it: the last layer of each head has small weights and no bias, so the first correction is close to "
    "zero. Training therefore starts from the mean body."
)

# %% [markdown]
# **Exercise 3.** Find two rotations that are less than 1° apart but whose axis-angle vectors differ by more than 6.
# How far apart are their six numbers?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
half_turn = np.pi - np.deg2rad(0.4)
vectors = torch.tensor([[half_turn, 0.0, 0.0], [-half_turn, 0.0, 0.0]])
matrices = roma.rotvec_to_rotmat(vectors)
apart = orientation_error(matrices[0], matrices[1]).item()
six = matrices[..., :2].flatten(1)
assert apart < 1 and (vectors[0] - vectors[1]).norm() > 6
Markdown(
    f"Turns by 179.6° about $x$ and about $-x$ are {apart:.1f}° apart. Their axis-angle vectors differ by {(vectors[0] - vectors[1]).norm():.2f}, "
    f"their six numbers by {(six[0] - six[1]).norm():.3f}."
)
