# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tables 1 and 2
#
# The paper {cite:p}`dpose` supports its claim with two tables: errors on two data sets of real people, and
# the number of parameters. Each is shown here beside what this project has measured. The paper's numbers and
# ours are in separate tables, and what was not measured is not filled in.
#
# Three errors are used, in millimetres and averaged over the test people; smaller is better.
#
# MPJPE
# : the mean distance between predicted and true joints, after both bodies are moved so that their pelvises
# agree.
#
# PA-MPJPE
# : the same after Procrustes alignment, the best rotation, scaling and translation. It does not depend on
# global orientation and size, and measures the pose alone.
#
# MVE
# : the mean distance over all vertices of the mesh, pelvises aligned. It includes the body's shape.

# %% tags=["parameters"]
results = None  # folder of measured numbers; None: the repository's results/

# %% tags=["hide-input"]
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import torch
from IPython.display import Markdown

import dpose
from dpose.experiment import ABLATION
from dpose.figures import INK, html_table, plotly_html
from dpose.model import published
from dpose.model.size import network_size
from dpose.results import read_json, stale, totals

folder = Path(results or Path(dpose.__file__).parents[1] / "results")
ERRORS = ("mve", "mpjpe", "pa_mpjpe")

# %% [markdown]
# ## Table 1: real people
#
# *The paper's numbers.* 3DPW {cite:p}`threedpw` shows people filmed outdoors with a moving phone, EMDB
# {cite:p}`emdb` follows them with electromagnetic sensors over longer ways. All methods in the table get
# one image at a time. "Synthetic" means trained on BEDLAM {cite:p}`bedlam` and AGORA {cite:p}`agora` only,
# without a single real photograph.

# %% tags=["hide-input"]
PAPER_TABLE_1 = [  # backbone, training, method, EMDB and 3DPW: MVE, MPJPE, PA-MPJPE in mm
    ("HRNet", "real", "PARE", None, (97.9, 82.0, 50.9)),
    ("HRNet", "real", "CLIFF", None, (87.6, 73.9, 46.4)),
    ("HRNet", "synthetic", "BEDLAM-HMR", None, (93.1, 79.0, 47.6)),
    ("HRNet", "synthetic", "BEDLAM-CLIFF", (113.2, 97.1, 61.3), (85.0, 72.0, 46.6)),
    ("ViT", "synthetic", "HMR2.0", (106.6, 90.7, 51.3), (88.4, 72.2, 45.1)),
    ("ViT", "synthetic", "TokenHMR", (106.2, 89.6, 49.8), (85.7, 71.6, 44.0)),
    ("HRNet", "synthetic", "D-PoSE", (99.0, 85.5, 53.2), (81.4, 68.9, 43.6)),
]


def unbroken(text):
    """For a narrow table column: no line break at hyphens."""
    return text.replace("-", "\u2011")


def cells(errors):
    return ["–"] * 3 if errors is None else [f"{value:.1f}" for value in errors]


html_table(
    (
        "method",
        "backbone, training",
        *(f"{d} {e}" for d in ("EMDB", "3DPW") for e in ("MVE", "MPJPE", "PA")),
    ),
    [
        (unbroken(name), f"{backbone}, {training}", *cells(emdb), *cells(wild))
        for backbone, training, name, emdb, wild in PAPER_TABLE_1
    ],
    "The paper's Table 1 (mm); bold: D-PoSE. The paper lists it twice, once beside each kind of backbone.",
    ours=[len(PAPER_TABLE_1) - 1],
    align="ll",
)

# %% [markdown]
# Methods are {cite:t}`pare`, {cite:t}`cliff`, BEDLAM's two baselines, {cite:t}`hmr2` and
# {cite:t}`tokenhmr`. What the table says, computed from its rows:

# %% tags=["hide-input"]
ours = {name: (emdb, wild) for _, _, name, emdb, wild in PAPER_TABLE_1}


def gains(other):
    """Error of `other` minus error of D-PoSE, as text, for both data sets."""
    texts = []
    for name, index in (("3DPW", 1), ("EMDB", 0)):
        differences = [b - a for a, b in zip(ours["D-PoSE"][index], ours[other][index], strict=True)]
        texts.append(f"{name} {differences[0]:+.1f} / {differences[1]:+.1f} / {differences[2]:+.1f}")
    return "; ".join(texts).replace("-", "−")


ahead = {
    name: ", ".join(
        f"{data} {title}"
        for data, theirs, mine in zip(("EMDB", "3DPW"), ours[name], ours["D-PoSE"], strict=True)
        for title, a, b in zip(("MVE", "MPJPE", "PA-MPJPE"), theirs or mine, mine, strict=True)
        if a < b
    )
    for name in ours
}
ahead = {name: where for name, where in ahead.items() if where}
Markdown(
    "Error of another method less that of D-PoSE, mm, MVE / MPJPE / PA-MPJPE (positive: D-PoSE is "
    "better):\n\n"
    + "\n".join(f"* against {other}: {gains(other)}" for other in ("BEDLAM-CLIFF", "HMR2.0", "TokenHMR"))
    + "\n\nRows with a smaller error than D-PoSE's: "
    + ("; ".join(f"{name} ({where})" for name, where in ahead.items()) or "none")
    + "."
)

# %% [markdown]
# ### Measured on the open test set
#
# The open data set is always there: synthetic people, of whom the test split has other identities and bodies
# than the training split. Numbers on it say how well a network has learned these people. They cannot be
# compared with numbers on photographs. The first two rows are constant predictions: the mean pose of the
# training set, and the same with the *true* global orientation. The networks of the
# [ablation](ablation.ipynb) follow; they were trained on fewer images, several seeds each.

# %% tags=["hide-input"]
REAL = {"3dpw": "3DPW", "emdb": "EMDB", "rich": "RICH", "bedlam": "BEDLAM", "agora": "AGORA"}
LABELS = {"mean_pose": "mean pose", "mean_pose_true_orientation": "mean pose, true orientation"}
NOTHING = Markdown(
    f"*Nothing measured yet: `dpose evaluate --out {folder.name}/lite.json` makes the first record.*"
)


def evaluations(paths):
    """Records of errors on a split, by the name of their file."""
    found = {path.stem: read_json(path) for path in sorted(paths)}
    return {name: record for name, record in found.items() if record.get("kind") == "evaluation"}


def of_open_data(record):
    return record["data"]["generator"] is not None and record["split"] == "test"


measured = evaluations(folder.glob("*.json"))
on_open = {name: record for name, record in measured.items() if of_open_data(record)}
arms = {}  # arm -> its records, one per seed
for name, record in evaluations((folder / "ablation").glob("*-seed*.json")).items():
    if of_open_data(record) and (arm := name.rpartition("-seed")[0]) in ABLATION.arms:
        arms.setdefault(arm, []).append(record)
arms = {arm: arms[arm] for arm in ABLATION.arms if arm in arms}
why_stale = {name: stale(record) for name, record in measured.items()}
for arm, records in arms.items():
    wanted = ABLATION.recipe(ABLATION.arms[arm])
    why_stale[f"{arm}, ablation"] = sorted({reason for record in records for reason in stale(record, wanted)})


def label(name):
    return f"{name} (stale)" if why_stale.get(name) else name


def with_interval(score, digits=1):
    if score["ci95"] is None:  # all people are of one cluster
        return f"{score['mean']:.{digits}f}"
    low, high = score["ci95"]
    return f"{score['mean']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def over_seeds(records, error, digits=1):
    values = [record["metrics"][error]["mean"] for record in records]
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def open_table():
    first = next(iter(on_open.values()), None) or next(iter(arms.values()))[0]
    rows = [
        (text, *(with_interval(first["baselines"][name][error]) for error in ERRORS))
        for name, text in LABELS.items()
        if name in first["baselines"]
    ]
    bold = range(len(rows), len(rows) + len(on_open))
    for name, record in on_open.items():
        rows.append((unbroken(label(name)), *(with_interval(record["metrics"][error]) for error in ERRORS)))
    for arm, records in arms.items():
        cells = (over_seeds(records, error) for error in ERRORS)
        rows.append((unbroken(label(f"{arm}, ablation")), *cells))
    everything = [*on_open.values(), *(record for records in arms.values() for record in records)]
    measured_on = {
        f"{record['samples']:,} of data {record['data']['fingerprint']} ({record['protocol']})"
        for record in everything
    }
    other_data = f". NOT THE SAME PEOPLE: {', '.join(sorted(measured_on))}" if len(measured_on) > 1 else ""
    return html_table(
        ("network", "MVE", "MPJPE", "PA-MPJPE"),
        rows,
        f"Measured: {first['samples']:,} people of the open data set's {first['split']} split, protocol "
        f"{first['protocol']}, mm. Brackets: 95 % bootstrap interval over the {first['intervals']['clusters']:,} "
        f"scenes. ±: standard deviation over the seeds{other_data}",
        ours=list(bold),
    )


open_table() if on_open or arms else NOTHING


# %% tags=["hide-input"]
def training_table():
    """Images and hours of training, with those of the runs whose weights a network started from."""
    rows = []
    for name, records in (
        *((label(name), [record]) for name, record in on_open.items()),
        *((label(f"{arm}, ablation"), records) for arm, records in arms.items()),
    ):
        sums = [totals(record["checkpoint"]["metadata"]) for record in records]
        hours = np.mean([one["seconds"] for one in sums]) / 3600
        seeds = ", ".join(str(record["checkpoint"]["metadata"].get("seed", "–")) for record in records)
        runs, images = (
            " or ".join(f"{count:,}" for count in sorted({one[key] for one in sums}))
            for key in ("runs", "images")
        )
        rows.append((unbroken(name), runs, images, f"{hours:.1f}", seeds))
    return html_table(
        ("network", "runs", "images", "hours", "seeds"),
        rows,
        "Training of these networks, the runs whose weights they started from included; for several seeds, of each",
    )


training_table() if on_open or arms else NOTHING

# %% [markdown]
# Beside the body, these networks predict maps of parts and depth. IoU compares predicted and true pixels of a
# part (1 is perfect). The depth error is the mean absolute difference on the person's own pixels, whose
# targets lie between 0.1 and 1, and the constant is the single value with the smallest error.


# %% tags=["hide-input"]
def map_table():
    """A row per quantity, a column per network."""

    def part(record, choose):
        parts = record["metrics"].get("parts_miou", {}).get("per_part", {})
        parts = {name: value for name, value in parts.items() if value is not None}
        name = choose(parts, key=parts.get) if parts else None
        return f"{name.replace('_', ' ')} {parts[name]:.2f}" if name else "–"

    def score(record, name, digits):
        return with_interval(record["metrics"][name], digits) if name in record["metrics"] else "–"

    networks = list(on_open.values())
    constants = {
        "depth": next(
            (
                f"{record['baselines']['constant_depth']['depth_l1']['mean']:.4f}"
                for record in networks
                if "constant_depth" in record["baselines"]
            ),
            "–",
        ),
        "orientation": with_interval(networks[0]["baselines"]["mean_pose"]["orientation"])
        if "mean_pose" in networks[0]["baselines"]
        else "–",
    }
    return html_table(
        ("quantity", "constant", *(label(name) for name in on_open)),
        [
            ("parts: mean IoU", "–", *(score(record, "parts_miou", 3) for record in networks)),
            ("best part", "–", *(part(record, max) for record in networks)),
            ("worst part", "–", *(part(record, min) for record in networks)),
            ("depth error", constants["depth"], *(score(record, "depth_l1", 4) for record in networks)),
            (
                "orientation error (degrees)",
                constants["orientation"],
                *(score(record, "orientation", 1) for record in networks),
            ),
        ],
        "Maps and global orientation, the same people",
    )


map_table() if on_open else NOTHING

# %% [markdown]
# ### Measured on real people
#
# Records of the data sets of Table 1 appear here once they are in `results/`. The data sets need an account
# with their makers, and a network trained on BEDLAM needs a GPU for days; the
# [last section of the ablation](ablation.ipynb) has the commands, the disk space and the hours.


# %% tags=["hide-input"]
def real_table():
    rows = []
    for name, record in measured.items():
        if (data := REAL.get(record["dataset"].lower())) is None:
            continue
        licensed = "open" not in record["matrices"].values()
        matrices = "" if licensed else ", open matrices"
        focal = "" if record["focal"] == "label" else ", image diagonal as focal length"
        rows.append(
            (
                f"{data}, {record['samples']:,} people, {record['protocol']}{matrices}{focal}",
                label(name),
                *(with_interval(record["metrics"][error]) for error in ERRORS),
            )
        )
    if not rows:
        return Markdown("*No record of a real data set in this folder.*")
    return html_table(
        ("data set, protocol", "record", "MVE", "MPJPE", "PA-MPJPE"),
        sorted(rows),
        "Measured on real data sets and BEDLAM (mm), with 95 % bootstrap intervals over the sequences",
        align="ll",
    )


real_table()


# %% [markdown]
# ### Where the measured numbers come from


# %% tags=["hide-input"]
def origin(name, record):
    checkpoint = record["checkpoint"]
    text = f"* **{label(name)}**: weights `{checkpoint['sha256'][:12]}`"
    gpus = record["hardware"].get("gpus")
    text += (
        f"; data `{record['data']['fingerprint']}`; dpose {record['version']}, commit "
        f"`{(record['commit'] or 'unknown')[:12]}`, torch {record['libraries']['torch']}; "
        f"{', '.join(gpus) if gpus else record['hardware']['cpu']}; `{record['command']}`"
    )
    if why_stale[name]:
        text += f"; **stale**: {'; '.join(why_stale[name])}"
    return text + "."


lines = [origin(name, record) for name, record in measured.items()]
lines += [
    f"* **{name}** is **stale**: {'; '.join(why)}."
    for name, why in why_stale.items()
    if why and name not in measured
]
Markdown("\n".join(lines))

# %% [markdown]
# ## Table 2: size
#
# The paper compares the number of parameters with that of two networks with transformer backbones, HMR2.0
# {cite:p}`hmr2` and TokenHMR {cite:p}`tokenhmr`. Here all three are built and counted. The two transformers
# have the layers of their authors' published code (`dpose.model.published`) and are on PyTorch's meta device:
# their tensors have shapes and no values, which is enough to count. No body model is included.

# %% tags=["hide-input"]
PAPER_TABLE_2 = {"HMR2.0": 672.0, "TokenHMR": 681.0, "paper": 81.2}  # millions
PAPER_TEXT = {"TokenHMR": 83.8, "HMR2.0": 82}  # section 4.4: D-PoSE has this many per cent fewer
LABEL = {
    "HMR2.0": "HMR2.0",
    "TokenHMR": "TokenHMR",
    "paper": "D-PoSE (PAPER)",
    "lite": "LITE",
    "mini": "MINI",
}
sizes = {name: network_size(name) for name in LABEL}
OURS_ROW = list(LABEL).index("paper")


def parameters(build):
    with torch.device("meta"):
        return sum(p.numel() for p in build().parameters())


differences = {
    "HMR2.0": ("+ discriminator, which only training uses", parameters(published.discriminator)),
    "TokenHMR": ("− frozen decoder of the pose tokenizer", -parameters(published.TokenDecoder)),
    "paper": ("+ buffers: batch statistics, mean parameters", sizes["paper"].buffers),
}


def size_row(name):
    size, row = sizes[name], [LABEL[name], "–"]
    if name in differences:
        row[1] = f"{PAPER_TABLE_2[name]:.1f}"
    row += [f"{size.parameters / 1e6:.2f}", f"{size.encoder / 1e6:.2f}"]
    if name not in differences:
        return [*row, "", ""]
    text, number = differences[name]
    return [*row, f"{text}, {abs(number) / 1e6:.2f}", f"{(size.parameters + number) / 1e6:.2f}"]


html_table(
    (
        "network",
        "the paper's number",
        "parameters, counted",
        "of them image encoder",
        "difference from the paper's number",
        "sum",
    ),
    [size_row(name) for name in sizes],
    "Parameters in millions. The paper gives whole millions for the two transformers.",
    ours=[OURS_ROW],
    align="lrrrlr",
)

# %% [markdown]
# The sums agree with the paper's numbers in all digits. The paper does not say what it counted, so the
# differences are a reading: the number of HMR2.0 includes a part that only training uses, that of TokenHMR
# lacks a part that every prediction uses (its code keeps it outside the module tree), and that of D-PoSE
# includes buffers. The differences are small. In all three networks the image encoder holds most of the
# parameters.
#
# ### How many per cent fewer?

# %% tags=["hide-input"]
times = {name: PAPER_TABLE_2[name] / PAPER_TABLE_2["paper"] for name in PAPER_TEXT}
fewer = {name: 100 * (1 - 1 / ratio) for name, ratio in times.items()}
fewer_counted = {name: 100 * (1 - sizes["paper"].parameters / sizes[name].parameters) for name in PAPER_TEXT}
html_table(
    (
        "D-PoSE compared with",
        "% fewer, the paper's text",
        "% fewer, from the paper's table",
        "% fewer, counted",
        "times as large, from the paper's table",
    ),
    [
        (name, f"{text:g}", f"{fewer[name]:.1f}", f"{fewer_counted[name]:.1f}", f"{times[name]:.3f}")
        for name, text in PAPER_TEXT.items()
    ],
    "How many parameters fewer D-PoSE has",
)

# %% tags=["hide-input"]
needed = {name: PAPER_TABLE_2[name] * (1 - text / 100) for name, text in PAPER_TEXT.items()}


def both(values, form):
    return " and ".join(form.format(values[name]) for name in PAPER_TEXT)


Markdown(
    f"The table's numbers give {both(fewer, '{:.1f} %')} for {' and '.join(PAPER_TEXT)}. The "
    f"{both(PAPER_TEXT, '{:g} %')} of the paper's text do not follow: they would need a D-PoSE of "
    f"{both(needed, '{:.0f}')} million parameters, so no single size explains both. But the two networks are "
    f"{both(times, '{:.3f}')} times as large as D-PoSE, and ten times these ratios, cut after the digits that "
    "the text has, are the text's numbers. It seems that ratios were written as percentages. The percentages "
    "from the table, which are larger, are the correct ones."
)

# %% [markdown]
# ### Work and memory, which the paper does not compare
#
# The number of parameters does not determine the time of a prediction. A convolution uses each of its weights
# at every position of a map, and D-PoSE's maps are large; a transformer's linear layers use theirs once per
# token, of which the ViT-H/16 has 192. Counted are the multiply-adds of convolutions and matrix products in
# one forward pass with one image. One multiply-add is two floating-point operations (FLOPs).

# %% tags=["hide-input"]
html_table(
    (
        "network",
        "input, pixels",
        "multiply-adds, 10⁹",
        "per parameter",
        "weights in 32 bits, MB",
        "in 16 bits, MB",
    ),
    [
        (
            LABEL[name],
            "{} × {}".format(*size.image_size),
            f"{size.multiply_adds / 1e9:.2f}",
            f"{size.multiply_adds / size.parameters:.0f}",
            f"{size.weight_bytes(32) / 1e6:,.0f}",
            f"{size.weight_bytes(16) / 1e6:,.0f}",
        )
        for name, size in sizes.items()
    ],
    "Counted: work of one forward pass, and memory of parameters and buffers",
    ours=[OURS_ROW],
)

# %% [markdown]
# Time and memory are measured on a CPU with one image at a time. The weights are random, which changes
# neither. "16 bits" is `dpose.FastDPose` for D-PoSE's networks; the transformers have all weights and
# activations in bfloat16. Memory is the largest resident memory during the passes, less that of a process
# which has only imported PyTorch and this package.

# %% tags=["hide-input"]
path = folder / "latency.json"
latency = read_json(path) if path.exists() else None
cases = {}  # (network, "32 bits" or "16 bits", threads): results of benchmarks/latency.py
for case in latency["cases"] if latency else ():
    bits = "32 bits" if case["variant"] == "eager" else "16 bits"
    case["memory"] = case["running_mb"] - case["imports_mb"]
    cases[case["network"], bits, case["threads"]] = case


def latency_table():
    threads = sorted({key[2] for key in cases})
    rows = []
    for name in sizes:
        row = [LABEL[name]]
        for bits in ("32 bits", "16 bits"):
            row += [f"{cases[name, bits, number]['ms']:,.0f}" for number in threads]
            row.append(f"{cases[name, bits, threads[0]]['memory']:,.0f}")
        rows.append(row)
    columns = (*(f"{number} thread{'s' * (number > 1)}, ms" for number in threads), "memory, MB")
    busy = f". Other programs were running (load {latency['load']:.1f})" if latency["load"] > 0.5 else ""
    return html_table(
        ("network", *(f"{bits}: {column}" for bits in ("32 bits", "16 bits") for column in columns)),
        rows,
        f"Measured: one forward pass with one image on {latency['hardware']['cores']} cores "
        f"({latency['hardware']['cpu']}), torch {latency['libraries']['torch']}, median of the passes{busy}",
        ours=[OURS_ROW],
    )


UNMEASURED = Markdown(f"*Not measured yet: `python benchmarks/latency.py --out {folder.name}/latency.json`.*")
latency_table() if latency else UNMEASURED

# %% tags=["hide-input"]
costs = {
    "parameters": {name: size.parameters for name, size in sizes.items()},
    "multiply-adds": {name: size.multiply_adds for name, size in sizes.items()},
}
for (name, bits, number), case in cases.items():
    if number == 1:
        costs.setdefault(f"time, {bits}", {})[name] = case["ms"]
        costs.setdefault(f"memory, {bits}", {})[name] = case["memory"]
relative = {cost: {n: v / values["paper"] for n, v in values.items()} for cost, values in costs.items()}
figure = go.Figure()
for name, colour, symbol in (
    ("HMR2.0", "#D55E00", "diamond"),
    ("TokenHMR", "#CC79A7", "circle-open"),
    ("lite", "#009E73", "square"),
    ("mini", "#3C93C9", "triangle-up-open"),
):
    figure.add_scatter(
        name=LABEL[name],
        x=[ratios[name] for ratios in relative.values()],
        y=list(relative),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 12, "line": {"width": 2, "color": colour}},
        hovertemplate="%{y}: %{x:.2g} times D-PoSE (PAPER)",
    )
figure.add_vline(x=1, line={"color": INK, "width": 2})
ticks = [0.01, 0.03, 0.1, 0.3, 1, 3, 10]
figure.update_layout(
    xaxis={
        "type": "log",
        "title": "times D-PoSE (PAPER)",
        "tickvals": ticks,
        "ticktext": list(map(str, ticks)),
    },
    yaxis={"autorange": "reversed"},
    legend={"orientation": "h", "y": 1.16},
    margin={"t": 30, "b": 50, "l": 130, "r": 20},
)
plotly_html(figure, height=340)

# %% tags=["hide-input"]
Markdown(
    "Costs in multiples of those of D-PoSE (PAPER), the grey line, on a logarithmic axis. Parameters and "
    "multiply-adds are counted, time (one thread) and memory measured. "
    + " ".join(
        f"{name}: " + ", ".join(f"{ratios[name]:.1f} ({cost})" for cost, ratios in relative.items()) + "."
        for name in ("HMR2.0", "TokenHMR")
    )
    + " How much smaller D-PoSE is depends on the cost that is compared."
)
