# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # With and without depth
#
# Does it help to predict depth before the body? The paper {cite:p}`dpose` answers with its Table 3: the same
# network, trained once with and once without the depth branch. This page shows that table and what can be
# concluded from it. It then repeats the experiment with small networks and several random seeds, so that the
# effect of depth can be compared with the effect of chance.
#
# "Without depth" means: no depth decoder, no depth loss, and no depth features in the regressor's input.
# Encoder, part segmentation, attention and everything else stay.
#
# What you need: MPJPE, PA-MPJPE and MVE, which the page of [tables](tables.ipynb) defines.

# %% tags=["parameters"]
results = None  # folder of measured numbers; None: the repository's results/

# %% tags=["hide-input"]
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import dpose
from dpose.compare import paired_difference
from dpose.data.shards import write_tar
from dpose.experiment import ABLATION
from dpose.figures import INK, html_table, style_axis
from dpose.results import read_json, read_people, stale, totals
from dpose.synthetic import person_samples, sample_scene
from dpose.training import recipe

folder = Path(results or Path(dpose.__file__).parents[1] / "results")
ERRORS = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "mve": "MVE"}
BASE, NO_DEPTH = "lite", "lite-no-depth"


def unbroken(text):
    """For a narrow table column: no line break at hyphens and spaces."""
    return text.replace("-", "\u2011").replace(" ", "\u00a0")


def signed(value, digits=1):
    return f"{value:+.{digits}f}".replace("-", "−")


# %% [markdown]
# ## The paper's Table 3
#
# *The paper's numbers*, on 3DPW {cite:p}`threedpw`, RICH {cite:p}`rich` and EMDB {cite:p}`emdb`.

# %% tags=["hide-input"]
PAPER_TABLE_3 = {  # without and with depth: PA-MPJPE, MPJPE, MVE in mm
    "3DPW": ((44.3, 68.8, 81.3), (43.6, 68.9, 81.4)),
    "RICH": ((50.1, 80.6, 92.1), (47.8, 77.0, 87.8)),
    "EMDB": ((53.5, 87.6, 101.8), (53.2, 85.5, 99.0)),
}
rows = []
for name, (without, with_depth) in PAPER_TABLE_3.items():
    gain = np.subtract(without, with_depth)
    rows.append((f"{name}, without depth", *(f"{value:.1f}" for value in without)))
    rows.append((f"{name}, with depth", *(f"{value:.1f}" for value in with_depth)))
    shares = (
        f"{signed(value)} ({signed(100 * value / base)} %)" for value, base in zip(gain, without, strict=True)
    )
    rows.append(("without less with", *shares))
html_table(
    ("data set, network", "PA-MPJPE", "MPJPE", "MVE"),
    rows,
    "The paper's Table 3 (mm), and the differences computed from it; positive: depth helps",
    ours=[2, 5, 8],
)

# %% tags=["hide-input"]
gains = np.array([np.subtract(*pair) for pair in PAPER_TABLE_3.values()])
Markdown(
    f"Depth lowers {(gains > 0).sum()} of the {gains.size} errors and raises {(gains < 0).sum()}; the "
    f"differences lie between {signed(gains.min())} and {signed(gains.max())} mm. Each row is one trained "
    "network. The table does not say how much the errors would change with another random seed, so it cannot "
    "say which of the differences are more than chance."
)

# %% [markdown]
# ## The same question in small, with repetitions
#
# All networks of the following experiment have the same encoder, MoveNet's backbone, which has learned 2D
# keypoints in photographs and stays fixed. (The paper's encoder starts from keypoints as well.) They are
# trained on the open synthetic people and measured on test people with other identities. The arms of the
# experiment differ in one thing each:

# %% tags=["hide-input"]
html_table(
    ("arm", "network", "seeds"),
    [(unbroken(name), arm.about, str(arm.seeds)) for name, arm in ABLATION.arms.items()],
    "The arms of the experiment",
    align="ll",
)

# %% [markdown]
# For the same seed, all arms see the same images in the same order; the random weights that their trained
# layers start from differ. This is an experiment about small networks, short training and synthetic people. It
# is not a repetition of the paper's experiment, for which the last section has the commands.

# %% tags=["hide-input"]
records, people = {}, {}  # arm -> seed -> record, errors of each person
for arm, about in ABLATION.arms.items():
    for seed in range(about.seeds):
        path = folder / "ablation" / f"{arm}-seed{seed}.json"
        if path.exists():
            records.setdefault(arm, {})[seed] = read_json(path)
            people.setdefault(arm, {})[seed] = read_people(path)
runs = [run for arm in records.values() for run in arm.values()]
planned = sum(arm.seeds for arm in ABLATION.arms.values())
NOTHING = Markdown("*Not measured yet: `dpose experiment ablation` makes the records of this section.*")
missing = [
    f"{arm} (seed {', '.join(str(s) for s in range(about.seeds) if s not in records.get(arm, {}))})"
    for arm, about in ABLATION.arms.items()
    if runs and len(records.get(arm, {})) < about.seeds
]
Markdown(
    f"Records of {len(runs)} of the {planned} planned runs are there."
    + (f" Missing: {'; '.join(missing)}." if missing else "")
)


# %% tags=["hide-input"]
def spread(values, digits=1):
    """Mean over seeds, and the standard deviation if there are several."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def trained(run):
    return run["checkpoint"]["metadata"]


outdated = {}  # arm -> why its records are not about what the repository has now
for arm, arm_runs in records.items():
    wanted = ABLATION.recipe(ABLATION.arms[arm])
    if reasons := sorted({reason for run in arm_runs.values() for reason in stale(run, wanted)}):
        outdated[arm] = "; ".join(reasons)


def arm_table():
    first = runs[0]
    rows = []
    for name, label in (
        ("mean_pose", "mean pose"),
        ("mean_pose_true_orientation", "mean pose, true orientation"),
    ):
        if name in first["baselines"]:
            means = [first["baselines"][name][error]["mean"] for error in ERRORS]
            rows.append((label, "", *(f"{value:.1f}" for value in means), "", ""))
    for arm, arm_runs in records.items():
        results_of = list(arm_runs.values())
        cells = [spread([run["metrics"][error]["mean"] for run in results_of]) for error in ERRORS]
        parts = [run["metrics"]["parts_miou"]["mean"] for run in results_of if "parts_miou" in run["metrics"]]
        depth = [run["ratios"]["depth_l1"] for run in results_of if "depth_l1" in run["ratios"]]
        cells += [f"{np.mean(parts):.3f}" if parts else "–", f"{np.mean(depth):.2f}" if depth else "–"]
        stale_mark = " (stale)" if arm in outdated else ""
        rows.append((f"{unbroken(arm)}{stale_mark}", str(len(results_of)), *cells))
    images = sorted({totals(trained(run))["images"] for run in runs})
    return html_table(
        ("arm", "seeds", *ERRORS.values(), "parts mIoU", "depth ratio"),
        rows,
        f"Measured on {first['samples']:,} people of the {first['dataset']} data set's {first['split']} split, after "
        f"training with {' or '.join(f'{count:,}' for count in images)} images: errors in mm, mean ± standard "
        "deviation over the seeds. Depth ratio: error on the persons' pixels / error of the best constant",
        ours=[i for i, row in enumerate(rows) if row[0].split()[0] == BASE],
    )


arm_table() if runs else NOTHING

# %% tags=["hide-input"]
Markdown(
    "Stale rows were measured with something that the repository has changed since:\n\n"
    + "\n".join(f"* {arm}: {reasons}" for arm, reasons in outdated.items())
) if outdated else None

# %% [markdown]
# ### Preconditions
#
# The comparison has a meaning only if the arms had equal conditions, if every network has learned a pose, and
# if the networks with a depth branch have learned depth.


# %% tags=["hide-input"]
unmet = {}  # condition that is not met -> the arm that it is about; None: all


def conditions():
    """Each condition with the numbers that decide it."""
    shared = {
        "images": {totals(trained(run))["images"] for run in runs},
        "steps": {trained(run)["step"] for run in runs},
        "batch size and rate": {
            tuple(trained(run)["recipe"][name] for name in ("batch_size", "lr")) for run in runs
        },
        "precision": {trained(run)["precision"]["name"] for run in runs},
        "order of the images": {(max(1, trained(run)["workers"]), trained(run)["devices"]) for run in runs},
        "training data": {str(trained(run)["data"]) for run in runs},
        "start": {str((trained(run)["init"] or {}).get("sha256")) for run in runs},
        "test people": {(run["data"]["fingerprint"], run["split"], run["samples"]) for run in runs},
    }
    unequal = [name for name, values in shared.items() if len(values) > 1]
    lines = [
        f"* Equal conditions ({', '.join(shared)}): "
        + (f"**not met**, the runs differ in {', '.join(unequal)}." if unequal else "met.")
    ]
    pose = {
        arm: max(run["metrics"]["pa_mpjpe"]["ci95"][1] for run in arm_runs.values())
        for arm, arm_runs in records.items()
    }
    mean_pose = runs[0]["baselines"]["mean_pose"]["pa_mpjpe"]
    unmet.update(dict.fromkeys(unequal))
    failed = [arm for arm, high in pose.items() if high >= mean_pose["ci95"][0]]
    unmet.update({f"PA-MPJPE of {arm}": arm for arm in failed})
    worst = max(pose, key=pose.get)
    lines.append(
        f"* Every network's PA-MPJPE is clearly below the mean pose's {mean_pose['mean']:.1f} mm (the upper end of its "
        f"95 % interval is below the lower end, {mean_pose['ci95'][0]:.1f} mm, of the mean pose's): "
        + (f"**not met** by {', '.join(failed)}; " if failed else "met; ")
        + f"the highest end is {pose[worst]:.1f} mm, of {worst}."
    )
    depth = {
        arm: max(ratios)
        for arm, arm_runs in records.items()
        if (ratios := [run["ratios"]["depth_l1"] for run in arm_runs.values() if "depth_l1" in run["ratios"]])
    }
    if depth:
        failed = [arm for arm, ratio in depth.items() if ratio > 0.75]
        unmet.update({f"depth of {arm}": arm for arm in failed})
        lines.append(
            "* Depth on the person's pixels has at most 0.75 of the best constant's error: "
            + (f"**not met** by {', '.join(failed)}; " if failed else "met; ")
            + f"the highest ratio is {max(depth.values()):.2f}."
        )
    return Markdown("\n".join(lines))


conditions() if runs else NOTHING

# %% [markdown]
# ### Differences
#
# The networks of two arms with the same seed are compared on each test person, and the differences averaged
# over people and seeds. The result would change with other seeds and with other people; the 95 % interval
# covers both. It combines the spread of the seeds' differences with a bootstrap over the test scenes, and
# widens the result for the small number of seeds (`dpose.compare` has the formula, its tests the
# coverage on simulated experiments). The *detectable* difference is the smallest true one that such an
# experiment would find in 80 of 100 repetitions: if an interval contains 0, a difference of less than that
# may well exist.

# %% tags=["hide-input"]
METRICS = {**ERRORS, "parts_miou": "parts IoU"}
found = {}  # arm -> metric -> difference of the arm's errors and D-PoSE's
same_people = len({(run["data"]["fingerprint"], run["split"], run["samples"]) for run in runs}) == 1
for arm in records:
    if arm == BASE or not same_people or len(records[arm].keys() & records.get(BASE, {}).keys()) < 2:
        continue
    everybody = [run for one in (arm, BASE) for run in people[one].values()]
    found[arm] = {
        metric: paired_difference(people[arm], people[BASE], metric)
        for metric in METRICS
        if all(metric in run for run in everybody)
    }
UNPAIRED = Markdown(
    "*Nothing to compare yet: this needs two seeds of an arm and of D-PoSE on the same people.*"
)


def difference_rows(arm):
    rows = []
    for metric, one in found[arm].items():
        digits = 3 if metric == "parts_miou" else 1
        low, high = (signed(value, digits) for value in one.interval)
        rows.append(
            (
                unbroken(arm) if not rows else "",
                unbroken(METRICS[metric]),
                str(len(one.by_seed)),
                signed(one.mean, digits),
                f"{low} to {high}",
                f"{one.detectable:.{digits}f}",
            )
        )
    return rows


def difference_table(arms, caption):
    rows = [row for arm in arms for row in difference_rows(arm)]
    return html_table(
        ("arm", "error", "seeds", "difference", "95 % interval", "detectable"), rows, caption, align="ll"
    )


difference_table(
    [NO_DEPTH],
    "Errors without depth less errors with depth, paired by seed and person: mm, and for the parts the mean IoU of a "
    "person's parts. Positive errors: depth helps",
) if NO_DEPTH in found else UNPAIRED

# %% tags=["hide-input"]
others = [arm for arm in found if arm != NO_DEPTH]
difference_table(
    others,
    "Errors of the other arms less those of D-PoSE (lite), in the same units. Positive errors: D-PoSE is better",
) if others else UNPAIRED

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Errors of each arm less those of D-PoSE. Line and diamond: 95 % interval and mean. Dots: the seeds. Grey bar: differences too small for this experiment to detect reliably. Blue intervals exclude 0, orange ones contain it. Right of the vertical line D-PoSE is better. The two rows of panels have scales of their own.", "name": "fig-ablation"}, "image": {"alt": "Three panels, for MPJPE, PA-MPJPE and MVE. Each has a row per arm with the interval of its difference from D-PoSE, the differences of single seeds as dots, and a grey bar for the detectable difference"}}
COLOURS = ("#0072B2", "#B55A00")  # of intervals without 0 and with 0


def draw(axis, arms, metric):
    """A row per arm."""
    for row, arm in enumerate(arms):
        one = found[arm][metric]
        axis.barh(row, 2 * one.detectable, 0.56, -one.detectable, color=INK, alpha=0.22, linewidth=0)
        colour = COLOURS[0] if one.found else COLOURS[1]
        axis.plot(one.interval, [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        axis.plot(one.mean, row, "D", color=colour, markersize=6)
        seeds = list(one.by_seed.values())
        below = np.full(len(seeds), row + 0.36)
        axis.plot(seeds, below, "o", color=colour, markersize=3.5, markeredgewidth=0)
    axis.axvline(0, color=INK, linewidth=1)
    axis.set_yticks(range(len(arms)), [arm.removeprefix("lite-") for arm in arms], fontsize=10)
    axis.set_ylim(len(arms) - 0.4, -0.6)
    axis.use_sticky_edges = False
    axis.margins(x=0.05)
    axis.tick_params(axis="x", labelsize=9)


groups = [arms for arms in ([arm for arm in found if arm == NO_DEPTH], others) if arms]
if found:
    heights = [len(arms) for arms in groups]
    figure, axes = plt.subplots(
        len(groups),
        3,
        figsize=(7.6, 0.9 + 0.4 * len(groups) + 0.4 * sum(heights)),
        sharey="row",
        squeeze=False,
        height_ratios=heights,
    )
    for line, arms in zip(axes, groups, strict=True):
        for axis, (metric, title) in zip(line, ERRORS.items(), strict=True):
            draw(axis, arms, metric)
            if arms is groups[-1]:
                axis.set_xlabel(f"difference in {title} (mm)", fontsize=10)
            style_axis(axis)
    figure.tight_layout()
    plt.show()


# %% [markdown]
# ### What the numbers say


# %% tags=["hide-input"]
def sentence(metric, one, about):
    """What an interval allows one to say about an arm's error, in words chosen by it."""
    low, high = (signed(value) for value in one.interval)
    numbers = f"{signed(one.mean)} mm, 95 % interval {low} to {high} mm"
    if not one.found:
        return (
            f"{METRICS[metric]}: no difference is shown ({numbers}); one of {one.detectable:.1f} mm would have been found "
            "with a probability of 80 %."
        )
    return f"{METRICS[metric]}: {about} {'raises' if one.mean > 0 else 'lowers'} the error ({numbers})."


def verdict():
    lines = []
    if unmet:
        text = (
            f"Preconditions are not met ({', '.join(unmet)}): **the differences that these concern do not answer "
            "the question.**"
        )
        lines += [text, ""]
    if NO_DEPTH in found:
        ones = {metric: found[NO_DEPTH][metric] for metric in ERRORS}
        helps = [METRICS[m] for m, one in ones.items() if one.found and one.mean > 0]
        harms = [METRICS[m] for m, one in ones.items() if one.found and one.mean < 0]
        if helps and harms:
            claim = f"**Depth helps in {', '.join(helps)} and harms in {', '.join(harms)}.** "
        elif helps or harms:
            claim = f"**Depth {'helps' if helps else 'harms'} in this experiment** ({', '.join(helps or harms)}). "
        else:
            claim = "**This experiment shows no effect of depth.** "
        lines += [
            f"{claim if {None, BASE, NO_DEPTH}.isdisjoint(unmet.values()) else ''}Without depth:",
            "",
            *(f"* {sentence(metric, one, 'leaving out depth')}" for metric, one in ones.items()),
            "",
        ]
    if others:
        lines += ["The other arms against D-PoSE:", ""]
        for arm in others:
            ones = {metric: found[arm][metric] for metric in ERRORS}
            worse = [METRICS[m] for m, one in ones.items() if one.found and one.mean > 0]
            better = [METRICS[m] for m, one in ones.items() if one.found and one.mean < 0]
            equal = [METRICS[m] for m, one in ones.items() if not one.found]
            groups = (("worse in", worse), ("better in", better), ("no difference shown in", equal))
            text = "; ".join(f"{label} {', '.join(names)}" for label, names in groups if names)
            lines.append(f"* {arm} ({ABLATION.arms[arm].about}): {text}.")
    count = len(found) * len(ERRORS)
    lines.append(
        f"\nThere are {count} intervals of joint and vertex errors here. If no arm differed from D-PoSE, "
        f"{0.05 * count:.1f} of them would exclude 0 by chance on average; errors of one arm are not independent."
    )
    if outdated:
        lines.append(f"\nSome rows are stale: {', '.join(outdated)}.")
    return Markdown("\n".join(lines))


verdict() if found else UNPAIRED

# %% [markdown]
# ## Do it yourself, in small
#
# One command trains and measures what is missing. It needs no GPU, can be interrupted at any time and goes on
# where it was; several processes, also on other machines with a shared folder, share the work.
#
# ```sh
# dpose synth                               # the open data, if they are not there yet
# dpose experiment ablation --list          # which runs are there
# dpose experiment ablation                 # all that are missing, one per core at the same time
# dpose experiment ablation --arms lite lite-no-depth --seeds 2 --images 6000 \
#   --out /tmp/try/ablation --runs /tmp/try/runs
# ```
#
# The last command is a short trial. To see the page with its records, set the parameter `results` to `/tmp/try`, the
# folder that contains `ablation/`.


# %% tags=["hide-input"]
def cost():
    each = [trained(run)["seconds"] + run["seconds"] for run in runs]
    gpus = any("gpus" in run["hardware"] for run in runs)
    machines = sorted(
        {
            ", ".join(run["hardware"].get("gpus", ()))
            or f"{run['hardware']['cores']} cores, {run['hardware']['cpu']}"
            for run in runs
        }
    )
    commits = sorted({run["commit"][:12] if run["commit"] else "none" for run in runs})
    return Markdown(
        f"The {len(runs)} recorded runs took {sum(each) / 3600:.1f} hours in sum, {np.mean(each) / 60:.0f} minutes "
        f"each ({min(each) / 60:.0f} to {max(each) / 60:.0f}), training and measurement ({'; '.join(machines)}"
        f"{'' if gpus else '; runs shared these cores'}). One after the other, all {planned} take about "
        f"{planned * np.mean(each) / 3600:.0f} hours{'' if gpus else ' on one core like these'}. Command: `{runs[0]['command']}`; commit {', '.join(commits)}."
    )


cost() if runs else NOTHING

# %% [markdown]
# ## The paper's size, on real data
#
# The presets `paper`, `paper-no-depth`, `paper-pare`, `paper-cliff` and `paper-hmr` are the same networks with
# HRNet-W48 on 224-pixel crops. With the data sets and a GPU, Table 3 and the rows of Table 1 that are trained on
# synthetic people follow from these steps.
#
# **1. Register, and download.** The licences of bodies and data sets allow non-commercial research, and not
# to pass files on. `dpose doctor` lists which body files are missing and where to get them; `dpose prepare SET --help` has the
# files of each data set and their places.
#
# | what | for | where |
# | --- | --- | --- |
# | SMPL-X v1.1 (neutral, male, female) | training; truth of RICH | smpl-x.is.tue.mpg.de |
# | SMPL v1.1 (male, female, neutral) | truth of 3DPW and EMDB | smpl.is.tue.mpg.de |
# | `smplx2smpl.pkl`, `J_regressor_h36m.npy` | protocols of 3DPW, EMDB and RICH | `utils.zip` at bedlam.is.tue.mpg.de |
# | BEDLAM: images at 6 fps, depth, masks, labels with 11 betas | training | bedlam.is.tue.mpg.de |
# | AGORA: training images at 1280x720, labels | training, without depth | agora.is.tue.mpg.de; labels: bedlam.is.tue.mpg.de |
# | 3DPW: `imageFiles.zip`, `sequenceFiles.zip` | test | virtualhumans.mpi-inf.mpg.de/3DPW |
# | EMDB: `P0.zip` to `P9.zip` | test | emdb.ait.ethz.ch (application) |
# | RICH: test images; labels `rich_test.npz` | test | rich.is.tue.mpg.de; labels: bedlam.is.tue.mpg.de |
# | `pose_hrnet_w48_256x192.pth` (COCO keypoints) | start of the encoder | model zoo of HRNet's authors, free |
#
# **2. Prepare, once.** `--dry-run` estimates time and disk for the files that are there.
#
# ```sh
# export DPOSE_BODY_MODELS=~/models
# dpose doctor
# dpose prepare bedlam --root ~/data/bedlam --out ~/shards/bedlam --dry-run
# dpose prepare bedlam --root ~/data/bedlam --out ~/shards/bedlam
# dpose prepare agora --root ~/data/agora --out ~/shards/agora
# dpose prepare 3dpw --root ~/data/3DPW --out ~/shards/3dpw
# dpose prepare emdb --root ~/data/EMDB --out ~/shards/emdb
# dpose prepare rich --root ~/data/RICH --out ~/shards/rich
# ```
#
# **3. Train and measure.** Table 3 needs the first two networks. `paper-hmr` and `paper-cliff` have the heads of
# Table 1's BEDLAM-HMR and BEDLAM-CLIFF, `paper-pare` that of PARE, which Table 1 lists as trained on photographs.
# Losses, camera and recipe are those of D-PoSE, so the numbers need not be Table 1's.
#
# ```sh
# for preset in paper paper-no-depth paper-cliff paper-hmr paper-pare; do
#   dpose train --preset $preset --data ~/shards/bedlam ~/shards/agora --mix 4 1 \
#     --init pose_hrnet_w48_256x192.pth --out runs/$preset-seed0 --seed 0
#   for set in 3dpw emdb rich; do
#     dpose evaluate --checkpoint runs/$preset-seed0/model.safetensors --data ~/shards/$set --focal diagonal \
#       --out results/$set-$preset-seed0.json
#   done
# done
# ```
#
# `--focal diagonal` gives the network the image diagonal as focal length, as the released evaluation does. A
# killed training goes on with `dpose train --resume runs/paper-seed0/last.ckpt`. The page of
# [tables](tables.ipynb) shows the records beside the paper's rows. For intervals that include chance, repeat with
# `--seed 1` and so on, and compare the records as above:
#
# ```python
# from dpose.compare import paired_difference
# from dpose.results import read_people
#
# arms = [{s: read_people(f"results/3dpw-{preset}-seed{s}.json") for s in range(3)} for preset in ("paper-no-depth", "paper")]
# print(paired_difference(*arms, "pa_mpjpe"))
# ```

# %% tags=["hide-input"]
PAPER_DAYS = 3  # of a network on one GPU of the A100 class: the paper's number
BEDLAM = {
    "people": 1_000_000,
    "png": 2.2e12,
    "depth": 3.8e12,
    "rate": 30 / 6,
}  # as its makers state, at 30 fps
side = 280  # stored crops of the paper presets, pixels
with tempfile.TemporaryDirectory() as temporary:
    crops = [sample for i in range(4) for sample in person_samples(sample_scene(0, "test", i), side)]
    write_tar(iter(crops), path := Path(temporary) / "crops.tar")
    per_person = path.stat().st_size / len(crops)
plan = recipe("paper")
Markdown(
    f"**Disk.** BEDLAM's images and depth at six frames a second take about "
    f"{BEDLAM['png'] / BEDLAM['rate'] / 1e9:,.0f} and {BEDLAM['depth'] / BEDLAM['rate'] / 1e9:,.0f} GB; its shards of "
    f"{side}-pixel crops about {BEDLAM['people'] * per_person / 1e9:,.0f} GB ({per_person / 1e3:.0f} kB for each of "
    f"{BEDLAM['people']:,} people, measured on {len(crops)} open ones). "
    "The raw files are not needed after preparation, of which the page on [data](data_prep.ipynb) projects the "
    "hours.\n\n"
    f"**Hours.** A training has {plan.steps:,} steps of {plan.batch_size}, or {plan.steps * plan.batch_size / 1e6:.1f} million "
    f"crops; the paper reports {PAPER_DAYS} days on one GPU of the A100 class. Table 3 with one seed takes "
    f"{2 * PAPER_DAYS} GPU days, with three seeds {6 * PAPER_DAYS}; all five networks with one seed {5 * PAPER_DAYS}."
)
