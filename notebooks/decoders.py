# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The decoders: depth and parts
#
# Before it says a word about joints, the network has to draw two maps of the person: how far away is each
# pixel, and which part of the body is it? This page follows a crop through the decoders that draw them,
# holds the maps against the truth, and settles a question of order: the paper's text enlarges a map and then
# convolves it, the released code does it the other way round. Does that matter?

# %% tags=["parameters"] nbmake={"mock": {"people": 16}}
checkpoint = "mini"  # the shipped network, or a .safetensors file
data = None  # data root; None: $DPOSE_DATA, else the open data
people = 120  # test people whose maps are measured
shown = [3, 14, 10, 5]  # of these, the ones to look at; the first one in detail

# %% tags=["hide-input"]
import itertools

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown

import dpose
from dpose.config import PAPER
from dpose.data.loader import make_loader
from dpose.figures import (
    INK,
    colour_depth,
    colour_parts,
    colour_values,
    html_table,
    picture_grid,
    show_source,
    style_axis,
    to_picture,
)
from dpose.model.decoder import Decoder, UpFuse
from dpose.model.hrnet import EncoderFeatures, upsample2x
from dpose.model.inference import run_network, to_device
from dpose.model.network import DPose

network = dpose.load(checkpoint).eval().requires_grad_(False)
if network.depth_decoder is None:
    raise ValueError("this page needs a network with a depth branch")
loader = make_loader(data, "test", network.config, batch_size=40)
batches = [to_device(batch, "cpu") for batch in itertools.islice(loader, -(-people // 40))]
with torch.inference_mode():
    said = [run_network(network, batch) for batch in batches]
image = torch.cat([batch["image"] for batch in batches])[:people]  # (P, 3, S, S)
true_parts = torch.cat([batch["parts"] for batch in batches])[:people]  # (P, M, M), 0..22
true_depth = torch.cat([batch["depth"] for batch in batches])[:people, 0]  # (P, M, M)
logits = torch.cat([prediction.parts for prediction in said])[:people]  # (P, 23, M, M)
depth = torch.cat([prediction.depth for prediction in said])[:people, 0]  # (P, M, M)

# %% [markdown]
# ## Three steps up
#
# The encoder leaves four maps, from F₁, fine and with few channels, to F₄, coarse and with many. A decoder climbs
# from F₄ to the size of F₁. With $X_4 = F_4$, a step from level $i + 1$ to level $i$ is
#
# $$
# U_i = \mathrm{up}\bigl(\mathrm{ReLU}(\mathrm{BN}(\mathrm{Conv}_{1\times1}(X_{i+1})))\bigr), \qquad
# C_i = [\, U_i,\; F_i \,], \qquad
# X_i = R_i(C_i) \qquad \text{(eqs. 7–9)}.
# $$
#
# $\mathrm{up}$ doubles the side by bilinear interpolation; $R_i$ are residual blocks. So at every size the
# coarse knowledge of what is where meets the encoder's own map of that size, which knows the edges. The last
# one, $X_1$, is called $D$ in the depth decoder. It is doubled to the size of the output (twice in `PAPER`,
# once in `MINI`, with a $3 \times 3$ convolution each time, a step that eq. 10 does not have), and two last
# convolutions make it the map (eq. 10): one channel for depth, 23 for the parts and the background.

# %%
show_source(UpFuse.forward, Decoder.forward)

# %% [markdown]
# The two decoders share this design and nothing else, no weight and no input besides the encoder's maps. The
# sizes on the way:


# %% tags=["hide-input"]
def climb(decoder, maps):
    """All maps of one decoder on its way up, by name."""
    way = {"X₄ = F₄": maps.f4}
    for step, name, fine in (
        (decoder.fuse_4_to_3, "X₃", maps.f3),
        (decoder.fuse_3_to_2, "X₂", maps.f2),
        (decoder.fuse_2_to_1, "X₁", maps.f1),
    ):
        way[name] = step(list(way.values())[-1], fine)
    return way | {"enlarged": (large := decoder.upscale(way["X₁"])), "output": decoder.head(large)}


def size(tensor):
    return " × ".join(map(str, tensor.shape[1:]))


first = image[shown[:1]]
maps = network.encoder(first)
ways = {"depth": climb(network.depth_decoder, maps), "parts": climb(network.parts_decoder, maps)}
with torch.device("meta"):  # shapes and counts only, nothing is computed
    paper = DPose(PAPER).eval()
    paper_maps = paper.encoder(torch.empty(1, 3, PAPER.image_size, PAPER.image_size))
    paper_ways = climb(paper.depth_decoder, paper_maps), climb(paper.parts_decoder, paper_maps)
rows = [(name, size(paper_ways[0][name]), size(ways["depth"][name])) for name in list(paper_ways[0])[:-1]]
rows += [
    (name, size(paper_way["output"]), size(way["output"]))
    for (name, way), paper_way in zip(ways.items(), paper_ways, strict=True)
]
assert torch.equal(ways["parts"]["output"], network.parts_decoder(maps)[0])
assert paper_ways[1]["output"].shape[1:] == (23, 224, 224)
html_table(
    ("map", "PAPER", network.config.name.upper()),
    rows,
    "The way up, channels × height × width. PAPER's decoders have "
    f"{sum(p.numel() for p in paper.depth_decoder.parameters()):,} (depth) and "
    f"{sum(p.numel() for p in paper.parts_decoder.parameters()):,} (parts) parameters.",
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The way up for one crop: mean magnitude of each map over its channels, scaled by itself; then the answer and the truth. Both rows start from the same F₄.", "name": "fig-decoder-climb"}}
index = shown[0]
rows = [[colour_values(x[0].abs().mean(0)) for x in list(way.values())[:-1]] for way in ways.values()]
person = logits[index].argmax(0) > 0
rows[0] += [colour_depth(depth[index].numpy(), person.numpy()), colour_depth(true_depth[index].numpy())]
rows[1] += [colour_parts(logits[index].argmax(0).numpy()), colour_parts(true_parts[index].numpy())]
names = [*list(ways["depth"])[:-1], "answer", "truth"]
picture_grid(rows, titles=names, labels=("depth", "parts"), side=1.1)
plt.show()

# %% [markdown]
# ## The answers, and where they are wrong
#
# Depth is closed by a sigmoid. Its target runs from 0.1 at the nearest to 1 at the farthest pixel *of the person
# in sight*. Parts are 23 scores a pixel, of which the softmax makes probabilities; their target shows the whole
# body, also where something stands before it.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Predicted and true maps and their errors. Depth: all of the answer, then where the network sees a person, then the truth, then the distance of the two on the pixels in sight (yellow: 0.5 or more). Parts: white pixels were given to a wrong class.", "name": "fig-decoder-maps"}}


def error_pictures(index):
    in_sight = (true_depth[index] > 0).numpy()
    off = (depth[index] - true_depth[index]).abs().numpy()
    guess, truth = logits[index].argmax(0).numpy(), true_parts[index].numpy()
    wrong = np.where((guess != truth)[..., None], np.uint8(255), colour_parts(truth) // 2)
    return [
        to_picture(image[index]),
        colour_depth(depth[index].numpy(), np.ones_like(in_sight)),
        colour_depth(depth[index].numpy(), guess > 0),
        colour_depth(true_depth[index].numpy()),
        colour_depth(1 - off / 0.5, in_sight),
        colour_parts(guess),
        colour_parts(truth),
        wrong,
    ]


titles = ("crop", "depth", "on person", "true", "error", "parts", "true", "wrong")
picture_grid([error_pictures(index) for index in shown], titles, side=1.05)
plt.show()

# %% [markdown]
# ### Beside the person, depth means nothing
#
# The second column looks odd: there is depth all over the crop. The target is 0 on the background, but with the paper's
# loss (eq. 2) the background is ignored. So nobody has ever told the network what to say there, and it says anything.
# Its depth is the depth of a person only together with a map that says where the person is. Here is its answer
# against the distance to the true outline of what is in sight, inside to the right, outside to the left.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Depth across the outline of the visible person: mean of target and prediction at each distance, and the band between the quartiles of the prediction.", "name": "fig-decoder-outline"}}
def outline_distance(person):
    """Signed distance of each pixel (M, M) to the outline of a mask: positive inside, in pixels."""
    inside, outside = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 5) for m in (person, ~person))
    return np.where(person, inside - 0.5, 0.5 - outside)


distance = np.stack([outline_distance(person) for person in (true_depth > 0).numpy()])
bins = np.arange(-8, 9)
members = [
    (np.floor(distance) == low) & (true_depth > 0).flatten(1).any(1).numpy()[:, None, None] for low in bins
]
target = np.array([true_depth.numpy()[m].mean() for m in members])
answer = np.array([depth.numpy()[m].mean() for m in members])
low, high = np.array([np.quantile(depth.numpy()[m], [0.25, 0.75]) for m in members]).T
figure, axis = plt.subplots(figsize=(7, 2.8))
axis.step(bins + 0.5, target, where="mid", color="#D55E00", label="target")
axis.plot(bins + 0.5, answer, color="#0072B2", label="prediction")
axis.fill_between(bins + 0.5, low, high, color="#0072B2", alpha=0.2, linewidth=0)
axis.axvline(0, color=INK, linewidth=0.8)
axis.set_xlabel(
    f"distance to the outline (pixels of the {true_depth.shape[-1]} × {true_depth.shape[-1]} map)"
)
axis.set_ylabel("depth (1 is farthest)")
axis.set_ylim(bottom=0)
axis.legend()
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
error = (depth - true_depth).abs().numpy()
edge, middle = error[(distance > 0) & (distance < 1)].mean(), error[distance > 3].mean()
constant = np.median(true_depth[true_depth > 0])
guess = (constant - true_depth[true_depth > 0]).abs().mean()
Markdown(
    f"Outside, the mean answer is {depth.numpy()[distance < 0].mean():.2f}. "
    f"In the first pixel inside the outline the depth errs by {edge:.3f} on average, more than three pixels inside by "
    f"{middle:.3f}. Answering {constant:.2f} everywhere on the person would err by {guess:.3f}."
)

# %% [markdown]
# ### Can its probabilities be believed?
#
# Where the network gives its best part a probability of 0.7, is it right in seven of ten pixels? Only pixels
# that belong to a person, in truth or by the network's choice, are counted: the empty background is easy,
# and would hide everything else.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Reliability of the part probabilities. Above the diagonal the network is right more often than it says, below it less often. Bars: how often it says so.", "name": "fig-decoder-reliability"}}
probability, choice = logits.softmax(1).max(1)
counted = (true_parts > 0) | (choice > 0)
probability, right = probability[counted].numpy(), (choice == true_parts)[counted].numpy()
edges = np.linspace(0, 1, 11)
which = np.digitize(probability, edges[1:-1])
share = np.bincount(which, minlength=10) / len(which)
filled = share > 0.001  # too few pixels say nothing
claimed = np.array([probability[which == k].mean() if filled[k] else np.nan for k in range(10)])
correct = np.array([right[which == k].mean() if filled[k] else np.nan for k in range(10)])
figure, axis = plt.subplots(figsize=(4.4, 3.4))
axis.bar(edges[:-1] + 0.05, share, width=0.09, color=INK, alpha=0.35, label="share of pixels")
axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
axis.plot(claimed, correct, color="#0072B2", marker="o", label="how often right")
axis.set_xlabel("probability of the chosen class")
axis.set_ylabel("share")
axis.set_xlim(0, 1)
axis.set_ylim(0, 1)
axis.legend(loc="upper left")
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
gap = probability.mean() - right.mean()
calibration = np.nansum(share * np.abs(claimed - correct))
Markdown(
    f"It is right in {right.mean():.0%} of these pixels and claims {probability.mean():.0%}: on the whole it is "
    f"{'too sure of itself' if gap > 0 else 'too modest'}. The expected calibration error, the mean distance "
    f"to the diagonal, is {calibration:.3f}."
)

# %% [markdown]
# ## The doubtful point: convolve first, or enlarge first?
#
# The paper's text first doubles the map and then convolves it with $1 \times 1$; the released code, and ours, does
# it the other way round, on a quarter of the pixels. Is it the same network?
#
# Bilinear interpolation replaces each pixel by a weighted mean of its neighbours, $\mathrm{up}(x)(p) = \sum_q
# b_{pq}\, x(q)$ with $\sum_q b_{pq} = 1$, and treats all channels alike. A $1 \times 1$ convolution multiplies
# the channels by a matrix $W$ and treats all pixels alike. So the two commute; and as the weights sum to one, so
# does any offset, and with it batch normalisation once its statistics are fixed:
#
# $$
# W \sum_q b_{pq}\, x(q) + c \;=\; \sum_q b_{pq} \bigl( W x(q) + c \bigr).
# $$
#
# The ReLU does not commute. It is convex, so the ReLU of a mean is never more than the mean of the ReLUs: the released
# order can only give larger values, $\mathrm{up}(\mathrm{ReLU}(x)) \ge \mathrm{ReLU}(\mathrm{up}(x))$.
# And batch normalisation in training does not commute either, because an enlarged map has a smaller variance. All
# of it in 64 bits, on the maps of the crop above, in the six steps of the two decoders:


# %%
def orders(layers, x):
    """Largest difference between enlarging last and enlarging first, relative to the largest value."""
    last, first = upsample2x(layers(x)), layers(upsample2x(x))
    return float((last - first).abs().max() / last.abs().max()), last - first


double = dpose.load(checkpoint).double().eval().requires_grad_(False)
doubled = EncoderFeatures(*(x.double() for x in maps))
CONV, FIXED, RELU, TRAINING = (
    "1 × 1 convolution",
    "the same and BN, statistics fixed",
    "the same and ReLU",
    "1 × 1 convolution and BN in training",
)
found = {name: [] for name in (CONV, FIXED, RELU, TRAINING)}
for decoder in (double.depth_decoder, double.parts_decoder):
    way = list(climb(decoder, doubled).values())
    for x, step in zip(way, (decoder.fuse_4_to_3, decoder.fuse_3_to_2, decoder.fuse_2_to_1), strict=False):
        convolve, normalise, _ = step.reduce
        found[CONV].append(orders(convolve, x)[0])
        found[FIXED].append(orders(step.reduce[:2], x)[0])
        difference, signed = orders(step.reduce, x)
        assert signed.min() > -1e-12  # enlarging last never gives less
        found[RELU].append(difference)
        normalise.train()
        found[TRAINING].append(orders(step.reduce[:2], x)[0])
        normalise.eval()

assert max(found[CONV] + found[FIXED]) < 1e-12
assert min(found[RELU]) > 0

html_table(
    ("up-sampling exchanged with", "smallest", "largest"),
    [(name, f"{min(values):.1g}", f"{max(values):.1g}") for name, values in found.items()],
    "Enlarging last against enlarging first: largest difference relative to the largest value, over six steps",
)

# %% [markdown]
# With its statistics fixed, batch normalisation changes nothing in this beyond rounding; in training it tells
# the two orders apart, and the ReLU always does. So the two networks are close relatives, not
# the same: weights of one do not belong into the other. The released order is the cheaper one, with a quarter
# of the multiplications in these layers.
#
# ## Small print: what does "twice as large" mean?
#
# Doubling needs a convention. Here and in the released code corners stay on corners (`align_corners`), which
# stretches the grid a little: 7 cells span the same distance as 56. The encoder's cells do not lie like
# that: cell $i$ of F₄ is centred on pixel $32\, i$ of the crop. Let the cells of F₄ say where they are, double
# three times, and look where each fine cell is told to be.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "PAPER's geometry: how far from its own place in the crop lies the content of F₄ that a fine cell is given, after three doublings.", "name": "fig-decoder-corners"}}
places = 32.0 * torch.arange(PAPER.image_size // 32).expand(1, 1, PAPER.image_size // 32, -1)
own = 4.0 * torch.arange(PAPER.feature_size)
aligned = upsample2x(upsample2x(upsample2x(places)))[0, 0, 0] - own
halves = places
for _ in range(3):
    halves = torch.nn.functional.interpolate(halves, scale_factor=2, mode="bilinear", align_corners=False)
nearest = torch.nn.functional.interpolate(places, scale_factor=8, mode="nearest")[0, 0, 0] - own
figure, axis = plt.subplots(figsize=(7, 2.6))
axis.plot(own, aligned, color="#0072B2", label="corners on corners (decoders)")
axis.plot(own, halves[0, 0, 0] - own, color="#E69F00", label="centres on centres")
axis.step(own, nearest, where="mid", color="#009E73", linewidth=1, label="nearest (encoder's fusion)")
axis.set_xlabel("place in the crop (pixels)")
axis.set_ylabel("shift (pixels)")
axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=9)
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
Markdown(
    f"At the far edge the decoders are off by {-float(aligned[-1]):.0f} pixels, nearly a cell of F₄, and no convention "
    "is right everywhere. A network can learn to live with any of them. But weights that were trained with one must "
    "be run with it."
)
