# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Looking at predictions
#
# Averages hide what a network is good and bad at. This page shows people of the test split, none of whom was
# in the training set: first the ones that happen to come first, then the best, the middling and the worst,
# then one body to be turned by hand. Nothing is picked by eye.

# %% tags=["parameters"] nbmake={"mock": {"people": 12}}
checkpoint = "lite"  # the shipped network, or a .safetensors file
data = None  # data root; None: $DPOSE_DATA, else the open data
split = "test"
people = 300  # how many are measured; None: all
shown = 5  # how many in each row of examples
body = None  # body model file or name; None: the one recorded in the checkpoint

# %% tags=["hide-input"]
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown

import dpose
from dpose.data.loader import make_loader
from dpose.evaluate import measure, summarise
from dpose.figures import (
    PREDICTION_TITLES,
    mesh_figure,
    picture_grid,
    plotly_html,
    prediction_pictures,
    style_axis,
)
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import run_network, to_device

network = dpose.load(checkpoint)
metadata = checkpoints.metadata(checkpoint)
mesh = checkpoints.body_of(network, body)
BATCH = 20
loader = make_loader(data, split, network.config, BATCH)
batches = itertools.islice(loader, None if people is None else -(-people // BATCH))
batches = [to_device(batch, "cpu") for batch in batches]
table = measure(network, batches, mesh, samples=people)


@torch.inference_mode()
def look(person):
    """The prediction for the batch that contains a person, the batch, and the person's index in it."""
    batch = batches[person // BATCH]
    return run_network(network, batch), batch, person % BATCH


def show(chosen):
    rows, labels = [], []
    for person in chosen:
        prediction, batch, index = look(person)
        rows.append(prediction_pictures(prediction, batch, mesh, index))
        labels.append(f"{table['mpjpe'][person]:.0f} / {table['pa_mpjpe'][person]:.0f} mm")
    picture_grid(rows, PREDICTION_TITLES, labels, side=1.5)
    plt.show()


scores = summarise(table)["metrics"]
Markdown(
    f"The network is `{network.config.name}`: {sum(p.numel() for p in network.parameters()):,} parameters, "
    f"trained on {metadata.get('images', 0):,} images for {metadata.get('seconds', 0) / 3600:.1f} hours. On these "
    f"{len(table['key'])} people its MPJPE is {scores['mpjpe']['mean']:.0f} mm, its PA-MPJPE "
    f"{scores['pa_mpjpe']['mean']:.0f} mm."
)

# %% [markdown]
# ## The first ones
#
# Left to right: the crop; the parts as rendered and as predicted; the person's depth as rendered and as
# predicted, near is bright; the predicted body over the crop, in the predicted place. Beside each row the
# person's MPJPE and PA-MPJPE. The true parts show the whole body, the true depth only what is in sight.

# %% tags=["hide-input"]
show(range(min(shown, len(table["key"]))))

# %% [markdown]
# ## The best, the middling, the worst
#
# The same for the people with the smallest errors, with errors around the median, and with the largest. What
# the worst have in common is worth a look: people cut off by the image's edge or hidden by others, bodies
# turned about, and left taken for right.

# %% tags=["hide-input"]
order = np.argsort(table["mpjpe"])
few = min(shown, len(order))
show(order[:few])

# %% tags=["hide-input"]
middle = len(order) // 2 - few // 2
show(order[middle : middle + few])

# %% tags=["hide-input"]
show(order[::-1][:few])

# %% [markdown]
# ## How the errors are spread
#
# One dot a person: the error of the whole pose against the error of the orientation alone. Where the two
# rise together, the person was seen facing the wrong way; the vertical spread at the left is what limbs and
# shape contribute.

# %% tags=["hide-input"]
figure, axis = plt.subplots(figsize=(7, 3.2))
axis.scatter(table["orientation"], table["mpjpe"], s=12, color="#0072B2", alpha=0.6, linewidths=0)
axis.set_xlabel("error of the orientation (°)")
axis.set_ylabel("MPJPE (mm)")
axis.set_ylim(bottom=0)
style_axis(axis)
plt.show()

# %% tags=["hide-input"]
turned = table["orientation"] > 90
Markdown(
    f"{100 * turned.mean():.0f} % of these people are seen more than 90° away from where they face. Their "
    f"mean MPJPE is {table['mpjpe'][turned].mean() if turned.any() else 0:.0f} mm, that of the others "
    f"{table['mpjpe'][~turned].mean() if (~turned).any() else 0:.0f} mm."
)

# %% [markdown]
# ## In three dimensions
#
# The person with the median error: the true body and the predicted one, pelvis on pelvis, seen as the camera
# saw them. Drag to turn, scroll to zoom, click a name to hide that body.

# %% tags=["hide-input"]
person = int(order[len(order) // 2])
prediction, batch, index = look(person)
one = slice(index, index + 1)
with torch.inference_mode():
    bodies = [
        mesh(batch["betas"][one], batch["pose"][one]),
        mesh(prediction.betas[one], prediction.rotmats[one]),
    ]
meshes = [(b.vertices[0] - b.joints[0, 1:3].mean(0)).numpy() for b in bodies]
plotly_html(mesh_figure(meshes, mesh.faces.numpy(), ["true", "predicted"]), height=520)
