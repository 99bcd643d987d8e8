"""Batches: small while they travel, and on the device the float32 batch to the last bit."""

import numpy as np
import pytest
import roma
import torch
from data_people import random_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shard_files import write_manifest, write_shards

from dpose.config import MINI, PAPER
from dpose.data.augment import (
    MIRRORED_PARTS,
    augmentation,
    change_picture,
    jitter_box,
    mirror_label,
    occlude,
    picture_transforms,
    sample_generator,
)
from dpose.data.loader import collate, make_loader
from dpose.data.sample import relative_matrix, warp_image, warp_nearest
from dpose.data.shards import decode_sample, encode_sample
from dpose.data.streams import prepare_sample
from dpose.data.targets import decode_depth, depth_target, encode_depth, person_codes
from dpose.model.inference import IMAGENET_MEAN, IMAGENET_STD, normalise, to_device


def people(n: int, size: int) -> list:
    """n samples; of the first few the depth is far away in part, flat, a pixel, nothing, or not there."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(n):
        sample = random_sample(rng, f"p{i:03d}", size=size)
        sample["label"]["joints2d"][i % 24][2] = -1.0  # as good as 0
        depth, half = sample["depth"], size // 2
        if i == 0:
            depth[half, half : half + 5] = 30.0  # the wall behind: beyond a person's reach
        elif i == 1:
            depth[depth > 0] = 2.5
        elif i == 2:
            depth[:] = 0
            depth[half, half] = 3.0
        elif i == 3:
            depth[:] = 0
        elif i == 4:
            sample["depth"] = None
        elif i == 5:
            depth[: half + 2] *= 40  # two groups too far apart, the larger one far
        elif i == 6:
            depth[depth > 0] += rng.uniform(0, 2.4, (depth > 0).sum()).astype(np.float32)
        elif i == 7:
            depth[:] = 0
            depth[2:4, 2:4] = 3.0  # not in view of the crop
        samples.append(sample)
    return samples


def float_row(sample, config, augment, rng, transforms, rule) -> dict:
    """A row with its depth target, computed from metres, and its image as the network gets it."""
    label, center, scale, mirror = sample["label"], None, None, False
    center, scale = label["center"], label["scale"]
    if augment:
        center, scale = jitter_box(label, augment, rng)
        mirror = rng.random() < augment.flip_p
    stored = sample["image"].shape[0]
    to_map = relative_matrix(label, stored, center, scale, config.map_size)
    to_image = relative_matrix(label, stored, center, scale, config.image_size)
    image = warp_image(sample["image"], to_image, config.image_size)
    parts = warp_nearest(sample["parts"], to_map, config.map_size)
    depth = np.zeros((config.map_size, config.map_size), np.float32)
    has_depth = label["has_depth"] and sample["depth"] is not None
    if has_depth:
        metres = warp_nearest(sample["depth"], to_map, config.map_size)
        has_depth = bool((metres > 0).any())
        depth = depth_target(metres, rule=rule) if has_depth else depth
    label = {**label, "center": center, "scale": scale}
    if mirror:
        label = mirror_label(label)
        image, depth = np.ascontiguousarray(image[:, ::-1]), depth[:, ::-1]
        parts = MIRRORED_PARTS[parts[:, ::-1]]
    if augment:
        image = occlude(change_picture(image, transforms, rng), augment, rng)
    std = np.array(IMAGENET_STD, np.float32)
    factor, offset = 1 / (255 * std), np.array(IMAGENET_MEAN, np.float32) / std
    pixels = image.astype(np.float32) * factor - offset
    return {"image": pixels, "parts": parts, "depth": depth, "has_depth": has_depth, "label": label}


def float_batch(rows: list[dict]) -> dict:
    """The batch of such rows: what networks, losses and metrics are documented to get."""

    def column(name, *shape):
        return torch.from_numpy(np.array([row["label"][name] for row in rows], np.float32)).reshape(
            -1, *shape
        )

    joints2d = column("joints2d", 24, 3)
    joints2d[..., 2].clamp_(min=0)
    return {
        "image": torch.from_numpy(np.stack([row["image"] for row in rows])).permute(0, 3, 1, 2),
        "parts": torch.from_numpy(np.stack([row["parts"] for row in rows]).astype(np.int64)),
        "depth": torch.from_numpy(np.stack([row["depth"] for row in rows])[:, None]),
        "has_depth": torch.tensor([row["has_depth"] for row in rows]),
        "pose": roma.rotvec_to_rotmat(column("pose", 22, 3)),
        "smpl_hands": torch.eye(3).expand(len(rows), 2, 3, 3),
        "joints2d": joints2d,
        "cam_int": column("cam_int", 3, 3),
        "scale": column("scale"),
        **{name: column(name, size) for name, size in (("center", 2), ("img_size", 2), ("betas", 11))},
        "trans": column("trans", 3),
    }


@pytest.mark.parametrize("rule", ["paper", "released"])
@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("config", [MINI, PAPER], ids=["128 px", "224 px"])
def test_a_compact_batch_becomes_the_float_batch_bit_for_bit(config, augmented, rule):
    augment = augmentation("mini") if augmented else None
    transforms = picture_transforms(augment) if augment else []
    given, expected = [], []
    for sample in people(24, 160):
        members = encode_sample(sample)
        options = [(augment, sample_generator(1, 2, "k"), transforms, rule) for _ in range(2)]
        given.append(prepare_sample(decode_sample(members, codes=True), config, *options[0]))
        expected.append(float_row(decode_sample(members), config, *options[1]))
    batch, reference = to_device(collate(given), "cpu"), float_batch(expected)
    for name, value in reference.items():
        assert batch[name].dtype == value.dtype and torch.equal(batch[name], value), name
    assert batch.keys() == reference.keys() | {"key", "body"}
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert 0 < batch["has_depth"].sum() < len(given)


@settings(deadline=None, max_examples=200)
@given(
    codes=arrays(np.uint16, (5, 6), elements=st.one_of(st.just(0), st.integers(0, 65535))),
    near=st.floats(0, 50, width=32),
    span=st.sampled_from([0.0, 0.3, 2.4, 2.6, 100.0, 1e5]),
    rule=st.sampled_from(["paper", "released"]),
)
def test_targets_from_codes_are_those_from_metres(codes, near, span, rule):
    depth_range = [near, near + span]
    metres = decode_depth(codes, depth_range)
    sample = random_sample(np.random.default_rng(0), size=160)
    row = prepare_sample(sample, MINI, depth_rule=rule)
    has_depth, kept, scaling = person_codes(codes, depth_range, rule)
    batch = collate([row | {"depth": kept, "depth_scaling": scaling, "has_depth": has_depth}])
    target = to_device(batch, "cpu")["depth"][0, 0].numpy()
    assert has_depth == (metres > 0).any()
    assert (target == (depth_target(metres, rule=rule) if has_depth else 0)).all()


def test_metres_that_were_never_in_a_shard_are_coded_first():
    sample = random_sample(np.random.default_rng(0), size=160)
    codes, depth_range = encode_depth(sample["depth"])
    coded = {**sample, "depth": codes, "label": {**sample["label"], "depth_range": depth_range}}
    one, two = (to_device(collate([prepare_sample(s, MINI)]), "cpu")["depth"] for s in (sample, coded))
    assert torch.equal(one, two) and (one > 0).any()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_shards(people(64, 280), root, "train")
    write_manifest(root)
    return root


def test_a_batch_of_64_at_224_pixels_travels_in_less_than_20_megabytes(root):
    (batch,) = make_loader(root, "train", PAPER, 64)
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    assert batch["image"].shape == (64, 3, 224, 224) and batch["depth"].shape == (64, 1, 224, 224)
    assert sum(value.untyped_storage().nbytes() for value in tensors) < 20e6
    assert batch["image"].dtype == batch["parts"].dtype == torch.uint8
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)


def test_workers_hold_less_than_a_hundred_megabytes_ready_each(root):
    """Prefetched batches lie in /dev/shm: 2.5 GB for 8 workers would be more than most machines allow."""
    loader = make_loader(root, "train", PAPER, 64, train=True, workers=1)
    assert loader.prefetch_factor * 20e6 < 100e6


def test_a_full_batch_is_only_moved(root):
    full = to_device(next(iter(make_loader(root, "train", MINI, 8))), "cpu")
    again = to_device(full, "cpu")
    assert again.keys() == full.keys() and all(again[name] is value for name, value in full.items())


def test_normalised_pixels_have_the_closed_form_and_any_memory_layout():
    image = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (image.double() / 255 - mean) / std
    for layout in (image, image.contiguous(memory_format=torch.channels_last)):
        found = normalise(layout)
        assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(normalise(image), normalise(image.contiguous(memory_format=torch.channels_last)))
