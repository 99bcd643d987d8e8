"""Measure the networks of `dpose experiment ablation` and `encoder`, with and without depth, on photographs.

    python scripts/experiment_photos.py --keypoints coco.json --images photos --runs runs

Needs the training runs of both experiments, in RUNS/ablation and RUNS/encoder, and annotations of 2D
keypoints in COCO's format. Writes results/encoder-photos.json, for the book's page on photographs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dpose import results
from dpose.experiment import ENCODER, EXPERIMENTS, runs
from dpose.io import write_json
from dpose.keypoints import MEASURES, evaluate_keypoints

OUT = Path(__file__).resolve().parents[1] / "results" / "encoder-photos.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keypoints", required=True, help="keypoints of the photographs in COCO's format")
    parser.add_argument("--images", required=True, help="folder of the photographs")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the training runs")
    args = parser.parse_args()
    cases, about = [], {}
    for experiment in EXPERIMENTS:
        for run in runs(experiment, folder=args.runs / experiment, variants=list(ENCODER.variants)):
            one = evaluate_keypoints(
                args.keypoints, args.images, run.folder / "model.safetensors", workers=0, progress=False
            )
            scores = {name: one["metrics"][name]["mean"] for name in MEASURES}
            weights = one["checkpoint"]["sha256"]
            cases.append(
                {
                    "experiment": experiment,
                    "variant": run.variant,
                    "seed": run.seed,
                    "weights": weights,
                    **scores,
                }
            )
            about = {name: one[name] for name in ("samples", "joints", "images")}
            print(f"{experiment:9} {run.variant:14} seed {run.seed}", *(f"{x:.3f}" for x in scores.values()))
    write_json(OUT, {**about, "cases": cases, **results.provenance()})


if __name__ == "__main__":
    main()
