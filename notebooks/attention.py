# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Soft attention: where each joint looks
#
# To say how the left elbow is bent, look at the left forearm. The network is built to do just that, and anyone can
# watch how far it does: its map of body parts, drawn in the middle of the network, decides at which places the features of each joint are
# read. The idea comes from PARE {cite:p}`pare`; the paper's equation 5 is all of it.
#
# This page shows where the 22 joints look, recomputes the equation by other means, covers parts of the
# image to see what moves, and ends with what a joint is told besides.

# %% tags=["parameters"] nbmake={"mock": {"people": 16, "steps": 4}}
checkpoint = "mini"  # the shipped network, or a .safetensors file
data = None  # data root; None: $DPOSE_DATA, else the open data
people = 120  # test people over whom is measured
person = 3  # of these, the one to look at
covered = "left_wrist"  # the joint that is covered by a patch
steps = 12  # the patch visits this many places along a side

# %% tags=["hide-input"]
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import dpose
from dpose.camera import bbox_info, crop_affine
from dpose.config import PAPER
from dpose.data.loader import make_loader
from dpose.figures import (
    INK,
    attention_overlay,
    part_palette,
    picture_grid,
    show_source,
    style_axis,
    to_picture,
)
from dpose.model.attention import SoftAttention
from dpose.model.inference import to_device
from dpose.model.network import DPose
from dpose.skeleton import JOINT_NAMES

network = dpose.load(checkpoint).eval().requires_grad_(False)
if network.depth_decoder is None:
    raise ValueError("this page needs a network with a depth branch")
JOINTS = JOINT_NAMES[:22]
loader = make_loader(data, "test", network.config, batch_size=20)
batches = [to_device(batch, "cpu") for batch in itertools.islice(loader, -(-people // 20))]
boxes = [bbox_info(b["center"], b["scale"], b["cam_int"]) for b in batches]
passes = (network(b["image"], q, return_features=True)[1] for b, q in zip(batches, boxes, strict=True))
attention = torch.cat([features.attention for features in passes])[:people]  # (P, 22, s, s)
box = torch.cat(boxes)[:people]  # (P, 3)
parts = torch.cat([b["parts"] for b in batches])[:people]  # (P, M, M) true labels
image = torch.cat([b["image"] for b in batches])[:people]
one = slice(person, person + 1)
said, inside = network(image[one], box[one], return_features=True)
picture = to_picture(image[person])
S, s = image.shape[-1], attention.shape[-1]

# %% [markdown]
# ## Equation 5
#
# Let $S_j(p)$ be the score of part $j$ at cell $p$ of the part map, brought to the size of $F_\mathrm{up}$ by averaging.
# A softmax over the *cells* makes it a distribution, and the feature of joint $j$ is the mean of
# $F_\mathrm{up}$ under it:
#
# $$
# \alpha_j(p) = \frac{\exp S_j(p)}{\sum_{p'} \exp S_j(p')}, \qquad
# A_j = \sum_p \alpha_j(p)\, F_\mathrm{up}(p), \qquad j = 1, \dots, 22 .
# $$
#
# Part 0, the background, has no joint and is left out. The released code multiplies every $A_j$ by one more matrix
# (`conv_pose`), which eq. 5 does not have and the parameter count asks for.

# %%
show_source(SoftAttention.weights, SoftAttention.forward)

# %% [markdown]
# Here are all 22 distributions for one crop. The part of a joint is what the joint moves: that of an elbow is the
# forearm, that of a hip the thigh. Nobody has told the network where to look, other than by asking it for
# a map of parts.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Where each joint looks: the crop glows where its attention is. Second picture: all together, each place in the colour of the joint that attends to it most, relative to that joint's own maximum.", "name": "fig-attention-all"}}


def all_together(weights):
    """(22, s, s) -> RGB (S, S, 3) uint8: who looks where."""
    relative = F.interpolate((weights / weights.amax((1, 2), keepdim=True))[None], (S, S), mode="bilinear")[0]
    strength, joint = relative.max(0)
    return (part_palette()[1:][joint.numpy()] * strength[..., None].numpy()).round().astype(np.uint8)


def limb(side, *names):
    return [f"{side}_{name}" for name in names]


def plain(name):
    return name.replace("_", " ")


ARM, LEG = ("collar", "shoulder", "elbow", "wrist"), ("hip", "knee", "ankle", "foot")
order = [
    ["crop", "all joints", *limb("left", *ARM)],
    ["head", "neck", *limb("right", *ARM)],
    ["spine3", "spine2", *limb("left", *LEG)],
    ["spine1", "pelvis", *limb("right", *LEG)],
]
drawn = {name: attention_overlay(picture, inside.attention[0, j]) for j, name in enumerate(JOINTS)}
drawn |= {"crop": picture, "all joints": all_together(inside.attention[0])}
titles = [[plain(name) for name in row] for row in order]
picture_grid([[drawn[name] for name in row] for row in order], titles, side=1.3)
plt.show()

# %% [markdown]
# ## The doubtful point: is it really no more than a mean?
#
# That is easily said of a line with an `einsum` in it. So here it is again, in 64 bits and by a function that knows
# nothing of networks, `numpy.average`. Two things follow if it is a mean. The weights of each joint sum to one.
# And the extra matrix $W$ could as well be applied to every cell beforehand, since $W \sum_p \alpha(p) F(p) + c =
# \sum_p \alpha(p) (W F(p) + c)$.

# %%
weights = inside.attention[0].double().flatten(1).numpy()  # (22, cells)
cells = inside.f_up[0].double().flatten(1).numpy()  # (15w, cells)
matrix = network.attention.conv_pose.weight[..., 0].double().numpy()
offset = network.attention.conv_pose.bias.double().numpy()[:, None]

mean = np.stack([np.average(cells, axis=1, weights=alpha) for alpha in weights], 1)  # (15w, 22)
after = matrix @ mean + offset
before = np.stack([np.average(matrix @ cells + offset, axis=1, weights=alpha) for alpha in weights], 1)
scale = np.abs(after).max()
wrong_sum = (attention.double().sum((-2, -1)) - 1).abs().max().item()
wrong_mean = np.abs(inside.attended[0].numpy() - after).max() / scale
wrong_order = np.abs(before - after).max() / scale
assert wrong_sum < 1e-5 and wrong_mean < 1e-5 and wrong_order < 1e-12

Markdown(
    f"Over {len(attention)} people and 22 joints the weights sum to one within {wrong_sum:.0e}. The network's features "
    f"differ from the 64-bit means by at most {wrong_mean:.0e} of the largest value, the two orders of the matrix "
    f"by {wrong_order:.0e}."
)

# %% [markdown]
# ## How widely does it look?
#
# The exponential of a distribution's entropy says over how many cells it is spread: one cell gives 1, an even
# spread over all gives their number. Beside it, how many cells the part truly touches.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Spread of the attention over the test people whose part lies in the crop: median (dot) and quartiles (line). Grey diamonds: how many cells the part truly touches, median.", "name": "fig-attention-spread"}}
spread = torch.distributions.Categorical(attention.flatten(2)).perplexity()  # (P, 22) cells
labels = torch.arange(1, 23)[:, None, None]
touched = F.adaptive_max_pool2d((parts[:, None] == labels).float(), s) > 0  # (P, 22, s, s)
present = touched.flatten(2).any(2)
figure, axis = plt.subplots(figsize=(7, 4.6))
pairs = [(f"left_{name}", f"right_{name}") for name in (*ARM, *LEG)]
downwards = ["head", "neck", *sum(pairs[:4], ()), "spine3", "spine2", "spine1", "pelvis", *sum(pairs[4:], ())]
rank = {name: -row for row, name in enumerate(downwards)}
for j, name in enumerate(JOINTS):
    if not present[:, j].any():
        continue
    low, middle, high = spread[present[:, j], j].quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    size = touched[present[:, j], j].flatten(1).sum(1).float().median()
    colour = part_palette()[j + 1] / 255
    axis.plot([low, high], [rank[name]] * 2, color=colour, linewidth=3)
    axis.plot(middle, rank[name], "o", color=colour)
    axis.plot(size, rank[name], "D", color=INK, markersize=4, fillstyle="none")
axis.axvline(s * s, color=INK, linestyle="--", linewidth=1)
axis.set_yticks(list(rank.values()), [plain(name) for name in rank], fontsize=8)
axis.set_xscale("log")
axis.set_xlabel(f"cells (the dashed line: all {s * s})")
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
own = (attention * touched).sum((2, 3))
chance = touched.float().mean((2, 3))
Markdown(
    f"On average {own[present].mean():.0%} of a joint's attention lies on cells that its part truly touches; spread "
    f"evenly it would be {chance[present].mean():.1%}. The median spread is {spread[present].median():.0f} cells, "
    f"the median size of a part {touched.sum((2, 3))[present].float().median():.0f}."
)

# %% [markdown]
# ## What the softmax does not know
#
# The softmax over places sees differences only. Add the same number to all scores of a part, and nothing happens; so
# whether a part is likely *anywhere* does not count. Neither does the background: it loses its
# channel before the softmax. Each joint has its full share of attention to give away, even if its part is
# not in the crop.

# %%
changed = said.parts.clone()
changed[:, 0] = torch.randn_like(changed[:, 0])  # another background
changed[:, 1:] += torch.linspace(-5, 5, 22)[:, None, None]  # another level for each part
moved = (network.attention.weights(changed) - network.attention.weights(said.parts)).abs().max().item()
assert moved < 1e-5

absent = ~present
lost = f"{spread[absent].median():.0f} cells" if absent.any() else "(none is)"
Markdown(
    f"The largest change of any weight is {moved:.0e}. On {len(parts)} people, {int(absent.sum())} parts are not in the "
    f"crop. Their joints spread over {lost} in the median, those of the others over "
    f"{spread[present].median():.0f}. Where no score stands out, the feature of a joint is a mean over much of the image, "
    "and the joint has to be guessed from the rest."
)

# %% [markdown]
# ## Cover a part
#
# If a joint looks at its part, what happens when the part cannot be seen? A grey patch is laid over one joint of
# the person above. (The maps are scaled by themselves; the share of the attention under the patch is below.)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The attention of a covered joint and its neighbours, without the patch and with it.", "name": "fig-attention-covered"}}
PATCH = S // 5  # pixels
batch, row = batches[person // 20], person % 20
to_crop = crop_affine(batch["center"][row], batch["scale"][row], S)  # (2, 3)
where = batch["joints2d"][row, :22, :2] @ to_crop[:, :2].T + to_crop[:, 2]  # (22, 2) pixels of the crop


def cover(image, x, y):
    """The image (3, S, S) with a grey patch around pixel (x, y)."""
    image = image.clone()
    left, top = (max(0, round(float(v) - PATCH / 2)) for v in (x, y))
    image[:, top : top + PATCH, left : left + PATCH] = 0  # ImageNet's mean colour
    return image


def look(images):
    """Attention (N, 22, s, s) for images that come from this person's box."""
    q = box[person].expand(len(images), -1)
    return torch.cat(
        [
            network(i, j, return_features=True)[1].attention
            for i, j in zip(images.split(24), q.split(24), strict=True)
        ]
    )


target = JOINTS.index(covered)
hidden = cover(image[person], *where[target])
then = look(hidden[None])[0]
chain = [target, *(j for j in (18, 16, 15, 0) if j != target)][:5]
rows = [
    [to_picture(i), *(attention_overlay(to_picture(i), weights[j]) for j in chain)]
    for i, weights in ((image[person], inside.attention[0]), (hidden, then))
]
picture_grid(rows, ("crop", *(plain(JOINTS[j]) for j in chain)), ("free", "covered"), side=1.25)
plt.show()

# %% tags=["hide-input"]
under = F.adaptive_avg_pool2d((hidden == 0).all(0).float()[None], s)[0]  # share of each cell under the patch
free_share, covered_share = ((w[target] * under).sum().item() for w in (inside.attention[0], then))
shift = 0.5 * (then - inside.attention[0]).abs().sum((1, 2))  # (22,) total variation distance
others = torch.arange(22) != target
Markdown(
    f"Under the patch lay {free_share:.0%} of the attention of the {plain(covered)}, now {covered_share:.0%}. In all, "
    f"{shift[target]:.0%} of its attention has moved to other places; of the other joints' attention {shift[others].mean():.0%} "
    "on average."
)

# %% [markdown]
# The same patch, moved over the whole crop, shows what the attention of a joint *depends* on. How much of it moves is the
# total variation distance $\frac12 \sum_p |\alpha_j(p) - \alpha_j'(p)|$, a number from 0 to 1.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Above: where a joint looks. Below: the places that, when covered, make it look elsewhere.", "name": "fig-attention-sensitivity"}}
grid = (torch.arange(steps) + 0.5) * S / steps
variants = torch.stack([cover(image[person], x, y) for y in grid for x in grid])
moved = 0.5 * (look(variants) - inside.attention).abs().sum((2, 3))  # (steps^2, 22)
moved = moved.T.view(22, steps, steps)
chosen = [
    JOINTS.index(n) for n in ("head", "left_wrist", "right_wrist", "pelvis", "left_knee", "right_ankle")
]
rows = [[attention_overlay(picture, maps[j]) for j in chosen] for maps in (inside.attention[0], moved)]
picture_grid(rows, [plain(JOINTS[j]) for j in chosen], ("looks at", "depends on"), side=1.25)
plt.show()

# %% tags=["hide-input"]
at_home = F.adaptive_avg_pool2d(inside.attention, steps)[0]
at_home = (at_home / at_home.sum((1, 2), keepdim=True) * moved).sum((1, 2))  # where the joint itself looks
Markdown(
    f"A patch at a place where a joint looks moves {at_home.mean():.0%} of its attention, a patch at any place "
    f"{moved.mean():.0%} (means over the 22 joints). "
    "The scores at one place depend on more than that place; how much more is the subject of the page on "
    "[the encoder](encoder.ipynb)."
)

# %% [markdown]
# ## What else a joint is told
#
# The regressor reads more than $A_j$. Every joint's vector is $g_j = [\, A_j,\; \mathbf{q},\; \bar D \,]$:
# its attended features, the three numbers $\mathbf{q}$ of the [box](camera.ipynb), and $\bar D$, the mean of the depth
# decoder's features $D$ over all places. This is where the depth branch comes in: not by its map, not by
# what it says at the joint, but by one summary that all 22 joints share.

# %%
with torch.device("meta"):  # sizes only
    paper = DPose(PAPER)
w = PAPER.width
assert 15 * w + 3 + w == 771 and paper.regressor.pose_hidden.weight.shape[-1] == 6 + 771

torch.manual_seed(0)
shuffle = torch.randperm(s * s)


def disturb(decoder, inputs, output):
    """Another depth map, and the same features D in other places."""
    depth, features = output
    return torch.randn_like(depth), features.flatten(2)[..., shuffle].view_as(features)


hook = network.depth_decoder.register_forward_hook(disturb)
disturbed = network(image[one], box[one])
hook.remove()
same = (disturbed.rotmats - said.rotmats).abs().max().item()
assert same < 1e-4 < (disturbed.depth - said.depth).abs().max()

Markdown(
    f"For `PAPER` that makes {15 * w} + 3 + {w} = {15 * w + 3 + w} numbers a joint. Put noise in place of the depth map "
    f"and shuffle the places of $D$, and no entry of any rotation changes by more than {same:.0e}: only the mean counts."
)

# %% [markdown]
# How much each of the three weighs is measured on [the page on errors](analysis.ipynb), by taking one of them from
# another person. That the depth branch shapes the encoder during training is another matter, and the subject of the
# [ablation](ablation.ipynb).
