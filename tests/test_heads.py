"""The heads of other methods: their sizes, what they look at, and that everything else takes them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_network import TINY

from dpose.body import load_body
from dpose.config import PAPER, PRESETS, ModelConfig, preset
from dpose.data.loader import make_loader
from dpose.evaluate import evaluate, format_table
from dpose.export import KINDS
from dpose.model import checkpoint
from dpose.model.inference import FastDPose, to_device
from dpose.model.network import DPose, parameter_table
from dpose.predictor import predict
from dpose.rotations import sixd_to_rotmat
from dpose.training import TrainConfig
from dpose.training.step import Training

OTHERS = ("pare", "cliff", "hmr")


def tiny(head: str) -> ModelConfig:
    return replace(TINY, head=head, depth=False)


def network(head: str) -> DPose:
    torch.manual_seed(0)
    return DPose(tiny(head)).eval()


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 64, 64, generator=generator), torch.randn(batch, 3, generator=generator)


def parameters(config: ModelConfig) -> dict[str, int]:
    with torch.device("meta"):
        return {row.module: row.parameters for row in parameter_table(DPose(config))}


# --- sizes


def test_pare_on_the_hrnet_of_its_paper_has_the_published_32_9_million_parameters():
    published = replace(PRESETS["paper-pare"], width=32, num_betas=10)
    assert round(parameters(published)["total"] / 1e6, 1) == 32.9


def regressor_of_hmr(features: int, pose: int, betas: int) -> int:
    """Two layers of 1024 units and three outputs, by hand."""
    estimate = pose + betas + 3
    return (features + estimate + 1) * 1024 + 1025 * 1024 + 1025 * estimate


def test_hmr_s_regressor_has_the_published_size():
    # SPIN's HMR: ResNet-50 without its classifier, 24 rotations, 10 betas: 27.0 million
    assert round((23_508_032 + regressor_of_hmr(2048, 144, 10)) / 1e6, 1) == 27.0
    down = sum(
        rounds * (9 * c * c + 2 * c) for c, rounds in ((48, 3), (96, 2), (192, 1))
    )  # strided convolutions
    for head, box in (("hmr", 0), ("cliff", 3)):
        found = parameters(PRESETS[f"paper-{head}"])
        assert found["regressor"] == regressor_of_hmr(720 + box, 132, 11) + down
        up = sum(rounds * (9 * c * c + 2 * c) for c, rounds in ((96, 1), (192, 2), (384, 3)))
        assert found["encoder"] == parameters(PAPER)["encoder"] - up  # no up-sampling to F_up


def test_every_row_of_table_1_on_hrnet_has_a_preset_in_both_sizes():
    for size in ("paper", "lite"):
        for name in ("hmr", "cliff", "pare", "no-depth"):
            assert preset(f"{size}-{name}").encoder == preset(size).encoder
            assert preset(f"{size}-{name}").image_size == preset(size).image_size


# --- what a head looks at


@pytest.mark.parametrize("head", OTHERS)
def test_only_cliff_sees_the_box(head):
    model = network(head)
    image, box = inputs()
    with torch.no_grad():
        one, two = model(image, box), model(image, box + 1)
    assert torch.equal(one.rotmats, two.rotmats) == (head != "cliff")


@pytest.mark.parametrize("head", ["cliff", "hmr"])
def test_the_iterative_regressor_is_three_corrections_of_the_mean(head):
    model = network(head)
    image, box = inputs()
    with torch.no_grad():
        found = model(image, box)
        maps = model.encoder(image)
        layers = model.regressor
        pooled = [layers.down[i](x).mean((2, 3)) for i, x in enumerate(maps[:4])]
        feature = torch.cat([*pooled, *([box] if head == "cliff" else [])], 1)
        estimate = torch.cat([layers.init_pose, layers.init_shape, layers.init_cam]).repeat(2, 1)
        for _ in range(3):
            hidden = layers.hidden_2(layers.hidden_1(torch.cat([feature, estimate], 1)))
            estimate = estimate + torch.cat(
                [layers.pose_out(hidden), layers.shape_out(hidden), layers.cam_out(hidden)], 1
            )
    torch.testing.assert_close(found.rotmats, sixd_to_rotmat(estimate[:, :132].view(2, 22, 6)))
    torch.testing.assert_close(found.betas, estimate[:, 132:-3])
    torch.testing.assert_close(found.cam, estimate[:, -3:])
    assert found.parts is None and found.depth is None


def test_pare_regresses_each_joint_from_the_features_under_its_part():
    model = network("pare")
    image, box = inputs()
    with torch.no_grad():
        found, features = model(image, box, return_features=True)
        logits, _ = model.parts_decoder(model.encoder(image))
        body = model.regressor.body(features.f_up)
        pose = model.regressor.init_pose.view(22, 6).repeat(2, 1, 1)
        for sample in range(2):
            for joint in range(22):
                weight = logits[sample, joint + 1].flatten().softmax(0)
                average = (body[sample].flatten(1) * weight).sum(1)
                layer = model.regressor.pose_out
                pose[sample, joint] += layer.weight[joint] @ average + layer.bias[joint]
    torch.testing.assert_close(found.rotmats, sixd_to_rotmat(pose), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features.attention.sum((2, 3)), torch.ones(2, 22))


def test_without_attention_every_joint_gets_the_average_over_the_map():
    torch.manual_seed(0)
    model = DPose(replace(TINY, attention=False)).eval()
    with torch.no_grad():
        _, features = model(*inputs(), return_features=True)
    expected = model.attention.conv_pose(features.f_up.mean((2, 3))[..., None].expand(-1, -1, 22))
    torch.testing.assert_close(features.attended, expected)


# --- everything else takes them


@pytest.mark.parametrize("head", OTHERS)
def test_the_fast_copy_and_the_file_give_the_same_prediction(head, tmp_path):
    model = network(head)
    loaded = checkpoint.load(checkpoint.save(model, tmp_path / "x.safetensors"))
    assert loaded.config == model.config
    expected = model(*inputs())
    for other in (loaded(*inputs()), FastDPose(model, bf16=False)(*inputs())):
        for one, two in zip(expected, other, strict=True):
            if one is None:
                assert two is None
            else:
                torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["lite-pare", "lite-cliff", "lite-hmr", "lite-no-attention"])
def test_a_training_step_reaches_every_trained_parameter(name, people, tmp_path):
    config = TrainConfig(
        preset=name, data=people, out=tmp_path, batch_size=2, workers=0, accelerator="cpu", progress=False
    ).resolve()
    step = Training(DPose(preset(name)), load_body(vertex_stride=64), config)
    loader = make_loader(people, "train", preset(name), 2, train=True, workers=0)
    step.training_step(to_device(next(iter(loader)), "cpu"), 0).backward()
    assert [n for n, p in step.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("head", OTHERS)
def test_a_network_is_measured_and_used_without_the_maps_that_it_does_not_have(head, people, tmp_path):
    model = network(head)
    path = checkpoint.save(model, tmp_path / "x.safetensors", {"body": load_body().record})
    result = evaluate(path, people, workers=0, device="cpu", progress=False)
    assert ("parts_miou" in result["metrics"]) == (head == "pare")
    assert "depth_l1" not in result["metrics"] and "MPJPE" in format_table(result)
    picture = np.full((80, 60, 3), 90, np.uint8)
    (person,) = predict(picture, (10, 10, 40, 60), path)
    assert person.depth is None and np.isfinite(person.vertices).all()
    files = {path.name for path in person.save(tmp_path / "out", picture, save=KINDS)}
    assert ("person-1-parts.png" in files) == (head == "pare") and "person-1-depth.png" not in files


@pytest.mark.parametrize(
    "wrong",
    [{"head": "vit"}, {"head": "hmr", "depth": True}, {"attention": 1}, {"head": "pare", "attention": False}],
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ModelConfig.from_dict(TINY.to_dict() | {"depth": False} | wrong)
