"""The backbone MoveNet against outputs of the original graph (TensorFlow.js), and networks built on it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dpose.config import LITE, ModelConfig
from dpose.model.checkpoint import load, save
from dpose.model.encoder import BACKBONES
from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD, FastDPose
from dpose.model.movenet import HEATMAP_SCALE, MOVENET_CHANNELS, MoveNet
from dpose.model.network import DPose

REFERENCE = Path(__file__).parent / "data" / "movenet_reference.npz"
SIDE = 192


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """The input of the reference run: bytes there, ImageNet-normalised here."""
    i = np.arange(3 * SIDE * SIDE)
    pattern = np.floor(127.5 + 127 * np.sin(0.37 * (i % 997) + 0.0113 * (i // 997)))
    pixels = torch.from_numpy(pattern.astype(np.float32).reshape(1, SIDE, SIDE, 3)).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels / 255 - mean) / std


def test_the_levels_are_those_of_the_original_graph(image):
    network = MoveNet()
    network.load_state_dict(BACKBONES["movenet"].weights())
    with torch.no_grad():
        levels = network(image)
    assert [tuple(x.shape[1:]) for x in levels] == [
        (c, 48 >> i, 48 >> i) for i, c in enumerate(MOVENET_CHANNELS)
    ]
    found = {
        "c4": levels[0][0, :24],
        "p4": levels[0][0, 24:48],
        "heatmaps": levels[0][0, 48:] / HEATMAP_SCALE,
        "p16": levels[2][0, 96:],
        "c32": levels[3][0],
    }
    reference = np.load(REFERENCE)
    for name, output in found.items():
        np.testing.assert_allclose(
            output.numpy().ravel()[reference[f"{name}_at"]], reference[name], atol=1e-3, err_msg=name
        )


@pytest.mark.parametrize("encoder", ["movenet", "nanodet"])
def test_a_network_on_a_pretrained_backbone_has_the_maps_of_hrnet(encoder):
    config = ModelConfig.from_dict(LITE.to_dict() | {"encoder": encoder, "image_size": 64, "map_size": 32})
    model = DPose(config).eval()
    model.encoder.load_pretrained()
    image, box = torch.randn(2, 3, 64, 64), torch.randn(2, 3)
    with torch.no_grad():
        maps = model.encoder(image)
        prediction, fast = model(image, box), FastDPose(model, bf16=False)(image, box)
    assert [tuple(x.shape[1:]) for x in maps] == [
        *((16 * 2**i, 16 >> i, 16 >> i) for i in range(4)),
        (15 * 16, 16, 16),
    ]
    assert prediction.parts.shape == (2, 23, 32, 32)
    for one, two in zip(prediction, fast, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_an_unknown_encoder_is_refused_and_old_configurations_mean_hrnet():
    values = LITE.to_dict()
    with pytest.raises(ValueError, match="resnet"):
        ModelConfig.from_dict(values | {"encoder": "resnet"})
    del values["encoder"]
    assert ModelConfig.from_dict(values).encoder == "hrnet"


def test_a_network_on_a_backbone_survives_its_checkpoint(tmp_path, image):
    model = DPose(ModelConfig.from_dict(LITE.to_dict() | {"image_size": 64, "map_size": 32})).eval()
    save(model, tmp_path / "model.safetensors")
    loaded, box = load(tmp_path / "model.safetensors"), torch.zeros(1, 3)
    with torch.no_grad():
        for one, two in zip(model(image[..., :64, :64], box), loaded(image[..., :64, :64], box), strict=True):
            assert torch.equal(one, two)
