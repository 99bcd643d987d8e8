# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What the errors depend on
#
# A mean over a test set does not show which joints are wrong, for which people, or why. This page examines one network on
# the people of the test split.
#
# :::{chapter}
# :needs: [Metrics](metrics.ipynb), [The decoders](decoders.ipynb), [The regressor](regressor.ipynb)
# :learn: how errors grow along the limbs; how a linear model and partial correlations separate causes that occur together; what the depth features contribute to the body; whether the maps are calibrated
# :::
#
# Everything is computed when the page is built. Brackets are 95 % {term}`bootstrap` intervals over the test scenes; another
# network, trained from another seed, may differ by more.

# %% tags=["parameters", "hide-input"] nbmake={"mock": {"people": 24}} mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
checkpoint = "lite"  # a shipped network, or a .safetensors file; it needs a depth branch
data = None  # data root; None: $DPOSE_DATA, else the open data
split = "test"
people = None  # how many are measured; None: all
body = None  # body model file or name; None: the one recorded in the checkpoint

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown

import dpose
from dpose import analysis
from dpose.bootstrap import ClusterBootstrap
from dpose.data.loader import make_loader
from dpose.figures import INK, NBSP, draw_mesh, html_table, listed, signed, style_axis
from dpose.model import checkpoint as checkpoints
from dpose.skeleton import JOINT_NAMES

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
plt.rcParams["figure.dpi"] = 130

network = dpose.load(checkpoint)
recipe = checkpoints.metadata(checkpoint).get("recipe", {})
balance = recipe.get("weights", {}).get("parts_balance", 0.0)
mesh = checkpoints.body_of(network, body)
loader = make_loader(data, split, network.config, 64)
table = analysis.examine(network, loader, mesh, people, balance)
column = {name: values.numpy() for name, values in table.items() if isinstance(values, torch.Tensor)}
bootstrap = ClusterBootstrap(table["key"])


def mean(values, digits=0, unit=f"{NBSP}mm", sign=""):
    """Mean over people with its interval, as text."""
    return text(bootstrap.means({"x": values})["x"], digits, unit, sign)


def text(score, digits=0, unit="", sign="", factor=1.0):
    value = f"{factor * score['mean']:{sign}.{digits}f}{unit}"
    if score["ci95"]:
        low, high = (f"{factor * end:{sign}.{digits}f}" for end in score["ci95"])
        value += f" [{low}, {high}]"
    return value.replace("-", "−")


def plain(name):
    return name.replace("_", " ")


def interval(axis, score, at, colour, factor=1.0, horizontal=True, **options):
    """A dot with a bar for the interval."""
    ends = [factor * end for end in score["ci95"] or [score["mean"]] * 2]
    line, dot = (ends, [at, at]), (factor * score["mean"], at)
    axis.plot(*(line if horizontal else line[::-1]), color=colour, linewidth=2.2, alpha=0.6)
    options = {"marker": "o", "markersize": 5.5, "linestyle": ""} | options
    axis.plot(*(dot if horizontal else dot[::-1]), color=colour, **options)


Markdown(
    f"The network is `{network.config.name}`, measured on {len(table['key']):,} people in {bootstrap.clusters} scenes: MPJPE "
    f"{mean(column['mpjpe'])}, PA-MPJPE {mean(column['pa_mpjpe'])}, error of the global orientation "
    f"{mean(column['orientation'], unit='°')}."
)

# %% [markdown]
# ## Which joints are wrong?
#
# {numref}`fig-joint-errors` draws the mean error of each joint as the radius of a circle, at the scale of the body.
# Left: MPJPE, both pelvises at the origin. Middle: the same prediction with the true {term}`global orientation` instead of
# the predicted one. Right: PA-MPJPE, after {term}`Procrustes alignment`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean error of each joint as the radius of a circle, at the scale of the body. Numbers: mm, mean of left and right. Left: MPJPE. Middle: with the true global orientation. Right: PA-MPJPE.", "name": "fig-joint-errors"}, "image": {"alt": "Three grey bodies with a yellow circle at each joint. The circles grow from the pelvis to feet, hands and head; they are largest on the left and smallest on the right."}}
with torch.inference_mode():
    turned = torch.cat([table["truth"]["rotmats"][:, :1], table["rotmats"][:, 1:]], 1)
    upright = mesh(table["betas"], turned, surface=False).joints[:, :24]
    oriented, _ = analysis.joint_errors(upright, table["truth"]["joints"])
    pose = torch.zeros(1, 22, 3)
    pose[0, 0, 0] = torch.pi  # upright, facing the camera
    pose[0, [1, 2], 2] = torch.tensor([0.28, -0.28])  # legs apart
    pose[0, [16, 17], 2] = torch.tensor([-0.45, 0.45])  # arms half down
    shape = network.regressor.init_shape[None]
    shown = mesh(shape, pose, torch.tensor([[0, 0, 20.0]]), form="axis-angle")

SIDE, PER_METRE = 440, 205  # pixels
middle = 0.5 * (shown.vertices[0].amin(0) + shown.vertices[0].amax(0))
focal = PER_METRE * 20.0
camera = torch.tensor(
    [
        [focal, 0, SIDE / 2 - focal * middle[0] / 20],
        [0, focal, SIDE / 2 - focal * middle[1] / 20],
        [0, 0, 1],
    ]
)
picture = draw_mesh(shown.vertices[0], mesh.faces, camera, SIDE, "#5b6470")
places = shown.joints[0, :24] @ camera.T
places = (places[:, :2] / places[:, 2:]).numpy()
LABELLED = ("left_foot", "left_knee", "left_wrist", "head")
panels = {
    "MPJPE": column["joints"].mean(0),
    "with the true orientation": oriented.numpy().mean(0),
    "PA-MPJPE": column["joints_aligned"].mean(0),
}
figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.8), layout="constrained")
for axis, (title, errors) in zip(axes, panels.items(), strict=True):
    axis.imshow(picture)
    for name, place, error in zip(JOINT_NAMES, places, errors, strict=False):
        radius = error / 1000 * PER_METRE
        axis.add_patch(plt.Circle(place, radius, facecolor="#E69F0014", edgecolor="#F0B030", linewidth=1))
        if name in LABELLED:
            mirrored = JOINT_NAMES.index(name.replace("left", "right"))
            value = (error + errors[mirrored]) / 2
            right = max(place[0] + radius, place[0] + 14) + 5
            axis.text(right, place[1], f"{value:.0f}", color="white", fontsize=9, va="center")
    axis.set_title(f"{title}: {errors.mean():.0f} mm", color=INK, fontsize=10)
    axis.set(xlim=(0, SIDE), ylim=(SIDE, 0))
    axis.axis("off")
figure.patch.set_alpha(0)
plt.show()

# %% tags=["remove-input"]
order = np.argsort(-column["joints"].mean(0))
order_aligned = np.argsort(-column["joints_aligned"].mean(0))
reach = np.linalg.norm((shown.joints[0, :24] - shown.joints[0, :1]).numpy(), axis=1)
along = np.corrcoef(reach, column["joints"].mean(0))[0, 1]
first = plain(JOINT_NAMES[order_aligned[0]])
worst = order[0]
fixed = oriented.numpy()
kept = fixed[:, worst].mean() / column["joints"][:, worst].mean()
Markdown(
    f"The {plain(JOINT_NAMES[worst])} has the largest mean error ({mean(column['joints'][:, worst])}), followed by "
    f"{listed([plain(JOINT_NAMES[j]) for j in order[1:6]])}. Rotations multiply along the {{term}}`kinematic tree`, so errors grow "
    f"with the distance from the pelvis: over the 24 joints, distance and mean error have a correlation of {along:.2f}. With the true "
    f"global orientation MPJPE would be {mean(fixed.mean(1))}, and the {plain(JOINT_NAMES[worst])} would keep {100 * kept:.0f}{NBSP}% of its "
    "error, so "
    + (
        "most of that error is in the rotations along the limb. "
        if kept > 0.5
        else "most of that error comes from the orientation of the whole body. "
    )
    + "After Procrustes alignment the largest errors are those of "
    f"{listed([plain(JOINT_NAMES[j]) for j in order_aligned[:2]])} ({mean(column['joints_aligned'][:, order_aligned[0]])} for the "
    f"{first})."
)

# %% [markdown]
# ## Which people have large errors?
#
# Five properties of a person, and the mean errors of the people in each range ({numref}`fig-circumstances`):
#
# - *direction of view*: 0° for a person viewed from the front, 180° from behind;
# - *hidden*: the share of the person's silhouette (true parts) that other people or objects hide;
# - *cut off*: the share of the 22 body joints outside the image or the box;
# - *size*: the side of the network's square in pixels of the full image. All crops are scaled to the same size;
# - *unusual pose*: PA-MPJPE of the mean pose for this person.
#
# The last panel has all five in one linear model (least squares): the change of the error for a stated step of one property,
# the other four held fixed.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean errors with 95 % intervals by five properties of the person; blue: MPJPE, orange: PA-MPJPE. Last panel: effects of the five properties in one linear model (filled) and of each property alone (hollow).", "name": "fig-circumstances"}, "image": {"alt": "Five panels with two curves of mean errors, MPJPE above PA-MPJPE, over direction of view, hidden share, share of joints cut off, side of the square, and unusualness of the pose, and a sixth panel with horizontal intervals of five effects around zero."}}
away = np.abs(column["azimuth"])
QUINTILES = np.linspace(0, 1, 6)
properties = {  # values, bin edges, what the axis shows: factor and label
    "direction": (away, np.arange(0, 181, 30), 1, "direction of view (°)"),
    "hidden": (column["hidden"], (0, 0.02, 0.1, 0.2, 0.35, 1), 100, "hidden (%)"),
    "outside": (column["outside"], (0, 0.01, 0.1, 0.2, 0.35, 1), 100, "joints cut off (%)"),
    "side": (column["side"], np.quantile(column["side"], QUINTILES), 1, "side of the square (pixels)"),
    "unusual": (
        column["unusual"],
        np.quantile(column["unusual"], QUINTILES),
        1,
        "PA-MPJPE of mean pose (mm)",
    ),
}
quartiles = np.quantile(column["unusual"], [0.25, 0.75])
factors = {  # one unit of a factor is the step that its name states
    "viewed from behind": away / 180,
    "30 % hidden": column["hidden"] / 0.3,
    "30 % cut off": column["outside"] / 0.3,
    "half the size": -np.log2(column["side"]),
    "unusual pose": column["unusual"] / max(np.ptp(quartiles), 1e-6),
}
together, alone, explained = {}, {}, {}
for error in ("mpjpe", "pa_mpjpe"):
    together[error], explained[error] = analysis.effects(column[error], factors, bootstrap)
    alone[error] = {
        name: analysis.effects(column[error], {name: values}, bootstrap)[0][name]
        for name, values in factors.items()
    }

figure, axes = plt.subplots(2, 3, figsize=(7.5, 5.4), layout="constrained")
for axis, (values, edges, factor, label) in zip(axes.flat, properties.values(), strict=False):
    for error, colour in (("mpjpe", BLUE), ("pa_mpjpe", ORANGE)):
        scores = analysis.binned_means(column[error], values, edges, bootstrap)
        axis.plot(
            [factor * s["middle"] for s in scores], [s["mean"] for s in scores], color=colour, linewidth=1
        )
        for score in scores:
            interval(axis, score, factor * score["middle"], colour, horizontal=False)
    axis.set(xlabel=label)
for axis in axes.flat[:5]:
    axis.set_ylim(0, max(panel.get_ylim()[1] for panel in axes.flat[:5]))
for axis in axes[:, 0]:
    axis.set_ylabel("mm")
last = axes[1, 2]
for row, name in enumerate(factors):
    for error, colour, shift in (("mpjpe", BLUE, 0.12), ("pa_mpjpe", ORANGE, 0.34)):
        interval(last, together[error][name], row + shift, colour)
        last.plot(
            alone[error][name]["mean"], row + shift, "o", color=colour, fillstyle="none", markersize=8.5
        )
    last.text(0.07, row - 0.12, name, color=INK, fontsize=9, transform=last.get_yaxis_transform())
last.axvline(0, color=INK, linewidth=1)
last.set_yticks([])
last.set(xlabel="change (mm)", ylim=(len(factors) - 0.45, -0.6))
for label, colour, height in (("MPJPE", BLUE, 0.92), ("PA-MPJPE", ORANGE, 0.81)):
    axes[0, 0].plot(0.06, height, "o", color=colour, markersize=5.5, transform=axes[0, 0].transAxes)
    axes[0, 0].text(0.1, height, label, color=INK, fontsize=9, va="center", transform=axes[0, 0].transAxes)
for axis in axes.flat:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    style_axis(axis)
plt.show()


# %% tags=["remove-input"]
def effects_as_text(error):
    """The effects of a linear model, largest first, and those that may be zero, as text."""
    effects = together[error]
    clear = [
        name for name, e in effects.items() if e["ci95"] and np.sign(e["ci95"][0]) == np.sign(e["ci95"][1])
    ]
    clear.sort(key=lambda name: -abs(effects[name]["mean"]))
    found = "; ".join(f"{name} {text(effects[name], 0, f'{NBSP}mm', '+')}" for name in clear) or "none"
    unclear = [name for name in effects if name not in clear]
    return found + (f"; not distinguishable from 0: {listed(unclear)}" if unclear else "")


correlations = np.corrcoef(np.stack(list(factors.values()))) - np.eye(len(factors))
strongest = np.nanmax(np.abs(correlations))
by_view = analysis.binned_means(column["mpjpe"], *properties["direction"][:2], bootstrap)
worst_view, last_view = max(by_view, key=lambda one: one["mean"]), by_view[-1]
bend = (
    f"The line does not fit the direction of view: MPJPE is largest around {worst_view['middle']:.0f}° ({worst_view['mean']:.0f}{NBSP}mm), "
    f"and around {last_view['middle']:.0f}° it is {last_view['mean']:.0f}{NBSP}mm. "
    if worst_view is not last_view
    else ""
)
shift = max(
    abs(together[error][name]["mean"] - alone[error][name]["mean"]) for error in together for name in factors
)
Markdown(
    f"Effects on MPJPE: {effects_as_text('mpjpe')}.\n\nEffects on PA-MPJPE: {effects_as_text('pa_mpjpe')}.\n\n"
    f"The step of *unusual pose* is from the first to the third quartile ({quartiles[0]:.0f} to {quartiles[1]:.0f}{NBSP}mm). "
    f"The correlation of two properties is at most {strongest:.2f}, and keeping the others fixed changes an effect by at most "
    f"{shift:.0f}{NBSP}mm. {bend}Together they explain {100 * explained['mpjpe']:.0f}{NBSP}% of the variance of MPJPE and {100 * explained['pa_mpjpe']:.0f}{NBSP}% "
    "of that of PA-MPJPE."
)

# %% [markdown]
# ## Does the depth map order limbs correctly?
#
# A depth map helps a pose if it shows which limb is in front. For pairs of body parts that are both visible (at
# least five map pixels each), the part that is nearer to the camera is read in four ways: from the *true* depth map, as the
# mean over the part's visible pixels; from the *predicted* map at the same pixels; from the predicted map under the
# *predicted parts*; and from the *predicted body*. The true map shows surfaces, while the true order is that of all
# vertices of a part, so even its reading is not perfect. Chance is 50 %. {numref}`fig-order` shows the shares of correct
# pairs.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of pairs of body parts in the correct order, with 95 % intervals. Left: by their true difference in depth. Right: by kind of pair, for differences of at least 10 cm. Dashed: chance.", "name": "fig-order"}, "image": {"alt": "Two panels with the share of correctly ordered pairs for four readings, above a dashed line at one half. Left: all shares rise with the true difference in depth, the true map highest. Right: the shares by kind of pair."}}
CLEAR, SEEN = 0.1, 5  # metres, and map pixels
READINGS = {  # label, colour
    "true map": ("true map", INK),
    "body": ("predicted body", BLUE),
    "map": ("predicted map", GREEN),
    "map and parts": ("map under predicted parts", ORANGE),
}
one, two = (list(side) for side in zip(*analysis.ALL_PAIRS, strict=True))
both = (table["visible"][:, one] >= SEEN) & (table["visible"][:, two] >= SEEN)  # (N, P)
truth = analysis.differences(table["part_depth/truth"])
correct = {
    name: analysis.differences(table[f"part_depth/{name}"]).sign() == truth.sign() for name in READINGS
}
clear = both & (truth.abs() >= CLEAR)

figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.6), layout="constrained", sharey=True)
edges = (0.0, 0.05, 0.1, 0.2, 0.4, np.inf)  # metres
names = ["< 5", "5–10", "10–20", "20–40", "> 40"]
kinds, start = {}, 0
for kind, pairs in analysis.PAIRS.items():
    kinds[kind] = torch.zeros_like(clear)
    kinds[kind][:, start : start + len(pairs)] = clear[:, start : start + len(pairs)]
    start += len(pairs)
ranges = [
    both & (truth.abs() >= low) & (truth.abs() < high) for low, high in zip(edges, edges[1:], strict=False)
]
for axis, groups in ((left, ranges), (right, list(kinds.values()))):
    for i, (name, (label, colour)) in enumerate(READINGS.items()):
        scores = [analysis.share_of_pairs(correct[name], used, bootstrap) for used in groups]
        places = np.arange(len(scores)) + 0.12 * (i - 1.5)
        if axis is left:
            axis.plot(places, [100 * s["mean"] for s in scores], color=colour, linewidth=1, label=label)
        for place, score in zip(places, scores, strict=True):
            interval(axis, score, place, colour, 100, horizontal=False)
    axis.axhline(50, color=INK, linewidth=1, linestyle="--")
left.set_xticks(range(len(names)), names)
left.set(xlabel="true difference (cm)", ylabel="pairs in the correct order (%)")
right.set_xticks(range(len(kinds)), [kind.replace(" and ", "\nand\n") for kind in kinds])
figure.legend(
    *left.get_legend_handles_labels(),
    loc="outside upper center",
    ncols=4,
    fontsize=9,
    labelcolor=INK,
    frameon=False,
)
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    style_axis(axis)
plt.show()


# %% tags=["remove-input"]
def percent(right, used):
    return text(analysis.share_of_pairs(right, used, bootstrap), 0, f"{NBSP}%", factor=100)


disagree = clear & (correct["body"] != correct["map"])
body_wins = analysis.share_of_pairs(correct["body"], disagree, bootstrap)
low, high = body_wins["ci95"] or (0, 1)
Markdown(
    f"Of {int(clear.sum()):,} visible pairs that differ by at least {100 * CLEAR:.0f}{NBSP}cm, the predicted map orders "
    f"{percent(correct['map'], clear)} correctly, and {percent(correct['map and parts'], clear)} if it is read under the predicted "
    f"parts. The true map orders {percent(correct['true map'], clear)} correctly, the predicted body {percent(correct['body'], clear)}.\n\n"
    f"Map and body disagree on {percent(disagree, clear)} of these pairs. Of those, the body is correct in "
    f"{text(body_wins, 0, f'{NBSP}%', factor=100)}: "
    + (
        "the body is better than the map"
        if low > 0.5
        else "the map is better than the body"
        if high < 0.5
        else "with this many people neither is shown to be better"
    )
    + ". The regressor does not receive the map, only the mean of the depth decoder's features."
)

# %% [markdown]
# ## Does a wrong depth map go with a wrong pose?
#
# People with a large depth error may have a large pose error because the pose depends on depth, or because both have a
# common cause: a hidden person is difficult in every respect. {numref}`fig-depth-pose` therefore also shows the partial
# correlation of the ranks, given the other map's error and the five properties above.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: PA-MPJPE against depth error, one dot per person; line: means of tenths of the people with 95 % intervals. Right: rank correlation of the errors of the two maps with three errors of the body. Hollow: as it is. Filled: partial correlation, given the other map's error and five properties of the person.", "name": "fig-depth-pose"}, "image": {"alt": "Left: scatter plot of PA-MPJPE over depth error with a line of means. Right: horizontal intervals of rank correlations, two colours for the two maps, hollow and filled dots for each of three errors."}}
others = [away, column["hidden"], column["outside"], column["side"], column["unusual"]]
MAPS = {"depth_error": ("depth", ORANGE), "parts_error": ("parts", BLUE)}
BODY_ERRORS = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "orientation": "orientation"}
rank = {}
for name in MAPS:
    given = [*others, *(column[other] for other in MAPS if other != name)]
    for error in BODY_ERRORS:
        for kind, held in (("as it is", ()), ("others taken out", given)):
            rank[name, error, kind] = analysis.rank_correlation(column[name], column[error], bootstrap, held)

figure, (left, right) = plt.subplots(
    1, 2, figsize=(7.5, 3.4), layout="constrained", gridspec_kw={"width_ratios": (1.1, 1)}
)
left.scatter(column["depth_error"], column["pa_mpjpe"], s=9, color=INK, alpha=0.45, linewidths=0)
edges = np.quantile(column["depth_error"], np.linspace(0, 1, 11))
scores = analysis.binned_means(column["pa_mpjpe"], column["depth_error"], edges, bootstrap)
left.plot([s["middle"] for s in scores], [s["mean"] for s in scores], color=ORANGE, linewidth=1.5)
for score in scores:
    interval(left, score, score["middle"], ORANGE, horizontal=False)
left.set(xlabel="mean depth error of the person's pixels", ylabel="PA-MPJPE (mm)", ylim=(0, None))
left.set_xlim(0, np.quantile(column["depth_error"], 0.995))
for row, error in enumerate(BODY_ERRORS):
    for (name, (_, colour)), up in zip(MAPS.items(), (-0.16, 0.16), strict=True):
        for kind, style, shift in (("as it is", "none", -0.055), ("others taken out", "full", 0.055)):
            interval(
                right,
                rank[name, error, kind],
                row + up + shift,
                colour,
                fillstyle=style,
            )
right.axvline(0, color=INK, linewidth=1)
right.set_yticks(range(len(BODY_ERRORS)), list(BODY_ERRORS.values()))
right.set(xlabel="rank correlation", ylim=(2.6, -0.6))
for (label, colour), row in zip(MAPS.values(), (0.62, 0.54), strict=True):
    right.plot(0.67, row, "o", color=colour, markersize=5.5, transform=right.transAxes)
    right.text(0.7, row, f"{label} error", color=INK, fontsize=9, va="center", transform=right.transAxes)
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    style_axis(axis)
plt.show()

# %% tags=["remove-input"]
raw, partial = (rank["depth_error", "pa_mpjpe", kind] for kind in ("as it is", "others taken out"))
parts_partial = rank["parts_error", "pa_mpjpe", "others taken out"]
low, high = partial["ci95"] or (-1, 1)
Markdown(
    f"Depth error and PA-MPJPE have a rank correlation of {text(raw, 2)}, and a partial correlation of {text(partial, 2)}. "
    + (
        "Depth error thus predicts pose error beyond the other causes"
        + (", but weakly. " if partial["mean"] < 0.3 else ". ")
        if low > 0
        else "With this many people, the latter cannot be distinguished from 0. "
        if high > 0
        else "Given the other causes, people with worse depth have better poses. "
    )
    + f"The partial correlation of the part map's error is {text(parts_partial, 2)}"
    + (
        ": the errors of the parts go more closely with those of the pose."
        if parts_partial["ci95"] and parts_partial["ci95"][0] > high
        else "."
    )
    + " A correlation does not show a cause; the next section changes the inputs."
)

# %% [markdown]
# ## Which inputs does the regressor use?
#
# The regressor receives the attended features $A$ of the 22 joints, the box information $q$, and the mean of the depth
# features $D$. One of them is replaced: by that of another person, or by its mean over all people. The change of the
# error measures how much the regressor relies on that input ({numref}`fig-inputs`).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change of the error after an input of the regressor is replaced by another person's (filled) or by its mean over all people (hollow), with 95 % intervals; logarithmic outside of −1 to 1. Distance: relative error of the pelvis's depth, in points. Last panel: loss of pairs of body parts in the correct order, in points.", "name": "fig-inputs"}, "image": {"alt": "Five panels of horizontal intervals on a logarithmic axis, one panel per measure, with rows for attended features, box information, depth features and all three, each with a filled and a hollow dot right of or at a dashed line at zero."}}
SWAPS = {name: (i,) for i, name in enumerate(analysis.INPUTS)} | {"all three": (0, 1, 2)}
MEASURES = {  # label, factor
    "mpjpe": ("MPJPE (mm)", 1),
    "pa_mpjpe": ("PA-MPJPE (mm)", 1),
    "orientation": ("orientation (°)", 1),
    "distance": ("distance (points)", 100),
    "order": ("order lost (points)", 100),
}
donors = {"other": torch.arange(len(table["key"])).roll(len(table["key"]) // 2), "mean": None}
swapped = {
    (name, kind): analysis.regress(
        network.regressor, analysis.exchange(table["inputs"], which, donor), mesh, table["truth"]
    )
    for name, which in SWAPS.items()
    for kind, donor in donors.items()
}


def changes_of(result):
    """Mean change and interval of each measure; positive: worse."""
    people = {name: (result[name] - table[name]).numpy() for name in MEASURES if name != "order"}
    right = [analysis.differences(one["part_depth/body"]).sign() == truth.sign() for one in (table, result)]
    count = clear.sum(1)
    lost = ((right[0].double() - right[1].double()) * clear).sum(1) / count.clamp(min=1)
    weighted = bootstrap.means({"order": lost.numpy()}, {"order": count.numpy()})
    return bootstrap.means(people) | weighted


def order_of(result):
    """Share of the pairs in the correct order."""
    right = analysis.differences(result["part_depth/body"]).sign() == truth.sign()
    return text(analysis.share_of_pairs(right, clear, bootstrap), 0, f"{NBSP}%", factor=100)


changes = {key: changes_of(result) for key, result in swapped.items()}

KINDS = {"other": ("another person's", "full", -0.12), "mean": ("mean of all people", "none", 0.12)}
figure, axes = plt.subplots(2, 3, figsize=(7.5, 4.4), layout="constrained", sharey=True)
for axis, (measure, (label, factor)) in zip(axes.flat, MEASURES.items(), strict=False):
    axis.axvline(0, color=INK, linewidth=1.2, linestyle="--")
    for row, name in enumerate(SWAPS):
        for kind, (_, style, shift) in KINDS.items():
            interval(axis, changes[name, kind][measure], row + shift, BLUE, factor, fillstyle=style)
    axis.set_xscale("symlog", linthresh=1, linscale=0.6)
    axis.set_xticks([-1, 0, 1, 10, 100], ["−1", "0", "1", "10", "100"])
    axis.set_xlim(-4, 400)
    axis.minorticks_off()
    axis.set_yticks(range(len(SWAPS)), [name.replace(" ", "\n", 1) for name in SWAPS])
    axis.set_xlabel(label, fontsize=9)
    axis.set_ylim(len(SWAPS) - 0.5, -0.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    style_axis(axis)
axes[1, 2].axis("off")
for label, style, _ in KINDS.values():
    axes[1, 2].plot([], [], "o", color=BLUE, fillstyle=style, label=label)
axes[1, 2].legend(
    title="replaced by", fontsize=9, title_fontsize=9, labelcolor=INK, loc="center", frameon=False
)
axes[1, 2].get_legend().get_title().set_color(INK)
plt.show()

# %% tags=["remove-input"]
AXES = ("leaning", "facing", "tilting")
true_root = table["truth"]["rotmats"][:, 0]
results = {"nothing": table} | {name: swapped[name, "other"] for name in SWAPS}
errors_about = {
    name: analysis.turns(result["rotmats"][:, 0], true_root).numpy() for name, result in results.items()
}


def compared(one, two):
    """Whether the values (N,) in `one` are larger than those in `two`, by the interval of their difference."""
    low, high = bootstrap.means({"x": one - two})["x"]["ci95"] or (0, 0)
    return 1 if low > 0 else -1 if high < 0 else 0


attended, box, depth = analysis.INPUTS
cost = {
    (name, error): (swapped[name, "other"][error] - table[error]).numpy()
    for name in SWAPS
    for error in ("mpjpe", "pa_mpjpe", "orientation")
}
added = (errors_about[depth] - errors_about["nothing"]).mean(0)  # (3,) degrees
most = int(added.argmax())
relies = {  # of `compared`
    1: "more on the depth features than on the box",
    0: "about equally on both",
    -1: "more on the box than on the depth features",
}
only_orientation = all(
    cost[name, "mpjpe"].mean() > 5 * max(cost[name, "pa_mpjpe"].mean(), 0.1) for name in (depth, box)
)
Markdown(
    f"Another person's attended features add {mean(cost[attended, 'mpjpe'])} to MPJPE, another person's box information "
    f"{mean(cost[box, 'mpjpe'])}, another person's depth features {mean(cost[depth, 'mpjpe'])}. By MPJPE the regressor relies "
    f"{relies[compared(cost[depth, 'mpjpe'], cost[box, 'mpjpe'])]}, by the error of the orientation it relies "
    f"{relies[compared(cost[depth, 'orientation'], cost[box, 'orientation'])]} "
    f"({signed(cost[depth, 'orientation'].mean())}° with other depth features, {signed(cost[box, 'orientation'].mean())}° with another box). "
    f"To PA-MPJPE other depth features add {mean(cost[depth, 'pa_mpjpe'], 1)}, another box {mean(cost[box, 'pa_mpjpe'], 1)}"
    + (
        ": both serve the orientation of the whole body and hardly the pose of the limbs. "
        if only_orientation
        else ". "
    )
    + f"Of the three components of the orientation the depth features affect *{AXES[most]}* most ({signed(added[most])}°"
    + (
        "): the rotation towards the camera or away from it, which changes the outline little but decides which end of the body is nearer. "
        if most == 0
        else "). "
    )
    + f"Of the pairs of limbs {order_of(table)} are in the correct order, with other depth features "
    f"{order_of(swapped[depth, 'other'])}, with another box {order_of(swapped[box, 'other'])}.\n\n"
    "This shows what the trained regressor reads from the depth branch. Whether a network without that branch is worse is "
    "another question, because it may find the same information in the attended features: "
    "[Does depth help? The ablation](ablation.ipynb)."
)

# %% [markdown]
# ## Are the maps calibrated?
#
# A probability is *calibrated* if pixels with a confidence of 80 % are correct in 80 % of the cases; the expected
# {term}`calibration` error is the mean distance from that. A depth map has no probabilities, but the absolute error in its loss
# has its minimum at the median of the possible depths, so half of the pixels should be nearer than predicted ({numref}`fig-calibration`).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: accuracy against confidence of the pixels predicted as a body part, as trained and without the class weights of the training. Right: true against predicted depth on the person's pixels; line: median, band: middle 80 %.", "name": "fig-calibration"}, "image": {"alt": "Left: two curves of accuracy over confidence; the curve as trained is below the diagonal, the one without the class weights is on it. Right: the median of the true depth over the predicted depth near the diagonal, with a wide blue band."}}
counts = {"as trained": table["reliability"], "weights undone": table["reliability_unweighted"]}
colours = {"as trained": ORANGE, "weights undone": BLUE}


def calibration(counts):
    """Expected calibration error of the pixels predicted as parts, with its interval."""
    parts = counts[:, 1:].sum(1)  # (N, bins, 3)
    resampled = torch.from_numpy(bootstrap.sums(parts.flatten(1).numpy())).unflatten(1, (-1, 3))
    return {
        "mean": analysis.calibration_error(parts.sum(0)).item(),
        "ci95": bootstrap.interval(analysis.calibration_error(resampled).numpy()),
    }


figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3.7), layout="constrained")
left.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
for label, values in counts.items():
    number, confidence, hits = values[:, 1:].sum((0, 1)).T
    used = number > 0.001 * number.sum()
    left.plot(
        (confidence / number)[used],
        (hits / number)[used],
        "o-",
        color=colours[label],
        markersize=4,
        label=label,
    )
left.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
left.legend(fontsize=9, loc="upper left")

histogram = table["depth_counts"].sum(0).double().numpy()
steps = (np.arange(len(histogram)) + 0.5) / len(histogram)
seen = histogram.sum(1) > 0.001 * histogram.sum()
cumulative = np.cumsum(np.where(seen[:, None], histogram, 0), 1)


def quantile(q):
    """The quantile of the true depth at each predicted one, linear within a step."""
    return np.array(
        [
            np.interp(q * row[-1], np.concatenate([[0], row]), np.arange(len(row) + 1) / len(row))
            if row[-1]
            else np.nan
            for row in cumulative
        ]
    )


low, median, high = (quantile(q) for q in (0.1, 0.5, 0.9))
right.fill_between(steps, low, high, color=BLUE, alpha=0.45, linewidth=0)
right.plot(steps, median, color=BLUE, linewidth=2)
right.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--")
right.set(xlabel="predicted depth", ylabel="true depth", xlim=(0, 1), ylim=(0, 1), aspect="equal")
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)
    style_axis(axis)
plt.show()

# %% tags=["remove-input"]
plain_error, undone = (calibration(values) for values in counts.values())
per_person = column["depth_counts"].astype(np.float64)
below = np.tril(np.ones_like(histogram), -1) + 0.5 * np.eye(len(histogram))  # a step's own pixels count half
pixels = per_person.sum((1, 2))
nearer = bootstrap.means({"x": (per_person * below).sum((1, 2)) / pixels}, {"x": pixels})["x"]
nearest, farthest = nearer["ci95"] or (0, 1)
spread = np.nanmean(high - low)
Markdown(
    f"*Parts.* The expected calibration error is {text(plain_error, 1, f'{NBSP}%', factor=100)}"
    + (
        f". The class weights $f^{{-{balance}}}$ of the cross-entropy ($f$: share of the class) "
        + (
            "cause it: undone, "
            if undone["mean"] < 0.5 * plain_error["mean"]
            else "are not its main cause: undone, "
        )
        + f"the error is {text(undone, 1, f'{NBSP}%', factor=100)}."
        if balance
        else "."
    )
    + f"\n\n*Depth.* {text(nearer, 0, f'{NBSP}%', factor=100)} of the pixels are nearer than predicted"
    + (
        f", consistent with the 50{NBSP}% of a median"
        if nearest <= 0.5 <= farthest
        else f", not the 50{NBSP}% of a median"
    )
    + f". The middle 80{NBSP}% of the true depths at a predicted value span {spread:.2f} on average, of a range of 0.9: single values are uncertain."
)

# %% [markdown]
# ## Takeaways

# %% tags=["remove-input"]
Markdown(
    f"* Errors grow along the limbs (correlation with the distance from the pelvis {along:.2f}), and of the MPJPE of "
    f"{column['mpjpe'].mean():.0f}{NBSP}mm the global orientation accounts for {round(column['mpjpe'].mean()) - round(fixed.mean())}{NBSP}mm.\n"
    f"* The predicted map orders {percent(correct['map'], clear)} of the visible pairs of limbs correctly, the predicted body "
    f"{percent(correct['body'], clear)}.\n"
    f"* Depth features of another person add {mean(cost[depth, 'mpjpe'])} to MPJPE and {mean(cost[depth, 'pa_mpjpe'], 1)} to "
    f"PA-MPJPE, attended features {mean(cost[attended, 'mpjpe'])} and {mean(cost[attended, 'pa_mpjpe'], 1)}"
    + ("; the depth features serve the global orientation." if only_orientation else ".")
)

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** Does a person viewed from behind have a larger error because the orientation is wrong? Compare the mean
# error with the predicted and with the true global orientation, for people viewed from the front (direction below 60°)
# and from behind (above 120°). The arrays `away`, `column["mpjpe"]` and `oriented` hold what you need.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
views = {"front": away < 60, "behind": away > 120}
errors = {"predicted": column["mpjpe"], "true": oriented.numpy().mean(1)}
means = {name: [round(value[seen].mean()) for seen in views.values()] for name, value in errors.items()}
more = {name: behind - front for name, (front, behind) in means.items()}
print(f"From behind the error is {more['predicted']} mm larger, with the true orientation {more['true']} mm.")
html_table(
    ("orientation", *(f"from the {view}".replace("the behind", "behind") for view in views), "difference"),
    [
        (name, str(front), str(behind), f"{behind - front:+d}".replace("-", "−"))
        for name, (front, behind) in means.items()
    ],
    "MPJPE (mm) by direction of view. What remains of the difference with the true orientation is the pose's",
)

# %% [markdown]
# **Exercise 2.** Two errors $x$ and $y$ both depend on a common cause $z$ and on nothing else in common. Simulate 1,000 people
# and show that the rank correlation of $x$ and $y$ is large and their partial correlation given $z$ is near 0.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
random = np.random.default_rng(0)
z = random.normal(size=1000)
x, y = z + 0.7 * random.normal(size=1000), z + 0.7 * random.normal(size=1000)
single = ClusterBootstrap([f"person{i}" for i in range(1000)])
plain_rank = analysis.rank_correlation(x, y, single)
given_z = analysis.rank_correlation(x, y, single, [z])
assert plain_rank["ci95"][0] > 0.5 and abs(given_z["mean"]) < 0.1
Markdown(f"Rank correlation {text(plain_rank, 2)}; given $z$ {text(given_z, 2)}.")
