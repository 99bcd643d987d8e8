# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From rendered people to photographs: the domain gap
#
# The open data show rendered people. A network that was trained on them predicts rendered people well and can fail on
# photographs, because cloth, hair, light, noise and crowds look different there. Such a difference between training and
# test images is a {term}`domain gap`. This page measures it, shows which choices made it smaller, and lists what remains.
#
# :::{chapter}
# :needs: [The encoder](encoder.ipynb), [Training](train.ipynb), [Metrics](metrics.ipynb)
# :learn: how a 3D network is measured on photographs that have 2D keypoints only; why a network can improve on rendered people and get worse on photographs; which errors remain on photographs; how to measure photographs of your own
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
keypoints = None  # a file of 2D keypoints in COCO's format; None: show the recorded measurement only
images = None  # folder of its images
checkpoint = "lite"  # a shipped network, or a .safetensors file

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import json
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import skimage
import torch
from IPython.display import Markdown
from scipy import stats

import dpose
from dpose import predictor
from dpose.camera import BOX_FACTOR
from dpose.data.loader import make_loader
from dpose.figures import (
    INK,
    NBSP,
    attention_overlay,
    colour_depth,
    colour_parts,
    html_table,
    listed,
    percent,
    picture_grid,
    signed,
    style_axis,
    to_picture,
)
from dpose.keypoints import MEASURES, THRESHOLDS, evaluate_keypoints
from dpose.metrics import similarity_align
from dpose.model.encoder import BACKBONES
from dpose.model.inference import to_device
from dpose.model.movenet import HEATMAP_SCALE, NUM_KEYPOINTS
from dpose.outcome import read_outcome

results = Path(dpose.__file__).parents[1] / "results"
LABELS = {f"pck_{share:g}": f"PCK@{share:g}" for share in THRESHOLDS[1:]} | {"error": "error / side"}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def change(new, old, digits):
    """Difference of two numbers as they are printed."""
    return signed(round(new, digits) - round(old, digits), digits)


def with_interval(score):
    low, high = score["ci95"] or [score["mean"]] * 2
    return f"{score['mean']:.3f} [{low:.3f}, {high:.3f}]"


def share_with_interval(score):
    low, high = (f"{100 * end:.0f}" for end in score["ci95"] or [score["mean"]] * 2)
    return f"{percent(score['mean'])} [{low}, {high}]"


trials = {path.stem: read(path) for path in sorted((results / "trials").glob("*.json"))}
trials = {name: record for name, record in trials.items() if "photos" in record}
photos, rendered = (  # network -> record of 2D keypoints
    {name: read(path) for name in ("lite", "mini") if (path := results / f"{name}-{kind}.json").exists()}
    for kind in ("photos", "rendered")
)
NOTHING = Markdown("*Not measured yet.*")


def scores(record):
    """Of a trial: MPJPE and PA-MPJPE in mm on rendered people; PCK@0.1, error and its interval on photographs."""
    val, on_photos = record["val"]["metrics"], record["photos"]["metrics"]
    return {
        "mpjpe": val["mpjpe"]["mean"],
        "pa_mpjpe": val["pa_mpjpe"]["mean"],
        "pck": on_photos["pck_0.1"]["mean"],
        "error": on_photos["error"]["mean"],
        "ci95": on_photos["error"]["ci95"],
    }


found = {name: scores(record) for name, record in trials.items()}

# %% [markdown]
# ## Measuring a 3D network on photographs
#
# Photographs with true 3D bodies are rare and licensed. Photographs with annotated 2D keypoints are common. The predicted
# 3D joints are projected into the image and compared with the annotated limb joints (shoulders, elbows, wrists, hips,
# knees, ankles) in units of the longer side of the person's box: {term}`PCK`@0.1 is the share of joints within a tenth
# of that side, and the *error* is the mean distance. Such 2D measures cannot show a wrong depth or a limb bent towards the
# camera, so they complement MPJPE and do not replace it.

# %% tags=["remove-input"]
some = next(iter(photos.values()), None)
Markdown(
    f"The numbers on photographs below are from {some['joints']} limb joints of {some['samples']} people in {some['images']} photographs of "
    "COCO. So few people show large differences only. They also served to choose between training runs, so the numbers are "
    "somewhat optimistic. The photographs themselves are not part of the repository."
) if some else NOTHING

# %% [markdown]
# ## An encoder that has learned from photographs
#
# The paper's encoder does not start from random weights: its HRNet has learned to locate 2D keypoints in the photographs of
# COCO. The preset `lite` follows this recipe at small scale. Its backbone is that of *MoveNet Lightning* (Google, Apache
# License 2.0), which locates 17 keypoints in photographs. It is trained further, at a lower rate than the other layers; adapters of 1×1
# convolutions bring its four levels to the widths of HRNet's branches ([The encoder](encoder.ipynb)).
#
# {numref}`fig-heatmaps` shows that the backbone alone finds the joints of rendered people, which it has never seen.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Rendered test people (top), and the sum of the keypoint heatmaps of MoveNet's backbone (bottom, yellow). The backbone was trained on photographs only.", "name": "fig-heatmaps"}, "image": {"alt": "Six rendered people in a row, and below each the same picture in dark grey with yellow spots at shoulders, elbows, hips, knees and other joints."}}
backbone = BACKBONES["movenet"].build().eval()
backbone.load_state_dict(BACKBONES["movenet"].weights())
batch = to_device(next(iter(make_loader(None, "test", dpose.preset("lite"), batch_size=6))), "cpu")
with torch.inference_mode():
    heatmaps = (backbone(batch["image"])[0][:, -NUM_KEYPOINTS:] / HEATMAP_SCALE).sigmoid()  # (6, 17, s, s)
pictures = to_picture(batch["image"])
shown = [attention_overlay(picture, heat.sum(0)) for picture, heat in zip(pictures, heatmaps, strict=True)]
picture_grid([list(pictures), shown], labels=("image", "heatmaps"), side=1.25)
plt.show()

# %% [markdown]
# ## Which choices make the gap smaller?
#
# Short training runs of 32,000 images each differ from the first in one choice. The first, called *MoveNet* here, has the backbone from
# which `lite` starts, fixed; another one, *HRNet*, has the encoder of `mini`. `lite` and `mini` themselves
# were trained with many more images. Each run is measured twice: on the rendered
# people of the open validation split, and on the photographs. In {numref}`fig-domain-gap` a choice that helps both moves a
# run to the lower left; one that only fits the rendered people better moves it to the left and up.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Short training runs: error on photographs against MPJPE on rendered people. Blue squares: encoders, with 95 % intervals over the photographs, which are few. Orange dots: other settings of the run MoveNet. Green triangles: the same run with people for whom groups of the generator's options are switched off. Dashed: the run MoveNet. Hollow: measured on other rendered people than the run MoveNet.", "name": "fig-domain-gap"}, "image": {"alt": "Scatter plot: MPJPE on rendered people on the horizontal axis, error on photographs on the vertical one. Runs with features from photographs lie low, those from random weights high; trained backbones lie further left than the fixed one, or far to the right, and higher."}}
ENCODERS = {  # run: label in the figure
    "lite": "MoveNet",
    "lite-rate-0.1": "rate 0.1",
    "nanodet": "NanoDet",
    "lite-late": "rate 0.3, early stages fixed",
    "mini": "HRNet",
    "lite-random": "random weights",
    "lite-rate-0.3": "rate 0.3",
}
ABOUT = {  # in the table
    "lite": "short run, MoveNet (keypoints of COCO), fixed",
    "lite-rate-0.1": "short run, MoveNet, trained at 0.1 of the rate",
    "nanodet": "short run, NanoDet (people of COCO), fixed",
    "lite-late": "short run, MoveNet, trained at 0.3 of the rate, early stages fixed",
    "mini": "short run, HRNet from random weights",
    "lite-random": "short run, MoveNet from random weights",
    "lite-rate-0.3": "short run, MoveNet, trained at 0.3 of the rate",
}
versions = {}  # of the rendered validation people: fingerprint -> MPJPE of the mean pose and runs
for name, record in trials.items():
    mean_pose = record["val"]["baselines"]["mean_pose"]["mpjpe"]["mean"]
    versions.setdefault(record["val"]["data"]["fingerprint"], []).append((mean_pose, name))
version = {name: number for number, group in enumerate(versions.values(), 1) for _, name in group}
of_people = [name for name in found if name.startswith("people-")]
settings = [name for name in found if name not in of_people and name not in ENCODERS]
encoders = [name for name in ENCODERS if name in found]

figure, axis = plt.subplots(figsize=(7.4, 4.2), layout="constrained")
OFFSETS = {"lite": (-6, -15), "lite-rate-0.1": (6, 20), "lite-rate-0.3": (-7, 5)}  # of the labels, points
for name in encoders:
    x, y = found[name]["mpjpe"], found[name]["error"]
    if found[name]["ci95"]:
        axis.plot([x, x], found[name]["ci95"], color="#0072B2", alpha=0.7, linewidth=2)
    offset = OFFSETS.get(name, (7, 5))
    axis.annotate(
        ENCODERS[name],
        (x, y),
        offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        color=INK,
        fontsize=10,
    )
for names, colour, marker, text in (
    (encoders, "#0072B2", "s", "encoders"),
    (settings, "#D55E00", "o", "other settings"),
    (of_people, "#009E73", "^", "training people"),
):
    axis.plot([], [], marker, color=colour, markersize=6, label=text)
    for name in names:
        style = "full" if version[name] == version.get("lite") else "none"
        axis.plot(found[name]["mpjpe"], found[name]["error"], marker, color=colour, fillstyle=style)
if "lite" in found:
    axis.axvline(found["lite"]["mpjpe"], color=INK, linewidth=1, linestyle="--")
    axis.axhline(found["lite"]["error"], color=INK, linewidth=1, linestyle="--")
axis.set_xlabel("rendered people: MPJPE (mm)", fontsize=10)
axis.set_ylabel("photographs: error / longer side of the box", fontsize=10)
axis.set_ylim(bottom=0)
axis.tick_params(labelsize=10)
axis.legend(loc="lower right", fontsize=10)
style_axis(axis)
plt.show()

# %% tags=["remove-input"]
same_people = len({str(trials[name]["val"]["checkpoint"]["metadata"]["data"]) for name in encoders}) == 1
Markdown(
    f"The runs were measured on {len(versions)} versions of the rendered validation people: "
    + listed(
        [
            f"version {number} for {len(group)} runs (MPJPE of the mean pose {group[0][0]:.0f}{NBSP}mm)"
            for number, group in enumerate(versions.values(), 1)
        ]
    )
    + ", so MPJPE of runs with different versions can be compared only roughly. The photographs are the same for all"
    + (", and all encoders were trained with the same people." if same_people else ".")
) if len(versions) > 1 else None


# %% tags=["remove-input"]
def trial_table(names, caption):
    """A row per run, the smallest error on photographs first."""
    rows = [
        (
            ABOUT[name],
            str(version[name]),
            *(f"{found[name][metric]:.0f}" for metric in ("mpjpe", "pa_mpjpe")),
            percent(found[name]["pck"]),
            f"{found[name]['error']:.3f}",
        )
        for name in sorted(names, key=lambda name: found[name]["error"])
    ]
    seeds = sorted({trials[name]["trial"]["seed"] for name in names})
    return html_table(
        ("run", "version", "MPJPE", "PA-MPJPE", "PCK@0.1", "error"),
        rows,
        f"{caption}. Version: of the rendered validation people. MPJPE and PA-MPJPE: {trials[names[0]]['val']['samples']} rendered people of the validation split, mm; PCK "
        f"and error: photographs. Seed {', '.join(map(str, seeds))}",
    )


trial_table(
    encoders, "Measured: encoders and how they are trained, 32,000 images each"
) if encoders else NOTHING


# %% tags=["remove-input"]
def encoder_text():
    base = found["lite"]
    lines = []
    if {"mini", "lite-random"} & found.keys():
        scratch = [found[name] for name in ("mini", "lite-random") if name in found]
        lines.append(
            "*Start.* Encoders that have seen rendered people only have an error of "
            + listed([f"{one['error']:.3f}" for one in scratch])
            + f" on photographs; with keypoint features it is {base['error']:.3f}"
            + (
                f", with features of a person detector {found['nanodet']['error']:.3f}"
                if "nanodet" in found
                else ""
            )
            + "."
        )
    trained = {name: found[name] for name in ("lite-rate-0.1", "lite-rate-0.3", "lite-late") if name in found}
    if trained:
        texts = [
            f"{ENCODERS[name]}: error on photographs {change(one['error'], base['error'], 3)}"
            + (
                f", MPJPE {change(one['mpjpe'], base['mpjpe'], 0)}{NBSP}mm"
                if version[name] == version["lite"]
                else ""
            )
            for name, one in trained.items()
        ]
        low, high = base["ci95"] or (0, 1)
        lines.append(
            f"*Training the backbone.* Changes against the fixed backbone: {'; '.join(texts)} (rates relative to the other "
            f"layers; the interval of the fixed backbone is {low:.3f} to {high:.3f}). These are single runs; the next section has five seeds."
            + (
                f" The run *rate 0.3* fails on rendered people, too: its MPJPE is {trained['lite-rate-0.3']['mpjpe']:.0f}{NBSP}mm. The cause was not examined."
                if trained.get("lite-rate-0.3", base)["mpjpe"] > 1.5 * base["mpjpe"]
                else ""
            )
        )
    if "lite-no-places" in found:
        lines.append(
            "*Positions.* The adapters also receive the position of each pixel. A feature that attention averages over a part "
            f"then contains where the part is. Without positions the error on photographs changes by {change(found['lite-no-places']['error'], base['error'], 3)}"
            + (
                ", which is within the interval of the run MoveNet."
                if (base["ci95"] or (0, 1))[0]
                <= found["lite-no-places"]["error"]
                <= (base["ci95"] or (0, 1))[1]
                else "."
            )
        )
    low, high = base["ci95"] or (0, 0)
    inside = [name for name in settings if low <= found[name]["error"] <= high]
    lines.append(
        f"*Other settings* (loss weights, augmentation, width, crop size, averaging): {len(inside)} of {len(settings)} errors lie "
        f"within the interval of the run MoveNet, {low:.3f} to {high:.3f}. With so few photographs they cannot be ranked."
    )
    return Markdown("\n\n".join(lines))


encoder_text() if "lite" in found else NOTHING

# %% [markdown]
# ### The rate of the backbone, with several seeds
#
# One run per choice cannot separate the choice from chance. The two experiments of
# [Does depth help? The ablation](ablation.ipynb) have five seeds with the backbone fixed and five with the backbone trained at the rate of
# `lite`, each with and without depth. Their networks were measured on the photographs, too.

# %% tags=["remove-input"]
RATES = {"ablation": "fixed", "encoder": "trained"}  # experiment: the backbone
NETWORKS = {"lite": "D-PoSE", "lite-no-depth": "without depth"}
seeded = {}  # (experiment, network) -> metric -> value of each seed
if (results / "encoder-photos.json").exists():
    record = read(results / "encoder-photos.json")
    for experiment in RATES:
        outcome = read_outcome(experiment)
        for network in NETWORKS:
            cases = [
                case
                for case in record["cases"]
                if (case["experiment"], case["variant"]) == (experiment, network)
            ]
            values = {name: np.array([case[name] for case in cases]) for name in MEASURES}
            runs = [outcome.records[network][case["seed"]] for case in cases]
            mpjpe = np.array([run["metrics"]["mpjpe"]["mean"] for run in runs])
            seeded[experiment, network] = {"mpjpe": mpjpe, **values}


def over_seeds(values, digits, factor=1):
    return f"{factor * values.mean():.{digits}f} ± {factor * values.std(ddof=1):.{digits}f}"


def seeds_table():
    rows = [
        (
            RATES[experiment],
            NETWORKS[network],
            over_seeds(values["mpjpe"], 1),
            *(over_seeds(values[name], 0, 100) for name in LABELS if name != "error"),
            over_seeds(values["error"], 3),
        )
        for (experiment, network), values in seeded.items()
    ]
    return html_table(
        ("backbone", "network", "MPJPE, rendered", *(f"{x}, %" for x in list(LABELS.values())[:-1]), "error"),
        rows,
        f"Measured: mean and standard deviation over {len(cases)} seeds. MPJPE: mm, rendered people of the test split; PCK and error: "
        f"{record['samples']} people in {record['images']} photographs",
        align="ll",
    )


seeds_table() if seeded else NOTHING


# %% tags=["remove-input"]
def paired(first, second, name):
    """Mean difference over the seeds, and the ends of its 95 % interval for other seeds and the same people."""
    difference = seeded[first][name] - seeded[second][name]
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / len(difference) ** 0.5
    return difference.mean(), difference.mean() - half, difference.mean() + half


def seeds_text():
    trained, fixed = ("encoder", "lite"), ("ablation", "lite")
    mpjpe, error, pck = (paired(trained, fixed, name) for name in ("mpjpe", "error", "pck_0.1"))
    on_photos = (
        "a loss on the photographs"
        if error[1] > 0
        else "a gain on the photographs, too"
        if error[2] < 0
        else "no loss on the photographs is shown"
    )
    depth = {
        (experiment, name): paired((experiment, "lite-no-depth"), (experiment, "lite"), name)
        for experiment in RATES
        for name in MEASURES
    }
    clear = {key: one for key, one in depth.items() if one[1] > 0 or one[2] < 0}
    named = [
        f"{name.replace('pck_', 'PCK@')} with the backbone {RATES[experiment]}: {signed(one[0], 3)} without depth, {signed(one[1], 3)} to {signed(one[2], 3)}"
        for (experiment, name), one in clear.items()
    ]
    return Markdown(
        f"Training the backbone changes the MPJPE of D-PoSE on rendered people by {signed(mpjpe[0])}{NBSP}mm ({signed(mpjpe[1])} to "
        f"{signed(mpjpe[2])}), its error on photographs by {signed(error[0], 3)} ({signed(error[1], 3)} to {signed(error[2], 3)}) and its PCK@0.1 by "
        f"{signed(100 * pck[0], 0)} points ({signed(100 * pck[1], 0)} to {signed(100 * pck[2], 0)}): {on_photos}. These are 95{NBSP}% intervals for other seeds "
        "and the same few people. The recipe of `lite` therefore trains the backbone.\n\n"
        f"*Depth on photographs.* Of {len(depth)} such intervals of the difference between the networks without and with depth (three thresholds of PCK "
        f"and the error), {len(clear) or 'none'} {'exclude' if len(clear) > 1 else 'excludes'} 0{f' ({listed(named)})' if clear else ''}. "
        f"{record['samples']} people decide nothing about depth."
    )


seeds_text() if seeded else None

# %% [markdown]
# The generator of the training people has groups of options that make people more like those in photographs: sports poses,
# crowds, clothes, light, lenses, and boxes like a detector's ([From download to batch](data_prep.ipynb)). Further runs switch one
# group off at a time.


# %% tags=["remove-input"]
def people_text():
    base = found["people-all"]
    changes = [found[name]["error"] - base["error"] for name in of_people if name.startswith("people-no-")]
    low, high = base["ci95"] or (0, 0)
    half = (high - low) / 2
    largest = max(map(abs, changes))
    return Markdown(
        f"Without one of the {len(changes)} groups the error on photographs changes by at most {largest:.3f}. The 95 % interval of a "
        f"single run is ±{half:.3f}. "
        + (
            "The changes are within this noise: the photographs do not show whether any group helps."
            if largest < half
            else "The largest change exceeds it; the others cannot be told from noise."
        )
    )


people_text() if "people-all" in found and len(of_people) > 1 else NOTHING

# %% [markdown]
# `python scripts/trials.py` repeats every run; `--list` prints all numbers.
#
# ## The domain gap of the shipped networks
#
# MPJPE exists for rendered people only, so a gap cannot be read from it. The table therefore has rendered people that were
# measured in the same way as the photographs: full pictures of the open test split, annotated with the 2D positions of the
# joints and with boxes around the visible pixels, the same enlargement of the boxes, and no camera.


# %% tags=["remove-input"]
def photo_table(measured, caption):
    """A row per network and kind of pictures, the last ones the mean pose. measured: network -> pictures -> record."""

    def cells(metrics):
        return [
            with_interval(metrics[name]) if name == "error" else share_with_interval(metrics[name])
            for name in LABELS
        ]

    rows = [
        (name, kind, *cells(record["metrics"]))
        for name, kinds in measured.items()
        for kind, record in kinds.items()
    ]
    name, kinds = list(measured.items())[-1]
    rows += [
        (f"mean pose of {name}", kind, *cells(record["baselines"]["mean_pose"]))
        for kind, record in kinds.items()
    ]
    return html_table(("network", "people", *LABELS.values()), rows, caption, align="ll")


KINDS = {"rendered": rendered, "photographs": photos}
both = {
    name: {kind: records[name] for kind, records in KINDS.items() if name in records}
    for name in dict.fromkeys([*rendered, *photos])
}
counts = [
    f"{one['joints']:,} limb joints of {one['samples']:,} {kind if kind == 'rendered' else ''} people in {one['images']} {what}".replace(
        "  ", " "
    )
    for (kind, records), what in zip(KINDS.items(), ("pictures", "photographs"), strict=True)
    for one in list(records.values())[:1]
]
photo_table(
    both,
    f"Measured: {' and '.join(counts)}. Error: in units of the longer side of the annotated box. Brackets: 95 % bootstrap intervals over the pictures",
) if both else NOTHING


# %% tags=["remove-input"]
def gap_text():
    """PCK@0.1 of each network on both kinds of pictures."""
    lines = []
    for name, kinds in both.items():
        if len(kinds) < len(KINDS):
            continue
        first, second = (both[name][kind]["metrics"]["pck_0.1"] for kind in KINDS)
        points = round(100 * second["mean"]) - round(100 * first["mean"])
        (low, high), (low_photos, high_photos) = first["ci95"], second["ci95"]
        finding = (
            "its intervals overlap"
            if low <= high_photos and low_photos <= high
            else "its intervals do not overlap: this is the domain gap"
            if points < 0
            else "its intervals do not overlap: photographs are the easier people for it"
        )
        lines.append(
            f"PCK@0.1 of `{name}` is {percent(first['mean'])} on rendered people and {percent(second['mean'])} on photographs "
            f"({signed(points, 0)} points); {finding}."
        )
    constants = [list(both.values())[-1][kind]["baselines"]["mean_pose"]["pck_0.1"]["mean"] for kind in KINDS]
    harder = "rendered people" if constants[0] < constants[1] else "photographs"
    return Markdown(
        " ".join(lines)
        + f" The two kinds of people are not equally difficult: the mean pose has {percent(constants[0])} on rendered people and "
        f"{percent(constants[1])} on photographs, so the {harder} are the more difficult ones"
        + (
            ", and a network with equal scores on both has a domain gap, too"
            if harder == "rendered people"
            else ""
        )
        + ". So few photographs cannot show how large it is. The difference between the networks does not depend on that. Annotations of photographs are less exact than those of rendered people, which are "
        "the joints of the body itself."
    )


gap_text() if "lite" in rendered and "lite" in photos else None

# %% tags=["remove-input"]
per_joint = {
    name: score["mean"]
    for name, score in (photos["lite"]["metrics"]["error"]["per_joint"] if "lite" in photos else {}).items()
    if name != "all"
}
by_error = sorted(per_joint, key=per_joint.get)
Markdown(
    "Of the limb joints in photographs, `lite` has the largest errors for the "
    + listed([f"{name.replace('_', ' ')} ({per_joint[name]:.3f})" for name in by_error[:-4:-1]])
    + ", the smallest for the "
    + listed([f"{name.replace('_', ' ')} ({per_joint[name]:.3f})" for name in by_error[:2]])
    + "."
) if per_joint else None

# %% [markdown]
# {numref}`fig-astronaut` shows both networks on a photograph in the public domain, NASA's portrait of Eileen Collins from
# scikit-image, with a box drawn by hand. Her legs are outside the picture.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A photograph and the predictions of `lite`, whose encoder has learned from photographs, and of `mini`, which has seen rendered people only: body, parts, depth (yellow: near).", "name": "fig-astronaut"}, "image": {"alt": "Two rows of four pictures: a portrait of a woman in a space suit to the waist, the predicted body over it, the coloured part map and the depth map, one row for each network."}}
box = (60, 0, 330, 512)  # x, y, width, height in pixels
photo, rows, networks = skimage.data.astronaut(), [], ("lite", "mini")
for name in networks:
    (person,) = dpose.predict(photo, box, name)
    drawn = person.overlay(photo)
    rows.append([photo, drawn, colour_parts(person.parts), colour_depth(person.depth, person.parts > 0)])
picture_grid(rows, ("photograph", "body", "parts", "depth"), networks, side=1.85)
plt.show()

# %% [markdown]
# Observed by eye on the photographs of the table above, not measured:
#
# - forearms that are folded or raised to the head come out stretched forward;
# - limbs behind other people are guessed; if the box shows only the upper half of the body, the legs and the distance are wrong;
# - crouching and seated bodies are mostly right, but children get the body of a small adult;
# - the part map is often better than the body, whose regressor receives averages of features instead of the map.
#
# Hips differ systematically: annotators mark the surface, while the joint of the body model lies inside the body.
#
# ## Photographs of your own
#
# ```sh
# dpose evaluate --keypoints annotations.json --images DIR
# ```
#
# measures any network on any file in COCO's format, for instance COCO's own `person_keypoints_val2017.json`. Each person is
# cut out around the annotated box, with the image diagonal as focal length. Occluded keypoints count
# if they are annotated. Intervals resample images, because people in one image resemble each other. The baseline is the mean
# body of the checkpoint in every crop. To fill the table below, run the notebook with `-p keypoints annotations.json -p
# images DIR`.


# %% tags=["remove-input"]
def box_text():
    made = {
        one["box_factor"]
        for one in [*photos.values(), *rendered.values(), *(t["photos"] for t in trials.values())]
    }
    text = (
        f"The side of the network's square is {BOX_FACTOR:g} times the longer side of the annotated box (`--box-factor`), as in the labels of "
        f"BEDLAM, 3DPW and EMDB, whose boxes surround joints or bodies. `dpose predict` uses {predictor.BOX_FACTOR:g}, because its boxes are tight "
        "around the visible person. "
    )
    if made == {BOX_FACTOR}:
        text += "All records above have the first factor, so they can be compared with each other. "
    return Markdown(text + "[Photo in, people out](inference.ipynb) compares the two on rendered people.")


box_text()

# %% [markdown]
# `dpose synth --frames 100` writes such a file beside its full frames; [Reproducibility](../book/reproducibility.md) has the commands
# of the records above.

# %% tags=["remove-input"]
if keypoints is None:
    shown = Markdown("*No annotations were given when this page was built.*")
else:
    measured = evaluate_keypoints(keypoints, images, checkpoint, progress=False)
    caption = f"Measured: {measured['samples']} people in {measured['images']} images"
    shown = photo_table({Path(checkpoint).stem: {"given": measured}}, caption)
shown

# %% [markdown]
# ## Takeaways


# %% tags=["remove-input"]
def takeaways():
    lines = [
        "* A network that was trained on rendered people has to be measured on photographs; 2D keypoints are enough to see the domain gap, but not a wrong depth."
    ]
    if all(len(both.get(name, ())) == len(KINDS) for name in ("lite", "mini")):
        texts = [
            f"`{name}` has a PCK@0.1 of "
            + " and ".join(
                f"{percent(record['metrics']['pck_0.1']['mean'])} on {kind}{' people' if kind == 'rendered' else ''}"
                for kind, record in both[name].items()
            )
            for name in ("mini", "lite")
        ]
        lines[0] += f" {'; '.join(texts)}."
    if {"lite", "mini"} <= found.keys():
        lines.append(
            f"* After equally short training, features learned from photographs lower the error on photographs from {found['mini']['error']:.3f} "
            f"to {found['lite']['error']:.3f} of the longer side of the box."
        )
    if seeded:
        mpjpe, error = (
            paired(("encoder", "lite"), ("ablation", "lite"), name) for name in ("mpjpe", "error")
        )
        lines.append(
            f"* Training the backbone on rendered people changes MPJPE there by {signed(mpjpe[0], 0)}{NBSP}mm and the "
            f"error on photographs by {signed(error[0], 3)} ({signed(error[1], 3)} to {signed(error[2], 3)}): an improvement in one domain "
            "need not carry over to the other, and one run per choice would not show which it is."
        )
    return Markdown("\n".join(lines))


takeaways()

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** How much does the prediction for the portrait depend on properties of the photograph that leave the pose
# unchanged? Change the picture (grey, blurred, noisy, darker), and measure the mean movement of the body joints in
# millimetres after {term}`Procrustes alignment` with the first prediction.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
noise = np.random.default_rng(0).normal(0, 25, photo.shape)
changed = {
    "grey": np.repeat(photo.mean(2, keepdims=True), 3, 2),
    "blurred (5 pixels)": cv2.GaussianBlur(photo, (0, 0), 5),
    "noise (25 of 255)": photo + noise,
    "half as bright": photo * 0.5,
}
rows = []
for text, picture in changed.items():
    moved = []
    for name in networks:
        joints = [
            torch.from_numpy(dpose.predict(one, box, name)[0].joints[:22])
            for one in (photo, picture.clip(0, 255).astype(np.uint8))
        ]
        distance = torch.linalg.vector_norm(similarity_align(*joints) - joints[1], dim=-1)
        moved.append(f"{1000 * distance.mean():.0f}")
    rows.append((text, *moved))
html_table(("change", *networks), rows, "Mean movement of the 22 body joints, mm")

# %% [markdown]
# **Exercise 2.** How many photographs would be needed to tell two networks apart whose error differs by 0.005 of the longer side of the box? Use
# the interval of `lite` above, and assume that its width falls with the square root of the number of photographs.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
width, count = (0.04, 4) if some is None else (np.diff(some["metrics"]["error"]["ci95"])[0], some["images"])
# Two independent errors: their difference has an interval 2 ** 0.5 times as wide; it excludes 0 below 0.005 on each side.
needed = count * (2**0.5 * width / (2 * 0.005)) ** 2
Markdown(
    f"The interval is {width:.3f} wide with {count} photographs. For a half width of 0.005 of the difference of two errors about "
    f"{needed:,.0f} photographs are needed. Pairing the same people in both networks, as on [Does depth help? The ablation](ablation.ipynb), reduces "
    "this number."
)

# %% [markdown]
# **Exercise 3.** [Does depth help? The ablation](ablation.ipynb) compares networks on rendered people. Which of the conclusions there could
# be different on photographs, and why?
#
# :::{dropdown} Solution
# All of them. A component may help because it uses regularities of rendered images, for instance their clean silhouettes: the
# depth branch is trained with rendered depth, and its features may not transfer. The networks with a trained backbone are much
# better on rendered people, and on the photographs of this page hardly, if at all.
# :::
