# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Figures 1 to 6: what the network predicts
#
# Averages hide what a network is good and bad at. This page makes the paper's figures {cite:p}`dpose` of
# people from a test split, none of whom was in the training data. No person is chosen by eye: each figure
# states its rule. Figure 2, the architecture, is on the page of [the network](architecture.ipynb).
#
# By default the people are those of the open test set. With the parameter `data`, the cells make the same
# figures of any prepared data set, or of several: `-p data /data/3dpw`, or a list in a file of parameters
# (`papermill -f`).

# %% tags=["parameters"] nbmake={"mock": {"people": 12}}
checkpoint = "lite"  # the shipped network, or a .safetensors file
data = None  # folder of a prepared data set, or a list of them; None: $DPOSE_DATA, else the open data
split = "test"  # of each data set; "val" where it is missing (BEDLAM)
people = 300  # how many are measured of each data set, from all over the split
body = None  # body model file or name; None: the one recorded in the checkpoint

# %% tags=["hide-input"]
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
from dpose.camera import crop_intrinsics
from dpose.data.loader import make_loader
from dpose.data.shards import read_manifest
from dpose.data.targets import part_targets
from dpose.evaluate import body_errors, measure, some_of
from dpose.figures import (
    BACKGROUND,
    PREDICTION_TITLES,
    colour_parts,
    draw_mesh,
    html_table,
    mesh_figure,
    picture_block,
    picture_grid,
    plotly_html,
    prediction_pictures,
    to_picture,
)
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import run_network, to_device
from dpose.paths import data_roots, shard_folder

torch.set_grad_enabled(False)
plt.rcParams["figure.dpi"] = 100
SIDE = 256  # pixels of a picture; crops are enlarged to it

network = dpose.load(checkpoint)
mesh = checkpoints.body_of(network, body)
samples, sets = [], []  # of each person: its batch and row; its data set
errors, records = {}, {}  # columns of `measure`; bodies of the labels
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
    for name in ("key", "mpjpe", "pa_mpjpe", "orientation"):
        errors[name] = np.append(errors.get(name, []), table[name])
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


Markdown(
    f"The network is `{network.config.name}` with {sum(p.numel() for p in network.parameters()):,} parameters. Of "
    f"{', '.join(dict.fromkeys(sets))}, split {split}, {len(samples)} people are measured: MPJPE "
    f"{errors['mpjpe'].mean():.0f} mm, PA-MPJPE {errors['pa_mpjpe'].mean():.0f} mm."
)

# %% [markdown]
# ## Figure 1: image, intermediate maps, body
#
# The person with the median MPJPE. Which colour is which part is on the page of [the body](body_model.ipynb).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 1: an image, the predicted parts (above) and depth (below; yellow is near, blue is far), and the predicted body over the image.", "name": "fig-teaser"}, "image": {"alt": "One person as photograph, as map of body parts, as depth map, and with a grey body drawn over the photograph."}}
(middle,) = at_quantiles([0.5])
picture_grid([[block(middle)]], [error(middle)], side=6)
plt.show()

# %% [markdown]
# ## Figure 3: image and depth
#
# The first person of each of the first scenes. The depth map is shown where the part map has a person;
# elsewhere it is not trained.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 3: images, and the depth predicted for the person in the middle of each.", "name": "fig-depth-pairs"}, "image": {"alt": "Three pairs of an image of a person and a depth map of this person in yellow and blue."}}
side_by_side([(drawn["image"], drawn["depth"]) for drawn in map(pictures, first_of_scene[:3])])

# %% [markdown]
# ## Figure 4: what the maps are trained towards
#
# The same people. Depth comes from the renderer and covers what is visible; parts come from the posed body
# and cover all of it. How both are made is on [the page of the targets](targets.ipynb).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 4: the depth target, dark is near, and the labelled body, rendered with its 22 parts. A data set without depth has a black depth target.", "name": "fig-target-pairs"}, "image": {"alt": "Three pairs: a grey depth map of a person, and the person's body model with body parts in different colours."}}


def true_body(one):
    """The labelled body of a Batch of one, posed in the camera frame, and the body model."""
    model = bodies(one["body"][0])
    pose = one["pose"]
    if model.num_rotations > pose.shape[1]:  # SMPL
        pose = torch.cat([pose, one["smpl_hands"]], 1)
    return model(one["betas"], pose, one["trans"]), model


def target_pictures(i):
    """The depth target in grey, and the shaded body in the colours of its parts."""
    one = person(i)
    posed, model = true_body(one)
    box = one["center"], one["scale"], one["cam_int"]
    camera = crop_intrinsics(box[2][0], box[0][0], box[1][0], SIDE)
    white = draw_mesh(posed.vertices[0], model.faces, camera, SIDE, "#ffffff")
    parts = part_targets(posed.vertices, posed.joints, one["joints2d"], *box, model, SIDE)[0].numpy()
    lit = np.where(parts[..., None] > 0, white / 255 * colour_parts(parts), BACKGROUND)
    grey = (255 * one["depth"][0, 0].numpy()).round().astype(np.uint8)
    grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    return np.repeat(grey[..., None], 3, 2), lit.round().astype(np.uint8)


side_by_side(map(target_pictures, first_of_scene[:3]))

# %% [markdown]
# ## Figure 5: blocks
#
# Of several data sets, one person each, as in the paper; of one data set, four people: those at equally
# spaced quantiles of the error.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 5: in each block the image, the predicted parts and depth, and the predicted body.", "name": "fig-blocks"}, "image": {"alt": "Four blocks, each of an image of a person, two small maps, and the image with a body drawn over it."}}
names = list(dict.fromkeys(sets))
shares = np.linspace(0, 1, -(-4 // len(names)) + 2)[1:-1]
chosen = [i for name in names for i in at_quantiles(shares, name)]
titles = [f"{sets[i]}, {error(i)}" for i in chosen]
picture_grid(
    [[block(i) for i in chosen[k : k + 2]] for k in range(0, len(chosen), 2)],
    [titles[k : k + 2] for k in range(0, len(chosen), 2)],
    side=4.3,
).tight_layout(pad=0.3, w_pad=1.5)
plt.show()

# %% [markdown]
# ## Figure 6: more results, and failures
#
# Above, the first people of the next six scenes; below, the six people with the largest errors.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The paper's Figure 6: further people (upper two rows), and those with the largest errors (lower two rows), each with the predicted body.", "name": "fig-more"}, "image": {"alt": "Twelve people, each as an image and as the image with the predicted body over it."}}
chosen = [*first_of_scene[3:9], *order[::-1][:6]]
drawn = map(pictures, chosen)
side_by_side([(d["image"], d["mesh"]) for d in drawn], [error(i) for i in chosen])

# %% tags=["hide-input"]


def properties(i):
    """Possible reasons of an error, of person i."""
    one = person(i)
    joints, (width, height) = one["joints2d"][0, :22], one["img_size"][0].tolist()
    up = one["pose"][0, 0, :, 1]  # axis of the trunk in the camera frame, whose y axis points down
    outside = ((joints[:, :2] < 0) | (joints[:, :2] > torch.tensor([width, height]))).any(1)
    seen = (one["depth"] > 0).sum() / (one["parts"] > 0).sum().clamp(min=1)
    return {
        "orientation wrong by more than 90°": errors["orientation"][i] > 90,
        "trunk tilted by more than 60°": bool(up[1] > -0.5),
        "a quarter of the joints outside the image": bool(outside.float().mean() >= 0.25),
        "less than half of the body visible": bool(one["has_depth"][0]) and bool(seen < 0.5),
    }


found = [properties(i) for i in range(len(samples))]
for reasons in found:
    reasons["none of these"] = not any(reasons.values())
worst = order[len(order) * 9 // 10 :]
html_table(
    ("", "worst tenth", "all people"),
    [
        (reason, *(f"{100 * np.mean([found[i][reason] for i in group]):.0f} %" for group in (worst, order)))
        for reason in found[0]
    ],
    f"Shares of the {len(worst)} people with the largest MPJPE and of all {len(order)}. The first property "
    "is the prediction's, the others are the label's",
)

# %% [markdown]
# ## In three dimensions
#
# The person of Figure 1: the labelled body and the predicted one, pelvis on pelvis, seen from the camera.
# Drag to turn, scroll to zoom, click a name to hide that body.

# %% tags=["hide-input"]
one = person(middle)
prediction = run_network(network, one)
posed, model = true_body(one)
pairs = (posed, model), (mesh(prediction.betas, prediction.rotmats), mesh)
vertices = [(each.vertices[0] - each.joints[0, 1:3].mean(0)).numpy() for each, _ in pairs]
plotly_html(
    mesh_figure(vertices, [each.faces.numpy() for _, each in pairs], ["true", "predicted"]), height=520
)
