# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The network, taken apart
#
# One image of one person goes through the network of the paper {cite:p}`dpose`, and we stop after every
# part of it: what comes out, in which shape, and what it is for. The weights are random here, because
# shapes, wiring and parameter counts do not depend on them; where only a trained network is worth looking
# at, the trained `MINI` steps in, which is wired the same way.
#
# In short: an encoder turns the crop into features at four resolutions. Two decoders of the same design
# turn these into a depth map and a map of body parts. The parts say where the features of each joint are
# collected, and a regressor turns the collected features, a summary of the depth branch, and the position
# of the crop in the image into a body.

# %% tags=["parameters"]
preset = "paper"  # the network to take apart: paper, paper-no-depth, mini, mini-no-depth
checkpoint = "mini"  # a trained network, for the maps that mean nothing at random
data = None  # data root; None: $DPOSE_DATA, else the open data
sample = 0  # which test person
seed = 0

# %% tags=["hide-input"]
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display
from torch.utils.flop_counter import FlopCounterMode

import dpose
from dpose.camera import bbox_info, full_translation
from dpose.data.loader import make_loader
from dpose.figures import (
    attention_overlay,
    colour_depth,
    colour_parts,
    colour_values,
    html_table,
    network_diagram,
    picture_grid,
    prediction_pictures,
    to_picture,
)
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import to_device
from dpose.results import read_json
from dpose.skeleton import JOINT_NAMES

torch.manual_seed(seed)
config = dpose.preset(preset)
network = dpose.DPose(config).eval()


def one_person(config):
    """The chosen test person, as a Batch of one, cut for a network of this configuration."""
    for index, batch in enumerate(make_loader(data, "test", config, batch_size=1)):
        batch = to_device(batch, "cpu")
        if index == sample:
            return batch
    raise ValueError(f"the test split has no sample {sample}")


# the trained network and the same person, for the pictures
trained = dpose.load(checkpoint).eval()
small = one_person(trained.config)
small_box = bbox_info(small["center"], small["scale"], small["cam_int"])
with torch.inference_mode():
    shown, inside = trained(small["image"], small_box, return_features=True)

# %% [markdown]
# ## The whole network
#
# Figure 2 of the paper, drawn from the network itself: its modules are the boxes, and a forward pass on
# tensors without memory records which of them uses which tensors of which other, and their shapes. The depth
# map has no line to the regressor: all that the regressor receives from the depth branch is the mean of $D$.
# Each box is a link to the page on this component.

# %% tags=["hide-input", "remove-output"]
body = checkpoints.body_of(trained)
with torch.inference_mode():
    picture, _, parts, _, depth, mesh = prediction_pictures(shown, small, body, 0)
pictures = {"image": picture, "parts_decoder": parts, "depth_decoder": depth, "body": mesh}
diagram = network_diagram(network, body, pictures)
display(diagram, metadata={"scrapbook": {"name": "fig-network", "mime_prefix": ""}})  # for the caption below

# %% [markdown]
# ```{glue:figure} fig-network
# :name: fig-network
#
# The paper's Figure 2 for the network of this page: components with their numbers of parameters, and the
# shapes of the tensors that pass between them, channels first. The pictures are predictions of the small
# trained network for a test person.
# ```
#
# ## What goes in
#
# The network never sees the whole photograph. It sees a square crop around one person, and three numbers
# that say where this crop was taken. With a box of side $b$ pixels centred at $(c_x, c_y)$ in an image of
# $W \times H$ pixels and focal length $f$ (also in pixels), these are
#
# $$
# \mathbf{q} = \left( \frac{c_x - W/2}{f},\; \frac{c_y - H/2}{f},\; \frac{b}{f} \right),
# $$
#
# the direction of the person and the angle that the box covers. They matter because a person near the edge
# of a wide image is seen from the side: cut out, the same body in the same pose looks turned ([by how
# much](camera.ipynb)). CLIFF {cite:p}`cliff` introduced them; without them the global orientation cannot be
# right everywhere.

# %%
batch = one_person(config)
image = batch["image"]  # (1, 3, N, N), ImageNet-normalised
box = bbox_info(batch["center"], batch["scale"], batch["cam_int"])  # (1, 3)

network.train()  # batch norm by this image's own statistics: it has none to remember yet
start = time.perf_counter()
with torch.no_grad():
    prediction, features = network(image, box, return_features=True)
seconds = time.perf_counter() - start
network.eval()

numbers = ", ".join(f"{value:+.3f}" for value in box[0])
width, height = batch["img_size"][0].int().tolist()
Markdown(
    f"The crop has {image.shape[-1]} × {image.shape[-1]} pixels, cut from an image of {width} × {height}; "
    f"$\\mathbf{{q}}$ = ({numbers}). "
    f"The forward pass took {seconds:.1f} s on {torch.get_num_threads()} CPU thread(s)."
)

# %% [markdown]
# ## Encoder: four resolutions side by side
#
# The encoder is an HRNet {cite:p}`hrnet`. Most networks squeeze an image down to a small map and lose on
# the way where things were; HRNet keeps a fine map alive from beginning to end and adds coarser ones beside
# it, which see more of the image at once. After every module each resolution receives the sum of all of
# them. What leaves the encoder are four maps: $F_1$ at a quarter of the image's side with $w$ channels (48
# for the paper), then half the side and twice the channels each, up to $F_4$. For the attention below they
# are also brought to the finest size and stacked:
#
# $$
# F_\mathrm{up} = \bigl[\, F_1,\; \mathrm{up}_1(F_2),\; \mathrm{up}_2(F_3),\; \mathrm{up}_3(F_4) \,\bigr],
# $$
#
# where $\mathrm{up}_k$ doubles a map $k$ times, each time followed by a 3 × 3 convolution, batch
# normalisation and a ReLU. That makes $w + 2w + 4w + 8w = 15w$ channels, 720 for the paper. What each of the
# maps sees is on [its own page](encoder.ipynb).


# %% tags=["hide-input"]
def shape(tensor):
    return " × ".join(map(str, tensor.shape[1:]))


w, n, m = config.width, config.image_size // 4, config.map_size
rows = [("image", "3 × N × N", shape(image), "the crop")]
rows += [
    (name, f"{k}w × n/{k} × n/{k}" if k > 1 else "w × n × n", shape(tensor), "encoder features")
    for name, k, tensor in (
        ("F₁", 1, features.f1),
        ("F₂", 2, features.f2),
        ("F₃", 4, features.f3),
        ("F₄", 8, features.f4),
    )
]
rows += [("F_up", "15w × n × n", shape(features.f_up), "all four, at the finest size")]
if config.depth:
    rows += [("D", "w × n × n", shape(features.depth_features), "features of the depth decoder")]
    rows += [
        ("depth", "1 × M × M", shape(prediction.depth), "near to far on the person; the rest is left free")
    ]
rows += [
    ("S", "23 × M × M", shape(prediction.parts), "scores of the background and 22 parts"),
    ("attention", "22 × n × n", shape(features.attention), "where each joint's features are read"),
    ("A", "15w × 22", shape(features.attended), "one feature a joint"),
    ("rotations", "22 × 3 × 3", shape(prediction.rotmats), "pose, root first"),
    ("betas", "11", shape(prediction.betas), "shape coefficients"),
    ("camera", "3", shape(prediction.cam), "weak perspective (s, tx, ty)"),
]
html_table(
    ("", "in general", f"{config.name.upper()}, measured", "what it is"),
    rows,
    "Every tensor of one forward pass, without the batch dimension: "
    f"N = {config.image_size}, n = N/4 = {n}, w = {w}, M = {m}",
    align="lrrl",
)

# %% [markdown]
# How large the features are at each place, averaged over channels: with random weights, and in the trained
# `MINI`.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean magnitude of the features over the channels, each map scaled by itself: dark blue is the smallest value, yellow the largest.", "name": "fig-features"}}
def energy(tensor):
    """Mean magnitude over the channels: (1, C, H, W) -> RGB (H, W, 3) uint8."""
    return colour_values(tensor[0].abs().mean(0))


figure = picture_grid(
    [
        [to_picture(image[0]), *(energy(f) for f in (features.f1, features.f2, features.f3, features.f4))],
        [picture, *(energy(f) for f in (inside.f1, inside.f2, inside.f3, inside.f4))],
    ],
    titles=["image", "F₁", "F₂", "F₃", "F₄"],
    labels=[f"{config.name.upper()}, random", f"{trained.config.name.upper()}, trained"],
)
plt.show()

# %% [markdown]
# ## Two decoders of one design
#
# Depth and parts need the opposite of what the encoder's coarse maps offer: an answer for every pixel. Each
# has a decoder of its own, with the same layers and different weights. Starting from $F_4$ it climbs in
# three steps to the size of $F_1$. With $X_4 = F_4$, one step from level $i+1$ to level $i$ is
#
# $$
# U_i = \mathrm{up}\bigl(\mathrm{ReLU}(\mathrm{BN}(\mathrm{Conv}_{1\times1}(X_{i+1})))\bigr), \qquad
# C_i = [\, U_i,\; F_i \,], \qquad
# X_i = R_i(C_i).
# $$
#
# First (eq. 7) a 1 × 1 convolution reduces the channels and the map doubles its side; then (eq. 8) the
# encoder's map of that size is laid beside it, so that fine structure can pass by the coarse levels; then
# (eq. 9) four residual blocks $R_i$ mix the two and halve the channels.
#
# The last one, $X_1$, is called $D$ in the depth decoder. A few more convolutions and, for depth, a sigmoid
# turn it into the map (eq. 10). The paper's text counts the maps from the coarsest, its equations from the
# finest, as here; and they end at 56 pixels, where the output here has the 224 of the code that its authors
# released.
#
# *Depth* is trained to run from 0.1 at the nearest to 1 at the farthest pixel of the person in sight; what it says on
# the background is left free. *Parts* is a choice among 23 classes at every pixel. Both are compared with rendered
# truth during the whole training; once trained, the network needs nothing but the image. There is
# more about them on [a page of their own](decoders.ipynb).

# %% [markdown]
# ## Soft attention: where each joint looks
#
# The part map does more than please the eye. For joint $j$ its scores $S_j$ (without the background) become
# weights over the positions $p$ of the fine map, and the joint's feature is the weighted mean of
# $F_\mathrm{up}$:
#
# $$
# \alpha_j(p) = \frac{\exp S_j(p)}{\sum_{p'} \exp S_j(p')}, \qquad A_j = \sum_p \alpha_j(p)\,
# F_\mathrm{up}(p) \qquad \text{(eq. 5)}. $$
#
# The weights of each joint sum to one over the *positions*, not over the parts. So every joint gets a feature of the
# same size, whether its part covers a hundred cells or one. A joint whose part lies outside the crop gives away its
# full share of attention all the same; if no cell stands out, its feature is an average over much of the image, and
# the joint has to be guessed from the rest. How widely a joint looks, and what moves it, is measured on [a page of
# its own](attention.ipynb). The released code multiplies $A$ by one more $720 \times 720$ matrix, which eq. 5 does not have; the
# parameter count says that the paper's network had it, so it is here.
#
# With random weights every position counts about as much as any other. So here is the trained `MINI` on the same
# person:


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Eight of the 22 attention maps of the trained network: the features of a joint are collected where the image glows.", "name": "fig-attention"}}
names = (
    "head",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "pelvis",
    "left_knee",
    "right_knee",
    "right_ankle",
)
lit = [attention_overlay(picture, inside.attention[0, JOINT_NAMES.index(name)]) for name in names]
titles = [name.replace("_", " ") for name in names]
picture_grid([lit[:4], lit[4:]], [titles[:4], titles[4:]], side=2.2)
plt.show()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Predicted and true maps of the same person. Parts: one colour for each of the 22 parts. Depth: yellow is near, blue is far. The true parts show the whole body, the true depth only what is in sight.", "name": "fig-maps"}}
said, true = shown.parts[0].argmax(0).numpy(), small["parts"][0].numpy()
rows = [[picture, colour_parts(said), colour_parts(true)]]
titles = ["image", "parts, predicted", "parts, true"]
if shown.depth is not None:
    rows[0] += [colour_depth(shown.depth[0, 0].numpy(), said > 0), colour_depth(small["depth"][0, 0].numpy())]
    titles += ["depth, predicted", "depth, true"]
figure = picture_grid(rows, titles=titles)
plt.show()

# %% [markdown]
# ## Regressor: means plus corrections
#
# Every joint now has a feature vector: its own attended $A_j$, the box information $\mathbf{q}$, and $\bar
# D$, the average of the depth decoder's features over all positions. It is worth a second look that this
# average is *all* that the regressor ever learns from the depth branch directly. The depth map itself goes
# nowhere; it works through training, by forcing the shared encoder to know about depth.
#
# $$
# g_j = [\, A_j,\; \mathbf{q},\; \bar D \,], \qquad
# \theta_j = \theta_j^0 + W_j''\, \mathrm{ReLU}\bigl( W_j' [\, \theta_j^0,\, g_j \,] + c_j' \bigr) + c_j''
# $$
#
# Each of the 22 joints has matrices $W_j', W_j''$ of its own, all applied at once as one batched product, a
# construction taken from ReFit {cite:p}`refit`. Shape and camera come from two small networks of the same
# kind that read the features of all joints, one after the other, in one long vector. The means $\theta^0,
# \beta^0, \pi^0$ are part of the checkpoint, so an untrained network answers with an average person.
#
# A joint's rotation is predicted as six numbers, because these have no jumps, unlike angles or quaternions
# {cite:p}`sixd`. They are read as two columns $a_1, a_2$ and straightened into a rotation matrix:
#
# $$
# b_1 = \frac{a_1}{\lVert a_1 \rVert}, \qquad b_2 = \frac{a_2 - (b_1^\top a_2)\, b_1}{\lVert a_2 - (b_1^\top
# a_2)\, b_1 \rVert}, \qquad b_3 = b_1 \times b_2 . $$

# %%
rotations = prediction.rotmats[0]  # (22, 3, 3)
orthogonal = (rotations @ rotations.mT - torch.eye(3)).abs().max().item()
determinant = torch.linalg.det(rotations)
numbers = 15 * w + 3 + (w if config.depth else 0)
terms = f"15 · {w} + 3" + (f" + {w}" if config.depth else "")
Markdown(
    f"Feature of a joint: {terms} = {numbers} numbers. "
    f"Largest entry of $RR^\\top - I$ over the 22 rotations: {orthogonal:.0e}; "
    f"determinants between {determinant.min():.6f} and {determinant.max():.6f}."
)

# %% [markdown]
# ## From the crop's camera to the real one
#
# The camera output $(s, t_x, t_y)$ describes the crop as if seen from very far away: a scale and a shift.
# To put the body into the real scene it is turned into a translation for the camera of the full image
# {cite:p}`cliff`,
#
# $$
# \mathbf{t} = \left( t_x + \frac{2\,(c_x - W/2)}{s\, b},\; t_y + \frac{2\,(c_y - H/2)}{s\, b},\; \frac{2
# f}{s\, b} \right), $$
#
# after which joints are projected with the ordinary pinhole model (eq. 6). The last entry is the distance:
# a body that fills a box of $b$ pixels, at scale $s$, must be $2f/(sb)$ metres away.

# %%
where = full_translation(shown.cam, small["center"], small["scale"], small["cam_int"])
said, true = (", ".join(f"{value:.2f}" for value in t[0]) for t in (where, small["trans"]))
Markdown(
    f"The trained {trained.config.name.upper()} puts the origin of this person's body at ({said}) m; "
    f"in truth it is at ({true}) m."
)

# %% [markdown]
# ## Every parameter counted
#
# The paper gives one number, 81.2 million. The rebuilt network has to arrive at it module by module; the
# middle column holds the counts of the authors' released network.

# %% tags=["hide-input"]
RELEASED = {  # trainable parameters of the released network
    "encoder": 70_057_368,
    "depth decoder": 4_182_049,
    "part-segmentation decoder": 4_183_127,
    "soft attention": 1_038_240,
    "regressor": 1_638_610,
    "total": 81_099_394,
}
RELEASED_WITH_BUFFERS = 81_201_293

torch.manual_seed(seed)
paper = network if config.name == "paper" else dpose.DPose(dpose.preset("paper"))
table = dpose.parameter_table(paper)
rows = [
    (
        row.module,
        f"{row.parameters:,}",
        f"{RELEASED[row.module]:,}",
        "equal" if row.parameters == RELEASED[row.module] else "DIFFERENT",
        f"{row.buffers:,}",
    )
    for row in table
]
total = table[-1].parameters + table[-1].buffers
rows.append(
    (
        "with buffers",
        f"{total:,}",
        f"{RELEASED_WITH_BUFFERS:,}",
        "equal" if total == RELEASED_WITH_BUFFERS else "DIFFERENT",
        "",
    )
)
assert total == RELEASED_WITH_BUFFERS and all(row.parameters == RELEASED[row.module] for row in table)
html_table(
    ("module", "counted here", "released network", "", "buffers, counted"),
    rows,
    f"Trainable parameters of PAPER. With buffers: {total / 1e6:.1f} million; the paper says 81.2 million.",
    ours=[len(rows) - 2],
)

# %% [markdown]
# Two details of the released network hide in these numbers: the encoder carries a 1 × 1 convolution of its
# former life as a keypoint detector, which nothing reads, and the attention has a second 720 × 720 matrix,
# meant for shape and camera, which is never reached.
#
# ### The sizes compared
#
# The network without depth, the paper's ablation, loses the depth decoder, and with it the $\bar D$ in the
# features: its regressor is a little smaller too.

# %% tags=["hide-input"]
rows = []
for name in dpose.PRESETS:
    candidate = network if name == config.name else dpose.DPose(dpose.preset(name)).eval()
    size = candidate.config.image_size
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        candidate(torch.zeros(1, 3, size, size), torch.zeros(1, 3))
    flops = counter.get_flop_counts()
    parts = [
        sum(flops.get(f"DPose.{part}", {}).values())
        for part in ("encoder", "depth_decoder", "parts_decoder", "attention", "regressor")
    ]
    shares = " / ".join(f"{100 * part / sum(parts):.0f}" for part in parts)
    parameters = sum(p.numel() for p in candidate.parameters())
    rows.append((name.upper(), f"{size}", f"{parameters / 1e6:.2f} M", f"{sum(parts) / 2e9:.2f} G", shares))
html_table(
    ("network", "input", "parameters", "multiply-adds", "encoder / depth / parts / attention / regressor, %"),
    rows,
    "Size and work of one forward pass with one image, counted",
)

# %% [markdown]
# Almost nothing of the work is attention or regression: the maps cost the time. What the depth decoder
# buys is the subject of the [ablation](ablation.ipynb).
#
# Once trained, the same work can be done quicker. In `dpose.FastDPose` the batch norms are folded into the
# convolutions before them, and the maps run in 16 bits where the hardware computes in them:

# %% tags=["hide-input"]
path = Path(dpose.__file__).parents[1] / "results" / "inference.json"
measured = read_json(path) if path.exists() else None
if measured:
    table = html_table(
        ("", "images/s", "times as fast"),
        [
            (name, f"{row['images_per_second']:.1f}", f"{row['times_as_fast']:.2f}")
            for name, row in measured["variants"].items()
        ],
        f"{measured['preset'].upper()} in batches of {measured['batch_size']} on {measured['hardware']['cores']} cores "
        f"({measured['hardware']['cpu']}), median of several rounds. On {measured['mini']['fast']['samples']:,} test people "
        f"MINI's MPJPE changes by {measured['mini']['change']['mpjpe']:+.3f} mm",
    )
else:
    table = Markdown("*Nothing measured yet: `python benchmarks/inference.py --out results/inference.json`.*")
table
