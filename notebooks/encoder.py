# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The encoder: what each resolution sees
#
# To know *where* a wrist is, a network needs a fine map. To know that it *is* a wrist, and the left one, it has to
# look at the whole person, which a coarse map does at little cost. Most networks go from fine to coarse and
# then back. HRNet {cite:p}`hrnet`, the encoder of D-PoSE, keeps four maps beside each other from 1/4 to 1/32
# of the image's side, and lets them talk.
#
# This page looks at the four maps of real crops, measures how much of the image stands behind one of their
# cells, and checks that the fine map indeed hears from everywhere.

# %% tags=["parameters"]
checkpoint = "mini"  # the shipped network, or a .safetensors file
data = None  # data root; None: $DPOSE_DATA, else the open data
people = [3, 10, 14, 24]  # test people; the first one is looked at in detail
seed = 0

# %% tags=["hide-input"]
import copy
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import dpose
from dpose.config import PAPER
from dpose.data.loader import make_loader
from dpose.figures import colour_values, html_table, picture_grid, show_source, style_axis, to_picture
from dpose.model.hrnet import HRModule, HRNet, up_stack
from dpose.model.inference import to_device

network = dpose.load(checkpoint).eval().requires_grad_(False)
encoder = network.encoder
loader = make_loader(data, "test", network.config, batch_size=1)
one_by_one = [to_device(batch, "cpu")["image"] for batch in itertools.islice(loader, max(people) + 1)]
images = torch.cat([one_by_one[index] for index in people])  # (P, 3, S, S)
pictures = to_picture(images)  # (P, S, S, 3)
with torch.inference_mode():
    maps = encoder(images)  # F1..F4 and F_up
NAMES = ("F₁", "F₂", "F₃", "F₄")
COLOURS = ("#0072B2", "#009E73", "#E69F00", "#D55E00")

# %% [markdown]
# ## Each receives from all
#
# The encoder is a chain of modules. In every one, each map $H_i$ first passes some residual blocks $B_i$ of
# its own. Then each map becomes the sum of all of them:
#
# $$
# H_i' = \mathrm{ReLU}\Bigl( \sum_j T_{ij}\bigl( B_j(H_j) \bigr) \Bigr) .
# $$
#
# From finer to coarser ($j < i$), $T_{ij}$ is a chain of strided $3 \times 3$ convolutions; from coarser to
# finer ($j > i$) a $1 \times 1$ convolution and nearest up-sampling; $T_{ii}$ changes nothing. This sum is the
# whole conversation. There is no other way by which the fine map could learn what a coarse one has seen.

# %%
show_source(HRModule.forward, HRModule._fuse_path)

# %% [markdown]
# Going down one step halves the side and doubles the channels. The last map has no more than a handful of cells,
# and each of them is described by hundreds of numbers. These are the sizes of the paper's network, built
# without memory for its weights, and those of the one that runs here:


# %% tags=["hide-input"]
def size(tensor):
    return " × ".join(map(str, tensor.shape[1:]))


with torch.device("meta"):  # shapes only, nothing is computed
    paper = HRNet(PAPER).eval()
    paper_maps = paper(torch.empty(1, 3, PAPER.image_size, PAPER.image_size))
rows = [
    (name, f"{4 * 2**i} × {4 * 2**i}", size(paper_maps[i]), size(maps[i])) for i, name in enumerate(NAMES)
]
rows.append(("F_up", "4 × 4", size(paper_maps.f_up), size(maps.f_up)))
html_table(
    ("map", "pixels a cell", "PAPER", network.config.name.upper()),
    rows,
    "What leaves the encoder: channels × height × width",
)

# %% [markdown]
# ## One crop at four resolutions
#
# On the left the crop as it would look with one pixel a cell: this is all the room that a map has. On the
# right the six channels of each map that vary most over this crop. The fine map tends to draw: edges,
# stripes, limbs. The coarse ones can only take down where something is, in a few cells.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "One row a resolution: the crop reduced to that many pixels, and six channels of the map, each scaled by itself from dark blue to yellow.", "name": "fig-encoder-channels"}}
rows = []
for features in maps[:4]:
    reduced = to_picture(F.adaptive_avg_pool2d(images[:1], features.shape[-1])[0])
    busiest = features[0].flatten(1).var(1).argsort(descending=True)[:6]
    rows.append([reduced, *(colour_values(features[0, channel]) for channel in busiest)])
picture_grid(rows, labels=NAMES, side=1.1)
plt.show()

# %% [markdown]
# ## How much of the image is behind one cell?
#
# Ask the cell. If $F_k(c, p)$ is channel $c$ of map $k$ at cell $p$, its gradient to the image says which pixels
# would change it, and how much. Summed over the channels,
#
# $$
# G_k(x) = \sum_c \sum_{\text{rgb}} \left( \frac{\partial F_k(c, p)}{\partial I(x)} \right)^2 .
# $$
#
# No need for one backward pass a channel: with random signs $\sigma_c$, the squared gradient of $\sum_c
# \sigma_c F_k(c, p)$ has exactly this sum as its mean. For comparison a fifth map is *F₁ alone*: the same
# network with the same weights, but with its ears shut. Whatever the finest map receives from coarser ones is
# set to zero.


# %%
def behind_one_cell(encoder, images, level, row, column, probes=3):
    """G for cell (row, column) of one map: (B, S, S), each image's sum one."""
    pixels = images.clone().requires_grad_()
    cell = encoder(pixels)[level][:, :, row, column]  # (B, C)
    total = 0
    for _ in range(probes):
        signs = torch.randint(0, 2, cell.shape) * 2 - 1
        (gradient,) = torch.autograd.grad((signs * cell).sum(), pixels, retain_graph=True)
        total = total + gradient.square().sum(1)
    return total / total.sum((1, 2), keepdim=True)


alone = copy.deepcopy(encoder)
for module in alone.modules():
    if isinstance(module, HRModule):
        for path in module.fuse_layers[0][1:]:  # to the finest map, from the coarser ones
            torch.nn.init.zeros_(path[-1].weight), torch.nn.init.zeros_(path[-1].bias)

torch.manual_seed(seed)
half = [features.shape[-1] // 2 for features in maps[:4]]  # these cells all sit on the same pixel
seen = {"F₁ alone": behind_one_cell(alone, images, 0, half[0], half[0])}
seen |= {
    name: behind_one_cell(encoder, images, level, half[level], half[level])
    for level, name in enumerate(NAMES)
}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Which pixels stand behind the middle cell of each map, for the first person and as a mean over all: brightness is the square root of G, so that faint contributions can be seen.", "name": "fig-encoder-gradient"}}
first = [colour_values(shares[0].sqrt()) for shares in seen.values()]
mean = [colour_values(shares.mean(0).sqrt()) for shares in seen.values()]
picture_grid(
    [[pictures[0], *first], [to_picture(images.mean(0)), *mean]],
    titles=("crop", *seen),
    labels=("first person", f"mean of {len(people)}"),
    side=1.25,
)
plt.show()


# %% tags=["hide-input"] mystnb={"figure": {"caption": "How much of the squared gradient lies within a distance of the cell. The further right a curve, the more of the crop does its map look at.", "name": "fig-encoder-reach"}}
S = images.shape[-1]
rows, columns = torch.meshgrid(torch.arange(S), torch.arange(S), indexing="ij")
distance = ((rows - S // 2) ** 2 + (columns - S // 2) ** 2).float().sqrt().round().long()  # whole pixels
within = {
    name: torch.bincount(distance.flatten(), shares.mean(0).flatten()).cumsum(0)
    for name, shares in seen.items()
}
figure, axis = plt.subplots(figsize=(7, 3))
for (name, curve), colour in zip(within.items(), ("#CC79A7", *COLOURS), strict=True):
    axis.plot(curve, color=colour, label=name, linestyle="--" if "alone" in name else "-")
axis.set_xlabel("distance from the cell (pixels of the crop)")
axis.set_ylabel("share of G within")
axis.set_xlim(0, S // 2)
axis.set_ylim(0, 1)
axis.legend()
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
radius = {name: int((curve < 0.5).sum()) for name, curve in within.items()}
Markdown(
    f"Half of what moves the middle cell comes from within {radius['F₁ alone']} pixels for F₁ alone, "
    + ", ".join(f"{radius[name]} for {name}" for name in NAMES)
    + f", in a crop of {S} × {S}."
)

# %% [markdown]
# ## The doubtful point: does the fine map know about the far corner?
#
# A chain of $3 \times 3$ convolutions carries news by one cell a layer. With convolutions of size $k_l$ and the
# product $d_l$ of the strides before each, a cell of the fine map alone sees a square window of side
#
# $$
# r = 1 + \sum_l (k_l - 1)\, d_l .
# $$


# %%
def window(config):
    """Side in pixels of what a cell of the finest map sees through its own convolutions alone."""
    own = config.bottlenecks + 1 + 2 * config.blocks * sum(config.modules)  # 3 x 3, at 4 pixels a cell
    return 1 + 2 * 1 + 2 * 2 + 2 * 4 * own


reach = {config.name: window(config) for config in (PAPER, network.config)}
Markdown(
    " ".join(
        f"For `{name.upper()}` this is {side} pixels, in a crop of {dpose.preset(name).image_size}."
        for name, side in reach.items()
    )
)

# %% [markdown]
# So we can put it to the test. The last corner of the crop, one cell of F₄, is painted over with another
# person's pixels. How far does F₁ change, cell by cell? Alone, cells whose window does not reach the corner
# must stay the same *bit for bit*. If the sums do what they promise, the cell in the opposite corner
# changes all the same.

# %%
corner = S - 32  # first row and column that are painted over
painted = images[:1].clone()
painted[..., corner:, corner:] = images[-1:, ..., corner:, corner:]


@torch.inference_mode()
def change(encoder):
    """Relative change of each cell of F1: (s, s)."""
    before, after = encoder(images[:1]).f1, encoder(painted).f1
    return (after - before).norm(dim=1)[0] / before.norm(dim=1).mean()


fused_change, alone_change = change(encoder), change(alone)
cells = 4 * torch.arange(S // 4) + window(network.config) // 2 >= corner  # whose window reaches the corner
reached = cells[:, None] & cells[None]
assert (alone_change[~reached] == 0).all()  # exactly
assert fused_change[0, 0] > 0

Markdown(
    f"Alone, {int((alone_change > 0).sum())} of {reached.numel()} cells change; the window reaches the corner "
    f"from {int(reached.sum())}. With the sums, {int((fused_change > 0).sum())} change. The cell in the opposite corner: "
    f"by {float(alone_change[0, 0]):.0%} alone, by {float(fused_change[0, 0]):.2%} of a cell's mean length with the sums."
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The crop, the crop with its last corner painted over, and how much each cell of the fine map changes, on a logarithmic scale. Black: not at all.", "name": "fig-encoder-corner"}}
figure, axes = plt.subplots(1, 4, figsize=(9, 2.3), layout="constrained")
for axis, picture, title in zip(
    axes, (pictures[0], to_picture(painted[0])), ("crop", "painted over"), strict=False
):
    axis.imshow(picture)
    axis.set_title(title)
for axis, values, title in zip(
    axes[2:], (alone_change, fused_change), ("change of F₁ alone", "change of F₁"), strict=True
):
    values = np.ma.masked_equal(values.numpy(), 0)
    norm = plt.matplotlib.colors.LogNorm(1e-4, 1, clip=True)
    axis.imshow(np.zeros((*values.shape, 3)))  # what does not change stays black
    drawn = axis.imshow(values, norm=norm, cmap="cividis")
    axis.set_title(title)
for axis in axes:
    style_axis(axis)
    axis.set_xticks([]), axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.title.set_fontsize(10)
style_axis(figure.colorbar(drawn, ax=axes, aspect=12, label="relative change").ax)
plt.show()

# %% [markdown]
# `PAPER` has so many layers that even its fine map alone has a window wider than the crop. But what a cell could
# look at and what it does look at are different things; what comes over many small steps arrives weak.

# %% tags=["hide-input"]
far = int((within["F₁ alone"] < 0.95).sum())
Markdown(
    f"Of what moves the middle cell of F₁ alone, 95 % lies within {far} pixels, though its window reaches "
    f"{window(network.config) // 2} to every side. Within the same {far} pixels lie {float(within['F₁'][far]):.0%} for F₁ "
    f"and {float(within['F₄'][far]):.0%} for F₄. The coarse maps are a short cut."
)

# %% [markdown]
# ## All four, at the finest size
#
# Two decoders take the four maps as they are; they are the subject of the [next page](decoders.ipynb). The
# [attention](attention.ipynb) wants one map with everything. So F₂, F₃ and F₄ climb to the size of F₁, each
# doubling followed by a $3 \times 3$ convolution, and all are laid on top of each other:
# $F_\mathrm{up}$ has $w + 2w + 4w + 8w = 15w$ channels, 720 for the paper's $w = 48$.

# %%
assert paper_maps.f_up.shape[1] == 15 * PAPER.width == 720
show_source(up_stack, HRNet.forward)

# %% [markdown]
# How does this look? Below, the three directions in which the channels of a map vary most, over all these people
# together, are painted red, green and blue. Equal colours mean equal features, also between people.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The four blocks of F_up and all of it, as three principal components. Colours can be compared down a column, not along a row.", "name": "fig-encoder-fup"}}


def principal_colours(features):
    """(P, C, h, w) -> RGB (P, h, w, 3) uint8 of the three principal components over all positions."""
    values = features.permute(0, 2, 3, 1).flatten(0, 2).double()  # (P h w, C)
    values = values - values.mean(0)
    axes = torch.linalg.eigh(values.mT @ values).eigenvectors[:, -3:].flip(1)
    axes = axes * axes.sum(0).sign()  # an eigenvector has no sign of its own
    three = values @ axes
    low, high = three.quantile(0.02, 0), three.quantile(0.98, 0)
    rgb = ((three - low) / (high - low)).clamp(0, 1) * 255
    return rgb.round().byte().view(len(features), *features.shape[-2:], 3).numpy()


w = network.config.width
blocks = maps.f_up.split([w, 2 * w, 4 * w, 8 * w], 1)
columns = [principal_colours(block) for block in (*blocks, maps.f_up)]
picture_grid(
    [[pictures[i], *(column[i] for column in columns)] for i in range(len(people))],
    titles=("crop", "F₁", "up₁(F₂)", "up₂(F₃)", "up₃(F₄)", "F_up"),
    side=1.25,
)
plt.show()
