# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training
#
# This page trains the network: one stage, one {term}`optimiser`, all losses at once. It explains what a training step does and
# which settings the paper uses {cite:p}`dpose`, runs a few steps while the book is built, measures the outcome against
# constant predictions, and then shows the log of the long run behind the shipped network `lite`.
#
# :::{chapter}
# :needs: [The losses](losses.ipynb), [metrics](metrics.ipynb); gradient descent
# :learn: the five parts of a training step; the settings of the paper and of the small networks; how several data sets are mixed; how to judge a training run; the commands for a run of 200,000 steps
# :::

# %% tags=["parameters", "hide-input"] nbmake={"mock": {"steps": 2, "batch_size": 4, "test_people": 8, "workers": 0}} mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
steps = 60  # optimizer steps; the paper: 200000
preset = "auto"  # "paper" on a GPU, "lite" otherwise; or mini, or one of them with -no-depth
data = None  # data root, or a list of several; None: $DPOSE_DATA, else the open data
mix = None  # weights of several data sets; None: their numbers of people
batch_size = None  # samples a step, over all devices; None: the recipe's
lr = None  # learning rate; None: the recipe's
seed = None  # of weights, data order and augmentation; None: 0, or the resumed run's
resume = None  # last.ckpt of a run to go on with
init = None  # weights to start from: a checkpoint, or HRNet's of COCO keypoints for the encoder, or "random"
out = None  # run folder; None: a new one below runs/, or runs/short for less than 1000 steps
body = None  # body model file; None: the body that the data name
accelerator = None  # cpu, cuda, ...; None: a GPU if there is one
devices = None  # how many, or "auto"; None: 1
workers = None  # loader processes; None: as many as there are spare cores
test_people = 256  # how many are measured at the end; None: all

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import os
import shutil
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display
from matplotlib.text import Text

import dpose
from dpose.data.loader import make_loader
from dpose.data.sources import find_shards
from dpose.evaluate import evaluate
from dpose.figures import (
    INK,
    PREDICTION_TITLES,
    colour_depth,
    colour_parts,
    html_table,
    label_ends,
    picture_grid,
    prediction_pictures,
    read_log,
    style_axis,
    to_picture,
    validation_curves,
)
from dpose.losses import compute_losses
from dpose.model import checkpoint
from dpose.model.encoder import BACKBONES
from dpose.model.inference import run_network, to_device
from dpose.paths import data_roots, is_url, shard_folder
from dpose.results import lineage, read_json, totals
from dpose.training import TrainConfig, recipe, train
from dpose.training.recipe import learning_rate

plt.rcParams["figure.dpi"] = 130
repository = Path(dpose.__file__).parents[1]
BLUE, ORANGE, GREEN, PINK = "#127CB7", "#C15500", "#008662", "#A36085"  # 4.5:1 on white and on black


def duration(seconds):
    """A time in seconds, minutes, hours or days, whichever is readable."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def circumstances(facts):
    """Network, batch, arithmetic and processes of a run, from the metadata of its checkpoint."""
    machine, precision = facts["hardware"], facts["precision"]["name"]
    processes, threads, loaders = facts["devices"], machine["threads"], facts["workers"]
    where = (
        ", ".join(machine.get("gpus", ())) or f"{threads} thread{'s' * (threads != 1)} of {machine['cpu']}"
    )
    return (
        f"`{facts['preset']}`, batches of {facts['recipe']['batch_size']}, "
        f"{'float32' if precision == '32' else precision}, {processes} process{'es' * (processes != 1)} on {where}"
        f"{' each' * (processes != 1)}, {loaders or 'no'} loader process{'es' * (loaders != 1)}"
    )


def run_folder():
    if out is not None or resume is not None:
        return out
    folder = Path("runs") / (f"{datetime.now():%Y-%m-%d-%H%M%S}" if steps >= 1000 else "short")
    if folder.name == "short":
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def measured_split(data):
    """The data set and split to measure on, preferably "test": (folder, name). Raises if there is none."""
    folders = [root for root in data_roots(data) if not is_url(root)]
    folders += [] if folders else [data_roots()[0]]  # `synth:` or a URL alone: the default data
    for split in ("test", "val"):
        for folder in folders:
            if any(shard_folder(folder).glob(f"{split}-*.tar")):
                find_shards(folder, split)
                return folder, split
    raise ValueError(f"none of {', '.join(map(str, folders))} has a split test or val to measure on")


config = TrainConfig(
    preset=preset,
    data=data,
    mix=mix,
    out=run_folder(),
    steps=steps,
    batch_size=batch_size,
    lr=lr,
    seed=seed,
    resume=resume,
    init=init,
    body=body,
    accelerator=accelerator,
    devices=devices,
    workers=workers,
    log_every=max(1, min(20, steps // 30)),
).resolve()
settings, network = config.recipe, dpose.preset(config.preset)
measured_data, measured_on = measured_split(config.data)  # better now than after the training

# %% [markdown]
# ## One step
#
# A training step needs five things: a batch, a prediction, the loss, its gradient, and the optimiser that changes
# the weights. In code, for a batch of 16 people and the network `lite`:

# %%
model, mesh = dpose.load("lite").train(), dpose.load_body()
optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
loader = make_loader(config.data, "train", dpose.preset("lite"), batch_size=16)

batch = to_device(next(iter(loader)), "cpu")  # 1. images, labels and targets
prediction = run_network(model, batch)  # 2. maps, rotations, shape, camera
loss = compute_losses(prediction, batch, mesh, recipe("lite").weights)["total"]  # 3. eqs. 1 to 4
loss.backward()  # 4. the gradient with respect to all weights, its norm clipped
norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.5)
optimiser.step()  # 5. new weights

# %% tags=["remove-input"]
assert loss.isfinite() and norm.isfinite()
Markdown(
    f"The loss is {loss:.2f} and the norm of its gradient {norm:.2f}; clipping reduces the norm to 1.5 if it is larger. (A run of "
    f"`lite` multiplies the rate of its pretrained backbone by {recipe('lite').backbone_lr:g}; this is left out here.) "
    "Training repeats this with new batches. {py:obj}`dpose.training.step.Training` is the same step for several devices, and "
    "{py:obj}`dpose.training.run.train` runs it, with the order of the data, logs, checkpoints and validation."
)

# %% [markdown]
# ## The settings of the paper
#
# The paper trains for 200,000 steps of 64 images with Adam, without weight decay, at a constant learning rate of
# $10^{-5}$. Gradients are clipped at 1.5. (The paper says "value"; the released code clips the norm, and so
# does this implementation.) There is one stage: no part of the network is trained before another one, and no loss is
# switched off. The encoder starts from weights that were trained on keypoints of COCO; HRNet's authors publish them as
# `pose_hrnet_w48_256x192.pth`. From random weights a rate of $10^{-5}$ is too small, and training warns of that. The paper
# reports three days on one GPU.
#
# ## The settings of the small networks
#
# `lite` and `mini` are made for two processor cores, where 200,000 steps are out of reach. Their recipes differ
# from the paper's as follows.
#
# - *Learning rate.* It is far higher, rises linearly at the start (warm-up) and then falls along a cosine.
# - *Losses.* The weights favour the maps, see [the losses](losses.ipynb). Only every eighth vertex is in the vertex term.
# - *Augmentation.* Crops vary less than in the paper, and half of the images are mirrored.
# - *Data.* Both are trained on more people than `dpose synth` makes by default. Their model cards, `dpose/assets/lite.md` and
#   `dpose/assets/mini.md`, have the commands of all runs and the fingerprints of the data.
# - *Start.* `lite` takes a backbone that was trained on keypoints in photographs and keeps it fixed at first; in its last run
#   the backbone is trained, too, at a lower rate than the other layers ([photographs](photographs.ipynb)). `mini` starts from random weights. In both, the last layers of the decoders start at
#   the class frequencies and the mean depth of the training set.

# %% tags=["remove-input"]
ours, theirs = recipe("lite"), recipe("paper")
higher = [f"{recipe(name).lr / theirs.lr:.0f} times (`{name}`)" for name in ("lite", "mini")]
Markdown(
    f"The highest learning rates are {' and '.join(higher)} the paper's. That of `lite` is reached after {100 * ours.warmup:.0f} % of a "
    f"run; at the end the rate is {100 * ours.final_lr:.0f} % of it. The rate of its backbone, if it is trained, is {ours.backbone_lr:g} times that of the other layers."
)

# %% [markdown]
# ## Several data sets
#
# The paper trains on two data sets, BEDLAM and AGORA. A batch is drawn person by person: the next person comes from data
# set $i$ with the probability $w_i / \sum_k w_k$. By default the weight of a set is its number of people, so that all
# people count alike; `--mix` sets other weights. Each set is shuffled by itself and starts over at its end. People without depth
# have no depth loss (see [the losses](losses.ipynb), *Samples without depth*). All sets must be labelled with the same body model.
#
# Data can also be rendered while training: `--data synth:` makes people in the loader processes, from a seed and the
# number of the scene, so that no image is used twice.
#
# ```sh
# dpose train --data ~/shards/bedlam ~/shards/agora --mix 4 1 --preset paper \
#   --init pose_hrnet_w48_256x192.pth
# dpose train --data synth:seed=1 ~/shards/mine --mix 1 3 --preset lite
# ```
#
# ## A short run
#
# The next sections are about a real training run, with these settings:

# %% tags=["remove-input"]
starting = (
    Path(init or resume).name
    if init or resume
    else BACKBONES[network.encoder].asset
    if network.encoder in BACKBONES
    else "random"
)
CHANGES = {  # what is set in the augmentation: strengths and chances
    "scale_sigma": "scale",
    "shift_sigma": "place",
    "half_crop_p": "upper or lower part of the box",
    "flip_p": "mirror image",
    "fault_p": "blur, JPEG, rain, ...",
    "colour_p": "colours",
    "occlusion_p": "rectangles of noise",
}
assert {field.name for field in fields(settings.augmentation) if field.name.endswith("_p")} <= set(CHANGES)
changed = [what for name, what in CHANGES.items() if getattr(settings.augmentation, name)]
html_table(
    ("setting", "value"),
    [
        ("preset", config.preset),
        ("data", ", ".join(Path(str(root)).name for root in data_roots(config.data))),
        ("starting weights", starting),
        ("steps", f"{settings.steps:,} of {settings.batch_size} images"),
        ("learning rate", f"{settings.lr:.6f}".rstrip("0") + f", {settings.decay}"),
        ("warm-up", f"{100 * settings.warmup:.0f} % of the steps"),
        ("largest gradient norm", f"{settings.clip:g}"),
        ("arithmetic of the network", {"32": "float32"}.get(settings.precision, settings.precision)),
        ("vertices in the loss", "all" if settings.vertex_stride == 1 else f"1 in {settings.vertex_stride}"),
        ("augmentation", "; ".join(changed) or "none"),
        ("seed", str(config.seed)),
    ],
    "Settings of the run",
    align="ll",
)

# %% [markdown]
# The network receives the crops of {numref}`fig-batch`. They are changed at random every time: mirrored, shifted, scaled,
# blurred, recoloured, partly covered. The two targets are cut out in the same way. Where an object
# in the scene hides the person, the depth target is empty while the part labels continue, because parts are drawn from the body alone; the rectangles of noise of the augmentation
# cover the image only, and both targets continue behind them.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Augmented training images and their targets: body parts, and the depth of the visible person (yellow: near, blue: far).", "name": "fig-batch"}, "image": {"alt": "Three rows of six pictures: crops of rendered people, some blurred, recoloured or partly covered; their body parts in colours; and their silhouettes shaded by depth, in some cases with parts missing."}}
augmented = make_loader(
    config.data,
    "train",
    network,
    6,
    train=True,
    seed=config.seed,
    mix=config.mix,
    augment=settings.augmentation,
)
batch = to_device(next(iter(augmented)), "cpu")
pictures = [
    list(to_picture(batch["image"])),
    list(colour_parts(batch["parts"].numpy())),
    list(colour_depth(batch["depth"][:, 0].numpy())),
]
picture_grid(pictures, labels=("image", "parts", "depth"), side=1.22)
plt.show()

# %%
result = train(config)

# %% tags=["remove-input"]
images = result.steps * settings.batch_size
whole_run = recipe("paper").steps * recipe("paper").batch_size
smoke = (
    f"This is a smoke test: it shows that everything works, not what the method can do. The paper's training has "
    f"{whole_run / images:,.0f} times as many images."
)
Markdown(
    f"{result.steps:,} steps, {images:,} images, in {duration(result.seconds)} of wall time, and {result.images_per_second:.0f} images per second "
    f"after the first step ({circumstances(checkpoint.metadata(result.checkpoint))}; load of the machine, all programs together: "
    f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores). [Performance](performance.ipynb) has speeds that were measured on an idle machine. "
    + (smoke if result.steps < 1000 else "")
)

# %% [markdown]
# {numref}`fig-short-losses` shows every term of the loss, before weighting, relative to its mean over the first fifth of the steps.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The terms of the loss during the short run, divided by their mean over the first fifth of the steps: of the maps (left) and of the body (right). The vertical axes are logarithmic.", "name": "fig-short-losses"}, "image": {"alt": "Two line charts on a common logarithmic axis. On the left the three curves of the maps fall slowly; on the right those of the joints fall with large fluctuations, those of vertices, pose and shape a little."}}
TERMS = (
    {"depth_l1": "depth", "depth_ssim": "1 − SSIM", "segm": "parts"},
    {
        "pose": "pose",
        "shape": "shape",
        "joints3d": "3D joints",
        "vertices": "vertices",
        "joints2d": "2D joints",
    },
)
log = read_log(result.log)
part = max(1, len(log["step"]) // 5)
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.4), sharey=True, layout="constrained")
for axis, names in zip(axes, TERMS, strict=True):
    axis.ends = {}
    for (name, text), colour in zip(names.items(), (BLUE, ORANGE, GREEN, PINK, INK), strict=False):
        if log.get(name, np.zeros(1))[0] > 0:
            relative = log[name] / log[name][:part].mean()
            axis.semilogy(log["step"], relative, color=colour, linewidth=1.5)
            axis.ends[text] = colour, relative[-1]
    axis.set(xlabel="step")
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
limits = axes[0].get_ylim()
ticks = [tick for tick in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5) if limits[0] <= tick <= limits[1]]
for axis in axes:
    axis.minorticks_off()
    axis.set(yticks=ticks, yticklabels=[f"{tick:g}" for tick in ticks], ylim=limits)
    label_ends(axis, axis.ends)
axes[0].set_ylabel("term / mean of the first fifth")
plt.show()

# %% tags=["remove-input"]
change = {
    text: 100 * (log[name][-part:].mean() / max(log[name][:part].mean(), 1e-12) - 1)
    for names in TERMS
    for name, text in names.items()
    if name in log
}
texts = ", ".join(f"{text} {value:+.0f} %".replace("-", "−") for text, value in change.items())
Markdown(f"Change from the first to the last fifth of the steps: {texts}.")

# %% [markdown]
# ## Compared with constants
#
# An error in millimetres says little alone. It is compared with three constants that use no image: the *mean pose* of
# the training set, the same for all people, with its own orientation; the mean pose with the *true* {term}`global orientation`; and, for depth, the one value
# that fits the test pixels best. A ratio below 1 means that the network does better than the constant.
# The [metrics](metrics.ipynb) page defines the errors.

# %% tags=["remove-input"]
measured = evaluate(
    result.checkpoint,
    measured_data,
    measured_on,
    samples=test_people,
    workers=config.workers,
    body=body,
    progress=False,
)
ERRORS = {
    "mpjpe": ("MPJPE, mm", 0),
    "pa_mpjpe": ("PA-MPJPE, mm", 0),
    "mve": ("MVE, mm", 0),
    "orientation": ("orientation, °", 0),
    "depth_l1": ("depth, person's pixels", 3),
    "parts_miou": ("parts, mean IoU (1 is best)", 3),
}
baselines = measured["baselines"]
rows, ratios = [], {}
for name, (label, digits) in ERRORS.items():
    if name not in measured["metrics"]:
        continue
    score = measured["metrics"][name]
    span = "–" if score["ci95"] is None else "{:.{d}f} to {:.{d}f}".format(*score["ci95"], d=digits)
    kind = "constant_depth" if name == "depth_l1" else "mean_pose"
    constant = baselines.get(kind, {}).get(name)
    oriented = baselines.get("mean_pose_true_orientation", {}).get(name)
    if constant:
        ratios[name] = score["mean"] / constant["mean"]
        shown = round(score["mean"], digits) / round(constant["mean"], digits)  # of the numbers in the table
    rows.append(
        (
            label,
            f"{score['mean']:.{digits}f}",
            span,
            f"{constant['mean']:.{digits}f}" if constant else "–",
            f"{oriented['mean']:.{digits}f}" if oriented else "–",
            f"{shown:.2f}" if constant else "–",
        )
    )
html_table(
    ("error", "this run", "95 % interval", "constant", "with true orientation", "ratio to constant"),
    rows,
    f"{measured['samples']} people of the {measured_on} split, who are not in the training data; bootstrap intervals over their scenes",
)

# %% tags=["remove-input"]
mpjpe, pa = measured["metrics"]["mpjpe"]["mean"], measured["metrics"]["pa_mpjpe"]["ci95"]
turned = baselines.get("mean_pose_true_orientation", {}).get("mpjpe")
notes = []
if turned:
    relation = "below" if mpjpe < turned["mean"] else "not below"
    notes.append(f"Its MPJPE is {relation} that of the mean pose with true orientation. ")
if pa and "pa_mpjpe" in ratios and pa[0] <= baselines["mean_pose"]["pa_mpjpe"]["mean"] <= pa[1]:
    notes.append("The interval of its PA-MPJPE contains the value of the mean pose. ")
worse = [ERRORS[name][0].split(",")[0] for name, ratio in ratios.items() if ratio >= 1]
Markdown(
    f"After {result.steps:,} steps the run is "
    + (
        f"no better than the constant in {', '.join(worse)}. "
        if worse
        else "better than the constant on average in each error that has one. "
    )
    + "".join(notes)
    + ("It has not learned to predict poses yet." if ratios.get("pa_mpjpe", 0) >= 1 else "")
)

# %% [markdown]
# {numref}`fig-short-predictions` shows predictions of this run; those of a longer training are on the page of
# [predictions](qualitative.ipynb).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The first people of the measured split, with the network of the short run.", "name": "fig-short-predictions"}, "image": {"alt": "Three rows of six pictures for one person each: the crop, true and predicted parts, true and predicted depth, and the predicted mesh over the crop."}}
model = dpose.load(result.checkpoint)
mesh = dpose.load_body(body or checkpoint.metadata(result.checkpoint)["body"]["name"])
batch = to_device(next(iter(make_loader(measured_data, measured_on, network, batch_size=3))), "cpu")
with torch.inference_mode():
    prediction = run_network(model, batch)
    rows = [prediction_pictures(prediction, batch, mesh, i) for i in range(len(batch["key"]))]
picture_grid(rows, PREDICTION_TITLES, side=1.24)
plt.show()

# %% tags=["remove-input"]
found, wanted = (
    100 * (parts > 0).float().mean().item() for parts in (prediction.parts.argmax(1), batch["parts"])
)
Markdown(
    f"The run is too short for the maps: the network assigns {found:.0f} % of these pixels to a part, where {wanted:.0f} % would be right. "
    "So the predicted parts are almost empty, and the predicted depth, which is drawn on the pixels of predicted parts only, is, too."
) if found < 0.1 * wanted else None

# %% [markdown]
# ## Validation
#
# A longer run is measured while it trains, every twentieth of its steps (but at least 200 steps apart), on 256 people of the validation split. The
# test split is never used. Each validation adds a row to `val.csv`, draws `curves.png`, stores the predictions for four people in
# `samples/`, and keeps the weights with the smallest MPJPE as `best.safetensors`. It changes neither weights nor random
# numbers, so that the run takes the same steps with and without it. `--validate-every` sets the interval.

# %% tags=["remove-input"] mystnb={"figure": {"caption": "The validations of this run.", "name": "fig-validation"}, "image": {"alt": "Four line charts against the step: joint errors, overlap of the parts, depth error and training loss."}}
if (result.checkpoint.parent / "val.csv").exists():
    figure = validation_curves(result.checkpoint.parent / "val.csv", result.log)
    figure.set_size_inches(7.5, 4.2)
    for text in figure.findobj(Text):
        text.set_fontsize(9)
    figure.tight_layout(pad=0.5)
    display(figure)

# %% [markdown]
# ## The long run
#
# The shipped network `lite` was trained by the same code, in several runs, each of which started from the weights of the one
# before. {numref}`fig-long-run` is the log of the last of them.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The last training run of lite: total loss of the training batches, averaged over each row of the log, and errors on 256 people of the validation split.", "name": "fig-long-run"}, "image": {"alt": "Two line charts against the number of images. The training loss falls slowly, with small fluctuations; of the two validation errors, MPJPE is above PA-MPJPE, and both fall, fast at first, and level off."}}
log = read_log(repository / "results" / "lite-log.csv")
validation = read_log(repository / "results" / "lite-val.csv")
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.1), layout="constrained")
axes[0].plot(log["images"] / 1000, log["total"], color=BLUE, linewidth=1.4)
axes[0].set(title="training loss, total", ylim=(0, None))
for name, label, colour in (("mpjpe", "MPJPE", BLUE), ("pa_mpjpe", "PA-MPJPE", ORANGE)):
    axes[1].plot(validation["images"] / 1000, validation[name], ".-", color=colour)
    height = validation[name][-1]
    axes[1].annotate(
        label,
        (validation["images"][-1] / 1000, height),
        (6, 0),
        textcoords="offset points",
        color=colour,
        va="center",
    )
axes[1].set(title="validation, mm", ylim=(0, None))
for axis in axes:
    axis.set(xlabel="images, thousands")
    axis.xaxis.set_major_locator(plt.MaxNLocator(4))
    axis.spines[["top", "right"]].set_visible(False)
    style_axis(axis)
plt.show()

# %% tags=["remove-input"]
facts = checkpoint.metadata("lite")
training = totals(facts)  # with the runs whose weights it started from
machine = facts["hardware"]
text = (
    f"All runs together have {training['images']:,} images, in {duration(training['seconds'])} on {machine['cores']} cores ({machine['cpu']}); "
    f"the last run has {facts['images']:,} images at {facts['images'] / facts['seconds']:.0f} per second of wall time, with a validation every "
    f"{facts['validate_every']:,} steps ({circumstances(facts)}). "
)
if facts.get("init") and "recipe" in facts["init"]:
    text += "A new run begins with a warm-up and with fresh statistics of the optimiser, so the loss need not fall at once. "
scores = read_json(repository / "results" / "lite.json")
text += (
    f"On {scores['samples']:,} test people its MPJPE is {scores['metrics']['mpjpe']['mean']:.0f} mm, "
    f"{scores['ratios']['mpjpe']:.2f} times that of the mean pose, and its PA-MPJPE {scores['metrics']['pa_mpjpe']['mean']:.0f} mm, "
    f"{scores['ratios']['pa_mpjpe']:.2f} times. All scores are in the [tables](tables.ipynb)."
)
rows = []
for number, run in enumerate(lineage(facts), 1):
    plan, rate = run["recipe"], run["recipe"].get("backbone_lr", 1)
    rows.append(
        (
            str(number),
            f"{run['step']:,} of {plan['steps']:,}",
            str(plan["batch_size"]),
            f"{run['images']:,}",
            f"trained at {rate:g} of the rate" if rate else "fixed",
        )
    )
history = html_table(
    ("run", "steps done, of planned", "batch", "images", "backbone"),
    rows,
    "The runs of lite. Those that did not reach their planned steps were stopped by hand; the model card has commands, data and reasons",
    align="lrrrl",
)
display(history, Markdown(text))

# %% [markdown]
# ## Run it yourself
#
# This page runs with other parameters by papermill, which writes a copy of the notebook with all figures. The first
# command is the paper's training, for a machine with a GPU; it needs the data sets, see
# [Real data, step by step](../book/real_data.md). The second trains `lite` on the open data.
#
# ```sh
# papermill notebooks/train.ipynb run.ipynb -p preset paper -p steps 200000 \
#   -p out runs/paper-seed0 -p seed 0 -p accelerator cuda \
#   -p init pose_hrnet_w48_256x192.pth \
#   -y "data: [$HOME/shards/bedlam, $HOME/shards/agora]"
# papermill notebooks/train.ipynb run.ipynb -p preset lite -p steps 4000
# ```
#
# With one data set `-p data ~/shards/bedlam` is enough; `-y "mix: [4, 1]"` sets the weights of several. A mistyped parameter is refused in the first cell. The
# same runs from the command line, and how an interrupted one continues:
#
# ```sh
# dpose train --preset paper --data ~/shards/bedlam ~/shards/agora \
#   --init pose_hrnet_w48_256x192.pth --seed 0 --accelerator cuda \
#   --out runs/paper-seed0
# dpose train --preset lite --steps 4000 --out runs/lite
# dpose train --resume runs/lite/last.ckpt
# ```
#
# On a GPU a run uses one device by default, on the CPU one process per core. `--devices auto` uses all GPUs of a machine. On several
# machines the same command is started on each, by torchrun or by srun, with the data at the same path and a run folder on a shared disk:
#
# ```sh
# torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
#   -m dpose.cli train --nodes 2 --devices 8 --preset paper --out runs/paper-16 \
#   --data ~/shards/bedlam ~/shards/agora --init pose_hrnet_w48_256x192.pth
# srun --nodes 2 --ntasks-per-node 8 \
#   dpose train --nodes 2 --devices 8 --preset paper --out runs/paper-16 \
#   --data ~/shards/bedlam ~/shards/agora --init pose_hrnet_w48_256x192.pth
# ```
#
# The batch is divided over all processes: in these two commands each of 16 has 4 of the 64 people. Batch norms and means of
# losses are over the share of a process, so the number of devices changes the training;
# [Real data, step by step](../book/real_data.md) explains how, and has the commands for one run per GPU. `--accumulate 4` computes
# the gradient in four pieces, for less memory; batch norms and means are then over a piece. Speeds of training are on the page
# [Performance](performance.ipynb).
#
# ## Takeaways
#
# - A training step is a batch, a prediction, the sum of all losses, a clipped gradient and an update by Adam; the
#   whole network is trained in one stage.
# - The paper uses a small constant learning rate, which needs a pretrained encoder; the small networks use a rate that
#   is much larger and decreases during the run.
# - Errors in millimetres need a comparison: a short run can lower most losses and still be no better than the mean pose
#   with true orientation.
#
# ## Exercises
#
# **Exercise 1.** At which share of a run has the learning rate of `lite` fallen to half of its maximum, and to a tenth? Draw
# the schedule.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution", "image": {"alt": "The learning rate of lite over a run: a short linear rise, then half a cosine"}}
ours = recipe("lite")
share = np.linspace(0, 1, 1001)
relative = np.array([learning_rate(int(s * (ours.steps - 1)), ours) for s in share]) / ours.lr
peak = int(relative.argmax())
reached = {part: share[peak:][relative[peak:] <= part][0] for part in (0.5, 0.1)}
assert abs(reached[0.5] - 0.51) < 0.01  # the middle of the cosine, after 2 % of warm-up

figure, axis = plt.subplots(figsize=(7, 2.4), layout="constrained")
axis.plot(share, relative, color=BLUE)
axis.plot(list(reached.values()), list(reached), "o", color=ORANGE)
axis.set(xlabel="share of the run", ylabel="rate / maximum")
style_axis(axis)
plt.show()
Markdown(
    "; ".join(f"{part:g} of the maximum at {100 * at:.0f} % of the run" for part, at in reached.items()) + "."
)

# %% [markdown]
# **Exercise 2.** The log has the norm of the gradient before clipping (`grad_norm`), averaged over the steps of a row. In
# how many rows of the logs of both runs is it above the limit? What does clipping do then?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
limit, lines = settings.clip, []
for name, path in (("long run", repository / "results" / "lite-log.csv"), ("short run", result.log)):
    norms = read_log(path)["grad_norm"]
    above = 100 * (norms > limit).mean()
    lines.append(
        f"{name}: {above:.0f} % of the rows above {limit:g} (median {np.median(norms):.2f}, largest {norms.max():.2f})"
    )
Markdown(
    f"{'; '.join(lines).capitalize()}. Clipping keeps the direction of a longer gradient and reduces its length to {limit:g}, so that "
    "a batch with large errors cannot change the weights more than others. Rows are averages: single steps may be above the limit "
    "where the row is not. What a common factor of the loss does together with clipping is exercise 1 of [Paper against code](paper_vs_code.ipynb)."
)

# %% [markdown]
# **Exercise 3.** How often did the shipped network `lite` use each training person, on average? Use the metadata of its
# checkpoint, earlier runs included. Compare with 200,000 steps of 64 on the million people of BEDLAM, as if they were the only data. (Its training data are larger
# than the open data that `dpose synth` makes by default; the model card `dpose/assets/lite.md` has the commands of all runs.)

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
samples = checkpoint.metadata("lite")["data_samples"]
counts = samples if isinstance(samples, list) else [samples]
endless = any(count is None or not np.isfinite(count) for count in counts)  # rendered while training
uses = "once, as they were rendered while training"
if not endless:
    uses = f"{totals(checkpoint.metadata('lite'))['images'] / sum(counts):.1f} times each"
Markdown(
    f"`lite` used its training people {uses}"
    + (
        ""
        if endless
        else f" ({totals(checkpoint.metadata('lite'))['images']:,} images of {sum(counts):,} people)"
    )
    + f". The paper's training would use BEDLAM's people {whole_run / 1e6:.1f} times each, if it used all of them and no others."
)
