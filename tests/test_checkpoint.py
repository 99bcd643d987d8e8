"""Our checkpoints: round trips, and a clear word about every file that is not one."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from dpose.config import ModelConfig
from dpose.model import checkpoint
from dpose.model.network import DPose

TINY = ModelConfig(
    name="tiny", image_size=64, map_size=16, width=4, stem_width=8, bottlenecks=1, bottleneck_width=4,
    modules=(1, 1, 1), blocks=1, decoder_blocks=1, hidden=8,
)  # fmt: skip


LIKE_ZIP = 0x4B50  # "PK", lowest byte first


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DPose(TINY)


@pytest.fixture
def file(model, tmp_path):
    return checkpoint.save(model, tmp_path / "model.safetensors", {"steps": 20, "note": "Länge"})


def rewrite(file, tensors=None, **header):
    """The same file with other tensors or header entries."""
    old = {
        "format": checkpoint.FORMAT,
        "config": json.dumps(TINY.to_dict()),
        "metadata": "{}",
    }
    kept = {key: value for key, value in (old | header).items() if value is not None}
    save_file(load_file(file) if tensors is None else tensors, file, kept)


def test_what_is_saved_comes_back_bit_for_bit(model, file):
    loaded = checkpoint.load(file)

    assert loaded.config == TINY and not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert (
            torch.equal(loaded.state_dict()[name], value) and loaded.state_dict()[name].dtype == value.dtype
        )


def test_the_loaded_network_predicts_the_same_and_can_be_trained_on(model, file):
    image, info = torch.randn(2, 3, 64, 64), torch.randn(2, 3)
    loaded = checkpoint.load(file)

    assert all(torch.equal(a, b) for a, b in zip(loaded(image, info), model.eval()(image, info), strict=True))
    loaded.train()(image, info).betas.sum().backward()
    assert loaded.regressor.shape_out.weight.grad is not None


def test_means_travel_with_the_weights(model, tmp_path):
    model.set_means(torch.arange(132.0), torch.arange(11.0), torch.tensor([0.5, 0.1, 0.2]))
    loaded = checkpoint.load(checkpoint.save(model, tmp_path / "m.safetensors"))

    assert torch.equal(loaded.regressor.init_pose, torch.arange(132.0))
    assert torch.equal(loaded.regressor.init_cam, torch.tensor([0.5, 0.1, 0.2]))


def test_channels_last_weights_are_saved_as_any_others(model, tmp_path):
    path = checkpoint.save(model.to(memory_format=torch.channels_last), tmp_path / "m.safetensors")

    assert torch.equal(checkpoint.load(path).encoder.conv2.weight, model.encoder.conv2.weight)


def test_loading_draws_no_random_numbers(file):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    checkpoint.load(file)

    assert torch.equal(torch.rand(1), expected)


def test_metadata_comes_back_and_is_empty_by_default(model, file, tmp_path):
    assert checkpoint.metadata(file) == {"steps": 20, "note": "Länge"}
    assert checkpoint.metadata(checkpoint.save(model, tmp_path / "plain.safetensors")) == {}


def test_metadata_that_is_not_json_writes_nothing(model, tmp_path):
    with pytest.raises(TypeError, match="plain JSON"):
        checkpoint.save(model, tmp_path / "new" / "m.safetensors", {"loss": torch.tensor(1.0)})

    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_writing_keeps_the_old_file_and_leaves_no_litter(model, file, monkeypatch):
    before = file.read_bytes()

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(model, file, {"steps": 21})

    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]


def test_a_file_is_as_open_to_others_as_the_user_wants_his_files(model, tmp_path):
    before = os.umask(0o027)
    try:
        path = checkpoint.save(model, tmp_path / "new" / "model.safetensors")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("length", "modulus"), [(LIKE_ZIP, 1 << 16), (0x80, 1 << 8)], ids=["zip", "pickle"])
def test_a_file_is_ours_though_its_length_of_header_reads_like_another_format_s_mark(
    model, tmp_path, length, modulus
):
    """A safetensors file begins with that length, lowest byte first; every multiple of 8 comes up."""
    path = checkpoint.save(model, tmp_path / "model.safetensors", {"pad": ""})
    missing = (length - int.from_bytes(path.read_bytes()[:8], "little")) % modulus
    checkpoint.save(model, path, {"pad": missing * "x"})
    assert path.read_bytes()[:2].startswith({LIKE_ZIP: b"PK", 0x80: b"\x80"}[length])

    assert torch.equal(checkpoint.load(path).encoder.conv1.weight, model.encoder.conv1.weight)
    assert checkpoint.metadata(path) == {"pad": missing * "x"}


def test_a_missing_file_and_an_unknown_name_are_told_apart_from_a_shipped_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'maxi'.*mini"):
        checkpoint.load("maxi")
    with pytest.raises(FileNotFoundError, match="neither a file"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="neither a file"):
        checkpoint.metadata(tmp_path)


def test_a_shipped_name_is_found_or_its_absence_explained():
    shipped = checkpoint.files("dpose") / "assets" / "mini.safetensors"

    if shipped.is_file():
        assert checkpoint.load("mini").config.name.startswith("mini")
    else:
        with pytest.raises(FileNotFoundError, match="lacks its shipped checkpoint 'mini'"):
            checkpoint.load("mini")


def test_a_truncated_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cut off"):
        checkpoint.load(file)


def test_a_file_of_neither_kind_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a letter, say")
    with pytest.raises(ValueError, match="not a safetensors checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_from_before_parts_had_an_order_loads(file):
    config = TINY.to_dict()
    assert config.pop("part_order") == "joints"
    rewrite(file, config=json.dumps(config))

    assert checkpoint.load(file).config == TINY


def test_somebody_else_s_safetensors_is_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not written by dpose"):
        checkpoint.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "config, complaint",
    [
        (None, "config is wrong"),
        ("{", "config is wrong"),
        ("[1]", "config is wrong"),
        (json.dumps(TINY.to_dict() | {"colour": 1}), "unknown fields .*colour"),
        (json.dumps(TINY.to_dict() | {"image_size": 65}), "image_size"),
        (json.dumps(TINY.to_dict() | {"image_size": "big"}), "config is wrong"),
    ],
)
def test_a_wrong_config_is_refused(file, config, complaint):
    rewrite(file, config=config)
    with pytest.raises(ValueError, match=complaint):
        checkpoint.load(file)


@pytest.mark.parametrize("metadata", ["{", "[1]", "null", None])
def test_damaged_metadata_is_refused(file, metadata):
    rewrite(file, metadata=metadata)
    with pytest.raises(ValueError, match="metadata is damaged"):
        checkpoint.metadata(file)


def test_weights_that_do_not_fit_are_named(file):
    tensors = load_file(file)
    del tensors["encoder.conv1.weight"]
    tensors["encoder.conv9.weight"] = torch.zeros(1)
    tensors["encoder.bn1.bias"] = torch.zeros(9)
    rewrite(file, tensors)

    with pytest.raises(ValueError) as error:
        checkpoint.load(file)

    message = str(error.value)
    assert "missing encoder.conv1.weight" in message and "unexpected encoder.conv9.weight" in message
    assert "encoder.bn1.bias (9,) for (8,)" in message and "'tiny'" in message


def test_half_precision_file_is_half_as_large_and_loads_in_single_precision(model, file, tmp_path):
    small = checkpoint.save(model, tmp_path / "half.safetensors", half=True)

    loaded = checkpoint.load(small)

    assert os.path.getsize(small) < 0.6 * os.path.getsize(file)
    for name, value in model.state_dict().items():
        back = loaded.state_dict()[name]
        assert back.dtype == value.dtype
        torch.testing.assert_close(back, value, rtol=2**-10, atol=1e-7)
