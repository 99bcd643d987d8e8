"""The pretrained backbone and detector against outputs of the original graph (TensorFlow.js, CPU)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dpose.model.csp import CSP_CHANNELS, CSPNet, NanoDet
from dpose.model.encoder import BACKBONES

REFERENCE = Path(__file__).parent / "data" / "nanodet_reference.npz"
SIDE = 416


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """The input of the reference run: the graph takes BGR, ours RGB."""
    i = np.arange(3 * SIDE * SIDE)
    pattern = 2 * np.sin(0.37 * (i % 997) + 0.0113 * (i // 997))
    return torch.from_numpy(pattern.astype(np.float32).reshape(1, 3, SIDE, SIDE)).flip(1)


def check(name: str, output: torch.Tensor) -> None:
    reference = np.load(REFERENCE)
    found = output.numpy().ravel()[reference[f"{name}_at"]]
    np.testing.assert_allclose(found, reference[name], atol=2e-5)


def test_the_four_levels_are_those_of_the_original_graph(image):
    network = CSPNet()
    network.load_state_dict(BACKBONES["nanodet"].weights())
    with torch.no_grad():
        levels = network(image)
    assert [tuple(x.shape[1:]) for x in levels] == [
        (c, 104 >> i, 104 >> i) for i, c in enumerate(CSP_CHANNELS)
    ]
    for i, level in enumerate(levels):
        check(f"level{i}", level)


def test_scores_and_boxes_are_those_of_the_original_graph(image):
    detector = NanoDet()
    detector.load_state_dict(BACKBONES["nanodet"]._replace(prefix="").weights())
    with torch.no_grad():
        outputs = detector(image)
    for i, (scores, bins) in enumerate(outputs):
        check(f"scores{i}", scores)
        check(f"bins{i}", bins)
