"""Our checkpoints: round trips, the body they belong to, and one sentence about every file that is none."""

import json
import os
import shutil
from dataclasses import replace

import pytest
import torch
from licensed_files import body_arrays, write_smplx_npz
from safetensors.torch import load_file, save_file
from tiny_network import TINY

from dpose.body import load_body
from dpose.config import LIMITS, PAPER
from dpose.model import checkpoint
from dpose.model.inference import FastDPose
from dpose.model.network import DPose

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
    with pytest.raises(FileNotFoundError, match="maxi.*mini"):
        checkpoint.load("maxi")
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        checkpoint.metadata(tmp_path)


def test_a_truncated_file_is_refused(file):
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=rf"{file.name}.*cut off"):
        checkpoint.load(file)


def test_a_file_of_neither_kind_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"a letter, say")
    with pytest.raises(ValueError, match=r"model\.safetensors: not a"):
        checkpoint.load(path)


def test_a_checkpoint_from_before_parts_had_an_order_loads(file):
    config = TINY.to_dict()
    assert config.pop("part_order") == "joints"
    rewrite(file, config=json.dumps(config))

    assert checkpoint.load(file).config == TINY


def test_somebody_else_s_safetensors_is_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors: .*dpose"):
        checkpoint.load(tmp_path / "other.safetensors")


def config_with(**changes):
    return json.dumps(TINY.to_dict() | changes)


@pytest.mark.parametrize(
    ("config", "fact"),
    [
        (None, "config"),
        ("{", "configuration"),
        ("[1]", "configuration"),
        ("[" * 100_000, "configuration"),
        (config_with(colour=1), "colour"),
        (config_with(image_size=65), "image_size.* 65"),
        (config_with(image_size="big"), "image_size.*'big'"),
        (config_with(image_size=64.0), r"image_size.*64\.0"),
        (config_with(map_size=[16]), "map_size"),
        (config_with(width=True), "width.*True"),
        (config_with(width=10**30), f"width.* {LIMITS['width']}, got 1000"),
        (config_with(blocks=100_000), f"blocks.* {LIMITS['blocks']}, got 100000"),
        (config_with(modules=[1, 1, 10**6]), f"modules.* {LIMITS['modules']}, got .*1000000"),
        (config_with(modules=[1] * 100_000), "modules.*three"),
        (config_with(modules="111"), "modules.*'111'"),
        (config_with(bottlenecks=10**5), "bottlenecks.*100000"),
        (config_with(decoder_blocks=10**5), "decoder_blocks.*100000"),
        (config_with(hidden=10**9), "hidden.*1000000000"),
        (config_with(num_betas=10**9), "num_betas.*1000000000"),
        (config_with(modules=[60, 60, 60], blocks=60), "32407 residual blocks"),
        (config_with(part_order="x" * 10**6), "part_order"),
        (config_with(name="x" * 10**6), "name"),
        (config_with(name=None), "name"),
        (config_with(depth="no"), "depth"),
        (config_with(**{"x" * 10**6: 1}), "unknown fields"),
    ],
)
def test_a_wrong_config_is_refused_in_a_short_message_before_anything_is_built(
    file, config, fact, monkeypatch
):
    rewrite(file, config=config)
    monkeypatch.setattr(checkpoint, "DPose", lambda *_: pytest.fail("a network was built"))
    with pytest.raises(ValueError, match=fact) as error:
        checkpoint.load(file)
    assert file.name in str(error.value) and len(str(error.value)) < 500


def test_networks_far_larger_than_the_paper_s_are_accepted():
    large = replace(PAPER, width=160, modules=(2, 12, 9), blocks=6, decoder_blocks=12, hidden=1024)
    with torch.device("meta"):
        model = DPose(replace(large, image_size=512, map_size=512, num_betas=300))
    assert sum(p.numel() for p in model.parameters()) > 20 * 81_099_394


@pytest.mark.parametrize(
    "metadata",
    [
        "{",
        "[1]",
        "null",
        "[" * 100_000,
        None,
        '{"body": 5}',
        '{"body": {}}',
        '{"body": {"name": 3}}',
        '{"body": {"name": "open", "hash": 3}}',
        json.dumps({"body": {"name": "x" * 10**6}}),
    ],
)
def test_damaged_metadata_is_refused(file, metadata):
    rewrite(file, metadata=metadata)
    for read in (checkpoint.metadata, checkpoint.load):
        with pytest.raises(ValueError, match="metadata") as error:
            read(file)
        assert file.name in str(error.value) and len(str(error.value)) < 500


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
    assert "encoder.bn1.bias (9,) instead of (8,)" in message and "'tiny'" in message


def test_names_of_a_million_letters_are_cut_in_messages(file):
    rewrite(file, load_file(file) | {"x" * 10**6: torch.zeros(1)})
    with pytest.raises(ValueError, match="unexpected xxx") as error:
        checkpoint.load(file)
    assert len(str(error.value)) < 500


def test_half_precision_file_is_half_as_large_and_loads_in_single_precision(model, file, tmp_path):
    small = checkpoint.save(model, tmp_path / "half.safetensors", half=True)

    loaded = checkpoint.load(small)

    assert os.path.getsize(small) < 0.6 * os.path.getsize(file)
    for name, value in model.state_dict().items():
        back = loaded.state_dict()[name]
        assert back.dtype == value.dtype
        torch.testing.assert_close(back, value, rtol=2**-10, atol=1e-7)


# The body that a network belongs to


def test_the_shipped_network_belongs_to_the_open_body_as_it_is_shipped():
    record = load_body().record
    path = checkpoint.resolve("mini")
    assert checkpoint.metadata("mini")["body"] == checkpoint.metadata(path)["body"] == record
    assert checkpoint.load("mini").body_record == record


def test_the_body_s_record_travels_from_network_to_file_and_back(model, tmp_path):
    model.body_record = record = {"name": "smplx-neutral", "hash": "0123456789abcdef"}
    path = checkpoint.save(model, tmp_path / "a.safetensors", {"step": 3})
    assert checkpoint.metadata(path) == {"step": 3, "body": record}
    loaded = checkpoint.load(path)
    assert loaded.body_record == FastDPose(loaded.eval()).body_record == record
    other = checkpoint.save(loaded, tmp_path / "b.safetensors", {"body": {"name": "open", "hash": "f"}})
    assert checkpoint.load(other).body_record["name"] == "open"  # the metadata that is given counts


def test_body_of_is_the_recorded_body_with_the_network_s_number_of_betas(tmp_path):
    model = DPose(replace(TINY, num_betas=7))
    model.body_record = load_body().record
    loaded = checkpoint.load(checkpoint.save(model, tmp_path / "m.safetensors"))
    body = checkpoint.body_of(loaded)
    assert (body.name, body.num_betas) == ("open", 7)


@pytest.mark.parametrize("record", [None, {"name": "custom", "hash": "0"}, {"name": "/etc/passwd"}])
def test_a_network_without_a_known_body_asks_for_one_by_option(model, record, tmp_path):
    model.body_record = record
    loaded = checkpoint.load(checkpoint.save(model, tmp_path / "m.safetensors"))
    with pytest.raises(ValueError, match=r"'tiny'.*--body.*smplx-neutral"):
        checkpoint.body_of(loaded)
    if record is None:
        assert checkpoint.body_of(loaded, "open").name == "open"


def test_a_copy_of_the_shipped_file_elsewhere_has_no_record(tmp_path):
    copy = shutil.copy(checkpoint.resolve("mini"), tmp_path / "mine.safetensors")
    assert "body" not in checkpoint.metadata(copy)


def test_another_body_than_the_recorded_one_is_refused_and_a_file_of_the_same_is_not(model, tmp_path):
    arrays = body_arrays(seed=3)
    path, other = (
        write_smplx_npz(tmp_path / name, content)
        for name, content in (("any.npz", arrays), ("SMPLX_NEUTRAL.npz", body_arrays(seed=4)))
    )
    ours = load_body(path)
    model.body_record = {"name": "smplx-neutral", "hash": ours.hash}
    assert checkpoint.body_of(model, path).hash == checkpoint.body_of(model, ours).hash == ours.hash
    for wrong in (other, "open"):
        with pytest.raises(ValueError, match=ours.hash):
            checkpoint.body_of(model, wrong)
    model.body_record = {"name": "smplx-neutral"}  # the authors' file names no hash
    assert checkpoint.body_of(model, other).name == "smplx-neutral"
    assert checkpoint.body_of(model, path).name == "custom"
    with pytest.raises(ValueError, match="smplx-neutral.*open"):
        checkpoint.body_of(model, "open")
