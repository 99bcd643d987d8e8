"""The released checkpoint and COCO's HRNet weights: read by name, computed as they were, written back."""

import os
import pickle
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_network import TINY
from torch.nn import functional as F

import dpose
from dpose.body import load_body
from dpose.cli import main
from dpose.config import MINI, PAPER, PAPER_NO_DEPTH, RELEASED_PARTS
from dpose.model import checkpoint, released
from dpose.model.hrnet import HRNet
from dpose.model.network import DPose
from dpose.skeleton import JOINT_NAMES
from dpose.training import TrainConfig, train
from dpose.training.start import starting_network

KEYS = Path(__file__).parent / "data" / "released_keys.txt"
NORM = ("weight", "bias", "running_mean", "running_var")


def key_list() -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Keys and shapes of the network in a released checkpoint, and of what else is in it."""
    network, _, others = KEYS.read_text().partition("# not network")
    lines = [line.split() for line in network.splitlines() if not line.startswith("#")]
    shapes = {}
    for name, size in lines:
        shape = tuple(map(int, size.split("x")))
        if name.endswith(".*"):
            shapes |= {name[:-1] + part: shape for part in NORM}
            shapes[name[:-1] + "num_batches_tracked"] = ()
        else:
            shapes[name] = shape
    rest = [line.split() for line in others.splitlines()[1:]]
    return shapes, {name: tuple(map(int, size.split("x"))) for name, size, _ in rest}


def synthetic_state() -> dict[str, torch.Tensor]:
    """Random values for every key, of a size at which activations neither vanish nor explode.

    The large tensors are windows of one pool of numbers, each another one: the file stays small.
    """
    generator = torch.Generator().manual_seed(0)
    pool = 0.02 * torch.randn(4_000_000, generator=generator)
    state, fan_in = {}, 1
    for i, (name, shape) in enumerate(key_list()[0].items()):
        size, leaf = torch.Size(shape).numel(), name.rsplit(".", 1)[1]
        noise = pool[7919 * i % 2_000_000 :][:size].view(shape)
        if leaf == "num_batches_tracked":
            value = torch.tensor(i)
        elif leaf == "running_var":
            value = 0.02**2 * fan_in * (1 + noise.abs())
        elif leaf == "weight" and len(shape) == 1:
            inner = re.search(r"bn2\.weight|bn3\.weight|fuse_layers", name)
            value = (0.3 if inner else 1.2) + noise
        else:
            value = noise
            fan_in = size // shape[0] if len(shape) == 4 else fan_in
        if leaf == "bias":
            value = 5 * value
        elif "final_layers.3" in name:  # maps that vary, so that attention has something to choose
            value = 50 * value
        state[name] = value
    state["model.head.init_cam"] = torch.tensor([[0.9, 0.0, 0.0]], dtype=torch.float64)
    return state


@pytest.fixture(scope="module")
def state():
    return synthetic_state()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """A released checkpoint as Lightning leaves it: body models, settings, optimizer and all."""
    others = {name: torch.zeros(1).expand(shape) for name, shape in key_list()[1].items()}
    path = tmp_path_factory.mktemp("released") / "paper_arxiv.ckpt"
    content = {
        "epoch": 7,
        "global_step": 1234,
        "pytorch-lightning_version": "1.9.0",
        "state_dict": others | state,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}],
        "hyper_parameters": {"DATASET": settings(USE_DEPTH=True, BATCH=[1, 2])},
    }
    torch.save(content, path)
    del sys.modules["yacs"], sys.modules["yacs.config"]
    return path


def settings(**values):
    """A settings object of a package that need not be installed to read the file."""
    module = types.ModuleType("yacs.config")
    module.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    sys.modules |= {"yacs": types.ModuleType("yacs"), "yacs.config": module}
    node = module.CfgNode(values)
    node.frozen = True
    return node


@pytest.fixture(scope="module")
def loaded(file):
    return dpose.load(file)


# The network once more, in plain functions on the released keys and in float64.


class Plain:
    def __init__(self, state):
        self.state = state

    def __getitem__(self, name):
        return self.state[f"model.{name}"].double()

    def has(self, name):
        return f"model.{name}" in self.state

    def conv(self, x, name, stride=1):
        weight = self[f"{name}.weight"]
        bias = self[f"{name}.bias"] if self.has(f"{name}.bias") else None
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)

    def norm(self, x, name):
        weight, bias, mean, var = (self[f"{name}.{part}"] for part in NORM)
        return F.batch_norm(x, mean, var, weight, bias)

    def block(self, x, name, convolutions=2):
        y = x
        for i in range(1, convolutions + 1):
            y = self.norm(self.conv(y, f"{name}.conv{i}"), f"{name}.bn{i}")
            y = F.relu(y) if i < convolutions else y
        if self.has(f"{name}.downsample.0.weight"):
            x = self.norm(self.conv(x, f"{name}.downsample.0"), f"{name}.downsample.1")
        return F.relu(x + y)

    def module(self, maps, name):
        maps = list(maps)
        for i in range(len(maps)):
            for j in range(4):
                maps[i] = self.block(maps[i], f"{name}.branches.{i}.{j}")
        fused = []
        for i in range(len(maps)):
            total = 0
            for j, x in enumerate(maps):
                path = f"{name}.fuse_layers.{i}.{j}"
                if j > i:
                    x = self.norm(self.conv(x, f"{path}.0"), f"{path}.1")
                    x = F.interpolate(x, scale_factor=2 ** (j - i), mode="nearest")
                for step in range(i - j):
                    x = self.norm(self.conv(x, f"{path}.{step}.0", stride=2), f"{path}.{step}.1")
                    x = F.relu(x) if step < i - j - 1 else x
                total = total + x
            fused.append(F.relu(total))
        return fused

    def encoder(self, image):
        b = "backbone"
        x = F.relu(self.norm(self.conv(image, f"{b}.conv1", 2), f"{b}.bn1"))
        x = F.relu(self.norm(self.conv(x, f"{b}.conv2", 2), f"{b}.bn2"))
        for i in range(4):
            x = self.block(x, f"{b}.layer1.{i}", 3)
        fine = F.relu(self.norm(self.conv(x, f"{b}.transition1.0.0"), f"{b}.transition1.0.1"))
        maps, coarse = [fine], x
        for stage, modules in ((2, 1), (3, 4), (4, 3)):
            path = f"{b}.transition{stage - 1}.{stage - 1}.0"
            maps.append(F.relu(self.norm(self.conv(coarse, f"{path}.0", 2), f"{path}.1")))
            for i in range(modules):
                maps = self.module(maps, f"{b}.stage{stage}.{i}")
            coarse = maps[-1]
        up = [maps[0]]
        for stage in (2, 3, 4):
            x = maps[stage - 1]
            for i in range(stage - 1):
                path = f"{b}.upsample_stage_{stage}"
                x = self.conv(bigger(x), f"{path}.{4 * i + 1}")
                x = F.relu(self.norm(x, f"{path}.{4 * i + 2}"))
            up.append(x)
        return maps, torch.cat(up, 1)

    def decoder(self, maps, name):
        x = maps[3]
        for i in (3, 2, 1):
            path = f"{name}.upsample_modules.upsample_{i}_to_{i - 1}"
            x = bigger(F.relu(self.norm(self.conv(x, f"{path}.0"), f"{path}.1")))
            x = torch.cat([x, maps[i - 1]], 1)
            for j in range(4):
                x = self.block(x, f"{name}.fusion_and_refinement.fuse_and_refine_{i}.{j}")
        features = x
        for conv, norm in (("conv3_1", "bn2"), ("conv3_2", "bn4")):
            x = self.conv(F.relu(bigger(x)), f"{name}.upscaling.{conv}")
            x = F.relu(self.norm(x, f"{name}.upscaling.{norm}"))
        x = F.relu(self.norm(self.conv(x, f"{name}.final_layers.0"), f"{name}.final_layers.1"))
        return self.conv(x, f"{name}.final_layers.3"), features

    def attention(self, f_up, logits):
        side = f_up.shape[-1]
        pooled = F.adaptive_avg_pool2d(logits[:, 1:], side).flatten(2)
        attended = torch.matmul(f_up.flatten(2), pooled.softmax(-1).transpose(1, 2))
        return F.conv1d(attended, self["attention.conv1x1_pose.weight"], self["attention.conv1x1_pose.bias"])

    def head(self, attended, info, depth_features):
        batch = len(info)
        extra = torch.cat([info, F.adaptive_avg_pool2d(depth_features, 1).flatten(1)], 1)
        feature = torch.cat([attended, extra[..., None].expand(-1, -1, 22)], 1).transpose(1, 2)
        pose = self["head.init_pose"].view(1, 22, 6).expand(batch, 22, 6)
        inputs = torch.cat([pose, feature], 2)
        residual = []
        for joint in range(22):
            hidden = F.linear(inputs[:, joint], self["head.p.0.weight"][joint], self["head.p.0.bias"][joint])
            out = self["head.decpose.weight"][joint], self["head.decpose.bias"][joint]
            residual.append(F.linear(F.relu(hidden), *out))
        six = (pose + torch.stack(residual, 1)).view(batch, 22, 3, 2)
        first = F.normalize(six[..., 0], dim=-1)
        second = six[..., 1] - (first * six[..., 1]).sum(-1, keepdim=True) * first
        second = F.normalize(second, dim=-1)
        rotations = torch.stack([first, second, torch.linalg.cross(first, second)], -1)
        results = [rotations]
        for mean, hidden, out in (("init_shape", "s.0", "decshape"), ("init_cam", "c.0", "deccam")):
            start = self[f"head.{mean}"].expand(batch, -1)
            x = torch.cat([start, feature.flatten(1)], 1)
            x = F.relu(F.linear(x, self[f"head.{hidden}.weight"], self[f"head.{hidden}.bias"]))
            results.append(start + F.linear(x, self[f"head.{out}.weight"], self[f"head.{out}.bias"]))
        return results

    def network(self, image, info):
        maps, f_up = self.encoder(image)
        parts, _ = self.decoder(maps, "segmentation_decoder")
        depth, features = self.decoder(maps, "depth_decoder")
        body = self.head(self.attention(f_up, parts), info, features)
        return maps, f_up, parts, depth.sigmoid(), features, body


def bigger(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def close(ours, plain, tolerance=1e-4):
    """Equal but for the rounding of float32, measured against how much the values vary."""
    return (ours.double() - plain).abs().max() <= tolerance * plain.std()


@torch.no_grad()
def test_a_loaded_checkpoint_computes_what_plain_functions_compute_from_its_keys(state, loaded):
    """At 64 pixels, where all layers do the same on smaller maps."""
    with torch.device("meta"):
        small = DPose(replace(loaded.config, image_size=64, map_size=64))
    small.load_state_dict(loaded.state_dict(), assign=True)
    generator = torch.Generator().manual_seed(1)
    image, info = torch.randn(1, 3, 64, 64, generator=generator), torch.randn(1, 3, generator=generator)

    prediction, features = small.eval()(image, info, return_features=True)
    plain = Plain(state)
    maps, f_up, parts, depth, features_d, body = plain.network(image.double(), info.double())
    rotations, betas, cam = body

    assert all(close(ours, plain) for ours, plain in zip(features[:4], maps, strict=True))
    assert close(features.f_up, f_up)
    assert close(prediction.depth, depth) and depth.std() > 0.02  # neither flat nor saturated
    assert (
        close(prediction.rotmats, rotations) and close(prediction.betas, betas) and close(prediction.cam, cam)
    )
    assert close(prediction.parts[:, 0], parts[:, 0])
    for channel, joint in enumerate(RELEASED_PARTS, start=1):
        assert close(prediction.parts[:, 1 + joint], parts[:, channel])

    in_joint_order = plain.attention(f_up, parts[:, loaded.config.part_channels])
    assert not close(
        prediction.rotmats, plain.head(in_joint_order, info.double(), features_d)[0]
    )  # other pairs


def test_the_released_part_channels_are_named_by_the_bodys_joints():
    """Its names are those of a rig whose "shoulder" is SMPL-X's collar."""
    rig = (
        "rightHand rightUpLeg leftArm head leftLeg leftToeBase leftFoot spine1 spine2 leftShoulder "
        "rightShoulder rightFoot rightArm rightLeg leftForeArm rightForeArm neck rightToeBase spine "
        "leftUpLeg leftHand hips"
    ).split()
    joint_of = {
        "hips": "pelvis", "UpLeg": "hip", "Leg": "knee", "Foot": "ankle", "ToeBase": "foot",
        "spine": "spine1", "spine1": "spine2", "spine2": "spine3", "neck": "neck", "head": "head",
        "Shoulder": "collar", "Arm": "shoulder", "ForeArm": "elbow", "Hand": "wrist",
    }  # fmt: skip
    names = []
    for part in rig:
        side, bare = re.fullmatch(r"(left|right)?(.+)", part).groups()
        names.append(f"{side}_{joint_of[bare]}" if side else joint_of[bare])
    assert [JOINT_NAMES[joint] for joint in RELEASED_PARTS] == names
    assert sorted(RELEASED_PARTS) == list(range(22))
    channels = replace(PAPER, part_order="released").part_channels
    assert channels[0] == 0 and [channels[1 + joint] for joint in RELEASED_PARTS] == list(range(1, 23))


def test_every_released_key_has_one_place_in_the_network_and_no_place_stays_empty():
    network, _ = key_list()
    with torch.device("meta"):
        ours = released.to_released(DPose(PAPER))

    assert {name: tuple(value.shape) for name, value in ours.items()} == network
    assert len(network) == 2293
    assert sum(torch.Size(shape).numel() for shape in network.values()) == 81_201_293


def test_a_released_checkpoint_loads_with_its_means_in_32_bits_and_leaves_the_rest(state, file, loaded):
    assert loaded.config == replace(PAPER, part_order="released") and not loaded.training
    assert torch.equal(loaded.regressor.init_pose, state["model.head.init_pose"][0])
    assert loaded.regressor.init_cam.dtype == torch.float32
    assert torch.equal(loaded.regressor.init_cam, torch.tensor([0.9, 0, 0]))
    body = {"name": "smplx-neutral"}
    assert checkpoint.metadata(file) == {"epoch": 7, "global_step": 1234, "body": body}
    assert loaded.body_record == body
    assert len(key_list()[1]) == 53


def test_converting_there_and_back_keeps_every_bit(state, file, tmp_path, capsys):
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.ckpt"
    try:
        assert main(["convert", str(file), str(ours)]) == 0
        assert main(["convert", str(ours), str(back)]) == 0
        printed = capsys.readouterr().out
        content = released.read_torch_file(back)
        again, config = content["state_dict"], released.from_released(content)[0]
        metadata = checkpoint.metadata(back)

        assert again.keys() == state.keys()
        for name, value in state.items():
            assert again[name].shape == value.shape and torch.equal(again[name], value.to(again[name].dtype))
        assert config.part_order == "released"
        assert metadata["global_step"] == 1234 and metadata["body"] == {"name": "smplx-neutral"}
        assert metadata["converted_from"]["checkpoint"] == "ours.safetensors"
        assert printed.count("81,099,394 parameters") == 2
        assert main(["convert", str(back), str(ours)]) == 2
        assert "ours.safetensors" in capsys.readouterr().err
    finally:
        ours.unlink(missing_ok=True)  # pytest keeps its folders, and these are large
        back.unlink(missing_ok=True)


@pytest.mark.parametrize("config", [MINI, PAPER_NO_DEPTH], ids=lambda config: config.name)
def test_a_network_that_the_released_code_cannot_build_is_not_exported(config, tmp_path):
    with torch.device("meta"):
        model = DPose(config)
    with pytest.raises(ValueError, match=f"'{config.name}'"):
        checkpoint.save_released(model, tmp_path / "model.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_ours_keeps_its_part_order_in_the_released_layout():
    state = {name: torch.zeros(()).expand(shape) for name, shape in key_list()[0].items()}
    config, _ = released.from_released({"state_dict": state, "dpose": {"part_order": "joints"}})
    assert config == PAPER
    for wrong in ("any", 3, ["joints"], "x" * 10**6):
        with pytest.raises(ValueError, match="part_order") as error:
            released.from_released({"state_dict": state, "dpose": {"part_order": wrong}})
        assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("mini", "x.ckpt", "'mini'"),
        ("mini", "x.safetensors", ".ckpt"),
    ],
)
def test_a_wrong_conversion_ends_in_one_line(source, target, message, tmp_path, capsys):
    assert main(["convert", source, str(tmp_path / target)]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def saved(path, state):
    torch.save({"state_dict": state}, path)
    return path


def test_half_and_double_precision_are_taken_as_well(state):
    half, double = ({k: v.to(kind) for k, v in state.items()} for kind in (torch.half, torch.double))
    for variant in (half, double):
        _, tensors = released.from_released({"state_dict": variant})
        assert tensors["encoder.conv1.weight"].dtype == variant["model.backbone.conv1.weight"].dtype


def test_a_checkpoint_that_misses_keys_is_refused_by_their_names(state, tmp_path):
    changed = dict(state)
    del changed["model.head.decpose.weight"], changed["model.attention.conv1x1_pose.bias"]
    changed["model.head.extra.weight"] = torch.zeros(2)
    changed["model.head.deccam.bias"] = torch.zeros(4)

    with pytest.raises(ValueError) as error:
        dpose.load(saved(tmp_path / "changed.ckpt", changed))

    message = str(error.value)
    assert "missing model.attention.conv1x1_pose.bias, model.head.decpose.weight; " in message
    assert "unexpected model.head.extra.weight" in message
    assert "model.head.deccam.bias (4,) instead of (3,)" in message and "changed.ckpt" in message


@pytest.mark.parametrize(
    "odd",
    [
        3,
        None,
        "text",
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3).to_sparse(),
        torch.empty(3, device="meta"),
    ],
    ids=lambda odd: type(odd).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_an_entry_that_is_no_plain_tensor_counts_as_missing(state, odd):
    changed = state | {"model.head.deccam.bias": odd, 7: torch.zeros(1), None: 3}
    with pytest.raises(ValueError, match=r"missing model\.head\.deccam\.bias$"):
        released.from_released({"state_dict": changed})


def test_names_of_a_million_letters_are_cut_in_messages(state):
    with pytest.raises(ValueError, match="unexpected xxx") as error:
        released.from_released({"state_dict": state | {"x" * 10**6: torch.zeros(1)}})
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_torch_s_own_advice_about_a_pickle_does_not_come_before_the_message(protocol, tmp_path, recwarn):
    path = tmp_path / "raw.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(3)}}, path, pickle_protocol=protocol)
    with pytest.raises(ValueError, match=r"raw\.ckpt"):
        dpose.load(path)
    path.write_bytes(pickle.dumps({"state_dict": {}}, protocol=max(2, protocol)))
    with pytest.raises(ValueError, match=r"raw\.ckpt"):
        dpose.load(path)
    assert not recwarn.list


@pytest.mark.parametrize(
    "change",
    [
        {"dpose": {"step": "text"}},
        {"dpose": {"step": -1}},
        {"dpose": {"step": torch.zeros(2)}},
        {"pytorch-lightning_version": None},
        {"pytorch-lightning_version": 2},
    ],
)
def test_a_damaged_state_of_a_run_is_refused_by_name(change, tmp_path):
    path = tmp_path / "last.ckpt"
    sound = {"state_dict": {}, "dpose": {"step": 3}, "pytorch-lightning_version": "2.6.0"}
    torch.save(sound, path)
    assert released.read_torch_file(path)["dpose"]["step"] == 3
    torch.save({name: value for name, value in (sound | change).items() if value is not None}, path)
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        released.read_torch_file(path)


@pytest.mark.parametrize(
    "name", ["model.hand_head.fc.weight", "discriminator.fc.weight", "smplx_head.weight"]
)
def test_a_network_with_more_than_the_released_one_is_refused(name, state):
    with pytest.raises(ValueError, match=rf"unexpected {name}$"):
        released.from_released({"state_dict": state | {name: torch.zeros(2)}})


def test_the_released_network_without_depth_would_be_named_so(state, tmp_path):
    changed = {name: value for name, value in state.items() if "depth_decoder" not in name}
    with pytest.raises(ValueError, match=r"missing model\.depth_decoder\..* and 200 more$"):
        dpose.load(saved(tmp_path / "no_depth.ckpt", changed))


def test_somebody_else_s_lightning_file_is_refused(tmp_path):
    path = saved(tmp_path / "other.ckpt", {"net.layer.weight": torch.zeros(3), "epochs": 4})
    with pytest.raises(ValueError, match=r"missing model\.backbone.* and 2290 more; unexpected net\.layer\."):
        dpose.load(path)


def test_a_run_s_own_resume_file_is_refused_with_the_place_of_its_weights(trained):
    for read in (dpose.load, checkpoint.metadata):
        with pytest.raises(ValueError, match=r"model\.safetensors beside it"):
            read(trained.resume)


@pytest.mark.parametrize("metadata", [3, None, "3", "{"])
def test_damaged_metadata_is_refused(metadata, tmp_path):
    path = tmp_path / "any.ckpt"
    torch.save({"state_dict": {}, "dpose": {"metadata": metadata}}, path)
    with pytest.raises(ValueError, match=r"any\.ckpt: .*metadata"):
        checkpoint.metadata(path)


@pytest.mark.parametrize("content", [[1, 2], {"weights": torch.zeros(2)}, {"state_dict": 3}])
def test_a_torch_file_of_no_known_kind_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "any.pt")
    with pytest.raises(ValueError, match=r"any\.pt: .*state_dict.*HRNet"):
        dpose.load(tmp_path / "any.pt")


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
def test_a_file_that_was_cut_off_is_refused(modern, tmp_path):
    path = tmp_path / "cut.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path, _use_new_zipfile_serialization=modern)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cut\.ckpt: .*cut off"):
        dpose.load(path)


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("modern", [True, False, None], ids=["zip", "legacy", "bare pickle"])
@pytest.mark.parametrize(
    ("function", "asked"), [(os.mkdir, "posix.mkdir"), (exec, "exec"), (Path, r"pathlib\..*Path")]
)
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(modern, function, asked, tmp_path):
    mark = tmp_path / "it_ran"
    argument = f"import os; os.mkdir({str(mark)!r})" if function is exec else str(mark)
    content = {"state_dict": {"a": Hostile(function, argument)}}
    path = tmp_path / "hostile.ckpt"
    if modern is None:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=modern)

    with pytest.raises(ValueError, match=rf"hostile\.ckpt: refused.*'{asked}'"):
        dpose.load(path)

    assert not mark.exists()


# COCO


def coco_state(config=PAPER) -> dict[str, torch.Tensor]:
    """The public file's keys: HRNet with its finest map only, and a layer for 17 keypoints."""
    with torch.device("meta"):
        encoder = HRNet(config)
    last = rf"stage4\.{config.modules[2] - 1}\.fuse_layers\.[123]\."
    state = {
        name: torch.tensor(0.01 * i, device="cpu").expand(value.shape)
        for i, (name, value) in enumerate(encoder.state_dict().items())
        if not re.match(rf"upsample_|final_layer|{last}", name)
    }
    layer = {"final_layer.weight": torch.ones(17, config.width, 1, 1), "final_layer.bias": torch.ones(17)}
    return state | layer


def test_coco_weights_fill_conv1_to_stage4_and_the_report_names_the_rest():
    encoder, state = HRNet(TINY), coco_state(TINY)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}

    report = released.load_keypoint_weights(encoder, state)

    assert report.random == [
        "final_layer", "stage4.0.fuse_layers.1", "stage4.0.fuse_layers.2", "stage4.0.fuse_layers.3",
        "upsample_stage_2", "upsample_stage_3", "upsample_stage_4",
    ]  # fmt: skip
    assert report.unused == ["final_layer"] and report.loaded == len(state) - 2
    for name, value in encoder.state_dict().items():
        taken = name in state and not name.startswith("final_layer")
        expected = state[name].to(value.dtype) if taken else before[name]
        assert torch.equal(value, expected)
    assert all(layer in str(report) for layer in report.random)


def test_the_public_w48_keys_fit_the_paper_s_encoder_with_or_without_batch_counters():
    state = coco_state()
    with torch.device("meta"):
        encoder = HRNet(PAPER)
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}

    assert released.load_keypoint_weights(encoder, state).loaded == len(state) - 2
    report = released.load_keypoint_weights(encoder, old)

    assert report.loaded == len(old) - 2 and len(report.random) == 7
    assert {"conv1.weight", "layer1.0.downsample.0.weight", "stage4.2.fuse_layers.0.3.0.weight"} < old.keys()


def test_weights_of_another_hrnet_are_refused_and_change_nothing():
    encoder = HRNet(TINY)
    before = encoder.conv1.weight.clone()
    with pytest.raises(ValueError, match=r"w32\.pth: .*conv1\.weight"):
        released.load_keypoint_weights(encoder, coco_state(MINI), "w32.pth")
    short = coco_state(TINY)
    del short["stage3.0.branches.1.0.bn1.weight"]
    with pytest.raises(ValueError, match=r"missing stage3\.0\.branches\.1\.0\.bn1\.weight"):
        released.load_keypoint_weights(encoder, short)
    assert torch.equal(encoder.conv1.weight, before)


@pytest.fixture
def quick(people, tmp_path) -> TrainConfig:
    return TrainConfig(
        preset="mini", data=people, out=tmp_path / "run", steps=1, batch_size=2, workers=0, lr=1e-12,
        accelerator="cpu", log_every=1,
    )  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    """In the format of 2019, as the public file is."""
    path = tmp_path / "pose_hrnet.pth"
    torch.save(coco_state(MINI), path, _use_new_zipfile_serialization=False)
    return path


def test_a_training_starts_from_an_hrnet_with_heads_at_the_data_s_means(quick, coco, trained, capsys):
    result = train(replace(quick, init=coco))
    model = dpose.load(result.checkpoint)

    weight = model.encoder.stage3[0].branches[1][0].conv1.weight
    expected = coco_state(MINI)["stage3.0.branches.1.0.conv1.weight"]
    torch.testing.assert_close(weight, expected, atol=1e-6, rtol=1e-6)
    fresh = dpose.load(trained.checkpoint)  # of the same data
    torch.testing.assert_close(model.regressor.init_pose, fresh.regressor.init_pose)
    assert "final_layer, stage4.0.fuse_layers.1" in capsys.readouterr().err
    origin = checkpoint.metadata(result.checkpoint)["init"]
    assert origin["kind"] == "hrnet" and origin["checkpoint"] == "pose_hrnet.pth"
    assert origin["unused"] == ["final_layer"] and "upsample_stage_4" in origin["random"]


def test_an_hrnet_is_no_network_and_a_released_network_no_mini(quick, coco, file):
    with pytest.raises(ValueError, match=r"pose_hrnet\.pth: .*HRNet.*--init"):
        dpose.load(coco)
    with pytest.raises(ValueError, match="'paper'.*'mini'"):
        train(replace(quick, init=file))
    assert not quick.out.exists()


def test_a_training_of_the_paper_s_network_starts_from_the_released_one_as_a_whole(quick, file, loaded):
    start, origin = starting_network(replace(quick, preset="paper", init=file), stored=None)

    assert start.training and start.config.part_order == "released"
    assert torch.equal(start.regressor.pose_out.weight, loaded.regressor.pose_out.weight)
    assert (origin["kind"], origin["global_step"]) == ("released", 1234)
    assert (origin["checkpoint"], len(origin["sha256"])) == ("paper_arxiv.ckpt", 64)


def test_a_run_from_a_released_order_of_parts_keeps_it_when_resumed(quick, tmp_path):
    """With a small network in that order, as a run from the real one would take hours."""
    model = DPose(replace(MINI, part_order="released"))
    model.body_record = load_body().record
    start = checkpoint.save(model, tmp_path / "start.safetensors")
    first = train(replace(quick, init=start, progress=False))
    second = train(replace(quick, resume=first.resume, steps=2, progress=False))
    for run in (first, second):
        assert dpose.load(run.checkpoint).config.part_order == "released"
    assert checkpoint.metadata(second.checkpoint)["init"]["kind"] == "dpose"
