"""The network: parameter counts, wiring against independent formulas, initialisation."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from dpose.config import MINI, MINI_NO_DEPTH, PAPER, PAPER_NO_DEPTH, PRESETS, ModelConfig, preset
from dpose.model.attention import SoftAttention
from dpose.model.decoder import UpScale
from dpose.model.hrnet import BasicBlock, HRModule
from dpose.model.network import DPose, parameter_table
from dpose.model.regressor import MultiLinear, Regressor
from dpose.rotations import rotmat_to_sixd, sixd_to_rotmat

SMALLEST = {"bottlenecks": 1, "bottleneck_width": 4, "modules": (1, 1, 1), "blocks": 1, "decoder_blocks": 1}
TINY = ModelConfig(
    name="tiny", image_size=64, map_size=32, width=4, stem_width=8, hidden=8, part_order="joints", **SMALLEST
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tiny(config=TINY, seed=0):
    torch.manual_seed(seed)
    return DPose(config).eval()


def inputs(batch=2, config=TINY, seed=1):
    generator = torch.Generator().manual_seed(seed)
    side = config.image_size
    return torch.randn(batch, 3, side, side, generator=generator), torch.randn(batch, 3, generator=generator)


def meta(config):
    with torch.device("meta"):
        return DPose(config)


def test_every_part_of_the_paper_preset_has_the_released_number_of_parameters():
    assert [tuple(row) for row in parameter_table(meta(PAPER))] == [
        ("encoder", 70_057_368, 87_671),
        ("depth decoder", 4_182_049, 7_041),
        ("part decoder", 4_183_127, 7_041),
        ("soft attention", 1_038_240, 0),
        ("regressor", 1_638_610, 146),
        ("total", 81_099_394, 101_899),
    ]


def test_frozen_layers_are_counted_too():
    model = meta(MINI)
    before = parameter_table(model)
    model.encoder.final_layer.requires_grad_(False)

    assert parameter_table(model) == before


def test_without_depth_only_the_decoder_and_its_48_features_per_joint_are_gone():
    with_depth, without = (
        {row.module: row.parameters for row in parameter_table(meta(c))} for c in (PAPER, PAPER_NO_DEPTH)
    )
    first_layers = 32 * (22 + 22 + 22) * 48  # pose: 22 heads; shape and camera: 22 joints flattened

    assert "depth decoder" not in without
    assert without["regressor"] == with_depth["regressor"] - first_layers
    assert without["total"] == with_depth["total"] - 4_182_049 - first_layers
    assert all(without[name] == with_depth[name] for name in without if name not in ("regressor", "total"))


@pytest.mark.parametrize("config", [PAPER, MINI, PAPER_NO_DEPTH, MINI_NO_DEPTH, TINY], ids=lambda c: c.name)
def test_the_total_of_the_table_is_the_whole_model(config):
    model = meta(config)
    total = parameter_table(model)[-1]

    assert total.parameters == sum(p.numel() for p in model.parameters())
    assert total.parameters + total.buffers == sum(t.numel() for t in model.state_dict().values())


def test_the_layers_of_the_encoder_have_the_names_and_shapes_of_the_public_hrnet():
    shapes = {name: tuple(p.shape) for name, p in meta(PAPER).encoder.state_dict().items()}

    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["transition1.1.0.0.weight"] == (96, 256, 3, 3)
    assert shapes["transition3.3.0.0.weight"] == (384, 192, 3, 3)
    assert shapes["stage4.2.fuse_layers.3.0.2.0.weight"] == (384, 48, 3, 3)
    assert shapes["stage4.2.fuse_layers.0.3.0.weight"] == (48, 384, 1, 1)
    assert shapes["final_layer.weight"] == (24, 48, 1, 1)
    assert shapes["upsample_stage_4.9.weight"] == (384, 384, 3, 3)


@pytest.mark.parametrize("config", [MINI, MINI_NO_DEPTH], ids=lambda c: c.name)
def test_every_map_has_the_documented_shape(config):
    w, s, m = config.width, config.feature_size, config.map_size
    with torch.no_grad():
        prediction, features = DPose(config).eval()(*inputs(2, config), return_features=True)

    assert [tuple(x.shape) for x in prediction[:4]] == [(2, 22, 3, 3), (2, 11), (2, 3), (2, 23, m, m)]
    assert [tuple(x.shape) for x in features[:5]] == [
        *((2, w * 2**i, s // 2**i, s // 2**i) for i in range(4)),
        (2, 15 * w, s, s),
    ]
    assert features.attention.shape == (2, 22, s, s) and features.attended.shape == (2, 15 * w, 22)
    if config.depth:
        assert prediction.depth.shape == (2, 1, m, m) and features.depth_features.shape == (2, w, s, s)
        assert 0 <= prediction.depth.min() and prediction.depth.max() <= 1
    else:
        assert prediction.depth is None and features.depth_features is None


def test_paper_runs_at_224_with_maps_at_224():
    with torch.no_grad():
        prediction, features = DPose(PAPER).eval()(*inputs(1, PAPER), return_features=True)

    assert prediction.parts.shape == (1, 23, 224, 224) and prediction.depth.shape == (1, 1, 224, 224)
    assert features.f_up.shape == (1, 720, 56, 56) and features.f4.shape == (1, 384, 7, 7)
    assert all(x.isfinite().all() for x in prediction)


def test_multilinear_is_one_linear_layer_per_head():
    multi, x = MultiLinear(22, 7, 5), torch.randn(3, 22, 7)

    expected = [F.linear(x[:, k], multi.weight[k], multi.bias[k]) for k in range(22)]

    assert torch.allclose(multi(x), torch.stack(expected, 1), atol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_rotations_survive_the_6d_representation(count):
    """Three at once, too: otherwise a cross product along the wrong axis might go unnoticed."""
    matrices = torch.tensor(Rotation.random(count, random_state=0).as_matrix())

    assert torch.allclose(sixd_to_rotmat(rotmat_to_sixd(matrices)), matrices)


def test_any_six_numbers_become_the_rotation_of_the_qr_decomposition():
    sixd = np.random.default_rng(0).normal(size=(40, 6))
    expected = []
    for columns in sixd.reshape(40, 3, 2):
        q, r = np.linalg.qr(columns)
        q = q * np.sign(np.diag(r))
        expected.append(np.column_stack([q, np.cross(q[:, 0], q[:, 1])]))

    assert np.allclose(sixd_to_rotmat(torch.tensor(sixd)), expected)


def test_degenerate_six_numbers_give_finite_matrices_and_gradients():
    sixd = torch.tensor([[0.0] * 6, [1.0, 1, 0, 0, 0, 0]], requires_grad=True)
    matrices = sixd_to_rotmat(sixd)
    matrices.sum().backward()

    assert matrices.isfinite().all() and sixd.grad.isfinite().all()


def test_attention_returns_the_features_at_the_place_of_the_part():
    attention = SoftAttention(MINI)
    torch.nn.init.dirac_(attention.conv_pose.weight)
    torch.nn.init.zeros_(attention.conv_pose.bias)
    f_up = torch.randn(1, 240, 32, 32)
    logits = torch.zeros(1, 23, 64, 64)
    logits[0, 8, 20:22, 30:32] = 1e4  # joint 7 sits on position (10, 15) of the pooled map
    logits[0, 0] = 1e6  # background

    attended, weights = attention(f_up, logits)

    assert torch.allclose(weights.sum((2, 3)), torch.ones(1, 22))
    assert torch.allclose(attended[0, :, 7], f_up[0, :, 10, 15], atol=1e-5)
    assert torch.allclose(attended[0, :, 3], f_up[0].mean((1, 2)), atol=1e-5)  # constant logits: the mean


def test_the_inner_relu_of_the_released_up_scaler_changes_nothing():
    layer = UpScale(4).eval()
    x = torch.randn(2, 4, 6, 6).relu()

    up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    expected = F.relu(layer.bn(layer.conv(F.relu(up))))

    assert torch.equal(layer(x), expected)


def test_a_residual_block_is_its_formula():
    block = BasicBlock(3, 5).eval()
    x = torch.randn(2, 3, 8, 8)
    unit = (1 + 1e-5) ** -0.5  # an untrained batch norm in eval mode

    inner = (F.conv2d(x, block.conv1.weight, padding=1) * unit).relu()
    expected = (
        F.conv2d(inner, block.conv2.weight, padding=1) * unit + F.conv2d(x, block.downsample[0].weight) * unit
    )

    assert torch.allclose(block(x), expected.relu(), atol=1e-6)


def test_every_branch_of_a_module_depends_on_every_other_and_keeps_its_size():
    module = HRModule([4, 8, 16, 32], blocks=1).eval()
    maps = [torch.randn(1, 4 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4)]
    before = module(maps)

    assert [x.shape for x in before] == [x.shape for x in maps]
    for changed in range(4):
        after = module([x + 1 if i == changed else x for i, x in enumerate(maps)])
        assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_the_inputs_of_the_regressor_are_in_the_released_order():
    """Mean, attention, box, depth: a head that copies one input shows its position."""
    config = replace(TINY, hidden=1)
    regressor = Regressor(config)
    attended, info, depth = torch.rand(2, 60, 22), torch.rand(2, 3), torch.rand(2, 4)
    torch.nn.init.ones_(regressor.cam_out.weight)
    torch.nn.init.zeros_(regressor.cam_hidden.bias)
    feature = 60 + 3 + 4
    places = {
        3 + 5 * feature + 7: attended[:, 7, 5],
        3 + 5 * feature + 61: info[:, 1],
        3 + 5 * feature + 66: depth[:, 3],
    }

    for place, expected in places.items():
        torch.nn.init.zeros_(regressor.cam_hidden.weight)
        regressor.cam_hidden.weight.data[0, place] = 1
        cam = regressor(attended, info, depth)[2]
        assert torch.allclose(cam, torch.tensor([0.9, 0, 0]) + expected[:, None])


def test_an_untrained_network_predicts_about_its_means():
    model = tiny().train()  # batch norm normalises this batch, as at the start of training
    pose = torch.tensor(Rotation.random(22, random_state=0).as_matrix()).float()
    model.set_means(rotmat_to_sixd(pose).flatten(), torch.arange(11.0), torch.tensor([0.7, 0.1, -0.1]))

    prediction = model(*inputs())

    assert torch.allclose(prediction.rotmats, pose.expand(2, -1, -1, -1), atol=0.15)
    assert torch.allclose(prediction.betas, torch.arange(11.0).expand(2, -1), atol=0.15)
    assert torch.allclose(prediction.cam, torch.tensor([[0.7, 0.1, -0.1]]), atol=0.15)
    assert {"regressor.init_pose", "regressor.init_shape", "regressor.init_cam"} <= set(model.state_dict())


def test_means_of_the_wrong_size_are_refused():
    with pytest.raises(ValueError, match="init_pose.*132.*144"):
        tiny().set_means(torch.zeros(144), torch.zeros(11), torch.zeros(3))


def test_head_priors_make_an_untrained_network_predict_class_shares_and_mean_depth():
    model = tiny().train()
    prior = torch.linspace(1, 3, 23)
    model.init_head_priors(prior, depth_mean=0.6)

    prediction = model(*inputs())

    assert torch.allclose(prediction.parts.softmax(1).mean((0, 2, 3)), prior / prior.sum(), atol=0.005)
    assert prediction.depth.mean().item() == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    "prior, depth",
    [(torch.ones(22), 0.5), (-torch.ones(23), 0.5), (torch.zeros(23), 0.5), (torch.ones(23), 1.0)],
)
def test_impossible_priors_are_refused(prior, depth):
    with pytest.raises(ValueError, match="part_prior|depth_mean"):
        tiny().init_head_priors(prior, depth)


def test_a_permuted_batch_gives_permuted_predictions():
    model, (image, info), order = tiny(), inputs(3), [2, 0, 1]

    straight, permuted = model(image, info), model(image[order], info[order])

    assert all(torch.allclose(a[order], b, atol=1e-5) for a, b in zip(straight, permuted, strict=True))


def test_every_parameter_except_the_two_unused_layers_gets_a_gradient():
    model = tiny().train()
    prediction = model(*inputs(4))
    sum(x.square().sum() + x.sum() for x in prediction).backward()

    unused = {name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.grad is None}

    assert unused == {"encoder.final_layer", "attention.conv_shape_cam"}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_loss_on_the_pose_trains_the_part_decoder_and_the_depth_features_but_not_the_depth_map():
    model = tiny().train()
    rotmats = model(*inputs(4)).rotmats
    (rotmats * torch.randn_like(rotmats)).sum().backward()

    assert model.parts_decoder.head[-1].weight.grad.abs().max() > 0  # through the attention
    assert model.depth_decoder.fuse_2_to_1.refine[0].conv1.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.depth_decoder.head.parameters())


def test_under_bfloat16_autocast_rotations_are_orthonormal_and_outputs_float32():
    model = tiny().to(memory_format=torch.channels_last)
    image, info = inputs()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = model(image.to(memory_format=torch.channels_last), info)
    exact = model(image, info)

    assert {x.dtype for x in prediction} == {torch.float32}
    identity = prediction.rotmats @ prediction.rotmats.transpose(-1, -2)
    assert torch.allclose(identity, torch.eye(3).expand_as(identity), atol=1e-5)
    assert torch.allclose(prediction.rotmats, exact.rotmats, atol=0.02)


def test_the_network_runs_in_float64():
    image, info = inputs()
    double = tiny().double()(image.double(), info.double())

    assert torch.allclose(double.rotmats.float(), tiny()(image, info).rotmats, atol=1e-4)


def test_presets_are_found_by_name_and_unknown_ones_refused_with_the_list():
    names = {f"{size}{branch}" for size in ("paper", "lite", "mini") for branch in ("", "-no-depth")}
    names |= {f"{size}-{head}" for size in ("paper", "lite") for head in ("hmr", "cliff", "pare")}
    names.add("lite-no-attention")

    assert preset("MINI-no-depth") is MINI_NO_DEPTH and set(PRESETS) == names
    with pytest.raises(ValueError, match="huge.*paper.*lite, lite-no-depth.*mini, mini-no-depth.*paper-hmr"):
        preset("huge")


def test_a_config_survives_json_and_refuses_other_fields():
    assert all(ModelConfig.from_dict(c.to_dict()) == c for c in PRESETS.values())
    with pytest.raises(ValueError, match="colour"):
        ModelConfig.from_dict(PAPER.to_dict() | {"colour": 1})
    with pytest.raises(ValueError, match="width"):
        ModelConfig.from_dict({k: v for k, v in PAPER.to_dict().items() if k != "width"})


@pytest.mark.parametrize(
    "field", [{"image_size": 100}, {"map_size": 100}, {"modules": (1, 2)}, {"width": 0}, {"blocks": -1}]
)
def test_an_impossible_config_is_refused_by_name(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        replace(PAPER, **field)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, dpose; assert dpose.__version__; assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_offers_its_names_lazily():
    import dpose

    assert dpose.DPose is DPose and dpose.preset("mini") is MINI and dpose.config.MINI is MINI
    assert {"load", "losses", "Prediction"} <= set(dir(dpose))
    with pytest.raises(AttributeError, match="nonsense"):
        dpose.nonsense  # noqa: B018
