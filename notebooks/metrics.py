# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Metrics
#
# How far is a predicted body from the true one? There is no single number: a metric that ignores where the body
# stands cannot show that it stands in the wrong place. This page defines the metrics that the paper and this book
# use, changes true bodies by known amounts, and shows which metric responds to which change.
#
# :::{chapter}
# :needs: [The network at a glance](architecture.ipynb), [The body model](body_model.ipynb)
# :learn: what MPJPE, PA-MPJPE, MVE, PCK and mIoU measure; what each of them does not measure; why a number in millimetres needs a baseline
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"} nbmake={"mock": {"people": 8, "training_people": 16}}
checkpoint = "lite"  # a network of the package, or a file; for the comparison with the baselines
data = None  # data root; None: $DPOSE_DATA, else the open data
people = 64  # test people whose true bodies are changed
training_people = 512  # training people of the mean pose
seed = 0

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import math

import matplotlib.pyplot as plt
import numpy as np
import roma
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import dpose
from dpose import metrics
from dpose.body import BodyOutput
from dpose.camera import default_intrinsics, project
from dpose.data.loader import make_loader
from dpose.data.means import training_means
from dpose.evaluate import body_errors, measure, summarise
from dpose.figures import INK, html_table, style_axis
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import run_network, to_device
from dpose.paths import data_root
from dpose.skeleton import JOINT_NAMES, PARENTS, PART_NAMES

torch.manual_seed(seed)
torch.set_grad_enabled(False)
plt.rcParams["figure.dpi"] = 130
TRUE, PREDICTED = "#0072B2", "#D55E00"
JOINTS = 24  # of the protocol "smplx24"
HIPS = [1, 2]

network = dpose.load(checkpoint).eval()
body = checkpoints.body_of(network)
loader = make_loader(data, "test", network.config, batch_size=people)
batch = to_device(next(iter(loader)), "cpu")
betas, pose = batch["betas"], batch["pose"]
true = body(betas, pose)


def about(axis, degrees):
    """Rotation (3, 3) about a coordinate axis, 0, 1 or 2."""
    return roma.rotvec_to_rotmat(math.radians(degrees) * torch.eye(3)[axis])


def turned(joint, axis, degrees):
    """The true rotations, with one joint turned further, about an axis of its own frame."""
    changed = pose.clone()
    changed[:, joint] = changed[:, joint] @ about(axis, degrees)
    return changed


# %% [markdown]
# ## Setting
#
# A prediction and the ground truth are two posed bodies with the same numbering of joints and vertices. Let $J_j$ be
# the true position of joint $j$ and $\hat J_j$ the predicted one, $V_i$ and $\hat V_i$ the same for vertices. All
# positions are in metres in frames with parallel axes, and errors are in millimetres. Every error is computed per
# person first; the error of a data set is the mean over its people.
#
# ## Root alignment and MPJPE
#
# From a single image, the distance of a person can be estimated only together with the person's size: a person twice
# as large at twice the distance gives the same image. *Root alignment* removes the distance from the comparison:
# both bodies are moved so that their pelvis, the root of the {term}`kinematic tree`, is at the origin. The *mean
# per-joint position error* {cite:p}`human36m` is the mean distance that remains,
#
# $$
# \mathrm{MPJPE} = \frac{1}{n_J} \sum_{j=1}^{n_J} \bigl\lVert (\hat J_j - \hat J_\mathrm{pelvis})
# - (J_j - J_\mathrm{pelvis}) \bigr\rVert ,
# $$
#
# computed by {py:obj}`dpose.metrics.mpjpe`. Which joints count, and which point is the pelvis, is a matter of the
# protocol ([below](#protocols)); here it is the first 24 joints of SMPL-X's file, as in the released code, and the
# midpoint of the hips. After the 22 body joints the file has jaw, left eye and right eye, so this choice contains
# one eye only.
#
# MPJPE includes the {term}`global orientation`: if the whole body is turned too far, every joint away from the axis
# of rotation is wrong.
#
# ## Procrustes alignment and PA-MPJPE
#
# A body may be turned and too large, and still have every joint bent correctly. *Procrustes alignment* removes what
# the two bodies differ by as a whole. It scales, rotates and moves the predicted joints so that the sum of squared
# distances is smallest,
#
# $$
# \min_{c,\, R,\, t} \; \sum_j \bigl\lVert c R \hat J_j + t - J_j \bigr\rVert^2 , \qquad c > 0, \quad R \in SO(3),
# $$
#
# and *PA-MPJPE* is the mean distance after that. The minimum has a closed form by a singular value decomposition
# {cite:p}`umeyama`, for a single person:


# %%
def procrustes_align(source, target):  # (N, 3) each
    x, y = source - source.mean(0), target - target.mean(0)
    u, s, vh = torch.linalg.svd(y.T @ x)
    # a negative determinant would be a reflection
    sign = torch.tensor([1, 1, torch.linalg.det(u @ vh).sign()])
    rotation = u @ torch.diag(sign) @ vh
    scale = (s * sign).sum() / x.square().sum()
    return scale * x @ rotation.T + target.mean(0)


# %% [markdown]
# {py:obj}`dpose.metrics.similarity_align` does the same for a batch, and {py:obj}`dpose.metrics.pa_mpjpe` uses it.
# {numref}`fig-alignment` shows both alignments.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A true skeleton (blue) and a predicted one (orange) that is displaced, turned by 40° about the vertical axis, 15 % too small, and has the left elbow bent by 80° too far. Grey: distances between corresponding joints. Left: as predicted. Middle: pelvises at the origin, as in MPJPE. Right: after Procrustes alignment, as in PA-MPJPE. What is left is the error of the left forearm; the alignment spreads a part of it over the other joints. Upper row: from the front, a little from one side and from above; lower row: from above, where the turn is visible.", "name": "fig-alignment"}, "image": {"alt": "Two rows of three drawings of two stick figures: side by side and turned apart; with a common pelvis, limbs still apart; and on top of each other except for one forearm. In the lower row, seen from above, the two figures face different directions until the last alignment."}}
stance = torch.zeros(1, 22, 3)  # a person who stands and faces the camera, arms half down
stance[0, 0, 0] = math.pi
stance[0, HIPS, 2] = torch.tensor([0.25, -0.25])
stance[0, [16, 17], 2] = torch.tensor([-0.6, 0.6])
stance = roma.rotvec_to_rotmat(stance)
bent = stance.clone()
bent[0, 0] = about(1, 40) @ bent[0, 0]
bent[0, 18] = bent[0, 18] @ about(2, 80)
mean_shape = torch.zeros(1, body.num_betas)
right_joints = body(mean_shape, stance).joints[:, :JOINTS]
wrong_joints = 0.85 * body(mean_shape, bent).joints[:, :JOINTS] + torch.tensor([0.35, 0.12, 0.1])
aligned = metrics.similarity_align(wrong_joints, right_joints)
assert torch.allclose(procrustes_align(wrong_joints[0], right_joints[0]), aligned[0], atol=1e-5)


def rooted(joints):
    return joints - joints[:, HIPS].mean(1, keepdim=True)


panels = (
    ("as predicted", wrong_joints, right_joints),
    (
        f"root alignment: MPJPE {metrics.mpjpe(wrong_joints, right_joints).item():.0f} mm",
        rooted(wrong_joints),
        rooted(right_joints),
    ),
    (
        f"Procrustes: PA-MPJPE {metrics.pa_mpjpe(wrong_joints, right_joints).item():.0f} mm",
        aligned,
        right_joints,
    ),
)
side_view = about(0, 12) @ about(1, -25)
figure, axes = plt.subplots(2, 3, figsize=(7.4, 5.6), height_ratios=(1.57, 0.94), layout="constrained")
for row, view, (up, down) in zip(axes, (side_view, about(0, 90)), ((0.62, 0.95), (0.56, 0.38)), strict=True):
    for axis, (title, *skeletons) in zip(row, panels, strict=True):
        places = [(joints[0] @ view.T).numpy() for joints in skeletons]
        for one, two in zip(*(points[:22] for points in places), strict=True):
            axis.plot(*zip(one[:2], two[:2], strict=True), color=INK, linewidth=1)
        for points, colour in zip(places, (PREDICTED, TRUE), strict=True):
            for joint, parent in enumerate(PARENTS[:22]):
                if parent >= 0:
                    axis.plot(*points[[parent, joint], :2].T, color=colour, linewidth=2.6)
            axis.plot(*points[:22, :2].T, "o", color=colour, markersize=4)
        if view is side_view:
            axis.set_title(title, color=INK, fontsize=10)
        x, y = places[1][:22, :2].mean(0)  # of the true skeleton
        axis.set(xlim=(x - 0.65, x + 0.75), ylim=(y + down, y - up), aspect="equal")
        axis.axis("off")
figure.patch.set_alpha(0)
plt.show()

# %% [markdown]
# PA-MPJPE measures pose and body proportions, without orientation, overall size and place. It is therefore always
# reported beside MPJPE. Reflections are excluded: a mirrored body is not the same body (exercise 1).
#
# ## MVE and the orientation error
#
# The *mean vertex error* (MVE, also called PVE) is MPJPE with the vertices of the mesh in place of the joints
# ({py:obj}`dpose.metrics.mve`):
#
# $$
# \mathrm{MVE} = \frac{1}{n_V} \sum_{i=1}^{n_V} \bigl\lVert (\hat V_i - \hat J_\mathrm{pelvis})
# - (V_i - J_\mathrm{pelvis}) \bigr\rVert .
# $$
#
# It includes the surface: body shape, and rotations that move no joint, such as turning a hand. Vertices are not
# distributed evenly over the body, and every vertex counts the same.

# %% tags=["remove-input"]
vertex_share = torch.bincount(body.part_of_vertex, minlength=22) / body.num_vertices
ends = [PART_NAMES.index(name) for name in ("head", "left_wrist", "right_wrist")]
Markdown(
    f"Of the {body.num_vertices:,} vertices of this body, {100 * vertex_share[ends].sum():.0f}\u00a0% belong to head and hands. "
    "MVE weighs them accordingly."
)

# %% [markdown]
# The *orientation error* is the angle of the rotation that leads from the predicted to the true rotation of the root,
# $\arccos \tfrac12 \bigl(\operatorname{tr}(\hat R_\mathrm{pelvis}^{\mathsf T} R_\mathrm{pelvis}) - 1\bigr)$, between 0° and 180°
# ({py:obj}`dpose.metrics.orientation_error`). The paper does not report it; this book does, because MPJPE does not
# separate orientation from pose.
#
# ## Known changes, measured
#
# The true bodies of some test people, rendered people of the open data, are now changed by known amounts. "Vertical" is the y axis of the camera frame.
# For the first four changes, the MPJPE is known in advance:
#
# - A *shift* of the whole body changes nothing after root alignment.
# - A *rotation* by the angle $\varphi$ moves a point at the distance $r$ from the axis by $2 r \sin(\varphi/2)$. So the
#   MPJPE is $2 \sin(\varphi/2)$ times the mean distance of the joints from the vertical axis through the pelvis.
# - *Scaling* by $c$ gives $|c - 1|$ times the mean distance from the pelvis.
# - Independent *noise* with the standard deviation $\sigma$ in each coordinate has the mean length $\sqrt{8/\pi}\,
#   \sigma$. The pelvis, the midpoint of two noisy hips, adds half of a joint's variance to all other joints, so the
#   mean over the 24 joints is $\sqrt{8/\pi}\, \sigma \, (22 \sqrt{1.5} + 2 \sqrt{0.5}) / 24$.

# %% tags=["remove-input"]
ANGLE, SCALE, NOISE = 20, 1.1, 0.02  # degrees; factor; metres
rooted_joints = rooted(true.joints[:, :JOINTS])
off_axis = rooted_joints[..., [0, 2]].norm(dim=-1).mean().item()  # metres; the y axis is vertical
from_pelvis = rooted_joints.norm(dim=-1).mean().item()
gaussian = math.sqrt(8 / math.pi) * NOISE
upright = pose.clone()
upright[:, 0] = about(1, ANGLE) @ pose[:, 0]
heavier = betas.clone()
heavier[:, 0] += 2
noisy = [
    BodyOutput(*(x + NOISE * torch.randn(x.shape) for x in (true.vertices, true.joints))) for _ in range(24)
]
changes = {  # label: expected MPJPE in mm, changed bodies, changed rotations
    "shift by 1\u00a0m": (0.0, [BodyOutput(true.vertices + 1, true.joints + 1)], pose),
    f"rotation by {ANGLE}° about the vertical": (
        2000 * math.sin(math.radians(ANGLE) / 2) * off_axis,
        [body(betas, upright)],
        upright,
    ),
    f"scaling by {SCALE}": (
        1000 * (SCALE - 1) * from_pelvis,
        [BodyOutput(SCALE * true.vertices, SCALE * true.joints)],
        pose,
    ),
    f"noise of {1000 * NOISE:.0f} mm per coordinate": (
        1000 * gaussian * (22 * math.sqrt(1.5) + 2 * math.sqrt(0.5)) / JOINTS,
        noisy,
        pose,
    ),
    "left elbow bent by 60°": (None, [body(betas, turned(18, 1, 60))], pose),
    "left hand turned by 60°": (None, [body(betas, turned(20, 0, 60))], pose),
    "first shape coefficient + 2": (None, [body(heavier, pose)], pose),
}
errors = metrics.BodyErrors()
rows, largest = [], 0.0
for label, (expected, changed, rotations) in changes.items():
    found = [errors.per_sample(one, true) for one in changed]
    means = {name: float(np.mean([f[name].mean() for f in found])) for name in errors.names}
    angle = metrics.orientation_error(rotations[:, 0], pose[:, 0]).mean().item()
    if expected is not None:
        difference = abs(means["mpjpe"] - expected)
        largest = max(largest, difference / max(expected, 1))
        assert difference < 0.03 * expected + 0.01, (label, means["mpjpe"], expected)
    cells = (means[name] for name in errors.names)
    rows.append(
        (label, "" if expected is None else f"{expected:.1f}", *(f"{v:.1f}" for v in cells), f"{angle:.0f}")
    )
table = {label: [float(cell) for cell in cells] for label, _, *cells in rows}
assert table["left hand turned by 60°"][0] == 0 < table["left hand turned by 60°"][2]
html_table(
    ("change", "MPJPE, expected", "MPJPE", "PA-MPJPE", "MVE", "orientation (°)"),
    rows,
    f"Errors after known changes of the true bodies of {len(betas)} test people, mm. The expected values of the first four "
    f"rows are met within {100 * largest:.0f}\u00a0%",
    align="lrrrrr",
)

# %% [markdown]
# The zeros show what a metric does not measure. The shift changes no error. Rotation and scaling do not change PA-MPJPE.
# The turned hand changes neither joint error, because no joint of the protocol lies beyond the wrist. MPJPE alone does not tell a
# turned body from a differently posed one; the orientation error does. Three more things are visible in the table:
#
# - The shape coefficient changes PA-MPJPE although no joint is bent, because it changes the proportions of the body.
# - A bent elbow moves a single joint of 24, the wrist, so a clearly wrong arm is a small mean error.
# - PA-MPJPE can be larger than MPJPE, as for the elbow (exercise 2).
#
# (protocols)=
# ## Protocols
#
# An MPJPE is defined only together with a set of joints and a pelvis. Four such protocols are in use; each is a name in
# `dpose.metrics.PROTOCOLS`. Three of them regress joints from the vertices of SMPL, to which a predicted SMPL-X mesh
# is converted by a matrix. Their matrices are licensed files; for the open body this package has matrices of its own, so
# that numbers measured with it are not comparable with those of a benchmark.

# %% tags=["remove-input"]
USES = {
    "h36m14": "3DPW, EMDB: code",
    "smpl22": "3DPW, EMDB: paper",
    "smpl24": "RICH: code",
    "smplx24": "BEDLAM: code; open data",
}
SOURCES = {None: "the body model", "h36m": "H36M regressor", "smpl": "SMPL regressor"}
prediction = run_network(network, batch)
predicted = body(prediction.betas, prediction.rotmats)
rows = []
for name, protocol in metrics.PROTOCOLS.items():
    per_person, _ = body_errors(name, body)
    found = per_person.per_sample(predicted, true)
    rows.append(
        (
            name,
            USES[name],
            str(len(protocol.joints)),
            "hips" if protocol.pelvis == metrics.HIPS else "pelvis",
            SOURCES[protocol.regressor],
            *(f"{found[error].mean().item():.1f}" for error in ("mpjpe", "pa_mpjpe")),
        )
    )
html_table(
    ("protocol", "used for", "joints", "origin", "joints from", "MPJPE", "PA-MPJPE"),
    rows,
    f"The protocols, and the errors (mm) of the same predictions of {network.config.name} for {len(betas)} test people. "
    "Code: the released code; paper: its text; H36M: Human3.6M",
    align="llrllrr",
)

# %% [markdown]
# ## PCK: keypoints in the image
#
# Photographs rarely have true 3D bodies, but annotators can mark joints in them. The *percentage of correct
# keypoints* {cite:p}`pck` is the share of annotated joints whose predicted projection is nearer than a threshold.
# Here the threshold is a share of the longer side of the person's box: PCK@0.1 counts a joint as correct within a
# tenth of that side ({py:obj}`dpose.keypoints.evaluate_keypoints`). PCK does not measure depth:

# %% tags=["remove-input"]
intrinsics = default_intrinsics(torch.tensor([1280.0, 720.0]))[None]
place = torch.tensor([0.3, 0.2, 4.5])  # metres
in_camera = rooted(true.joints[:, :22]) + place
pixels = project(in_camera, intrinsics.expand(len(betas), -1, -1))
side = (pixels.amax(1) - pixels.amin(1)).amax(-1)  # (B,) of the box around the joints


def pck(points, threshold):
    """Share of keypoints (B, J, 2) within a share of the side from `pixels`."""
    return ((points - pixels).norm(dim=-1) <= threshold * side[:, None]).float().mean().item()


farther = project(1.3 * in_camera, intrinsics.expand(len(betas), -1, -1))  # larger, and as much farther away
moved = pixels + torch.stack([0.08 * side, torch.zeros_like(side)], -1)[:, None]
padding = torch.zeros(len(betas), JOINTS - 22, 3)
giant = metrics.mpjpe(torch.cat([1.3 * in_camera, padding], 1), torch.cat([in_camera, padding], 1)).mean()
assert pck(farther, 0.05) == 1 and pck(moved, 0.05) == 0 and pck(moved, 0.1) == 1
Markdown(
    "If the true bodies are made 30\u00a0% larger and placed 30\u00a0% farther away, all projections stay where they are: "
    f"PCK@0.05 is {100 * pck(farther, 0.05):.0f}\u00a0%. PCK is also a step function: if all joints are moved by 0.08 of the side, "
    f"PCK@0.05 is {100 * pck(moved, 0.05):.0f}\u00a0% and PCK@0.1 is {100 * pck(moved, 0.1):.0f}\u00a0%. So several thresholds, "
    "and the mean distance, are reported."
)

# %% [markdown]
# ## IoU and mIoU: part maps
#
# For each part, the *intersection over union* divides the number of pixels that have this part in both maps by the
# number that have it in at least one of them. It is 1 for equal regions and 0 for disjoint ones. *mIoU* is the mean
# over the 22 parts, without the background. Pixels are counted over all people first
# ({py:obj}`dpose.metrics.parts_overlap`, {py:obj}`dpose.metrics.mean_iou`).
#
# IoU depends on the size of the region. A region that is $a$ cells wide and displaced by $k$ has $(a - k)/(a + k)$, so
# the same displacement costs a hand more than the trunk ({numref}`fig-iou`). And mIoU ignores
# distances: a wrong label is wrong whether it belongs to the neighbouring part or to another limb.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "IoU of the true part maps with themselves, displaced sideways, for three parts and the mean over all 22 parts.", "name": "fig-iou"}, "image": {"alt": "Line chart of IoU against the displacement in cells. All four curves start at one and fall; the one of the hand falls fastest, those of head and chest most slowly, and mIoU is between them."}}
labels = batch["parts"]
displacements = range(0, 7)
curves = {"spine3": [], "head": [], "left_wrist": []}
mean_curve = []
for cells in displacements:
    displaced = F.pad(labels, (cells, 0))[..., : labels.shape[-1]]
    overlap = [counts.sum(0) for counts in metrics.parts_overlap(metrics.parts_confusion(displaced, labels))]
    per_part = metrics.parts_iou(*overlap)
    mean_curve.append(metrics.mean_iou(*overlap).item())
    for name, curve in curves.items():
        curve.append(per_part[1 + PART_NAMES.index(name)].item())
figure, axis = plt.subplots(figsize=(7, 3.3), layout="constrained")
WORDS = {"spine3": "chest", "head": "head", "left_wrist": "left hand"}
lines = {WORDS[name]: curve for name, curve in curves.items()} | {"mIoU": mean_curve}
for (label, curve), colour in zip(lines.items(), ("#0072B2", "#009E73", "#D55E00", INK), strict=True):
    axis.plot(displacements, curve, "o--" if label == "mIoU" else "o-", color=colour, label=label)
axis.set(xlabel=f"displacement (cells of {labels.shape[-1]})", ylabel="IoU", ylim=(0, 1.03))
axis.legend(fontsize=9)
axis.spines[["top", "right"]].set_visible(False)
style_axis(axis)
plt.show()

# %% [markdown]
# ## Depth error
#
# The depth map is compared with its target on the pixels of the person by the mean absolute difference
# ({py:obj}`dpose.metrics.depth_l1`). The unit is that of the target: 0.1 at the nearest visible point of the person, 1 at the
# farthest. It is relative. An error of 0.1 is a ninth of the visible depth range of that person, which may be 20 cm for
# one and a metre for another. The metric does not measure the distance of the person, and it ignores
# the background.

# %% tags=["remove-input"]
values = batch["depth"][batch["depth"] > 0].numpy()
median = float(np.median(values))
constants = {
    "the median": median,
    "the middle of the range, 0.55,": 0.55,
    "the nearest value, 0.1,": 0.1,
}
found = {name: float(np.abs(values - value).mean()) for name, value in constants.items()}
assert found["the median"] <= min(found.values())
Markdown(
    "The smallest mean absolute error of a constant map is that of the median of all values. On these people "
    + ", ".join(f"{name} gives {error:.3f}" for name, error in found.items())
    + f". The median is {median:.2f}. A network that has learned anything about depth must be below the first number, which is "
    "small although a constant map contains no information."
)

# %% [markdown]
# ## Baselines
#
# Is an MPJPE of 120 mm good? That depends on how much the people of the test set differ. A *baseline* is the error of
# a prediction without looking at the image:
#
# - the *mean pose*: every person gets the mean rotations and the mean shape of the training set;
# - the *mean pose with the true orientation*: the same, with the true rotation of the root. The rendered
#   people face in all directions, so most of the first baseline's MPJPE is orientation. This one shows what is left for the pose;
# - for depth, the best constant.
#
# A network whose PA-MPJPE is not below that of the mean pose shows no knowledge of pose or proportions.

# %% tags=["remove-input"]
means = training_means(data_root(data), network.config, samples=training_people)
scores = summarise(measure(network, loader, body, (means.pose, means.betas), samples=len(betas)))
NAMES = {
    "mean_pose": "mean pose",
    "mean_pose_true_orientation": "mean pose, true orientation",
}
columns = ("mpjpe", "pa_mpjpe", "mve", "orientation")


def cells(errors):
    return [f"{errors[name]['mean']:.0f}" if name in errors else "0" for name in columns]


rows = [(label, *cells(scores["baselines"][name])) for name, label in NAMES.items()]
rows.append((network.config.name, *cells(scores["metrics"])))
html_table(
    ("prediction", "MPJPE", "PA-MPJPE", "MVE", "orientation (°)"),
    rows,
    f"Errors (mm) of two baselines and of the trained network for {scores['samples']} test people. The mean pose is over "
    f"{means.samples} training people",
    align="lrrrr",
)

# %% [markdown]
# Both baselines have the same PA-MPJPE, since it ignores the orientation. The [tables](tables.ipynb) show baselines for the
# whole test set.
#
# ## Means and intervals
#
# With other test people, a mean over a test set would differ. This book uses two kinds of 95 % {term}`confidence interval`.
#
# - *The error of one network*, as in the [tables](tables.ipynb), on the page [Training](train.ipynb) and in the
#   [error analysis](analysis.ipynb), has a {term}`bootstrap` interval: the test set is drawn again many times, with
#   replacement, and the interval contains the middle 95 % of the means. Whole scenes or video sequences are drawn,
#   because their images resemble each other ({py:obj}`dpose.bootstrap.ClusterBootstrap`). It covers the choice of test people. It
#   does not cover the choice of the network: training with another seed gives another one.
# - *The difference between two networks* in the [ablation](ablation.ipynb) has an interval for new seeds and new people
#   together. It is computed from paired differences: both networks are trained with the same seeds and measured on the
#   same people. It is never narrower than the interval for other people and the same seeds
#   ({py:obj}`dpose.compare.paired_difference`).
#
# ## Takeaways
#
# - MPJPE is measured with both pelvises at the origin and includes the global orientation; PA-MPJPE is measured after the best
#   rotation, scaling and translation, and what is left is pose and body proportions.
# - No metric measures everything: turning a hand changes neither joint error, moving the whole body changes none of the
#   3D errors, and PCK does not measure depth.
# - An error can be interpreted only in comparison with a baseline, under the same protocol and on the same data.
#
# ## Exercises
#
# **Exercise 1.** Mirror the true joints of a person at a plane without exchanging left and right. Should PA-MPJPE be zero? What
# would it be if Procrustes alignment allowed reflections?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
joints = true.joints[:, :JOINTS]
mirrored = joints * torch.tensor([-1.0, 1.0, 1.0])


def with_reflections(source, target):
    """Procrustes alignment by any orthogonal matrix, (N, 3) each."""
    x, y = source - source.mean(0), target - target.mean(0)
    u, s, vh = torch.linalg.svd(y.T @ x)
    return s.sum() / x.square().sum() * x @ (u @ vh).T + target.mean(0)


proper = metrics.pa_mpjpe(mirrored, joints).mean().item()
pairs = zip(mirrored, joints, strict=True)
reflected = (
    1000 * torch.stack([(with_reflections(m, j) - j).norm(dim=-1).mean() for m, j in pairs]).mean().item()
)
assert reflected < 0.01 < proper
Markdown(
    f"PA-MPJPE is {proper:.0f} mm on average, as it should be: the right arm is where the left one was. With reflections it "
    "would be zero, and a network that confuses left and right could not be told from a perfect one."
)

# %% [markdown]
# **Exercise 2.** Is PA-MPJPE always at most MPJPE? Try a prediction in which a single joint, the left wrist, is displaced by half
# a metre.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
displaced = joints.clone()
displaced[:, JOINT_NAMES.index("left_wrist"), 0] += 0.5
before = metrics.mpjpe(displaced, joints).mean().item()
after = metrics.pa_mpjpe(displaced, joints).mean().item()
assert math.isclose(before, 500 / JOINTS, rel_tol=1e-4) and after > before
Markdown(
    f"No. MPJPE is 500 / {JOINTS} = {before:.1f} mm, PA-MPJPE {after:.1f} mm. The alignment minimises the sum of *squared* "
    "distances. It moves the 23 correct joints in order to reduce the one large distance, and the mean distance, which is reported, "
    "grows."
)

# %% [markdown]
# **Exercise 3.** All joints of a prediction are bent correctly, but its MPJPE is 100 mm because the body is turned about the
# vertical axis. By how many degrees? The row of the table for a rotation by 20° gives the mean distance of the joints from the axis.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
degrees = math.degrees(2 * math.asin(0.1 / (2 * off_axis)))
upright[:, 0] = about(1, degrees) @ pose[:, 0]
found = metrics.mpjpe(body(betas, upright).joints, true.joints).mean().item()
assert abs(found - 100) < 0.5
Markdown(
    f"The joints of these people are on average {100 * off_axis:.0f} cm from the vertical axis through the pelvis, so "
    f"$2 \\cdot {off_axis:.2f}\\,\\mathrm{{m}} \\cdot \\sin(\\varphi/2) = 0.1$ m gives $\\varphi$ = {degrees:.0f}°. "
    f"Turned by that angle, the true bodies have an MPJPE of {found:.1f} mm."
)
