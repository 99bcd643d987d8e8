# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Soft attention: features for each joint
#
# The regressor predicts the rotation of each joint from one feature vector per joint. This page explains how these
# vectors are computed: the predicted part map decides from which cells of the encoder's features each joint's
# vector is averaged. The idea comes from {term}`PARE` {cite:p}`pare`; in D-PoSE it is one equation, {eqn}`5`. The
# page recomputes the equation by other means, shows where each joint attends, and measures what happens when a part is
# covered.
#
# :::{chapter}
# :needs: [The encoder: features at four resolutions](encoder.ipynb), [The decoders: depth map and body parts](decoders.ipynb)
# :learn: how part logits become attention weights; what the softmax over positions ignores; how attention and pose change when a part is hidden
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"} nbmake={"mock": {"people": 16, "steps": 4}}
checkpoint = "mini"  # the small HRNet of the package, or a .safetensors file
data = None  # data root; None: $DPOSE_DATA, else the open data
people = 120  # test people over whom is measured
person = 3  # of these, the one to look at
covered = "left_wrist"  # the joint that is covered by a patch
steps = 12  # exercise 3: the patch visits this many places along a side

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import dpose
from dpose.batch import Prediction
from dpose.camera import bbox_info, crop_affine
from dpose.config import PAPER, RELEASED_PARTS
from dpose.data.augment import MIRRORED
from dpose.data.loader import make_loader
from dpose.figures import (
    attention_overlay,
    html_table,
    part_palette,
    percent,
    picture_grid,
    power_of_ten,
    show_source,
    signed,
    to_picture,
)
from dpose.model import checkpoint as checkpoints
from dpose.model.attention import attention_weights
from dpose.model.inference import to_device
from dpose.model.network import DPose
from dpose.skeleton import JOINT_NAMES

network = dpose.load(checkpoint).eval().requires_grad_(False)
if network.depth_decoder is None or network.attention is None:
    raise ValueError("this page needs a network with soft attention and a depth branch")
JOINTS = JOINT_NAMES[:22]
loader = make_loader(data, "test", network.config, batch_size=20)
batches = [to_device(batch, "cpu") for batch in itertools.islice(loader, -(-people // 20))]


def column(name):
    return torch.cat([batch[name] for batch in batches])[:people]


def run(images, boxes):
    """Predictions and attention (N, 22, s, s) for N crops."""
    rows = []
    for i, q in zip(images.split(20), boxes.split(20), strict=True):
        prediction, features = network(i, q, return_features=True)
        rows.append((*prediction, features.attention))
    *prediction, weights = (torch.cat(values) for values in zip(*rows, strict=True))
    return Prediction(*prediction), weights


image, parts, depth = column("image"), column("parts"), column("depth")[:, 0]  # (P, 3, S, S), (P, M, M)
box = bbox_info(column("center"), column("scale"), column("cam_int"))  # (P, 3)
predicted, attention = run(image, box)  # attention: (P, 22, s, s)
one = slice(person, person + 1)
prediction, features = network(image[one], box[one], return_features=True)
picture = to_picture(image[person])
S, s = image.shape[-1], attention.shape[-1]  # sides of the crop and of the attention (N and n in the text)
with torch.device("meta"):  # sizes only
    paper = DPose(PAPER)


def plain(name):
    return name.replace("_", " ")


# %% [markdown]
# ## From one vector per image to one per joint
#
# The simplest way from a feature map to a vector is the mean over all positions, global average pooling.
# {term}`HMR` and {term}`CLIFF` do this: all joints share one vector, in which the forearm, the legs and the
# background are mixed. But the rotation of the left elbow shows mainly in the cells of the left forearm.
#
# PARE replaces the mean by a weighted mean with weights of its own for each joint. They come from a {term}`part
# segmentation`: cells where the network finds the left forearm receive a large weight for the left elbow. This is
# called {term}`soft attention`. It has no queries and keys as the attention of transformers does; the weights are
# a function of the part map alone.
#
# ## Equation 5
#
# Let $S$ be the {term}`logits <logit>` of the part decoder, averaged to the size of $F_\mathrm{up}$ and without
# the background channel, and let $\sigma$ be the {term}`softmax` over the positions of each map. With the
# positions of both flattened into one axis,
#
# $$ A = \sigma(S)\, F_\mathrm{up}^{\mathsf T} \tag{5} $$
#
# For the paper's sizes, $\sigma(S)$ is 22 × 3,136 (56 × 56 positions), $F_\mathrm{up}$ is 720 × 3,136, and $A$ is 22
# × 720 with one row $A_j$ per joint. The code stores the transpose, 720 × 22, with one column per joint. Written
# for one joint, with the attention weight $\alpha_j(p)$ of position $p$:
#
# $$
# \alpha_j(p) = \frac{\exp S_j(p)}{\sum_{p'} \exp S_j(p')}, \qquad
# A_j = \sum_p \alpha_j(p)\, F_\mathrm{up}(p), \qquad j = 1, \dots, 22 .
# $$
#
# {py:obj}`dpose.model.attention.attention_weights` computes $\sigma(S)$:

# %% tags=["remove-input"]
show_source(attention_weights)

# %% [markdown]
# {py:obj}`dpose.model.attention.SoftAttention` multiplies the weights with $F_\mathrm{up}$. Then it applies one
# more linear layer to each $A_j$, the same for all joints. Eq. 5 does not have this layer, but the released code
# does, and it is contained in the number of parameters that the paper reports. On the other pages and in `features.attended`, $A_j$ is the
# result of this layer.
#
# ## An independent computation
#
# According to the equation, each $A_j$ is a weighted mean. `numpy.average` computes weighted means, too, so it has
# to give the same result. It is applied in 64 bits, joint by joint, and followed by the linear layer with the
# matrix $W$ and the bias $c$. As the weights of a joint sum to one, the layer could as well be applied to each
# cell first: $W \sum_p \alpha(p) F(p) + c = \sum_p \alpha(p)\, (W F(p) + c)$.

# %%
weights = features.attention[0].double().flatten(1).numpy()  # (22, cells)
cells = features.f_up[0].double().flatten(1).numpy()  # (15w, cells)
layer = network.attention.conv_pose
W, c = layer.weight[..., 0].double().numpy(), layer.bias.double().numpy()

means = np.stack([np.average(cells, axis=1, weights=alpha) for alpha in weights])  # (22, 15w)
layer_last = means @ W.T + c
mapped = W @ cells + c[:, None]
layer_first = np.stack([np.average(mapped, axis=1, weights=alpha) for alpha in weights])

# %% tags=["remove-input"]
scale = np.abs(layer_last).max()
sum_error = (attention.double().sum((-2, -1)) - 1).abs().max().item()
mean_error = np.abs(features.attended[0].numpy().T - layer_last).max() / scale
order_error = np.abs(layer_first - layer_last).max() / scale
assert sum_error < 1e-5 and mean_error < 1e-5 and order_error < 1e-12
Markdown(
    f"The network's $A$, computed in 32 bits, differs from this result by at most {power_of_ten(mean_error)} of the largest value, the two orders of the linear layer by {power_of_ten(order_error)}. "
    f"Over {len(attention)} people and 22 joints the weights sum to one within {power_of_ten(sum_error)}."
)

# %% [markdown]
# ## Where each joint attends
#
# {numref}`fig-attention-all` shows the 22 weight maps for one of the rendered people of the open data. The part of a joint is the region that the
# joint moves: the part of an elbow is the forearm, that of a hip the thigh.

# %% tags=["remove-input"]
other_part = sum(part != joint for joint, part in enumerate(RELEASED_PARTS))
Markdown(
    f":::{{warning}}\nThis pairing is the one of this package. The paper does not give the order of the parts. In the released network {other_part} of {len(RELEASED_PARTS)} joints use the attention of "
    "another joint's part, because part channels and joints have different orders there (difference {diff}`33`). Each joint still attends "
    "to one fixed part, and the [regressor](regressor.ipynb) has weights of its own for each joint, which can adapt to it in training. The effect on the errors is not measured.\n:::"
)

# %% [markdown]
# The weights are a softmax of the part logits, and the part logits are supervised with true part maps during the
# whole training. In PARE the supervision of the parts ends after a first phase, and the attention may then move
# away from the parts. In D-PoSE it remains a part segmentation by supervision.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Attention weights of each joint for one crop: the crop is shown in grey, and yellow where the weights are large. Second picture: all joints together; each place has the colour of the joint with the largest weight there, relative to the maximum of that joint.", "name": "fig-attention-all"}, "image": {"alt": "Grid of small pictures of one crop: the crop, a picture of the body in the colours of its joints on black, and one grey copy per joint with a yellow spot, for most joints on the part of the body that the joint moves."}}


def all_together(weights):
    """(22, s, s) -> RGB (S, S, 3) uint8: which joint attends where."""
    relative = F.interpolate((weights / weights.amax((1, 2), keepdim=True))[None], (S, S), mode="bilinear")[0]
    strength, joint = relative.max(0)
    return (part_palette()[1:][joint.numpy()] * strength[..., None].numpy()).round().astype(np.uint8)


def limb(side, *names):
    return [f"{side}_{name}" for name in names]


ARM, LEG = ("collar", "shoulder", "elbow", "wrist"), ("hip", "knee", "ankle", "foot")
order = [
    ["crop", "all joints", *limb("left", *ARM)],
    ["head", "neck", *limb("right", *ARM)],
    ["spine3", "spine2", *limb("left", *LEG)],
    ["spine1", "pelvis", *limb("right", *LEG)],
]
drawn = {name: attention_overlay(picture, features.attention[0, j]) for j, name in enumerate(JOINTS)}
drawn |= {"crop": picture, "all joints": all_together(features.attention[0])}
titles = [[plain(name) for name in row] for row in order]
picture_grid([[drawn[name] for name in row] for row in order], titles, side=1.17)
plt.show()

# %% tags=["remove-input"]
labels = torch.arange(1, 23)[:, None, None]
touched = F.adaptive_max_pool2d((parts[:, None] == labels).float(), s) > 0  # (P, 22, s, s)
present = touched.flatten(2).any(2)  # (P, 22)
on_part = (attention * touched).sum((2, 3))
even = touched.float().mean((2, 3))
spread = torch.distributions.Categorical(attention.flatten(2)).perplexity()  # (P, 22) cells
absent = ~present
on_other_side = (attention * touched[:, MIRRORED]).sum((2, 3))  # on the same part of the other side
paired = torch.from_numpy(MIRRORED != np.arange(22)) & present & present[:, MIRRORED]
confused = paired & (on_other_side > on_part)
text = ""
if confused[person].any():
    worst = int(((on_other_side - on_part) * confused)[person].argmax())
    text = (
        f"\n\nIn {{numref}}`fig-attention-all` the map of the {plain(JOINTS[worst])} is wrong: {percent(on_part[person, worst])} of its attention lies on cells that contain its part, and "
        f"{percent(on_other_side[person, worst])} on cells that contain the {plain(JOINTS[MIRRORED[worst]])}. The logits of this part are large on the other side, too, and the softmax compares only positions, not parts. "
        f"Of the maps of arms and legs, {percent((confused.sum() / paired.sum()).item())} have more attention on the other side than on their own."
    )
Markdown(
    f"Over {len(attention)} people, {percent(on_part[present].mean())} of a joint's attention lies on cells that contain its part; evenly spread attention would have {percent(even[present].mean(), 1)} there. "
    f"The attention is spread over {spread[present].median():.0f} of {s * s:,} cells in the median (measured as the exponential of the entropy), "
    f"and the median part covers {touched.sum((2, 3))[present].float().median():.0f} cells." + text
)

# %% [markdown]
# ## What the softmax ignores
#
# The softmax over positions depends only on differences between the logits of one part. Two consequences follow.
#
# - Adding a constant to all logits of a part changes nothing, so it does not matter how probable the part is
#   compared with other parts or with the background.
# - The weights of each joint always sum to one, even if its part is hidden or outside the crop. If the logits of
#   the part differ little, the weights are spread more widely, and the joint has to be predicted from the rest of
#   the body.
#
# Logits and not probabilities are averaged and enter the softmax. Probabilities are between 0 and 1, so a softmax
# of probabilities could give one position at most $e \approx 2.7$ times the weight of another, and each $A_j$ would
# be almost the mean over all positions. Logits are not bounded.

# %% tags=["remove-input"]
changed = prediction.parts.clone()
changed[:, 0] = torch.randn_like(changed[:, 0])  # another background
changed[:, 1:] += torch.linspace(-5, 5, 22)[:, None, None]  # another constant for each part
change = (network.attention.weights(changed) - network.attention.weights(prediction.parts)).abs().max().item()
assert change < 1e-5
Markdown(
    f"With random background logits and a different constant added to each part, no weight changes by more than {power_of_ten(change)}. "
    + (
        f"Of the {22 * len(parts):,} parts of these people {int(absent.sum())} have no pixel in the true part map, because they are outside the crop or behind another part of the same body. The attention of their joints is spread over {spread[absent].median():.0f} cells in the median, "
        f"that of the others over {spread[present].median():.0f}."
        if absent.any()
        else "All parts of these people have a pixel in the true part map."
    )
)

# %% [markdown]
# ## Where a part is
#
# $A_j$ is a mean over positions. If the cells of $F_\mathrm{up}$ and the weights were shuffled together, it would not
# change. So the place of a part, which distinguishes a hanging arm from a raised one, reaches the regressor only if
# the features themselves contain it. Two properties of the encoder allow this: a wide
# [receptive field](encoder.ipynb), in which a cell depends on the parts around it, and zero padding, which makes
# cells near the border differ from others. To see the effect of padding alone, the network receives a crop of a
# single colour.

# %% tags=["remove-input"]
plain_crop = torch.zeros_like(image[one])
constant = network(plain_crop, box[one], return_features=True)[1].f_up[0].flatten(1)  # (15w, cells)
varying = (constant.var(1, correction=0).sum() / constant.square().mean(1).sum()).item()
Markdown(
    f"Without padding all cells of $F_\\mathrm{{up}}$ would be equal. In `{network.config.name}`, {percent(varying)} of the mean square of "
    "its features is variance between cells."
)

# %% [markdown]
# In `lite`, the encoder adds two channels with the coordinates of each cell for this reason; the page
# [From rendered people to photographs](photographs.ipynb) compares it with a network without them.
#
# ## A covered part
#
# What happens when a part cannot be seen? A grey patch is put over one joint of the crop.
# {numref}`fig-attention-covered` shows the attention of this joint and of four others before and after.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Attention of a joint and of other joints, without a patch (above) and with a patch over the first joint (below). Each map has a scale of its own.", "name": "fig-attention-covered"}, "image": {"alt": "Two rows of pictures of one crop with yellow spots, the second with a grey square over one joint. There the spot of the covered joint has moved along the limb; the spots of the other joints change little."}}
PATCH = S // 5  # pixels
to_crop = crop_affine(column("center"), column("scale"), S)  # (P, 2, 3)
joints2d = column("joints2d")[:, :22]
places = joints2d[..., :2] @ to_crop[..., :2].mT + to_crop[:, None, :, 2]  # (P, 22, 2) pixels of the crop


def cover(image, place):
    """The image (3, S, S) with a grey patch around the pixel (x, y)."""
    image = image.clone()
    left, top = (max(0, round(float(v) - PATCH / 2)) for v in place)
    image[:, top : top + PATCH, left : left + PATCH] = 0  # the mean colour of ImageNet
    return image


target = JOINTS.index(covered)
hidden = cover(image[person], places[person, target])
after = run(hidden[None], box[one])[1][0]
others = [
    j
    for j in map(JOINTS.index, ("left_elbow", "left_shoulder", "right_wrist", "head", "pelvis"))
    if j != target
]
columns = [target, *others[:4]]
rows = [
    [to_picture(i), *(attention_overlay(to_picture(i), weights[j]) for j in columns)]
    for i, weights in ((image[person], attention[person]), (hidden, after))
]
picture_grid(rows, ("crop", *(plain(JOINTS[j]) for j in columns)), ("not covered", "covered"), side=1.15)
plt.show()

# %% [markdown]
# The table repeats the experiment for all test people in whose crops the part of the joint is visible, and for
# three other joints. *Moved* is the share of a joint's attention that has moved to other positions: the total
# variation distance $\frac12 \sum_p |\alpha_j(p) - \alpha_j'(p)|$. The error is the mean distance of the joint
# from its true position, both relative to the pelvis.

# %% tags=["remove-input"]
body = checkpoints.body_of(network)
true = body(column("betas"), column("pose"), column("trans")).joints[:, :22]


def joint_errors(prediction, rows):
    """Distance of each joint from the truth, relative to the pelvis: (N, 22) mm."""
    joints = body(prediction.betas, prediction.rotmats).joints[:, :22]
    return 1000 * ((joints - joints[:, :1]) - (true[rows] - true[rows, :1])).norm(dim=-1)


def difference(new, old):
    """The difference of two errors as the table rounds them."""
    return round(float(new), 1) - round(float(old), 1)


table, effects = [], {}
for name in dict.fromkeys((covered, "left_elbow", "right_knee", "head")):
    j = JOINTS.index(name)
    inside = ((places[:, j] > 0) & (places[:, j] < S)).all(1)
    seen = ((parts == j + 1) & (depth > 0)).flatten(1).sum(1) >= 10  # pixels of the part map
    rows = (inside & seen).nonzero()[:, 0]
    if not len(rows):
        continue
    patched = torch.stack([cover(image[i], places[i, j]) for i in rows])
    new, moved_to = run(patched, box[rows])
    under = F.adaptive_avg_pool2d(
        (patched == 0).all(1).float()[:, None], s
    )  # share of each cell under the patch
    before, now = ((w[:, j] * under[:, 0]).sum((1, 2)).mean() for w in (attention[rows], moved_to))
    moved = 0.5 * (moved_to - attention[rows]).abs().sum((2, 3)).mean(0)  # (22,)
    free = joint_errors(Prediction(*(x[rows] for x in predicted)), rows).mean(0)
    blocked = joint_errors(new, rows).mean(0)
    rest = torch.arange(22) != j
    effects[name] = (
        moved[j],
        moved[rest].mean(),
        difference(blocked[j], free[j]),
        difference(blocked[rest].mean(), free[rest].mean()),
    )
    table.append(
        (
            plain(name),
            len(rows),
            f"{percent(before)} → {percent(now)}",
            percent(moved[j]),
            percent(moved[rest].mean()),
            f"{free[j]:.1f} → {blocked[j]:.1f}",
            f"{free[rest].mean():.1f} → {blocked[rest].mean():.1f}",
        )
    )
html_table(
    (
        "covered joint",
        "people",
        "attention under the patch",
        "moved",
        "moved, others",
        "error, mm",
        "error of others, mm",
    ),
    table,
    f"Effect of a patch of {PATCH} × {PATCH}\u00a0pixels over one joint",
)

# %% tags=["remove-input"]
name = covered if covered in effects else next(iter(effects))
own, other, error, other_error = effects[name]
Markdown(
    f"When the {plain(name)} is covered, {percent(own)} of its attention moves to other positions, and {percent(other)} of that of the other joints. Its error changes by {signed(error)}\u00a0mm, the mean error of the other joints by "
    f"{signed(other_error)}\u00a0mm. The effect is not limited to the covered joint, for two reasons: the logits of a cell depend on a large part of the crop, as "
    "the [receptive field](encoder.ipynb) shows, and the patch hides more than one part."
)

# %% [markdown]
# Attended features are one of three inputs of [the regressor](#input-of-a-joint). How much each of them contributes
# is measured on the page [What the errors depend on](analysis.ipynb); the [ablation](ablation.ipynb) has networks that were trained
# without attention.
#
# ## Takeaways
#
# - Soft attention computes one feature vector per joint, the mean of $F_\mathrm{up}$ weighted with the softmax of
#   the joint's part logits over the positions.
# - The attention is where the parts are because the part logits are supervised, and it always sums to one, even
#   for a part that is hidden or outside the crop.
# - A joint's attention is not confined to its own part: the logits of a cell depend on a large part of the crop, so a patch
#   over one joint changes the features of the others, too.
#
# ## Exercises
#
# **Exercise 1.** Replace $\sigma(S)$ by $\sigma(kS)$. What does $A_j$ become for $k = 0$, and what for a very
# large $k$? Verify it without the linear layer.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
logits = (
    F.avg_pool2d(prediction.parts, prediction.parts.shape[-1] // s)[0, 1:].flatten(1).double()
)  # (22, cells)
f_up = features.f_up[0].flatten(1).double()  # (15w, cells)


def attend(k):
    return (k * logits).softmax(-1) @ f_up.T  # (22, 15w)


assert torch.allclose(attend(1), torch.from_numpy(means), rtol=1e-4, atol=1e-6)
assert torch.allclose(attend(0), f_up.mean(1).expand(22, -1))  # global average pooling
assert torch.allclose(attend(1e9), f_up[:, logits.argmax(1)].T)  # the best cell
Markdown(
    "For $k = 0$ all weights are equal, so every $A_j$ is the mean over all positions (global average pooling). For $k \\to \\infty$ each $A_j$ is the feature of the "
    "one cell with the largest logit."
)

# %% [markdown]
# **Exercise 2.** Make the attention of the trained network uniform. How does the mean error of the joints change?
# Why does this number not measure what attention contributes to D-PoSE?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
few = torch.arange(min(60, len(image)))
network.attention.on = False
uniform, _ = run(image[few], box[few])
network.attention.on = True
with_attention = joint_errors(Prediction(*(x[few] for x in predicted)), few)[:, 1:].mean()
Markdown(
    f"The mean error over {len(few)} people grows from {with_attention:.0f}\u00a0mm to {joint_errors(uniform, few)[:, 1:].mean():.0f}\u00a0mm. The regressor was trained with attention and has never received "
    "uniform means, so most of the change may come from this mismatch. A fair comparison trains a second network without attention, as the [ablation](ablation.ipynb) does."
)

# %% [markdown]
# **Exercise 3.** Which places of the crop does the attention of a joint depend on? Move the patch over the whole
# crop and record, for each place, how much of the attention moves.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution", "figure": {"caption": "Above: where a joint attends. Below: the places at which a patch moves much of its attention. The two agree roughly; the lower maps are wider, because the logits of a cell depend on its surroundings.", "name": "fig-attention-sensitivity"}, "image": {"alt": "Two rows of grey pictures of one crop, a column per joint. Above, small yellow spots on single parts of the body; below, wide yellow areas around the same parts."}}
grid = (torch.arange(steps) + 0.5) * S / steps
variants = torch.stack([cover(image[person], (x, y)) for y in grid for x in grid])
moved = 0.5 * (run(variants, box[person].expand(len(variants), -1))[1] - attention[person]).abs().sum((2, 3))
moved = moved.T.view(22, steps, steps)
names = ("head", "left_wrist", "right_wrist", "pelvis", "left_knee", "right_ankle")
chosen = [JOINTS.index(name) for name in names]
rows = [[attention_overlay(picture, maps[j]) for j in chosen] for maps in (attention[person], moved)]
picture_grid(rows, [plain(name) for name in names], ("attention", "depends on"), side=1.12)
plt.show()
