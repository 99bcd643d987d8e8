"""Resuming: the batches after any other are the uninterrupted stream's, and nothing skipped is decoded."""

import itertools
import json
import warnings

import cv2
import numpy as np
import pytest
import torch
from data_people import keys, random_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_files import write_manifest, write_shards
from test_data_stream import MadeUp

from dpose.config import MINI
from dpose.data import sources, streams
from dpose.data.loader import Progress, make_loader
from dpose.data.sources import TooManyBadSamples
from dpose.data.streams import SampleStream

pytestmark = pytest.mark.filterwarnings("ignore:skipped")


# --- the order of names, without pictures -------------------------------------------------------------------


class Names(SampleStream):
    def prepare(self, sample, epoch):
        return {"name": (sample, epoch)}


def made_up_stream(sizes, bad, weights, **changes):
    """A stream over a source for each list of shard sizes; bad: share of samples that cannot be decoded."""
    found = []
    for name, own in zip("ab", sizes, strict=False):
        names = [f"{name}{i}-{k}" for i, size in enumerate(own) for k in range(size)]
        spoilt = np.random.default_rng(7).random(len(names)) < bad
        faulty = frozenset(itertools.compress(names, spoilt))
        found.append(MadeUp(name, list(range(len(own))), list(own), sizes=tuple(own), bad=faulty))
    options = {"shuffle": 5, "augment": None, "infinite": True, "seed": 3, "epoch": 2, "depth_rule": "paper"}
    options |= {"max_bad": 1000, "limit": None, "spread": None}
    return Names(found, weights[: len(found)], MINI, **(options | changes))


def batches_of(make, workers, size, count, state=None, ranks=(0, 1)):
    """`count` batches (names, position) as a DataLoader of `workers` would give them."""
    consumers = []
    for worker in range(workers):
        stream = make()
        stream.rank, stream.world = ranks
        stream.start = state
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "worker_of_process", lambda own=worker: (own, workers))
            rows = iter(stream)
            first = next(rows)  # a generator: it asks for its worker at the first sample
        consumers.append(itertools.chain([first], rows))
    for number in range(count):
        rows = list(itertools.islice(consumers[number % workers], size))
        yield {"name": [row["name"] for row in rows], "position": rows[-1]["position"]}


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), min_size=1, max_size=2),
    bad=st.sampled_from([0.0, 0.2, 0.7]),
    workers=st.integers(1, 4),
    ranks=st.sampled_from([(0, 1), (1, 2)]),
    size=st.integers(1, 7),
    taken=st.integers(1, 30),
    shuffle=st.sampled_from([0, 1, 5, 100]),
    limit=st.sampled_from([None, None, 4]),
)
def test_a_stream_resumed_after_any_batch_is_the_uninterrupted_one(
    sizes, bad, workers, ranks, size, taken, shuffle, limit
):
    def make():
        return made_up_stream(sizes, bad, [0.3, 0.7], shuffle=shuffle, limit=limit)

    try:
        whole = list(batches_of(make, workers, size, taken + 9, ranks=ranks))
    except ValueError as error:
        assert "not one sample could be read" in str(error)
        return
    progress = Progress(workers)
    for batch in whole[:taken]:
        progress.update(batch)
    state = json.loads(json.dumps(progress.state()))
    rest = list(batches_of(make, workers, size, 9, state, ranks))
    assert [batch["name"] for batch in rest] == [batch["name"] for batch in whole[taken:]]
    resumed, straight = Progress(workers), Progress(workers)
    for batch in whole:
        straight.update(batch)
    for batch in rest:
        resumed.update(batch)
    assert resumed.state() == straight.state()


def test_a_worker_without_a_readable_sample_reads_the_share_of_another():
    everything = ["a0-0", "a0-1"]

    def names(workers, bad):
        source = MadeUp("a", [0], [2], sizes=(2,), bad=frozenset(bad))

        def make():
            return Names(
                [source], [1.0], MINI, shuffle=5, augment=None, infinite=True, seed=0, epoch=0,
                depth_rule="paper", max_bad=20, limit=None, spread=None,
            )  # fmt: skip

        return {name for batch in batches_of(make, workers, 1, 8) for name, _ in batch["name"]}

    for workers in (1, 2, 5):
        assert names(workers, []) == set(everything)
        assert names(workers, ["a0-0"]) == {"a0-1"}
        with pytest.raises(ValueError, match="not one sample could be read.*a0-"):
            names(workers, everything)


# --- batches of real loaders --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two sets of shards, the first with a manifest and three damaged images, the second cut short."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    write_shards([random_sample(rng, f"a{i}", size=40) for i in range(23)], root / "a", "train", per_shard=6)
    write_shards([random_sample(rng, f"b{i}", size=40) for i in range(11)], root / "b", "train", per_shard=4)
    path = root / "a" / "train-000001.tar"
    data, at = bytearray(path.read_bytes()), -1
    for _ in range(3):
        at = data.index(b"\xff\xd8\xff", at + 1)
        data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    write_manifest(root / "a")
    path = root / "b" / "train-000002.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    return root / "a", root / "b"


def load(sets, data, **options):
    data = sets[0] if data == "one set" else list(sets)
    mix = None if data is sets[0] else [2, 1]
    return make_loader(data, "train", MINI, 4, train=True, seed=5, mix=mix, shuffle_buffer=7, **options)


def same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, two[name]), name
        elif name != "position":
            assert value == two[name], name
    return True


@pytest.mark.parametrize(
    ("data", "workers", "world"),
    [("one set", 0, 1), ("one set", 2, 1), ("two sets", 0, 1), ("two sets", 2, 1), ("two sets", 2, 2)],
)
def test_batches_after_resuming_are_bit_for_bit_those_of_the_uninterrupted_loader(sets, data, workers, world):
    def begin(rank, resume=None):
        loader = load(sets, data, workers=workers, resume=resume)
        loader.dataset.rank, loader.dataset.world = rank, world
        return loader

    whole, states = [], []
    for rank in range(world):
        progress = Progress(workers)
        own = list(itertools.islice(begin(rank), 16))
        whole.append(own)
        states.append([])
        for batch in own:
            progress.update(batch)
            states[-1].append(json.loads(json.dumps(progress.state())))
    for taken in (1, 4, 9, 13):  # an epoch of the first set has 5 batches
        for rank in range(world):
            loader = begin(rank, [own[taken - 1] for own in states])
            assert loader.resumed == "exact"
            progress = Progress(workers)
            rest = slice(taken, taken + 6)
            for batch, expected, state in zip(loader, whole[rank][rest], states[rank][rest], strict=False):
                progress.update(batch)
                assert same(batch, expected) and progress.state() == state


def test_nothing_is_decoded_and_no_local_sample_read_while_skipping(sets, monkeypatch):
    loader, progress = load(sets, "two sets"), Progress(0)
    for batch in itertools.islice(loader, 30):
        progress.update(batch)
    decoded, read, real_decode, real_grouped = [], [], cv2.imdecode, sources._grouped

    def decode(*args):
        decoded.append(args)
        return real_decode(*args)

    def grouped(files):
        for members in real_grouped(files):
            read.append(isinstance(members["json"], bytes))
            yield members

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(sources, "_grouped", grouped)
    next(iter(load(sets, "two sets", resume=[progress.state()])))
    assert len(decoded) <= 4 * 3 + 3 * 3  # three pictures of each of four samples, and damaged ones
    assert read.count(False) > read.count(True)
    read.clear()
    next(iter(load(sets, "two sets")))
    assert read and all(read)  # in order, as they come: not one by one from all over the disk


@pytest.mark.parametrize(
    "change", ["workers", "ranks", "a rank's state", "seed", "shuffle_buffer", "mix", "data"]
)
def test_another_stream_begins_a_new_epoch(sets, change, tmp_path):
    loader, progress = load(sets, "two sets"), Progress(0)
    for batch in itertools.islice(loader, 20):
        progress.update(batch)
    state = progress.state()
    epochs = [epoch for epoch, *_ in state["positions"][0]["sources"]]
    options = {"train": True, "seed": 5, "mix": [2, 1], "shuffle_buffer": 7, "resume": [state]}
    options |= {"workers": {"workers": 2}, "seed": {"seed": 6}, "mix": {"mix": [1, 1]}}.get(change, {})
    options |= {"shuffle_buffer": 8} if change == "shuffle_buffer" else {}
    if change in ("ranks", "a rank's state"):
        options["resume"] = [state, state if change == "ranks" else None]
    data = list(sets)
    if change == "data":
        write_shards([random_sample(np.random.default_rng(0), "c", size=40)], tmp_path, "train")
        data[1] = tmp_path
    loader = make_loader(data, "train", MINI, 4, **options)
    assert loader.resumed == "new order"
    batch = next(iter(loader))
    assert batch["position"]["begin"] == max(epochs) + 1 and loader.resumed == "new order"
    again = Progress(options.get("workers", 0))
    again.update(batch)
    assert again.state()["batches"] == 1


def test_without_a_state_a_loader_begins_at_the_beginning(sets):
    assert Progress(2).state() is None
    for resume in (None, [], [None]):
        loader = load(sets, "one set", resume=resume)
        assert loader.resumed is None
        assert same(next(iter(loader)), next(iter(load(sets, "one set"))))


def test_faults_before_resuming_count_in_the_epoch_they_are_of(sets):
    def batches_before_giving_up(resume=None):
        loader = make_loader(
            sets[0], "train", MINI, 1, train=True, seed=5, shuffle_buffer=7, max_bad=2, resume=resume
        )
        progress, states = Progress(0), []
        with pytest.raises(TooManyBadSamples):
            for batch in loader:
                progress.update(batch)
                states.append(progress.state())
        return states

    states = batches_before_giving_up()
    assert {state["positions"][0]["sources"][0][2] for state in states} == {0, 1, 2}
    for taken, state in enumerate(states[:-1], 1):
        assert len(batches_before_giving_up([state])) == len(states) - taken


def test_data_that_have_lost_samples_go_on_with_the_next_epoch(sets):
    loader, progress = load(sets, "one set"), Progress(0)
    for batch in itertools.islice(loader, 3):
        progress.update(batch)
    state = progress.state()
    state["positions"][0]["sources"][0][1] = 10_000
    with pytest.warns(UserWarning, match="fewer samples"):
        batch = next(iter(load(sets, "one set", resume=[state])))
    assert batch["position"]["sources"][0][0] == 1


HOSTILE = [
    5, [], {}, "state",
    *({"batches": value} for value in (-1, 10**400, "1", None, True, 0.5)),
    *({"workers": value} for value in (0, 2, "1")),
    *({"positions": value} for value in (None, [], [5], [{}], [{"drawn": 1, "sources": 5}], [None, None])),
    *({"positions": [{"drawn": 1, "sources": value}]} for value in ([], [[1]], [[0, -1, 0]], [["a", 1, 2]])),
    {"order": 5},
]  # fmt: skip


@pytest.mark.parametrize("state", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_state_is_refused_in_one_sentence(sets, state):
    progress = Progress(0)
    progress.update(next(iter(load(sets, "one set"))))
    if isinstance(state, dict) and state:
        state = progress.state() | state
    with pytest.raises(ValueError, match="^resume: .*state"):
        load(sets, "one set", resume=[state])


def test_batches_out_of_turn_are_not_counted(sets):
    batches = list(itertools.islice(load(sets, "one set", workers=2), 3))
    progress = Progress(2)
    progress.update(batches[0])
    with pytest.raises(ValueError, match="batch 1 .*worker 0"):
        progress.update(batches[2])


def test_only_endless_streams_say_where_they_are_and_can_be_resumed(sets):
    loader = load(sets, "one set", infinite=False)
    assert "position" not in next(iter(loader))
    with pytest.raises(ValueError, match="resume"):
        load(sets, "one set", infinite=False, resume=[{}])


def test_an_epoch_after_resuming_still_has_every_sample_once(sets):
    """The rest of the epoch and what came before it."""
    loader, progress = load(sets, "one set"), Progress(0)
    first = list(itertools.islice(loader, 2))
    for batch in first:
        progress.update(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rest = itertools.islice(load(sets, "one set", resume=[progress.state()]), 3)
        seen = keys(first) + keys(rest)
    assert sorted(seen) == sorted(f"a{i}" for i in range(23) if i not in (6, 7, 8))
