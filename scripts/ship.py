"""Make a training run a shipped network: store its weights in 16 bits, evaluate it, write its model card.

    python scripts/ship.py lite runs/lite --keypoints coco.json --images photos   # needs the open data
    python scripts/ship.py mini                                                   # evaluate it again

Writes dpose/assets/NAME.safetensors and NAME.md, the card; results/NAME.json with NAME.people.npz, and
NAME-log.csv (for the book's tables and curves); with --keypoints results/NAME-photos.json; with --frames
results/NAME-rendered.json, the same measurement on rendered frames. Every number on the card comes from
these. The records are made by `dpose evaluate`, so that their commands are those that a reader can run.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

import dpose
from dpose.keypoints import THRESHOLDS
from dpose.model import checkpoint
from dpose.results import lineage, portable, read_json, totals

ROOT = Path(__file__).resolve().parents[1]
ASSETS, RESULTS = ROOT / "dpose" / "assets", ROOT / "results"
STARTS = {
    "lite": """on the backbone of MoveNet Lightning,
which has learned keypoints in photographs and was trained further on synthetic people; all else was trained
from random weights on synthetic people only""",
    "mini": "with a small HRNet, trained from random weights\non synthetic people only",
}
RUNS = {  # what the metadata of the runs do not say
    "lite": """Runs 4 and 5 were interrupted; they began
with the options of run 3, `--init` with the weights of the run before, and `--steps 24000 --seed 3` and
`--steps 5500 --seed 4`. Runs 1 to 4 kept the backbone fixed; run 4 was stopped before its learning rate fell,
when ten networks of the ablation's experiments had shown that a backbone trained at a tenth of the rate is
better on rendered people and shows no loss on the few photographs measured. Two million images were planned;
the hours of two cores limit it to half of them.""",
    "mini": """Run 2 was started with `--init
runs/mini-1/model.safetensors --steps 8500` instead of `--resume` and `--steps 6500`; after 2,500 steps it was
stopped for lack of time and resumed with the shorter schedule.""",
}
LIMITS = {
    "lite": """For demonstrations, measurements and as a start for a training of one's own. All that it knows
of photographs comes from its backbone. Expect wrong bodies for children and for bodies far from the adults of
the training data, for people of whom little is visible, in crowds (the person in the middle of the box is
meant), in close-ups and self-portraits, upside down, and in loose robes. Distances are relative to a guess of
the focal length. It gives no confidence: any image yields a body.""",
    "mini": """For learning, demonstrations and tests. The training data show rendered adults of one body
model in simple clothes and scenes. In photographs it is often wrong, in particular for loose
clothes, close-ups and crowds; `lite` is better there. It gives no confidence: any image yields a body.""",
}


def ship(
    name: str,
    run: Path | None = None,
    data: str | None = None,
    photos: tuple[str, str] | None = None,
    frames: Path | None = None,
) -> None:
    """Install the weights of a run (None: keep the present ones), evaluate them and write the card.

    The metadata of the weights name the body that the network was trained for; where they do not, the record
    in the run's `run.json` is added. photos: annotations in COCO's format, folder of the images. frames: root
    of rendered frames, made by `dpose synth --root FRAMES --train 0 --val 0 --test 0 --frames 100`.
    """
    if run is not None:
        model, metadata = checkpoint.read(run / "model.safetensors")
        recorded = read_json(run / "run.json").get("body")
        metadata = portable(({"body": recorded} if recorded else {}) | metadata)
        checkpoint.save(model, ASSETS / f"{name}.safetensors", metadata, half=True)
        shutil.copyfile(run / "log.csv", RESULTS / f"{name}-log.csv")
        if (run / "val.csv").exists():
            shutil.copyfile(run / "val.csv", RESULTS / f"{name}-val.csv")
    evaluate(name, RESULTS / f"{name}.json", *(() if data is None else ("--data", data)))
    on_photos = RESULTS / f"{name}-photos.json"
    if photos is not None:
        evaluate(name, on_photos, "--keypoints", photos[0], "--images", photos[1])
    if frames is not None:
        made = frames / "frames"
        rendered = made / "labels" / "open_test.json", made / "open_test" / "png"
        evaluate(name, RESULTS / f"{name}-rendered.json", "--keypoints", rendered[0], "--images", rendered[1])
    result = read_json(RESULTS / f"{name}.json")
    seen = read_json(on_photos) if on_photos.exists() else None
    text = card(name, checkpoint.metadata(name), result, seen)
    paragraphs = [one if one.startswith(("#", "|")) else fill(one, 110) for one in text.strip().split("\n\n")]
    (ASSETS / f"{name}.md").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def evaluate(name: str, out: Path, *options: str | Path) -> None:
    """Runs `dpose evaluate` with the shipped network."""
    program = Path(sys.executable).with_name("dpose")
    command = ("evaluate", "--checkpoint", name, "--no-progress", *options, "--out", out)
    subprocess.run([program, *command], check=True)


def run_rows(run: dict[str, Any], number: int) -> str:
    """The rows of a run in the card's table."""
    recipe, hardware, weights = run["recipe"], run["hardware"], run["recipe"]["weights"]
    several = re.search(r"--devices (\d+)", run["command"])  # of runs that did not record it
    processes = run.get("devices") or (int(several[1]) if several else 1)
    share = f", {processes} processes of {recipe['batch_size'] // processes}" if processes > 1 else ""
    rate = recipe.get("backbone_lr", 1.0)
    backbone = "" if rate == 1 else f"; backbone at {rate:g} of the rate" if rate else "; backbone fixed"
    return f"""| {number} | `dpose {run["command"].split(" ", 1)[1]}` |
| | {run["step"]:,} steps of {recipe["batch_size"]} ({run["images"]:,} images){share}, seed {run["seed"]} |
| | {_sum(run["data_samples"]):,} open synthetic people, fingerprint {_names(run["data"])} |
| | class weights of the part loss: exponent {weights.get("parts_balance", 0.0):g}{backbone} |
| | {run["seconds"] / 3600:.2f} hours on {hardware["cores"]} cores ({hardware["cpu"]}), no GPU |
| | dpose {run["version"]}, commit `{run["commit"]}` |"""


def photo_table(seen: dict[str, Any] | None) -> str:
    """The card's section on photographs."""
    if seen is None:
        return ""
    rows = []
    for share in THRESHOLDS:
        key = f"pck_{share:g}"
        score, baseline = seen["metrics"][key], seen["baselines"]["mean_pose"][key]["mean"]
        low, high = score["ci95"]
        measured = f"{score['mean']:.0%} | {low:.0%} to {high:.0%}"
        rows.append(f"| within {share:g} of the box | {measured} | {baseline:.0%} |")
    table = "\n".join(rows)
    return f"""
## Photographs

`dpose evaluate --keypoints`: {seen["joints"]} limb joints of {seen["samples"]} people in
{seen["images"]} photographs of COCO, annotated boxes times {seen["box_factor"]:g}; distances from
the annotated
keypoints in units of the box's longer side; 95 % bootstrap intervals over the photographs, which are
few. They
served to choose between training runs. The baseline is the mean pose.

| | measured | 95 % interval | baseline |
| --- | --- | --- | --- |
{table}
"""


def _sum(counts: int | list[int]) -> int:
    return counts if isinstance(counts, int) else sum(counts)


def _names(prints: str | list[str]) -> str:
    return ", ".join(f"`{one}`" for one in ([prints] if isinstance(prints, str) else prints))


def card(name: str, metadata: dict[str, Any], result: dict[str, Any], seen: dict[str, Any] | None) -> str:
    """The model card as Markdown."""
    measured, baselines = result["metrics"], result["baselines"]
    network = dpose.load(name)
    parameters = sum(p.numel() for p in network.parameters())
    runs = "\n".join(run_rows(one, number) for number, one in enumerate(lineage(metadata), 1))

    def row(label: str, name: str, unit: str, digits: int, baseline: float | None) -> str:
        score = measured[name]
        low, high = (f"{value:.{digits}f}" for value in score["ci95"])
        reference = "" if baseline is None else f"{baseline:.{digits}f}"
        ratio = f"{score['mean'] / baseline:.2f}" if baseline else ""
        return f"| {label} | {score['mean']:.{digits}f}{unit} | {low} to {high} | {reference} | {ratio} |"

    mean_pose, body = baselines["mean_pose"], result["bodies"]["prediction"]
    training = totals(metadata)
    rows = [
        row("MPJPE", "mpjpe", " mm", 1, mean_pose["mpjpe"]["mean"]),
        row("PA-MPJPE", "pa_mpjpe", " mm", 1, mean_pose["pa_mpjpe"]["mean"]),
        row("MVE", "mve", " mm", 1, mean_pose["mve"]["mean"]),
        row("global orientation", "orientation", "°", 1, mean_pose["orientation"]["mean"]),
        row("parts, mean IoU", "parts_miou", "", 3, None),
        row(
            "depth L1, pixels of the person",
            "depth_l1",
            "",
            4,
            baselines["constant_depth"]["depth_l1"]["mean"],
        ),
    ]
    table = "\n".join(rows)
    return f"""# Model card: `{name}`

A small D-PoSE network ({parameters:,} parameters, {network.config.image_size}-pixel crops)
{STARTS[name]}. It works without licensed files and without a GPU.

It predicts parameters of the body `{body["name"]}` (hash `{body["hash"]}`).

## Training

{training["runs"]} run(s), {training["images"]:,} images; each
run starts from the
weights of the previous one (`--init`). The data are made by `dpose synth`.

| run | |
| --- | --- |
{runs}

The file stores the weights in 16 bits; they are loaded as 32 bits. {RUNS[name]}

The recipe is `dpose.training.recipe("{name}")`. It differs from the paper's; the book's page on training
compares them.

## Test

`dpose evaluate --checkpoint {name}`: {result["samples"]:,} people of the open test split, seen from
all sides;
the training set has none of these identities. Protocol `{result["protocol"]}`; 95 % bootstrap intervals over
{result["intervals"]["clusters"]:,} scenes. The baseline of the body errors is the mean pose of the training
set, that of the depth error the best constant (targets range from 0.1 to 1).

| | measured | 95 % interval | baseline | ratio |
| --- | --- | --- | --- | --- |
{table}
{photo_table(seen)}
## Use and limits

{LIMITS[name]} It must not be used
to identify, rate or monitor people.

Weights: Apache-2.0, like the code. The body model of the training data derives from MakeHuman's CC0 figures.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(STARTS))
    parser.add_argument("run", type=Path, nargs="?", help="run folder of `dpose train` (default: none)")
    parser.add_argument("--data", help="data root with the test split (default: the open data)")
    parser.add_argument("--keypoints", help="photographs' keypoints in COCO's format")
    parser.add_argument("--images", help="folder of the photographs")
    parser.add_argument("--frames", type=Path, help="root of rendered frames, of `dpose synth --frames`")
    args = parser.parse_args()
    if bool(args.keypoints) != bool(args.images):
        parser.error("--keypoints and --images belong together")
    photos = (args.keypoints, args.images) if args.keypoints else None
    ship(args.name, args.run, args.data, photos, args.frames)
