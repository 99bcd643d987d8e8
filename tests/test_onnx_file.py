"""The ONNX file of a network gives what the network gives, in another program."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_network import TINY
from torch import nn

import dpose
from dpose.cli import main
from dpose.model.network import DPose
from dpose.model.onnx_file import export_onnx

CONFIGS = {
    "depth": replace(TINY, map_size=32, part_order="released"),
    "uniform attention, no depth, NanoDet": replace(TINY, attention=False, depth=False, encoder="nanodet"),
    "pare": replace(TINY, depth=False, head="pare"),
    "hmr": replace(TINY, depth=False, head="hmr"),
}  # MoveNet is in "lite"; CLIFF's head is HMR's with the box beside the features
OUTPUTS = ("rotmats", "betas", "cam", "parts", "depth")


def network(config) -> DPose:
    """Random weights, and batch norms that do something."""
    torch.manual_seed(0)
    model = DPose(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.1)
    return model


def assert_equal_outputs(path, model: DPose) -> dict[str, str]:
    """Compares onnxruntime's outputs with torch's for batches of one and five; the file's metadata."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng, size = np.random.default_rng(0), model.config.image_size
    for count in (1, 5):
        pixels = rng.integers(0, 256, (count, 3, size, size), np.uint8)
        box = rng.normal(size=(count, 3)).astype(np.float32)
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # torchvision's
        image = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad():
            expected = model(torch.from_numpy(image).float(), torch.from_numpy(box))
        expected = {name: value for name, value in expected._asdict().items() if value is not None}
        names = [output.name for output in session.get_outputs()]
        assert names == [name for name in OUTPUTS if name in expected]
        found = session.run(names, {"image": pixels, "bbox_info": box})
        for name, value in zip(names, found, strict=True):
            reference = expected[name].numpy()
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5 * np.abs(reference).max())
    return session.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("kind", CONFIGS)
def test_in_onnxruntime_every_output_is_torch_s_for_any_batch(kind, tmp_path):
    pytest.importorskip("onnxscript")
    model = network(CONFIGS[kind]).train()
    path = export_onnx(model, tmp_path / "new" / "network.onnx")
    assert model.training and list(path.parent.iterdir()) == [path]
    metadata = assert_equal_outputs(path, model.eval())
    assert json.loads(metadata["config"]) == CONFIGS[kind].to_dict()


def test_the_command_converts_the_shipped_network_and_says_of_which_body_it_is(tmp_path, capsys):
    pytest.importorskip("onnxscript")
    path = tmp_path / "network.onnx"
    assert main(["convert", "lite", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    metadata = {
        name: json.loads(value) for name, value in assert_equal_outputs(path, dpose.load("lite")).items()
    }
    assert metadata["body"] == dpose.load("lite").body_record and metadata["body"]["name"] == "open"
    assert metadata["inputs"].keys() == {"image", "bbox_info"} and "uint8 RGB" in metadata["inputs"]["image"]
    assert tuple(metadata["outputs"]) == OUTPUTS
    assert main(["convert", "lite", str(path)]) == 2
    assert "exists" in capsys.readouterr().err


def test_without_the_packages_the_error_names_them_and_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["convert", "mini", str(tmp_path / "network.onnx")]) == 2
    printed = capsys.readouterr().err
    assert "pip install onnx onnxscript" in printed and printed.count("\n") == 1
    assert not list(tmp_path.iterdir())
