# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Performance: time and memory
#
# How long does a prediction take, where does the time go, and what do 16-bit and 8-bit numbers gain and cost? The scripts
# in `benchmarks/` measure this, and their records are in `results/`. This page shows the records; nothing is measured while it
# is built.
#
# :::{chapter}
# :needs: [The network at a glance](architecture.ipynb), [Training](train.ipynb), [Metrics](metrics.ipynb)
# :learn: which steps of a prediction take the time; what 16-bit and 8-bit numbers gain and cost; whether loading and rendering keep up with training; which of the package's speed goals are met
# :::

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the parameters", "code_prompt_hide": "Hide the parameters"}
results = None  # folder of measured numbers; None: the repository's results/

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the setup", "code_prompt_hide": "Hide the setup"}
from dpose.figures import check_parameters

check_parameters()

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown

import dpose
from dpose.figures import INK, NBSP, html_table, power_of_ten, signed, style_axis
from dpose.results import read_json

folder = Path(results or Path(dpose.__file__).parents[1] / "results")
SCRIPTS = {  # record: benchmark
    "predict": "predict.py",
    "precision": "precision.py",
    "inference": "inference.py",
    "latency": "latency.py",
    "training_speed": "train_throughput.py",
    "synthetic": "synthetic.py",
    "loader": "raw_frames.py",
    "body": "body.py",
    "render": "render.py",
}
NAMES = {"lite": "lite", "mini": "mini", "paper": "PAPER"}
VARIANTS = {  # of the benchmarks, as they are called here
    "torch, as trained": "as trained",
    "onnxruntime, 32 bits": "ONNX",
    "onnxruntime, int8": "ONNX, int8",
    "onnxruntime, int8 behind the encoder": "ONNX, int8 outside of the encoder",
    "eager, 32 bits": "as trained",
    "fast, 32 bits": "FastDPose, 32 bits",
    "fast, bf16": "FastDPose, bf16",
    "fast, compiled": "FastDPose, bf16, torch.compile",
}
records = {name: read_json(path) for name in SCRIPTS if (path := folder / f"{name}.json").exists()}


def missing(name):
    return Markdown(
        f"*Not measured yet: `python benchmarks/{SCRIPTS[name]} --out {folder.name}/{name}.json` makes the record.*"
    )


def difference(new, old, digits):
    """Difference of two numbers as they are printed."""
    return signed(round(new, digits) - round(old, digits), digits)


def bits(case):
    return f"{case['precision']}{' bits' if case['precision'] == '32' else ''}"


def code(network):
    """A network's name in a sentence."""
    return f"`{NAMES[network]}`"


def threads(record):
    count = record.get("threads", record["hardware"]["threads"])  # the first: of the measured processes
    return f"{record['hardware']['cpu']}, {count} thread{'s' * (count > 1)}"


# %% [markdown]
# ## From picture to overlay
#
# A prediction for a picture consists of the detector (boxes), the bodies (crops, network, body model), and the overlay (the
# bodies, shaded over the picture). {numref}`fig-stages` shows these steps, and reading the picture and writing the other
# files, for a picture of 1280 × 720 pixels. The network runs as {py:obj}`~dpose.model.inference.FastDPose`, which
# `dpose predict` uses: {term}`batch normalisation` folded into the convolutions, and convolutions computed in 16 bits, except for those of the pretrained
# backbone of `lite`. `PAPER`, the preset `paper`, has random weights, which do not change the time of the network. Its bodies are not where the
# people are, so its overlay has another time than that of a trained network, which should take as long as that of `lite`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Time of the steps of a prediction for a picture with one person (left) and with eight people (right), after the first picture. The axes have different ranges.", "name": "fig-stages"}, "image": {"alt": "Two panels of stacked horizontal bars, one bar per network, coloured by step. For one person the detector and the overlay take most of the time of the two small networks, for eight people the overlay; the bars of the paper's network consist mostly of the bodies."}}
STAGES = {
    "read": "#8C6BB1",
    "detector": "#0072B2",
    "bodies": "#D55E00",
    "overlay": "#009E73",
    "files": "#A08020",
}
cases = {
    (case["network"], case["path"], case["people"]): case
    for case in records.get("predict", {}).get("cases", ())
}
if cases:
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.5), layout="constrained", sharey=True)
    networks = [name for name in NAMES if (name, "fast", 1) in cases]
    for axis, people in zip(axes, (1, 8), strict=True):
        left = [0.0] * len(networks)
        for stage, colour in STAGES.items():
            values = [cases[name, "fast", people][stage] for name in networks]
            axis.barh(range(len(networks)), values, 0.6, left, color=colour, label=stage)
            left = [one + value for one, value in zip(left, values, strict=True)]
        axis.set_yticks(range(len(networks)), [NAMES[name] for name in networks], fontsize=10)
        axis.tick_params(axis="x", labelsize=10)
        axis.set_xlabel(f"ms per picture, {people} {'person' if people == 1 else 'people'}", fontsize=10)
        axis.set_ylim(len(networks) - 0.5, -0.5)
        style_axis(axis)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=5,
        fontsize=10,
        labelcolor=INK,
        frameon=False,
    )
    plt.show()

# %% tags=["remove-input"]
html_table(
    ("network", "people", "as trained", "FastDPose", "ONNX", "first picture, s"),
    [
        (
            NAMES[name],
            str(people),
            *(f"{cases[name, path, people]['picture']:,.0f}" for path in ("eager", "fast", "onnx")),
            f"{cases[name, 'fast', people]['first'] / 1000:.1f}",
        )
        for name in networks
        for people in (1, 8)
    ],
    "Measured: ms per picture for detector, bodies and overlay together (median), and time from the start of the process to the "
    f"first overlay with FastDPose. {threads(records['predict'])}",
) if cases else missing("predict")


# %% tags=["remove-input"]
def predict_text():
    one, eight = (cases["lite", "fast", people] for people in (1, 8))
    largest = {case["people"]: max(("detector", "bodies", "overlay"), key=case.get) for case in (one, eight)}
    memory = records["predict"]["resident_mb"]
    return Markdown(
        f"With `lite` the largest step is the {largest[1]} for one person ({one[largest[1]]:.0f} of {one['picture']:.0f}{NBSP}ms) and the "
        f"{largest[8]} for eight ({eight[largest[8]]:.0f} of {eight['picture']:.0f}{NBSP}ms). Each further person adds "
        f"{(round(eight['picture']) - round(one['picture'])) / 7:.0f}{NBSP}ms. With `PAPER` the network dominates: its bodies take "
        f"{cases['paper', 'fast', 1]['bodies']:.0f}{NBSP}ms with one person, and {cases['paper', 'fast', 8]['bodies'] / 8:.0f}{NBSP}ms per person with eight. The first picture of a process takes much longer, because "
        f"libraries, weights and render kernels are loaded. Resident memory changes by {difference(memory['1000'], memory['100'], 1)}{NBSP}MB "
        "from picture 100 to picture 1,000."
    )


predict_text() if cases else None

# %% [markdown]
# ### Which path for which case?
#
# Only the step *bodies* runs the network. The table has this step alone; crops and body model, which are the same on all paths, are part of
# it.

# %% tags=["remove-input"]
PATHS = {"eager": "as trained", "fast": "FastDPose", "onnx": "ONNX"}
bodies = {  # network, people -> path -> ms
    (name, people): {path: cases[name, path, people]["bodies"] for path in PATHS}
    for name in (networks if cases else ())
    for people in (1, 8)
}
fastest = {case: min(times, key=times.get) for case, times in bodies.items()}
html_table(
    ("network", "people", *PATHS.values(), "fastest"),
    [
        (NAMES[case[0]], str(case[1]), *(f"{ms:,.1f}" for ms in times.values()), PATHS[fastest[case]])
        for case, times in bodies.items()
    ],
    "Measured: ms of the step bodies (median). FastDPose computes in 16 bits, except for the backbone of lite; the other two paths in 32. "
    f"{threads(records['predict'])}",
    align="lrrrrl",
) if cases else missing("predict")


# %% tags=["remove-input"]
def path_text():
    rest = []  # what detector and overlay take more with ONNX than with FastDPose, ms
    for name, people in fastest:
        onnx, fast = (cases[name, path, people] for path in ("onnx", "fast"))
        rest.append(onnx["picture"] - onnx["bodies"] - fast["picture"] + fast["bodies"])
    won = [
        f"{code(name)} with {people} {'person' if people == 1 else 'people'}"
        for (name, people), path in fastest.items()
        if path == "onnx"
    ]
    return Markdown(
        "* With PyTorch use FastDPose, which `dpose predict` and `dpose.Predictor` do by default.\n"
        f"* Without PyTorch use ONNX. For the step *bodies* it is the fastest path in these cases: {', '.join(won) or 'none'}. Detector and overlay "
        f"then take {signed(min(rest), 0)} to {signed(max(rest), 0)}{NBSP}ms compared with a prediction by FastDPose; the cause was not examined.\n"
        "* If results in 32 bits matter more than time, use the network as trained: `Predictor(fast=False)`."
    )


path_text() if cases else None

# %% [markdown]
# ## What do 16 and 8 bits gain and cost?
#
# Numbers with fewer bits are computed faster where the processor can do it, but they are less exact. The
# table measures both sides for `lite`: time of one pass of the network on one core, and how far the vertices of the predicted bodies
# move, both bodies at the origin. *bf16* has the 8 exponent bits of float32 and 8 significant bits. *ONNX* is the exported network in onnxruntime,
# *int8* its static quantisation, with ranges from training people.


# %% tags=["remove-input"]
def precision_table():
    record = records["precision"]
    return html_table(
        ("variant", "1 person, ms", "8 people, ms", "vertices moved, mm", "95 % below, mm", "MPJPE, mm"),
        [
            (
                VARIANTS.get(name, name),
                f"{one['ms_1']:.1f}",
                f"{one['ms_8']:.1f}",
                f"{one['vertices_mean_mm']:.1f}",
                f"{one['vertices_p95_mm']:.1f}",
                f"{one['mpjpe_mm']:.1f}",
            )
            for name, one in record["variants"].items()
        ],
        f"Measured: the network {NAMES.get(record['network'], record['network'])} on {record['samples']} test people. {threads(record)}",
    )


precision_table() if "precision" in records else missing("precision")


# %% tags=["remove-input"]
def precision_text():
    variants = records["precision"]["variants"]
    base = variants["torch, as trained"]

    def millimetres(value):
        return f"less than 0.1{NBSP}mm" if value < 0.05 else f"{value:.1f}{NBSP}mm"

    def less(name, key="ms_8", than=base):
        return f"{100 * (1 - round(variants[name][key], 1) / round(than[key], 1)):.0f}{NBSP}%"

    fast, everywhere = variants["FastDPose, bf16"], variants["FastDPose, bf16 in the backbone too"]
    onnx, int8 = variants["onnxruntime, 32 bits"], variants["onnxruntime, int8"]
    return Markdown(
        f"* *FastDPose* in bf16 takes {less('FastDPose, bf16')} less time for eight people and moves vertices by "
        f"{millimetres(fast['vertices_mean_mm'])} on average. With the pretrained backbone in bf16, too, it would be "
        f"{millimetres(everywhere['vertices_mean_mm'])}, so the backbone stays in 32 bits. MPJPE changes by "
        f"{difference(everywhere['mpjpe_mm'], base['mpjpe_mm'], 1)}{NBSP}mm only: a mean error can stay the same although single bodies move.\n"
        f"* *ONNX* in 32 bits takes {less('onnxruntime, 32 bits')} less time for eight people than PyTorch as trained and moves vertices by "
        f"{millimetres(onnx['vertices_mean_mm'])}. This is the network alone on one thread. Whole pictures gain less, because detector, "
        "overlay, crops and body model are not in the ONNX file, and were measured with another number of threads "
        "(see the section *Which path for which case?*).\n"
        f"* *int8* takes {less('onnxruntime, int8', than=onnx)} less time than ONNX in 32 bits, but moves vertices by "
        f"{millimetres(int8['vertices_mean_mm'])} and changes MPJPE by {difference(int8['mpjpe_mm'], base['mpjpe_mm'], 1)}{NBSP}mm. The package "
        "therefore has no int8 path."
    )


precision_text() if "precision" in records else None

# %% [markdown]
# ## The network of the paper's size
#
# `PAPER` has a large HRNet. {tab}`tab-paper-speed` compares the network as trained with FastDPose and with `torch.compile`, in
# batches; {tab}`tab-latency` shows all networks with one image at a time, beside the transformers of Table 2. Its times are medians,
# those of the previous section the fastest of several passes, which are shorter. Times of `lite` for a prediction are those of the two
# sections above.


# %% tags=["remove-input"]
def inference_table():
    record = records["inference"]
    return html_table(
        ("variant", "images per second", "times as fast", "largest change of a rotation matrix"),
        [
            (
                VARIANTS.get(name, name),
                f"{one['images_per_second']:.1f}",
                f"{one['times_as_fast']:.1f}",
                f"{change:.1g}" if change >= 0.001 else power_of_ten(change),
            )
            for name, one in record["variants"].items()
            for change in (one["largest_difference"]["rotmats"],)
        ],
        f"Measured: the network {NAMES[record['preset']]} with random weights, batches of {record['batch_size']}. {threads(record)}",
        name="tab-paper-speed",
    )


inference_table() if "inference" in records else missing("inference")


# %% tags=["remove-input"]
def times_as_fast(people, step="picture"):
    """Of FastDPose for a picture of `PAPER`, compared with the network as trained."""
    return cases["paper", "eager", people][step] / cases["paper", "fast", people][step]


def inference_text():
    record = records["inference"]
    factors = {name: f"{one['times_as_fast']:.1f}" for name, one in record["variants"].items()}
    text = "The changes are those of random weights; the section before has changes of trained networks. "
    if {"fast, bf16", "fast, compiled"} <= factors.keys():
        text += (
            f"On this processor ({record['hardware']['cpu']}) FastDPose is {factors['fast, bf16']} times as fast as the network as trained, and "
            f"{factors['fast, compiled']} times if `torch.compile` is added, which `dpose predict` does not do. "
        )
    if cases:
        text += (
            f"With {records['predict']['hardware']['cpu']} the gain of FastDPose is smaller: {times_as_fast(1):.1f} times for the whole picture with one "
            f"person and {times_as_fast(8):.1f} times with eight. The step *bodies* alone is {times_as_fast(1, 'bodies'):.1f} and "
            f"{times_as_fast(8, 'bodies'):.1f} times as fast."
        )
    return Markdown(text)


inference_text() if "inference" in records else None


# %% tags=["remove-input"]
def latency_table():
    record = records["latency"]
    found = {}  # network, bits -> case on one thread
    for case in record["cases"]:
        if case["threads"] == 1:
            found[case["network"], 32 if case["variant"] == "eager" else 16] = case
    rows = []
    busy = record["load"] > 0.5  # other programs were running: times are not shown
    for name in dict.fromkeys(network for network, _ in found):
        both = [found[name, bits] for bits in (32, 16)]
        times = [] if busy else [f"{case['ms']:,.0f}" for case in both]
        memory = [f"{case['running_mb'] - case['imports_mb']:,.0f}" for case in both]
        rows.append((NAMES.get(name, name), *times, *memory))
    note = f". Times are left out: other programs were running (load {record['load']:.1f})" if busy else ""
    return html_table(
        ("network", *(() if busy else ("32 bits, ms", "16 bits, ms")), "32 bits, MB", "16 bits, MB"),
        rows,
        "Measured: one image, network only; memory beyond that of a process that has imported PyTorch and this package. "
        f"{record['hardware']['cpu']}, 1 thread{note}",
        name="tab-latency",
    )


latency_table() if "latency" in records else missing("latency")

# %% [markdown]
# [Tables 1 to 3](tables.ipynb) compares these costs with parameters and multiply-adds.
#
# ## Does the data keep up with training?
#
# A training step needs images as fast as the network consumes them. The table lists both, in people per second of processor
# time: the time that all processes of the step use on a core, loader processes included. For training it also lists people per second of
# wall time, which [Training](train.ipynb) states, too. There the loader has a core of its own if one is free.
# *Raw frames* are decoded for each person as the released code does it: a full picture, its depth and masks. *Shards* contain
# crops that were cut once ([From download to batch](data_prep.ipynb)).


# %% tags=["remove-input"]
def data_table():
    rows = []
    if loader := records.get("loader"):
        for name, rate in loader["samples_per_second_and_core"].items():
            rows.append((f"load: {name}", f"{NAMES[loader['network']]}, 224 pixels", f"{rate:.0f}", "–"))
    if synthetic := records.get("synthetic"):
        for name, one in synthetic["rates"].items():
            split, _, size = name.partition(", ")
            rows.append(
                (f"generate: people of {split}", size, f"{one['samples_per_second_and_core']:.0f}", "–")
            )
    for case in records.get("training_speed", {}).get("cases", ()):
        size = f"{dpose.preset(case['preset']).image_size} pixels"
        text = f"train: {NAMES[case['preset']]}, {bits(case)}, batches of {case['batch_size']}"
        speeds = (f"{case[kind]['full']:.0f}" if kind in case else "–" for kind in ("cpu", "wall"))
        rows.append((text, f"{NAMES[case['preset']]}, {size}", *speeds))
    return html_table(
        ("step", "crops", "by processor time", "by wall time"),
        rows,
        "Measured: people per second of processor time and of wall time. " + setting(),
        align="ll",
    )


def setting():
    """Processes and threads of the measured training."""
    found = {
        f"{case['devices']} process of {case['threads']} thread, with {case['workers']} loader process"
        for case in records.get("training_speed", {}).get("cases", ())
        if case["devices"] == case["threads"] == case["workers"] == 1
    }
    return f"Training: {found.pop()}" if found else ""


data_names = [name for name in ("loader", "synthetic", "training_speed") if name in records]
data_table() if data_names else missing("loader")


# %% tags=["remove-input"]
def data_text():
    lines = []
    if loader := records.get("loader"):
        steps = loader["raw_ms_by_step"]
        texts = {
            "png": "the PNG file",
            "exr": "the depth file",
            "masks": "the masks",
            "scikit-image resize": "resizing",
        }
        slowest = sorted(steps, key=steps.get)[:-4:-1]
        lines.append(
            f"Loading from shards is {loader['times_as_fast']:.0f} times as fast as from raw frames (median of the ratios of "
            f"{len(loader['times_as_fast_by_round'])} rounds), whose time goes to "
            + ", ".join(f"{texts.get(name, name)} ({steps[name]:.0f}{NBSP}ms)" for name in slowest)
            + f" and less for other steps, per person. Cutting a crop for the shards takes {loader['cutting_ms_per_sample']:.0f}{NBSP}ms, once."
        )
    if cases := records.get("training_speed", {}).get("cases"):
        lines.append(
            "Training includes loading, augmentation, losses and optimiser. Per second of processor time it handles fewer people than "
            "the bare network (forward and backward pass), by these factors (medians of the rounds' ratios): "
            + ", ".join(
                f"{case['cpu']['ratio']:.2f} for {code(case['preset'])} in {bits(case)}"
                for case in cases
                if "cpu" in case
            )
            + "."
        )
    return Markdown(" ".join(lines))


data_text() if data_names else None

# %% [markdown]
# ## Body model and renderer


# %% tags=["remove-input"]
def parts_table():
    rows = []
    if body := records.get("body"):
        for name, one in body["bodies"].items():
            rows.append(
                (
                    f"body model, {name}",
                    f"smplx: {one['smplx_ms']:.1f} ms",
                    f"{one['dpose_ms']:.1f} ms",
                    f"{one['smplx_ms'] / one['dpose_ms']:.1f}",
                    f"vertices within {1e6 * one['largest_distance_m']:.1f}{NBSP}µm",
                )
            )
    if render := records.get("render"):
        rates = render["people_per_second"]
        rows.append(
            (
                "part labels",
                f"Embree: {max(rates['embree'], rates['embree, threads']):.0f} people/s",
                f"{rates['ours']:.0f} people/s",
                f"{render['times_as_fast_as_the_faster_embree']:.1f}",
                f"{100 * render['labels_equal']:.0f}{NBSP}% of the pixels equal",
            )
        )
    machines = " and ".join(
        sorted({threads(records[name]) for name in ("body", "render") if name in records})
    )
    return html_table(
        ("step", "reference", "this package", "times as fast", "agreement"),
        rows,
        f"Measured: batches of {body['batch_size'] if body else '–'} bodies, labels of {render['size'] if render else '–'} pixels. {machines}",
        align="lllrl",
    )


parts_table() if {"body", "render"} & records.keys() else missing("body")

# %% tags=["remove-input"]
Markdown(
    f"The agreement with `smplx` is the largest distance of any vertex of {records['body']['batch_size']} bodies with random shapes and "
    "poses, both in single precision (`benchmarks/body.py`). The page [The body model](body_model.ipynb) states it for the "
    "single body that it shows; the largest value of many bodies is larger."
) if "body" in records else None

# %% [markdown]
# ## Goals
#
# The benchmarks state goals for speed and agreement. A missed goal stays in the table. The speed goal of FastDPose is about the network
# alone; the row of a whole picture shows what remains of it on another processor.

# %% tags=["remove-input"]
goals = []  # what, goal, measured, met


def at_least(what, goal, value, digits=1):
    """Adds a goal that is met by values from `goal` on."""
    goals.append((what, f"at least {goal:g}", f"{value:.{digits}f}", value >= goal))


if body := records.get("body"):
    at_least(
        "body model, times as fast as smplx",
        2,
        min(one["smplx_ms"] / one["dpose_ms"] for one in body["bodies"].values()),
    )
    distance = max(one["largest_distance_m"] for one in body["bodies"].values())
    goals.append(
        ("body model, largest distance from smplx", "10 µm", f"{1e6 * distance:.1f} µm", distance <= 1e-5)
    )
if render := records.get("render"):
    ratio = render["times_as_fast_as_the_faster_embree"]
    at_least("part labels, times as fast as Embree", render["goal"], ratio)
if loader := records.get("loader"):
    at_least("loading, times as fast as from raw frames", loader["goal"], loader["times_as_fast"], 0)
if synthetic := records.get("synthetic"):
    for name, one in synthetic["rates"].items():
        if name.startswith("training"):
            what = f"generator, people per second and core, {name}"
            at_least(what, synthetic["goal"], one["samples_per_second_and_core"], 0)
for case in (speed := records.get("training_speed", {"cases": []}))["cases"]:
    what = (
        f"training, share of the bare network's speed (processor time), {NAMES[case['preset']]}, {bits(case)}"
    )
    at_least(what, speed["goal"], case["cpu"]["ratio"], 2)
if inference := records.get("inference"):
    change = abs(inference["mini"]["change"]["mpjpe"])
    for variant, text in {"fast, bf16": "FastDPose", "fast, compiled": "FastDPose and torch.compile"}.items():
        if variant in inference["variants"]:
            what = f"{text}, times as fast, PAPER, network alone, {inference['hardware']['cpu']}"
            at_least(what, 3, inference["variants"][variant]["times_as_fast"])
    if cases:
        cpu = records["predict"]["hardware"]["cpu"]
        at_least(f"FastDPose, times as fast, PAPER, picture with 8 people, {cpu}", 3, times_as_fast(8))
    goals.append(("FastDPose, change of MPJPE, mini", "below 0.1 mm", f"{change:.3f} mm", change < 0.1))
if cases:
    for people, limit in ((1, 150), (8, 500)):
        time = cases["mini", "fast", people]["picture"]
        text = f"picture to overlay, mini, {people} {'person' if people == 1 else 'people'}"
        goals.append((text, f"below {limit} ms", f"{time:.0f} ms", time < limit))
    memory = records["predict"]["resident_mb"]
    growth = 100 * (memory["1000"] / memory["100"] - 1)
    goals.append(("memory, from picture 100 to 1,000", "growth below 1 %", f"{signed(growth)} %", growth < 1))
html_table(
    ("what", "goal", "measured", "result"),
    [(text, goal, value.replace(" ", NBSP), "met" if met else "missed") for text, goal, value, met in goals],
    "Goals of the benchmarks",
    align="lrrl",
) if goals else missing("predict")

# %% [markdown]
# ## Open for production
#
# These questions of a production system are not, or only in part, answered by the measurements above.

# %% tags=["remove-input"]
measured_on = sorted({case["network"] for case in records.get("predict", {}).get("cases", ())})
html_table(
    ("question", "state"),
    [
        ("time of a prediction on a GPU", "not measured"),
        ("onnxruntime on a GPU", "not measured"),
        (
            "PAPER in ONNX: change of the prediction",
            "not measured: the repository has no trained weights of this size; the test of the export uses small networks of random weights "
            "and lite",
        ),
        (
            "PAPER in ONNX: time",
            "measured, see the first table" if "paper" in measured_on else "not measured",
        ),
        (
            "opset of the ONNX file",
            "the default of the installed PyTorch; onnx.load(file).opset_import has it",
        ),
        ("ONNX in 16 bits (fp16)", "not measured; the files have 32 bits"),
        (
            "number of threads",
            "as the captions state; more than 2 were not measured",
        ),
        ("wheel of the package", "none is published; pip builds one from the repository"),
    ],
    "What is known about use in production",
    align="ll",
)

# %% [markdown]
# ## Where the numbers come from
#
# Times depend on the machine, and wall times also on other programs. A wall time that was measured while others were running is
# not shown. Goals of loading,
# generation and training are measured by processor time, which depends on them little.

# %% tags=["remove-input"]
html_table(
    ("record", "command", "commit", "machine"),
    [
        (name, f"python benchmarks/{command}", commit[:7] + ("+" if "+" in commit else ""), machine)
        for name, record in records.items()
        for command, commit, machine in sorted(
            {
                (one["command"], one["commit"] or "unknown", threads(one))
                for one in ([record] if "command" in record else record["cases"])
            }
        )
    ],
    "Records in results/, the commands and commits that made them (+: with uncommitted changes)",
    align="llll",
) if records else missing("predict")

# %% [markdown]
# ## Takeaways


# %% tags=["remove-input"]
def takeaways():
    met = sum(goal[-1] for goal in goals)
    lines = []
    if cases:
        one, eight = (cases["lite", "fast", people] for people in (1, 8))
        lines.append(
            f"* On {records['predict']['hardware']['cpu']} with {records['predict']['threads']} threads `lite` takes {one['picture']:.0f}{NBSP}ms from picture to overlay with one person and "
            f"{eight['picture']:.0f}{NBSP}ms with eight; the bodies are {100 * one['bodies'] / one['picture']:.0f} and "
            f"{100 * eight['bodies'] / eight['picture']:.0f}{NBSP}% of it."
        )
    if "precision" in records:
        variants = records["precision"]["variants"]
        lines.append(
            f"* bf16 moves the vertices of `lite` by {variants['FastDPose, bf16']['vertices_mean_mm']:.1f}{NBSP}mm, int8 by "
            f"{variants['onnxruntime, int8']['vertices_mean_mm']:.1f}{NBSP}mm; the cost of fewer bits has to be measured on single bodies, because "
            "a mean error hides it."
        )
    lines.append(
        f"* {met} of {len(goals)} goals of speed and agreement are met."
        if goals
        else "* Nothing is measured yet."
    )
    return Markdown("\n".join(lines))


takeaways()

# %% [markdown]
# ## Exercises
#
# **Exercise 1.** Suppose that the network of `lite` took no time at all. By how much would a picture with one person, and one with
# eight people, become faster? (This bound is known as Amdahl's law.) Use the step *bodies* as the network's time.

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
texts = []
for people in (1, 8) if cases else ():
    case = cases["lite", "fast", people]
    texts.append(
        f"{people}: at most {case['picture'] / (case['picture'] - case['bodies']):.2f} times as fast"
    )
Markdown(
    "; ".join(texts) + ". Beyond this, only a faster detector and overlay help." if texts else "*No record.*"
)

# %% [markdown]
# **Exercise 2.** A GPU trains `PAPER` in the paper's three days: 200,000 steps of 64. How many CPU cores must load crops, from raw
# frames and from shards?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
needed = 200_000 * 64 / (3 * 24 * 3600)  # people per second
rates = records["loader"]["samples_per_second_and_core"] if "loader" in records else {}
Markdown(
    f"The training needs {needed:.0f} people per second: "
    + ", ".join(f"{needed / rate:.1f} cores ({name})" for name, rate in rates.items())
    + "."
)

# %% [markdown]
# **Exercise 3.** bf16 has 8 significant bits. Round random numbers to bf16 and compute the largest relative error. Why can a
# network with such errors in each layer still be as accurate on average?

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
values = 1 + torch.rand(100_000, generator=torch.Generator().manual_seed(0))
relative = ((values.bfloat16().float() - values) / values).numpy()
assert abs(relative).max() < 2**-8
Markdown(
    f"The largest relative error is {100 * abs(relative).max():.2f}{NBSP}% (below $2^{{-8}}$), the mean is {100 * relative.mean():.4f}{NBSP}%: "
    "rounding has no preferred direction. Errors partly cancel in the sums of a convolution, and what remains can move a "
    "prediction towards the truth as well as away from it, so a mean error may not show it."
)
