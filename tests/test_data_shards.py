"""Shards: what goes in comes out, whole or not at all."""

import tarfile

import numpy as np
import pytest
from data_people import random_sample

from dpose.data.shards import (
    BadSample,
    decode_sample,
    encode_depth,
    encode_sample,
    read_manifest,
    write_manifest,
    write_shards,
)


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
        again["label"].pop("depth_range")
        assert again["label"] == sample["label"]


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


def test_a_key_twice_or_maps_of_another_size_are_refused(tmp_path):
    (sample,) = samples(1)
    with pytest.raises(ValueError, match="'person0' occurs twice"):
        write_shards([sample, sample], tmp_path, "train")
    with pytest.raises(ValueError, match="person0: parts"):
        write_shards([{**sample, "parts": sample["parts"][:-1]}], tmp_path, "train")
    assert not list(tmp_path.iterdir())


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
