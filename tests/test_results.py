"""dpose.results: where numbers come from, without a trace in the checkout; records that fit the schema."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from dpose import results
from dpose.evaluate import evaluate
from dpose.io import file_hash
from dpose.model import checkpoint
from dpose.training import recipe

FOLDER = Path(__file__).resolve().parents[1] / "results"


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
    assert (
        results.provenance(["a/b", "c", "d e"])["command"] == "b c 'd e'"
        and results.provenance([])["command"] == ""
    )


@pytest.mark.parametrize(("content", "error"), [(None, FileNotFoundError), ("{", ValueError)])
def test_a_missing_or_damaged_results_file_is_named(tmp_path, content, error):
    path = tmp_path / "mini.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match="mini.json"):
        results.read_json(path)


def test_records_name_no_machine():
    value = {
        "command": "dpose train --data /home/me/data/v2 --init /a/b/run-1/model.safetensors --out runs/x"
    }
    kept = ["https://host/data/set", "runs/x", 3, None, "1/2", "~/a/b/c"]
    assert results.portable(value | {"kept": kept, "val": ["/home/me/.cache/dpose/open"]}) == {
        "command": "dpose train --data data/v2 --init run-1/model.safetensors --out runs/x",
        "kept": kept,
        "val": ["dpose/open"],
    }
    assert "/home" not in results.provenance(["/home/x/tool.py", "--out", "/home/y/z.json"])["command"]


# --- records ----------------------------------------------------------------------------------------------


def records() -> list[Path]:
    """The files in results/ that hold the measurement of a network."""
    paths = [*FOLDER.glob("*.json"), *FOLDER.glob("ablation/*.json"), *FOLDER.glob("encoder/*.json")]
    return [path for path in sorted(paths) if "checkpoint" in json.loads(path.read_text())]


def errors_of(record) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((FOLDER / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return [str(error.message) for error in jsonschema.Draft202012Validator(schema).iter_errors(record)]


@pytest.mark.parametrize("path", records(), ids=lambda path: path.stem)
def test_each_record_in_the_repository_fits_the_schema_and_its_people(path):
    record = results.read_json(path)
    assert not errors_of(record)
    assert "/root" not in path.read_text()
    if record["kind"] == "evaluation":
        people = results.read_people(path)
        assert len(people["key"]) == record["samples"]
        for name in ("mpjpe", "pa_mpjpe", "mve", "orientation"):
            assert people[name].mean() == pytest.approx(record["metrics"][name]["mean"], abs=1e-3)
        assert results.people_path(path).stat().st_size < 60_000


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(FOLDER.rglob("*.json")) if p.name != "schema.json" and p not in records()],
    ids=lambda path: path.stem,
)
def test_each_benchmark_and_trial_tells_where_its_numbers_come_from(path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((FOLDER / "schema.json").read_text())
    part = {"$ref": "#/$defs/provenance", "$defs": schema["$defs"]}
    record = json.loads(path.read_text())
    for entry in [record] if "commit" in record else record["cases"]:
        assert not list(jsonschema.Draft202012Validator(part).iter_errors(entry))


@pytest.fixture(scope="module")
def measured(people, trained, tmp_path_factory):
    """A record of `evaluate` as it is read from its file, and its path."""
    path = tmp_path_factory.mktemp("results") / "tiny.json"
    options = {"workers": 0, "device": "cpu", "progress": False, "body": "open"}
    evaluate(trained.checkpoint, people, out=path, **options)
    return results.read_json(path), path


def without(record, *path):
    record = copy.deepcopy(record)
    place = record
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return record


REQUIRED = [
    *(
        ["commit"],
        ["command"],
        ["seconds"],
        ["hardware"],
        ["hardware", "cpu"],
        ["people"],
        ["intervals", "seed"],
    ),
    *(
        ["checkpoint", "sha256"],
        ["data", "fingerprint"],
        ["bodies", "truth"],
        ["bodies", "prediction", "hash"],
    ),
    *(["checkpoint", "metadata", name] for name in ("recipe", "seed", "init", "images", "data", "commit")),
]


def test_a_new_record_fits_the_schema(measured):
    assert not errors_of(measured[0])


@pytest.mark.parametrize("path", REQUIRED, ids=" ".join)
def test_the_schema_needs_every_field_that_tells_where_a_number_comes_from(path, measured):
    assert errors_of(without(measured[0], *path))


def test_the_schema_needs_the_same_of_the_runs_that_a_checkpoint_came_from(measured):
    record = copy.deepcopy(measured[0])
    run = record["checkpoint"]["metadata"]
    origin = {"checkpoint": "model.safetensors", "sha256": 64 * "0", "kind": "dpose"}
    run["init"] = copy.deepcopy(run) | origin
    assert not errors_of(record)
    assert errors_of(without(record, "checkpoint", "metadata", "init", "images"))
    run["init"] = origin | {"kind": "backbone"}
    assert not errors_of(record)


def test_errors_of_people_belong_to_their_record(measured, tmp_path):
    record, path = measured
    people = results.read_people(path)
    assert file_hash(path.with_name("tiny.people.npz")) == record["people"]["sha256"]
    changed = {name: column + 1 if name == "mpjpe" else column for name, column in people.items()}
    out = tmp_path / "new.json"
    written = results.write_record(out, record, changed)
    assert results.read_json(out) == written and written["people"] != record["people"]
    assert (results.read_people(out)["mpjpe"] == people["mpjpe"] + 1).all()
    results.people_path(out).write_bytes(results.people_path(path).read_bytes())
    with pytest.raises(ValueError, match="new.people.npz"):
        results.read_people(out)
    results.people_path(out).unlink()
    with pytest.raises(FileNotFoundError, match="new.people.npz"):
        results.read_people(out)
    out.write_text(json.dumps(without(record, "people")))
    with pytest.raises(ValueError, match="new.json"):
        results.read_people(out)


def test_record_and_errors_of_people_are_replaced_together_or_not_at_all(measured, tmp_path):
    record, path = measured
    people = results.read_people(path)
    out = tmp_path / "r.json"
    results.write_record(out, record, people)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError):  # JSON has no such number
        results.write_record(out, record | {"samples": float("nan")}, {"key": people["key"][:3]})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    (tmp_path / "folder.people.npz").mkdir()
    with pytest.raises(FileExistsError, match="folder.people.npz"):
        results.check_targets(tmp_path / "folder.json")


def test_totals_include_the_runs_that_a_checkpoint_came_from():
    first = {
        "recipe": {},
        "images": 100,
        "seconds": 5.0,
        "init": {"checkpoint": "movenet", "kind": "backbone"},
    }
    second = {"recipe": {}, "images": 20, "seconds": 1.5, "init": first}
    assert [run["images"] for run in results.lineage(second)] == [100, 20]
    assert results.totals(second) == {"runs": 2, "images": 120, "seconds": 6.5}
    assert results.totals({"epoch": 3}) == {"runs": 0, "images": 0, "seconds": 0}


@pytest.fixture
def lite():
    """What a record of the shipped network measured today says, as far as `stale` reads it."""
    metadata = checkpoint.metadata("lite")
    used = json.loads(json.dumps(asdict(recipe("lite")))) | {"steps": 7, "lr": 1e-3, "precision": "bf16"}
    return {
        "dataset": "elsewhere",
        "checkpoint": {
            "name": "lite",
            "sha256": file_hash(checkpoint.resolve("lite")),
            "metadata": metadata | {"recipe": used},
        },
        "data": {"fingerprint": "0" * 16, "generator": generator_version()},
    }


def generator_version() -> int:
    from dpose.synthetic import VERSION

    return VERSION


def test_a_record_of_today_is_not_stale(lite):
    assert results.stale(lite) == []


def test_a_record_of_other_weights_data_backbone_or_recipe_is_stale_and_says_which(lite):
    def reason(change):
        record = copy.deepcopy(lite)
        change(record)
        (found,) = results.stale(record)
        return found

    def start(record):
        return results.lineage(record["checkpoint"]["metadata"])[0]["init"]

    run = lite["checkpoint"]["metadata"]
    assert "lite" in reason(lambda r: r["checkpoint"].update(sha256="0" * 64))
    assert "version 2" in reason(lambda r: r["data"].update(generator=2))
    run_recipe = reason(lambda r: r["checkpoint"]["metadata"]["recipe"]["weights"].update(lambda_4=0.5))
    assert "weights.lambda_4" in run_recipe
    assert "no-such" in reason(lambda r: r["checkpoint"]["metadata"].update(preset="no-such"))
    assert "invented" in reason(lambda r: r["checkpoint"]["metadata"]["recipe"].update(invented=1))
    assert "backbone" in reason(lambda r: start(r).update(sha256="0" * 64)) and run["preset"] == "lite"


def test_the_data_in_the_default_place_are_compared(lite, people, monkeypatch):
    manifest = people / "shards" / "manifest.json"
    content = json.loads(manifest.read_text()) | {
        "generator": "dpose.synthetic",
        "version": generator_version(),
    }
    monkeypatch.setenv("DPOSE_DATA", str(people))
    monkeypatch.setattr("dpose.data.shards.read_manifest", lambda folder: content)
    lite["dataset"] = people.name
    assert "fingerprint" in results.stale(lite)[0]
    from dpose.data.fingerprint import data_fingerprint

    lite["data"]["fingerprint"] = data_fingerprint(people)
    assert results.stale(lite) == []


def test_a_variant_of_an_experiment_has_a_recipe_of_its_own(lite):
    from dpose.experiment import ABLATION

    for variant in ABLATION.variants.values():
        own = ABLATION.recipe(variant)
        lite["checkpoint"]["metadata"]["recipe"] = json.loads(json.dumps(asdict(own))) | {"steps": 3}
        lite["checkpoint"]["metadata"]["preset"] = variant.preset
        assert results.stale(lite, own) == []
        assert results.stale(lite)  # warm-up, and for one variant the losses
