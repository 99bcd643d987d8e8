"""The stream of samples: each once per epoch for any consumers, mixed by weights, whatever is faulty."""

import io
import itertools
import json
import os
import struct
import tarfile
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from data_people import keys, random_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import write_manifest, write_shards

from dpose.body import load_body
from dpose.config import MINI
from dpose.data.loader import make_loader
from dpose.data.means import training_means
from dpose.data.sample import BadSample
from dpose.data.shards import encode_sample, shard_row
from dpose.data.sources import Shards, TooManyBadSamples, find_source, mixture
from dpose.data.streams import SampleStream
from dpose.model.inference import run_network, to_device

# --- each sample once ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MadeUp(Shards):
    """Shards whose samples are only names; sizes: how many each really has; bad: which cannot be decoded."""

    sizes: tuple[int, ...] = ()
    bad: frozenset[str] = frozenset()

    def read(self, piece, bad, lazy=None):
        return iter([f"{self.name}{piece}-{i}" for i in range(self.sizes[piece])])

    def decode(self, item):
        if item in self.bad:
            raise BadSample(item)
        return item


class Names(SampleStream):
    """The stream of one consumer of several, without pictures."""

    at = (0, 1)

    def place(self):
        return self.at

    def prepare(self, sample, epoch):
        return {"name": sample}


def made_up(sizes, counts=None, name="a"):
    return MadeUp(name, list(range(len(sizes))), counts, sizes=tuple(sizes))


def names(sources, at=(0, 1), weights=None, take=None, **changes):
    options = {"shuffle": 5, "augment": None, "infinite": False, "seed": 0, "epoch": 0, "depth_rule": "paper"}
    options |= {"max_bad": 0, "limit": None, "spread": None}
    stream = Names(sources, weights or [1.0] * len(sources), MINI, **(options | changes))
    stream.at = at
    return [row["name"] for row in itertools.islice(stream, take)]


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=9),
    consumers=st.integers(1, 20),
    counted=st.sampled_from(["not", "right", "wrong"]),
    shuffle=st.sampled_from([0, 1, 7, 1000]),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
)
def test_whoever_reads_an_epoch_gives_each_sample_to_exactly_one(
    sizes, consumers, counted, shuffle, seed, epoch
):
    """Consumers are the workers of all ranks; whether the manifest tells the numbers, and rightly, or not."""
    counts = {"not": None, "right": sizes, "wrong": [max(0, n + (-1) ** n * 3) for n in sizes]}[counted]
    source = made_up(sizes, counts)
    shares = [
        names([source], (consumer, consumers), shuffle=shuffle, seed=seed, epoch=epoch)
        for consumer in range(consumers)
    ]
    everyone = [f"a{shard}-{i}" for shard, size in enumerate(sizes) for i in range(size)]
    assert sorted(itertools.chain(*shares)) == sorted(everyone)
    if counted == "right" and min(sizes):  # and everybody gets as much, but for one
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@settings(deadline=None, max_examples=50)
@given(
    size=st.integers(50, 200),
    shards=st.integers(1, 6),
    consumers=st.integers(1, 6),
)
def test_without_a_manifest_shares_are_nearly_equal(size, shards, consumers):
    source = made_up([size] * shards)
    lengths = [len(names([source], (consumer, consumers))) for consumer in range(consumers)]
    assert max(lengths) - min(lengths) <= 4


def test_a_consumer_reads_hardly_more_shards_than_its_share():
    read = []

    @dataclass(frozen=True)
    class Listening(MadeUp):
        def read(self, piece, bad, lazy=None):
            read.append(piece)
            return super().read(piece, bad)

    source = Listening("a", list(range(100)), [30] * 100, sizes=(30,) * 100)
    for consumer in range(16):
        names([source], (consumer, 16))
    assert len(read) <= 100 + 15  # all once, and those on a border twice


def test_a_batch_mixes_shards_and_epochs_differ():
    source = made_up([100] * 6, [100] * 6)
    first, second = names([source], epoch=0), names([source], epoch=1)
    assert first != second and sorted(first) == sorted(second)
    assert len({name.split("-")[0] for name in first[:16]}) >= 4
    assert names([source], shuffle=0)[:150] == [f"a{i // 100}-{i % 100}" for i in range(150)]


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    """A set with depth in 3 shards, and one without."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng, f"d{i}", size=160) for i in range(11)], root / "a", "train", per_shard=4)
    plain = [random_sample(rng, f"n{i}", size=160) | {"depth": None} for i in range(7)]
    write_shards(plain, root / "b", "train", per_shard=4)
    for name in "ab":
        write_manifest(root / name)
    return root / "a", root / "b"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_over_real_workers_and_ranks_is_complete(two_sets, workers, world):
    seen = []
    for rank in range(world):
        loader = make_loader(two_sets, "train", MINI, 1, train=True, infinite=False, workers=workers)
        loader.dataset.rank, loader.dataset.world = rank, world
        seen += keys(loader)
    assert sorted(seen) == sorted([f"d{i}" for i in range(11)] + [f"n{i}" for i in range(7)])


# --- mixing -------------------------------------------------------------------------------------------------


def test_sets_are_mixed_by_their_weights():
    sources = [made_up([50] * 4, [50] * 4, "a"), made_up([10], [10], "b")]
    for mix, share in (([4, 1], 0.2), ([1, 1], 0.5), (None, 10 / 210)):
        weights = mixture(sources, mix)
        drawn = Counter(name[0] for name in names(sources, weights=weights, infinite=True, take=4000))
        assert drawn["b"] / 4000 == pytest.approx(share, abs=0.03)  # 4 standard deviations


def test_a_mixture_repeats_by_seed_epoch_and_place():
    sources = [made_up([20] * 4, [20] * 4, "a"), made_up([10] * 2, [10] * 2, "b")]
    options = {"weights": [0.7, 0.3], "infinite": True, "take": 300}
    one = names(sources, **options)
    assert one == names(sources, **options)
    others = [{"seed": 1}, {"epoch": 1}, {"at": (1, 2)}]
    assert all(one != names(sources, **(options | other)) for other in others)
    draws = [[name[0] for name in names(sources, (place, 3), **options)] for place in range(3)]
    assert draws[0] != draws[1] != draws[2] != draws[0]  # places draw the sets by themselves


def test_a_finite_mixture_gives_every_sample_once_whatever_the_weights():
    sources = [made_up([20] * 4, [20] * 4, "a"), made_up([10] * 2, [10] * 2, "b")]
    drawn = names(sources, weights=[0.01, 0.99])
    assert len(drawn) == len(set(drawn)) == 100
    assert Counter(name[0] for name in drawn[:20])["b"] > 15


@pytest.mark.parametrize(
    ("mix", "message"),
    [([1], "1 weights for 2 data sets"), ([1, 0], "positive"), ([1, float("nan")], "positive")],
)
def test_weights_that_do_not_fit_are_refused(two_sets, mix, message):
    with pytest.raises(ValueError, match=message):
        make_loader(two_sets, "train", MINI, 2, train=True, mix=mix)


def test_sets_of_unknown_size_need_weights(two_sets, tmp_path):
    write_shards([random_sample(np.random.default_rng(0))], tmp_path, "train")
    with pytest.raises(ValueError, match=r"--mix"):
        make_loader([two_sets[0], tmp_path], "train", MINI, 2, train=True)
    make_loader([two_sets[0], tmp_path], "train", MINI, 2, train=True, mix=[1, 2])


def test_people_without_depth_stand_in_the_same_batch_and_train(two_sets):
    from dpose.losses import compute_losses
    from dpose.model.network import DPose
    from dpose.training import recipe

    batch = next(iter(make_loader(two_sets, "train", MINI, 8, train=True, mix=[1, 1], seed=1)))
    batch = to_device(batch, "cpu")
    without = torch.tensor([key.startswith("n") for key in batch["key"]])
    assert without.any() and not without.all()
    assert (batch["has_depth"] == ~without).all()
    assert (batch["depth"][without] == 0).all() and (batch["depth"][~without] > 0).any()
    model = DPose(MINI)
    terms = compute_losses(
        run_network(model, batch), batch, load_body(vertex_stride=64), recipe("mini").weights
    )
    terms["total"].backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_smpl_bodies_keep_their_hands_and_training_refuses_them(tmp_path):
    from dpose.training.config import check_bodies

    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.3, 72)
    smpl = random_sample(rng, "s", size=160, pose=pose, body="smpl-male")
    write_shards([random_sample(rng, "x", size=160), smpl], tmp_path, "train")
    batch = next(iter(make_loader(tmp_path, "train", MINI, 2)))
    assert batch["body"] == ["open", "smpl-male"]
    assert (batch["smpl_hands"][0] == torch.eye(3)).all() and batch["pose"].shape == (2, 22, 3, 3)
    expected = [cv2.Rodrigues(vector)[0] for vector in pose.reshape(24, 3)]
    np.testing.assert_allclose(batch["smpl_hands"][1], expected[22:], atol=1e-5)
    np.testing.assert_allclose(batch["pose"][1], expected[:22], atol=1e-5)
    with pytest.raises(ValueError, match="sample s.*smpl-male"):
        check_bodies("sample s", batch["body"])


# --- a look at a whole split --------------------------------------------------------------------------------


def test_a_spread_look_takes_equally_many_samples_from_shards_all_over_the_split():
    source = made_up([50] * 100, [50] * 100)
    seen = Counter(name.split("-")[0] for name in names([source], shuffle=0, spread=64))
    assert len(seen) == 32 and set(seen.values()) == {2} and {"a0", "a99"} <= seen.keys()
    assert len(names([source], shuffle=0, spread=10**6)) == 32 * 50
    assert len(names([made_up([30] * 2, [30] * 2)], shuffle=0, spread=9)) == 10


# --- faults -------------------------------------------------------------------------------------------------


def member_bytes(key="p", **label):
    sample = random_sample(np.random.default_rng(0), key)
    members = encode_sample(sample)
    if label:
        text = {**json.loads(members["json"]), **label}
        members["json"] = json.dumps({k: v for k, v in text.items() if v is not ...}).encode()
    return members


def write_tar(path, samples):
    """samples: pairs of a key and {extension: bytes}, as they come."""
    with tarfile.open(path, "w") as tar:
        for key, members in samples:
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def without(members, name):
    return {key: value for key, value in members.items() if key != name}


def cut(members, name):
    return members | {name: members[name][: len(members[name]) // 2]}


def as_png(array):
    return cv2.imencode(".png", array)[1].tobytes()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# A PNG whose header says 40,000 x 40,000 pixels, which OpenCV raises an error of its own about.
HUGE = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0))
HUGE += chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")

WRONG = {
    "truncated jpg": (lambda m: cut(m, "jpg"), "jpg cannot be decoded"),
    "truncated depth": (lambda m: cut(m, "depth.png"), "depth.png cannot be decoded"),
    "truncated parts": (lambda m: cut(m, "parts.png"), "parts.png cannot be decoded"),
    "no depth": (lambda m: without(m, "depth.png"), "depth.png is missing"),
    "no parts": (lambda m: without(m, "parts.png"), "parts.png is missing"),
    "no label": (lambda m: without(m, "json"), "'json' is missing"),
    "no JSON": (lambda m: cut(m, "json"), "not JSON"),
    "part 99": (lambda m: m | {"parts.png": as_png(np.full((40, 40), 99, np.uint8))}, "parts are uint8"),
    "NaN": (lambda m: member_bytes("bad", trans=[0.0, float("nan"), 3.0]), "not finite"),
    "NaN range": (
        lambda m: member_bytes("bad", depth_range=[1.0, float("nan")]),
        "'depth_range' holds",
    ),
    "8 bit depth": (lambda m: m | {"depth.png": as_png(np.full((40, 40), 9, np.uint8))}, "must be 16 bit"),
    "zero-size box": (lambda m: member_bytes("bad", scale=0.0), "0 pixels"),
    "negative box": (lambda m: member_bytes("bad", scale=-1.0), "-200 pixels"),
    "box below a pixel": (lambda m: member_bytes("bad", scale=0.004), "0.8 pixels"),
    "cut below the box": (lambda m: member_bytes("bad", margin=0.5), "margin 0.5"),
    "behind the camera": (lambda m: member_bytes("bad", trans=[0.0, 0.0, -3.0]), "distance"),
    "no focal length": (lambda m: member_bytes("bad", cam_int=[0.0] * 9), "focal length"),
    "another's label": (lambda m: member_bytes("other"), "label is of sample other"),
    "null": (lambda m: member_bytes("bad", scale=None), "'scale'"),
    "no pose": (lambda m: member_bytes("bad", pose=...), "lacks 'pose'"),
    "short pose": (lambda m: member_bytes("bad", pose=[0.0] * 65), "'pose' has shape"),
    "short joints": (lambda m: member_bytes("bad", joints2d=[[1.0, 2.0]] * 24), "'joints2d' has shape"),
    "text": (lambda m: member_bytes("bad", center=["left", "top"]), "'center' holds"),
    "body": (lambda m: member_bytes("bad", body="star"), "unknown body 'star'"),
    "beyond float32": (lambda m: member_bytes("bad", trans=[0.0, 1e39, 3.0]), "'trans' holds"),
    "pose beyond float32": (lambda m: member_bytes("bad", pose=[1e39] * 66), "'pose' holds"),
    "pose without bounds": (lambda m: member_bytes("bad", pose=[1e30] * 66), "'pose' holds"),
    "betas beyond any body": (
        lambda m: member_bytes("bad", betas=[0.0] * 10 + [-15.5]),
        "'betas' holds 15.5",
    ),
    "betas of 1e38": (lambda m: member_bytes("bad", betas=[1e38] * 11), "'betas' holds"),
    "scale of 1e308": (lambda m: member_bytes("bad", scale=1e308), "'scale' holds"),
    "scale of 1e30": (lambda m: member_bytes("bad", scale=1e30), "'scale' holds"),
    "center of 1e300": (lambda m: member_bytes("bad", center=[1e300, 0.0]), "'center' holds"),
    "center of 1e20": (lambda m: member_bytes("bad", center=[1e20, 0.0]), "'center' holds"),
    "image of 1e300": (lambda m: member_bytes("bad", img_size=[1e300, 9.0]), "'img_size' holds"),
    "focal of 1e-300": (lambda m: member_bytes("bad", cam_int=[1e-300, 0, 9, 0, 9, 9, 0, 0, 1]), "focal"),
    "a joint of 1e20": (lambda m: member_bytes("bad", joints2d=[[1e20, 1.0, 1.0]] * 24), "'joints2d' holds"),
    "400 digits": (lambda m: member_bytes("bad", scale=10**400), "'scale' holds"),
    "400 digits in a list": (lambda m: member_bytes("bad", trans=[0.5, 10**400, 3.0]), "'trans' holds"),
    "5000 digits": (
        lambda m: m | {"json": b'{"scale":' + b"9" * 5000 + b"}"},
        "JSON",
    ),
    "deep": (lambda m: m | {"json": b"[" * 100_000}, "JSON"),
    "joints 1 x 72": (lambda m: member_bytes("bad", joints2d=[[1.0] * 72]), "'joints2d' has shape"),
    "joints 36 x 2": (lambda m: member_bytes("bad", joints2d=[[1.0] * 2] * 36), "'joints2d' has shape"),
    "uneven joints": (lambda m: member_bytes("bad", joints2d=[[1.0] * 3] * 23 + [[1.0]]), "'joints2d'"),
    "pose of text": (lambda m: member_bytes("bad", pose=["0.1"] * 66), "'pose' holds"),
    "pose a table": (lambda m: member_bytes("bad", pose={"root": 1}), "'pose' holds"),
    "depth maybe": (lambda m: member_bytes("bad", has_depth="yes"), "'has_depth'"),
    "depth unsaid": (lambda m: member_bytes("bad", has_depth=...), "'has_depth'"),
    "range upside down": (lambda m: member_bytes("bad", depth_range=[3.0, 2.0]), "'depth_range'"),
    "key of a list": (lambda m: m | {"json": m["json"].replace(b'"bad"', b'["bad"]')}, "key"),
    "huge image": (lambda m: m | {"jpg": HUGE}, "jpg cannot be decoded"),
    "huge parts": (lambda m: m | {"parts.png": HUGE}, "parts.png cannot be decoded"),
    "a list": (lambda m: m | {"json": b"[1, 2]"}, "no table"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_damaged_sample_is_skipped_with_its_name_or_past_the_limit_refused(name, tmp_path):
    spoil, message = WRONG[name]
    samples = [("a", member_bytes("a")), ("bad", spoil(member_bytes("bad"))), ("b", member_bytes("b"))]
    write_tar(tmp_path / "train-000000.tar", samples)
    with pytest.warns(UserWarning, match=rf"skipped .*train-000000\.tar.*({message})"):
        assert keys(make_loader(tmp_path, "train", MINI, 4)) == ["a", "b"]
    with pytest.raises(TooManyBadSamples, match=rf"limit 0\).*train-000000\.tar.*({message})"):
        keys(make_loader(tmp_path, "train", MINI, 4, max_bad=0))


@pytest.mark.parametrize("order", ["aab", "aba"])
def test_a_key_that_comes_twice_in_a_shard_is_read_once(order, tmp_path):
    write_tar(tmp_path / "train-000000.tar", [(key, member_bytes(key)) for key in order])
    with pytest.warns(UserWarning, match=r"train-000000\.tar.* a "):
        assert keys(make_loader(tmp_path, "train", MINI, 4)) == ["a", "b"]


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


BROKEN = {
    "10 TB": (header("p.jpg", 10**13) + bytes(2048), "p.jpg has 10000000000000 bytes"),
    "a negative size": (header("p.jpg", -512) + bytes(2048), "p.jpg has -512 bytes|backwards"),
    "a link backwards": (header("p", -1024, b"Z") + bytes(2048), "backwards"),
    "no tar": (b"<html>moved</html>" * 999, "train-000001.tar"),
    "nothing": (b"", "train-000001.tar: .*empty"),
    "empty tar": (bytes(10240), "train-000001.tar: holds no sample"),
    "half a header": (b"a" * 100, "train-000001.tar"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_shard_that_is_none_costs_only_itself(name, tmp_path):
    content, message = BROKEN[name]
    for number in (0, 2):
        write_tar(tmp_path / f"train-{number:06d}.tar", [(f"p{number}", member_bytes(f"p{number}"))])
    (tmp_path / "train-000001.tar").write_bytes(content)
    with pytest.warns(UserWarning, match=message):
        assert keys(make_loader(tmp_path, "train", MINI, 4)) == ["p0", "p2"]
    with pytest.raises(TooManyBadSamples, match=message):
        keys(make_loader(tmp_path, "train", MINI, 4, max_bad=0))


@pytest.mark.parametrize("offset", [0, 100], ids=["between members", "in a member"])
@pytest.mark.parametrize("workers", [0, 1])
def test_half_a_shard_gives_its_half(offset, workers, tmp_path):
    path = tmp_path / "train-000000.tar"
    write_tar(path, [(f"p{i}", member_bytes(f"p{i}")) for i in range(6)])
    with tarfile.open(path) as tar:
        middle = tar.getmember("p3.json")
    path.write_bytes(path.read_bytes()[: middle.offset + offset * 6])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a worker warns in its own process
        assert keys(make_loader(tmp_path, "train", MINI, 4, workers=workers)) == ["p0", "p1", "p2"]
    with pytest.raises(TooManyBadSamples, match=r"train-000000\.tar"):
        keys(make_loader(tmp_path, "train", MINI, 4, workers=workers, max_bad=0))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("train", [False, True])
def test_nothing_but_broken_shards_is_an_error_not_an_empty_or_endless_loader(workers, train, tmp_path):
    from dpose.cli import _one_line

    for number in range(3):
        (tmp_path / f"train-{number:06d}.tar").write_bytes(b"no tar" * 1000)
    with warnings.catch_warnings(), pytest.raises(ValueError) as error:
        warnings.simplefilter("ignore")
        next(iter(make_loader(tmp_path, "train", MINI, 2, train=train, workers=workers)))
    line = _one_line(error.value)
    assert line.startswith(f"{tmp_path}: not one sample could be read; {tmp_path}/train-00000")
    assert "\n" not in line and "Traceback" not in line


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("train", [False, True])
def test_a_damaged_sample_is_borne_by_a_worker_that_has_no_other(workers, train, tmp_path):
    """Two samples and two workers: the second worker's share is the damaged one."""
    members = member_bytes("b")
    write_tar(tmp_path / "train-000000.tar", [("a", member_bytes("a")), ("b", cut(members, "jpg"))])
    options = {"train": train, "workers": workers, "infinite": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert keys(make_loader(tmp_path, "train", MINI, 1, **options)) == ["a"]
        if train:
            endless = make_loader(tmp_path, "train", MINI, 2, train=True, workers=workers)
            assert keys(itertools.islice(endless, 3)) == ["a"] * 6
    with pytest.raises(TooManyBadSamples, match=r"train-000000\.tar: b: jpg"):
        keys(make_loader(tmp_path, "train", MINI, 1, max_bad=0, **options))


@pytest.fixture
def one_lost(tmp_path):
    """Three shards of 30 people each by the manifest; the second is garbage of the right size."""
    rng = np.random.default_rng(0)
    people = [random_sample(rng, f"p{i:02d}") for i in range(90)]
    paths = write_shards(people, tmp_path, "train", per_shard=30)
    paths[1].write_bytes(b"x" * paths[1].stat().st_size)
    manifest = json.loads(json.dumps(write_manifest(tmp_path, [row_of(path) for path in paths])))
    assert [row["samples"] for row in manifest["shards"]] == [30, 30, 30]
    return tmp_path


def row_of(path):
    return shard_row(path.name, path, 30)


def test_a_lost_shard_counts_once_and_apart_from_unreadable_samples(one_lost):
    with pytest.warns(UserWarning, match="30 samples.*shards.*: 1.*train-000001"):
        assert len(keys(make_loader(one_lost, "train", MINI, 10, max_bad=1))) == 60
    with pytest.raises(TooManyBadSamples, match="damaged shards.*: 1 .limit 0.*train-000001"):
        keys(make_loader(one_lost, "train", MINI, 10, max_bad=0))
    path = one_lost / "train-000002.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xd8\xff")
    data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning):
        assert len(keys(make_loader(one_lost, "train", MINI, 10, max_bad=1))) == 59
    at = data.index(b"\xff\xd8\xff", at)
    data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    with (
        pytest.warns(UserWarning),
        pytest.raises(TooManyBadSamples, match="unreadable samples.*: 2 .limit 1"),
    ):
        keys(make_loader(one_lost, "train", MINI, 10, max_bad=1))


def test_the_means_of_a_training_set_bear_as_much_as_they_are_told(one_lost):
    with pytest.warns(UserWarning, match="train-000001"):
        assert training_means(one_lost, MINI, samples=90, max_bad=1).samples == 60
    with pytest.raises(TooManyBadSamples, match="limit 0"):
        training_means(one_lost, MINI, samples=90, max_bad=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_header_destroyed_in_mid_shard_does_not_end_it_unnoticed(workers, tmp_path):
    """tarfile takes bytes that are no header for the end of the file, and so does a header of zeros."""
    for content, listed in ((b"\x99" * 512, True), (bytes(512), True), (b"\x99" * 512, False)):
        samples = [random_sample(np.random.default_rng(0), f"p{i}") for i in range(6)]
        (path,) = write_shards(samples, tmp_path, "train")
        if listed:
            write_manifest(tmp_path)
        else:
            (tmp_path / "manifest.json").unlink()
        with tarfile.open(path) as tar:
            at = tar.getmember("p3.jpg").offset
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(content)
        with pytest.raises(TooManyBadSamples, match=r"train-000000\.tar"):
            keys(make_loader(tmp_path, "train", MINI, 2, workers=workers, max_bad=0))


def test_data_of_an_older_dpose_and_frames_without_shards_say_what_to_run(tmp_path):
    write_shards([random_sample(np.random.default_rng(0))], tmp_path / "old", "train")
    write_manifest(tmp_path / "old", generator="dpose.data.synthetic", version=1)
    with pytest.raises(ValueError, match="old.*dpose synth"):
        make_loader(tmp_path / "old", "train", MINI, 1)
    (tmp_path / "frames" / "labels").mkdir(parents=True)
    (tmp_path / "frames" / "labels" / "scene.npz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="frames.*dpose prepare"):
        make_loader(tmp_path / "frames", "train", MINI, 1)


def test_a_source_says_which_bodies_its_labels_belong_to(tmp_path):
    write_shards([random_sample(np.random.default_rng(0))], tmp_path, "train")
    assert find_source(tmp_path, "train").bodies == {}
    records = {"open": {"name": "open", "hash": "0" * 16}}
    write_manifest(tmp_path, bodies=records)
    assert find_source(tmp_path, "train").bodies == records


def die(sample, epoch):
    os._exit(1)


def fail(sample, epoch):
    raise KeyError("a mistake of ours")


def test_a_worker_that_dies_ends_the_loader_with_a_message(two_sets):
    loader = make_loader(two_sets, "train", MINI, 2, train=True, workers=1)
    loader.dataset.prepare = die
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        next(iter(loader))


def test_any_error_in_a_worker_is_told_in_one_line_and_the_loader_can_begin_again(two_sets):
    from dpose.cli import _one_line

    loader = make_loader(two_sets, "train", MINI, 2, train=True, workers=1)
    prepare, loader.dataset.prepare = loader.dataset.prepare, fail
    with pytest.raises(KeyError) as error:
        next(iter(loader))
    assert "a mistake of ours" in _one_line(error.value)
    loader.dataset.prepare = prepare
    assert len(next(iter(loader))["key"]) == 2


def test_shards_of_an_unfinished_preparation_are_read_with_a_warning(tmp_path):
    write_shards([random_sample(np.random.default_rng(0))], tmp_path, "train")
    (tmp_path / "train-000000.json").write_text("{}")
    with pytest.warns(UserWarning, match="manifest.*dpose prepare"):
        make_loader(tmp_path, "train", MINI, 1)


def test_the_statistics_of_a_split_do_not_stop_at_its_first_shards(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(4):
        people = [random_sample(rng, f"p{number}-{i}", betas=np.full(11, number)) for i in range(5)]
        write_shards(people, tmp_path, "train", start=number)
    statistics = training_means(tmp_path, MINI, samples=8)
    assert statistics.samples == 8
    torch.testing.assert_close(statistics.betas, torch.full((11,), 1.5))
