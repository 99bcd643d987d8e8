"""Draws book/_static/overview.png: people of the test split, each as image, body parts, depth and body.

    python scripts/draw_overview.py                      # the ground truth
    python scripts/draw_overview.py --checkpoint mini    # what a network predicts from the image

The people are drawn again from the generator's seed in a higher resolution than the stored crops have, so no
data needs to be there. A network gets the crop that it would get from the shards, before JPEG. The line below
the pictures says which of the two they show.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import dpose
from dpose.camera import full_translation
from dpose.data.loader import collate
from dpose.data.sample import SAMPLE_SIZE, Sample
from dpose.data.streams import prepare_sample
from dpose.figures import INK, colour_depth, colour_parts, overlay
from dpose.io import replacing
from dpose.model.inference import run_network, to_device
from dpose.synthetic import person_samples, sample_scene

OUT = Path(__file__).resolve().parents[1] / "book" / "_static" / "overview.png"
# Scene and person of the test split: picked for variety before any network had seen them.
PEOPLE = ("6-0", "39-0", "53-0", "2-1", "18-0")
ROWS = ("image", "parts", "depth", "body")
FINE = 2  # rendered this much larger than shown
GAP = 4
MOST = 1_000_000  # bytes


def test_person(name: str, size: int, seed: int) -> Sample:
    """Person "scene-number" of the test split, as a crop of `size` pixels; SystemExit if none."""
    scene, number = name.split("-")
    for sample in person_samples(sample_scene(seed, "test", int(scene)), size):
        if sample["label"]["key"].endswith(f"-{number}"):
            return sample
    raise SystemExit(f"error: the test split has no person {name}")


def column(name: str, side: int, seed: int, network: dpose.DPose | None, body) -> list[np.ndarray]:
    """The four pictures of a person, (side, side, 3) uint8: the truth, or what `network` says."""
    config = dpose.preset("mini") if network is None else network.config
    shown = replace(config, image_size=FINE * side, map_size=FINE * side)
    stored = round(shown.image_size * SAMPLE_SIZE[128] / 128)
    picture = prepare_sample(test_person(name, stored, seed), shown)
    seen = prepare_sample(test_person(name, SAMPLE_SIZE[config.image_size], seed), config)
    batch = to_device(collate([seen]), "cpu")
    geometry = batch["center"], batch["scale"]
    if network is None:
        parts, visible = picture["parts"], None
        depth = to_device(collate([picture]), "cpu")["depth"][0, 0].numpy()
        posed = body(batch["betas"], batch["pose"], batch["trans"])
    else:
        prediction = run_network(network, batch)
        parts = enlarge(prediction.parts, shown.image_size).argmax(0).numpy()
        depth, visible = np.zeros(parts.shape), None
        if prediction.depth is not None:
            depth, visible = enlarge(prediction.depth, shown.image_size)[0].numpy(), parts > 0
        translation = full_translation(prediction.cam, *geometry, batch["cam_int"])
        posed = body(prediction.betas, prediction.rotmats, translation)
    image = picture["image"]
    mesh = overlay(image, posed.vertices[0], body.faces, batch["cam_int"][0], *(g[0] for g in geometry))
    pictures = (image, colour_parts(parts), colour_depth(depth, visible), mesh)
    return [np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BOX)) for p in pictures]


def enlarge(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Maps (1, C, M, M) of one person -> (C, size, size)."""
    return torch.nn.functional.interpolate(maps.float(), size, mode="bilinear", align_corners=False)[0]


def draw(people: list[str], side: int, seed: int, network: dpose.DPose | None, caption: str) -> Image.Image:
    """One column a person, one row a kind of picture; names and caption on transparent ground."""
    body = dpose.load_body()
    columns = [column(name, side, seed, network, body) for name in people]
    text = ImageFont.load_default(max(11, side // 12))
    margin, foot = side // 3, side // 6
    width = margin + len(columns) * (side + GAP)
    sheet = Image.new("RGBA", (width, len(ROWS) * (side + GAP) + foot))
    pen = ImageDraw.Draw(sheet)
    for row, title in enumerate(ROWS):
        y = row * (side + GAP)
        pen.text((margin - 8, y + side / 2), title, fill=INK, font=text, anchor="rm")
        for number, pictures in enumerate(columns):
            sheet.paste(Image.fromarray(pictures[row]), (margin + number * (side + GAP), y))
    middle = margin + len(columns) * (side + GAP) / 2
    pen.text((middle, sheet.height - foot / 2), caption, fill=INK, font=text, anchor="mm")
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help='show its predictions: "mini" or a .safetensors file')
    parser.add_argument("--people", nargs="+", default=PEOPLE, help="scene-person of the test split")
    parser.add_argument("--seed", type=int, default=0, help="the data's seed")
    parser.add_argument("--side", type=int, default=192, help="pixels of a picture, a multiple of 16")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    network = dpose.load(arguments.checkpoint).eval() if arguments.checkpoint else None
    caption = "Ground truth: people of the synthetic test split"
    if network is not None:
        caption = f"Synthetic test people; parts, depth and body predicted by {network.config.name.upper()}"
    with torch.inference_mode():
        sheet = draw(list(arguments.people), arguments.side, arguments.seed, network, caption)
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
