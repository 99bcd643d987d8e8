"""`synth:`: people straight from the generator, the same as in shards, each once, and resumed exactly."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from data_people import keys

from dpose.body import load_body
from dpose.cli import main
from dpose.config import MINI, PAPER
from dpose.data import generated as module
from dpose.data.fingerprint import data_fingerprint, data_samples
from dpose.data.generated import Generated, generated, with_sizes
from dpose.data.loader import Progress, make_loader
from dpose.data.means import training_means
from dpose.data.sources import BadCount, find_source, find_sources, mixture
from dpose.paths import data_root, data_roots
from dpose.synthetic import dataset, generate, scene
from dpose.training import TrainConfig, train
from dpose.training.resume import read_checkpoint

DATA = "synth:seed=3,size=40"
SMALL = replace(MINI, image_size=64)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """The first scenes of DATA as `dpose synth` writes them."""
    root = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "SCENES_PER_SHARD", 8)
        generate(root, {"train": 8}, size=40, seed=3, frames=0, workers=1, progress=False)
    return root


def stored(root: Path) -> list[dict]:
    source = find_source(root, "train")
    return [source.decode(item) for item in source.read(0, BadCount(0, 0))]


def load(data=DATA, batch_size=4, **options):
    return make_loader(data, "train", SMALL, batch_size, **({"train": True, "seed": 5} | options))


def taken(count, **options):
    return list(itertools.islice(load(**options), count))


# --- which people -------------------------------------------------------------------------------------------


def test_the_people_are_those_that_synth_writes_up_to_jpeg(shards):
    expected = stored(shards)
    people = list(itertools.islice(generated(DATA).people([0, 0, 0], 0, 1), len(expected)))
    assert len(people) > 8
    for one, other in zip(people, expected, strict=True):
        label = {name: value for name, value in other["label"].items() if name != "depth_range"}
        assert one["label"].keys() == label.keys()
        assert all(np.array_equal(one["label"][name], label[name]) for name in label)
        assert (one["parts"] == other["parts"]).all()
        assert np.abs(one["image"].astype(int) - other["image"]).mean() < 6  # of 255
    batch = next(iter(load(batch_size=len(expected), train=False, spread=len(expected))))
    again = next(iter(load(shards, batch_size=len(expected), train=False)))
    for name in ("depth", "parts", "pose", "betas", "trans", "joints2d", "center", "scale", "cam_int"):
        assert torch.equal(batch[name], again[name]), name
    assert batch["key"] == again["key"] and batch["body"] == again["body"]
    assert torch.equal(batch["depth_scaling"], again["depth_scaling"]) and batch["has_depth"].all()


def person_names(scene, size):
    """0 to 3 people of a scene, without pictures."""
    seed, _, index = scene
    return [{"label": {"key": f"{seed}-{index}-{k}"}} for k in range(index % 4)]


@pytest.mark.parametrize("consumers", [1, 2, 3, 7])
def test_consumers_share_the_first_scenes_whatever_their_number(consumers, monkeypatch):
    monkeypatch.setattr("dpose.synthetic.sample_scene", lambda *key: key)
    monkeypatch.setattr("dpose.synthetic.person_samples", person_names)
    monkeypatch.setattr(module, "check_sample", dict)
    found = []
    for consumer in range(consumers):
        people = generated(DATA).people([0, 0, 0], consumer, consumers)
        within = itertools.takewhile(lambda one: int(one["label"]["key"].split("-")[1]) < 40, people)
        found += [one["label"]["key"] for one in within]
    assert sorted(found) == sorted(f"3-{index}-{k}" for index in range(40) for k in range(index % 4))


@pytest.mark.parametrize(("workers", "world"), [(0, 1), (2, 1), (0, 2), (2, 2)])
def test_no_two_processes_render_the_same_people(workers, world):
    found = []
    for rank in range(world):
        loader = load(workers=workers)
        loader.dataset.rank, loader.dataset.world = rank, world
        found += keys(itertools.islice(loader, 2 * max(1, workers)))
    assert len(set(found)) == len(found) == 8 * max(1, workers) * world
    assert max(int(key.split("-")[2]) for key in found) < 2.5 * len(found)  # among the first scenes


def test_the_next_epoch_shows_other_people(monkeypatch):
    monkeypatch.setattr(scene, "MOST_SCENES", 3)
    count = len(list(Generated(3, 40).people([0, 0, 0], 0, 1))) + 2
    batches = taken(count, batch_size=1)
    assert len(set(keys(batches))) == count and keys(batches)[0].startswith("003-train")
    assert keys(batches)[-1].startswith("004-train")
    assert keys(batches)[-1] in {
        sample["label"]["key"] for sample in itertools.islice(Generated(4, 40).people([0, 0, 0], 0, 1), 3)
    }


def test_crops_fit_the_network_unless_a_size_is_given():
    roots = with_sizes(["synth:", "synth:seed=7", "synth:size=99", "/folder"], PAPER.image_size)
    assert roots == (
        "synth:seed=0,size=280",
        "synth:seed=7,size=280",
        "synth:seed=0,size=99",
        Path("/folder"),
    )
    (source,) = load("synth:").dataset.sources
    assert source.size == 80 and source.seed == 0  # 1.25 times 64


# --- resuming -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mixed", [False, True])
def test_batches_after_resuming_are_those_of_the_uninterrupted_loader(shards, workers, mixed):
    options = {"data": [DATA, shards], "mix": [3, 1]} if mixed else {}
    options |= {"workers": workers, "batch_size": 3}
    whole, progress, states = taken(6, **options), Progress(workers), []
    for batch in whole:
        progress.update(batch)
        states.append(json.loads(json.dumps(progress.state())))
    assert len(set(keys(whole))) == 18 or mixed
    for count in (1, 4):
        loader = load(resume=[states[count - 1]], **options)
        assert loader.resumed == "exact"
        again = Progress(workers)
        for batch, expected, state in zip(loader, whole[count:], states[count:], strict=False):
            again.update(batch)
            assert again.state() == state and batch["key"] == expected["key"]
            for name in ("image", "parts", "depth", "joints2d", "center"):
                assert torch.equal(batch[name], expected[name])


def test_nothing_that_is_skipped_is_rendered(monkeypatch):
    real, rendered = dataset.person_samples, []

    def counted(scene, size):
        rendered.append(scene.seed[2])
        return real(scene, size)

    monkeypatch.setattr("dpose.synthetic.person_samples", counted)
    progress = Progress(0)
    for batch in taken(9, batch_size=1):
        progress.update(batch)
    last = rendered[-1]
    rendered.clear()
    taken(1, batch_size=1, resume=[progress.state()])
    assert rendered[0] == last >= 2 and len(rendered) <= 3  # the scene whose people were being taken


def test_a_stream_that_cannot_go_on_exactly_begins_people_not_seen_before():
    progress = Progress(0)
    batches = taken(3)
    for batch in batches:
        progress.update(batch)
    for change in ({"workers": 2}, {"data": "synth:seed=3,size=48"}):
        loader = load(**({"data": DATA, "resume": [progress.state()]} | change))
        assert loader.resumed == "new order"
        assert not set(next(iter(loader))["key"]) & set(keys(batches))


# --- what else is asked of a data set -----------------------------------------------------------------------


def test_its_fingerprint_changes_with_all_it_depends_on(monkeypatch):
    prints = {data_fingerprint(name) for name in ("synth:", "synth:seed=1", "synth:size=48")}
    assert data_fingerprint("synth:seed=0,size=160") == data_fingerprint("synth:") in prints
    monkeypatch.setattr("dpose.synthetic.VERSION", -1)
    prints.add(data_fingerprint("synth:"))
    monkeypatch.undo()
    monkeypatch.setattr(Generated, "bodies", {"open": {"name": "open", "hash": "another"}})
    prints.add(data_fingerprint("synth:"))
    assert len(prints) == 5 and all(len(one) == 16 for one in prints)
    assert data_samples("synth:", "train") is None


def test_it_names_the_open_body_and_has_no_other_split_and_no_end(shards):
    source = find_source("synth:", "train")
    assert source.bodies == {"open": load_body("open").record}
    with pytest.raises(FileNotFoundError, match="synth:.* val"):
        find_source("synth:", "val")
    with pytest.raises(ValueError, match="no end.*--mix"):
        mixture(find_sources(["synth:", shards], "train"), None)
    assert mixture(find_sources(["synth:", shards], "train"), [1, 3]) == [0.25, 0.75]
    with pytest.raises(ValueError, match="no end.*limit"):
        load(train=False)
    with pytest.raises(ValueError, match="no end.*limit"):
        load(limit=5)
    with pytest.raises(ValueError, match="only training"):
        data_root("synth:")
    assert data_roots(["synth:seed=2", "/a"]) == ("synth:seed=2", Path("/a"))


@pytest.mark.parametrize(
    "option",
    ["seed=-1", "seed=4294967296", "size=8", "size=x", "colour=3", "7", "seed=", "?seed=7", "seed=٣"],
)
def test_a_wrong_option_is_named_in_one_line(option, tmp_path, capsys):
    with pytest.raises(ValueError, match="seed=N .* 0 .*size=N .* 16 "):
        make_loader(f"synth:{option}", "train", SMALL, 1)
    assert main(["train", "--data", f"synth:size=20,{option}", "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and option in printed
    assert not (tmp_path / "run").exists()


def test_means_are_those_of_the_first_people(monkeypatch):
    monkeypatch.setattr("dpose.data.means.RENDERED", 12)
    means = training_means(DATA, SMALL)
    poses = [one["label"]["betas"] for one in itertools.islice(Generated(3, 40).people([0, 0, 0], 0, 1), 12)]
    assert means.samples == 12
    assert np.allclose(means.betas, np.mean(poses, 0), atol=1e-6)


class Seen(lightning.Callback):
    """The keys of all samples of a run."""

    def __init__(self):
        self.keys = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.keys += batch["key"]


def test_training_goes_on_with_people_it_has_not_seen(quick, monkeypatch, tmp_path):
    monkeypatch.setattr("dpose.data.means.RENDERED", 2)
    config, seen, straight = replace(quick, data="synth:", workers=1, steps=2), Seen(), Seen()
    result = train(config, callbacks=[seen])
    record = json.loads((Path(config.out) / "run.json").read_text())
    assert record["data_samples"] is None and record["data"] == data_fingerprint("synth:seed=0,size=160")
    assert read_checkpoint(result.resume).config["data_paths"] == ["synth:seed=0,size=160"]
    train(TrainConfig(resume=result.resume, steps=4, progress=False), callbacks=[seen])
    train(replace(config, steps=4, out=tmp_path / "straight"), callbacks=[straight])
    assert seen.keys == straight.keys and len(set(seen.keys)) == 8


def test_a_large_batch_is_not_too_large_for_data_without_end(tmp_path):
    config = TrainConfig(
        preset="mini", data="synth:", batch_size=4096, out=tmp_path / "run", accelerator="cpu"
    )
    assert config.resolve().data == "synth:seed=0,size=160"
