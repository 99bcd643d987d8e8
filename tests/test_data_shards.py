"""Shards: what goes in comes out, whole or not at all."""

import json
import re
import tarfile

import numpy as np
import pytest
from data_people import random_sample
from shard_files import write_manifest, write_shards

from dpose.data.shards import (
    BadSample,
    decode_sample,
    encode_depth,
    encode_sample,
    read_manifest,
    write_tar,
)
from dpose.data.sources import BadCount, read_members


def samples(n: int, **changes):
    rng = np.random.default_rng(0)
    return [random_sample(rng, f"person{i}", **changes) for i in range(n)]


def read(path) -> dict[str, dict[str, bytes]]:
    out = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, extension = member.name.split(".", 1)
            out.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return out


def test_samples_come_back_from_a_shard(tmp_path):
    written = samples(5)
    paths = write_shards(written, tmp_path, "train", start=7, per_shard=3)
    assert [path.name for path in paths] == ["train-000007.tar", "train-000008.tar"]
    members = read(paths[0]) | read(paths[1])
    assert list(members) == [sample["label"]["key"] for sample in written]
    for sample in written:
        again = decode_sample(members[sample["label"]["key"]])
        assert np.abs(again["image"].astype(int) - sample["image"]).mean() < 3  # JPEG
        assert (again["parts"] == sample["parts"]).all()
        assert ((again["depth"] > 0) == (sample["depth"] > 0)).all()
        assert np.abs(again["depth"] - sample["depth"]).max() < 1e-4
        assert again["label"].pop("depth_range").shape == (2,)
        assert again["label"].keys() == sample["label"].keys()
        for name, value in sample["label"].items():
            assert np.array_equal(again["label"][name], value)
        assert json.loads(encode_sample(again)["json"]).items() >= sample["label"].items()


def test_depth_codes_keep_the_nearest_point_apart_from_the_background():
    depth = np.array([[0, 2.0], [2.0, 5.0]], np.float32)
    codes, depth_range = encode_depth(depth)
    assert codes.tolist() == [[0, 1], [1, 65535]] and depth_range == [2.0, 5.0]


def test_a_sample_without_depth_stays_without(tmp_path):
    (sample,) = samples(1)
    sample["depth"] = None
    members = encode_sample(sample)
    again = decode_sample(members)
    assert "depth.png" not in members and again["depth"] is None and not again["label"]["has_depth"]


def test_an_exception_midway_leaves_whole_shards_and_nothing_else(tmp_path):
    def failing():
        yield from samples(5)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_shards(failing(), tmp_path, "train", per_shard=4)
    assert [path.name for path in tmp_path.iterdir()] == ["train-000000.tar"]
    assert len(read(tmp_path / "train-000000.tar")) == 4


def test_the_same_samples_give_the_same_bytes(tmp_path):
    first, second = (write_shards(samples(3), tmp_path / name, "train")[0] for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_shard_is_the_tar_of_its_samples_members_and_nothing_else(tmp_path):
    """No times, owners or names of places: made-up data keep their hashes from machine to machine."""
    (path,) = write_shards(samples(3), tmp_path, "train")
    data, at = path.read_bytes(), 0
    for sample in samples(3):
        for extension, member in encode_sample(sample).items():
            head = data[at : at + 512]
            assert head[:100].rstrip(b"\0").decode() == f"{sample['label']['key']}.{extension}"
            assert head[100:124] == b"0000644\0" + b"0000000\0" * 2  # mode, owner, group
            assert (
                head[124:136] == b"%011o\0" % len(member) and head[136:148] == b"00000000000\0"
            )  # size, time
            assert head[156:265] == b"0" + bytes(100) + b"ustar\x0000" and not any(head[265:329])
            assert data[at + 512 : at + 512 + len(member)] == member
            at += 512 + len(member) + -len(member) % 512
    assert not any(data[at:]) and len(data) == -(-(at + 1024) // 10240) * 10240


def test_a_key_twice_or_maps_of_another_size_are_refused(tmp_path):
    (sample,) = samples(1)
    with pytest.raises(ValueError, match="person0"):
        write_shards([sample, sample], tmp_path, "train")
    with pytest.raises(ValueError, match="person0.*parts"):
        write_shards([{**sample, "parts": sample["parts"][:-1]}], tmp_path, "train")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 0.0}, "person0.* 0 pixels"),
        ({"scale": 0.004}, "person0.* 0.8 pixels"),
        ({"scale": float("nan")}, "person0.*'scale'"),
        ({"margin": 0.5}, "margin 0.5"),
        ({"trans": [0.0, float("nan"), 3.0]}, "person0.*'trans'"),
        ({"betas": [float("inf")] * 11}, "person0.*'betas'"),
        ({"betas": [0.0] * 10 + [15.1]}, "person0.*'betas'.*15.1"),
        ({"key": "a.b"}, "'a.b'"),
        ({"key": "../a"}, "'../a'"),
        ({"key": ""}, "key ''"),
    ],
)
def test_a_label_that_no_loader_should_meet_is_not_written(tmp_path, changes, message):
    good, bad = samples(2)
    bad["label"] |= {"key": "person0"} | changes
    with pytest.raises(ValueError, match=message):
        write_shards([bad], tmp_path, "train")
    assert not list(tmp_path.iterdir())
    good["label"]["key"], reasons = "good", []
    assert write_tar([bad, good], tmp_path / "a.tar", bad=reasons.append) == 1
    assert list(read(tmp_path / "a.tar")) == ["good"] and re.search(message, reasons[0])


def test_the_manifest_counts_what_is_there(tmp_path):
    write_shards(samples(5), tmp_path, "train", per_shard=2)
    write_shards(samples(1), tmp_path, "test")
    manifest = write_manifest(tmp_path, seed=3)
    assert manifest["splits"] == {"train": 5, "test": 1} and manifest["seed"] == 3
    assert read_manifest(tmp_path) == manifest
    assert manifest["fingerprint"] == write_manifest(tmp_path)["fingerprint"]


@pytest.mark.parametrize("extension", ["jpg", "parts.png", "depth.png", "json"])
def test_a_damaged_or_missing_member_is_named(extension):
    members = encode_sample(samples(1)[0])
    half = {**members, extension: members[extension][: len(members[extension]) // 2]}
    name = "JSON" if extension == "json" else extension
    with pytest.raises(BadSample, match=name):
        decode_sample(half)
    del members[extension]
    with pytest.raises(BadSample, match=extension):
        decode_sample(members)


def test_long_keys_are_kept(tmp_path):
    """The older tar header holds 100 characters; a closeup of a gym with its frame rate comes close."""
    rng = np.random.default_rng(0)
    key = "scene" * 40
    write_shards([random_sample(rng, key)], tmp_path, "train")
    (members,) = read_members([tmp_path / "train-000000.tar"], BadCount(0, 0))
    assert members["__key__"] == key and decode_sample(members)["label"]["key"] == key


ROW = {"name": "train-000000.tar", "split": "train", "samples": 1, "bytes": 1}


BODY = {"name": "open", "hash": "0123456789abcdef"}
HOSTILE = ["", "[]", "[" * 100_000, {}, {"shards": 1}, {"shards": ["train-000000.tar"]}]
HOSTILE += [{"shards": [{key: ROW[key] for key in ROW if key != left_out}]} for left_out in ROW]
HOSTILE += [
    {"shards": [ROW | change]}
    for change in (
        {"samples": "1"}, {"samples": True}, {"samples": 1.5}, {"samples": 10**400}, {"samples": -1},
        {"bytes": -1}, {"bytes": 1 << 60}, {"name": "../a.tar"}, {"name": "x" * 10**6}, {"split": ""},
    )
]  # fmt: skip
HOSTILE += [
    {"shards": [ROW], "splits": []},
    {"shards": [ROW], "splits": {"train": "many"}},
    {"shards": [ROW], "fingerprint": None},
    {"shards": [ROW], "fingerprint": ["a"]},
    *({"shards": [ROW], "bodies": bodies} for bodies in (5, ["open"], {"open": 5}, {"open": {}})),
    *({"shards": [ROW], "bodies": {"open": BODY | change}} for change in ({"hash": 1}, {"name": None})),
    {"shards": [ROW], "bodies": {"star": BODY}},
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_manifest_that_is_none_is_refused_in_one_message(content, tmp_path):
    (tmp_path / "manifest.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=r"manifest\.json") as error:
        read_manifest(tmp_path)
    assert len(str(error.value)) < 500


def test_a_manifest_keeps_what_it_says(tmp_path):
    content = {"shards": [ROW], "splits": {"train": 1}, "bodies": {"open": BODY}, "fingerprint": "ab"}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert read_manifest(tmp_path) == content


def test_a_manifest_beyond_any_size_is_refused_without_reading_it_all(tmp_path):
    with open(tmp_path / "manifest.json", "wb") as file:
        file.truncate(1 << 40)  # a hole: no disk is used
    with pytest.raises(ValueError, match=r"manifest\.json.*larger"):
        read_manifest(tmp_path)
