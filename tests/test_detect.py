"""Finding people: boxes of constructed outputs, public photographs, rendered people, and other detectors."""

import sys

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from dpose.detect import NanoDetector, OnnxDetector, boxes_from_corners, letterbox
from dpose.model.csp import NUM_BINS


@pytest.fixture(scope="module")
def detector():
    return NanoDetector()


def overlap(one, two) -> float:
    """Intersection over union of boxes x, y, width, height."""
    sides = [max(0, min(one[i] + one[i + 2], two[i] + two[i + 2]) - max(one[i], two[i])) for i in (0, 1)]
    both = sides[0] * sides[1]
    return both / (one[2] * one[3] + two[2] * two[3] - both)


@pytest.mark.parametrize(
    ("name", "box"),
    [("astronaut", (20, 0, 350, 512)), ("camera", (5, 60, 320, 450))],  # read off the pictures
)
def test_the_person_in_a_public_photograph_is_found(name, box, detector):
    picture = getattr(skimage.data, name)()
    found = detector(picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2))
    assert found.shape == (1, 5) and found[0, 4] > 0.5 and overlap(found[0, :4], box) > 0.8


@pytest.mark.parametrize("name", ["coffee", "cat", "rocket"])
def test_nobody_is_found_where_nobody_is(name, detector):
    assert detector(getattr(skimage.data, name)()).shape == (0, 5)


def test_a_picture_s_shape_and_size_move_the_box_along(detector):
    picture = skimage.data.astronaut()
    (found,) = detector(picture)
    wide = np.full((600, 1400, 3), 128, np.uint8)
    wide[50:562, 700:1212] = picture
    (moved,) = detector(wide)
    assert overlap(moved[:4], found[:4] + [700, 50, 0, 0]) > 0.85
    (larger,) = detector(cv2.resize(picture, None, fx=3, fy=3))
    assert overlap(larger[:4], found[:4] * 3) > 0.9


def test_boxes_are_the_expected_bins_around_the_cell_in_the_picture_s_pixels(detector, monkeypatch):
    """One cell of the grid of stride 16 says: left 2, above 3, right 1, below 4.5 cells."""
    outputs = []
    for stride in (8, 16, 32):
        cells = (416 // stride) ** 2
        outputs.append((torch.zeros(1, cells, 80), torch.zeros(1, cells, 4 * NUM_BINS)))
    row, column = 8, 7
    scores, bins = outputs[1]
    cell = row * 26 + column
    scores[0, cell, 0] = 0.8
    bins = bins.view(1, -1, 4, NUM_BINS)
    bins -= 100
    for side, distance in enumerate((2, 3, 1, 4.5)):
        below = int(distance)
        bins[0, cell, side, below : below + (2 if distance % 1 else 1)] = 0
    scores[0, 5, 2] = 0.99  # a car
    monkeypatch.setattr(detector, "model", lambda image: outputs)
    found = detector(np.zeros((300, 832, 3), np.uint8))  # shrunk to one half
    x, y = (column + 0.5) * 16, (row + 0.5) * 16
    expected = [2 * (x - 32), 2 * (y - 48), 2 * 48, 300 - 2 * (y - 48), 0.8]  # ends below the picture
    np.testing.assert_allclose(found, [expected], atol=1e-3)


def test_the_better_of_two_boxes_of_one_person_stays():
    corners = torch.tensor([[0.0, 0, 100, 200], [5, 5, 105, 205], [150, 0, 250, 200]])
    found = boxes_from_corners(corners, torch.tensor([0.6, 0.7, 0.5]), (400, 400))
    np.testing.assert_allclose(found, [[5, 5, 100, 200, 0.7], [150, 0, 100, 200, 0.5]], rtol=1e-6)
    assert boxes_from_corners(corners[:0], torch.zeros(0), (9, 9)).shape == (0, 5)


@pytest.mark.parametrize(
    ("other", "stays"),
    [
        ((20, 0, 90, 100), False),  # head and trunk of the same person
        ((-5, 10, 95, 90), False),  # a little beyond the side
        ((30, 100, 75, 200), True),  # a child in front
        ((60, 0, 120, 100), True),  # somebody behind, half of it beside
        ((40, 20, 90, 120), True),  # a child in the arms
    ],
)
def test_half_of_a_person_is_no_second_person(other, stays):
    corners = torch.tensor([[0.0, 0, 100, 200], other]) + 50
    found = boxes_from_corners(corners, torch.tensor([0.6, 0.4]), (400, 400))
    assert len(found) == 1 + stays
    found = boxes_from_corners(corners, torch.tensor([0.4, 0.6]), (400, 400))
    assert len(found) == 2  # a whole person with a smaller score stays


def test_boxes_are_dropped_by_counted_pixels():
    """The rules, best box first, with the boxes as masks of pixels."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        low = rng.integers(0, 30, (12, 2))
        corners = np.concatenate([low, low + rng.integers(4, 40, (12, 2))], 1)
        scores = rng.uniform(0.3, 1, 12)
        masks = np.zeros((12, 80, 80), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
            mask[y1:y2, x1:x2] = True
        overlapping: list[int] = []
        for i in np.argsort(-scores):
            if all((masks[i] & masks[j]).sum() <= 0.6 * (masks[i] | masks[j]).sum() for j in overlapping):
                overlapping.append(i)
        expected: list[int] = []
        for i in overlapping:
            better = [j for j in expected if (masks[i] & masks[j]).sum() > 0.9 * masks[i].sum()]
            rows, columns = ([np.flatnonzero(mask.any(axis)) for mask in masks] for axis in (1, 0))
            halves = [
                len(rows[j]) * 0.75 + rows[j][0] > rows[i][-1] + 1 and len(columns[i]) > 0.6 * len(columns[j])
                for j in better
            ]
            if not any(halves):
                expected.append(i)
        found = boxes_from_corners(torch.from_numpy(corners), torch.from_numpy(scores), (80, 80))
        np.testing.assert_allclose(found[:, 4], scores[expected], rtol=1e-6)


def test_a_letterbox_keeps_the_aspect_and_tells_the_scale():
    square, scale = letterbox(np.full((100, 400, 3), 255, np.uint8), 200)
    assert square.shape == (200, 200, 3) and scale == 0.5
    assert (square[:50] == 255).all() and (square[50:] == 114).all()


def test_a_detector_from_an_onnx_file_is_asked_and_read_as_documented(monkeypatch, tmp_path):
    """A stand-in for onnxruntime: the file's network finds a person and a dog in the shrunk square."""
    seen = {}

    class Session:
        def __init__(self, path, providers):
            seen["path"] = path

        def get_inputs(self):
            return [type("Input", (), {"name": "images", "shape": [1, 3, 320, 320]})]

        def run(self, names, inputs):
            seen.update(inputs)
            rows = [[10, 20, 110, 220, 0.9, 0], [0, 0, 50, 50, 0.9, 16], [0, 0, 300, 300, 0.1, 0]]
            return [np.array([rows], np.float32)]

    monkeypatch.setitem(sys.modules, "onnxruntime", type("Module", (), {"InferenceSession": Session}))
    (tmp_path / "a.onnx").touch()
    picture = np.full((640, 320, 3), 51, np.uint8)
    found = OnnxDetector(tmp_path / "a.onnx")(picture)
    np.testing.assert_allclose(found, [[20, 40, 200, 400, 0.9]], rtol=1e-6)
    assert seen["images"].shape == (1, 3, 320, 320) and seen["images"][0, 0, 0, 0] == pytest.approx(0.2)


def test_a_missing_package_file_or_another_format_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        OnnxDetector(tmp_path / "a.onnx")


def test_the_network_is_not_trained_by_using_it(detector):
    assert not any(parameter.requires_grad for parameter in detector.model.parameters())
    assert not detector.model.training
