"""Pictures: network inputs, meshes over images, and grids of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from torch import Tensor
from torch.nn import functional as F

from dpose.figures.colours import BACKGROUND, INK, colour_depth, colour_parts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dpose.batch import Batch, Prediction
    from dpose.body import Body

PREDICTION_TITLES = ("image", "parts, true", "parts", "depth, true", "depth", "mesh")


def to_picture(image: Tensor) -> np.ndarray:
    """A normalised network input, (3, S, S) or (B, 3, S, S), as RGB (..., S, S, 3) uint8."""
    from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD

    rgb = np.moveaxis(image.detach().float().cpu().numpy(), -3, -1) * IMAGENET_STD + IMAGENET_MEAN
    return (rgb * 255).round().clip(0, 255).astype(np.uint8)


def overlay(
    picture: np.ndarray, vertices: Tensor, faces: Tensor, cam_int: Tensor, center: Tensor, scale: Tensor
) -> np.ndarray:
    """A mesh over the crop of a box: RGB (S, S, 3) uint8.

    picture: the crop (S, S, 3) uint8. vertices: (V, 3) metres, camera frame. cam_int: (3, 3), pixels of the
    full image. center, scale: of the box.
    """
    from dpose.camera import crop_intrinsics
    from dpose.render import shade

    return shade(vertices, faces, crop_intrinsics(cam_int, center, scale, picture.shape[0]), picture)


def draw_mesh(
    vertices: Tensor, faces: Tensor, cam_int: Tensor, picture: np.ndarray | int, colour: str = "#0072B2"
) -> np.ndarray:
    """An opaque mesh (V, 3), camera frame, in one colour "#rrggbb" over a picture: RGB uint8.

    picture: (H, W, 3) uint8, or the side of an empty square. cam_int: (3, 3) pixels of the picture.
    """
    from dpose.render import shade

    if isinstance(picture, int):
        picture = np.full((picture, picture, 3), BACKGROUND, np.uint8)
    red, green, blue = ((int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))  # sRGB to linear
    return shade(vertices, faces, cam_int, picture, (red, green, blue), opacity=1.0)


def attention_overlay(picture: np.ndarray, weights: Tensor) -> np.ndarray:
    """A picture (S, S, 3) uint8, darkened and grey, with yellow where the weights (s, s) >= 0 are large."""
    strength = F.interpolate((weights / weights.max())[None, None], picture.shape[:2], mode="bilinear")
    strength = strength[0, 0, ..., None].detach().cpu().numpy()
    dark = 0.5 * (picture @ np.array([0.299, 0.587, 0.114]))[..., None]
    return ((1 - strength) * dark + strength * np.array([254, 232, 56])).round().astype(np.uint8)


def prediction_pictures(
    prediction: Prediction, batch: Batch, body: Body, index: int, picture: np.ndarray | None = None
) -> list[np.ndarray]:
    """Truth and prediction for one person of a batch: six pictures of equal size, see `PREDICTION_TITLES`.

    Predicted maps are enlarged bilinearly; one that the network does not predict is empty.

    Args:
        body: with all its faces, on the batch's device.
        picture: (S, S, 3) uint8, the crop in the size to draw in; None: the network's input.
    """
    from dpose.camera import full_translation

    picture = to_picture(batch["image"][index]) if picture is None else picture
    size = picture.shape[0]
    one = slice(index, index + 1)
    box, cam_int = (batch["center"][one], batch["scale"][one]), batch["cam_int"][one]
    translation = full_translation(prediction.cam[one], *box, cam_int)
    posed = body(prediction.betas[one], prediction.rotmats[one], translation)
    parts, depth = np.zeros((size, size), np.int64), np.zeros((size, size))
    if prediction.parts is not None:
        parts = _enlarge(prediction.parts[one], size)[0].argmax(0).cpu().numpy()
    if prediction.depth is not None:
        depth = _enlarge(prediction.depth[one], size)[0, 0].cpu().numpy()
    true = (
        colour_parts(batch["parts"][index].cpu().numpy()),
        colour_depth(batch["depth"][index, 0].cpu().numpy()),
    )
    nearest = np.arange(size) * len(true[0]) // size
    true_parts, true_depth = (pixels[nearest][:, nearest] for pixels in true)
    mesh = overlay(picture, posed.vertices[0], body.faces, cam_int[0], box[0][0], box[1][0])
    return [picture, true_parts, colour_parts(parts), true_depth, colour_depth(depth, parts > 0), mesh]


def _enlarge(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps.float(), size, mode="bilinear", align_corners=False)


def picture_block(image: np.ndarray, upper: np.ndarray, lower: np.ndarray, mesh: np.ndarray) -> np.ndarray:
    """Four pictures (S, S, 3) uint8 as in Figure 5 of the paper: image, two maps of half the size, mesh.

    Returns RGBA (S, 2.5 S and two gaps, 4) uint8 with transparent gaps.
    """
    side = image.shape[0] // 2 * 2
    gap = max(2, side // 64)
    half = (side - gap) // 2
    block = np.zeros((side, 2 * side + half + 2 * gap, 4), np.uint8)
    x = side + gap
    for picture, size, left, top in (
        (image, side, 0, 0),
        (upper, half, x, 0),
        (lower, half, x, side - half),
        (mesh, side, x + half + gap, 0),
    ):
        block[top : top + size, left : left + size, :3] = cv2.resize(
            picture, (size, size), interpolation=cv2.INTER_AREA
        )
        block[top : top + size, left : left + size, 3] = 255
    return block


def picture_grid(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str] | Sequence[Sequence[str]] = (),
    labels: Sequence[str] = (),
    side: float = 1.9,
) -> Figure:
    """Pictures (H, W, 3) or (H, W, 4) uint8 of one shape in rows and columns.

    Args:
        titles: of the columns, or rows of titles, one for each picture.
        labels: of the rows.
        side: width of a picture, inches.
    """
    import matplotlib.pyplot as plt

    columns = max(len(row) for row in rows)
    lines = [titles] if titles and isinstance(titles[0], str) else titles
    height, width = rows[0][0].shape[:2]
    size = (side * columns, side * height / width * len(rows) + 0.25 * len(lines))  # inches
    font = max(10, 1.1 * size[0])  # points: at least 11 pixels in a column of 720
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    figure.patch.set_alpha(0)
    for i, line in enumerate(axes):
        for j, axis in enumerate(line):
            axis.set_xticks([]), axis.set_yticks([])
            axis.set_frame_on(False)
            if j < len(rows[i]):
                axis.imshow(rows[i][j], interpolation="nearest")
            if i < len(lines) and j < len(lines[i]):
                axis.set_title(lines[i][j], color=INK, fontsize=font)
        if i < len(labels):
            line[0].set_ylabel(labels[i], color=INK, fontsize=font)
    figure.tight_layout(pad=0.3)
    return figure


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 8, gap: int = 2) -> np.ndarray:
    """Pictures (S, S, 3) uint8 of equal size side by side in one, in reading order."""
    side = pictures[0].shape[0]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap, 3), BACKGROUND, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (side + gap) * (i // columns), (side + gap) * (i % columns)
        sheet[y : y + side, x : x + side] = picture
    return sheet
