# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What the network predicts: Figures 1 and 3 to 6
#
# Averages do not show in which situations a network is good or bad. This page makes the paper's figures
# {cite:p}`dpose` from people of a test split, failures included. None of them is in the training data, and none was
# chosen by eye: each figure states its rule.
#
# :::{chapter}
# :needs: [The network at a glance](architecture.ipynb), [The decoders](decoders.ipynb), [Metrics](metrics.ipynb)
# :learn: what the intermediate maps and the body look like for typical people; how far bodies are off in the image and in depth; what the worst predictions have in common
# :::
#
# Figure 2, the architecture, is on the page [The network at a glance](architecture.ipynb). By default the people are
# those of the open test split. With the parameter `data`, the cells make the same figures from any prepared data set, or
# from several: `-p data ~/shards/3dpw`, or a list in a file of parameters (`papermill -f`).

# %% tags=["parameters", "hide-input"] nbmake={"mock": {"people": 12}} mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
checkpoint = "lite"  # a shipped network, or a .safetensors file
data = None  # folder of a prepared data set, or a list of them; None: $DPOSE_DATA, else the open data
split = "test"  # of each data set; "val" where it is missing (BEDLAM)
people = 300  # how many are measured of each data set, from all over the split
body = None  # body model file or name; None: the one recorded in the checkpoint

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import itertools
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown

import dpose
from dpose.body import Bodies
from dpose.bootstrap import cluster_of
from dpose.camera import BOX_UNIT, crop_intrinsics, full_translation, project
from dpose.data.loader import make_loader
from dpose.data.shards import read_manifest
from dpose.data.targets import part_targets
from dpose.evaluate import body_errors, measure, some_of, true_points
from dpose.figures import (
    BACKGROUND,
    NBSP,
    PREDICTION_TITLES,
    colour_depth,
    colour_parts,
    draw_mesh,
    html_table,
    picture_block,
    picture_grid,
    prediction_pictures,
    to_picture,
)
from dpose.metrics import PROTOCOLS
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import run_network, to_device
from dpose.paths import data_roots, shard_folder
from dpose.render import shade

torch.set_grad_enabled(False)
plt.rcParams["figure.dpi"] = 100
SIDE = 256  # pixels of a picture; crops are enlarged to it

network = dpose.load(checkpoint)
mesh = checkpoints.body_of(network, body)
samples, sets = [], []  # of each person: its batch and row; its data set
errors, records = {}, {}  # columns of `measure`; bodies of the labels
offsets = []  # (people x joints, 3) mm: predicted minus true joints in the camera frame, pelvises at the origin
image_errors = []  # (people,) mean distance of the projected joints from the true ones, shares of the square's side


def image_error(batch, prediction):
    """Mean error of the 22 body joints of each person in the image, as a share of the side of the network's square: (B,)."""
    box = batch["center"], batch["scale"], batch["cam_int"]
    joints = mesh(prediction.betas, prediction.rotmats).joints[:, :22]
    projected = project(joints + full_translation(prediction.cam, *box)[:, None], box[2])
    known = batch["joints2d"][:, :22, 2] > 0
    distance = torch.linalg.vector_norm(projected - batch["joints2d"][:, :22, :2], dim=-1)
    mean = (distance * known).sum(1) / known.sum(1)  # NaN for a person without joints
    return mean / (BOX_UNIT * batch["scale"])


def joint_offsets(batch, prediction):
    """Predicted minus true joints of a batch, with both pelvises at the origin: (B, J, 3) mm."""
    points = compared.points(mesh(prediction.betas, prediction.rotmats)).joints
    offset = points - true_points(batch, bodies, compared).joints
    rule = PROTOCOLS[compared.protocol]
    return 1000 * (offset[:, list(rule.joints)] - offset[:, list(rule.pelvis)].mean(1, keepdim=True))


for root in map(Path, data_roots(data)):
    manifest = read_manifest(shard_folder(root)) or {}
    records |= manifest.get("bodies", {})
    present = split if split in manifest.get("splits", [split]) else "val"
    bodies = Bodies("cpu", given=[mesh], records=records)
    batches = list(make_loader(root, present, network.config, 20, spread=people))
    compared, _ = body_errors(manifest.get("protocol", "smplx24"), mesh)
    table = measure(network, batches, mesh, samples=people, errors=compared, bodies=bodies)
    rows = [(batch, row) for batch in batches for row in range(len(batch["key"]))]
    samples += rows[: len(table["key"])]
    sets += [root.name] * len(table["key"])
    count = len(table["key"])
    expanded = [to_device(batch, "cpu") for batch in batches]
    predicted = [(batch, run_network(network, batch)) for batch in expanded]
    offsets.append(torch.cat([joint_offsets(*pair) for pair in predicted])[:count].flatten(0, 1))
    image_errors.append(torch.cat([image_error(*pair) for pair in predicted])[:count])
    with np.errstate(invalid="ignore"):
        table["parts_iou"] = np.nanmean(
            (table["intersection"] / table["union"])[:, 1:], 1
        )  # of a person's parts
    for name in ("key", "mpjpe", "pa_mpjpe", "orientation", "parts_iou", "depth_l1"):
        errors[name] = np.append(errors.get(name, []), table.get(name, np.full(count, np.nan)))
order = np.argsort(errors["mpjpe"])
first_of_scene = [
    next(group) for _, group in itertools.groupby(range(len(samples)), lambda i: cluster_of(errors["key"][i]))
]


def person(i):
    """Person i as a Batch of one."""
    batch, row = samples[i]
    return to_device(some_of(batch, slice(row, row + 1)), "cpu")


def enlarged(one):
    """The crop of a Batch of one: RGB (SIDE, SIDE, 3) uint8."""
    return cv2.resize(to_picture(one["image"][0]), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def pictures(i):
    """Pictures of person i by their names in `PREDICTION_TITLES`."""
    one = person(i)
    drawn = prediction_pictures(run_network(network, one), one, mesh, 0, enlarged(one))
    return dict(zip(PREDICTION_TITLES, drawn, strict=True))


def side_by_side(pairs, titles=()):
    """Pairs of pictures, three in a row."""
    joined = [np.hstack([one, np.full((SIDE, 6, 3), BACKGROUND, np.uint8), two]) for one, two in pairs]
    rows = [[line[k : k + 3] for k in range(0, len(line), 3)] for line in (joined, list(titles))]
    picture_grid(*rows, side=2.85).tight_layout(pad=0.3, w_pad=1)
    plt.show()


def block(i):
    """Image, part map and depth map, and body of person i as in the paper's Figure 5, maps and body predicted."""
    drawn = pictures(i)
    return picture_block(drawn["image"], drawn["parts"], drawn["depth"], drawn["mesh"])


def at_quantiles(shares, name=None):
    """The people at these quantiles of the MPJPE, of all or of the data set `name`."""
    ranked = [i for i in order if name in (None, sets[i])]
    return [ranked[round(share * (len(ranked) - 1))] for share in shares]


def error(i):
    return f"MPJPE {errors['mpjpe'][i]:.0f} mm"


def outlined(i):
    """The image of person i with the outline of the labelled body, as far as it lies in the crop."""
    one = person(i)
    body = (one["parts"][0] > 0).numpy().astype(np.uint8)
    body = cv2.resize(body, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    outline, _ = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    picture = cv2.drawContours(enlarged(one), outline, -1, (0, 0, 0), 5)
    return cv2.drawContours(picture, outline, -1, (255, 220, 0), 2)


Markdown(
    f"The network is `{network.config.name}` with {sum(p.numel() for p in network.parameters()):,} parameters, measured on "
    f"{len(samples)} people of {', '.join(dict.fromkeys(sets))}, split {split}: MPJPE {errors['mpjpe'].mean():.0f}{NBSP}mm, PA-MPJPE "
    f"{errors['pa_mpjpe'].mean():.0f}{NBSP}mm."
)

# %% [markdown]
# ## Figure 1: image, intermediate maps, body
#
# {numref}`fig-teaser` shows the person with the median MPJPE. The page [The body model](body_model.ipynb) explains the colours
# of the parts.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 1 for the person with the median MPJPE: image, predicted parts (top) and depth (bottom; yellow: near, blue: far), and predicted body over the image.", "name": "fig-teaser"}, "image": {"alt": "A rendered person in a scene, two small maps one above the other (body parts in colours, depth from yellow to blue), and the person again with a light blue body drawn over the image."}}
(middle,) = at_quantiles([0.5])
picture_grid([[block(middle)]], [error(middle)], side=6)
plt.show()

# %% [markdown]
# ## Figure 3: image and depth
#
# {numref}`fig-depth-pairs` shows the first person of each of the first three scenes. The depth map is drawn where the part
# map predicts a person; elsewhere it is not trained.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 3 for the first person of each of the first three scenes: image, and predicted depth of the person in its middle (yellow: near, blue: far).", "name": "fig-depth-pairs"}, "image": {"alt": "Three pairs of pictures: a person in a scene, and the person's silhouette coloured from yellow, near, to blue, far, on a dark ground."}}
side_by_side([(drawn["image"], drawn["depth"]) for drawn in map(pictures, first_of_scene[:3])])

# %% [markdown]
# ## Figure 4: the targets of the two maps
#
# {numref}`fig-target-pairs` shows the targets for the same people. The depth target covers what is visible of the person,
# clothes included. The part target covers the labelled body, also where it is hidden. [The decoders](decoders.ipynb) describes
# how both are made.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 4 for the same people: depth target (yellow: near, blue: far) and labelled body with its 22 parts.", "name": "fig-target-pairs"}, "image": {"alt": "Three pairs of pictures: the person's visible silhouette coloured by depth, and the shaded naked body with 22 parts in different colours, also where the person is hidden."}}


def true_body(one):
    """The labelled body of a Batch of one, posed in the camera frame, and the body model."""
    model = bodies(one["body"][0])
    pose = one["pose"]
    if model.num_rotations > pose.shape[1]:  # SMPL
        pose = torch.cat([pose, one["smpl_hands"]], 1)
    return model(one["betas"], pose, one["trans"]), model


def target_pictures(i):
    """The depth target, and the shaded body in the colours of its parts."""
    one = person(i)
    posed, model = true_body(one)
    box = one["center"], one["scale"], one["cam_int"]
    camera = crop_intrinsics(box[2][0], box[0][0], box[1][0], SIDE)
    white = draw_mesh(posed.vertices[0], model.faces, camera, SIDE, "#ffffff")
    parts = part_targets(posed.vertices, posed.joints, one["joints2d"], *box, model, SIDE)[0].numpy()
    lit = np.where(parts[..., None] > 0, white / 255 * colour_parts(parts), BACKGROUND)
    depth = cv2.resize(one["depth"][0, 0].numpy(), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    return colour_depth(depth), lit.round().astype(np.uint8)


side_by_side(map(target_pictures, first_of_scene[:3]))

# %% [markdown]
# ## Figure 5: image, parts, depth, body
#
# {numref}`fig-blocks` shows people from small to large MPJPE: four of one data set, or, as in the paper, the median of each of four.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 5 for people with small to large MPJPE (its quantiles 20, 40, 60 and 80 %; with four data sets the median of each): in each block the image, predicted parts and depth, and predicted body.", "name": "fig-blocks"}, "image": {"alt": "Four blocks of image, part map above depth map, and body over the image. The maps have the outlines of the people; the bodies leave the person at feet, hands or head, the more the larger the error."}}
names = list(dict.fromkeys(sets))
shares = np.linspace(0, 1, -(-4 // len(names)) + 2)[1:-1]
chosen = in_blocks = [i for name in names for i in at_quantiles(shares, name)]
titles = [f"{sets[i]}, {error(i)}" for i in chosen]
picture_grid(
    [[block(i) for i in chosen[k : k + 2]] for k in range(0, len(chosen), 2)],
    [titles[k : k + 2] for k in range(0, len(chosen), 2)],
    side=4.3,
).tight_layout(pad=0.3, w_pad=1.5)
plt.show()

# %% [markdown]
# ## Figure 6: more people, and the largest errors
#
# The upper half of {numref}`fig-more` shows the first people of the next six scenes, the lower half the six people with the
# largest MPJPE. There a yellow line surrounds the labelled body, because in some of these crops the network predicts
# another person, who stands in front or is larger.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 6: further people (upper two rows) and those with the largest errors (lower two rows, the labelled body outlined in yellow), each with the predicted body over the image.", "name": "fig-more"}, "image": {"alt": "Twelve pairs of a person's picture and the same with the predicted body. In the lower rows yellow lines surround people who lie on the ground, bend over or are hidden by others; some of the predicted bodies fit another person, others point in wrong directions."}}
chosen = [*first_of_scene[3:9], *order[::-1][:6]]
pairs = [
    (outlined(i) if i in chosen[6:] else drawn["image"], drawn["mesh"])
    for i, drawn in zip(chosen, map(pictures, chosen), strict=True)
]
side_by_side(pairs, [error(i) for i in chosen])


# %% tags=["remove-input"]
OF_PREDICTION = (
    "orientation wrong by more than 90°",
    "predicted parts mostly beside the person's (mean IoU below 0.1)",
)


def properties(i):
    """Possible causes of a large error of person i."""
    one = person(i)
    joints, (width, height) = one["joints2d"][0, :22], one["img_size"][0].tolist()
    up = one["pose"][0, 0, :, 1]  # axis of the trunk in the camera frame, whose y axis points down
    outside = ((joints[:, :2] < 0) | (joints[:, :2] > torch.tensor([width, height]))).any(1)
    seen = (one["depth"] > 0).sum() / (one["parts"] > 0).sum().clamp(min=1)
    return {
        OF_PREDICTION[0]: errors["orientation"][i] > 90,
        OF_PREDICTION[1]: errors["parts_iou"][i] < 0.1,
        "trunk tilted by more than 60°": bool(up[1] > -0.5),
        "a quarter of the joints outside the image": bool(outside.float().mean() >= 0.25),
        "less than half of the body visible": bool(one["has_depth"][0]) and bool(seen < 0.5),
    }


found = [properties(i) for i in range(len(samples))]
for reasons in found:
    reasons["none of these"] = not any(reasons.values())
worst = order[len(order) * 9 // 10 :]


def counted(reason):
    """How many of the worst tenth and of all people have a property, each with the people who are counted."""
    return [(sum(found[i][reason] for i in group), group) for group in (worst, order)]


html_table(
    ("property", "worst tenth", "all people"),
    [
        (
            reason,
            *(f"{count} ({100 * count / len(group):.0f}{NBSP}%)" for count, group in counted(reason)),
        )
        for reason in found[0]
    ],
    f"Properties of the {len(worst)} people with the largest MPJPE and of all {len(order)}: numbers of people and shares. "
    "The first two properties are the prediction's, the others are the label's",
)

# %% [markdown]
# ## The same bodies from the side
#
# The figures above show bodies that deviate from the person in the image, and a body that covers the person may still have
# the wrong depth. {numref}`fig-sides` shows the true body and the predicted one, both pelvises in the same place, from the
# camera and from the side.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "True body (blue) and predicted body (orange, half transparent) of the people of the previous blocks with the smallest and the largest of the four errors: over the image, from the camera, and from the side of the camera, turned by 90° about the vertical axis.", "name": "fig-sides"}, "image": {"alt": "Two rows of three pictures: a body over the image, a blue and an orange body from the camera, and the same pair from the side. In both views the two bodies overlap at the trunk, while limbs and in part heads are apart."}}
TRUE, PREDICTED = (0.0, 0.16, 0.45), (0.85, 0.25, 0.02)  # linear RGB


def views(i):
    """The image with the predicted body, and both bodies from the camera and from the side."""
    one = person(i)
    prediction = run_network(network, one)
    posed, model = true_body(one)
    pairs = (posed, model), (mesh(prediction.betas, prediction.rotmats), mesh)
    found = [((body.vertices[0] - body.joints[0, 1:3].mean(0)), model.faces) for body, model in pairs]
    reach = max(vertices.abs().max().item() for vertices, _ in found)
    focal = 20 * 0.47 * SIDE / reach  # of a camera 20 m away
    camera = torch.tensor([[focal, 0, SIDE / 2], [0, focal, SIDE / 2], [0, 0, 1]])
    side = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])  # 90 degrees about the vertical axis
    drawn = [pictures(i)["mesh"]]
    for turn in (torch.eye(3), side):
        picture = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
        for (vertices, faces), colour, opacity in zip(found, (TRUE, PREDICTED), (1.0, 0.6), strict=True):
            placed = vertices @ turn.T + torch.tensor([0, 0, 20.0])
            picture = shade(placed, faces, camera, picture, colour, opacity=opacity)
        drawn.append(picture)
    return drawn


shown = sorted(in_blocks, key=lambda i: errors["mpjpe"][i])
shown = list(dict.fromkeys((shown[0], shown[-1])))
picture_grid(
    [views(i) for i in shown],
    ("image", "from the camera", "from the side"),
    [error(i) for i in shown],
    side=2.4,
)
plt.show()

# %% tags=["remove-input"]
right, down, forward = torch.cat(offsets).abs().mean(0).tolist()
missed = torch.cat(image_errors).numpy()
far = np.mean(missed[np.isfinite(missed)] > 0.05)
Markdown(
    f"*In the image.* The projected joints are {100 * np.nanmean(missed):.1f}{NBSP}% of the side of the network's square from the true ones on average (median over "
    f"people {100 * np.nanmedian(missed):.1f}{NBSP}%), which is {network.config.image_size * np.nanmean(missed):.0f} of the crop's "
    f"{network.config.image_size} pixels. For {100 * far:.0f}{NBSP}% of the people the mean is above 5{NBSP}% of it: "
    f"{'most' if far > 0.5 else 'some'} bodies are visibly displaced in the image, too.\n\n"
    f"*In space.* Over all {len(samples)} people, with both pelvises at the origin, the mean error of a joint is {right:.0f}{NBSP}mm along the "
    f"image's horizontal axis, {down:.0f}{NBSP}mm along its vertical axis, and {forward:.0f}{NBSP}mm along the viewing direction."
)

# %% [markdown]
# ## Takeaways

# %% tags=["remove-input"]
of_label = [name for name in found[0] if name not in (*OF_PREDICTION, "none of these")]
inside = {name: [count for count, _ in counted(name)] for name in of_label}
common = max(inside, key=lambda name: inside[name][0] / max(inside[name][1], 1))
among, total = inside[common]
angles = errors["orientation"]
Markdown(
    f"* The median person has an MPJPE of {errors['mpjpe'][middle]:.0f}{NBSP}mm, the worst tenth more than "
    f"{errors['mpjpe'][worst[0]]:.0f}{NBSP}mm: a mean hides a long tail.\n"
    f"* Of the listed properties of the label, “{common}” is the most over-represented among the worst tenth: "
    f"{'all' if among == total else f'{among} of the'} {total} people with this property are in it.\n"
    f"* Along the viewing direction the mean error of a joint is {2 * forward / (right + down):.1f} times as large as along "
    f"the axes of the image. In the image, too, the projected joints of {100 * far:.0f}{NBSP}% of the people are "
    f"off by more than 5{NBSP}% of the square's side on average."
)

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** Are the people with the largest MPJPE also those with the largest PA-MPJPE? Compute the share of the worst
# tenth by MPJPE that is also in the worst tenth by PA-MPJPE, and compare it with chance.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
by_pose = np.argsort(errors["pa_mpjpe"])[-len(worst) :]
both = np.isin(worst, by_pose).mean()
turned = worst[~np.isin(worst, by_pose)]
Markdown(
    f"{100 * both:.0f}{NBSP}% of the worst tenth by MPJPE are in the worst tenth by PA-MPJPE; by chance it would be "
    f"{100 * len(worst) / len(order):.0f}{NBSP}%. The median error of the global orientation, which Procrustes alignment removes, is "
    f"{np.median(errors['orientation'][turned]):.0f}° for the others of the worst tenth by MPJPE, and {np.median(errors['orientation']):.0f}° for all people."
    if len(turned)
    else "All people of the worst tenth by MPJPE are in the worst tenth by PA-MPJPE."
)

# %% [markdown]
# **Exercise 2.** Draw the blocks of the people with the smallest PA-MPJPE and with the largest. Do their maps differ as
# much as their bodies?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution", "image": {"alt": "Two blocks of image, predicted parts and depth, and predicted body: the people with the smallest and with the largest PA-MPJPE."}}
ends = np.argsort(errors["pa_mpjpe"])[[0, -1]]
titles = [f"PA-MPJPE {errors['pa_mpjpe'][i]:.0f} mm" for i in ends]
picture_grid([[block(i) for i in ends]], titles, side=4.3)
plt.show()
low, high = ({name: errors[name][i] for name in ("pa_mpjpe", "parts_iou", "depth_l1")} for i in ends)
Markdown(
    f"PA-MPJPE is {high['pa_mpjpe'] / low['pa_mpjpe']:.1f} times as large for the second person. The mean IoU of the parts is "
    f"{low['parts_iou']:.2f} for the first and {high['parts_iou']:.2f} for the second, the depth error {low['depth_l1']:.3f} and "
    f"{high['depth_l1']:.3f}. Two people show no rule; [What the errors depend on](analysis.ipynb) has the correlation of map and body "
    "errors over all people."
)
