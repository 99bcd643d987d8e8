"""dpose.results: where numbers come from, without a trace in the checkout."""

import os
import subprocess
import sys

import pytest

from dpose import results


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout of a package with one file, as `results` sees its own."""

    def git(*arguments):
        options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    (tmp_path / "dpose").mkdir()
    (tmp_path / "dpose" / "results.py").write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(results, "__file__", str(tmp_path / "dpose" / "results.py"))
    return tmp_path, git("rev-parse", "HEAD")


def test_the_commit_is_the_checkout_s_and_says_if_the_package_was_edited(checkout):
    root, head = checkout
    (root / "notes.txt").write_text("untracked")
    assert results.commit() == head
    (root / "dpose" / "results.py").write_text("2\n")
    assert results.commit() == f"{head}+changes"


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "__file__", str(tmp_path / "dpose" / "results.py"))
    assert results.commit() is None


def test_asking_for_the_commit_writes_nothing_to_the_checkout(checkout):
    """`git status` would refresh the index, locking it, once a file's time has changed."""
    root, _ = checkout
    os.utime(root / "dpose" / "results.py", (1, 1))
    before = (root / ".git" / "index").read_bytes()
    results.commit()
    assert (root / ".git" / "index").read_bytes() == before


def test_provenance_names_versions_hardware_and_the_command_without_its_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/somebody/bin/dpose", "evaluate", "--samples", "3"])
    found = results.provenance()
    assert found["command"] == "dpose evaluate --samples 3"
    assert found["libraries"]["numpy"] == __import__("numpy").__version__
    assert found["hardware"]["cores"] == os.cpu_count()
    assert results.provenance(["a/b", "c"])["command"] == "b c" and results.provenance([])["command"] == ""


@pytest.mark.parametrize(("content", "error"), [(None, FileNotFoundError), ("{", ValueError)])
def test_a_missing_or_damaged_results_file_is_named(tmp_path, content, error):
    path = tmp_path / "mini.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match="mini.json"):
        results.read_json(path)


def test_records_name_no_machine():
    value = {"command": "dpose train --data /work/data/v2 --init /a/b/run-1/model.safetensors --out runs/x"}
    kept = ["https://host/data/set", "runs/x", 3, None, "1/2", "~/a/b/c"]
    assert results.portable(value | {"kept": kept, "val": ["/root/.cache/dpose/open"]}) == {
        "command": "dpose train --data data/v2 --init run-1/model.safetensors --out runs/x",
        "kept": kept,
        "val": ["dpose/open"],
    }
    assert "/root" not in results.provenance(["/root/x/tool.py", "--out", "/root/y/z.json"])["command"]
