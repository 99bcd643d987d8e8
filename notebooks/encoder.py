# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The encoder: features at four resolutions
#
# The {term}`encoder` turns the crop of a person into feature maps. The two decoders, the attention and the
# regressor use these maps and never the pixels, so what the encoder does not represent is lost. This page explains
# how {term}`HRNet` {cite:p}`hrnet` computes maps at four resolutions at once, which module uses which of them, and
# how much of the crop a single feature depends on.
#
# :::{chapter}
# :needs: [The network at a glance](architecture.ipynb), convolutions and residual networks
# :learn: why HRNet keeps a branch of high resolution; how branches exchange features by fusion; what a receptive field is, in theory and measured; which maps the decoders and the attention use; where the initial weights come from
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
checkpoint = "mini"  # the small HRNet of the package, or a .safetensors file
data = None  # data root; None: $DPOSE_DATA, else the open data
people = [3, 10, 14, 24]  # test people; the first one is looked at in detail
seed = 0

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import copy
import itertools
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.patches import FancyBboxPatch, Rectangle
from torch.nn import functional as F

import dpose
from dpose.config import PAPER
from dpose.data.loader import make_loader
from dpose.figures import (
    INK,
    colour_values,
    html_table,
    percent,
    picture_grid,
    show_source,
    style_axis,
    to_picture,
)
from dpose.model.encoder import PretrainedEncoder
from dpose.model.hrnet import HRModule, HRNet
from dpose.model.inference import to_device
from dpose.model.released import COCO_LAYERS

network = dpose.load(checkpoint).eval().requires_grad_(False)
encoder, config = network.encoder, network.config
if config.encoder != "hrnet":
    raise ValueError(
        f"this page needs a network with an HRNet; {checkpoint!r} has the encoder {config.encoder!r}"
    )
loader = make_loader(data, "test", config, batch_size=1)
one_by_one = [to_device(batch, "cpu")["image"] for batch in itertools.islice(loader, max(people) + 1)]
images = torch.cat([one_by_one[index] for index in people])  # (P, 3, S, S)
pictures = to_picture(images)  # (P, S, S, 3)
inputs = []  # of the last module: the maps of its four branches
hook = encoder.stage4[-1].register_forward_pre_hook(lambda module, arguments: inputs.extend(arguments[0]))
with torch.inference_mode():
    maps = encoder(images)  # F1..F4 and F_up
hook.remove()
with torch.device("meta"):  # shapes only, nothing is computed
    paper = HRNet(PAPER).eval()
    paper_maps = paper(torch.empty(1, 3, PAPER.image_size, PAPER.image_size))

NAMES = ("F₁", "F₂", "F₃", "F₄")
COLOURS = ("#0072B2", "#009E73", "#B07500", "#D55E00")
MINI = config.name


def size(tensor):
    return " × ".join(map(str, tensor.shape[1:]))


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


# %% [markdown]
# ## Resolution and context
#
# A network for image classification reduces the resolution step by step. A ResNet, for example, ends with 7 × 7
# cells for a crop of 224 × 224 pixels. Each of these cells depends on a large part of the crop, but a body part
# can be located in them only to within 32 pixels.
#
# Pose estimation needs both. Locating a wrist requires *resolution*. Recognising that it is a wrist, and the left
# one, requires *context*: the forearm, the other arm, the direction in which the person faces. There are two
# common designs that provide both:
#
# - Reduce the resolution first and increase it again afterwards. The {term}`U-Net` is the best-known example, and
#   the [decoders](decoders.ipynb) of D-PoSE follow it.
# - Keep a branch of high resolution from the beginning to the end, and run branches of lower resolution in
#   parallel. This is HRNet, the "high-resolution network".
#
# ## Stages and branches
#
# {numref}`fig-encoder-hrnet` shows the HRNet-W48 of the paper, where 48 is the number of channels $w$ of the
# finest branch. Two convolutions with a stride of 2, the stem, reduce the crop to a quarter of its side and have 64
# channels. Stage 1 consists of {term}`residual blocks <residual block>` at this resolution. They are *bottleneck*
# blocks: a $1 \times 1$ convolution to 64 channels, a $3 \times 3$ convolution, and a $1 \times 1$ convolution to 256
# channels. After stage 1, a $3 \times 3$ convolution brings its 256 channels to the 48 of the finest branch. At the
# beginning of stages 2, 3 and 4 a new branch starts, with half the resolution and twice the channels of the branch
# above it. A stage is a sequence
# of *modules*. In each module every branch passes through residual blocks of its own, and then the branches
# exchange features.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "HRNet-W48, drawn from its module tree. Rows: branches, with their resolution relative to the crop (left) and their channels (right). The stem and stage 1 have other numbers of channels, written below them. Boxes: residual blocks, with their number. Rings: sums. Grey lines pass a map on unchanged. The green line is a 3 × 3 convolution that changes only the number of channels. Blue lines reduce the resolution by strided convolutions, orange lines increase it by a 1 × 1 convolution and nearest-neighbour up-sampling.", "name": "fig-encoder-hrnet"}, "image": {"alt": "Diagram from left to right. One row of boxes begins at the stem; a second, a third and a fourth row start below it, each farther right. After each column of boxes, lines cross from every row to every other one, and F₁ to F₄ leave the four rows at the right."}}
DOWN, UP, CHANNELS = "#0072B2", "#D55E00", "#009E73"


def draw_line(axis, start, end, colour=INK):
    """A connection between two (column, branch) places; its colour shows the change of resolution."""
    change = end[1] - start[1]
    line, width = (DOWN if change > 0 else UP, 0.9) if change else (colour, 1.2)
    axis.plot((start[0], end[0]), (start[1], end[1]), color=line, linewidth=width, zorder=1)


def draw_box(axis, x, branch, text, width=0.6):
    place = (x - width / 2, branch - 0.26)
    axis.add_patch(
        FancyBboxPatch(place, width, 0.52, "round,pad=0,rounding_size=0.08", color="#5B6B7F", zorder=2)
    )
    axis.text(x, branch, text, color="white", ha="center", va="center", fontsize=9, zorder=3)


def draw_hrnet(hrnet, config):
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    draw_box(axis, 0, 0, "stem", 0.95)
    draw_box(axis, 1, 0, len(hrnet.layer1))
    draw_line(axis, (0, 0), (1, 0))
    last = [layer for layer in hrnet.layer1.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    for place, count in ((0, hrnet.conv2.out_channels), (1, last.out_channels)):
        axis.text(place, 0.34, f"{count}", color=INK, fontsize=9, ha="center", va="top")
    headings, ends, x = [(0.7, "stage 1")], [(1, 0)], 2  # ends: where each branch of the last module ended
    for number, stage in enumerate((hrnet.stage2, hrnet.stage3, hrnet.stage4), start=2):
        headings.append((x + 0.75 * (len(stage) - 1) + 0.3, f"stage {number}"))
        for module in stage:
            branches = range(len(module.branches))
            for i in branches:
                colour = CHANNELS if ends == [(1, 0)] and i == 0 else INK
                start = ends[min(i, len(ends) - 1)]  # a new branch starts from the coarsest
                draw_line(axis, start, (x, i), colour)
                draw_box(axis, x, i, len(module.branches[i]), 0.42)
                for j in branches:
                    draw_line(axis, (x, j), (x + 0.75, i))
                axis.plot(x + 0.75, i, "o", markersize=5, color=INK, markerfacecolor="none", zorder=3)
            ends, x = [(x + 0.75, i) for i in branches], x + 1.5
    for i, name in enumerate(NAMES):
        draw_line(axis, ends[i], (x - 0.3, i))
        axis.text(x - 0.2, i, name, color=INK, fontsize=11, va="center")
        axis.text(x + 0.5, i, f"{config.width * 2**i}\nchannels", color=INK, fontsize=9, va="center")
        axis.text(-0.7, i, f"1/{4 * 2**i} of\nthe side", color=INK, fontsize=9, ha="right", va="center")
    for place, text in headings:
        axis.text(place, -0.6, text, color=INK, fontsize=9, ha="center")
    axis.set(xlim=(-2.1, x + 2.2), ylim=(3.4, -0.8))
    axis.set_axis_off()
    figure.patch.set_alpha(0)


draw_hrnet(paper, PAPER)
plt.show()

# %% [markdown]
# The network that runs on this page, `mini`, has the same structure in a smaller size:

# %% tags=["remove-input"]
rows = []
for name, layers, module in (
    ("stem", ("conv1", "bn1", "conv2", "bn2"), None),
    ("stage 1", ("layer1",), None),
    ("stage 2", ("transition1", "stage2"), "stage2"),
    ("stage 3", ("transition2", "stage3"), "stage3"),
    ("stage 4", ("transition3", "stage4"), "stage4"),
    ("up-sampling to F_up", ("upsample_stage_2", "upsample_stage_3", "upsample_stage_4"), None),
):
    cells = []
    for hrnet in (paper, encoder):
        stage = getattr(hrnet, module) if module else None
        blocks = f"{len(stage)} × {len(stage[0].branches[0])}" if stage else ""
        if name == "stage 1":
            blocks = f"{len(hrnet.layer1)}"
        cells += [blocks, f"{parameters(*(getattr(hrnet, layer) for layer in layers)):,}"]
    branches = len(getattr(paper, module)[0].branches) if module else 1 if "up" not in name else ""
    rows.append((name, branches, *cells))
unused = [parameters(hrnet.final_layer) for hrnet in (paper, encoder)]
totals = [parameters(hrnet) for hrnet in (paper, encoder)]
rows.append(("keypoint layer, not used", "", "", f"{unused[0]:,}", "", f"{unused[1]:,}"))
assert totals == [sum(int(row[column].replace(",", "")) for row in rows) for column in (3, 5)]
rows.append(("total", "", "", f"{totals[0]:,}", "", f"{totals[1]:,}"))
html_table(
    ("part", "branches", "blocks, PAPER", "parameters", f"blocks, {MINI}", "parameters"),
    rows,
    "Parts of the encoder. Blocks: modules × residual blocks per branch and module",
)

# %% [markdown]
# ## Fusion: how the branches exchange features
#
# Let $\Phi_i$ be the map of branch $i$ and $B_i$ its residual blocks in one module. After the blocks, each branch
# receives the sum of all branches, brought to its own resolution and number of channels:
#
# $$
# \Phi_i' = \mathrm{ReLU}\Bigl( \sum_j T_{ij}\bigl( B_j(\Phi_j) \bigr) \Bigr) .
# $$
#
# If branch $j$ is finer ($j < i$), $T_{ij}$ is a chain of $3 \times 3$ convolutions with a stride of 2. If it is
# coarser ($j > i$), $T_{ij}$ is a $1 \times 1$ convolution followed by nearest-neighbour up-sampling. $T_{ii}$ is
# the identity. Each convolution is followed by {term}`batch normalisation`, and each one of a chain but the last also by a ReLU. {py:obj}`dpose.model.hrnet.HRModule`
# computes all four sums. For the finest branch the computation takes a few lines:

# %%
module = encoder.stage4[-1]  # the last module; `inputs` are the four maps that enter it


def fuse_finest(module, maps):
    """The new map of the finest branch (B, w, s, s)."""
    maps = [blocks(x) for blocks, x in zip(module.branches, maps, strict=True)]
    total = maps[0]
    for j in range(1, len(maps)):
        x = module.fuse_layers[0][j](maps[j])  # 1 x 1 convolution: w channels
        total = total + F.interpolate(x, scale_factor=2**j, mode="nearest")
    return total.relu()


assert torch.allclose(fuse_finest(module, inputs), maps.f1, atol=1e-5)

# %% [markdown]
# The result is $F_1$, the finest map that leaves the encoder. Once a branch has started, fusion is the only way in
# which the branches interact.
#
# ## The maps that leave the encoder
#
# The maps of the four branches after the last module are called $F_1$ (the finest) to $F_4$ (the coarsest). The
# decoders use them one by one, from $F_4$ to $F_1$. The attention needs all features at one resolution. For it,
# $F_2$, $F_3$ and $F_4$ are brought to the size of $F_1$ and the four are concatenated along the channels:
#
# $$
# F_\mathrm{up} = \bigl[\, F_1,\; \mathrm{up}_1(F_2),\; \mathrm{up}_2(F_3),\; \mathrm{up}_3(F_4) \,\bigr] .
# $$
#
# $\mathrm{up}_k$ doubles the side $k$ times, each time by bilinear interpolation, a $3 \times 3$ convolution,
# batch normalisation and a ReLU. $F_\mathrm{up}$ has $w + 2w + 4w + 8w = 15w$ channels.

# %% tags=["remove-input"]
rows = [
    (name, f"{4 * 2**i} × {4 * 2**i}", size(paper_maps[i]), size(maps[i]), "decoders")
    for i, name in enumerate(NAMES)
]
rows.append(("F_up", "4 × 4", size(paper_maps.f_up), size(maps.f_up), "attention"))
assert paper_maps.f_up.shape[1] == 15 * PAPER.width == 720
html_table(
    ("map", "pixels per cell", "PAPER", MINI, "used by"),
    rows,
    "Maps that leave the encoder: channels × height × width",
    align="lrrrl",
)

# %% [markdown]
# This book and the code count the maps from the finest, $F_1$. The paper's names differ from section to section, see
# [The network at a glance](architecture.ipynb).
#
# {numref}`fig-encoder-channels` shows some of the channels for one of the rendered people of the open data. The fine
# maps follow edges and limbs; a cell of the coarse maps covers a whole limb, and its many channels have to represent what is inside it.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "One row per resolution. Left: the crop reduced to one pixel per cell. Right: the four channels of the map that vary most over this crop, each with a colour scale of its own from dark blue (smallest value) to yellow (largest).", "name": "fig-encoder-channels"}, "image": {"alt": "Grid of square maps of one person. In the first row outlines and limbs can be recognised; from row to row the cells become larger, and the last row has only a few large squares, of which some are bright."}}
rows = []
for features in maps[:4]:
    reduced = to_picture(F.adaptive_avg_pool2d(images[:1], features.shape[-1])[0])
    most_varied = features[0].flatten(1).var(1).argsort(descending=True)[:4]
    rows.append([reduced, *(colour_values(features[0, channel]) for channel in most_varied)])
labels = [f"{name}: {size(features)}" for name, features in zip(NAMES, maps, strict=False)]
picture_grid(rows, labels=labels, side=1.4)
plt.show()

# %% [markdown]
# ## The receptive field
#
# The {term}`receptive field` of a feature is the set of pixels that can influence it. For a chain of convolutions
# with kernel sizes $k_l$ it is a square window of side
#
# $$
# r = 1 + \sum_l (k_l - 1)\, \delta_l ,
# $$
#
# where $\delta_l$ is the product of the strides before layer $l$. As a function of the layers on the path of the finest
# branch:


# %%
def window(layers):
    """Side in pixels of the receptive field of a chain of convolutions."""
    side, step = 1, 1
    for layer in layers:
        side += (layer.kernel_size[0] - 1) * step
        step *= layer.stride[0]
    return side


# %% tags=["remove-input"]
def finest_path(hrnet):
    """The convolutions from the crop to F1, without fusion."""
    yield from (hrnet.conv1, hrnet.conv2)
    yield from (block.conv2 for block in hrnet.layer1)  # the others are 1 x 1
    yield hrnet.transition1[0][0]
    for stage in (hrnet.stage2, hrnet.stage3, hrnet.stage4):
        for module in stage:
            for block in module.branches[0]:
                yield from (block.conv1, block.conv2)


S = images.shape[-1]
side, paper_side = window(finest_path(encoder)), window(finest_path(paper))
assert paper_side // 2 >= PAPER.image_size - 1  # from one corner to the other
Markdown(
    f"Without fusion, the receptive field of a cell of $F_1$ has a side of {side}\u00a0pixels in `{MINI}`, whose crops have {S}, and of "
    f"{paper_side}\u00a0pixels in `PAPER`, whose crops have {PAPER.image_size}. In `PAPER` the window thus covers the whole crop from every cell, "
    "also without fusion; fusion can only change how strong the influence of each pixel is. This is measured here for "
    f"`{MINI}` alone."
)

# %% [markdown]
# The theory only states which pixels *can* have an influence. How large the influence is can be measured. Let
# $F_k(c, p)$ be channel $c$ of map $k$ at cell $p$. The influence of pixel $x$ of the crop $I$ is the squared
# gradient of the features with respect to this pixel, summed over the channels:
#
# $$
# \rho_k(x) = \sum_c \sum_{\text{rgb}} \left( \frac{\partial F_k(c, p)}{\partial I(x)} \right)^2 .
# $$
#
# One backward pass per channel is not necessary. With random signs $\varepsilon_c = \pm 1$, the squared gradient of
# $\sum_c \varepsilon_c F_k(c, p)$ has $\rho_k$ as its expected value, so the mean of a few backward passes is enough. The
# measurement is made for the middle cell of each map, and also for $F_1$ *without fusion*: the same weights, but
# everything that the finest branch receives from coarser branches is set to zero. {numref}`fig-encoder-influence`
# shows the result.


# %%
def influence(encoder, level, probes=3):
    """Influence on the middle cell of one map, for each crop: (P, S, S), the sum of each is one."""
    pixels = images.clone().requires_grad_()
    features = encoder(pixels)[level]  # (P, C, s, s)
    middle = features[:, :, features.shape[2] // 2, features.shape[3] // 2]  # (P, C)
    total = 0
    for _ in range(probes):
        signs = torch.randint(0, 2, middle.shape) * 2 - 1
        (gradient,) = torch.autograd.grad((signs * middle).sum(), pixels, retain_graph=True)
        total = total + gradient.square().sum(1)
    return total / total.sum((1, 2), keepdim=True)


# %% tags=["remove-input"]
without_fusion = copy.deepcopy(encoder)
for module in without_fusion.modules():
    if isinstance(module, HRModule):
        for path in module.fuse_layers[0][1:]:  # to the finest branch, from the coarser ones
            torch.nn.init.zeros_(path[-1].weight), torch.nn.init.zeros_(path[-1].bias)

torch.manual_seed(seed)
ALONE = "F₁ without fusion"
measured = {ALONE: influence(without_fusion, 0)}
measured |= {name: influence(encoder, level) for level, name in enumerate(NAMES)}

rows, columns = torch.meshgrid(torch.arange(S), torch.arange(S), indexing="ij")
distance = ((rows - S // 2) ** 2 + (columns - S // 2) ** 2).float().sqrt().round().long()  # whole pixels
within = {
    name: torch.bincount(distance.flatten(), shares.mean(0).flatten()).cumsum(0)
    for name, shares in measured.items()
}
# Theory and measurement agree: without fusion, the pixels with a gradient fill the window and nothing else.
first, last = S // 2 - side // 2, S // 2 + side // 2
support = (measured[ALONE] > 0).any(0)
inside = torch.zeros_like(support)
inside[max(first, 0) : last + 1, max(first, 0) : last + 1] = True
assert not support[~inside].any()
filled = support[inside].float().mean().item()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Influence of the pixels on the middle cell of each map, mean over the test people of this page. Above: the square root of the influence, dark blue for zero; the dashed square is the receptive field by the formula. Below: share of the influence within a distance from the cell.", "name": "fig-encoder-influence"}, "image": {"alt": "Five square maps with a bright spot in the middle, which is smallest for F₁ without fusion and largest for F₄. Below, five curves that rise from 0 to 1, the steepest for F₁ without fusion, the flattest for F₄."}}
figure = plt.figure(figsize=(7, 4.6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 1.55))
for axis, (name, shares) in zip(above.subplots(1, 5), measured.items(), strict=True):
    axis.imshow(colour_values(shares.mean(0).sqrt()))
    axis.set_title(name, fontsize=9)
    style_axis(axis)
    axis.grid(False)
    axis.set_xticks([]), axis.set_yticks([])
    axis.spines[:].set_visible(False)
    if name == ALONE:
        axis.add_patch(Rectangle((first, first), side, side, fill=False, edgecolor="white", linestyle="--"))
axis = below.subplots()
for (name, curve), colour in zip(within.items(), ("#A8588A", *COLOURS), strict=True):
    axis.plot(curve, color=colour, label=name, linestyle="--" if name == ALONE else "-")
axis.set(xlim=(0, S // 2), ylim=(0, 1), xlabel="distance from the cell (pixels of the crop)")
axis.set_ylabel("share of the influence")
axis.legend(loc="lower right")
style_axis(axis)
for part in (figure, above, below):
    part.patch.set_alpha(0)
plt.show()

# %% tags=["remove-input"]
half = {name: int((curve < 0.5).sum()) for name, curve in within.items()}
most = int((within[ALONE] < 0.95).sum())
reached = (measured["F₁"] > 0).float().mean().item()


def every(share):
    return "all" if share == 1 else f"{percent(share, 2)} of the"


Markdown(
    f"*Theory and measurement agree.* Without fusion no pixel outside the window of {side} × {side} has any influence, and "
    f"{every(filled)}\u00a0pixels inside have one. With fusion, {every(reached)}\u00a0pixels of the crops influence the middle cell of $F_1$.\n\n"
    f"*The effective receptive field is smaller than the theoretical one.* Without fusion, 95\u00a0% of the influence on $F_1$ lies within {most}\u00a0pixels of the cell, "
    f"although the window extends {side // 2}\u00a0pixels to each side. Influence that passes through many small convolutions is weak.\n\n"
    f"*Fusion is a shortcut.* Half of the influence lies within {half[ALONE]}\u00a0pixels for $F_1$ without fusion, {half['F₁']} for $F_1$, "
    f"{half['F₂']} for $F_2$, {half['F₃']} for $F_3$ and {half['F₄']} for $F_4$. The coarse branches cover the crop in a few layers and pass what they "
    "find to the finest branch."
)

# %% [markdown]
# ## Initial weights: keypoints on COCO
#
# The paper does not train the encoder from random weights. It starts from an HRNet-W48 that was trained on the
# photographs of COCO to predict 2D keypoints: given a crop of a person, one map for each of 17 joints, with a
# maximum at the joint. Such a network has already learned to locate and to distinguish the joints of people in
# photographs. This matters for the {term}`domain gap`: all training images of D-PoSE itself are rendered.

# %% tags=["remove-input"]
covered = parameters(*(getattr(paper, name) for name in COCO_LAYERS))
total = parameters(paper)
Markdown(
    f"The weights of COCO fill the stem and stages 1 to 4, {covered:,} of the {total:,} parameters of `PAPER`'s encoder ({percent(covered / total)}). "
    f"The layers that compute $F_\\mathrm{{up}}$ start from random weights. The total includes the {unused[0]:,} parameters of the "
    f"keypoint layer, which is never used. It has {paper.final_layer.out_channels} outputs, as in the released code, so the layer of COCO with its 17 outputs does not fit, and its weights are not loaded."
)

# %% [markdown]
# To start a training run from these weights, pass the file that the authors of HRNet published, `dpose train
# --preset paper --init pose_hrnet_w48_256x192.pth`; {py:obj}`dpose.model.released.load_keypoint_weights` reads it.
# `mini` is trained from random weights. How much the pretraining contributes is not measured in this book.
#
# ## The encoder of `lite`
#
# `lite`, the network that the package uses for photographs, has another encoder: the backbone of MoveNet
# Lightning, a keypoint network for mobile devices that was trained on photographs. It is trained further, at a lower rate
# than the other layers ([Training](train.ipynb)). It is a MobileNetV2, which reduces the resolution step by step, with a feature pyramid: the coarse maps are up-sampled
# and added to the finer ones, once and in one direction. So $F_1$ has context as well, by other means than HRNet's
# repeated fusion. A $1 \times 1$ convolution per resolution brings the maps to $w$, $2w$, $4w$ and $8w$ channels,
# and the rest of the network is the same:

# %% tags=["remove-input"]
show_source(PretrainedEncoder.forward)

# %% tags=["remove-input"]
lite = dpose.load("lite").encoder.eval()
with torch.inference_mode():
    lite_maps = lite(images)
fixed = parameters(lite.backbone)
Markdown(
    f"The maps have the sizes {', '.join(size(x) for x in lite_maps[:4])} and, for $F_\\mathrm{{up}}$, {size(lite_maps.f_up)}, as in `mini`. Of the "
    f"{parameters(lite):,} parameters of this encoder {fixed:,} belong to the backbone. The convolutions also receive two channels with "
    "the coordinates of each cell, so that a mean of features over a part still contains the place of the part "
    "([Soft attention](attention.ipynb), *Where a part is*)."
)

# %% [markdown]
# ## Takeaways
#
# - HRNet keeps a branch at a quarter of the crop's side from the first to the last stage, and adds branches of
#   half the side and twice the channels each, so that its features have both resolution and context.
# - The branches interact only by fusion: in `mini`, a cell of the finest map depends on a window around the cell
#   without fusion, and on the whole crop with it.
# - The decoders use the four maps $F_1$ to $F_4$ separately, and the attention uses $F_\mathrm{up}$, which has all
#   of them at the finest resolution.
#
# ## Exercises
#
# **Exercise 1.** A $3 \times 3$ convolution with $C$ channels in and out on a map of $h \times h$ cells needs $9\,
# C^2 h^2$ multiplications. How do the parameters and the multiplications of a residual block compare between the
# four branches? What does this mean for the cost of keeping a branch of high resolution?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
rows, multiplications = [], []
for name, branch, features in zip(NAMES, paper.stage4[-1].branches, paper_maps, strict=False):
    convolutions = [branch[0].conv1.weight.numel(), branch[0].conv2.weight.numel()]
    multiplications.append(sum(convolutions) * features.shape[-1] ** 2)
    rows.append((name, f"{sum(convolutions):,}", f"{multiplications[-1]:,}"))
assert len(set(multiplications)) == 1  # C doubles, h halves: C² h² is constant
display(
    html_table(
        ("branch", "weights per block", "multiplications per block"),
        rows,
        "Weights and multiplications of one block in each branch",
    )
)
Markdown(
    "Each branch costs the same, so the finest one is as expensive as any other. Its blocks have the fewest weights."
)

# %% [markdown]
# **Exercise 2.** Replace the lower right corner of a crop, 32 × 32 pixels, by pixels of another person. Which cells of
# $F_1$ can change without fusion, and which do? What happens with fusion?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution", "figure": {"caption": "Change of F₁ by the changed corner, on a logarithmic scale; black: no change at all. The titles count the cells that change.", "name": "fig-encoder-corner"}, "image": {"alt": "A crop with foreign pixels in its lower right corner, and two maps of cells. In the first map the cells far from this corner are black, in the second one every cell is coloured; in both, the change is largest near the corner."}}
corner = S - 32
painted = images[:1].clone()
painted[..., corner:, corner:] = images[-1:, ..., corner:, corner:]


@torch.inference_mode()
def change(encoder):
    """Relative change of each cell of F1: (s, s)."""
    before, after = encoder(images[:1]).f1, encoder(painted).f1
    return (after - before).norm(dim=1)[0] / before.norm(dim=1).mean()


fused, alone = change(encoder), change(without_fusion)
window_reaches = 4 * torch.arange(S // 4) + side // 2 >= corner
reached = window_reaches[:, None] & window_reaches[None]
assert (alone[~reached] == 0).all()  # exactly: these cells cannot depend on the corner

figure, axes = plt.subplots(1, 3, figsize=(6.8, 2.3), layout="constrained")
axes[0].imshow(to_picture(painted[0]))
axes[0].set_title("changed crop")
for axis, values, title in zip(axes[1:], (alone, fused), ("without fusion", "with fusion"), strict=True):
    axis.imshow(np.zeros((*values.shape, 3)))  # what does not change stays black
    visible = np.ma.masked_equal(values.numpy(), 0)
    drawn = axis.imshow(visible, norm=plt.matplotlib.colors.LogNorm(1e-4, 1, clip=True), cmap="cividis")
    axis.set_title(f"{title}:\n{int((values > 0).sum()):,} of {values.numel():,}")
for axis in axes:
    style_axis(axis)
    axis.grid(False)
    axis.set_xticks([]), axis.set_yticks([])
    axis.title.set_fontsize(9)
style_axis(figure.colorbar(drawn, ax=axes, aspect=12, format="{x:g}", label="relative change of F₁").ax)
plt.show()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution in words", "code_prompt_hide": "Hide the solution in words"}
can, does = int(reached.sum()), int((alone > 0).sum())
Markdown(
    f"Without fusion a cell can change if its window reaches the corner: {can} cells, of which {does} do. "
    + "In the others the change is lost in rounding. " * (does < can)
    + f"With fusion {int((fused > 0).sum()):,} of {fused.numel():,} cells change."
)

# %% [markdown]
# **Exercise 3.** How many residual blocks per branch and module would `mini` need without fusion, so that the
# receptive field of every cell of $F_1$ covers the whole crop?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
blocks = config.blocks
with torch.device("meta"):
    while (
        window(finest_path(HRNet(replace(config, blocks=blocks)))) // 2 < S - 1
    ):  # from one corner to the other
        blocks += 1
Markdown(
    f"The window has to reach from a corner to the opposite one, {S - 1}\u00a0pixels to each side. This takes **{blocks}** blocks "
    f"in place of {config.blocks}. Fusion does it with {config.blocks}, because a layer of the coarsest branch extends the window by 32 pixels to each side."
)
