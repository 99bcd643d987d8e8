# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The decoders: depth map and body parts
#
# Before D-PoSE predicts a body it predicts two maps of the person: a {term}`depth map`, and a {term}`part
# segmentation`, which assigns each pixel to one of 22 body parts or to the background. Each map has a decoder of
# its own. This page explains how the training targets of the two maps are made, how a decoder computes a map from
# the features of the [encoder](encoder.ipynb), and how close the predicted maps are to the true ones.
#
# :::{chapter}
# :needs: [The encoder: features at four resolutions](encoder.ipynb), skinning weights from [The body model](body_model.ipynb)
# :learn: how the targets of depth and parts are made; how a U-Net decoder uses skip connections (eqs. 7 to 10); how good the predicted maps are, and where they are undefined; why the order of up-sampling and convolution matters
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"} nbmake={"mock": {"people": 16}}
checkpoint = "mini"  # the small HRNet of the package, or a .safetensors file
data = None  # data root; None: $DPOSE_DATA, else the open data
people = 120  # test people whose maps are measured
shown = [3, 14, 10, 5]  # of these, the ones to look at; the first one in detail
targets = [3, 15]  # of these, the ones whose targets are shown first

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import itertools

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import dpose
from dpose.config import PAPER
from dpose.data.loader import make_loader
from dpose.data.shards import decode_sample
from dpose.data.sources import BadCount, find_shards, read_members
from dpose.data.targets import depth_target
from dpose.figures import (
    INK,
    colour_depth,
    colour_parts,
    colour_values,
    html_table,
    percent,
    picture_grid,
    power_of_ten,
    show_source,
    style_axis,
    to_picture,
)
from dpose.metrics import mean_iou, parts_confusion, parts_overlap
from dpose.model.decoder import UpFuse
from dpose.model.hrnet import EncoderFeatures, upsample2x
from dpose.model.inference import run_network, to_device
from dpose.model.network import DPose

network = dpose.load(checkpoint).eval().requires_grad_(False)
if network.depth_decoder is None:
    raise ValueError("this page needs a network with a depth branch")
loader = make_loader(data, "test", network.config, batch_size=40)
batches = [to_device(batch, "cpu") for batch in itertools.islice(loader, -(-people // 40))]
with torch.inference_mode():
    predictions = [run_network(network, batch) for batch in batches]
image = torch.cat([batch["image"] for batch in batches])[:people]  # (P, 3, S, S)
true_parts = torch.cat([batch["parts"] for batch in batches])[:people]  # (P, M, M), 0..22
true_depth = torch.cat([batch["depth"] for batch in batches])[:people, 0]  # (P, M, M)
logits = torch.cat([prediction.parts for prediction in predictions])[:people]  # (P, 23, M, M)
depth = torch.cat([prediction.depth for prediction in predictions])[:people, 0]  # (P, M, M)
parts = logits.argmax(1)  # (P, M, M)
MINI = network.config.name


def size(tensor):
    return " × ".join(map(str, tensor.shape[1:]))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# %% [markdown]
# ## The targets
#
# Both decoders are supervised: during training each predicted map is compared with a true one.
# {numref}`fig-decoder-targets` shows the true maps of two rendered people of the open data.
#
# **Depth.** Synthetic data sets such as {term}`BEDLAM` {cite:p}`bedlam` provide the depth $z$ of every pixel in
# metres, and a mask of each person. The paper (section 3.4) keeps the visible pixels of the person and scales
# their depth to the range from 0.1 to 1:
#
# $$
# d = \begin{cases}
# 0.1 + 0.9\, \dfrac{z - z_{\min}}{z_{\max} - z_{\min}} & \text{on the person,} \\[2mm]
# 0 & \text{elsewhere,}
# \end{cases}
# $$
#
# where $z_{\min}$ and $z_{\max}$ are the smallest and largest depth of the person's pixels. The target is
# relative: it orders the body parts from near to far, but contains neither the distance of the person nor the size
# of the body in metres. From a single crop both are ambiguous, because a small person nearby and a large person
# far away give the same picture.
#
# **Parts.** The label of each person contains the parameters of the body model. The posed mesh is computed from
# them, and each vertex is assigned to the joint with the largest skinning weight; fingers count as part of the
# wrist, jaw and eyes as part of the head. This gives 22 parts, one per body joint. The mesh is then rendered into
# the crop with a number per part: 0 is the background, $j$ the part of joint $j$, with joints counted from 1.
#
# The two targets treat occlusion differently. The depth map contains only what is visible. The part map is
# rendered from the mesh alone, so it shows the body also behind other objects and without clothes. Where one part of
# the body hides another, it contains the nearer one.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Two test people with the targets of both decoders. Depth: yellow is near, blue is far. Parts: one colour per limb, lighter towards its end. In the second row a box hides a part of the legs, which the depth target leaves out and the part target contains.", "name": "fig-decoder-targets"}, "image": {"alt": "Two rows of three pictures: the crop of a person, the visible person in shades from yellow to dark blue on a dark ground, and the person divided into coloured body parts. In the second row the leg behind a box is missing in the depth and present in the parts."}}
members = itertools.islice(read_members(find_shards(data, "test"), BadCount(0, 0)), max(targets) + 1)
samples = [decode_sample(member) for member in members]
picture_grid(
    [
        [
            samples[i]["image"],
            colour_depth(depth_target(samples[i]["depth"])),
            colour_parts(samples[i]["parts"]),
        ]
        for i in targets
    ],
    titles=("crop", "depth target", "part target"),
    side=2.3,
)
plt.show()

# %% [markdown]
# {py:obj}`dpose.data.targets.depth_target` and {py:obj}`dpose.data.targets.part_targets` compute the two targets.
# The appendix on [targets and cameras](targets.ipynb) examines what can go wrong with them: pixels of the sky
# inside a mask, other ways to normalise, and the camera that the parts are rendered with.
#
# ## A U-Net decoder
#
# A decoder has to combine two kinds of information. The coarsest map $F_4$ represents what is where, in a few
# cells. The finest map $F_1$ has the edges, but less context. The decoder starts from $F_4$ and increases the
# resolution in three steps. In each step it concatenates the map of the encoder that has the same size. Such a
# direct connection from the encoder to the decoder is a {term}`skip connection`, and the resulting shape is that
# of a {term}`U-Net`: fine to coarse in the encoder, coarse to fine in the decoder, with a skip connection at each
# resolution. Two things are different from the original U-Net. HRNet computes its four maps in parallel and not
# one after the other. And the two sides are not symmetrical, as the paper notes: the decoder is much lighter than
# the encoder.
#
# With $X_4 = F_4$, one step from level $i + 1$ to level $i$, for $i = 3, 2, 1$, is
#
# $$ U_i = \mathrm{ReLU}\bigl(\mathrm{BN}\bigl(\mathrm{Conv}_{1\times1}(\mathrm{up}(X_{i+1}))\bigr)\bigr) \tag{7} $$
#
# $$ C_i = [\, U_i,\; F_i \,] \tag{8} $$
#
# $$ X_i = B_i(C_i) \tag{9} $$
#
# - Eq. 7 doubles the side of the map by bilinear interpolation, written $\mathrm{up}$, and brings it to the number
#   of channels of $F_i$ by a $1 \times 1$ convolution.
# - Eq. 8 is the skip connection: a concatenation along the channels.
# - Eq. 9 mixes both by the {term}`residual blocks <residual block>` $B_i$, four in the paper.
#
# The last map, $X_1$, has the resolution of $F_1$. In the depth decoder it is called $D$, and its mean is also an
# input of the [regressor](regressor.ipynb). Two convolutions turn it into the output, with 1 channel for depth and
# 23 for the parts and the background:
#
# $$ O = \mathrm{Conv}_{1\times1}\bigl(\mathrm{ReLU}\bigl(\mathrm{BN}\bigl(\mathrm{Conv}_{3\times3}(X_1)\bigr)\bigr)\bigr) \tag{10} $$
#
# A {term}`sigmoid` brings the depth into the range from 0 to 1. The part channels are {term}`logits <logit>` $S$;
# a {term}`softmax` over the 23 channels gives the probability of each part at each pixel. The paper writes
# $F_i^\text{up}$, $F_i^\text{cat}$ and $F_i^\text{ref}$ for $U_i$, $C_i$ and $X_i$, and counts from 0.
#
# {py:obj}`dpose.model.decoder.UpFuse` computes eqs. 7 to 9:

# %% tags=["remove-input"]
show_source(UpFuse.forward)

# %% [markdown]
# The paper's text and the released code differ in three details. This package follows the released code, whose
# number of parameters is the one that the paper reports:
#
# - In eq. 7 the text up-samples before the convolution, the code after it. The last section of this page examines
#   the difference.
# - In eq. 9 the text lets $B_i$ reduce the number of channels to that of the next level. In the code $X_i$ has as
#   many channels as $F_i$.
# - Eq. 10 computes an output of the size of $F_1$. The code doubles $X_1$ twice first, each time with a $3 \times
#   3$ convolution, so that the output has the size of the crop. (`mini` doubles it once.)
#
# {numref}`fig-decoder-unet` shows a decoder with the maps of one crop.


# %% tags=["remove-input"]
def decode(decoder, maps):
    """All maps of one decoder from X4 to the output, by name."""
    steps = {"X₄ = F₄": maps.f4}
    for fuse, name, skip in (
        (decoder.fuse_4_to_3, "X₃", maps.f3),
        (decoder.fuse_3_to_2, "X₂", maps.f2),
        (decoder.fuse_2_to_1, "X₁", maps.f1),
    ):
        steps[name] = fuse(list(steps.values())[-1], skip)
    enlarged = decoder.upscale(steps["X₁"])
    return steps | {"X₁, enlarged": enlarged, "output": decoder.head(enlarged)}


maps = network.encoder(image[shown[:1]])
steps = {"depth": decode(network.depth_decoder, maps), "parts": decode(network.parts_decoder, maps)}
with torch.device("meta"):  # shapes and counts only, nothing is computed
    paper = DPose(PAPER).eval()
    paper_maps = paper.encoder(torch.empty(1, 3, PAPER.image_size, PAPER.image_size))
    paper_steps = decode(paper.depth_decoder, paper_maps), decode(paper.parts_decoder, paper_maps)
assert torch.equal(steps["parts"]["output"], network.parts_decoder(maps)[0])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The depth decoder of the small network for one crop, and the output of the part decoder, which has the same layers. Left: maps of the encoder, from the finest to the coarsest. Right: maps of the decoder, from the coarsest to the finest. Pictures: mean magnitude over the channels, each with a colour scale of its own. Numbers: channels × height × width.", "name": "fig-decoder-unet"}, "image": {"alt": "Diagram with two columns of maps. In the left column the maps become coarser from top to bottom, in the right one finer from bottom to top. An arrow leads from each map at the left to the one at the right, arrows lead upwards at the right, and from the top to a depth map, below which is a part map."}}
figure, axis = plt.subplots(figsize=(7, 5.9), layout="constrained")
SIDES = (1.0, 0.82, 0.66, 0.5)


def draw_map(picture, x, y, side, title):
    axis.imshow(picture, extent=(x - side / 2, x + side / 2, y + side / 2, y - side / 2), zorder=2)
    axis.text(x, y + side / 2 + 0.02, title, color=INK, fontsize=9, ha="center", va="top")


def draw_arrow(start, end, text=""):
    axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.2})
    if text:
        middle = (np.array(start) + end) / 2
        axis.text(middle[0], middle[1] - 0.03, text, color=INK, fontsize=9, ha="center", va="bottom")


def magnitude(tensor):
    return colour_values(tensor[0].abs().mean(0))


LEFT, RIGHT, OUT, STEP = 1.5, 3.6, 5.2, 1.36
draw_map(to_picture(image[shown[0]]), 0, 0, 1.0, f"crop\n{size(image)}")
draw_arrow((0.55, 0), (LEFT - 0.55, 0))
for x, heading in ((LEFT, "encoder"), (RIGHT, "decoder")):
    axis.text(x, -0.6, heading, color=INK, fontsize=11, ha="center")
for i, (f, x) in enumerate(zip(maps[:4], list(steps["depth"].values())[3::-1], strict=True)):
    y, s = STEP * i, SIDES[i]
    draw_map(magnitude(f), LEFT, y, s, f"F{'₁₂₃₄'[i]}  {size(f)}")
    draw_arrow((LEFT + s / 2 + 0.05, y), (RIGHT - s / 2 - 0.05, y), "skip connection" if i < 3 else "")
    draw_map(magnitude(x), RIGHT, y, s, f"{'D = X₁' if i == 0 else 'X' + '₁₂₃₄'[i]}  {size(x)}")
    if i < 3:
        draw_arrow((RIGHT, y + STEP - SIDES[i + 1] / 2 - 0.03), (RIGHT, y + s / 2 + 0.2))
        axis.text(RIGHT + 0.1, y + s / 2 + 0.32, "eqs. 7 to 9", color=INK, fontsize=9, va="center")
draw_arrow((RIGHT + 0.55, 0), (OUT - 0.55, 0), "enlarge, eq. 10")
first = shown[0]
draw_map(
    colour_depth(depth[first].numpy(), parts[first].numpy() > 0),
    OUT,
    0,
    1.0,
    f"depth\n{size(steps['depth']['output'])}",
)
draw_map(
    colour_parts(parts[first].numpy()),
    OUT,
    STEP + 0.25,
    1.0,
    f"part decoder: parts\n{size(steps['parts']['output'])}",
)
axis.set(xlim=(-0.6, 5.8), ylim=(3 * STEP + 0.5, -0.75))
axis.set_axis_off()
figure.patch.set_alpha(0)
plt.show()

# %% tags=["remove-input"]
rows = [(name, size(paper_steps[0][name]), size(steps["depth"][name])) for name in list(paper_steps[0])[:-1]]
rows += [
    (f"output, {name}", size(paper_step["output"]), size(step["output"]))
    for (name, step), paper_step in zip(steps.items(), paper_steps, strict=True)
]
assert paper_steps[1]["output"].shape[1:] == (23, 224, 224)
html_table(
    ("map", "PAPER", MINI),
    rows,
    "Maps of a decoder: channels × height × width. PAPER's decoders have "
    f"{parameters(paper.depth_decoder):,} (depth) and {parameters(paper.parts_decoder):,} (parts) parameters, "
    f"{percent((parameters(paper.depth_decoder) + parameters(paper.parts_decoder)) / parameters(paper), 1)} of the network.",
)

# %% [markdown]
# The two decoders have the same layers and the same inputs, but no common weights, and they exchange no
# features. In training they influence each other through the encoder, and through the loss of the body, which depends on the outputs of both.
#
# ## Predicted and true maps
#
# {numref}`fig-decoder-maps` compares the predictions with the targets. The parts are measured by the {term}`IoU`,
# the number of pixels that two regions have in common divided by the number of pixels in either, and by its mean
# over the parts, the {term}`mIoU`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Predicted and true maps of four test people, by the trained network of this page. The predicted depth is shown where the part decoder predicts a part. Left of each row: mean absolute error of the depth on the person's visible pixels, and share of the pixels of the body with the correct part.", "name": "fig-decoder-maps"}, "image": {"alt": "Four rows of five pictures, one person per row. The predicted depth and parts have the pose of the true ones, with smoother outlines and less detail at hands and feet."}}
visible, body = true_depth > 0, true_parts > 0
error = (depth - true_depth).abs()  # (P, M, M)
rows, labels = [], []
for i in shown:
    rows.append(
        [
            to_picture(image[i]),
            colour_depth(true_depth[i].numpy()),
            colour_depth(depth[i].numpy(), parts[i].numpy() > 0),
            colour_parts(true_parts[i].numpy()),
            colour_parts(parts[i].numpy()),
        ]
    )
    correct = (parts[i] == true_parts[i])[body[i]].float().mean()
    labels.append(f"depth error {error[i][visible[i]].mean():.2f}\nparts {percent(correct)}")
side = max(len(row[0]) for row in rows)
rows = [[cv2.resize(p, (side, side), interpolation=cv2.INTER_NEAREST) for p in row] for row in rows]
titles = ("crop", "depth, true", "depth, predicted", "parts, true", "parts, predicted")
picture_grid(rows, titles, labels, side=1.38)
plt.show()

# %% tags=["remove-input"]
constant = true_depth[visible].median()
constant_error = (constant - true_depth[visible]).abs().mean()
depth_error = error[visible].mean()
iou = mean_iou(*parts_overlap(parts_confusion(parts, true_parts).sum(0)))
correct, missed = (
    round((parts == wanted)[body].double().mean().item(), 2)  # so that the three shares add up to 100 %
    for wanted in (true_parts, 0)
)
mistaken = 1 - correct - missed
silhouette = ((parts > 0) & body).sum() / ((parts > 0) | body).sum()
Markdown(
    f"For `{MINI}` and {len(image)} test people the mean absolute error of the depth is {depth_error:.3f} on the person's pixels. For comparison, the best constant, {constant:.2f}, has an error of "
    f"{constant_error:.3f}; the target ranges from 0.1 to 1. Of the pixels of the body {percent(correct)} receive the correct one of 22 parts, {percent(mistaken)} another part, and "
    f"{percent(missed)} the background. The mIoU of the parts is {iou:.2f}, the IoU of the whole silhouette {silhouette:.2f}."
)

# %% [markdown]
# A depth of 0 is the target on the background, but the predicted depth there has no meaning. The paper's depth
# loss ({eqn}`2`) ignores the background, so no gradient tells the decoder what to output outside the person
# (exercise 1). A predicted depth map can only be used together with a mask, and the part map provides one.
#
# Whether the predicted probabilities of the parts agree with the frequency of correct predictions
# ({term}`calibration`), and how the depth errors are distributed, is measured on the page
# [What the errors depend on](analysis.ipynb) over the whole test split.
#
# ## Order of up-sampling and convolution
#
# The paper's text up-samples a map and then applies the $1 \times 1$ convolution of eq. 7. The released code
# convolves first, which takes a quarter of the multiplications. Is the result the same?
#
# Bilinear interpolation replaces each pixel by a weighted mean of its neighbours, $\mathrm{up}(x)(p) = \sum_q
# b_{pq}\, x(q)$ with $\sum_q b_{pq} = 1$ and $b_{pq} \ge 0$, and treats all channels alike. A $1 \times 1$
# convolution multiplies the channels by a matrix $W$, adds a bias $c$, and treats all pixels alike. So the two
# commute:
#
# $$
# W \sum_q b_{pq}\, x(q) + c \;=\; \sum_q b_{pq} \bigl( W x(q) + c \bigr) .
# $$
#
# The same holds for batch normalisation with fixed statistics, which is an affine function per channel. It does
# not hold in training, where the statistics are those of the map, because an interpolated map has a smaller
# variance. And it does not hold for the ReLU. As the ReLU is convex, $\mathrm{up}(\mathrm{ReLU}(x)) \ge
# \mathrm{ReLU}(\mathrm{up}(x))$: the order of the released code gives values that are larger or equal.

# %% tags=["remove-input"]


def exchange(layers, x):
    """Up-sampling after the layers less up-sampling before them, relative to the largest value."""
    after, before = upsample2x(layers(x)), layers(upsample2x(x))
    return (after - before) / after.abs().max()


double = dpose.load(checkpoint).double().eval().requires_grad_(False)
maps64 = EncoderFeatures(*(x.double() for x in maps))
CONV, FIXED, RELU, TRAINING = (
    "1 × 1 convolution",
    "the same, then batch normalisation with fixed statistics",
    "the same, then ReLU (eq. 7)",
    "1 × 1 convolution, then batch normalisation in training",
)
differences = {name: [] for name in (CONV, FIXED, RELU, TRAINING)}
for decoder in (double.depth_decoder, double.parts_decoder):
    inputs = list(decode(decoder, maps64).values())
    for x, step in zip(inputs, (decoder.fuse_4_to_3, decoder.fuse_3_to_2, decoder.fuse_2_to_1), strict=False):
        convolution, normalisation, _ = step.reduce
        differences[CONV].append(exchange(convolution, x))
        differences[FIXED].append(exchange(step.reduce[:2], x))
        differences[RELU].append(exchange(step.reduce, x))
        assert differences[RELU][-1].min() > -1e-12  # never smaller
        normalisation.train()
        differences[TRAINING].append(exchange(step.reduce[:2], x))
        normalisation.eval()
largest = {name: [x.abs().max().item() for x in values] for name, values in differences.items()}
assert max(largest[CONV] + largest[FIXED]) < 1e-12 < 1e-3 < min(largest[RELU] + largest[TRAINING])
html_table(
    ("layers between", "smallest", "largest"),
    [
        (name, *(power_of_ten(x) if x < 1e-6 else f"{x:.2f}" for x in (min(values), max(values))))
        for name, values in largest.items()
    ],
    "Largest difference between the two orders, relative to the largest value, over the six steps of the two decoders of the trained network. In 64 bits.",
)

# %% [markdown]
# So the two orders are two different networks with the same parameters. Weights that were trained with one order
# should not be used with the other.
#
# ## Takeaways
#
# - The depth target is relative and covers the visible pixels of the person, and the part target is rendered from
#   the labelled body and covers it also behind other objects, but not where the body hides itself.
# - Each decoder is a light U-Net: it increases the resolution from that of $F_4$ to that of $F_1$ and, at each
#   resolution, concatenates the encoder's map by a skip connection.
# - A predicted depth map has a meaning on the person only, because the loss ignores the background.
#
# ## Exercises
#
# **Exercise 1.** What does the depth decoder predict outside the person? Plot the mean prediction and the mean
# target against the distance to the outline of the visible person.


# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution", "figure": {"caption": "Depth across the outline of the visible person: mean of target and prediction at each distance; band: the middle half of the predictions. Outside, the prediction continues the depth of the person.", "name": "fig-decoder-outline"}, "image": {"alt": "Line chart of depth against the distance to the outline. Inside the person target and prediction fall together; outside, the target is zero, while the prediction hardly changes across the outline."}}
def outline_distance(person):
    """Signed distance in pixels of each pixel (M, M) to the outline of a mask, positive inside."""
    inside, outside = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 5) for m in (person, ~person))
    return np.where(person, inside - 0.5, 0.5 - outside)


with_depth = visible.flatten(1).any(1)
distance = np.stack([outline_distance(person) for person in visible[with_depth].numpy()])
predicted, target = depth[with_depth].numpy(), true_depth[with_depth].numpy()
bins = np.arange(-8, 9)
members = [np.floor(distance) == low for low in bins]
quartiles = np.array([np.quantile(predicted[m], [0.25, 0.75]) for m in members]).T
figure, axis = plt.subplots(figsize=(7, 2.8))
axis.step(bins + 0.5, [target[m].mean() for m in members], where="mid", color="#D55E00", label="target")
axis.plot(bins + 0.5, [predicted[m].mean() for m in members], color="#0072B2", label="prediction")
axis.fill_between(bins + 0.5, *quartiles, color="#0072B2", alpha=0.35, linewidth=0)
axis.axvline(0, color=INK, linewidth=0.8)
axis.set_xlabel(f"distance to the outline (pixels of {len(distance[0])} × {len(distance[0])})")
axis.set_ylabel("depth")
axis.set_ylim(bottom=0)
axis.legend(loc="lower right")
style_axis(axis)
plt.show()

# %% [markdown]
# **Exercise 2.** How much do the skip connections contribute? Replace $F_1$, then $F_1$ and $F_2$, then $F_1$ to
# $F_3$ by their means over all positions of a crop, and measure the parts again. (The weights stay the same, so
# this is no network that was trained without skip connections.)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution", "figure": {"caption": "Parts predicted for one person as the skip connections are removed, from the finest to the coarsest, and the true parts.", "name": "fig-decoder-skips"}, "image": {"alt": "Five part maps in a row. The first one resembles the true one at the end; between them less and less of the body remains."}}
few = slice(0, 60)
with torch.inference_mode():
    features = network.encoder(image[few])
    removed, scores = {}, {}
    for count, name in enumerate(("all", "without F₁", "without F₁, F₂", "without F₁, F₂, F₃")):
        flat = [f.mean((2, 3), keepdim=True).expand_as(f) for f in features[:count]]
        labels = network.parts_decoder(
            features._replace(**dict(zip(("f1", "f2", "f3"), flat, strict=False)))
        )[0].argmax(1)
        removed[name] = labels
        scores[name] = mean_iou(*parts_overlap(parts_confusion(labels, true_parts[few]).sum(0)))
titles = [f"{name}\nmIoU {score:.2f}" for name, score in scores.items()]
row = [colour_parts(labels[shown[0]].numpy()) for labels in removed.values()]
picture_grid([[*row, colour_parts(true_parts[shown[0]].numpy())]], [*titles, "true"], side=1.35)
plt.show()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the conclusion", "code_prompt_hide": "Hide the conclusion"}
shown_scores = {name: round(float(score), 2) for name, score in scores.items()}  # as in the figure
lost = {name: shown_scores["all"] - score for name, score in shown_scores.items()}
Markdown(
    f"This network needs its skip connections. Without $F_1$ the mIoU falls by {lost['without F₁']:.2f}, and with $F_4$ alone by {lost['without F₁, F₂, F₃']:.2f}, "
    f"to {scores['without F₁, F₂, F₃']:.2f}. The mean of a map is an input that no decoder has been trained with, so a part of the loss may come from this."
)

# %% [markdown]
# **Exercise 3.** The decoders interpolate with aligned corners (`align_corners=True` in PyTorch): the first and
# the last cell of a map keep their places at the borders. The centre of cell $i$ of $F_4$ is pixel $32\, i$ of the
# crop. Where in the crop is the content that a cell of $X_1$ receives from $F_4$ after three doublings, relative
# to its own place? Compare with the convention of aligned centres and with the nearest-neighbour up-sampling in
# the encoder.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution", "figure": {"caption": "Shift between the place of a fine cell and the place of the content that it receives from F₄, for the paper's crop of 224 pixels.", "name": "fig-decoder-corners"}, "image": {"alt": "Line chart of the shift over the crop. With aligned corners it is a straight line that falls from zero; with aligned centres it is constant except near the borders; for nearest-neighbour up-sampling it is a sawtooth of steps."}}
cells = PAPER.image_size // 32
places = 32.0 * torch.arange(cells).expand(1, 1, cells, -1)  # each cell of F4 holds its own place
own = 4.0 * torch.arange(PAPER.feature_size)
corners = upsample2x(upsample2x(upsample2x(places)))
centres = places
for _ in range(3):
    centres = F.interpolate(centres, scale_factor=2, mode="bilinear", align_corners=False)
nearest = F.interpolate(places, scale_factor=8, mode="nearest")
figure, axis = plt.subplots(figsize=(7, 2.6))
axis.plot(own, corners[0, 0, 0] - own, color="#0072B2", label="aligned corners (decoders)")
axis.plot(own, centres[0, 0, 0] - own, color="#B07500", label="aligned centres")
axis.step(own, nearest[0, 0, 0] - own, where="mid", color="#009E73", linewidth=1, label="nearest (encoder)")
axis.set_xlabel("place in the crop (pixels)")
axis.set_ylabel("shift (pixels)")
axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=9)
style_axis(axis)
plt.show()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the conclusion", "code_prompt_hide": "Hide the conclusion"}

inner = slice(8, -8)  # cells that the border does not affect
shift = {
    name: (x[0, 0, 0] - own) for name, x in (("corners", corners), ("centres", centres), ("nearest", nearest))
}
low, high = shift["nearest"].aminmax()
(middle,) = {round(value) for value in shift["centres"][inner].tolist()}
assert shift["corners"][0] == 0 and (shift["corners"].diff() < 0).all()


def minus(value):
    return f"{float(value):.0f}".replace("-", "−")


Markdown(
    f"With aligned corners the shift depends on the place: it is {minus(shift['corners'][0])} at the first cell and {minus(shift['corners'][-1])}\u00a0pixels at the last one. "
    f"With aligned centres it is {minus(middle)}\u00a0pixels except near the border. With nearest-neighbour up-sampling it changes within each cell of $F_4$, between {minus(low)} and "
    f"{minus(high)}\u00a0pixels. No convention is exact everywhere; a network is trained with one and has to be used with it."
)
