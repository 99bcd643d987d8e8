"""Batches: complete, reproducible, without doubles, and loud about bad input."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from data_people import keys, random_sample
from shard_files import write_manifest, write_shards

from dpose.config import MINI
from dpose.data.augment import NO_AUGMENT
from dpose.data.loader import make_loader
from dpose.data.sources import TooManyBadSamples
from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD, to_device


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    samples = [random_sample(rng, f"p{i}", size=160) for i in range(23)]
    write_shards(samples, root / "shards", "train", per_shard=5)
    write_shards(samples[:3], root / "shards", "test")
    write_manifest(root / "shards")
    return root


def test_a_batch_has_the_contracts_shapes_and_types(root):
    batch = to_device(next(iter(make_loader(root, "train", MINI, 4))), "cpu")
    text = {"key": ["p0", "p1", "p2", "p3"], "body": ["open"] * 4}
    assert {name: batch[name] for name in text} == text
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in batch.items() if name not in text}
    f, m = torch.float32, MINI.map_size
    assert shapes == {
        "image": ((4, 3, 128, 128), f),
        "center": ((4, 2), f),
        "scale": ((4,), f),
        "img_size": ((4, 2), f),
        "cam_int": ((4, 3, 3), f),
        "pose": ((4, 22, 3, 3), f),
        "betas": ((4, 11), f),
        "trans": ((4, 3), f),
        "joints2d": ((4, 24, 3), f),
        "parts": ((4, m, m), torch.int64),
        "depth": ((4, 1, m, m), f),
        "has_depth": ((4,), torch.bool),
        "smpl_hands": ((4, 2, 3, 3), f),
    }
    assert (batch["smpl_hands"] == torch.eye(3)).all()
    person = batch["depth"][batch["depth"] > 0]
    assert (
        person.min() == pytest.approx(0.1) and person.max() == pytest.approx(1) and batch["has_depth"].all()
    )
    assert ((batch["depth"][:, 0] > 0) == (batch["parts"] > 0)).all()


def test_an_evaluation_batch_holds_the_stored_pixels_and_labels(root):
    batch = to_device(next(iter(make_loader(root, "test", MINI, 3))), "cpu")
    rng = np.random.default_rng(0)
    for i in range(3):
        sample = random_sample(rng, f"p{i}", size=160)
        mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
        pixels = (batch["image"][i].permute(1, 2, 0).numpy() * std + mean) * 255
        assert np.abs(pixels - sample["image"][16:144, 16:144]).mean() < 3  # JPEG
        pose = roma.rotmat_to_rotvec(batch["pose"][i])
        expected = np.reshape(sample["label"]["pose"], (22, 3))
        np.testing.assert_allclose(pose[1:], expected[1:], atol=1e-4)
        np.testing.assert_allclose(batch["joints2d"][i], sample["label"]["joints2d"], rtol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_every_sample_once_over_workers(root, workers):
    evaluation = make_loader(root, "train", MINI, 4, workers=workers)
    training = make_loader(root, "train", MINI, 1, train=True, infinite=False, workers=workers)
    everyone = sorted(f"p{i}" for i in range(23))
    assert sorted(keys(evaluation)) == everyone  # last partial batch kept
    first, second = keys(training), keys(training)
    assert sorted(first) == sorted(second) == everyone and first != second


@pytest.mark.parametrize("world", [3, 8])
def test_processes_of_a_run_share_an_epoch_without_doubles(root, world):
    """Eight processes are more than there are shards: then each takes every eighth sample."""
    seen = []
    for rank in range(world):
        loader = make_loader(root, "train", MINI, 1, train=True, infinite=False)
        loader.dataset.rank, loader.dataset.world = rank, world
        seen += keys(loader)
    assert sorted(seen) == sorted(f"p{i}" for i in range(23))


def test_the_same_seed_and_epoch_give_the_same_batches(root):
    def first(seed, epoch=0):
        loader = make_loader(root, "train", MINI, 8, train=True, seed=seed)
        loader.dataset.epoch = epoch
        return next(iter(loader))

    one, two = first(seed=5), first(seed=5)
    assert one["key"] == two["key"] and (one["image"] == two["image"]).all()
    assert (one["scale"] != first(seed=6)["scale"]).any() and (
        one["scale"] != first(seed=5, epoch=1)["scale"]
    ).any()


def test_training_batches_are_augmented_by_the_given_strengths(root):
    def images(**strengths):
        augment = replace(NO_AUGMENT, **strengths)
        loader = make_loader(root, "train", MINI, 20, train=True, augment=augment, seed=2)
        return next(iter(loader))["image"]

    plain = images()
    for strength in ("fault_p", "colour_p", "occlusion_p", "flip_p", "half_crop_p"):
        changed = (images(**{strength: 1.0}) != plain).flatten(1).any(1)
        assert changed.float().mean() > 0.8, strength


def test_a_training_stream_goes_on_after_the_last_sample_with_full_batches(root):
    loader = make_loader(root, "train", MINI, 10, train=True)
    batches = [batch for batch, _ in zip(loader, range(6), strict=False)]
    assert all(len(batch["key"]) == 10 for batch in batches)


def test_a_finite_training_loader_that_gives_no_batch_says_so(root):
    loader = make_loader(root, "train", MINI, 20, train=True, infinite=False, workers=2)
    with pytest.raises(ValueError, match="2.*batch of 20"):
        list(loader)
    assert len(list(make_loader(root, "train", MINI, 20, train=True, infinite=False))) == 1


def test_a_missing_folder_or_split_says_what_where_and_how(root, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere.*dpose synth"):
        make_loader(tmp_path / "nowhere", "train", MINI, 4)
    with pytest.raises(FileNotFoundError, match=r"val-\*\.tar.*test, train"):
        make_loader(root, "val", MINI, 4)
    monkeypatch.setenv("DPOSE_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        make_loader(None, "train", MINI, 4)


def test_a_shard_that_differs_from_the_manifest_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng)], tmp_path, "train")
    write_manifest(tmp_path)
    path = tmp_path / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"train-000000\.tar.* bytes"):
        make_loader(tmp_path, "train", MINI, 1)
    path.unlink()
    write_shards([random_sample(rng)], tmp_path, "train", start=1)
    with pytest.raises(ValueError, match=r"train-000000\.tar"):
        make_loader(tmp_path, "train", MINI, 1)


def test_a_shard_that_the_manifest_does_not_list_is_left_out_with_a_warning(tmp_path):
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng, f"p{i}") for i in range(4)], tmp_path, "train", per_shard=2)
    write_manifest(tmp_path)
    write_shards([random_sample(rng, "stray")], tmp_path, "train", start=2)
    with pytest.warns(UserWarning, match=r"train-000002\.tar"):
        loader = make_loader(tmp_path, "train", MINI, 1)
    assert keys(loader) == ["p0", "p1", "p2", "p3"] and loader.dataset.sources[0].counts == [2, 2]


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_shard_cut_in_half_gives_its_whole_samples_and_a_warning(tmp_path, share):
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng, f"p{i}") for i in range(10)], tmp_path, "train")
    path = tmp_path / "train-000000.tar"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share) // 512 * 512])
    with pytest.warns(UserWarning, match="train-000000"):
        got = keys(make_loader(tmp_path, "train", MINI, 4))
    assert 0 < len(got) < 10 and len(set(got)) == len(got)


def test_damaged_images_are_skipped_and_past_the_limit_refused(tmp_path):
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng, f"p{i}") for i in range(6)], tmp_path, "train")
    path = tmp_path / "train-000000.tar"
    data, at = bytearray(path.read_bytes()), -1
    for _ in range(3):  # spoil the first three JPEG headers
        at = data.index(b"\xff\xd8\xff", at + 1)
        data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match="so far: 3.*p2: jpg"):
        assert keys(make_loader(tmp_path, "train", MINI, 4, max_bad=3)) == ["p3", "p4", "p5"]
    with (
        pytest.warns(UserWarning),
        pytest.raises(TooManyBadSamples, match="unreadable samples.*: 3 .limit 2"),
    ):
        keys(make_loader(tmp_path, "train", MINI, 4, max_bad=2))


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("workers", -1), ("depth_rule", "x")])
def test_a_bad_argument_is_refused(root, name, value):
    arguments = {"batch_size": 4, name: value}
    with pytest.raises(ValueError, match=name.replace("_", "[_ ]")):
        make_loader(root, "train", MINI, **arguments)
