"""Data made in parts: the same files as in one run, in any order, and what a reader is told meanwhile."""

import fcntl
import hashlib
import multiprocessing
import re
from pathlib import Path

import pytest

from dpose.cli import main
from dpose.data.parts import Part, parse_part, read_parts
from dpose.data.shards import read_manifest
from dpose.data.sources import find_source
from dpose.synthetic import dataset, generate

SCENES = {"train": 7, "val": 1}  # of two scenes per shard: four shards, and one


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(dataset, "SCENES_PER_SHARD", 2)


def make(root: Path, part: str | None = None, scenes=SCENES, **options) -> Path:
    options = {"size": 32, "frames": 1, "workers": 1, "progress": False} | options
    return generate(root, scenes, part=part, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """What one run without parts makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "SCENES_PER_SHARD", 2)
        return make(tmp_path_factory.mktemp("whole"))


def hashes(folder: Path) -> dict[str, str]:
    """Of the shards and the manifest."""
    paths = [*folder.glob("*.tar"), *folder.glob("manifest.json")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_make_the_files_of_one_run(whole, tmp_path, order):
    made = set()
    for number in order:
        folder = make(tmp_path, f"{number}/3")
        new = {path.name for path in folder.glob("*.tar")} - made
        assert len(new) == (1 if number == 3 else 2)  # of five shards
        made |= new
        assert (folder / "manifest.json").exists() == (number == order[-1])
    assert hashes(folder) == hashes(whole)
    assert len(list(tmp_path.rglob("open_test.npz"))) == 1


def test_parts_at_the_same_time_make_the_files_of_one_run(whole, tmp_path):
    start = multiprocessing.get_context("fork").Process
    processes = [start(target=make, args=(tmp_path, f"{number}/3")) for number in (1, 2, 3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert hashes(tmp_path / "shards") == hashes(whole)


def test_while_a_part_runs_others_may_begin_but_no_run_of_other_settings(tmp_path, monkeypatch):
    real, begun = dataset._make_shard, []

    def during(*job):
        with open(tmp_path / ".synth.lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(RuntimeError, match="size 32 instead of 48"):
            make(tmp_path, size=48, overwrite=True)
        begun.append(job)
        return real(*job)

    monkeypatch.setattr(dataset, "_make_shard", during)
    make(tmp_path, "1/3", frames=0)
    assert len(begun) == 2


def test_a_reader_is_told_which_parts_are_missing(whole, tmp_path, capsys):
    make(tmp_path, "2/3")
    with pytest.raises(FileNotFoundError, match=r"1, 3 of 3 .*dpose synth .*--part 1/3"):
        find_source(tmp_path, "train")
    make(tmp_path, "1/3")
    assert re.search(r"part 3 of 3 .*--part 3/3", capsys.readouterr().out)
    with pytest.raises(FileNotFoundError, match=r"part 3 of 3 .*--part 3/3"):
        find_source(tmp_path, "train")
    make(tmp_path, "3/3")
    assert sum(find_source(tmp_path, "train").counts) == read_manifest(whole)["splits"]["train"]
    (tmp_path / "shards" / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"not merged.*--part 1/3"):
        find_source(tmp_path, "train")
    make(tmp_path, "1/3")
    assert hashes(tmp_path / "shards") == hashes(whole)


def test_a_part_that_was_interrupted_makes_only_the_rest(whole, tmp_path, monkeypatch):
    real, made = dataset._make_shard, []

    def recorded(*job):
        made.append(job[2:4])
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(*job)

    monkeypatch.setattr(dataset, "_make_shard", recorded)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, "1/2")
    assert not read_parts(tmp_path / "shards")[Part(1, 2)]["complete"]
    make(tmp_path, "1/2")
    assert made == [("train", 0), ("train", 2), ("train", 2), ("val", 0)]
    make(tmp_path, "2/2")
    assert hashes(tmp_path / "shards") == hashes(whole)
    make(tmp_path, "1/2")
    assert made[4:] == [("train", 1), ("train", 3)]


def test_a_run_without_parts_completes_what_parts_have_begun(whole, tmp_path):
    folder = make(tmp_path, "2/3")
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    make(tmp_path)
    assert hashes(folder) == hashes(whole)
    assert times and {path: path.stat().st_mtime_ns for path in times} == times


def test_parts_of_other_settings_are_not_mixed(tmp_path):
    folder = make(tmp_path, "1/2", {"train": 2})
    with pytest.raises(ValueError, match="size 32 instead of 48"):
        make(tmp_path, "2/2", {"train": 2}, size=48)
    with pytest.raises(ValueError, match="size 32 instead of 48"):
        make(tmp_path, "2/2", {"train": 2}, size=48, replace_other=True)
    with pytest.raises(ValueError, match="--overwrite"):
        make(tmp_path, "2/2", {"train": 2}, overwrite=True)
    make(tmp_path, "2/2", {"train": 4})
    assert read_manifest(folder) is None  # the first part is of fewer scenes
    make(tmp_path, "1/2", {"train": 4})
    assert len(read_manifest(folder)["shards"]) == 2


def test_parts_are_counted_from_one_and_belong_to_disjoint_shares():
    jobs = list(range(23))
    for parts in (1, 4, 30):
        shares = [parse_part(f"{number}/{parts}").share(jobs) for number in range(1, parts + 1)]
        assert sorted(job for share in shares for job in share) == jobs
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "/", "", "3", "-1/4", "1/4/5", "a/b", "1/2.5"])
def test_what_is_no_part_is_refused_in_one_line(tmp_path, text, capsys):
    assert main(["synth", "--root", str(tmp_path / "root"), f"--part={text}"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and repr(text) in printed and "3/16" in printed
    assert not (tmp_path / "root").exists()


def test_a_damaged_file_of_a_part_counts_as_missing(whole, tmp_path):
    folder = make(tmp_path, "1/2")
    path = next(folder.glob("part-*.json"))
    for content in ("", "[]", "{}", "5", '{"complete": '):
        path.write_text(content)
        assert read_parts(folder) == {}
