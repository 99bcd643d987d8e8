"""Draws book/_static/overview.png: people of the test split in blocks of image, part map, depth map and body.

    python scripts/draw_overview.py

The same blocks as Figures 1 and 5 in notebooks/qualitative.py, but in a higher resolution than the stored
crops have: the people are drawn again from the generator's seed, so no data need to be there. The network
gets the crop that it would get from the shards, before JPEG.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dpose
from dpose.data.loader import collate
from dpose.data.sample import SAMPLE_SIZE, Sample
from dpose.data.streams import prepare_sample
from dpose.figures import PREDICTION_TITLES, picture_block, prediction_pictures
from dpose.io import replacing
from dpose.model import checkpoint as checkpoints
from dpose.model.inference import run_network, to_device
from dpose.synthetic import person_samples, sample_scene

OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "overview.png"
# Scene and person of the test split: picked for variety before any network had predicted them.
PEOPLE = ("6-0", "39-0", "53-0", "2-1")
COLUMNS, GAP = 2, 12  # blocks side by side, and pixels between them
MOST = 1_000_000  # bytes


def test_person(name: str, size: int, seed: int) -> Sample:
    """Person "scene-number" of the test split, as a crop of `size` pixels; SystemExit if none."""
    scene, number = name.split("-")
    for sample in person_samples(sample_scene(seed, "test", int(scene)), size):
        if sample["label"]["key"].endswith(f"-{number}"):
            return sample
    raise SystemExit(f"error: the test split has no person {name}")


def block(name: str, side: int, seed: int, network: dpose.DPose) -> np.ndarray:
    """A person's image and predictions, RGBA (side, 2.5 side and gaps, 4) uint8."""
    config = network.config
    finer = replace(config, image_size=side, map_size=side)
    image = prepare_sample(test_person(name, round(side * SAMPLE_SIZE[128] / 128), seed), finer)["image"]
    seen = prepare_sample(test_person(name, SAMPLE_SIZE[config.image_size], seed), config)
    batch = to_device(collate([seen]), "cpu")
    body = checkpoints.body_of(network)
    pictures = prediction_pictures(run_network(network, batch), batch, body, 0, np.ascontiguousarray(image))
    shown = dict(zip(PREDICTION_TITLES, pictures, strict=True))
    return picture_block(shown["image"], shown["parts"], shown["depth"], shown["mesh"])


def draw(people: list[str], side: int, seed: int, network: dpose.DPose) -> Image.Image:
    """All blocks on transparent ground."""
    blocks = [Image.fromarray(block(name, side, seed, network)) for name in people]
    width = blocks[0].width + GAP
    rows = -(-len(blocks) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * width - GAP, rows * (side + GAP) - GAP))
    for i, one in enumerate(blocks):
        sheet.paste(one, (i % COLUMNS * width, i // COLUMNS * (side + GAP)))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", default="lite", help="a shipped network or a .safetensors file")
    parser.add_argument("--people", nargs="+", default=PEOPLE, help="scene-person of the test split")
    parser.add_argument("--seed", type=int, default=0, help="the data's seed")
    parser.add_argument("--side", type=int, default=256, help="pixels of an image, a multiple of 64")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    network = dpose.load(arguments.checkpoint).eval()
    with torch.inference_mode():
        sheet = draw(arguments.people, arguments.side, arguments.seed, network)
    data = io.BytesIO()
    sheet.save(data, "png", optimize=True)
    if data.tell() > MOST:
        raise SystemExit(f"error: {data.tell():,} bytes, more than {MOST:,}; take a smaller --side")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(arguments.out) as temporary:
        temporary.write_bytes(data.getvalue())
    print(f"{arguments.out}: {data.tell():,} bytes, {sheet.width} x {sheet.height}")


if __name__ == "__main__":
    main()
