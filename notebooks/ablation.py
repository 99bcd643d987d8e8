# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does depth help? The ablation
#
# The paper {cite:p}`dpose` compares D-PoSE with the same network without the depth branch (its Table 3). This page
# asks what that table shows, and repeats the comparison with small networks, several random seeds and a statistical
# test. The same experiment compares D-PoSE with the heads of other methods in Table 1 after equally short training. It
# does not test how fast they converge.
#
# :::{chapter}
# :needs: [Tables 1 to 3](tables.ipynb), [The decoders](decoders.ipynb), [Soft attention](attention.ipynb), [The losses](losses.ipynb)
# :learn: what an ablation is, and why one training run per network is too few; how paired differences and their confidence intervals are computed; what small networks on synthetic people show about depth, soft attention and other heads; what this design cannot show
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
results = None  # folder of measured numbers; None: the repository's results/

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()


import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown
from scipy import stats

import dpose
from dpose import paper
from dpose.figures import INK, NBSP, html_table, listed, signed, style_axis, unbroken
from dpose.model.network import DPose
from dpose.outcome import BASE, DEPTH_LIMIT, METRICS, PRIMARY, WITHOUT_DEPTH, claims, read_outcome
from dpose.results import totals
from dpose.training import recipe

fixed, tuned = read_outcome("ablation", results), read_outcome("encoder", results)
PLAN = fixed.experiment.variants
planned = sum(variant.seeds for variant in PLAN.values())
ERRORS = ("mpjpe", "pa_mpjpe", "mve")
NOTHING = Markdown("*Not measured yet: `dpose experiment ablation` makes the records of this section.*")
TUNED_NOTHING = Markdown("*Not measured yet: `dpose experiment encoder` makes the records of this section.*")
UNPAIRED = Markdown(
    "*Nothing to compare yet: this needs two seeds of a variant and of D-PoSE on the same people.*"
)


def label(variant):
    """Its name in tables and the figure; † if it does not meet a precondition."""
    mark = "(stale)" if variant in fixed.outdated else "†" if fixed.unmet(variant) else ""
    return f"{PLAN[variant].title}{NBSP}{mark}".rstrip()


def dagger(variants):
    """The end of a caption."""
    return ". †: does not meet a precondition" if any(map(fixed.unmet, variants)) else ""


# %% [markdown]
# ## What Table 3 shows
#
# An {term}`ablation` removes one component of a method and keeps everything else. "Without depth" means: no depth
# decoder, no depth loss, and no depth features $D$ in the regressor's input $g_j$. Encoder, part segmentation,
# attention and regressor stay.

# %% tags=["remove-input"]
gains = {data: np.subtract(*pair)[::-1] for data, pair in paper.TABLE_3.items()}  # PA-MPJPE, MPJPE, MVE
html_table(
    ("data set", "PA-MPJPE", "MPJPE", "MVE"),
    [
        (
            data,
            *(
                f"{signed(value)} ({signed(100 * value / base)}{NBSP}%)"
                for value, base in zip(gain, paper.TABLE_3[data][1][::-1], strict=True)
            ),
        )
        for data, gain in gains.items()
    ],
    "Computed from the reported Table 3: error without depth minus error with depth, mm, and in per cent of the latter. Positive: depth helps",
)

# %% tags=["remove-input"]
reported = np.stack(list(gains.values()))
Markdown(
    f"Depth lowers {(reported > 0).sum()} of the {reported.size} reported errors and raises {(reported < 0).sum()}; the "
    f"differences lie between {signed(reported.min())} and {signed(reported.max())}{NBSP}mm. Each row of the table is one "
    "trained network. A network that starts from other random numbers, or sees the images in another order, has "
    "another error. The table does not state how large this variation is, so it cannot show which of the differences "
    "are due to depth.\n\n"
    "The released code cannot repeat the table; [Tables 1 to 3](tables.ipynb) has the reasons."
)

# %% [markdown]
# ## Design of the experiment
#
# The networks of this experiment are small, so that each can be trained several times on two processor cores. Their
# common encoder has MoveNet's backbone, which has learned 2D keypoints in photographs (the paper's encoder starts from
# keypoints, too) and is not trained further. They learn from the training split of the open synthetic people and are
# measured on its test split. The groups of networks, the *variants*, differ in one thing each. D-PoSE is the preset `lite` here, but
# not the shipped network of that name, which was trained longer and with other data.

# %% tags=["remove-input"]
html_table(
    ("variant", "name in commands", "network", "seeds"),
    [(variant.title, unbroken(name), variant.about, str(variant.seeds)) for name, variant in PLAN.items()],
    "The variants of the experiment",
    align="lll",
)

# %% tags=["remove-input"]
budget = fixed.experiment.recipe(PLAN[BASE])
missing = [f"{PLAN[name].title} (seed {', '.join(map(str, seeds))})" for name, seeds in fixed.missing.items()]
Markdown(
    f"Each run sees {fixed.experiment.images:,} images in {budget.steps:,} steps of {budget.batch_size}. For the same seed all variants see the "
    "same images in the same order, with the same steps, learning rates and losses, except for what the variant is about. "
    "The random weights from which the trained layers start differ between variants, because networks with other layers draw "
    "other numbers.\n\n"
    + (
        f"**{len(fixed.measured)} of the {planned} planned runs are recorded.** Missing: {'; '.join(missing)}."
        if missing and fixed.measured
        else f"All {planned} planned runs are recorded."
        if fixed.measured
        else "No run is recorded yet."
    )
)

# %% [markdown]
# ### Paired differences
#
# For seed $s$ and test person $i$ take the difference between the errors of a variant and of D-PoSE, and its mean
#
# $$ d_{si} = e^\text{variant}_{si} - e^\text{D-PoSE}_{si} , $$
#
# $$ \bar d = \frac{1}{S} \sum_{s=1}^{S} \bar d_s, \qquad \bar d_s = \frac{1}{N} \sum_{i=1}^{N} d_{si} . $$
#
# The same people occur on both sides of the difference, so what makes a person difficult for both networks cancels.
# $\bar d$ would change with other seeds and with other people. Its variance therefore has two terms,
#
# $$ V = \frac{1}{S} \operatorname{var}_s(\bar d_s) + V_\text{people} . $$
#
# The first term is for the choice of the seeds. The second is for the choice of the people, by a {term}`bootstrap` over the
# test scenes. A part of the variation between people is different for each seed; it already contributes to the first term
# and is subtracted from the second, so that it is counted once.
#
# The 95 % {term}`confidence interval` is $\bar d \pm q \sqrt{V}$. The factor $q$ is a mean of two quantiles of Student's
# distribution, weighted by the two terms: one for the number of seeds, one for the number of scenes.

# %% tags=["remove-input"]
of_seeds = {count: stats.t.ppf(0.975, count - 1) for count in (2, 3, 5)}
Markdown(
    f"The quantile for seeds is {', '.join(f'{q:.1f} for {count}' for count, q in of_seeds.items())} seeds; that for many scenes is "
    f"{stats.norm.ppf(0.975):.1f}. With few seeds the interval is therefore wide, mostly if the seeds cause most of the "
    "variance. Two or three seeds can agree by chance, so the interval is never narrower than the one for other people and "
    "the same seeds."
)

# %% [markdown]
# {py:obj}`~dpose.compare.paired_difference` computes the interval, and a test of the package simulates experiments to check
# that it contains the true difference in 95 % of them.
#
# The *detectable* difference is the smallest true difference for which the interval excludes 0 in 80 of 100 such
# experiments. If an interval contains 0, every value inside it is still possible, also one above the detectable difference.
#
# ### Rule for the conclusion
#
# Two primary metrics decide whether depth helps: PA-MPJPE and MPJPE of all test people. They were fixed when
# two of the planned seeds had been recorded, and a conclusion is stated only when all have been. If both intervals exclude 0 on the same
# side, the experiment shows an effect; if one does, it shows an effect on that metric only. The other metrics describe the
# result and decide nothing. The metrics are not independent (MPJPE and MVE measure nearly the same), and no interval is corrected for
# the number of comparisons: without any effect, at least one of the two primary intervals excludes 0 in up to 10 % of such experiments.
#
# ## Results
#
# ### Have the networks learned enough to be compared?
#
# Networks that have learned nothing also have equal errors. The comparison therefore has three preconditions: equal
# training; for every network a PA-MPJPE clearly below that of the {term}`mean pose`; and for every network with a depth
# branch a depth error of at most 0.75 of the best constant's, a limit that was set before the first run was recorded.


# %% tags=["remove-input"]
def over_seeds(values, digits=1):
    """Mean over the seeds, and their standard deviation if there are several."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def errors_of(group):
    """Cells for the records of one variant, one per seed."""
    cells = [
        over_seeds([record["metrics"][metric]["mean"] for record in group])
        for metric in ("mpjpe", "pa_mpjpe", "orientation")
    ]
    parts = [r["metrics"]["parts_miou"]["mean"] for r in group if "parts_miou" in r["metrics"]]
    depth = [r["ratios"]["depth_l1"] for r in group if "depth_l1" in r["ratios"]]
    return [*cells, f"{np.mean(parts):.3f}" if parts else "–", f"{np.mean(depth):.2f}" if depth else "–"]


def variant_table():
    first, rows = fixed.measured[0], []
    for name, text in (
        ("mean_pose", "mean pose"),
        ("mean_pose_true_orientation", "mean pose, true orientation"),
    ):
        if baseline := first["baselines"].get(name):
            errors = [f"{baseline[error]['mean']:.1f}" for error in ("mpjpe", "pa_mpjpe")]
            orientation = f"{baseline['orientation']['mean']:.1f}" if "orientation" in baseline else "0"
            rows.append((text, "–", *errors, orientation, "–", "–"))
    for variant, seeds in fixed.records.items():
        rows.append((unbroken(label(variant)), str(len(seeds)), *errors_of(list(seeds.values()))))
    images = sorted({totals(record["checkpoint"]["metadata"])["images"] for record in fixed.measured})
    return html_table(
        ("variant", "seeds", "MPJPE", "PA-MPJPE", "orientation (°)", "parts mIoU", "depth ratio"),
        rows,
        f"Measured: {first['samples']:,} people of the {first['dataset']} data set's {first['split']} split, after training "
        f"with {' or '.join(f'{count:,}' for count in images)} images. Errors in mm; ±: standard deviation over the "
        "seeds. Depth ratio: depth error / error of the best constant" + dagger(fixed.records),
    )


variant_table() if fixed.measured else NOTHING


# %% tags=["remove-input"]
def about_orientation():
    """How MPJPE compares with the mean pose whose orientation is true."""
    limit = fixed.measured[0]["baselines"]["mean_pose_true_orientation"]["mpjpe"]["mean"]
    above = [
        name
        for name, seeds in fixed.records.items()
        if np.mean([run["metrics"]["mpjpe"]["mean"] for run in seeds.values()]) > limit
    ]
    return (
        Markdown(
            f"The MPJPE of {'all' if len(above) == len(fixed.records) else len(above)} variants is above {limit:.1f}{NBSP}mm, that of the mean pose "
            "with the true orientation: after so short a training the error of the orientation dominates it. PA-MPJPE, which does not contain this "
            "error, is far below that of the mean pose, so the networks have learned to predict poses."
        )
        if above
        else None
    )


about_orientation() if fixed.measured else None


# %% tags=["remove-input"]
def conditions():
    """Each precondition with the numbers that decide it."""

    def met(variants):
        titles = [PLAN[variant].title for variant in variants]
        return f"**not met** by {listed(titles)}; " if titles else "met by all runs; "

    unequal = [name for name, same in fixed.equal.items() if not same]
    lines = [
        f"* *Equal training* ({', '.join(fixed.equal)}): "
        + (f"**not met**, the runs differ in {', '.join(unequal)}." if unequal else "met by all runs.")
    ]
    if one := fixed.below_mean_pose:
        worst = max(one.worst, key=one.worst.get)
        lines.append(
            f"* *PA-MPJPE below the mean pose's* {fixed.measured[0]['baselines']['mean_pose']['pa_mpjpe']['mean']:.1f}{NBSP}mm (the "
            f"95{NBSP}% intervals of the test people must not overlap): {met(one.unmet)}the highest upper end is "
            f"{one.worst[worst]:.1f}{NBSP}mm ({PLAN[worst].title}), the lower end of the mean pose {one.limit:.1f}{NBSP}mm."
        )
    if one := fixed.depth_learned:
        lines.append(
            f"* *Depth error at most {DEPTH_LIMIT} of the best constant's*: {met(one.unmet)}the highest ratio of a single run "
            f"is {max(one.worst.values()):.2f}."
        )
    if fixed.outdated:
        lines.append(
            "* *Stale rows* were measured with something that the repository has changed since: "
            + "; ".join(
                f"{PLAN[name].title}: {'; '.join(reasons)}" for name, reasons in fixed.outdated.items()
            )
            + "."
        )
    return Markdown("\n".join(lines))


conditions() if fixed.measured else NOTHING

# %% [markdown]
# ### Depth, heads, attention and losses
#
# {tab}`tab-without-depth` and the upper part of {numref}`fig-ablation` compare D-PoSE with the network without depth,
# {tab}`tab-other-variants` and the lower part with the other variants.

# %% tags=["remove-input"]
others = [variant for variant in fixed.differences if variant != WITHOUT_DEPTH]
single = [variant for variant in fixed.records if variant != BASE and len(fixed.paired(variant)) == 1]


def percent_of_base(one, metric):
    """The difference and the ends of its interval in per cent of D-PoSE's mean error."""
    return 100 * np.array([one.mean, *one.interval]) / fixed.base(metric, one.by_seed)


def of_base(one, metric):
    return "–" if metric == "parts_miou" else f"{signed(percent_of_base(one, metric)[0])}{NBSP}%"


def standard_errors(one, metric):
    """Square roots of the two variance terms; the second includes what the lower limit of the interval adds."""
    of_seeds = np.var(list(one.by_seed.values()), ddof=1) / len(one.by_seed)
    terms = (of_seeds, max(one.error**2 - of_seeds, 0.0))
    return [f"{term**0.5:.{METRICS[metric].digits + (metric != 'parts_miou')}f}" for term in terms]


def depth_table(outcome, more, text, name=""):
    """The differences between the networks without and with depth; `more`: further columns, with their cells."""
    head = ("difference in", "mean", *more, "95 % interval", "detectable")
    rows = [
        (
            f"{METRICS[metric].title}{', primary' if metric in PRIMARY else ''}",
            signed(one.mean, METRICS[metric].digits),
            *(cell(one, metric) for cell in more.values()),
            METRICS[metric].interval(one),
            f"{one.detectable:.{METRICS[metric].digits}f}",
        )
        for metric, one in outcome.depth.items()
    ]
    caption = (
        f"{len(outcome.paired(WITHOUT_DEPTH))} of {outcome.planned()} seeds. Positive errors: depth helps"
    )
    return html_table(head, rows, text + caption, name=name)


depth_table(
    fixed,
    {
        "of D-PoSE's": of_base,
        "seeds": lambda one, metric: standard_errors(one, metric)[0],
        "people": lambda one, metric: standard_errors(one, metric)[1],
    },
    "Measured: errors without depth minus errors with depth, paired by seed and person (computed before rounding). Parts: "
    "mean IoU of a person's parts. Columns “seeds” and “people”: square roots of the two variance terms. ",
    "tab-without-depth",
) if fixed.depth else UNPAIRED

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Errors of each variant minus those of D-PoSE; right of the vertical line D-PoSE is better. Top: without depth. Bottom: the other variants. Diamond and line: mean and 95 % interval. Dots: single seeds. Grey bar: differences that are too small for this experiment to detect reliably. Blue intervals exclude 0, orange ones contain it. †: does not meet a precondition.", "name": "fig-ablation"}, "image": {"alt": "Two panels of horizontal intervals with a diamond at the mean and dots for single seeds, over grey bars around a vertical line at zero. The upper panel has one row per error for the network without depth, the lower one a row per other variant in three columns, one for each error."}}
EXCLUDES, CONTAINS = "#0072B2", "#B55A00"  # intervals and 0


def draw(axis, row, one):
    axis.barh(row, 2 * one.detectable, 0.56, -one.detectable, color=INK, alpha=0.4, linewidth=0)
    colour = EXCLUDES if one.found else CONTAINS
    axis.plot(one.interval, [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
    axis.plot(one.mean, row, "D", color=colour, markersize=6)
    axis.plot(
        list(one.by_seed.values()), np.full(len(one.by_seed), row + 0.36), "o", color=colour, markersize=4
    )


def finish(axis, labels, title):
    axis.axvline(0, color=INK, linewidth=1)
    axis.set_yticks(range(len(labels)), labels, fontsize=10)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.use_sticky_edges = False
    axis.margins(x=0.05)
    axis.tick_params(axis="x", labelsize=10)
    axis.set_xlabel(title, fontsize=10)
    style_axis(axis)


if fixed.differences:
    parts = [name for name, present in (("depth", fixed.depth), ("others", others)) if present]
    rows = {"depth": len(ERRORS), "others": len(others)}
    figure = plt.figure(figsize=(7.4, sum(0.9 + 0.42 * rows[name] for name in parts)), layout="constrained")
    figure.patch.set_alpha(0)
    panels = figure.subfigures(
        len(parts), 1, squeeze=False, height_ratios=[2 + rows[name] for name in parts]
    )[:, 0]
    for panel, name in zip(panels, parts, strict=True):
        panel.patch.set_alpha(0)
        if name == "depth":
            axis = panel.subplots()
            for row, metric in enumerate(ERRORS):
                draw(axis, row, fixed.depth[metric])
            finish(
                axis,
                [METRICS[metric].name for metric in ERRORS],
                "error without depth minus error of D-PoSE (mm)",
            )
            continue
        axes = panel.subplots(1, len(ERRORS), sharey=True)
        for axis, metric in zip(axes, ERRORS, strict=True):
            for row, variant in enumerate(others):
                draw(axis, row, fixed.differences[variant][metric])
            titles = [label(variant) for variant in others]
            finish(axis, titles, f"difference in {METRICS[metric].title}")
    plt.show()

# %% tags=["remove-input"]
shown = [metric for metric in METRICS if metric != "mve"]  # which is in the figure


def other_cells(variant):
    for metric in shown:
        one, digits = fixed.differences[variant].get(metric), METRICS[metric].digits
        yield f"{signed(one.mean, digits)} ± {one.interval[1] - one.mean:.{digits}f}" if one else "–"


html_table(
    ("variant", *(METRICS[metric].title for metric in shown)),
    [(unbroken(label(variant)), *other_cells(variant)) for variant in others]
    + [(f"{PLAN[variant].title} (one seed, no interval)", *["–"] * len(shown)) for variant in single],
    "Measured: errors of the other variants minus those of D-PoSE with the same seeds; ±: half of the 95 % interval. Positive "
    "errors and negative parts IoU: D-PoSE is better" + dagger(others),
    name="tab-other-variants",
) if others or single else UNPAIRED

# %% [markdown]
# ### What the numbers show


# %% tags=["remove-input"]
def all_metrics(outcome):
    """What the intervals of all differences without depth show, in a sentence or two."""
    if not outcome.complete():
        return "The table has the differences so far."
    groups = {
        "Higher without depth": [m for m, one in outcome.depth.items() if one.found and one.mean > 0],
        "Lower without depth": [m for m, one in outcome.depth.items() if one.found and one.mean < 0],
        "Intervals that contain 0": [m for m, one in outcome.depth.items() if not one.found],
    }
    return " ".join(
        f"{text}: {listed([METRICS[m].name for m in metrics])}."
        for text, metrics in groups.items()
        if metrics
    )


def compared_with_paper():
    """The differences in per cent, measured and reported, and which reported ones the intervals exclude."""
    order = ("pa_mpjpe", "mpjpe", "mve")
    relative = 100 * reported / np.stack([pair[1][::-1] for pair in paper.TABLE_3.values()])
    texts, outside = [], []
    for metric, values in zip(order, relative.T, strict=True):
        mean, low, high = percent_of_base(fixed.depth[metric], metric)
        cells = [f"{data} {signed(value)}" for data, value in zip(gains, values, strict=True)]
        texts.append(
            f"* {METRICS[metric].name}: {signed(mean)}{NBSP}%, interval {signed(low)} to {signed(high)} (reported: {', '.join(cells)})"
        )
        outside += [
            f"{METRICS[metric].name} on {data}"
            for data, value in zip(gains, values, strict=True)
            if not low <= value <= high
        ]
    text = "In per cent of D-PoSE's error, beside the reported Table 3:\n\n" + "\n".join(texts)
    if fixed.complete():
        text += "\n\n" + (
            f"An effect of the reported relative size is outside the interval for {listed(outside)}; the other reported effects "
            "are inside. This concerns these small networks, not the paper's."
            if outside
            else "All reported effects have a relative size that is inside the intervals."
        )
    return text


def other_variant(variant):
    """What the intervals of another variant show."""
    if not fixed.complete(variant):
        return f"inconclusive until complete ({len(fixed.paired(variant))} of {fixed.planned(variant)} seeds)"
    ones = {metric: fixed.differences[variant][metric] for metric in ERRORS}
    groups = {
        "worse in": [m for m, one in ones.items() if one.found and one.mean > 0],
        "better in": [m for m, one in ones.items() if one.found and one.mean < 0],
        "no difference shown in": [m for m, one in ones.items() if not one.found],
    }
    return "; ".join(
        f"{text} {listed([f'{METRICS[m].name} ({METRICS[m].interval(ones[m])}{NBSP}mm)' for m in metrics])}"
        for text, metrics in groups.items()
        if metrics
    )


def findings():
    lines = []
    if fixed.depth:
        lines += [f"**{fixed.claim()}** {all_metrics(fixed)}", "", compared_with_paper(), ""]
    if others:
        lines += [
            "The other variants compared with D-PoSE, by the errors of joints and vertices (95 % intervals):",
            "",
        ]
        compared = [variant for variant in others if not fixed.unmet(variant)]
        lines += [f"* {PLAN[variant].title}: {other_variant(variant)}." for variant in compared]
        lines += [
            f"* {PLAN[variant].title}: not compared, because a precondition is not met ({', '.join(fixed.unmet(variant))})."
            for variant in others
            if variant not in compared
        ]
        count = len(compared) * len(ERRORS)
        lines += [
            "",
            f"These are {count} intervals. If no variant differed from D-PoSE, {0.05 * count:.1f} of them would exclude 0 by chance "
            "on average. An interval whose end is close to 0 is weak evidence.",
        ]
    return Markdown("\n".join(lines))


findings() if fixed.differences else UNPAIRED

# %% [markdown]
# MPJPE and MVE contain the error of the {term}`global orientation`, which the tables list separately; PA-MPJPE does not.
# [What the errors depend on](analysis.ipynb) measures, for one trained network, which of these errors its depth features reduce.
#
# ### With a trained backbone
#
# In the experiment above the backbone is fixed, so the adapters are the only layers of the encoder that the depth loss can change. A second experiment trains the
# backbone, too, at the lower rate that `lite` uses ([Training](train.ipynb)). (Higher rates made the network worse, see
# [From rendered people to photographs](photographs.ipynb).) It was planned after the result above was known. Everything
# else is the same, with the same rule for the conclusion.

# %% tags=["remove-input"]
html_table(
    ("backbone", "variant", "seeds", "MPJPE", "PA-MPJPE", "parts mIoU", "depth ratio"),
    [
        (
            encoder,
            unbroken(PLAN[variant].title),
            str(len(outcome.records[variant])),
            *np.delete(errors_of(list(outcome.records[variant].values())), 2),
        )
        for encoder, outcome in (("fixed", fixed), ("trained", tuned))
        for variant in (BASE, WITHOUT_DEPTH)
        if variant in outcome.records
    ],
    "Measured: the same test people and training images with a fixed and with a trained backbone. Errors in mm; ±: standard "
    "deviation over the seeds",
    align="llrrrrr",
) if tuned.measured else TUNED_NOTHING

# %% tags=["remove-input"]
depth_table(
    tuned,
    {},
    "Measured, backbone trained: errors without depth minus errors with depth, paired by seed and person. ",
) if tuned.depth else TUNED_NOTHING if tuned.measured else None

# %% tags=["remove-input"]
Markdown(f"**{tuned.claim()}** {all_metrics(tuned)}") if tuned.depth else None

# %% [markdown]
# ## What this design cannot show

# %% tags=["remove-input"]
encoder = DPose(dpose.preset("lite")).encoder
backbone, adapters = (
    sum(weight.numel() for weight in part.parameters()) for part in (encoder.backbone, encoder.adapters)
)
full, small, large = recipe("paper"), dpose.preset("lite"), dpose.preset("paper")
weights, paper_weights = budget.weights, full.weights
factors = {
    term: weights.of(term) / paper_weights.of(term) for term in ("depth_l1", "segm", "pose", "vertices")
}
Markdown(
    f"* *The backbone is fixed* in the first experiment (MoveNet's, {backbone / 1e6:.1f} million weights). In the paper the depth "
    f"loss trains the whole encoder. In this experiment its gradient reaches only the depth decoder and the adapters: four 1×1 convolutions with "
    f"{adapters / 1e3:.0f} thousand weights, whose outputs $F_1$ to $F_4$ all branches share. It does not reach the layers that make $F_{{up}}$ "
    "from them. So depth can help through the mean of $D$ in the regressor's input and through the adapters only. The second "
    "experiment is about training the backbone, for a short time and with a small rate; neither shows what longer training with "
    "depth does.\n"
    f"* *The maps have a larger weight in the loss.* Relative to the paper's, the recipe multiplies the depth terms by {factors['depth_l1']:.0f}, the "
    f"part term by {factors['segm']:.0f}, the pose term by {factors['pose']:.1f} and the vertex term by {factors['vertices']:.1f}. Relative to the "
    f"vertex term, depth has {factors['depth_l1'] / factors['vertices']:.0f} times its weight in the paper. With the paper's weights the "
    "effect of depth may differ. The variant “released losses” has other weights again.\n"
    f"* *Training is short*: {fixed.experiment.images:,} images per run, against {full.steps * full.batch_size:,} in the paper, "
    f"{full.steps * full.batch_size / fixed.experiment.images:.0f} times as many. An effect may grow or vanish with longer training.\n"
    f"* *Crops are small*: {small.image_size} pixels against {large.image_size}, maps {small.map_size} pixels against {large.map_size}.\n"
    "* *Start weights differ between variants*, except for the backbone. Pairing by seed removes the order of the images as a "
    "cause, but not the start weights.\n"
    "* *Losses and learning rate* are those of the preset `lite`, chosen for D-PoSE. The other heads might be better with "
    "their own.\n"
    "* *People are rendered.* Nothing follows for photographs. [From rendered people to photographs](photographs.ipynb) has the scores of "
    "the networks with and without depth on a few of them."
)

# %% [markdown]
# [Real data, step by step](../book/real_data.md) has the commands for the paper's own experiment, also with several seeds.
#
# ## Run it yourself
#
# A run that has a record in the repository is not trained again, so these commands have folders of their own. They train and
# measure the pairs with and without depth and build this page from the new records. They need no GPU, can be interrupted and resume where
# they stopped; several processes, also on machines with a shared folder, divide the runs among themselves.
#
# ```sh
# dpose synth                       # the open data, if they are not there yet
# dpose experiment ablation --list  # the runs, and which are recorded
# dpose experiment ablation --variants lite lite-no-depth \
#   --out /tmp/t3/ablation --runs /tmp/t3/runs
# dpose experiment encoder --out /tmp/t3/encoder --runs /tmp/t3/encoder-runs
# papermill notebooks/ablation.ipynb /tmp/t3/ablation.ipynb -p results /tmp/t3
# ```
#
# [Reproducibility](../book/reproducibility.md) has a short trial, and the hours of all experiments.


# %% tags=["remove-input"]
def cost():
    runs = fixed.measured
    each = [run["checkpoint"]["metadata"]["seconds"] + run["seconds"] for run in runs]
    machines = sorted(
        {
            ", ".join(run["hardware"].get("gpus", ()))
            or f"{run['hardware']['cores']} cores, {run['hardware']['cpu']}"
            for run in runs
        }
    )
    gpus = any("gpus" in run["hardware"] for run in runs)
    commits = sorted({(run["commit"] or "unknown")[:7] for run in runs})
    return Markdown(
        f"The {len(runs)} recorded runs took {np.mean(each) / 60:.0f} minutes each ({min(each) / 60:.0f} to "
        f"{max(each) / 60:.0f}), training and measurement ({'; '.join(machines)}"
        f"{'' if gpus else '; one core per run, other programs running'}). All {planned} take about "
        f"{planned * np.mean(each) / 3600:.1f} hours of one {'GPU' if gpus else 'core'}. Command: `{runs[0]['command']}`; commit "
        f"{', '.join(f'`{commit}`' for commit in commits)}."
    )


cost() if fixed.measured else NOTHING

# %% [markdown]
# ## Takeaways

# %% tags=["remove-input"]
depth = fixed.depth
Markdown(
    f"* The paper's Table 3 favours depth in {(reported > 0).sum()} of {reported.size} errors, but each of its rows is a single "
    "training run, so it cannot separate the effect of depth from that of chance.\n"
    + (
        f"* {claims(fixed, tuned) if tuned.depth else fixed.claim()} With {len(fixed.paired(WITHOUT_DEPTH))} seeds the "
        "experiment with the fixed backbone detects differences of "
        + listed(
            [
                f"{METRICS[m].text(depth[m].detectable, sign=False)} in {METRICS[m].name}"
                for m in ("mpjpe", "pa_mpjpe")
            ]
        )
        + ".\n"
        if depth
        else "* The comparison with and without depth is not recorded yet.\n"
    )
    + "* A difference between two networks is a property of the method only if it remains with other seeds and other "
    "test people; paired differences with an interval over both test this."
)

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** Suppose that two methods are equally good, that training runs of each vary with a standard deviation of
# 2 mm, and that the difference between two networks varies with 25 mm between the 1,000 test people. Someone trains each
# method once and computes a 95 % interval over the test people. How often does the interval exclude 0? How often with
# five seeds and an interval over the seeds?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
random, repetitions, seeds, test_people = np.random.default_rng(0), 20_000, 5, 1000
of_seed = random.normal(0, 2 * 2**0.5, (repetitions, seeds))  # difference of two networks, all people
of_seed += random.normal(0, 25 / test_people**0.5, (repetitions, seeds))  # and of these people's mean
one_run = np.abs(of_seed[:, 0]) > 1.96 * 25 / test_people**0.5
error = of_seed.std(1, ddof=1) / seeds**0.5
five_runs = np.abs(of_seed.mean(1)) > stats.t.ppf(0.975, seeds - 1) * error
assert one_run.mean() > 0.3 and abs(five_runs.mean() - 0.05) < 0.01
Markdown(
    f"With one run each, {100 * one_run.mean():.0f}{NBSP}% of the experiments find a difference that does not exist; with five "
    f"seeds and an interval over the seeds {100 * five_runs.mean():.0f}{NBSP}%, as a 95{NBSP}% interval should. More test people "
    "do not help: they shrink the interval of the first experiment, not the variation between training runs."
)

# %% [markdown]
# **Exercise 2.** How many seeds per variant would the experiment need to detect a difference of 0.5 mm in PA-MPJPE?
#
# Use the standard deviation of the seeds' differences from the records, or 2 mm if there are none. Neglect the variance
# from people, and use Student's quantiles as in the definition of the detectable difference.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
spread = np.std(list(depth["pa_mpjpe"].by_seed.values()), ddof=1) if depth else 2.0


def detectable(count):
    return stats.t.ppf([0.975, 0.8], count - 1).sum() * spread / count**0.5


needed = next(count for count in range(2, 1000) if detectable(count) <= 0.5)
Markdown(
    f"The seeds' differences have a standard deviation of {spread:.2f}{NBSP}mm"
    f"{'' if depth else ' (assumed)'}. Five seeds detect {detectable(5):.2f}{NBSP}mm; for 0.5{NBSP}mm {needed} seeds are needed."
)

# %% [markdown]
# **Exercise 3.** The paper's encoder is trained together with the decoders. Describe an experiment that shows whether depth
# helps by improving the encoder's features or by giving the regressor additional input.
#
# :::{dropdown} Solution
# Separate the two paths with a variant that has the depth decoder and its loss but not $D$ in the regressor's input. If depth
# acts through the encoder, this variant is as good as D-PoSE; if it acts through the input, it is as bad as the variant
# without depth. Both variants must train the encoder, with several seeds each.
# :::
