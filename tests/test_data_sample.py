"""Cuts: a dot drawn at a known place is found where the geometry says, to a fraction of a pixel."""

import numpy as np
import pytest
import torch
from data_people import CAM_INT, random_label

from dpose import camera
from dpose.data.sample import (
    crop_matrix,
    make_label,
    relative_matrix,
    sample_from_frame,
    warp_image,
    warp_nearest,
)
from dpose.data.shards import decode_depth, encode_depth


def dot(center, sigma: float, shape=(360, 640)) -> np.ndarray:
    """An image with a smooth dot at `center` (x, y), continuous pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    value = 250 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * sigma**2))
    return np.rint(value).astype(np.uint8)[..., None].repeat(3, -1)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("side", [50.3, 128.0, 200.7, 333.3, 900.1])
def test_a_dot_lands_where_the_crop_matrix_says(side):
    center, place, size = np.array([300.37, 170.81]), np.array([309.2, 163.4]), 128
    image = dot(place, sigma=max(2.0, side / 40))
    matrix = crop_matrix(center, side / 200, size)
    expected = matrix[:, :2] @ place + matrix[:, 2]
    found = centroid(warp_image(image, matrix, size))
    assert np.abs(found - expected).max() < 0.05


def test_the_crop_matrix_is_the_cameras():
    center, scale = (300.37, 170.81), 0.73
    ours = crop_matrix(center, scale, 224)
    theirs = camera.crop_affine(torch.tensor(center), torch.tensor(scale), 224)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)


def test_a_cut_of_a_cut_is_the_cut_of_the_frame():
    label = random_label(np.random.default_rng(0))
    center, scale = (105.1, 99.9), 0.41
    inner = np.vstack([crop_matrix(label["center"], label["scale"], 160, label["margin"]), [0, 0, 1]])
    both = relative_matrix(label, 160, center, scale, 128) @ inner
    np.testing.assert_allclose(both, crop_matrix(center, scale, 128), atol=1e-9)


def test_the_unjittered_cut_is_the_stored_pixels_themselves():
    label = random_label(np.random.default_rng(0))
    image = np.random.default_rng(1).integers(0, 256, (160, 160, 3), np.uint8)
    matrix = relative_matrix(label, 160, label["center"], label["scale"], 128)
    assert (warp_image(image, matrix, 128) == image[16:144, 16:144]).all()


def test_shrinking_averages_instead_of_picking_pixels():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 200
    cut = warp_image(stripes, crop_matrix((200.3, 200.1), 390 / 200, 50), 50)[5:-5, 5:-5]
    assert abs(cut.mean() - 100) < 3 and cut.std() < 12


def test_nearest_cuts_never_mix_values_and_leave_zero_outside():
    depth = np.zeros((60, 80), np.float32)
    depth[20:40, 30:50] = 3.7
    cut = warp_nearest(depth, crop_matrix((5.5, 5.5), 0.5, 33), 33)
    assert set(np.unique(cut)) <= {np.float32(0), np.float32(3.7)}
    # full-image px (x, y) = 100 / 33 * (j + 0.5) - 44.5
    x = 100 / 33 * (np.arange(33) + 0.5) - 44.5
    inside = ((x >= 30) & (x < 50))[None] & ((x >= 20) & (x < 40))[:, None]
    assert ((cut > 0) == inside).all() and inside.any()


def test_a_pixel_of_sky_on_the_mask_does_not_coarsen_the_stored_depth():
    """In 16 bits from 3 m to 100 km every step would be 1.5 m."""
    rng = np.random.default_rng(0)
    label = random_label(rng, img_size=(64, 64), center=(32, 32), scale=0.32, margin=1.0)
    depth = rng.uniform(3, 3.5, (64, 64)).astype(np.float32)
    mask = np.zeros((64, 64), bool)
    mask[10:50, 20:40] = True
    depth[10, 20:23], clean = (1e5, np.inf, 3.4e38), depth.copy()
    stored = sample_from_frame(np.zeros((64, 64, 3), np.uint8), depth, mask, label, 64)["depth"]
    again = decode_depth(*encode_depth(stored))
    mask[10, 20:23] = False
    assert ((again > 0) == mask).all()
    assert np.abs(again - clean)[mask].max() < 1e-5


def test_a_sample_keeps_only_this_persons_depth_and_reaches_outside_the_frame():
    image = np.full((180, 320, 3), 77, np.uint8)
    depth = np.full((180, 320), 5.0, np.float32)
    depth[80:90, 0:10] = 2.0
    depth[85, 5] = np.inf
    mask = np.zeros((180, 320), bool)
    mask[80:90, 0:10] = True
    label = random_label(np.random.default_rng(0), center=(0.0, 85.0), scale=0.2)
    sample = sample_from_frame(image, depth, mask, label, 50)
    assert set(np.unique(sample["depth"])) == {np.float32(0), np.float32(2)}
    assert sample["depth"][25, 25] == 2 and sample["label"]["has_depth"]
    assert (sample["image"][:, :24] == 0).all() and (sample["image"][:, 26:] == 77).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pose": np.full(66, np.nan)}, "'pose' holds"),
        ({"trans": (1, 2)}, r"'trans' has shape \(2,\)"),
        ({"scale": 0.0}, "'scale' is 0.0"),
        ({"key": "a.b"}, "without '.' and '/'"),
    ],
)
def test_a_malformed_label_is_refused(change, message):
    values = {"key": "k", "pose": np.zeros(66), "betas": np.zeros(10), "trans": np.zeros(3), "scale": 1.0}
    values |= {"joints2d": np.zeros((24, 3)), "center": (1, 2), "img_size": (4, 3), "cam_int": CAM_INT}
    with pytest.raises(ValueError, match=message):
        make_label(**values | change)
