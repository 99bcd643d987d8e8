"""Running a network: its input, its device, and the fast copy that gives the same output."""

import contextlib
import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from on_device import OnDevice
from tiny_network import TINY
from torch import nn

import dpose
from dpose.config import ModelConfig, preset
from dpose.model.inference import FastDPose, fold_batch_norms, normalise, run_network, usable_device
from dpose.model.network import DPose


def test_normalised_images_are_imagenet_s_formula_in_any_memory_format():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4), np.uint8))
    found = normalise(image)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # torchvision's
    expected = (image.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    assert found.dtype == torch.float32 and image.dtype == torch.uint8
    np.testing.assert_allclose(found, expected, atol=1e-6)
    last = normalise(image.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last) and torch.equal(last, found)


def test_the_network_receives_the_box_s_angles_and_the_image_as_it_is():
    seen = []

    class Network(nn.Module):
        def forward(self, image, box):
            seen.extend([image, box])

    batch = {
        "image": torch.randn(2, 3, 8, 8),
        "center": torch.tensor([[300.0, 200.0], [100.0, 50.0]]),
        "scale": torch.tensor([1.5, 0.5]),
        "cam_int": torch.tensor([[[500.0, 0, 200], [0, 500, 300], [0, 0, 1]]]).repeat(2, 1, 1),
    }
    run_network(Network(), batch)
    assert torch.equal(seen[0], batch["image"]) and seen[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen[1], torch.tensor([[0.2, -0.2, 0.6], [-0.2, -0.5, 0.2]]))


def test_a_device_is_named_or_chosen_and_what_cannot_compute_is_refused_in_a_short_sentence():
    assert usable_device("cpu") == torch.device("cpu")
    assert usable_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    for device in ("meta", "toaster", "cuda:99", "xla", "", "x" * 10_000):
        with pytest.raises(ValueError, match=f"'{device[:40]}'.*'cpu'") as error:
            usable_device(device)
        assert len(str(error.value)) < 250


def random_network(config: ModelConfig) -> DPose:
    """Random weights, and batch norms that do something."""
    torch.manual_seed(0)
    model = DPose(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return model


def random_inputs(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, side, side, generator=generator), torch.randn(2, 3, generator=generator)


@pytest.fixture(scope="module", params=["mini", "mini-no-depth"])
def network(request) -> DPose:
    return random_network(preset(request.param))


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return random_inputs(128)


@pytest.fixture(scope="module", params=["fast", "without depth"])
def tiny(request) -> DPose | FastDPose:
    """Small networks are traced as large ones, in less time."""
    if request.param == "fast":
        return FastDPose(random_network(TINY), bf16=True)
    return random_network(replace(TINY, depth=False))


@pytest.fixture(scope="module")
def tiny_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return random_inputs(TINY.image_size)


def test_folded_in_float64_the_outputs_are_the_same_to_rounding(network, inputs):
    network, inputs = copy.deepcopy(network).double(), [x.double() for x in inputs]
    with torch.no_grad():
        expected = network(*inputs)
        found = fold_batch_norms(copy.deepcopy(network))(*inputs)
    for one, two in zip(found, expected, strict=True):
        if two is not None:  # parts and depth are float32 by design
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_in_32_bits_nothing_but_rounding_differs_and_the_model_given_is_left_alone(network, inputs):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network(*inputs)
    found = FastDPose(network, bf16=False)(*inputs)
    for one, two in zip(found, expected, strict=True):
        if two is not None:
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3 * two.abs().max().item())
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_in_bf16_outputs_are_float32_and_close(network, inputs):
    with torch.no_grad():
        expected = network(*inputs)
    found = FastDPose(network, bf16=True)(*inputs)
    # three times the differences that were measured
    bounds = {"rotmats": 0.15, "betas": 0.01, "cam": 0.015, "parts": 0.03, "depth": 0.005}
    for (name, bound), one, two in zip(bounds.items(), found, expected, strict=True):
        if two is not None:
            assert one.dtype == torch.float32
            assert (one - two).norm() < bound * two.norm(), name
    identity = found.rotmats @ found.rotmats.mT
    torch.testing.assert_close(identity, torch.eye(3).expand_as(identity), atol=1e-4, rtol=0)


def test_a_pretrained_backbone_stays_in_32_bits():
    model = dpose.load("lite")
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(3))
    fast = FastDPose(model, bf16=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = fast.model.encoder.backbone(image)
        adapted = fast.model.encoder(image)
    with torch.no_grad():
        expected = model.encoder.backbone(image)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)
    assert adapted.f1.dtype == torch.bfloat16


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_by_inductor_a_small_network_gives_the_same(tiny_inputs):
    """On inputs of the size used below: after two sizes, torch traces with symbolic ones, which is slow."""
    fast = FastDPose(random_network(replace(TINY, depth=False)), bf16=False)
    found = torch.compile(fast, fullgraph=True)(*tiny_inputs)
    for one, two in zip(found, fast(*tiny_inputs), strict=True):
        if two is not None:
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_it_refuses_to_be_trained(network):
    fast = FastDPose(network)
    assert not any(module.training for module in fast.modules())
    with pytest.raises(RuntimeError, match="inference"):
        fast.train()


def test_a_batch_norm_without_a_convolution_is_not_passed_over():
    with pytest.raises(ValueError, match="1"):
        fold_batch_norms(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)).eval())


def test_compile_takes_the_network_as_one_graph(tiny, tiny_inputs):
    """No graph break: nothing reads a tensor's value back. The backend "eager" only traces."""
    compiled = torch.compile(tiny, fullgraph=True, backend="eager")
    with torch.no_grad():
        for one, two in zip(compiled(*tiny_inputs), tiny(*tiny_inputs), strict=True):
            if two is not None:
                torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("part_order", ["joints", "released"])
def test_a_forward_pass_never_waits_for_the_device(monkeypatch, part_order, fast):
    """On the meta device, whose tensors have no values: a read, or a constant from the host, raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # has no meta device
    model = DPose(replace(preset("mini"), part_order=part_order)).eval()
    model = (FastDPose(model, bf16=False) if fast else model).to("meta")
    inputs = torch.empty(2, 3, 128, 128, device="meta"), torch.empty(2, 3, device="meta")
    with torch.no_grad(), OnDevice(inputs, list(model.parameters()), list(model.buffers())):
        assert model(*inputs).depth.shape == (2, 1, 64, 64)


def test_export_takes_the_network_for_any_batch(tiny, tiny_inputs):
    batch = torch.export.Dim("batch", min=1, max=256)
    with torch.no_grad():
        program = torch.export.export(tiny, tiny_inputs, dynamic_shapes=({0: batch}, {0: batch}))
        three = [torch.cat([x, x[:1]]) for x in tiny_inputs]
        found, expected = program.module()(*three), tiny(*three)
    for one, two in zip(found, expected, strict=True):
        if two is not None:
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
