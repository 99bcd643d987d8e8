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
# One network, one stage, one optimiser. This page trains it: here for a minute, on a GPU with the real data
# for days, in both cases with the same code and the same cells. To train in earnest, run the page with
# other parameters:
#
# ```bash
# papermill notebooks/train.ipynb run.ipynb -p steps 200000               # on a GPU, if there is one
# papermill notebooks/train.ipynb run.ipynb -p preset lite -p steps 4000  # an hour on two idle processor cores
# ```
#
# `dpose train` does the same on the command line.

# %% tags=["parameters"] nbmake={"mock": {"steps": 2, "batch_size": 4, "test_people": 8, "workers": 0}}
steps = 80  # optimizer steps; the paper: 200000
preset = "auto"  # "paper" on a GPU, "lite" otherwise; or mini, or one of them with -no-depth
data = None  # data root; None: $DPOSE_DATA, else the open data
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

# %% tags=["hide-input"]
import shutil
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown

import dpose
from dpose.data.loader import make_loader
from dpose.data.sources import find_shards
from dpose.evaluate import evaluate
from dpose.figures import (
    PREDICTION_TITLES,
    colour_depth,
    colour_parts,
    html_table,
    loss_curves,
    picture_grid,
    prediction_pictures,
    to_picture,
    validation_curves,
)
from dpose.losses import TERMS
from dpose.model import checkpoint
from dpose.model.encoder import BACKBONES
from dpose.model.inference import run_network, to_device
from dpose.paths import shard_folder
from dpose.results import read_json, totals
from dpose.training import TrainConfig, train

# %% [markdown]
# ## What will be run
#
# A parameter left at `None` is filled in from the preset's recipe. The `paper` recipe is the paper's: Adam at
# a constant $10^{-5}$, 200,000 steps of 64 images, gradients clipped at a norm of 1.5. The authors start
# from an encoder trained on COCO keypoints; so does this page if `init` is the path of those weights
# (`pose_hrnet_w48_256x192.pth`, which HRNet's authors publish). Without them the encoder starts from random
# weights, for which a rate of $10^{-5}$ is too small.
#
# The recipes of the small networks, `lite` and `mini`, are ours and made for two processor cores: a far higher
# rate, which rises first and then falls along a cosine; another balance of the losses; every eighth vertex in
# the vertex loss; other augmentation, with mirrored images; output layers that start at the frequencies of the
# training set. `lite` starts from a backbone that has learned keypoints in photographs and keeps its weights
# fixed ([photographs](photographs.ipynb)); `mini` starts from random weights.

# %% tags=["hide-input"]
if out is None and resume is None:
    out = Path("runs") / (f"{datetime.now():%Y-%m-%d-%H%M%S}" if steps >= 1000 else "short")
    if out.name == "short":
        shutil.rmtree(out, ignore_errors=True)
config = TrainConfig(
    preset=preset,
    data=data,
    out=out,
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
    log_every=max(1, min(20, steps // 40)),
).resolve()
recipe, network = config.recipe, dpose.preset(config.preset)
splits = {path.name.rsplit("-", 1)[0] for path in shard_folder(config.data).glob("*.tar")}
measured_on = "test" if "test" in splits else "val"  # data of one's own may have no test split
find_shards(config.data, measured_on)  # better now than after the training
html_table(
    ("setting", "value"),
    [
        ("preset", config.preset),
        (
            "starting weights",
            Path(init or resume).name
            if init or resume
            else BACKBONES[network.encoder].asset
            if network.encoder in BACKBONES
            else "random",
        ),
        ("steps x batch size", f"{recipe.steps:,} x {recipe.batch_size}"),
        ("learning rate", f"{recipe.lr:g}, {recipe.decay}, {100 * recipe.warmup:.0f} % warm-up"),
        ("gradient norm, at most", f"{recipe.clip:g}"),
        ("arithmetic of the network", recipe.precision),
        ("vertices in the loss", "all" if recipe.vertex_stride == 1 else f"1 in {recipe.vertex_stride}"),
        ("loss weights", ", ".join(f"{term} {recipe.weights.of(term):g}" for term in TERMS)),
        (
            "augmentation",
            ", ".join(f"{k} {v}" for k, v in asdict(recipe.augmentation).items() if k.endswith("_p")),
        ),
        ("seed", str(config.seed)),
    ],
    "The run",
)

# %% [markdown]
# ## What the network gets to see
#
# Crops as the loader hands them out, augmented: mirrored, shifted, blurred, recoloured, partly covered. Below
# each image its two targets, the parts of the body and the person's depth (bright is near). Both are rendered
# or read for this very crop. Where something in the scene hides the person, depth is left out, while the parts
# go on; the augmentation's boxes of noise cover the image only, and both targets go on beneath them.

# %% tags=["hide-input"]
batch = next(
    iter(
        make_loader(
            config.data, "train", network, 8, train=True, seed=config.seed, augment=recipe.augmentation
        )
    )
)
batch = to_device(batch, "cpu")
pictures = [
    list(to_picture(batch["image"])),
    list(colour_parts(batch["parts"].numpy())),
    list(colour_depth(batch["depth"][:, 0].numpy())),
]
picture_grid(pictures, labels=("image", "parts", "depth"), side=1.15)
plt.show()

# %% [markdown]
# ## The run

# %%
result = train(config)
Markdown(
    f"{result.steps:,} steps in {result.seconds:.0f} s, {result.images_per_second:.0f} images/s. "
    f"The weights are in `{result.checkpoint}`; `resume='{result.resume}'` goes on from here."
)

# %% [markdown]
# Every term of the loss, each in its own unit and before weighting. Which falls first depends on the weights.

# %% tags=["hide-input"]
loss_curves(result.log)
plt.show()

# %% [markdown]
# ## Validation
#
# About twenty times per run the network is measured on 256 people of the validation split, never of the test
# split: MPJPE, PA-MPJPE and MVE, the part map's IoU, and the depth error as a share of the best constant's.
# `val.csv` has a row per validation, `curves.png` draws them beside the loss, `samples/` shows four people each
# time, and `best.safetensors` keeps the weights with the smallest MPJPE. A validation changes neither weights
# nor random state: the run takes the same steps with and without it. `--validate-every` sets the interval.

# %% tags=["hide-input"]
if (result.checkpoint.parent / "val.csv").exists():
    validation_curves(result.checkpoint.parent / "val.csv", result.log)
    plt.show()

# %% [markdown]
# ## Better than a constant?
#
# An error in millimetres means little without something to hold it against. The *mean pose* is the answer of
# somebody who has not looked: the average pose of the training set, the same for every image. *With the true
# orientation* it is told which way the person faces. For depth, the constant is the one number that fits the
# test pixels best. A ratio below 1 means that looking has helped. MPJPE is the mean distance of the joints,
# PA-MPJPE the same after the best rotation, scale and shift, MVE that of all vertices.

# %% tags=["hide-input"]
measured = evaluate(
    result.checkpoint,
    config.data,
    measured_on,
    samples=test_people,
    workers=config.workers,
    body=body,
    progress=False,
)
ERRORS = {
    "mpjpe": "MPJPE (mm)",
    "pa_mpjpe": "PA-MPJPE (mm)",
    "mve": "MVE (mm)",
    "orientation": "orientation (°)",
}
rows = []
for name, label in ERRORS.items():
    score, constant = measured["metrics"][name], measured["baselines"]["mean_pose"][name]["mean"]
    told = measured["baselines"]["mean_pose_true_orientation"].get(name)
    span = "{:.0f} to {:.0f}".format(*score["ci95"])
    told_text = f"{told['mean']:.0f}" if told else "0"
    rows.append(
        (label, f"{score['mean']:.0f}", span, f"{constant:.0f}", told_text, f"{score['mean'] / constant:.2f}")
    )
if "depth_l1" in measured["metrics"]:
    score = measured["metrics"]["depth_l1"]
    constant = measured["baselines"]["constant_depth"]["depth_l1"]["mean"]
    span = "{:.3f} to {:.3f}".format(*score["ci95"])
    rows.append(
        (
            "depth, person's pixels",
            f"{score['mean']:.3f}",
            span,
            f"{constant:.3f}",
            "",
            f"{score['mean'] / constant:.2f}",
        )
    )
score = measured["metrics"]["parts_miou"]
span = "{:.3f} to {:.3f}".format(*score["ci95"])
rows.append(("parts, mean IoU (more is better)", f"{score['mean']:.3f}", span, "", "", ""))
html_table(
    ("", "this run", "95 % interval", "constant", "with true orientation", "ratio"),
    rows,
    f"{measured['samples']} people of the {measured_on} split, unseen in training",
)

# %% [markdown]
# ## A look
#
# The first test people, and what the network makes of them after this much training. How a longer training
# looks is on the page of [examples](qualitative.ipynb).

# %% tags=["hide-input"]
model = dpose.load(result.checkpoint)
mesh = dpose.load_body(body or checkpoint.metadata(result.checkpoint)["body"]["name"])
batch = to_device(next(iter(make_loader(config.data, measured_on, network, batch_size=4))), "cpu")
with torch.inference_mode():
    said = run_network(model, batch)
    rows = [prediction_pictures(said, batch, mesh, i) for i in range(len(batch["key"]))]
picture_grid(rows, PREDICTION_TITLES, side=1.5)
plt.show()

# %% [markdown]
# ## Larger runs
#
# **Data without files.** `--data synth:` renders people in the loader processes, from the generator's seed and
# the number of the scene alone, so that the network never sees a picture twice. The stream is resumed like any
# other. `synth:seed=7,size=280` sets the seed and the side of the crops; `--data synth:seed=1 FOLDER --mix 1 3`
# mixes such people with a folder of shards.
#
# **An array of jobs** makes a large data set on a shared folder; the last job writes the manifest, and the
# files are those of one run, byte for byte. `dpose prepare` takes the same option:
#
# ```bash
# sbatch --array=1-16 --wrap \
#   'dpose synth --root DIR --train 1000000 --part $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT'
# ```
#
# **Several GPUs and nodes.** `--devices auto` uses all GPUs of a machine. On several machines the same command is
# started on each, by torchrun or by srun; the batch is divided over all processes:
#
# ```bash
# torchrun --nnodes 2 --nproc-per-node 8 ... -m dpose.cli train --nodes 2 --devices 8 --preset paper --out /shared/run
# srun --nodes 2 --ntasks-per-node 8 dpose train --nodes 2 --devices 8 --preset paper --out /shared/run
# ```
#
# `--accumulate 4` handles the batch of a step in four pieces, for a quarter of the memory. If a process dies,
# the run ends with a message, and `--resume` goes on from the last checkpoint, on the same number of devices
# exactly.

# %% tags=["hide-input"]
repository = Path(dpose.__file__).parents[1]
speeds = []
if (repository / "results" / "training_speed.json").exists():
    for case in read_json(repository / "results" / "training_speed.json")["cases"]:
        cpu, precision = case["cpu"], {"32": "float32"}.get(case["precision"], case["precision"])
        speeds.append(
            f"{cpu['full']:.0f} images per second of processor time in {precision}, {cpu['ratio']:.0%} of what "
            "forward and backward pass alone reach"
        )
Markdown(
    f"**Speed.** The full step of `{case['preset']}` (loading, augmentation, losses, clipping, Adam, logging) "
    f"processes {'; '.join(speeds)} ({case['hardware']['cpu']}, `benchmarks/train_throughput.py`)."
    if speeds
    else ""
)

# %% [markdown]
# ## The long run
#
# The network that comes with the package was trained by the same code for longer. These are its losses, read
# from the log of its last run; the model card lies beside the weights in `dpose/assets`.

# %% tags=["hide-input"]
shipped = "lite"
long_log = repository / "results" / f"{shipped}-log.csv"
if long_log.exists():
    loss_curves(long_log)
    plt.show()

# %% tags=["hide-input"]
facts = checkpoint.metadata(shipped)
training = totals(facts)  # with the runs whose weights it started from
text = (
    f"`{shipped}` was trained in {training['runs']} runs, {training['images']:,} images in "
    f"{training['seconds'] / 3600:.1f} hours on {facts['hardware']['cores']} processor cores. The curves are of the last run."
)
long_result = repository / "results" / f"{shipped}.json"
if long_result.exists():
    scores = read_json(long_result)
    text += (
        f" On {scores['samples']:,} test people its MPJPE is {scores['metrics']['mpjpe']['mean']:.0f} mm, "
        f"{scores['ratios']['mpjpe']:.2f} times that of the mean pose; all its scores are on the page of "
        "[tables](tables.ipynb)."
    )
Markdown(text)
