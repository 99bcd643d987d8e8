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
# Does it help to predict depth on the way to a body? The paper {cite:p}`dpose` answers with its Table 3:
# the same network, trained the same way, once with and once without the depth branch. This page shows that
# table, asks what it can and cannot say, and repeats the experiment at the size of `MINI`.
#
# "Without depth" means that the depth decoder is gone, its loss is gone, and the regressor does not get the average of
# the decoder's features. Encoder, parts, attention and everything else stay.

# %% tags=["parameters"]
results = None  # folder of measured numbers; None: the repository's results/

# %% tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown

import dpose
from dpose.figures import INK, html_table
from dpose.results import read_json

folder = Path(results or Path(dpose.__file__).parents[1] / "results")
ERRORS = {"pa_mpjpe": "PA-MPJPE", "mpjpe": "MPJPE", "mve": "MVE"}

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
    rows.append(
        (
            "difference",
            *(
                f"{value:+.1f} ({100 * value / base:+.1f} %)".replace("-", "−")
                for value, base in zip(gain, without, strict=True)
            ),
        )
    )
html_table(
    ("", *ERRORS.values()),
    rows,
    "The paper's Table 3 (mm), and the differences computed from it; positive: depth helps",
    ours=[1, 4, 7],
)

# %% tags=["hide-input"]
gains = np.array([np.subtract(*pair) for pair in PAPER_TABLE_3.values()])
better, worse = int((gains > 0).sum()), int((gains < 0).sum())
Markdown(
    f"Depth lowers {better} of the {gains.size} numbers and raises {worse}. The gains run from "
    f"{gains.min():+.1f} to {gains.max():+.1f} mm; "
    "the largest are on RICH, and MPJPE and MVE on 3DPW do not gain at all. The table holds one trained "
    "network for each row, so it cannot tell "
    f"how much of a difference another random seed would have made."
)

# %% [markdown]
# ## A small pair, measured
#
# Two `MINI` networks were trained on the open synthetic people with the same number of images, the same
# seed, the same order of samples and the same losses, except those of depth. They were then measured on the
# same test people. This says something about small networks, little training and synthetic people, and must
# not be read as a repetition of the paper's experiment.

# %% tags=["hide-input"]
pair = {True: [], False: []}  # with depth, without depth: one result for each run
for path in sorted(folder.glob("ablation-*.json")):
    result = read_json(path)
    pair[bool(result["checkpoint"]["config"]["depth"])].append(result)
complete = all(pair.values())
NOTHING = Markdown(
    "*Not measured yet: `dpose train --preset mini` and `dpose train --preset mini-no-depth` with equal "
    "`--steps`, then `dpose evaluate` "
    f"with `--out {folder.name}/ablation-….json` for each, would fill this place.*"
)


def budget(result):
    """What has to be equal for the comparison to be fair."""
    trained = result["checkpoint"]["metadata"]
    return {
        "steps": trained.get("step"),
        "images": trained.get("images"),
        "training data": trained.get("data"),
        "test people": result["samples"],
        "test data": result["data"]["fingerprint"],
    }


def budget_table():
    runs = [("without depth", r) for r in pair[False]] + [("with depth", r) for r in pair[True]]
    rows = [
        (
            label,
            f"{result['checkpoint']['metadata'].get('seed', '–')}",
            *(f"{value:,}" if isinstance(value, int) else str(value) for value in budget(result).values()),
            f"{result['checkpoint']['metadata'].get('seconds', 0) / 60:.0f} min",
        )
        for label, result in runs
    ]
    equal = len({tuple(budget(result).values()) for _, result in runs}) == 1
    verdict = "the budgets are equal" if equal else "THE BUDGETS DIFFER, so this is no fair comparison"
    return html_table(("run", "seed", *budget(runs[0][1]), "time"), rows, f"The runs; {verdict}")


budget_table() if complete else NOTHING


# %% tags=["hide-input"]
def mean_of(runs, error):
    return float(np.mean([run["metrics"][error]["mean"] for run in runs]))


def interval_of(runs, error):
    """From the lowest to the highest end of the runs' intervals: choice of test people, and seeds."""
    lows, highs = zip(*(run["metrics"][error]["ci95"] for run in runs), strict=True)
    return min(lows), max(highs)


def pair_table():
    rows = []
    for depth, label in ((False, "without depth"), (True, "with depth")):
        texts = []
        for error in ERRORS:
            low, high = interval_of(pair[depth], error)
            texts.append(f"{mean_of(pair[depth], error):.1f} [{low:.1f}, {high:.1f}]")
        rows.append((label, *texts))
    gain = [mean_of(pair[False], error) - mean_of(pair[True], error) for error in ERRORS]
    base = [mean_of(pair[False], error) for error in ERRORS]
    rows.append(
        (
            "difference",
            *(f"{g:+.1f} ({100 * g / b:+.1f} %)".replace("-", "−") for g, b in zip(gain, base, strict=True)),
        )
    )
    count = "/".join(str(len(pair[depth])) for depth in (False, True))
    return html_table(
        ("", *ERRORS.values()),
        rows,
        "Measured (mm), with 95 % bootstrap intervals over the test people; runs without/with depth: "
        f"{count}",
        ours=[1],
    )


pair_table() if complete else NOTHING

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Errors of the small pair, without and with depth: a dot for each trained network, a bar for the 95 % interval over the test people.", "name": "fig-ablation"}}
if complete:
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.1))
    figure.patch.set_alpha(0)
    for axis, (error, title) in zip(axes, ERRORS.items(), strict=True):
        for row, (depth, colour) in enumerate(((False, "#E69F00"), (True, "#0072B2"))):
            low, high = interval_of(pair[depth], error)
            axis.plot([low, high], [row, row], color=colour, linewidth=3, solid_capstyle="round")
            axis.plot(
                [run["metrics"][error]["mean"] for run in pair[depth]],
                [row] * len(pair[depth]),
                "o",
                color=colour,
                markersize=8,
            )
        axis.set_yticks([0, 1], ["without", "with depth"] if axis is axes[0] else ["", ""])
        axis.set_ylim(-0.6, 1.6)
        axis.set_xlabel(f"{title} (mm)", color=INK)
        axis.set_facecolor("none")
        axis.tick_params(colors=INK)
        axis.grid(axis="x", color=INK, alpha=0.25, linewidth=0.5)
        for spine in axis.spines.values():
            spine.set_color(INK)
    figure.tight_layout()
    plt.show()


# %% tags=["hide-input"]
def verdict():
    """What the measured numbers allow one to say, in words chosen by them."""
    lines = []
    for error, title in ERRORS.items():
        gain = mean_of(pair[False], error) - mean_of(pair[True], error)
        (low_a, high_a), (low_b, high_b) = interval_of(pair[False], error), interval_of(pair[True], error)
        apart = high_b < low_a or high_a < low_b
        who = "with" if gain > 0 else "without"
        strength = (
            "and the intervals do not overlap"
            if apart
            else "but the intervals overlap, so the test people alone could make this difference"
        )
        lines.append(f"* {title}: lower **{who}** depth by {abs(gain):.1f} mm, {strength}.")
    runs = min(len(pair[True]), len(pair[False]))
    if runs == 1:
        lines.append(
            "\nEach network was trained once. The intervals cover the choice of test people, not the "
            "luck of a seed, which in small trainings can be "
            "worth as much as the differences here. A difference without repetitions is a hint, not a result."
        )
    else:
        spreads = []
        for error, title in ERRORS.items():
            values = [run["metrics"][error]["mean"] for depth in (False, True) for run in pair[depth]]
            within = max(
                np.ptp([run["metrics"][error]["mean"] for run in pair[depth]]) for depth in (False, True)
            )
            spreads.append(f"{title} {within:.1f} mm (all runs: {min(values):.1f} to {max(values):.1f})")
        lines.append(f"\nSeeds of the same network differ by up to: {'; '.join(spreads)}.")
    learned = [run for run in pair[True] if "depth_l1" in run["metrics"]]
    if learned:
        error = np.mean([run["metrics"]["depth_l1"]["mean"] for run in learned])
        constant = np.mean([run["baselines"]["constant_depth"]["depth_l1"]["mean"] for run in learned])
        lines.append(
            "\nWhether the ablation means anything depends on depth having been learned: its error on "
            f"the person's pixels is {error:.4f}, that of the best "
            f"constant {constant:.4f} (ratio {error / constant:.2f})."
        )
    return Markdown("\n".join(lines))


verdict() if complete else NOTHING
