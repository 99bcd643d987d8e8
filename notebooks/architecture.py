# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The network at a glance
#
# This page shows the whole network in one diagram. It then states, for each module, what the module computes,
# what it receives and what it returns. The chapters that follow explain one module each.
#
# :::{chapter}
# :needs: [D-PoSE, taken apart](../book/intro.md), convolutions
# :learn: which modules the network has and what each of them does; the shape of every tensor between them; how many parameters each module has; where paper, released code and this book use different sizes and symbols
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
preset = "paper"  # the network to show: paper, paper-no-depth, lite, mini, ...
checkpoint = "lite"  # a trained network, for the pictures: a shipped one, or a file
data = None  # data root; None: $DPOSE_DATA, else the open data
sample = 0  # which test person
seed = 0

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

from dataclasses import fields

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

import dpose
from dpose.camera import bbox_info, full_translation
from dpose.data.loader import make_loader
from dpose.figures import (
    attention_overlay,
    colour_values,
    html_table,
    network_diagram,
    picture_grid,
    prediction_pictures,
)
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import to_device
from dpose.skeleton import JOINT_NAMES

torch.manual_seed(seed)
torch.set_grad_enabled(False)
networks = {name: dpose.DPose(dpose.preset(name)).eval() for name in dict.fromkeys((preset, "lite", "mini"))}
network = networks[preset]

trained = dpose.load(checkpoint).eval()
body = checkpoints.body_of(trained)
loader = make_loader(data, "test", trained.config, batch_size=1)
batch = next((batch for index, batch in enumerate(loader) if index == sample), None)
if batch is None:
    raise ValueError(f"the test split has no sample {sample}")
batch = to_device(batch, "cpu")


def shape(tensor):
    """The shape without the batch dimension, as text."""
    return "–" if tensor is None else " × ".join(map(str, tensor.shape[1:]))


def known_as(name):
    """The name of a network in the text: `PAPER` for the paper's, the preset's name for others."""
    return "PAPER" if name == "paper" else name


# %% [markdown]
# ## From an image to a body
#
# {numref}`fig-network` is the counterpart of the paper's Figure 2 {cite:p}`dpose`. It is drawn from the network
# itself: the boxes are its modules, and the lines are the tensors that one forward pass hands from module to
# module, with their shapes (channels first). Each box is a link to the page about it.

# %% tags=["hide-input", "remove-output"]
prediction = trained(batch["image"], bbox_info(batch["center"], batch["scale"], batch["cam_int"]))
picture, _, parts, _, depth, mesh = prediction_pictures(prediction, batch, body, 0)
pictures = {"image": picture, "parts_decoder": parts, "depth_decoder": depth, "body": mesh}
diagram = network_diagram(network, body, pictures)
display(diagram, metadata={"scrapbook": {"name": "fig-network", "mime_prefix": ""}})  # for the caption below

# %% [markdown]
# ```{glue:figure} fig-network
# :name: fig-network
#
# The modules of the network with their numbers of parameters, and the tensors that pass between them. *box, f*: centre
# and side of the box, focal length; *t*: the translation of the body. The body model is the open one. The pictures are the input and the outputs of a small trained network for one test person.
# ```
#
# Read the diagram from top to bottom. The encoder turns an image crop of one person into feature maps. Two
# decoders turn these into a {term}`depth map` and a {term}`part segmentation`. Soft attention uses the parts to
# collect features for each joint. The regressor turns them into joint rotations, shape and camera. The body
# model and the camera, which have no trainable weights, place a mesh in front of the camera.
#
# Two connections are easy to miss:
#
# - The part logits $S$ have two uses. They are an output that is compared with the true parts, and they decide
#   where the features of each joint are read.
# - The depth map is only an output. What the regressor receives from the depth decoder is the mean of its
#   features $D$ over all positions ([The regressor](#input-of-a-joint)).
#
# In code, with a trained network, a batch of crops and a body model:

# %%
where = batch["center"], batch["scale"], batch["cam_int"]
box = bbox_info(*where)
prediction, features = trained(batch["image"], box, return_features=True)
translation = full_translation(prediction.cam, *where)
vertices, joints = body(prediction.betas, prediction.rotmats, translation)

# %% [markdown]
# ## The modules
#
# Sizes are given for a crop of $N \times N$ pixels and an encoder of width $w$, and in brackets for the paper's
# network, where $N = 224$ and $w = 48$. The finest feature maps have $n \times n$ cells, $n = N/4$ (56), and the
# output maps $M \times M$ pixels (224).
#
# ### Input: crop and box information
#
# The network processes one person at a time. A {term}`bounding box` around the person is cut out of the image and
# resized to the crop $I$. Cropping discards where in the image the person was, and that matters: the camera views a
# person at the margin of an image at an angle, so the same crop shows a differently oriented body. Three numbers $\mathbf q$, the box information of CLIFF {cite:p}`cliff`,
# restore it. They are the offset of the box from the {term}`principal point` and the side of the box, each divided
# by the {term}`focal length`.
#
# *Output*: $I$, 3 × $N$ × $N$; $\mathbf q$, 3. *Chapter*: [Bounding box and camera](camera.ipynb).
#
# ### Encoder
#
# The encoder computes the features that all other modules use. In the paper it is HRNet-W48 {cite:p}`hrnet`, a
# convolutional network that keeps a branch of high resolution from beginning to end and runs coarser branches
# beside it. The fine maps locate things precisely; the coarse maps have a larger {term}`receptive field`. It returns
# four maps, from $F_1$ (fine, few channels) to $F_4$ (coarse, many channels), and $F_\mathrm{up}$, all four brought to
# the size of $F_1$ by up-sampling and convolutions, and concatenated. The decoders use $F_1$ to $F_4$, the attention uses $F_\mathrm{up}$.
#
# *Input*: $I$. *Output*: $F_1$, $w$ × $n$ × $n$ (48 × 56 × 56), then half the side and twice the channels per level
# up to $F_4$, $8w$ × $n/8$ × $n/8$ (384 × 7 × 7); $F_\mathrm{up}$, $15w$ × $n$ × $n$ (720 × 56 × 56). *Chapter*:
# [The encoder: features at four resolutions](encoder.ipynb).
#
# ### Depth decoder
#
# The depth decoder predicts, for each pixel, the relative distance of the visible surface of the person: the target
# is 0.1 at the nearest visible point and 1 at the farthest. It is a light {term}`U-Net` {cite:p}`unet`: from the coarsest map it
# doubles the resolution three times. Each time it concatenates the encoder's map of that size, which a {term}`skip
# connection` supplies, and mixes both by convolutions. The last of these maps are the features $D$. Two more
# convolutions and a sigmoid give the depth map $\hat d$. Depth is a training target and never an input: the network
# needs an RGB image and the box information only.
#
# *Input*: $F_1$ to $F_4$. *Output*: $D$, $w$ × $n$ × $n$ (48 × 56 × 56); $\hat d$, 1 × $M$ × $M$ (1 × 224 × 224).
# *Chapter*: [The decoders: depth map and body parts](decoders.ipynb).
#
# ### Part decoder
#
# The part decoder has the same layers with weights of its own. It predicts 23 logits $S$ per pixel: one for the
# background and one for each of 22 body parts. Each part belongs to the joint that moves it: the part of the elbow
# is the forearm.
#
# *Input*: $F_1$ to $F_4$. *Output*: $S$, 23 × $M$ × $M$ (23 × 224 × 224). *Chapter*: [The decoders: depth map and body parts](decoders.ipynb).
#
# ### Soft attention
#
# {term}`Soft attention <soft attention>` collects one feature vector per joint. A softmax over the positions turns the
# logits of part $j$ into weights $\alpha_j$ that sum to one, and $A_j$ is the mean of $F_\mathrm{up}$ with these
# weights, after one linear layer on its channels. So the features of the left elbow come mostly from the pixels of the left forearm, instead of from the
# whole crop. The idea is PARE's {cite:p}`pare`.
#
# *Input*: $S$ and $F_\mathrm{up}$. *Output*: $A$, one vector of $15w$ numbers for each of 22 joints (22 × 720). The code
# stores it transposed, so {numref}`fig-network` and the table of shapes below have 720 × 22.
# *Chapter*: [Soft attention: features for each joint](attention.ipynb).
#
# ### Regressor
#
# The regressor predicts the parameters of the body. Joint $j$ has the input $g_j$: its attended features $A_j$, the
# box information $\mathbf q$, and the mean of $D$ over all positions. Each joint has two linear layers of its own, which predict
# a rotation as six numbers ({term}`6D rotation`). Shape and camera are predicted from the inputs of all joints
# together. All outputs are corrections that are added to mean values, in a single step.
#
# *Input*: $A$, $\mathbf q$, mean of $D$. *Output*: rotations $R_j$, 22 × 3 × 3; {term}`shape coefficients` $\beta$, 11;
# {term}`weak-perspective <weak perspective>` camera $(s, t_x, t_y)$, 3. *Chapter*: [The regressor](regressor.ipynb).
#
# ### Body model and camera
#
# The body model, SMPL-X {cite:p}`smplx` or the open body of this package, turns rotations and shape coefficients
# into the vertices of a mesh and 55 joints. The camera formula turns $(s, t_x, t_y)$, the box and the focal length
# into the translation $\mathbf t$ of the body in the camera frame of the full image, so that the mesh can be
# projected into it.
#
# *Input*: $R_j$, $\beta$; $(s, t_x, t_y)$, box and focal length. *Output*: vertices, $n_V$ × 3; joints, 55 × 3; $\mathbf t$, 3, all in metres.
# *Chapters*: [The body model](body_model.ipynb), [Bounding box and camera](camera.ipynb).
#
# In training, a [loss](losses.ipynb) compares both maps, rotations, shape, joints, vertices and projected joints with
# ground truth, and all modules are trained [together](train.ipynb).
#
# ## One person in the trained network
#
# {numref}`fig-stations` shows the tensors above for one test person.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Intermediate results of a trained network for one test person. F₁ and F₄: mean magnitude over the channels, yellow is large. Attention: yellow where the features of the joint are read. Depth: yellow is near, blue is far. Body: the predicted mesh over the image.", "name": "fig-stations"}, "image": {"alt": "Two rows of four pictures of one person: the crop, a fine and a coarse map of square cells, coloured body parts; then two grey crops with a yellow spot on the head and on the left forearm, the depth of the person, and a pale mesh over the crop."}}


def attention_of(joint):
    return attention_overlay(picture, features.attention[0, JOINT_NAMES.index(joint)])


levels = {f"F{index}": getattr(features, f"f{number}") for index, number in (("₁", 1), ("₄", 4))}
energy = {name: colour_values(maps[0].abs().mean(0)) for name, maps in levels.items()}
rows = [
    {"image": picture, **energy, "parts": parts},
    {
        "attention, head": attention_of("head"),
        "attention, left elbow": attention_of("left_elbow"),
        "depth": depth,
        "body": mesh,
    },
]
picture_grid([list(row.values()) for row in rows], [list(row) for row in rows], side=1.7)
plt.show()

# %% [markdown]
# ## Three sizes of one design
#
# The book uses three networks with the same modules:
#
# - `PAPER` is the network of the paper. Training it takes BEDLAM {cite:p}`bedlam`, a large GPU and, as the paper reports,
#   three days. Weights of this size are not part of the repository.
# - `lite` is the shipped network. Its encoder is MoveNet {cite:p}`movenet`, a small network that has learned 2D keypoints
#   in photographs. It is trained further on the open synthetic people.
# - `mini` is a small HRNet trained on synthetic people only. It shows what the paper's encoder does at a size that two
#   processor cores can train.

# %% tags=["remove-input"]
SETTINGS = {  # fields of the configuration, and what they are
    "encoder": "encoder",
    "image_size": "side N of the crop, pixels",
    "map_size": "side M of the output maps",
    "width": "channels w of F₁",
    "stem_width": "HRNet: channels of the first two convolutions",
    "bottlenecks": "HRNet: bottleneck blocks of stage 1",
    "modules": "HRNet: modules of stages 2, 3, 4",
    "blocks": "HRNet: residual blocks per branch and module",
    "decoder_blocks": "residual blocks per step of a decoder",
    "hidden": "hidden units of each head of the regressor",
}
NAMES = {"hrnet": "HRNet", "movenet": "MoveNet", "nanodet": "NanoDet"}
HRNET_ONLY = ("stem_width", "bottlenecks", "modules", "blocks")
assert SETTINGS.keys() <= {field.name for field in fields(dpose.ModelConfig)}


def setting(config, name):
    """A field of a configuration, as text."""
    value = getattr(config, name)
    if name in HRNET_ONLY and config.encoder != "hrnet":
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else NAMES.get(value, str(value))


html_table(
    ("setting", "field of ModelConfig", *map(known_as, networks)),
    [
        (about, name, *(setting(network.config, name) for network in networks.values()))
        for name, about in SETTINGS.items()
    ],
    "Configurations of the networks",
    align="ll",
)

# %% tags=["remove-input"]
TENSORS = (  # symbol and meaning; shape; how to get it
    ("I, image crop", "3 × N × N", lambda image, out, inside: image),
    ("F₁, encoder", "w × n × n", lambda image, out, inside: inside.f1),
    ("F₂, encoder", "2w × n/2 × n/2", lambda image, out, inside: inside.f2),
    ("F₃, encoder", "4w × n/4 × n/4", lambda image, out, inside: inside.f3),
    ("F₄, encoder", "8w × n/8 × n/8", lambda image, out, inside: inside.f4),
    ("F_up, all four", "15w × n × n", lambda image, out, inside: inside.f_up),
    ("D, depth features", "w × n × n", lambda image, out, inside: inside.depth_features),
    ("depth map", "1 × M × M", lambda image, out, inside: out.depth),
    ("S, part logits", "23 × M × M", lambda image, out, inside: out.parts),
    ("α, attention", "22 × n × n", lambda image, out, inside: inside.attention),
    ("A, attended features", "15w × 22", lambda image, out, inside: inside.attended),
    ("R, rotations", "22 × 3 × 3", lambda image, out, inside: out.rotmats),
    ("β, shape", "11", lambda image, out, inside: out.betas),
    ("s, tx, ty: camera", "3", lambda image, out, inside: out.cam),
)
passes = {}
for name, candidate in networks.items():
    image = torch.zeros(1, 3, candidate.config.image_size, candidate.config.image_size)
    passes[name] = image, *candidate(image, torch.zeros(1, 3), return_features=True)
shapes = {}  # networks with the same shapes share a column
for name in networks:
    column = tuple(shape(get(*passes[name])) for _, _, get in TENSORS)
    shapes.setdefault(column, []).append(known_as(name))
html_table(
    ("tensor", "in general", *(", ".join(names) for names in shapes.values())),
    [(label, general, *cells) for (label, general, _), *cells in zip(TENSORS, *shapes, strict=True)],
    "Shapes of all tensors of a forward pass, read from the tensors themselves, without the batch dimension",
    align="ll",
)

# %% [markdown]
# ## Parameters
#
# The paper gives the size of its network as 81.2 million parameters (quoted, its Table 2). The released code
# {cite:p}`dposecode` comes with a checkpoint of that size, to which the counts are compared here. A checkpoint also
# has buffers, which are not trained: the statistics of the {term}`batch normalisation` and the mean parameters.

# %% tags=["remove-input"]
RELEASED = {  # trainable parameters of the authors' released checkpoint
    "encoder": 70_057_368,
    "depth decoder": 4_182_049,
    "part decoder": 4_183_127,
    "soft attention": 1_038_240,
    "regressor": 1_638_610,
    "total": 81_099_394,
}
RELEASED_WITH_BUFFERS = 81_201_293
counts = {name: dpose.parameter_table(candidate) for name, candidate in networks.items()}
by_module = {name: {row.module: row.parameters for row in table} for name, table in counts.items()}
order = list(next(iter(by_module.values())))


def share(name, module):
    """Parameters of a module, and their share of the network, as text."""
    own, total = by_module[name].get(module, 0), by_module[name]["total"]
    return f"{own:,}" if module == "total" else f"{own:,} ({own / total:.0%})".replace("%", "\u00a0%")


display(
    html_table(
        ("module", *map(known_as, networks)),
        [(module, *(share(name, module) for name in networks)) for module in order],
        "Weights and biases, counted",
        align="l",
    )
)
if preset == "paper":
    assert by_module["paper"] == RELEASED
    total = counts["paper"][-1].parameters + counts["paper"][-1].buffers
    assert total == RELEASED_WITH_BUFFERS
    unused = sum(p.numel() for p in network.encoder.final_layer.parameters())
    unused += sum(p.numel() for p in network.attention.conv_shape_cam.parameters())
    display(
        Markdown(
            f"Every count of `PAPER` equals that of the released checkpoint. With buffers the network has {total:,} "
            f"numbers, {total / 1e6:.1f} million as in the paper. Two layers with {unused:,} parameters are part of the checkpoint "
            f"and never used: the keypoint layer of HRNet, and a second {15 * network.config.width} × "
            f"{15 * network.config.width} matrix of the attention."
        )
    )

# %% [markdown]
# Networks of other methods are compared with these on the page of [tables](tables.ipynb); measured times are on the
# page about [performance](performance.ipynb).
#
# ## Where paper, code and book differ
#
# Sizes and symbols are not the same everywhere. This book uses the right column.
#
# | what | paper | this book, as in the released code |
# | --- | --- | --- |
# | side of the crop | 256 in section 3.1, 224 in section 4.2 | 224; the paper's map sizes fit 224 only (exercise 3) |
# | names of the encoder's maps | section 3.1: $F_1$ (coarse) to $F_4$ (fine); section 3.4: $F_0$ (coarse) to $F_3$ (fine); eqs. 7 to 10: level 0 is the finest | $F_1$ (fine) to $F_4$ (coarse) |
# | stacked features | $F_\mathrm{down}$ in section 3.1, $F_\mathrm{upsampled}$ in section 3.6 | $F_\mathrm{up}$ |
# | side of the output maps | 56 (eq. 10, and $S$ in section 3.6) | 224; the attention averages $S$ to 56 |
# | orientation of $A$ | 22 × 720 | 22 × 720 in equations; the tensor `Features.attended` is 720 × 22 |
# | after eq. 5 | nothing | one more 720 × 720 matrix, applied to each $A_j$ |
# | depth in the regressor | section 3: the depth map; caption of Figure 2: depth features | the mean of $D$ over all positions |
#
# [All differences, one by one](../book/differences.md) has the lines of the released code.
#
# ## Takeaways
#
# - Five modules have weights: an encoder, two decoders of the same design, the soft attention and the regressor; the
#   encoder has most of them.
# - The part logits serve twice, as a supervised output and as the weights with which the features of each joint are
#   averaged.
# - The network needs two inputs per person: the crop, and three numbers that tell where in the image it was cut out.
#
# ## Exercises
#
# **Exercise 1.** How many numbers does the regressor receive per joint in `PAPER`, in `lite` and in `mini`? Which
# of them are the same for all joints?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
sentences = []
for name, candidate in networks.items():
    w = candidate.config.width
    depth_numbers = w if candidate.config.depth else 0
    received = 15 * w + 3 + depth_numbers  # A_j, box information, mean of D
    assert received + 6 == candidate.regressor.pose_hidden.weight.shape[-1]  # and the mean rotation
    sentences.append(f"`{known_as(name)}`: {15 * w} + 3 + {depth_numbers} = {received}")
Markdown(
    "; ".join(sentences) + ". The first number is the length of $A_j$, which differs from joint to joint. "
    "Box information and the mean of $D$ are the same for all joints. Together with the six numbers of the joint's mean rotation, "
    f"the pose head of `{known_as(preset)}` has {network.regressor.pose_hidden.weight.shape[-1]} inputs per joint."
)

# %% [markdown]
# **Exercise 2.** The paper's ablation removes the depth decoder. By how many parameters does the regressor shrink, and
# why? Calculate it first.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
without = dpose.DPose(dpose.preset("mini-no-depth"))
regressors = [dpose.parameter_table(candidate)[-2].parameters for candidate in (networks["mini"], without)]
config = networks["mini"].config
pose = 22 * config.hidden * config.width  # each joint's first layer has w inputs fewer
shape_and_camera = 2 * config.hidden * 22 * config.width  # these two read the inputs of all 22 joints
assert regressors[0] - regressors[1] == pose + shape_and_camera
Markdown(
    f"Every joint's input is shorter by the {config.width} numbers of the mean of $D$ in `mini`. The first layers lose "
    f"22 × {config.hidden} × {config.width} = {pose:,} weights for the rotations and 2 × {config.hidden} × 22 × "
    f"{config.width} = {shape_and_camera:,} for shape and camera, together {pose + shape_and_camera:,}; counted: "
    f"{regressors[0]:,} with and {regressors[1]:,} without depth."
)

# %% [markdown]
# **Exercise 3.** Section 3.1 of the paper gives a crop of 256 × 256 pixels and maps from 7 × 7 to 56 × 56. Show that the
# two do not fit.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
encoder = networks["mini"].encoder  # with the same strides as PAPER's
sides = {
    side: [maps.shape[-1] for maps in reversed(encoder(torch.zeros(1, 3, side, side))[:4])]
    for side in (224, 256)
}
assert sides[224] == [7, 14, 28, 56] != sides[256]
found = "; ".join(
    f"{side} pixels give maps of {', '.join(map(str, cells))} cells" for side, cells in sides.items()
)
Markdown(
    f"{found}. The encoder divides the side by 32, 16, 8 and 4, so the paper's maps belong to 224 pixels."
)
